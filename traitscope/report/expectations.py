"""The suite's `[[expect]]` tables, held against what the run read.

The difference is mean z of `higher` minus mean z of `lower` over their samples; an expectation
holds where it is at least `margin`.  That is a reading, not a test: with one sample a prompt
nothing is tested, from five samples a permutation test over whole answers is made (`permute`),
corrected over all expectations that could be tested.  `prompt[...]` windows are never tested: all
samples share the prompt, so that there is one observation however many there are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from traitscope.core import Window, mean_or_nan, read_site
from traitscope.errors import InputError
from traitscope.report.permute import Contrast, max_t
from traitscope.report.readings import depth_of, window_z
from traitscope.runs import GenerationRow, Run

__all__ = ["ENOUGH", "Verdict", "judge"]

ENOUGH = 5  # samples a prompt: with fewer than five the exact test cannot reach p < 0.01
ONE_EACH = "one sample each: not tested"
TOO_FEW = "too few samples to test"
SHARED = "not tested: every sample reads the same prompt"
SAME_TEXT = "not tested: every sample is the same text"


@dataclass(frozen=True)
class Verdict:
    """One expectation and what came.

    `held` is None where it could not be measured (`note` says why).  `difference` in z; `spread`
    is what neutral texts differ by in that reading (one standard deviation, in z), None where it
    is not known.  `p` is one-sided and corrected over all tested expectations, None where `tested`
    is False (`note` says why).
    """

    text: str
    trait: str
    higher: str
    lower: str
    window: str
    site: str
    margin: float
    held: bool | None = None
    difference: float = math.nan
    spread: float | None = None
    samples: tuple[int, int] = (0, 0)
    tested: bool = False
    p: float | None = None
    note: str = ""


def judge(run: Run, rows: Sequence[GenerationRow]) -> tuple[Verdict, ...]:
    """A verdict for each expectation of the suite, in its order; `rows` are the suite's texts."""
    judged = [_judge(run, rows, table) for table in run.header.suite.get("expect") or ()]
    contrasts = [contrast for _, contrast in judged if contrast is not None]
    corrected = iter(max_t(contrasts))
    return tuple(
        verdict if contrast is None else _with_p(verdict, next(corrected), len(contrasts))
        for verdict, contrast in judged
    )


def _with_p(verdict: Verdict, p: float, count: int) -> Verdict:
    over = "1 test" if count == 1 else f"{count} tests"
    return replace(verdict, tested=True, p=p, note=f"one-sided, corrected over {over}")


def _judge(
    run: Run, rows: Sequence[GenerationRow], table: Mapping[str, Any]
) -> tuple[Verdict, Contrast | None]:
    verdict = _asked(table)
    try:
        window = Window.parse(verdict.window)
        site = _site_of(run, verdict.trait, table.get("site", "read"))
    except InputError as problem:
        return replace(verdict, note=str(problem)), None
    verdict = replace(verdict, site=run.sites[site].name)
    sides = [_named(rows, name) for name in (verdict.higher, verdict.lower)]
    values = [_values(run, verdict.trait, site, window, side) for side in sides]
    empty = _why_empty(verdict, sides, values)
    if empty:
        return replace(verdict, note=empty), None
    high, low = ([z for _, z in pairs] for pairs in values)
    difference = mean_or_nan(high) - mean_or_nan(low)
    verdict = replace(
        verdict,
        held=difference >= verdict.margin,
        difference=difference,
        spread=_neutral_spread(run, verdict.trait, site, window),
        samples=(len(high), len(low)),
        note=_untested(window, values),
    )
    if verdict.note:
        return verdict, None
    pair = tuple(tuple(row.generation.id for row, _ in side) for side in values)
    return verdict, Contrast(pair, tuple(high), tuple(low))


def _asked(table: Mapping[str, Any]) -> Verdict:
    return Verdict(
        text=str(table.get("text", "")),
        trait=str(table.get("trait", "")),
        higher=str(table.get("higher", "")),
        lower=str(table.get("lower", "")),
        window=str(table.get("window", "response[:]")),
        site=str(table.get("site", "read")),
        margin=float(table.get("margin", 0.5)),
    )


def _site_of(run: Run, trait: str, where: str | float) -> int:
    if trait not in run.traits:
        raise InputError(f"the run has no trait '{trait}'")
    own = read_site(run.sites, depth_of(run, trait))
    return own if where == "read" else read_site(run.sites, where)


def _named(rows: Iterable[GenerationRow], name: str) -> list[GenerationRow]:
    """The texts of the prompt with this id, else with this text (as the suite resolves it)."""
    rows = list(rows)
    labelled = [row for row in rows if row.prompt.label == name]
    return labelled or [row for row in rows if row.prompt.text == name]


Values = list[tuple[GenerationRow, float]]


def _values(
    run: Run, trait: str, site: int, window: Window, rows: Iterable[GenerationRow]
) -> Values:
    """z of each done text, without those whose window is empty."""
    read = (
        (row, window_z(run, run.text(row.generation), trait, site, window))
        for row in rows
        if row.status == "done"
    )
    return [(row, z) for row, z in read if not math.isnan(z)]


def _why_empty(
    verdict: Verdict, sides: Sequence[Sequence[GenerationRow]], values: Sequence[Values]
) -> str:
    for name, side, value in zip((verdict.higher, verdict.lower), sides, values, strict=True):
        if value:
            continue
        if not side:
            return f"not measured: the run has no text for '{name}' yet"
        errors = [row.error for row in side if row.status == "failed"]
        if len(errors) == len(side):
            return f"not measured: '{name}' failed: {errors[0]}"
        return f"not measured: '{name}' has nothing to read in {verdict.window}"
    return ""


def _untested(window: Window, values: Sequence[Values]) -> str:
    """Why no test is made, or an empty string."""
    fewest = min(len(side) for side in values)
    if max(len(side) for side in values) == 1:
        return ONE_EACH
    if window.part == "prompt":
        return SHARED
    if fewest < ENOUGH:
        return TOO_FEW
    if any(len({row.response for row, _ in side}) == 1 for side in values):
        return SAME_TEXT
    return ""


def _neutral_spread(run: Run, trait: str, site: int, window: Window) -> float | None:
    """One standard deviation of neutral texts in that reading, in z."""
    if window.index is not None:
        return 1.0  # z is in units of exactly that: single tokens, or last prompt tokens
    if window.part == "prompt":
        return None  # means over prompts were not calibrated
    directions = run.directions[trait]
    std = float(directions.neutral_std[site])
    return float(directions.neutral_response_std[site]) / std if std > 0 else None
