"""The architectures that are known by name: attribute paths, a row per `config.model_type`.

`FAMILIES` is data.  Nothing in it is believed: `proof.py` holds each model against its own hidden
states before it is used.  A row of one's own comes from `family_of` (a suite's key `family`) or
from `structure.py`.  This module knows no tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from traitscope.errors import ModelError, did_you_mean

__all__ = ["FAMILIES", "Family", "family_of"]

LAYOUTS = ("split", "grouped")


@dataclass(frozen=True)
class Family:
    """The attribute paths of one architecture.  `None` means that the part does not exist.

    `blocks` and `final_norm` are seen from the decoder, the rest from a block, its attention or
    its MLP.  `mid_input_of` names the module of a block whose *input* is the residual stream
    between attention and MLP.  `parallel` is a bool, or names of config flags of which any one
    says so; parallel blocks have no `mid`.  `residual_multiplier` and `logit_scale`: None means
    what the config says.

    For internals: `qkv` names three projections, or one fused one whose rows are laid out as
    `qkv_layout` says: "split" (q, k, v one after the other) or "grouped" ([Hkv, the group's
    queries then k then v, dh]).  `gate_up_fused` holds gate and up in one projection,
    gate first.  An empty `qkv` or `up` means that internals are not known here.
    """

    blocks: str = "layers"
    final_norm: str = "norm"
    attention: str = "self_attn"
    mlp: str = "mlp"
    mid_input_of: str = "post_attention_layernorm"
    qkv: tuple[str, ...] = ("q_proj", "k_proj", "v_proj")
    qkv_layout: str = "split"
    attn_out: str = "o_proj"
    gate: str | None = "gate_proj"
    up: str = "up_proj"
    down: str = "down_proj"
    gate_up_fused: bool = False
    attn_post_norm: str | None = None
    mlp_post_norm: str | None = None
    parallel: bool | tuple[str, ...] = False
    experts: bool = False
    residual_multiplier: float | None = None
    logit_scale: float | None = None

    def is_parallel(self, config: Any) -> bool:
        if isinstance(self.parallel, bool):
            return self.parallel
        return any(bool(getattr(config, name, False)) for name in self.parallel)


def family_of(given: Mapping[str, object]) -> Family:
    """A row written by a user, e.g. `{blocks = "h", attention = "attn"}`; the rest as in Llama.

    An empty text means that the part does not exist.  Raises ModelError for an unknown key, or a
    value of the wrong kind.
    """
    default = Family()
    known = {field.name: getattr(default, field.name) for field in fields(Family)}
    values: dict[str, Any] = {}
    for key, value in given.items():
        if key not in known:
            raise ModelError(
                f"family: key '{key}' is not known. Known here: {', '.join(known)}."
                f"{did_you_mean(key, known)}"
            )
        values[key] = _value(key, value)
    return replace(default, **values)


_BOOLS = {"gate_up_fused", "experts"}
_NUMBERS = {"residual_multiplier", "logit_scale"}
_OPTIONAL = {"gate", "attn_post_norm", "mlp_post_norm"}


def _value(key: str, value: object) -> object:
    names = isinstance(value, list | tuple) and all(isinstance(name, str) for name in value)
    if key in _BOOLS:
        expected, fine = "true or false", isinstance(value, bool)
    elif key in _NUMBERS:
        fine = isinstance(value, int | float) and not isinstance(value, bool)
        expected = "a number"
    elif key == "parallel":
        expected, fine = "true, false or a list of config flags", isinstance(value, bool) or names
    elif key == "qkv":
        fine = names and len(value) in (0, 1, 3)  # type: ignore[arg-type]  # names: it has a length
        expected = "a list of one or three names, or an empty one"
    elif key == "qkv_layout":
        expected, fine = f"one of {', '.join(LAYOUTS)}", value in LAYOUTS
    else:
        expected, fine = "a path such as 'self_attn', as text", isinstance(value, str)
    if not fine:
        raise ModelError(f"family: '{key}': expected {expected}, got {value!r}. Correct it.")
    if isinstance(value, list):
        return tuple(value)
    return None if key in _OPTIONAL and value == "" else value


_LLAMA = Family()
_UNGATED = Family(gate=None)
_SANDWICH = Family(  # norms before and after both parts
    mid_input_of="pre_feedforward_layernorm",
    attn_post_norm="post_attention_layernorm",
    mlp_post_norm="post_feedforward_layernorm",
)
_POST_NORM = Family(  # norms after both parts, none before
    mid_input_of="mlp",
    attn_post_norm="post_attention_layernorm",
    mlp_post_norm="post_feedforward_layernorm",
)
_MOE = Family(experts=True)
_GRANITE_MOE = replace(_MOE, mlp="block_sparse_moe")
_LATENT = Family(qkv=())  # multi-head latent attention: k and v come from a joint code
_FUSED_GATE = Family(gate="gate_up_proj", up="gate_up_proj", gate_up_fused=True)
_GPT2 = Family(
    blocks="h",
    final_norm="ln_f",
    attention="attn",
    mid_input_of="ln_2",
    qkv=("c_attn",),
    attn_out="c_proj",
    gate=None,
    up="c_fc",
    down="c_proj",
)
_GPTJ = replace(
    _GPT2,
    parallel=True,
    qkv=("q_proj", "k_proj", "v_proj"),
    attn_out="out_proj",
    up="fc_in",
    down="fc_out",
)
_NEOX = Family(
    final_norm="final_layer_norm",
    attention="attention",
    qkv=("query_key_value",),
    qkv_layout="grouped",
    attn_out="dense",
    gate=None,
    up="dense_h_to_4h",
    down="dense_4h_to_h",
    parallel=("use_parallel_residual",),
)
# no module holds the MLP: its last projection is what is added
_OPT = Family(
    final_norm="final_layer_norm", mid_input_of="final_layer_norm", mlp="fc2", qkv=(), up=""
)

FAMILIES: dict[str, Family] = {
    "afmoe": Family(
        mid_input_of="pre_mlp_layernorm",
        attn_post_norm="post_attention_layernorm",
        mlp_post_norm="post_mlp_layernorm",
        experts=True,
    ),
    "apertus": replace(_UNGATED, mid_input_of="feedforward_layernorm"),
    "arcee": _UNGATED,
    "bitnet": replace(_LLAMA, up=""),  # its neurons are normed before they are read
    "codegen": replace(_GPTJ, qkv=()),
    "cohere": Family(parallel=True),
    "cohere2": Family(parallel=True),
    "cohere2_moe": replace(_MOE, parallel=True),
    "cwm": _LLAMA,
    "deepseek_v2": replace(_LATENT, experts=True),
    "deepseek_v3": replace(_LATENT, experts=True),
    "diffllama": replace(_LLAMA, qkv=()),  # a head is the difference of two
    "dots1": _MOE,
    "ernie4_5": _LLAMA,
    "ernie4_5_moe": _MOE,
    "exaone4": _POST_NORM,
    "exaone_moe": _MOE,
    "falcon": replace(
        _NEOX,
        blocks="h",
        final_norm="ln_f",
        attention="self_attention",
        parallel=("parallel_attn", "new_decoder_architecture"),
    ),
    "flex_olmo": replace(_POST_NORM, experts=True),
    "gemma": _LLAMA,
    "gemma2": _SANDWICH,
    "gemma3_text": _SANDWICH,
    "glm": _FUSED_GATE,
    "glm4": replace(
        _FUSED_GATE,
        attn_post_norm="post_self_attn_layernorm",
        mlp_post_norm="post_mlp_layernorm",
    ),
    "glm4_moe": _MOE,
    "glm4_moe_lite": replace(_LATENT, experts=True),
    "gpt2": _GPT2,
    "gpt_bigcode": replace(_GPT2, qkv=()),
    "gpt_neox": _NEOX,
    "gpt_oss": _MOE,
    "gptj": _GPTJ,
    "granite": _LLAMA,
    "granite_swa": _LLAMA,
    "granitemoe": _GRANITE_MOE,
    "granitemoe_swa": _GRANITE_MOE,
    "helium": _LLAMA,
    "hunyuan_v1_dense": _LLAMA,
    "hunyuan_v1_moe": _MOE,
    "internlm3": _LLAMA,
    "iquestcoder": _LLAMA,
    "jais2": _UNGATED,
    "llama": _LLAMA,
    "llama4_text": Family(mlp="feed_forward", experts=True),
    "minimax_m2": _MOE,
    "ministral": _LLAMA,
    "ministral3": _LLAMA,
    "mistral": _LLAMA,
    "mixtral": _MOE,
    "nanochat": replace(_UNGATED, up="fc1", down="fc2"),
    "nemotron": _UNGATED,
    "olmo": _LLAMA,
    "olmo2": _POST_NORM,
    "olmo3": _POST_NORM,
    "olmoe": _MOE,
    "opt": _OPT,
    "persimmon": replace(
        _NEOX, final_norm="final_layernorm", attention="self_attn", parallel=False
    ),
    "phi": replace(
        _UNGATED,
        final_norm="final_layernorm",
        attn_out="dense",
        up="fc1",
        down="fc2",
        parallel=True,
    ),
    "phi3": replace(_FUSED_GATE, qkv=("qkv_proj",)),
    "phimoe": _MOE,
    "qwen2": _LLAMA,
    "qwen2_moe": _MOE,
    "qwen3": _LLAMA,
    "qwen3_moe": _MOE,
    "seed_oss": _LLAMA,
    "smollm3": _LLAMA,
    "solar_open": _MOE,
    "stablelm": Family(parallel=("use_parallel_residual",)),
    "starcoder2": Family(gate=None, up="c_fc", down="c_proj"),
    "vaultgemma": replace(_LLAMA, mid_input_of="pre_feedforward_layernorm"),
    "xglm": replace(_OPT, final_norm="layer_norm"),
}
