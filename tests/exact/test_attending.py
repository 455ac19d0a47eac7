"""Attention of few tokens by groups gives a model's own numbers, and goes where it is not known."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from tests.exact.cheaper import LENGTHS, NEW_TOKENS, fresh, plainly, touched, traces
from tests.exact.reference import NUCLEUS, assert_same, directions, model, requests, run
from traitscope.engine import Batching, generate, grouped, packing
from traitscope.engine.lean import lean

pytestmark = pytest.mark.usefixtures("everything_is_large")


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


@pytest.mark.parametrize("size", [-4.0, -6.0, -20.0])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_sink_is_seen_however_small(dtype: torch.dtype, size: float) -> None:
    """It may be great beside another text's numbers."""
    subject = fresh("gpt_oss", dtype)
    subject.anatomy.config._attn_implementation = "eager"
    with torch.no_grad():
        for block in subject.anatomy.blocks:
            block.attention.sinks.fill_(size)
    traces(subject)
    assert list(grouped._same.values()) == [False] * len(subject.anatomy.blocks)


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
@pytest.mark.parametrize(("products", "tiles"), [(True, False), (True, True), (False, False)])
@pytest.mark.parametrize("tokens", [1, 2, 21])
def test_the_fused_attention_in_every_dtype(
    dtype: torch.dtype,
    heads: int,
    groups: int,
    products: bool,
    tiles: bool,
    tokens: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(grouped, "_multiplies", lambda dtype: products)
    monkeypatch.setattr(grouped, "_has_tiles", lambda: tiles)
    subject, own, given = attention_of(heads, groups, dtype, tokens)
    wanted, _ = own(**given)
    calls = list[Any]()
    monkeypatch.setattr(grouped, "_near", lambda made, wanted: not calls.append(made[0]))
    with torch.inference_mode(), lean(subject):
        made, _ = ALL_ATTENTION_FUNCTIONS["sdpa"](**given)
    assert (made.shape, made.dtype) == (wanted.shape, dtype)
    assert made.is_contiguous()
    apart, size = float((made - wanted).abs().max()), float(wanted.abs().max())
    assert apart <= packing.ALLOWED[dtype] * size
    narrow, twice = dtype != torch.float32, products and not tiles
    assert bool(calls) == (not narrow or (heads == groups and twice and tokens == 1))


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
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is not own  # the second still goes by it
    list(second)
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is own
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
