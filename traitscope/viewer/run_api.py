"""What the first pages ask for: the list of runs, one run's facts, and what was found in it.

The facts are cheap and asked for again and again while a run goes on; what was found needs every
text's scores.  Numbers and verdicts are the report's own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from traitscope.errors import TraitscopeError
from traitscope.report import Summary, summarise
from traitscope.report.cost import cost_of
from traitscope.report.hints import hints
from traitscope.report.summary import Failure, PromptRow, TraitSummary, failures_of, unproven_of
from traitscope.runs import GenerationRow, Run
from traitscope.viewer.answers import answer
from traitscope.viewer.live import live_of
from traitscope.viewer.open_runs import OpenRuns, asked_run
from traitscope.viewer.scores import Scores, places_of

__all__ = ["routes", "scores_of"]

ENDS = 3  # prompts named at either end of a trait
NEWEST = 5
CHOICES = 200  # sets, kinds or tags to choose from
SHOWN = 400  # characters of a text in an overview


def routes() -> list[Route]:
    return [
        Route("/api/runs", _runs),
        Route("/api/runs/{run}", _run),
        Route("/api/runs/{run}/found", _found),
    ]


def scores_of(runs: OpenRuns, number: int) -> Scores:
    """The scores of a run, kept as long as it is open."""
    return runs.keep(number, "scores", Scores)


# --- the list ------------------------------------------------------------------------------------


def _runs(request: Request) -> Response:
    runs: OpenRuns = request.app.state.runs
    runs.look_again()
    return answer({"runs": list(_listed(runs))})


def _listed(runs: OpenRuns) -> Iterator[dict[str, Any]]:
    for number in range(len(runs)):
        said: dict[str, Any] = {"run": number, "folder": runs.path(number).name}
        try:
            # the manifest alone: a list of many runs opens no table
            run = runs[number]
            said |= {
                "name": run.header.name,
                "created": run.header.created,
                "model": run.header.model.get("name"),
                "traits": run.traits,
                "sites": run.header.sites,
                "wanted": len(run.header.captures),
                "recorded": run.recorded(),
            }
        except TraitscopeError as error:  # one damaged run does not hide the others
            said["error"] = str(error)
        yield said


# --- one run -------------------------------------------------------------------------------------


def _run(request: Request) -> Response:
    runs: OpenRuns = request.app.state.runs
    number = asked_run(request)
    run = runs[number]
    events = run.events()
    return answer(
        {
            **runs.memo(number, "facts", _facts),
            "run": number,
            "folder": runs.path(number).name,
            "live": asdict(live_of(run, events)),
            "cost": asdict(cost_of(events)),
            "unproven": unproven_of(run),
        }
    )


def _facts(run: Run) -> dict[str, Any]:
    """All that stays the same until something is committed."""
    header = run.header
    captures, wanted = run.captures(), len(header.captures)
    done = [row.capture.kind for row in captures if row.in_suite and row.status == "done"]
    missing = len(run.missing())
    rows = run.generations()
    return {
        "name": header.name,
        "description": str(header.suite.get("description") or ""),
        "key": header.key,
        "state": run.state,
        "created": header.created,
        "model": header.model,
        "generation": header.generation,
        "rows": header.rows,
        "sites": header.sites,
        "proofs": header.proofs,
        "versions": {**header.versions, "traitscope": header.traitscope_version},
        "traits": [_trait(run, place.trait, place.site) for place in places_of(run)],
        "counts": {
            "wanted": wanted,
            "done": len(done),
            "trajectories": done.count("trajectory"),
            "internals": done.count("internals"),
            "failed": wanted - len(done) - missing,
            "missing": missing,
            "outside": sum(not row.in_suite and row.status == "done" for row in captures),
            "texts": sum(row.status == "done" for row in rows),
            "cut": sum(row.finish == "length" for row in rows),
        },
        "failures": [_failure(failure) for failure in failures_of(run)],
        "sets": _counted(row.capture.prompt_set for row in captures),
        "kinds": _counted(row.capture.kind for row in captures),
        "tags": _counted(f"{k}={v}" for row in rows for k, v in row.prompt.tags.items()),
        "newest": [_newest(row) for row in run.newest(NEWEST)],
        "stamp": f"{len(run.commits())}.{wanted}.{len(run.traits)}",
    }


def _trait(run: Run, trait: str, site: int) -> dict[str, Any]:
    directions = run.directions[trait]
    about = directions.metadata
    return {
        "trait": trait,
        "site": run.sites[site].name,
        "window": "response[:]",
        "positive": about.get("positive", ""),
        "negative": about.get("negative", ""),
        "method": about.get("method", ""),
        "verdict": about.get("verdict", ""),
        "warning": about.get("warning", ""),
    }


def _failure(failure: Failure) -> dict[str, Any]:
    """Thousands may fail for one reason: a few of them are named."""
    names = [name[:SHOWN] for name in failure.prompts[:ENDS]]
    return {**asdict(failure), "prompts": names, "others": len(failure.prompts) - len(names)}


def _newest(row: GenerationRow) -> dict[str, str]:
    return {
        "generation": row.generation.id,
        "prompt": row.prompt.text[:SHOWN],
        "response": row.response[:SHOWN],
    }


def _counted(words: Iterable[str]) -> dict[str, int]:
    """The commonest words, by name: tags that number their prompts would fill a page."""
    return dict(sorted(Counter(words).most_common(CHOICES)))


# --- what was found ------------------------------------------------------------------------------


def _found(request: Request) -> Response:
    runs: OpenRuns = request.app.state.runs
    number = asked_run(request)
    scores = scores_of(runs, number)

    def make(run: Run) -> Mapping[str, Any]:
        summary = summarise(run, scores.all(run))
        return {
            "expectations": [asdict(verdict) for verdict in summary.expectations],
            "texts": _named(run, summary),
            "traits": [_ends(trait) for trait in summary.traits],
            "hints": hints(summary),
        }

    return answer(runs.memo(number, "found", make))


def _named(run: Run, summary: Summary) -> dict[str, str]:
    """The first done text of each prompt that an expectation or an end of a trait names."""
    sides = {name for verdict in summary.expectations for name in (verdict.higher, verdict.lower)}
    sides |= {row.name for trait in summary.traits for row in _outer(trait)}
    found: dict[str, str] = {}
    for row in run.generations():
        for name in (row.prompt.label, row.prompt.text):
            if row.status == "done" and name in sides:
                found.setdefault(name, row.generation.id)
    return found


def _ends(trait: TraitSummary) -> dict[str, Any]:
    return {
        "trait": trait.trait,
        "neutral_spread": trait.neutral_spread,
        "contrast": trait.contrast,
        "prompts": len(trait.prompts),
        "ends": [
            {"name": row.name[:SHOWN], "before": row.before, "answer": row.response}
            for row in _outer(trait)
        ],
    }


def _outer(trait: TraitSummary) -> list[PromptRow]:
    """The prompts at both ends, highest first."""
    rows = [row for row in trait.prompts if row.values]
    return rows if len(rows) <= 2 * ENDS else [*rows[:ENDS], *rows[-ENDS:]]
