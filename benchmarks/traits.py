"""Many traits: what 1, 10, 100 and 1000 directions at all sites cost beside no capture at all.

The engine against itself: 24 prompts, 50 new tokens each, one batch.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from benchmarks import common, ours
from benchmarks.common import Options, Table, finish, options, timed
from benchmarks.shapes import SHAPES, Shape, build, prompts, wrapped
from traitscope.engine import Batching

ROWS, NEW = 24, 50
COUNTS = (1, 10, 100, 1000)
BASE = "capture off"


def main() -> None:
    asked = options(__doc__.splitlines()[0], rounds=5)
    works = [("framework", "float32", 3), ("130m", "float32", 1), ("130m", "bfloat16", 1)]
    if asked.quick:
        works = [("tiny", "float32", 1)]
    tables, figures = [], {}
    for name, dtype, more in works:
        often = dataclasses.replace(asked, rounds=asked.rounds * more)
        title = f"{name} {dtype}"
        if not asked.wants(title):
            continue
        table, figures[title] = common.measured(title, measured, SHAPES[name], dtype, often)
        tables.append(table)
    finish("traits", asked, tables, figures)


def measured(shape: Shape, dtype: str, asked: Options) -> tuple[Table, dict[str, Any]]:
    hf = build(shape, getattr(torch, dtype))
    model, asks, batching = wrapped(shape, hf), prompts(shape, ROWS, 5, 30), Batching(ROWS)
    bare = ours.uncaptured(model, asks, NEW, batching)
    contestants = [timed(BASE, lambda: ours.uncaptured(model, asks, NEW, batching))]
    for count in COUNTS:
        given = ours.directions(model, count)
        if ours.answers(model, asks, given, NEW, batching).texts != bare:
            raise AssertionError(f"{count} traits change the texts")
        contestants.append(
            timed(
                "1 trait" if count == 1 else f"{count} traits",
                lambda given=given: ours.answers(model, asks, given, NEW, batching),
            )
        )
    times = common.rounds(contestants, asked)
    title = f"{shape.name}, {dtype}: {ROWS} prompts x {NEW} tokens, {len(model.sites)} sites"
    table = Table(title, common.COLUMNS, common.against(times, BASE), ["All texts are equal."])
    figures = {name: common.ratio(times, name, BASE) for name in times}
    return table, {"seconds": common.medians(times), "times capture off": figures}


if __name__ == "__main__":
    main()
