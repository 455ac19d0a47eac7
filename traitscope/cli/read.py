"""The verbs that read a run and change nothing: report, verify.  They never load torch."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from traitscope.cli.options import Json, RunFolder
from traitscope.cli.screen import Screen
from traitscope.errors import RunError
from traitscope.report.plain import one_line

if TYPE_CHECKING:
    from traitscope.report import Summary
    from traitscope.runs import Problem

__all__ = ["report", "show_report", "verify"]

DAMAGED = RunError.exit_status


def report(
    run: RunFolder,
    file: Annotated[
        str | None, typer.Argument(metavar="FILE", help="Where --markdown goes; else the screen.")
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Show every prompt, not only the ends of each trait.")
    ] = False,
    html: Annotated[
        str | None,
        typer.Option(
            "--html",
            metavar="FILE",
            help="Write one HTML file, trajectories included, that opens in any browser.",
        ),
    ] = None,
    captures: Annotated[
        list[str] | None,
        typer.Option(
            "--captures",
            metavar="NAME",
            help="Trajectories in the HTML: a text's id, a prompt's id, label or words; may be "
            "repeated. Without it: all that fit.",
        ),
    ] = None,
    max_mb: Annotated[
        float | None,
        typer.Option(
            "--max-mb", metavar="N", help="Largest HTML file; what does not fit is named. [10]"
        ),
    ] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Markdown, for a notebook or a pull request.")
    ] = False,
    json: Json = False,
) -> int:
    """What a run found: did it finish, what failed, what each trait read, what to look at first.

    Examples:

      traitscope report runs/overnight-1a2b3c4d

      traitscope report runs/overnight-1a2b3c4d --html night.html
    """
    from traitscope.cli.report_files import Wanted, write_reports
    from traitscope.report import summarise, to_json
    from traitscope.runs import Run

    screen = Screen.now(json=json)
    wanted = Wanted.of(file, html, captures, max_mb, markdown=markdown, json=json)
    opened = Run.open(run)
    summary = summarise(opened, full=every)
    written = write_reports(wanted, summary, opened, screen, full=every)
    if json:
        screen.result({**to_json(summary), **written})
    elif not written:
        show_report(summary, screen, full=every)
    return 0


def show_report(summary: Summary, screen: Screen, *, full: bool = False) -> None:
    """The report on standard output, as wide and as colourful as that is."""
    from traitscope.report import night

    console = screen.console()
    colour = console.color_system is not None and not console.no_color
    screen.show(
        night(summary, width=console.width, colour=colour, unicode=screen.unicode, full=full)
    )


def verify(run: RunFolder, json: Json = False) -> int:
    """Is every record of a run whole? Checks every byte; ends with 2 and names what is not.

    Example:

      traitscope verify runs/overnight-1a2b3c4d
    """
    from traitscope.runs import verify as problems_of

    screen = Screen.now(json=json)
    problems = problems_of(run)
    damaged = [problem for problem in problems if problem.kind == "damaged"]
    checked = {} if damaged else _checked(run)
    if json:
        screen.result(_as_json(run, checked, problems, len(damaged)))
    else:
        screen.complain(*map(str, damaged))
        screen.show("\n".join(map(one_line, _said(run, checked, problems, len(damaged)))))
    return DAMAGED if damaged else 0


def _checked(folder: str) -> dict[str, int]:
    """How much of each kind was found whole."""
    from traitscope.runs import Run

    run = Run.open(folder)
    texts = [row for row in run.generations() if row.status == "done"]
    files = [path for path in Path(folder).rglob("*") if path.is_file()]
    return {
        "texts": len(texts),
        "tokens": sum(row.n_tokens for row in texts),
        "captures": sum(row.status == "done" for row in run.captures()),
        "internals": sum(len(run.internal_blocks(row.generation)) for row in texts),
        "directions": len(run.traits),
        "events": len(run.events()),
        "files": len(files),
        "bytes": sum(path.stat().st_size for path in files),
    }


def _as_json(
    run: str, checked: dict[str, int], problems: list[Problem], damaged: int
) -> dict[str, Any]:
    result: dict[str, Any] = {
        "run": run,
        "whole": not damaged,
        "checked": checked,
        "problems": [asdict(problem) for problem in problems],
    }
    if damaged:
        result["error"] = {"type": "RunError", "message": _damage(run, damaged)}
    return result


def _said(run: str, checked: dict[str, int], problems: list[Problem], damaged: int) -> list[str]:
    if damaged:
        return [_damage(run, damaged)]
    size = checked["bytes"] / 1e6
    lines = [
        f"{run} is whole.",
        f"Checked: {checked['texts']} texts with {checked['tokens']} tokens, "
        f"{checked['captures']} captures, {checked['internals']} internals, "
        f"{checked['directions']} directions, {checked['events']} events, "
        f"in {checked['files']} files of {size:.1f} MB: every checksum, every count, every number.",
    ]
    left = [problem for problem in problems if problem.kind == "leftover"]
    lines += [f"Left over by a stop, harmless: {problem}" for problem in left]
    return lines


def _damage(run: str, damaged: int) -> str:
    records = "1 record" if damaged == 1 else f"{damaged} records"
    return (
        f"{run} is damaged: {records} not whole, named above. Restore the files from a copy, or "
        "run the suite into a new folder with --fresh."
    )
