"""`traitscope export`: what it prints, what it refuses, and that torch is not needed for it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runs.build import capture, directions, failed_record, header_of, text_record
from traitscope.cli.frame import run as command
from traitscope.exports.flat import FLAT
from traitscope.runs import RunWriter


@pytest.fixture(autouse=True)
def _run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRAITSCOPE_HOME", str(tmp_path / "home"))
    with RunWriter.create(tmp_path / "run", header_of(range(2)), directions()) as writer:
        writer.commit([text_record(0), failed_record(1)], [capture(0), capture(1)])


@pytest.mark.parametrize("to", FLAT)
def test_one_line_of_json(to: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["export", "run", "--to", to, "--out", "out", "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    files = [path for path in Path("out").iterdir() if path.is_file()]
    assert found == {
        "run": "run",
        "to": to,
        "out": "out",
        "texts": 1,
        "failed": 1,
        "files": len(files),
        "kept": 0,
        "bytes": sum(path.stat().st_size for path in files),
    }


def test_a_sentence_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["export", "run", "--to", "csv", "--out", "out", "--sites", "read"]) == 0
    said = capsys.readouterr()
    assert "1 text as csv in out: 2 files" in said.out
    assert "1 text of the run failed" in said.out
    assert "Exporting: 2 of 2 texts" in said.err


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--to", "cvs"], "Did you mean 'csv'?"),
        (["--to", "csv", "--sites", "9.post"], "9.post"),
        (["--to", "csv", "--no-attention"], "--no-attention is for --to experiments"),
        (["--to", "npz", "--device", "cpu"], "--device is for --to experiments"),
        (["--to", "experiments", "--sites", "all"], "--sites is for --to csv, jsonl or npz"),
        (["--to", "experiments", "--force"], "--force is for --to csv, jsonl or npz"),
    ],
)
def test_what_does_not_fit_is_one_line(
    args: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(["export", "run", "--out", "out", *args]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert expected in said.err
    assert said.err.count("\n") == 1
    assert not Path("out").exists()


def test_a_folder_to_write_to_must_be_given(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["export", "run", "--to", "csv"]) == 2
    assert "--out" in capsys.readouterr().err


def test_a_second_time_needs_force(capsys: pytest.CaptureFixture[str]) -> None:
    args = ["export", "run", "--to", "jsonl", "--out", "out"]
    assert command(args) == 0
    assert command(args) == 2
    assert "--force" in capsys.readouterr().err
    assert command([*args, "--force"]) == 0


def test_the_older_layout_without_its_model(capsys: pytest.CaptureFixture[str]) -> None:
    args = ["export", "run", "--to", "experiments", "--out", "out", "--no-attention", "--json"]
    assert command(args) == 0
    first = json.loads(capsys.readouterr().out)
    assert (first["texts"], first["files"], first["kept"]) == (1, 4, 0)
    assert command(args) == 0
    assert json.loads(capsys.readouterr().out)["kept"] == 4
    assert command([*args[:-2], "--json"]) == 2
    assert "--no-attention" in capsys.readouterr().err


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["export", "--help"]) == 0
    said = capsys.readouterr().out
    assert "traitscope export runs/" in said
    assert "--to experiments" in said


def test_torch_is_not_loaded_for_a_table() -> None:
    code = f"""
import sys
from traitscope.cli.frame import run
for to in {FLAT}:
    assert run(["export", "run", "--to", to, "--out", "out-" + to, "--json"]) == 0
assert not {{"torch", "transformers"}} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
