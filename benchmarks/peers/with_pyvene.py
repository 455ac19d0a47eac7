"""pyvene: collecting interventions at every site, each of which projects what it collects.

Sites: the input of block 0, the input of the norm before each MLP (Gemma-2's name of it, or
Llama's), the output of each block: the same 2L+1 as ours.  `generate` collects at every step, the
prompt included; replay is one plain forward.
"""

from __future__ import annotations

from typing import Any

import pyvene
import torch
from torch import Tensor

from benchmarks.peers.ways import Batches, padded, padded_right, per_text, project


class Projected(pyvene.CollectIntervention):
    """Collects scores in place of states."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.direction_DK = torch.empty(0)

    def forward(self, base: Tensor, source: Any = None, subspaces: Any = None, **_: Any) -> Tensor:
        return project(base, self.direction_DK)


def open_model(hf: Any, folder: str) -> Any:
    blocks = hf.model.layers
    gemma = hasattr(blocks[0], "pre_feedforward_layernorm")
    norm = "pre_feedforward_layernorm" if gemma else "post_attention_layernorm"
    places = ["model.layers[0].input"]
    for i in range(len(blocks)):
        places += [f"model.layers[{i}].{norm}.input", f"model.layers[{i}].output"]
    return pyvene.IntervenableModel(
        [{"component": place, "intervention": Projected(keep_last_dim=True)} for place in places],
        model=hf,
    )


def sites(blocks: int) -> list[int]:
    return list(range(2 * blocks + 1))


def _aim(model: Any, directions: Tensor) -> None:
    for site, key in enumerate(model.sorted_keys):
        model.interventions[key].direction_DK = directions[site]


@torch.inference_mode()
def generate(model: Any, batches: Batches, directions: Tensor, new: int) -> tuple[Any, Any]:
    texts: list[list[int]] = []
    scores: list[Tensor] = []
    _aim(model, directions)
    for batch in batches:
        ids, mask = padded(batch)
        (_, collected), made = model.generate(
            {"input_ids": ids, "attention_mask": mask},
            intervene_on_prompt=True,
            max_new_tokens=new,
            do_sample=False,
        )
        per_site = len(collected) // len(model.sorted_keys)
        parts = [
            torch.cat(collected[start : start + per_site], dim=1)
            for start in range(0, len(collected), per_site)
        ]
        per_text(batch, made, torch.stack(parts, dim=2), texts, scores)
    return texts, scores


@torch.inference_mode()
def replay(model: Any, batches: Batches, directions: Tensor) -> tuple[Any, Any]:
    scores: list[Tensor] = []
    _aim(model, directions)
    for batch in batches:
        ids, mask = padded_right(batch)
        (_, collected), _ = model({"input_ids": ids, "attention_mask": mask})
        score = torch.stack(collected, dim=2)
        scores += [score[row, : len(text)].clone() for row, text in enumerate(batch)]
    return None, scores
