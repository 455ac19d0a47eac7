"""Tiny random-weight models of many architectures, built in-process, and a byte-level tokenizer.

Weights are drawn wide (std 0.2) so that attention and MLP matter and texts differ.  Every config
is small enough to load and run in milliseconds on one core.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from traitscope.models import Model

VOCAB = 300
BASE = {
    "vocab_size": VOCAB,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": 256,
    "bos_token_id": 257,
    "eos_token_id": 258,
}
MOE = {
    "num_experts_per_tok": 2,
    "num_local_experts": 4,
    "num_experts": 4,
    "moe_intermediate_size": 32,
}
ROUTED = {**MOE, "n_routed_experts": 4, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1}
LATENT = {
    "num_key_value_heads": 4,
    "kv_lora_rank": 16,
    "q_lora_rank": 24,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 12,
}
WINDOW = {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"] * 2}
WINDOW["layer_types"] = WINDOW["layer_types"][:3]
EXTRA: dict[str, dict[str, Any]] = {
    "afmoe": {**ROUTED, **WINDOW, "head_dim": 12, "num_dense_layers": 1},
    "apertus": {},
    "arcee": {},
    "bitnet": {},
    "codegen": {"rotary_dim": 8, "n_inner": 80, "n_positions": 256},
    "cohere": {"logit_scale": 0.25},
    "cohere2": {"logit_scale": 0.25, "sliding_window": 8, "head_dim": 12},
    "cohere2_moe": {**MOE, **WINDOW, "logit_scale": 0.25, "head_dim": 12},
    "cwm": {**WINDOW, "head_dim": 12},
    "deepseek_v2": {**ROUTED, **LATENT},
    "deepseek_v3": {**ROUTED, **LATENT},
    "diffllama": {},
    "dots1": {**ROUTED, **WINDOW, "head_dim": 12, "n_shared_experts": 1},
    "ernie4_5": {"head_dim": 12},
    "ernie4_5_moe": {"moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": 32},
    "exaone4": {"sliding_window": 8, "head_dim": 12},
    "exaone_moe": {**ROUTED, **WINDOW, "head_dim": 12},
    "falcon": {"new_decoder_architecture": False, "multi_query": True, "parallel_attn": True},
    "flex_olmo": MOE,
    "gemma": {"head_dim": 16},
    "gemma2": {"head_dim": 16, "sliding_window": 8, "query_pre_attn_scalar": 16},
    "gemma3_text": {"head_dim": 16, "sliding_window": 8, "query_pre_attn_scalar": 16},
    "glm": {"head_dim": 12},
    "glm4": {"head_dim": 12},
    "glm4_moe": {**ROUTED, "head_dim": 12},
    "glm4_moe_lite": {**ROUTED, **LATENT},
    "gpt2": {"n_positions": 256},
    "gpt_bigcode": {"n_positions": 256, "n_inner": 80},
    "gpt_neox": {"rotary_pct": 0.5},
    "gpt_oss": {**MOE, "head_dim": 16, "sliding_window": 8},
    "gptj": {"rotary_dim": 8, "n_inner": 80, "n_positions": 256},
    "granite": {"residual_multiplier": 0.3, "logits_scaling": 4.0, "embedding_multiplier": 6.0},
    "granite_swa": {**WINDOW, "residual_multiplier": 0.3, "logits_scaling": 4.0},
    "granitemoe": {**MOE, "residual_multiplier": 0.3, "logits_scaling": 4.0},
    "granitemoe_swa": {**MOE, **WINDOW, "residual_multiplier": 0.3},
    "helium": {"head_dim": 12},
    "hunyuan_v1_dense": {"head_dim": 12},
    "hunyuan_v1_moe": {**MOE, "head_dim": 12, "moe_topk": 2},
    "internlm3": {"head_dim": 12},
    "iquestcoder": {"head_dim": 12},
    "jais2": {},
    "llama": {},
    "llama4_text": {
        **MOE,
        "attention_chunk_size": 8,
        "head_dim": 12,
        "intermediate_size_mlp": 80,
        "layer_types": ["chunked_attention", "full_attention", "chunked_attention"],
    },
    "minimax_m2": {**MOE, "head_dim": 12},
    "ministral": {**WINDOW, "head_dim": 12},
    "ministral3": {"sliding_window": 8, "head_dim": 12},
    "mistral": {"sliding_window": 8},
    "mixtral": MOE,
    "nanochat": {},
    "nemotron": {},
    "olmo": {},
    "olmo2": {},
    "olmo3": {"sliding_window": 8},
    "olmoe": MOE,
    "opt": {"ffn_dim": 80, "word_embed_proj_dim": 48},
    "persimmon": {},
    "phi": {},
    "phi3": {"sliding_window": 8},
    "phimoe": {**MOE, "sliding_window": 8},
    "qwen2": {},
    "qwen2_moe": {**MOE, "shared_expert_intermediate_size": 32},
    "qwen3": {"head_dim": 16},
    "qwen3_moe": {**MOE, "head_dim": 16},
    "seed_oss": {"head_dim": 12},
    "smollm3": {},
    "solar_open": {**ROUTED, "head_dim": 12},
    "stablelm": {"hidden_size": 64},
    "starcoder2": {"sliding_window": 8},
    "vaultgemma": {**WINDOW, "head_dim": 16, "query_pre_attn_scalar": 16},
    "xglm": {"ffn_dim": 80, "attention_heads": 4, "num_layers": 3, "d_model": 48},
}
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] | trim }}"
    "{{ eos_token }}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@lru_cache
def tokenizer(template: bool = True) -> Any:
    """Bytes, then <pad> <bos> <eos> and a few merges' worth of unused ids."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: i for i, piece in enumerate(alphabet)}
    raw = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>"
    )
    made.chat_template = TEMPLATE if template else None
    return made


def hf_model(model_type: str, *, seed: int = 0, **changes: Any) -> Any:
    """A random causal LM of one architecture in float32, in eval mode."""
    options = {**BASE, **EXTRA.get(model_type, {}), **changes}
    config = AutoConfig.for_model(model_type, **options)
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() >= 2:
                parameter.normal_(0.0, 0.15)
            elif "norm" in name or ".ln_" in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
            else:
                parameter.normal_(0.0, 0.1)
    return model


def model(model_type: str, *, template: bool = True, seed: int = 0, **changes: Any) -> Model:
    return Model.wrap(hf_model(model_type, seed=seed, **changes), tokenizer(template))


def watched(hf: Any) -> list[int]:
    """Of each module: how many hooks are on it, and whether its forward was replaced."""
    return [
        len(m._forward_hooks) + len(m._forward_pre_hooks) + ("forward" in vars(m))
        for m in hf.modules()
    ]
