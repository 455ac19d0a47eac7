"""The verb that examines a model on this machine, and what it shows: a table for each dtype.

Knows how a check is said, not how it is measured.  Exit status: 0 all hold, 1 some check fails.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from traitscope.cli.options import Device, Json
from traitscope.cli.screen import Screen
from traitscope.report.palette import ASCII, DIM, TITLE, UNICODE, Signs, foreground
from traitscope.report.plain import one_line

if TYPE_CHECKING:
    from traitscope.checkup import Check, Diagnosis

__all__ = ["doctor"]

SOME_FAILED = 1
NARROW = ("bfloat16", "float16")
WIDEST = 110


def doctor(
    model: Annotated[
        str, typer.Option("--model", metavar="NAME", help="pocket, a local folder or a hub id.")
    ] = "pocket",
    device: Device = None,
    dtype: Annotated[
        list[str] | None,
        typer.Option(
            "--dtype",
            metavar="NAME",
            help="auto, float32, bfloat16 or float16; may be repeated. Without it: the "
            "checkpoint's own, and float32.",
        ),
    ] = None,
    deep: Annotated[
        bool,
        typer.Option("--deep", help="Longer texts, more rows, and a hash over every tensor."),
    ] = False,
    json: Json = False,
) -> int:
    """Does this model give exact numbers on this machine? Measures it; ends with 1 if not.

    Examples:

      traitscope doctor

      traitscope doctor --model google/gemma-2-2b-it --dtype bfloat16 --deep
    """
    from traitscope.checkup import doctor as examine
    from traitscope.cli.progress import progress_on
    from traitscope.task import Tick

    screen = Screen.now(json=json)
    with screen.work(), progress_on(screen) as progress:
        found = examine(
            model,
            device=device or "auto",
            dtypes=dtype or (),
            deep=deep,
            progress=lambda phase, done, total, unit: progress(Tick(phase, done, total, unit)),
        )
        progress(Tick("done"))
    if json:
        screen.result(found.to_dict())
    else:
        width = min(screen.console().width, WIDEST)
        screen.show(Group(*_page(found, UNICODE if screen.unicode else ASCII, width)))
    return 0 if found.held else SOME_FAILED


# --- the page ------------------------------------------------------------------------------------


def _page(found: Diagnosis, signs: Signs, width: int) -> Iterator[RenderableType]:
    yield from _facts(found, signs)
    for dtype, group in groupby(found.checks, key=lambda check: check.dtype):
        checks = list(group)
        yield Text()
        rule = signs.rule * max(width - cell_len(dtype) - 1, 0)
        yield Text(f"{dtype} ", style=TITLE, no_wrap=True).append(rule, style="not bold dim")
        yield _table(checks, signs, width)
        yield Padding(Text(_meaning(dtype, checks)), (0, 0, 0, 2))


def _facts(found: Diagnosis, signs: Signs) -> Iterator[Text]:
    model, machine, dot = found.model, found.machine, f" {signs.dot} "
    architecture = [
        str(model["name"]),
        str(model["architecture"]),
        f"{model['parameters'] / 1e6:,.1f}M parameters",
        f"{model['n_blocks']} blocks",
        f"on {model['device']}",
    ]
    here = [
        f"{_count(machine['cores'], 'core')}, {_count(machine['threads'], 'thread')}",
        f"{_size(machine['memory'])} of memory, {_size(machine['memory_free'])} free",
        *(_accelerator(device) for device in machine["devices"]),
    ]
    versions: Mapping[str, str] = machine["versions"]
    libraries = [f"{name} {versions[name]}" for name in ("python", "torch", "transformers")]
    hashes: Mapping[str, str] = model.get("tensors_sha256", {})
    every = [
        ("model", dot.join(architecture)),
        ("machine", dot.join([*here, *([] if machine["devices"] else ["no GPU"])])),
        ("with", dot.join(libraries)),
        *((f"no {dtype}:", why) for dtype, why in model["left_out"].items()),
        *((f"sha256 {dtype}", digest) for dtype, digest in hashes.items()),
    ]
    for name, said in every:
        yield Text(f"{name:<8} ", style=DIM).append(one_line(said), style="not dim")


def _accelerator(device: Mapping[str, Any]) -> str:
    memory = f"{_size(device['memory'])}, {_size(device['memory_free'])} free"
    return f"{device['device']} {device['name']}, {memory}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB"


def _table(checks: Sequence[Check], signs: Signs, width: int) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style=DIM)
    table.width = width
    table.add_column("", width=3, no_wrap=True)
    table.add_column("check", no_wrap=True)
    table.add_column("off by", justify="right", no_wrap=True)
    table.add_column("allowed", justify="right", no_wrap=True)
    table.add_column("unit", no_wrap=True, style=DIM)
    table.add_column("", ratio=1, overflow="fold", style=DIM)
    for check in checks:
        proof = check.proof
        sign = {True: signs.held, False: signs.missed, None: signs.unknown}[proof.held]
        table.add_row(
            Text(f"  {sign}", style=foreground(9) if proof.held is False else ""),
            Text(proof.name, style=TITLE if proof.held is False else ""),
            signs.dot if proof.held is None else _number(proof.difference),
            _number(proof.allowed),
            Text(proof.unit),
            Text(one_line(proof.detail)),
        )
    return table


def _number(value: float) -> str:
    return f"{value:.0f}" if value.is_integer() else f"{value:.1e}"


def _meaning(dtype: str, checks: Sequence[Check]) -> str:
    """What the table means for who reads a run's numbers."""
    failed = [check.proof.name for check in checks if check.proof.held is False]
    if failed:
        return (
            f"Numbers of this model in {dtype} cannot be trusted here; what did not hold: "
            f"{', '.join(failed)}. Try another dtype or device, or report the architecture."
        )
    if any(check.proof.held is None for check in checks):
        return "What could be measured holds; what is marked with a question could not be."
    if dtype not in NARROW:
        return "Numbers of a batch can be trusted as if each prompt had been run alone."
    apart = next((c.proof.difference for c in checks if c.proof.name == "batched = alone"), 0.0)
    return (
        f"A batch moved a number by up to {apart:.1e} |h|: smaller differences are noise in "
        f"{dtype}, and a text may depend on its batch. float32 has neither."
    )
