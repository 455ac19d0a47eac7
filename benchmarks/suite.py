"""The overnight work: 24 prompts, 50 new tokens each, every site, in one batch.

Contestants: traitscope with and without capture; `generate` without capture, and with
`output_hidden_states` projected afterwards; each peer; and the usual script, one prompt at a time.
Loading is outside all of them, but for the usual script, whose loads are measured apart.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks import common, ours, plain, usual
from benchmarks.common import Contestant, Options, Table, Took, finish, options, timed
from benchmarks.ending import EOS
from benchmarks.peers.client import listed, peers
from benchmarks.shapes import SHAPES, Shape, build, folder, prompts, wrapped
from traitscope.engine import Batching, packed_bytes
from traitscope.models import Model

ROWS, NEW, TRAITS, TRAITS_OF_THE_SUITE = 24, 50, 8, 4
TEMPERATURE, NUCLEUS = 0.7, 0.9
BASE = "generate, no capture"


def main() -> None:
    asked = options(__doc__.splitlines()[0], rounds=5)
    if asked.quick:
        plan = [("tiny", "float32")]
    else:
        plan = [("framework", "float32"), ("130m", "float32"), ("130m", "bfloat16")]
    sampled_on = "tiny" if asked.quick else "130m"
    tables, figures = [], {}
    for name, dtype in plan:
        usual_too = dtype == "float32" and name != "framework"
        title = f"{name} {dtype}"
        if not asked.wants(title) and not (usual_too and asked.wants("usual")):
            continue
        shape = SHAPES[name]
        hf = build(shape, getattr(torch, dtype))
        # seconds are short there, and so more rounds are affordable
        more = dataclasses.replace(asked, rounds=asked.rounds * (3 if name == "framework" else 1))
        with TemporaryDirectory() as place:
            saved = folder(shape, hf, Path(place))
            if asked.wants(title):
                table, figures[title] = common.measured(
                    title, batched, shape, hf, dtype, saved, more
                )
                tables.append(table)
            if usual_too and asked.wants("usual"):
                table, figures["usual"] = common.measured(
                    "usual", one_by_one, shape, hf, saved, asked
                )
                tables.append(table)
    title = f"{sampled_on} sampled"
    if asked.wants(title):
        table, figures[title] = common.measured(title, sampled, SHAPES[sampled_on], asked)
        tables.append(table)
    title = "gemma-2-2b bfloat16"
    if not asked.quick and asked.wants(title):
        table, figures[title] = common.measured(title, large, asked)
        tables.append(table)
    finish("suite", asked, tables, figures)


# --- one batch -----------------------------------------------------------------------------------


def batched(
    shape: Shape, hf: Any, dtype: str, saved: Path, asked: Options
) -> tuple[Table, dict[str, Any]]:
    model, asks = wrapped(shape, hf), prompts(shape, ROWS, 5, 30)
    direction_SDK = ours.directions(model, TRAITS)
    made = ours.answers(model, asks, direction_SDK, NEW, Batching(ROWS))
    notes = [verify(hf, made, asks, dtype)]
    contestants = [
        timed(BASE, lambda: plain.generated(hf, asks, NEW)),
        *own(model, asks, direction_SDK),
        timed(
            "generate, output_hidden_states, then project",
            lambda: plain.with_states(hf, asks, NEW, torch.from_numpy(direction_SDK)),
        ),
    ]
    with peers(saved, dtype, shape.blocks, direction_SDK, asked) as (workers, missing):
        for worker in workers:
            if wrong := worker.check("generate", [asks], {"new": NEW}, made):
                missing[worker.peer.name] = wrong
            else:
                contestants.append(worker.contestant("generate", [asks], {"new": NEW}))
        notes += listed(missing, workers)
        times = common.rounds(contestants, asked)
    title = f"{shape.name}, {dtype}: {ROWS} prompts x {NEW} tokens, {TRAITS} traits"
    table = Table(title, common.COLUMNS, common.against(times, BASE), notes)
    figures = {name: common.ratio(times, name, BASE) for name in times}
    return table, {"seconds": common.medians(times), "times the base": figures}


def own(model: Model, asks: list[list[int]], direction_SDK: Any) -> list[Contestant]:
    batching = Batching(ROWS)
    return [
        timed("ours", lambda: ours.answers(model, asks, direction_SDK, NEW, batching)),
        timed("ours, capture off", lambda: ours.uncaptured(model, asks, NEW, batching)),
    ]


def verify(hf: Any, made: ours.Made, asks: list[list[int]], dtype: str) -> str:
    """Texts of `generate` and ours: equal in float32; counted where shapes of batches matter."""
    texts = plain.generated(hf, asks, NEW)
    same = sum(a == b for a, b in zip(texts, made.texts, strict=True))
    if dtype == "float32" and same < len(asks):
        raise AssertionError(f"ours and generate: {same} of {len(asks)} texts equal")
    if [len(text) for text in texts] != [len(text) for text in made.texts]:
        raise AssertionError("ours and generate made texts of other lengths")
    return (
        f"{same} of {len(asks)} texts of ours and of generate are equal; all have the same length."
    )


# --- tokens that are drawn ---


def sampled(shape: Shape, asked: Options) -> tuple[Table, dict[str, Any]]:
    """Sampling, with and without a nucleus: of random weights it holds most of the vocabulary."""
    hf = build(shape, torch.float32)
    model, asks = wrapped(shape, hf), prompts(shape, ROWS, 5, 30)
    direction_SDK = ours.directions(model, TRAITS)
    contestants = []
    for top_p in (1.0, NUCLEUS):
        how = f"temperature {TEMPERATURE}" + (f", top_p {top_p}" if top_p < 1 else "")
        contestants += [
            timed(
                f"generate, no capture, {how}",
                lambda p=top_p: plain.drawn(hf, asks, NEW, TEMPERATURE, p),
            ),
            timed(
                f"ours, {how}",
                lambda p=top_p: ours.answers(
                    model,
                    asks,
                    direction_SDK,
                    NEW,
                    Batching(ROWS),
                    temperature=TEMPERATURE,
                    top_p=p,
                ),
            ),
        ]
    contestants.append(own(model, asks, direction_SDK)[0])
    contestants[-1] = dataclasses.replace(contestants[-1], name="ours, greedy")
    base = contestants[0].name
    times = common.rounds(contestants, asked)
    title = f"{shape.name}, float32, sampled: {ROWS} prompts x {NEW} tokens, {TRAITS} traits"
    notes = ["Each draws with its own dice: no texts to compare. Hardly any draws an end token."]
    table = Table(title, common.COLUMNS, common.against(times, base), notes)
    figures = {name: common.ratio(times, name, base) for name in times}
    return table, {"seconds": common.medians(times), "times the base": figures}


# --- one prompt at a time ------------------------------------------------------------------------


def one_by_one(shape: Shape, hf: Any, saved: Path, asked: Options) -> tuple[Table, dict[str, Any]]:
    """The usual script over all prompts for one trait, once; its loads; and ours beside both."""
    model, asks = wrapped(shape, hf), prompts(shape, ROWS, 5, 30)
    direction_SDK = ours.directions(model, TRAITS_OF_THE_SUITE)
    opening = timed("load", lambda: usual.opened(saved, hf.dtype))
    load = [common.quiet_turn(opening, asked) for _ in range(4)]
    work, texts = Took(0, 0), []
    for at, ids in enumerate(asks):
        made: list[list[int]] = []
        answer = timed("usual", lambda i=ids, m=made: m.append(by_usual(hf, i, direction_SDK)))
        work += common.quiet_turn(answer, asked)
        texts.append(made[-1])
        common.say(f"the usual script: {at + 1} of {ROWS} prompts")
    mine = common.quiet_turn(own(model, asks, direction_SDK)[0], asked)  # weights are packed in it
    answers = ours.answers(model, asks, direction_SDK, NEW, Batching(ROWS)).texts
    if texts != answers:
        raise AssertionError("ours and the usual script made other texts")
    one_load = common.middle(load)
    return usual_table(shape, work, one_load, mine)


def by_usual(hf: Any, ids: list[int], direction_SDK: Any) -> list[int]:
    return usual.one_prompt(hf, ids, NEW, direction_SDK[2::2, :, 0], EOS)[0]


def usual_table(shape: Shape, work: Took, load: Took, mine: Took) -> tuple[Table, dict[str, Any]]:
    traits = TRAITS_OF_THE_SUITE
    every = work.times(traits) + load.times(traits * ROWS)
    ways = {
        "the usual script, one trait, one load": work + load,
        f"the usual script, {traits} traits, a load per prompt (worked out)": every,
        f"ours, {traits} traits at all sites, one load": mine + load,
    }
    base = mine + load
    rows = [
        [way, f"{took.wall:.1f}", f"{took.cpu:.1f}", f"{took.wall / base.wall:.1f}"]
        for way, took in ways.items()
    ]
    notes = [
        f"Worked out: {traits} x the one trait's measured time, and {traits * ROWS} x one load's "
        f"({load.wall:.2f} s, median of 4, the file in memory).",
        "All texts are equal. The usual script reads the blocks' outputs only. Packing weights is "
        "within our time.",
    ]
    title = f"{shape.name}, float32: one prompt at a time, no cache"
    columns = ("way", "wall s", "CPU s", "x ours")
    ratios = {way: took.wall / base.wall for way, took in ways.items()}
    return Table(title, columns, rows, notes), {"seconds": ways, "times ours": ratios}


# --- a model of real size ------------------------------------------------------------------------


def large(asked: Options) -> tuple[Table, dict[str, Any]]:
    """Gemma-2-2B's shape against one bare prefill and as many bare steps."""
    shape = SHAPES["gemma-2-2b"]
    hf = build(shape, torch.bfloat16)
    model, asks = wrapped(shape, hf), prompts(shape, ROWS, 5, 30)
    direction_SDK = ours.directions(model, TRAITS)
    ours.answers(model, asks[:1], direction_SDK, 1, Batching(1))  # packs the weights
    base = "one bare prefill, bare steps"
    contestants = [
        timed(base, lambda: plain.bare_steps(hf, asks, NEW)),
        own(model, asks, direction_SDK)[0],
    ]
    few = dataclasses.replace(asked, rounds=min(asked.rounds, 2))
    times = common.rounds(contestants, few)
    title = f"{shape.name}'s shape, bfloat16: {ROWS} prompts x {NEW} tokens, {TRAITS} traits"
    share = packed_bytes(model) / sum(p.numel() * p.itemsize for p in hf.parameters())
    notes = [f"Packed weights take {share:.2f} times what the model's own do; made before."]
    table = Table(title, common.COLUMNS, common.against(times, base), notes)
    figures = {name: common.ratio(times, name, base) for name in times}
    return table, {"seconds": common.medians(times), "times the base": figures}


if __name__ == "__main__":
    main()
