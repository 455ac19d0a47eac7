"""Summary -> one screen: did it finish, what failed, what was found, what it cost, what is next.

Returns a renderable; nothing is printed here.  All text of people and models goes through `plain`
and is drawn as text, never parsed as markup.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from traitscope.report.cost import Call
from traitscope.report.expectations import Verdict
from traitscope.report.hints import hints
from traitscope.report.palette import ASCII, DIM, TITLE, UNICODE, foreground
from traitscope.report.plain import one_line
from traitscope.report.summary import Failure, Summary
from traitscope.report.tables import Canvas, clip, number, trait_block

__all__ = ["night"]

NARROWEST = 60
WIDEST = 140
_PHASES = ("load", "directions", "generate", "internals", "write")


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
    canvas = Canvas(width, UNICODE if unicode else ASCII, colour, full)
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
    counts = summary.counts
    whole = counts.done == counts.wanted
    sign = canvas.signs.held if whole else canvas.signs.missed
    line = Text(no_wrap=True, overflow="ellipsis")
    line.append(f"{sign} ", style="" if whole else foreground(9)).append(
        clip(summary.name, canvas.width // 3, canvas.signs.ellipsis), style=TITLE
    )
    line.append(f"  {_outcome(summary)}", style=TITLE if not whole else "")
    dot = f" {canvas.signs.dot} "
    model = summary.model
    facts = [
        _count(counts.trajectories, "trajectory", "trajectories"),
        f"{counts.internals} internals",
        _count(len(summary.traits), "trait"),
        _count(counts.texts, "answer"),
    ]
    machine = [one_line(str(model[k])) for k in ("name", "dtype", "device") if model.get(k)]
    when = _when(summary.cost.ended or summary.created)
    return Group(
        line,
        Text(f"  {dot.join(facts)}", style=DIM),
        Text(f"  {dot.join([*machine, when])}", style=DIM),
        *_agreement(summary),
        *_unproven(summary, canvas),
        *_outside(summary),
    )


def _outcome(summary: Summary) -> str:
    counts = summary.counts
    if counts.done == counts.wanted:
        return f"finished: all {counts.wanted} captures are there"
    said = f"{counts.done} of {counts.wanted} captures"
    failed = f", {counts.failed} failed" if counts.failed else ""
    return f"{'not finished' if counts.missing else 'finished'}: {said}{failed}"


def _agreement(summary: Summary) -> Iterator[Text]:
    """How far a batched number was from the same number alone, as measured at load."""
    for proof in summary.proofs if isinstance(summary.proofs, list) else ():
        if not isinstance(proof, Mapping) or not proof.get("held"):
            continue
        if proof.get("name") == "batched = alone":
            detail = f", {proof['detail']}" if proof.get("detail") else ""
            yield Text(
                one_line(f"  batched = alone within {proof['difference']:.1e} |h|{detail}"),
                style=DIM,
            )


def _unproven(summary: Summary, canvas: Canvas) -> Iterator[Text]:
    """What failed at load and was passed over: it bears on every number below."""
    if summary.unproven:
        said = "The model did not prove exact (--allow-unproven): do not trust these numbers."
        yield Text(f"  {canvas.signs.missed} {said}", style=foreground(9))
        for check in summary.unproven:
            yield Text(f"    {one_line(check)}", style=foreground(9))


def _outside(summary: Summary) -> Iterator[Text]:
    if summary.counts.outside:
        yield Text(
            f"  {summary.counts.outside} more captures are kept that are not in the suite any more",
            style=DIM,
        )


def _when(time: str) -> str:
    return one_line(time[:16].replace("T", " ")) + " UTC"


def _failures(summary: Summary, canvas: Canvas) -> Iterator[RenderableType]:
    yield from _heading("What failed", canvas)
    for failure in summary.failures:
        yield _failure(failure, canvas)


def _failure(failure: Failure, canvas: Canvas) -> Padding:
    plural = {"trajectory": "trajectories"}.get(failure.kind, failure.kind)
    count = _count(failure.captures, failure.kind, plural)
    names = [f'"{clip(name, 40, canvas.signs.ellipsis)}"' for name in failure.prompts[:3]]
    more = f" and {len(failure.prompts) - 3} more" if len(failure.prompts) > 3 else ""
    line = Text(f"{one_line(failure.prompt_set)}: {count}: ", style=TITLE)
    line.append(one_line(failure.reason), style="not bold")
    line.append(f"  {', '.join(names)}{more}", style="not bold dim")
    return Padding(line, (0, 0, 0, 2))


# --- what was found ------------------------------------------------------------------------------


def _found(summary: Summary, canvas: Canvas) -> Iterator[RenderableType]:
    if not any(trait.prompts for trait in summary.traits):
        return
    yield from _heading("What was found", canvas, "orange more, blue less than neutral text")
    columns = {
        "before": "z before a word is written",
        "answer": "z over the answer",
        "embed": "what its words alone say",
    }
    comma = f" {canvas.signs.dot} "
    yield _indented(comma.join(f"{name}: {what}" for name, what in columns.items()))
    for trait in summary.traits:
        yield Text()
        yield trait_block(trait, canvas)


# --- what was expected ---------------------------------------------------------------------------


def _expectations(summary: Summary, canvas: Canvas) -> Iterator[RenderableType]:
    held = sum(verdict.held is True for verdict in summary.expectations)
    note = _shared_note(summary.expectations)
    yield from _heading(f"What was expected: {held} of {len(summary.expectations)} held", canvas)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style=DIM)
    table.width = canvas.width
    table.add_column("  ", width=3, no_wrap=True)
    table.add_column("expectation", ratio=1, overflow="fold")
    for name in ("z apart", "wanted", "neutral"):
        table.add_column(name, justify="right", no_wrap=True, width=7)
    for verdict in summary.expectations:
        table.add_row(*_verdict(verdict, canvas, note))
    yield table
    said = "neutral: what neutral texts differ by in that reading (one standard deviation)."
    yield _indented(f"{said} {note.capitalize()}." if note else said)


def _shared_note(verdicts: tuple[Verdict, ...]) -> str:
    """The one note of all measured expectations, said once instead of on each line."""
    measured = [verdict for verdict in verdicts if verdict.held is not None]
    notes = {verdict.note for verdict in measured}
    tested = any(verdict.tested for verdict in measured)
    return notes.pop() if len(notes) == 1 and not tested else ""


def _verdict(verdict: Verdict, canvas: Canvas, shared: str) -> tuple[Text, ...]:
    signs = canvas.signs
    sign = {True: signs.held, False: signs.missed, None: signs.unknown}[verdict.held]
    line = Text(one_line(verdict.text))
    if verdict.tested and verdict.p is not None:
        line.append(f"  p = {verdict.p:.2g}, {verdict.note}", style=DIM)
    elif verdict.note and verdict.note != shared:
        line.append(f"  {one_line(verdict.note)}", style=DIM)
    spread = signs.dot if verdict.spread is None else f"{verdict.spread:.2f}"
    return (
        Text(f"  {sign}", style=foreground(9) if verdict.held is False else ""),
        line,
        number(verdict.difference, signs),
        Text(f"{verdict.margin:g}", style=DIM),
        Text(spread, style=DIM),
    )


# --- what it cost --------------------------------------------------------------------------------


def _cost(summary: Summary, canvas: Canvas) -> Iterator[RenderableType]:
    cost = summary.cost
    if cost.last is None:
        return
    yield from _heading("What it cost", canvas)
    ended = ", interrupted" if cost.last.interrupted else ""
    if cost.calls > 1 or ended:
        yield _call(f"last call{ended}", cost.last, summary, canvas)
    if cost.calls > 1:
        yield _call(f"all {cost.calls} calls", cost.total, summary, canvas)
    elif not ended:
        yield _call("", cost.last, summary, canvas)


def _call(name: str, call: Call, summary: Summary, canvas: Canvas) -> Padding:
    dot = f" {canvas.signs.dot} "
    facts = [
        _count(call.model_loads, "model load"),
        f"{_count(call.batches, 'batch', 'batches')} of up to {summary.rows} rows",
        f"{call.new_tokens} tokens written",
    ]
    if call.tokens_per_second:
        facts.append(f"{_rate(call.tokens_per_second)} tokens/s")
    phases = [*_PHASES, *(k for k in call.seconds if k not in (*_PHASES, "total"))]
    inner = ("prefill", "decode")  # parts of 'generate'
    seconds = [
        f"{one_line(phase)} {_seconds(call.seconds[phase])}"
        for phase in phases
        if call.seconds.get(phase) and phase not in inner
    ]
    if "total" in call.seconds:
        seconds.append(f"in all {_seconds(call.seconds['total'])}")
    head = f"{name}: " if name else ""
    text = Text(head + dot.join(facts) + ("\n" + dot.join(seconds) if seconds else ""))
    return Padding(text, (0, 0, 0, 2))


def _rate(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def _seconds(value: float) -> str:
    if value < 100:
        return f"{value:.1f} s"
    minutes, seconds = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s"


def _count(number: int, noun: str, plural: str = "") -> str:
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


# --- what is next --------------------------------------------------------------------------------


def _next(summary: Summary, canvas: Canvas) -> Iterator[RenderableType]:
    first = hints(summary)
    if first:
        yield from _heading("Look at first", canvas)
        yield _bullets(first, canvas)
    yield Text()
    where = _relative(summary.path)
    for label, value in (("run", where), ("next", f"traitscope verify {_quoted(where)}")):
        # a path and a command stay on one line, to be copied
        yield Text(f"  {label:<5}", style=DIM, no_wrap=True, overflow="ignore").append(
            value, style="not dim"
        )


def _bullets(lines: Sequence[str], canvas: Canvas) -> Table:
    table = Table.grid(padding=(0, 1, 0, 0))
    for line in lines:
        table.add_row(Text(f"  {canvas.signs.dot}", style=DIM), Text(line))
    return table


def _relative(path: str) -> str:
    near = os.path.relpath(path)
    return one_line(path if near.startswith("..") else near)


def _quoted(path: str) -> str:
    return f"'{path}'" if any(c in path for c in " '\"$&;()") else path


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
