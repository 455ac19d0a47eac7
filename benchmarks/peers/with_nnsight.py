"""nnsight: a trace over a transformers model, projections within the trace.

Sites: the input of block 0, the input of the norm before each MLP (Gemma-2's name of it, or
Llama's), the output of each block: the same 2L+1 as ours.  `generate` reads them at every step;
replay is one trace per batch.
"""

from __future__ import annotations

from typing import Any

import nnsight
import torch
from nnsight import TransformersModel
from torch import Tensor
from transformers import AutoTokenizer

from benchmarks.peers.ways import Batches, padded, padded_right, per_text, project


def open_model(hf: Any, folder: str) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return TransformersModel(hf, task="text-generation", tokenizer=tokenizer)


def sites(blocks: int) -> list[int]:
    return list(range(2 * blocks + 1))


def _mid(block: Any) -> Any:
    gemma = "pre_feedforward_layernorm"
    return getattr(block, gemma if hasattr(block, gemma) else "post_attention_layernorm")


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
                    parts = [project(model.model.layers[0].input, directions[0])]
                    for i, block in enumerate(model.model.layers):
                        parts.append(project(_mid(block).input, directions[2 * i + 1]))
                        parts.append(project(block.output, directions[2 * i + 2]))
                    steps.append(torch.stack(parts, dim=2))
            with tracer.invoke():  # of its own: nothing runs after an unbounded loop
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
            parts.append(project(model.model.layers[0].input, directions[0]))
            for i, block in enumerate(model.model.layers):
                parts.append(project(_mid(block).input, directions[2 * i + 1]))
                parts.append(project(block.output, directions[2 * i + 2]))
        score = torch.stack(list(parts), dim=2)
        scores += [score[row, : len(text)].clone() for row, text in enumerate(batch)]
    return None, scores
