"""A trait as data: two poles, and the contrasting pairs that tell them apart.

A trait is a folder with trait.toml and pairs.jsonl, bundled or the user's own; neutral chats are
bundled.  Everything is text: this module imports no torch and knows no model.  Mistakes in the
files become TraitErrors with the line.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from traitscope.core import TRAIT_NAME, Message, Prompt, Site, Window
from traitscope.errors import InputError, TraitError, did_you_mean
from traitscope.paths import BUNDLED_TRAITS
from traitscope.textfile import parse_json, read_lines, read_toml, shown

__all__ = ["Example", "Pair", "Trait", "load_trait", "neutral_chats"]

_KEYS: dict[str, type | tuple[type, ...]] = {
    "name": str,
    "display_name": str,
    "positive": str,
    "negative": str,
    "extract_window": str,
    "read_site": (int, float, str),
    "read_window": str,
}
_DEFAULTS: dict[str, object] = {
    "extract_window": "response[:]",
    "read_site": 0.5,
    "read_window": "response[:]",
}
_PAIR_KEYS = ("id", "scenario", "kind", "positive", "negative")
_SIDE_KEYS = ("prompt", "response", "system")


@dataclass(frozen=True)
class Example:
    """One side of a pair: a question and the answer that shows a pole."""

    prompt: str
    response: str
    system: str | None = None

    @property
    def chat(self) -> Prompt:
        """The chat up to the response."""
        system = () if self.system is None else (Message("system", self.system),)
        return Prompt((*system, Message("user", self.prompt)))


@dataclass(frozen=True)
class Pair:
    """Two answers that differ in the trait.  `scenario` is the unit for splitting; `kind` is
    natural (the question brings out the pole) or instructed (told how to answer)."""

    id: str
    scenario: str
    kind: str
    positive: Example
    negative: Example


@dataclass(frozen=True)
class Trait:
    """A trait's data.  `read_site` is a depth (0.0 to 1.0) or a site's name."""

    name: str
    display_name: str
    positive: str
    negative: str
    extract_window: Window
    read_site: float | str
    read_window: Window
    pairs: tuple[Pair, ...]

    @cached_property
    def data_hash(self) -> str:
        """16 hex digits over everything that can change a number or a reading."""
        about = [self.name, self.positive, self.negative, str(self.extract_window)]
        about += [str(self.read_site), str(self.read_window)]
        pairs = [[p.id, p.scenario, p.kind, vars(p.positive), vars(p.negative)] for p in self.pairs]
        raw = json.dumps([about, pairs], ensure_ascii=False, sort_keys=True)
        return hashlib.sha256(raw.encode()).hexdigest()[:16]


def load_trait(folder: Path) -> Trait:
    """Read a trait's folder; raises TraitError with file, line, what was expected and what came."""
    about = _about(folder / "trait.toml")
    pairs = tuple(_pairs(folder / "pairs.jsonl"))
    if len(pairs) < 2:
        raise TraitError(
            f"{folder / 'pairs.jsonl'}: expected at least 2 pairs, got {len(pairs)}. A direction "
            "that can be trusted needs some dozens, over several scenarios."
        )
    return Trait(pairs=pairs, **about)


def _about(path: Path) -> dict[str, Any]:
    table: dict[str, Any] = {
        **_DEFAULTS,
        **read_toml(path, "a trait.toml", TraitError),
    }
    for key, value in table.items():
        if key not in _KEYS:
            raise _unknown(key, _KEYS, path)
        if not isinstance(value, _KEYS[key]) or isinstance(value, bool):
            raise TraitError(f"{path}: '{key}': expected a {_said(key)}, got {shown(value)}.")
    folder = path.parent.resolve().name
    name = table.setdefault("name", folder)
    table.setdefault("display_name", str(name).replace("_", " "))
    for key in ("positive", "negative"):
        if not str(table.get(key, "")).strip():
            raise TraitError(
                f"{path}: '{key}': expected one sentence that names the pole, got none."
            )
    if not TRAIT_NAME.fullmatch(str(name)):
        raise TraitError(
            f"{path}: 'name': expected a-z, 0-9 and '_', at most 64 characters, got {shown(name)}."
        )
    if name != folder:
        raise TraitError(
            f"{path}: 'name': expected the folder's name ('{folder}'), got {shown(name)}. "
            "Rename one of them."
        )
    try:
        for key in ("extract_window", "read_window"):
            table[key] = Window.parse(str(table[key]))
    except InputError as problem:
        raise TraitError(f"{path}: '{key}': {problem}") from problem
    table["read_site"] = _place(table["read_site"], path)
    return table


def _place(value: float | str, path: Path) -> float | str:
    """A depth or a site's name; which sites there are, only a model knows."""
    try:
        if isinstance(value, str):
            return Site.parse(value).name
    except InputError as problem:
        raise TraitError(f"{path}: 'read_site': {problem} Or give a depth.") from problem
    if not 0 <= value <= 1:
        raise TraitError(
            f"{path}: 'read_site': expected a depth from 0.0 to 1.0 or a site, got {shown(value)}."
        )
    return float(value)


def _unknown(key: str, known: Iterable[str], where: object, table: str = "") -> TraitError:
    return TraitError(
        f"{where}: key {shown(table + key)} is not known. Known here: {', '.join(known)}."
        f"{did_you_mean(key, known)}"
    )


def _said(key: str) -> str:
    return "depth from 0.0 to 1.0 or a site" if key == "read_site" else "text"


def _pairs(path: Path) -> Iterator[Pair]:
    seen: dict[str, int] = {}
    for number, line in enumerate(read_lines(path, "a trait's pairs (pairs.jsonl)", TraitError), 1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        entry = _object(parse_json(line, where, TraitError), where)
        for key in entry.keys() - set(_PAIR_KEYS):
            raise _unknown(key, _PAIR_KEYS, where)
        pair = Pair(
            id=_text(entry, "id", where, str(number)),
            scenario=_text(entry, "scenario", where),
            kind=_text(entry, "kind", where, "natural"),
            positive=_example(entry, "positive", where),
            negative=_example(entry, "negative", where),
        )
        if pair.kind not in ("natural", "instructed"):
            raise TraitError(
                f"{where}: 'kind': expected 'natural' or 'instructed', got {shown(pair.kind)}."
            )
        if pair.id in seen:
            raise TraitError(
                f"{where}: expected an id of its own, got {shown(pair.id)}, which line "
                f"{seen[pair.id]} has already."
            )
        seen[pair.id] = number
        yield pair


def _object(value: object, where: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise TraitError(f"{where}: expected an object {{...}}, got {shown(value)}.")
    return value


def _text(entry: Mapping[str, object], key: str, where: str, default: str | None = None) -> str:
    value = entry.get(key, default)
    if not isinstance(value, str) or not value.strip():
        raise TraitError(f"{where}: '{key}': expected a text, got {shown(value)}.")
    if any("\ud800" <= character <= "\udfff" for character in value):  # no file can hold it
        raise TraitError(f"{where}: '{key}': expected text, got half a surrogate pair in it.")
    return value


def _example(entry: Mapping[str, object], side: str, where: str) -> Example:
    inner = _object(entry.get(side), f"{where}: '{side}'")
    for key in inner.keys() - set(_SIDE_KEYS):
        raise _unknown(key, _SIDE_KEYS, where, f"{side}.")
    system = _text(inner, "system", where) if inner.get("system") is not None else None
    return Example(_text(inner, "prompt", where), _text(inner, "response", where), system)


@lru_cache(maxsize=1)
def neutral_chats() -> tuple[Example, ...]:
    """The bundled neutral chats that say what is normal at a site."""
    path = BUNDLED_TRAITS / "neutral.jsonl"
    lines = read_lines(path, "the bundled neutral chats", TraitError)
    return tuple(
        _example({"chat": parse_json(line, f"{path}:{n}", TraitError)}, "chat", f"{path}:{n}")
        for n, line in enumerate(lines, 1)
        if line.strip()
    )
