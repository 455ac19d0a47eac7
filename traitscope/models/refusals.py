"""What is refused, and why: by `config.model_type`, and by what any config may say.

Data, like `families.py`: reasons, the names they belong to, and rules over configs.  A refusal is
made before a forward is run, since what is wrong with these shows only in texts longer, or batches
more mixed, than a proof at load can afford.  This module knows no tensors.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from traitscope.errors import ModelError

__all__ = [
    "ATTENTION",
    "LAYER_TYPES",
    "REASONS",
    "REFUSED",
    "RULES",
    "Rule",
    "context_of",
    "refuse",
    "refuse_form",
    "refuse_prompts",
    "refuse_unproved_window",
]

REASONS: dict[str, str] = {
    "recurrent": "its recurrent or convolutional layers carry a state from token to token, which "
    "rows of different lengths in one batch would disturb",
    "alibi": "its ALiBi biases are made from a mask with one row per text, so that a batch with "
    "texts at different positions cannot be told to it",
    "more_added": "its blocks add more to the residual stream than attention and an MLP",
    "post_norm": "its norms stand on the residual stream itself, so that no sum of what blocks "
    "add leads from one site to the next",
    "sparse": "its attention picks the tokens that it looks at with an indexer of its own, which "
    "has a cache and masks of its own",
    "local_bias": "its local layers count from the end of the cache, whatever a row's position",
    "encoder": "it is an encoder-decoder, or an encoder that reads in both directions",
}

REFUSED: dict[str, str] = {
    **dict.fromkeys(
        (
            "bailing_hybrid",
            "bamba",
            "falcon_h1",
            "falcon_mamba",
            "granitemoehybrid",
            "jamba",
            "kimi_linear",
            "lfm2",
            "lfm2_moe",
            "lfm3",
            "mamba",
            "mamba2",
            "minimax",
            "nemotron_h",
            "olmo_hybrid",
            "qwen3_5_moe_text",
            "qwen3_5_text",
            "qwen3_next",
            "recurrent_gemma",
            "rwkv",
            "xlstm",
            "zamba",
            "zamba2",
        ),
        "recurrent",
    ),
    **dict.fromkeys(("bloom", "mpt"), "alibi"),
    **dict.fromkeys(
        (
            "deepseek_v4",
            "doge",
            "gemma3n_text",
            "gemma4_text",
            "gemma4_unified_text",
            "longcat_flash",
        ),
        "more_added",
    ),
    **dict.fromkeys(("axk2", "deepseek_v32", "glm_moe_dsa"), "sparse"),
    **dict.fromkeys(("bert", "openai-gpt", "roberta"), "post_norm"),
    "gpt_neo": "local_bias",
}

# ways of attention that take masks with a row for each text
ATTENTION = ("eager", "sdpa")

# kinds of layers whose masks are known (slots.masks); other kinds are refused
LAYER_TYPES = ("full_attention", "sliding_attention", "chunked_attention")


@dataclass(frozen=True)
class Rule:
    """A property of any architecture's config, and why it is refused."""

    name: str
    holds: Callable[[Any], bool]
    reason: str


RULES: tuple[Rule, ...] = (
    Rule(
        "alibi = true",
        lambda config: bool(getattr(config, "alibi", False)),
        REASONS["alibi"],
    ),
    Rule(
        "is_encoder_decoder = true",
        lambda config: bool(getattr(config, "is_encoder_decoder", False)),
        REASONS["encoder"],
    ),
    Rule(
        "is_causal = false, or use_bidirectional_attention = true",
        lambda config: (
            getattr(config, "is_causal", True) is False
            or getattr(config, "use_bidirectional_attention", None) in (True, "all")
        ),
        REASONS["encoder"],
    ),
    Rule(
        "do_layer_norm_before = false",  # OPT-350m
        lambda config: getattr(config, "do_layer_norm_before", True) is False,
        REASONS["post_norm"],
    ),
    Rule(
        "layer_types with linear_attention, mamba, conv or recurrent layers",
        lambda config: any(
            re.search(r"linear|mamba|conv|recurrent", kind) for kind in _kinds(config)
        ),
        REASONS["recurrent"],
    ),
    Rule(
        f"layer_types other than {', '.join(LAYER_TYPES)}",
        lambda config: not _kinds(config) <= set(LAYER_TYPES),
        "the masks of its kinds of layers are not known here",
    ),
    Rule(
        "num_kv_shared_layers > 0",
        lambda config: bool(getattr(config, "num_kv_shared_layers", 0)),
        "its layers read keys and values that other layers wrote",
    ),
)


def refuse(config: Any) -> None:
    """Raise ModelError, with the reason, for a config that cannot give exact numbers."""
    reason = REFUSED.get(config.model_type)
    if reason is not None:
        raise _refusal(f"'{config.model_type}'", REASONS[reason])
    for rule in RULES:
        if rule.holds(config):
            raise _refusal(f"'{config.model_type}' with {rule.name}", rule.reason)


def refuse_form(hf: Any, config: Any, dtype: str, dtypes: Iterable[str]) -> None:
    """Raise ModelError for what any architecture may be made into and cannot be read as.

    Learnt prompts before a text, a way of attention without masks per text, a dtype whose name is
    not among `dtypes`.
    """
    refuse_prompts(hf)
    way = getattr(config, "_attn_implementation", None)
    if way not in (None, *ATTENTION):
        raise ModelError(
            f"Expected attention that takes masks with a row for each text ({_either(ATTENTION)}), "
            f"got attn_implementation='{way}'. Load the model with attn_implementation='sdpa'."
        )
    if dtype not in dtypes:
        raise ModelError(
            f"Expected a model in {_either(dtypes)}, got {dtype}. Change it before it is wrapped, "
            "for instance with model.float()."
        )


def refuse_prompts(hf: Any) -> None:
    """Raise ModelError for a model with an adapter (peft's) that puts prompts before its texts."""
    adapters = getattr(hf, "peft_config", None)
    for name, adapter in (adapters if isinstance(adapters, dict) else {}).items():
        if getattr(adapter, "is_prompt_learning", False):
            raise ModelError(
                f"Expected a model that reads its texts alone, got the adapter '{name}' "
                f"({type(adapter).__name__}), which puts a learnt prompt before each. Take an "
                "adapter that changes weights (LoRA and the like), or the model without it."
            )


def _either(names: Iterable[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}"


def refuse_unproved_window(config: Any) -> None:
    """For architectures that are not in the table: a window shows only in texts longer than it."""
    said = config.to_dict()
    windows = {
        key: value
        for key, value in said.items()
        if re.search(r"window(_size)?$|chunk_size$", key)
        and isinstance(value, int)
        and not isinstance(value, bool)
        and value > 0
    }
    if windows:
        key, value = next(iter(windows.items()))
        raise ModelError(
            f"Expected an architecture that traitscope knows, got '{config.model_type}' with "
            f"{key} = {value}. A window cannot be proved on the short texts of a load. If its "
            "layers see exactly the last tokens of that number, say so with the suite's key "
            "'family' or Model.wrap(..., family=...): docs/models.md shows how."
        )


def context_of(config: Any) -> int:
    """The most tokens a text may have and still read the same beside any other.

    `longrope` and `dynamic` take other rotary factors for the whole batch as soon as one row is
    longer than the original context: they are kept within that.  Attention whose temperature is
    tuned (Llama 4) takes the position from the cache, which has none for each row: it is kept
    within the tokens whose factor is 1.
    """
    context = int(getattr(config, "max_position_embeddings", 0) or 2**31 - 1)
    if _tunes_temperature(config):  # by floor((position + 1) / floor_scale)
        context = min(context, int(config.floor_scale) - 1)
    for rope in _ropes(config):
        if rope.get("rope_type", rope.get("type")) == "longrope":
            original = getattr(config, "original_max_position_embeddings", None)
            context = min(
                context,
                int(rope.get("original_max_position_embeddings") or context),
                int(original or context),
            )
    return context


def _tunes_temperature(config: Any) -> bool:
    """Only layers without rotary positions do (`no_rope_layers` is 0 for them)."""
    rotary = getattr(config, "no_rope_layers", None) or (0,)
    tuned = getattr(config, "attn_temperature_tuning", False)
    return bool(tuned and getattr(config, "floor_scale", None)) and not all(rotary)


def _ropes(config: Any) -> list[dict[str, Any]]:
    """The rotary settings: one dict, or one per kind of layer."""
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None)
    if not isinstance(rope, dict):
        return []
    inner = [value for value in rope.values() if isinstance(value, dict)]
    return inner or [rope]


def _kinds(config: Any) -> set[str]:
    return {str(kind) for kind in getattr(config, "layer_types", None) or ()}


def _refusal(what: str, reason: str) -> ModelError:
    return ModelError(
        f"{what} is not supported: {reason}. Expected a decoder of attention and MLP blocks; "
        "docs/models.md lists them. Choose another model."
    )
