"""The loop on a device apart from the host: no tensor of one is used on the other, and a step asks
nothing of the host, so that a GPU can record it.

`tests/far.py` is that device; what a GPU's own kernels do is not seen here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from tests.exact.reference import (
    END_IDS,
    GREEDY,
    NUCLEUS,
    VARIANTS,
    assert_same,
    directions,
    model,
    requests,
)
from tests.far import Log, far_away, moved
from tests.tiny import hf_model, tokenizer
from traitscope.core import GenerationConfig, Trace
from traitscope.engine import Batching, Clock, decode, generate, mean_states, score_texts
from traitscope.engine import step as steps
from traitscope.engine.outbox import STEPS
from traitscope.engine.step import BucketedStep, Made
from traitscope.models import Model

# a nucleus beyond the first candidates
WIDE = GenerationConfig(temperature=1.3, top_p=0.97, seed=3)
FREE = GenerationConfig(temperature=1.0, seed=3)
# whose code indexes with lists in every step: each goes to the device anew, and this one has no
# kernel for them
LISTS = ("falcon", "falcon grouped", "falcon sequential")
SENDS = "phimoe"  # a copy, in every step
# one of each way to attend, to gate and to place; the others take minutes together
OFTEN = ("gemma2", "gpt2", "gpt_oss", "llama", "deepseek_v3", "qwen3_moe")
EVERY = [
    name if name in OFTEN else pytest.param(name, marks=pytest.mark.slow)
    for name in VARIANTS
    if name not in (*LISTS, SENDS)
]
LENGTHS, NEW_TOKENS = (3, 1, 44), (7, 6, 3)


class Recorder:
    """Stands in for a CUDA graph: what a step asked of the host when it was recorded."""

    def __init__(self, log: Log) -> None:
        self.log, self.reads, self.sends = log, Counter[str](), Counter[str]()
        self.shapes = 0

    def __call__(self, compute: Callable[[], Made]) -> Callable[[], Made]:
        reads, sends = self.log.reads.copy(), self.log.sends.copy()
        compute()
        self.reads += self.log.reads - reads
        self.sends += self.log.sends - sends
        self.shapes += 1
        return compute


@pytest.fixture
def log() -> Iterator[Log]:
    with far_away() as log:
        yield log


def far_model(name: str) -> Model:
    model_type, changes = VARIANTS[name]
    hf = hf_model(model_type, **changes)
    hf.generation_config.eos_token_id = list(END_IDS)
    made = Model.wrap(hf, tokenizer(), name=name)
    moved(made.hf)
    assert made.device.type == "far"
    return made


def by_name(traces: Iterable[Trace]) -> list[Trace]:
    return sorted(traces, key=lambda trace: trace.generation)


@pytest.mark.parametrize("name", EVERY)
def test_a_step_asks_nothing_of_the_host(
    name: str, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder, rows = Recorder(log), set[int]()
    monkeypatch.setattr(steps, "CudaGraphs", lambda device: recorder)
    monkeypatch.setattr(steps, "FEWEST", 1)
    real = BucketedStep._make

    def make(self: BucketedStep, n: int, columns: int) -> Made:
        rows.add(n)
        return real(self, n, columns)

    monkeypatch.setattr(BucketedStep, "_make", make)
    subject, clock = far_model(name), Clock()
    direction_SDK = directions(subject)
    batching = Batching(2, steps="recorded")
    texts = requests(LENGTHS, NEW_TOKENS)
    made = by_name(generate(subject, texts, direction_SDK, NUCLEUS, batching, clock))
    assert (recorder.reads, recorder.sends) == (Counter(), Counter())
    assert recorder.shapes == len(rows)  # two, and one where the texts do not end together
    assert 2 in rows
    assert clock.plain_steps == ""
    wanted = by_name(generate(model(name), texts, direction_SDK, NUCLEUS, Batching(2)))
    for trace, plain in zip(made, wanted, strict=True):
        assert_same(model(name), trace, plain, NUCLEUS)


@pytest.mark.parametrize("name", ["gemma2", "llama"])
def test_a_step_has_fewer_calls(name: str, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is a launch there.  What torch fuses on a GPU is counted in its parts: a norm is six."""
    counts = list[int]()

    def record(compute: Callable[[], Made]) -> Callable[[], Made]:
        before = log.calls
        compute()
        counts.append(log.calls - before)
        return compute

    monkeypatch.setattr(steps, "CudaGraphs", lambda device: record)
    subject = far_model(name)
    texts, direction_SDK = requests((5, 5), (4, 4)), directions(subject)

    def step() -> int:
        counts.clear()
        list(generate(subject, texts, direction_SDK, GREEDY, Batching(2, steps="recorded")))
        (count,) = counts
        return count

    fewer = step()
    monkeypatch.setattr(decode, "lean", lambda model: nullcontext())
    per_block = (step() - fewer) / len(subject.anatomy.blocks)
    assert per_block >= {"gemma2": 20, "llama": 7}[name]


@pytest.mark.parametrize("config", [GREEDY, WIDE, FREE])
def test_no_way_of_sampling_asks(
    config: GenerationConfig, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(log)
    monkeypatch.setattr(steps, "CudaGraphs", lambda device: recorder)
    subject = far_model("gemma2")
    texts, batching = requests(LENGTHS, NEW_TOKENS), Batching(2, steps="recorded")
    list(generate(subject, texts, directions(subject), config, batching, keep=[2]))
    assert (recorder.reads, recorder.sends) == (Counter(), Counter())


@pytest.mark.parametrize("name", ["llama", "qwen3_moe"])
def test_plain_steps_cost_one_copy_of_ids(name: str, log: Log) -> None:
    """And the numbers one a block of steps, and one a prefill."""
    subject, clock = far_model(name), Clock()
    wanted = requests((5, 5, 5, 5), (40, 40, 40, 40))
    batching = Batching(4, steps="plain")
    list(generate(subject, wanted, directions(subject), GREEDY, batching, clock))
    blocks = -(-clock.steps // STEPS) + 4  # a text that has ended sends what is there
    assert log.reads.total() <= clock.steps + blocks + clock.batches
    assert set(log.reads) == {"a copy"}


def test_replays_and_means_stay_on_their_device(log: Log) -> None:
    """Their reads: the numbers, the log probabilities and the kept states of each forward."""
    subject, near = far_model("gemma2"), model("gemma2")
    texts = [request.token_ids for request in requests((9, 30, 4), (1, 1, 1))]
    direction_SDK = directions(subject)
    made = list(score_texts(subject, texts, direction_SDK, logprobs=True, keep=(1, 3)))
    forwards = 1 + max(text.batch for text in made)
    # scores, norms, kept states, log probabilities; two masks look for packed texts
    assert log.reads == {"a copy": 4 * forwards, "a value was read": 2 * forwards}
    wanted = list(score_texts(near, texts, direction_SDK, logprobs=True, keep=(1, 3)))
    for text, plain in zip(made, wanted, strict=True):
        np.testing.assert_allclose(text.score, plain.score, atol=1e-4)
        np.testing.assert_allclose(text.kept, plain.kept, atol=1e-4)
        np.testing.assert_allclose(text.logprob, plain.logprob, atol=1e-4)
    chosen = [np.arange(len(text)) > 1 for text in texts]
    np.testing.assert_allclose(
        mean_states(subject, texts, chosen), mean_states(near, texts, chosen), atol=1e-4
    )


def test_a_tensor_of_the_host_is_refused(log: Log) -> None:
    """The device itself is one: else the tests above would say nothing."""
    here, there = torch.ones(3), torch.ones(3, device=far_model("llama").device)
    with pytest.raises(RuntimeError, match="two devices"):
        here + there
    assert float((there + there).sum()) == 6
    assert log.reads == Counter({"a value was read": 1})
    there[torch.tensor([0])]
    assert log.sends == Counter({"an index": 1})


def test_who_asks_is_noticed(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(log)
    monkeypatch.setattr(steps, "CudaGraphs", lambda device: recorder)
    subject = far_model(SENDS)
    batching = Batching(2, steps="recorded")
    list(generate(subject, requests(LENGTHS, NEW_TOKENS), directions(subject), GREEDY, batching))
    assert set(recorder.sends) == {"a copy"}
