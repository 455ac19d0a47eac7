"""The verbs by name, and what `traitscope --help` says."""

from __future__ import annotations

from typing import Annotated

import typer

from traitscope import __version__
from traitscope.cli import again, compare, doctor, export, make, plan, read, speedtest, view

__all__ = ["app"]

app = typer.Typer(
    name="traitscope",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"traitscope {__version__}")
        raise typer.Exit


@app.callback()
def traitscope(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version.")
    ] = False,
) -> None:
    """How strongly a language model expresses a trait: at every token, at every layer, overnight.

    Begin with: traitscope run overnight
    """


for _verb, _name in (
    (make.run, "run"),
    (make.capture, "capture"),
    (again.replay, "replay"),
    (make.init, "init"),
    (plan.plan, "plan"),
    (read.report, "report"),
    (view.view, "view"),
    (read.verify, "verify"),
    (export.export, "export"),
    (compare.compare, "compare"),
    (doctor.doctor, "doctor"),
    (speedtest.speedtest, "speedtest"),
):
    app.command(_name)(_verb)
