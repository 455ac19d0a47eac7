"""steering-vectors: `record_activations` around transformers' own `generate` and forward.

Sites: the output of each block; it keeps every state (here without a copy) and projects nothing,
so that projecting comes after.
"""

from __future__ import annotations

from typing import Any

import torch
from steering_vectors import record_activations
from torch import Tensor

from benchmarks.peers.ways import Batches, padded, padded_right, per_text, project


def open_model(hf: Any, folder: str) -> Any:
    return hf


def sites(blocks: int) -> list[int]:
    return list(range(2, 2 * blocks + 1, 2))


def _project(recorded: dict[int, list[Tensor]], directions: Tensor) -> Tensor:
    parts = []
    for layer, states in sorted(recorded.items()):
        parts.append(project(torch.cat(states, dim=1), directions[2 * layer + 2]))
    return torch.stack(parts, dim=2)


@torch.inference_mode()
def generate(model: Any, batches: Batches, directions: Tensor, new: int) -> tuple[Any, Any]:
    texts: list[list[int]] = []
    scores: list[Tensor] = []
    for batch in batches:
        ids, mask = padded(batch)
        with record_activations(model, clone_activations=False) as recorded:
            made = model.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=new, do_sample=False
            )
        per_text(batch, made, _project(recorded, directions), texts, scores)
    return texts, scores


@torch.inference_mode()
def replay(model: Any, batches: Batches, directions: Tensor) -> tuple[Any, Any]:
    scores: list[Tensor] = []
    for batch in batches:
        ids, mask = padded_right(batch)
        with record_activations(model, clone_activations=False) as recorded:
            model.model(input_ids=ids, attention_mask=mask, use_cache=False)
        score = _project(recorded, directions)
        scores += [score[row, : len(text)].clone() for row, text in enumerate(batch)]
    return None, scores
