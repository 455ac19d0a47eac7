"""A text read in one forward has the numbers it had when it was written, token by token."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.exact.reference import GREEDY, NUCLEUS, directions, model, own_logits, requests
from traitscope.core import Generation, GenerationConfig, Trace
from traitscope.engine import Batching, Clock, generate, score_texts
from traitscope.engine.decode import Steps

ARCHITECTURES = ("llama", "gemma2", "gpt2", "falcon", "olmo2", "qwen3_moe", "cohere2")
ALLOWED = 1e-5  # in units of |h|, float32


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_scores_logprobs_and_states(name: str) -> None:
    tiny, keep = model(name), (0, 2, 4)
    keep = tuple(site for site in keep if site < len(tiny.sites))
    wanted = requests((5, 12, 1, 9), (6, 3, 8, 5))
    made = list(generate(tiny, wanted, directions(tiny), GREEDY, Batching(2), keep=keep))
    texts = [trace.token_ids.tolist() for trace in made]
    read = list(score_texts(tiny, texts, directions(tiny), logprobs=True, keep=keep))
    assert sorted(text.index for text in read) == list(range(len(texts)))
    for text in read:
        trace = made[text.index]
        assert trace.kept is not None and text.kept is not None
        assert np.abs(text.score - trace.score).max() <= ALLOWED * trace.norm.max()
        assert (np.abs(text.score - trace.score).max(axis=-1) / trace.norm).max() <= ALLOWED
        np.testing.assert_allclose(text.norm, trace.norm, rtol=ALLOWED)
        np.testing.assert_allclose(text.logprob, trace.logprob, atol=1e-4)
        apart = np.linalg.norm(text.kept - trace.kept, axis=-1) / trace.norm[:, keep]
        assert apart.max() <= ALLOWED
        np.testing.assert_allclose(
            np.linalg.norm(trace.kept, axis=-1), trace.norm[:, keep], rtol=ALLOWED
        )


def test_logprobs_are_the_models_own() -> None:
    tiny = model("gemma2")  # soft-capped logits
    ids = [[7, 20, 3, 99, 41], [5, 6, 7]]
    read = score_texts(tiny, ids, directions(tiny), logprobs=True)
    for text in read:
        own = own_logits(tiny, ids[text.index]).log_softmax(-1)
        expected = own[:-1].gather(1, torch.tensor(ids[text.index])[1:, None])[:, 0]
        assert np.isnan(text.logprob[0])
        np.testing.assert_allclose(text.logprob[1:], expected, atol=1e-4)


def test_no_tensor_of_tokens_by_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    """The head sees a few tokens at a time, and no padding; without logprobs it sees none."""
    from traitscope.engine import logprob

    tiny = model("llama")  # its proofs are made with the head too
    seen: list[int] = []

    def sees(head: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        seen.append(len(args[0]))

    handle = tiny.anatomy.head.register_forward_pre_hook(sees)
    monkeypatch.setattr(logprob, "LEAST", 4)
    monkeypatch.setattr(logprob, "BYTES", 0)
    ids = [[*range(10)], [1, 2, 3]]
    list(score_texts(tiny, ids, directions(tiny), logprobs=True))
    assert max(seen) <= 4
    assert sum(seen) == 9 + 2
    seen.clear()
    (long, _) = score_texts(tiny, ids, directions(tiny))
    handle.remove()
    assert not seen
    assert np.isnan(long.logprob).all()


@pytest.mark.parametrize("steps", ["plain", "bucketed"])
def test_without_prompt_logprobs_prompts_alone_have_none(steps: Steps) -> None:
    """All else stays as it is, and the head is not asked about prompts.

    Two of the four take over what another one has read, with what is not known of it.
    """
    tiny, seen = model("gemma2"), list[int]()
    wanted = [*requests((40, 9), (5, 7)), *requests((44,), (6,), sample=1)]
    wanted.append(replace(wanted[0], generation=Generation(wanted[0].generation.prompt_id, 2)))

    def made(config: GenerationConfig) -> dict[Generation, Trace]:
        clock, batching = Clock(), Batching(3, steps=steps)
        seen.clear()
        found = generate(tiny, wanted, directions(tiny), config, batching, clock)
        traces = {trace.generation: trace for trace in found}
        assert clock.shared_tokens
        return traces

    handle = tiny.anatomy.head.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    whole = made(NUCLEUS)
    with_prompts = sum(seen)
    without = made(replace(NUCLEUS, prompt_logprobs=False))
    handle.remove()
    read = (
        43 + 8
    )  # the last token of a prompt is fed by a step; the first 40 of 44 are a prompt too
    assert with_prompts - sum(seen) == read
    for generation, trace in without.items():
        n = trace.n_prompt
        assert np.isnan(trace.logprob[:n]).all()
        assert np.isfinite(whole[generation].logprob[1:]).all()
        np.testing.assert_array_equal(trace.logprob[n:], whole[generation].logprob[n:])
        np.testing.assert_array_equal(trace.token_ids, whole[generation].token_ids)
        np.testing.assert_array_equal(trace.score, whole[generation].score)
    assert without.keys() == whole.keys()


@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_who_keeps_the_heads_output_has_it_as_it_was(name: str) -> None:
    """Logits are worked on in place; not those that a hook has kept."""
    tiny, kept = model(name), list[tuple[torch.Tensor, torch.Tensor]]()

    def keep(head: torch.nn.Module, args: object, output: torch.Tensor) -> None:
        kept.append((output, output.clone()))

    handle = tiny.anatomy.head.register_forward_hook(keep)
    list(score_texts(tiny, [[*range(10)]], directions(tiny), logprobs=True))
    list(generate(tiny, requests((5, 3), (4, 4)), directions(tiny), GREEDY, Batching(2)))
    handle.remove()
    assert len(kept) > 4
    assert all(torch.equal(now, then) for now, then in kept)


def test_no_traits_and_one_token() -> None:
    tiny = model("llama")
    nothing = np.zeros((len(tiny.sites), tiny.anatomy.d_model, 0), dtype=np.float32)
    (text,) = score_texts(tiny, [[5]], nothing, logprobs=True, keep=[1])
    assert text.score.shape == (1, len(tiny.sites), 0)
    assert text.kept is not None and text.kept.shape == (1, 1, tiny.anatomy.d_model)
    assert np.isnan(text.logprob).all()
