"""Runs to test with: made-up texts, numbers and directions, the same for the same seed."""

from __future__ import annotations

import string
from collections.abc import Sequence

import numpy as np

from traitscope.core import (
    Capture,
    Generation,
    Internals,
    Message,
    Prompt,
    TextRecord,
    TokenTable,
    Trace,
    TraitDirections,
    prompt_id_of,
    sites_of,
)
from traitscope.runs import RunHeader

SITES = sites_of(2)
TRAITS = ("alpha", "beta")
D = 8


def directions_of(trait: str, seed: int = 0) -> TraitDirections:
    rng = np.random.default_rng([seed, *trait.encode()])
    raw = rng.normal(size=(len(SITES), D))
    numbers = rng.uniform(0.5, 1.5, size=(5, len(SITES))).astype(np.float32)
    return TraitDirections(
        trait,
        SITES,
        (raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float32),
        *numbers,
        metadata={"method": "mean_difference", "positive": "more é", "read_site": "0.5"},
    )


def directions() -> dict[str, TraitDirections]:
    return {trait: directions_of(trait) for trait in TRAITS}


def generation(number: int, sample: int = 0) -> Generation:
    return Generation(prompt_id_of([number]), sample)


def text_record(
    number: int,
    *,
    pieces: Sequence[str] = ("<s>", "Hé", "llo", "?", "Yes", "."),
    n_prompt: int = 4,
    label: str | None = None,
    prompt: str = "Héllo?",
) -> TextRecord:
    rng = np.random.default_rng(number)
    n = len(pieces)
    ends = np.cumsum([len(piece) for piece in pieces]).astype(np.int32)
    position = np.arange(n)
    state = rng.normal(size=(n, len(SITES), D)).astype(np.float32)
    score = np.stack(
        [np.einsum("tsd,sd->ts", state, d.direction) for d in directions().values()], axis=2
    )
    logprob = -rng.uniform(size=n).astype(np.float32)
    logprob[:1] = np.nan
    token_id = rng.integers(0, 2**18, size=n).astype(np.int32)
    tokens = TokenTable(
        token_id=token_id,
        role=np.where(position < 1, "template", np.where(position < n_prompt, "user", "assistant")),
        part=np.where(position < n_prompt, "prompt", "response"),
        special=position == 0,
        turn=(position >= n_prompt).astype(np.int32),
        piece=tuple(pieces),
        start=np.concatenate([[0], ends[:-1]]).astype(np.int32),
        end=ends,
        text="".join(pieces),
    )
    trace = Trace(
        generation=generation(number),
        token_ids=token_id,
        n_prompt=n_prompt,
        score=score.astype(np.float32),
        norm=np.linalg.norm(state, axis=2).astype(np.float32),
        logprob=logprob,
        finish="stop",
        seconds=0.25,
    )
    return TextRecord(
        generation=generation(number),
        prompt=Prompt((Message("user", prompt),), label, {"topic": "greeting"}),
        response="".join(pieces[n_prompt:]),
        tokens=tokens,
        trace=trace,
    )


def failed_record(number: int, error: str = "Expected room, got none.") -> TextRecord:
    return TextRecord(generation(number), Prompt.of("too long"), error=error)


def internals_of(record: TextRecord, block: int = 1) -> Internals:
    assert record.trace is not None
    n = len(record.trace.token_ids)
    rng = np.random.default_rng(block)
    tensors = {
        "neurons": rng.normal(size=(n, 6)).astype(np.float16),
        "resid_post": rng.normal(size=(n, D)).astype(np.float32),
        "attention": np.tril(np.ones((2, n, n), dtype=np.float32)),
        "neuron_to_score": rng.normal(size=(len(TRAITS), 6)).astype(np.float32),
    }
    return Internals(record.generation, block, TRAITS, tensors, {"activation": "silu"})


def capture(number: int, prompt_set: str = "greetings") -> Capture:
    return Capture(generation(number), prompt_set)


def header_of(numbers: Sequence[int] = range(4), key: str = "0123abcd") -> RunHeader:
    return RunHeader(
        key=key,
        name="tiny",
        suite={"name": "tiny", "prompts": {"greetings": {"texts": ["Héllo?"]}}, "expect": []},
        model={"name": "made-up", "fingerprint": "ff00", "dtype": "float32", "n_blocks": 2},
        sites=tuple(site.name for site in SITES),
        traits=tuple({"name": t, "hash": d.hash, "file": ""} for t, d in directions().items()),
        generation={"max_new_tokens": 50, "temperature": 0.7, "seed": 0},
        rows=2,
        join=1,
        captures=tuple(capture(number) for number in numbers),
        versions={"numpy": np.__version__},
        proofs={"batched_alone": 1.2e-7, "letters": string.ascii_lowercase[:3]},
        created="2026-11-22T03:04:05.678Z",
    )
