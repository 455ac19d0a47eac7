"""Killed while traits and states are added to a run: its texts stay, the rest is made again."""

from __future__ import annotations

import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest

from tests.crash.commit_loop import commit_missing, open_run
from tests.crash.test_kill import KILLED, Killer
from tests.runs.build import directions_of, generation, text_record
from tests.runs.test_further import ALL, further, states
from traitscope.runs import Run, RunWriter, verify

N_TEXTS = 1


def add(path: Path) -> None:
    """What is lacking, a text a part, as a second call after a kill does it."""
    with RunWriter.resume(path, Run.open(path).header) as writer:
        if "gamma" not in writer.header.trait_names:
            writer.add_traits({"gamma": directions_of("gamma")})
        run = Run.open(path)
        for number in range(N_TEXTS):
            name = generation(number)
            if name in run.unscored() or name in run.unkept(ALL):
                writer.commit([], states=[states(number, ALL)], further=[further(number, "gamma")])


def add_until_killed(path: Path, at: int, *, half: bool) -> int:
    with warnings.catch_warnings():  # newer Pythons warn of forks beside threads
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        status = 1
        try:
            Killer(at, half=half).arm()
            add(path)
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
@pytest.mark.parametrize("half", [False, True])
def test_killed_at_every_operation(tmp_path: Path, half: bool) -> None:
    whole = tmp_path / "whole"
    with open_run(whole, N_TEXTS) as writer:
        commit_missing(writer, N_TEXTS)
    for at in range(1000):
        path = shutil.copytree(whole, tmp_path / str(at))
        status = add_until_killed(path, at, half=half)
        assert [problem for problem in verify(path) if problem.kind == "damaged"] == []
        check(path, complete=status == 0)
        add(path)
        assert verify(path) == []
        check(path, complete=True)
        shutil.rmtree(path)
        if status == 0:
            break
        assert status == KILLED
    assert at > (8 if half else 20)  # the loop above did meet the operations of every phase


def check(path: Path, *, complete: bool) -> None:
    run = Run.open(path)
    for number in range(N_TEXTS):
        name, trace = generation(number), text_record(number).trace
        assert trace is not None
        score = run.text(name).score
        np.testing.assert_array_equal(score[:, :, :2], trace.score)
        if complete or ("gamma" in run.traits and name not in run.unscored()):
            np.testing.assert_array_equal(score[:, :, 2:], further(number, "gamma").score)
        if complete or name not in run.unkept(ALL):
            np.testing.assert_array_equal(run.states(name, "1.post"), states(number, ALL).h)
