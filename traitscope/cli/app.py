"""The verbs by name, and what `traitscope --help` says."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Annotated

import typer

from traitscope import __version__
from traitscope.cli import again, compare, doctor, export, make, plan, read, speedtest, view
from traitscope.cli.screen import keeping_nothing

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


def _keeps_nothing(verb: Callable[..., int]) -> Callable[..., int]:
    """The same verb, of which a Ctrl-C leaves nothing to go on with."""

    @wraps(verb)
    def called(**options: object) -> int:
        with keeping_nothing():
            return verb(**options)

    return called


for _verb, _name in (
    (make.run, "run"),
    (make.capture, "capture"),
    (again.replay, "replay"),
    (make.init, "init"),
    (_keeps_nothing(plan.plan), "plan"),
    (_keeps_nothing(read.report), "report"),
    (view.view, "view"),
    (_keeps_nothing(read.verify), "verify"),
    (export.export, "export"),
    (_keeps_nothing(compare.compare), "compare"),
    (_keeps_nothing(doctor.doctor), "doctor"),
    (_keeps_nothing(speedtest.speedtest), "speedtest"),
):
    app.command(_name)(_verb)
