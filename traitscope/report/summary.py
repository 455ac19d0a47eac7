"""run folder -> Summary: what was made, failed, read and expected, and what it cost.

Plain frozen values; z-scores as floats (NaN where there was nothing to read), times in seconds.
Nothing is formatted here, and nothing is claimed that the run did not record.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from traitscope.core import Generation
from traitscope.report.columns import Columns
from traitscope.report.cost import Cost, cost_of
from traitscope.report.expectations import Verdict, judge
from traitscope.report.found import PromptRow, TraitSummary, name_of, read_traits
from traitscope.runs import GenerationRow, Run

__all__ = [
    "Counts",
    "Failure",
    "PromptRow",
    "Summary",
    "TraitSummary",
    "failures_of",
    "summarise",
    "to_json",
    "unproven_of",
]


MANY = 500  # texts; of more than these not every answer is opened
ENDS = 8  # prompts at either end of a trait whose answers are opened then


@dataclass(frozen=True)
class Failure:
    """Captures of one prompt set that failed for the same reason, and the prompts they are of."""

    prompt_set: str
    kind: str
    reason: str
    prompts: tuple[str, ...]
    captures: int


@dataclass(frozen=True)
class Counts:
    """Captures; `outside` are done ones that the suite does not ask for any more.

    `cut` answers ended at max_new_tokens, `empty` ones hold no content token; `unanswered` ones
    are empty since the text ended in its thoughts.
    """

    wanted: int
    done: int
    trajectories: int
    internals: int
    failed: int
    missing: int
    outside: int
    texts: int
    cut: int
    empty: int
    unanswered: int = 0


@dataclass(frozen=True)
class Summary:
    """Everything that the report says.

    `unproven` has a sentence for each check that failed and was passed over (--allow-unproven);
    `devices` the kinds of device that it was made on, each once.
    """

    path: str
    name: str
    description: str
    key: str
    state: str
    created: str
    model: Mapping[str, Any]
    proofs: Any
    unproven: tuple[str, ...]
    devices: tuple[str, ...]
    generation: Mapping[str, Any]
    rows: int
    counts: Counts
    failures: tuple[Failure, ...]
    traits: tuple[TraitSummary, ...]
    expectations: tuple[Verdict, ...]
    cost: Cost


def summarise(run: Run, columns: Columns | None = None, *, full: bool = False) -> Summary:
    """Read a run, whatever state it is in.

    All numbers come from columns, thousands of texts in a second.  Words (`strongest`, `strip`)
    are those of every prompt up to `MANY` texts or with `full`, else of `ENDS` prompts at either
    end of each trait.  Where `columns` of all texts are given there are none.
    """
    header = run.header
    rows = [row for row in run.generations() if row.in_suite]
    ends = len(rows) if full or len(rows) <= MANY else ENDS
    traits = read_traits(run, rows, columns, 0 if columns is not None else ends)
    return Summary(
        path=str(run.path),
        name=header.name,
        description=str(header.suite.get("description") or ""),
        key=header.key,
        state=run.state,
        created=header.created,
        model=header.model,
        proofs=header.proofs,
        unproven=unproven_of(run),
        devices=tuple(dict.fromkeys(run.devices)),
        generation=header.generation,
        rows=header.rows,
        counts=_counts(run, rows, traits),
        failures=failures_of(run),
        traits=traits,
        expectations=judge(run, rows),
        cost=cost_of(run.events()),
    )


def to_json(summary: Summary) -> dict[str, Any]:
    """The summary as JSON values: NaN is null, token strips are left out (they are in the run)."""
    data = asdict(summary)
    for trait in data["traits"]:
        for prompt in trait["prompts"]:
            del prompt["strip"]
    plain: dict[str, Any] = _plain(data)
    return plain


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def unproven_of(run: Run) -> tuple[str, ...]:
    """A sentence for each check that failed and was passed over.

    Of the call that made the run, and of later ones (the log has those); each sentence once.
    """
    proofs = run.header.proofs
    first = [proof for proof in proofs if isinstance(proof, Mapping)] if _is_list(proofs) else []
    calls: list[Mapping[str, Any]] = [{**run.header.model, "checks": first}]
    calls += [event for event in run.events() if event.get("kind") == "unproven"]
    said = [
        _failed(call, check)
        for call in calls
        for check in call["checks"]
        if check.get("held") is False
    ]
    return tuple(dict.fromkeys(said))


def _is_list(value: object) -> bool:
    return isinstance(value, list | tuple)


def _failed(call: Mapping[str, Any], check: Mapping[str, Any]) -> str:
    # a difference that is not finite is null in JSON
    off = "not finite" if check["difference"] is None else f"off by {check['difference']:.1e}"
    unit = check.get("unit", "|h|")
    place = f"in {call['dtype']} on {call['device']}"
    return f"{check['name']}: {off} {unit}, allowed {check['allowed']:.1e}, {place}"


# --- counting ------------------------------------------------------------------------------------


def _counts(run: Run, rows: Sequence[GenerationRow], traits: Sequence[TraitSummary]) -> Counts:
    captures = run.captures()
    done = [row.capture for row in captures if row.in_suite and row.status == "done"]
    wanted, missing = len(run.header.captures), len(run.missing())
    texts = [row for row in rows if row.status == "done"]
    empty = sum(math.isnan(z) for row in traits[0].prompts for z in row.values) if traits else 0
    return Counts(
        wanted=wanted,
        done=len(done),
        trajectories=sum(capture.kind == "trajectory" for capture in done),
        internals=sum(capture.kind == "internals" for capture in done),
        failed=wanted - len(done) - missing,
        missing=missing,
        outside=sum(not row.in_suite and row.status == "done" for row in captures),
        texts=len(texts),
        cut=sum(row.finish == "length" for row in texts),
        empty=empty,
        unanswered=sum(bool(row.thinking) and not row.response.strip() for row in texts),
    )


def failures_of(run: Run) -> tuple[Failure, ...]:
    """Failed captures that the suite asks for, gathered by set, kind and reason."""
    texts = {row.generation: row for row in run.generations() if row.in_suite}
    captures = {row.capture: row for row in run.captures()}
    gathered: dict[tuple[str, str, str], list[Generation]] = {}
    for capture in run.header.captures:
        row, text = captures.get(capture), texts.get(capture.generation)
        if row is not None and row.status != "failed":
            continue
        reason = row.error if row is not None else text.error if text is not None else ""
        if reason:
            group = gathered.setdefault((capture.prompt_set, capture.kind, reason), [])
            group.append(capture.generation)
    return tuple(
        Failure(prompt_set, kind, reason, _names(texts, of), len(of))
        for (prompt_set, kind, reason), of in gathered.items()
    )


def _names(texts: Mapping[Generation, GenerationRow], of: Sequence[Generation]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name_of(texts[g]) for g in of if g in texts))
