"""How much of the machine a call used, in words: its plan, memory, shares, limits, bottleneck.

Reads what a call left in the log (docs/format.md, events) and judges it by fixed rules.  Nothing
is said that was not recorded: a short call has its memory and its shares, and no figures beside
those of the machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from traitscope.others import MUCH

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
    "between": "putting texts together",
    "replay": "reading texts",
    "internals": "internals",
    "write": "saving",
    "rest": "the rest",
}
_GENERATING = ("prefill", "decode", "taps", "sampling", "between")  # judged as one, then within
_ADVICE = {
    "load": "loading: further prompts in the same run cost little more.",
    "directions": "making directions: they are kept, and the next run of this model with these "
    "traits makes none.",
    "preparing": "recording the model's steps, once for each of their shapes: longer work costs "
    "little more.",
    "write": "saving: a faster disk would help.",
    "internals": "internals: fewer blocks or texts of them would help.",
    "rest": "what is not measured apart: checks before the model is loaded, and fetching texts "
    "whose blocks are opened.",
}
_WITHIN = {
    "sampling": "sampling: top_k spares most of it.",
    "taps": "projections: fewer traits would help.",
    "between": "putting the numbers of texts together between the steps.",
}


def usage_lines(
    usage: Mapping[str, Any],
    planned: Mapping[str, Any],
    seconds: Mapping[str, float],
    rows: int,
    dtype: str,
) -> list[str]:
    """A line for each thing that is known of a call."""
    lines = [*_planned(usage, planned, seconds)] or [*_memory(usage)]
    return [*lines, *_shares(usage), *_limits(usage), *bottleneck(usage, rows, dtype)]


def _planned(
    usage: Mapping[str, Any], planned: Mapping[str, Any], seconds: Mapping[str, float]
) -> Iterator[str]:
    if not planned or "total" not in seconds:
        return
    parts = [f"{_time(planned['seconds']['total'])}, took {_time(seconds['total'])}"]
    if used := _of_memory(usage):
        parts.append(f"{_size(planned['memory'])} of memory, used {used}")
    if usage.get("disk"):
        parts.append(f"{_size(planned['disk'])} of disk, used {_size(usage['disk'])}")
    others = planned.get("others", 0.0)
    beside = f" (planned while other programs took {others:.0%} of the machine)"
    yield f"planned {'; '.join(parts)}{beside if others > MUCH else ''}"


def _memory(usage: Mapping[str, Any]) -> Iterator[str]:
    if used := _of_memory(usage, " of memory at most"):
        yield f"{used}, {_size(usage['disk'])} of disk" if usage.get("disk") else used


def _of_memory(usage: Mapping[str, Any], noun: str = "") -> str:
    """The most that was used, of what there is, and what is in it beside the model itself."""
    memory = usage.get("memory", {})
    if not (memory.get("peak") and memory.get("all")):
        return ""
    packed = memory.get("packed")
    weights = f" ({_size(packed)} for weights laid out anew)" if packed else ""
    return f"{_size(memory['peak'])} of {_size(memory['all'])}{noun}{weights}"


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
    """One sentence: what held the call back, and what would help; nothing where no shares are.

    Generating is judged as one, and what within it took longest only where it comes first.
    """
    shares: Mapping[str, float] = usage.get("shares", {})
    if not any(shares.values()):
        return
    apart = {name: share for name, share in shares.items() if name not in _GENERATING}
    apart["generating"] = sum(shares.get(name, 0.0) for name in _GENERATING)
    first = max(apart, key=lambda name: apart[name])
    said = f"{_part(apart[first], 'of the time')} went into"
    # a CPU may have no products in narrower dtypes; logs of before do not say
    gains = dtype not in _NARROW and usage.get("narrower", True)
    narrower = "a narrower dtype or another device" if gains else "another device"
    if first == "generating":
        within = max(_GENERATING, key=lambda name: shares.get(name, 0.0))
        part = _part(shares[within] / apart[first], "of that")
        said = f"{said} generating, {part[0].lower()}{part[1:]} into"
        yield f"{said} {_of_generating(within, usage, rows, narrower)}"
    elif first == "replay":
        yield f"{said} reading texts that exist: {narrower} would help."
    else:
        yield f"{said} {_ADVICE[first]}"


def _part(share: float, of: str) -> str:
    """The largest one, which may be less than half; its number stands with it."""
    what = "All" if share >= 0.995 else "Most" if share > 0.5 else "The largest part"
    return f"{what} {of}" if what == "All" else f"{what} {of} ({share:.0%})"


def _of_generating(within: str, usage: Mapping[str, Any], rows: int, narrower: str) -> str:
    if within in _WITHIN:
        return _WITHIN[within]
    if "flops" not in usage:
        what = "reading prompts" if within == "prefill" else "the model's steps"
        return f"{what}: what held that back was not measured."
    if within == "prefill":
        return _of_prefill(usage, rows, narrower)
    return _of_steps(usage, rows, narrower)


def _of_prefill(usage: Mapping[str, Any], rows: int, narrower: str) -> str:
    share = usage["flops"]["prefill"] / usage["flops"]["machine"]
    said = f"reading prompts, at {share:.0%} of the machine's arithmetic:"
    if share >= _NEAR:
        return f"{said} {narrower} would help."
    return (
        f"{said} what holds it back is what a call costs however little it reads, or other work on "
        f"this machine; {_more(usage, rows)} would help."
    )


def _of_steps(usage: Mapping[str, Any], rows: int, narrower: str) -> str:
    flops, bandwidth = (
        usage[name]["decode"] / usage[name]["machine"] for name in ("flops", "bandwidth")
    )
    more = _more(usage, rows)
    if max(flops, bandwidth) < _NEAR:
        return (
            f"steps, which used {flops:.0%} of the machine's arithmetic and {bandwidth:.0%} of its "
            "bandwidth: what holds them back is what a step costs however many rows it has, or "
            f"other work on this machine; {more} would help."
        )
    if bandwidth >= flops:
        return (
            f"steps, held back by memory ({bandwidth:.0%} of the bandwidth): {more} share each "
            f"reading of the weights, and {narrower} would help."
        )
    return f"steps, held back by arithmetic ({flops:.0%} of it): {narrower} would help."


def _more(usage: Mapping[str, Any], rows: int) -> str:
    """Where no text waited for a place, there were no more to fill rows with."""
    busy = usage["rows"]
    if usage["waited"] and busy >= rows / 2:
        return "more rows"
    return f"more texts in one run (on average {busy} of {rows:,} rows were busy)"


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
