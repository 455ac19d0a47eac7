"""Summary -> the sentences that every form of the report shares: terminal, Markdown, HTML.

Plain words and numbers, no signs of a screen and no markup; text of people and models is passed on
as it is, and whoever draws makes it safe for what it draws on.
"""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Mapping, Sequence

from traitscope.report.cost import Call
from traitscope.report.expectations import Verdict
from traitscope.report.hints import ALPHA
from traitscope.report.summary import Failure, Summary
from traitscope.report.usage import usage_lines

__all__ = [
    "COLUMNS",
    "NEUTRAL_NOTE",
    "agreement",
    "calls",
    "count",
    "facts",
    "failed",
    "machine",
    "marks",
    "notes",
    "outcome",
    "outcomes",
    "place",
    "signed",
    "sure",
    "unproven",
    "used",
]

COLUMNS = {
    "before": "z before a word is written",
    "answer": "z over the answer",
    "embed": "what its words alone say",
}
NEUTRAL_NOTE = "neutral: how far neutral texts lie apart in that reading (one standard deviation)"
_PHASES = ("load", "directions", "generate", "internals", "write")
_INNER = ("prefill", "decode", "total")  # parts of "generate", and the sum
_SHORTEST = 0.05  # seconds; shorter phases are left out


def count(number: int, noun: str, plural: str = "") -> str:
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def signed(z: float, digits: int = 2) -> str:
    """A z with its sign; an empty string where there is none."""
    if math.isnan(z):
        return ""
    return f"{'+' if z >= 0 else chr(0x2212)}{abs(z):.{digits}f}"


def place(path: str) -> str:
    """A path as one would type it here: relative if it is below, quoted if it must be."""
    near = os.path.relpath(path)
    return shlex.quote(path if near.startswith("..") else near)


# --- did it finish -------------------------------------------------------------------------------


def outcome(summary: Summary) -> str:
    counts = summary.counts
    if counts.done == counts.wanted:
        return f"finished: all {counts.wanted:,} captures are there"
    said = f"{counts.done:,} of {counts.wanted:,} captures"
    fallen = f", {counts.failed:,} failed" if counts.failed else ""
    return f"{'not finished' if counts.missing else 'finished'}: {said}{fallen}"


def facts(summary: Summary) -> list[str]:
    counts = summary.counts
    return [
        count(counts.trajectories, "trajectory", "trajectories"),
        f"{counts.internals:,} internals",
        count(len(summary.traits), "trait"),
        count(counts.texts, "answer"),
    ]


def machine(summary: Summary) -> list[str]:
    """The model, its dtype and device, and when the run ended or began."""
    time = summary.cost.ended or summary.created
    known = [str(summary.model[k]) for k in ("name", "dtype", "device") if summary.model.get(k)]
    return [*known, f"{time[:16].replace('T', ' ')} UTC"]


def agreement(summary: Summary) -> list[str]:
    """How far a batched number was from the same number alone, and what else to know of it."""
    proofs = summary.proofs if isinstance(summary.proofs, list) else []
    said = []
    for proof in proofs:
        if not isinstance(proof, Mapping) or not proof.get("held"):
            continue
        if proof.get("name") == "batched = alone":
            detail = f", {proof['detail']}" if proof.get("detail") else ""
            said.append(f"batched = alone within {proof['difference']:.1e} |h|{detail}")
    if len(summary.devices) > 1:
        kinds = ", then ".join(summary.devices)
        said.append(f"Made on {kinds}: the last digits of its texts' numbers do not compare.")
    if summary.counts.outside:
        said.append(
            f"{summary.counts.outside:,} more captures are kept that are not in the suite any more"
        )
    return said


def unproven(summary: Summary) -> list[str]:
    """What failed at load and was passed over, below a sentence that says what that means."""
    if not summary.unproven:
        return []
    first = "The model did not prove exact (--allow-unproven): do not trust these numbers."
    return [first, *summary.unproven]


def failed(failure: Failure) -> str:
    """Which captures of which set."""
    plural = {"trajectory": "trajectories"}.get(failure.kind, failure.kind)
    return f"{failure.prompt_set}: {count(failure.captures, failure.kind, plural)}"


# --- what was expected ---------------------------------------------------------------------------


def outcomes(verdicts: Sequence[Verdict]) -> str:
    held = [verdict for verdict in verdicts if verdict.held]
    said = f"{len(held)} of {len(verdicts)} held"
    if any(verdict.p is not None for verdict in verdicts):
        sure = sum(verdict.p is not None and verdict.p <= ALPHA for verdict in held)
        said += f", {sure} of them with p at most {ALPHA}"
    return said


def marks(verdicts: Sequence[Verdict]) -> dict[str, str]:
    """A letter for each reason for which a measured expectation was not tested: reason -> letter.

    Empty where one reason holds for all: that is said once (`notes`), without a letter.
    """
    measured = [verdict for verdict in verdicts if verdict.held is not None]
    reasons = list(dict.fromkeys(v.note for v in measured if v.p is None))
    if len(reasons) == 1 and not any(v.p is not None for v in measured):
        return {}
    return dict(zip(reasons, "abcdefgh", strict=False))


def sure(verdict: Verdict, reasons: Mapping[str, str]) -> str:
    """How sure one can be, in a column of `marks`: p, or the letter of why there is none."""
    return reasons.get(verdict.note, "") if verdict.p is None else f"{verdict.p:.2g}"


def notes(verdicts: Sequence[Verdict]) -> list[str]:
    """What stands below the expectations: how they were tested, or why not."""
    tested = [verdict for verdict in verdicts if verdict.p is not None]
    reasons = marks(verdicts)
    said = [f"{letter}: {reason}" for reason, letter in reasons.items()]
    if tested:
        said.insert(0, f"p: permutation over whole answers, {tested[0].note}")
    elif not reasons:
        said += list(dict.fromkeys(v.note for v in verdicts if v.held is not None))
    return [*said, NEUTRAL_NOTE]


# --- what it cost --------------------------------------------------------------------------------


def calls(summary: Summary) -> list[tuple[str, list[str], list[str]]]:
    """The last call and, if there were several, all of them: name, what was done, seconds."""
    cost = summary.cost
    if cost.last is None:
        return []
    ended = ", interrupted" if cost.last.interrupted else ""
    name = f"last call{ended}" if cost.calls > 1 or ended else ""
    said = [(name, _done(cost.last, summary), _took(cost.last))]
    if cost.calls > 1:
        said.append((f"all {cost.calls} calls", _done(cost.total, summary), _took(cost.total)))
    return said


def used(summary: Summary) -> list[str]:
    """How much of the machine the last call used, what was planned, what held it back."""
    call = summary.cost.last
    if call is None:
        return []
    dtype = str(summary.model.get("dtype", ""))
    return usage_lines(call.usage, call.planned, call.seconds, summary.rows, dtype)


def _done(call: Call, summary: Summary) -> list[str]:
    said = [
        count(call.model_loads, "model load"),
        f"{count(call.batches, 'batch', 'batches')} of up to {count(summary.rows, 'row')}",
        f"{count(call.new_tokens, 'token')} written",
    ]
    if call.tokens_per_second:
        rate = call.tokens_per_second
        said.append(f"{rate:,.0f} tokens/s" if rate >= 10 else f"{rate:.1f} tokens/s")
    return said


def _took(call: Call) -> list[str]:
    phases = [*_PHASES, *(k for k in call.seconds if k not in (*_PHASES, *_INNER))]
    said = [
        f"{phase} {_seconds(call.seconds[phase])}"
        for phase in phases
        if call.seconds.get(phase, 0) >= _SHORTEST
    ]
    if "total" in call.seconds:
        said.append(f"in all {_seconds(call.seconds['total'])}")
    return said


def _seconds(value: float) -> str:
    if value < 100:
        return f"{value:.1f} s"
    minutes, seconds = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s"
