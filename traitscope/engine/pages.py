"""Large arrays in large pages.

A processor finds 4 KB of memory at a time by reading tables, in a virtual machine twice as many.
Where all weights are read once a step that is some 4% of its time (2 Xeon cores).  Linux moves
memory into pages of 2 MB if it is asked to and a system allows it.  This module knows addresses;
not what is kept there.
"""

from __future__ import annotations

import ctypes
import sys
import time
from functools import cache
from pathlib import Path

__all__ = ["in_large_pages"]

_SETTINGS = Path("/sys/kernel/mm/transparent_hugepage")
_COLLAPSE = 25  # MADV_COLLAPSE, since Linux 6.1
# seconds for one page, which it pays within some 300 decode steps: it takes 0.0007, but 0.005 where
# the memory is a virtual machine's that has to fetch it first, and more where it is in pieces
_LONG = 0.002
_MOST_LONG = 8  # pages, after which a process asks no more

_long = list[float]()  # what such pages took


def in_large_pages(address: int, size: int) -> int:
    """Move what lies there into large pages, as far as that can be; how many bytes were moved.

    All of it must have been written before: what has not been would come into being.
    """
    page = _page()
    if not page or len(_long) >= _MOST_LONG:
        return 0
    move = ctypes.CDLL(None).madvise
    start = first = -(-address // page) * page
    while start + page <= address + size:
        began = time.perf_counter()
        if move(ctypes.c_void_p(start), ctypes.c_size_t(page), _COLLAPSE) != 0:
            break  # an older Linux, or no such page is free
        start += page
        took = time.perf_counter() - began
        if took > _LONG:
            _long.append(took)
            break
    return start - first


@cache
def _page() -> int:
    """Bytes of a large page; 0 where there are none."""
    if sys.platform != "linux":
        return 0
    try:
        if "[never]" in (_SETTINGS / "enabled").read_text():
            return 0
        return int((_SETTINGS / "hpage_pmd_size").read_text())
    except (OSError, ValueError):
        return 0
