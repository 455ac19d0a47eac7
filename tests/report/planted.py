"""Runs whose readings are known beforehand: z is planted, everything else is made up around it.

Neutral numbers: mean 1 and std 2 at every site, answers' std 1, so that score = 1 + 2 z, and the
last prompt token has mean -1 and std 4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from traitscope.core import (
    Capture,
    Generation,
    Message,
    Prompt,
    TextRecord,
    TokenTable,
    Trace,
    TraitDirections,
    prompt_id_of,
    sites_of,
)
from traitscope.runs import Run, RunHeader, RunWriter

SITES = sites_of(3)  # embed, 0.mid, 0.post, 1.mid, 1.post, 2.mid, 2.post
READ = 4  # 1.post: the nearest .post half-way up
TRAITS = ("firmness", "doubt")


@dataclass(frozen=True)
class Text:
    """One answer: its words, z of each word per trait at the read site, and z at prompt[-1]."""

    prompt: str
    words: Sequence[str] = ("Yes", " indeed")
    z: Mapping[str, Sequence[float]] = field(default_factory=dict)
    before: Mapping[str, float] = field(default_factory=dict)
    embed: Mapping[str, Sequence[float]] = field(default_factory=dict)
    sample: int = 0
    label: str | None = None
    error: str = ""
    finish: str = "stop"

    @property
    def generation(self) -> Generation:
        return Generation(prompt_id_of([ord(c) for c in self.prompt]), self.sample)


def directions_of(trait: str) -> TraitDirections:
    n = len(SITES)
    raw = np.random.default_rng(len(trait)).normal(size=(n, 8))
    one = np.ones(n, dtype=np.float32)
    return TraitDirections(
        trait,
        SITES,
        (raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float32),
        neutral_mean=one,
        neutral_std=2 * one,
        neutral_response_std=one,
        neutral_prompt_mean=-one,
        neutral_prompt_std=4 * one,
        metadata={"read_site": "0.5", "positive": "More.", "negative": "Less."},
    )


def record_of(text: Text) -> TextRecord:
    prompt = Prompt((Message("user", text.prompt),), text.label)
    if text.error:
        return TextRecord(text.generation, prompt, error=text.error)
    pieces = ["<s>", text.prompt, "<a>", *text.words, "</s>"]
    n, ends = len(pieces), np.cumsum([len(piece) for piece in pieces]).astype(np.int32)
    place = np.arange(n)
    special = (place == 0) | (place == n - 1)
    tokens = TokenTable(
        token_id=place.astype(np.int32),
        role=np.where(special | (place == 2), "template", np.where(place < 2, "user", "assistant")),
        part=np.where(place < 3, "prompt", "response"),
        special=special,
        turn=(place >= 3).astype(np.int32),
        piece=tuple(pieces),
        start=(ends - [len(piece) for piece in pieces]).astype(np.int32),
        end=ends,
        text="".join(pieces),
    )
    score = _score(text, n)
    trace = Trace(
        generation=text.generation,
        token_ids=tokens.token_id,
        n_prompt=3,
        score=score,
        norm=np.full((n, len(SITES)), 1e4, dtype=np.float32),
        logprob=np.where(place == 0, np.nan, -1.0).astype(np.float32),
        finish="length" if text.finish == "length" else "stop",
        seconds=0.5,
    )
    return TextRecord(text.generation, prompt, "".join(text.words), tokens, trace)


def _score(text: Text, n: int) -> np.ndarray:
    """Scores [T, S, K] that give the planted z; 99 wherever nothing may be read."""
    score = np.full((n, len(SITES), len(TRAITS)), 99.0, dtype=np.float32)
    for k, trait in enumerate(TRAITS):
        words = slice(3, 3 + len(text.words))
        score[words, :, k] = 1.0
        score[words, READ, k] = 1 + 2 * np.asarray(text.z.get(trait, [0.0] * len(text.words)))
        score[words, 0, k] = 1 + 2 * np.asarray(text.embed.get(trait, [0.0] * len(text.words)))
        score[2, READ, k] = -1 + 4 * text.before.get(trait, 0.0)
    return score


def header_of(captures: Sequence[Capture], expect: Sequence[Mapping[str, Any]] = ()) -> RunHeader:
    return RunHeader(
        key="0123abcd",
        name="planted",
        suite={"name": "planted", "prompts": {}, "expect": list(expect)},
        model={"name": "made-up", "fingerprint": "ff", "dtype": "float32", "device": "cpu"},
        sites=tuple(site.name for site in SITES),
        generation={"max_new_tokens": 50, "temperature": 0.7, "seed": 0, "samples": 1},
        rows=24,
        join=1,
        captures=tuple(captures),
        created="2026-11-22T01:02:03.000Z",
    )


STATS = {
    "model_loads": 1,
    "batches": 2,
    "steps": 40,
    "tokens": 900,
    "new_tokens": 300,
    "tokens_per_second": 150.0,
    "made": 3,
    "seconds": {"load": 1.5, "generate": 2.0, "prefill": 0.5, "decode": 1.5, "total": 4.25},
}


def planted(
    path: Path,
    texts: Sequence[Text],
    *,
    expect: Sequence[Mapping[str, Any]] = (),
    missing: Sequence[Text] = (),
    events: Sequence[tuple[str, Mapping[str, Any]]] = (("finished", STATS),),
) -> Run:
    """A run folder with these texts committed; `missing` ones are wanted and not there."""
    captures = [Capture(text.generation, "asked") for text in texts]
    wanted = [*captures, *(Capture(text.generation, "asked") for text in missing)]
    directions = {trait: directions_of(trait) for trait in TRAITS}
    with RunWriter.create(path, header_of(wanted, expect), directions) as writer:
        writer.commit([record_of(text) for text in texts], captures)
        for kind, fields in events:
            writer.event(kind, **fields)
    return Run.open(path)
