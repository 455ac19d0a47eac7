"""Killed anywhere: what was committed is whole, a resume does the rest, nothing is doubled."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.crash.commit_loop import commit_missing, open_run
from tests.runs.build import generation, text_record
from traitscope.errors import RunError
from traitscope.runs import Run, files, verify

N_TEXTS = 2  # the first with internals
ROOT = Path(__file__).parents[2]
KILLED = 99


def check_whole(path: Path, numbers: set[int]) -> None:
    """Exactly these texts are there, once, with their own numbers; no record is damaged."""
    run = Run.open(path)
    rows = run.generations()
    assert sorted(row.generation for row in rows) == sorted(map(generation, numbers))
    for number in numbers:
        trace = text_record(number).trace
        assert trace is not None
        np.testing.assert_array_equal(run.text(generation(number)).score, trace.score)
    assert [problem for problem in verify(path) if problem.kind == "damaged"] == []


def check_resumes(path: Path, n_texts: int) -> None:
    with open_run(path, n_texts) as writer:
        commit_missing(writer, n_texts)
    check_whole(path, set(range(n_texts)))
    assert verify(path) == []
    assert Run.open(path).state == "complete"


# --- at every single step that touches the disk --------------------------------------------------


class Killer:
    """Ends the process without ceremony at the n-th operation on the disk.

    Before it, or (`half`) in the middle where it is a write; then only writes count.
    """

    def __init__(self, at: int, *, half: bool) -> None:
        self.left, self.half = at, half

    def arm(self) -> None:
        files.write_all = self.write_all(files.write_all)  # type: ignore[assignment]  # a function in a module's place
        if self.half:
            return
        for owner, name in ((files, "sync"), (files, "sync_folder"), (os, "replace")):
            setattr(owner, name, self.before(getattr(owner, name)))
        for name in ("unlink", "mkdir"):
            setattr(Path, name, self.before(getattr(Path, name)))

    def due(self) -> bool:
        self.left -= 1
        return self.left < 0

    def before(self, real: Callable[..., object]) -> Callable[..., object]:
        def operation(*arguments: object, **named: object) -> object:
            if self.due():
                os._exit(KILLED)
            return real(*arguments, **named)

        return operation

    def write_all(self, real: Callable[..., None]) -> Callable[..., None]:
        def write(file: object, data: bytes) -> None:
            if self.due():
                if self.half:
                    real(file, memoryview(data)[: len(data) // 2])
                os._exit(KILLED)
            real(file, data)

        return write


def run_until_killed(path: Path, at: int, *, half: bool) -> tuple[int, set[int]]:
    """In a forked process; its exit status, and the texts whose commit it saw return."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():  # newer Pythons warn of forks beside threads
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        status = 1
        try:
            Killer(at, half=half).arm()
            with open_run(path, N_TEXTS) as writer:
                for number in range(N_TEXTS):
                    commit_missing(writer, number + 1)
                    os.write(writing, bytes([number]))
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    with open(reading, "rb") as pipe:
        returned = set(pipe.read())
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), returned


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
@pytest.mark.parametrize("half", [False, True])
def test_killed_at_every_operation(tmp_path: Path, half: bool) -> None:
    for at in range(10_000):
        path = tmp_path / str(at)
        status, returned = run_until_killed(path, at, half=half)
        if (path / "run.json").exists():
            committed = {
                number
                for number in range(N_TEXTS)
                if generation(number) in {row.generation for row in Run.open(path).generations()}
            }
            assert returned <= committed <= returned | {len(returned)}
            check_whole(path, committed)
        else:
            assert not returned
        check_resumes(path, N_TEXTS)
        if status == 0:
            break
        assert status == KILLED
    assert at > (12 if half else 30)  # the loop above did meet the operations of every phase


def test_killed_again_and_again(tmp_path: Path) -> None:
    """One run, killed at each later operation in turn, also while it cleans up after a kill."""
    path = tmp_path / "run"
    for at in range(0, 10_000, 2):
        status, _ = run_until_killed(path, at, half=False)
        if status == 0:
            break
    check_resumes(path, N_TEXTS)
    kinds = [event["kind"] for event in Run.open(path).events()]
    assert kinds.count("created") <= 1
    assert "resumed" in kinds


# --- at random times, by the kernel --------------------------------------------------------------


def test_killed_at_random_times(tmp_path: Path) -> None:
    path, n_texts = tmp_path / "run", 400
    rng = random.Random(int.from_bytes(os.urandom(4)))
    command = [sys.executable, "-m", "tests.crash.commit_loop", str(path), str(n_texts)]
    done = 0
    for _ in range(4):
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            for _ in range(done + rng.randrange(2, 12)):
                child.stdout.readline()
            time.sleep(rng.uniform(0, 0.02))
            child.send_signal(signal.SIGKILL)
            said = child.stdout.read().split()
        committed = len(Run.open(path).generations())
        assert committed >= done + (int(said[-1]) + 1 - done if said else 2)
        check_whole(path, set(range(committed)))
        done = committed
    check_resumes(path, done + 2)


def test_reading_while_writing(tmp_path: Path) -> None:
    """A reader sees whole texts only, and never fewer than before."""
    path, n_texts = tmp_path / "run", 40
    writer = open_run(path, n_texts)
    ends = threading.Event()

    def write() -> None:
        commit_missing(writer, n_texts)
        ends.set()

    thread = threading.Thread(target=write)
    thread.start()
    seen = 0
    try:
        while not ends.is_set():
            run = Run.open(path)
            rows = run.generations()
            assert len(rows) >= seen
            seen = len(rows)
            for row in rows[-2:]:
                assert len(run.text(row.generation).score) == row.n_tokens
            assert run.state == ("complete" if seen == n_texts else "unfinished")
            with pytest.raises(RunError, match="only writer"):
                open_run(path, n_texts)
    finally:
        thread.join()
        writer.close()
    check_whole(path, set(range(n_texts)))
