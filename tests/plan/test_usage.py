"""What a call used of the machine: work that the texts needed, shares, and the words for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tests import tiny
from traitscope import usage as module
from traitscope.core import Generation, GenerationConfig
from traitscope.engine import Batching, Clock, Request, generate, packing
from traitscope.engine.internals import eager
from traitscope.gauge import endless, shape_of
from traitscope.report.usage import bottleneck, usage_lines
from traitscope.usage import Limits, limits, used, work_of

SECONDS = {"load": 2.0, "directions": 0.0, "replay": 0.5, "internals": 1.0, "write": 1.0}
SECONDS |= {"generate": 5.2, "total": 10.0}


@pytest.mark.parametrize("logprobs", [True, False])
def test_work_is_what_torch_counts(logprobs: bool) -> None:
    """One text alone, whose steps look at no more columns than it has."""
    model = endless(tiny.model("gpt2"))
    nothing = np.zeros((len(model.sites), model.anatomy.d_model, 0), dtype=np.float32)
    request = Request(Generation("a" * 16), tuple(range(9)), 6)
    clock = Clock()
    config = GenerationConfig(temperature=0.0, prompt_logprobs=logprobs)
    with FlopCounterMode(display=False) as counted, eager(model.anatomy.config):
        list(generate(model, [request], nothing, config, Batching(1), clock))
    shape = shape_of(model)
    done = work_of(shape, [(9, 15)], clock, prompt_logprobs=logprobs)
    # a prefill of 8 tokens computes all 8 x 8 places, of which 36 are looked at; and the engine
    # may look at more columns than a text has
    assert done["prefill_tokens"] == 8
    assert done["prefill_flops"] == shape.flops(8, 8 if logprobs else 0, 36)
    assert done["decode_flops"] == shape.flops(7, 7, sum(range(9, 16)))
    ours = done["prefill_flops"] + done["decode_flops"]
    assert 0.8 < ours / counted.get_total_flops() <= 1.0
    assert done["decode_bytes"] == 7 * shape.weight_bytes + sum(range(9, 16)) * shape.kv_column


def test_what_texts_take_over_is_no_work() -> None:
    shape = shape_of(tiny.model("llama"))
    whole = work_of(shape, [(9, 12), (9, 12)], Clock(tokens=16 + 8, steps=4))
    half = work_of(shape, [(9, 12), (9, 12)], Clock(tokens=8 + 8, steps=4))
    assert (whole["prefill_tokens"], half["prefill_tokens"]) == (16, 8)
    assert half["prefill_flops"] < whole["prefill_flops"]
    assert half["decode_flops"] == whole["decode_flops"]


def test_the_machines_own_figures_are_those_of_this_machine() -> None:
    found = limits(torch.device("cpu"), torch.float32)
    assert 1e8 < found.flops < 1e14
    assert 1e7 < found.bandwidth < 1e13


def test_shares_add_up_and_a_short_call_is_not_probed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.model("llama")
    direction = np.zeros((len(model.sites), model.anatomy.d_model, 2), dtype=np.float32)
    monkeypatch.setattr(module, "limits", lambda *_: Limits(1e9, 1e9))
    config, texts = GenerationConfig(), [(5, 9)] * 4
    long = Clock(prefill=1.0, decode=4.0, steps=5, tokens=36)
    found = used(model, texts, direction, config, long, SECONDS)
    assert sum(found["shares"].values()) == pytest.approx(1)
    assert found["shares"]["load"] == pytest.approx(0.2)
    assert found["shares"]["prefill"] == pytest.approx(0.1)
    assert found["shares"]["between"] == pytest.approx(0.02)
    assert found["shares"]["rest"] == pytest.approx(0.03)
    assert 0 < found["shares"]["taps"] < 0.4
    assert 0 < found["shares"]["sampling"] < 0.4
    inside = sum(found["shares"][name] for name in ("taps", "sampling", "decode"))
    assert inside == pytest.approx(0.4)
    assert found["rows"] == 4
    short = Clock(prefill=0.1, decode=0.2, steps=5, tokens=36)
    found = used(model, texts, direction, config, short, {**SECONDS, "generate": 0.4})
    assert set(found) == {"memory", "shares"}
    assert sum(found["shares"].values()) == pytest.approx(1)
    assert found["shares"]["load"] == pytest.approx(0.2)
    assert found["shares"]["decode"] == pytest.approx(0.02)
    assert 0 < found["memory"]["peak"] < found["memory"]["all"]
    assert found["memory"]["packed"] == 0


@pytest.mark.parametrize("probe", ["limits", "_taps", "_sampling"])
def test_a_probe_that_finds_no_memory_costs_its_figures_alone(
    probe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise RuntimeError("MPS backend out of memory (MPS allocated: 9.06 GiB)")

    model = tiny.model("llama")
    direction = np.zeros((len(model.sites), model.anatomy.d_model, 2), dtype=np.float32)
    monkeypatch.setattr(module, "limits", lambda *_: Limits(1e9, 1e9))
    monkeypatch.setattr(module, probe, full)
    long = Clock(prefill=1.0, decode=4.0, steps=5, tokens=36)
    found = used(model, [(5, 9)] * 4, direction, GenerationConfig(), long, SECONDS)
    assert set(found) == {"memory", "shares"}
    assert found["shares"]["decode"] == pytest.approx(0.4)


def test_what_packed_weights_take_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "LEAST", 1)
    model = tiny.model("llama")
    nothing = np.zeros((len(model.sites), model.anatomy.d_model, 1), dtype=np.float32)
    with packing.packed_weights(model):
        found = used(model, [], nothing, GenerationConfig(), Clock(), SECONDS)
    layers = [m for m in model.hf.modules() if isinstance(m, nn.Linear)]
    assert found["memory"]["packed"] == 4 * sum(layer.weight.numel() for layer in layers)


# --- words ---------------------------------------------------------------------------------------


def usage(
    shares: dict[str, float],
    flops: float = 0.1,
    bandwidth: float = 0.1,
    waited: bool = True,
    prefill: float = 0.6,
) -> dict[str, Any]:
    return {
        "memory": {"peak": 2e9, "all": 16e9},
        "disk": 3_500_000,
        "flops": {"machine": 1e12, "prefill": prefill * 1e12, "decode": flops * 1e12},
        "bandwidth": {"machine": 1e10, "decode": bandwidth * 1e10},
        "rows": 20,
        "waited": waited,
        "shares": shares,
    }


def test_lines_say_what_was_recorded() -> None:
    said = usage_lines(usage({"decode": 0.6, "load": 0.4}), {}, {"total": 10.0}, 24, "float32")
    assert said[:3] == [
        "2.0 GB of 16.0 GB of memory at most, 3.5 MB of disk",
        "of the time: loading 40%, the model's steps 60%",
        "reading prompts reached 600.0 GFLOP/s, steps 100.0 GFLOP/s and 1.0 GB/s; a probe here "
        "1.0 TFLOP/s and 10.0 GB/s",
    ]
    assert usage_lines({}, {}, {}, 24, "float32") == []
    packed = {"memory": {"peak": 2e9, "all": 16e9, "packed": 1.2e9}, "disk": 3_500_000}
    assert list(usage_lines(packed, {}, {}, 24, "float32")) == [
        "2.0 GB of 16.0 GB of memory at most (1.2 GB for weights laid out anew), 3.5 MB of disk"
    ]


def test_a_plan_stands_beside_what_happened() -> None:
    planned = {"seconds": {"total": 12.0}, "memory": 2.1e9, "disk": 3_400_000}
    said = usage_lines(usage({}), planned, {"total": 10.0}, 24, "float32")
    assert said[0] == (
        "planned 12.0 s, took 10.0 s; 2.1 GB of memory, used 2.0 GB of 16.0 GB; 3.4 MB of disk, "
        "used 3.5 MB"
    )
    packed = usage({}) | {"memory": {"peak": 2e9, "all": 16e9, "packed": 1.2e9}}
    said = usage_lines(packed, planned, {"total": 10.0}, 24, "float32")
    assert "used 2.0 GB of 16.0 GB (1.2 GB for weights laid out anew); 3.4 MB" in said[0]
    assert "2.0 GB" not in " ".join(said[1:])
    assert usage_lines(packed, planned, {}, 24, "float32")[0].startswith("2.0 GB of 16.0 GB of")


@pytest.mark.parametrize(("others", "is_said"), [(0.54, True), (0.05, False)])
def test_a_plan_that_was_disturbed_says_so(others: float, is_said: bool) -> None:
    planned = {"seconds": {"total": 12.0}, "memory": 2.1e9, "disk": 3_400_000, "others": others}
    said = usage_lines(usage({}), planned, {"total": 10.0}, 24, "float32")[0]
    assert said.endswith("(planned while other programs took 54% of the machine)") == is_said


@pytest.mark.parametrize(
    ("found", "rows", "dtype", "said"),
    [
        (usage({"load": 0.9}), 24, "float32", "Most of the time (90%) went into loading"),
        (usage({"load": 0.35}), 24, "float32", "The largest part of the time (35%) went into load"),
        (usage({"directions": 0.9}), 24, "float32", "are kept"),
        (usage({"replay": 0.9}), 24, "float32", "reading texts that exist"),
        (usage({"sampling": 0.9}), 24, "float32", "all of that into sampling: top_k"),
        (usage({"between": 0.9}), 24, "float32", "between the steps"),
        (usage({"prefill": 0.9}), 24, "float32", "at 60% of the machine's arithmetic: a narrower"),
        (usage({"prefill": 0.9}, prefill=0.01), 24, "float32", "at 1% of the machine's arithmetic"),
        (usage({"prefill": 0.9}, prefill=0.01), 24, "float32", "work on this machine; more rows w"),
        (usage({"decode": 0.9}), 24, "float32", "more rows would help"),
        (usage({"decode": 0.9}), 96, "float32", "on average 20 of 96 rows were busy"),
        (usage({"decode": 0.9}, waited=False), 24, "float32", "more texts in one run"),
        (usage({"decode": 0.9}, 0.2, 0.8), 24, "float32", "held back by memory (80%"),
        (usage({"decode": 0.9}, 0.9, 0.8), 24, "float32", "a narrower dtype or another device"),
        (usage({"decode": 0.9}, 0.9, 0.8), 24, "bfloat16", "of it): another device would help"),
        (  # a processor without products in bfloat16
            usage({"decode": 0.9}, 0.9, 0.8) | {"narrower": False},
            24,
            "float32",
            "of it): another device would help",
        ),
        (  # each part of generating is smaller than loading
            usage({"load": 0.4, "prefill": 0.2, "decode": 0.25, "taps": 0.05, "sampling": 0.1}),
            24,
            "float32",
            "Most of the time (60%) went into generating, the largest part of that (42%) into st",
        ),
        (  # too short to be probed
            {"shares": {"directions": 0.1, "prefill": 0.2, "decode": 0.7}},
            24,
            "float32",
            "most of that (78%) into the model's steps: what held that back was not measured",
        ),
    ],
)
def test_the_bottleneck_is_one_sentence(
    found: dict[str, Any], rows: int, dtype: str, said: str
) -> None:
    (sentence,) = bottleneck(found, rows, dtype)
    assert said in sentence
    assert sentence.endswith(".")


def test_little_arithmetic_is_not_helped_by_more_of_it() -> None:
    (sentence,) = bottleneck(usage({"prefill": 0.9}, prefill=0.01), 24, "float32")
    assert "dtype" not in sentence
    assert "device" not in sentence


NAMES = ("load", "directions", "replay", "internals", "write", "preparing", "rest", "prefill")
NAMES += ("decode", "taps", "sampling", "between")


@pytest.mark.parametrize("seed", range(60))
def test_the_bottleneck_is_true_of_any_shares(seed: int) -> None:
    drawn = np.random.default_rng(seed)
    shares = dict(zip(NAMES, drawn.dirichlet([0.5] * len(NAMES)).tolist(), strict=True))
    (sentence,) = bottleneck(usage(shares), 24, "float32")
    generating = sum(shares[name] for name in NAMES[7:])
    first = max(generating, *(shares[name] for name in NAMES[:7]))
    most = "Most of" if first > 0.5 else "The largest part of"
    assert sentence.startswith(f"{most} the time ({first:.0%}) went into ")
    assert ("went into generating" in sentence) == (first == generating)
    if first == generating:
        inner = max(shares[name] for name in NAMES[7:]) / generating
        part = "all of that" if inner >= 0.995 else f"of that ({inner:.0%})"
        assert f"{part} into " in sentence
        assert ("most of that" in sentence) == (0.5 < inner < 0.995)


def test_nothing_is_said_where_nothing_was_recorded() -> None:
    assert list(bottleneck({"memory": {"peak": 1, "all": 2}}, 24, "float32")) == []
