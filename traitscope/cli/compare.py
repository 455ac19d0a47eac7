"""The verb that sets two runs side by side: one table, and the texts that moved most.

Knows how a change is shown, not how it is read.  Never loads torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from traitscope.cli.options import Json
from traitscope.cli.screen import Screen
from traitscope.report.palette import ASCII, DIM, TITLE, UNICODE, Signs, foreground
from traitscope.report.plain import one_line, shorten

if TYPE_CHECKING:
    from traitscope.report.compared import Compared, Moved, TraitChange

__all__ = ["compare"]

WIDEST = 110
ENDS = 3  # texts shown at either end of a trait
_NAME = 44  # characters of a text's name


def compare(
    run_a: Annotated[str, typer.Argument(metavar="RUN_A", help="A run's folder.")],
    run_b: Annotated[
        str, typer.Argument(metavar="RUN_B", help="A run on the same texts; it is held against A.")
    ],
    window: Annotated[
        str,
        typer.Option(
            "--window", metavar="WINDOW", help="What is read: response[:], prompt[-1], thinking[:]."
        ),
    ] = "response[:]",
    site: Annotated[
        str,
        typer.Option(
            "--site", metavar="SITE", help="read (each trait's own), a depth (0.5), or 3.post."
        ),
    ] = "read",
    json: Json = False,
) -> int:
    """Where do two models differ on the same texts? Texts pair up by their token ids.

    Example:

      traitscope replay chats.jsonl --model base-model --trait sycophancy

      traitscope replay chats.jsonl --model tuned-model --trait sycophancy

      traitscope compare runs/replay-1a2b3c4d runs/replay-5e6f7a8b
    """
    from traitscope.report.compared import compared
    from traitscope.runs import Run

    screen = Screen.now(json=json)
    found = compared(Run.open(run_a), Run.open(run_b), window, site)
    if json:
        screen.result(found.to_dict())
        return 0
    signs = UNICODE if screen.unicode else ASCII
    screen.show(Group(*_page(found, signs, min(screen.console().width, WIDEST))))
    return 0


def _page(found: Compared, signs: Signs, width: int) -> Iterator[RenderableType]:
    for side, path, model in (("A", found.a, found.model_a), ("B", found.b, found.model_b)):
        line = Text(f"{side}  ", style=TITLE).append(one_line(path), style="not bold")
        yield line.append(f"  {one_line(model)}", style="not bold dim")
    count = f"{found.pairs} text{'' if found.pairs == 1 else 's'} in both"
    yield Text(f"   {count} {signs.dot} z over {found.window}", style=DIM)
    for note in found.notes:
        yield Padding(Text(one_line(note)), (0, 0, 0, 3))
    yield Text()
    yield _table(found, signs, width)
    yield Padding(Text(_meaning(found), style=DIM), (0, 0, 0, 2))
    for trait in found.traits:
        yield from _movers(trait, signs, width)


def _table(found: Compared, signs: Signs, width: int) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style=DIM)
    table.width = width
    table.add_column("  trait", ratio=1, overflow="fold")
    table.add_column("site", no_wrap=True)
    for name in ("A", "B", "B - A", "spread", "higher", "p"):
        table.add_column(name, justify="right", no_wrap=True)
    for trait in found.traits:
        read = sum(not math.isnan(m.change) for m in trait.texts)
        sites = dict.fromkeys((trait.site_a, trait.site_b))
        table.add_row(
            Text(f"  {trait.trait}", style=TITLE),
            Text("/".join(sites), style=DIM),
            _number(trait.a, signs),
            _number(trait.b, signs),
            _number(trait.change, signs),
            _number(trait.spread, signs, signed=False),
            Text(f"{trait.higher} of {read}"),
            Text(signs.dot if trait.p is None else f"{trait.p:.2g}"),
        )
    return table


def _meaning(found: Compared) -> str:
    from traitscope.report.compared import ENOUGH

    said = "spread: standard deviation of B - A over texts."
    tested = [trait for trait in found.traits if trait.p is not None]
    if tested:
        over = "1 trait" if len(tested) == 1 else f"{len(tested)} traits"
        return f"{said} p: two-sided, by sign flips over whole texts, corrected over {over}."
    return f"{said} Not tested: that takes {ENOUGH} texts that differ."


def _movers(trait: TraitChange, signs: Signs, width: int) -> Iterator[RenderableType]:
    read = [m for m in trait.texts if not math.isnan(m.change)]
    if not read:
        return
    few = len(read) <= 2 * ENDS
    shown: Sequence[Moved] = read if few else [*read[:ENDS], *read[-ENDS:]]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style=DIM)
    table.width = width
    table.add_column(f"  {trait.trait}", ratio=1, no_wrap=True, overflow="ellipsis")
    for name in ("A", "B", "B - A"):
        table.add_column(name, justify="right", no_wrap=True, width=7)
    for number, moved in enumerate(shown):
        if not few and number == ENDS:
            table.add_row(Text(f"  {signs.ellipsis} {len(read) - 2 * ENDS} more", style=DIM))
        name = shorten(one_line(moved.name), _NAME, signs.ellipsis)
        cells = (_number(z, signs) for z in (moved.a, moved.b, moved.change))
        table.add_row(Text(f"  {name}"), *cells)
    yield Text()
    yield table


def _number(z: float, signs: Signs, *, signed: bool = True) -> Text:
    if math.isnan(z):
        return Text(signs.dot, style=DIM)
    if not signed:
        return Text(f"{z:.2f}")
    return Text(f"{'+' if z >= 0 else signs.minus}{abs(z):.2f}", style=foreground(z))
