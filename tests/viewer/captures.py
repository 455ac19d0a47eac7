"""A run with a bit of everything that a table of captures shows, and some of it hostile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from tests.report.planted import STATS, TRAITS, Text, directions_of, header_of, record_of
from traitscope.core import Capture, Prompt, TextRecord
from traitscope.runs import Run, RunWriter

MARKUP = "<img src=x onerror=\"document.title='broken in'\"><script>throw 1</script>"


@dataclass(frozen=True)
class Asked:
    """One text and the captures that are made of it."""

    text: Text
    sets: Sequence[str] = ("asked",)
    kinds: Sequence[str] = ("trajectory",)
    tags: Mapping[str, str] = field(default_factory=dict)
    label: str | None = None

    @property
    def record(self) -> TextRecord:
        record = record_of(self.text)
        prompt = Prompt(record.prompt.messages, self.label, dict(self.tags))
        return replace(record, prompt=prompt)

    @property
    def captures(self) -> list[Capture]:
        of = self.text.generation
        return [Capture(of, s, k) for s, k in zip(self.sets, self.kinds, strict=True)]  # type: ignore[arg-type]


def varied(number: int) -> Asked:
    """A text whose readings depend on its number."""
    rng = np.random.default_rng(number)
    words = [" word", f" of{number}", " mine"][: 1 + number % 3]
    text = Text(
        f"Question {number}?",
        words,
        z={trait: rng.normal(size=len(words)).round(3).tolist() for trait in TRAITS},
        before={trait: round(float(rng.normal()), 3) for trait in TRAITS},
        embed={trait: rng.normal(size=len(words)).round(3).tolist() for trait in TRAITS},
        finish="length" if number % 4 == 0 else "stop",
    )
    return Asked(text, ("even" if number % 2 == 0 else "odd",), tags={"third": str(number % 3)})


FEW = (
    *(varied(number) for number in range(5)),
    Asked(Text("Tea?", (" Yes",), z={TRAITS[0]: [7.0]}), ("both", "odd"), ("trajectory",) * 2),
    Asked(
        Text(f"{MARKUP} tea", (f" {MARKUP}",), z={TRAITS[0]: [9.0]}),
        (MARKUP,),
        tags={MARKUP: MARKUP},
        label=MARKUP,
    ),
    Asked(Text("=1+1", (" -2",), z={TRAITS[0]: [-9.0]}), ("even",), label="@formula"),
    Asked(Text("", (), finish="stop"), ("even",)),  # nothing asked, nothing said
    Asked(Text("Too long?", error=f"Expected less, got {MARKUP}."), ("odd",)),
)


def run_of(
    path: Path, asked: Sequence[Asked] = FEW, *, missing: Sequence[Asked] = (), a_part: int = 3
) -> Run:
    """A run folder with these texts, some a part; `missing` ones are wanted and not there."""
    wanted = [capture for one in (*asked, *missing) for capture in one.captures]
    directions = {trait: directions_of(trait) for trait in TRAITS}
    with RunWriter.create(path, header_of(wanted), directions) as writer:
        for first in range(0, len(asked), a_part):
            add(writer, asked[first : first + a_part])
        writer.event("finished", **STATS)
    return Run.open(path)


def add(writer: RunWriter, asked: Sequence[Asked]) -> None:
    writer.commit([one.record for one in asked], [c for one in asked for c in one.captures])
