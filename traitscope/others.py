"""How much of the machine other programs take while something is measured.

Two threads that wait for each other are slowed many times over by a third one, so times that were
taken beside other work say little: whoever states them can say so.  Knows nothing of what is
measured.
"""

from __future__ import annotations

import time

import psutil

__all__ = ["MUCH", "Others"]

MUCH = 0.1  # of the machine: above it times are worth a warning
_IDLE = {"idle", "iowait", "guest", "guest_nice"}  # guests are in user and nice already


class Others:
    """Since it was made; processes that this one has started count as its own once they ended."""

    def __init__(self) -> None:
        self._began, self._busy, self._own = time.perf_counter(), _busy(), _own()

    def share(self) -> float:
        """Of all processors, from 0 to 1."""
        wall = time.perf_counter() - self._began
        others = _busy() - self._busy - (_own() - self._own)
        return min(1.0, max(0.0, others / max(wall * (psutil.cpu_count() or 1), 1e-9)))

    def warning(self) -> str:
        """A sentence where it was much, else ""."""
        share = self.share()
        if share <= MUCH:
            return ""
        return (
            f"Other programs took {share:.0%} of this machine's processors meanwhile: on a quiet "
            "one these times are shorter, and not all by as much."
        )


def _busy() -> float:
    """Seconds that all processors have worked, or were kept from it by a machine around this."""
    return float(sum(n for name, n in psutil.cpu_times()._asdict().items() if name not in _IDLE))


def _own() -> float:
    return float(sum(psutil.Process().cpu_times()[:4]))
