"""What the first pages ask for: the list of runs, and one run in short."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from traitscope.errors import TraitscopeError
from traitscope.viewer.answers import answer
from traitscope.viewer.open_runs import OpenRuns, asked_run

__all__ = ["routes"]


def routes() -> list[Route]:
    return [Route("/api/runs", _runs), Route("/api/runs/{run}", _run)]


def _runs(request: Request) -> Response:
    runs: OpenRuns = request.app.state.runs
    runs.look_again()
    return answer({"runs": list(_listed(runs))})


def _listed(runs: OpenRuns) -> Iterator[dict[str, Any]]:
    for number in range(len(runs)):
        said: dict[str, Any] = {"run": number, "folder": runs.path(number).name}
        try:
            yield {**said, **_short(runs, number)}
        except TraitscopeError as error:  # one damaged run does not hide the others
            yield {**said, "error": str(error)}


def _short(runs: OpenRuns, number: int) -> dict[str, Any]:
    run = runs[number]
    header = run.header
    return {
        "name": header.name,
        "key": header.key,
        "state": run.state,
        "created": header.created,
        "model": header.model,
        "traits": run.traits,
        "sites": header.sites,
        "wanted": len(header.captures),
        "missing": len(run.missing()),
        "texts": len(run.generations()),
    }


def _run(request: Request) -> Response:
    return answer(_short(request.app.state.runs, asked_run(request)))
