"""Where the parts of a decoder live: blocks, norms, attention, MLP, head.

`families.py` has the names of the parts, a row per architecture; here they become modules.
Nothing is believed: `proof.py` holds each model against its own hidden states before it is used.
This module knows nothing of batches, caches, traits or files.

Legend: B rows, T tokens, D model width, V vocabulary, L blocks, H heads.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from traitscope.core import Site, sites_of
from traitscope.errors import ModelError, did_you_mean
from traitscope.models.families import FAMILIES, Family
from traitscope.models.forwards import is_watched

__all__ = ["Anatomy", "Block", "decoder_of", "dissect", "text_config"]


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
        return self.scaled(self.head_of(h_ND))

    def head_of(self, h_ND: Tensor) -> Tensor:
        """What the head gives [N, V]."""
        made_NV: Tensor = self.head(h_ND)
        return made_NV.to(h_ND.device)  # it may stand on another

    def scaled(self, logits_NV: Tensor) -> Tensor:
        """Logits [N, V] in float32 of what the head gave, for the caller to overwrite.

        That itself is overwritten: on a CPU new memory costs more than the arithmetic.  Who watches
        the head may have kept it, though: then it stays, and a copy is worked on.
        """
        if not torch.compiler.is_compiling() and is_watched(self.head):
            logits_NV = logits_NV.clone()
        if self.logit_scale != 1.0:
            logits_NV = logits_NV.mul_(self.logit_scale)
        if self.logit_softcap is not None:
            cap = self.logit_softcap
            logits_NV = logits_NV.div_(cap).tanh_().mul_(cap)
        return logits_NV.float()


def dissect(hf: Any, family: Family | None = None) -> Anatomy:
    """Take a transformers causal LM apart by a family's row, without one by that in `FAMILIES`.

    Raises ModelError for an architecture that is not in the table, and where a part is missing.
    """
    config = text_config(hf)
    family = family or _known(config)
    stack = decoder_of(hf)
    parallel = family.is_parallel(config)
    modules = list(_get(stack, family.blocks))
    blocks = tuple(_block(module, family, parallel) for module in modules)
    return Anatomy(
        family=family,
        config=config,
        stack=stack,
        blocks=blocks,
        final_norm=_get(stack, family.final_norm),
        head=_head(hf),
        sites=sites_of(len(blocks), mid=not parallel),
        d_model=int(config.hidden_size),
        n_heads=int(config.num_attention_heads),
        residual_multiplier=_residual_multiplier(config, family),
        logit_scale=_logit_scale(config, family),
        logit_softcap=getattr(config, "final_logit_softcapping", None),
    )


def text_config(hf: Any) -> Any:
    """The config of the language model; of a wrapper of several models, its text part's."""
    config = getattr(hf, "config", None)
    if config is None:
        raise ModelError(
            f"Expected a transformers causal language model, got {type(hf).__name__}. "
            "Load it with AutoModelForCausalLM."
        )
    return config.get_text_config(decoder=True)


def decoder_of(hf: Any) -> nn.Module:
    """The module that turns ids into final-normed states; the text part of a wrapper."""
    getter = getattr(hf, "get_decoder", None)
    stack = getter() if getter is not None else getattr(hf, "base_model", hf)
    while (inner := getattr(stack, "language_model", getattr(stack, "model", None))) is not None:
        stack = inner  # Llama 4 calls the whole model its decoder
    return stack  # type: ignore[no-any-return]  # transformers is not followed


def _known(config: Any) -> Family:
    family = FAMILIES.get(config.model_type)
    if family is None:
        known = ", ".join(sorted(FAMILIES))
        raise ModelError(
            f"Expected an architecture that traitscope knows, got '{config.model_type}'. "
            f"Known here: {known}.{did_you_mean(config.model_type, FAMILIES)} "
            "Give a family of your own: docs/models.md shows how."
        )
    return family


def _head(hf: Any) -> nn.Module:
    head = getattr(hf, "get_output_embeddings", lambda: None)()
    if not isinstance(head, nn.Module):
        raise ModelError(
            f"Expected a causal language model with an output head, got {type(hf).__name__}. "
            "Load it with AutoModelForCausalLM."
        )
    return head


def _residual_multiplier(config: Any, family: Family) -> float:
    if family.residual_multiplier is not None:
        return family.residual_multiplier
    return float(getattr(config, "residual_multiplier", None) or 1.0)


def _logit_scale(config: Any, family: Family) -> float:
    if family.logit_scale is not None:
        return family.logit_scale
    scale = getattr(config, "logit_scale", None) or 1.0
    return float(scale) / float(getattr(config, "logits_scaling", None) or 1.0)


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
    """A part by its dotted path; the module itself by an empty one."""
    try:
        return reduce(getattr, path.split("."), module) if path else module
    except AttributeError:
        here = [name for name, _ in module.named_children()]
        raise ModelError(
            f"Expected a part '{path}' in {type(module).__name__}, found {', '.join(here)}."
            f"{did_you_mean(path, here)} Correct 'family', or leave it out and let it be found."
        ) from None
