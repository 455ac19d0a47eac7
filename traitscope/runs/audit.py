"""Is every record of a run whole?  Checksums of every file, then what the numbers must obey.

Reads one part at a time.  Writes nothing, takes no lock; on a run that is being written, the
part under way shows as a left-over.  Knows nothing of whether the numbers are right.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from traitscope.core import KINDS
from traitscope.errors import RunError, TraitError
from traitscope.runs import tables
from traitscope.runs.files import file_sha256, read_bytes
from traitscope.runs.folder import EVENTS, MANIFEST, leftovers
from traitscope.runs.further import FurtherRow, read_further
from traitscope.runs.header import HEADER_NAME, RunHeader, read_header
from traitscope.runs.index import Index, block_of, generation_of
from traitscope.runs.lines import Manifest, PartEntry, scan_manifest, split_lines, unseal
from traitscope.runs.states import parse_states, states_key
from traitscope.runs.tables import CaptureRow, GenerationRow
from traitscope.runs.tensors import load_directions, open_internals

__all__ = ["Problem", "verify"]

PER_TOKEN = {"q", "k", "v", "head_out", "gate", "up", "neurons", "attn_out", "mlp_out"}
PER_TOKEN |= {"down_out", "resid_pre", "resid_mid", "resid_post"}
PER_TOKEN |= {"attn_post_norm_scale", "mlp_post_norm_scale"}
NORM_SLACK = 1e-4  # |h . v| <= |h| |v|; both sides are float32 sums


@dataclass(frozen=True)
class Problem:
    """One thing that is not as it should be.

    `file` is relative to the run.  `kind` is "damaged" (a record is not whole) or "leftover"
    (what a kill leaves: no record is touched, and the next resume removes it).
    """

    file: str
    message: str
    kind: Literal["damaged", "leftover"] = "damaged"

    def __str__(self) -> str:
        return f"{self.file}: {self.message}"


def verify(path: str | Path) -> list[Problem]:
    """All problems of a run, none if every record is whole.

    RunError where `path` is no run, or was made by a newer version.
    """
    path = Path(path)
    if not (path / HEADER_NAME).is_file():
        read_header(path)  # says that this is no run
    return list(_problems(path))


def _problems(path: Path) -> Iterator[Problem]:
    header = None
    try:
        header = read_header(path)
    except RunError as error:
        yield Problem(HEADER_NAME, str(error))
    if header is not None:
        yield from _directions(path, header)
    if not (path / MANIFEST).is_file():
        yield Problem(MANIFEST, "is missing: what was committed is unknown")
    else:
        manifest, wrong = scan_manifest(read_bytes(path / MANIFEST))
        yield from (Problem(MANIFEST, message) for message in wrong)
        yield from _journal_ends(manifest)
        yield from _parts(path, header, manifest)
        yield from _others(path, header, manifest, whole=not wrong)
    yield from _events(path)


def _journal_ends(manifest: Manifest) -> Iterator[Problem]:
    if manifest.torn:
        yield Problem(MANIFEST, f"a torn line of {manifest.torn} bytes at the end", "leftover")
    numbers = [part.number for part in manifest.parts]
    if numbers != sorted(set(numbers)):
        yield Problem(MANIFEST, f"part numbers do not rise: {numbers}")


def _directions(path: Path, header: RunHeader) -> Iterator[Problem]:
    for trait in header.traits:
        name = f"directions/{trait['name']}.safetensors"
        try:
            directions = load_directions(path / name)
        except TraitError as error:
            yield Problem(name, str(error))
            continue
        if file_sha256(path / name) != trait["sha256"]:
            yield Problem(name, "does not match its checksum in run.json")
        elif directions.hash != trait["hash"] or directions.trait != trait["name"]:
            yield Problem(name, "holds other directions than run.json names")
        elif tuple(site.name for site in directions.sites) != header.sites:
            yield Problem(name, "has other sites than run.json")


def _events(path: Path) -> Iterator[Problem]:
    try:
        lines, torn = split_lines(read_bytes(path / EVENTS))
    except RunError as error:
        yield Problem(EVENTS, str(error))
        return
    for place, line in enumerate(lines, start=1):
        if unseal(line) is None:
            yield Problem(EVENTS, f"line {place} does not match its checksum")
    if torn:
        yield Problem(EVENTS, f"a torn line of {len(torn)} bytes at the end", "leftover")


def _others(
    path: Path, header: RunHeader | None, manifest: Manifest, *, whole: bool
) -> Iterator[Problem]:
    """Files that no record names; with a damaged manifest nobody knows whether they count."""
    for name in leftovers(path, manifest, header):
        said = (
            "is not named in run.json" if name.startswith("directions/") else "is named by no part"
        )
        yield Problem(name, said, "leftover" if whole else "damaged")


# --- parts ---------------------------------------------------------------------------------------


def _parts(path: Path, header: RunHeader | None, manifest: Manifest) -> Iterator[Problem]:
    index = Index()
    for part in manifest.parts:
        damaged = list(_files(path, part))
        yield from damaged
        if damaged or header is None:
            continue
        try:
            yield from _part(path, header, part, index)
        except RunError as error:
            yield Problem(f"parts/{part.number:05d}", str(error))


def _files(path: Path, part: PartEntry) -> Iterator[Problem]:
    for entry in part.files:
        file = path / entry.name
        if not file.is_file():
            yield Problem(entry.name, "is missing")
        elif file.stat().st_size != entry.bytes:
            size = file.stat().st_size
            yield Problem(entry.name, f"has {size} bytes, expected {entry.bytes}")
        elif file_sha256(file) != entry.sha256:
            yield Problem(entry.name, "does not match its checksum in the manifest")


def _part(path: Path, header: RunHeader, part: PartEntry, index: Index) -> Iterator[Problem]:
    texts, captures = part.file("generations"), part.file("captures")
    further = part.file("further")
    rows = tables.read_generations(path / texts.name) if texts else []
    caps = tables.read_captures(path / captures.name) if captures else []
    scored = read_further(path / further.name) if further else []
    if texts:
        yield from _generations(texts.name, rows, index)
    if further:
        yield from _further(path, header, part, scored, index)
    index.add(part, rows, caps, scored)
    tokens = part.file("tokens")
    done = [row for row in rows if row.status == "done"]
    if tokens is None and done:
        yield Problem(f"parts/{part.number:05d}", "has done texts and no table of tokens")
    if tokens is not None and texts is not None:
        strings = tables.read_texts(path / texts.name)
        yield from _tokens(path, header, tokens.name, done, strings)
    if captures:
        yield from _captures(captures.name, caps, index)
    for entry in part.files:
        if entry.name.startswith("internals/"):
            yield from _internals(path, header, entry.name, index)
        elif entry.name.startswith("states/"):
            yield from _states(path, header, entry.name, index)


def _generations(name: str, rows: list[GenerationRow], index: Index) -> Iterator[Problem]:
    seen = set()
    for row in rows:
        before = index.generations.get(row.generation)
        if row.generation in seen or (before is not None and before.status == "done"):
            yield Problem(name, f"{row.generation.id} is there twice")
        if row.status not in ("done", "failed") or (row.status == "failed") != bool(row.error):
            yield Problem(name, f"{row.generation.id} is neither done nor failed with a reason")
        seen.add(row.generation)


def _captures(name: str, rows: list[CaptureRow], index: Index) -> Iterator[Problem]:
    with_internals = {generation for generation, _ in index.internals}
    for row in rows:
        capture = row.capture
        text = index.generations.get(capture.generation)
        if text is None:
            yield Problem(name, f"{capture.generation.id} has a capture and no text")
        elif row.status == "done" and text.status != "done":
            yield Problem(name, f"{capture.generation.id} failed and has a done capture")
        if capture.kind not in KINDS:
            yield Problem(name, f"a capture of unknown kind '{capture.kind}'")
        elif (
            capture.kind == "internals"
            and row.status == "done"
            and capture.generation not in with_internals
        ):
            yield Problem(name, f"{capture.generation.id} has no internals")


def _internals(path: Path, header: RunHeader, name: str, index: Index) -> Iterator[Problem]:
    internals = open_internals(path / name)
    if (internals.generation, internals.block) != (generation_of(name), block_of(name)):
        yield Problem(name, f"holds {internals.generation.id}, block {internals.block}")
    elif internals.generation not in index.places:
        yield Problem(name, "belongs to no done text")
    else:
        n_tokens = index.generations[internals.generation].n_tokens
        wrong = [
            key
            for key in PER_TOKEN & internals.tensors.keys()
            if len(internals.tensors[key]) != n_tokens
        ]
        if wrong:
            yield Problem(name, f"'{min(wrong)}' has not one row for each of {n_tokens} tokens")
    if internals.traits != header.first_traits:
        yield Problem(name, f"has the traits {', '.join(internals.traits)}")


def _states(path: Path, header: RunHeader, name: str, index: Index) -> Iterator[Problem]:
    states = parse_states(read_bytes(path / name), path / name)
    if (states.generation, states.keep) != states_key(name):
        yield Problem(name, f"holds {states.generation.id}, {states.keep}")
    elif states.generation not in index.places:
        yield Problem(name, "belongs to no done text")
    elif states.site not in header.sites:
        yield Problem(name, f"is of a site that the model has not: {states.site}")
    else:
        row = index.generations[states.generation]
        expected = states.keep.positions(row.n_tokens, row.n_prompt)
        if not np.array_equal(states.position, expected) or len(states.h) != len(expected):
            yield Problem(name, f"has not one state for each of {len(expected)} tokens")
        elif not np.isfinite(states.h).all():
            yield Problem(name, "a state is not finite")


# --- further scores ------------------------------------------------------------------------------


def _further(
    path: Path, header: RunHeader, part: PartEntry, rows: list[FurtherRow], index: Index
) -> Iterator[Problem]:
    entry = part.file("scores")
    if entry is None:
        yield Problem(f"parts/{part.number:05d}", "has further traits and no table of scores")
        return
    with tables.open_table(path / entry.name) as file:
        table = file.read(use_threads=False)
    if len(table) != sum(row.n_tokens for row in rows):
        yield Problem(entry.name, f"has {len(table)} tokens, expected those of {len(rows)} texts")
        return
    start = 0
    for row in rows:
        one = table.slice(start, row.n_tokens)
        start += row.n_tokens
        for message in (*_scored_text(row, header, index), *_scored(one, row, header)):
            yield Problem(entry.name, f"{row.generation.id}: {message}")


def _scored_text(row: FurtherRow, header: RunHeader, index: Index) -> Iterator[str]:
    text = index.generations.get(row.generation)
    if text is None or text.status != "done" or text.n_tokens != row.n_tokens:
        yield f"is no done text of {row.n_tokens} tokens"
    for trait in row.traits:
        if trait not in header.further_traits:
            yield f"is scored on '{trait}', which run.json does not name as a further trait"
        if (row.generation, trait) in index.further:
            yield f"is scored on '{trait}' twice"


def _scored(table: Any, row: FurtherRow, header: RunHeader) -> Iterator[str]:
    missing = [trait for trait in row.traits if f"score.{trait}" not in table.column_names]
    if missing:
        yield f"has no column 'score.{missing[0]}'"
        return
    if set(table["generation"].to_pylist()) != {row.generation.id}:
        yield "its tokens are not together, or not in the order of the texts"
    if not np.array_equal(table["position"].to_numpy(), np.arange(row.n_tokens)):
        yield f"positions are not 0 to {row.n_tokens - 1}, each once"
    for trait in row.traits:
        score = tables.read_lists(table[f"score.{trait}"], len(header.sites))
        if not np.isfinite(score).all():
            yield f"a score on '{trait}' is not finite"


# --- tokens --------------------------------------------------------------------------------------


def _tokens(
    path: Path,
    header: RunHeader,
    name: str,
    done: list[GenerationRow],
    strings: dict[str, str],
) -> Iterator[Problem]:
    with tables.open_table(path / name) as file:
        table = file.read(use_threads=False)
    expected = tables.tokens_schema(len(header.sites), header.first_traits)
    missing = [n for n in expected.names if n not in table.column_names]
    if missing:
        yield Problem(name, f"has no column '{missing[0]}'")
        return
    n_tokens = sum(row.n_tokens for row in done)
    if len(table) != n_tokens:
        yield Problem(name, f"has {len(table)} tokens, expected {n_tokens}")
        return
    start = 0
    for row in done:
        one = table.slice(start, row.n_tokens)
        start += row.n_tokens
        for message in (*_text(one, row, strings[row.generation.id]), *_numbers(one, header)):
            yield Problem(name, f"{row.generation.id}: {message}")


def _text(table: Any, row: GenerationRow, text: str) -> Iterator[str]:
    if set(table["generation"].to_pylist()) != {row.generation.id}:
        yield "its tokens are not together, or not in the order of the generations"
    if not np.array_equal(table["position"].to_numpy(), np.arange(row.n_tokens)):
        yield f"positions are not 0 to {row.n_tokens - 1}, each once"
    tokens = tables.read_tokens(table, text)
    if not np.array_equal(tokens.part == "prompt", np.arange(row.n_tokens) < row.n_prompt):
        yield f"the prompt is not its first {row.n_prompt} tokens"
    if (tokens.start < 0).any() or (tokens.end < tokens.start).any():
        yield "a token ends before it starts"
    if (tokens.end > len(text)).any():
        yield "a token ends behind the end of the text"


def _numbers(table: Any, header: RunHeader) -> Iterator[str]:
    numbers = tables.read_numbers(table, len(header.sites), header.first_traits)
    if not (np.isfinite(numbers.score).all() and np.isfinite(numbers.norm).all()):
        yield "a score or norm is not finite"
    elif (np.abs(numbers.score) > numbers.norm[:, :, None] * (1 + NORM_SLACK)).any():
        yield "a score is larger than the norm of its state"
    if (numbers.logprob > NORM_SLACK).any():
        yield "a log probability is above 0"
