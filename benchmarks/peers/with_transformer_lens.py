"""transformer-lens: TransformerBridge over a transformers model, hooks that project in the forward.

`generate` with hooks at resid_pre of block 0 and at resid_mid and resid_post of every block: the
same 2L+1 sites as ours.  Replay: `run_with_cache` with a filter on those names, then one projection
per site.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoTokenizer

from benchmarks.peers.ways import EOS, Batches, padded, padded_right, per_text, project


def open_model(hf: Any, folder: str) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return TransformerBridge.boot_transformers(
        folder, device=hf.device, dtype=hf.dtype, tokenizer=tokenizer, hf_model=hf
    )


def sites(blocks: int) -> list[int]:
    return list(range(2 * blocks + 1))


def _names(model: Any) -> list[str]:
    names = ["blocks.0.hook_resid_pre"]
    for block in range(model.cfg.n_layers):
        names += [f"blocks.{block}.hook_resid_mid", f"blocks.{block}.hook_resid_post"]
    return names


@torch.inference_mode()
def generate(model: Any, batches: Batches, directions: Tensor, new: int) -> tuple[Any, Any]:
    texts: list[list[int]] = []
    scores: list[Tensor] = []
    for batch in batches:
        kept: list[list[Tensor]] = [[] for _ in _names(model)]

        def take(h: Tensor, hook: Any, site: int, kept: list[list[Tensor]]) -> None:
            kept[site].append(project(h, directions[site]))

        hooks = [(name, partial(take, site=i, kept=kept)) for i, name in enumerate(_names(model))]
        ids, mask = padded(batch)
        with model.hooks(fwd_hooks=hooks):
            made = model.generate(
                ids,
                attention_mask=mask,
                max_new_tokens=new,
                do_sample=False,
                return_type="tokens",
                verbose=False,
                eos_token_id=EOS,
            )
        score = torch.stack([torch.cat(parts, dim=1) for parts in kept], dim=2)
        per_text(batch, made, score, texts, scores)
    return texts, scores


@torch.inference_mode()
def replay(model: Any, batches: Batches, directions: Tensor) -> tuple[Any, Any]:
    names = _names(model)
    wanted = set(names)
    scores: list[Tensor] = []
    for batch in batches:
        ids, mask = padded_right(batch)
        _, cache = model.run_with_cache(
            ids, attention_mask=mask, names_filter=lambda name: name in wanted
        )
        parts = [project(cache[name], directions[i]) for i, name in enumerate(names)]
        score = torch.stack(parts, dim=2)
        scores += [score[row, : len(text)].clone() for row, text in enumerate(batch)]
    return None, scores
