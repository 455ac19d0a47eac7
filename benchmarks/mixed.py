"""Mixed lengths: many prompts of 5-200 tokens, answers that end by themselves (mean 40, most 200).

traitscope with all sites captured, in continuous batches, against `generate` without capture in
fixed batches of as many rows: in the order given, longest first, and with rows dropped when they
end; and against the peers with the same capture, in fixed batches as given.  The peers work
through fewer prompts, since some take minutes.  Ours also without what none of the others gives,
the log probabilities of the prompts' own tokens, for which the head reads all of them.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks import common, ours, plain
from benchmarks.common import Contestant, Options, Table, finish, options, timed
from benchmarks.ending import Ending
from benchmarks.peers.client import listed, peers
from benchmarks.shapes import SHAPES, Shape, build, folder, prompts, wrapped
from traitscope.engine import Batching, join_rule
from traitscope.engine.packing import packed_weights

ROWS, MOST, MEAN, TRAITS = 24, 200, 40, 8
OURS = "ours, all sites"
OURS_LESS = "ours, without log probabilities of prompts"
OURS_NAMES = {OURS: "ours", OURS_LESS: "ours, less"}  # in the figures


@dataclasses.dataclass(frozen=True)
class Work:
    """How many prompts of a shape are answered, and how often."""

    shape: Shape
    prompts: int
    rounds: int
    with_peers: bool


def main() -> None:
    asked = options(__doc__.splitlines()[0], rounds=3)
    works = [
        Work(SHAPES["framework"], 500, asked.rounds, False),
        Work(SHAPES["framework"], 96, asked.rounds, True),
        Work(SHAPES["130m"], 500, 1, False),  # a quarter of an hour each
    ]
    if asked.quick:
        works = [Work(SHAPES["tiny"], 8, 1, True)]
    tables, figures = [], {}
    for work in works:
        peers_too = ", with peers" if work.with_peers else ""
        title = f"{work.shape.name} {work.prompts} prompts{peers_too}"
        often = dataclasses.replace(asked, rounds=work.rounds)
        if not asked.wants(title):
            continue
        table, figures[title] = common.measured(title, measured, work, often)
        tables.append(table)
    finish("mixed", asked, tables, figures)


def measured(work: Work, asked: Options) -> tuple[Table, dict[str, Any]]:
    shape = work.shape
    hf = build(shape)
    model, asks = wrapped(shape, hf), prompts(shape, work.prompts, 5, MOST)
    direction_SDK = ours.directions(model, TRAITS)
    batching = Batching(ROWS, join_rule(model, ROWS))  # as a run joins
    with TemporaryDirectory() as place:
        saved = folder(shape, hf, Path(place)) if work.with_peers else Path(place)
        ending = Ending(hf, MEAN)

        def answers(**how: Any) -> ours.Made:
            # packed first: what somebody else has wrapped is left alone, as the head here is
            with packed_weights(model), ending:
                return ours.answers(model, asks, direction_SDK, MOST, batching, **how)

        made = answers()
        ours_here = [
            timed(OURS, answers),
            timed(OURS_LESS, lambda: answers(prompt_logprobs=False)),
        ]
        others = contestants(hf, asks, made, ending)
        with joined(work, saved, asked, asks, direction_SDK, made) as (peers_here, notes):
            times = common.rounds([*ours_here, *others, *peers_here], asked)
    tokens = sum(map(len, made.texts))
    notes = [f"{tokens} new tokens, {tokens / len(asks):.0f} on average. All texts equal.", *notes]
    title = f"{shape.name}, float32: {len(asks)} prompts, {ROWS} rows, {TRAITS} traits"
    table = Table(title, common.COLUMNS, common.against(times, OURS), notes)
    figures = {
        f"times {OURS_NAMES[base]}": {name: common.ratio(times, name, base) for name in times}
        for base in OURS_NAMES
    }
    return table, {"seconds": common.medians(times), **figures}


def contestants(
    hf: Any,
    asks: list[list[int]],
    made: ours.Made,
    ending: contextlib.AbstractContextManager[object],
) -> list[Contestant]:
    """`generate` in three ways, within `ending`, each held against our texts first."""
    given, longest_first = list(range(len(asks))), plain.sorted_order(asks)

    def generated(part: plain.Ids) -> list[list[int]]:
        with ending:
            return plain.generated(hf, part, MOST)

    def dropping(part: plain.Ids) -> list[list[int]]:
        with ending:
            return plain.dropping(hf, part, MOST)

    ways = {
        "generate, fixed batches in the order given": (given, generated),
        "generate, fixed batches, longest first": (longest_first, generated),
        "a loop that drops rows, fixed batches, longest first": (longest_first, dropping),
    }
    for name, (order, way) in ways.items():
        few = order[:2]
        wanted = [made.texts[i] for i in few]
        if way([asks[i] for i in few]) != wanted:
            raise AssertionError(f"'{name}' makes other texts than ours")
    return [
        timed(name, lambda order=order, way=way: plain.fixed(asks, ROWS, order, way))
        for name, (order, way) in ways.items()
    ]


@contextlib.contextmanager
def joined(
    work: Work,
    saved: Path,
    asked: Options,
    asks: list[list[int]],
    direction_SDK: Any,
    made: ours.Made,
) -> Iterator[tuple[list[Contestant], list[str]]]:
    """Peers that make our texts and scores, in fixed batches as given; and notes on all."""
    if not work.with_peers:
        yield [], []
        return
    batches = [asks[start : start + ROWS] for start in range(0, len(asks), ROWS)]
    given = {"new": MOST}
    blocks = work.shape.blocks
    with peers(saved, "float32", blocks, direction_SDK, asked, MEAN) as (found, missing):
        here = []
        for worker in found:
            if wrong := worker.check("generate", batches, given, made):
                missing[worker.peer.name] = wrong
            else:
                here.append(worker.contestant("generate", batches, given))
        yield here, listed(missing, found)


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
