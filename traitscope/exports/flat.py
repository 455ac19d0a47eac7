"""A run as csv, jsonl or npz: its texts and scores for a spreadsheet, a script, an array.

One text is in memory at a time.  Scores are h . v in float32 with enough digits to come back as
they were; z is (score - neutral mean) / neutral std of the site, and missing where the trait has
no direction there.  Texts are hostile: what would begin a formula in a spreadsheet is guarded.
docs/exports.md names every column.  No torch.

Shapes: T tokens, S sites (those chosen), K traits.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, TextIO, cast

import numpy as np
from numpy.typing import NDArray

from traitscope.core import Float32, Message, read_site
from traitscope.errors import RunError
from traitscope.exports.place import Exported, open_folder, streamed, write
from traitscope.runs import GenerationRow, Run, TextData
from traitscope.ticks import Progress, Tick

__all__ = ["FLAT", "Choice", "export_flat", "guarded"]

FLAT = ("csv", "jsonl", "npz")

_DEFAULT_SITES = {"csv": "all", "jsonl": "read", "npz": "all"}
_FILES = {"csv": ("tokens.csv", "generations.csv"), "jsonl": ("texts.jsonl",)}
_TOKEN_COLUMNS = (
    "generation",
    "label",
    "position",
    "role",
    "part",
    "token",
    "site",
    "trait",
    "score",
    "norm",
    "z",
    "logprob",
)
_TEXT_COLUMNS = (
    "generation",
    "prompt_id",
    "sample",
    "label",
    "tags",
    "messages",
    "thinking",
    "response",
    "n_prompt",
    "n_tokens",
    "finish",
    "seconds",
    "status",
    "error",
    "in_suite",
)
# what a spreadsheet takes for the beginning of a formula, in both widths; the apostrophe itself,
# so that taking one leading apostrophe away always gives the text back
_FORMULA = tuple("=+-@\t\r\n'＝＋－＠")  # noqa: RUF001  # meant: they count as formulas too
# line ends to a reader of Unicode, though not to JSON
_LINE_ENDS = {ord(c): f"\\u{ord(c):04x}" for c in "\x85\u2028\u2029"}


@dataclass(frozen=True)
class Choice:
    """Which numbers are wanted: (site, trait) as indices into the run's, in the run's order."""

    pairs: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, run: Run, wanted: Sequence[str]) -> Choice:
        """`wanted`: "all", "read" (each trait's own read site) or sites by name or depth.

        Raises InputError for a site that the run has not.
        """
        chosen: set[tuple[int, int]] = set()
        for number, trait in enumerate(run.traits):
            own = run.directions[trait].metadata.get("read_site") or 0.5
            for name in wanted:
                if name == "all":
                    chosen.update((site, number) for site in range(len(run.sites)))
                else:
                    where = own if name == "read" else name
                    chosen.add((read_site(run.sites, where), number))
        return cls(tuple(sorted(chosen)))

    @property
    def sites(self) -> list[int]:
        return sorted({site for site, _ in self.pairs})


def export_flat(
    run: Run,
    to: str,
    out: Path,
    *,
    sites: Sequence[str] = (),
    force: bool = False,
    progress: Progress = lambda tick: None,
) -> Exported:
    """Write the run into the folder `out` as `to`, one of FLAT; see docs/exports.md.

    `sites` as in `Choice.of`; by default all in csv and npz, the read sites in jsonl.
    Progress counts texts.  Raises InputError for existing files without `force`,
    MachineError for a full disk.
    """
    choice = Choice.of(run, sites or (_DEFAULT_SITES[to],))
    rows = run.generations()
    done = [row.generation.id for row in rows if row.status == "done"]
    names = _FILES.get(to) or tuple(_file_of(name) for name in done)
    open_folder(out, names, force=force)
    writers = {"csv": _write_csv, "jsonl": _write_jsonl, "npz": _write_npz}
    writers[to](run, rows, choice, out, progress)
    size = sum((out / name).stat().st_size for name in names)
    return Exported(len(done), len(rows) - len(done), len(names), 0, size)


def _texts(
    run: Run, rows: Sequence[GenerationRow], progress: Progress
) -> Iterator[tuple[GenerationRow, TextData | None]]:
    """Each row with its text, None for a failed one."""
    for number, row in enumerate(rows):
        progress(Tick("export", number, len(rows), "texts"))
        yield row, run.text(row.generation) if row.status == "done" else None
    progress(Tick("export", len(rows), len(rows), "texts"))


def _z(run: Run, text: TextData) -> Float32:
    """[T, S, K] of all sites; NaN where neutral text does not spread: no direction there."""
    every = [run.directions[name] for name in run.traits]
    mean_SK = np.stack([d.neutral_mean for d in every], axis=1)
    std_SK = np.stack([d.neutral_std for d in every], axis=1)
    std_SK = np.where(std_SK > 0, std_SK, np.nan)
    return np.asarray((text.score - mean_SK) / std_SK, dtype=np.float32)


# --- csv -----------------------------------------------------------------------------------------


def guarded(text: str | None) -> str:
    """A cell that no spreadsheet takes for a formula: `'` before what would begin one."""
    text = text or ""
    return f"'{text}" if text.startswith(_FORMULA) else text


def _number(value: float | None) -> str:
    """Nine digits bring a float32 back; missing is empty."""
    return "" if value is None or value != value else f"{value:.9g}"


def _write_csv(
    run: Run, rows: Sequence[GenerationRow], choice: Choice, out: Path, progress: Progress
) -> None:
    with (
        streamed(out / "tokens.csv") as tokens_file,
        streamed(out / "generations.csv") as texts_file,
    ):
        tokens, texts = csv.writer(tokens_file), csv.writer(texts_file)
        tokens.writerow(_TOKEN_COLUMNS)
        texts.writerow(_TEXT_COLUMNS)
        for row, text in _texts(run, rows, progress):
            texts.writerow(_text_cells(row))
            if text is not None:
                tokens.writerows(_token_cells(run, row, text, choice))


def _text_cells(row: GenerationRow) -> list[object]:
    about = _about(row)
    for name in ("label", "thinking", "response", "error"):
        about[name] = guarded(about[name])
    for name in ("tags", "messages"):
        about[name] = json.dumps(about[name], ensure_ascii=False)
    about["seconds"] = _number(row.seconds)
    return [about[name] for name in _TEXT_COLUMNS]


def _token_cells(
    run: Run, row: GenerationRow, text: TextData, choice: Choice
) -> Iterator[list[object]]:
    """A row per token, site and trait."""
    z_TSK, label, tokens = _z(run, text), guarded(row.prompt.label), text.tokens
    for t in range(len(text.score)):
        head = [row.generation.id, label, t, tokens.role[t], tokens.part[t]]
        head.append(guarded(tokens.piece[t]))
        logprob = _number(text.logprob[t])
        for s, k in choice.pairs:
            numbers = (text.score[t, s, k], text.norm[t, s], z_TSK[t, s, k])
            place = (run.sites[s].name, run.traits[k])
            yield [*head, *place, *map(_number, numbers), logprob]


# --- jsonl ---------------------------------------------------------------------------------------


def _write_jsonl(
    run: Run, rows: Sequence[GenerationRow], choice: Choice, out: Path, progress: Progress
) -> None:
    with streamed(out / "texts.jsonl") as file:
        for row, text in _texts(run, rows, progress):
            numbers = {} if text is None else _line(run, text, choice)
            _write_line(file, {**_about(row), **numbers})


def _write_line(file: TextIO, value: Mapping[str, Any]) -> None:
    line = json.dumps(value, ensure_ascii=False, allow_nan=False)
    file.write(line.translate(_LINE_ENDS) + "\n")


def _about(row: GenerationRow) -> dict[str, Any]:
    """A text without its tokens."""
    return {
        "generation": row.generation.id,
        "prompt_id": row.generation.prompt_id,
        "sample": row.generation.sample,
        "label": row.prompt.label,
        "tags": dict(row.prompt.tags),
        "messages": [_turn(message) for message in row.prompt.messages],
        "thinking": row.thinking,
        "response": row.response,
        "n_prompt": row.n_prompt,
        "n_tokens": row.n_tokens,
        "finish": row.finish,
        "seconds": row.seconds,
        "status": row.status,
        "error": row.error,
        "in_suite": row.in_suite,
    }


def _turn(message: Message) -> dict[str, str]:
    turn = {"role": message.role, "content": message.content}
    return turn | ({"thinking": message.thinking} if message.thinking else {})


def _line(run: Run, text: TextData, choice: Choice) -> dict[str, Any]:
    tokens, z_TSK = text.tokens, _z(run, text)
    return {
        "text": tokens.text,
        "tokens": list(tokens.piece),
        "token_ids": tokens.token_id.tolist(),
        "roles": tokens.role.tolist(),
        "parts": tokens.part.tolist(),
        "special": tokens.special.tolist(),
        "turns": tokens.turn.tolist(),
        "starts": tokens.start.tolist(),
        "ends": tokens.end.tolist(),
        "logprobs": _short(text.logprob),
        "norms": {run.sites[s].name: _short(text.norm[:, s]) for s in choice.sites},
        "scores": _by_trait(run, text.score, choice),
        "z": _by_trait(run, z_TSK, choice),
    }


def _by_trait(run: Run, values_TSK: Float32, choice: Choice) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {name: {} for name in run.traits}
    for s, k in choice.pairs:
        found[run.traits[k]][run.sites[s].name] = _short(values_TSK[:, s, k])
    return found


def _short(values: Float32) -> list[float | None]:
    """Doubles that print in nine digits and are the same float32; None for NaN."""
    return [None if x != x else float(f"{x:.9g}") for x in values.tolist()]


# --- npz -----------------------------------------------------------------------------------------


def _write_npz(
    run: Run, rows: Sequence[GenerationRow], choice: Choice, out: Path, progress: Progress
) -> None:
    for row, text in _texts(run, rows, progress):
        if text is not None:
            buffer = BytesIO()
            np.savez_compressed(buffer, **cast(dict[str, Any], _arrays(run, row, text, choice)))
            write(out / _file_of(row.generation.id), buffer.getvalue())


def _arrays(
    run: Run, row: GenerationRow, text: TextData, choice: Choice
) -> dict[str, NDArray[Any]]:
    """score, z [T, S, K], norm [T, S], the rest [T] or names; never an object array."""
    tokens, sites = text.tokens, choice.sites
    return {
        "score": text.score[:, sites],
        "z": _z(run, text)[:, sites],
        "norm": text.norm[:, sites],
        "logprob": text.logprob,
        "sites": np.array([run.sites[s].name for s in sites]),
        "traits": np.array(run.traits),
        "token": _strings(tokens.piece),
        "token_id": tokens.token_id,
        "role": tokens.role.astype(np.str_),
        "part": tokens.part.astype(np.str_),
        "special": tokens.special,
        "turn": tokens.turn,
        "start": tokens.start,
        "end": tokens.end,
        "text": _strings([tokens.text])[0, ...],
        "about": np.array(json.dumps(_about(row))),
    }


def _file_of(generation: str) -> str:
    """A run may come from a stranger: no text's id may lead out of the folder."""
    if not re.fullmatch(r"[0-9A-Za-z_]{1,64}-\d+", generation):
        raise RunError(
            f"Expected a text's id such as '0123456789abcdef-0', got '{generation[:80]}': no "
            "safe file name. Export to csv or jsonl instead."
        )
    return f"{generation}.npz"


def _strings(texts: Sequence[str]) -> NDArray[np.str_]:
    """numpy drops NULs at a string's end: U+2400, one character as well, stands for each."""
    return np.array([text.replace("\0", "\u2400") for text in texts], dtype=np.str_)
