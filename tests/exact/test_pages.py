"""Large arrays are moved into large pages where a system has them, and stay what they are."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from traitscope.engine import laid, packing, pages
from traitscope.engine.pages import in_large_pages

PAGE = 2 << 20


@pytest.fixture(autouse=True)
def asked_anew() -> Iterator[None]:
    before = pages._long.copy()
    pages._page.cache_clear()
    pages._long.clear()
    yield
    pages._page.cache_clear()
    pages._long[:] = before


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[int, int]]:
    """What a system with such pages is asked to move."""
    seen = list[tuple[int, int]]()

    def madvise(start: Any, size: Any, advice: int) -> int:
        assert advice == 25
        seen.append((start.value, size.value))
        return 0 if len(seen) < 4 else -1

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(pages, "_SETTINGS", tmp_path)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace(madvise=madvise))
    (tmp_path / "enabled").write_text("always [madvise] never\n")
    (tmp_path / "hpage_pmd_size").write_text(f"{PAGE}\n")
    return seen


def test_whole_pages_are_moved_until_one_cannot_be(calls: list[tuple[int, int]]) -> None:
    assert in_large_pages(5 * PAGE - 100, 2 * PAGE + 50) == PAGE
    assert calls == [(5 * PAGE, PAGE)]
    assert in_large_pages(7 * PAGE, PAGE - 1) == 0
    assert in_large_pages(9 * PAGE, 9 * PAGE) == 2 * PAGE
    assert len(calls) == 4


def test_a_system_that_takes_long_is_not_asked_on(
    calls: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "_LONG", -1.0)
    monkeypatch.setattr(pages, "_MOST_LONG", 2)
    assert [in_large_pages(PAGE, 3 * PAGE) for _ in range(4)] == [PAGE, PAGE, 0, 0]
    assert len(calls) == 2


@pytest.mark.parametrize("lacks", ["never", "no such setting", "no number", "macOS"])
def test_where_there_are_none_nothing_is_asked(
    lacks: str, calls: list[tuple[int, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if lacks == "never":
        (tmp_path / "enabled").write_text("always madvise [never]\n")
    elif lacks == "no such setting":
        (tmp_path / "enabled").unlink()
    elif lacks == "no number":
        (tmp_path / "hpage_pmd_size").write_text("\n")
    else:
        monkeypatch.setattr(sys, "platform", "darwin")
    assert in_large_pages(PAGE, 3 * PAGE) == 0
    assert not calls


def test_numbers_stay_what_they_are() -> None:
    here = torch.arange(3 * PAGE // 4)
    moved = in_large_pages(here.data_ptr(), here.nbytes)
    assert moved % PAGE == 0
    assert torch.equal(here, torch.arange(3 * PAGE // 4))
    if moved:
        said = Path("/proc/self/smaps_rollup").read_text()
        (large,) = [line.split()[1] for line in said.splitlines() if line.startswith("AnonHuge")]
        assert 1024 * int(large) >= moved


def test_weights_are_moved_with_what_they_take(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[tuple[int, int]]()
    monkeypatch.setattr(laid, "in_large_pages", lambda *place: asked.append(place))
    for dtype in filter(packing.has_products, (torch.float32, torch.bfloat16)):
        made = laid.lay(torch.randn(700, 300).to(dtype))
        assert asked.pop() == (torch.ops.mkldnn.data_ptr(made.packed), made.nbytes)
