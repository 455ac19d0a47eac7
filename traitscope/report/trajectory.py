"""Texts for the HTML report: which of them, and everything that their trajectories are drawn from.

A text is JSON (its tokens) with its numbers in base64: little-endian float32, norm [T, S], then
score [T, S, K], in units of the residual stream, as the run has them: nothing is rounded.  Traits'
neutral numbers are once for all texts.  What does not fit under a limit of bytes is named, never
dropped in silence.  Knows nothing of pages.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from traitscope.core import LEAST_SPREAD, Float32, TokenTable
from traitscope.errors import InputError, did_you_mean
from traitscope.report.readings import place_of, read_text
from traitscope.report.summary import Summary
from traitscope.runs import GenerationRow, Run, TextData

__all__ = [
    "PERCENTILE",
    "Shown",
    "asked",
    "in_order",
    "limits",
    "named",
    "numbers_bytes",
    "sampled",
    "script_json",
    "shown",
    "tokens_json",
]

_SAMPLED = 48  # texts that the shared scale is taken from
PERCENTILE = 99.0
Item = TypeVar("Item")
_TINY = 1e-12  # no division by zero


@dataclass(frozen=True)
class Shown:
    """What a page draws: `data` is JSON, safe within a script element; `left_out` did not fit."""

    data: str
    texts: tuple[GenerationRow, ...]
    left_out: tuple[GenerationRow, ...]


# --- which texts ---------------------------------------------------------------------------------


def asked(run: Run, names: Sequence[str]) -> list[GenerationRow]:
    """The done texts that `names` name, each once, in their order.

    A name is a text's id, a prompt's id, a prompt's label or a prompt's words; InputError for one
    that names nothing, or only what failed.
    """
    rows = run.generations()
    found: dict[str, GenerationRow] = {}
    for name in names:
        mine = [row for row in rows if name in _names(row)]
        done = [row for row in mine if row.status == "done"]
        if not done:
            raise InputError(_unknown(name, mine, rows))
        found.update({row.generation.id: row for row in done})
    return list(found.values())


def named(row: GenerationRow) -> str:
    """A text as one would call it: its prompt's label or words, and which sample it is."""
    name = row.prompt.label or row.prompt.text
    return f"{name} ({row.generation.sample})" if row.generation.sample else name


def _names(row: GenerationRow) -> set[str | None]:
    return {row.generation.id, row.generation.prompt_id, row.prompt.label, row.prompt.text}


def _unknown(name: str, mine: Sequence[GenerationRow], rows: Sequence[GenerationRow]) -> str:
    if mine:
        return f"Expected captures that are done, but '{name}' failed: {mine[0].error}"
    known = sorted({each for row in rows for each in _names(row) if each})
    return (
        f"Expected the id of a text, or a prompt's id or words, got '{name}'."
        f"{did_you_mean(name, known)} 'traitscope report RUN --json' lists the ids."
    )


def in_order(run: Run, summary: Summary) -> list[GenerationRow]:
    """Every done text of the suite, those that the report talks about first."""
    rows = [row for row in run.generations() if row.in_suite and row.status == "done"]
    first: dict[str, int] = {}
    for trait in summary.traits:
        read = [row for row in trait.prompts if not math.isnan(row.response)]
        for row in (*read[:2], *read[-2:]):
            first.setdefault(row.ids[0], len(first))
    wanted = {name for verdict in summary.expectations for name in (verdict.higher, verdict.lower)}
    for each in rows:
        if wanted & _names(each):
            first.setdefault(each.generation.id, len(first))
    return sorted(rows, key=lambda each: first.get(each.generation.id, len(first)))


# --- what is drawn -------------------------------------------------------------------------------


def shown(run: Run, rows: Iterable[GenerationRow], most: float) -> Shown:
    """As many of these texts, in their order, as fit into `most` bytes of JSON."""
    fit: list[tuple[GenerationRow, TextData]] = []
    texts: list[str] = []
    left_out: list[GenerationRow] = []
    room = most - len(_page_json(run, [], []))
    for row in rows:
        made = ""
        if _at_least(run, row) <= room:
            text = run.text(row.generation)
            made = script_json(_text_json(run, row, text))
        if made and len(made) + 1 <= room:
            room -= len(made) + 1
            fit.append((row, text))
            texts.append(made)
        else:
            left_out.append(row)
    data = _page_json(run, texts, [text for _, text in fit])
    return Shown(data, tuple(row for row, _ in fit), tuple(left_out))


def script_json(value: Any) -> str:
    """JSON that may stand in a script element: ASCII, without any sign that HTML could read."""
    said = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return said.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _at_least(run: Run, row: GenerationRow) -> float:
    """Bytes of its numbers alone: what is far too large is not even read."""
    return row.n_tokens * len(run.sites) * (1 + len(run.traits)) * 4 * 4 / 3


def _page_json(run: Run, texts: Sequence[str], read: Sequence[TextData]) -> str:
    about = {
        "sites": [site.name for site in run.sites],
        "traits": [_trait_json(run, number, read) for number in range(len(run.traits))],
    }
    return f'{script_json(about)[:-1]},"texts":[{",".join(texts)}]}}'


def _trait_json(run: Run, number: int, read: Sequence[TextData]) -> Mapping[str, Any]:
    name = run.traits[number]
    directions = run.directions[name]
    there = directions.direction.any(axis=1)
    return {
        "name": name,
        "positive": directions.metadata.get("positive", ""),
        "site": place_of(run, name).site,
        "there": there.tolist(),
        "neutral_mean": _floats(directions.neutral_mean),
        "neutral_std": _floats(directions.neutral_std),
        "neutral_prompt_mean": _floats(directions.neutral_prompt_mean),
        "neutral_prompt_std": _floats(directions.neutral_prompt_std),
        "limits": limits(run, number, sampled(read)),
    }


def _text_json(run: Run, row: GenerationRow, text: TextData) -> Mapping[str, Any]:
    return {
        "generation": text.generation.id,
        "name": named(row),
        "n_prompt": text.tokens.n_prompt,
        "readings": [_reading_json(run, text, name) for name in run.traits],
        "tokens": tokens_json(text.tokens, text.logprob),
        "numbers": base64.b64encode(numbers_bytes(text)).decode(),
    }


def _reading_json(run: Run, text: TextData, trait: str) -> list[float | None]:
    """z before a word is written, and over the answer, as the tables have them."""
    reading = read_text(run, text, place_of(run, trait))
    return [z if math.isfinite(z) else None for z in (reading.before, reading.response)]


def numbers_bytes(text: TextData) -> bytes:
    """norm [T, S], then score [T, S, K]: float32, little-endian, one array behind the other."""
    arrays = (text.norm, text.score)
    return b"".join(np.ascontiguousarray(a, dtype="<f4").tobytes() for a in arrays)


def tokens_json(tokens: TokenTable, logprob: Float32) -> Mapping[str, Any]:
    """Columns over tokens.  `text` is the token's own characters, empty for a part of one."""
    spans = zip(tokens.start.tolist(), tokens.end.tolist(), strict=True)
    return {
        "id": tokens.token_id.tolist(),
        "piece": list(tokens.piece),
        "text": [tokens.text[start:end] for start, end in spans],
        "role": tokens.role.tolist(),
        "special": tokens.special.astype(int).tolist(),
        "content": tokens.content.astype(int).tolist(),
        "turn": tokens.turn.tolist(),
        "logprob": _floats(logprob),
    }


def _floats(values: Float32) -> list[float | None]:
    """As short as they say the same float32; what is not finite is null."""
    return [float(str(v)) if np.isfinite(v) else None for v in values]


def sampled(items: Sequence[Item]) -> list[Item]:
    """At most 48 of them, evenly spread."""
    n = len(items)
    return [items[i] for i in sorted({round(i) for i in np.linspace(0, n - 1, min(n, _SAMPLED))})]


def limits(run: Run, number: int, texts: Sequence[TextData]) -> dict[str, float | None]:
    """Where a trait's scales end: for each way to show it the 99th percentile of |value| over the
    content tokens and sites of these texts; None without a number."""
    directions = run.directions[run.traits[number]]
    mean, std = directions.neutral_mean, directions.neutral_std
    there = directions.direction.any(axis=1)
    spread = np.where(std > LEAST_SPREAD * np.abs(mean), std, np.nan)  # as TraitDirections.z has it
    values: dict[str, list[Float32]] = {"raw": [], "cosine": [], "z": []}
    for text in texts:
        score = text.score[text.tokens.content][:, there, number]
        norm = np.maximum(text.norm[text.tokens.content][:, there], _TINY)
        values["raw"].append(score)
        values["cosine"].append(np.asarray(score / norm, np.float32))
        z = (score - mean[there]) / spread[there]
        values["z"].append(np.asarray(z, np.float32))
    return {name: _top(arrays) for name, arrays in values.items()}


def _top(arrays: Sequence[Float32]) -> float | None:
    finite = list(_finite(arrays))
    if not any(array.size for array in finite):
        return None
    return float(np.percentile(np.abs(np.concatenate(finite)), PERCENTILE))


def _finite(arrays: Sequence[Float32]) -> Iterator[Float32]:
    for array in arrays:
        yield array[np.isfinite(array)]
