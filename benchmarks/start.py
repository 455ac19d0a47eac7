"""Start: what one waits for before anything is done.

`import traitscope`, `traitscope --help`, `view` until its page answers, and a load of a checkpoint
against reading its file once.  Each is a process of its own; the files have been read before, so
that no disk is measured.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from benchmarks import common
from benchmarks.common import Contestant, Table, Took, finish, options
from benchmarks.shapes import SHAPES, build, folder

ROOT = Path(__file__).parent.parent
RUN = ROOT / "tests" / "runs" / "format-1"  # a small run that is there
LOAD = """
import sys, time, torch
torch.set_num_threads(int(sys.argv[2]))
from traitscope.models import load
if sys.argv[3] == "again":
    load(sys.argv[1])
began, cpu = time.perf_counter(), time.process_time()
load(sys.argv[1])
print(time.perf_counter() - began, time.process_time() - cpu)
"""
READ = """
import sys, time
began, cpu = time.perf_counter(), time.process_time()
with open(sys.argv[1] + "/model.safetensors", "rb", buffering=0) as file:
    into = bytearray(1 << 24)
    while file.readinto(into):
        pass
print(time.perf_counter() - began, time.process_time() - cpu)
"""


def main() -> None:
    asked = options(__doc__.splitlines()[0], rounds=5)
    shape = SHAPES["tiny" if asked.quick else "130m"]
    again, read = f"load {shape.name} again", f"read {shape.name}'s file once"
    with TemporaryDirectory() as place:
        saved = folder(shape, build(shape), Path(place) / "model")
        threads = str(asked.threads)
        contestants = [
            process("python -c pass", [sys.executable, "-c", "pass"]),
            process("import traitscope", [sys.executable, "-c", "import traitscope"]),
            process("traitscope --help", [sys.executable, "-m", "traitscope", "--help"]),
            Contestant("traitscope view, until its page answers", lambda: viewed(RUN)),
            said(f"load {shape.name}, the first in a process", LOAD, str(saved), threads, "first"),
            said(again, LOAD, str(saved), threads, "again"),
            said(read, READ, str(saved)),
        ]
        times = common.rounds(contestants, asked)
    rows = common.against(times, "python -c pass")
    against = common.ratio(times, again, read)
    size = sum(p.numel() for p in build(shape).parameters()) * 4 / 1e6
    notes = [
        f"A load takes {against} times as long as reading its file ({size:.0f} MB) once; its "
        "proofs, a forward of the model among them, are within. The first one in a process also "
        "imports what transformers has for the model."
    ]
    table = Table("Start", common.COLUMNS, rows, notes)
    finish("start", asked, [table], {"seconds": common.medians(times), "load over read": against})


def process(name: str, command: list[str]) -> Contestant:
    """A whole process, from its start to its end; its CPU seconds as those of a child."""

    def turn() -> Took:
        return common.child(
            lambda: subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        )

    return Contestant(name, turn)


def said(name: str, program: str, *given: str) -> Contestant:
    """A process that prints its own wall and CPU seconds: its imports do not count."""

    def turn() -> Took:
        command = [sys.executable, "-c", program, *given]
        done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
        wall, cpu = map(float, done.stdout.split())
        return Took(wall, cpu)

    return Contestant(name, turn)


def viewed(run: Path) -> Took:
    """From the command to the page in hand."""

    def work() -> None:
        command = [sys.executable, "-m", "traitscope", "view", str(run), "--json"]
        command.append("--no-token")
        server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        try:
            address = json.loads(server.stdout.readline())["url"]
            with urllib.request.urlopen(address, timeout=30) as page:
                assert page.status == 200
        finally:
            server.send_signal(signal.SIGINT)
            server.wait()

    return common.child(work)


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
