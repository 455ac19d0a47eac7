"""A forward computes what the model's dtype says, whatever the process around it has set."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.exact.cheaper import fresh, touched, traces
from tests.exact.reference import NUCLEUS, directions, requests
from traitscope.engine import Batching, generate, replay
from traitscope.engine import undisturbed as module
from traitscope.errors import InputError
from traitscope.machine import machine


@pytest.mark.parametrize("first", [0, 1])
def test_products_in_float32_are_of_float32(first: int) -> None:
    """Whatever the process has allowed, which is allowed again when the last one is done."""
    subject = fresh("llama")
    places = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)
    before = [place.fp32_precision for place in places]

    def texts() -> Any:
        wanted = requests((5, 3), (4, 9))
        return generate(subject, wanted, directions(subject), NUCLEUS, Batching(2))

    def now() -> list[str]:
        return [place.fp32_precision for place in places]

    try:
        torch.backends.cuda.matmul.fp32_precision = "tf32"
        torch.backends.mkldnn.matmul.fp32_precision = "bf16"
        assert machine()["float32_matmul"] == "CUDA tf32, CPU bf16"
        open_ones = [texts(), texts()]
        for one in open_ones:
            next(one)
            assert now() == ["ieee", "ieee"]
        open_ones[first].close()
        assert now() == ["ieee", "ieee"]
        open_ones[1 - first].close()
        assert now() == ["tf32", "bf16"]
        list(replay.score_texts(subject, [[1, 2, 3]], directions(subject)))
        assert now() == ["tf32", "bf16"]
    finally:
        for place, value in zip(places, before, strict=True):
            place.fp32_precision = value


def test_dropout_is_off_whoever_trains_meanwhile() -> None:
    subject = fresh("gpt2", attn_pdrop=0.5, resid_pdrop=0.5, embd_pdrop=0.5)
    wanted = traces(subject)
    subject.hf.train()
    subject.anatomy.blocks[1].module.eval()
    before = [module.training for module in subject.hf.modules()]
    for generation, trace in traces(subject).items():
        np.testing.assert_array_equal(trace.score, wanted[generation].score)
    assert [module.training for module in subject.hf.modules()] == before


@pytest.mark.parametrize("first", [0, 1])
def test_dropout_is_off_until_the_last_one_ends(first: int) -> None:
    subject = fresh("gpt2", attn_pdrop=0.5)
    subject.hf.train()
    wanted = requests((5, 3), (4, 9))
    both = [generate(subject, wanted, directions(subject), NUCLEUS, Batching(2)) for _ in range(2)]
    for one in both:
        next(one)
    both[first].close()
    assert not any(module.training for module in subject.hf.modules())
    both[1 - first].close()
    assert all(module.training for module in subject.hf.modules())


@pytest.mark.parametrize("narrow", [torch.bfloat16, torch.float64])
def test_another_default_dtype_is_refused(narrow: torch.dtype) -> None:
    subject = fresh("llama")
    torch.set_default_dtype(narrow)
    try:
        with pytest.raises(InputError, match=rf"to be float32, got {narrow}\. Set it back"):
            traces(subject)
        with pytest.raises(InputError, match="default dtype"):
            list(replay.score_texts(subject, [[1, 2]], np.zeros((7, 64, 1), dtype=np.float32)))
    finally:
        torch.set_default_dtype(torch.float32)
    assert touched(subject) == []


def test_autocast_is_refused() -> None:
    subject = fresh("llama")
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(InputError, match="Leave it before"):
        traces(subject)


@pytest.mark.parametrize("first", [0, 1])
def test_attention_that_plans_for_every_shape_is_off(first: int) -> None:
    """On CUDA; what is switched is there without it."""
    asked = torch.backends.cuda.cudnn_sdp_enabled
    before = asked()
    both = [module._any_shape.inside() for _ in range(2)]
    torch.backends.cuda.enable_cudnn_sdp(True)
    try:
        for one in both:
            one.__enter__()
        both[first].__exit__(None, None, None)
        assert not asked()
        both[1 - first].__exit__(None, None, None)
        assert asked()
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)
