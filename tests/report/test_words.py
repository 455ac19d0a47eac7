"""The sentences of a report: numbers, nouns, and what a call's phases are called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.report.planted import STATS, Text, planted
from traitscope.report import summarise
from traitscope.report.words import calls, count
from traitscope.runs import Run


def said_of(tmp_path: Path, **changes: Any) -> tuple[list[str], list[str]]:
    """What the last call did, and the seconds of its phases."""
    events = [("finished", {**STATS, **changes})]
    planted(tmp_path / "run", [Text("Tea?", (" a",))], events=events)
    ((_, done, took),) = calls(summarise(Run.open(tmp_path / "run")))
    return done, took


@pytest.mark.parametrize(
    ("number", "said"), [(0, "0 texts"), (1, "1 text"), (999, "999 texts"), (1000, "1,000 texts")]
)
def test_a_number_and_its_noun(number: int, said: str) -> None:
    assert count(number, "text") == said


@pytest.mark.parametrize(("tokens", "said"), [(1, "1 token written"), (21688, "21,688 tokens wri")])
def test_tokens_are_counted_as_everything_is(tokens: int, said: str, tmp_path: Path) -> None:
    done, _ = said_of(tmp_path, new_tokens=tokens, tokens_per_second=1968.2)
    assert any(part.startswith(said) for part in done)
    assert "1,968 tokens/s" in done
