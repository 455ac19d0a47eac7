"""run.json: what a run is made of and what it wants.  Written at creation, rewritten on resume.

The file is UTF-8 JSON whose last member `checksum` is the SHA-256 of all bytes before it.  Sites
are names, captures are the wanted ones.  Knows nothing of what is committed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from traitscope.core import TRAIT_NAME, Capture, Generation
from traitscope.errors import RunError
from traitscope.runs.files import read_bytes, sha256
from traitscope.runs.lines import now, plain

__all__ = [
    "FORMAT_VERSION",
    "HEADER_NAME",
    "RunHeader",
    "default_run_dir",
    "differences",
    "installed_version",
    "read_header",
    "resumed",
]

FORMAT_VERSION = 2  # the newest that is read; a run that needs no more is of format 1
HEADER_NAME = "run.json"
_TAIL = re.compile(rb',\n "checksum": "([0-9a-f]{64})"\n\}\n')
_TAIL_LENGTH = len(',\n "checksum": ""\n}\n') + 64
_KEEP_ORDER = ("suite", "captures")  # the order of prompt sets is the author's


def installed_version() -> str:
    try:
        return version("traitscope")
    except PackageNotFoundError:  # used from a source tree that was never installed
        return "unknown"


@dataclass(frozen=True, kw_only=True)
class RunHeader:
    """The contents of run.json.

    `key`: 8 hex digits over model, directions, generation settings and seed.  `suite`: the
    resolved suite as plain values, prompts and expectations included.  `model`: at least `name`,
    `fingerprint`, `dtype`, `device`, `n_blocks`, `d_model`.  `traits`: for each, in the order of
    the data, `name`, `hash`, `file` and the file's `sha256` (filled in by `RunWriter.create`),
    and `table` "scores" for those that came after the run was made (then it is of format 2).
    `rows` and `join`: the batch's size and how many slots must be free before prompts join;
    `sizing`: what the size was chosen by.
    `proofs`: what was measured at load.  `captures`: everything wanted, in the suite's order.
    `extra`: members that a newer version wrote; kept as they are.
    """

    format_version: int = 1
    key: str
    name: str
    suite: Mapping[str, Any]
    model: Mapping[str, Any]
    sites: tuple[str, ...]
    generation: Mapping[str, Any]
    rows: int
    join: int
    sizing: Mapping[str, Any] = field(default_factory=dict)
    captures: tuple[Capture, ...] = ()
    traits: tuple[Mapping[str, str], ...] = ()
    versions: Mapping[str, Any] = field(default_factory=dict)
    proofs: Any = field(default_factory=dict)
    created: str = field(default_factory=now)
    traitscope_version: str = field(default_factory=installed_version)
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[0-9a-f]{8}", self.key):
            raise ValueError(f"key: expected 8 hex digits, got '{self.key}'")

    @property
    def trait_names(self) -> tuple[str, ...]:
        return tuple(trait["name"] for trait in self.traits)

    @property
    def first_traits(self) -> tuple[str, ...]:
        """Those that the run was made with: of the tables of tokens, and of internals."""
        return tuple(trait["name"] for trait in self.traits if "table" not in trait)

    @property
    def further_traits(self) -> tuple[str, ...]:
        return tuple(trait["name"] for trait in self.traits if "table" in trait)

    def to_bytes(self) -> bytes:
        """run.json, checksum included."""
        members = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "extra"}
        members["captures"] = [_from_capture(capture) for capture in self.captures]
        members = {**plain(self.extra), **_ordered(members)}
        body = json.dumps(members, indent=1, ensure_ascii=False)[: -len("\n}")].encode()
        return body + f',\n "checksum": "{sha256(body)}"\n}}\n'.encode()

    @classmethod
    def from_bytes(cls, data: bytes, place: Path) -> RunHeader:
        """Read run.json; RunError where it is damaged or of a newer format."""
        body = data[:-_TAIL_LENGTH]
        tail = _TAIL.fullmatch(data[len(body) :])
        if tail is None or sha256(body).encode() != tail[1]:
            raise RunError(
                f"Expected {place} to match its checksum, but it was changed or damaged. "
                "Restore it from a copy, or run the suite into a new folder with --fresh."
            )
        members = json.loads(data)
        if members["format_version"] > FORMAT_VERSION:
            raise RunError(
                f"Expected a run of format {FORMAT_VERSION} or older, got format "
                f"{members['format_version']} in {place}: it was made by a newer version of "
                f"traitscope ({members.get('traitscope_version')}). Install that one."
            )
        return cls(**_typed(members))


def read_header(folder: Path) -> RunHeader:
    """run.json of a run folder; RunError where there is none or it is damaged."""
    path = folder / HEADER_NAME
    if not path.is_file():
        raise RunError(
            f"Expected a run folder (one with {HEADER_NAME} in it), got {folder}"
            f"{'' if folder.is_dir() else ', which does not exist'}. "
            "'traitscope run SUITE' makes one."
        )
    return RunHeader.from_bytes(read_bytes(path), path)


def default_run_dir(name: str, key: str, root: str | Path = "runs", fresh: bool = False) -> Path:
    """`ROOT/NAME-KEY`; with `fresh` the first of it, `-2`, `-3`, ... that does not exist."""
    base = re.sub(r"[^0-9A-Za-z._-]+", "-", name).strip(".-") or "run"
    path = Path(root) / f"{base}-{key}"
    number = 2
    while fresh and path.exists():
        path = Path(root) / f"{base}-{key}-{number}"
        number += 1
    return path


def differences(there: RunHeader, here: RunHeader) -> list[str]:
    """What a run's numbers depend on and differs: `what: there X, here Y`.

    Settings that the key leaves out may differ; where the keys differ, all of them are named.
    """
    pairs: list[tuple[str, object, object]] = [("key", there.key, here.key)]
    pairs += [
        (f"model.{k}", there.model.get(k), here.model.get(k)) for k in ("fingerprint", "dtype")
    ]
    if there.key != here.key:
        settings = {**there.generation, **here.generation}
        pairs += [
            (f"generation.{k}", there.generation.get(k), here.generation.get(k)) for k in settings
        ]
    pairs += [("sites", " ".join(there.sites), " ".join(here.sites))]
    pairs += list(_trait_pairs(there, here))
    return [f"{what}: there {a}, here {b}" for what, a, b in pairs if plain(a) != plain(b)]


def resumed(there: RunHeader, here: RunHeader) -> RunHeader:
    """The recorded header with the new suite and wants; rows, join, proofs stay as recorded."""
    return replace(
        there,
        name=here.name,
        suite=here.suite,
        generation=here.generation,
        captures=here.captures,
    )


def _trait_pairs(there: RunHeader, here: RunHeader) -> Iterator[tuple[str, str, str]]:
    yield "traits", ", ".join(there.trait_names), ", ".join(here.trait_names)
    recorded = {trait["name"]: trait["hash"] for trait in there.traits}
    for trait in here.traits:
        name = trait["name"]
        if name in recorded:
            yield f"direction of {name}", recorded[name], trait["hash"]


def _ordered(members: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: plain(value) if name in _KEEP_ORDER else _sorted(plain(value))
        for name, value in members.items()
    }


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value


def _from_capture(capture: Capture) -> dict[str, str]:
    return {
        "generation": capture.generation.id,
        "set": capture.prompt_set,
        "kind": capture.kind,
    }


def _typed(members: dict[str, Any]) -> dict[str, Any]:
    members.pop("checksum")
    known = {f.name for f in fields(RunHeader)}
    extra = {name: members.pop(name) for name in set(members) - known}
    members["captures"] = tuple(
        Capture(Generation.parse(c["generation"]), c["set"], c["kind"]) for c in members["captures"]
    )
    members["sites"] = tuple(members["sites"])
    members["traits"] = tuple(members["traits"])
    for trait in members["traits"]:  # a name becomes a file name: none may lead elsewhere
        if not TRAIT_NAME.fullmatch(trait["name"]):
            raise RunError(f"Expected a trait's name in {HEADER_NAME}, got '{trait['name']}'.")
    return {**members, "extra": extra}
