"""The verb that looks ahead: what a suite would do here, and take; nothing of it is run.

Knows how the plan is said, not how it is made.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from traitscope.cli.of_suite import of_a_suite
from traitscope.cli.screen import Screen
from traitscope.cli.units import count, seconds, size
from traitscope.report.palette import ASCII, DIM, TITLE, UNICODE, Signs, foreground
from traitscope.report.plain import one_line

if TYPE_CHECKING:
    from traitscope.forecast import Forecast, Lengths
    from traitscope.plans import Plan
    from traitscope.suite import Suite

__all__ = ["plan"]

_SAID = {
    "start": "prompts and checks",
    "load": "loading and proofs",
    "directions": "directions",
    "prefill": "reading prompts",
    "decode": "writing answers",
    "replay": "reading texts",
    "internals": "internals",
    "write": "saving",
}


@of_a_suite
def plan(suite: Suite, out: Path | None, fresh: bool, retry_failed: bool, screen: Screen) -> int:
    """What a suite would do here, and take: loads, batches, tokens, time, memory, disk.

    Runs nothing of it: loads the model once and measures for a few seconds. What is there already
    in the run's folder is left out. After the run its report has the plan beside what happened.

    Examples:

      traitscope plan overnight

      traitscope plan my-suite/ --model google/gemma-2-2b-it --samples 5
    """
    from traitscope.cli.progress import progress_on
    from traitscope.planner import plan as work_out
    from traitscope.ticks import Tick

    with screen.work(), progress_on(screen) as progress:
        made = work_out(suite, out=out, fresh=fresh, retry_failed=retry_failed, progress=progress)
        progress(Tick("done"))
    if screen.json:
        screen.result(made.to_dict())
    else:
        screen.show(Group(*_page(made, UNICODE if screen.unicode else ASCII)))
    return 0


# --- the page ------------------------------------------------------------------------------------


def _page(made: Plan, signs: Signs) -> Iterator[RenderableType]:
    yield from _head(made, signs)
    if not made.loads:
        return
    yield Text()
    yield _amounts(made)
    yield Text()
    yield _table(made)
    yield Text()
    for line in _notes(made):
        yield Padding(Text(line, style=DIM), (0, 0, 0, 2))
    for line in _warnings(made):
        yield Padding(Text(line, style=foreground(9)), (0, 0, 0, 2))


def _head(made: Plan, signs: Signs) -> Iterator[Text]:
    dot = f" {signs.dot} "
    where = "would be new" if not made.resumed else "goes on" if made.loads else "is finished"
    yield Text(one_line(f"{made.path} {where}"), style=TITLE)
    there = f", {made.done:,} of them there already" if made.done else ""
    yield Text(f"  {count(made.wanted, 'capture')} wanted{there}", style=DIM)
    facts = [str(made.model[name]) for name in ("name", "dtype", "device") if name in made.model]
    facts.append(f"batches of up to {count(made.sizing.rows, 'row')}{_why(made.sizing.limit)}")
    yield Text(one_line(f"  {dot.join(facts)}"), style=DIM)
    if not made.loads:
        yield Text("  Nothing is to be made: all of it is there.")


def _why(limit: str) -> str:
    return {
        "speed": ", more would gain little",
        "texts": ", one for each text",
        "memory": ", all that fit into memory",
    }.get(limit, "")


def _amounts(made: Plan) -> Padding:
    """What would be done, in order, with the parts that have nothing to do left out."""
    traits = ", ".join(made.pair_traits)
    lines = [
        f"{count(made.loads, 'model load')}, {size(made.weights)} of weights",
        f"directions of {traits}, from {count(made.pair_texts, 'text')}" if traits else "",
        f"{count(made.written_texts, 'text')} to be written, in "
        f"{count(made.expected.batches, 'batch', 'batches')} and "
        f"{count(made.expected.steps, 'step')}"
        if made.written_texts
        else "",
        f"{count(made.read_texts, 'text')} to be read" if made.read_texts else "",
        f"{count(made.opened, 'block')} of texts to be opened" if made.opened else "",
    ]
    return Padding(Text("\n".join(one_line(line) for line in lines if line)), (0, 0, 0, 2))


def _table(made: Plan) -> Table:
    """Two columns, expected and at most, where they differ; else one."""
    plans = [made.expected, made.most] if made.lengths.known else [made.most]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style=DIM)
    table.add_column("", width=1)
    table.add_column("", overflow="fold")  # where it is narrow words are folded, numbers never
    for name in ("expected", "at most")[-len(plans) :]:
        table.add_column(name, justify="right", no_wrap=True)
    for phase, said in _SAID.items():
        if any(plan.seconds[phase] >= 0.005 for plan in plans):
            table.add_row("", said, *(seconds(plan.seconds[phase]) for plan in plans))
    for said, values in _totals(plans):
        table.add_row("", Text(said, style=TITLE), *(Text(v, style=TITLE) for v in values))
    return table


def _totals(plans: list[Forecast]) -> Iterator[tuple[str, list[str]]]:
    yield "time in all", [seconds(plan.total) for plan in plans]
    yield "tokens written", [f"{plan.new_tokens:,}" for plan in plans]
    yield "tokens in all", [f"{plan.tokens:,}" for plan in plans]
    yield "peak memory", [size(plan.memory) for plan in plans]
    yield "disk", [size(plan.disk) for plan in plans]


def _notes(made: Plan) -> Iterator[str]:
    """What the figures assume."""
    lengths = made.lengths
    if not made.written_texts:
        return
    yield "At most: every answer is as long as it may be (max_new_tokens)."
    if not lengths.known:
        yield (
            f"No answer ended within {count(lengths.tokens, 'token')} of a trial, so that nothing "
            "less can be expected."
        )
        return
    left = len(lengths.open)
    guessed = f"; {left} had not ended yet, and {'was' if left == 1 else 'were'} guessed"
    yield f"Expected: answers as long as {_known(lengths)}{guessed if left else ''}."


def _known(lengths: Lengths) -> str:
    """Whose lengths are known: those of the run, and those that were tried."""
    there = f"the {count(lengths.before, 'answer')} of this run" if lengths.before else ""
    tried = f"the {count(lengths.tried, 'answer')} that were tried" if lengths.tried else ""
    if lengths.tried == 1:
        tried = "the one answer that was tried"
    elif lengths.tried:
        tried += f", to {count(lengths.tried_prompts, 'prompt')}"
    return " and ".join(part for part in (there, tried) if part)


def _warnings(made: Plan) -> Iterator[str]:
    if made.refused:
        yield made.refused
    if made.memory_all is not None and made.most.memory > made.memory_all:
        memory = size(made.memory_all)
        yield f"This machine has {memory} of memory: use fewer --rows or a narrower --dtype."
    if made.most.disk > made.disk_free:
        yield f"The disk has {size(made.disk_free)} free: choose another --out."
    if made.warning:
        yield made.warning
