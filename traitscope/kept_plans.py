"""The last plan of each run, kept in the cache until the run itself can be held against it.

One small JSON file a key.  A plan is found again only for the very same work on the same device:
the captures that are to be made.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from traitscope.core import Capture
from traitscope.paths import cache_dir

__all__ = ["digest", "find_plan", "keep_plan"]


def digest(captures: Iterable[Capture], device: str) -> str:
    """What a plan is for: 16 hex digits over the captures to be made and the device."""
    names = sorted(f"{c.generation.id} {c.prompt_set} {c.kind}" for c in captures)
    raw = json.dumps([names, device])
    return hashlib.sha256(raw.encode()).hexdigest()[:16]


def keep_plan(key: str, digest: str, expected: Mapping[str, Any]) -> None:
    """Raises OSError where the cache cannot be written."""
    path = _path(key)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"digest": digest, "expected": dict(expected)}), encoding="utf-8")


def find_plan(key: str, digest: str) -> dict[str, Any] | None:
    """What was expected of this work; None where no plan of it is kept (or it is damaged)."""
    try:
        found = json.loads(_path(key).read_text(encoding="utf-8"))
        return dict(found["expected"]) if found["digest"] == digest else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _path(key: str) -> Path:
    return cache_dir() / "plans" / f"{key}.json"
