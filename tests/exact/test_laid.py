"""Matrices that are laid out once multiply as they did, by either library."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from tests.exact.cheaper import SUBJECTS, bytes_packed, fresh, plainly, traces
from tests.exact.reference import NUCLEUS, assert_same
from traitscope.engine import gated, laid, packing
from traitscope.engine.laid import ENDS, NO_END, Laid, lay

LIBRARIES = ("oneDNN", "MKL")


@pytest.fixture(params=LIBRARIES)
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    by_mkl = request.param == "MKL"
    if by_mkl and not laid._mkl_is_better():
        pytest.skip("not of this processor")
    monkeypatch.setattr(laid, "_mkl_is_better", lambda: by_mkl)
    packing._known.clear()
    yield request.param
    packing._known.clear()


def matrix(rows: int, columns: int) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows))


@pytest.mark.parametrize("end", [NO_END, *ENDS])
@pytest.mark.parametrize("rows", [1, 2, 5, 24, 64, 131, 257, 700])
@torch.inference_mode()
def test_products_are_the_plain_ones(library: str, rows: int, end: tuple[str, str]) -> None:
    weight_OI, bias_O = matrix(520, 770), matrix(520, 1)[:, 0]
    made = lay(weight_OI)
    assert made.by_mkl == (library == "MKL")
    assert made.size == (520, 770)
    x_1NI = matrix(rows, 770)[None]
    for bias in (None, bias_O):
        wanted = torch.nn.functional.linear(x_1NI.double(), weight_OI.double())
        wanted = wanted if bias is None else wanted + bias.double()
        ended = wanted if end == NO_END else ENDS[end](wanted.clone())
        near = 1e-5 * float(wanted.abs().max())
        assert float((made.product(x_1NI, bias, end) - ended).abs().max()) <= near
        times = matrix(rows, 520)[None]
        both = made.product(x_1NI, bias, times=times)
        assert float((both - wanted * times.double()).abs().max()) <= 4 * near


@torch.inference_mode()
def test_inputs_need_not_lie_in_a_row(library: str) -> None:
    weight_OI, x_ABI = matrix(300, 96), matrix(80, 96).view(8, 10, 96).transpose(0, 1)
    made = lay(weight_OI)
    for x in (x_ABI, x_ABI[:, ::2], matrix(96, 40).T):
        wanted = torch.nn.functional.linear(x, weight_OI)
        assert made.product(x).shape == wanted.shape
        torch.testing.assert_close(made.product(x), wanted, rtol=0, atol=1e-4)


def test_whatever_the_threads(library: str) -> None:
    """Laid out with some, multiplied with others; and by several at once."""
    weight_OI, x_NI, before = matrix(1500, 600), matrix(90, 600), torch.get_num_threads()
    wanted = torch.nn.functional.linear(x_NI, weight_OI)
    try:
        for there, here in ((2, 1), (1, 2), (1, 3)):
            torch.set_num_threads(there)
            made = lay(weight_OI)
            torch.set_num_threads(here)
            torch.testing.assert_close(made.product(x_NI), wanted, rtol=0, atol=1e-3)

        def product(_: int) -> torch.Tensor:
            with torch.inference_mode():
                return made.product(x_NI)

        with ThreadPoolExecutor(4) as pool:
            for found in pool.map(product, range(40)):
                torch.testing.assert_close(found, wanted, rtol=0, atol=1e-3)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("name", SUBJECTS)
@pytest.mark.usefixtures("everything_is_large")
def test_a_model_is_the_same_by_either(
    name: str, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = fresh(name)
    made = traces(subject)
    by = {
        one.by_mkl for held in packing._known.values() for p in held.values() for one in p.weights
    }
    assert by == {library == "MKL"}
    assert bytes_packed() > 0
    for generation, trace in plainly(monkeypatch, lambda: traces(subject)).items():
        assert_same(subject, made[generation], trace, NUCLEUS)


@pytest.mark.usefixtures("everything_is_large")
def test_gated_products_are_made_by_either(library: str) -> None:
    subject = fresh("gemma2")
    traces(subject)
    held = [gated._held[block.mlp] for block in subject.anatomy.blocks]
    assert all(one.holds for one in held)


# --- which of them -------------------------------------------------------------------------------


def better() -> bool:
    return laid._mkl_is_better.__wrapped__()  # what is cached was asked before


@pytest.fixture
def intel(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if it were a processor of the kind."""
    monkeypatch.setattr(laid, "is_intel", lambda: True)
    monkeypatch.setattr(torch.cpu, "_is_avx512_supported", lambda: True)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)


@pytest.mark.usefixtures("intel")
def test_a_library_whose_products_differ_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    if not better():
        pytest.skip("not of this processor")
    own = laid._by_mkl

    def wrong(x: torch.Tensor, packed: torch.Tensor, *others: object) -> torch.Tensor:
        made = own(x, packed, *others)  # type: ignore[arg-type]  # as they come
        return made if len(x) != 130 else made + 1

    monkeypatch.setattr(laid, "_by_mkl", wrong)
    assert not better()


@pytest.mark.usefixtures("intel")
def test_a_torch_without_it_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> None:
        raise RuntimeError("mkl::_mkl_linear is not there")

    monkeypatch.setattr(laid, "_by_mkl", missing)
    assert not better()
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    monkeypatch.setattr(laid, "_holds", None)  # nothing is looked up
    assert not better()


@pytest.mark.usefixtures("intel")
@pytest.mark.parametrize("other", ["is_intel", "avx512"])
def test_other_processors_keep_onednn(other: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where = (laid, "is_intel") if other == "is_intel" else (torch.cpu, "_is_avx512_supported")
    monkeypatch.setattr(*where, lambda: False)
    assert not better()


def test_narrow_dtypes_keep_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(laid, "_mkl_is_better", lambda: True)
    if not packing.has_products(torch.bfloat16):
        pytest.skip("not of this processor")
    made: Laid = lay(matrix(64, 64).bfloat16())
    assert not made.by_mkl
    assert made.nbytes == 2 * 64 * 64
