"""What the model says of each token it is fed, side by side, so that one copy takes all of it.

`Numbers` makes that of the taps' `Scores` and of a log probability.  A step of few rows multiplies
few states by all directions; where that costs more than need be, what a step gives still has the
states in it, and several steps are finished together.  This module does not know texts, nor
where the numbers go.

Legend: B rows, T tokens, N rows of several steps, S sites, K traits, D model width,
W = 1 + S + S * K + X numbers per token (own log probability of the next token, norms, scores, kept
states), Y = S * D + 1 + X before they are projected.
"""

from __future__ import annotations

import torch
from torch import Tensor

from traitscope.models import Scores

__all__ = ["Numbers"]

TOGETHER = 192  # rows of several steps that are finished at once, at most


class Numbers:
    """Of forwards that fill `scores` (None: nothing is tapped); `rows` is the most of one step."""

    def __init__(self, scores: Scores | None, rows: int) -> None:
        self.scores = scores
        # directions are read less often then, and on a CPU a step has fewer calls
        kind = "" if scores is None else scores.direction_SKD.device.type
        # what MPS writes to a part of a tensor may not arrive before torch 2.14
        pays = scores is not None and (kind == "cpu" or (scores.many and kind != "mps"))
        # the most lines that are finished at once; None: every step is finished by itself
        self.at_once = TOGETHER if pays and 2 * rows <= TOGETHER else None

    @property
    def logprob_at(self) -> int:
        """Where in what `of_step` gives the log probability stands."""
        if self.at_once is None or self.scores is None:
            return 0
        sites, _, width = self.scores.direction_SKD.shape
        return sites * width

    def of_forward(self, logprob_BT: Tensor) -> list[Tensor]:
        """[B, T, W] in parts, in order: side by side they would be a copy of much memory."""
        if self.scores is None:
            return [logprob_BT[..., None]]
        score_BTSK, norm_BTS = self.scores.read()
        return [logprob_BT[..., None], norm_BTS, score_BTSK.flatten(2), *self._kept(self.scores)]

    def of_step(self, logprob_B: Tensor) -> Tensor:
        """[B, W], or [B, Y] where steps are finished together; `finish` takes both."""
        logprob_B1 = logprob_B[:, None]
        if self.at_once is None or self.scores is None:
            parts = self.of_forward(logprob_B1)
        else:
            states = self.scores.states()
            if (
                states[0].dtype != torch.float32
            ):  # at once: joined to others they are widened singly
                states = [torch.cat(states, dim=2).float()]
            parts = [*states, logprob_B1[..., None], *self._kept(self.scores)]
        return torch.cat(parts, dim=2)[:, 0]

    def finish(self, step_NX: Tensor) -> Tensor:
        """[N, W] of what several steps gave, line under line."""
        if self.at_once is None or self.scores is None:
            return step_NX
        sites, traits, width = self.scores.direction_SKD.shape
        h_NSD = step_NX[:, : sites * width].view(len(step_NX), sites, width)
        rest_NX = step_NX[:, sites * width :]
        ends = [1, 1 + sites, 1 + sites + sites * traits]
        number_NW = step_NX.new_empty(len(step_NX), ends[-1] - 1 + rest_NX.shape[1])
        number_NW[:, :1] = rest_NX[:, :1]
        torch.linalg.vector_norm(h_NSD, dim=2, out=number_NW[:, ends[0] : ends[1]])
        score_NX = number_NW[:, ends[1] : ends[2]]
        self.scores.project(h_NSD, score_NX.view(len(step_NX), sites, traits))
        number_NW[:, ends[2] :] = rest_NX[:, 1:]
        return number_NW

    def _kept(self, scores: Scores) -> list[Tensor]:
        return [scores.kept_BTX()] if scores.keep else []
