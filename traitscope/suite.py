"""Suite TOML -> `Suite`: what is asked of which model, and what is expected to be seen.

A suite is a file `*.toml`, a folder that holds `suite.toml`, or the name of a bundled suite.
Values are frozen and checked as far as that goes without a model: sites for their form, traits
and prompt files for being there, expectations for naming prompts and traits of the suite.  All
problems of a suite come in one SuiteError, one a line.  This module does not know what a trait's
data look like, which sites a model has, or how anything is run.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pydantic import PrivateAttr, ValidationError

from traitscope.conversations import Conversation, conversations_from, load_conversations
from traitscope.copyout import init_folder
from traitscope.core import TRAIT_NAME, GenerationConfig, Keep, Prompt
from traitscope.errors import InputError, PromptError, SuiteError, did_you_mean
from traitscope.paths import BUNDLED_SUITES, BUNDLED_TRAITS
from traitscope.prompts import load_prompts
from traitscope.suite_tables import (
    Expectation,
    GenerationTable,
    PromptSet,
    SuiteTable,
    sentences,
)
from traitscope.textfile import read_toml, shown
from traitscope.traits.vector_names import VectorSource, vector_at
from traitscope.turns import check_text

__all__ = [
    "OVERRIDES",
    "Expectation",
    "GenerationTable",
    "PromptSet",
    "Suite",
    "TraitSource",
    "find_traits",
    "init_folder",
    "load_suite",
    "suite_from_dict",
]

# what may be given beside a suite's file, and where in the file it belongs
OVERRIDES: dict[str, tuple[str, ...]] = {
    **{key: (key,) for key in ("model", "revision", "adapter", "trust_remote_code")},
    **{key: (key,) for key in ("device", "dtype", "rows", "allow_unproven")},
    **{key: ("generation", key) for key in GenerationTable.model_fields},
    "keep": ("keep", "sites"),
    "thinking": ("thinking",),
    "template": ("template",),
}


@dataclass(frozen=True)
class TraitSource:
    """A trait's name, and its data folder, directions file (`.safetensors`) or vector (`.pt`)."""

    name: str
    path: Path
    vector: VectorSource | None = None


class Suite(SuiteTable):
    """A whole suite, checked.  Make one with `load_suite` or `suite_from_dict`."""

    _root: Path = PrivateAttr(default=Path())
    _source: str = PrivateAttr(default="suite")
    _prompts: dict[str, tuple[Prompt, ...]] = PrivateAttr(default_factory=dict)
    _conversations: dict[str, tuple[Conversation, ...]] = PrivateAttr(default_factory=dict)
    _traits: tuple[TraitSource, ...] = PrivateAttr(default=())

    @property
    def root(self) -> Path:
        """The folder that the suite's paths are relative to."""
        return self._root

    @property
    def source(self) -> str:
        """The suite's file, for messages."""
        return self._source

    @property
    def trait_sources(self) -> tuple[TraitSource, ...]:
        """Name and place of each trait, in the suite's order."""
        return self._traits

    @property
    def trait_names(self) -> tuple[str, ...]:
        return tuple(trait.name for trait in self._traits)

    def prompt_sets(self) -> dict[str, list[Prompt]]:
        """The prompts of each set, in order, as they were when the suite was loaded.

        A set's `tags` are on each of its prompts; a prompt's own tag of the same key wins.
        """
        return {name: list(prompts) for name, prompts in self._prompts.items()}

    def conversations(self) -> dict[str, list[Conversation]]:
        """The sets of texts that exist already; `prompt_sets` has their prompts."""
        return {name: list(texts) for name, texts in self._conversations.items()}

    @property
    def replays(self) -> bool:
        """Whether the suite's texts exist already, so that nothing is generated."""
        return any(table.conversations is not None for table in self.prompts.values())

    def config(self, prompt_set: str | None = None) -> GenerationConfig:
        """How texts are sampled, with the set's own number of samples where it has one."""
        config = GenerationConfig(**self.generation.model_dump())
        own = self.prompts[prompt_set].samples if prompt_set is not None else None
        return config if own is None else replace(config, samples=own)

    def kept(self, dtype: str) -> Keep:
        """Which states are kept of each text of a model whose states are of `dtype`."""
        keep = self.keep
        auto: Literal["bfloat16", "float32"] = "bfloat16" if dtype == "bfloat16" else "float32"
        stored = auto if keep.dtype == "auto" else keep.dtype
        return Keep(tuple(dict.fromkeys(keep.sites)), keep.tokens, stored)

    def prompts_named(self, name: str) -> tuple[Prompt, ...]:
        """The prompts with this id, else with this text; the same chat only once.

        For `higher` and `lower` of this suite's expectations that is exactly one.
        """
        every = [prompt for prompts in self._prompts.values() for prompt in prompts]
        named = [p for p in every if p.label == name] or [p for p in every if p.text == name]
        return tuple({prompt.messages: prompt for prompt in named}.values())

    def to_dict(self) -> dict[str, object]:
        """The suite as plain JSON values, defaults and overrides resolved, without its folder."""
        return self.model_dump(mode="json")


def load_suite(name_or_path: str | Path, overrides: Mapping[str, object] | None = None) -> Suite:
    """Read and check a suite: a `.toml` file, a folder with `suite.toml`, or a bundled name.

    A path wins over a bundled name, so that an edited copy in a folder of that name is what runs.
    `overrides` (keys of OVERRIDES; None means not given) win over the file; `samples` also over
    the sets' own.  Raises SuiteError with all problems found, one a line.
    """
    path = _find(name_or_path)
    data = read_toml(path, "a suite (a .toml file)", SuiteError)
    title = path.resolve().parent.name if path.name == "suite.toml" else path.stem
    fallback = re.sub(r"[^A-Za-z0-9_.-]+", "-", title).strip("-._")[:64] or "suite"
    return suite_from_dict(
        {"name": fallback, **data}, root=path.parent, source=str(path), overrides=overrides
    )


def suite_from_dict(
    data: Mapping[str, object],
    *,
    root: Path,
    source: str = "suite",
    overrides: Mapping[str, object] | None = None,
) -> Suite:
    """Check a suite given as TOML's tables; `root` is what its paths are relative to."""
    given = {key: value for key, value in (overrides or {}).items() if value is not None}
    for key in sorted(given.keys() - OVERRIDES.keys()):
        raise SuiteError(
            f"{source}: {shown(key)} cannot be given beside a suite. Known here: "
            f"{', '.join(OVERRIDES)}.{did_you_mean(key, OVERRIDES)}"
        )
    try:
        suite = Suite.model_validate(_merged(data, given, root))
    except ValidationError as problem:
        lines = sentences(problem, source, [OVERRIDES[key] for key in given])
        raise SuiteError("\n".join(lines)) from problem
    suite._root, suite._source = root, source
    problems = [
        *_of_one_kind(suite),
        *_attach_traits(suite),
        *_attach_prompts(suite),
        *_check_expectations(suite),
    ]
    if problems:
        raise SuiteError("\n".join(f"{source}: {problem}" for problem in problems))
    return suite


# --- finding and merging -------------------------------------------------------------------------


def _find(name_or_path: str | Path) -> Path:
    path = Path(os.path.expanduser(name_or_path))
    if os.path.isfile(path / "suite.toml"):
        return path / "suite.toml"
    if os.path.isfile(path):
        return path
    bundled = sorted(suite.parent.name for suite in BUNDLED_SUITES.glob("*/suite.toml"))
    if str(name_or_path) in bundled:
        return BUNDLED_SUITES / str(name_or_path) / "suite.toml"
    came = "a folder without a suite.toml" if os.path.isdir(path) else "neither"
    raise SuiteError(
        f"{name_or_path}: expected a suite's file (.toml) or folder, or a bundled suite's name "
        f"(known: {', '.join(bundled)}), got {came}.{did_you_mean(str(name_or_path), bundled)}"
    )


def _merged(
    data: Mapping[str, object], given: Mapping[str, object], root: Path
) -> dict[str, object]:
    """The tables with the overrides in their places."""
    merged = dict(data)
    for key in ("model", "adapter"):
        if key in merged:
            merged[key] = _local(key, merged[key], root)
    if "model" in given:
        for key in ("revision", "adapter", "family", "trust_remote_code"):
            merged.pop(key, None)  # they were the other model's
    if "keep" in given and isinstance(merged.get("keep"), list | tuple):
        merged.pop("keep")  # the short form: nothing but the sites
    for key, value in given.items():
        *table, leaf = OVERRIDES[key]
        if key == "template" and isinstance(value, dict):
            own = merged.get(key)
            merged[key] = {**(own if isinstance(own, dict) else {}), **value}
        elif not table:
            merged[leaf] = _local(leaf, value, Path())
        elif isinstance(inner := merged.get(table[0], {}), dict):  # else validation says so
            merged[table[0]] = {**inner, leaf: value}
    sets = merged.get("prompts")
    if "samples" in given and isinstance(sets, dict):
        merged["prompts"] = {name: _without_samples(table) for name, table in sets.items()}
    return merged


def _local(key: str, value: object, base: Path) -> object:
    if key == "adapter" and isinstance(value, str) and value:
        return os.path.abspath(base / os.path.expanduser(value))
    return _local_model(value, base) if key == "model" else value


def _local_model(model: object, base: Path) -> object:
    """A model's folder as a whole path, so that it means the same wherever the run goes on."""
    if not isinstance(model, str) or model in ("", "pocket"):
        return model
    folder = base / os.path.expanduser(model)
    local = model.startswith((".", "~")) or os.path.isdir(folder)
    return os.path.abspath(folder) if local else model


def _without_samples(table: object) -> object:
    if not isinstance(table, dict):
        return table
    return {key: value for key, value in table.items() if key != "samples"}


# --- what the tables point at --------------------------------------------------------------------


def _of_one_kind(suite: Suite) -> Iterator[str]:
    if suite.replays and any(table.conversations is None for table in suite.prompts.values()):
        yield (
            "'prompts': expected sets of prompts or sets of conversations, got both. "
            "Put the conversations into a suite of their own."
        )
    if not suite.logprobs and not suite.replays:
        yield (
            "'logprobs': expected only with conversations, got it with prompts. Of those it is "
            "'generation.prompt_logprobs'."
        )


def find_traits(entries: Sequence[str], root: Path = Path()) -> tuple[TraitSource, ...]:
    """Traits by name or path, as in a suite; InputError where one is not there or comes twice."""
    found: dict[str, TraitSource] = {}
    for problem in _find_traits(entries, root, found):
        raise InputError(problem)
    return tuple(found.values())


def _attach_traits(suite: Suite) -> Iterator[str]:
    """Find the suite's traits; yields a sentence for each that is not there or comes twice."""
    found: dict[str, TraitSource] = {}
    yield from _find_traits(suite.traits, suite.root, found)
    suite._traits = tuple(found.values())


def _find_traits(
    entries: Sequence[str], root: Path, found: dict[str, TraitSource]
) -> Iterator[str]:
    for entry in entries:
        source = _trait_at(entry, root)
        if isinstance(source, str):
            yield f"'traits': {source}"
        elif source.name in found:
            yield f"'traits': expected each trait once, got '{source.name}' twice."
        else:
            found[source.name] = source


def _trait_at(entry: str, root: Path) -> TraitSource | str:
    """Where a trait is, or a sentence that says why it is not."""
    if not (re.search(r"[/\\]|safetensors|\.pt(@|$)", entry) or entry.startswith(".")):
        known = sorted(folder.parent.name for folder in BUNDLED_TRAITS.glob("*/trait.toml"))
        if entry in known:
            return TraitSource(entry, BUNDLED_TRAITS / entry)
        return (
            f"unknown trait {shown(entry)}. Known here: {', '.join(known)}."
            f"{did_you_mean(entry, known)} A trait of your own is a folder with trait.toml and "
            "pairs.jsonl, named by its path ('./NAME'): see 'traitscope init'."
        )
    vector = vector_at(entry, root)
    if isinstance(vector, str):
        return vector
    if vector is not None:
        return _named(vector.trait, vector.path, vector)
    path = root / os.path.expanduser(entry)
    directions = path.suffix == ".safetensors"
    if not os.path.isfile(path if directions else path / "trait.toml"):
        wanted = "a directions file" if directions else "a folder with trait.toml and pairs.jsonl"
        return f"expected {wanted} at {shown(entry)}, got none. Paths begin at the suite's folder."
    return _named(path.stem if directions else path.resolve().name, path)


def _named(name: str, path: Path, vector: VectorSource | None = None) -> TraitSource | str:
    if not TRAIT_NAME.fullmatch(name):
        return f"expected a name of a-z, 0-9 and '_', at most 64 long, got '{name}'. Rename it."
    return TraitSource(name, path, vector)


def _attach_prompts(suite: Suite) -> Iterator[str]:
    """Load the suite's prompts; yields a sentence for each set that cannot be."""
    labelled: dict[str, Prompt] = {}
    for name, table in suite.prompts.items():
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", name):
            yield f"'prompts': expected a name of letters, digits and '_.-', got {shown(name)}."
        try:
            texts = _conversations(suite, name, table)
            found = _load(suite, name, table) if texts is None else [each.prompt for each in texts]
            prompts = [replace(p, tags={**table.tags, **p.tags}) for p in found]
        except PromptError as problem:
            yield f"'prompts.{name}': {problem}"
            continue
        suite._prompts[name] = tuple(prompts)
        if texts is not None:
            tagged = zip(texts, prompts, strict=True)
            suite._conversations[name] = tuple(replace(t, prompt=p) for t, p in tagged)
        for prompt in prompts:
            first = labelled.setdefault(prompt.label, prompt) if prompt.label else prompt
            if first.messages != prompt.messages:
                yield (
                    f"'prompts.{name}': expected an id of its own, got {shown(prompt.label)} at "
                    f"{prompt.where}, which another prompt at {first.where} has already."
                )


def _conversations(suite: Suite, name: str, table: PromptSet) -> list[Conversation] | None:
    given = table.conversations
    if given is None:
        return None
    if isinstance(given, str):
        return load_conversations(suite.root / os.path.expanduser(given))
    return conversations_from(given, f"{suite.source}: prompts.{name}.conversations")


def _load(suite: Suite, name: str, table: PromptSet) -> list[Prompt]:
    if table.file is not None:
        return load_prompts(suite.root / os.path.expanduser(table.file))
    prompts = []
    for number, text in enumerate(table.texts or (), 1):
        where = f"{suite.source}: prompts.{name}.texts, entry {number}"
        check_text(text, where)
        prompts.append(replace(Prompt.of(text), where=where))
    return prompts


def _check_expectations(suite: Suite) -> Iterator[str]:
    """Yields a sentence for each trait or prompt that an expectation names and the suite lacks."""
    every = [p for prompts in suite.prompt_sets().values() for p in prompts]
    names = [p.label for p in every if p.label] + [p.text for p in every]
    whole = len(suite.prompt_sets()) == len(suite.prompts)  # else the missing ones may be there
    for number, expectation in enumerate(suite.expect, 1):
        of = f"of [[expect]] number {number}"
        if expectation.trait not in suite.trait_names:
            yield (
                f"'expect.trait' {of}: expected one of the suite's traits "
                f"({', '.join(suite.trait_names)}), got {shown(expectation.trait)}."
                f"{did_you_mean(expectation.trait, suite.trait_names)}"
            )
        for key, name in (("higher", expectation.higher), ("lower", expectation.lower)):
            found = len(suite.prompts_named(name))
            if found == 0 and whole:
                yield (
                    f"'expect.{key}' {of}: expected the text or the id of one of the suite's "
                    f"prompts, got {shown(name)}.{did_you_mean(name, names)}"
                )
            elif found > 1:
                yield (
                    f"'expect.{key}' {of}: expected one prompt, got {found} chats that end in "
                    f"{shown(name)}. Give them an id in their .jsonl file."
                )
