"""Summary -> the report in Markdown, for a notebook or a pull request.

Tables as GitHub and Jupyter read them.  Text of people and models is escaped: pipes, backticks,
HTML, links, mentions and line ends in it stay what they are, text.  The strongest token of an
answer is bold.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence

from traitscope.report import words
from traitscope.report.expectations import Verdict
from traitscope.report.hints import hints
from traitscope.report.plain import one_line, shorten
from traitscope.report.save import MARKDOWN_MARK
from traitscope.report.summary import PromptRow, Summary, TraitSummary

__all__ = ["escaped", "markdown"]


ENDS = 3  # prompts shown at either end of a trait
REASONS = 20
_LONGEST = 160  # characters of a prompt or an answer
# what Markdown, its HTML, its formulas or GitHub (mentions, issues, emoji, links) takes for more
# than text; an underscore within a word is one, a colon is one unless a name and a colon follow
_SPECIAL = re.compile(
    r"[\\`*\[\]<>#|~$&@]|(?<![^\W_])_|_(?![^\W_])|:(?=//|[^\s:]+:)|(?i:(?<=www)\.)"
    r"|^[-+=]"
)


def markdown(summary: Summary, *, full: bool = False) -> str:
    """The whole report; `full` shows every prompt.  Ends with a line end."""
    blocks = [
        *_head(summary),
        *_first(summary),
        *_failures(summary, full=full),
        *_found(summary, full=full),
        *_expectations(summary),
        *_cost(summary),
        MARKDOWN_MARK,
    ]
    return "\n\n".join(blocks) + "\n"


def escaped(text: str, longest: int = _LONGEST) -> str:
    """`text` as text, on one line: punctuation that could mean something is an HTML entity.

    Entities, not backslashes: a backslash before a pipe is read differently within tables.
    """
    return _entities(shorten(one_line(text[: 4 * longest]), longest).strip())


def _entities(text: str) -> str:
    plain = _SPECIAL.sub(lambda match: f"&#{ord(match[0])};", text)
    return re.sub(r"^(\d+)([.)])", lambda match: f"{match[1]}&#{ord(match[2])};", plain)


# --- blocks --------------------------------------------------------------------------------------


def _head(summary: Summary) -> Iterator[str]:
    whole = summary.counts.done == summary.counts.wanted
    yield f"## {'✓' if whole else '✗'} {escaped(summary.name)}: {words.outcome(summary)}"
    lines = [" · ".join(words.facts(summary)), " · ".join(words.machine(summary))]
    lines += words.agreement(summary)
    yield "<br>\n".join(escaped(line, 400) for line in lines)
    for said in words.unproven(summary):
        yield f"> **{escaped(said, 400)}**"


def _first(summary: Summary) -> Iterator[str]:
    found = hints(summary)
    if found:
        yield "### Look at first"
        yield _list(escaped(hint, 400) for hint in found)


def _failures(summary: Summary, *, full: bool) -> Iterator[str]:
    if not summary.failures:
        return
    shown = summary.failures if full else summary.failures[:REASONS]
    rows = []
    for failure in shown:
        names = ", ".join(escaped(name, 48) for name in failure.prompts[:3])
        more = f" and {len(failure.prompts) - 3} more" if len(failure.prompts) > 3 else ""
        rows.append((escaped(words.failed(failure)), escaped(failure.reason, 400), names + more))
    yield "### What failed"
    yield _table(("captures", "reason", "prompts"), rows)
    if len(shown) < len(summary.failures):
        yield f"… and for {len(summary.failures) - len(shown)} more reasons."


def _found(summary: Summary, *, full: bool) -> Iterator[str]:
    if not any(trait.prompts for trait in summary.traits):
        return
    yield "### What was found"
    yield _list(f"**{name}**: {what}" for name, what in words.COLUMNS.items())
    for trait in summary.traits:
        spread = trait.neutral_spread
        beside = "" if spread is None else f", neutral answers differ by {spread:.2f}"
        yield f"**{escaped(trait.trait)}**, z at {trait.site}{beside}"
        yield _trait(trait, full=full)


def _trait(trait: TraitSummary, *, full: bool) -> str:
    samples = any(row.samples > 1 for row in trait.prompts)
    names = [
        "prompt",
        "before:",
        "answer:",
        *(["spread:"] if samples else []),
        "embed:",
        "its words",
    ]
    high, between, low = trait.split(len(trait.prompts) if full else ENDS)
    rows = [_prompt(row, samples=samples) for row in (*high, *low)]
    if between:
        rows.insert(len(high), (f"… {len(between)} more", *[""] * (len(names) - 1)))
    return _table(names, rows)


def _prompt(row: PromptRow, *, samples: bool) -> tuple[str, ...]:
    spread = "" if row.spread is None else f"{row.spread:.2f}"
    return (
        escaped(row.name),
        words.signed(row.before),
        words.signed(row.response),
        *([spread] if samples else []),
        words.signed(row.embed),
        _answer(row),
    )


def _answer(row: PromptRow) -> str:
    """The answer of the first sample, with its strongest token in bold, cut where it is long."""
    pieces, z = row.strip.pieces, row.strip.z
    best = max(range(len(z)), key=lambda i: -math.inf if math.isnan(z[i]) else z[i], default=0)
    before = one_line("".join(pieces[:best]))
    token = one_line("".join(pieces[best : best + 1]))
    after = one_line("".join(pieces[best + 1 :]))
    if len(before) > _LONGEST // 2:
        before = f"…{before[-_LONGEST // 2 :]}"
    bare = token.strip()
    lead = before + token[: len(token) - len(token.lstrip())]
    strong = f"<b>{_entities(bare)}</b>" if bare else _entities(token)
    return (_entities(lead) + strong + _entities(shorten(after, _LONGEST // 2))).strip()


def _expectations(summary: Summary) -> Iterator[str]:
    verdicts = summary.expectations
    if not verdicts:
        return
    reasons = words.marks(verdicts)
    tested = bool(reasons) or any(verdict.p is not None for verdict in verdicts)
    yield f"### What was expected: {words.outcomes(verdicts)}"
    names = ["", "expectation", "z apart:", "wanted:", "neutral:", *(["p:"] if tested else [])]
    sure = [(words.sure(verdict, reasons),) if tested else () for verdict in verdicts]
    rows = [(*_verdict(verdict), *p) for verdict, p in zip(verdicts, sure, strict=True)]
    yield _table(names, rows)
    yield _list(escaped(note, 400) for note in words.notes(verdicts))


def _verdict(verdict: Verdict) -> tuple[str, ...]:
    sign = {True: "✓", False: "✗", None: "?"}[verdict.held]
    said = escaped(verdict.text, 400)
    if verdict.held is None:
        said += f" ({escaped(verdict.note, 400)})"
    spread = "" if verdict.spread is None else f"{verdict.spread:.2f}"
    return (sign, said, words.signed(verdict.difference), f"{verdict.margin:g}", spread)


def _cost(summary: Summary) -> Iterator[str]:
    calls = words.calls(summary)
    if calls:
        yield "### What it cost"
        said = (
            escaped(f"{name}: " if name else "", 80) + escaped(" · ".join([*done, *took]), 400)
            for name, done, took in calls
        )
        yield _list(iter([*said, *(escaped(line, 400) for line in words.used(summary))]))


# --- pieces --------------------------------------------------------------------------------------


def _list(lines: Iterator[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; columns whose name ends with a colon are numbers."""
    heads = [name.rstrip(":") for name in names]
    rules = ["---:" if name.endswith(":") else "---" for name in names]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (heads, rules, *rows))
