"""The verb that hands a run on to other programs: export."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from traitscope.cli.options import Device, Json, RunFolder
from traitscope.cli.screen import Screen
from traitscope.errors import InputError, did_you_mean
from traitscope.report.plain import one_line

if TYPE_CHECKING:
    from traitscope.exports.place import Exported
    from traitscope.runs import Run
    from traitscope.ticks import Progress

__all__ = ["export"]

FORMATS = ("csv", "experiments", "jsonl", "npz")


def export(
    run: RunFolder,
    to: Annotated[
        str, typer.Option("--to", metavar="FORMAT", help="csv, jsonl, npz or experiments.")
    ],
    out: Annotated[str, typer.Option("--out", metavar="DIR", help="The folder to write to.")],
    sites: Annotated[
        list[str] | None,
        typer.Option(
            "--sites",
            metavar="SITE",
            help="all, read (where each trait is read) or a site such as 3.post; may be repeated. "
            "Without it: all; in jsonl: read.",
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace files that are there already.")
    ] = False,
    no_attention: Annotated[
        bool,
        typer.Option(
            "--no-attention", help="experiments: leave attention out, and load no model for it."
        ),
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="NAME",
            help="experiments: where the run's model is now, if it has moved.",
        ),
    ] = None,
    device: Device = None,
    json: Json = False,
) -> int:
    """Write a run in another format. The run itself stays as it is.

    csv: tokens.csv, a row for each token, site and trait, and generations.csv.
    jsonl: texts.jsonl, a line for each text. npz: a file of arrays for each text.
    experiments: the folders of an older tool, .pt and .json for each trait and text; the same
    command goes on where it stopped.

    Examples:

      traitscope export runs/overnight-1a2b3c4d --to csv --out tables --sites read

      traitscope export runs/overnight-1a2b3c4d --to experiments --out experiments/overnight
    """
    from traitscope.cli.progress import progress_on
    from traitscope.runs import Run

    if to not in FORMATS:
        raise InputError(
            f"--to: expected one of {', '.join(FORMATS)}, got '{to}'.{did_you_mean(to, FORMATS)}"
        )
    old = to == "experiments"
    _only_for("csv, jsonl or npz", not old, {"--sites": sites, "--force": force})
    _only_for(
        "experiments",
        old,
        {"--no-attention": no_attention, "--model": model, "--device": device},
    )
    screen, place = Screen.now(json=json), Path(os.path.expanduser(out))
    opened = Run.open(run)
    with screen.work(), progress_on(screen) as progress:
        if old:
            made = _experiments(opened, place, not no_attention, model, device, progress)
        else:
            made = _flat(opened, to, place, sites or [], force, progress)
    _say(screen, run, to, place, made)
    return 0


def _only_for(formats: str, fits: bool, options: dict[str, object]) -> None:
    given = [name for name, value in options.items() if value]
    if given and not fits:
        raise InputError(f"{given[0]} is for --to {formats}. Leave it out, or choose another --to.")


def _flat(
    run: Run, to: str, out: Path, sites: list[str], force: bool, progress: Progress
) -> Exported:
    from traitscope.exports.flat import export_flat

    return export_flat(run, to, out, sites=sites, force=force, progress=progress)


def _experiments(
    run: Run,
    out: Path,
    attention: bool,
    model: str | None,
    device: str | None,
    progress: Progress,
) -> Exported:
    from traitscope.exports.experiments import export_experiments

    return export_experiments(
        run, out, attention=attention, model=model, device=device or "auto", progress=progress
    )


def _say(screen: Screen, run: str, to: str, out: Path, made: Exported) -> None:
    if screen.json:
        screen.result({"run": run, "to": to, "out": str(out), **asdict(made)})
        return
    kept = f" ({made.kept} were there already)" if made.kept else ""
    lines = [
        f"{_count(made.texts, 'text')} as {to} in {out}: {_count(made.files, 'file')}{kept}, "
        f"{made.bytes / 1e6:.1f} MB written."
    ]
    if made.failed:
        lines.append(f"{_count(made.failed, 'text')} of the run failed, without tokens.")
    screen.show("\n".join(map(one_line, lines)))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
