"""How fast a model is on this machine, each way that a night can be run; all in one run.

A model loaded for each prompt, loaded once and asked one by one, asked in true batches, and with
several processes side by side.  The ways take turns: with each fresh load one prompt is asked
twice (for the first two ways), and between loads all prompts are asked in batches.  Loading and
generation are kept apart.  That all ways write the same texts is looked at first, in float32.
Each way is watched for what other programs take of the machine meanwhile.  The engine and what it
captures are the same each way.  Knows no runs and no screens.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from traitscope.core import Generation, GenerationConfig, Prompt
from traitscope.engine import Request, memory_for_texts
from traitscope.errors import InputError, MachineError
from traitscope.gauge import any_directions, shape_of, step_times
from traitscope.machine import let_go, machine
from traitscope.models import Model, load_checkpoint, render
from traitscope.others import MUCH
from traitscope.sidebyside import Asked, Neighbours, Texts, Took, ask, watched
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
_LEAST = 0.5  # seconds to be watched before others' share is told from the clock's ticks
_CHECKED = 6  # texts whose tokens are compared in advance
_QUICK = 3  # prompts that are asked alone


@dataclass(frozen=True)
class Way:
    """One way's seconds for all prompts; `measured` of them were run, the rest is scaled up by
    tokens.  `loads` are those of all prompts, `rows` are asked at once; `few` the generation of
    as many prompts as the bundled suite has captures, where fewer than a batch was measured.
    `others` is what other programs had of the machine meanwhile, or while all ways were measured
    where this one took too little to tell; None where all did."""

    key: str
    loads: int
    load: float
    generation: float
    prompts: int
    measured: int
    tokens: int
    rows: int = 1
    few: float | None = None
    others: float | None = None

    @property
    def seconds(self) -> float:
        return self.load + self.generation

    @property
    def disturbed(self) -> bool:
        """Whether other programs took so much that the times say little."""
        return self.others is not None and self.others > MUCH

    def suite(self, captures: int) -> float:
        """What as many captures would take, their answers being as long as those measured."""
        if self.key == "load_per_prompt":
            return captures * self.seconds / self.prompts
        if captures == SUITES[0] and self.few is not None:
            return self.load + self.few
        # a batch that is not full takes as long as a full one, at most
        batches = max(captures / self.rows, 1) / max(self.prompts / self.rows, 1)
        return self.load + self.generation * batches


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

    def disturbed(self, way: Way) -> bool:
        """Whether its ratio, or what it is a ratio to, was measured beside much other work."""
        return way.disturbed or self.ways[0].disturbed

    @property
    def warning(self) -> str:
        """A sentence where other programs took much, else ""."""
        said = [f"{WAYS[w.key]} {w.others:.0%}" for w in self.ways if w.disturbed]
        if not said:
            return ""
        return (
            f"Other programs took much of this machine's processors meanwhile ({', '.join(said)}): "
            "on a quiet one these times are shorter, and not all by as much."
        )

    def to_dict(self) -> dict[str, Any]:
        names = ("prompts", "max_new_tokens", "rows", "processes", "machine", "model")
        return {
            "ways": {way.key: self._way(way) for way in self.ways},
            "texts_compared": self.compared,
            "texts_equal": self.equal,
            "note": self.note,
            "warning": self.warning,
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
            "others": way.others,
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
class _Turns:
    """What each way took, each time that it had its turn."""

    load: list[Took] = field(default_factory=list)
    fresh: list[Took] = field(default_factory=list)  # a prompt just after its load
    alone: list[Took] = field(default_factory=list)
    batch: list[Took] = field(default_factory=list)
    few: list[Took] = field(default_factory=list)  # the first of the prompts, less than a batch
    together: list[Took] = field(default_factory=list)  # loads side by side
    beside: list[Took] = field(default_factory=list)
    few_beside: list[Took] = field(default_factory=list)


def _mean(turns: Sequence[Took]) -> float:
    return statistics.fmean(turn.seconds for turn in turns)


def _median(turns: Sequence[Took]) -> float:
    return statistics.median(turn.seconds for turn in turns)


def _others(*turns: Sequence[Took]) -> float | None:
    """Their share of all the time that was watched; None where that is too little to tell."""
    every = [turn for kind in turns for turn in kind]
    watched_for = sum(turn.seconds for turn in every)
    if watched_for < _LEAST:
        return None
    return sum(turn.seconds * turn.others for turn in every) / watched_for


class _Test:
    def __init__(self, asked: Asked, chats: Sequence[Sequence[int]], progress: Progress) -> None:
        self.asked, self.progress = asked, progress
        self.config = GenerationConfig(max_new_tokens=asked.max_new_tokens)
        self.chats, self.requests = chats, list[Request]()
        self.turns, self.rows = _Turns(), 0
        self.tokens: dict[Generation, int] = {}
        self.compared = self.equal = 0
        self.note = ""
        self.sample = min(len(chats), _QUICK if asked.quick else len(chats))

    def run(self) -> Speed:
        about = self._prepare()
        with Neighbours(self.asked, self._shares(), self.direction_SDK) as neighbours:
            if self.asked.processes > 1:
                self.progress(Tick("load", message="each process its own"))
                self.turns.together.append(neighbours.load())
            for number in range(self.sample):
                self.progress(Tick("measure", number, self.sample, "loads"))
                model = self._load()
                self._ask_alone(model, number)
                # batches take their turns between the loads
                while len(self.turns.batch) < (number + 1) * _ROUNDS // self.sample:
                    self._ask_together(model, neighbours)
                del model
                let_go()
        self.progress(Tick("measure", self.sample, self.sample, "loads"))
        return self._speed(about)

    # --- before anything is timed ------------------------------------------------------------

    def _prepare(self) -> dict[str, Any]:
        """What is asked, how many at once, and whether all ways write the same."""
        self.progress(Tick("load", message=self.asked.checkpoint.name))
        _ = self.asked.checkpoint.fingerprint  # files that are damaged are named by it
        model = self._load()
        self.turns.load.clear()  # the first one may wait for the disk
        room = [min(self.asked.max_new_tokens, model.context - len(ids)) for ids in self.chats]
        if min(room) < 1:
            fitting = next(i for i, left in enumerate(room) if left < 1)
            advice = f"Ask for {fitting} --prompts" if fitting else "Take a model of a longer one"
            raise InputError(
                "Expected a model whose context holds the bundled prompts and an answer, but "
                f"that of '{model.name}' holds {model.context} tokens. {advice}."
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
        with watched() as took:
            model = load_checkpoint(
                self.asked.checkpoint,
                device=self.asked.device,
                dtype=self.asked.dtype,
                allow_unproven=True,
            )
        self.turns.load.append(Took(model.load_seconds, took.others))
        return model

    def _ask_alone(self, model: Model, number: int) -> None:
        request = [self.requests[number]]
        self.turns.fresh.append(self._texts(model, request)[1])
        self.turns.alone.append(self._texts(model, request)[1])

    def _ask_together(self, model: Model, neighbours: Neighbours) -> None:
        few, beside = SUITES[0], self.asked.processes > 1
        texts, took = self._texts(model, self.requests)
        self.tokens = {name: len(ids) for name, ids in texts.items()}
        self.turns.batch.append(took)
        if few < min(self.rows, len(self.requests)):
            self.turns.few.append(self._texts(model, self.requests[:few])[1])
            if beside:
                self.turns.few_beside.append(neighbours.generate(self.rows, few))
        if beside:
            self.turns.beside.append(neighbours.generate(self.rows, len(self.requests)))

    def _texts(self, model: Model, requests: Sequence[Request]) -> tuple[Texts, Took]:
        return ask(model, requests, self.direction_SDK, self.config, self.rows)

    def _shares(self) -> list[list[Request]]:
        count = self.asked.processes
        return [] if count == 1 else [self.requests[i::count] for i in range(count)]

    # --- the result --------------------------------------------------------------------------

    def _speed(self, about: dict[str, Any]) -> Speed:
        return Speed(
            model=about,
            machine=machine(),
            rows=min(self.rows, len(self.requests)),
            prompts=len(self.requests),
            max_new_tokens=self.asked.max_new_tokens,
            processes=self.asked.processes,
            compared=self.compared,
            equal=self.equal,
            note=self.note,
            ways=tuple(self._ways()),
        )

    def _ways(self) -> Iterator[Way]:
        turns, n, load = self.turns, len(self.requests), _mean(self.turns.load)
        tokens = sum(self.tokens.values())
        sampled = sum(self.tokens[r.generation] for r in self.requests[: self.sample])
        rows, scale = min(self.rows, n), tokens / sampled
        for key, loads, alone in (
            ("load_per_prompt", n, turns.fresh),
            ("one_by_one", 1, turns.alone),
        ):
            writing = scale * self.sample * _mean(alone)
            others = self._others(turns.load, alone)
            yield Way(key, loads, loads * load, writing, n, self.sample, tokens, others=others)
        for key, loads, loading, whole, few in (
            ("batch", 1, turns.load, turns.batch, turns.few),
            ("side_by_side", self.asked.processes, turns.together, turns.beside, turns.few_beside),
        ):
            if whole:
                yield Way(
                    key,
                    loads,
                    _mean(loading),
                    _median(whole),
                    n,
                    n,
                    tokens,
                    rows,
                    _median(few) if few else None,
                    self._others(loading, whole, few),
                )

    def _others(self, *turns: Sequence[Took]) -> float | None:
        share = _others(*turns)
        return _others(*vars(self.turns).values()) if share is None else share
