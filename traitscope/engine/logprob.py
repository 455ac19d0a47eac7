"""The model's own log probabilities, without a tensor of all tokens by the whole vocabulary.

Legend: N tokens, D model width, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from traitscope.models import Anatomy

__all__ = ["own_logprob"]

LEAST, BYTES = 128, 16 << 20  # the tokens, and about the bytes, of logits that exist at once


def own_logprob(anatomy: Anatomy, h_ND: Tensor, next_N: Tensor) -> Tensor:
    """ln p of each next token [N], from the final-normed states of the tokens before them."""
    piece = max(LEAST, BYTES // (4 * int(anatomy.config.vocab_size)))
    parts = [torch.empty(0, device=h_ND.device)]
    for start in range(0, len(next_N), piece):
        logprob_NV = anatomy.logits(h_ND[start : start + piece]).log_softmax(dim=-1)
        parts.append(logprob_NV.gather(1, next_N[start : start + piece, None])[:, 0])
    return torch.cat(parts)
