"""`python -m traitscope.pocket.evaluate`: measures the pocket and writes its card.

Owns the table of held-out figures and MODEL_CARD.md.  Every figure is measured in the run that
writes it, on phrasings that training never saw.  Knows nothing of how the model was trained,
beyond the words of the card.
"""

import argparse
import json
import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from traitscope.pocket import POCKET_DIR
from traitscope.pocket.dialogue import Dialogue
from traitscope.pocket.grammar import kind_names
from traitscope.pocket.measure import FIGURES, Answerer, held_out

CARD = Path(__file__).parent / "MODEL_CARD.md"
START, END = "<!-- figures -->", "<!-- /figures -->"
TEMPERATURES = (0.0, 0.7)


@dataclass(frozen=True)
class Row:
    """One measured figure: shares in percent at each temperature, on so many dialogues."""

    name: str
    target: str
    count: int
    shares: tuple[float, ...]


def measure(answerer: Answerer, per_kind: int) -> tuple[list[Row], float]:
    """All figures, and the mean loss per answer token, on held-out dialogues."""
    asked = {kind: held_out(kind, per_kind) for kind in kind_names()}
    said = {
        (kind, temperature): answerer.answers([d.messages[:-1] for d in drawn], temperature)
        for kind, drawn in asked.items()
        for temperature in TEMPERATURES
    }
    rows = []
    for figure in FIGURES:
        shares = []
        judged: list[bool] = []
        for temperature in TEMPERATURES:
            judged = [
                figure.verdict(d, a)
                for kind in figure.kinds
                for d, a in zip(asked[kind], said[kind, temperature], strict=True)
                if figure.keep(d)
            ]
            shares.append(100 * sum(judged) / len(judged))
        rows.append(Row(figure.name, figure.target, len(judged), tuple(shares)))
    sample: list[Dialogue] = [d for drawn in asked.values() for d in drawn[:50]]
    return rows, answerer.answer_loss(sample)


def table(rows: list[Row]) -> str:
    head = "| held-out figure | dialogues | T 0 | T 0.7 | target |\n|---|---|---|---|---|\n"
    return head + "\n".join(
        f"| {r.name} | {r.count} | {r.shares[0]:.1f}% | {r.shares[1]:.1f}% | {r.target} |"
        for r in rows
    )


def write_card(rows: list[Row], loss: float, path: Path) -> None:
    """Replaces the figures between their marks in the card."""
    text = path.read_text(encoding="utf-8")
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    said = (
        f"{table(rows)}\n\nWritten by `python -m traitscope.pocket.evaluate`. Held-out loss per "
        f"answer token: {loss:.3f} nats (perplexity {math.exp(loss):.2f}); much of it is the free "
        "choice among synonyms.\nA figure without a target was not promised anything; it is there "
        "to be seen."
    )
    temporary = path.with_suffix(".tmp")
    temporary.write_text(f"{before}{START}\n{said}\n{END}{after}", encoding="utf-8")
    os.replace(temporary, path)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m traitscope.pocket.evaluate", description=__doc__
    )
    parser.add_argument("--model", type=Path, default=POCKET_DIR, help="a folder of model files")
    parser.add_argument("--per-kind", type=int, default=250, help="held-out dialogues per kind")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-card", action="store_true", help="print only")
    given = parser.parse_args(arguments)
    if not (given.model / "config.json").exists():
        print(f"Expected a folder of model files, found none at {given.model}.", file=sys.stderr)
        return 2
    torch.set_num_threads(given.threads)
    rows, loss = measure(Answerer.load(given.model), given.per_kind)
    print(table(rows))
    print(f"loss per answer token {loss:.4f}, perplexity {math.exp(loss):.4f}")
    print(json.dumps({"loss": loss, "figures": {r.name: list(r.shares) for r in rows}}))
    if not given.no_card:
        write_card(rows, loss, CARD)
    return 0


if __name__ == "__main__":
    sys.exit(main())
