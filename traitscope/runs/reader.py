"""Run: a run folder as it is read.  Never writes, never takes the lock.

A run that is being written, or whose writer was killed, reads as what its manifest commits; open
it again to see more.  Arrays: T tokens, S sites, K traits, float32 in units of the residual
stream.  Knows nothing of how the numbers were made.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from traitscope.core import (
    LEAST_SPREAD,
    Capture,
    Float32,
    Generation,
    Int32,
    Internals,
    Keep,
    KeptStates,
    Reading,
    Site,
    TokenTable,
    TraitDirections,
    Window,
    read_site,
)
from traitscope.errors import RunError, TraitError
from traitscope.runs import tables
from traitscope.runs.blocks import Block, read_block
from traitscope.runs.files import FileEntry, read_bytes, sha256, whole
from traitscope.runs.folder import EVENTS, MANIFEST
from traitscope.runs.header import RunHeader, read_header
from traitscope.runs.index import Index, Place, read_index
from traitscope.runs.lines import Manifest, parse_manifest, split_lines, unseal
from traitscope.runs.states import parse_states
from traitscope.runs.tables import CaptureRow, GenerationRow
from traitscope.runs.tensors import open_internals, parse_directions

if TYPE_CHECKING:
    import xarray

__all__ = ["Commit", "Run", "TextData"]

As = Literal["raw", "cosine", "z"]
_TINY = 1e-12  # no division by zero
_CACHED = 4  # row groups kept decoded: reading texts in their order opens each of them once


@dataclass(frozen=True)
class TextData:
    """One text with its numbers: score [T, S, K], norm [T, S], logprob [T] (NaN at position 0).

    A score is h . v in float32 for a unit direction; norm is |h|; traits and sites are in the
    run's order.  `run` is where it was read, None for a text made by hand.
    """

    generation: Generation
    tokens: TokenTable
    score: Float32
    norm: Float32
    logprob: Float32
    run: Run | None = field(default=None, repr=False, compare=False)

    def _repr_html_(self) -> str:
        from traitscope.runs.notebook import text_html  # wanted by notebooks alone

        return text_html(self)


@dataclass(frozen=True)
class Commit:
    """One committed part: its time (UTC, ISO 8601), its captures, tokens of its responses."""

    time: str
    captures: int
    new_tokens: int


class Run:
    """A run folder, opened for reading.  Made by `Run.open`."""

    def __init__(self, path: Path, header: RunHeader, manifest: Manifest) -> None:
        self.path = path
        self.header = header
        self.sites: tuple[Site, ...] = tuple(Site.parse(name) for name in header.sites)
        self.traits: tuple[str, ...] = header.trait_names
        self.directions: Mapping[str, TraitDirections] = _Directions(path, header)
        self._parts = manifest.parts
        self._compared: set[str] = set()
        self._texts: dict[str, dict[str, str]] = {}
        self._cache: OrderedDict[tuple[str, tuple[int, ...]], Any] = OrderedDict()
        self._turn = threading.Lock()

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """Raises RunError where `path` is no run, or its header or manifest is damaged."""
        path = Path(path)
        header = read_header(path)
        return cls(path, header, parse_manifest(read_bytes(path / MANIFEST), path / MANIFEST))

    def again(self) -> Run:
        """The run as the disk has it now: this one where nothing changed.

        What is committed never changes, so a run that grew is read on from here.
        """
        newer = Run.open(self.path)
        known = len(self._parts)
        if newer.header == self.header and newer._parts == self._parts:
            return self
        if newer._parts[:known] == self._parts and "_index" in self.__dict__:
            newer._index = self._index.grown(self.path, newer._parts[known:])
            newer._compared, newer._texts = self._compared, self._texts
        return newer

    def __repr__(self) -> str:
        return f"Run.open({str(self.path)!r})"

    def _repr_html_(self) -> str:
        from traitscope.runs.notebook import run_html  # wanted by notebooks alone

        return run_html(self)

    # --- lists -----------------------------------------------------------------------------------

    def generations(self) -> list[GenerationRow]:
        """Every text, done or failed: the suite's in its order, then those not in it any more."""
        wanted = dict.fromkeys(capture.generation for capture in self.header.captures)
        rows = self._index.generations
        inside = [rows[g] for g in wanted if g in rows]
        outside = [replace(row, in_suite=False) for g, row in rows.items() if g not in wanted]
        return inside + outside

    def captures(self) -> list[CaptureRow]:
        """Every recorded capture: the suite's in its order, then those not in it any more."""
        wanted = dict.fromkeys(self.header.captures)
        rows = self._index.captures
        inside = [rows[c] for c in wanted if c in rows]
        outside = [replace(row, in_suite=False) for c, row in rows.items() if c not in wanted]
        return inside + outside

    def missing(self) -> list[Capture]:
        """Wanted captures that are neither there nor recorded as failed."""
        index = self._index
        failed = {g for g, row in index.generations.items() if row.status == "failed"}
        return [
            capture
            for capture in self.header.captures
            if capture not in index.captures and capture.generation not in failed
        ]

    @property
    def state(self) -> Literal["complete", "unfinished"]:
        return "unfinished" if self.missing() or self.unscored() else "complete"

    def unscored(self) -> dict[Generation, tuple[str, ...]]:
        """Done texts that lack scores, and the traits (of those that came later) they lack."""
        further, scored = self.header.further_traits, self._index.further
        lacking = {g: tuple(t for t in further if (g, t) not in scored) for g in self._done()}
        return {generation: traits for generation, traits in lacking.items() if traits}

    def unkept(self, keep: Keep) -> dict[Generation, tuple[str, ...]]:
        """Done texts that lack states that `keep` asks for, and the sites at which they do."""
        kept, each = self._index.states, [replace(keep, sites=(site,)) for site in keep.sites]
        lacking = {g: tuple(k.sites[0] for k in each if (g, k) not in kept) for g in self._done()}
        return {generation: sites for generation, sites in lacking.items() if sites}

    def events(self) -> list[dict[str, Any]]:
        """The log: each event's `time`, `kind` and own fields; damaged lines are left out."""
        lines, _ = split_lines(read_bytes(self.path / EVENTS))
        events = [event for line in lines if (event := unseal(line)) is not None]
        return [{k: v for k, v in event.items() if k != "sum"} for event in events]

    @property
    def devices(self) -> tuple[str, ...]:
        """The kinds of device that it was made on, in order; another kind is another number in the
        last digits, so that nothing is promised between texts of two."""
        first = str(self.header.model.get("device", "cpu")).partition(":")[0]
        kinds = [str(self.header.model.get("device_kind", first))]
        kinds += [str(e.get("to")) for e in self.events() if e.get("kind") == "device"]
        return tuple(kinds)

    # --- many texts ------------------------------------------------------------------------------

    def parts(self) -> list[int]:
        """The numbers of the committed parts that hold texts, in their order."""
        return list(self._index.texts)

    def newest(self, most: int) -> list[GenerationRow]:
        """The done texts that were committed last, the newest first."""
        rows: list[GenerationRow] = []
        for part in reversed(self._index.texts):
            rows += reversed(self._index.texts[part])
            if len(rows) >= most:
                break
        return rows[:most]

    def commits(self) -> list[Commit]:
        """When each part was committed, how many captures it holds, and its tokens written."""
        return [
            Commit(
                part.time,
                entry.rows if (entry := part.file("captures")) else 0,
                sum(row.n_tokens - row.n_prompt for row in self._index.texts.get(part.number, ())),
            )
            for part in self._parts
        ]

    def recorded(self) -> int:
        """How many rows of captures are committed, from the manifest alone."""
        return sum(entry.rows for part in self._parts if (entry := part.file("captures")))

    def part_of(self, generation: Generation | str) -> int:
        """The number of the part that a done text is in; RunError where there is none."""
        return self._place(_named(generation)).part.number

    def block(self, parts: Sequence[int], sites: Mapping[str, Sequence[int]]) -> Block:
        """All texts of some parts as columns; `sites` says for each trait where it is read."""
        return read_block(self._index, parts, sites, len(self.sites), self._columns)

    # --- one text --------------------------------------------------------------------------------

    def text(self, generation: Generation | str) -> TextData:
        """Tokens and numbers of one text; RunError where it is not there or failed.

        A trait that came later and is not scored on this text yet (`unscored`) has NaN.
        """
        generation = _named(generation)
        place = self._place(generation)
        table = self._rows(place, "tokens", self._index.generations[generation].n_tokens)
        numbers = tables.read_numbers(table, len(self.sites), self.header.first_traits)
        return TextData(
            generation,
            tables.read_tokens(table, self._text_of(place, generation)),
            self._with_further(generation, numbers.score),
            numbers.norm,
            numbers.logprob,
            self,
        )

    def scores(self, generation: Generation | str, *, as_: As = "raw") -> xarray.DataArray:
        """Scores of one text as a labelled array with dims (token, site, trait).

        `as_`: "raw" (h . v, units of the residual stream), "cosine" (score / |h|), or "z"
        ((score - neutral mean) / neutral std of the site, for content tokens).  Coordinates:
        token (position), site and trait (names), and along token: piece, part, role.
        """
        from xarray import DataArray  # half a second to import, wanted by few

        text = self.text(generation)
        return DataArray(
            self._scaled(text, as_),
            dims=("token", "site", "trait"),
            coords={
                "token": np.arange(len(text.score)),
                "site": [site.name for site in self.sites],
                "trait": list(self.traits),
                "piece": ("token", np.array(text.tokens.piece, dtype=object)),
                "part": ("token", text.tokens.part),
                "role": ("token", text.tokens.role),
            },
            name="score",
            attrs={
                "generation": text.generation.id,
                "as": as_,
                "units": {"raw": "residual stream", "cosine": "1", "z": "neutral std"}[as_],
                "run": self.header.name,
                "key": self.header.key,
                "model": str(self.header.model.get("name", "")),
            },
        )

    def read_site(self, trait: str) -> int:
        """Where a trait is read: the number of its own site, as its directions record it."""
        return read_site(self.sites, self.directions[trait].metadata.get("read_site") or 0.5)

    def reading(
        self,
        text: TextData | Generation | str,
        trait: str,
        window: Window | str = "response[:]",
        *,
        site: str | float = "read",
    ) -> Reading:
        """The mean score of one text over a window at a site, and its z; NaN for an empty window.

        `site`: "read" (the trait's own), a site's name, or a depth.  InputError for one that the
        model lacks or a window that cannot be; RunError for a trait that the run has not.
        """
        text = text if isinstance(text, TextData) else self.text(text)
        if trait not in self.traits:
            raise RunError(f"Expected one of the traits {', '.join(self.traits)}, got '{trait}'.")
        window = Window.parse(window) if isinstance(window, str) else window
        place = self.read_site(trait) if site == "read" else read_site(self.sites, site)
        picked = text.score[window.pick(text.tokens), place, self.traits.index(trait)]
        score = np.asarray(picked.mean(dtype=np.float64) if picked.size else np.nan)
        z = float(self.directions[trait].z(score, place, window))
        return Reading(trait, self.sites[place], window, float(score), z)

    def internal_blocks(self, generation: Generation | str) -> list[int]:
        """Blocks whose internals were kept for this text, in order."""
        generation = _named(generation)
        return sorted(block for name, block in self._index.internals if name == generation)

    def all_internals(self) -> list[tuple[Generation, int]]:
        """Texts and blocks whose internals were kept, in the order of the texts."""
        place = {row.generation: i for i, row in enumerate(self.generations())}
        return sorted(self._index.internals, key=lambda key: (place[key[0]], key[1]))

    def internals(self, generation: Generation | str, block: int) -> Internals:
        """The inside of one block for one text (core.Internals); tensors are read when touched."""
        generation = _named(generation)
        entry = self._index.internals.get((generation, block))
        if entry is None:
            blocks = ", ".join(map(str, self.internal_blocks(generation))) or "none"
            raise RunError(
                f"Expected internals of text {generation.id} at block {block}, but the run has "
                f'{blocks}. A prompt set with kind = "internals" keeps them.'
            )
        return open_internals(self._whole(entry))

    def kept(self, generation: Generation | str) -> list[Keep]:
        """Which states were kept of this text: one `Keep` for each site, tokens and dtype."""
        generation = _named(generation)
        return [keep for name, keep in self._index.states if name == generation]

    def states(self, generation: Generation | str, site: Site | str) -> Float32:
        """Kept states of one text at one site: [N, D] float32, of the tokens that were kept.

        Which these are says `state_positions`.  What was stored as bfloat16 is widened, without
        loss.  Where several were kept, all tokens win over some, float32 over bfloat16.
        """
        return self._states(generation, site).h

    def state_positions(self, generation: Generation | str, site: Site | str) -> Int32:
        """The positions [N] of the tokens whose states `states` gives."""
        return self._states(generation, site).position

    # --- inside ----------------------------------------------------------------------------------

    def _done(self) -> list[Generation]:
        return [g for g, row in self._index.generations.items() if row.status == "done"]

    def _states(self, generation: Generation | str, site: Site | str) -> KeptStates:
        generation, name = _named(generation), str(site)
        kept = [keep for keep in self.kept(generation) if keep.sites == (name,)]
        if not kept:
            sites = ", ".join(dict.fromkeys(k.sites[0] for k in self.kept(generation))) or "none"
            raise RunError(
                f"Expected kept states of text {generation.id} at {name}, but the run has {sites}. "
                "'keep' in a suite, or --keep SITE, keeps them."
            )
        best = min(kept, key=lambda keep: (keep.tokens != "all", keep.dtype != "float32"))
        path = self._whole(self._index.states[generation, best])
        return parse_states(read_bytes(path), path)

    def _with_further(self, generation: Generation, score_TSK: Float32) -> Float32:
        """The scores with those of the traits that came later behind them."""
        parts = [score_TSK]
        for trait in self.header.further_traits:
            place = self._index.further.get((generation, trait))
            if place is None:
                parts.append(np.full_like(score_TSK, np.nan, shape=(*score_TSK.shape[:2], 1)))
                continue
            column = self._rows(place, "scores", len(score_TSK))[f"score.{trait}"]
            parts.append(tables.read_lists(column, len(self.sites))[:, :, None])
        return np.concatenate(parts, axis=2) if len(parts) > 1 else score_TSK

    @cached_property
    def _index(self) -> Index:
        return read_index(self.path, self._parts)

    def _place(self, generation: Generation) -> Place:
        place = self._index.places.get(generation)
        if place is not None:
            return place
        row = self._index.generations.get(generation)
        if row is not None:
            raise RunError(f"Expected a text, but {generation.id} failed: {row.error}")
        raise RunError(
            f"Expected one of the {len(self._index.generations)} texts of {self.path}, got "
            f"'{generation.id}'. Run.generations() lists them."
        )

    def _rows(self, place: Place, name: str, n_tokens: int) -> Any:
        """The rows of one text in a table of its part, from as few row groups as hold them."""
        entry = place.part.file(name)
        assert entry is not None  # the index found the text in this part: it has the table
        with tables.open_table(self._whole(entry)) as file:
            sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
            starts = np.concatenate([[0], np.cumsum(sizes)])
            first = int(np.searchsorted(starts, place.offset, side="right")) - 1
            last = int(np.searchsorted(starts, place.offset + n_tokens, side="left"))
            key = (entry.name, tuple(range(first, last)))
            table = self._cached(key)
            if table is None:
                table = self._remember(key, file.read_row_groups(list(key[1]), use_threads=False))
        return table.slice(place.offset - int(starts[first]), n_tokens)

    def _columns(self, entry: FileEntry, names: list[str]) -> Any:
        """Columns of a whole table; names that it has not are left out."""
        with tables.open_table(self._whole(entry)) as file:
            there = set(file.schema_arrow.names)
            return file.read([name for name in names if name in there], use_threads=False)

    def _whole(self, entry: FileEntry) -> Path:
        """The path of a committed file, whose checksum is compared once."""
        if entry.name not in self._compared:
            whole(self.path, entry)
            self._compared.add(entry.name)
        return self.path / entry.name

    def _cached(self, key: tuple[str, tuple[int, ...]]) -> Any:
        with self._turn:
            return self._cache.get(key)

    def _remember(self, key: tuple[str, tuple[int, ...]], table: Any) -> Any:
        with self._turn:
            self._cache[key] = table
            while len(self._cache) > _CACHED:
                self._cache.popitem(last=False)
        return table

    def _text_of(self, place: Place, generation: Generation) -> str:
        entry = place.part.file("generations")
        assert entry is not None
        if entry.name not in self._texts:
            self._texts[entry.name] = tables.read_texts(self._whole(entry))
        return self._texts[entry.name][generation.id]

    def _scaled(self, text: TextData, as_: As) -> Float32:
        if as_ == "raw":
            return text.score
        if as_ == "cosine":
            return np.asarray(text.score / np.maximum(text.norm, _TINY)[:, :, None], np.float32)
        if as_ != "z":
            raise ValueError(f"as_: expected 'raw', 'cosine' or 'z', got '{as_}'")
        trait = [self.directions[name] for name in self.traits]
        mean_SK = np.stack([t.neutral_mean for t in trait], axis=1)
        std_SK = np.stack([t.neutral_std for t in trait], axis=1)
        there_SK = np.stack([t.direction.any(axis=1) for t in trait], axis=1)
        there_SK &= std_SK > LEAST_SPREAD * np.abs(mean_SK)
        scale_SK = np.where(there_SK, std_SK, np.nan)  # no direction or no spread: no z
        return np.asarray((text.score - mean_SK) / scale_SK, np.float32)


class _Directions(Mapping[str, TraitDirections]):
    """The run's directions by trait, each read and checked when first asked for."""

    def __init__(self, path: Path, header: RunHeader) -> None:
        self._path = path
        self._sums = {trait["name"]: trait["sha256"] for trait in header.traits}
        self._read: dict[str, TraitDirections] = {}

    def __getitem__(self, name: str) -> TraitDirections:
        if name not in self._read:
            expected = self._sums[name]
            path = self._path / "directions" / f"{name}.safetensors"
            data = read_bytes(path)
            if sha256(data) != expected:
                raise TraitError(
                    f"Expected {path} to match its checksum in run.json, but it was changed or "
                    "damaged. 'traitscope verify' lists what is whole."
                )
            self._read[name] = parse_directions(data, path)
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._sums)

    def __len__(self) -> int:
        return len(self._sums)


def _named(generation: Generation | str) -> Generation:
    if isinstance(generation, Generation):
        return generation
    try:
        return Generation.parse(generation)
    except ValueError as error:
        raise RunError(
            f"Expected a text's id such as '0123456789abcdef-0', got '{generation}'. "
            "Run.generations() lists them."
        ) from error
