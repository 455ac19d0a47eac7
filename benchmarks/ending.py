"""Answers that end by themselves, in a model of random weights.

A text ends where a hash of its newest token and that token's position says so: the end token's
logit is then raised above all others.  That is a property of the model, the same in every batch,
so that all contestants make the same texts and none knows their lengths beforehand.  Works on any
transformers causal LM; imports torch alone, for the peers' environments too.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["EOS", "Ending"]

EOS = 2


class Ending:
    """Answers of `mean` tokens on average, geometrically distributed.  A context manager.

    Looks at the newest token of each row; the logits of a prompt's own tokens are left alone.
    """

    def __init__(self, hf: Any, mean: int) -> None:
        self.hf, self.mean = hf, mean
        self._ends_B = torch.zeros(0, dtype=torch.bool)

    def __enter__(self) -> Ending:
        stack, head = self.hf.get_decoder(), self.hf.get_output_embeddings()
        self._handles = [
            stack.register_forward_pre_hook(self._look, with_kwargs=True),
            head.register_forward_hook(self._end),
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _look(self, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        id_B, position_B = kwargs["input_ids"][:, -1], kwargs["position_ids"][:, -1]
        mixed_B = (id_B * 2654435761 + position_B * 40503 + 12345) % 4294967291
        self._ends_B = (mixed_B >> 7) % self.mean == 0

    def _end(self, _: Any, __: Any, logits: Tensor) -> Tensor | None:
        if logits.numel() != len(self._ends_B) * logits.shape[-1]:
            return None
        raised = logits.clone()
        raised.view(-1, logits.shape[-1])[self._ends_B, EOS] = 1e4
        return raised
