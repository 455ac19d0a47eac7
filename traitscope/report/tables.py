"""One trait -> its table: prompts by the answer's z, three readings, the answer's tokens coloured.

A table has as many columns as the width allows; the prompt and the answer share what the numbers
leave, and a bar comes in where there is plenty.  Pieces are made here, `terminal` puts them
together.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from traitscope.report.palette import DIM, TITLE, Signs, background, foreground
from traitscope.report.plain import one_line
from traitscope.report.readings import Strip
from traitscope.report.summary import PromptRow, TraitSummary

__all__ = ["Canvas", "clip", "number", "trait_block"]

WIDE, NARROW = 120, 72  # columns from which on a bar, and what the words alone say, are shown
_ARM = 6  # cells of a bar on either side of its axis
_NUMBER, _GAP = 6, 2  # cells of a reading, and between columns


@dataclass(frozen=True)
class Canvas:
    """What is drawn on: columns, signs, whether there is colour, and whether all is shown.

    `ends` is how many prompts are shown at either end of a trait.
    """

    width: int
    signs: Signs
    colour: bool
    full: bool = False
    ends: int = 2

    @property
    def wide(self) -> bool:
        return self.width >= WIDE

    @property
    def words(self) -> bool:
        return self.width >= NARROW


def trait_block(trait: TraitSummary, canvas: Canvas) -> RenderableType:
    """The trait's name over its prompts, the highest and the lowest."""
    samples = any(row.samples > 1 for row in trait.prompts)
    prompt, answer = _widths(canvas, samples)
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style=DIM)
    name = Text(clip(trait.trait, prompt, canvas.signs.ellipsis), style=f"not dim {TITLE}")
    table.add_column(name, no_wrap=True, width=prompt)
    for title in _readings(canvas, samples):
        table.add_column(title, justify="right", no_wrap=True, width=_NUMBER)
    if canvas.wide:
        table.add_column("", no_wrap=True, width=2 * _ARM + 1)
    table.add_column(_aside(trait, answer, canvas), no_wrap=True, width=answer)
    for row in _shown(trait, canvas):
        if isinstance(row, int):
            table.add_row(Text(f"  {canvas.signs.ellipsis} {row} more", style=DIM))
        else:
            table.add_row(*_cells(row, trait, canvas, samples))
    return table


def number(z: float, signs: Signs, digits: int = 2) -> Text:
    """A signed z; a dot where there is none."""
    if math.isnan(z):
        return Text(signs.dot, style=DIM)
    sign = "+" if z >= 0 else signs.minus
    return Text(f"{sign}{abs(z):.{digits}f}", style=foreground(z))


def clip(text: str, cells: int, ellipsis: str) -> str:
    """`text` on one line in at most `cells` terminal cells (wide characters take two)."""
    text = one_line(text[: 8 * cells])  # of a book that someone pasted, no more is looked at
    if cell_len(text) <= cells:
        return text
    while text and cell_len(text) > cells - cell_len(ellipsis):
        text = text[:-1]
    return text.rstrip() + ellipsis


# --- the table -----------------------------------------------------------------------------------


def _readings(canvas: Canvas, samples: bool) -> list[str]:
    spread, embed = ["spread"] if samples else [], ["embed"] if canvas.words else []
    return ["before", "answer", *spread, *embed]


def _widths(canvas: Canvas, samples: bool) -> tuple[int, int]:
    """Cells of the prompt and of the answer."""
    taken = len(_readings(canvas, samples)) * (_NUMBER + _GAP) + 2 * _GAP
    taken += 2 * _ARM + 1 + _GAP if canvas.wide else 0
    left = canvas.width - taken
    prompt = max(round(0.46 * left), 12)
    return prompt, left - prompt


def _aside(trait: TraitSummary, cells: int, canvas: Canvas) -> str:
    """Where z was read and how far neutral answers lie apart, as far as there is room."""
    said = f"z at {trait.site}"
    spread = trait.neutral_spread
    if spread is not None:
        for longer in (f"{said}, neutral {spread:.2f}", f"{said}, neutral answers {spread:.2f}"):
            said = longer if len(longer) <= cells else said
    return clip(said, cells, canvas.signs.ellipsis)


def _cells(row: PromptRow, trait: TraitSummary, canvas: Canvas, samples: bool) -> list[Text]:
    signs = canvas.signs
    prompt, answer = _widths(canvas, samples)
    cells = [
        Text("  " + clip(row.name, prompt - 2, signs.ellipsis)),
        number(row.before, signs),
        number(row.response, signs),
    ]
    if samples:
        cells.append(Text(signs.dot if row.spread is None else f"{row.spread:.2f}", style=DIM))
    if canvas.words:
        cells.append(number(row.embed, signs))
    if canvas.wide:
        cells.append(_bar(row.response, _scale(trait), signs))
    return [*cells, _strip(row.strip, answer, canvas)]


def _shown(trait: TraitSummary, canvas: Canvas) -> Iterator[PromptRow | int]:
    """The rows of both ends, and between them how many are left out."""
    high, between, low = trait.split(len(trait.prompts) if canvas.full else canvas.ends)
    yield from high
    if between:
        yield len(between)
    yield from low


def _scale(trait: TraitSummary) -> float:
    """The z at which a bar is full: the trait's largest, and never below 2."""
    return max([2.0, *(abs(r.response) for r in trait.prompts if not math.isnan(r.response))])


def _bar(z: float, scale: float, signs: Signs) -> Text:
    if math.isnan(z):
        return Text(" " * _ARM + signs.axis + " " * _ARM, style=DIM)
    halves = round(abs(z) / scale * 2 * _ARM)
    whole, half = divmod(halves, 2)
    if z < 0:
        left, right = (signs.right_half * half + signs.full * whole).rjust(_ARM), " " * _ARM
    else:
        left, right = " " * _ARM, (signs.full * whole + signs.left_half * half).ljust(_ARM)
    bar = Text(left, style=foreground(z))
    return bar.append(signs.axis, style=DIM).append(right, style=foreground(z))


# --- the answer's tokens -------------------------------------------------------------------------


def _strip(strip: Strip, cells: int, canvas: Canvas) -> Text:
    """The answer's tokens, coloured by z; without colour the strongest stands between marks.

    Where not all of it has room, the part around the strongest token is shown.
    """
    best = max(range(len(strip.z)), key=lambda i: _known(strip.z[i]), default=0)
    first = _first(strip.pieces, best, cells)
    body = Text(canvas.signs.ellipsis if first else "")
    for i in range(first, len(strip.pieces)):
        shown = one_line(strip.pieces[i])
        # the space before a word keeps the screen's own background: words stand apart
        bare = shown.lstrip(" ")
        body.append(" " * (len(shown) - len(bare)) if body.plain.strip() else "")
        if i == best and not canvas.colour and bare:
            bare = f"{canvas.signs.open}{bare}{canvas.signs.close}"
        body.append(bare, style=background(strip.z[i]) if canvas.colour else "")
        if cell_len(body.plain) > cells:
            break
    return _cropped(body, cells, canvas.signs.ellipsis)


def _known(z: float) -> float:
    return -math.inf if math.isnan(z) else z


def _first(pieces: Sequence[str], best: int, cells: int) -> int:
    """The first piece shown, so that the piece `best` has room and some words before it."""
    if sum(cell_len(one_line(piece)) for piece in pieces[: best + 1]) <= cells - 3:
        return 0
    first, before = best, 0
    while first and (before := before + cell_len(one_line(pieces[first - 1]))) <= 0.6 * cells:
        first -= 1
    return first


def _cropped(body: Text, cells: int, ellipsis: str) -> Text:
    body.rstrip()
    if cell_len(body.plain) <= cells:
        return body
    stop = len(body.plain)
    while cell_len(body.plain[:stop]) > cells - cell_len(ellipsis):
        stop -= 1
    return body[:stop].append(ellipsis)
