"""Replay: finished texts of mixed length, scored at all sites in one forward each.

traitscope against a padded forward with `output_hidden_states` (projected; no `mid`), in the order
given and in fixed batches of as many rows, and against each peer's own cached run in the same
batches.  Memory is the peak of the process over what it held before, each way in a process of its
own: see `memory.py`.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from benchmarks import common, ours, plain
from benchmarks.common import Options, Table, finish, options, timed
from benchmarks.peers.client import listed, peers
from benchmarks.shapes import SHAPES, Shape, build, folder, prompts, wrapped

ROWS, SHORTEST, LONGEST, TRAITS = 24, 10, 240, 8
BASE = "a padded forward, output_hidden_states"


def main() -> None:
    asked = options(__doc__.splitlines()[0], rounds=3)
    works = [(SHAPES["framework"], 500, asked.rounds), (SHAPES["130m"], 120, asked.rounds)]
    if asked.quick:
        works = [(SHAPES["tiny"], 12, 1)]
    tables, figures = [], {}
    for shape, count, rounds in works:
        often = dataclasses.replace(asked, rounds=rounds)
        if not asked.wants(shape.name):
            continue
        table, figures[shape.name] = common.measured(shape.name, measured, shape, count, often)
        tables.append(table)
    finish("replay", asked, tables, figures)


def measured(shape: Shape, count: int, asked: Options) -> tuple[Table, dict[str, Any]]:
    hf = build(shape)
    model, texts = wrapped(shape, hf), prompts(shape, count, SHORTEST, LONGEST)
    direction_SDK = ours.directions(model, TRAITS)
    directions = torch.from_numpy(direction_SDK)
    made = ours.replayed(model, texts, direction_SDK)
    batches = [texts[start : start + ROWS] for start in range(0, count, ROWS)]
    verify(plain.padded_states(hf, batches[0], directions), made)
    contestants = [
        timed(BASE, lambda: [plain.padded_states(hf, batch, directions) for batch in batches]),
        timed("ours", lambda: ours.replayed(model, texts, direction_SDK)),
    ]
    with TemporaryDirectory() as place:
        saved = folder(shape, hf, Path(place))
        with peers(saved, "float32", shape.blocks, direction_SDK, asked) as found:
            workers, missing = found
            for worker in workers:
                if wrong := worker.check("replay", batches, {}, made):
                    missing[worker.peer.name] = wrong
                else:
                    contestants.append(worker.contestant("replay", batches, {}))
            times = common.rounds(contestants, asked)
            notes = listed(missing, workers)
    title = f"{shape.name}, float32: {count} texts of {SHORTEST}-{LONGEST} tokens, {TRAITS} traits"
    table = Table(title, common.COLUMNS, common.against(times, BASE), notes)
    figures = {name: common.ratio(times, name, BASE) for name in times}
    return table, {"seconds": common.medians(times), "times the base": figures}


def verify(theirs: list[torch.Tensor], made: ours.Made) -> None:
    """Scores at `embed` and every `.post` but the last, which transformers gives after a norm."""
    for score, mine, norm in zip(theirs, made.scores, made.norms, strict=False):
        gap = np.abs(score[:, :-1].numpy() - mine[:, ::2][:, :-1]) / norm[:, ::2][:, :-1, None]
        if gap.max() > 1e-5:
            raise AssertionError(f"scores of the padded forward differ by {gap.max():.1e} |h|")


if __name__ == "__main__":
    main()
