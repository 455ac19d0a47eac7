"""How a step is recorded on CUDA, with CUDA's own calls pretended: in which order, and what is left
behind where a recording fails.  What a GPU makes of it is not tested here.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch

from traitscope.engine.step import CudaGraphs, Made

MADE = torch.zeros(1), torch.zeros(1, 1)
DEVICE = torch.device("cuda")


class Driver:
    """What was called, and what is switched on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, invalid: bool = False) -> None:
        self.calls = list[str]()
        self.stream, self.debug, self.pools, self.invalid = "main", 0, 0, invalid
        driver = self

        class Stream:
            def wait_stream(self, other: object) -> None:
                driver.calls.append("wait")

        class Graph:
            def capture_begin(self, pool: int, capture_error_mode: str) -> None:
                assert driver.stream == "beside" and not gc.isenabled()
                driver.calls.append(f"begin in {pool}")

            def capture_end(self) -> None:
                driver.calls.append("end")
                if driver.invalid:
                    raise RuntimeError("operation failed due to a previous error during capture")

            def replay(self) -> None:
                driver.calls.append("replay")

        @contextmanager
        def stream(_: Stream) -> Iterator[None]:
            before, driver.stream = driver.stream, "beside"
            try:
                yield
            finally:
                driver.stream = before

        @contextmanager
        def device(_: object) -> Iterator[None]:
            yield

        def pool() -> int:
            self.pools += 1
            return self.pools

        def say(what: str) -> Callable[[], None]:
            return lambda: self.calls.append(what)

        pretended = {
            "Stream": Stream,
            "CUDAGraph": Graph,
            "stream": stream,
            "device": device,
            "current_stream": Stream,
            "current_device": lambda: 0,
            "graph_pool_handle": pool,
            "synchronize": say("synchronize"),
            "empty_cache": say("empty"),
            "get_sync_debug_mode": lambda: self.debug,
            "set_sync_debug_mode": lambda mode: setattr(self, "debug", mode),
        }
        for name, what in pretended.items():
            monkeypatch.setattr(torch.cuda, name, what)
        monkeypatch.setattr(
            torch._C,
            "_cuda_endAllocateToPool",
            lambda _, pool: self.calls.append(f"give {pool} back"),
            raising=False,
        )

    @property
    def at_rest(self) -> bool:
        return self.stream == "main" and self.debug == 0 and gc.isenabled()


def test_a_step_is_warmed_up_then_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver(monkeypatch)
    where = list[tuple[str, int]]()

    def compute() -> Made:
        where.append((driver.stream, driver.debug))
        return MADE

    record = CudaGraphs(DEVICE)
    replay = record(compute)
    assert where == [("beside", 2), ("beside", 0)]  # only the warm-up looks for what waits
    begun = ["wait", "wait", "synchronize", "empty", "begin in 1", "end", "wait"]
    assert driver.calls == begun
    assert replay() is MADE and driver.calls[-1] == "replay"
    record(compute)
    assert driver.calls[-3:] == ["begin in 1", "end", "wait"]  # one memory
    assert driver.at_rest


def test_a_warm_up_that_waits_records_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver(monkeypatch)

    def compute() -> Made:
        raise RuntimeError("called a synchronizing CUDA operation")

    with pytest.raises(RuntimeError, match="synchronizing"):
        CudaGraphs(DEVICE)(compute)
    assert driver.calls == ["wait", "wait"]  # what it had begun is waited for
    assert driver.at_rest


def test_a_capture_that_fails_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver(monkeypatch, invalid=True)

    def compute() -> Made:
        if driver.debug == 0:
            raise RuntimeError("operation not permitted when stream is capturing")
        return MADE

    record = CudaGraphs(DEVICE)
    with pytest.raises(RuntimeError, match="not permitted"):
        record(compute)
    assert driver.calls[-2:] == ["end", "give 1 back"]
    assert driver.at_rest
    driver.invalid = False
    record(lambda: MADE)
    assert driver.calls[-3:] == ["begin in 2", "end", "wait"]  # another memory
    assert driver.at_rest


def test_graphs_go_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one of them goes what others still write to: also with one that is not used."""
    driver = Driver(monkeypatch)
    graphs, record = list[weakref.ref[object]](), CudaGraphs(DEVICE)
    made = torch.cuda.CUDAGraph

    def graph() -> object:
        new = made()
        graphs.append(weakref.ref(new))
        return new

    monkeypatch.setattr(torch.cuda, "CUDAGraph", graph)
    replay = record(lambda: MADE)
    record(lambda: MADE)  # nobody holds its replay
    driver.invalid = True
    with pytest.raises(RuntimeError, match="previous error"):
        record(lambda: MADE)
    gc.collect()
    assert [ref() is None for ref in graphs] == [False, False, False]
    del record
    gc.collect()
    assert [ref() is None for ref in graphs] == [False, True, True]
    assert replay() is MADE
