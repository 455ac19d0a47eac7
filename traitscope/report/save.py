"""A report as a file: whole or not at all, and never in the place of something else.

A file that is a report of traitscope (it carries a mark) is replaced, which the caller says; any
other file that has the name is left alone.  Knows nothing of what is in a report.
"""

from __future__ import annotations

from pathlib import Path

from traitscope.errors import InputError
from traitscope.runs.files import disk_error, write_atomic

__all__ = ["HTML_MARK", "MARKDOWN_MARK", "MAX_MB", "check", "save"]

MAX_MB = 10.0  # of an HTML report, unless one says otherwise
MARKDOWN_MARK = "<!-- a report of traitscope -->"
HTML_MARK = '<meta name="generator" content="traitscope report">'
_MARKS = (MARKDOWN_MARK.encode(), HTML_MARK.encode())
_LOOKED_AT = 4096  # bytes at either end, where the mark is


def check(path: Path) -> bool:
    """Is there an earlier report?  InputError where something else is, or the folder is not.

    Meant to be asked before the work as well: a report of many texts takes a while.
    """
    if path.exists() and not path.is_file():
        what = "folder" if path.is_dir() else "device"
        raise InputError(f"Expected a file to write the report to, got the {what} {path}.")
    if not path.parent.is_dir():
        raise InputError(
            f"Expected a folder {path.parent} to write {path.name} into, but there is none. "
            "Make it, or choose another place."
        )
    if not path.exists():
        return False
    if not any(mark in _ends(path) for mark in _MARKS):
        raise InputError(
            f"Expected a new file or an earlier report, but {path} is something else. "
            "Choose another name."
        )
    return True


def save(path: Path, text: str) -> int:
    """Write it atomically; the number of bytes.  What `check` refuses is refused again."""
    check(path)
    data = text.encode("utf-8", errors="replace")
    try:
        write_atomic(path, data)
    except OSError as error:
        raise disk_error(error, path, "the run itself is as it was") from error
    return len(data)


def _ends(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            first = file.read(_LOOKED_AT)
            file.seek(max(path.stat().st_size - _LOOKED_AT, 0))
            return first + file.read()
    except OSError as error:
        raise InputError(f"Expected a file that can be read at {path}, got '{error}'.") from error
