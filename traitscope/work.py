"""What a suite wants and what of it is missing, worked out without loading the model.

Needs the tokenizer (a prompt's id is the hash of its rendered ids) and the checkpoint's files
(the key names the model by their fingerprint).  Makes nothing and writes nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from traitscope.core import (
    Capture,
    Generation,
    GenerationConfig,
    Keep,
    Prompt,
    TraitDirections,
    prompt_id_of,
)
from traitscope.models import (
    NONE,
    Arguments,
    Checkpoint,
    Model,
    Rendered,
    given_ids,
    load_checkpoint,
    locate,
    render,
    template_arguments,
)
from traitscope.runs import Run, load_directions
from traitscope.suite import Suite, TraitSource
from traitscope.traits.extract import METHOD
from traitscope.traits.pairs import Trait, load_trait
from traitscope.traits.vectors import Vector, VectorSet, load_vector

__all__ = ["Source", "Todo", "TraitData", "Work", "trait_data"]

TraitData = Trait | Vector | VectorSet | TraitDirections


@dataclass(frozen=True)
class Source:
    """The model before it is loaded, or one that is loaded already."""

    name: str
    tokenizer: Any
    fingerprint: str
    dtype: str
    checkpoint: Checkpoint | None
    model: Model | None

    @classmethod
    def of(cls, suite: Suite, model: Model | None) -> Source:
        if model is not None:
            return cls.loaded(model)
        found = locate(
            suite.model,
            revision=suite.revision,
            adapter=suite.adapter,
            family=suite.family or None,
            trust_remote_code=suite.trust_remote_code,
        )
        return cls.located(found, suite.dtype)

    @classmethod
    def loaded(cls, model: Model) -> Source:
        return cls(model.name, model.tokenizer, model.fingerprint, model.dtype_name, None, model)

    @classmethod
    def located(cls, found: Checkpoint, dtype: str) -> Source:
        return cls(found.name, found.tokenizer, found.fingerprint, found.dtype(dtype), found, None)

    def load(
        self, device: str, arguments: Arguments = NONE, *, allow_unproven: bool = False
    ) -> Model:
        """The model, with a chat template that is told `arguments`."""
        if self.model is not None:
            return self.model.told(arguments)
        assert self.checkpoint is not None  # one of the two is always there
        loaded = load_checkpoint(
            self.checkpoint, device=device, dtype=self.dtype, allow_unproven=allow_unproven
        )
        return loaded.told(arguments)


@dataclass(frozen=True)
class Work:
    """Everything that is wanted: texts with their prompts, captures, blocks, and the run's key.

    `settings` are what the numbers depend on beside model and traits, `given` all ids of the texts
    that exist (all texts, or none), `keep` the states to be kept; further data, not in the key.
    `arguments` are what the chat template is told beside the chat.
    """

    key: str
    settings: Mapping[str, Any]
    config: GenerationConfig
    prompts: Mapping[Generation, Prompt]
    rendered: Mapping[Generation, Rendered]
    captures: tuple[Capture, ...]
    blocks: Mapping[str, tuple[int | str, ...]]  # by prompt set, of kind internals
    given: Mapping[Generation, tuple[int, ...]]
    keep: Keep
    arguments: Arguments

    def blocks_of(self, generation: Generation, n_blocks: int) -> list[int]:
        """The blocks whose internals are wanted of a text; "middle" is the depth of a reading."""
        sets = {c.prompt_set for c in self.captures if c.generation == generation}
        named = [block for name in self.blocks if name in sets for block in self.blocks[name]]
        middle = round(0.5 * (n_blocks - 1))
        return sorted({middle if block == "middle" else int(block) for block in named})

    @classmethod
    def of(cls, suite: Suite, source: Source, traits: Sequence[TraitData]) -> Work:
        prompts: dict[Generation, Prompt] = {}
        rendered: dict[Generation, Rendered] = {}
        given: dict[Generation, tuple[int, ...]] = {}
        captures: dict[Capture, None] = {}
        arguments = template_arguments(
            source.tokenizer, suite.template, suite.thinking, source.name
        )
        for name, table in suite.prompts.items():
            for generation, prompt, text, ids in _texts(suite, name, source.tokenizer, arguments):
                rendered[generation] = text
                prompts[generation] = _merged(prompts.get(generation), prompt)
                captures[Capture(generation, name, table.kind)] = None
                if ids is not None:
                    given[generation] = ids
        blocks = {n: t.blocks for n, t in suite.prompts.items() if t.kind == "internals"}
        settings = _settings(suite, arguments)
        return cls(
            key=_key(source, traits, settings),
            settings=settings,
            config=suite.config(),
            prompts=prompts,
            rendered=rendered,
            captures=tuple(captures),
            blocks=blocks,
            given=given,
            keep=suite.kept(source.dtype),
            arguments=arguments,
        )


_Text = tuple[Generation, Prompt, Rendered, tuple[int, ...] | None]


def _texts(suite: Suite, name: str, tokenizer: Any, arguments: Arguments) -> Iterator[_Text]:
    """A set's texts: each prompt's samples, or those that exist with all their ids."""
    for conversation in suite.conversations().get(name, ()):
        text, ids = given_ids(tokenizer, conversation, arguments)
        prompt = conversation.prompt
        if not prompt.messages:  # without words of its own it is named by its place
            prompt = replace(prompt, label=prompt.label or prompt.where)
        yield Generation(prompt_id_of(ids)), prompt, text, ids
    if name in suite.conversations():
        return
    samples = suite.config(name).samples
    for prompt in suite.prompt_sets()[name]:
        text = render(tokenizer, prompt, arguments)
        for sample in range(samples):
            yield Generation(text.prompt_id, sample), prompt, text, None


def _settings(suite: Suite, arguments: Arguments) -> dict[str, Any]:
    if suite.replays:
        settings: dict[str, Any] = {"logprobs": suite.logprobs}
    else:
        settings = dict(vars(suite.config()))
        if settings["prompt_logprobs"]:  # as runs have it that know nothing of it
            del settings["prompt_logprobs"]
    return settings | ({"template": dict(arguments)} if arguments else {})


def _merged(first: Prompt | None, second: Prompt) -> Prompt:
    """The same chat from two sets is one text: the first one's label and tags win."""
    if first is None:
        return second
    return replace(first, label=first.label or second.label, tags={**second.tags, **first.tags})


def _key(source: Source, traits: Sequence[TraitData], settings: Mapping[str, Any]) -> str:
    """8 hex digits over what numbers depend on: model, directions, sampling and seed; of texts
    that exist whether they have log probabilities, and nothing of sampling.

    Samples are not in it: like prompts, more of them are further texts of the same run.
    """
    sampling = {k: v for k, v in settings.items() if k != "samples"}
    made = [
        [t.trait, t.hash, "file"]
        if isinstance(t, TraitDirections)
        else [t.name, t.data_hash, METHOD if isinstance(t, Trait) else "vector"]
        for t in traits
    ]
    raw = json.dumps([source.fingerprint, source.dtype, made, sampling], sort_keys=True)
    return hashlib.sha256(raw.encode()).hexdigest()[:8]


def trait_data(sources: Sequence[TraitSource]) -> list[TraitData]:
    """Each trait's data, or its directions or vector where a suite names such a file."""
    return [_data_of(source) for source in sources]


def _data_of(source: TraitSource) -> TraitData:
    if source.vector is not None:
        return load_vector(source.name, source.vector)
    if source.path.suffix == ".safetensors":
        # the file's name is the trait's: two kinds of directions may stand side by side
        return replace(load_directions(source.path), trait=source.name)
    return load_trait(source.path)


@dataclass(frozen=True)
class Todo:
    """What is wanted and not there: texts to make, captures of texts that are there, blocks.

    `lacking`: texts that are there lack states to be kept, or scores on traits that came later.
    """

    texts: tuple[Generation, ...]
    captures: tuple[Capture, ...]
    lacking: bool = False

    def __bool__(self) -> bool:
        return bool(self.texts or self.captures or self.lacking)

    @classmethod
    def of(cls, work: Work, run: Run | None, retry_failed: bool) -> Todo:
        if run is None:
            return cls(tuple(work.prompts), work.captures)
        settled = {"done"} if retry_failed else {"done", "failed"}
        texts = {row.generation for row in run.generations() if row.status in settled}
        captures = {row.capture for row in run.captures() if row.status in settled}
        captures -= {c for c in captures if _lacks_blocks(run, work, c)}
        return cls(
            tuple(g for g in work.prompts if g not in texts),
            tuple(c for c in work.captures if c not in captures),
            bool(run.unscored() or run.unkept(work.keep)),
        )


def _lacks_blocks(run: Run, work: Work, capture: Capture) -> bool:
    """Internals of further blocks are wanted of a text that has some already."""
    if capture.kind != "internals" or capture not in work.captures:
        return False
    wanted = work.blocks_of(capture.generation, int(run.header.model["n_blocks"]))
    there = run.internal_blocks(capture.generation)
    return bool(there) and not set(wanted) <= set(there)
