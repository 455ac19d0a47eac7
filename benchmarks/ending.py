"""Answers that end by themselves, in a model of random weights.

A text ends where a hash of a token and of its position says so: the first number of its last state
is then set far above all others, and the head, where it meets such a state, raises the end
token's logit above all others.  That is a property of the model, the same in every batch, so that
all contestants make the same texts and none knows their lengths beforehand.  Works on any
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


_MARK = 3e4  # no state of ours comes near, and every dtype holds it


class Ending:
    """Answers of `mean` tokens on average, geometrically distributed.  A context manager.

    The model's own forwards are wrapped: a hook would be taken off by pyvene.
    """

    def __init__(self, hf: Any, mean: int) -> None:
        self.hf, self.mean = hf, mean

    def __enter__(self) -> Ending:
        self._stack, self._head = self.hf.get_decoder(), self.hf.get_output_embeddings()
        self._before = [(m, vars(m).get("forward")) for m in (self._stack, self._head)]
        self._stack.forward = self._marking(self._stack.forward)
        self._head.forward = self._ending(self._head.forward)
        return self

    def __exit__(self, *_: object) -> None:
        for module, forward in self._before:
            del module.forward
            if forward is not None:
                module.forward = forward

    def _marking(self, own: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(own)
        def forward(*args: Any, **kwargs: Any) -> Any:
            out = own(*args, **kwargs)
            id_BT, position_BT = kwargs.get("input_ids"), kwargs.get("position_ids")
            if (
                id_BT is not None and position_BT is not None
            ):  # a library's trial call may have none
                mixed_BT = id_BT * 2654435761 + position_BT * 40503 + 12345
                ends_BT = ((mixed_BT % 4294967291) >> 7) % self.mean == 0
                marked_BT = out[0][..., 0].masked_fill(ends_BT, _MARK)
                # not in place: a library may have kept it
                h_BTD = torch.cat((marked_BT[..., None], out[0][..., 1:]), -1)
                out["last_hidden_state"] = h_BTD
            return out

        return forward

    def _ending(self, own: Callable[..., Tensor]) -> Callable[..., Tensor]:
        @wraps(own)
        def forward(h: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            marked = h[..., 0] == _MARK
            h = torch.cat((h[..., :1].masked_fill(marked[..., None], 0.0), h[..., 1:]), -1)
            logits = own(h, *args, **kwargs)
            logits[..., EOS].masked_fill_(marked, 1e4)
            return logits

        return forward
