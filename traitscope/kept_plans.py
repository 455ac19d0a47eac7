"""The last plan of each run, kept in the cache until the run itself can be held against it.

One small JSON file a key.  A plan is found again only for the very same work on the same machine
and device: the captures that are to be made, and what else its caller names.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from traitscope.core import Capture
from traitscope.paths import cache_dir

__all__ = ["KeptPlan", "digest", "find_plan", "keep_plan"]


@dataclass(frozen=True)
class KeptPlan:
    """What was `expected` of the work, and the rows that were chosen for it: `sizing` has `rows`,
    `limit` and perhaps `steps`, or nothing where they were asked for.

    `others` is the share of the machine that other programs took while it was measured.
    """

    expected: Mapping[str, Any]
    sizing: Mapping[str, Any]
    others: float

    def to_dict(self) -> dict[str, Any]:
        """As a run's log has it."""
        return {**self.expected, "others": self.others}


def digest(captures: Iterable[Capture], **others: object) -> str:
    """What a plan is for: 16 hex digits over the captures to be made, and over all else that it
    depends on and that is not in a run's key: plain values by their names."""
    names = sorted(f"{c.generation.id} {c.prompt_set} {c.kind}" for c in captures)
    raw = json.dumps([names, others], sort_keys=True)
    return hashlib.sha256(raw.encode()).hexdigest()[:16]


def keep_plan(key: str, digest: str, plan: KeptPlan) -> None:
    """Raises OSError where the cache cannot be written."""
    path = _path(key)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"digest": digest, **asdict(plan)}), encoding="utf-8")


def find_plan(key: str, digest: str) -> KeptPlan | None:
    """The plan of this work; None where none is kept (or it is damaged)."""
    try:
        found = json.loads(_path(key).read_text(encoding="utf-8"))
        if found["digest"] != digest:
            return None
        return KeptPlan(dict(found["expected"]), dict(found["sizing"]), float(found["others"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _path(key: str) -> Path:
    return cache_dir() / "plans" / f"{key}.json"
