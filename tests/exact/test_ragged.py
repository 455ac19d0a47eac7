"""Prompts that are read beside a step, in one forward of rows with unlike numbers of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.exact.cheaper import fresh
from tests.exact.reference import (
    NUCLEUS,
    VARIANTS,
    assert_same,
    directions,
    model,
    requests,
    run,
    run_alone,
)
from traitscope.core import Trace
from traitscope.engine import (
    Batching,
    Clock,
    decode,
    generate,
    grouped,
    logprob,
    prefill,
    ragged,
    slots,
)
from traitscope.engine.joining import cuts, pieces
from traitscope.engine.lean import lean
from traitscope.engine.slots import Slots
from traitscope.models import Model

LENGTHS, NEW_TOKENS = (3, 1, 44, 9, 1, 17, 5, 30), (9, 6, 4, 1, 12, 7, 11, 3)
# their attention is written in the block; Falcon's adds what it knows of rows
NOT_SO = {"codegen", "diffllama", "gptj", "xglm", "falcon", "falcon sequential"}
NOT_SO |= {"falcon grouped", "falcon per head"}


@pytest.fixture
def beside(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """(rows of a step, tokens of prompts) of each ragged forward of a generation."""
    seen, own = list[tuple[int, int]](), prefill.Prefill.beside

    def counted(self: prefill.Prefill, piece: prefill.Piece, parts: Any = ()) -> Any:
        seen.append((parts[-1][0] if parts else 0, sum(piece.lengths)))
        return own(self, piece, parts)

    monkeypatch.setattr(prefill.Prefill, "beside", counted)
    return seen


def takes(subject: Model) -> bool:
    with lean(subject):
        return ragged.takes_ragged(subject)


@pytest.mark.parametrize("name", VARIANTS)
def test_who_takes_them(name: str) -> None:
    assert takes(model(name)) == (name not in NOT_SO)


@pytest.mark.parametrize("name", ["gemma2", "llama", "gpt2", "gpt_neox", "mixtral", "gpt_oss"])
@pytest.mark.parametrize("most", [None, 7, 40])
def test_a_text_beside_others_is_the_text_alone(
    name: str, most: int | None, beside: list[tuple[int, int]]
) -> None:
    subject, wanted = model(name), requests(LENGTHS, NEW_TOKENS)
    made = run(subject, wanted, NUCLEUS, Batching(rows=3, join=1, prefill_tokens=most))
    assert any(n and tokens for n, tokens in beside)
    assert sum(tokens for _, tokens in beside) == sum(n - 1 for n in LENGTHS)
    assert max(tokens for _, tokens in beside) <= (most or 256)
    for generation, trace in run_alone(subject, wanted, NUCLEUS).items():
        assert_same(subject, made[generation], trace, NUCLEUS)
        there = made[generation].logprob
        np.testing.assert_allclose(there, trace.logprob, atol=1e-4, equal_nan=True)


def in_order(subject: Model, clock: Clock | None = None, **changes: Any) -> list[Trace]:
    config, texts = replace(NUCLEUS, **changes), requests(LENGTHS, NEW_TOKENS)
    batching, direction_SDK = Batching(rows=4, join=2), directions(subject)
    made = generate(subject, texts, direction_SDK, config, batching, clock, keep=[1])
    return sorted(made, key=lambda trace: trace.generation)


def test_a_prefill_of_its_own_gives_the_same(
    monkeypatch: pytest.MonkeyPatch, beside: list[tuple[int, int]]
) -> None:
    """Kept states too; and as many steps and tokens, in the same order."""
    subject, one, other = model("gemma2"), Clock(), Clock()
    made, there = in_order(subject, one), len(beside)
    assert there
    monkeypatch.setattr(decode, "takes_ragged", lambda model: False)
    for trace, plain in zip(made, in_order(subject, other), strict=True):
        assert_same(subject, trace, plain, NUCLEUS)
        assert trace.kept is not None and plain.kept is not None
        np.testing.assert_allclose(trace.kept, plain.kept, atol=1e-4)
    assert len(beside) == there
    counts = ("batches", "steps", "tokens", "new_tokens", "shared_tokens")
    assert [asdict(one)[name] for name in counts] == [asdict(other)[name] for name in counts]
    assert one.prefill > 0 < one.decode


def test_prompts_need_not_be_judged(beside: list[tuple[int, int]]) -> None:
    subject = model("llama")
    for trace, other in zip(
        in_order(subject), in_order(subject, prompt_logprobs=False), strict=True
    ):
        assert np.isnan(other.logprob[: other.n_prompt]).all()
        here = slice(other.n_prompt, None)
        np.testing.assert_allclose(trace.logprob[here], other.logprob[here], atol=1e-4)
    assert beside


@pytest.mark.parametrize("most", [1, 5, 20])
def test_logits_of_a_step_are_made_with_the_first_of_the_prompts(
    most: int, monkeypatch: pytest.MonkeyPatch, beside: list[tuple[int, int]]
) -> None:
    """However many exist at once: fewer than the step has, some of the prompts', or all."""
    subject, calls, whole = model("gemma2"), list[int](), in_order(model("gemma2"))
    own, n = subject.anatomy.head.forward, len(beside)

    def counted(x: Tensor) -> Tensor:
        calls.append(len(x))
        return own(x)  # type: ignore[no-any-return]  # a module's forward

    monkeypatch.setattr(logprob, "LEAST", most)
    monkeypatch.setattr(logprob, "BYTES", 0)
    monkeypatch.setattr(subject.anatomy.head, "forward", counted)
    clock = Clock()
    for trace, other in zip(in_order(subject, clock), whole, strict=True):
        assert_same(subject, trace, other, NUCLEUS)
        np.testing.assert_allclose(trace.logprob, other.logprob, atol=1e-4, equal_nan=True)
    forwards = [(rows, tokens) for rows, tokens in beside[n:] if rows + tokens]
    more = [max(0, rows + tokens - max(rows, most)) for rows, tokens in forwards]
    assert len(calls) == clock.steps + sum(-(-left // most) for left in more)
    assert max(calls) <= max(most, 4)


# --- rows in parts -------------------------------------------------------------------------------


@pytest.fixture(params=[0, 12], ids=["each row", "some rows"])
def parts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """How many columns the rows of each part look at, though it saves little."""
    seen = list[list[int]]()

    def spied(columns: list[int], price: int) -> list[int]:
        ends = cuts(columns, request.param)
        if len(ends) > 1:
            seen.extend(columns[a:b] for a, b in zip([0, *ends], ends, strict=False))
        return ends

    monkeypatch.setattr(decode, "cuts", spied)
    monkeypatch.setattr(decode, "_CUT_ANEW", 3)
    return seen


TAKING = [name for name in VARIANTS if name not in NOT_SO]


@pytest.mark.parametrize("name", TAKING)
def test_a_text_in_parts_is_the_text_alone(
    name: str, parts: list[list[int]], request: pytest.FixtureRequest
) -> None:
    """Rows of unlike lengths from the start, and as they come and go."""
    subject, mixed = model(name), list[list[int]]()
    # the last takes the second's place soon
    few = requests((60, 58, 10, 9, 8, 7, 6, 5), (9, 2, 9, 9, 9, 9, 9, 9))
    for rows, wanted in ((4, requests(LENGTHS, NEW_TOKENS)), (8, few)):
        parts.clear()
        made = run(subject, wanted, NUCLEUS, Batching(rows=rows, join=2))
        assert parts
        mixed += [columns for columns in parts if columns[0] < max(columns)]
        for generation, trace in run_alone(subject, wanted, NUCLEUS).items():
            assert_same(subject, made[generation], trace, NUCLEUS)
    if name in ("llama", "gemma2"):  # a short one before a long one; others' texts may end sooner
        assert bool(mixed) == ("some rows" in request.node.name)


def test_a_long_text_is_no_burden_to_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a short one's keys only those are read that it has."""
    subject, read = model("gemma2"), list[tuple[int, int]]()
    own = grouped._grouped

    def spied(laid: Any, query: Tensor, key: Tensor, *others: Any) -> Any:
        if query.shape[2] == 1:
            read.append((len(key), key.shape[2]))
        return own(laid, query, key, *others)

    monkeypatch.setattr(grouped, "_grouped", spied)
    wanted = requests((200, 3, 5, 4), (9, 9, 9, 9))
    for price, together in ((4 << 20, True), (1 << 10, False)):
        read.clear()
        monkeypatch.setattr(decode, "_PART_BYTES", price)
        run(subject, wanted, NUCLEUS, Batching(rows=4))
        assert any(rows > 1 for rows, columns in read)
        assert any(columns > 200 for rows, columns in read)
        assert any(rows > 1 for rows, columns in read if columns > 200) == together


def test_texts_that_all_fit_and_are_alike_are_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    subject, tried = model("llama"), list[bool]()
    monkeypatch.setattr(decode, "takes_ragged", lambda model: tried.append(True) or False)
    run(subject, requests((9, 3, 5), (9, 9, 9)), NUCLEUS, Batching(rows=3))
    assert not tried
    run(subject, requests((99, 3, 5), (9, 9, 9)), NUCLEUS, Batching(rows=3))
    assert tried


@given(columns=st.lists(st.integers(1, 30), min_size=1, max_size=7), price=st.integers(0, 60))
def test_rows_are_cut_where_it_is_cheapest(columns: list[int], price: int) -> None:
    def cost(ends: Sequence[int]) -> int:
        parts = zip([0, *ends], ends, strict=False)
        return sum(max(columns[a:b]) * (b - a) + price for a, b in parts)

    inner = range(1, len(columns))
    every = [
        [*chosen, len(columns)] for n in range(len(columns)) for chosen in combinations(inner, n)
    ]
    found = cuts(columns, price)
    assert found in every
    assert cost(found) == min(map(cost, every))


# --- in every dtype ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_dtypes(dtype: torch.dtype, beside: list[tuple[int, int]]) -> None:
    subject = fresh("llama", dtype)
    alone = run_alone(subject, requests(LENGTHS, NEW_TOKENS), NUCLEUS)
    made = {trace.generation: trace for trace in in_order(subject)}
    assert beside
    for generation, trace in alone.items():
        n, other = trace.n_prompt, made[generation]
        apart = np.abs(other.score[:n] - trace.score[:n]).max(-1) / trace.norm[:n]
        assert apart.max() < 0.05


def test_texts_that_all_fit_are_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "takes_ragged", None)
    assert len(run(model("llama"), requests((3, 4), (2, 2)), NUCLEUS, Batching(2))) == 2


# --- who else looks ------------------------------------------------------------------------------


def steered(subject: Model, only_steps: bool) -> Any:
    """A steering vector as others write it, who know [rows, tokens]."""
    push_D = torch.linspace(-3, 3, subject.anatomy.d_model)

    def hook(_: nn.Module, __: object, out: Any) -> Any:
        h_BTD = out[0] if isinstance(out, tuple) else out
        moved = h_BTD + push_D if not only_steps or h_BTD.shape[1] == 1 else h_BTD
        return (moved, *out[1:]) if isinstance(out, tuple) else moved

    return subject.anatomy.blocks[0].module.register_forward_hook(hook)


@pytest.mark.parametrize("only_steps", [True, False])
def test_hooks_of_others_see_rows_and_tokens(
    only_steps: bool, beside: list[tuple[int, int]]
) -> None:
    subject = fresh("llama")
    plain = in_order(subject)
    assert beside
    beside.clear()
    hook = steered(subject, only_steps)
    alone = run_alone(subject, requests(LENGTHS, NEW_TOKENS), NUCLEUS)
    for trace, before in zip(in_order(subject), plain, strict=True):
        assert_same(subject, trace, alone[trace.generation], NUCLEUS)
        assert not np.allclose(trace.score[-1], before.score[-1])
    assert not beside
    hook.remove()
    in_order(subject)
    assert beside


def test_a_forward_that_somebody_has_put_on_a_module() -> None:
    subject = fresh("llama")
    assert takes(subject)
    norm: Any = subject.anatomy.final_norm
    norm.forward = norm.forward
    assert not takes(subject)
    del norm.forward
    assert takes(subject)


# --- what is wrong is not trusted ----------------------------------------------------------------


def test_a_row_that_is_written_elsewhere_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    own = Slots.ragged

    def shifted(self: Slots, row_N: Tensor, *others: Any) -> None:
        own(self, (row_N - 1).clamp(min=0), *others)

    monkeypatch.setattr(Slots, "ragged", shifted)
    assert not takes(fresh("llama"))


def test_a_mask_that_leaks_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    own = slots.masks

    def leaking(config: Any, position_BT: Tensor, columns: int, dtype: torch.dtype) -> Any:
        one_row = len(position_BT) == 1
        return own(config, position_BT + one_row, columns, dtype)

    monkeypatch.setattr(slots, "masks", leaking)
    assert not takes(fresh("llama"))


def test_each_way_of_attention_is_tried() -> None:
    subject = fresh("llama")
    assert takes(subject)
    subject.anatomy.config._attn_implementation = "eager"
    assert takes(subject)
    assert ragged._takes[subject.hf] == {"sdpa": True, "eager": True}


def test_a_forward_has_no_more_tokens_than_the_context(beside: list[tuple[int, int]]) -> None:
    """Some models give positions, or a temperature, by a token's place in the row."""
    subject = fresh("llama", max_position_embeddings=20)
    made = run(subject, requests((12,) * 6, (3,) * 6), NUCLEUS, Batching(rows=4, join=3))
    assert len(made) == 6 and beside
    assert max(n + tokens for n, tokens in beside) <= 20
    tiny = fresh("llama", max_position_embeddings=4)
    beside.clear()
    assert len(run(tiny, requests((2,) * 6, (2,) * 6), NUCLEUS, Batching(rows=4))) == 6
    assert not beside


@given(
    left=st.lists(st.integers(1, 50), min_size=1, max_size=30).map(
        lambda some: sorted(some, reverse=True)
    ),
    most=st.integers(1, 300),
)
def test_pieces_without_padding_have_as_many_tokens_as_may_be(left: list[int], most: int) -> None:
    cut = pieces(left, most, most, padded=False)
    assert [i for part in cut for i in range(len(left))[part]] == list(range(len(left)))
    for part, after in zip(cut, [*cut[1:], None], strict=True):
        mine = left[part]
        assert len(mine) == 1 or sum(mine) <= most
        assert len(mine) * mine[0] - sum(mine) <= most
        if after is not None:  # no room for one more
            more = [*mine, left[after.start]]
            assert sum(more) > most or len(more) * more[0] - sum(more) > most
