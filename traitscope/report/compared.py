"""Two runs on the same texts -> what differs: each trait's change over the texts, and its movers.

Every trait is read in one window at each run's own site (its `read_site`, or a depth or a site that
is named), as z on the scale of each model's own neutral text.  The change of a text is b minus a.
Whether a trait's mean change is more than chance is a sign-flip test over whole texts: under the
null hypothesis a text is as likely to move up as down; studentised, and corrected over all traits
by the maximum (Westfall and Young 1993).  All sign patterns where those are at most `DRAWS`, else
as many random ones with a fixed seed.  Values only; knows no screens.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from traitscope.core import Window, mean_or_nan, read_site
from traitscope.errors import RunError
from traitscope.report.permute import DRAWS
from traitscope.report.readings import depth_of, window_z
from traitscope.runs import Comparison, Run, compare

__all__ = ["ENOUGH", "Compared", "Moved", "TraitChange", "compared"]

ENOUGH = 6  # texts: with fewer no pattern of signs can reach p < 0.05 on both sides
_SEED = 20_240_229
_SLACK = 1e-9  # equal statistics may differ in the last bits

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Moved:
    """One text on one trait: z in a, z in b; NaN where the window holds no token."""

    name: str
    a_text: str
    b_text: str
    a: float
    b: float

    @property
    def change(self) -> float:
        return self.b - self.a


@dataclass(frozen=True)
class TraitChange:
    """One trait over all texts that could be read: means, spread of the changes, and p.

    `texts` are ordered by their change, highest first; `higher` of them moved up.  `p` is two-sided
    and corrected over all traits, None with fewer than `ENOUGH` texts or none that moved.
    """

    trait: str
    site_a: str
    site_b: str
    a: float
    b: float
    change: float
    spread: float
    higher: int
    p: float | None
    texts: tuple[Moved, ...]


@dataclass(frozen=True)
class Compared:
    """Two runs side by side."""

    a: str
    b: str
    model_a: str
    model_b: str
    window: str
    pairs: int
    traits: tuple[TraitChange, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def compared(a: Run, b: Run, window: str = "response[:]", site: str | float = "read") -> Compared:
    """Read both runs; RunError where they have no text or no trait in common."""
    found, where = compare(a, b), Window.parse(window)
    if not found.pairs:
        raise RunError(
            f"Expected runs that read the same texts, got {a.path} and {b.path} with none in "
            "common. Texts that two models write differ: replay one file of conversations, or one "
            "run's exported texts.jsonl, through both."
        )
    if not found.traits:
        raise RunError(
            f"Expected runs with a trait in common, got {', '.join(a.traits)} in {a.path} and "
            f"{', '.join(b.traits)} in {b.path}. Score one of them on the other's traits: "
            "traitscope replay RUN --trait NAME."
        )
    texts = _read(found, where, site)
    changes = [np.array([m.change for m in moved if not math.isnan(m.change)]) for moved in texts]
    traits = [
        _trait(found, trait, site, moved, p)
        for trait, moved, p in zip(found.traits, texts, _tested(changes), strict=True)
    ]
    return Compared(
        a=str(a.path),
        b=str(b.path),
        model_a=str(a.header.model.get("name", "")),
        model_b=str(b.header.model.get("name", "")),
        window=str(where),
        pairs=len(found.pairs),
        traits=tuple(traits),
        notes=found.notes,
    )


def _place(run: Run, trait: str, site: str | float) -> int:
    own = read_site(run.sites, depth_of(run, trait))
    return own if site == "read" else read_site(run.sites, site)


def _read(found: Comparison, window: Window, site: str | float) -> list[list[Moved]]:
    """The texts of each trait; each text is opened once."""
    places = [(t, _place(found.a, t, site), _place(found.b, t, site)) for t in found.traits]
    rows = {row.generation: row for row in found.a.generations()}
    texts: list[list[Moved]] = [[] for _ in places]
    for here, there in found.pairs:
        a, b, prompt = found.a.text(here), found.b.text(there), rows[here].prompt
        for moved, (trait, at_a, at_b) in zip(texts, places, strict=True):
            za = window_z(found.a, a, trait, at_a, window)
            zb = window_z(found.b, b, trait, at_b, window)
            moved.append(Moved(prompt.label or prompt.text, here.id, there.id, za, zb))
    return texts


def _trait(
    found: Comparison, trait: str, site: str | float, moved: Sequence[Moved], p: float | None
) -> TraitChange:
    read = [m for m in moved if not math.isnan(m.change)]
    lost = [m for m in moved if math.isnan(m.change)]
    changes = [m.change for m in read]
    return TraitChange(
        trait=trait,
        site_a=found.a.sites[_place(found.a, trait, site)].name,
        site_b=found.b.sites[_place(found.b, trait, site)].name,
        a=mean_or_nan(m.a for m in read),
        b=mean_or_nan(m.b for m in read),
        change=mean_or_nan(changes),
        spread=float(np.std(changes, ddof=1)) if len(changes) > 1 else math.nan,
        higher=sum(change > 0 for change in changes),
        p=p,
        texts=(*sorted(read, key=lambda m: -m.change), *lost),
    )


# --- the test ------------------------------------------------------------------------------------


def _tested(changes: Sequence[Float64]) -> list[float | None]:
    """The corrected p of each trait; None where there is nothing to test."""
    testable = [len(d) >= ENOUGH and bool(d.any()) for d in changes]
    chosen = [d for d, fine in zip(changes, testable, strict=True) if fine]
    if not chosen:
        return [None] * len(changes)
    exact = 2 ** max(map(len, chosen)) <= DRAWS
    signs = _signs(max(map(len, chosen)), exact)
    null = np.stack([np.abs(_t(d[None] * signs[:, : len(d)])) for d in chosen])  # [m, patterns]
    largest = null.max(axis=0)
    found = []
    for d in chosen:
        n = int((largest >= abs(float(_t(d[None])[0])) - _SLACK).sum())
        found.append(n / len(signs) if exact else (1 + n) / (1 + DRAWS))
    rest = iter(found)
    return [next(rest) if fine else None for fine in testable]


def _signs(n: int, exact: bool) -> Float64:
    """Patterns of signs [patterns, n]."""
    if exact:
        return np.array(list(itertools.product((1.0, -1.0), repeat=n)))
    return np.random.default_rng(_SEED).choice((1.0, -1.0), size=(DRAWS, n))


def _t(changes: Float64) -> Float64:
    """The mean in units of its standard error, of each row."""
    n = changes.shape[1]
    spread = changes.std(axis=1, ddof=1) / math.sqrt(n)
    return np.asarray(changes.mean(axis=1) / np.maximum(spread, 1e-30))
