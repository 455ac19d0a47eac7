"""Two texts beside one another, and what may be set beside a text.

`compare?a=0/GEN&b=1/GEN` lines two texts up (their numbers are those of `texts/GEN/numbers`);
`compare/partners?a=0/GEN` says what stands near a text, with `q` of those only whose words have it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from traitscope.errors import RunError
from traitscope.runs import GenerationRow, Run
from traitscope.runs.alignment import align, pair_sites
from traitscope.runs.comparison import differences
from traitscope.viewer.answers import answer
from traitscope.viewer.beside_api import run_named, split, title_of
from traitscope.viewer.open_runs import OpenRuns

__all__ = ["routes"]

NEAR = 60  # texts offered to be set beside one


def routes() -> list[Route]:
    return [
        Route("/api/compare", _texts),
        Route("/api/compare/partners", _partners),
    ]


# --- two texts -----------------------------------------------------------------------------------


def _texts(request: Request) -> Response:
    a, row_a = _text(request, "a")
    b, row_b = _text(request, "b")
    aligned = align(a.text(row_a.generation).tokens, b.text(row_b.generation).tokens)
    sites = pair_sites(a.sites, b.sites)
    return answer(
        {
            "columns": [list(column) for column in aligned.columns],
            "same": aligned.same,
            "common": aligned.common,
            "by": aligned.by,
            "sites": [list(pair) for pair in sites],
            "traits": [trait for trait in a.traits if trait in b.traits],
            "notes": [*aligned.notes, *(differences(a, b, ("a", "b")) if a is not b else ())],
        }
    )


def _text(request: Request, side: str) -> tuple[Run, GenerationRow]:
    """The text that a query names as RUN/GEN; RunError for what is not listed."""
    number, name = split(request, side, 2, "a run and a text, such as 0/0123456789abcdef-0")
    run = run_named(request, number)
    row = next((row for row in run.generations() if row.generation.id == name), None)
    if row is None:
        raise RunError(f"Expected one of the run's texts, got '{name}'. Its page lists them.")
    return run, row


# --- what may be set beside a text ---------------------------------------------------------------


def _partners(request: Request) -> Response:
    """Texts of the same chat first, then those whose words contain `q`, of all open runs."""
    a, row = _text(request, "a")
    words = request.query_params.get("q", "").strip().casefold()
    near = sorted(_near(request.app.state.runs, a, row, words), key=lambda each: each["far"])
    return answer({"texts": near[:NEAR], "of": len(near)})


def _near(runs: OpenRuns, mine: Run, row: GenerationRow, words: str) -> Iterator[dict[str, Any]]:
    for number in range(len(runs)):
        run = runs[number]
        for other in run.generations():
            if other.status != "done" or (run is mine and other.generation == row.generation):
                continue
            same = other.prompt.messages == row.prompt.messages
            title = title_of(other)
            if words and words not in f"{title} {other.prompt.text}".casefold():
                continue
            far = 0 if same and run is not mine else 1 if same else 2 if run is mine else 3
            yield {
                "run": number,
                "generation": other.generation.id,
                "title": title,
                "far": far,
                "why": ("the same chat, another run", "another sample", "", "another run")[far],
            }
