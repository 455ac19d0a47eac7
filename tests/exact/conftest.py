"""What the tests of a cheaper forward are made under."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from traitscope.engine import gated, gelus, grouped, norms, packing, rotary


@pytest.fixture
def everything_is_large(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tiny weights are packed, few keys attended to here; nothing is known of them afterwards."""
    monkeypatch.setattr(packing, "LEAST", 1)
    monkeypatch.setattr(grouped, "_LEAST_ALONE", 1)
    monkeypatch.setattr(grouped, "_LEAST_TWICE", 1)
    known = (packing._known, gated._held, grouped._same, grouped._same_fused, norms._known)
    for each in (*known, rotary._same, gelus._known):
        each.clear()  # type: ignore[attr-defined]  # found by name
    yield
    packing._known.clear()
