"""The outermost frame: whatever ends a command becomes one sentence and an exit status.

A user's mistake never shows a traceback.  A mistake of ours is written to a file, whose name is
said; TRAITSCOPE_DEBUG=1 shows it at once.  This module knows no verb.
"""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from traitscope.cli.screen import Screen, hush
from traitscope.errors import TraitscopeError
from traitscope.paths import cache_dir

__all__ = ["run"]

INTERRUPTED, MACHINE_FAILED, BAD_INPUT = 3, 4, 2
# typer brings click along or leans on an installed one, depending on its version
ClickException = typer.BadParameter.__mro__[2]


def run(args: Sequence[str]) -> int:
    """Run one command; returns its exit status."""
    from traitscope.cli.app import app

    args = list(args) or ["--help"]
    try:
        screen = Screen.of(args)
    except TraitscopeError as error:
        Screen.now(json=False).complain(str(error))
        return error.exit_status
    hush()
    try:
        command = typer.main.get_command(app)
        # not command.main(): it would turn Ctrl-C and a closed pipe into statuses of its own
        with command.make_context("traitscope", args) as context:
            return int(command.invoke(context) or 0)
    except BrokenPipeError:
        screen.silence()
        return 0
    except SystemExit:  # rich, when the reader of a help page has gone
        screen.silence()
        return 0
    except typer.Exit as end:
        return end.exit_code
    except (KeyboardInterrupt, typer.Abort):
        screen.error("Interrupted", _INTERRUPTED)
        return INTERRUPTED
    except TraitscopeError as error:
        if _debugging():
            traceback.print_exc(file=screen.err)
        return _said(error, screen)
    except Exception as error:
        # pages of help are not written by the screen
        blocked = screen.blocked() if isinstance(error, OSError) else None
        if blocked is not None:
            return _said(blocked, screen)
        return _unexpected(error, screen)


def _said(error: TraitscopeError, screen: Screen) -> int:
    screen.error(type(error).__name__, str(error))
    return error.exit_status


_INTERRUPTED = "Interrupted. What was committed before is kept; the same command goes on."


def _unexpected(error: Any, screen: Screen) -> int:
    if isinstance(error, ClickException):
        screen.error("UsageError", _usage(error))
        return BAD_INPUT
    if _debugging():
        traceback.print_exc(file=screen.err)
    screen.error(type(error).__name__, _crash(error))
    return MACHINE_FAILED


def _usage(error: Any) -> str:
    """What click says about a wrong option, and where help is."""
    message = error.format_message().strip().replace("\n", " ")
    message = message if message.endswith((".", "?")) else f"{message}."
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "traitscope"
    return f"{message} See '{command} --help'."


def _crash(error: BaseException) -> str:
    """Write the traceback to a file; a sentence that says what happened and where it is."""
    first = (str(error).strip().splitlines() or ["no message"])[0]
    said = f"Something failed that should not have ({type(error).__name__}: {first})."
    try:
        place = _write_traceback(error)
    except OSError:
        return f"{said} TRAITSCOPE_DEBUG=1 shows where; no file could be written in {cache_dir()}."
    return f"{said} What was committed is kept. The traceback is in {place}; please report it."


def _write_traceback(error: BaseException) -> Path:
    folder = cache_dir() / "crashes"
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
    place.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    return place


def _debugging() -> bool:
    return os.environ.get("TRAITSCOPE_DEBUG", "") not in ("", "0")
