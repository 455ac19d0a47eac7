"""Copying the bundled suite out to be edited: suite.toml, prompts/, traits/.

The copy's suite names the copied trait folders by path, so that editing them has its effect.
A new folder is filled under another name and renamed; in an empty one suite.toml comes last:
a folder that holds a suite.toml is whole.  This module does not know what the files mean.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from traitscope.errors import InputError, MachineError
from traitscope.paths import BUNDLED_SUITES, BUNDLED_TRAITS

__all__ = ["init_folder"]


def init_folder(dest: str | Path, suite: str = "overnight") -> Path:
    """Copy a bundled suite, its prompts and all bundled traits to `dest`; returns `dest`.

    Raises InputError, having written nothing, when `dest` is a file or a folder with something in
    it; MachineError when the copy cannot be written, of which nothing is left.
    """
    dest = Path(os.path.expanduser(dest))
    try:
        _refuse(dest)
        if dest.is_dir():
            _fill(dest, suite)
        else:
            _create(dest, suite)
    except OSError as problem:
        raise MachineError(
            f"{dest}: expected a place to copy the suite to, got '{_reason(problem)}'. "
            "Nothing was left there."
        ) from problem
    return dest


def _refuse(dest: Path) -> None:
    if dest.is_dir():
        inside = sorted(entry.name for entry in dest.iterdir())
        if inside:
            raise InputError(
                f"{dest}: expected a new or an empty folder, got one with '{inside[0]}' in it. "
                "Name another."
            )
    elif dest.exists() or dest.is_symlink():
        raise InputError(f"{dest}: expected a new or an empty folder, got a file. Name another.")


def _create(dest: Path, suite: str) -> None:
    dest.parent.mkdir(parents=True, exist_ok=True)
    stage = dest.parent / f".{dest.name}.{os.getpid()}.part"
    try:
        _copy(stage, suite)
        stage.rename(dest)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _fill(dest: Path, suite: str) -> None:
    """An empty folder stays the one it is: a mount, a link, or where a shell stands."""
    stage = dest / f".{os.getpid()}.part"
    try:
        _copy(stage, suite)
        for entry in sorted(stage.iterdir(), key=lambda entry: entry.name == "suite.toml"):
            entry.rename(dest / entry.name)
    except BaseException:
        for entry in dest.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink()
        raise
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _copy(stage: Path, suite: str) -> None:
    # contents only: an installed package may be read-only, and the copy is there to be edited
    shutil.copytree(BUNDLED_SUITES / suite, stage, copy_function=shutil.copyfile)
    traits = sorted(path.parent for path in BUNDLED_TRAITS.glob("*/trait.toml"))
    for trait in traits:
        shutil.copytree(trait, stage / "traits" / trait.name, copy_function=shutil.copyfile)
    text = (stage / "suite.toml").read_text(encoding="utf-8")
    pointed = _point_at_copies(text, {trait.name for trait in traits})
    (stage / "suite.toml").write_text(pointed, encoding="utf-8", newline="\n")


def _point_at_copies(text: str, copied: set[str]) -> str:
    """Write "traits/NAME" for "NAME" in the `traits` list, and leave all else to the letter."""

    def path(match: re.Match[str]) -> str:
        return f'"traits/{match[1]}"' if match[1] in copied else match[0]

    listed = re.search(r"^traits = \[.*?\]", text, flags=re.MULTILINE | re.DOTALL)
    assert listed is not None, "a bundled suite lists its traits"
    renamed = re.sub(r'"([a-z0-9_]+)"', path, listed[0])
    return text[: listed.start()] + renamed + text[listed.end() :]


def _reason(problem: OSError) -> str:
    """The system's own words; `copytree` wraps them in a list of (source, target, words)."""
    if isinstance(problem, shutil.Error):
        return str(problem.args[0][0][2])
    return problem.strerror or str(problem)
