"""traitscope as a contestant: texts and scores by its public engine, given prompts' ids.

`texts` and `scores` come back in the order of the prompts, whatever order the engine finished in,
so that they can be held against those of others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from traitscope.core import Float32, Generation, GenerationConfig, Trace, prompt_id_of
from traitscope.engine import Batching, Clock, Request, generate, score_texts
from traitscope.models import Model

__all__ = [
    "Made",
    "answers",
    "directions",
    "replayed",
    "streamed",
    "streamed_replay",
    "traces",
    "uncaptured",
]


@dataclass(frozen=True)
class Made:
    """New ids of each prompt, and scores [T, S, K] of all of its tokens."""

    texts: list[list[int]]
    scores: list[Float32]
    norms: list[Float32]


def directions(model: Model, traits: int, seed: int = 0) -> Float32:
    """Random unit directions [S, D, K]."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(len(model.sites), model.anatomy.d_model, traits, generator=generator)
    unit: Float32 = torch.nn.functional.normalize(drawn, dim=1).numpy()
    return unit


def requests(prompts: Sequence[Sequence[int]], new: int) -> list[Request]:
    return [
        Request(Generation(prompt_id_of(list(ids)), at), tuple(ids), new)
        for at, ids in enumerate(prompts)
    ]


def answers(
    model: Model,
    prompts: Sequence[Sequence[int]],
    direction_SDK: Float32 | None,
    new: int,
    batching: Batching,
    clock: Clock | None = None,
    **how: Any,
) -> Made:
    """Texts of at most `new` tokens, greedy if nothing else is said, with all scores; `how` are
    further settings of the sampling."""
    found = list(traces(model, prompts, direction_SDK, new, batching, clock, **how))
    found.sort(key=lambda trace: trace.generation.sample)
    return Made(
        [trace.token_ids[trace.n_prompt :].tolist() for trace in found],
        [trace.score for trace in found],
        [trace.norm for trace in found],
    )


def traces(
    model: Model,
    prompts: Sequence[Sequence[int]],
    direction_SDK: Float32 | None,
    new: int,
    batching: Batching,
    clock: Clock | None = None,
    **how: Any,
) -> Iterator[Trace]:
    """What `answers` gathers, as it comes; a prompt's place is its `sample`."""
    config = GenerationConfig(**{"max_new_tokens": new, "temperature": 0, **how})
    return generate(model, requests(prompts, new), direction_SDK, config, batching, clock)


def replayed(model: Model, texts: Sequence[Sequence[int]], direction_SDK: Float32) -> Made:
    """Scores of finished texts, without log probabilities."""
    found = sorted(score_texts(model, texts, direction_SDK), key=lambda scored: scored.index)
    return Made([], [each.score for each in found], [each.norm for each in found])


def streamed(
    model: Model,
    prompts: Sequence[Sequence[int]],
    direction_SDK: Float32,
    new: int,
    batching: Batching,
) -> int:
    """As `answers`, but every trace is let go as it comes; the number of them."""
    config = GenerationConfig(max_new_tokens=new, temperature=0)
    return sum(1 for _ in generate(model, requests(prompts, new), direction_SDK, config, batching))


def streamed_replay(model: Model, texts: Sequence[Sequence[int]], direction_SDK: Float32) -> int:
    return sum(1 for _ in score_texts(model, texts, direction_SDK))


def uncaptured(
    model: Model, prompts: Sequence[Sequence[int]], new: int, batching: Batching
) -> list[list[int]]:
    """The engine's own loop with nothing tapped: what capture is held against."""
    return answers(model, prompts, None, new, batching).texts
