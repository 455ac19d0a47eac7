"""How many texts go at once when a suite leaves it open, and that going on keeps to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.runner.small import assert_same, small_suite
from traitscope import prepare
from traitscope.runner import run_suite
from traitscope.runs import Run
from traitscope.sizing import StepTimes

MANY = [f"Is {n} so?" for n in range(30)]


def header(home: Path, **changes: Any) -> Any:
    return Run.open(run_suite(small_suite(home, **changes)).path).header


def test_asked_rows_are_taken(home: Path) -> None:
    found = header(home, rows=3)
    assert (found.rows, found.sizing) == (3, {"limit": "asked"})


def test_few_texts_are_not_timed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "step_times", None)  # calling it would raise
    found = header(home, rows="auto")
    assert (found.rows, found.sizing) == (24, {"limit": "default"})


def test_many_texts_are(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times = StepTimes(1, 0.0101, 24, 0.0124)
    monkeypatch.setattr(prepare, "step_times", lambda *_: times)
    found = header(home, rows="auto", prompts={"asks": {"texts": MANY}})
    assert (found.rows, found.sizing["limit"]) == (30, "texts")
    assert found.sizing["steps"]["seconds_many"] == 0.0124


def test_memory_bounds_them_and_a_resumed_run_keeps_its_rows(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run_suite(small_suite(home, rows="auto"), out=Path("whole"))
    few = small_suite(home, rows="auto", prompts={"asks": {"texts": ["Is it so?"]}})
    with monkeypatch.context() as patch:
        patch.setattr(prepare, "memory_for_texts", lambda model: 1)
        first = run_suite(few)
    again = run_suite(small_suite(home, rows="auto"), out=first.path)
    run = Run.open(again.path)
    assert (run.header.rows, run.header.sizing["limit"]) == (1, "memory")
    assert_same(run, Run.open(whole.path))
