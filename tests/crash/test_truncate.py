"""Files that end too early, as after a power cut: the whole lines count, the rest is made again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.crash.commit_loop import commit_missing, open_run
from tests.runs.build import generation, header_of
from traitscope.errors import RunError, TraitError
from traitscope.runs import Run, RunWriter, verify
from traitscope.runs.lines import parse_manifest

N_TEXTS = 4


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "run"
    with open_run(path, N_TEXTS) as writer:
        commit_missing(writer, N_TEXTS)
    return path


@pytest.fixture
def path(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "run")


def line_ends(data: bytes) -> list[int]:
    return [i + 1 for i, byte in enumerate(data) if byte == ord("\n")]


def test_the_manifest_cut_at_every_byte_reads(path: Path) -> None:
    file = path / "manifest.jsonl"
    data = file.read_bytes()
    ends = line_ends(data)
    for length in range(len(data) + 1):
        committed = sum(end <= length for end in ends)
        assert len(parse_manifest(data[:length], file).parts) == committed, length
        if length % 97 == 0:
            file.write_bytes(data[:length])
            assert [row.generation for row in Run.open(path).generations()] == [
                generation(number) for number in range(committed)
            ]


def interesting(data: bytes) -> list[int]:
    near = {end + step for end in [0, *line_ends(data)] for step in (-66, -1, 0, 1, 2)}
    return sorted(n for n in near | set(range(0, len(data), 307)) if 0 <= n <= len(data))


@pytest.mark.parametrize("tail", [b"", b"\0" * 64, b'\0\0"}\n'], ids=["", "nul", "nul-line"])
def test_the_manifest_cut_resumes(whole: Path, tmp_path: Path, tail: bytes) -> None:
    data = (whole / "manifest.jsonl").read_bytes()
    for length in interesting(data):
        path = shutil.copytree(whole, tmp_path / str(length))
        (path / "manifest.jsonl").write_bytes(data[:length] + tail)
        committed = sum(end <= length for end in line_ends(data))
        with open_run(path, N_TEXTS) as writer:
            assert writer.done_generations() == {generation(n) for n in range(committed)}
            left = {file.name.split(".")[0] for file in (path / "parts").iterdir()}
            assert left == {f"{number + 1:05d}" for number in range(committed)}
            commit_missing(writer, N_TEXTS)
        assert verify(path) == []
        run = Run.open(path)
        assert run.state == "complete"
        assert len(run.generations()) == len(run._index.captures) == N_TEXTS
        shutil.rmtree(path)


def test_the_events_cut_at_every_byte(path: Path) -> None:
    file = path / "events.jsonl"
    data = file.read_bytes()
    run = Run.open(path)
    for length in range(len(data) + 1):
        file.write_bytes(data[:length])
        assert len(run.events()) == sum(end <= length for end in line_ends(data))
    for length in interesting(data):
        file.write_bytes(data[:length])
        with RunWriter.resume(path, header_of(range(N_TEXTS))):
            pass
        assert verify(path) == []


def test_any_other_file_cut_is_refused_and_said(path: Path) -> None:
    others = [file for file in path.rglob("*.*") if file.is_file() and file.suffix != ".jsonl"]
    for file in others:
        data = file.read_bytes()
        for length in (0, 1, 4, 8, 100, len(data) // 2, len(data) - 4, len(data) - 1):
            file.write_bytes(data[:length])
            name = file.relative_to(path).as_posix()
            assert (name, "damaged") in {(p.file, p.kind) for p in verify(path)}
            if file.parent.name != "directions":
                with pytest.raises(RunError, match=file.name.replace(".", r"\.")):
                    RunWriter.resume(path, header_of(range(N_TEXTS)))
            else:
                with pytest.raises(TraitError, match=r"does not|damaged"):
                    Run.open(path).directions[file.stem]
        file.write_bytes(data)
    assert verify(path) == []
