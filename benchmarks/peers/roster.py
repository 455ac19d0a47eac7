"""Which libraries are compared, what of each is installed, and what it cannot do.

`lacks` is what the same work would need of it and what it has not; a peer that is not installed is
named in the results as such.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["PEERS", "PLACE", "Peer"]

PLACE = Path(__file__).parent.parent / ".peers"


@dataclass(frozen=True)
class Peer:
    name: str
    requirements: tuple[str, ...]  # beside torch; the newest versions that these leave
    lacks: str

    @property
    def python(self) -> Path:
        return PLACE / self.name / "bin" / "python"

    @property
    def module(self) -> str:
        return self.name.replace("-", "_")


PEERS = (
    Peer(
        "nnsight",
        ("nnsight",),
        "answers that end leave no room for others; the last token has no state",
    ),
    Peer(
        "transformer-lens",
        # 4.3.0 made none of our texts with transformers 5.24
        ("transformer-lens", "transformers<5.24"),
        "answers that end leave no room for others; the last token has no state",
    ),
    Peer(
        "nnterp",
        ("nnterp", "nnsight<0.8"),  # 1.3.0 does not import with nnsight 0.8
        "no name for the residual after attention: L+1 sites of 2L+1; the last token has no state",
    ),
    Peer("pyvene", ("pyvene",), "the last token has no state; every state is copied once"),
    Peer(
        "steering-vectors",
        ("steering-vectors",),
        "outputs of blocks only: L sites of 2L+1; keeps all states; wants transformers < 5",
    ),
)
