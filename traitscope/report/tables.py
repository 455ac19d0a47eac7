"""One trait -> its table: prompts by the answer's z, both readings, a bar, the strongest token.

A table has as many columns as the width allows; the prompt gives way first, then the bar and the
strongest token go.  Below it stand the highest and the lowest answer with their tokens coloured.
Pieces are made here, `terminal` puts them together.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from traitscope.report.palette import DIM, TITLE, Signs, background, foreground
from traitscope.report.plain import one_line
from traitscope.report.summary import PromptRow, TraitSummary

__all__ = ["Canvas", "clip", "number", "trait_block"]

ENDS = 3  # prompts shown at either end of a trait
WIDE, MIDDLE = 90, 72  # columns from which on the strongest token, and the bar, are shown
_ARM = 6  # cells of a bar on either side of its axis


@dataclass(frozen=True)
class Canvas:
    """What is drawn on: columns, signs, whether there is colour, and whether all is shown."""

    width: int
    signs: Signs
    colour: bool
    full: bool = False


def trait_block(trait: TraitSummary, canvas: Canvas) -> Group:
    """Title, table, and the two ends' answers."""
    parts: list[RenderableType] = [_title(trait, canvas), _table(trait, canvas)]
    read = [row for row in trait.prompts if not math.isnan(row.response)]
    ends = (("highest", read[:1]), ("lowest", read[-1:] if len(read) > 1 else []))
    parts += [_answer(name, row, canvas) for name, rows in ends for row in rows]
    return Group(*parts)


def number(z: float, signs: Signs, digits: int = 2) -> Text:
    """A signed z; a dot where there is none."""
    if math.isnan(z):
        return Text(signs.dot, style=DIM)
    sign = "+" if z >= 0 else signs.minus
    return Text(f"{sign}{abs(z):.{digits}f}", style=foreground(z))


def clip(text: str, cells: int, ellipsis: str) -> str:
    """`text` on one line in at most `cells` terminal cells (wide characters take two)."""
    text = one_line(text)
    if cell_len(text) <= cells:
        return text
    while text and cell_len(text) > cells - cell_len(ellipsis):
        text = text[:-1]
    return text.rstrip() + ellipsis


# --- the table -----------------------------------------------------------------------------------


def _title(trait: TraitSummary, canvas: Canvas) -> Text:
    line = Text(no_wrap=True, overflow="ellipsis")
    line.append(one_line(trait.trait), style=TITLE)
    spread = trait.neutral_spread
    beside = "" if spread is None else f", neutral answers differ by {spread:.2f}"
    where = f"  z at {trait.site}{beside}"
    if cell_len(line.plain) + len(where) <= canvas.width:
        line.append(where, style=DIM)
    return line


def _table(trait: TraitSummary, canvas: Canvas) -> Table:
    wide, middle = canvas.width >= WIDE, canvas.width >= MIDDLE
    samples = any(row.samples > 1 for row in trait.prompts)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style=DIM)
    table.add_column("  prompt", no_wrap=True, width=_prompt_width(canvas, samples))
    table.add_column("before", justify="right", no_wrap=True, width=6)
    table.add_column("answer", justify="right", no_wrap=True, width=6)
    if samples:
        table.add_column("spread", justify="right", no_wrap=True, width=6)
    if middle:
        table.add_column("", no_wrap=True, width=2 * _ARM + 1)
    table.add_column("embed", justify="right", no_wrap=True, width=6)
    if wide:
        table.add_column("strongest token", no_wrap=True, width=_strongest_width(canvas))
    for row in _shown(trait.prompts, canvas):
        if isinstance(row, int):
            table.add_row(Text(f"  {canvas.signs.ellipsis} {row} more", style=DIM))
        else:
            table.add_row(*_cells(row, trait, canvas, samples=samples))
    return table


def _cells(row: PromptRow, trait: TraitSummary, canvas: Canvas, *, samples: bool) -> list[Text]:
    signs, width = canvas.signs, _prompt_width(canvas, samples)
    cells = [
        Text("  " + clip(row.name, width - 2, signs.ellipsis)),
        number(row.before, signs),
        number(row.response, signs),
    ]
    if samples:
        cells.append(Text(signs.dot if row.spread is None else f"{row.spread:.2f}", style=DIM))
    if canvas.width >= MIDDLE:
        cells.append(_bar(row.response, _scale(trait), signs))
    cells.append(number(row.embed, signs))
    if canvas.width >= WIDE:
        cells.append(_strongest(row, canvas))
    return cells


def _shown(rows: Sequence[PromptRow], canvas: Canvas) -> Iterator[PromptRow | int]:
    """The rows of both ends, and between them how many are left out."""
    if canvas.full or len(rows) <= 2 * ENDS + 1:
        yield from rows
        return
    yield from rows[:ENDS]
    yield len(rows) - 2 * ENDS
    yield from rows[-ENDS:]


def _strongest_width(canvas: Canvas) -> int:
    return min(18 + max(canvas.width - 100, 0) // 3, 32)


def _prompt_width(canvas: Canvas, samples: bool) -> int:
    taken = 3 * (6 + 2)
    taken += 6 + 2 if samples else 0
    taken += 2 * _ARM + 1 + 2 if canvas.width >= MIDDLE else 0
    taken += _strongest_width(canvas) if canvas.width >= WIDE else 0
    return max(canvas.width - taken - 2, 12)


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


def _strongest(row: PromptRow, canvas: Canvas) -> Text:
    if row.strongest is None:
        return Text(canvas.signs.dot, style=DIM)
    signs = canvas.signs
    z = number(row.strongest.z, signs, digits=1)
    room = _strongest_width(canvas) - len(z.plain) - 1
    token = clip(row.strongest.token.strip() or signs.blank, room, signs.ellipsis)
    return Text(token).append(" ").append_text(z)


# --- answers -------------------------------------------------------------------------------------


def _answer(name: str, row: PromptRow, canvas: Canvas) -> Text:
    """One answer on one line; tokens coloured by z, or the strongest one marked."""
    line = Text(no_wrap=True, overflow="ellipsis").append(f"  {name:<8}", style=DIM)
    body = _coloured(row) if canvas.colour else _marked(row, canvas)
    body.rstrip()
    line.append_text(body[len(body.plain) - len(body.plain.lstrip()) :])
    line.truncate(canvas.width, overflow="crop" if not canvas.colour else "ellipsis")
    return line


def _coloured(row: PromptRow) -> Text:
    body = Text()
    for piece, z in zip(row.strip.pieces, row.strip.z, strict=True):
        shown = one_line(piece)
        # the space before a word keeps the screen's own background: words stand apart
        bare = shown.lstrip(" ")
        body.append(" " * (len(shown) - len(bare)))
        body.append(bare, style=background(z))
    return body


def _marked(row: PromptRow, canvas: Canvas) -> Text:
    """The answer with its strongest token between marks."""
    signs, body = canvas.signs, Text()
    known = [z for z in row.strip.z if not math.isnan(z)]
    best = max(known, default=math.nan)
    for piece, z in zip(row.strip.pieces, row.strip.z, strict=True):
        shown = one_line(piece)
        bare = shown.lstrip(" ")
        marked = f"{signs.open}{bare}{signs.close}" if z == best and bare else bare
        body.append(" " * (len(shown) - len(bare)) + marked)
    return body
