"""Contestants that take minutes each, in turns of some seconds.

A machine's speed changes within minutes, and whoever is timed in a good one is ahead.  So each
contestant is a process of its own, which is stopped but for its turns, and the next turn is that of
whoever has done the least of the work: all of them see the same machine.  What is timed is the
turns; building the model is not.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any

import psutil

from benchmarks.common import OTHERS, Busy, Options, Took, busy_seconds, say

__all__ = ["Work", "in_slices"]

TURN = 8.0  # seconds
_QUICK = 0.2

# yields once when all is ready, then the share of the work that is done; returns what was made
Work = Generator[float, None, Any]


@dataclass
class _Running:
    process: Any
    pipe: Any
    progress: Any
    wall: float = 0.0
    made: Any = None
    cpu: float = 0.0

    def turn(self, seconds: float) -> bool:
        """Go on for some seconds; whether all is done now."""
        os.kill(self.process.pid, signal.SIGCONT)
        began = time.perf_counter()
        done = self.pipe.poll(seconds)
        if not done:
            os.kill(self.process.pid, signal.SIGSTOP)
        self.wall += time.perf_counter() - began
        if done:
            self.cpu, self.made = self.pipe.recv()
            self.process.join()
        return bool(done)


def in_slices(
    ways: Mapping[str, Callable[[], Work]], asked: Options
) -> dict[str, tuple[Took, Any]]:
    """What each took, and made.  The ways are called in processes that import them.

    Raises Busy where others took more of the machine than a few hundredths.
    """
    context = multiprocessing.get_context("spawn")
    running = dict[str, _Running]()
    try:
        for name, way in ways.items():
            here, there = context.Pipe()
            progress = context.Value("d", 0.0, lock=False)
            process = context.Process(
                target=_work, args=(way, there, progress, asked.threads), daemon=True
            )
            process.start()
            there.close()
            running[name] = _Running(process, here, progress)
            here.recv()  # ready
            os.kill(process.pid, signal.SIGSTOP)
            here.send("go")
        _turns(running, asked)
    finally:
        for one in running.values():
            one.process.kill()
    return {name: (Took(one.wall, one.cpu), one.made) for name, one in running.items()}


def _turns(running: Mapping[str, _Running], asked: Options) -> None:
    seconds, waiting, said = _QUICK if asked.quick else TURN, dict(running), 0
    before, began = busy_seconds(), time.perf_counter()
    while waiting:
        name = min(waiting, key=lambda name: waiting[name].progress.value)
        if waiting[name].turn(seconds):
            del waiting[name]
        least = min((one.progress.value for one in waiting.values()), default=1.0)
        if int(4 * least) > said:
            said = int(4 * least)
            say(f"{least:.0%} of the work done by all")
    wall, own = time.perf_counter() - began, sum(one.cpu for one in running.values())
    others = (busy_seconds() - before - own) / (wall * (psutil.cpu_count() or 1))
    if asked.shared and not asked.quick and others > OTHERS:
        raise Busy(f"Expected a quiet machine, got one of which others took {others:.0%}.")


def _work(way: Callable[[], Work], pipe: Any, progress: Any, threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
    work = way()
    next(work)
    pipe.send("ready")
    pipe.recv()
    before = psutil.Process().cpu_times()
    while True:
        try:
            progress.value = next(work)
        except StopIteration as end:
            made = end.value
            break
    after = psutil.Process().cpu_times()
    pipe.send((after.user + after.system - before.user - before.system, made))
