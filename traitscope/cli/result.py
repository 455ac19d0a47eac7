"""What `run --json` and `capture --json` print: the result of one call, as JSON values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from traitscope.report.expectations import Verdict
from traitscope.report.summary import Summary
from traitscope.report.usage import bottleneck

if TYPE_CHECKING:
    from traitscope.runner import Outcome

__all__ = ["run_result"]

_OF_THIS_CALL = (
    "model_loads",
    "batches",
    "steps",
    "tokens",
    "new_tokens",
    "tokens_per_second",
    "made",
    "seconds",
    "usage",
    "planned",
)


def run_result(outcome: Outcome, summary: Summary) -> dict[str, Any]:
    """Counts are the run's; loads, batches, tokens and seconds are this call's."""
    counts = summary.counts
    return {
        "run": str(outcome.path),
        "captures": counts.done,
        "wanted": counts.wanted,
        "trajectories": counts.trajectories,
        "internals": counts.internals,
        "failed": counts.failed,
        "missing": counts.missing,
        "unproven": list(summary.unproven),
        "devices": list(summary.devices),
        "failures": [asdict(failure) for failure in summary.failures],
        "bottleneck": " ".join(_bottleneck(outcome, summary)) or None,
        **{name: outcome.stats.get(name) for name in _OF_THIS_CALL},
        "expectations": [_expectation(verdict) for verdict in summary.expectations],
        "already_done": outcome.already_done,
        "resumed": outcome.resumed,
        "traits": [trait.trait for trait in summary.traits],
        "model": dict(summary.model),
    }


def _bottleneck(outcome: Outcome, summary: Summary) -> Iterator[str]:
    usage = outcome.stats.get("usage") or {}
    return bottleneck(usage, summary.rows, str(summary.model.get("dtype", "")))


def _expectation(verdict: Verdict) -> dict[str, Any]:
    names = ("text", "trait", "held", "difference", "margin", "tested", "p", "note")
    return {name: getattr(verdict, name) for name in names}
