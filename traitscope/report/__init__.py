"""The morning report, from the run folder alone: values first, then one screen.  No torch.

`summarise` turns a run into a `Summary` of plain frozen values, `to_json` writes them as JSON
values, `night` draws them for a terminal.  Nothing here prints.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from traitscope.lazy import when_used

if TYPE_CHECKING:
    from traitscope.report.plain import one_line
    from traitscope.report.summary import Summary, summarise, to_json
    from traitscope.report.terminal import night

__all__ = ["Summary", "night", "one_line", "summarise", "to_json"]

__getattr__ = when_used(
    __name__,
    {
        "plain": ("one_line",),
        "summary": ("Summary", "summarise", "to_json"),
        "terminal": ("night",),
    },
)
