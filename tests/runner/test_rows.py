"""How many texts go at once when a suite leaves it open, and that going on keeps to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.runner.small import assert_same, small_suite
from traitscope import prepare
from traitscope.errors import Interrupted
from traitscope.planner import plan
from traitscope.runner import run_suite
from traitscope.runs import Run
from traitscope.sizing import StepTimes
from traitscope.ticks import Tick

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


# --- as planned ----------------------------------------------------------------------------------

FIRST, SECOND = StepTimes(1, 0.0101, 24, 0.0124), StepTimes(1, 0.005, 24, 0.05)


def planned(home: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> Any:
    """The plan of 30 texts; whatever is sized later is timed otherwise, at 24 rows."""
    monkeypatch.setenv("TRAITSCOPE_HOME", str(Path("cache").absolute()))
    monkeypatch.setattr(prepare, "step_times", lambda *_: FIRST)
    made = plan(many(home, **changes))
    monkeypatch.setattr(prepare, "step_times", lambda *_: SECOND)
    return made


def many(home: Path, **changes: Any) -> Any:
    return small_suite(home, **{"rows": "auto", "prompts": {"asks": {"texts": MANY}}, **changes})


def test_a_new_run_takes_the_rows_of_its_plan(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = planned(home, monkeypatch)
    assert (made.sizing.rows, made.sizing.limit) == (30, "texts")
    run = Run.open(run_suite(many(home)).path)
    assert (run.header.rows, run.header.sizing) == (30, made.sizing.to_dict())
    assert run.events()[-1]["planned"]["memory"] == made.expected.memory


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("traitscope.prepare.platform.node", "another"),
        ("traitscope.prepare.psutil.cpu_count", 1024),
        ("traitscope.prepare.torch.get_num_threads", 77),
        ("traitscope.prepare.all_memory", 5),
    ],
)
def test_a_plan_of_another_machine_does_not_decide(
    name: str, value: object, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned(home, monkeypatch)
    monkeypatch.setattr(name, lambda *_, **__: value)
    run = Run.open(run_suite(many(home)).path)
    assert (run.header.rows, run.header.sizing["limit"]) == (24, "default")
    assert "planned" not in run.events()[-1]


def test_a_plan_of_other_work_does_not_decide(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned(home, monkeypatch)
    other = many(home, keep=["1.post"])  # states take memory, and are in no key
    assert Run.open(run_suite(other).path).header.rows == 24


def test_rows_that_were_asked_for_are_not_a_plans_choice(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned(home, monkeypatch, rows=3)
    found = Run.open(run_suite(many(home)).path).header
    assert (found.rows, found.sizing["limit"]) == (24, "default")
    planned(home, monkeypatch)
    assert Run.open(run_suite(many(home, rows=5), fresh=True).path).header.rows == 5


def test_a_run_keeps_its_own_rows_whatever_a_plan_says(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(tick: Tick) -> None:
        if tick.phase == "generate":
            raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        run_suite(many(home, rows=2), progress=stop)
    made = planned(home, monkeypatch)
    assert (made.captures, made.sizing.rows) == (30, 2)
    # nor are they the plan's choice for a new one of the very same work
    monkeypatch.setattr(prepare, "step_times", lambda *_: FIRST)
    assert Run.open(run_suite(many(home), fresh=True).path).header.rows == 30
    assert Run.open(run_suite(many(home)).path).header.rows == 2


def test_rows_that_memory_has_no_room_for_any_more_are_chosen_anew(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned(home, monkeypatch)
    monkeypatch.setattr(prepare, "step_times", None)  # calling it would raise: they are the plan's
    monkeypatch.setattr(prepare, "memory_for_texts", lambda model: 1)
    found = Run.open(run_suite(many(home)).path).header
    assert (found.rows, found.sizing["limit"]) == (1, "memory")
