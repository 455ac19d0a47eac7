"""nnterp: nnsight with one naming of all architectures; projections within the trace.

Sites: the input of block 0 and the output of each block, as its `layers_input` and `layers_output`
give them; the residual after attention has no name there.
"""

from __future__ import annotations

from typing import Any

import nnsight
import torch
from nnterp import StandardizedTransformer
from torch import Tensor
from transformers import AutoTokenizer

from benchmarks.peers.ways import Batches, padded, padded_right, per_text, project


def open_model(hf: Any, folder: str) -> Any:
    return StandardizedTransformer(hf, tokenizer=AutoTokenizer.from_pretrained(folder))


def sites(blocks: int) -> list[int]:
    return list(range(0, 2 * blocks + 1, 2))


@torch.inference_mode()
def generate(model: Any, batches: Batches, directions: Tensor, new: int) -> tuple[Any, Any]:
    texts: list[list[int]] = []
    scores: list[Tensor] = []
    for batch in batches:
        ids, mask = padded(batch)
        given = {"input_ids": ids, "attention_mask": mask}
        with model.generate(max_new_tokens=new, do_sample=False) as tracer:
            steps = nnsight.save([])
            with tracer.invoke(given):
                for _ in tracer.iter[:]:
                    parts = [project(model.layers_input[0], directions[0])]
                    for i in range(model.num_layers):
                        parts.append(project(model.layers_output[i], directions[2 * i + 2]))
                    steps.append(torch.stack(parts, dim=2))
            with tracer.invoke():
                made = tracer.result.save()
        per_text(batch, made, torch.cat(list(steps), dim=1), texts, scores)
    return texts, scores


@torch.inference_mode()
def replay(model: Any, batches: Batches, directions: Tensor) -> tuple[Any, Any]:
    scores: list[Tensor] = []
    for batch in batches:
        ids, mask = padded_right(batch)
        with model.trace({"input_ids": ids, "attention_mask": mask}):
            parts = nnsight.save([])
            parts.append(project(model.layers_input[0], directions[0]))
            for i in range(model.num_layers):
                parts.append(project(model.layers_output[i], directions[2 * i + 2]))
        score = torch.stack(list(parts), dim=2)
        scores += [score[row, : len(text)].clone() for row, text in enumerate(batch)]
    return None, scores
