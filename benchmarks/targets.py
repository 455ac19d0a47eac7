"""What the ratios were meant to reach, and where in the results each of them stands.

`tables.py` writes docs/speed.md's table from this and from the results.  A ratio is ours over
another's time ("at most"), or another's over ours ("as fast, at least").  `why` says what holds a
figure back, in words, after it was looked into.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from benchmarks.common import RESULTS, Table
from benchmarks.gpu import COMPILED

__all__ = ["TARGETS", "Target", "table"]

BASE = "times the base"
OURS_TIMES = "times ours"
MIXED = ("mixed", "130m 500 prompts", OURS_TIMES)
MIXED_LESS = ("mixed", "130m 500 prompts", "times ours, less")
MANY_MIXED = ("mixed", "framework 500 prompts", OURS_TIMES)
MIXED_WAYS = (
    ("`generate`, the order given", "generate, fixed batches in the order given", 2.8),
    ("`generate`, longest first", "generate, fixed batches, longest first", 2.0),
    ("a loop that drops finished rows", "a loop that drops rows", 1.7),
)
PEERS_MIXED = ("mixed", "framework 96 prompts, with peers", OURS_TIMES)
GENERATE = "generate, no capture"
GPU_ROWS = ("1 row", "24 rows")


@dataclass(frozen=True)
class Target:
    """`path`: the result's name, then keys of its figures; the last may be a name's beginning."""

    work: str
    against: str
    path: tuple[str, ...]
    goal: float
    at_most: bool = False
    upside_down: bool = False  # the figure is ours over theirs, and theirs over ours is meant
    of: str = "time"
    why: str = ""

    @property
    def wanted(self) -> str:
        return (
            f"at most {self.goal:g}x its {self.of}" if self.at_most else f"{self.goal:g}x as fast"
        )

    def reached(self, value: float) -> bool:
        return value <= self.goal if self.at_most else value >= self.goal


TARGETS = (
    Target("suite, 130M, float32", GENERATE, ("suite", "130m float32", BASE, "ours"), 1.05, True),
    Target("suite, 130M, bfloat16", GENERATE, ("suite", "130m bfloat16", BASE, "ours"), 1.05, True),
    Target(
        "suite, framework-bound",
        GENERATE,
        ("suite", "framework float32", BASE, "ours"),
        0.95,
        True,
        why="docs/log.md has what is known of it",
    ),
    Target(
        "suite, 130M, one trait",
        "the usual script, one load",
        ("suite", "usual", OURS_TIMES, "the usual script, one trait"),
        22,
    ),
    Target(
        "suite, 130M, four traits",
        "the usual script, a load per prompt (worked out)",
        ("suite", "usual", OURS_TIMES, "the usual script, 4 traits"),
        85,
    ),
    *(
        Target(
            "mixed lengths, 130M",
            against,
            (*MIXED, way),
            goal,
            why="docs/log.md has what is known of it",
        )
        for against, way, goal in MIXED_WAYS
    ),
    *(
        Target("mixed lengths, 130M, no `prompt_logprobs`", against, (*MIXED_LESS, way), goal)
        for against, way, goal in MIXED_WAYS[-1:]
    ),
    *(
        Target("mixed lengths, framework-bound", against, (*MANY_MIXED, way), goal)
        for against, way, goal in MIXED_WAYS
    ),
    Target("mixed lengths, framework-bound", "nnsight", (*PEERS_MIXED, "nnsight"), 2.8),
    Target(
        "mixed lengths, framework-bound",
        "transformer-lens",
        (*PEERS_MIXED, "transformer-lens"),
        3.2,
    ),
    Target(
        "replay, 130M",
        "a padded forward, `output_hidden_states`",
        ("replay", "130m", BASE, "ours"),
        1.5,
        upside_down=True,
    ),
    Target(
        "replay's memory, 130M",
        "a padded forward, `output_hidden_states`",
        ("memory", "replay", "replay over padded_states"),
        0.5,
        True,
        of="peak over load",
    ),
    Target(
        "10 traits, 130M",
        "capture off",
        ("traits", "130m float32", "times capture off", "10 "),
        1.03,
        True,
    ),
    Target(
        "1000 traits, 130M",
        "capture off",
        ("traits", "130m float32", "times capture off", "1000 "),
        1.15,
        True,
    ),
    Target(
        "10 traits, framework-bound",
        "capture off",
        ("traits", "framework float32", "times capture off", "10 "),
        1.06,
        True,
        why="docs/log.md has what is known of it",
    ),
    Target(
        "Gemma-2-2B's shape, bfloat16, 24 x 50 tokens",
        "one bare prefill, bare steps",
        ("suite", "gemma-2-2b bfloat16", BASE, "ours"),
        1.1,
        True,
    ),
    *(
        Target(f"GPU, {rows}, Gemma-2-2B's shape", GENERATE, ("gpu", "gemma-2-2b", rows, "ours"), 4)
        for rows in GPU_ROWS
    ),
    *(
        Target(
            f"GPU, a decode step{way}, {rows}, {name}'s shape",
            "the memory floor",
            ("gpu", shape, rows, "times the floor", key),
            goal,
            True,
            of="seconds",
        )
        for name, shape, way, key, goal in (
            ("Gemma-2-2B", "gemma-2-2b", "", "ours", 4),
            ("Gemma-2-2B", "gemma-2-2b", " compiled", COMPILED, 2),
            ("Llama-3-8B", "llama-3-8b", "", "ours", 2.2),
            ("Llama-3-8B", "llama-3-8b", " compiled", COMPILED, 1.6),
        )
        for rows in GPU_ROWS
    ),
)


def table() -> Table:
    """Every target beside what was measured."""
    columns = ("work", "against", "at least", "measured (least-most)", "reached")
    return Table("What was meant, and what was measured", columns, [row(t) for t in TARGETS])


def row(target: Target) -> list[str]:
    found = figure(target)
    if found is None:
        return [target.work, target.against, target.wanted, "not measured", "-"]
    value, shown = found
    verdict = "yes" if target.reached(value) else f"no{target.why and ': '}{target.why}"
    return [target.work, target.against, target.wanted, shown, verdict]


def figure(target: Target) -> tuple[float, str] | None:
    """The measured ratio the way the target means it, with its spread where there is one."""
    at: Any = results(target.path[0])
    for key in target.path[1:]:
        at = beginning_with(at, key)
    if isinstance(at, int | float):
        return float(at), f"{at:.2f}"
    if not isinstance(at, dict) or "median" not in at:
        return None
    values = [at["median"], at["low"], at["high"]]
    if target.upside_down:
        values = [1 / at["median"], 1 / at["high"], 1 / at["low"]]
    if at["low"] == at["high"]:  # nothing is known of how far it spreads
        return values[0], f"{values[0]:.2f} (one round)"
    return values[0], f"{values[0]:.2f} ({values[1]:.2f}-{values[2]:.2f})"


def beginning_with(figures: Any, key: str) -> Any:
    """The figure of that name, or of the only name that begins so."""
    if not isinstance(figures, dict) or key in figures:
        return figures.get(key) if isinstance(figures, dict) else None
    found = [name for name in figures if name.startswith(key)]
    return figures[found[0]] if len(found) == 1 else None


def results(name: str) -> Any:
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8"))["figures"] if path.exists() else None
