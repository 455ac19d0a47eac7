"""transformers alone: `generate` in fixed batches, with states to project, with rows dropped.

The bounds that traitscope is held against; none of them but `with_states` and `padded_states` reads
anything of the residual stream.  All but `drawn` are greedy; answers come back in the order of the
prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from benchmarks.peers.ways import EOS, padded, padded_right, per_text, project, until_end

__all__ = [
    "bare_steps",
    "drawn",
    "dropping",
    "fixed",
    "generated",
    "padded_states",
    "sorted_order",
    "with_states",
]

Ids = Sequence[Sequence[int]]


def generated(hf: Any, prompts: Ids, new: int) -> list[list[int]]:
    """One batch of `generate`, padded on the left."""
    return _generate(hf, prompts, new, do_sample=False)


def drawn(hf: Any, prompts: Ids, new: int, temperature: float, top_p: float) -> list[list[int]]:
    """As `generated`, but sampled."""
    how = {"temperature": temperature, "top_k": 0, "top_p": top_p}
    return _generate(hf, prompts, new, do_sample=True, **how)


@torch.inference_mode()
def _generate(hf: Any, prompts: Ids, new: int, **how: Any) -> list[list[int]]:
    ids, mask = padded([list(prompt) for prompt in prompts])
    made = hf.generate(
        input_ids=ids.to(hf.device),
        attention_mask=mask.to(hf.device),
        max_new_tokens=new,
        **how,
    )
    return [until_end(row) for row in made[:, ids.shape[1] :].tolist()]


@torch.inference_mode()
def with_states(
    hf: Any, prompts: Ids, new: int, direction_SDK: Tensor
) -> tuple[list[list[int]], list[Tensor]]:
    """`generate(output_hidden_states=True)`, then a product per step and site (no `mid`).

    The last block's state comes after the final norm: that is what transformers gives.
    """
    batch = [list(prompt) for prompt in prompts]
    ids, mask = padded(batch)
    made = hf.generate(
        input_ids=ids.to(hf.device),
        attention_mask=mask.to(hf.device),
        max_new_tokens=new,
        do_sample=False,
        output_hidden_states=True,
        return_dict_in_generate=True,
    )
    steps = [
        torch.stack([project(h, direction_SDK[2 * i]) for i, h in enumerate(step)], dim=2)
        for step in made.hidden_states
    ]
    texts: list[list[int]] = []
    scores: list[Tensor] = []
    per_text(batch, made.sequences, torch.cat(steps, dim=1).cpu(), texts, scores)
    return texts, scores


def fixed(prompts: Ids, rows: int, order: Sequence[int], work: Callable[[Ids], list[Any]]) -> Any:
    """`work` on fixed batches of `rows` prompts in some order; answers in the prompts' order."""
    made: list[Any] = [None] * len(prompts)
    for start in range(0, len(prompts), rows):
        part = order[start : start + rows]
        for at, answer in zip(part, work([prompts[i] for i in part]), strict=True):
            made[at] = answer
    return made


def sorted_order(prompts: Ids) -> list[int]:
    """Longest first."""
    return sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))


@torch.inference_mode()
def dropping(hf: Any, prompts: Ids, new: int) -> list[list[int]]:
    """One batch, from which rows that have ended are taken out: what `generate` does not do."""
    ids, mask = padded([list(prompt) for prompt in prompts])
    position = (mask.cumsum(1) - 1).clamp(min=0)
    cache = DynamicCache(config=hf.config)
    made: list[list[int]] = [[] for _ in prompts]
    live = list(range(len(prompts)))
    while live:
        out = hf(
            input_ids=ids,
            attention_mask=mask,
            position_ids=position,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        next_B = out.logits[:, -1].argmax(-1)
        for row, token in zip(live, next_B.tolist(), strict=True):
            made[row].append(token)
        keep = [at for at, row in enumerate(live) if made[row][-1] != EOS and len(made[row]) < new]
        if len(keep) < len(live):
            live = [live[at] for at in keep]
            kept = torch.tensor(keep, dtype=torch.int64)
            cache.batch_select_indices(kept)
            next_B, mask, position = next_B[kept], mask[kept], position[kept]
        ids, position = next_B[:, None], position[:, -1:] + 1
        mask = torch.cat([mask, mask.new_ones(len(live), 1)], dim=1)
    return made


@torch.inference_mode()
def bare_steps(hf: Any, prompts: Ids, new: int) -> list[list[int]]:
    """One prefill and `new` forwards, each followed by an argmax, with nothing around them."""
    ids, mask = padded([list(prompt) for prompt in prompts])
    width = ids.shape[1]
    position = (mask.cumsum(1) - 1).clamp(min=0)
    cache = DynamicCache(config=hf.config)
    made = []
    for step in range(new + 1):
        out = hf(
            input_ids=ids,
            attention_mask=mask,
            position_ids=position,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        if step == new:  # the last token's own forward, as ours
            break
        ids, position = out.logits[:, -1].argmax(-1)[:, None], position[:, -1:] + 1
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        made.append(ids)
    assert width
    return torch.cat(made, dim=1).tolist()


@torch.inference_mode()
def padded_states(hf: Any, texts: Ids, direction_SDK: Tensor) -> list[Tensor]:
    """A padded forward with `output_hidden_states`, projected: [T, L+1, K] of each text."""
    ids, mask = padded_right([list(text) for text in texts])
    out = hf(
        input_ids=ids,
        attention_mask=mask,
        output_hidden_states=True,
        use_cache=False,
        logits_to_keep=1,
    )
    parts = [project(h, direction_SDK[2 * i]) for i, h in enumerate(out.hidden_states)]
    score_BTSK = torch.stack(parts, dim=2)
    return [score_BTSK[row, : len(text)].clone() for row, text in enumerate(texts)]
