"""One text -> its readings: two z-scores per trait, the same words at `embed`, the strongest token.

z is (score - neutral mean) / neutral std at the trait's read site (`TraitDirections.z`).  Two
windows: `prompt[-1]`, before a word is written, and `response[:]`, the mean over the answer's
content tokens.  An empty window reads NaN.  The unit of whatever is claimed is a text, never a
token.  This module reads one text at a time and knows nothing of suites.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from traitscope.core import Float32, Window, read_site
from traitscope.report.plain import around
from traitscope.runs import Run, TextData

__all__ = [
    "BEFORE",
    "DEFAULT_DEPTH",
    "NO_STRIP",
    "RESPONSE",
    "Place",
    "Strip",
    "Strongest",
    "TextReading",
    "depth_of",
    "place_of",
    "read_text",
    "strip_of",
    "strongest_of",
    "window_z",
]

BEFORE = Window.parse("prompt[-1]")
RESPONSE = Window.parse("response[:]")
DEFAULT_DEPTH = 0.5  # of trait.toml's `read_site`
_MARGIN = 28  # characters of context kept on either side of the strongest token


@dataclass(frozen=True)
class Place:
    """Where a trait is read: its number among the run's traits, its site, and where `embed` is."""

    trait: str
    number: int
    site: int
    embed: int | None


@dataclass(frozen=True)
class Strongest:
    """The content token of an answer at which a trait is strongest, with the words around it."""

    before: str
    token: str
    after: str
    z: float


@dataclass(frozen=True)
class Strip:
    """An answer cut into its tokens: text and z, NaN where a token is not content."""

    pieces: tuple[str, ...]
    z: tuple[float, ...]


NO_STRIP = Strip((), ())


@dataclass(frozen=True)
class TextReading:
    """One text, one trait: z before a word is written, over the answer, and the answer's words."""

    before: float
    response: float
    embed: float
    strongest: Strongest | None


def depth_of(run: Run, trait: str) -> str | float:
    """The trait's own `read_site`, as its directions record it: a depth or a site's name."""
    return run.directions[trait].metadata.get("read_site") or DEFAULT_DEPTH


def place_of(run: Run, trait: str) -> Place:
    names = [site.name for site in run.sites]
    embed = names.index("embed") if "embed" in names else None
    site = read_site(run.sites, depth_of(run, trait))
    return Place(trait, run.traits.index(trait), site, embed)


def read_text(run: Run, text: TextData, place: Place) -> TextReading:
    """Both readings of one text on one trait."""
    site = place.site
    return TextReading(
        before=window_z(run, text, place.trait, site, BEFORE),
        response=window_z(run, text, place.trait, site, RESPONSE),
        embed=float("nan")
        if place.embed is None
        else window_z(run, text, place.trait, place.embed, RESPONSE),
        strongest=strongest_of(run, text, place),
    )


def window_z(run: Run, text: TextData, trait: str, site: int, window: Window) -> float:
    """z of the mean score over a window at a site; NaN where the window holds no token."""
    picked = window.pick(text.tokens)
    if not picked.any():
        return float("nan")
    score = text.score[picked, site, run.traits.index(trait)].mean(dtype=np.float64)
    return float(run.directions[trait].z(np.asarray(score), site, window))


def strip_of(run: Run, text: TextData, place: Place) -> Strip:
    """The answer's tokens with their z at the trait's read site."""
    tokens = text.tokens
    wanted = np.flatnonzero(tokens.within("response"))
    z = np.where(tokens.content, _token_z(run, text, place), np.nan)
    shown = [(_span(text, int(t)), float(z[t])) for t in wanted if not tokens.special[t]]
    return Strip(tuple(piece for piece, _ in shown), tuple(value for _, value in shown))


def strongest_of(run: Run, text: TextData, place: Place) -> Strongest | None:
    """The strongest content token of the answer; None where it has none."""
    picked = np.flatnonzero(RESPONSE.pick(text.tokens))
    if not picked.size:
        return None
    z = _token_z(run, text, place)
    best = int(picked[np.argmax(z[picked])])
    tokens = text.tokens
    begin, whole = _answer(text)
    start, end = int(tokens.start[best]) - begin, int(tokens.end[best]) - begin
    before, token, after = around(whole, start, end, _MARGIN)
    return Strongest(before, token or tokens.piece[best], after, float(z[best]))


def _token_z(run: Run, text: TextData, place: Place) -> Float32:
    score = text.score[:, place.site, place.number]
    return run.directions[place.trait].z(score, place.site, RESPONSE)


def _answer(text: TextData) -> tuple[int, str]:
    """Where the answer's characters begin in the whole text, and the answer's content."""
    inside = np.flatnonzero(text.tokens.within("response") & ~text.tokens.special)
    begin, end = int(text.tokens.start[inside].min()), int(text.tokens.end[inside].max())
    return begin, text.tokens.text[begin:end]


def _span(text: TextData, token: int) -> str:
    return text.tokens.text[int(text.tokens.start[token]) : int(text.tokens.end[token])]
