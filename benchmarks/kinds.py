"""Architectures: the overnight work in each of many, ours with capture against `generate` without.

24 prompts, 50 new tokens each, one batch, 8 traits at every site, float32; small ones, of which
Python and dispatch are the larger part, and ones of the 130M's width.  What a config does not say
is transformers' default.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from benchmarks import common, ours, plain
from benchmarks.common import Options, Table, Took, finish, options, timed
from benchmarks.shapes import SHAPES, Shape, build, prompts, wrapped
from traitscope.engine import Batching

ROWS, NEW, TRAITS = 24, 50, 8
DENSE = ("gemma2", "gemma3_text", "llama", "mistral", "qwen2", "qwen3", "phi3", "olmo2", "cohere")
DENSE += ("gpt2", "gpt_neox", "phi", "stablelm")
MIXTURES = ("mixtral",)
COLUMNS = ("architecture", "weights", "generate, s", "ours, s", "ours x generate (least-most)")


def main() -> None:
    asked = options(__doc__.splitlines()[0], rounds=3)
    # seconds are short where models are small, and so more rounds are affordable
    sizes = [("framework", 3 * asked.rounds), ("130m", asked.rounds)]
    kinds = (*DENSE, *MIXTURES)
    if asked.quick:
        sizes, kinds = [("tiny", 1)], ("gpt2", "llama", "mixtral")
    tables, figures = [], {}
    for name, rounds in sizes:
        if not asked.wants(name):
            continue
        often = dataclasses.replace(asked, rounds=rounds)
        table, figures[name] = common.measured(name, measured, SHAPES[name], kinds, often)
        tables.append(table)
    finish("kinds", asked, tables, figures)


def measured(
    shape: Shape, kinds: tuple[str, ...], asked: Options
) -> tuple[Table, dict[str, common.Ratio]]:
    rows, figures = [], {}
    for kind in kinds:
        size, times = in_turns(dataclasses.replace(shape, kind=kind), asked)
        figures[kind] = common.ratio(times, "ours", "generate")
        seconds = [common.spread(times, way) for way in ("generate", "ours")]
        rows.append([kind, f"{size / 1e6:.3g}M", *seconds, str(figures[kind])])
        common.say(f"{shape.name}: {kind}")
    title = (
        f"{shape.blocks} blocks of width {shape.d_model}, float32: {ROWS} prompts x {NEW} tokens, "
        f"{TRAITS} traits at every site"
    )
    return Table(title, COLUMNS, rows, ["All texts are those of generate."]), figures


def in_turns(shape: Shape, asked: Options) -> tuple[int, dict[str, list[Took]]]:
    """Numbers that a model has, and seconds of both ways; texts must be equal."""
    hf = build(shape)
    model, asks = wrapped(shape, hf), prompts(shape, ROWS, 5, 30)
    direction_SDK = ours.directions(model, TRAITS)

    def answer() -> Any:
        return ours.answers(model, asks, direction_SDK, NEW, Batching(ROWS)).texts

    if answer() != plain.generated(hf, asks, NEW):
        raise AssertionError(f"{shape.kind}: ours and generate made other texts")
    contestants = [
        timed("generate", lambda: plain.generated(hf, asks, NEW)),
        timed("ours", answer),
    ]
    size = sum(parameter.numel() for parameter in hf.parameters())
    return size, common.rounds(contestants, asked)


if __name__ == "__main__":
    main()
