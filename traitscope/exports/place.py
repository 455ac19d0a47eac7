"""Where an export goes: a folder that may be written, files that are there whole or not at all.

Refuses a run's own folder and whatever would be overwritten; turns a full disk into one sentence.
Does not know what is in the files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TextIO, cast

from traitscope.errors import InputError
from traitscope.runs.files import TEMPORARY, disk_error, publish, sync, write_atomic

__all__ = ["Exported", "open_folder", "streamed", "write"]


@dataclass(frozen=True)
class Exported:
    """What one call left behind.  `kept` files were finished before and not made again.

    `failed` texts of the run have no tokens and so no numbers; `bytes` is of the written files.
    """

    texts: int
    failed: int
    files: int
    kept: int
    bytes: int


def open_folder(out: Path, names: Sequence[str], *, force: bool) -> None:
    """Make the folder; InputError where it is a file or a run, or holds one of `names`."""
    if out.exists() and not out.is_dir():
        raise InputError(f"Expected a folder to export to, got the file {out}. Choose another one.")
    if (out / "run.json").exists():
        raise InputError(
            f"Expected a folder of its own for the export, got the run {out}. Choose another one."
        )
    there = [name for name in names if (out / name).exists()]
    if there and not force:
        raise InputError(
            f"Expected nothing in the way of the export, but {out / there[0]} exists already. "
            "Choose another folder, or replace it with --force."
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_error(error, out, "nothing was written") from error


@contextmanager
def streamed(path: Path) -> Iterator[TextIO]:
    """A UTF-8 file that is written piece by piece and has its name only when all of it is there.

    Line ends are written as they are given.
    """
    temporary = path.with_name(path.name + TEMPORARY)
    try:
        with open(temporary, "w", encoding="utf-8", newline="") as file:
            yield file
            file.flush()
            sync(cast(IO[bytes], file.buffer))  # open() in text mode has one
        publish([path])
    except OSError as error:
        raise disk_error(error, path, "the run itself is as it was") from error
    finally:
        temporary.unlink(missing_ok=True)


def write(path: Path, data: bytes | memoryview) -> int:
    """Write a whole file atomically, with its folders; the number of bytes."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, data)
    except OSError as error:
        raise disk_error(error, path, "what was exported before is whole") from error
    return len(data)
