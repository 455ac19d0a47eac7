"""A run is killed, and the same call goes on: nothing lost, nothing doubled, the same numbers.

One process imports everything and then forks a child for each kill.  A child kills itself (no
handler sees it) at a given moment, or is killed from outside after a while.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.runner.small import (
    TEXTS,
    TRAITS,
    assert_same,
    few_neutral_chats,
    save_model,
    save_traits,
    small_suite,
)
from traitscope.runner import run_suite
from traitscope.runs import Run, verify

ROOT = Path(__file__).parents[2]
INSIDE = {"texts": list(TEXTS[:2]), "kind": "internals", "blocks": [0, 1]}
SETS: dict[str, Any] = {"asks": {"texts": list(TEXTS)}, "inside": INSIDE}

# reads one plan a line, {"home", "cache", "out", "sets", "kind", "name", "at"}; answers with the
# child's exit status (-9: killed)
NURSERY = """
import json, os, random, signal, sys, time
from pathlib import Path

import numpy, pyarrow.parquet, safetensors.numpy, torch, transformers
from transformers.models.llama import modeling_llama
import pytest

import traitscope.cli
from tests.runner.small import few_neutral_chats, small_suite
from traitscope.runner import run_suite

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def child(plan):
    os.environ["TRAITSCOPE_HOME"] = plan["cache"]
    few_neutral_chats(pytest.MonkeyPatch())
    seen = 0

    def count(name):
        nonlocal seen
        seen += name == plan["name"]
        if name == plan["name"] and seen == plan["at"]:
            die()

    if plan["kind"] == "call":
        real = getattr(os, plan["name"])

        def counted(*args, **others):
            count(plan["name"])
            return real(*args, **others)

        setattr(os, plan["name"], counted)
    run_suite(
        small_suite(Path(plan["home"]), prompts=plan["sets"]),
        out=Path(plan["out"]),
        progress=lambda tick: count(tick.phase),
    )

print("ready", flush=True)
for line in sys.stdin:
    plan = json.loads(line)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            child(plan)
            code = 0
        finally:
            os._exit(code)
    if plan["kind"] == "after":
        time.sleep(plan["at"])
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("home")
    save_model(folder / "model")
    save_traits(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRAITSCOPE_HOME", str(tmp_path_factory.mktemp("cache")))
        few_neutral_chats(patch)
        yield folder


@pytest.fixture(scope="module")
def undisturbed(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    place = tmp_path_factory.mktemp("undisturbed") / "run"
    return Run.open(run_suite(small_suite(home, prompts=SETS), out=place).path)


class Nursery:
    def __init__(self, home: Path) -> None:
        self._home = home
        self._process = subprocess.Popen(
            [sys.executable, "-c", NURSERY],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._answer() == "ready"

    def killed(self, out: Path, kind: str, name: str, at: float, *, cache: Path) -> bool:
        """Start a run in `out` and kill it; False where it had ended before."""
        plan = {"home": str(self._home), "cache": str(cache), "out": str(out), "sets": SETS}
        assert self._process.stdin is not None
        line = json.dumps({**plan, "kind": kind, "name": name, "at": at})
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        code = int(self._answer())
        assert code in (0, -9), "the child failed of itself"
        return code == -9

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture(scope="module")
def nursery(home: Path) -> Iterator[Nursery]:
    nursery = Nursery(home)
    yield nursery
    nursery.close()


def goes_on(home: Path, out: Path, undisturbed: Run) -> None:
    """The same call, in this process; what the kill left is whole and is not made again."""
    there = []
    if (out / "run.json").is_file():
        left = {problem.file for problem in verify(out) if problem.kind != "leftover"}
        assert left == set(), "what was committed is whole"
        there = [row.generation for row in Run.open(out).generations()]
    outcome = run_suite(small_suite(home, prompts=SETS), out=out)
    run = Run.open(out)
    assert_same(run, undisturbed)
    names = [row.generation for row in run.generations()]
    assert len(names) == len(set(names)) == len(TEXTS)
    new = [run.text(name).tokens for name in names if name not in there]
    made = sum(len(tokens.token_id) - tokens.n_prompt for tokens in new)
    assert outcome.stats["new_tokens"] == made
    assert run_suite(small_suite(home, prompts=SETS), out=out).already_done


@pytest.mark.parametrize(
    ("kind", "name", "at"),
    [
        ("tick", "load", 1),
        ("tick", "directions", 1),
        ("tick", "generate", 1),
        ("tick", "generate", 7),
        ("tick", "generate", 9),
        ("tick", "internals", 1),
        ("tick", "internals", 2),
        ("tick", "done", 1),
        *(("call", "replace", n) for n in (1, 3, len(TRAITS) + 2, len(TRAITS) + 4, 11)),
        *(("call", "fsync", n) for n in (2, 5, 12, 17)),
    ],
)
def test_killed_at_a_moment(
    home: Path,
    tmp_path: Path,
    nursery: Nursery,
    undisturbed: Run,
    kind: str,
    name: str,
    at: int,
) -> None:
    out = tmp_path / "run"
    cache = tmp_path if name == "directions" else Path(os.environ["TRAITSCOPE_HOME"])
    assert nursery.killed(out, kind, name, at, cache=cache), "the moment was reached"
    goes_on(home, out, undisturbed)


def test_killed_again_and_again_at_random(
    home: Path, tmp_path: Path, nursery: Nursery, undisturbed: Run
) -> None:
    out, cache = tmp_path / "run", Path(os.environ["TRAITSCOPE_HOME"])
    kills = 0
    for milliseconds in (90, 310, 170, 420, 240, 360):
        kills += nursery.killed(out, "after", "", milliseconds / 1000, cache=cache)
    assert kills > 0
    goes_on(home, out, undisturbed)
