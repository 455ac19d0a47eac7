"""Peak memory over what the loaded model holds, against rows, tokens, traits and prompts.

Every figure is made in a process of its own, which loads the model, notes what it holds, works,
and says how far its peak rose above that.  Results are dropped as they come, as a run does that
writes them.  Megabytes are 10^6 bytes.  On Linux the peak of loading is forgotten first; elsewhere
a figure below it cannot be seen.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import torch

from benchmarks import ours, plain
from benchmarks.common import Options, Table, finish, options, say
from benchmarks.shapes import SHAPES, build, prompts, wrapped
from traitscope.engine import Batching

ROOT = Path(__file__).parent.parent
COLUMNS = ("what varies", "MB over load, at each")
# what is asked of a process: the way, and rows, new tokens, traits, prompts
USUAL = {"rows": 24, "new": 50, "traits": 8, "prompts": 24}


def main() -> None:
    if len(sys.argv) == 3 and sys.argv[1] == "--one":
        print(json.dumps(one(json.loads(sys.argv[2]))))
        return
    asked = options(__doc__.splitlines()[0], rounds=1)
    name = "tiny" if asked.quick else "130m"
    few = asked.quick
    varied = {
        "rows": (1, 4) if few else (1, 8, 24, 64),
        "new": (5, 10) if few else (10, 50, 200),
        "traits": (1, 8) if few else (1, 10, 100, 1000),
        "prompts": (4, 8) if few else (24, 96),
    }
    tables, figures = [], {}
    rows = []
    for what, values in varied.items():
        found = {
            value: of({"way": "ours", **USUAL, **consistent(what, value)}, name, asked)
            for value in values
        }
        figures[what] = found
        rows.append([f"ours, {what}", ", ".join(f"{v}: {mb:.0f}" for v, mb in found.items())])
    for way in ("generate", "with_states"):
        found = of({"way": way, **USUAL}, name, asked)
        figures[way] = found
        rows.append([f"{way}, 24 rows, 50 new tokens", f"{found:.0f}"])
    notes = [
        f"Beside what varies: {USUAL}; prompts of 5-30 tokens, float32.",
        "Packed weights are held before, like the model's own, and are not counted.",
    ]
    tables.append(Table(f"{name}: generating", COLUMNS, rows, notes))
    table, figures["replay"] = replays(name, asked)
    finish("memory", asked, [*tables, table], figures)


def consistent(what: str, value: int) -> dict[str, int]:
    """More rows than prompts are no rows."""
    return {what: value} | ({"prompts": max(value, 24)} if what == "rows" else {})


def replays(name: str, asked: Options) -> tuple[Table, dict[str, float]]:
    found = {
        way: of({"way": way, **USUAL, "prompts": 8 if asked.quick else 48}, name, asked)
        for way in ("replay", "padded_states")
    }
    rows = [[way, f"{mb:.0f}"] for way, mb in found.items()]
    found["replay over padded_states"] = found["replay"] / max(found["padded_states"], 1.0)
    notes = ["48 texts of 10-240 tokens at all sites; the padded forward in batches of 24."]
    return Table(f"{name}: replay", ("way", "MB over load"), rows, notes), found


def of(task: dict[str, Any], name: str, asked: Options) -> float:
    """Megabytes over load of one task, measured in a process of its own."""
    order = json.dumps({**task, "shape": name, "threads": asked.threads})
    command = [sys.executable, "-m", "benchmarks.memory", "--one", order]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    megabytes = float(json.loads(done.stdout.splitlines()[-1]))
    say(f"{order}: {megabytes:.0f} MB")
    return megabytes


def one(task: dict[str, Any]) -> float:
    torch.set_num_threads(task["threads"])
    shape = SHAPES[task["shape"]]
    hf = build(shape)
    model = wrapped(shape, hf)
    direction_SDK = ours.directions(model, task["traits"])
    replaying = task["way"] in ("replay", "padded_states")
    asks = prompts(shape, task["prompts"], *((10, 240) if replaying else (5, 30)))
    batching, directions = Batching(task["rows"]), torch.from_numpy(direction_SDK)
    # every library's own buffers, before what is held is noted
    ours.answers(model, asks[:1], direction_SDK, 2, Batching(1))
    plain.generated(hf, asks[:1], 2)
    ways = {
        "ours": lambda: ours.streamed(model, asks, direction_SDK, task["new"], batching),
        "generate": lambda: plain.generated(hf, asks, task["new"]),
        "with_states": lambda: plain.with_states(hf, asks, task["new"], directions),
        "replay": lambda: ours.streamed_replay(model, asks, direction_SDK),
        "padded_states": lambda: plain.fixed(
            asks, 24, range(len(asks)), lambda part: plain.padded_states(hf, part, directions)
        ),
    }
    held = psutil.Process().memory_info().rss
    reset_peak()
    ways[task["way"]]()
    return max(0.0, (peak() - held) / 1e6)


def reset_peak() -> None:
    """Forget the peak so far, where the system can (Linux)."""
    clear = Path("/proc/self/clear_refs")
    if clear.exists():
        clear.write_text("5")


def peak() -> int:
    """The most bytes that this process ever held."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main()
