"""How fast a model is on this machine, each way that a night can be run; all in one run.

A model loaded for each prompt, loaded once and asked one by one, asked in true batches, and with
several processes side by side.  The ways take turns: with each fresh load one prompt is asked
twice (for the first two ways), and between loads all prompts are asked in batches.  Loading and
generation are kept apart.  That all ways write the same texts is looked at first, in float32.
The engine and what it captures are the same each way.  Knows no runs and no screens.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from traitscope.core import Generation, GenerationConfig, Prompt
from traitscope.engine import Request, memory_for_texts
from traitscope.errors import InputError, MachineError
from traitscope.gauge import any_directions, shape_of, step_times
from traitscope.machine import let_go, machine
from traitscope.models import Model, load_checkpoint, render
from traitscope.sidebyside import Asked, Neighbours, Texts, ask
from traitscope.sizing import DEFAULT_ROWS, choose_rows
from traitscope.suite import load_suite
from traitscope.ticks import Progress, Tick
from traitscope.traits.pairs import neutral_chats

__all__ = ["WAYS", "Asked", "Speed", "Way", "speedtest"]

WAYS = {
    "load_per_prompt": "load per prompt",
    "one_by_one": "one by one",
    "batch": "true batch",
    "side_by_side": "side by side",
}
SUITES = (24, 1000)  # captures of the bundled suite, and a large one
N_TRAITS = 4
_ROUNDS = 3  # of each batch
_CHECKED = 6  # texts whose tokens are compared in advance
_QUICK = 3  # prompts that are asked alone


@dataclass(frozen=True)
class Way:
    """One way's seconds for all prompts; `measured` of them were run, the rest is scaled up by
    tokens.  `loads` are those of all prompts."""

    key: str
    loads: int
    load: float
    generation: float
    prompts: int
    measured: int
    tokens: int

    @property
    def seconds(self) -> float:
        return self.load + self.generation

    def suite(self, captures: int) -> float:
        """What as many captures would take, their answers being as long as those measured."""
        if self.key == "load_per_prompt":
            return captures * self.seconds / self.prompts
        # a batch that is not full takes as long as a full one, at most
        share = captures / self.prompts
        return self.load + self.generation * (max(share, 1) if self.key != "one_by_one" else share)


@dataclass(frozen=True)
class Speed:
    """What was measured.  `equal` of `compared` texts were the same each way in float32;
    `compared` is 0 where that could not be looked at, `note` says why."""

    model: dict[str, Any]
    machine: dict[str, Any]
    rows: int
    prompts: int
    max_new_tokens: int
    processes: int
    compared: int
    equal: int
    note: str
    ways: tuple[Way, ...]

    def ratio(self, way: Way) -> float:
        """How many times as fast as a load per prompt."""
        return self.ways[0].seconds / way.seconds

    def to_dict(self) -> dict[str, Any]:
        names = ("prompts", "max_new_tokens", "rows", "processes", "machine", "model")
        return {
            "ways": {way.key: self._way(way) for way in self.ways},
            "texts_compared": self.compared,
            "texts_equal": self.equal,
            "note": self.note,
            **{name: getattr(self, name) for name in names},
        }

    def _way(self, way: Way) -> dict[str, Any]:
        return {
            "seconds": way.seconds,
            "ratio": self.ratio(way),
            "saves": 1 - way.seconds / self.ways[0].seconds,
            "load": way.load,
            "generation": way.generation,
            "loads": way.loads,
            "tokens": way.tokens,
            "tokens_per_second": way.tokens / way.generation,
            "prompts_measured": way.measured,
            "suite_seconds": {str(count): way.suite(count) for count in SUITES},
        }


def speedtest(asked: Asked, progress: Progress = lambda tick: None) -> Speed:
    """Measure it.  Raises InputErrors for what was asked, MachineError where memory ends."""
    prompts = _prompts(asked.prompts)
    chats = [render(asked.checkpoint.tokenizer, prompt).token_ids for prompt in prompts]
    try:
        return _Test(asked, chats, progress).run()
    except torch.OutOfMemoryError as error:
        raise MachineError(
            f"Out of memory on '{asked.device}' with '{asked.checkpoint.name}'. Use fewer --rows, "
            "a narrower --dtype or another --device."
        ) from error


def _prompts(count: int) -> list[Prompt]:
    """The bundled suite's prompts, then those of the neutral chats; each once."""
    suite = [p for found in load_suite("overnight").prompt_sets().values() for p in found]
    every = [*suite, *(chat.chat for chat in neutral_chats())]
    unique = list({prompt.messages: prompt for prompt in every}.values())
    if not 1 <= count <= len(unique):
        raise InputError(f"--prompts: expected a number from 1 to {len(unique)}, got {count}.")
    return unique[:count]


@dataclass
class _Seconds:
    """What each way took, a number for each time that it had its turn."""

    load: list[float] = field(default_factory=list)
    fresh: list[float] = field(default_factory=list)  # a prompt just after its load
    alone: list[float] = field(default_factory=list)
    batch: list[float] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)


class _Test:
    def __init__(self, asked: Asked, chats: Sequence[Sequence[int]], progress: Progress) -> None:
        self.asked, self.progress = asked, progress
        self.config = GenerationConfig(max_new_tokens=asked.max_new_tokens)
        self.chats, self.requests = chats, list[Request]()
        self.seconds, self.rows = _Seconds(), 0
        self.tokens: dict[Generation, int] = {}
        self.compared = self.equal = 0
        self.note = ""
        self.sample = min(len(chats), _QUICK if asked.quick else len(chats))

    def run(self) -> Speed:
        about = self._prepare()
        with Neighbours(self.asked, self._shares(), self.direction_SDK) as neighbours:
            self.progress(Tick("load", message="each process its own"))
            together = neighbours.load()
            for number in range(self.sample):
                self.progress(Tick("measure", number, self.sample, "loads"))
                model = self._load()
                self._ask_alone(model, number)
                # batches take their turns between the loads
                while len(self.seconds.batch) < (number + 1) * _ROUNDS // self.sample:
                    self._ask_together(model, neighbours)
                del model
                let_go()
        self.progress(Tick("measure", self.sample, self.sample, "loads"))
        return self._speed(about, together)

    # --- before anything is timed ------------------------------------------------------------

    def _prepare(self) -> dict[str, Any]:
        """What is asked, how many at once, and whether all ways write the same."""
        model = self._load()
        self.seconds.load.clear()  # the first one may wait for the disk
        room = [min(self.asked.max_new_tokens, model.context - len(ids)) for ids in self.chats]
        if min(room) < 1:
            raise InputError(
                "Expected a model whose context holds the bundled prompts and an answer, but "
                f"that of '{model.name}' holds {model.context} tokens. Ask for fewer --prompts."
            )
        self.requests = [
            Request(Generation(f"{i:016x}"), tuple(ids), room[i])
            for i, ids in enumerate(self.chats)
        ]
        self.direction_SDK = any_directions(model, N_TRAITS)
        self.rows = self._rows(model)
        about = model.describe()
        if model.dtype == torch.float32:
            self._compare(model)
            del model
            let_go()
            return about
        del model
        let_go()
        try:
            self._compare(
                load_checkpoint(self.asked.checkpoint, device=self.asked.device, dtype="float32")
            )
        except (torch.OutOfMemoryError, MachineError):
            self.note = "float32 does not fit here: no texts were compared"
        let_go()
        return about

    def _compare(self, model: Model) -> None:
        """Texts asked alone, in a batch, and in a process's share of it."""
        self.progress(Tick("check", message="Comparing the texts of all ways, in float32."))
        together = self._texts(model, self.requests)[0]
        few = self.requests[: min(_CHECKED, self.sample)]
        others = [self._texts(model, [request])[0] for request in few]
        others += [self._texts(model, share)[0] for share in self._shares()]
        found = [(name, ids) for texts in others for name, ids in texts.items()]
        self.compared = len({name for name, _ in found})
        self.equal = self.compared - len({n for n, ids in found if together[n] != ids})

    def _rows(self, model: Model) -> int:
        if self.asked.rows != "auto":
            return int(self.asked.rows)
        shape, many = shape_of(model), len(self.chats) > DEFAULT_ROWS
        times = step_times(model, self.chats, self.direction_SDK, self.config) if many else None
        columns = max(len(r.token_ids) + r.max_new_tokens for r in self.requests)
        return choose_rows(
            len(self.chats),
            shape.row_bytes(columns, N_TRAITS),
            shape.working_bytes(),
            memory_for_texts(model),
            times,
        ).rows

    # --- turns -------------------------------------------------------------------------------

    def _load(self) -> Model:
        model = load_checkpoint(
            self.asked.checkpoint,
            device=self.asked.device,
            dtype=self.asked.dtype,
            allow_unproven=True,
        )
        self.seconds.load.append(model.load_seconds)
        return model

    def _ask_alone(self, model: Model, number: int) -> None:
        request = [self.requests[number]]
        self.seconds.fresh.append(self._texts(model, request)[1])
        self.seconds.alone.append(self._texts(model, request)[1])

    def _ask_together(self, model: Model, neighbours: Neighbours) -> None:
        texts, took = self._texts(model, self.requests)
        self.tokens = {name: len(ids) for name, ids in texts.items()}
        self.seconds.batch.append(took)
        if self.asked.processes > 1:
            self.seconds.beside.append(neighbours.generate(self.rows))

    def _texts(self, model: Model, requests: Sequence[Request]) -> tuple[Texts, float]:
        return ask(model, requests, self.direction_SDK, self.config, self.rows)

    def _shares(self) -> list[list[Request]]:
        count = self.asked.processes
        return [] if count == 1 else [self.requests[i::count] for i in range(count)]

    # --- the result --------------------------------------------------------------------------

    def _speed(self, about: dict[str, Any], together: float) -> Speed:
        n, load = len(self.requests), statistics.fmean(self.seconds.load)
        every = sum(self.tokens.values())
        sampled = sum(self.tokens[r.generation] for r in self.requests[: self.sample])
        scale = every / sampled
        batch = statistics.median(self.seconds.batch)
        found = [
            ("load_per_prompt", n, n * load, scale * sum(self.seconds.fresh), self.sample),
            ("one_by_one", 1, load, scale * sum(self.seconds.alone), self.sample),
            ("batch", 1, load, batch, n),
        ]
        if self.seconds.beside:
            beside = statistics.median(self.seconds.beside)
            found.append(("side_by_side", self.asked.processes, together, beside, n))
        return Speed(
            model=about,
            machine=machine(),
            rows=min(self.rows, n),
            prompts=n,
            max_new_tokens=self.asked.max_new_tokens,
            processes=self.asked.processes,
            compared=self.compared,
            equal=self.equal,
            note=self.note,
            ways=tuple(
                Way(key, loads, load, generation, n, measured, every)
                for key, loads, load, generation, measured in found
            ),
        )
