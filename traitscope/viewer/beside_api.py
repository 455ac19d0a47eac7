"""The inside of a second block beside the first, and the names by which a query says what.

`internals` lists every capture of a block's inside.  `compare/account` is the second side's
account; `compare/neurons` the neurons whose contributions differ most.  A difference is always
b - a; heads and neurons are subtracted only where they are those of one model's one block.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from traitscope.core import Generation, Internals
from traitscope.errors import RunError
from traitscope.runs import GenerationRow, Run
from traitscope.runs.contributions import Contributions, Rows
from traitscope.viewer.answers import answer, whole_number
from traitscope.viewer.internals_api import (
    account_json,
    block_of,
    contributions_of,
    neurons_json,
    rows_of,
)
from traitscope.viewer.open_runs import OpenRuns

__all__ = ["routes", "run_named", "split", "title_of"]


def routes() -> list[Route]:
    return [
        Route("/api/internals", _insides),
        Route("/api/compare/account", _account),
        Route("/api/compare/neurons", _neurons),
    ]


# --- what a query names --------------------------------------------------------------------------


def split(request: Request, side: str, parts: int, example: str) -> list[str]:
    said = request.query_params.get(side, "")
    split = said.split("/")
    if len(split) != parts:
        raise RunError(f"{side}: expected {example}, got '{said}'.")
    return split


def run_named(request: Request, number: str) -> Run:
    runs: OpenRuns = request.app.state.runs
    if not (number.isascii() and number.isdecimal() and len(number) < 7):
        raise RunError(f"Expected the number of a run, got '{number}'. The first page lists them.")
    return runs[int(number)]


def title_of(row: GenerationRow) -> str:
    label = row.prompt.label or row.prompt.text
    return label if row.generation.sample == 0 else f"{label} (sample {row.generation.sample})"


# --- two insides ---------------------------------------------------------------------------------


def _insides(request: Request) -> Response:
    """Every capture of a block's inside, of all open runs."""
    runs: OpenRuns = request.app.state.runs
    captures = [
        {
            "name": f"{number}/{generation.id}/{block}",
            "run": number,
            "block": block,
            "label": label,
        }
        for number in range(len(runs))
        for generation, block, label in _labelled(runs[number])
    ]
    return answer({"captures": captures})


def _labelled(run: Run) -> Iterator[tuple[Generation, int, str]]:
    rows = {row.generation: row for row in run.generations()}
    for generation, block in run.all_internals():
        yield generation, block, title_of(rows[generation])


def _side(request: Request, side: str, at: str) -> tuple[Run, Internals, Contributions, Rows]:
    number, text, block = split(
        request, side, 3, "a run, a text and a block, such as 0/0123456789abcdef-0/3"
    )
    run = run_named(request, number)
    inside = block_of(run, text, block)
    rows = rows_of(run.text(inside.generation).tokens, request.query_params.get(at))
    return run, inside, contributions_of(run, inside, request.query_params), rows


def _account(request: Request) -> Response:
    """The second side's account; `same` says whether its heads have the first one's numbers."""
    run_a, inside_a, _, _ = _side(request, "a", "at")
    run, inside, written, rows = _side(request, "b", "bat")
    same = _one_numbering(run_a, inside_a, run, inside)
    return answer({**account_json(written, rows), "same": same})


def _one_numbering(run_a: Run, a: Internals, run_b: Run, b: Internals) -> bool:
    """Heads and neurons can be subtracted where they are those of one model's one block."""
    prints = [run.header.model.get("fingerprint") for run in (run_a, run_b)]
    return prints[0] == prints[1] and a.block == b.block


def _neurons(request: Request) -> Response:
    """The neurons whose contributions differ most; where they have no common numbers, a's own."""
    count = whole_number(request.query_params, "n", 20, 1, 500)
    run_a, inside_a, written_a, rows_a = _side(request, "a", "at")
    run_b, inside_b, written_b, rows_b = _side(request, "b", "bat")
    if not _one_numbering(run_a, inside_a, run_b, inside_b):
        return answer({**neurons_json(written_a, rows_a, "contribution", count), "same": False})
    activation, mine = written_a.mean_neurons(rows_a)
    _, other = written_b.mean_neurons(rows_b)
    top = np.argsort(-np.abs(other - mine), kind="stable")[:count]
    return answer(
        {
            "same": True,
            "of": len(mine),
            "all": mine.sum(),
            "top": [
                {
                    "neuron": int(i),
                    "activation": activation[i],
                    "contribution": mine[i],
                    "other": other[i],
                }
                for i in top
            ],
        }
    )
