"""How much of the machine a call used, in words: its plan, memory, shares, limits, bottleneck.

Reads what a call left in the log (docs/format.md, events) and judges it by fixed rules.  Nothing
is said that was not recorded: a short call has its memory and no more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["bottleneck", "usage_lines"]

_NARROW = ("bfloat16", "float16")
_NEAR = 0.5  # of a limit: nearer than that, it is the limit that counts
_SAID = {
    "load": "loading",
    "directions": "directions",
    "prefill": "reading prompts",
    "preparing": "recording steps",
    "decode": "the model's steps",
    "taps": "projections",
    "sampling": "sampling",
    "replay": "reading texts",
    "internals": "internals",
    "write": "saving",
    "rest": "the rest",
}
_ADVICE = {
    "load": "Most of the time went into loading: further prompts in the same run cost little more.",
    "directions": "Most of the time went into making directions: they are kept, and the next run "
    "of this model with these traits makes none.",
    "preparing": "Most of the time went into recording the model's steps, once for each of their "
    "shapes: longer work costs little more.",
    "write": "Most of the time went into saving: a faster disk would help.",
    "internals": "Most of the time went into internals: fewer blocks or texts of them would help.",
    "sampling": "Most of the time went into sampling: top_k spares most of it.",
    "taps": "Most of the time went into projections: fewer traits would help.",
    "rest": "Most of the time went into what is not measured apart: making tables of tokens, and "
    "checks before the model is loaded.",
}


def usage_lines(
    usage: Mapping[str, Any],
    planned: Mapping[str, Any],
    seconds: Mapping[str, float],
    rows: int,
    dtype: str,
) -> list[str]:
    """A line for each thing that is known of a call."""
    lines = [*_planned(usage, planned, seconds)]
    if not planned:
        lines += _memory(usage)
    return [*lines, *_shares(usage), *_limits(usage), *bottleneck(usage, rows, dtype)]


def _planned(
    usage: Mapping[str, Any], planned: Mapping[str, Any], seconds: Mapping[str, float]
) -> Iterator[str]:
    if not planned or "total" not in seconds:
        return
    parts = [f"{_time(planned['seconds']['total'])}, took {_time(seconds['total'])}"]
    peak = usage.get("memory", {}).get("peak")
    if peak:
        parts.append(f"{_size(planned['memory'])} of memory, used {_size(peak)}")
    if usage.get("disk"):
        parts.append(f"{_size(planned['disk'])} of disk, used {_size(usage['disk'])}")
    yield f"planned {'; '.join(parts)}"


def _memory(usage: Mapping[str, Any]) -> Iterator[str]:
    memory = usage.get("memory", {})
    if memory.get("peak") and memory.get("all"):
        packed = memory.get("packed")
        weights = f" ({_size(packed)} for weights laid out anew)" if packed else ""
        disk = f", {_size(usage['disk'])} of disk" if usage.get("disk") else ""
        yield f"{_size(memory['peak'])} of {_size(memory['all'])} of memory at most{weights}{disk}"


def _shares(usage: Mapping[str, Any]) -> Iterator[str]:
    shares: Mapping[str, float] = usage.get("shares", {})
    said = [f"{_SAID[name]} {shares[name]:.0%}" for name in _SAID if shares.get(name, 0) >= 0.005]
    if said:
        yield f"of the time: {', '.join(said)}"


def _limits(usage: Mapping[str, Any]) -> Iterator[str]:
    if "flops" not in usage:
        return
    flops, bandwidth = usage["flops"], usage["bandwidth"]
    yield (
        f"reading prompts reached {_flops(flops['prefill'])}, steps {_flops(flops['decode'])} and "
        f"{_size(bandwidth['decode'])}/s; a probe here {_flops(flops['machine'])} and "
        f"{_size(bandwidth['machine'])}/s"
    )


def bottleneck(usage: Mapping[str, Any], rows: int, dtype: str) -> Iterator[str]:
    """One sentence: what held the call back, and what would help; nothing where it was short."""
    shares: Mapping[str, float] = usage.get("shares", {})
    if not shares:
        return
    first = max(shares, key=lambda name: shares[name])
    # a CPU may have no products in narrower dtypes; logs of before do not say
    gains = dtype not in _NARROW and usage.get("narrower", True)
    narrower = "a narrower dtype or another device" if gains else "another device"
    if first in _ADVICE:
        yield _ADVICE[first]
    elif first == "replay":
        yield f"Most of the time went into reading texts that exist: {narrower} would help."
    elif first == "prefill":
        share = usage["flops"]["prefill"] / usage["flops"]["machine"]
        yield (
            f"Most of the time went into reading prompts, at {share:.0%} of the machine's "
            f"arithmetic: {narrower} would help."
        )
    else:
        yield _of_steps(usage, rows, narrower)


def _of_steps(usage: Mapping[str, Any], rows: int, narrower: str) -> str:
    flops, bandwidth = (
        usage[name]["decode"] / usage[name]["machine"] for name in ("flops", "bandwidth")
    )
    busy = usage["rows"]
    # where no text waited for a place, there were no more to fill rows with
    more = (
        "more rows"
        if usage["waited"] and busy >= rows / 2
        else f"more texts in one run (on average {busy} of {rows} rows were busy)"
    )
    if max(flops, bandwidth) < _NEAR:
        return (
            f"Steps used {flops:.0%} of the machine's arithmetic and {bandwidth:.0%} of its "
            "bandwidth: what holds them back is what a step costs however many rows it has, or "
            f"other work on this machine; {more} would help."
        )
    if bandwidth >= flops:
        return (
            f"Steps are held back by memory ({bandwidth:.0%} of the bandwidth): {more} share each "
            f"reading of the weights, and {narrower} would help."
        )
    return f"Steps are held back by arithmetic ({flops:.0%} of it): {narrower} would help."


def _time(value: float) -> str:
    if value < 100:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def _size(value: float) -> str:
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if value >= factor:
            return f"{value / factor:.1f} {unit}"
    return f"{value / 1e3:.0f} kB"


def _flops(value: float) -> str:
    unit, factor = ("TFLOP/s", 1e12) if value >= 1e12 else ("GFLOP/s", 1e9)
    return f"{value / factor:.1f} {unit}"
