"""The two journals, line by line: sealing, reading, and the manifest's chain.

A line is one JSON object in ASCII whose last member `sum` is the SHA-256 of the bytes before it.
The manifest's lines also carry the `previous` line's sum, so that a lost or exchanged line shows.
What stands after the last newline is torn (a kill in the middle of an append) and does not
count.  Knows nothing of what is in the parts.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from traitscope.errors import RunError
from traitscope.runs.files import FileEntry, sha256

__all__ = [
    "FIRST",
    "Manifest",
    "PartEntry",
    "clean",
    "now",
    "parse_manifest",
    "plain",
    "scan_manifest",
    "seal",
    "seal_part",
    "split_lines",
    "unseal",
]

FIRST = "0" * 64  # the `previous` of a manifest's first line
TEXTS, FURTHER = "texts", "further"
KNOWN_KINDS = (TEXTS, FURTHER)
_TAIL = re.compile(rb',"sum":"([0-9a-f]{64})"\}')
_TAIL_LENGTH = len(',"sum":""}') + 64
_FILE_NAME = re.compile(
    r"parts/\d{5,}\.(tokens|generations|captures|scores|further)\.parquet"
    r"|internals/[0-9A-Za-z_]{1,64}-\d+\.\d+\.safetensors"
    r"|states/[0-9A-Za-z_]{1,64}-\d+\.(embed|\d+\.(mid|post))"
    r"\.(prompt|response|last|all)\.(bfloat16|float32)\.safetensors"
)
_NEW = re.compile(r"^states/|\.(scores|further)\.parquet$")  # since format 2
_SURROGATES = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class PartEntry:
    """One committed part: its number (from 1), and its files."""

    number: int
    kind: str
    time: str
    files: tuple[FileEntry, ...]

    def file(self, table: str) -> FileEntry | None:
        """The entry of `tokens`, `generations`, ... if the part has that table."""
        ending = f".{table}.parquet"
        return next((f for f in self.files if f.name.endswith(ending)), None)


@dataclass(frozen=True)
class Manifest:
    """What is committed; `size` is the length in bytes of the whole lines, `torn` what follows."""

    parts: tuple[PartEntry, ...]
    last: str
    size: int
    torn: int


# --- plain JSON values ---------------------------------------------------------------------------


def clean(text: str) -> str:
    """`text` with lone surrogates replaced by U+FFFD, so that it can be UTF-8; same length."""
    return _SURROGATES.sub("\ufffd", text)


def plain(value: object) -> Any:
    """`value` as JSON knows it: numpy becomes numbers, NaN and infinities null, the rest text."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, PurePath):
        return clean(value.as_posix())
    if isinstance(value, Mapping):
        return {clean(str(key)): plain(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted((plain(item) for item in value), key=str)
    if isinstance(value, Iterable):
        return [plain(item) for item in value]
    return clean(str(value))


def now() -> str:
    """The time in UTC, ISO 8601 with milliseconds: 2026-11-22T03:04:05.678Z."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# --- lines ---------------------------------------------------------------------------------------


def seal(members: Mapping[str, object]) -> bytes:
    """One journal line, newline included."""
    body = json.dumps(plain(members), separators=(",", ":"))[:-1].encode("ascii")
    return body + b',"sum":"' + sha256(body).encode() + b'"}\n'


def unseal(line: bytes) -> dict[str, Any] | None:
    """The members of a line (without its newline), `sum` included; None where it is damaged."""
    body = line[:-_TAIL_LENGTH]
    tail = _TAIL.fullmatch(line[len(body) :])
    if tail is None or sha256(body).encode() != tail[1]:
        return None
    members = json.loads(line)
    assert isinstance(members, dict)  # the sum holds, so it is what `seal` wrote
    return members


def split_lines(data: bytes) -> tuple[list[bytes], bytes]:
    """Whole lines without their newlines, and the torn rest.

    A last line with NUL bytes is torn too: some file systems grow a file before they fill it, and
    JSON has no NUL.
    """
    end = data.rfind(b"\n") + 1
    lines = data[:end].split(b"\n")[:-1]
    if lines and b"\0" in lines[-1]:
        end -= len(lines.pop()) + 1
    return lines, data[end:]


# --- the manifest --------------------------------------------------------------------------------


def seal_part(
    number: int, files: Sequence[FileEntry], previous: str
) -> tuple[bytes, PartEntry, str]:
    """The manifest's line for a part, the part, and the line's sum.

    A part that format 1 could hold is of its kind; readers of format 1 refuse the other one.
    """
    members = {
        "kind": FURTHER if any(_NEW.search(file.name) for file in files) else TEXTS,
        "part": number,
        "time": now(),
        "files": [asdict(file) for file in files],
        "previous": previous,
    }
    line = seal(members)
    return line, _part(members, number), line[-67:-3].decode()


def scan_manifest(data: bytes) -> tuple[Manifest, list[str]]:
    """The whole lines of a manifest, and what is wrong with the others, in words.

    Raises RunError only for a part of a kind that this version does not know.
    """
    lines, torn = split_lines(data)
    parts: list[PartEntry] = []
    wrong: list[str] = []
    previous: str | None = FIRST
    for place, line in enumerate(lines, start=1):
        members = unseal(line)
        if members is None:
            wrong.append(f"line {place} does not match its checksum")
            previous = None  # what the next line should name is unknown
            continue
        if previous is not None and members["previous"] != previous:
            wrong.append(f"line {place} does not follow the line before it")
        previous = str(members["sum"])
        parts.append(_part(members, place))
    size = len(data) - len(torn)
    return Manifest(tuple(parts), previous or FIRST, size, len(torn)), wrong


def parse_manifest(data: bytes, place: Path) -> Manifest:
    """What a manifest commits; RunError at the first damaged line (a torn end is no damage)."""
    manifest, wrong = scan_manifest(data)
    if wrong:
        raise RunError(
            f"Expected a whole manifest in {place}, but {wrong[0]}. "
            "Restore the file from a copy, or run the suite into a new folder with --fresh."
        )
    return manifest


def _part(members: Mapping[str, Any], place: int) -> PartEntry:
    if members["kind"] not in KNOWN_KINDS:
        raise RunError(
            f"Expected parts of kind {' or '.join(KNOWN_KINDS)}, got '{members['kind']}' in line "
            f"{place} of the manifest: the run was made by a newer version of traitscope. "
            "Install that one."
        )
    files = tuple(
        FileEntry(str(f["name"]), int(f["bytes"]), str(f["sha256"]), int(f["rows"]))
        for f in members["files"]
    )
    for file in files:  # a run may come from elsewhere: no name may lead out of its folder
        if not _FILE_NAME.fullmatch(file.name):
            raise RunError(f"Expected the name of a part in the manifest, got '{file.name}'.")
    return PartEntry(int(members["part"]), str(members["kind"]), str(members["time"]), files)
