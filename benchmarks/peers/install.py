"""Puts each peer into an environment of its own, `benchmarks/.peers/NAME` (`make bench-peers`).

All of them get the torch of `constraints.txt` and otherwise their newest versions.  Names on the
command line choose; what cannot be installed is said at the end, and the exit status is 1.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

from benchmarks.peers.roster import PEERS, PLACE, Peer

CONSTRAINTS = Path(__file__).parent / "constraints.txt"


def install(peer: Peer) -> bool:
    if not peer.python.exists():
        venv.create(PLACE / peer.name, with_pip=True)
    torch = CONSTRAINTS.read_text(encoding="utf-8").split()
    for wanted in (torch, [*peer.requirements]):
        command = [str(peer.python), "-m", "pip", "install", "--quiet", "--upgrade"]
        if subprocess.run([*command, "-c", str(CONSTRAINTS), *wanted]).returncode != 0:
            return False
    return True


def main() -> None:
    chosen = [peer for peer in PEERS if peer.name in sys.argv[1:] or not sys.argv[1:]]
    unknown = set(sys.argv[1:]) - {peer.name for peer in PEERS}
    if unknown:
        names = ", ".join(peer.name for peer in PEERS)
        sys.exit(f"Expected peers' names ({names}), got {', '.join(sorted(unknown))}.")
    failed = [peer.name for peer in chosen if not install(peer)]
    if failed:
        sys.exit(f"Not installed: {', '.join(failed)}. The benchmarks list them as missing.")


if __name__ == "__main__":
    main()
