"""Readings of many responses: two runs beside one another, and how a run's traits go together.

`compare/runs?a=0&b=1` is the shift of each trait over the prompts that both have, always b - a;
`runs/N/correlation` is over responses, never tokens.  A reading is a z at the trait's own
site, over the answer or before a word is written, as the report has it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from traitscope.report.columns import to_z
from traitscope.report.correlation import DRAWS, correlate, pearson, shift
from traitscope.report.readings import place_of
from traitscope.runs import Run
from traitscope.runs.comparison import differences, partners
from traitscope.viewer.answers import answer, choice
from traitscope.viewer.beside_api import run_named, title_of
from traitscope.viewer.open_runs import OpenRuns, asked_run
from traitscope.viewer.run_api import scores_of

__all__ = ["routes"]

POINTS = 2_000  # of a scatter
WINDOWS = {"before": "before", "answer": "mean"}  # as the page says it -> report.columns


def routes() -> list[Route]:
    return [
        Route("/api/compare/runs", _runs),
        Route("/api/runs/{run}/correlation", _correlation),
    ]


# --- two runs ------------------------------------------------------------------------------------


def _runs(request: Request) -> Response:
    numbers = [request.query_params.get(side, "") for side in ("a", "b")]
    a, b = (run_named(request, number) for number in numbers)
    statistic = WINDOWS[choice(request.query_params, "window", WINDOWS) or "answer"]
    traits = [trait for trait in a.traits if trait in b.traits]
    pairs = partners(a, b)
    z_a, z_b = (
        _z(request.app.state.runs, int(number), statistic, traits, [pair[i].id for pair in pairs])
        for i, number in enumerate(numbers)
    )
    moved = shift(z_b - z_a, [pair[0].prompt_id for pair in pairs])
    rows = {row.generation: row for row in a.generations()}
    return answer(
        {
            "traits": traits,
            "n": moved.n,
            "prompts": moved.prompts,
            "draws": DRAWS,
            "mean": moved.mean,
            "low": moved.low,
            "high": moved.high,
            "together": [_together(z_a[:, k], z_b[:, k]) for k in range(len(traits))],
            "pairs": [
                {"a": x.id, "b": y.id, "title": title_of(rows[x]), "za": z_a[i], "zb": z_b[i]}
                for i, (x, y) in enumerate(pairs[:POINTS])
            ],
            "of": len(pairs),
            "alone": [_done(run) - len(pairs) for run in (a, b)],
            "notes": differences(a, b, ("a", "b")) if a is not b else [],
        }
    )


def _together(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Pearson's r of one trait between the two runs."""
    both = np.stack([a, b], axis=1)
    both = both[np.isfinite(both).all(axis=1)]
    return float(pearson(both)[0, 1]) if len(both) > 2 else float("nan")


def _done(run: Run) -> int:
    return sum(row.status == "done" for row in run.generations())


# --- readings of many texts ----------------------------------------------------------------------


def _z(
    runs: OpenRuns, number: int, statistic: str, traits: Sequence[str], names: Sequence[str]
) -> NDArray[np.float64]:
    """z of some texts on some traits at each trait's own site: [N, K]."""
    run, columns = runs[number], scores_of(runs, number).all(runs[number])
    if columns is None or not names:
        return np.zeros((0, len(traits)))
    places = [place_of(run, trait) for trait in run.traits]
    z_NK = to_z(run, places, statistic, getattr(columns, statistic))
    row = {name: i for i, name in enumerate(columns.generations)}
    chosen = [run.traits.index(trait) for trait in traits]
    return np.asarray(z_NK[[row[name] for name in names]][:, chosen])


# --- a run's correlations ------------------------------------------------------------------------


def _correlation(request: Request) -> Response:
    """Matrices over all responses, and of at most 2,000 of them their z."""
    runs: OpenRuns = request.app.state.runs
    number = asked_run(request)
    run = runs[number]
    window = choice(request.query_params, "window", WINDOWS) or "answer"
    done = [row for row in run.generations() if row.status == "done"]
    names = [row.generation.id for row in done]
    z_NK = _z(runs, number, WINDOWS[window], run.traits, names)
    there = [k for k in range(len(run.traits)) if np.isfinite(z_NK[:, k]).any()]
    prompts = [row.generation.prompt_id for row in done]
    found = runs.memo(number, f"correlation {window}", lambda _: correlate(z_NK[:, there], prompts))
    shown = np.unique(np.linspace(0, len(done) - 1, min(len(done), POINTS)).astype(int))
    traits = [run.traits[k] for k in there]
    return answer(
        {
            "window": window,
            "traits": traits,
            "sites": [run.sites[place_of(run, trait).site].name for trait in traits],
            "left_out": [trait for trait in run.traits if trait not in traits],
            "n": found.n,
            "prompts": found.prompts,
            "of": len(done),
            "draws": DRAWS,
            "pearson": found.pearson,
            "spearman": found.spearman,
            "low": found.low,
            "high": found.high,
            "cosine": _cosines(run, traits),
            "points": [
                {"generation": names[i], "title": title_of(done[i]), "z": z_NK[i, there]}
                for i in shown
            ],
        }
    )


def _cosines(run: Run, traits: Sequence[str]) -> list[list[float | None]]:
    """How alike the directions are; null for traits that are read at different sites."""
    places = [place_of(run, trait).site for trait in traits]
    vectors = [run.directions[t].direction[s] for t, s in zip(traits, places, strict=True)]
    return [
        [float(v @ w) if s == r else None for w, r in zip(vectors, places, strict=True)]
        for v, s in zip(vectors, places, strict=True)
    ]
