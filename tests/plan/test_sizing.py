"""Sizes against the real thing: cache tensors, counted products; and how many texts go at once."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests import tiny
from traitscope import sizing
from traitscope.core import Generation, GenerationConfig
from traitscope.engine import Batching, Clock, Request, generate, logprob
from traitscope.engine.internals import eager
from traitscope.engine.slots import Slots
from traitscope.gauge import endless, shape_of, step_times, time_steps
from traitscope.models import Model
from traitscope.sizing import DEFAULT_ROWS, Shape, Sizing, StepTimes, choose_rows

TOKENS = 6
# products that are not with weights: rotary angles by einsum, values that are read twice
NEARLY = {"deepseek_v2": 0.005, "deepseek_v3": 0.005, "glm4_moe_lite": 0.005, "diffllama": 0.03}
# its code runs every expert on every token; we count those that a token needs
DENSE_EXPERTS = {"llama4_text"}


def nothing(model: Model) -> np.ndarray:
    return np.zeros((len(model.sites), model.anatomy.d_model, 1), dtype=np.float32)


@pytest.mark.parametrize("model_type", sorted(set(tiny.EXTRA) - DENSE_EXPERTS))
def test_flops_are_those_that_torch_counts(model_type: str) -> None:
    model = tiny.model(model_type)
    if hasattr(model.hf, "set_experts_implementation"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # not every model has several
            model.hf.set_experts_implementation("eager")
    ids = torch.arange(TOKENS)[None]
    # fused attention is not counted by torch
    with (
        FlopCounterMode(display=False) as counted,
        torch.inference_mode(),
        eager(model.anatomy.config),
    ):
        model.anatomy.head(model.anatomy.stack(input_ids=ids, use_cache=False)[0])
    ours = shape_of(model).flops(TOKENS, TOKENS, TOKENS * TOKENS)
    assert ours == pytest.approx(counted.get_total_flops(), rel=NEARLY.get(model_type, 0))


@pytest.mark.parametrize("model_type", ["llama", "gemma2", "gpt2", "falcon", "deepseek_v3"])
def test_a_column_of_the_cache_is_what_the_slots_hold(model_type: str) -> None:
    model = tiny.model(model_type)
    slots = Slots(len(model.anatomy.blocks), 3, 16, model.device)
    slots.prefill(0, 1, 0, 4)
    with torch.inference_mode():
        model.anatomy.stack(
            input_ids=torch.arange(4)[None],
            position_ids=torch.arange(4)[None],
            past_key_values=slots,
            use_cache=True,
        )
    held = sum(
        store.numel() * store.element_size()
        for layer in slots.layers
        for store in (layer.keys, layer.values)
    )
    assert shape_of(model).kv_column * 3 * 16 == held


def test_a_step_reads_every_weight_but_the_embedding() -> None:
    hf = tiny.hf_model("llama", tie_word_embeddings=False)
    model = Model.wrap(hf, tiny.tokenizer())
    embedding = hf.get_input_embeddings().weight.numel()
    every = sum(parameter.numel() for parameter in hf.parameters())
    assert shape_of(model).weight_bytes == 4 * (every - embedding)
    tied = tiny.model("llama", tie_word_embeddings=True)  # the head's weight is read all the same
    assert shape_of(tied).weight_bytes == shape_of(model).weight_bytes


def test_of_experts_only_those_that_a_token_visits() -> None:
    some, more = (shape_of(tiny.model("mixtral", num_experts_per_tok=k)) for k in (1, 2))
    expert = 3 * 48 * 80 * 3  # three products of an expert, in three blocks
    assert more.token_flops - some.token_flops == 2 * expert
    assert more.weight_bytes - some.weight_bytes == 4 * expert


def test_in_half_the_bytes_a_row_needs_half_the_cache() -> None:
    hf = tiny.hf_model("llama")
    wide = shape_of(Model.wrap(hf, tiny.tokenizer()))
    narrow = shape_of(Model.wrap(hf.bfloat16(), tiny.tokenizer()))
    assert narrow.kv_column * 2 == wide.kv_column
    assert narrow.token_flops == wide.token_flops


# --- rows ----------------------------------------------------------------------------------------

SHAPE = Shape(
    n_sites=5,
    d_model=8,
    vocabulary=10,
    itemsize=4,
    kv_column=64,
    token_flops=0,
    head_flops=0,
    column_flops=0,
    weight_bytes=0,
    widest=32,
    forward_tokens=1000,
)


def test_bytes_of_a_row() -> None:
    assert SHAPE.numbers_bytes(2) == 4 * (1 + 5 * 3)
    assert SHAPE.numbers_bytes(2, n_kept=1) == 4 * (1 + 5 * 3 + 8)
    assert SHAPE.row_bytes(100, 2) == 100 * (64 + 64 + 4) + 16 * 10
    assert SHAPE.working_bytes() == 1000 * (3 * 32 + 4 * 8) * 4 + 16 * 512 * 10


def test_a_row_on_a_device_that_takes_memory_at_once() -> None:
    away = replace(SHAPE, logits=20, bucket=128, repeated_column=96)
    assert away.row_bytes(130, 2) == 256 * (64 + 96 + 4) + 130 * 64 + 80 * 10


def test_rows_where_steps_cost_little_more_with_more_rows() -> None:
    # 10.5 ms and 1 ms a row: at 42 rows a fifth of a step is shared
    times = StepTimes(1, 0.0115, 24, 0.0345)
    assert times.shared == pytest.approx(0.0105)
    assert times.a_row == pytest.approx(0.001)
    assert choose_rows(1000, 1, 0, None, times) == Sizing(48, "speed", times)
    assert choose_rows(30, 1, 0, None, times) == Sizing(30, "texts", times)
    assert choose_rows(20, 1, 0, None, None) == Sizing(DEFAULT_ROWS, "default")


def test_rows_have_an_end_where_they_cost_nothing() -> None:
    assert choose_rows(9999, 1, 0, None, StepTimes(1, 0.02, 24, 0.02)).rows == 512
    assert choose_rows(9999, 1, 0, None, StepTimes(1, 0.02, 24, 0.01)).rows == 512  # noise


def test_memory_has_the_last_word() -> None:
    times = StepTimes(1, 0.02, 24, 0.02)
    assert choose_rows(999, 100, 500, 10_000, times) == Sizing(75, "memory", times)
    assert choose_rows(3, 1000, 0, 5000, None) == Sizing(4, "memory")
    assert choose_rows(3, 1000, 9999, 5000, None).rows == 1  # an out-of-memory is handled there


def test_steps_are_timed_on_full_batches_whatever_the_model_says() -> None:
    model = tiny.model("llama")
    ended = set(range(tiny.VOCAB))
    vars(model)["end_ids"] = frozenset(ended)  # each token ends its text
    times = step_times(model, [[1, 2, 3], [4, 5]], nothing(model), GenerationConfig())
    assert (times.few, times.many) == (1, DEFAULT_ROWS)
    assert times.seconds_few > 0
    assert times.seconds_many > 0
    clock = Clock()
    request = Request(Generation("a"), (1, 2), 5)
    list(
        generate(endless(model), [request], nothing(model), GenerationConfig(), Batching(1), clock)
    )
    assert clock.new_tokens == 5
    assert model.end_ids == ended


def test_steps_are_timed_within_the_context() -> None:
    model = tiny.model(
        "gpt2", n_positions=32, max_position_embeddings=32
    )  # positions beyond would be an error
    found = time_steps(model, [list(range(40)), [1, 2]], nothing(model), GenerationConfig())
    assert found.fed == 27 + 1


def test_the_logits_of_a_prefills_pieces_are_counted() -> None:
    assert logprob.AWAY <= sizing._HEAD_TOKENS
