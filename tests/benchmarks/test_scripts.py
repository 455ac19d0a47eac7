"""Every benchmark runs to its end with tiny shapes, and never times a wrong answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from benchmarks import common, gpu, mixed, ours, plain, slices, suite, tables, targets
from benchmarks.common import Busy, Contestant, Options, Table, Took
from benchmarks.ending import Ending
from benchmarks.peers.client import Worker
from benchmarks.shapes import SHAPES, build, prompts, wrapped
from traitscope.engine import Batching

ROOT = Path(__file__).parents[2]
SCRIPTS = ("suite", "mixed", "replay", "traits", "kinds", "memory", "gpu", "start")
ASKED = Options(quick=True, rounds=2, threads=1, lock=None, out=None, no_peers=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_the_quick_run_prints_tables_and_one_json_line_last(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", f"benchmarks.{name}", "--quick", "--no-peers"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    result = json.loads(lines[-1])
    assert result == json.loads((tmp_path / f"{name}.json").read_text())
    assert result["benchmark"] == name and result["machine"]["versions"]["torch"]
    assert all(table["title"] and table["rows"] for table in result["tables"])
    assert any(line.startswith("| ") for line in lines)
    if name == "gpu":
        assert set(result["figures"]["tiny"]["1 row"]["times the floor"]) >= {gpu.BASE, "ours"}


def test_targets_of_a_gpu_are_of_its_table() -> None:
    """The parts of what `gpu` writes, by the names that it writes."""
    paths = {target.path for target in targets.TARGETS if target.path[0] == "gpu"}
    assert {path[-1] for path in paths} == {"ours", gpu.COMPILED}
    assert {path[1] for path in paths} <= set(SHAPES)
    assert {path[2] for path in paths} == {"1 row", "24 rows"}


def test_every_script_is_in_the_makefile() -> None:
    assert f"BENCHMARKS := {' '.join(SCRIPTS)}\n" in (ROOT / "Makefile").read_text()


def test_a_ratio_is_paired_by_round() -> None:
    times = {"a": [Took(1, 1), Took(10, 10)], "b": [Took(2, 1), Took(20, 10)]}
    found = common.ratio(times, "b", "a")
    assert (found.median, found.low, found.high, found.cpu) == (2, 2, 2, 1)


def test_contestants_take_turns() -> None:
    order: list[str] = []

    def turn(name: str) -> Took:
        order.append(name)
        return Took(1, 1)

    contestants = [Contestant(name, lambda name=name: turn(name)) for name in "ab"]
    times = common.rounds(contestants, ASKED)
    assert order == ["a", "b", "a", "b"] and [len(took) for took in times.values()] == [2, 2]


def test_a_turn_on_a_busy_machine_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    shares = iter([0.5, 0.0, 0.4, 0.0, 0.0])  # busy before; quiet, then busy; quiet throughout
    turns: list[int] = []

    def share(work: object, own: object = None) -> float:
        if own is not None:
            work()  # type: ignore[operator]  # given as an object
        return next(shares)

    def turn() -> Took:
        turns.append(1)
        return Took(len(turns), 1)

    monkeypatch.setattr(common, "share_of_others", share)
    monkeypatch.setattr(common.time, "sleep", lambda seconds: None)
    asked = Options(quick=False, rounds=1, threads=1, lock=None, out=None)
    assert common.rounds([Contestant("a", turn)], asked) == {"a": [Took(2, 1)]}


def test_a_machine_that_stays_busy_is_not_measured_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common, "share_of_others", lambda work, own=None: 0.5)
    monkeypatch.setattr(common.time, "sleep", lambda seconds: None)
    asked = Options(quick=False, rounds=1, threads=1, lock=None, out=None, patience=0.001)
    with pytest.raises(Busy, match="others took 50%"):
        common.rounds([Contestant("a", lambda: Took(1, 1))], asked)


def test_what_a_turn_does_not_time_is_not_somebody_elses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process times its load alone; its imports are its own all the same."""
    monkeypatch.setattr(common, "busy_seconds", common._spent)
    spin = "import time; t = time.process_time()\nwhile time.process_time() < t + 0.3: pass"

    def turn() -> Took:
        subprocess.run([sys.executable, "-c", spin], check=True)
        return Took(0.1, 0.1)

    assert common.watched(Contestant("a", turn)) == (Took(0.1, 0.1), 0.0)


def test_what_was_measured_elsewhere_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measured again in part on another machine, the rest stays, with where it was made."""
    whole = Options(quick=False, rounds=2, threads=1, lock=None, out=tmp_path)
    part = Options(quick=False, rounds=2, threads=1, lock=None, out=tmp_path, only=("b",))
    first, second = {"processor": "Abacus", "cores": 2}, {"processor": "Slide rule", "cores": 1}

    def saved(asked: Options, machine: dict[str, Any], *titles: str) -> dict[str, list[str]]:
        monkeypatch.setattr(common, "machine", lambda threads: machine)
        made = [Table(title, ("way",), [["ours"]], ["Equal."]) for title in titles]
        common.save("x", asked, made, dict.fromkeys(titles, 1))
        found = json.loads((tmp_path / "x.json").read_text())
        assert set(found["figures"]) == {"a", "b"} and found["machine"] == machine
        return {table["title"]: table["notes"] for table in found["tables"]}

    assert saved(whole, first, "a", "b") == {"a": ["Equal."], "b": ["Equal."]}
    assert saved(part, first, "b") == {"a": ["Equal."], "b": ["Equal."]}
    for machine in (second, first, second):  # said once, of where it was made
        (equal, made), again = (saved(part, machine, "b")[title] for title in "ab")
        assert equal == "Equal." and again == ["Equal."]
        assert made.startswith("Made earlier on ") and made.endswith(": Abacus, 2 cores.")


def test_a_table_is_markdown() -> None:
    text = common.text_of(Table("T", ("a", "b"), [["1", "22"]], ["A note."]))
    assert text.splitlines()[3:6] == ["| a | b  |", "|---|----|", "| 1 | 22 |"]


def test_all_ways_make_the_same_texts_where_answers_end_by_themselves() -> None:
    shape = SHAPES["tiny"]
    hf = build(shape)
    model, asks = wrapped(shape, hf), prompts(shape, 7, 3, 20)
    with Ending(hf, 5):
        made = ours.answers(model, asks, ours.directions(model, 2), 30, Batching(3)).texts
        bare = ours.uncaptured(model, asks, 30, Batching(3))
        order = plain.sorted_order(asks)
        dropped = plain.fixed(asks, 3, order, lambda part: plain.dropping(hf, part, 30))
        generated = plain.fixed(asks, 3, order, lambda part: plain.generated(hf, part, 30))
    assert made == bare == dropped == generated
    assert len({len(text) for text in made}) > 2


def test_bare_steps_make_what_generate_makes() -> None:
    shape = SHAPES["tiny"]
    hf, asks = build(shape), prompts(shape, 4, 3, 9)
    assert plain.bare_steps(hf, asks, 6) == plain.generated(hf, asks, 6)


def test_a_wrong_answer_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = SHAPES["tiny"]
    hf = build(shape)
    model, asks = wrapped(shape, hf), prompts(shape, 4, 3, 9)
    made = ours.answers(model, asks, ours.directions(model, 2), suite.NEW, Batching(4))
    assert suite.verify(hf, made, asks, "float32").startswith("4 of 4")
    right = plain.generated

    def wrong(hf: object, part: plain.Ids, new: int) -> list[list[int]]:
        return [[*text[:-1], (text[-1] + 1) % 100 + 3] for text in right(hf, part, new)]

    monkeypatch.setattr(plain, "generated", wrong)
    with pytest.raises(AssertionError, match="0 of 4 texts equal"):
        suite.verify(hf, made, asks, "float32")
    with pytest.raises(AssertionError, match="makes other texts"):
        mixed.contestants(hf, asks, made, nullcontext())


def counted(most: int) -> slices.Work:
    yield 0.0
    for at in range(most):
        yield at / most
    return most, os.getpid()


def lost() -> slices.Work:
    yield 0.0
    raise ValueError("no answer")


def test_contestants_of_minutes_take_turns_as_processes() -> None:
    ways = {"few": partial(counted, 3), "many": partial(counted, 200_000)}
    found = slices.in_slices(ways, ASKED)
    assert [made[0] for _, made in found.values()] == [3, 200_000]
    assert all(took.wall > 0 for took, _ in found.values())
    pids = {made[1] for _, made in found.values()}
    assert len(pids | {os.getpid()}) == 3
    assert not any(map(psutil.pid_exists, pids))


def test_a_contestant_that_fails_ends_all() -> None:
    with pytest.raises(EOFError):
        slices.in_slices({"many": partial(counted, 10**9), "lost": lost}, ASKED)


def test_turns_beside_others_are_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    busy = iter((0.0, 1e6))
    monkeypatch.setattr(slices, "busy_seconds", lambda: next(busy))
    asked = replace(ASKED, quick=False)
    with pytest.raises(common.Busy, match="others took"):
        slices.in_slices({"few": partial(counted, 3)}, asked)


def test_every_text_is_held_against_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(ways: Any, _: object) -> Any:
        took = common.Took(1.0, 1.0)
        return {name: (took, [[0], [wrong if name.startswith("a loop") else 1]]) for name in ways}

    monkeypatch.setattr(mixed, "in_slices", found)
    work, wrong = mixed.Work(SHAPES["tiny"], 2, 1, False, slices=True), 1
    assert mixed.in_turns(work, ASKED)[0].notes[0].endswith("All texts equal.")
    wrong = 2
    with pytest.raises(AssertionError, match="a loop"):
        mixed.in_turns(work, ASKED)


class Said(Worker):
    """A peer whose answers are given; it reads `embed` and `0.post`."""

    def __init__(self, folder: Path, texts: object, scores: object) -> None:
        self.folder, self.sites, self.dtype, self.note = folder, [0, 2], "float32", ""
        self.made = {"texts": texts, "scores": scores}

    def ask(self, order: dict[str, Any]) -> dict[str, Any]:
        torch.save(self.made, order["keep"])
        return {}


def test_a_peer_is_held_against_our_texts_and_scores(tmp_path: Path) -> None:
    """Forty texts of a prompt of 2 and 3 new tokens; the last token has no state there."""
    texts = [[i, i + 1, i + 2] for i in range(40)]
    scores = [torch.rand(5, 3, 2) for _ in texts]
    norms = [torch.ones(5, 3).numpy() for _ in texts]
    made = ours.Made(texts, [score.numpy() for score in scores], norms)
    theirs = [score[:4, [0, 2]].clone() for score in scores]

    def check(texts: object = texts, scores: object = theirs) -> tuple[str, str]:
        worker = Said(tmp_path, texts, scores)
        return worker.check("generate", [], {}, made), worker.note

    assert check() == ("", "")
    parted = [[0, 9, 9], *texts[1:]]
    after = [score.clone() for score in theirs]
    after[0][3:] += 1  # what a text says after it has parted is its own
    assert check(texts=parted, scores=after) == ("", "39 of 40 texts are ours")
    after[0][2] += 1
    assert check(texts=parted, scores=after)[0].startswith("scores differ by 1.0e+00")
    many = [[9, 9, 9]] * 3 + texts[3:]
    assert check(texts=many) == ("37 of 40 texts equal", "")
    far = [score + 1e-3 for score in theirs]
    assert check(scores=far)[0].startswith("scores differ by 1.0e-03")
    assert check(texts=None)[0] == ""  # a replay makes none


def test_answers_end_whatever_takes_hooks_off() -> None:
    shape = SHAPES["tiny"]
    hf, asks = build(shape), prompts(shape, 6, 3, 9)
    bare = plain.generated(hf, asks, 30)
    with Ending(hf, 4):
        for module in hf.modules():
            module._forward_hooks.clear()
            module._forward_pre_hooks.clear()
        ended = plain.generated(hf, asks, 30)
    assert sum(map(len, ended)) < sum(map(len, bare)) / 2
    assert plain.generated(hf, asks, 30) == bare
    assert not any("forward" in vars(module) for module in hf.modules())


def test_random_models_are_the_same_each_time() -> None:
    first, second = (build(SHAPES["tiny"]).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_targets_are_judged_by_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    spread = {"median": 0.5, "low": 0.4, "high": 0.8, "cpu": 0.5}
    monkeypatch.setattr(targets, "results", lambda name: {"a": {"ours": spread, "way 1": 3.0}})
    cheap = targets.Target("w", "x", ("n", "a", "ours"), 0.6, at_most=True)
    fast = targets.Target("w", "x", ("n", "a", "ours"), 2.5, upside_down=True, why="a reason")
    assert targets.row(cheap)[2:] == ["at most 0.6x its time", "0.50 (0.40-0.80)", "yes"]
    assert targets.row(fast)[2:] == ["2.5x as fast", "2.00 (1.25-2.50)", "no: a reason"]
    by_beginning = targets.Target("w", "x", ("n", "a", "way"), 3)
    assert targets.row(by_beginning)[3:] == ["3.00", "yes"]
    missing = targets.Target("w", "x", ("n", "b", "way"), 3)
    assert targets.row(missing)[3:] == ["not measured", "-"]


def test_the_page_of_speed_holds_what_the_results_say() -> None:
    page = (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")
    assert tables.with_table(page, common.text_of(targets.table())) == page
