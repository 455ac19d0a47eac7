"""What a writer takes, refuses and keeps; who may write; what a full disk does."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.runs.build import (
    TRAITS,
    capture,
    directions,
    directions_of,
    failed_record,
    generation,
    header_of,
    internals_of,
    text_record,
)
from traitscope.core import Capture
from traitscope.errors import MachineError, RunError
from traitscope.runs import Run, RunWriter, files, verify


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with RunWriter.create(tmp_path / "run", header_of(), directions()) as writer:
        assert writer.commit([text_record(0), failed_record(1)], [capture(0), capture(1)]) == 1
    return tmp_path / "run"


# --- what is done --------------------------------------------------------------------------------


def test_doneness_survives_a_resume(path: Path) -> None:
    with RunWriter.resume(path, header_of()) as writer:
        assert writer.done_generations() == {generation(0)}
        assert writer.failed_generations() == {generation(1)}
        assert writer.done_captures() == {capture(0)}
        assert writer.traits == TRAITS
        assert writer.commit([text_record(1)], [capture(1)]) == 2
        assert writer.failed_generations() == set()
        assert writer.done_captures() == {capture(0), capture(1)}
    assert [row.status for row in Run.open(path).generations()] == ["done", "done"]
    assert verify(path) == []


def test_an_empty_commit_writes_nothing(path: Path) -> None:
    with RunWriter.resume(path, header_of()) as writer:
        assert writer.commit([], []) == 1
    assert len((path / "manifest.jsonl").read_bytes().splitlines()) == 1


def test_state_and_missing(path: Path) -> None:
    run = Run.open(path)
    assert run.state == "unfinished"
    assert run.missing() == [capture(2), capture(3)]
    with RunWriter.resume(path, header_of()) as writer:
        writer.commit([text_record(2)], [capture(2)], failed={})
        inside = Capture(generation(2), "inside", "internals")
        writer.commit([text_record(3)], [capture(3)], failed={inside: "Expected room, got none."})
        assert inside not in writer.done_captures()
    run = Run.open(path)
    assert (run.state, run.missing()) == ("complete", [])
    assert [(row.status, row.error) for row in run.captures()][-1] == (
        "failed",
        "Expected room, got none.",
    )


def test_prompts_come_and_go(path: Path) -> None:
    fewer = replace(header_of([3, 2]), suite={"name": "tiny", "prompts": {}})
    with RunWriter.resume(path, replace(fewer, rows=64, join=9)) as writer:
        assert (writer.header.rows, writer.header.join) == (2, 1)
    run = Run.open(path)
    assert run.missing() == [capture(3), capture(2)]
    assert run.header.suite == fewer.suite
    assert {row.in_suite for row in run.generations()} == {False}
    assert {row.in_suite for row in run.captures()} == {False}
    with RunWriter.resume(path, header_of([2, 0])) as writer:
        writer.commit([text_record(2)], [capture(2)])
    order = [(row.generation, row.in_suite) for row in Run.open(path).generations()]
    assert order == [(generation(2), True), (generation(0), True), (generation(1), False)]


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([text_record(0)], []), "committed already"),
        (([text_record(2), text_record(2)], []), "every text once"),
        (([], [capture(0)]), "committed already"),
        (([], [capture(2)]), "has no text"),
        (([text_record(2)], [capture(2), capture(2)]), "every capture once"),
        (([], [], [internals_of(text_record(2))]), "have no text"),
        (([], [], [replace(internals_of(text_record(0)), traits=())]), "expected internals of"),
        (([replace(text_record(2), tokens=None)], []), "or neither and an error"),
    ],
)
def test_mistakes_change_nothing(path: Path, arguments: tuple, message: str) -> None:
    before = (path / "manifest.jsonl").read_bytes()
    with RunWriter.resume(path, header_of()) as writer:
        with pytest.raises(ValueError, match=message):
            writer.commit(*arguments)
        assert writer.commit([text_record(3)], [capture(3)]) == 2
    assert (path / "manifest.jsonl").read_bytes().startswith(before)
    assert verify(path) == []


@pytest.mark.parametrize("field", ["score", "norm", "logprob"])
def test_wrong_shapes_are_refused(path: Path, field: str) -> None:
    record = text_record(2)
    assert record.trace is not None
    short = replace(record.trace, **{field: getattr(record.trace, field)[:-1]})  # type: ignore[arg-type]  # any
    with RunWriter.resume(path, header_of()) as writer, pytest.raises(ValueError, match=field):
        writer.commit([replace(record, trace=short)], [])


def test_numbers_that_are_not_finite_are_a_recorded_failure(path: Path) -> None:
    record = text_record(2)
    assert record.trace is not None
    record.trace.score[3, 1, 0] = np.inf
    with RunWriter.resume(path, header_of()) as writer:
        writer.commit([record, text_record(3)], [capture(2), capture(3)], [internals_of(record)])
        assert writer.failed_generations() == {generation(1), generation(2)}
    run = Run.open(path)
    row = next(row for row in run.generations() if row.generation == generation(2))
    assert "position 3, site number 1" in row.error
    assert run.internal_blocks(generation(2)) == []
    assert verify(path) == []


def test_another_suite_is_refused_with_the_differences(path: Path) -> None:
    other = replace(
        header_of(key="ffffffff"),
        generation={"max_new_tokens": 50, "temperature": 0.0, "seed": 0},
        model={"name": "made-up", "fingerprint": "ee11", "dtype": "float32"},
        traits=({"name": "alpha", "hash": directions_of("alpha", seed=1).hash, "file": ""},),
    )
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    with pytest.raises(RunError) as caught:
        RunWriter.resume(path, other)
    for difference in (
        "key: there 0123abcd, here ffffffff",
        "model.fingerprint: there ff00, here ee11",
        "generation.temperature: there 0.7, here 0.0",
        "traits: there alpha, beta, here alpha",
        "direction of alpha: there ",
    ):
        assert difference in str(caught.value)
    assert "sites" not in str(caught.value)
    assert before == {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_create_refuses_what_is_not_new(path: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is a run already"):
        RunWriter.create(path, header_of(), directions())
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").touch()
    with pytest.raises(RunError, match=r"holds 'chapter1\.tex'"):
        RunWriter.create(tmp_path / "thesis", header_of(), directions())
    left = [entry.name for entry in (tmp_path / "thesis").iterdir()]
    assert left == ["chapter1.tex"], "a folder that is refused stays as it was"
    with pytest.raises(RunError, match="Expected a run folder"):
        RunWriter.resume(tmp_path / "thesis", header_of())


def test_directions_of_other_sites_are_refused(tmp_path: Path) -> None:
    fewer = replace(header_of(), sites=("embed", "0.post"))
    with pytest.raises(ValueError, match="are for sites"):
        RunWriter.create(tmp_path / "run", fewer, directions())
    with RunWriter.create(tmp_path / "run", header_of(), directions()):  # and it is not locked
        pass


# --- the lock ------------------------------------------------------------------------------------


def test_a_second_writer_is_refused_by_name(path: Path) -> None:
    with RunWriter.resume(path, header_of()) as writer:
        with pytest.raises(RunError, match=f"but process {os.getpid()} on .* is writing to it"):
            RunWriter.resume(path, header_of())
        writer.commit([text_record(2)], [])
        assert len(Run.open(path).generations()) == 3  # readers are not locked out
    with RunWriter.resume(path, header_of()):
        pass


def test_the_lock_of_a_killed_process_is_free(path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from traitscope.runs.files import Lock;"
        "Lock(Path(sys.argv[1])); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    with RunWriter.resume(path, header_of()):
        pass


def test_no_locks_here(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(file: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(files, "_lock", no_locks)
    with RunWriter.resume(path, header_of()) as writer:
        writer.commit([text_record(2)], [])
    assert "no locks" in Run.open(path).events()[-1]["lock"]


# --- a full disk ---------------------------------------------------------------------------------


def full_after(n_bytes: int, number: int = errno.ENOSPC) -> Callable[..., None]:
    """A `write_all` for a disk with room for so many bytes."""
    real = files.write_all
    left = [n_bytes]

    def write_all(file: object, data: bytes | memoryview) -> None:
        room = min(left[0], len(data))
        left[0] -= room
        real(file, memoryview(data)[:room])  # type: ignore[arg-type]  # passed on
        if room < len(data):
            raise OSError(number, os.strerror(number))

    return write_all


def sizes_of_a_commit(path: Path) -> list[int]:
    """Bytes of each file and of the manifest's line of a second part, in the order written."""
    with RunWriter.resume(path, header_of()) as writer:
        writer.commit([text_record(2)], [capture(2)], [internals_of(text_record(2))])
    line = (path / "manifest.jsonl").read_bytes().splitlines(keepends=True)[-1]
    return [entry["bytes"] for entry in json.loads(line)["files"]] + [len(line)]


def test_a_full_disk_keeps_the_run_whole(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = sizes_of_a_commit(shutil.copytree(path, tmp_path / "other"))
    ends = [sum(sizes[:i]) for i in range(len(sizes) + 1)]
    rooms = [0, *(end + step for end in ends[1:] for step in (-1, 0, 1)), ends[-2] + 100]
    before = (path / "manifest.jsonl").read_bytes()
    commit = [text_record(2)], [capture(2)], [internals_of(text_record(2))]
    with RunWriter.resume(path, header_of()) as writer:
        names = sorted(path.rglob("*"))
        for room in [room for room in rooms if room < ends[-1] - 1]:
            with monkeypatch.context() as patch:
                patch.setattr(files, "write_all", full_after(room))
                with pytest.raises(MachineError, match=r"part 00002 of .* 'No space .* 1 part com"):
                    writer.commit(*commit)
            assert sorted(path.rglob("*")) == names, room
            assert (path / "manifest.jsonl").read_bytes() == before
            assert verify(path) == []
        assert writer.commit(*commit) == 2  # there is room again
    assert verify(path) == []
    assert Run.open(path).text(generation(2)).tokens.text == "<s>Héllo?Yes."


def test_a_full_disk_during_an_event(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with RunWriter.resume(path, header_of()) as writer:
        before = (path / "events.jsonl").read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr(files, "write_all", full_after(10, errno.EDQUOT))
            with pytest.raises(MachineError, match="events"):
                writer.event("batch", rows=3)
        assert (path / "events.jsonl").read_bytes() == before
        writer.event("batch", rows=3)
    assert Run.open(path).events()[-1].items() >= {"kind": "batch", "rows": 3}.items()
    assert verify(path) == []


def test_a_full_disk_at_creation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for room in (0, 500, 1500, 2100):
        with monkeypatch.context() as patch:
            patch.setattr(files, "write_all", full_after(room))
            with pytest.raises(MachineError, match="no run was made"):
                RunWriter.create(tmp_path / "run", header_of(), directions())
    with RunWriter.create(tmp_path / "run", header_of(), directions()):
        pass
    assert verify(tmp_path / "run") == []


def test_a_folder_that_cannot_be_written(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with RunWriter.resume(path, header_of()) as writer, monkeypatch.context() as patch:
        patch.setattr(files, "write_all", full_after(0, errno.EROFS))
        with pytest.raises(RunError, match="Read-only file system"):
            writer.commit([text_record(2)], [])
    with pytest.raises(RunError, match="Not a directory"):
        RunWriter.create(path / "run.json", header_of(), directions())


def test_the_line_is_written_last_and_everything_is_synced(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def note(name: str, real: Callable[..., object]) -> Callable[..., object]:
        def noting(*arguments: object) -> object:
            target = getattr(arguments[0], "name", arguments[0])
            seen.append(f"{name} {Path(str(target)).name}")
            return real(*arguments)

        return noting

    with RunWriter.resume(path, header_of()) as writer, monkeypatch.context() as patch:
        for name in ("write_all", "sync", "sync_folder"):
            patch.setattr(files, name, note(name, getattr(files, name)))
        patch.setattr(os, "replace", note("replace", os.replace))
        writer.commit([failed_record(2)], [])
    assert seen == [
        "write_all 00002.generations.parquet.tmp",
        "sync 00002.generations.parquet.tmp",
        "replace 00002.generations.parquet.tmp",
        "sync_folder parts",
        "write_all manifest.jsonl",
        "sync manifest.jsonl",
    ]
