"""Run orchestration: a suite, one model load, a run folder.

What is wanted comes from the suite and the tokenizer alone; only if something is missing is the
model loaded, once, proved, and its directions read or made.  Texts are generated in true batches,
each with every trait, and committed as they finish; internals are taken from the same texts.
Ctrl-C commits what is finished.  This module prints nothing: progress goes to a callback.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from traitscope.core import TraitDirections
from traitscope.errors import InputError, RunError
from traitscope.models import Model
from traitscope.runs import Run, RunWriter, default_run_dir
from traitscope.runs.folder import check_new, disk
from traitscope.suite import Suite, suite_from_dict
from traitscope.task import Progress, Task, Tick
from traitscope.work import Source, Todo, TraitData, Work, trait_data

__all__ = ["Outcome", "Tick", "capture", "capture_suite", "made_from", "run_suite", "wanted"]


@dataclass(frozen=True)
class Outcome:
    """What one call did.  `stats` are also the run's last event of kind "finished"."""

    path: Path
    already_done: bool
    resumed: bool
    stats: Mapping[str, Any] = field(default_factory=dict)


def run_suite(
    suite: Suite,
    *,
    out: Path | None = None,
    fresh: bool = False,
    model: Model | None = None,
    progress: Progress = lambda tick: None,
    retry_failed: bool = False,
) -> Outcome:
    """Make what a suite asks for and is not there yet; see the module's docstring.

    `out` is the run's folder (default `runs/NAME-KEY`); `fresh` starts a new, numbered one;
    `model` is used instead of loading the suite's.  Raises InputErrors before anything is
    written, Interrupted after committing what was finished, MachineError where the machine fails.
    """
    began = time.perf_counter()
    want = wanted(suite, out=out, fresh=fresh, model=model, retry_failed=retry_failed)
    if want.there is not None and not want.todo:
        return _nothing_to_do(want.there, suite, want.work)
    task = Task(
        suite,
        want.source,
        want.work,
        want.traits,
        want.path,
        want.there,
        want.todo,
        progress,
        began,
    )
    stats = task.run()
    return Outcome(want.path, False, want.there is not None, stats)


@dataclass(frozen=True)
class Wanted:
    """What a call is about, before anything is loaded: where it goes, what is there and lacks."""

    source: Source
    traits: Sequence[TraitData]
    work: Work
    path: Path
    there: Run | None
    todo: Todo


def wanted(
    suite: Suite,
    *,
    out: Path | None = None,
    fresh: bool = False,
    model: Model | None = None,
    retry_failed: bool = False,
) -> Wanted:
    """Work it out; raises what `run_suite` raises before it loads anything."""
    source = Source.of(suite, model)
    traits = trait_data(suite.trait_sources)
    work = Work.of(suite, source, traits)
    path = _place(suite, work, out, fresh)
    with disk(path, "no run was made"):
        there = _existing(path, source, work, traits)
        if there is None:
            _can_be_made(path)
    return Wanted(source, traits, work, path, there, Todo.of(work, there, retry_failed))


def capture(
    model: Model | str,
    prompts: Sequence[str],
    traits: Sequence[str],
    *,
    internals: Sequence[int | str] = (),
    keep: Sequence[str] = (),
    out: str | Path | None = None,
    fresh: bool = False,
    allow_unproven: bool = False,
    thinking: bool | None = None,
    template: Mapping[str, object] | None = None,
    progress: Progress = lambda tick: None,
    **generation: float,
) -> Run:
    """Capture traits on prompts, without a suite; returns the run, opened.

    `model` is a loaded `Model` or a name to load; `traits` are names or paths as in a suite;
    `internals` are blocks (numbers or "middle") to open on the same texts, `keep` sites whose raw
    states are kept (`Run.states`); `allow_unproven` goes on with a model that fails its checks;
    `thinking` turns the chat template's own switch, `template` sets other variables of it;
    `generation` takes the fields of `GenerationConfig`.  The run is kept in `out` (default
    `runs/capture-KEY`), and the same call again finds it finished.  Raises what `run_suite` raises.
    """
    for what, given_texts in (("prompts", prompts), ("traits", traits)):
        if isinstance(given_texts, str):  # or each of its letters would be one
            raise InputError(f"{what}: expected a list of texts, got one text. Put it into [ ].")
    named = model if isinstance(model, str) else model.name
    texts = {"texts": list(prompts)}
    others: dict[str, object] = {"keep": list(keep), "allow_unproven": allow_unproven}
    others |= {"thinking": thinking, "template": dict(template or {})}
    suite = capture_suite(named, texts, traits, internals, generation, **others)
    given = model if isinstance(model, Model) else None
    place = None if out is None else Path(out)
    outcome = run_suite(suite, out=place, fresh=fresh, model=given, progress=progress)
    return Run.open(outcome.path)


def capture_suite(
    model: str,
    prompts: Mapping[str, object],
    traits: Sequence[str],
    internals: Sequence[int | str] = (),
    generation: Mapping[str, object] | None = None,
    **others: object,
) -> Suite:
    """The suite that `capture` means: one set of prompts (`file` or `texts`), and with
    `internals` a second one on the same prompts.  `others` are further keys of a suite."""
    sets: dict[str, object] = {"prompts": dict(prompts)}
    if internals:
        sets["internals"] = {**prompts, "kind": "internals", "blocks": list(internals)}
    table = {
        "name": "capture",
        "model": model,
        "traits": list(traits),
        "generation": dict(generation or {}),
        "prompts": sets,
        **others,
    }
    return suite_from_dict(table, root=Path(), source="capture")


# --- where it goes, and what is there ------------------------------------------------------------


def _place(suite: Suite, work: Work, out: Path | None, fresh: bool) -> Path:
    if out is None:
        return default_run_dir(suite.name, work.key, fresh=fresh)
    if not fresh or not out.exists():
        return out
    number = 2
    while (numbered := out.with_name(f"{out.name}-{number}")).exists():
        number += 1
    return numbered


def _existing(path: Path, source: Source, work: Work, traits: Sequence[TraitData]) -> Run | None:
    """The run that is at `path`; RunError where another suite's is."""
    if not (path / "run.json").is_file():
        return None
    run = Run.open(path)
    if run.header.key != work.key:
        raise RunError(
            f"Expected {path} to be new or a run of this suite ({work.key}), got a run of "
            f"'{run.header.name}' ({run.header.key}) with "
            f"{', '.join(_differences(run, source, work, traits)) or 'other directions'}. "
            "Choose another --out, or start a new run with --fresh."
        )
    return run


def _can_be_made(path: Path) -> None:
    """RunError, or the disk's own OSError, where no run could be made at `path`; nothing is."""
    place = path.absolute()
    if place.is_dir():
        check_new(path)
    while not os.path.lexists(place):
        place = place.parent
    with tempfile.TemporaryFile(dir=place):  # gone at once, and without a name where that may be
        pass


def _differences(
    run: Run, source: Source, work: Work, traits: Sequence[TraitData]
) -> Iterator[str]:
    """What the key stands for and is not the same there as here."""
    model, here = run.header.model, work.settings
    if model["fingerprint"] != source.fingerprint:
        same = model["name"] == source.name
        yield f"another model {'of the same name' if same else model['name']!r}"
    if model["dtype"] != source.dtype:
        yield f"dtype {model['dtype']} instead of {source.dtype}"
    names = [d.trait if isinstance(d, TraitDirections) else d.name for d in traits]
    first = list(run.header.first_traits)
    if first != names:
        yield f"the traits {' + '.join(first)} instead of {' + '.join(names)}"
    for name, data in zip(names, traits, strict=True):
        if name in run.traits and not made_from(data, run.directions[name]):
            yield f"other data of the trait {name}"
    recorded, here = dict(run.header.generation), dict(here)
    told, now = recorded.pop("template", {}), here.pop("template", {})
    if told != now:
        yield f"a chat template that is told {told or 'nothing'} instead of {now or 'nothing'}"
    for settings in (recorded, here):
        if "max_new_tokens" in settings:  # noted only where it is not so
            settings.setdefault("prompt_logprobs", True)
    if recorded.keys() != here.keys():
        generated = "max_new_tokens" in here
        yield f"texts that {'existed' if generated else 'were generated'}"
    for name, there in recorded.items():
        if name in here and name != "samples" and there != here[name]:
            yield f"{name} {there} instead of {here[name]}"


def made_from(data: TraitData, directions: TraitDirections) -> bool:
    """Whether directions are those of this trait's data (or of this directions file)."""
    if isinstance(data, TraitDirections):
        return directions.hash == data.hash
    return directions.metadata.get("data_hash") == data.data_hash


def _nothing_to_do(run: Run, suite: Suite, work: Work) -> Outcome:
    """A finished run: nothing is loaded; what entered or left the suite is noted."""
    header = replace(
        run.header,
        name=suite.name,
        suite=suite.to_dict(),
        generation=work.settings,
        captures=work.captures,
    )
    if header != run.header:
        with RunWriter.resume(run.path, header):
            pass
    stats = {"model_loads": 0, "batches": 0, "steps": 0, "tokens": 0, "new_tokens": 0, "made": 0}
    return Outcome(run.path, True, True, {**stats, "seconds": {}})
