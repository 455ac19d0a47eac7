"""A model's forward made cheaper on a CPU gives its own numbers, and leaves nothing behind."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers.activations import ACT2FN
from transformers.integrations import moe
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from tests.exact.reference import NUCLEUS, assert_same, directions, model, requests, run
from tests.tiny import hf_model, tokenizer
from traitscope.engine import (
    Batching,
    decode,
    experts,
    gated,
    gelus,
    generate,
    grouped,
    joined,
    norms,
    packing,
    replay,
    rotary,
)
from traitscope.engine import lean as lean_module
from traitscope.engine.lean import lean
from traitscope.engine.packing import memory_for_texts, packed_weights
from traitscope.models import Model, wrap_forward

SUBJECTS = ["gemma2", "gemma3_text", "llama", "gpt2", "qwen2", "gpt_neox", "mixtral", "gpt_oss"]
SUBJECTS += ["falcon"]  # its linear layers are of a class of its own
LENGTHS, NEW_TOKENS = (3, 1, 44, 9, 1, 17, 2), (9, 6, 4, 1, 12, 7, 11)


@pytest.fixture(autouse=True)
def everything_is_large(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tiny weights are packed, few keys attended to here; nothing is known of them afterwards."""
    monkeypatch.setattr(packing, "LEAST", 1)
    monkeypatch.setattr(grouped, "_LEAST_ALONE", 1)
    monkeypatch.setattr(grouped, "_LEAST_TWICE", 1)
    known = (packing._known, gated._held, grouped._same, grouped._same_fused, norms._plus)
    for each in (*known, rotary._same, gelus._known):
        each.clear()  # type: ignore[attr-defined]  # found by name
    yield
    packing._known.clear()


def n_packed() -> int:
    return sum(len(part.weights) for parts in packing._known.values() for part in parts.values())


def bytes_packed() -> int:
    return sum(part.size for parts in packing._known.values() for part in parts.values())


def fresh(name: str, dtype: torch.dtype = torch.float32, **changes: Any) -> Model:
    return Model.wrap(hf_model(name, **changes).to(dtype), tokenizer(), name=name)


def traces(subject: Model) -> Any:
    return run(subject, requests(LENGTHS, NEW_TOKENS), NUCLEUS, Batching(rows=4, join=2))


def plainly(monkeypatch: pytest.MonkeyPatch, work: Any) -> Any:
    with monkeypatch.context() as without:
        for user in (decode, replay):
            without.setattr(user, "lean", lambda model, steps=True: nullcontext())
        return work()


def touched(subject: Model) -> list[str]:
    """Modules with a forward that is not their class's."""
    return [name for name, m in subject.hf.named_modules() if "forward" in vars(m)]


@pytest.mark.parametrize("name", SUBJECTS)
def test_no_number_knows_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = model(name)
    cheaper = traces(subject)
    assert n_packed() >= 4 * len(subject.anatomy.blocks)
    for generation, trace in plainly(monkeypatch, lambda: traces(subject)).items():
        assert_same(subject, cheaper[generation], trace, NUCLEUS)
    assert touched(subject) == []


@pytest.mark.parametrize("products", [True, False])
@pytest.mark.parametrize("name", SUBJECTS)
def test_texts_that_exist_neither(
    name: str, products: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = model(name)
    monkeypatch.setattr(lean_module, "has_products", lambda dtype: products)
    texts = [list(range(60, 60 + n)) for n in (30, 1, 7)]

    def scored() -> Any:
        found = replay.score_texts(subject, texts, directions(subject), logprobs=True)
        return sorted(found, key=lambda each: each.index)

    for cheaper, plain in zip(scored(), plainly(monkeypatch, scored), strict=True):
        np.testing.assert_allclose(cheaper.score, plain.score, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(cheaper.logprob, plain.logprob, rtol=1e-4, atol=1e-4)
    assert (n_packed() == 0) == products  # many tokens gain little, and memory is dear


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


# --- attention by groups -------------------------------------------------------------------------


def test_heads_of_a_group_share_their_keys() -> None:
    subject = model("gemma2")
    traces(subject)
    assert list(grouped._same.values()) == [True] * len(subject.anatomy.blocks)
    assert not grouped._same_fused


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_first_generation_is_like_any_other(dtype: torch.dtype) -> None:
    """To the last digit: what is tried once must not show in the text that it is tried on."""
    subject = fresh("gemma2", dtype)
    grouped._same.clear()  # as if its proofs had not generated
    first, second = traces(subject), traces(subject)
    for generation, trace in first.items():
        np.testing.assert_array_equal(trace.token_ids, second[generation].token_ids)
        np.testing.assert_array_equal(trace.score, second[generation].score)


def test_attention_of_another_kind_goes_its_own_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """gpt-oss has sinks, which a plain softmax knows nothing of."""
    subject = fresh("gpt_oss")
    subject.anatomy.config._attn_implementation = "eager"
    made = traces(subject)
    assert list(grouped._same.values()) == [False] * len(subject.anatomy.blocks)
    for generation, trace in plainly(monkeypatch, lambda: traces(subject)).items():
        assert_same(subject, made[generation], trace, NUCLEUS)


@pytest.mark.parametrize("name", ["llama", "qwen3", "mistral", "gpt2", "gpt_neox", "opt"])
def test_the_fused_attention_is_made_by_groups_too(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With keys that are shared and with keys of a head's own; and within a window."""
    subject = fresh(name)
    assert subject.anatomy.config._attn_implementation == "sdpa"
    made = traces(subject)
    assert list(grouped._same_fused.values()) == [True] * len(subject.anatomy.blocks)
    for generation, trace in plainly(monkeypatch, lambda: traces(subject)).items():
        assert_same(subject, made[generation], trace, NUCLEUS)


def attention_of(
    heads: int, groups: int, dtype: torch.dtype, tokens: int = 1
) -> tuple[Any, Any, dict[str, Any]]:
    """A model, the fused attention, and what a forward of three rows gives it."""
    subject = fresh("llama", dtype)
    own = ALL_ATTENTION_FUNCTIONS["sdpa"]
    module: Any = subject.anatomy.blocks[0].attention
    module.num_key_value_groups = heads // groups
    query, key, value = (
        torch.randn(3, n, t, 8).to(dtype) for n, t in ((heads, tokens), (groups, 21), (groups, 21))
    )
    mask = torch.zeros(3, 1, tokens, 21, dtype=dtype)
    mask[0, ..., 9:] = mask[2, ..., :4] = mask[1, ..., -1, 5] = torch.finfo(dtype).min
    given = {"module": module, "query": query, "key": key, "value": value}
    return subject, own, {**given, "attention_mask": mask, "scaling": 0.3}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("heads", "groups"), [(4, 2), (4, 4), (6, 1)])
@pytest.mark.parametrize("products", [True, False])
@pytest.mark.parametrize("tokens", [1, 2, 21])
def test_the_fused_attention_in_every_dtype(
    dtype: torch.dtype,
    heads: int,
    groups: int,
    products: bool,
    tokens: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(grouped, "_multiplies", lambda dtype: products)
    subject, own, given = attention_of(heads, groups, dtype, tokens)
    wanted, _ = own(**given)
    calls = list[Any]()
    monkeypatch.setattr(
        grouped, "_tried", lambda same, module, made, wanted: calls.append(made[0]) or made
    )
    with torch.inference_mode(), lean(subject):
        made, _ = ALL_ATTENTION_FUNCTIONS["sdpa"](**given)
    assert (made.shape, made.dtype) == (wanted.shape, dtype)
    assert made.is_contiguous()
    apart, size = float((made - wanted).abs().max()), float(wanted.abs().max())
    assert apart <= packing.ALLOWED[dtype] * size
    narrow = dtype != torch.float32
    assert bool(calls) == (not narrow or (heads == groups and products and tokens == 1))


@pytest.mark.parametrize(("heads", "groups"), [(4, 2), (4, 4)])
@pytest.mark.parametrize(
    ("tokens", "causal", "here"),
    [(21, {}, 1), (21, {"is_causal": None}, 1), (21, {"is_causal": False}, 0), (5, {}, 0)],
)
def test_without_a_mask_what_comes_later_is_hidden(
    heads: int, groups: int, tokens: int, causal: dict[str, Any], here: int
) -> None:
    """As the fused attention has it, of whole texts; and of two lengths in turn."""
    subject, own, given = attention_of(heads, groups, torch.float32, tokens)
    given |= {"attention_mask": None, **causal}
    short = {name: given[name][:, :, :7] for name in ("query", "key", "value")}
    with torch.inference_mode():
        wanted = [own(**each)[0] for each in (given, given | short, given)]
        with lean(subject):
            attend = ALL_ATTENTION_FUNCTIONS["sdpa"]
            made = [attend(**each)[0] for each in (given, given | short, given)]
    torch.testing.assert_close(made, wanted, rtol=1e-5, atol=1e-6)
    assert bool(grouped._same_fused) == bool(here)


@pytest.mark.parametrize("limit", ["_MOST_COLUMNS", "_MOST_WEIGHTS"])
def test_long_texts_are_left_to_the_fused_attention(
    limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grouped, limit, 20)
    subject, own, given = attention_of(4, 2, torch.float32, 21)
    with torch.inference_mode(), lean(subject):
        for mask in (given["attention_mask"], None):
            each = given | {"attention_mask": mask}
            assert torch.equal(ALL_ATTENTION_FUNCTIONS["sdpa"](**each)[0], own(**each)[0])
    assert not grouped._same_fused


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("products", [True, False])
@pytest.mark.parametrize("most", [1, 1 << 21])
@pytest.mark.parametrize("cap", [None, 0.7])
@pytest.mark.parametrize(("tokens", "rows"), [(1, 3), (9, 3), (9, 1)])
def test_the_plain_attention_in_every_dtype(
    dtype: torch.dtype,
    products: bool,
    most: int,
    cap: float | None,
    tokens: int,
    rows: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its weights too; with a mask for each row, or one for all."""
    monkeypatch.setattr(grouped, "_multiplies", lambda dtype: products)
    monkeypatch.setattr(grouped, "_MOST_WEIGHTS", most)
    subject = fresh("gemma2", dtype)
    _, _, given = attention_of(4, 2, dtype, tokens)
    module: Any = subject.anatomy.blocks[0].attention
    place = vars(sys.modules[type(module).__module__])
    module.num_key_value_groups = 2
    mask = given.pop("attention_mask")[1 : 1 + rows] if rows == 1 else given.pop("attention_mask")
    given |= {"module": module, "attention_mask": mask, "softcap": cap}
    with torch.inference_mode():
        wanted = place["eager_attention_forward"](**given)
        with lean(subject):
            made = place["eager_attention_forward"](**given)
    assert list(grouped._same.values()) == [True]
    for mine, own in zip(made, wanted, strict=True):
        assert (mine.shape, mine.dtype) == (own.shape, dtype)
        assert float((mine - own).abs().max()) <= packing.ALLOWED[dtype] * float(own.abs().max())


def biased(given: dict[str, Any]) -> None:
    given["position_bias"] = torch.randn(1, 4, 1, 21)


def dropping(given: dict[str, Any]) -> None:
    given["dropout"] = 0.5


def seeing_all(given: dict[str, Any]) -> None:
    given["attention_mask"] = None


def with_masks_per_head(given: dict[str, Any]) -> None:
    given["attention_mask"] = given["attention_mask"].expand(-1, 4, -1, -1).contiguous()


def with_yes_and_no(given: dict[str, Any]) -> None:
    given["attention_mask"] = given["attention_mask"] == 0


@pytest.mark.parametrize(
    "change", [biased, dropping, seeing_all, with_masks_per_head, with_yes_and_no]
)
def test_what_asks_for_another_attention_gets_it(change: Any) -> None:
    subject, own, given = attention_of(4, 4, torch.float32)
    change(given)
    with torch.inference_mode(), lean(subject):
        torch.manual_seed(0)
        made, _ = ALL_ATTENTION_FUNCTIONS["sdpa"](**given)
    assert not grouped._same_fused
    with torch.inference_mode():
        torch.manual_seed(0)
        wanted, _ = own(**given)
    assert torch.equal(made, wanted)


def test_a_fused_attention_of_somebodys_own_goes_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """What somebody has put in its place is called, and is there afterwards."""
    own = ALL_ATTENTION_FUNCTIONS["sdpa"]

    def doubled(*args: Any, **options: Any) -> Any:
        made, weights = own(*args, **options)
        return 2 * made, weights

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS, "sdpa", doubled)
    subject = fresh("llama")
    made = traces(subject)
    assert list(grouped._same_fused.values()) == [False] * len(subject.anatomy.blocks)
    for generation, trace in plainly(monkeypatch, lambda: traces(subject)).items():
        assert_same(subject, made[generation], trace, NUCLEUS)
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is doubled


def test_the_fused_attention_is_back_whoever_ends_first() -> None:
    own = ALL_ATTENTION_FUNCTIONS["sdpa"]
    subject = fresh("llama")
    wanted, d = requests(LENGTHS, NEW_TOKENS), directions(subject)
    first = generate(subject, wanted, d, NUCLEUS, Batching(4))
    second = generate(subject, wanted, d, NUCLEUS, Batching(2))
    next(first), next(second)
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is not own
    list(first)
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is own
    list(second)
    assert "sdpa" not in ALL_ATTENTION_FUNCTIONS._local_mapping  # what is registered later is seen


def test_what_somebody_registers_meanwhile_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    own = ALL_ATTENTION_FUNCTIONS["sdpa"]
    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS, "sdpa", own)  # to have it back afterwards

    def theirs(*args: Any, **options: Any) -> Any:
        return own(*args, **options)

    with lean(fresh("llama")):
        assert ALL_ATTENTION_FUNCTIONS["sdpa"] is not own
        ALL_ATTENTION_FUNCTIONS["sdpa"] = theirs
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is theirs


def test_nothing_is_left_behind_whoever_ends_first() -> None:
    subject = fresh("gemma2")
    place = vars(sys.modules[type(subject.anatomy.blocks[0].attention).__module__])
    own = place["eager_attention_forward"]
    wanted, d = requests(LENGTHS, NEW_TOKENS), directions(subject)
    first = generate(subject, wanted, d, NUCLEUS, Batching(4))
    second = generate(subject, wanted, d, NUCLEUS, Batching(2))
    next(first), next(second)
    assert place["eager_attention_forward"] is not own
    list(first)
    late = {trace.generation: trace for trace in second}
    assert place["eager_attention_forward"] is own
    assert touched(subject) == []
    whole = run(subject, wanted, NUCLEUS, Batching(2))
    for generation, trace in late.items():
        assert_same(subject, trace, whole[generation], NUCLEUS)


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


# --- norms ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "plus"), [("gemma2", 1.0), ("llama", 0.0)])
def test_what_a_norm_adds_to_its_weight_is_found(name: str, plus: float) -> None:
    subject = fresh(name)
    kind = type(subject.anatomy.final_norm)
    with lean_module.fused_norms(subject):
        assert norms._plus == {kind: plus}
        assert len(touched(subject)) == sum(type(m) is kind for m in subject.hf.modules())


def test_a_norm_of_another_kind_keeps_its_way() -> None:
    class OddRMSNorm(nn.Module):
        def __init__(self, size: int) -> None:
            super().__init__()
            self.weight, self.eps = nn.Parameter(torch.ones(size)), 1e-6

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x / x.abs().mean(dim=-1, keepdim=True) * self.weight

    subject = fresh("llama")
    odd = OddRMSNorm(subject.anatomy.d_model)
    subject.hf.add_module("odd", odd)
    with lean_module.fused_norms(subject):
        assert "forward" not in vars(odd)
        assert "odd" not in touched(subject)


@pytest.mark.parametrize("name", ["gemma2", "llama"])
@pytest.mark.parametrize("size", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize("tokens", [2, 700])
def test_norms_of_all_lengths(name: str, size: float, tokens: int) -> None:
    """Also of vectors that are short beside epsilon, and of none at all."""
    subject = fresh(name)
    norm = subject.anatomy.final_norm
    x_TD = torch.randn(tokens, subject.anatomy.d_model) * size
    x_TD[0] = 0
    with torch.inference_mode(), lean_module.fused_norms(subject):
        made = norm(x_TD)
    assert "forward" not in vars(norm)
    with torch.inference_mode():
        wanted = norm(x_TD)
    torch.testing.assert_close(made, wanted, rtol=1e-5, atol=1e-6 * float(wanted.abs().max()))


# --- GELUs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted({*ACT2FN} - {"prelu"}))  # which takes float32 alone
def test_gelus_that_are_written_out_are_known_by_their_numbers(kind: str) -> None:
    module = ACT2FN[kind]
    holder = fresh("llama")
    holder.hf.add_module("act", module)
    x_N = torch.cat([torch.randn(64) * 3, torch.tensor([0.0, -30.0, 30.0])])
    with torch.inference_mode():
        wanted = module(x_N)
        with lean_module.fused_gelus(holder):
            fused = "forward" in vars(module)
            made = module(x_N)
            narrow = module(x_N.bfloat16())
        assert torch.equal(narrow, module(x_N.bfloat16()))
    assert "forward" not in vars(module)
    assert fused or torch.equal(made, wanted)
    torch.testing.assert_close(made, wanted, rtol=0, atol=2e-6 * float(x_N.abs().max()))
    assert fused or kind not in ("gelu_new", "gelu_fast", "gelu_accurate")
    assert not fused or kind not in ("gelu", "gelu_10", "quick_gelu", "silu", "relu", "xielu")


# --- rotary embeddings ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gemma2", "gemma3_text", "llama", "qwen2", "mixtral"])
def test_queries_and_keys_are_turned_together(name: str) -> None:
    traces(model(name))
    assert list(rotary._same.values()) == [True]


@pytest.mark.parametrize(("name", "part"), [("gpt_neox", 0.5), ("gpt_neox", 0.25), ("glm", 0.5)])
def test_a_part_of_each_head_is_turned(
    name: str, part: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GLM pairs neighbours, which only its numbers tell."""
    subject = fresh(name, **({"rotary_pct": part} if name == "gpt_neox" else {}))
    made = traces(subject)
    assert [(whole, same) for (_, whole), same in rotary._same.items()] == [
        (False, name == "gpt_neox")
    ]
    for generation, trace in plainly(monkeypatch, lambda: traces(subject)).items():
        assert_same(subject, made[generation], trace, NUCLEUS)


def test_a_turn_of_another_kind_goes_its_own_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that pairs neighbours, as Cohere does, is not the one that pairs halves."""
    subject = model("cohere")
    made = traces(subject)
    assert list(rotary._same.values()) == [False]
    for generation, trace in plainly(monkeypatch, lambda: traces(subject)).items():
        assert_same(subject, made[generation], trace, NUCLEUS)


@pytest.mark.parametrize("rows", [1, 3])
def test_a_turn_of_other_angles_is_made_anew(rows: int) -> None:
    """Gemma-3's blocks use two kinds of angles in turn; some models give one row for all."""
    subject = model("llama")
    place = vars(sys.modules[type(subject.anatomy.blocks[0].attention).__module__])
    own = place["apply_rotary_pos_emb"]
    q, k = torch.randn(3, 4, 2, 8), torch.randn(3, 2, 2, 8)
    angles = [(torch.randn(rows, 2, 8), torch.randn(rows, 2, 8)) for _ in range(2)]
    with torch.inference_mode(), rotary.joint_rotary(subject):
        turn = place["apply_rotary_pos_emb"]
        assert turn is not own
        for cos, sin in (*angles, *angles):
            for made, wanted in zip(turn(q, k, cos, sin), own(q, k, cos, sin), strict=True):
                torch.testing.assert_close(made, wanted)
        later = torch.randn(3, 2, 4, 8), *angles[0], 2  # heads after tokens
        torch.testing.assert_close(turn(later[0], *later)[0], own(later[0], *later)[0])
    assert place["apply_rotary_pos_emb"] is own


def test_a_turn_that_pairs_otherwise_is_found_out() -> None:
    """Its shapes alone do not tell; its numbers do, before any of them is used."""
    subject = model("llama")
    place = vars(sys.modules[type(subject.anatomy.blocks[0].attention).__module__])

    def odd(q: Any, k: Any, cos: Any, sin: Any) -> Any:
        cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
        return q * cos - q.flip(-1) * sin, k * cos - k.flip(-1) * sin

    given = torch.randn(3, 4, 2, 8), torch.randn(3, 2, 2, 8), *torch.randn(2, 3, 2, 8).unbind()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(place, "apply_rotary_pos_emb", odd)
        with torch.inference_mode(), rotary.joint_rotary(subject):
            for _ in range(2):
                made = place["apply_rotary_pos_emb"](*given)
                for one, wanted in zip(made, odd(*given), strict=True):
                    torch.testing.assert_close(one, wanted, rtol=0, atol=0)
    assert rotary._same == {(odd, True): False}


# --- projections of one input --------------------------------------------------------------------


@pytest.fixture
def everything_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "LEAST", 1 << 18)


@pytest.mark.usefixtures("everything_is_small")
@pytest.mark.parametrize("name", SUBJECTS)
def test_projections_of_one_input_are_made_together(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject, products = model(name), list[int]()
    part = joined._Product.part

    def counted(self: Any, place: int, own: Any) -> Any:
        products.append(place)
        return part(self, place, own)

    monkeypatch.setattr(joined._Product, "part", counted)
    cheaper = traces(subject)
    fused = name in ("gpt2", "gpt_neox", "falcon")  # theirs are one product already
    assert bool(products) != fused
    for generation, trace in plainly(monkeypatch, lambda: traces(subject)).items():
        assert_same(subject, cheaper[generation], trace, NUCLEUS)


@pytest.mark.usefixtures("everything_is_small")
@pytest.mark.parametrize("bias", [False, True])
def test_another_input_or_order_goes_its_own_way(bias: bool) -> None:
    subject = fresh("llama", attention_bias=bias)
    attention = subject.anatomy.blocks[0].attention
    layers: list[Any] = [attention.q_proj, attention.k_proj, attention.v_proj]
    first, second = torch.randn(2, 3, subject.anatomy.d_model).unbind()
    orders = [
        [(0, first), (1, first), (2, first)],
        [(1, first), (0, first), (2, second), (1, first)],
        [(0, first), (0, second), (1, first), (2, second), (2, second)],
    ]
    with torch.inference_mode(), joined.joined_projections(subject):
        for order in orders:
            for place, x in order:
                layer = layers[place]
                wanted = nn.functional.linear(x, layer.weight, layer.bias)
                torch.testing.assert_close(layer(x), wanted)
        large = torch.randn(joined.MOST // subject.anatomy.d_model + 1, subject.anatomy.d_model)
        for layer in layers:
            wanted = nn.functional.linear(large, layer.weight, layer.bias)
            torch.testing.assert_close(layer(large), wanted)
    x = torch.randn(2, subject.anatomy.d_model, requires_grad=True)
    with joined.joined_projections(subject):
        layers[1](layers[0](x) @ layers[0].weight).sum().backward()
    assert x.grad is not None
