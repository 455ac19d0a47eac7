"""Internals: what heads and neurons write adds up to the change of the score, and every tensor
is the model's own, recomputed here from modules that the test names itself."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import silu

from tests.exact.reference import GREEDY, VARIANTS, directions, model, requests, run_alone
from tests.tiny import hf_model, watched
from traitscope.core import Internals, Trace
from traitscope.engine import capture_internals, check_internals
from traitscope.errors import ModelError

SEQUENTIAL = (
    "apertus",
    "arcee",
    "cwm",
    "ernie4_5",
    "exaone4",
    "falcon sequential",
    "gemma",
    "gemma2",
    "gemma3_text",
    "glm",
    "glm4",
    "gpt2",
    "gpt_neox sequential",
    "granite",
    "helium",
    "hunyuan_v1_dense",
    "jais2",
    "llama",
    "ministral3",
    "mistral",
    "nanochat",
    "nemotron",
    "olmo",
    "olmo2",
    "olmo3",
    "persimmon",
    "phi3",
    "qwen2",
    "qwen3",
    "smollm3",
    "stablelm",
    "starcoder2",
    "vaultgemma",
)
PARALLEL = (
    "cohere",
    "cohere2",
    "falcon",
    "falcon grouped",
    "falcon per head",
    "gpt_neox",
    "gptj",
    "phi",
    "stablelm parallel",
)
POST_NORMED = ("exaone4", "glm4", "gemma2", "gemma3_text", "olmo2", "olmo3")
BLOCK = 1
TRAITS = ("alpha", "beta")


@lru_cache(maxsize=2)
def _seen(name: str, block: int = BLOCK) -> tuple[Trace, Internals]:
    """A text that was made by the engine, and one block's inside while it is read."""
    subject = model(name)
    (wanted,) = requests((12,), (8,), seed=9)
    trace = run_alone(subject, [wanted], GREEDY)[wanted.generation]
    ids = trace.token_ids.tolist()
    inside = capture_internals(subject, trace.generation, ids, block, directions(subject), TRAITS)
    return trace, inside


def _written(inside: Internals) -> tuple[NDArray[Any], NDArray[Any]]:
    """What heads and bias, neurons and bias write to each trait's score: two [T, K]."""
    t = inside.tensors
    n_heads = t["head_to_score"].shape[1]
    head_out = t["head_out"].reshape(len(t["head_out"]), n_heads, -1)
    heads = np.einsum("thd,khd->tk", head_out, t["head_to_score"]) + t["attn_bias_score"]
    neurons = t["neurons"] @ t["neuron_to_score"].T + t["mlp_bias_score"]
    return (
        heads * t["attn_post_norm_scale"][:, None],
        neurons * t["mlp_post_norm_scale"][:, None],
    )


def _site(name: str, site: str) -> NDArray[np.float32]:
    subject = model(name)
    return directions(subject)[[s.name for s in subject.sites].index(site)]


def _close(mine: NDArray[Any], own: NDArray[Any], norm: NDArray[Any]) -> None:
    assert (np.abs(mine - own).max(axis=-1) <= 2e-5 * norm).all()


@pytest.mark.parametrize("name", SEQUENTIAL)
def test_heads_and_neurons_add_up(name: str) -> None:
    _, inside = _seen(name)
    t = inside.tensors
    heads, neurons = _written(inside)
    norm = np.linalg.norm(t["resid_post"], axis=-1)
    to_mid = (t["resid_mid"] - t["resid_pre"]) @ _site(name, f"{BLOCK}.mid")
    to_post = (t["resid_post"] - t["resid_mid"]) @ _site(name, f"{BLOCK}.post")
    _close(heads, to_mid, norm)
    _close(neurons, to_post, norm)
    assert np.abs(to_mid).max() > 0.01  # there is something to add up
    assert np.abs(to_post).max() > 0.01
    _close(t["resid_pre"] + t["attn_out"], t["resid_mid"], norm)
    _close(t["resid_mid"] + t["mlp_out"], t["resid_post"], norm)
    assert inside.metadata["layout"] == "sequential"


@pytest.mark.parametrize("name", PARALLEL)
def test_parallel_blocks_add_up_at_post(name: str) -> None:
    _, inside = _seen(name)
    t = inside.tensors
    heads, neurons = _written(inside)
    norm = np.linalg.norm(t["resid_post"], axis=-1)
    change = (t["resid_post"] - t["resid_pre"]) @ _site(name, f"{BLOCK}.post")
    _close(heads + neurons, change, norm)
    assert np.abs(heads).max() > 0.01
    assert np.abs(neurons).max() > 0.01
    assert "resid_mid" not in t
    assert inside.metadata["layout"] == "parallel"


@pytest.mark.parametrize("name", SEQUENTIAL)
def test_scales_are_the_post_norms(name: str) -> None:
    t = _seen(name)[1].tensors
    for scale in (t["attn_post_norm_scale"], t["mlp_post_norm_scale"]):
        if name in POST_NORMED:
            assert (scale > 0).all()
            assert len(np.unique(scale)) > 5  # a factor per token, not one
        else:
            assert (scale == 1).all()


def test_biases_are_counted() -> None:
    """GPT-2 and StarCoder2 write a bias of their own; what heads write alone does not add up."""
    for name in ("gpt2", "starcoder2"):
        t = _seen(name)[1].tensors
        assert np.abs(t["attn_bias_score"]).min() > 1e-4
        assert np.abs(t["mlp_bias_score"]).min() > 1e-4


@pytest.mark.parametrize("block", [0, 1, 2])
@pytest.mark.parametrize("name", ["gemma2", "gpt2", "gpt_neox"])
def test_residuals_are_those_of_the_trajectory(name: str, block: int) -> None:
    trace, inside = _seen(name, block)
    names = [site.name for site in model(name).sites]
    after = names.index(f"{block}.post")
    places = {"resid_post": after, "resid_mid": after - 1, "resid_pre": after - 2}
    if "resid_mid" not in inside.tensors:
        places = {"resid_post": after, "resid_pre": after - 1}
    for tensor, site in places.items():
        h_TD = inside.tensors[tensor]
        assert h_TD.dtype == np.float32
        score = h_TD @ directions(model(name))[site]
        _close(trace.score[:, site], score, trace.norm[:, site])
    assert inside.generation == trace.generation
    assert (inside.block, inside.traits) == (block, TRAITS)


# --- attention -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SEQUENTIAL + PARALLEL)
def test_attention_is_the_models_own(name: str) -> None:
    """Against `output_attentions` of the same weights in a model that is eager throughout."""
    trace, inside = _seen(name)
    model_type, changes = VARIANTS[name]
    hf = hf_model(model_type, **changes)
    hf.config._attn_implementation = "eager"  # Falcon refuses the public way of saying so
    ids = torch.tensor([trace.token_ids.tolist()])
    with torch.inference_mode():
        own = hf(ids, output_attentions=True, use_cache=False).attentions[BLOCK][0].numpy()
    attention = inside.tensors["attention"]
    length = len(trace.token_ids)
    assert attention.shape == (4, length, length)
    np.testing.assert_allclose(attention, own, atol=1e-5)
    np.testing.assert_allclose(attention.sum(-1), 1.0, atol=1e-5)
    assert (np.triu(attention, 1) == 0).all()
    assert (np.diagonal(attention, axis1=1, axis2=2) > 0).all()


def test_attention_keeps_to_the_window() -> None:
    """Mistral's window here is 8: nobody looks further back."""
    attention = _seen("mistral")[1].tensors["attention"]
    assert attention.shape[1] > 12
    assert (np.tril(attention, -8) == 0).all()
    assert np.tril(attention, -7).sum() > 0


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2"])
def test_the_model_is_left_as_it_was(name: str) -> None:
    subject = model(name)
    before = subject.hf.config._attn_implementation
    hooks = watched(subject.hf)
    _seen.cache_clear()
    _seen(name)
    assert subject.hf.config._attn_implementation == before
    assert watched(subject.hf) == hooks


def test_the_model_is_left_as_it_was_after_a_failure() -> None:
    subject = model("llama")
    before = subject.hf.config._attn_implementation
    assert before == "sdpa"
    with pytest.raises(IndexError):
        capture_internals(
            subject, _seen("llama")[0].generation, [10**6], BLOCK, directions(subject), TRAITS
        )
    assert subject.hf.config._attn_implementation == before


# --- projections and neurons, by modules named here ----------------------------------------------

_Parts = Callable[[Any, Tensor, Tensor], dict[str, Tensor]]


def _llama(block: Any, pre: Tensor, mid: Tensor) -> dict[str, Tensor]:
    x, y = block.input_layernorm(pre), block.post_attention_layernorm(mid)
    attention, mlp = block.self_attn, block.mlp
    gate, up = mlp.gate_proj(y), mlp.up_proj(y)
    q, k, v = attention.q_proj(x), attention.k_proj(x), attention.v_proj(x)
    return {"q": q, "k": k, "v": v, "gate": gate, "up": up, "neurons": silu(gate) * up}


def _gemma2(block: Any, pre: Tensor, mid: Tensor) -> dict[str, Tensor]:
    x, y = block.input_layernorm(pre), block.pre_feedforward_layernorm(mid)
    attention, mlp = block.self_attn, block.mlp
    gate, up = mlp.gate_proj(y), mlp.up_proj(y)
    q, k, v = attention.q_proj(x), attention.k_proj(x), attention.v_proj(x)
    return {"q": q, "k": k, "v": v, "gate": gate, "up": up, "neurons": _gelu(gate) * up}


def _olmo2(block: Any, pre: Tensor, mid: Tensor) -> dict[str, Tensor]:
    attention, mlp = block.self_attn, block.mlp
    gate, up = mlp.gate_proj(mid), mlp.up_proj(mid)
    q, k, v = attention.q_proj(pre), attention.k_proj(pre), attention.v_proj(pre)
    return {"q": q, "k": k, "v": v, "gate": gate, "up": up, "neurons": silu(gate) * up}


def _phi3(block: Any, pre: Tensor, mid: Tensor) -> dict[str, Tensor]:
    x, y = block.input_layernorm(pre), block.post_attention_layernorm(mid)
    weight = block.self_attn.qkv_proj.weight  # 4 heads of 12, then twice 2 of 12
    q, k, v = x @ weight[:48].T, x @ weight[48:72].T, x @ weight[72:96].T
    gate, up = y @ block.mlp.gate_up_proj.weight[:80].T, y @ block.mlp.gate_up_proj.weight[80:].T
    return {"q": q, "k": k, "v": v, "gate": gate, "up": up, "neurons": silu(gate) * up}


def _gpt2(block: Any, pre: Tensor, mid: Tensor) -> dict[str, Tensor]:
    fused = block.attn.c_attn(block.ln_1(pre))
    up = block.mlp.c_fc(block.ln_2(mid))
    q, k, v = fused[:, :48], fused[:, 48:96], fused[:, 96:]
    return {"q": q, "k": k, "v": v, "up": up, "neurons": _gelu(up)}


def _neox(block: Any, pre: Tensor, mid: Tensor) -> dict[str, Tensor]:
    """Head after head: q, k, v of 12 each."""
    fused = block.attention.query_key_value(block.input_layernorm(pre))
    heads = [fused[:, 36 * h : 36 * h + 36] for h in range(4)]
    q, k, v = (torch.cat([h[:, 12 * i : 12 * i + 12] for h in heads], 1) for i in range(3))
    up = block.mlp.dense_h_to_4h(block.post_attention_layernorm(mid))
    return {"q": q, "k": k, "v": v, "up": up, "neurons": torch.nn.functional.gelu(up)}


def _falcon(block: Any, pre: Tensor, mid: Tensor) -> dict[str, Tensor]:
    """q, k, v as Falcon itself takes them apart; k and v are repeated for a group's queries."""
    norm = getattr(block, "ln_attn", None) or block.input_layernorm
    attention = block.self_attention
    q, k, v = attention._split_heads(attention.query_key_value(norm(pre))[None])
    grouped = attention.new_decoder_architecture
    kv_heads = attention.num_kv_heads if grouped else k.shape[2]
    one = k.shape[2] // kv_heads
    return {
        "q": q[0].flatten(1),
        "k": k[0, :, ::one].flatten(1),
        "v": v[0, :, ::one].flatten(1),
    }


def _gelu(x: Tensor) -> Tensor:
    return torch.nn.functional.gelu(x, approximate="tanh")


PARTS: dict[str, _Parts] = {
    "falcon": _falcon,
    "falcon grouped": _falcon,
    "falcon per head": _falcon,
    "gemma2": _gemma2,
    "gpt2": _gpt2,
    "gpt_neox": _neox,
    "gpt_neox sequential": _neox,
    "granite": _llama,
    "llama": _llama,
    "olmo2": _olmo2,
    "phi3": _phi3,
    "qwen3": _llama,
}
WIDTHS = {
    "falcon": (48, 12),
    "falcon grouped": (48, 24),
    "falcon per head": (48, 48),
    "gemma2": (64, 32),
    "gpt2": (48, 48),
    "qwen3": (64, 32),
}


@pytest.mark.parametrize("name", PARTS)
def test_projections_and_neurons_are_the_models_own(name: str) -> None:
    t = _seen(name)[1].tensors
    hf = model(name).hf
    decoder = hf.get_decoder()
    block = (decoder.h if hasattr(decoder, "h") else decoder.layers)[BLOCK]
    pre = torch.from_numpy(t["resid_pre"])
    mid = torch.from_numpy(t.get("resid_mid", t["resid_pre"]))
    with torch.inference_mode():
        own = {part: x.numpy() for part, x in PARTS[name](block, pre, mid).items()}
    assert ("gate" in t) == ("gate" in own)
    for part, expected in own.items():
        assert t[part].shape == expected.shape, part
        np.testing.assert_allclose(t[part], expected, atol=2e-4, rtol=1e-4, err_msg=part)
    if name in WIDTHS or name == "llama":
        q, kv = WIDTHS.get(name, (48, 24))
        assert (t["q"].shape[1], t["k"].shape[1], t["v"].shape[1]) == (q, kv, kv)


@pytest.mark.parametrize("name", ["llama", "gemma2", "phi3"])
def test_a_neuron_is_not_its_gate_alone(name: str) -> None:
    t = _seen(name)[1].tensors
    gate = torch.from_numpy(t["gate"])
    act = (_gelu if name == "gemma2" else silu)(gate).numpy()
    np.testing.assert_allclose(t["neurons"], act * t["up"], atol=1e-5, rtol=1e-4)
    assert np.abs(t["neurons"] - act).max() > 0.05


# --- refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe", "gpt_oss", "opt", "deepseek_v3"])
def test_what_cannot_be_taken_apart_is_refused(name: str) -> None:
    with pytest.raises(ModelError, match="not supported") as caught:
        check_internals(model(name), 0)
    assert VARIANTS[name][0] in str(caught.value)
    assert "rajectories" in str(caught.value)
    with pytest.raises(ModelError, match="not supported"):
        _seen(name)


@pytest.mark.parametrize("block", [-1, 3, 99])
def test_a_block_that_is_not_there_is_refused(block: int) -> None:
    with pytest.raises(ModelError, match=f"from 0 to 2 .* got {block}"):
        check_internals(model("llama"), block)
