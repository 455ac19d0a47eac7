"""What other programs take of the machine while something is measured."""

from __future__ import annotations

from typing import Any

import psutil
import pytest

from traitscope import others
from traitscope.others import MUCH, Others


class Spent:
    """Of a pretended machine of four processors: seconds so far, all of them and this process's."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.busy = self.own = self.now = 0.0
        monkeypatch.setattr(others, "_busy", lambda: self.busy)
        monkeypatch.setattr(others, "_own", lambda: self.own)
        monkeypatch.setattr(others.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(psutil, "cpu_count", lambda: 4)


@pytest.mark.parametrize(
    ("busy", "own", "share"),
    [(0.0, 0.0, 0.0), (20.0, 20.0, 0.0), (30.0, 20.0, 0.25), (5.0, 6.0, 0.0), (60.0, 0.0, 1.0)],
)
def test_what_is_not_ours(
    busy: float, own: float, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    spent = Spent(monkeypatch)
    spent.busy, spent.own, spent.now = 7.0, 3.0, 100.0  # before
    watch = Others()
    spent.busy, spent.own, spent.now = 7.0 + busy, 3.0 + own, 110.0
    assert watch.share() == pytest.approx(share)
    assert bool(watch.warning()) == (share > MUCH)
    if share == 0.25:
        assert watch.warning().startswith("Other programs took 25% of this machine's processors")


def test_what_waits_is_not_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds: dict[str, Any] = {"user": 3.0, "system": 1.0, "idle": 90.0, "iowait": 5.0, "steal": 2.0}
    monkeypatch.setattr(psutil, "cpu_times", lambda: type("T", (), {"_asdict": lambda _: kinds})())
    assert others._busy() == 6.0
