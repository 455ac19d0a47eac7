"""A model's forward made cheaper on a CPU gives its own numbers, and leaves nothing behind."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers.activations import ACT2FN
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from tests.exact.cheaper import (
    LENGTHS,
    NEW_TOKENS,
    SUBJECTS,
    fresh,
    n_packed,
    plainly,
    touched,
    traces,
)
from tests.exact.reference import (
    NUCLEUS,
    assert_same,
    directions,
    model,
    requests,
    run,
    run_alone,
)
from traitscope.checkup import at_load
from traitscope.engine import (
    Batching,
    generate,
    joined,
    norms,
    packing,
    replay,
    rotary,
    siblings,
)
from traitscope.engine import lean as lean_module

pytestmark = pytest.mark.usefixtures("everything_is_large")


@pytest.mark.parametrize("name", SUBJECTS)
def test_no_number_knows_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = model(name)
    cheaper = traces(subject)
    assert n_packed() >= 3 * len(subject.anatomy.blocks)
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


# --- norms ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "plus"), [("gemma2", 1.0), ("llama", 0.0)])
def test_what_a_norm_adds_to_its_weight_is_found(name: str, plus: float) -> None:
    subject = fresh(name)
    kind = type(subject.anatomy.final_norm)
    with lean_module.fused_norms(subject):
        ((known, way),) = norms._known.items()
        assert known == (kind, "cpu", torch.float32)
        assert way is not None
        ones = torch.ones(subject.anatomy.d_model)
        assert torch.allclose(way(0 * ones, 1e-6)(ones), plus * ones)
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


@pytest.mark.parametrize("name", ["gemma2", "llama", "olmo2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize("tokens", [2, 700])
def test_norms_of_all_lengths(name: str, dtype: torch.dtype, size: float, tokens: int) -> None:
    """Also of vectors that are short beside epsilon, and of none at all.

    In narrow dtypes they round where the model's own do, or a third of the numbers would differ.
    """
    subject = fresh(name, dtype)
    norm = subject.anatomy.final_norm
    with torch.no_grad():
        norm.weight.normal_(1, 0.3, generator=torch.Generator().manual_seed(1))
    x_TD = (torch.randn(tokens, subject.anatomy.d_model) * size).to(dtype)
    x_TD[0] = 0
    with torch.inference_mode(), lean_module.fused_norms(subject):
        assert "forward" in vars(norm)
        made = norm(x_TD)
    assert "forward" not in vars(norm)
    with torch.inference_mode():
        wanted = norm(x_TD)
    assert made.dtype == dtype
    if dtype != torch.float32:
        assert (made != wanted).float().mean() < 0.02
        made, wanted = made.float(), wanted.float()
    rounding = max(1e-5, 2 * torch.finfo(dtype).eps)
    torch.testing.assert_close(made, wanted, rtol=rounding, atol=1e-6 * float(wanted.abs().max()))


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
def test_queries_and_keys_are_turned_in_few_operations(name: str) -> None:
    traces(model(name))
    assert list(rotary._same.values()) == [True]


@pytest.mark.parametrize(("name", "part"), [("gpt_neox", 0.5), ("gpt_neox", 0.25), ("glm", 0.5)])
def test_a_part_of_each_head_is_turned(
    name: str, part: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GLM pairs neighbours, which only its numbers tell."""
    subject = fresh(name, **({"rotary_pct": part} if name == "gpt_neox" else {}))
    made = traces(subject)
    assert [(kind[1], same) for kind, same in rotary._same.items()] == [(False, name == "gpt_neox")]
    for generation, trace in plainly(monkeypatch, lambda: traces(subject)).items():
        assert_same(subject, made[generation], trace, NUCLEUS)


def test_a_turn_of_another_kind_goes_its_own_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that pairs neighbours, as Cohere does, is not the one that pairs halves."""
    subject = model("cohere")
    made = traces(subject)
    assert list(rotary._same.values()) == [False]
    for generation, trace in plainly(monkeypatch, lambda: traces(subject)).items():
        assert_same(subject, made[generation], trace, NUCLEUS)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_turn_in_a_narrow_dtype_rounds_where_the_model_does(dtype: torch.dtype) -> None:
    """To the last digit; an operation that multiplies and adds would round once less."""
    subject = fresh("llama", dtype)
    place = vars(sys.modules[type(subject.anatomy.blocks[0].attention).__module__])
    own = place["apply_rotary_pos_emb"]
    sizes = (3, 4, 2, 8), (3, 2, 2, 8), (3, 2, 8), (3, 2, 8)
    given = [torch.randn(size).to(dtype) for size in sizes]
    with torch.inference_mode(), rotary.lean_rotary(subject):
        for made, wanted in zip(place["apply_rotary_pos_emb"](*given), own(*given), strict=True):
            assert torch.equal(made, wanted)
    assert list(rotary._same.values()) == [True]


@pytest.mark.parametrize("rows", [1, 3])
def test_a_turn_of_other_angles_is_made_anew(rows: int) -> None:
    """Gemma-3's blocks use two kinds of angles in turn; some models give one row for all."""
    subject = model("llama")
    place = vars(sys.modules[type(subject.anatomy.blocks[0].attention).__module__])
    own = place["apply_rotary_pos_emb"]
    q, k = torch.randn(3, 4, 2, 8), torch.randn(3, 2, 2, 8)
    angles = [(torch.randn(rows, 2, 8), torch.randn(rows, 2, 8)) for _ in range(2)]
    with torch.inference_mode(), rotary.lean_rotary(subject):
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
        with torch.inference_mode(), rotary.lean_rotary(subject):
            for _ in range(2):
                made = place["apply_rotary_pos_emb"](*given)
                for one, wanted in zip(made, odd(*given), strict=True):
                    torch.testing.assert_close(one, wanted, rtol=0, atol=0)
    assert rotary._same == {(odd, True, "cpu", torch.float32): False}


@pytest.mark.parametrize("name", ["cohere", "glm", "llama"])
def test_a_turn_is_not_judged_where_nothing_is_turned(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a text's first position any two ways give the same, and one token is a whole text."""
    subject = fresh(name)
    run(subject, requests((1,), (1,)), NUCLEUS, Batching(1))
    assert list(rotary._same.values()) == [name == "llama"]
    made = traces(subject)
    for generation, trace in plainly(monkeypatch, lambda: traces(subject)).items():
        assert_same(subject, made[generation], trace, NUCLEUS)


# --- projections of one input --------------------------------------------------------------------


@pytest.fixture
def everything_is_small(everything_is_large: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "LEAST", 1 << 18)


@pytest.mark.usefixtures("everything_is_small")
@pytest.mark.parametrize("name", SUBJECTS)
def test_projections_of_one_input_are_made_together(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject, products = model(name), list[int]()
    part = siblings._Product.part

    def counted(self: Any, place: int, own: Any) -> Any:
        products.append(place)
        return part(self, place, own)

    monkeypatch.setattr(siblings._Product, "part", counted)
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


# --- what it is held against ----------------------------------------------------------------------


def test_the_models_own_way_is_held_against_the_cheaper_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A cheaper way that is wrong must not be held against itself."""
    subject = fresh("llama")

    def slots() -> bool | None:
        return next(p.held for p in at_load(subject) if p.name == "slots = a plain forward")

    assert slots()
    real = rotary._turned
    # found right on what it is tried with, and wrong afterwards
    monkeypatch.setattr(rotary, "_turned", lambda *args: [x * 1.02 for x in real(*args)])
    assert set(rotary._same.values()) == {True}
    assert slots() is False


# --- several at once ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second"), [("llama", "llama"), ("llama", "qwen2"), ("gemma2", "gemma2")]
)
def test_generations_of_two_models_end_in_any_order(first: str, second: str) -> None:
    """What both do with the function that makes attention goes with the last of them."""
    one, other = fresh(first), fresh(second)
    own = dict(ALL_ATTENTION_FUNCTIONS)
    short = generate(one, requests((3, 4, 5), (3, 3, 3)), directions(one), NUCLEUS, Batching(3))
    wanted = requests(LENGTHS, NEW_TOKENS)
    long = generate(other, wanted, directions(other), NUCLEUS, Batching(3))
    next(short)
    made = [next(long)]
    list(short)
    made += long
    assert dict(ALL_ATTENTION_FUNCTIONS) == own
    alone = run_alone(other, wanted, NUCLEUS)
    assert len(made) == len(alone)
    for trace in made:
        assert_same(other, trace, alone[trace.generation], NUCLEUS)
