"""How much of the machine a call used: what it achieved against what the machine can.

The machine's own figures come from a short probe after the work: one matrix product in the run's
dtype, and reading memory.  What taps and sampling take is timed apart, on numbers of the run's
shapes, and multiplied by its steps.  FLOPs are those that the texts needed, of experts the ones
that a token visits; bytes are the weights once a step, and the keys and values that a token looks
at.  Knows no runs; a call that was short is not probed, and has its memory and its shares alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from traitscope.core import Float32, GenerationConfig
from traitscope.engine import Clock, Numbers, block_steps, has_products, packed_bytes, pick
from traitscope.errors import memory_errors
from traitscope.gauge import shape_of
from traitscope.machine import all_memory, peak_memory
from traitscope.models import Model, Scores
from traitscope.sizing import Shape

__all__ = ["LONG_ENOUGH", "Limits", "folder_bytes", "limits", "used", "work_of"]

LONG_ENOUGH = 3.0  # seconds of generation that are worth a probe of a third of one
_READ, _READ_AWAY = 2**27, 2**30  # bytes, more than caches hold; on a GPU long beside a launch
_PRODUCT = 0.02  # seconds that a matrix product should take
_REPEATS = 3
_PATIENCE = 0.15  # seconds of repeating one thing


@dataclass(frozen=True)
class Limits:
    """What this machine reached: floating-point operations and bytes a second."""

    flops: float
    bandwidth: float


def folder_bytes(folder: Path) -> int:
    """The sizes of all files in it."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def used(
    model: Model,
    texts: Sequence[tuple[int, int]],
    direction_SDK: Float32,
    config: GenerationConfig,
    clock: Clock,
    seconds: Mapping[str, float],
) -> dict[str, Any]:
    """As plain values, for a run's log; `texts` made are (prompt tokens, all tokens)."""
    memory = {"peak": peak_memory(model.device), "all": all_memory(model.device)}
    found: dict[str, Any] = {
        "memory": {**memory, "packed": packed_bytes(model)},
        "shares": _shares(seconds, clock, {}),
    }
    if clock.steps == 0 or clock.prefill + clock.decode < LONG_ENOUGH:
        return found
    try:
        with memory_errors():
            more, inside = _against_the_machine(model, texts, direction_SDK, config, clock)
    except torch.OutOfMemoryError:  # the texts are there: nothing is lost but these figures
        return found
    return found | more | {"shares": _shares(seconds, clock, inside)}


def _against_the_machine(
    model: Model,
    texts: Sequence[tuple[int, int]],
    direction_SDK: Float32,
    config: GenerationConfig,
    clock: Clock,
) -> tuple[dict[str, Any], dict[str, float]]:
    """The figures, and the seconds of taps and sampling within those of the steps."""
    machine = limits(model.device, model.dtype)
    shape = shape_of(model)
    done = work_of(shape, texts, clock, prompt_logprobs=config.prompt_logprobs)
    rows = max(1, round((clock.tokens - done["prefill_tokens"]) / clock.steps))
    inside: dict[str, float] = {}
    if model.device.type != "cuda":  # a recorded step has no launches, which a probe would count
        inside["taps"] = clock.steps * _taps(model, direction_SDK, rows)
        inside["sampling"] = clock.steps * _sampling(model, shape, config, rows)
    figures = {
        "flops": {
            "machine": machine.flops,
            "prefill": done["prefill_flops"] / max(clock.prefill, 1e-9),
            "decode": done["decode_flops"] / clock.decode,
        },
        "bandwidth": {
            "machine": machine.bandwidth,
            "decode": done["decode_bytes"] / clock.decode,
        },
        "narrower": model.device.type != "cpu" or has_products(torch.bfloat16),
        "rows": rows,
        "waited": clock.batches > 1,
    }
    return figures, inside


def work_of(
    shape: Shape,
    texts: Sequence[tuple[int, int]],
    clock: Clock,
    *,
    prompt_logprobs: bool = True,
) -> dict[str, int]:
    """Tokens, operations and bytes of prefill and decode that these texts needed."""
    prefilled = sum(n_prompt - 1 for n_prompt, _ in texts)
    decoded = sum(n - n_prompt + 1 for n_prompt, n in texts)
    # what a text took over from another one was not computed again
    computed = min(prefilled, max(clock.tokens - decoded, 0))
    before = sum(_looked_at(0, n_prompt - 1) for n_prompt, _ in texts)
    during = sum(_looked_at(n_prompt - 1, n) for n_prompt, n in texts)
    before = before * computed // max(prefilled, 1)
    return {
        "prefill_tokens": computed,
        "prefill_flops": shape.flops(computed, computed if prompt_logprobs else 0, before),
        "decode_flops": shape.flops(decoded, decoded, during),
        "decode_bytes": clock.steps * shape.weight_bytes + during * shape.kv_column,
    }


def _looked_at(start: int, end: int) -> int:
    """Columns that the tokens at these positions look at: each one those up to its own."""
    return (end * (end + 1) - start * (start + 1)) // 2


def _shares(
    seconds: Mapping[str, float], clock: Clock, inside: Mapping[str, float]
) -> dict[str, float]:
    """Of the call's whole time; what is left over is "rest"."""
    names = ("load", "directions", "replay", "internals", "write")
    parts = {name: seconds[name] for name in names}
    parts |= {"prefill": clock.prefill, "preparing": clock.preparing, **inside}
    parts["decode"] = max(0.0, clock.decode - sum(inside.values()))
    engine = clock.prefill + clock.preparing + clock.decode
    parts["between"] = max(0.0, seconds.get("generate", 0.0) - engine)
    total = max(seconds["total"], sum(parts.values()), 1e-9)
    shares = {name: value / total for name, value in parts.items()}
    return shares | {"rest": max(0.0, 1 - sum(shares.values()))}


# --- probes --------------------------------------------------------------------------------------


def limits(device: torch.device, dtype: torch.dtype) -> Limits:
    """A third of a second, about.

    Products are in the dtype that the engine multiplies in, which is another one where a CPU has
    none in the model's.
    """
    if device.type == "cpu" and not has_products(dtype):
        dtype = torch.float32
    return Limits(_product(device, dtype), _reading(device))


@torch.inference_mode()
def _product(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of a square product, large enough to be worth it."""
    size, took = 1024, 0.0
    while True:
        # without a generator: after a recording that failed an older CUDA's gives no numbers
        drawn = torch.arange(size * size, dtype=torch.float32, device=device).sin_()
        a, b = (drawn.view(size, size).to(dtype, copy=True) for _ in range(2))
        took = _best(partial(torch.matmul, a, b), device)
        if took > _PRODUCT or size >= 8192:
            return float(2 * size**3 / took)
        size *= 2


@torch.inference_mode()
def _reading(device: torch.device) -> float:
    """Bytes a second, of memory that is read once."""
    size = _READ if device.type == "cpu" else _READ_AWAY
    block = torch.ones(size // 4, device=device)
    return size / _best(block.sum, device)


@torch.inference_mode()
def _taps(model: Model, direction_SDK: Float32, rows: int) -> float:
    """Seconds of one step's projections, for states of the run's shape."""
    device = model.device
    scores = Scores(torch.from_numpy(direction_SDK).to(device))
    numbers = Numbers(scores, rows)
    sites, width, traits = direction_SDK.shape
    steps = block_steps(rows, 1 + sites * max(width, traits), numbers.at_once)
    states = [torch.randn(rows, 1, width, device=device).to(model.dtype) for _ in model.sites]

    def step() -> Tensor:
        scores.start()
        for site, h_BTD in enumerate(states):
            scores.take(site, h_BTD)
        return numbers.of_step(torch.zeros(rows, device=device))

    return _best(lambda: numbers.finish(torch.cat([step() for _ in range(steps)])), device) / steps


@torch.inference_mode()
def _sampling(model: Model, shape: Shape, config: GenerationConfig, rows: int) -> float:
    """Seconds of drawing one step's tokens from logits like a model's."""
    device = model.device
    logits_BV = 4 * torch.randn(rows, shape.vocabulary, device=device)
    key_B = torch.arange(rows, device=device)
    ask = device.type != "mps"  # as its steps do
    return _best(lambda: pick(logits_BV, key_B, key_B + 9, config, ask), device)


def _best(work: Callable[[], Tensor | object], device: torch.device) -> float:
    """The shortest of a few times, fewer where one takes long."""
    times: list[float] = []
    while len(times) <= _REPEATS and sum(times) < _PATIENCE:
        _wait(device)
        began = time.perf_counter()
        work()
        _wait(device)
        times.append(time.perf_counter() - began)
    return max(min(times), 1e-9)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
