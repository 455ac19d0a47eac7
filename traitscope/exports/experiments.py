"""A run as the folders of an older tool: TRAIT/inference/..., .pt and .json for each text.

Files are whole or not there, and one that is there is not made again; `export.json` says of which
run they are and which text has which number.  Attention, which a run does not keep for every
block, comes from a replay of the stored tokens, for which the run's model is loaded once.
What stands in the files is `layout.py`'s.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import torch

from traitscope.core import Generation
from traitscope.engine import mean_attention
from traitscope.errors import InputError, MachineError, ModelError
from traitscope.exports.layout import Page, as_json
from traitscope.exports.place import Exported, open_folder, write
from traitscope.models import Model, load_checkpoint, locate
from traitscope.runs import GenerationRow, Run
from traitscope.runs.files import TEMPORARY, read_bytes
from traitscope.ticks import Progress, Tick

__all__ = ["MARKER", "export_experiments"]

MARKER = "export.json"  # whose files these are
_TIER_2 = "inference/residual_stream_activations/prompt_{number}"
_TIER_3 = "inference/layer_internal_states/prompt_{number}_layer{block}"
_ENDINGS = (".pt", ".json")


def export_experiments(
    run: Run,
    out: Path,
    *,
    attention: bool = True,
    model: Model | str | None = None,
    device: str = "auto",
    progress: Progress = lambda tick: None,
) -> Exported:
    """Write what is missing of the run into `out`; see docs/exports.md.

    With `attention` the run's model is loaded, if any file needs it: the one that the run names,
    or `model` (a name, or one that is loaded).  Raises InputError where `out` holds anything else,
    ModelError where the model is not the run's, MachineError for a full disk or memory.
    """
    rows = run.generations()
    done = [row for row in rows if row.status == "done"]
    work = _Work(run, out, _numbers(run, out, done, attention))
    todo = [row for row in done if any(work.missing(row))]
    files, size = sum(len(work.names(row)) for row in done), 0
    kept = files - sum(len(list(work.missing(row))) for row in todo)
    needed = attention and any(work.needs_attention(row) for row in todo)
    loaded = _model_of(run, model, device, progress) if needed else None
    for number, row in enumerate(todo):
        progress(Tick("export", number, len(todo), "texts"))
        size += sum(work.write(row, loaded))
    progress(Tick("export", len(todo), len(todo), "texts"))
    return Exported(len(done), len(rows) - len(done), files, kept, size)


# --- which files ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Work:
    """The files of a run in `out`; `numbers` says which text is prompt_I."""

    run: Run
    out: Path
    numbers: Mapping[Generation, int]

    def names(self, row: GenerationRow) -> list[tuple[str, int | None, str]]:
        """(trait, block or None for tier 2, the file's name without its ending) and endings."""
        number = self.numbers[row.generation]
        tier_2 = [(None, _TIER_2.format(number=number))]
        blocks = self.run.internal_blocks(row.generation)
        tier_3 = [(b, _TIER_3.format(number=number, block=b)) for b in blocks]
        return [
            (trait, block, f"{trait}/{stem}{ending}")
            for trait in self.run.traits
            for block, stem in [*tier_2, *tier_3]
            for ending in _ENDINGS
        ]

    def missing(self, row: GenerationRow) -> Iterator[tuple[str, int | None, str]]:
        return (name for name in self.names(row) if not (self.out / name[2]).exists())

    def needs_attention(self, row: GenerationRow) -> bool:
        """Whether a .json or .pt of tier 2 is missing: both say what attention there is."""
        return any(block is None for _, block, _ in self.missing(row))

    def write(self, row: GenerationRow, model: Model | None) -> Iterator[int]:
        """Write what is missing of a text; yields the size of each file."""
        text = self.run.text(row.generation)
        weights = None
        if model is not None and self.needs_attention(row):
            weights = _attention(model, text.tokens.token_id.tolist())
        page = Page(self.run, row, text, weights)
        made: dict[tuple[str, int | None], dict[str, Any]] = {}
        for trait, block, name in list(self.missing(row)):
            if (trait, block) not in made:
                made = {(trait, block): self._content(page, trait, block)}  # one at a time
            content = made[trait, block]
            data = as_json(content) if name.endswith(".json") else _saved(content)
            yield write(self.out / name, data)

    def _content(self, page: Page, trait: str, block: int | None) -> dict[str, Any]:
        if block is None:
            return page.trajectory(trait)
        return page.inside(trait, self.run.internals(page.row.generation, block))


def _saved(content: Mapping[str, Any]) -> bytes:
    buffer = BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


# --- whose files these are -----------------------------------------------------------------------


def _numbers(
    run: Run, out: Path, rows: Sequence[GenerationRow], attention: bool
) -> dict[Generation, int]:
    """The number of each text: as recorded before, new texts behind; recorded in `out`."""
    open_folder(out, (), force=True)
    mine = {
        "format": "traitscope.experiments",
        "format_version": 1,
        "run": [run.header.key, run.header.created],
        "attention": attention,
    }
    texts = _recorded(out, mine)
    texts += [row.generation.id for row in rows if row.generation.id not in set(texts)]
    data = json.dumps({**mine, "prompts": texts}, indent=1).encode()
    if not (out / MARKER).exists() or (out / MARKER).read_bytes() != data:
        write(out / MARKER, data)
    return {Generation.parse(name): number for number, name in enumerate(texts)}


def _recorded(out: Path, mine: Mapping[str, Any]) -> list[str]:
    """Texts by number as an earlier call left them; InputError where `out` is somebody else's."""
    if not (out / MARKER).exists():
        others = sorted(p.name for p in out.iterdir() if p.name != MARKER + TEMPORARY)
        if others:
            raise InputError(
                f"Expected a new folder or one that this export has begun, but {out} holds "
                f"'{others[0]}'. Choose another --out."
            )
        return []
    try:
        there = json.loads(read_bytes(out / MARKER))
        texts = [str(name) for name in there["prompts"]]
        same = [name for name in mine if there[name] != mine[name]]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"Expected {out / MARKER} as an export left it, but it is damaged. "
            "Choose another --out."
        ) from error
    if same:
        what = {"attention": "with the other choice of --no-attention", "run": "of another run"}
        raise InputError(
            f"Expected {out} to be new or an export of this run, but it holds one "
            f"{what.get(same[0], 'of another format')}. Choose another --out."
        )
    return texts


# --- the model -----------------------------------------------------------------------------------


def _model_of(run: Run, model: Model | str | None, device: str, progress: Progress) -> Model:
    """The run's own model, loaded once; ModelError for any other."""
    wanted = str(run.header.model["fingerprint"])
    if isinstance(model, Model):
        _same(wanted, model.fingerprint, model.name)
        return model
    name = model or str(run.header.model["name"])
    if wanted.startswith("memory:"):
        raise ModelError(
            f"Expected a model that can be loaded, but the run was made with '{name}', which was "
            "given from Python. Give it again: export_experiments(run, out, model=...), or leave "
            "attention out with --no-attention."
        )
    revision = None if model else run.header.suite.get("revision")
    checkpoint = locate(name, revision=revision)
    _same(wanted, checkpoint.fingerprint, name)
    progress(Tick("load", message=name))
    return load_checkpoint(checkpoint, device=device, dtype=str(run.header.model["dtype"]))


def _same(wanted: str, found: str, name: str) -> None:
    if wanted != found:
        raise ModelError(
            f"Expected the model of the run ({wanted}), but '{name}' is another one or has changed "
            f"({found}). Name the right one with --model, or leave attention out with "
            "--no-attention."
        )


def _attention(model: Model, token_ids: Sequence[int]) -> list[torch.Tensor]:
    try:
        return mean_attention(model, token_ids)
    except torch.OutOfMemoryError as error:
        raise MachineError(
            f"Out of memory on {model.device} while replaying a text of {len(token_ids)} tokens; "
            "what was exported is kept. Use another --device, or --no-attention."
        ) from error
