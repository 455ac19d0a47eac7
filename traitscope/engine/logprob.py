"""The model's own log probabilities, without a tensor of all tokens by the whole vocabulary.

Legend: N tokens, D model width, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from traitscope.models import Anatomy

__all__ = ["own_logprob"]

PIECE = 512  # tokens whose logits exist at once


def own_logprob(anatomy: Anatomy, h_ND: Tensor, next_N: Tensor) -> Tensor:
    """ln p of each next token [N], from the final-normed states of the tokens before them."""
    parts = [torch.empty(0, device=h_ND.device)]
    for start in range(0, len(next_N), PIECE):
        logits_NV = anatomy.logits(h_ND[start : start + PIECE])
        picked_N = logits_NV.gather(1, next_N[start : start + PIECE, None])[:, 0]
        parts.append(picked_N - logits_NV.logsumexp(dim=-1))
    return torch.cat(parts)
