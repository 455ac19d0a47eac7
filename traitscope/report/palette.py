"""Signs and colours of the terminal report, with twins for terminals that lack either.

Orange is more of a trait, blue is less (a pair that colour-blind eyes tell apart, after Okabe and
Ito); what lies within `NEUTRAL` z of neutral text has no colour.  Every coloured thing also says
its number or carries a sign, so that the report reads the same without colour.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = [
    "ASCII",
    "DIM",
    "NEUTRAL",
    "TITLE",
    "UNICODE",
    "Signs",
    "background",
    "foreground",
    "level",
]

NEUTRAL = 1.0  # z: about two of three neutral tokens lie within
DIM, TITLE = "dim", "bold"

# from just outside the neutral band to three times as far and more; black text on each is legible
_MORE = ("black on #fde0bd", "black on #fdb863", "black on #e08214")
_LESS = ("black on #d6e6f4", "black on #92c0e4", "black on #5a9bd4")


@dataclass(frozen=True)
class Signs:
    """The few signs that a report is drawn with."""

    full: str
    left_half: str
    right_half: str
    axis: str
    ellipsis: str
    minus: str
    dot: str
    rule: str
    open: str
    close: str
    held: str
    missed: str
    unknown: str
    blank: str


UNICODE = Signs("█", "▌", "▐", "│", "…", "\u2212", "·", "─", "\u2039", "\u203a", "✓", "✗", "?", "␣")
ASCII = Signs("#", "#", "#", "|", "~", "-", "-", "-", "[", "]", "+", "x", "?", "_")


def background(z: float) -> str:
    """The style of a token at z; empty within the neutral band."""
    if math.isnan(z) or abs(z) < NEUTRAL:
        return ""
    level = min(int(abs(z) / NEUTRAL) - 1, 2)
    return (_MORE if z > 0 else _LESS)[level]


def foreground(z: float) -> str:
    """The style of a number or a bar at z."""
    if math.isnan(z) or abs(z) < NEUTRAL:
        return DIM
    return "#e08214" if z > 0 else "#5a9bd4"


def level(z: float) -> str:
    """The same as a name: "m1" to "m3" for more, "l1" to "l3" for less, empty within the band."""
    if math.isnan(z) or abs(z) < NEUTRAL:
        return ""
    return f"{'m' if z > 0 else 'l'}{min(int(abs(z) / NEUTRAL), 3)}"
