"""Reading text that people wrote: UTF-8 files, TOML, JSON lines, and showing a value in a message.

Every failure becomes an error of the caller's type with the file, the line where there is one,
what was expected, what came and what to do.  This module does not know what the text means.
"""

from __future__ import annotations

import json
import re
import reprlib
import tomllib
from pathlib import Path

from traitscope.errors import InputError, did_you_mean

__all__ = ["parse_json", "read_lines", "read_text", "read_toml", "shown"]

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80
_SHORT.maxlevel = 3


def shown(value: object) -> str:
    """A value for a message: Python's repr on one line, cut where it is long or deep."""
    try:
        return _SHORT.repr(value)
    except ValueError:  # Python writes no whole number of more than 4300 digits
        return "a number of thousands of digits"


def read_text(path: Path, expected: str, error: type[InputError]) -> str:
    """The text of a UTF-8 file, without a byte order mark; `expected` completes the message."""
    try:
        if path.is_dir():
            raise error(f"{path}: expected {expected}, got a folder. Name a file in it.")
        if not path.is_file():
            raise error(_missing(path, expected))
        raw = path.read_bytes()
    except OSError as problem:
        why = problem.strerror or type(problem).__name__
        raise error(f"{path}: expected {expected} that can be read, got '{why}'.") from problem
    return _decode(raw, path, error)


def read_lines(path: Path, expected: str, error: type[InputError]) -> list[str]:
    """The lines of a UTF-8 file; they end at LF, CRLF or CR and nowhere else."""
    return re.split("\r\n|\n|\r", read_text(path, expected, error))


def read_toml(path: Path, expected: str, error: type[InputError]) -> dict[str, object]:
    """The tables of a TOML file, as plain dicts."""
    text = read_text(path, expected, error)
    try:
        return tomllib.loads(text)
    except RecursionError as problem:
        raise error(f"{path}: expected TOML, got brackets nested without end.") from problem
    except ValueError as problem:  # TOMLDecodeError names line and column; so does a huge number
        raise error(f"{path}: expected TOML, got a mistake: {problem}.") from problem


def parse_json(line: str, where: str, error: type[InputError]) -> object:
    """One line of JSON; a key that comes twice and numbers outside JSON (NaN) are mistakes."""
    try:
        return json.loads(line, object_pairs_hook=_no_key_twice, parse_constant=_no_constant)
    except RecursionError as problem:
        raise error(f"{where}: expected JSON, got brackets nested without end.") from problem
    except json.JSONDecodeError as problem:
        raise error(
            f"{where}: expected one JSON object a line, got a mistake at column {problem.colno} "
            f"({problem.msg}): {shown(line)}."
        ) from problem
    except ValueError as problem:
        raise error(f"{where}: expected JSON, got a mistake: {problem}.") from problem


def _missing(path: Path, expected: str) -> str:
    if path.exists():
        return f"{path}: expected {expected}, got something that is no plain file."
    folder = path.parent
    siblings = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    hint = did_you_mean(path.name, siblings) if siblings else f" There is no folder '{folder}'."
    return f"{path}: expected {expected}, got no such file.{hint if hint else ''}"


def _decode(raw: bytes, path: Path, error: type[InputError]) -> str:
    zero = raw.find(b"\0")
    if zero >= 0:
        raise error(
            f"{path}:{_line_of(raw, zero)}: expected UTF-8 text, got a NUL byte at byte {zero}. "
            "The file is binary or UTF-16: save it as UTF-8 text."
        )
    try:
        return raw.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as problem:
        at = problem.start
        raise error(
            f"{path}:{_line_of(raw, at)}: expected UTF-8 text, got byte 0x{raw[at]:02x} at byte "
            f"{at}. Save the file as UTF-8."
        ) from problem


def _line_of(raw: bytes, at: int) -> int:
    return raw.count(b"\n", 0, at) + 1


def _no_key_twice(pairs: list[tuple[str, object]]) -> dict[str, object]:
    table = dict(pairs)
    if len(table) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {shown(twice)} comes twice")
    return table


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not a JSON number")
