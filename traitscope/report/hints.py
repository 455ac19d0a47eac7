"""Summary -> what to look at first: a few sentences, the most pressing one first.

Each says what is there and, where that helps, what to do.  Thresholds are in z and stand here.
Knows nothing of screens.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from traitscope.report.plain import one_line, shorten
from traitscope.report.summary import PromptRow, Summary, TraitSummary

__all__ = ["ALPHA", "hints"]

MOST = 5  # sentences
ALPHA = 0.05  # above it a difference is said to be one that chance can make
_NAME = 48  # characters of a prompt's name


def hints(summary: Summary) -> list[str]:
    """At most `MOST` sentences."""
    found = [
        *_unfinished(summary),
        *_failed(summary),
        *_warnings(summary),
        *_expectations(summary),
        *_chance(summary),
        *_answers(summary),
        *_largest(summary),
        *_words(summary),
    ]
    return found[:MOST]


def _unfinished(summary: Summary) -> Iterator[str]:
    missing = summary.counts.missing
    if missing:
        yield f"{_count(missing, 'capture')} still to make: the same command goes on from here."


def _failed(summary: Summary) -> Iterator[str]:
    if summary.counts.failed:
        reasons = len({failure.reason for failure in summary.failures})
        yield (
            f"{_count(summary.counts.failed, 'capture')} failed, for {_count(reasons, 'reason')} "
            "(named above). The same command with --retry-failed tries again."
        )


def _warnings(summary: Summary) -> Iterator[str]:
    """What the directions themselves warn of, the same words once."""
    for warning in dict.fromkeys(t.warning for t in summary.traits if t.warning):
        names = [trait.trait for trait in summary.traits if trait.warning == warning]
        yield f"{', '.join(names)}: {shorten(one_line(warning), 120)}."


def _expectations(summary: Summary) -> Iterator[str]:
    missed = [v for v in summary.expectations if v.held is False]
    if missed:
        worst = min(missed, key=lambda v: v.difference - v.margin)
        yield (
            f"{len(missed)} of {_count(len(summary.expectations), 'expectation')} did not hold; "
            f'furthest off: "{shorten(one_line(worst.text), 72)}" '
            f"({worst.difference:+.2f}, wanted {worst.margin:g} or more)."
        )


def _chance(summary: Summary) -> Iterator[str]:
    """What held, and might as well by chance."""
    doubtful = [v for v in summary.expectations if v.held and v.p is not None and v.p > ALPHA]
    if doubtful:
        yield (
            f"{_count(len(doubtful), 'expectation')} held by a difference that chance can make "
            f"(p above {ALPHA:g}): more samples would tell."
        )


def _answers(summary: Summary) -> Iterator[str]:
    counts = summary.counts
    if counts.unanswered:
        yield (
            f"{counts.unanswered:,} of {_count(counts.texts, 'text')} ended in their thoughts, "
            "with no answer: raise max_new_tokens, turn thinking off, or expect something of "
            "thinking[:]."
        )
    if counts.empty > counts.unanswered:
        blank = _count(counts.empty - counts.unanswered, "answer")
        yield f"{blank} without a word: there is no mean to read."
    if counts.cut and 2 * counts.cut > counts.texts:
        limit = summary.generation.get("max_new_tokens", "max_new_tokens")
        yield (
            f"{counts.cut:,} of {_count(counts.texts, 'answer')} were cut off at {limit} tokens: "
            "what they end on was not read."
        )


def _largest(summary: Summary) -> Iterator[str]:
    wide = [t for t in summary.traits if not math.isnan(t.contrast)]
    if not wide:
        return
    trait = max(wide, key=lambda t: t.contrast)
    rows = [row for row in trait.prompts if not math.isnan(row.response)]
    yield (
        f"Largest contrast: {trait.trait}, {trait.contrast:.1f} z between "
        f'"{_short(rows[0])}" and "{_short(rows[-1])}".'
    )


def _words(summary: Summary) -> Iterator[str]:
    """Traits whose contrast the words alone show as well: `embed` knows nothing but the token."""
    told = [trait.trait for trait in summary.traits if _by_words(trait)]
    if told:
        verb = "contrast is" if len(told) == 1 else "contrasts are"
        yield (
            f"The words alone tell as much for {', '.join(told)}: the {verb} no larger at the "
            "read site than at embed. Look at 'before', which no word has touched."
        )


def _by_words(trait: TraitSummary) -> bool:
    rows = [row for row in trait.prompts if not math.isnan(row.response)]
    if len(rows) < 2 or math.isnan(rows[0].embed) or math.isnan(rows[-1].embed):
        return False
    return trait.contrast >= 1.0 and rows[0].embed - rows[-1].embed >= trait.contrast


def _short(row: PromptRow) -> str:
    return shorten(one_line(row.name), _NAME)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
