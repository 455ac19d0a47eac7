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
from traitscope.report.hints import ALPHA, hints
from traitscope.report.palette import ASCII, DIM, TITLE, UNICODE, foreground
from traitscope.report.plain import one_line
from traitscope.report.summary import Failure, Summary
from traitscope.report.tables import Canvas, clip, number, trait_block

__all__ = ["night"]

NARROWEST = 60
WIDEST = 140
MANY = 6  # traits; of more than these only the highest and the lowest prompt are shown
REASONS = 6  # that captures failed for; more are counted
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
        *_devices(summary),
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


def _devices(summary: Summary) -> Iterator[Text]:
    """That texts were made on more than one kind of device."""
    if len(summary.devices) > 1:
        kinds = one_line(", then ".join(summary.devices))
        yield Text(f"  Made on {kinds}: the last digits of its texts' numbers do not compare.")


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
    shown = summary.failures if canvas.full else summary.failures[:REASONS]
    for failure in shown:
        yield _failure(failure, canvas)
    more = summary.failures[len(shown) :]
    if more:
        captures = sum(failure.captures for failure in more)
        yield _indented(
            f"{canvas.signs.ellipsis} {_count(captures, 'more capture')} for "
            f"{_count(len(more), 'more reason')}: --all names them"
        )


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
    aside = "orange more, blue less than neutral text" if canvas.colour else ""
    yield from _heading("What was found", canvas, aside)
    columns = {
        "before": "z before a word is written",
        "answer": "z over the answer",
        "embed": "what its words alone say",
    }
    if not canvas.words:
        del columns["embed"]
    said = [f"{name}: {what}" for name, what in columns.items()]
    if not canvas.colour:
        said.append(f"{canvas.signs.open}{canvas.signs.close}: strongest token")
    yield _indented(f" {canvas.signs.dot} ".join(said))
    for trait in summary.traits:
        yield Text()
        yield trait_block(trait, canvas)


# --- what was expected ---------------------------------------------------------------------------


def _expectations(summary: Summary, canvas: Canvas) -> Iterator[RenderableType]:
    verdicts = summary.expectations
    tested = [verdict for verdict in verdicts if verdict.p is not None]
    yield from _heading(f"What was expected: {_outcomes(verdicts)}", canvas)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style=DIM)
    table.width = canvas.width
    table.add_column("  ", width=3, no_wrap=True)
    table.add_column("", ratio=1, overflow="fold")
    for name in ("z apart", "wanted", "neutral", *(["p"] if tested else [])):
        table.add_column(name, justify="right", no_wrap=True, width=7)
    shared = _shared_note(verdicts)
    for verdict in verdicts:
        table.add_row(*_verdict(verdict, canvas, shared, with_p=bool(tested)))
    yield table
    if shared:
        yield _indented(shared)
    if tested:
        yield _indented(f"p: permutation over whole answers, {tested[0].note}")
    yield _indented("neutral: how far neutral texts lie apart in that reading (one deviation)")


def _outcomes(verdicts: Sequence[Verdict]) -> str:
    held = [verdict for verdict in verdicts if verdict.held]
    said = f"{len(held)} of {len(verdicts)} held"
    if any(verdict.p is not None for verdict in verdicts):
        sure = sum(verdict.p is not None and verdict.p <= ALPHA for verdict in held)
        said += f", {sure} of them with p at most {ALPHA}"
    return said


def _shared_note(verdicts: Sequence[Verdict]) -> str:
    """Why nothing was tested, where it is one reason: said once instead of on each line."""
    notes = {verdict.note for verdict in verdicts if verdict.held is not None}
    untested = not any(verdict.tested for verdict in verdicts)
    return notes.pop() if len(notes) == 1 and untested else ""


def _verdict(verdict: Verdict, canvas: Canvas, shared: str, *, with_p: bool) -> tuple[Text, ...]:
    signs = canvas.signs
    sign = {True: signs.held, False: signs.missed, None: signs.unknown}[verdict.held]
    line = Text(one_line(verdict.text))
    if verdict.note and not verdict.tested and verdict.note != shared:
        line.append(f"  {one_line(verdict.note)}", style=DIM)
    spread = signs.dot if verdict.spread is None else f"{verdict.spread:.2f}"
    p = signs.dot if verdict.p is None else f"{verdict.p:.2g}"
    return (
        Text(f"  {sign}", style=foreground(9) if verdict.held is False else ""),
        line,
        number(verdict.difference, signs),
        Text(f"{verdict.margin:g}", style=DIM),
        Text(spread, style=DIM),
        *([Text(p, style=DIM if verdict.p is None else "")] if with_p else []),
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
        if call.seconds.get(phase, 0) >= 0.05 and phase not in inner
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
    where = _quoted(_relative(summary.path))
    for label, verb in (("look", "view"), ("check", "verify")):
        # a command stays on one line, to be copied
        line = Text(f"  {label:<6}", style=DIM, no_wrap=True, overflow="ignore")
        yield line.append(f"traitscope {verb} {where}", style="not dim")


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
