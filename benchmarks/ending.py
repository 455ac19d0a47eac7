"""Answers that end by themselves, in a model of random weights.

A text ends where a hash of its newest token and that token's position says so: the end token's
logit is then raised above all others.  That is a property of the model, the same in every batch,
so that all contestants make the same texts and none knows their lengths beforehand.  Works on any
transformers causal LM; imports torch alone, for the peers' environments too.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor

__all__ = ["EOS", "Ending"]

EOS = 2


class Ending:
    """Answers of `mean` tokens on average, geometrically distributed.  A context manager.

    Looks at the newest token of each row; the logits of a prompt's own tokens are left alone.
    The model's own forwards are wrapped: a hook would be taken off by pyvene.
    """

    def __init__(self, hf: Any, mean: int) -> None:
        self.hf, self.mean = hf, mean
        self._ends_B = torch.zeros(0, dtype=torch.bool)

    def __enter__(self) -> Ending:
        self._stack, self._head = self.hf.get_decoder(), self.hf.get_output_embeddings()
        self._before = [(m, vars(m).get("forward")) for m in (self._stack, self._head)]
        self._stack.forward = self._looking(self._stack.forward)
        self._head.forward = self._ending(self._head.forward)
        return self

    def __exit__(self, *_: object) -> None:
        for module, forward in self._before:
            del module.forward
            if forward is not None:
                module.forward = forward

    def _looking(self, own: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(own)
        def forward(*args: Any, **kwargs: Any) -> Any:
            id_BT, position_BT = kwargs.get("input_ids"), kwargs.get("position_ids")
            if (
                id_BT is not None and position_BT is not None
            ):  # a library's trial call may have none
                mixed_B = id_BT[:, -1] * 2654435761 + position_BT[:, -1] * 40503 + 12345
                self._ends_B = ((mixed_B % 4294967291) >> 7) % self.mean == 0
            return own(*args, **kwargs)

        return forward

    def _ending(self, own: Callable[..., Tensor]) -> Callable[..., Tensor]:
        @wraps(own)
        def forward(*args: Any, **kwargs: Any) -> Tensor:
            logits = own(*args, **kwargs)
            if logits.numel() != len(self._ends_B) * logits.shape[-1]:
                return logits
            raised = logits.clone()
            raised.view(-1, logits.shape[-1])[self._ends_B, EOS] = 1e4
            return raised

        return forward
