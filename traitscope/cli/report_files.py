"""`report --html` and `--markdown`: what was asked for, the files, and what is said of them.

Everything that can be wrong with the options or with the place of a file is found before the run
is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from traitscope.cli.screen import Screen
from traitscope.errors import InputError
from traitscope.report.plain import shorten

if TYPE_CHECKING:
    from traitscope.report import Summary
    from traitscope.runs import Run

__all__ = ["Wanted", "write_reports"]

_NAMED = 3  # texts that were left out, by name


@dataclass(frozen=True)
class Wanted:
    """Where which report goes.  `markdown` alone goes to the screen."""

    markdown: bool
    markdown_file: Path | None
    html_file: Path | None
    captures: tuple[str, ...] | None
    max_mb: float

    @classmethod
    def of(
        cls,
        file: str | None,
        html: str | None,
        captures: Sequence[str] | None,
        max_mb: float | None,
        *,
        markdown: bool,
        json: bool,
    ) -> Wanted:
        """InputError where the options do not go together, or a file cannot go where it should."""
        from traitscope.report.save import MAX_MB, check

        if file is not None and not markdown:
            raise InputError(
                f"Expected one run, got '{file}' as well. A FILE behind it goes with --markdown."
            )
        if html is None and (captures or max_mb is not None):
            option = "--captures" if captures else "--max-mb"
            raise InputError(
                f"Expected --html FILE with {option}: it is about what is in that file."
            )
        if max_mb is not None and not 0 < max_mb < 10_000:
            raise InputError(f"--max-mb: expected a size above 0 in million bytes, got {max_mb:g}.")
        if json and markdown and file is None:
            raise InputError(
                "Expected a FILE for --markdown beside --json, whose output is one line."
            )
        wanted = cls(
            markdown,
            None if file is None else Path(file),
            None if html is None else Path(html),
            tuple(captures) if captures else None,
            MAX_MB if max_mb is None else max_mb,
        )
        for path in (wanted.markdown_file, wanted.html_file):
            if path is not None:
                check(path)
        return wanted


def write_reports(
    wanted: Wanted, summary: Summary, run: Run, screen: Screen, *, full: bool
) -> dict[str, Any]:
    """Write what is wanted and say so; what was written, by its kind (nothing: an empty dict)."""
    written: dict[str, Any] = {}
    if wanted.html_file is not None:
        written["html"] = _html(wanted.html_file, wanted, summary, run, screen, full=full)
    if wanted.markdown:
        written["markdown"] = _markdown(wanted.markdown_file, summary, screen, full=full)
    return written


def _html(
    path: Path, wanted: Wanted, summary: Summary, run: Run, screen: Screen, *, full: bool
) -> dict[str, Any]:
    from traitscope.report.html import html
    from traitscope.report.trajectory import named

    page = html(summary, run, captures=wanted.captures, max_mb=wanted.max_mb, full=full)
    replaced, size = _save(path, page.text)
    texts = "1 text" if len(page.shown) == 1 else f"{len(page.shown)} texts"
    _tell(
        screen,
        path,
        replaced,
        f"{size / 1e6:.2f} MB, trajectories of {texts}. Open it in any browser",
    )
    if page.left_out:
        names = [f'"{shorten(named(row), 40)}"' for row in page.left_out[:_NAMED]]
        more = len(page.left_out) - _NAMED
        screen.show_line(
            f"Left out, to stay below --max-mb {wanted.max_mb:g}: {len(page.left_out)} of "
            f"{len(page.left_out) + len(page.shown)} texts: {', '.join(names)}"
            f"{f' and {more} more' if more > 0 else ''}."
        )
    return {
        "path": str(path),
        "bytes": size,
        "replaced": replaced,
        "captures": [row.generation.id for row in page.shown],
        "left_out": [row.generation.id for row in page.left_out],
    }


def _markdown(path: Path | None, summary: Summary, screen: Screen, *, full: bool) -> dict[str, Any]:
    from traitscope.report.markdown import markdown

    text = markdown(summary, full=full)
    if path is None:
        screen.show_as_is(text)
        return {"path": None}
    replaced, size = _save(path, text)
    _tell(screen, path, replaced, f"{size / 1e3:.1f} kB")
    return {"path": str(path), "bytes": size, "replaced": replaced}


def _save(path: Path, text: str) -> tuple[bool, int]:
    from traitscope.report.save import check, save

    return check(path), save(path, text)


def _tell(screen: Screen, path: Path, replaced: bool, what: str) -> None:
    verb = "Replaced the earlier report" if replaced else "Wrote"
    screen.show_line(f"{verb} {path}: {what}.")
