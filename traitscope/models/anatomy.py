"""Where the parts of a decoder live: blocks, norms, attention, MLP, head.

The one room that knows architectures.  `FAMILIES` is data: a row per `config.model_type`, naming
modules by their attribute path.  Whether attention and MLP run in parallel is read from the
config, never from the family's name.  Nothing here is believed: `proof.py` holds each model
against its own hidden states before it is used.  This module knows nothing of batches, caches,
traits or files.

Legend: B rows, T tokens, D model width, V vocabulary, L blocks, H heads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from traitscope.core import Site, sites_of
from traitscope.errors import ModelError, did_you_mean

__all__ = ["FAMILIES", "Anatomy", "Block", "Family", "context_of", "dissect"]


@dataclass(frozen=True)
class Family:
    """The attribute names of one architecture.  `None` means the part does not exist.

    `mid_input_of` names the module of a block whose *input* is the residual stream between
    attention and MLP.  `qkv` names three projections, or one fused one whose rows are laid out
    as `qkv_layout` says: "split" (q, k, v one after the other) or "per_head" ([H, 3, dh]).
    `gate_up_fused` holds gate and up in one projection, gate first.
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
    parallel: Callable[[Any], bool] = lambda config: False
    experts: bool = False


def _flag(*names: str) -> Callable[[Any], bool]:
    return lambda config: any(bool(getattr(config, name, False)) for name in names)


_LLAMA = Family()
_GEMMA2 = Family(
    mid_input_of="pre_feedforward_layernorm",
    attn_post_norm="post_attention_layernorm",
    mlp_post_norm="post_feedforward_layernorm",
)
_OLMO2 = Family(
    mid_input_of="mlp",
    attn_post_norm="post_attention_layernorm",
    mlp_post_norm="post_feedforward_layernorm",
)
_MOE = Family(experts=True)

FAMILIES: dict[str, Family] = {
    "cohere": Family(parallel=lambda config: True),
    "cohere2": Family(parallel=lambda config: True),
    "exaone4": _OLMO2,
    "falcon": Family(
        blocks="h",
        final_norm="ln_f",
        attention="self_attention",
        qkv=("query_key_value",),
        qkv_layout="falcon",
        attn_out="dense",
        gate=None,
        up="dense_h_to_4h",
        down="dense_4h_to_h",
        parallel=_flag("parallel_attn", "new_decoder_architecture"),
    ),
    "gemma": _LLAMA,
    "gemma2": _GEMMA2,
    "gemma3_text": _GEMMA2,
    "gpt2": Family(
        blocks="h",
        final_norm="ln_f",
        attention="attn",
        mid_input_of="ln_2",
        qkv=("c_attn",),
        attn_out="c_proj",
        gate=None,
        up="c_fc",
        down="c_proj",
    ),
    "gpt_neox": Family(
        final_norm="final_layer_norm",
        attention="attention",
        qkv=("query_key_value",),
        qkv_layout="per_head",
        attn_out="dense",
        gate=None,
        up="dense_h_to_4h",
        down="dense_4h_to_h",
        parallel=_flag("use_parallel_residual"),
    ),
    "gpt_oss": _MOE,
    "granite": _LLAMA,
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "ministral": _LLAMA,
    "mixtral": _MOE,
    "olmo": _LLAMA,
    "olmo2": _OLMO2,
    "olmo3": _OLMO2,
    "phi3": Family(qkv=("qkv_proj",), gate="gate_up_proj", up="gate_up_proj", gate_up_fused=True),
    "qwen2": _LLAMA,
    "qwen2_moe": _MOE,
    "qwen3": _LLAMA,
    "qwen3_moe": _MOE,
    "smollm3": _LLAMA,
    "stablelm": Family(parallel=_flag("use_parallel_residual")),
    "starcoder2": Family(gate=None, up="c_fc", down="c_proj"),
}


@dataclass(frozen=True)
class Block:
    """The modules of one block.  `mid_input_of` is None where there is no `mid`."""

    module: nn.Module
    attention: nn.Module
    mlp: nn.Module
    mid_input_of: nn.Module | None
    attn_post_norm: nn.Module | None
    mlp_post_norm: nn.Module | None


@dataclass(frozen=True)
class Anatomy:
    """A model taken apart, without copying a weight.

    `stack` maps ids to the final-normed states [B, T, D]; `head` maps those to logits before
    `logit_scale` and `logit_softcap`.  `residual_multiplier` scales what blocks add (Granite).
    """

    family: Family
    config: Any
    stack: nn.Module
    blocks: tuple[Block, ...]
    final_norm: nn.Module
    head: nn.Module
    sites: tuple[Site, ...]
    d_model: int
    n_heads: int
    residual_multiplier: float
    logit_scale: float
    logit_softcap: float | None

    @property
    def parallel(self) -> bool:
        return self.blocks[0].mid_input_of is None

    def logits(self, h_ND: Tensor) -> Tensor:
        """Next-token logits [N, V] in float32 from final-normed states [N, D]."""
        logits_NV: Tensor = self.head(h_ND)
        if self.logit_scale != 1.0:
            logits_NV = logits_NV * self.logit_scale
        if self.logit_softcap is not None:
            logits_NV = torch.tanh(logits_NV / self.logit_softcap) * self.logit_softcap
        return logits_NV.float()


def dissect(hf: nn.Module) -> Anatomy:
    """Take a transformers causal LM apart by its family's row in `FAMILIES`.

    Raises ModelError for an architecture that is not in the table.
    """
    config = _text_config(hf)
    family = _family_of(config)
    if getattr(config, "alibi", False):
        raise ModelError(
            f"Expected rotary or learned positions, got '{config.model_type}' with alibi, whose "
            "bias cannot follow the rows of a batch. It is not supported; use another model."
        )
    stack = _decoder(hf, family)
    parallel = family.parallel(config)
    modules = list(_get(stack, family.blocks))
    blocks = tuple(_block(module, family, parallel) for module in modules)
    head = getattr(hf, "get_output_embeddings", lambda: None)()
    if not isinstance(head, nn.Module):
        raise ModelError(
            f"Expected a causal language model with an output head, got {type(hf).__name__}. "
            "Load it with AutoModelForCausalLM."
        )
    scale = getattr(config, "logit_scale", None) or 1.0
    divisor = getattr(config, "logits_scaling", None) or 1.0
    return Anatomy(
        family=family,
        config=config,
        stack=stack,
        blocks=blocks,
        final_norm=_get(stack, family.final_norm),
        head=head,
        sites=sites_of(len(blocks), mid=not parallel),
        d_model=int(config.hidden_size),
        n_heads=int(config.num_attention_heads),
        residual_multiplier=float(getattr(config, "residual_multiplier", None) or 1.0),
        logit_scale=float(scale) / float(divisor),
        logit_softcap=getattr(config, "final_logit_softcapping", None),
    )


def context_of(config: Any) -> int:
    """The most tokens a text may have and still read the same beside any other.

    `longrope` takes other factors for the whole batch as soon as one row is longer than the
    original context: it is kept within that.
    """
    context = int(getattr(config, "max_position_embeddings", 0) or 2**31 - 1)
    rope = getattr(config, "rope_parameters", None) or {}
    for said in (rope, *(part for part in rope.values() if isinstance(part, dict))):
        if said.get("rope_type") == "longrope":
            context = min(context, int(said.get("original_max_position_embeddings") or context))
    return context


def _text_config(hf: nn.Module) -> Any:
    config = getattr(hf, "config", None)
    if config is None:
        raise ModelError(
            f"Expected a transformers causal language model, got {type(hf).__name__}. "
            "Load it with AutoModelForCausalLM."
        )
    return config.get_text_config(decoder=True)


def _family_of(config: Any) -> Family:
    family = FAMILIES.get(config.model_type)
    if family is None:
        known = ", ".join(sorted(FAMILIES))
        raise ModelError(
            f"Expected an architecture that traitscope knows, got '{config.model_type}'. "
            f"Known here: {known}.{did_you_mean(config.model_type, FAMILIES)} "
            "Another one is a row in traitscope.models.anatomy.FAMILIES."
        )
    return family


def _decoder(hf: nn.Module, family: Family) -> nn.Module:
    """The module that holds the blocks; the text part of a wrapper."""
    getter = getattr(hf, "get_decoder", None)
    stack = getter() if getter is not None else getattr(hf, "base_model", hf)
    if not hasattr(stack, family.blocks):
        stack = getattr(stack, "language_model", stack)
    if not hasattr(stack, family.blocks):
        raise ModelError(
            f"Expected the blocks of {type(hf).__name__} at '{family.blocks}', found none there. "
            "This version of transformers may lay it out differently; please report it."
        )
    return stack


def _block(module: nn.Module, family: Family, parallel: bool) -> Block:
    def optional(path: str | None) -> nn.Module | None:
        return None if path is None else _get(module, path)

    return Block(
        module=module,
        attention=_get(module, family.attention),
        mlp=_get(module, family.mlp),
        mid_input_of=None if parallel else _get(module, family.mid_input_of),
        attn_post_norm=optional(family.attn_post_norm),
        mlp_post_norm=optional(family.mlp_post_norm),
    )


def _get(module: nn.Module, path: str) -> Any:
    return reduce(getattr, path.split("."), module)
