"""One text for the trajectory page: its tokens and readings as JSON, its numbers as bytes, a scale.

`texts/GEN` has everything but the numbers; `texts/GEN/numbers` is little-endian float32: norm
[T, S], then score [T, S, K], in units of the residual stream, NaN where a trait is not scored yet.
`scale` is the 99th percentile of what content tokens read, over the run.  Sites and traits are
given by number, in the run's order.  What is derived from the numbers (cosine, z, colours, marks)
is the page's own affair; the readings are the report's, so that both say the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from traitscope.core import Window
from traitscope.errors import RunError
from traitscope.report.readings import RESPONSE, place_of, read_text, window_z
from traitscope.report.trajectory import (
    PERCENTILE,
    limits,
    numbers_bytes,
    sampled,
    tokens_json,
)
from traitscope.runs import GenerationRow, Run, TextData
from traitscope.viewer.answers import answer
from traitscope.viewer.open_runs import OpenRuns, asked_run

__all__ = ["routes", "scale_of", "text_json"]

_THOUGHTS = Window.parse("thinking[:]")


def routes() -> list[Route]:
    return [
        Route("/api/runs/{run}/texts/{text}", _text),
        Route("/api/runs/{run}/texts/{text}/numbers", _numbers),
        Route("/api/runs/{run}/scale", _scale),
    ]


def _text(request: Request) -> Response:
    run, row = _asked(request)
    return answer(text_json(run, row))


def _numbers(request: Request) -> Response:
    run, row = _asked(request)
    # a failed text has no tokens, so no bytes
    data = numbers_bytes(run.text(row.generation)) if row.status == "done" else b""
    return Response(data, media_type="application/octet-stream")


def _scale(request: Request) -> Response:
    runs: OpenRuns = request.app.state.runs
    return answer(runs.memo(asked_run(request), "scale", scale_of))


def _asked(request: Request) -> tuple[Run, GenerationRow]:
    """Only what the run lists is found: the id is compared, never made into a path."""
    run: Run = request.app.state.runs[asked_run(request)]
    name = request.path_params["text"]
    for row in run.generations():
        if row.generation.id == name:
            return run, row
    raise RunError(
        f"Expected the id of one of this run's {len(run.generations())} texts, got '{name}'. "
        "The run's page lists them."
    )


# --- one text ------------------------------------------------------------------------------------


def text_json(run: Run, row: GenerationRow) -> dict[str, Any]:
    """All that is known of a text but its numbers; of a failed one its reason, without tokens."""
    ids = [other.generation.id for other in run.generations()]
    place = ids.index(row.generation.id)
    about = {
        "generation": row.generation.id,
        "sample": row.generation.sample,
        "label": row.prompt.label,
        "tags": dict(row.prompt.tags),
        "messages": [{"role": m.role, "content": m.content} for m in row.prompt.messages],
        "status": row.status,
        "error": row.error,
        "finish": row.finish,
        "in_suite": row.in_suite,
        "run": {"name": run.header.name, "model": run.header.model.get("name", "")},
        "number": place + 1,
        "of": len(ids),
        "previous": ids[place - 1] if place else None,
        "next": ids[place + 1] if place + 1 < len(ids) else None,
        "sites": [site.name for site in run.sites],
    }
    if row.status != "done":
        return about
    text = run.text(row.generation)
    return about | {
        "blocks": run.internal_blocks(row.generation),
        "n_prompt": text.tokens.n_prompt,
        "traits": [_trait_json(run, text, number) for number in range(len(run.traits))],
        "tokens": _tokens_json(text),
    }


def _trait_json(run: Run, text: TextData, number: int) -> dict[str, Any]:
    name = run.traits[number]
    directions, place = run.directions[name], place_of(run, name)
    scored = not np.isnan(text.score[:, :, number]).any()
    return {
        "name": name,
        "positive": directions.metadata.get("positive", ""),
        "negative": directions.metadata.get("negative", ""),
        "site": place.site,
        "window": directions.metadata.get("read_window") or "response[:]",
        "scored": scored,
        "there": directions.direction.any(axis=1).tolist(),
        "neutral_mean": directions.neutral_mean,
        "neutral_std": directions.neutral_std,
        "neutral_response_std": directions.neutral_response_std,
        "neutral_prompt_mean": directions.neutral_prompt_mean,
        "neutral_prompt_std": directions.neutral_prompt_std,
        "reading": _reading_json(run, text, number) if scored else None,
    }


def _reading_json(run: Run, text: TextData, number: int) -> dict[str, float]:
    place = place_of(run, run.traits[number])
    reading = read_text(run, text, place)
    return {
        "thoughts": window_z(run, text, place.trait, place.site, _THOUGHTS),
        "before": reading.before,
        "response": reading.response,
        "embed": reading.embed,
    }


def _tokens_json(text: TextData) -> dict[str, Any]:
    """Columns over tokens: those of the report, and what only this page asks for."""
    tokens = text.tokens
    return {
        **tokens_json(tokens, text.logprob),
        "part": tokens.part.tolist(),
        "start": tokens.start.tolist(),
        "end": tokens.end.tolist(),
        "answer": RESPONSE.pick(tokens).tolist(),
    }


# --- the run's scale -----------------------------------------------------------------------------


def scale_of(run: Run) -> dict[str, Any]:
    """Per trait the 99th percentile of |score|, |cosine| and |z| over content tokens and sites.

    Taken from at most 48 done texts, evenly spread over the run; `texts` and `of` say how many of
    how many.  A trait without a number has null.
    """
    done = [row for row in run.generations() if row.status == "done"]
    texts = [run.text(row.generation) for row in sampled(done)]
    return {
        "percentile": PERCENTILE,
        "texts": len(texts),
        "of": len(done),
        "traits": {name: limits(run, number, texts) for number, name in enumerate(run.traits)},
    }
