"""What a suite will take: plain arithmetic from amounts and from rates measured on this machine.

`Amounts` are counts (texts, tokens, files) of what is still to be done, `Rates` seconds and bytes
for one of each.  Answers' lengths are not known before: they are taken as given here, once as the
most that they may be, once as what is expected.  Measures nothing and knows no torch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import ceil
from typing import Any, Literal

from traitscope.engine.plan import FEWEST, schedule

__all__ = ["PHASES", "Amounts", "Forecast", "Lengths", "Opened", "Rates", "at_most", "forecast"]

PHASES = ("start", "load", "directions", "generate", "replay", "internals", "write")


@dataclass(frozen=True)
class Opened:
    """One block of one text: of `text` (its place among those to be made), or of `tokens`."""

    text: int | None
    tokens: int = 0


@dataclass(frozen=True)
class Amounts:
    """What is to be done; padding is counted where texts are read in batches.

    `texts` are (prompt tokens, the most new tokens), `prompts` their ids (None: they share
    nothing); `read` and `pair` are texts that exist and
    those that define traits; `commit` is how many texts are written together; `kept` how many
    states of each text, by the number of its prompt's and its new tokens.
    """

    loads: int
    texts: tuple[tuple[int, int], ...]
    rows: int
    join: int
    commit: int
    read: int
    read_tokens: int
    pairs: int
    pair_tokens: int
    opened: tuple[Opened, ...]
    kept: Literal["", "prompt", "response", "last", "all"] = ""
    kept_sites: int = 0
    prompts: Sequence[Sequence[int]] | None = None

    def parts(self) -> int:
        """Commits of texts."""
        return ceil((len(self.texts) + self.read) / self.commit)

    def batches(self) -> int:
        """The most times that prompts may join: all that can at first, then as few as may."""
        waiting = max(0, len(self.texts) - self.rows)
        return bool(self.texts) + ceil(waiting / min(self.join, self.rows))


@dataclass(frozen=True)
class Rates:
    """Seconds and bytes of one thing of each kind: measured, but for sizes, which are counted.

    A prefill has a fixed part and one for each token, a step one for each row and each column of
    each row; a part (a commit) one for each token.  `once` is what a run holds without texts.
    `preparing`: of each shape of steps that are recorded; 0 where steps are as they come.
    """

    start: float = 0.0
    load: float = 0.0
    render: float = 0.0  # all texts of pairs, made ready
    pair_token: float = 0.0
    read_token: float = 0.0
    prefill: float = 0.0
    prefill_token: float = 0.0
    step: float = 0.0
    step_row: float = 0.0
    step_column: float = 0.0
    preparing: float = 0.0
    opened: float = 0.0
    write_once: float = 0.0
    part: float = 0.0
    part_token: float = 0.0
    memory: int = 0  # the most that was in use while all this was measured
    column_bytes: int = 0  # keys, values and numbers of one token
    bucket: int = 1  # slots take memory in whole buckets of so many tokens
    once_bytes: int = 0
    part_bytes: int = 0
    token_bytes: float = 0.0
    state_bytes: int = 0
    opened_bytes: tuple[float, float, float] = (0.0, 0.0, 0.0)  # fixed, a token, a token squared


@dataclass(frozen=True)
class Forecast:
    """What will happen: counts, seconds by phase with their total, bytes."""

    batches: int
    steps: int
    tokens: int
    new_tokens: int
    seconds: dict[str, float]
    memory: int
    disk: int

    @property
    def total(self) -> float:
        return sum(self.seconds[phase] for phase in PHASES)

    @property
    def preparing(self) -> float:
        """What generating takes beside prefill and decode."""
        return self.seconds["generate"] - self.seconds["prefill"] - self.seconds["decode"]

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "seconds": {**self.seconds, "total": self.total}}


@dataclass(frozen=True)
class Lengths:
    """How long some answers got, tried or made before; `tokens` in all.

    `seen` are whole answers, by the place of their text (below 0: of one that is there already);
    `ended` of them ended by themselves.  Those at `open` had as many tokens as they share of the
    rest when the trial was over.  `prompts` names the prompt of each place that has others alike.
    """

    seen: Mapping[int, int] = field(default_factory=dict)
    ended: int = 0
    open: tuple[int, ...] = ()
    tokens: int = 0
    prompts: Mapping[int, str] = field(default_factory=dict)

    @property
    def before(self) -> int:
        """How many were there already."""
        return sum(place < 0 for place in self.seen)

    @property
    def tried(self) -> int:
        return len(self.seen) - self.before + len(self.open)

    @property
    def tried_prompts(self) -> int:
        """The prompts of those that were tried."""
        places = [*(place for place in self.seen if place >= 0), *self.open]
        return len({self.prompts.get(place, str(place)) for place in places})

    @property
    def source(self) -> str:
        """What is known comes from the "run", a "trial", "both"; "" where nothing is known."""
        if not self.known:
            return ""
        return "trial" if not self.before else "both" if self.tried else "run"

    @property
    def known(self) -> bool:
        return self.ended > 0

    def of(self, most: Sequence[int]) -> list[int]:
        """A length for each text whose answer may have `most` tokens; the most if none ended.

        A text's own where it was seen, else those of its prompt in turn, else those of all.  One
        that was not at its end goes on as if each token were as likely to end it as those that
        were tried.
        """
        if not self.known:
            return list(most)
        so_far = (self.tokens - sum(self.seen.values())) / max(1, len(self.open))
        guess = round(so_far + self.tokens / self.ended)
        each = {**self.seen, **dict.fromkeys(self.open, guess)}
        alike = defaultdict[str | None, list[int]](list)
        for place, length in each.items():
            alike[self.prompts.get(place)].append(length)
        lengths = list[int]()
        for place, bound in enumerate(most):
            others = alike.get(self.prompts.get(place)) or list(each.values())
            lengths.append(min(each.get(place, others[place % len(others)]), bound))
        return lengths


def forecast(amounts: Amounts, rates: Rates, lengths: Lengths) -> Forecast:
    """Everything, for answers as long as `lengths` says."""
    new = lengths.of([most for _, most in amounts.texts])
    texts = [(prompt, made) for (prompt, _), made in zip(amounts.texts, new, strict=True)]
    fewest = FEWEST if rates.preparing else 1
    plan = schedule(texts, amounts.rows, amounts.join, amounts.prompts, fewest)
    written = sum(prompt + made for prompt, made in texts) + amounts.read_tokens
    prefill = plan.batches * rates.prefill + plan.prefilled * rates.prefill_token
    fed = plan.fed_rows if rates.preparing else plan.row_steps
    decode = plan.steps * rates.step + fed * rates.step_row + plan.columns * rates.step_column
    preparing = plan.shapes * rates.preparing
    parts = amounts.parts() + len(amounts.opened)
    return Forecast(
        batches=plan.batches,
        steps=plan.steps,
        tokens=plan.tokens + amounts.read_tokens,
        new_tokens=plan.new_tokens,
        seconds={
            "start": rates.start,
            "load": rates.load * amounts.loads,
            "directions": rates.render + rates.pair_token * amounts.pair_tokens,
            "generate": prefill + preparing + decode,
            "replay": rates.read_token * amounts.read_tokens,
            "internals": rates.opened * len(amounts.opened),
            "write": rates.write_once + rates.part * parts + rates.part_token * written,
            "prefill": prefill,
            "decode": decode,
        },
        memory=rates.memory + rates.column_bytes * _columns(amounts, texts, rates.bucket),
        disk=_disk(amounts, rates, texts, written),
    )


def at_most(amounts: Amounts, rates: Rates, expected: Forecast) -> Forecast:
    """What no lengths of answers go beyond, phase by phase; `expected` neither.

    Each answer is as long as it may be.  Those that end apart take their prompts' places apart:
    steps are fewer then, batches more.
    """
    longest = forecast(amounts, rates, Lengths())
    batches = max(longest.batches, amounts.batches())
    apart = (batches - longest.batches) * rates.prefill
    seconds = {**longest.seconds, "prefill": longest.seconds["prefill"] + apart}
    for phase, took in expected.seconds.items():  # what texts share depends on who stands beside
        seconds[phase] = max(seconds[phase], took)
    preparing = max(longest.preparing, expected.preparing)
    seconds["generate"] = seconds["prefill"] + preparing + seconds["decode"]
    counts = ("steps", "tokens", "memory", "disk")
    more = {name: max(getattr(longest, name), getattr(expected, name)) for name in counts}
    return replace(longest, batches=batches, seconds=seconds, **more)


def _columns(amounts: Amounts, texts: Sequence[tuple[int, int]], bucket: int) -> int:
    """Columns of all slots, which are made for the longest text that there may be."""
    longest = max((prompt + most for prompt, most in amounts.texts), default=0)
    return min(amounts.rows, len(texts)) * ceil(longest / bucket) * bucket


def _disk(amounts: Amounts, rates: Rates, texts: Sequence[tuple[int, int]], written: int) -> int:
    fixed, linear, square = rates.opened_bytes
    lengths = [o.tokens if o.text is None else sum(texts[o.text]) for o in amounts.opened]
    opened = sum(fixed + linear * n + square * n * n for n in lengths)
    states = sum(_kept(amounts, prompt, new) for prompt, new in texts) * amounts.kept_sites
    parts = amounts.parts() * rates.part_bytes + written * rates.token_bytes
    return round(rates.once_bytes + parts + opened + states * rates.state_bytes)


def _kept(amounts: Amounts, prompt: int, new: int) -> int:
    counts = {"": 0, "prompt": prompt, "response": new, "last": 2, "all": prompt + new}
    return counts[amounts.kept]
