"""RunWriter: the only thing that changes a run folder.

It holds the folder's lock, and commits parts: files first, then one manifest line, last and
synced.  What a kill left behind is removed on resume.  Speaks in TextRecord, Capture and
Internals; knows nothing of models or of why something is wanted.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from traitscope.core import (
    Capture,
    FurtherScores,
    Generation,
    Internals,
    KeptStates,
    Site,
    TextRecord,
    TraitDirections,
)
from traitscope.errors import RunError
from traitscope.runs import check, tensors
from traitscope.runs.files import (
    TEMPORARY,
    FileEntry,
    Lock,
    append,
    publish,
    read_bytes,
    sha256,
    stage,
    sync,
    sync_folder,
    write_atomic,
)
from traitscope.runs.folder import (
    EVENTS,
    FOLDERS,
    MANIFEST,
    check_committed,
    check_new,
    cut_torn,
    disk,
    remove_leftovers,
    write_directions,
)
from traitscope.runs.further import FurtherRow, further_bytes
from traitscope.runs.header import (
    FORMAT_VERSION,
    HEADER_NAME,
    RunHeader,
    differences,
    installed_version,
    read_header,
    resumed,
)
from traitscope.runs.index import Index, read_index
from traitscope.runs.lines import FIRST, Manifest, PartEntry, now, parse_manifest, seal, seal_part
from traitscope.runs.states import states_bytes, states_name
from traitscope.runs.tables import (
    CaptureRow,
    GenerationRow,
    captures_bytes,
    generations_bytes,
    tokens_bytes,
)

__all__ = ["RunWriter"]

Contents = Mapping[str, tuple[memoryview | bytes, int]]  # file name -> its bytes and rows


class RunWriter:
    """Writes one run; make it with `create` or `resume`, use it as a context manager.

    `header` is the header as it stands in run.json, with the recorded rows and join rule.
    `commit` and `event` may be called from several threads.
    """

    def __init__(
        self, path: Path, header: RunHeader, lock: Lock, manifest: Manifest, index: Index
    ) -> None:
        """Not for callers: `create` and `resume` prepare the folder."""
        self.path = path
        self.header = header
        self.sites = tuple(Site.parse(name) for name in header.sites)
        self.traits = header.first_traits
        self._lock = lock
        self._index = index
        self._n_parts = manifest.parts[-1].number if manifest.parts else 0
        self._last = manifest.last
        self._turn = threading.Lock()
        self._manifest: IO[bytes] = open(path / MANIFEST, "ab", buffering=0)  # noqa: SIM115
        self._events: IO[bytes] = open(path / EVENTS, "ab", buffering=0)  # noqa: SIM115

    @classmethod
    def create(
        cls, path: str | Path, header: RunHeader, directions: Mapping[str, TraitDirections]
    ) -> RunWriter:
        """A new run folder at `path` (new, empty, or left by a kill during creation).

        `header.traits` is filled in from `directions`, in their order.  run.json comes last: a
        folder without it is no run.  RunError where there is a run or anything else already.
        """
        path = Path(path)
        with disk(path, "no run was made"), ExitStack() as on_failure:
            if path.is_dir():
                check_new(path)  # before anything is put into what is somebody else's
            for name in FOLDERS:
                (path / name).mkdir(parents=True, exist_ok=True)
            lock = Lock(path)
            on_failure.callback(lock.close)
            check_new(path)
            header = replace(header, traits=tuple(write_directions(path, header, directions)))
            for name in (MANIFEST, EVENTS):
                (path / name).write_bytes(b"")
            sync_folder(path)
            write_atomic(path / HEADER_NAME, header.to_bytes())
            writer = cls(path, header, lock, Manifest((), FIRST, 0, 0), Index())
            on_failure.callback(writer.close)
            writer._opened("created")
            on_failure.pop_all()
        return writer

    @classmethod
    def resume(cls, path: str | Path, header: RunHeader) -> RunWriter:
        """An existing run, made ready to go on; run.json gets the new suite and captures.

        RunError where `header` describes other numbers (each difference is named), where the run
        is damaged, or where another process writes to it.
        """
        path = Path(path)
        there = read_header(path)
        different = differences(there, header)
        if different:
            raise RunError(
                f"Expected the run in {path} to be of the same model, traits and settings, but: "
                f"{'; '.join(different)}. Choose another folder, or start a new one with --fresh."
            )
        with disk(path, "what was committed is whole"), ExitStack() as on_failure:
            lock = Lock(path)
            on_failure.callback(lock.close)
            header = resumed(read_header(path), header)
            manifest = parse_manifest(read_bytes(path / MANIFEST), path / MANIFEST)
            check_committed(path, manifest)
            index = read_index(path, manifest.parts)
            torn = cut_torn(path / MANIFEST) + cut_torn(path / EVENTS)
            removed = remove_leftovers(path, manifest, header)
            for name in FOLDERS:  # a run of an older version may lack one
                (path / name).mkdir(exist_ok=True)
            write_atomic(path / HEADER_NAME, header.to_bytes())
            writer = cls(path, header, lock, manifest, index)
            on_failure.callback(writer.close)
            writer._opened("resumed", parts=len(manifest.parts), torn_bytes=torn, removed=removed)
            on_failure.pop_all()
        return writer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the folder back; nothing is written."""
        self._manifest.close()
        self._events.close()
        self._lock.close()

    # --- what is there ---------------------------------------------------------------------------

    def done_generations(self) -> set[Generation]:
        return {g for g, row in self._index.generations.items() if row.status == "done"}

    def failed_generations(self) -> set[Generation]:
        """Texts whose last outcome is a failure; they may be committed again."""
        return {g for g, row in self._index.generations.items() if row.status == "failed"}

    def done_captures(self) -> set[Capture]:
        return {c for c, row in self._index.captures.items() if row.status == "done"}

    # --- writing ---------------------------------------------------------------------------------

    def add_traits(self, directions: Mapping[str, TraitDirections]) -> None:
        """Make further traits part of the run; their scores are committed as `further`.

        The files come first, then run.json: what a kill leaves between is a left-over.
        ValueError for a trait that the run has.
        """
        with self._turn, disk(self.path / HEADER_NAME, self._kept()):
            if directions.keys() & set(self.header.trait_names):
                raise ValueError(f"expected new traits, got {', '.join(directions)}")
            entries = write_directions(self.path, self.header, directions)
            traits = (*self.header.traits, *({**entry, "table": "scores"} for entry in entries))
            header = replace(self.header, traits=traits, format_version=FORMAT_VERSION)
            write_atomic(self.path / HEADER_NAME, header.to_bytes())
            self.header = header

    def commit(
        self,
        texts: Sequence[TextRecord],
        captures: Sequence[Capture] = (),
        internals: Sequence[Internals] = (),
        failed: Mapping[Capture, str] | None = None,
        states: Sequence[KeptStates] = (),
        further: Sequence[FurtherScores] = (),
    ) -> int:
        """Make texts, captures, internals, states and further scores part of the run, all or
        nothing.

        Returns the part's number; with nothing to commit, the last part's.  A text whose numbers
        are not finite is recorded as failed with that reason; a capture of a failed text is
        recorded as failed; `failed` records further captures that failed, with the reason.
        Internals, states and further scores that are committed already are not written again.
        ValueError where something is done already or a capture has no text.  MachineError on a
        full disk: the run stays whole and open, and the same commit may be tried again.
        """
        with self._turn:
            texts = [check.finite(record) for record in texts]
            outcomes = check.outcomes(self._index, texts, captures, failed or {})
            internals = check.new_internals(self._index, texts, internals, self.traits)
            for record in texts:
                check.shapes(record, len(self.sites), len(self.traits))
            states = check.new_states(self._index, texts, states, self.header.sites)
            further = check.new_further(self._index, further, self.header)
            if not (texts or outcomes or internals or states or further):
                return self._n_parts
            number = self._n_parts + 1
            contents = _contents(self, number, texts, outcomes, internals)
            contents |= _additions(self, number, states, further)
            with disk(f"part {number:05d} of {self.path}", self._kept()):
                part = self._commit(number, contents)
            scored = [FurtherRow(item.generation, len(item.score), item.traits) for item in further]
            caps = [_row(capture, error) for capture, error in outcomes.items()]
            self._index.add(part, _rows(texts), caps, scored)
            return number

    def event(self, kind: str, **fields: object) -> None:
        """Append one line to events.jsonl; not synced: events are a log, not results."""
        line = seal({"time": now(), "kind": kind, **fields})
        with self._turn, disk(self.path / EVENTS, self._kept()):
            append(self._events, line, durable=False)

    def _commit(self, number: int, contents: Contents) -> PartEntry:
        """Files, then the line; undone in the opposite order: no line may outlive its files."""
        paths = [self.path / name for name in contents]
        entries = tuple(
            FileEntry(name, len(data), sha256(data), rows)
            for name, (data, rows) in contents.items()
        )
        before = os.fstat(self._manifest.fileno()).st_size
        committed = False
        try:
            for path, (data, _) in zip(paths, contents.values(), strict=True):
                stage(path, data)
            publish(paths)
            line, part, last = seal_part(number, entries, self._last)
            append(self._manifest, line, durable=True)
            committed = True
        finally:
            if not committed:
                self._undo(before, paths)
        self._n_parts, self._last = number, last
        return part

    def _undo(self, size: int, paths: Sequence[Path]) -> None:
        if os.fstat(self._manifest.fileno()).st_size > size:
            os.ftruncate(self._manifest.fileno(), size)
            sync(self._manifest)
        for path in paths:
            path.with_name(path.name + TEMPORARY).unlink(missing_ok=True)
            path.unlink(missing_ok=True)

    def _kept(self) -> str:
        n = self._n_parts
        return f"{n} part{'' if n == 1 else 's'} committed before {'is' if n == 1 else 'are'} whole"

    def _opened(self, kind: str, **fields: object) -> None:
        if not self._lock.held:
            fields["lock"] = "this file system has no locks: a second writer would not be noticed"
        self.event(kind, traitscope=installed_version(), pid=os.getpid(), **fields)


# --- parts ---------------------------------------------------------------------------------------


def _contents(
    writer: RunWriter,
    number: int,
    texts: Sequence[TextRecord],
    outcomes: Mapping[Capture, str],
    internals: Sequence[Internals],
) -> dict[str, tuple[memoryview | bytes, int]]:
    """The files of a part; a table without rows is not written."""
    stem = f"parts/{number:05d}"
    done = [record for record in texts if record.trace is not None]
    files: dict[str, tuple[memoryview | bytes, int]] = {}
    if done:
        files[f"{stem}.tokens.parquet"] = tokens_bytes(done, len(writer.sites), writer.traits)
    if texts:
        files[f"{stem}.generations.parquet"] = generations_bytes(texts)
    if outcomes:
        files[f"{stem}.captures.parquet"] = captures_bytes(outcomes)
    for item in internals:
        name = f"internals/{tensors.internals_name(item.generation, item.block)}"
        files[name] = tensors.internals_bytes(item), 1
    return files


def _additions(
    writer: RunWriter,
    number: int,
    states: Sequence[KeptStates],
    further: Sequence[FurtherScores],
) -> Contents:
    """The files of what is kept beside texts, of this part or of earlier ones."""
    files: dict[str, tuple[memoryview | bytes, int]] = {
        states_name(item.generation, item.keep): (states_bytes(item), len(item.h))
        for item in states
    }
    if further:
        for table, contents in further_bytes(further, len(writer.sites)).items():
            files[f"parts/{number:05d}.{table}.parquet"] = contents
    return files


def _rows(texts: Sequence[TextRecord]) -> list[GenerationRow]:
    return [
        GenerationRow(
            generation=record.generation,
            prompt=record.prompt,
            response=record.response,
            n_prompt=record.trace.n_prompt if record.trace else 0,
            n_tokens=len(record.trace.token_ids) if record.trace else 0,
            finish=record.trace.finish if record.trace else None,
            seconds=record.trace.seconds if record.trace else None,
            status=record.status,
            error=record.error,
        )
        for record in texts
    ]


def _row(capture: Capture, error: str) -> CaptureRow:
    return CaptureRow(capture, "failed" if error else "done", error)
