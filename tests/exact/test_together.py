"""States of several steps that are projected together give the numbers of each step by itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.exact.reference import NUCLEUS, assert_same, directions, model, requests
from tests.tiny import hf_model, tokenizer
from traitscope.core import Trace
from traitscope.engine import Batching, generate, numbers, outbox
from traitscope.models import Model, Scores

LENGTHS, NEW_TOKENS = (3, 1, 44, 9, 1, 17), (9, 6, 24, 1, 12, 27)
MANY = Scores.FEW_TRAITS + 6


def made(subject: Model, traits: int) -> list[Trace]:
    texts, direction_SDK = requests(LENGTHS, NEW_TOKENS), directions(subject, traits)
    keep = (0, len(subject.sites) - 1)
    traces = generate(subject, texts, direction_SDK, NUCLEUS, Batching(3, join=2), keep=keep)
    return sorted(traces, key=lambda trace: trace.generation)


def apart(subject: Model, traits: int, monkeypatch: pytest.MonkeyPatch) -> list[Trace]:
    """Each step's scores made in it."""
    with monkeypatch.context() as patched:
        patched.setattr(numbers, "TOGETHER", 0)
        patched.setattr(Scores, "project", None)
        return made(subject, traits)


@pytest.mark.parametrize("traits", [0, 2, MANY])
@pytest.mark.parametrize("name", ["gemma2", "falcon", "gpt2"])
def test_together_is_apart(name: str, traits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = model(name)
    by_step = apart(subject, traits, monkeypatch)
    for trace, plain in zip(made(subject, traits), by_step, strict=True):
        assert_same(subject, trace, plain, NUCLEUS)
        np.testing.assert_array_equal(trace.kept, plain.kept)


def test_states_of_narrow_dtypes_are_projected_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = Model.wrap(hf_model("gemma2").to(torch.bfloat16), tokenizer(), name="narrow")
    by_step = apart(subject, 2, monkeypatch)
    for trace, plain in zip(made(subject, 2), by_step, strict=True):
        assert trace.token_ids.tolist() == plain.token_ids.tolist()
        np.testing.assert_allclose(trace.norm, plain.norm, rtol=1e-5)
        assert (np.abs(trace.score - plain.score) <= 1e-5 * plain.norm[..., None]).all()


def test_directions_are_read_once_for_several_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = list[int]()
    real = Scores.project

    def project(self: Scores, h_NSD: Any, score_NSK: Any) -> None:
        counted.append(len(h_NSD))
        real(self, h_NSD, score_NSK)

    monkeypatch.setattr(Scores, "project", project)
    subject = model("gemma2")
    texts = requests((5, 5, 5), (40, 40, 40))
    list(generate(subject, texts, directions(subject, MANY), NUCLEUS, Batching(3)))
    assert len(counted) <= sum(counted) / 3 / 4  # texts that end ask for what there is
    assert max(counted) <= numbers.TOGETHER


def test_what_waits_on_the_device_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    subject, most = model("gemma2"), list[int]()
    wanted = made(subject, 2)
    monkeypatch.setattr(outbox, "BYTES", 2 * 3 * 4 * len(subject.sites) * subject.anatomy.d_model)
    real = outbox.Outbox._send

    def send(self: outbox.Outbox) -> None:
        most.append(len(self._open.steps))
        real(self)

    monkeypatch.setattr(outbox.Outbox, "_send", send)
    for trace, plain in zip(made(subject, 2), wanted, strict=True):
        assert_same(subject, trace, plain, NUCLEUS)
    assert max(most) == 1  # two of them would be a little more than that


def test_large_batches_are_projected_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numbers, "TOGETHER", 5)
    monkeypatch.setattr(Scores, "project", None)
    made(model("gemma2"), 2)  # three rows: no two steps of them fit
