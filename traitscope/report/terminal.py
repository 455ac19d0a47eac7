"""Summary -> one screen: did it finish, what failed, what was found, what it cost, what is next.

Returns a renderable; nothing is printed here.  All text of people and models goes through `plain`
and is drawn as text, never parsed as markup.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from traitscope.report import words
from traitscope.report.expectations import Verdict
from traitscope.report.hints import hints
from traitscope.report.palette import ASCII, DIM, TITLE, UNICODE, foreground
from traitscope.report.plain import one_line
from traitscope.report.summary import Failure, Summary
from traitscope.report.tables import Canvas, clip, number, trait_block

__all__ = ["night"]

NARROWEST = 60
WIDEST = 140
MANY = 6  # traits; of more than these only the highest and the lowest prompt are shown
REASONS = 6  # that captures failed for; more are counted


def night(
    summary: Summary,
    *,
    width: int = 100,
    colour: bool = True,
    unicode: bool = True,
    full: bool = False,
) -> RenderableType:
    """The whole report, `width` columns wide (at least 60); `full` shows every prompt."""
    width = min(max(width, NARROWEST), WIDEST)
    ends = 2 if len(summary.traits) <= MANY else 1
    canvas = Canvas(width, UNICODE if unicode else ASCII, colour, full, ends)
    blocks: list[RenderableType] = [
        _head(summary, canvas),
        *(_failures(summary, canvas) if summary.failures else ()),
        *_found(summary, canvas),
        *(_expectations(summary, canvas) if summary.expectations else ()),
        *_cost(summary, canvas),
        *_next(summary, canvas),
    ]
    return Group(*blocks)


# --- did it finish -------------------------------------------------------------------------------


def _head(summary: Summary, canvas: Canvas) -> Group:
    whole = summary.counts.done == summary.counts.wanted
    sign = canvas.signs.held if whole else canvas.signs.missed
    line = Text(no_wrap=True, overflow="ellipsis")
    line.append(f"{sign} ", style="" if whole else foreground(9)).append(
        clip(summary.name, canvas.width // 3, canvas.signs.ellipsis), style=TITLE
    )
    line.append(f"  {words.outcome(summary)}", style=TITLE if not whole else "")
    below = [_dotted(words.facts(summary), canvas), _dotted(words.machine(summary), canvas)]
    below += words.agreement(summary)
    said = [Text(f"  {one_line(fact)}", style=DIM) for fact in below]
    return Group(line, *said, *_unproven(summary, canvas))


def _unproven(summary: Summary, canvas: Canvas) -> Iterator[Text]:
    """It bears on every number below."""
    for number_, said in enumerate(words.unproven(summary)):
        sign = "  " if number_ else f"{canvas.signs.missed} "
        yield Text(f"  {sign}{one_line(said)}", style=foreground(9))


def _failures(summary: Summary, canvas: Canvas) -> Iterator[RenderableType]:
    yield from _heading("What failed", canvas)
    shown = summary.failures if canvas.full else summary.failures[:REASONS]
    for failure in shown:
        yield _failure(failure, canvas)
    more = summary.failures[len(shown) :]
    if more:
        captures = sum(failure.captures for failure in more)
        yield _indented(
            f"{canvas.signs.ellipsis} {words.count(captures, 'more capture')} for "
            f"{words.count(len(more), 'more reason')}: --all names them"
        )


def _failure(failure: Failure, canvas: Canvas) -> Padding:
    names = [f'"{clip(name, 40, canvas.signs.ellipsis)}"' for name in failure.prompts[:3]]
    more = f" and {len(failure.prompts) - 3} more" if len(failure.prompts) > 3 else ""
    line = Text(f"{one_line(words.failed(failure))}: ", style=TITLE)
    line.append(one_line(failure.reason), style="not bold")
    line.append(f"  {', '.join(names)}{more}", style="not bold dim")
    return Padding(line, (0, 0, 0, 2))


# --- what was found ------------------------------------------------------------------------------


def _found(summary: Summary, canvas: Canvas) -> Iterator[RenderableType]:
    if not any(trait.prompts for trait in summary.traits):
        return
    aside = "orange more, blue less than neutral text" if canvas.colour else ""
    yield from _heading("What was found", canvas, aside)
    shown = {k: v for k, v in words.COLUMNS.items() if canvas.words or k != "embed"}
    said = [f"{name}: {what}" for name, what in shown.items()]
    if not canvas.colour:
        said.append(f"{canvas.signs.open}{canvas.signs.close}: strongest token")
    yield _indented(_dotted(said, canvas))
    for trait in summary.traits:
        yield Text()
        yield trait_block(trait, canvas)


# --- what was expected ---------------------------------------------------------------------------


def _expectations(summary: Summary, canvas: Canvas) -> Iterator[RenderableType]:
    verdicts = summary.expectations
    reasons = words.marks(verdicts)
    tested = bool(reasons) or any(verdict.p is not None for verdict in verdicts)
    yield from _heading(f"What was expected: {words.outcomes(verdicts)}", canvas)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style=DIM)
    table.width = canvas.width
    table.add_column("  ", width=3, no_wrap=True)
    table.add_column("", ratio=1, overflow="fold")
    for name in ("z apart", "wanted", "neutral", *(["p"] if tested else [])):
        table.add_column(name, justify="right", no_wrap=True, width=7)
    for verdict in verdicts:
        sure = [words.sure(verdict, reasons)] if tested else []
        table.add_row(*_verdict(verdict, canvas), *sure)
    yield table
    for note in words.notes(verdicts):
        yield _indented(one_line(note))


def _verdict(verdict: Verdict, canvas: Canvas) -> tuple[Text, ...]:
    signs = canvas.signs
    sign = {True: signs.held, False: signs.missed, None: signs.unknown}[verdict.held]
    line = Text(one_line(verdict.text))
    if verdict.held is None:
        line.append(f"  {one_line(verdict.note)}", style=DIM)
    spread = signs.dot if verdict.spread is None else f"{verdict.spread:.2f}"
    return (
        Text(f"  {sign}", style=foreground(9) if verdict.held is False else ""),
        line,
        number(verdict.difference, signs),
        Text(f"{verdict.margin:g}", style=DIM),
        Text(spread, style=DIM),
    )


# --- what it cost, what is next ------------------------------------------------------------------


def _cost(summary: Summary, canvas: Canvas) -> Iterator[RenderableType]:
    for place, (name, done, took) in enumerate(words.calls(summary)):
        if not place:
            yield from _heading("What it cost", canvas)
        head = f"{name}: " if name else ""
        lines = [head + _dotted(done, canvas), *([_dotted(took, canvas)] if took else [])]
        yield Padding(Text("\n".join(map(one_line, lines))), (0, 0, 0, 2))
    for line in words.used(summary):
        yield Padding(Text(line), (0, 0, 0, 2))


def _next(summary: Summary, canvas: Canvas) -> Iterator[RenderableType]:
    first = hints(summary)
    if first:
        yield from _heading("Look at first", canvas)
        yield _bullets(first, canvas)
    yield Text()
    where = one_line(words.place(summary.path))
    verbs = {"look": f"view {where}", "send": f"report {where} --html report.html"}
    for label, command in {**verbs, "check": f"verify {where}"}.items():
        # a command stays on one line, to be copied
        line = Text(f"  {label:<6}", style=DIM, no_wrap=True, overflow="ignore")
        yield line.append(f"traitscope {command}", style="not dim")


def _bullets(lines: Sequence[str], canvas: Canvas) -> Table:
    table = Table.grid(padding=(0, 1, 0, 0))
    for line in lines:
        table.add_row(Text(f"  {canvas.signs.dot}", style=DIM), Text(line))
    return table


def _dotted(parts: Sequence[str], canvas: Canvas) -> str:
    return f" {canvas.signs.dot} ".join(parts)


def _indented(text: str) -> Padding:
    return Padding(Text(text, style=DIM), (0, 0, 0, 2))


def _heading(title: str, canvas: Canvas, aside: str = "") -> Iterator[RenderableType]:
    yield Text()
    line = Text(f"{title} ", style=TITLE, no_wrap=True, overflow="crop")
    rest = canvas.width - cell_len(title) - 1
    if aside and canvas.colour and rest > len(aside) + 4:
        rule = canvas.signs.rule * (rest - len(aside) - 1)
        line.append(f"{rule} {aside}", style="not bold dim")
    else:
        line.append(canvas.signs.rule * rest, style="not bold dim")
    yield line
