"""Products by packed weights (linear layers, experts, gated MLPs) give a model's own numbers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune
from transformers.integrations import moe

from tests.exact.cheaper import bytes_packed, fresh, n_packed, plainly, touched, traces
from tests.exact.reference import NUCLEUS, assert_same, requests, run
from traitscope.engine import Batching, experts, gated, packing
from traitscope.engine.lean import lean
from traitscope.engine.packing import memory_for_texts, packed_weights
from traitscope.models import Model, wrap_forward

pytestmark = pytest.mark.usefixtures("everything_is_large")


@pytest.mark.parametrize(
    ("machine", "taken", "instructions", "wanted"),
    [
        ("x86_64", True, (True, False, False), True),  # Cooper Lake, Zen 4
        ("AMD64", True, (True, True, True), True),
        ("x86_64", True, (True, False, True), False),  # Sapphire Rapids whose AMX is hidden
        ("x86_64", True, (False, False, False), False),  # AVX-512 alone: by detours
        ("x86_64", False, (False, False, False), False),  # AVX2
        ("aarch64", True, (False, False, False), True),
        ("aarch64", False, (False, False, False), False),
    ],
)
def test_products_in_bfloat16_are_the_processors_own(
    machine: str,
    taken: bool,
    instructions: tuple[bool, bool, bool],
    wanted: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: taken)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: instructions[0])
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: instructions[1])
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_fp16_supported", lambda: instructions[2])
    assert packing.has_products(torch.bfloat16) == wanted
    assert packing.has_products(torch.float32)


@pytest.mark.parametrize(
    ("machine", "wanted"), [("x86_64", True), ("AMD64", True), ("arm64", False)]
)
def test_tiles_are_asked_for_where_they_can_be(
    machine: str, wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert packing.has_tiles() == wanted


# --- packed weights ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_weights_are_exact(dtype: torch.dtype) -> None:
    """Their products are at least as near to the true ones as the layer's own."""
    subject = fresh("llama", dtype)
    layer = subject.anatomy.blocks[0].mlp.down_proj
    x_ND = torch.randn(7, layer.in_features).to(dtype)
    with torch.inference_mode(), packed_weights(subject):
        assert "forward" in vars(layer)
        made = layer(x_ND)
    assert made.dtype == dtype
    true = x_ND.double() @ layer.weight.detach().double().T
    step = torch.finfo(dtype).eps * true.abs().max()
    assert float((made.double() - true).abs().max()) <= float(step)


CHANGES = {
    "all of it, in place": lambda weight: weight.mul_(1.5),
    "all of it, by .data": lambda weight: weight.data.add_(0.3),
    "one row, by .data": lambda weight: weight.data[5].zero_(),
    "one column, by .data": lambda weight: weight.data[:, 41].zero_(),
    "a part of some rows, by .data": lambda weight: weight.data[2:6, 24:40].add_(1),
    "one number, by .data": lambda weight: weight.data[7, 3].add_(5),
    "its place": lambda weight: weight.set_(torch.randn_like(weight)),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_weight_that_changes_is_packed_anew(change: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = fresh("llama")
    before = traces(subject)
    with torch.no_grad():
        change(subject.anatomy.blocks[1].mlp.gate_proj.weight)
    after = traces(subject)
    plain = plainly(monkeypatch, lambda: traces(subject))
    assert any(not np.array_equal(before[g].norm, after[g].norm) for g in after)
    for generation in plain:
        assert_same(subject, after[generation], plain[generation], NUCLEUS)


def test_a_layer_of_somebodys_own_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = fresh("llama")
    layer, seen = subject.anatomy.blocks[0].mlp.up_proj, list[int]()
    own = layer.forward

    def forward(x: torch.Tensor) -> torch.Tensor:
        seen.append(x.shape[0])
        return own(x) * 2

    layer.forward = forward
    with lean(subject):
        assert layer.forward is forward
    assert vars(layer)["forward"] is forward


def test_hooks_on_a_packed_layer_are_called() -> None:
    subject = fresh("llama")
    seen = list[torch.Tensor]()
    layer = subject.anatomy.blocks[0].mlp.up_proj
    layer.register_forward_hook(lambda module, args, output: seen.append(output))
    traces(subject)
    assert seen


def test_a_pruned_layer_is_packed_as_it_is_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its weight is no parameter but what its mask leaves of one."""
    subject = fresh("llama")
    layer = subject.anatomy.blocks[1].mlp.up_proj
    before = traces(subject)
    prune.random_unstructured(layer, "weight", amount=0.5)
    after = traces(subject)
    assert any(not np.array_equal(before[g].norm, after[g].norm) for g in after)
    for generation, trace in plainly(monkeypatch, lambda: traces(subject)).items():
        assert_same(subject, after[generation], trace, NUCLEUS)


def test_gradients_and_empty_inputs_go_the_layers_own_way() -> None:
    subject = fresh("llama")
    layer = subject.anatomy.blocks[0].mlp.up_proj
    with packed_weights(subject):
        x = torch.randn(2, layer.in_features, requires_grad=True)
        layer(x).sum().backward()
        assert x.grad is not None
        with torch.inference_mode():
            assert layer(x[:0]).shape == (0, layer.out_features)
            assert layer(x.double().to(torch.float32)[None]).shape == (1, 2, layer.out_features)


def test_no_more_memory_than_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = fresh("llama")
    sizes = [4 * m.weight.numel() for m in subject.hf.modules() if isinstance(m, nn.Linear)]
    free = int(sum(sizes) / 2 / packing.SHARE)

    def left(device: torch.device) -> int:
        return free - bytes_packed()

    monkeypatch.setattr(packing, "free_memory", left)
    before = memory_for_texts(subject)
    with packed_weights(subject):
        assert 0 < n_packed() < len(sizes)
    taken = bytes_packed()
    assert taken <= packing.SHARE * free
    # what was left for texts is what was said before, but for what no layer fitted into any more
    assert 0 <= left(torch.device("cpu")) - before < max(sizes)
    assert memory_for_texts(subject) == left(torch.device("cpu"))
    packing._known.clear()
    monkeypatch.setattr(packing, "free_memory", lambda device: 0)
    with packed_weights(subject):
        assert n_packed() == 0
        assert touched(subject) == []


def test_a_product_that_differs_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = fresh("llama")
    right = packing.product

    def wrong(x: torch.Tensor, packed: torch.Tensor, bias: Any = None) -> torch.Tensor:
        return right(x, packed, bias) + 0.01

    monkeypatch.setattr(packing, "product", wrong)
    with packed_weights(subject):
        assert touched(subject) == []
    assert packing.packed_stacks(fresh("mixtral")) == {}


@pytest.mark.parametrize("name", ["llama", "mixtral"])
def test_packed_once_for_many_calls(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    subject, made = fresh(name), list[int]()
    pack = packing._pack
    monkeypatch.setattr(packing, "_pack", lambda part: made.append(1) or pack(part))
    traces(subject)
    first = len(made)
    traces(subject)
    assert first > 0
    assert len(made) == first


def test_a_torch_without_these_products_is_enough() -> None:
    """On a Mac: nothing is looked up before it is known to be there."""
    script = """if True:
        import torch

        class Nothing:
            def __getattr__(self, name):
                raise AttributeError(name)

        torch.ops.mkldnn = Nothing()
        torch.backends.mkldnn.is_available = lambda: False
        from tests.exact.reference import NUCLEUS, model, requests, run
        from traitscope.engine import Batching, packed_bytes
        for name in ("gemma2", "mixtral"):
            assert run(model(name), requests((5, 3), (3, 3)), NUCLEUS, Batching(rows=2))
            assert packed_bytes(model(name)) == 0
    """
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# --- layers that read one input -----------------------------------------------------------------


@pytest.fixture
def products(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The sizes of the packed weights that are multiplied by, as it happens."""
    seen, real = list[tuple[int, int]](), packing.product

    def spied(x: torch.Tensor, packed: Any, bias: Any = None) -> torch.Tensor:
        seen.append(packed.size)
        return real(x, packed, bias)

    monkeypatch.setattr(packing, "product", spied)
    return seen


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bias", [False, True])
def test_query_key_and_value_are_one_product(
    dtype: torch.dtype, bias: bool, products: list[tuple[int, int]]
) -> None:
    subject = fresh("llama", dtype, attention_bias=bias)
    attention = subject.anatomy.blocks[0].attention
    layers = [attention.q_proj, attention.k_proj, attention.v_proj]
    if bias:
        for layer in layers:
            nn.init.normal_(layer.bias)
    x, other = torch.randn(2, 3, 5, subject.anatomy.d_model).to(dtype).unbind()
    whole = (sum(layer.out_features for layer in layers), subject.anatomy.d_model)
    orders = [
        ([(0, x), (1, x), (2, x)], 1),
        ([(0, x), (1, x), (2, other), (2, x)], 1),
        ([(1, other), (2, other)], 0),
        ([(0, x), (0, other), (1, x), (2, other), (2, other)], 2),
    ]
    with torch.inference_mode(), packed_weights(subject) as packed:
        assert not set(layers) & set(packed)
        for order, often in orders:
            products.clear()
            for place, given in order:
                layer = layers[place]
                wanted = nn.functional.linear(given, layer.weight, layer.bias)
                near = packing.ALLOWED[dtype] * float(wanted.abs().max())
                torch.testing.assert_close(layer(given), wanted, rtol=0, atol=near)
            assert products == [whole] * often
        assert layers[0](x[:0]).shape == (0, 5, layers[0].out_features)
    assert touched(subject) == []


def test_a_key_that_changes_is_packed_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of three that are one product; and one that is a layer like the others no more."""
    subject = fresh("llama")
    before, attention = traces(subject), subject.anatomy.blocks[1].attention

    class Doubled(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(x)

    def another() -> None:
        attention.v_proj.__class__ = Doubled

    for change in (attention.k_proj.weight.data[3].zero_, another):
        change()
        after = traces(subject)
        assert any(not np.array_equal(before[g].norm, after[g].norm) for g in after)
        for generation, trace in plainly(monkeypatch, lambda: traces(subject)).items():
            assert_same(subject, after[generation], trace, NUCLEUS)
        before = after


@pytest.mark.parametrize("part", ["q_proj", "k_proj", "v_proj"])
def test_who_watches_one_of_three_sees_and_changes_it(
    part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = fresh("qwen2")
    layer, seen = getattr(subject.anatomy.blocks[0].attention, part), list[torch.Tensor]()

    def half(module: Any, args: Any, output: torch.Tensor) -> torch.Tensor:
        seen.append(output)
        return output / 2

    own = traces(subject)
    layer.register_forward_hook(half)
    made, often = traces(subject), len(seen)
    assert often
    assert any(not np.array_equal(own[g].norm, made[g].norm) for g in made)
    for generation, trace in plainly(monkeypatch, lambda: traces(subject)).items():
        assert_same(subject, made[generation], trace, NUCLEUS)


@pytest.mark.parametrize("part", ["q_proj", "k_proj", "v_proj"])
def test_who_changes_an_input_in_its_place_changes_it(
    part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = fresh("llama")
    layer = getattr(subject.anatomy.blocks[1].attention, part)
    before = traces(subject)

    def more(module: Any, args: Any) -> None:
        args[0].mul_(1.5)

    layer.register_forward_pre_hook(more)
    made, plain = traces(subject), plainly(monkeypatch, lambda: traces(subject))
    assert any(not np.array_equal(before[g].norm, made[g].norm) for g in made)
    for generation, trace in plain.items():
        assert_same(subject, made[generation], trace, NUCLEUS)


def test_a_bias_that_changes_is_added_as_it_is_now() -> None:
    subject = fresh("qwen2")
    attention, x = subject.anatomy.blocks[0].attention, torch.randn(1, 3, 48)
    with torch.inference_mode(), packed_weights(subject):
        before = [layer(x) for layer in (attention.q_proj, attention.k_proj)]
        attention.k_proj.bias.data.add_(5)
        after = [layer(x) for layer in (attention.q_proj, attention.k_proj)]
    assert torch.equal(before[0], after[0])
    torch.testing.assert_close(before[1] + 5, after[1])


def test_threads_have_their_own_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two that go through one block at once, the slower one's product ends last."""
    subject = fresh("llama")
    attention, started, done = subject.anatomy.blocks[0].attention, Event(), Event()
    real = packing.product

    def slowly(x: torch.Tensor, packed: Any, bias: Any = None) -> torch.Tensor:
        made = real(x, packed, bias)
        if len(x) == 1:
            started.set()
            done.wait(10)
        return made

    def keys(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.inference_mode():
            return attention.q_proj(x), attention.k_proj(x)

    with packed_weights(subject), ThreadPoolExecutor(1) as other:
        monkeypatch.setattr(packing, "product", slowly)
        slow, fast = torch.randn(1, 3, 48), torch.randn(2, 3, 48)
        waiting = other.submit(keys, slow)
        assert started.wait(10)
        with torch.inference_mode():
            query = attention.q_proj(fast)
            done.set()
            waiting.result()
            key = attention.k_proj(fast)
    torch.testing.assert_close(query, nn.functional.linear(fast, attention.q_proj.weight))
    torch.testing.assert_close(key, nn.functional.linear(fast, attention.k_proj.weight))
    for made, layer in zip(waiting.result(), (attention.q_proj, attention.k_proj), strict=True):
        torch.testing.assert_close(made, nn.functional.linear(slow, layer.weight))


def test_no_weight_is_kept_twice() -> None:
    """A group that falls apart, and is one again."""
    subject = fresh("llama")
    layer = subject.anatomy.blocks[0].attention.v_proj
    own = layer.forward
    for _ in range(2):
        with packed_weights(subject):
            assert bytes_packed() == packing.packed_bytes(subject)
        layer.forward = lambda x: own(x)
        with packed_weights(subject):
            pass
        del layer.forward
    with packed_weights(subject):
        assert bytes_packed() == packing.packed_bytes(subject)


# --- experts -------------------------------------------------------------------------------------


@pytest.fixture
def by_experts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tokens each product of an expert's packed weight has, as they are made."""
    seen = list[int]()

    def spied(x: torch.Tensor, packed: torch.Tensor) -> torch.Tensor:
        seen.append(len(x))
        return packing.product(x, packed)

    monkeypatch.setattr(experts, "product", spied)
    return seen


MIXTURES = ["mixtral", "gpt_oss", "qwen3_moe", "deepseek_v3", "granitemoe", "olmoe", "phimoe"]


@pytest.mark.parametrize("name", MIXTURES)
def test_experts_multiply_by_packed_weights(
    name: str, by_experts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they lie in most models, and the other way round, with a bias, in gpt-oss."""
    subject = fresh(name)
    made = traces(subject)
    assert by_experts
    often = len(by_experts)
    for generation, trace in plainly(monkeypatch, lambda: traces(subject)).items():
        assert_same(subject, made[generation], trace, NUCLEUS)
    assert len(by_experts) == often
    assert packing.packed_bytes(subject) == bytes_packed()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("products", [True, False])
@pytest.mark.parametrize("name", ["mixtral", "gpt_oss"])
def test_experts_in_every_dtype(
    name: str,
    dtype: torch.dtype,
    products: bool,
    by_experts: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if products and not packing.has_products(dtype):
        pytest.skip("not of this processor")
    monkeypatch.setattr(packing, "has_products", lambda dtype: products or dtype == torch.float32)
    subject = fresh(name, dtype)
    (layer,) = [m for m in subject.anatomy.blocks[0].mlp.modules() if hasattr(m, "has_gate")]
    x_ND = torch.randn(40, subject.anatomy.d_model).to(dtype)
    place_NK = torch.stack([torch.randperm(4)[:2] for _ in range(40)])
    place_NK = place_NK.masked_fill(place_NK == 3, 0)  # which one nobody goes to
    given = x_ND, place_NK, torch.rand(40, 2).to(dtype)
    with torch.inference_mode():
        wanted = layer(*given)
        with lean(subject):
            made = layer(*given)
    assert made.dtype == dtype
    assert len(by_experts) == 2 * 3
    apart, size = float((made - wanted).abs().max()), float(wanted.abs().max())
    assert apart <= 2 * packing.ALLOWED[dtype] * size
    known = packing._known[layer]
    assert {w.dtype for part in known.values() for w in part.weights} == {
        dtype if products else torch.float32
    }


def test_experts_that_change_are_packed_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = fresh("qwen3_moe")
    before = traces(subject)
    for change in (lambda weight: weight.mul_(1.5), lambda weight: weight.data[2, 1].zero_()):
        with torch.no_grad():
            change(subject.anatomy.blocks[1].mlp.experts.down_proj)
        after = traces(subject)
        assert any(not np.array_equal(before[g].norm, after[g].norm) for g in after)
        for generation, trace in plainly(monkeypatch, lambda: traces(subject)).items():
            assert_same(subject, after[generation], trace, NUCLEUS)
        before = after


def test_experts_with_gradients_go_their_own_way(by_experts: list[int]) -> None:
    subject = fresh("mixtral")
    mlp: Any = subject.anatomy.blocks[0].mlp
    x = torch.randn(1, 3, subject.anatomy.d_model, requires_grad=True)
    with lean(subject):
        mlp(x).sum().backward()
    assert x.grad is not None
    assert not by_experts


def test_another_models_experts_are_its_own_business(by_experts: list[int]) -> None:
    subject, other = fresh("mixtral"), fresh("mixtral")
    mlp: Any = other.anatomy.blocks[0].mlp
    x, own = torch.randn(1, 3, subject.anatomy.d_model), vars(moe)["_grouped_linear"]
    with torch.inference_mode():
        wanted = mlp(x)
        with lean(subject):
            assert vars(moe)["_grouped_linear"] is not own
            assert torch.equal(mlp(x), wanted)
    assert not by_experts
    assert vars(moe)["_grouped_linear"] is own


def test_experts_have_no_more_memory_than_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = fresh("mixtral")
    monkeypatch.setattr(packing, "free_memory", lambda device: 0)
    assert packing.packed_stacks(subject) == {}
    assert memory_for_texts(subject) == 0
    packing._known.clear()
    monkeypatch.setattr(packing, "free_memory", lambda device: 10**9)
    stacks = [p for p in subject.hf.parameters() if p.dim() == 3]
    layers = [m.weight for m in subject.hf.modules() if type(m) is nn.Linear]
    assert memory_for_texts(subject) == 10**9 - 4 * sum(p.numel() for p in (*stacks, *layers))


# --- gated MLPs ----------------------------------------------------------------------------------


@pytest.fixture
def gatings(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The inputs of MLPs that are gated by their products, as they come."""
    seen, real = list[Any](), gated._gated

    def spied(mlp: Any, made: Any, x: torch.Tensor) -> torch.Tensor:
        seen.append(x)
        return real(mlp, made, x)

    monkeypatch.setattr(gated, "_gated", spied)
    return seen


def mlp_both_ways(subject: Model, gatings: list[Any], block: int = 1) -> tuple[Any, Any, int]:
    """What an MLP gives by itself and within `lean`, and how often its products gated."""
    mlp = subject.anatomy.blocks[block].mlp
    x = torch.randn(3, 5, mlp.gate_proj.in_features).to(subject.dtype)
    with torch.inference_mode():
        own = mlp(x)
        with lean(subject):
            gatings.clear()
            return own, mlp(x), len(gatings)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["silu", "gelu", "gelu_pytorch_tanh", "relu"])
def test_every_activation_ends_its_product(
    kind: str, dtype: torch.dtype, gatings: list[Any]
) -> None:
    subject = fresh("llama", dtype, hidden_act=kind, mlp_bias=True)
    own, made, often = mlp_both_ways(subject, gatings)
    assert often == 1
    torch.testing.assert_close(
        made, own, rtol=0, atol=packing.ALLOWED[dtype] * float(own.abs().max())
    )


@pytest.mark.parametrize("name", ["gemma2", "gemma3_text", "llama", "qwen2", "granite", "olmo2"])
def test_mlps_of_many_kinds_are_gated_by_their_products(name: str, gatings: list[Any]) -> None:
    own, made, often = mlp_both_ways(fresh(name), gatings)
    assert often == 1
    torch.testing.assert_close(made, own, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["quick_gelu", "tanh", "relu2", "gelu_10", "relu6"])
def test_an_activation_that_no_product_has_stays(kind: str, gatings: list[Any]) -> None:
    own, made, often = mlp_both_ways(fresh("llama", hidden_act=kind), gatings)
    assert often == 0
    torch.testing.assert_close(made, own, rtol=1e-5, atol=1e-6)


def doubled(mlp: Any) -> None:
    class Doubled(type(mlp)):  # type: ignore[misc]  # a class of transformers' own
        def forward(self, x: torch.Tensor) -> Any:
            return 2 * super().forward(x)

    mlp.__class__ = Doubled


def clipping(mlp: Any) -> None:
    class Clipping(type(mlp)):  # type: ignore[misc]  # as above
        def forward(self, x: torch.Tensor) -> Any:
            gate = self.act_fn(self.gate_proj(x)).clamp(max=20)
            return self.down_proj(gate * self.up_proj(x))

    mlp.__class__ = Clipping


def adapted(mlp: Any) -> None:
    """As PEFT does it: a layer of another class in the place of one."""

    class Adapted(nn.Module):
        def __init__(self, base: Any) -> None:
            super().__init__()
            self.base_layer, self.weight, self.bias = base, base.weight, base.bias
            self.in_features = base.in_features

        def forward(self, x: torch.Tensor) -> Any:
            return 3 * self.base_layer(x)

    mlp.up_proj = Adapted(mlp.up_proj)


def with_another_activation(mlp: Any) -> None:
    mlp.act_fn = nn.Tanh()


def with_a_part_more(mlp: Any) -> None:
    mlp.beside = nn.Linear(48, 48)


def parametrized(mlp: Any) -> None:
    class Halved(nn.Module):
        def forward(self, weight: torch.Tensor) -> torch.Tensor:
            return weight / 2

    nn.utils.parametrize.register_parametrization(mlp.up_proj, "weight", Halved())


OTHERS = [doubled, clipping, adapted, with_another_activation, with_a_part_more, parametrized]


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("change", OTHERS)
def test_an_mlp_that_does_something_else_stays(
    change: Any, known: bool, gatings: list[Any]
) -> None:
    """Also one that was gated before."""
    subject = fresh("llama")
    if known:
        assert mlp_both_ways(subject, gatings)[2] == 1
    change(subject.anatomy.blocks[1].mlp)
    own, made, often = mlp_both_ways(subject, gatings)
    assert often == 0
    torch.testing.assert_close(made, own, rtol=1e-5, atol=1e-6)
    assert mlp_both_ways(subject, gatings, block=0)[2] == 1


def test_another_dtype_is_not_gated_by_weights_of_before(gatings: list[Any]) -> None:
    subject = fresh("llama")
    assert mlp_both_ways(subject, gatings)[2] == 1
    subject.hf.double()
    own, made, often = mlp_both_ways(subject, gatings)
    assert (often, made.dtype) == (0, torch.float64)
    assert torch.equal(own, made)


@pytest.mark.parametrize("change", [adapted, with_another_activation])
def test_parts_that_change_under_an_open_generation_are_called(
    change: Any, gatings: list[Any]
) -> None:
    subject = fresh("llama")
    mlp: Any = subject.anatomy.blocks[1].mlp
    x = torch.randn(2, 4, 48)
    with torch.inference_mode(), lean(subject):
        before = mlp(x)
        gatings.clear()
        change(mlp)
        after = mlp(x)
        assert not gatings
    assert not torch.allclose(before, after)
    with torch.inference_mode():
        torch.testing.assert_close(mlp(x), after, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("part", ["gate_proj", "up_proj", "act_fn", "down_proj"])
def test_parts_that_are_watched_are_called(part: str, gatings: list[Any]) -> None:
    subject = fresh("gemma2")
    mlp: Any = subject.anatomy.blocks[1].mlp
    x, seen = torch.randn(2, 4, 48), list[Any]()
    with torch.inference_mode(), lean(subject):
        mlp(x)
        often = len(gatings)
        hook = getattr(mlp, part).register_forward_hook(lambda *_: seen.append(1))
        mlp(x)
        assert (len(seen), len(gatings)) == (1, often)
        hook.remove()
        with wrapped_around(getattr(mlp, part), seen):
            mlp(x)
        assert (len(seen), len(gatings)) == (2, often)
        mlp(x)
        assert (len(seen), len(gatings)) == (2, often + 1)


@contextmanager
def wrapped_around(module: nn.Module, seen: list[Any]) -> Iterator[None]:
    def make(own: Any) -> Any:
        def forward(*args: Any) -> Any:
            seen.append(1)
            return own(*args)

        return forward

    undo = wrap_forward(module, make)
    yield
    undo()


def test_who_watches_does_not_see_what_is_tried(gatings: list[Any]) -> None:
    """Hooks that are there before see the texts' tokens alone, and so do taps on an MLP."""
    subject, seen = fresh("olmo2"), list[torch.Size]()  # whose taps watch MLPs
    for name in ("up_proj", "act_fn"):
        part = getattr(subject.anatomy.blocks[0].mlp, name)
        part.register_forward_hook(lambda module, args, output: seen.append(args[0].shape))
    run(subject, requests((5, 4), (6, 6)), NUCLEUS, Batching(2))
    assert {shape[:2] for shape in seen} == {(2, 4), (2, 1)}
    seen.clear()
    with wrapped_around(subject.anatomy.blocks[1].mlp, seen), lean(subject):
        assert subject.anatomy.blocks[1].mlp in gated._held
    assert not seen


def test_hooks_on_every_module_see_the_parts(gatings: list[Any]) -> None:
    subject, seen = fresh("llama"), list[Any]()
    mlp: Any = subject.anatomy.blocks[1].mlp
    hook = nn.modules.module.register_module_forward_hook(lambda module, *_: seen.append(module))
    try:
        with torch.inference_mode(), lean(subject):
            mlp(torch.randn(2, 4, 48))
    finally:
        hook.remove()
    assert mlp.up_proj in seen and not gatings


def test_what_gates_is_held_once_for_the_same_weights(gatings: list[Any]) -> None:
    subject = fresh("llama")
    with lean(subject):
        held = dict(gated._held)
    assert len(held) == len(subject.anatomy.blocks)
    with lean(subject):
        assert all(gated._held[mlp] is there for mlp, there in held.items())
    mlp: Any = subject.anatomy.blocks[1].mlp
    with torch.no_grad():
        mlp.up_proj.weight.mul_(3)
    own, made, often = mlp_both_ways(subject, gatings)
    assert often == 1 and gated._held[mlp] is not held[mlp]
    torch.testing.assert_close(made, own, rtol=1e-5, atol=1e-6)
