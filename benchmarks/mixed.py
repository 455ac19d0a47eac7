"""Mixed lengths: many prompts of 5-200 tokens, answers that end by themselves (mean 40, most 200).

traitscope with all sites captured, in continuous batches, against `generate` without capture in
fixed batches of as many rows: in the order given, longest first, and with rows dropped when they
end; and against the peers with the same capture, in fixed batches as given.  The peers work
through fewer prompts, since some take minutes.  Ours also without what none of the others gives,
the log probabilities of the prompts' own tokens, for which the head reads all of them.  Where each
takes minutes they go on in turns of seconds (`slices.py`), since a machine's speed changes.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks import common, ours, plain
from benchmarks.common import Contestant, Options, Table, finish, options, timed
from benchmarks.ending import Ending
from benchmarks.peers.client import listed, peers
from benchmarks.shapes import SHAPES, Shape, build, folder, prompts, wrapped
from benchmarks.slices import TURN, in_slices
from benchmarks.slices import Work as Slices
from traitscope.engine import Batching, join_rule

ROWS, MOST, MEAN, TRAITS = 24, 200, 40, 8
OURS = "ours, all sites"
OURS_LESS = "ours, without log probabilities of prompts"
OURS_NAMES = {OURS: "ours", OURS_LESS: "ours, less"}  # in the figures
# `generate`'s: whether the longest go first, and what in `plain` answers a batch
THEIRS = {
    "generate, fixed batches in the order given": (False, "generated"),
    "generate, fixed batches, longest first": (True, "generated"),
    "a loop that drops rows, fixed batches, longest first": (True, "dropping"),
}
SAME = 0.95  # of texts, at least: random weights have near ties


@dataclasses.dataclass(frozen=True)
class Work:
    """How many prompts of a shape are answered, and how often."""

    shape: Shape
    prompts: int
    rounds: int
    with_peers: bool
    slices: bool = False


def main() -> None:
    asked = options(__doc__.splitlines()[0], rounds=3)
    works = [
        Work(SHAPES["framework"], 500, asked.rounds, False),
        Work(SHAPES["framework"], 96, asked.rounds, True),
        Work(SHAPES["130m"], 500, 1, False, slices=True),  # 20 minutes in all
    ]
    if asked.quick:
        works = [Work(SHAPES["tiny"], 8, 1, True), Work(SHAPES["tiny"], 9, 1, False, slices=True)]
    tables, figures = [], {}
    for work in works:
        peers_too = ", with peers" if work.with_peers else ""
        title = f"{work.shape.name} {work.prompts} prompts{peers_too}"
        often = dataclasses.replace(asked, rounds=work.rounds)
        if not asked.wants(title):
            continue
        way = in_turns if work.slices else measured
        table, figures[title] = common.measured(title, way, work, often)
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
            with ending:
                return ours.answers(model, asks, direction_SDK, MOST, batching, **how)

        made = answers()
        ours_here = [
            timed(OURS, answers),
            timed(OURS_LESS, lambda: answers(prompt_logprobs=False)),
        ]
        others = contestants(hf, asks, made, ending)
        with joined(work, saved, asked, asks, direction_SDK, made) as (peers_here, notes):
            times = common.rounds([*ours_here, *others, *peers_here], asked)
    return told(work, times, made.texts, ["All texts equal.", *notes])


def told(
    work: Work, times: common.Times, texts: list[list[int]], notes: list[str]
) -> tuple[Table, dict[str, Any]]:
    tokens, n = sum(map(len, texts)), len(texts)
    title = f"{work.shape.name}, float32: {n} prompts, {ROWS} rows, {TRAITS} traits"
    notes = [f"{tokens} new tokens, {tokens / n:.0f} on average. {notes[0]}", *notes[1:]]
    table = Table(title, common.COLUMNS, common.against(times, OURS), notes)
    figures = {
        f"times {OURS_NAMES[base]}": {name: common.ratio(times, name, base) for name in times}
        for base in OURS_NAMES
    }
    return table, {"seconds": common.medians(times), **figures}


# --- in turns of seconds -------------------------------------------------------------------------


def in_turns(work: Work, asked: Options) -> tuple[Table, dict[str, Any]]:
    """Once, each contestant in a process of its own; every text is held against ours."""
    ways = {
        OURS: partial(our_way, work, prompt_logprobs=True),
        OURS_LESS: partial(our_way, work, prompt_logprobs=False),
        **{name: partial(their_way, work, name) for name in THEIRS},
    }
    found = in_slices(ways, asked)
    texts, notes = found[OURS][1], [f"In turns of {TURN:.0f} s."]
    for name, (_, others) in found.items():
        same = sum(a == b for a, b in zip(texts, others, strict=True))
        if same < SAME * len(texts):
            raise AssertionError(f"'{name}' makes other texts than ours: {same} are the same")
        if same < len(texts):
            notes.append(f"{name}: {same} of {len(texts)} texts are ours.")
    if len(notes) == 1:
        notes[0] += " All texts equal."
    return told(work, {name: [took] for name, (took, _) in found.items()}, texts, notes)


def our_way(work: Work, prompt_logprobs: bool) -> Slices:
    hf = build(work.shape)
    model, asks = wrapped(work.shape, hf), prompts(work.shape, work.prompts, 5, MOST)
    direction_SDK = ours.directions(model, TRAITS)
    batching = Batching(ROWS, join_rule(model, ROWS))
    how = {"prompt_logprobs": prompt_logprobs}
    with Ending(hf, MEAN):
        ours.answers(model, asks[: ROWS + 1], direction_SDK, 2, batching, **how)
        yield 0.0
        texts = dict[int, list[int]]()
        for trace in ours.traces(model, asks, direction_SDK, MOST, batching, **how):
            texts[trace.generation.sample] = trace.token_ids[trace.n_prompt :].tolist()
            yield len(texts) / len(asks)
    return [texts[at] for at in range(len(asks))]


def their_way(work: Work, name: str) -> Slices:
    hf, asks = build(work.shape), prompts(work.shape, work.prompts, 5, MOST)
    longest_first, way = THEIRS[name]
    answers = getattr(plain, way)
    order = plain.sorted_order(asks) if longest_first else list(range(len(asks)))
    texts = dict[int, list[int]]()
    with Ending(hf, MEAN):
        answers(hf, asks[:2], 2)
        yield 0.0
        for start in range(0, len(asks), ROWS):
            part = order[start : start + ROWS]
            texts.update(zip(part, answers(hf, [asks[i] for i in part], MOST), strict=True))
            yield len(texts) / len(asks)
    return [texts[at] for at in range(len(asks))]


# --- in one process, round after round -----------------------------------------------------------


def contestants(
    hf: Any,
    asks: list[list[int]],
    made: ours.Made,
    ending: contextlib.AbstractContextManager[object],
) -> list[Contestant]:
    """`generate` in three ways, within `ending`, each held against our texts first."""

    def contestant(name: str) -> Contestant:
        longest_first, way = THEIRS[name]
        order = plain.sorted_order(asks) if longest_first else list(range(len(asks)))

        def answered(part: plain.Ids) -> list[list[int]]:
            with ending:
                texts: list[list[int]] = getattr(plain, way)(hf, part, MOST)
                return texts

        few = order[:2]
        if answered([asks[i] for i in few]) != [made.texts[i] for i in few]:
            raise AssertionError(f"'{name}' makes other texts than ours")
        return timed(name, lambda: plain.fixed(asks, ROWS, order, answered))

    return list(map(contestant, THEIRS))


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
