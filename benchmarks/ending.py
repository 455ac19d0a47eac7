"""Answers that end by themselves, in a model of random weights.

A text ends where a hash of a token and of its position says so: that token's last state is then
the end token's own row of the head, of whose logits that token's is by far the greatest.  That is a
property of the model, the same in every batch, so that all contestants make the same texts and none
knows their lengths beforehand.  Works on any transformers causal LM; imports torch alone, for the
peers' environments too.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch

__all__ = ["EOS", "Ending"]

EOS = 2


_LOGIT = 20.0  # of the end token there; a soft cap leaves it the greatest


class Ending:
    """Answers of `mean` tokens on average, geometrically distributed.  A context manager.

    The forward of the model without its head is wrapped: a hook would be taken off by pyvene.
    """

    def __init__(self, hf: Any, mean: int) -> None:
        self.hf, self.mean = hf, mean

    def __enter__(self) -> Ending:
        self._stack = self.hf.get_decoder()
        self._before = vars(self._stack).get("forward")
        self._stack.forward = self._ending(self._stack.forward)
        return self

    def __exit__(self, *_: object) -> None:
        del self._stack.forward
        if self._before is not None:
            self._stack.forward = self._before

    def _ending(self, own: Callable[..., Any]) -> Callable[..., Any]:
        row_D = self.hf.get_output_embeddings().weight.detach()[EOS]
        end_D = (_LOGIT * row_D.float() / row_D.float().square().sum()).to(row_D.dtype)

        @wraps(own)
        def forward(*args: Any, **kwargs: Any) -> Any:
            out = own(*args, **kwargs)
            id_BT, position_BT = kwargs.get("input_ids"), kwargs.get("position_ids")
            if (
                id_BT is not None and position_BT is not None
            ):  # a library's trial call may have none
                mixed_BT = id_BT * 2654435761 + position_BT * 40503 + 12345
                ends_BT = ((mixed_BT % 4294967291) >> 7) % self.mean == 0
                # not in place: a library may have kept it
                h_BTD = torch.where(ends_BT[..., None], end_D, out[0])
                out["last_hidden_state"] = h_BTD
            return out

        return forward
