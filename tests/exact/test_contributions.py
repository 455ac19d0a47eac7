"""Who wrote a trait, worked out from the internals alone, held against the model's own weights.

The parts of every supported layout add up to the change of the model's own states; and of six
architectures each head and neuron is switched on alone, by modules that the test names itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.exact.reference import directions, model
from tests.exact.test_internals import BLOCK, PARALLEL, SEQUENTIAL, TRAITS, _seen
from traitscope.core import TraitDirections
from traitscope.errors import RunError
from traitscope.runs.contributions import Contributions, attention_of

ALL = (*SEQUENTIAL, *PARALLEL)


def contributions(name: str, trait: int = 1) -> Contributions:
    subject = model(name)
    vectors = directions(subject)[:, :, trait]
    ones = np.ones(len(vectors), dtype=np.float32)
    about = TraitDirections(TRAITS[trait], tuple(subject.sites), vectors, *[ones] * 5)
    return Contributions(_seen(name)[1], about)


def every(written: Contributions) -> Any:
    return np.arange(len(written.inside.tensors["neurons"]))


@pytest.mark.parametrize("name", ALL)
def test_the_parts_add_up_to_the_change_of_the_models_own_states(name: str) -> None:
    """Against the scores of the trajectory, which were taken in the decode loop."""
    written, trace = contributions(name), _seen(name)[0]
    rows, sites = every(written), [site.name for site in model(name).sites]
    accounts = written.accounts(rows)
    assert [a.site for a in accounts] == (
        [f"{BLOCK}.post"] if name in PARALLEL else [f"{BLOCK}.mid", f"{BLOCK}.post"]
    )
    for account in accounts:
        norm = trace.norm[:, sites.index(account.site)]
        own = trace.score[:, sites.index(account.site), 1]
        np.testing.assert_allclose(account.norm, norm, rtol=1e-4)
        assert (np.abs(account.after - own) <= 2e-5 * norm).all()
        assert (np.abs(account.total - account.change) <= 2e-5 * norm).all()
        assert np.abs(account.change).max() > 0.01


@pytest.mark.parametrize("name", ALL)
def test_a_mean_over_tokens_is_the_mean_of_the_tokens(name: str) -> None:
    written = contributions(name)
    rows = np.array([2, 5, 7, 11])
    activation, mean = written.mean_neurons(rows)
    np.testing.assert_allclose(mean, written.neurons(rows).mean(axis=0), atol=1e-9)
    np.testing.assert_allclose(activation, written.inside.tensors["neurons"][rows].mean(0), 1e-4)
    np.testing.assert_allclose(written.neurons(rows).sum(1), written.all_neurons(rows), atol=1e-9)
    look = attention_of(written.inside, rows)
    np.testing.assert_allclose(look.sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_what_a_head_carried_from_each_token_adds_up_to_what_it_wrote(name: str) -> None:
    """Grouped keys and values (Llama 4 heads on 2) or one for all (Falcon): each head its own."""
    written = contributions(name)
    for rows in (np.array([9]), np.array([3, 4, 12])):
        carried = written.carried(rows)
        heads = written.heads(rows).mean(axis=0)
        norm = np.linalg.norm(written.inside.tensors["resid_post"][rows], axis=1).max()
        assert (np.abs(carried.sum(axis=1) - heads) <= 2e-5 * norm).all()
        assert (carried[:, rows.max() + 1 :] == 0).all()


# --- each part alone, through the model's own modules ---------------------------------------------

_Alone = Callable[[Any, Tensor, Tensor], Tensor]


def _plain(linear: str, times: float = 1.0) -> _Alone:
    """What an input of the output projection adds to the stream, without the bias."""

    def alone(block: Any, part: Tensor, whole: Tensor) -> Tensor:
        module = block
        for step in linear.split("."):
            module = getattr(module, step)
        return times * (module(part) - module(torch.zeros_like(part)))

    return alone


def _normed(linear: str, norm: str) -> _Alone:
    """The same through an RMS norm whose scale is that of the whole."""

    def alone(block: Any, part: Tensor, whole: Tensor) -> Tensor:
        raw, all_of_it = _plain(linear)(block, part, whole), _plain(linear)(block, whole, whole)
        module = getattr(block, norm)
        scale = (all_of_it.pow(2).mean(-1, keepdim=True) + module.eps).rsqrt()
        return scale * raw * (1 + module.weight)

    return alone


ALONE: dict[str, tuple[_Alone, _Alone]] = {
    "llama": (_plain("self_attn.o_proj"), _plain("mlp.down_proj")),
    "gemma2": (
        _normed("self_attn.o_proj", "post_attention_layernorm"),
        _normed("mlp.down_proj", "post_feedforward_layernorm"),
    ),
    "granite": (_plain("self_attn.o_proj", 0.3), _plain("mlp.down_proj", 0.3)),
    "gpt2": (_plain("attn.c_proj"), _plain("mlp.c_proj")),
    "falcon": (_plain("self_attention.dense"), _plain("mlp.dense_4h_to_h")),
    "gpt_neox": (_plain("attention.dense"), _plain("mlp.dense_4h_to_h")),
}


@pytest.mark.parametrize("name", ALONE)
def test_each_head_and_neuron_alone(name: str) -> None:
    written = contributions(name)
    subject, t, rows = model(name), written.inside.tensors, every(written)
    if name == "granite":
        assert subject.hf.config.residual_multiplier == 0.3
    decoder = subject.hf.get_decoder()
    block = (decoder.h if hasattr(decoder, "h") else decoder.layers)[BLOCK]
    sites = [site.name for site in subject.sites]
    heads, neurons = written.heads(rows), written.neurons(rows)
    for tensor, alone, mine, site, chosen in (
        ("head_out", ALONE[name][0], heads, written.heads_write_to, range(heads.shape[1])),
        ("neurons", ALONE[name][1], neurons, written.neurons_write_to, (0, 17, 79)),
    ):
        whole = torch.from_numpy(t[tensor].copy())
        direction = torch.from_numpy(directions(subject)[sites.index(site), :, 1])
        width = whole.shape[1] // mine.shape[1]
        for i in chosen:
            part = torch.zeros_like(whole)
            part[:, i * width : (i + 1) * width] = whole[:, i * width : (i + 1) * width]
            with torch.inference_mode():
                own = (alone(block, part, whole) @ direction).numpy()
            norm = np.linalg.norm(t["resid_post"], axis=1)
            assert (np.abs(mine[:, i] - own) <= 2e-5 * norm).all(), (tensor, i)
        assert np.abs(mine).max() > 1e-3


# --- refused -------------------------------------------------------------------------------------


def test_a_tensor_that_is_not_there_and_a_trait_that_came_later() -> None:
    written = contributions("llama")
    some = {k: v for k, v in written.inside.tensors.items() if k != "head_to_score"}
    less = replace(written, inside=replace(written.inside, tensors=some))
    with pytest.raises(RunError, match="head_to_score are not in the file"):
        less.heads(np.array([0]))
    assert less.all_neurons(np.array([0])).shape == (1,)
    with pytest.raises(RunError, match="got 'later'"):
        replace(written, directions=replace(written.directions, trait="later"))


def test_a_head_that_is_not_attention_times_values_is_not_split() -> None:
    written = contributions("llama")
    changed = {**written.inside.tensors, "head_out": 1.5 * written.inside.tensors["head_out"]}
    other = replace(written, inside=replace(written.inside, tensors=changed))
    with pytest.raises(RunError, match="something else stands between"):
        other.carried(np.array([5]))
