"""Peers' processes, seen from here: started once with a model, then given orders in turn.

`Peers` starts those that are installed and says which are not; `checked` holds what a peer makes
against ours before it may be timed.  While one works the others sleep.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common import Contestant, Options, Took, say
from benchmarks.ours import Made
from benchmarks.peers.roster import PEERS, Peer

__all__ = ["Worker", "peers"]

ROOT = Path(__file__).parent.parent.parent
# |difference of scores| over |h|: float32, and what bfloat16 does to a sum in another order
CLOSE = {"float32": 1e-5, "bfloat16": 3e-2}
# of the texts in float32: where two tokens are as likely, another order of sums takes the other one
EQUAL = 0.95


@dataclass
class Worker:
    """One peer with its model loaded."""

    peer: Peer
    process: subprocess.Popen[str]
    folder: Path
    sites: list[int]
    versions: dict[str, str]
    dtype: str
    note: str = ""  # what is worth saying of its answers

    @property
    def label(self) -> str:
        sites = len(self.sites)
        return f"{self.peer.name} {self.versions[self.peer.name]} ({sites} sites)"

    def ask(self, order: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin is not None and self.process.stdout is not None
        print(json.dumps(order), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError((self.folder / "errors").read_text(encoding="utf-8")[-2000:])
        answer: dict[str, Any] = json.loads(line)
        return answer

    def contestant(self, do: str, batches: list[Any], given: dict[str, Any]) -> Contestant:
        def turn() -> Took:
            answer = self.ask({"do": do, "batches": batches, "given": given})
            return Took(answer["wall"], answer["cpu"])

        return Contestant(self.label, turn)

    def check(self, do: str, batches: list[Any], given: dict[str, Any], ours: Made) -> str:
        """What is wrong with the peer's answers, if anything; ours in the order of the batches."""
        keep = self.folder / "made.pt"
        self.ask({"do": do, "batches": batches, "given": given, "keep": str(keep)})
        theirs = torch.load(keep, map_location="cpu", weights_only=True)
        alike = [len(score) for score in ours.scores]  # how many first tokens are the same
        if theirs["texts"] is not None:
            pairs = list(zip(ours.texts, theirs["texts"], strict=True))
            same = sum(mine == other for mine, other in pairs)
            if self.dtype == "float32" and same < EQUAL * len(pairs):
                return f"{same} of {len(pairs)} texts equal"
            if same < len(pairs):
                self.note = f"{same} of {len(pairs)} texts are ours"
            alike = [
                n - len(mine) + _common(mine, other)
                for n, (mine, other) in zip(alike, pairs, strict=True)
            ]
        scores = zip(ours.scores, ours.norms, theirs["scores"], alike, strict=True)
        far = max(self._far(*each) for each in scores)
        return "" if far <= CLOSE[self.dtype] else f"scores differ by {far:.1e} |h|"

    def _far(self, score: Any, norm: Any, theirs: torch.Tensor, alike: int) -> float:
        n = min(alike, len(theirs)) if self.dtype == "float32" else 1
        gap = np.abs(score[:n, self.sites] - theirs[:n].numpy()) / norm[:n, self.sites, None]
        return float(gap.max())


def _common(some: Sequence[int], others: Sequence[int]) -> int:
    """How many first tokens are the same."""
    return sum(
        1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(some, others, strict=False))
    )


@contextlib.contextmanager
def peers(
    model: Path,
    dtype: str,
    blocks: int,
    direction_SDK: Any,
    asked: Options,
    ending: int = 0,
    device: str = "cpu",
) -> Iterator[tuple[list[Worker], dict[str, str]]]:
    """The workers that could be started, and why each of the others could not."""
    workers: list[Worker] = []
    missing: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for peer in () if asked.no_peers else PEERS:
            if not peer.python.exists():
                missing[peer.name] = "not installed (make bench-peers)"
                continue
            job = {"folder": str(model), "dtype": dtype, "threads": asked.threads, "blocks": blocks}
            job |= {
                "ending": ending,
                "device": device,
                "packages": ["torch", "transformers", peer.name],
            }
            started = _start(peer, Path(scratch) / peer.name, job, direction_SDK)
            if isinstance(started, str):
                missing[peer.name] = started
            else:
                workers.append(started)
        try:
            yield workers, missing
        finally:
            for worker in workers:
                worker.process.communicate()


def _start(peer: Peer, folder: Path, job: dict[str, Any], direction_SDK: Any) -> Worker | str:
    folder.mkdir()
    torch.save(torch.from_numpy(direction_SDK), folder / "directions.pt")
    (folder / "job.json").write_text(
        json.dumps(job | {"directions": str(folder / "directions.pt")})
    )
    say(f"starting {peer.name}")
    process = subprocess.Popen(
        [str(peer.python), "-m", "benchmarks.peers.worker", peer.module, str(folder / "job.json")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=(folder / "errors").open("w"),
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        process.wait()
        reason = (folder / "errors").read_text(encoding="utf-8").strip().splitlines()
        return reason[-1] if reason else "it ended without a word"
    ready = json.loads(line)
    return Worker(peer, process, folder, ready["sites"], ready["versions"], job["dtype"])


def listed(missing: dict[str, str], workers: Sequence[Worker]) -> list[str]:
    """Notes: what each peer lacks, and why some are not there."""
    timed = [worker for worker in workers if worker.peer.name not in missing]
    notes = [
        "; ".join(filter(None, (f"{worker.peer.name}: {worker.peer.lacks}", worker.note))) + "."
        for worker in timed
    ]
    return notes + [f"{name}: not measured, {reason}." for name, reason in missing.items()]
