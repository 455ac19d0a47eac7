"""Whole commands with real models: the bundled suite, and a tiny model from a folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import tiny
from traitscope.paths import PACKAGE

ROOT = PACKAGE.parent
HAS_POCKET = any((PACKAGE / "pocket").rglob("*.safetensors"))


def traitscope(cwd: Path, *args: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TRAITSCOPE_HOME": str(cwd / "home")}
    return subprocess.run(
        [sys.executable, "-m", "traitscope", *args],
        cwd=cwd,
        env=env,
        text=True,
        capture_output=True,
        timeout=600,
    )


def result_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    for said in done.stderr.splitlines():
        json.loads(said)  # progress, and nothing else
    found: dict[str, Any] = json.loads(line)
    return found


@pytest.mark.slow
@pytest.mark.skipif(not HAS_POCKET, reason="the bundled model has no weights yet")
def test_overnight_from_nothing_and_again(tmp_path: Path) -> None:
    first = result_of(traitscope(tmp_path, "run", "overnight", "--json"))
    assert (first["captures"], first["wanted"], first["failed"]) == (24, 24, 0)
    assert (first["trajectories"], first["internals"], first["model_loads"]) == (20, 4, 1)
    assert len(first["expectations"]) == 12
    assert all(entry["held"] is not None for entry in first["expectations"])
    again = result_of(traitscope(tmp_path, "run", "overnight", "--json"))
    assert (again["already_done"], again["model_loads"]) == (True, 0)
    assert again["run"] == first["run"]
    assert traitscope(tmp_path, "verify", first["run"]).returncode == 0
    page = traitscope(tmp_path, "report", first["run"]).stdout
    assert "finished: all 24 captures are there" in page


@pytest.mark.slow
def test_capture_with_a_model_of_ones_own(tmp_path: Path) -> None:
    tiny.hf_model("llama").save_pretrained(tmp_path / "mine")
    tiny.tokenizer().save_pretrained(tmp_path / "mine")
    args = ["--model", "./mine", "--trait", "commitment_strength", "--prompts", "Tea?"]
    more = ["--prompts", "[bold]Coffee[/]?", "--internals", "middle", "--max-new-tokens", "8"]
    result = result_of(traitscope(tmp_path, "capture", *args, *more, "--json"))
    assert (result["captures"], result["trajectories"], result["internals"]) == (4, 2, 2)
    assert (result["model_loads"], result["failed"]) == (1, 0)
    assert 0 < result["new_tokens"] <= 16
    assert traitscope(tmp_path, "verify", result["run"]).returncode == 0
    assert "[bold]Coffee[/]?" in traitscope(tmp_path, "report", result["run"]).stdout


def test_an_unknown_model_is_one_line(tmp_path: Path) -> None:
    done = traitscope(
        tmp_path, "capture", "--model", "./none", "--trait", "sycophancy", "--prompts", "a"
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("traitscope: ")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()
