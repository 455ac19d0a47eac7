"""Captured = the model's own: what a batch captured, held against transformers over one text.

Every site that transformers exposes against `output_hidden_states`; `mid` against hooks of the
test's own on modules named here; log probabilities against the model's logits; greedy texts
against `generate`.  Row i belongs to token i, the model having just read it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.exact.reference import (
    END_IDS,
    GREEDY,
    NUCLEUS,
    VARIANTS,
    directions,
    model,
    own_blocks,
    own_logits,
    requests,
    run,
)
from traitscope.core import Trace
from traitscope.engine import Batching, mean_states, score_texts
from traitscope.models import Model, Taps
from traitscope.models.taps import States

ALLOWED = 1e-5
LENGTHS = (3, 1, 21, 6, 12)
NEW_TOKENS = (9, 6, 4, 1, 7)
BATCHING = Batching(rows=3, join=1, prefill_tokens=16)


def _traces(name: str) -> list[Trace]:
    return list(run(model(name), requests(LENGTHS, NEW_TOKENS), NUCLEUS, BATCHING).values())


def _first(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


@torch.inference_mode()
def _own_states(subject: Model, ids: list[int]) -> list[Tensor]:
    """[T, D] at embed and every .post; the last one before the final norm, by a hook."""
    last: list[Tensor] = []
    block = own_blocks(subject)[-1]
    handle = block.register_forward_hook(lambda m, x, y: last.append(_first(y)[0].clone()))
    out = subject.hf(
        input_ids=torch.tensor([ids]),
        attention_mask=torch.ones(1, len(ids), dtype=torch.int64),
        output_hidden_states=True,
        use_cache=False,
    )
    handle.remove()
    return [h[0] for h in out.hidden_states[:-1]] + last


def _apart(trace: Trace, site: int, h_TD: Tensor, subject: Model, shift: int = 0) -> float:
    """The largest |score - own score| / |h| at one site; row i against row i + shift."""
    own = h_TD.numpy() @ directions(subject)[site]
    n = len(own) - shift
    off = np.abs(trace.score[:n, site] - own[shift:]).max(axis=-1)
    return float((off / trace.norm[:n, site]).max())


@pytest.mark.parametrize("name", VARIANTS)
def test_scores_are_the_hidden_states_projected(name: str) -> None:
    subject = model(name)
    exposed = [i for i, site in enumerate(subject.sites) if site.place != "mid"]
    for trace in _traces(name):
        states = _own_states(subject, trace.token_ids.tolist())
        assert trace.score.shape[:2] == (len(trace.token_ids), len(subject.sites))
        assert len(states) == len(exposed)
        for i, h_TD in zip(exposed, states, strict=True):
            assert _apart(trace, i, h_TD, subject) <= ALLOWED, subject.sites[i]
            own = torch.linalg.vector_norm(h_TD, dim=-1).numpy()
            np.testing.assert_allclose(trace.norm[:, i], own, rtol=1e-5)


@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt2", "falcon"])
def test_row_i_is_after_reading_token_i(name: str) -> None:
    """The comparison above has teeth: one row off, in either direction, is far away."""
    subject = model(name)
    trace = max(_traces(name), key=lambda trace: len(trace.token_ids))
    states = _own_states(subject, trace.token_ids.tolist())
    exposed = [i for i, site in enumerate(subject.sites) if site.place != "mid"]
    for i, h_TD in zip(exposed, states, strict=True):
        assert _apart(trace, i, h_TD, subject) <= ALLOWED
        assert _apart(trace, i, h_TD, subject, shift=1) > 0.02
        assert _apart(trace, i, h_TD.roll(1, 0), subject) > 0.02


# --- mid, by hooks named here --------------------------------------------------------------------


def _llama(hf: Any, i: int) -> tuple[nn.Module, nn.Module, nn.Module]:
    block = hf.model.layers[i]
    return block, block.self_attn, block.mlp


def _post_normed(hf: Any, i: int) -> tuple[nn.Module, nn.Module, nn.Module]:
    block = hf.model.layers[i]
    return block, block.post_attention_layernorm, block.post_feedforward_layernorm


def _gpt2(hf: Any, i: int) -> tuple[nn.Module, nn.Module, nn.Module]:
    block = hf.transformer.h[i]
    return block, block.attn, block.mlp


def _neox(hf: Any, i: int) -> tuple[nn.Module, nn.Module, nn.Module]:
    block = hf.gpt_neox.layers[i]
    return block, block.attention, block.mlp


MID: dict[str, tuple[Callable[[Any, int], tuple[nn.Module, nn.Module, nn.Module]], float]] = {
    "exaone4": (_post_normed, 1.0),
    "gemma2": (_post_normed, 1.0),
    "gemma3_text": (_post_normed, 1.0),
    "gpt2": (_gpt2, 1.0),
    "gpt_neox sequential": (_neox, 1.0),
    "granite": (_llama, 0.3),
    "llama": (_llama, 1.0),
    "mixtral": (_llama, 1.0),
    "olmo2": (_post_normed, 1.0),
    "phi3": (_llama, 1.0),
    "qwen3": (_llama, 1.0),
    "stablelm": (_llama, 1.0),
}


@pytest.mark.parametrize("name", MID)
def test_mid_is_what_attention_added(name: str) -> None:
    subject, (parts_of, multiplier) = model(name), MID[name]
    names = [site.name for site in subject.sites]
    assert names == ["embed"] + [f"{i}.{place}" for i in range(3) for place in ("mid", "post")]
    trace = max(_traces(name), key=lambda trace: len(trace.token_ids))
    seen: dict[tuple[int, str], Tensor] = {}

    def keep(key: tuple[int, str]) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            seen[key] = _first(output)[0].clone()

        return hook

    handles = []
    for i in range(3):
        block, attention, rest = parts_of(subject.hf, i)
        handles += [
            block.register_forward_hook(keep((i, "post"))),
            attention.register_forward_hook(keep((i, "attention"))),
            rest.register_forward_hook(keep((i, "rest"))),
        ]
    ids = trace.token_ids.tolist()
    embedded = _own_states(subject, ids)[0]
    for handle in handles:
        handle.remove()
    for i in range(3):
        pre = seen[i - 1, "post"] if i else embedded
        mid = pre + seen[i, "attention"] * multiplier
        assert _apart(trace, names.index(f"{i}.mid"), mid, subject) <= ALLOWED
        post = mid + seen[i, "rest"] * multiplier
        assert _apart(trace, names.index(f"{i}.post"), post, subject) <= ALLOWED
        assert _apart(trace, names.index(f"{i}.mid"), post, subject) > 0.02
        assert _apart(trace, names.index(f"{i}.mid"), pre, subject) > 0.02


@pytest.mark.parametrize(
    "name", ["cohere", "cohere2", "falcon", "falcon grouped", "gpt_neox", "stablelm parallel"]
)
def test_parallel_blocks_have_no_mid(name: str) -> None:
    assert [site.name for site in model(name).sites] == ["embed", "0.post", "1.post", "2.post"]


# --- log probabilities ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cohere", "gemma2", "gpt2", "granite", "llama", "mixtral"])
def test_logprob_is_under_the_model_itself(name: str) -> None:
    """At temperature 1 with nothing truncated, whatever was drawn with; prompt tokens too."""
    subject = model(name)
    for trace in _traces(name):
        ids = trace.token_ids.tolist()
        own = own_logits(subject, ids).log_softmax(-1)
        expected = [own[t - 1, ids[t]].item() for t in range(1, len(ids))]
        assert np.isnan(trace.logprob[0])
        np.testing.assert_allclose(trace.logprob[1:], expected, rtol=1e-5, atol=1e-4)


# --- replay --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VARIANTS)
def test_replay_is_capture(name: str) -> None:
    subject = model(name)
    traces = _traces(name)
    texts = [trace.token_ids.tolist() for trace in traces]
    seen = set()
    for text in score_texts(subject, texts, directions(subject), batch_tokens=40):
        i, score, norm = text.index, text.score, text.norm
        seen.add(i)
        assert score.shape == traces[i].score.shape
        off = np.abs(score - traces[i].score).max(axis=-1) / traces[i].norm
        assert off.max() <= ALLOWED
        np.testing.assert_allclose(norm, traces[i].norm, rtol=1e-5)
    assert seen == set(range(len(texts)))


def test_replay_of_a_long_text_projects_site_by_site_alike() -> None:
    """Beyond the size at which states are stacked, the other way of projecting is used."""
    subject = model("gemma2")
    texts = [list(r.token_ids) for r in requests((230, 90, 1, 200), (1, 1, 1, 1))]
    apart = {text.index: text.score for text in score_texts(subject, texts, directions(subject))}
    for i, text in enumerate(texts):
        (alone,) = score_texts(subject, [text], directions(subject), batch_tokens=1)
        off = np.abs(apart[i] - alone.score).max(axis=-1) / alone.norm
        assert off.max() <= ALLOWED


def test_means_are_over_the_chosen_tokens_only() -> None:
    subject = model("gemma2")
    texts = [list(r.token_ids) for r in requests((9, 30, 4), (1, 1, 1))]
    rng = np.random.default_rng(0)
    chosen = [rng.random(len(text)) < 0.5 for text in texts]
    chosen[2][:] = False
    mean = mean_states(subject, texts, chosen, batch_tokens=64)
    exposed = [i for i, site in enumerate(subject.sites) if site.place != "mid"]
    for n, text in enumerate(texts):
        for i, h_TD in zip(exposed, _own_states(subject, text), strict=True):
            own = h_TD.numpy()[chosen[n]].mean(0) if chosen[n].any() else np.zeros(h_TD.shape[1])
            np.testing.assert_allclose(mean[n, i], own, atol=1e-4)


# --- texts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["cohere2", "falcon", "gemma2", "gpt2", "gpt_neox", "llama", "mixtral", "olmo2", "qwen3"],
)
def test_greedy_text_is_what_transformers_generates(name: str) -> None:
    subject = model(name)
    wanted = requests(LENGTHS, (9, 9, 9, 9, 9), seed=2)
    made = run(subject, wanted, GREEDY, BATCHING)
    for request in wanted:
        ids = torch.tensor([request.token_ids])
        own = subject.hf.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=9,
            eos_token_id=list(END_IDS),
            pad_token_id=256,
        )
        assert made[request.generation].token_ids.tolist() == own[0].tolist()


# --- what others do to the model -----------------------------------------------------------------


@pytest.mark.parametrize("where", ["output", "input"])
def test_what_a_hook_of_others_changes_is_seen(where: str) -> None:
    """A steering vector put on a block by hand is in the states, from its site on."""
    subject = model("llama")
    block, push = subject.anatomy.blocks[1].module, 0.7
    plain = _states(subject)
    if where == "output":
        handle = block.register_forward_hook(lambda _, __, output: output + push)
        first = [site.name for site in subject.sites].index("1.post")
    else:
        mid = subject.anatomy.blocks[1].mid_input_of
        assert mid is not None
        handle = mid.register_forward_pre_hook(lambda _, args: (args[0] + push, *args[1:]))
        first = [site.name for site in subject.sites].index("1.mid")
    try:
        steered = _states(subject)
    finally:
        handle.remove()
    torch.testing.assert_close(steered[:first], plain[:first])
    torch.testing.assert_close(steered[first], plain[first] + push)
    torch.testing.assert_close(_states(subject), plain)


def test_a_forward_that_others_put_there_stays() -> None:
    """accelerate replaces a module's forward; ours goes around it and away again."""
    subject = model("llama")
    block, plain = subject.anatomy.blocks[1].module, _states(subject)
    inner, calls = block.forward, 0

    def own(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        return inner(*args, **kwargs)

    block.forward = own
    try:
        torch.testing.assert_close(_states(subject), plain)
        assert calls == 1
        assert block.forward is own
    finally:
        del block.forward


def _states(subject: Model) -> torch.Tensor:
    """[S, T, D] of one short text."""
    sink = States()
    with Taps(subject.anatomy, sink), torch.no_grad():
        subject.hf(input_ids=torch.tensor([[5, 9, 20, 7]]))
        return torch.stack([h_BTD[0].clone() for h_BTD in sink.h])
