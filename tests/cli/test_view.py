"""`traitscope view` as a person starts it: what it prints, how it ends, its mistakes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.report.planted import Text, planted
from traitscope.cli.frame import run as command
from traitscope.cli.view import FIRST_PORT
from traitscope.paths import PACKAGE


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    planted(tmp_path / "runs" / "one", [Text("Tea?")])
    return tmp_path / "runs" / "one"


@contextmanager
def viewing(*args: str, code: str = "") -> Iterator[subprocess.Popen[str]]:
    """The command in a process of its own, ended afterwards."""
    program = f"import sys\nfrom traitscope.cli import main\n{code}\nmain()"
    process = subprocess.Popen(
        [sys.executable, "-c", program, "view", *args],
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def asked(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as said:
        return json.loads(said.read())


def error_of(args: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert command(["view", *args, "--no-open"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    return said.err


def test_it_prints_its_url_is_up_and_ends_quietly_with_ctrl_c(run: Path) -> None:
    with viewing(str(run), "--no-open", "--port", "0") as process:
        line = first_line(process)
        assert line.startswith("1 run: http://127.0.0.1:")
        url = line.split()[-1]
        assert len(url.partition("?token=")[2]) >= 20
        api = url.replace("/?", "/api/runs?")
        assert asked(api)["runs"][0]["name"] == "planted"
        with pytest.raises(urllib.error.HTTPError, match="401"):
            asked(api.partition("?")[0])
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
        assert process.returncode == 0
        assert (out, err) == ("", "Ctrl-C ends it.\n")


def test_with_json_there_is_one_line_and_nothing_else(run: Path) -> None:
    with viewing("--json", "--port", "0") as process:  # no run named: those in ./runs
        said = json.loads(first_line(process))
        assert said.keys() == {"url", "runs"} and said["runs"] == 1
        assert asked(said["url"].replace("/?", "/api/runs?"))["runs"][0]["folder"] == "one"
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=20) == ("", "")
        assert process.returncode == 0


def test_it_loads_nothing_heavy(run: Path) -> None:
    heavy = {"torch", "transformers", "scipy", "sklearn"}
    code = f"import atexit\natexit.register(lambda: print({heavy} & set(sys.modules)))"
    with viewing("--json", "--port", "0", code=code) as process:
        url = json.loads(first_line(process))["url"]
        for path in ("api/runs/0", "api/runs/0/captures", "api/runs/0/found"):
            asked(url.replace("/?", f"/{path}?"))
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=20)
        assert out == "set()\n"


def test_a_long_address_stays_on_its_line(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    with viewing("--no-open", "--port", "0") as process:
        assert asked(first_line(process).split()[-1].replace("/?", "/api/runs?"))["runs"]


def test_without_a_token_it_says_so(run: Path) -> None:
    with viewing("--no-open", "--no-token", "--port", "0") as process:
        url = first_line(process).split()[-1]
        assert url.endswith("/")
        assert asked(f"{url}api/runs")["runs"]
        process.send_signal(signal.SIGINT)
        assert "everyone who can reach this port can look" in process.communicate(timeout=20)[1]


def test_the_first_free_port_is_taken_where_none_is_asked_for(run: Path) -> None:
    with viewing("--json") as one, viewing("--json") as two:
        ports = {json.loads(first_line(process))["url"].split("/")[2] for process in (one, two)}
        numbers = sorted(int(port.split(":")[1]) for port in ports)
        assert len(numbers) == 2 and FIRST_PORT <= numbers[0] < numbers[1] < FIRST_PORT + 20


def test_the_browser_opens_when_the_server_answers(run: Path) -> None:
    code = """
import urllib.request
import webbrowser

def browse(url):
    print("opened", urllib.request.urlopen(url.replace("/?", "/api/runs?")).status, flush=True)

webbrowser.open = browse
"""
    with viewing(str(run), "--port", "0", code=code) as process:
        assert first_line(process).startswith("1 run: ")
        assert first_line(process) == "opened 200\n"
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
        assert process.returncode == 0


def test_a_port_that_is_taken(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = error_of([str(run), "--port", str(port)], capsys)
    assert f"port {port} is in use" in said and "--port" in said


def test_what_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = error_of(["nothing"], capsys)
    assert "run.json" in said and "does not exist" in said
    assert "Expected runs in ./runs, got none" in error_of([], capsys)
    (tmp_path / "file").write_text("no run")
    assert "Expected a run folder" in error_of(["file"], capsys)


def test_a_damaged_run_is_said_before_anything_listens(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "run.json").write_bytes((run / "run.json").read_bytes().replace(b"planted", b"changed"))
    assert "checksum" in error_of([str(run)], capsys)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--host", "0.0.0.0"], "--allow-host"),
        (["--host", "::"], "--allow-host"),
        (["--host", "192.0.2.1"], "--host"),
        (["--host", "no such host"], "--host"),
        (["--port", "99999"], "--port"),
        (["--port", "x"], "--port"),
        (["--allow-host", "http://hub.example/"], "--allow-host"),
    ],
)
def test_mistakes_are_one_sentence(
    run: Path, args: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in error_of([str(run), *args], capsys)
