"""A loaded model's sizes and speed, read off its own tensors and measured on this machine.

`shape_of` counts what the arithmetic of `sizing.py` needs; `time_steps` runs the engine itself for
a few steps.  Speaks in bytes, floating-point operations and seconds.  This module does not know
suites or runs.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import DynamicCache

from traitscope.core import Float32, Generation, GenerationConfig
from traitscope.engine import Batching, Clock, Request, forward_tokens, generate
from traitscope.engine.plan import COLUMNS
from traitscope.models import Model
from traitscope.sizing import DEFAULT_ROWS, Shape, StepTimes

__all__ = ["Timed", "any_directions", "endless", "shape_of", "step_times", "time_steps"]

_EXPERT = re.compile(r"(^|\.)experts(\.|$)")
# how configs call the number of experts that a token visits
_ACTIVE = ("num_experts_per_tok", "num_experts_per_token", "moe_k", "moe_topk", "top_k_experts")
_STEPS = 4


# --- sizes ---------------------------------------------------------------------------------------


def shape_of(model: Model) -> Shape:
    """Of the model's own parameters, and of the keys and values that a forward leaves."""
    anatomy = model.anatomy
    keys = list(_cached(model))
    head: Any = anatomy.head.weight
    weights = list(_weights(model))
    head_size = int(head.numel())
    away = model.device.type != "cpu"  # slots and a step's tensors are taken whole there
    by_head = anatomy.config._attn_implementation == "eager" and away
    head_column = max((k.element_size() * (k.shape[3] + v.shape[3]) for k, v in keys), default=0)
    return Shape(
        n_sites=len(model.sites),
        d_model=anatomy.d_model,
        vocabulary=int(head.shape[0]),
        itemsize=model.dtype.itemsize,
        kv_column=sum(k.element_size() * k.shape[1] * (k.shape[3] + v.shape[3]) for k, v in keys),
        token_flops=sum(2 * weight.used for weight in weights if weight.product),
        head_flops=2 * head_size,
        column_flops=sum(2 * anatomy.n_heads * (k.shape[3] + v.shape[3]) for k, v in keys),
        weight_bytes=sum(w.used_bytes for w in weights) + head_size * head.element_size(),
        widest=max(weight.widest for weight in weights),
        forward_tokens=forward_tokens(model),
        # int64 noise beside float32 weights, once in the recordings' memory and once beside it
        logits=20 if away else 4,
        bucket=COLUMNS if away else 1,
        repeated_column=anatomy.n_heads * head_column if by_head else 0,
    )


@dataclass(frozen=True)
class _Weight:
    """One parameter as a token meets it: how many numbers it uses, and whether in a product."""

    used: int
    used_bytes: int
    product: bool
    widest: int


def _weights(model: Model) -> Iterator[_Weight]:
    """All but the embeddings, which are looked up."""
    seen: set[int] = set()
    active = _active(model.anatomy.config)
    for path, module in model.anatomy.stack.named_modules():
        if isinstance(module, nn.Embedding):
            continue
        n_listed = _listed(model.anatomy.stack, path)
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) in seen:
                continue
            seen.add(id(parameter))
            is_expert = _EXPERT.search(path) is not None
            n_experts = n_listed or (int(parameter.shape[0]) if is_expert else 1)
            share = min(1.0, active / n_experts) if is_expert else 1.0
            size = _size(module, name, parameter)
            yield _Weight(
                used=round(size * share),
                used_bytes=round(parameter.numel() * parameter.element_size() * share),
                product=parameter.dim() >= 2 and "bias" not in name,
                widest=max(parameter.shape[-2:]) if parameter.dim() >= 2 else 0,
            )


def _size(module: nn.Module, name: str, parameter: nn.Parameter) -> int:
    """The numbers of a weight; of a packed one those that it stands for."""
    if name == "weight" and isinstance(module, nn.Linear):
        return module.in_features * module.out_features
    return int(parameter.numel())


def _listed(stack: nn.Module, path: str) -> int:
    """How many experts there are, where each is a module of its own; else 0."""
    parts = path.split(".")
    for i, part in enumerate(parts[:-1]):
        if part == "experts" and parts[i + 1].isdecimal():
            return len(stack.get_submodule(".".join(parts[: i + 1])))  # type: ignore[arg-type]
    return 0


def _active(config: Any) -> int:
    found = (getattr(config, name, None) for name in _ACTIVE)
    return next((int(count) for count in found if count), 1)


@torch.inference_mode()
def _cached(model: Model) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Keys and values [1, H, T, dh] of each block that keeps its own, after one short forward."""
    cache = DynamicCache()
    id_1T = torch.zeros(1, 2, dtype=torch.int64, device=model.device)
    model.anatomy.stack(input_ids=id_1T, past_key_values=cache, use_cache=True)
    for layer in cache.layers:
        if getattr(layer, "keys", None) is not None:
            yield layer.keys, layer.values


# --- speed ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Timed:
    """Some texts begun together: seconds of their prefill, and of one step of them all.

    `fed` of the prompts' tokens went through the model (the last ones are left to the steps, and
    a text may take over another's beginning); `columns` were in use on average.
    """

    rows: int
    fed: int
    columns: float
    prefill: float
    step: float
    preparing: float = 0.0  # of steps that are recorded; so many shapes of them
    shapes: int = 0


def any_directions(model: Model, n_traits: int) -> Float32:
    """Unit directions of no meaning: what they are does not change the time."""
    shape = (len(model.sites), model.anatomy.d_model, n_traits)
    drawn = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True), dtype=np.float32)


def endless(model: Model) -> Model:
    """The same model, whose texts end by their length alone: steps then have all their rows."""
    twin = replace(model)
    vars(twin)["end_ids"] = frozenset()  # where the cached property keeps its value
    return twin


def time_steps(
    model: Model,
    prompts: Sequence[Sequence[int]],
    direction_SDK: Float32,
    config: GenerationConfig,
    keep: Sequence[int] = (),
    steps: int = _STEPS,
) -> Timed:
    """Prefill these prompts together and make `steps` steps; the first one is left out."""
    room = max(1, model.context - steps)
    prompts = [ids[:room] for ids in prompts]
    requests = [
        Request(Generation(f"{i:016x}"), tuple(ids), steps) for i, ids in enumerate(prompts)
    ]
    clock, seconds = Clock(), list[float]()

    def on_step(now: Clock) -> None:
        seconds.append(now.decode)

    batching = Batching(len(prompts))
    texts = generate(
        endless(model), requests, direction_SDK, config, batching, clock, on_step, keep
    )
    for _ in texts:
        pass
    apart = [after - before for before, after in pairwise(seconds)]
    return Timed(
        rows=len(prompts),
        fed=clock.tokens - (steps + 1) * len(prompts),
        columns=max(map(len, prompts)) + steps / 2,
        prefill=clock.prefill,
        step=statistics.fmean(apart[: steps - 1] or seconds),
        preparing=clock.preparing,
        shapes=clock.shapes,
    )


def step_times(
    model: Model,
    prompts: Sequence[Sequence[int]],
    direction_SDK: Float32,
    config: GenerationConfig,
    keep: Sequence[int] = (),
) -> StepTimes:
    """A step of one row and one of `DEFAULT_ROWS`, on the first tokens of real prompts."""
    short = [tuple(ids)[:8] for ids in prompts]
    many = [short[i % len(short)] for i in range(DEFAULT_ROWS)]
    few = time_steps(model, many[:1], direction_SDK, config, keep)
    lots = time_steps(model, many, direction_SDK, config, keep)
    return StepTimes(few.rows, few.step, lots.rows, lots.step)
