"""The verb that measures: a load per prompt, one load, true batches, processes side by side.

Knows how the result is said, not how it is measured.  Exit status: 0, or 1 where the ways did not
write the same texts in float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from traitscope.cli.options import (
    Adapter,
    Device,
    Dtype,
    Json,
    MaxNewTokens,
    Revision,
    Rows,
    TrustRemoteCode,
    given,
)
from traitscope.cli.screen import Screen
from traitscope.cli.units import count, duration, seconds
from traitscope.errors import InputError
from traitscope.report.palette import ASCII, DIM, TITLE, UNICODE, Signs, foreground
from traitscope.report.plain import one_line

if TYPE_CHECKING:
    from traitscope.speedtest import Speed, Way

__all__ = ["speedtest"]

NOT_EQUAL = 1
MOST_PROCESSES = 16


def speedtest(
    model: Annotated[
        str, typer.Option("--model", metavar="NAME", help="pocket, a local folder or a hub id.")
    ] = "pocket",
    adapter: Adapter = None,
    revision: Revision = None,
    trust_remote_code: TrustRemoteCode = None,
    prompts: Annotated[
        int, typer.Option("--prompts", metavar="N", help="How many prompts are asked.")
    ] = 24,
    max_new_tokens: MaxNewTokens = None,
    rows: Rows = None,
    processes: Annotated[
        int,
        typer.Option(
            "--processes", metavar="N", help="Also N processes side by side, the prompts shared."
        ),
    ] = 1,
    quick: Annotated[
        bool, typer.Option("--quick", help="Load for 3 of the prompts only, and scale up.")
    ] = False,
    device: Device = None,
    dtype: Dtype = None,
    json: Json = False,
) -> int:
    """How long a suite takes on this machine: a load per prompt, one load, true batches.

    Everything is measured in one run, the ways taking turns.

    Examples:

      traitscope speedtest --quick

      traitscope speedtest --model google/gemma-2-2b-it --dtype bfloat16 --processes 2
    """
    numbers = given(rows=rows, max_new_tokens=max_new_tokens)
    _check(numbers, processes)
    screen = Screen.now(json=json)
    from traitscope.cli.progress import progress_on
    from traitscope.models import known_dtype, locate, pick_device
    from traitscope.speedtest import Asked
    from traitscope.speedtest import speedtest as measure
    from traitscope.ticks import Tick

    with screen.work(), progress_on(screen) as progress:
        pick_device(device or "auto")
        checkpoint = locate(
            model,
            adapter=adapter,
            revision=revision,
            trust_remote_code=bool(trust_remote_code),
        )
        known_dtype(checkpoint.dtype(dtype or "auto"))
        asked = Asked(
            checkpoint,
            **given(device=device, dtype=dtype),
            prompts=prompts,
            processes=processes,
            quick=quick,
            **numbers,
        )
        found = measure(asked, progress)
        progress(Tick("done"))
    if json:
        screen.result(found.to_dict())
    else:
        screen.show(Group(*_page(found, UNICODE if screen.unicode else ASCII)))
    return 0 if found.equal == found.compared else NOT_EQUAL


def _check(numbers: dict[str, Any], processes: int) -> None:
    rows, tokens = numbers.get("rows", "auto"), numbers.get("max_new_tokens", 1)
    if rows != "auto" and not (isinstance(rows, int) and rows >= 1):
        raise InputError(f"--rows: expected a whole number >= 1 or 'auto', got '{rows}'.")
    if tokens < 1:
        raise InputError(f"--max-new-tokens: expected a whole number >= 1, got {tokens}.")
    if not 1 <= processes <= MOST_PROCESSES:
        raise InputError(
            f"--processes: expected a number from 1 to {MOST_PROCESSES}, got {processes}. Each "
            "loads a model of its own."
        )


# --- the page ------------------------------------------------------------------------------------


def _page(found: Speed, signs: Signs) -> Iterator[RenderableType]:
    yield from _facts(found, signs)
    yield Text()
    yield _table(found)
    yield Text()
    for way in found.ways[1:]:
        yield Padding(Text(_said(found, way)), (0, 0, 0, 2))
    yield Text()
    yield Padding(Text(_texts(found), style="" if _same(found) else foreground(9)), (0, 0, 0, 2))
    if found.warning:
        yield Padding(Text(found.warning, style=foreground(9)), (0, 0, 0, 2))
    measured = found.ways[0].measured
    if measured < found.prompts:
        said = (
            f"Loads, and prompts asked alone, are those of {count(measured, 'prompt')}, scaled up."
        )
        yield Padding(Text(said, style=DIM), (0, 0, 0, 2))


def _facts(found: Speed, signs: Signs) -> Iterator[Text]:
    model, dot = found.model, f" {signs.dot} "
    asked = [
        count(found.prompts, "prompt"),
        f"{count(found.ways[0].tokens, 'token')} written",
        _batches(found),
    ]
    of = [f"{model[key]}" for key in ("name", "dtype", "device")]
    cores = count(found.machine["cores"], "core")
    yield Text(one_line(dot.join([*of, cores])), style=TITLE)
    yield Text(dot.join(asked), style=DIM)


def _batches(found: Speed) -> str:
    said = f"batches of up to {found.rows:,}"
    if found.processes == 1:
        return said
    each = max(1, found.rows // found.processes)
    return f"{said}, in {found.processes} processes of up to {each:,} each"


def _table(found: Speed) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style=DIM)
    table.add_column("", width=1)
    table.add_column("", no_wrap=True)
    for name in ("loading", "writing", "in all", "tokens/s", "1,000 prompts", "as fast"):
        table.add_column(name, justify="right", no_wrap=True)
    for way in found.ways:
        table.add_row(
            "",
            _name(found, way),
            seconds(way.load),
            seconds(way.generation),
            seconds(way.seconds),
            f"{way.tokens / way.generation:,.0f}",
            duration(way.suite(1000)),
            f"{_ratio(found, way)}x",
        )
    return table


def _name(found: Speed, way: Way) -> str:
    from traitscope.speedtest import WAYS

    if way.key == "side_by_side":
        return f"{found.processes} processes"
    return WAYS[way.key]


def _ratio(found: Speed, way: Way) -> str:
    """Two decimals, and one figure where other programs made both numbers what they are."""
    ratio = found.ratio(way)
    return f"~{float(f'{ratio:.0e}'):,g}" if found.disturbed(way) else f"{ratio:,.2f}"


def _said(found: Speed, way: Way) -> str:
    """The ratio in words that cannot be misread: 2.25x as fast takes 56% less time."""
    said = f"{_name(found, way)}: {_ratio(found, way)}x as fast as a load per prompt"
    if found.disturbed(way):
        return f"{said}, as far as that can be told beside other programs"
    saved = 1 - way.seconds / found.ways[0].seconds
    share = f"saves {saved:.0%}" if saved >= 0 else f"takes {-saved:.0%} more"
    return f"{said}, {share} of its time"


def _same(found: Speed) -> bool:
    return found.equal == found.compared


def _texts(found: Speed) -> str:
    equal = f"{found.equal} of {count(found.compared, 'text')}"
    if not found.compared:
        return f"Whether all ways write the same is not known: {found.note}."
    if _same(found):
        return f"All ways wrote the same in float32: {equal}."
    return (
        f"The ways did not write the same in float32: {equal} equal. 'traitscope doctor' says "
        "what differs."
    )
