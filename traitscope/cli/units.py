"""Seconds and bytes as a person reads them."""

from __future__ import annotations

__all__ = ["count", "duration", "seconds", "size"]


def count(number: int, noun: str, plural: str = "") -> str:
    """A number and its noun."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def duration(value: float) -> str:
    """Whole hours, minutes and seconds."""
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours} h {minutes} min"
        if hours
        else f"{minutes} min {rest} s"
        if minutes
        else f"{rest} s"
    )


def seconds(value: float) -> str:
    """Short times with their fractions, long ones as `duration`."""
    return f"{value:.2f} s" if value < 10 else f"{value:.1f} s" if value < 100 else duration(value)


def size(count: float) -> str:
    """Bytes in the unit that fits."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count / 1e3:.0f} kB"
