"""What a run cost, from its log alone: loads, batches, tokens, seconds by phase.

The log's events of kind "finished" and "interrupted" carry the statistics of one call each; `last`
is the newest, the sums are over all of them.  A call that was killed leaves none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Call", "Cost", "cost_of"]

_ENDS = ("finished", "interrupted")
_COUNTED = ("model_loads", "batches", "steps", "tokens", "new_tokens", "made")


@dataclass(frozen=True)
class Call:
    """One call's own numbers; `tokens` were fed, `new_tokens` sampled.

    `usage`: what it used of the machine, `planned`: what a plan of the same work had expected.
    """

    model_loads: int = 0
    batches: int = 0
    steps: int = 0
    tokens: int = 0
    new_tokens: int = 0
    made: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    tokens_per_second: float | None = None
    interrupted: bool = False
    usage: Mapping[str, Any] = field(default_factory=dict)
    planned: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Cost:
    """The last call, all calls together, and when the last one ended."""

    calls: int
    last: Call | None
    total: Call
    ended: str | None


def cost_of(events: Sequence[Mapping[str, Any]]) -> Cost:
    finished = [event for event in events if event.get("kind") in _ENDS]
    calls = [_call(event) for event in finished]
    return Cost(
        calls=len(calls),
        last=calls[-1] if calls else None,
        total=_sum(calls),
        ended=str(finished[-1].get("time")) if finished else None,
    )


def _call(event: Mapping[str, Any]) -> Call:
    seconds = event.get("seconds")
    rate = event.get("tokens_per_second")
    return Call(
        **{name: int(event.get(name) or 0) for name in _COUNTED},
        seconds={k: float(v) for k, v in seconds.items()} if isinstance(seconds, dict) else {},
        tokens_per_second=None if rate is None else float(rate),
        interrupted=event.get("kind") == "interrupted",
        usage=event.get("usage") or {},
        planned=event.get("planned") or {},
    )


def _sum(calls: Sequence[Call]) -> Call:
    seconds: dict[str, float] = {}
    for call in calls:
        for phase, value in call.seconds.items():
            seconds[phase] = seconds.get(phase, 0.0) + value
    counts = {name: sum(getattr(call, name) for call in calls) for name in _COUNTED}
    generating = seconds.get("generate", 0.0)
    rate = counts["new_tokens"] / generating if generating > 0 else None
    return Call(**counts, seconds=seconds, tokens_per_second=rate)
