"""Summary and run -> one HTML file: the report with its trajectories, for a browser offline.

Everything is in the file: style, script, numbers.  Its content security policy lets it fetch
nothing and run no script but its own, which it names by its hash.  Text of people and models is
escaped by the template, or stands in JSON that the script reads as text.  Tables show the ends of
each trait with their answers, and the prompts between them up to a limit.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from traitscope import __version__
from traitscope.report import words
from traitscope.report.bundle import DRAW, bundle
from traitscope.report.expectations import Verdict
from traitscope.report.hints import hints
from traitscope.report.palette import NEUTRAL, level
from traitscope.report.plain import one_line, shorten
from traitscope.report.readings import Strip
from traitscope.report.save import HTML_MARK, MAX_MB
from traitscope.report.summary import Failure, PromptRow, Summary, TraitSummary
from traitscope.report.trajectory import Shown, asked, in_order, named, shown
from traitscope.runs import GenerationRow, Run

__all__ = ["Page", "html"]

ENDS = 4  # prompts at either end of a trait, with their answers
BETWEEN = 200  # prompts between them that are listed
REASONS = 50
_STRIP = 400  # tokens of an answer in a table
_NAME = 160  # characters of a prompt in a table
_LINK = 140  # bytes at most of a link to a text
_NAMED = 8  # texts that were left out, by name

_PAGE = Path(__file__).parent / "page"


@dataclass(frozen=True)
class Page:
    """The file's text, and which texts' trajectories are in it."""

    text: str
    shown: tuple[GenerationRow, ...]
    left_out: tuple[GenerationRow, ...]


def html(
    summary: Summary,
    run: Run,
    *,
    captures: Sequence[str] | None = None,
    max_mb: float = MAX_MB,
    full: bool = False,
) -> Page:
    """The page.  `captures` names texts (see `trajectory.asked`); None: all that fit.

    The file has at most `max_mb` million bytes if the tables alone have fewer; trajectories that do
    not fit are left out and named.  `full` lists every prompt.
    """
    rows = in_order(run, summary) if captures is None else asked(run, captures)
    bare = _rendered(summary, shown(run, [], math.inf), full=full)
    room = max_mb * 1e6 - len(bare.encode()) - _later(summary, full=full)
    chosen = shown(run, rows, room)
    return Page(_rendered(summary, chosen, full=full), chosen.texts, chosen.left_out)


def _later(summary: Summary, *, full: bool) -> int:
    """Bytes that come once the texts are chosen: a link in each row, names of what is left out."""
    most = math.inf if full else 2 * ENDS + BETWEEN
    rows = sum(min(len(trait.prompts), most) for trait in summary.traits)
    return int(rows) * _LINK + _NAMED * 4 * _NAME + 500


def _rendered(summary: Summary, chosen: Shown, *, full: bool) -> str:
    script = _script()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment = Environment(
        loader=FileSystemLoader(_PAGE, encoding="utf-8"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(
        # the only values that are not escaped: our own files, and JSON made safe for a script
        style=Markup((_PAGE / "report.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash=f"sha256-{digest}",
        data=Markup(chosen.data),
        mark=Markup(HTML_MARK),
        **_head(summary),
        **_tables(summary, chosen, full=full),
        **_expected(summary.expectations),
        shown=_shown(chosen),
        any_text=bool(chosen.texts),
        footer=f"traitscope {__version__}, run {summary.key}. This file needs no network.",
    )


def _script() -> str:
    files = [*DRAW.glob("*.js"), _PAGE / "report.js"]
    return bundle("report", {f.stem: f.read_text(encoding="utf-8") for f in files})


# --- values for the template ---------------------------------------------------------------------


def _head(summary: Summary) -> Mapping[str, Any]:
    facts = [" · ".join(words.facts(summary)), " · ".join(words.machine(summary))]
    calls = words.calls(summary)
    shown_failures = summary.failures[:REASONS]
    return {
        "name": one_line(summary.name),
        "description": one_line(summary.description),
        "outcome": words.outcome(summary),
        "whole": summary.counts.done == summary.counts.wanted,
        "facts": [one_line(line) for line in (*facts, *words.agreement(summary))],
        "unproven": [one_line(line) for line in words.unproven(summary)],
        "hints": hints(summary),
        "failures": [_failure(failure) for failure in shown_failures],
        "more_reasons": _more(len(summary.failures) - len(shown_failures), "reason"),
        "calls": [
            *(
                one_line((f"{name}: " if name else "") + " · ".join([*done, *took]))
                for name, done, took in calls
            ),
            *words.used(summary),
        ],
    }


def _more(number: int, noun: str) -> str:
    return words.count(number, noun) if number > 0 else ""


def _failure(failure: Failure) -> Mapping[str, Any]:
    more = len(failure.prompts) - 3
    return {
        "what": one_line(words.failed(failure)),
        "reason": one_line(failure.reason),
        "prompts": [_short(name) for name in failure.prompts[:3]],
        "more": f" and {more} more" if more > 0 else "",
    }


def _tables(summary: Summary, chosen: Shown, *, full: bool) -> Mapping[str, Any]:
    there = {row.generation.id for row in chosen.texts}
    traits = summary.traits if any(trait.prompts for trait in summary.traits) else ()
    return {
        "columns": list(words.COLUMNS.items()),
        "traits": [_trait(trait, there, full=full) for trait in traits],
    }


def _trait(trait: TraitSummary, there: set[str], *, full: bool) -> Mapping[str, Any]:
    high, between, low = trait.split(ENDS)
    spread = trait.neutral_spread
    listed = between if full else between[:BETWEEN]
    return {
        "name": one_line(trait.trait),
        "site": trait.site,
        "beside": "" if spread is None else f", neutral answers differ by {spread:.2f}",
        "positive": one_line(trait.positive),
        "warning": one_line(trait.warning),
        "samples": any(row.samples > 1 for row in trait.prompts),
        "ends": [_prompt(row, trait, there) for row in (*high, *low)],
        "rest": [_prompt(row, trait, there) for row in listed],
        "unseen": f", and {len(between) - len(listed)} more" if len(listed) < len(between) else "",
    }


def _prompt(row: PromptRow, trait: TraitSummary, there: set[str]) -> Mapping[str, Any]:
    link = next((name for name in row.ids if name in there), None)
    return {
        "name": _short(row.name),
        "link": f"#text={link}&trait={trait.trait}" if link else "",
        "before": _z(row.before),
        "response": _z(row.response),
        "embed": _z(row.embed),
        "spread": "" if row.spread is None else f"{row.spread:.2f}",
        "strip": _strip(row.strip),
    }


def _strip(strip: Strip) -> list[Mapping[str, str]]:
    """The answer's tokens around its strongest one: words, colour and z."""
    best = max(range(len(strip.z)), key=lambda i: _known(strip.z[i]), default=0)
    first = max(0, min(best - _STRIP // 2, len(strip.z) - _STRIP))
    pieces = [_piece("…")] if first else []
    for i in range(first, min(first + _STRIP, len(strip.z))):
        z, said = strip.z[i], one_line(strip.pieces[i])
        style = level(z) + (" top" if i == best else "")
        # the space before a word keeps the page's own background: words stand apart
        bare = said.lstrip(" ")
        if len(bare) < len(said):
            pieces.append(_piece(said[: len(said) - len(bare)]))
        pieces.append(_piece(bare, style.strip(), words.signed(z)))
    if first + _STRIP < len(strip.z):
        pieces.append(_piece("…"))
    return pieces


def _piece(text: str, style: str = "", z: str = "") -> Mapping[str, str]:
    return {"text": text, "style": style, "z": z}


def _known(z: float) -> float:
    return -math.inf if math.isnan(z) else z


def _expected(verdicts: Sequence[Verdict]) -> Mapping[str, Any]:
    reasons = words.marks(verdicts)
    return {
        "outcomes": words.outcomes(verdicts),
        "verdicts": [_verdict(verdict, reasons) for verdict in verdicts],
        "tested": bool(reasons) or any(verdict.p is not None for verdict in verdicts),
        "notes": [one_line(note) for note in words.notes(verdicts)],
    }


def _verdict(verdict: Verdict, reasons: Mapping[str, str]) -> Mapping[str, Any]:
    return {
        "sign": {True: "✓", False: "✗", None: "?"}[verdict.held],
        "missed": verdict.held is False,
        "text": one_line(verdict.text),
        "note": one_line(verdict.note) if verdict.held is None else "",
        "difference": _z(verdict.difference),
        "margin": f"{verdict.margin:g}",
        "spread": "" if verdict.spread is None else f"{verdict.spread:.2f}",
        "p": words.sure(verdict, reasons),
    }


def _shown(chosen: Shown) -> list[str]:
    """How many texts are drawn, and which are not."""
    if not chosen.texts and not chosen.left_out:
        return ["None: no text is done."]
    said = [f"{words.count(len(chosen.texts), 'text')}, with the numbers that the run has."]
    if chosen.left_out:
        names = ", ".join(f"“{_short(named(row))}”" for row in chosen.left_out[:_NAMED])
        more = len(chosen.left_out) - _NAMED
        said.append(
            f"Left out to keep this file small: {words.count(len(chosen.left_out), 'text')}: "
            f"{names}{f' and {more} more' if more > 0 else ''}."
        )
    return said


def _z(value: float) -> Mapping[str, str]:
    side = "more" if value >= NEUTRAL else "less" if value <= -NEUTRAL else "dim"
    return {"text": words.signed(value), "side": side}


def _short(text: str) -> str:
    return shorten(one_line(text[: 4 * _NAME]), _NAME)
