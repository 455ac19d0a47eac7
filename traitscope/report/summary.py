"""run folder -> Summary: what was made, failed, read and expected, and what it cost.

Plain frozen values; z-scores as floats (NaN where there was nothing to read), times in seconds.
Nothing is formatted here, and nothing is claimed that the run did not record.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from traitscope.core import Generation, mean_or_nan
from traitscope.report.columns import Columns, to_z
from traitscope.report.cost import Cost, cost_of
from traitscope.report.expectations import Verdict, judge
from traitscope.report.readings import (
    RESPONSE,
    Place,
    Strip,
    Strongest,
    TextReading,
    place_of,
    read_text,
    strip_of,
)
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

NO_STRIP = Strip((), ())


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
class PromptRow:
    """One prompt on one trait: means over its samples, and their spread (None for one sample).

    `values` are the samples' z over the answer; `strip` is the first sample's answer; `ids` name
    the samples' texts.
    """

    name: str
    text: str
    samples: int
    before: float
    response: float
    spread: float | None
    embed: float
    strongest: Strongest | None
    values: tuple[float, ...]
    strip: Strip
    ids: tuple[str, ...]


@dataclass(frozen=True)
class TraitSummary:
    """One trait: where it is read, how far neutral answers lie apart (z), and all prompts.

    `prompts` are ordered by the answer's z, highest first; those without an answer come last.
    """

    trait: str
    positive: str
    negative: str
    site: str
    window: str
    neutral_spread: float | None
    prompts: tuple[PromptRow, ...]
    warning: str = ""  # what is to be known of its directions

    @property
    def contrast(self) -> float:
        """z of the highest prompt minus that of the lowest; NaN with fewer than two."""
        read = [row.response for row in self.prompts if not math.isnan(row.response)]
        return read[0] - read[-1] if len(read) > 1 else math.nan


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


def summarise(run: Run, columns: Columns | None = None) -> Summary:
    """Read a run, whatever state it is in.

    With the columns of all its texts (`columns.read_columns`) no text is opened but those that
    expectations name: thousands of texts in a second, and no words (`strongest`, `strip`).
    """
    header = run.header
    rows = [row for row in run.generations() if row.in_suite]
    traits = _traits(run, rows) if columns is None else _traits_of(run, rows, columns)
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
    return tuple(dict.fromkeys(_name(texts[g]) for g in of if g in texts))


def _name(row: GenerationRow) -> str:
    return row.prompt.label or row.prompt.text


# --- reading -------------------------------------------------------------------------------------


def _traits(run: Run, rows: Sequence[GenerationRow]) -> tuple[TraitSummary, ...]:
    """All traits, with every text opened once."""
    places = [place_of(run, trait) for trait in run.traits]
    gathered: list[list[PromptRow]] = [[] for _ in places]
    for samples in _by_prompt(rows):
        texts = [run.text(row.generation) for row in samples]
        for place, prompts in zip(places, gathered, strict=True):
            readings = [read_text(run, text, place) for text in texts]
            strip = strip_of(run, texts[0], place)
            prompts.append(_prompt_row(samples, readings, strip))
    return tuple(
        _trait(run, place, prompts) for place, prompts in zip(places, gathered, strict=True)
    )


def _traits_of(
    run: Run, rows: Sequence[GenerationRow], columns: Columns
) -> tuple[TraitSummary, ...]:
    """All traits, from columns."""
    places = [place_of(run, trait) for trait in run.traits]
    before, answer, embed = (
        to_z(run, places, name, getattr(columns, name)) for name in ("before", "mean", "embed")
    )
    at = {name: i for i, name in enumerate(columns.generations)}
    gathered: list[list[PromptRow]] = [[] for _ in places]
    for samples in _by_prompt(rows):
        texts = [at[row.generation.id] for row in samples]
        for k, prompts in enumerate(gathered):
            readings = [
                TextReading(float(before[i, k]), float(answer[i, k]), float(embed[i, k]), None)
                for i in texts
            ]
            prompts.append(_prompt_row(samples, readings, NO_STRIP))
    return tuple(
        _trait(run, place, prompts) for place, prompts in zip(places, gathered, strict=True)
    )


def _by_prompt(rows: Sequence[GenerationRow]) -> Iterator[list[GenerationRow]]:
    """The done texts of each prompt, samples together."""
    prompts: dict[str, list[GenerationRow]] = {}
    for row in rows:
        if row.status == "done":
            prompts.setdefault(row.generation.prompt_id, []).append(row)
    yield from prompts.values()


def _prompt_row(
    rows: Sequence[GenerationRow], readings: Sequence[TextReading], strip: Strip
) -> PromptRow:
    first = rows[0]
    answers = [r for r in readings if not math.isnan(r.response)]
    values = [r.response for r in answers]
    found = [r.strongest for r in answers if r.strongest is not None]
    return PromptRow(
        name=_name(first),
        text=first.prompt.text,
        samples=len(readings),
        before=mean_or_nan(r.before for r in readings),
        response=mean_or_nan(values),
        spread=float(np.std(values, ddof=1)) if len(values) > 1 else None,
        embed=mean_or_nan(r.embed for r in answers),
        strongest=max(found, key=lambda token: token.z, default=None),
        values=tuple(r.response for r in readings),
        strip=strip,
        ids=tuple(row.generation.id for row in rows),
    )


def _trait(run: Run, place: Place, prompts: Sequence[PromptRow]) -> TraitSummary:
    directions = run.directions[place.trait]
    std = float(directions.neutral_std[place.site])
    spread = float(directions.neutral_response_std[place.site]) / std if std > 0 else None
    return TraitSummary(
        trait=place.trait,
        positive=directions.metadata.get("positive", ""),
        negative=directions.metadata.get("negative", ""),
        site=run.sites[place.site].name,
        window=str(RESPONSE),
        neutral_spread=spread,
        prompts=tuple(sorted(prompts, key=_order)),
        warning=directions.metadata.get("warning", ""),
    )


def _order(row: PromptRow) -> tuple[bool, float]:
    nothing = math.isnan(row.response)
    return nothing, 0.0 if nothing else -row.response
