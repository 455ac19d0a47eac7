"""The model's own log probabilities, without a tensor of all tokens by the whole vocabulary.

Legend: N tokens, D model width, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from traitscope.models import Anatomy

__all__ = ["own_logprob"]

LEAST, BYTES = 128, 32 << 20  # the tokens, and about the bytes, of logits that exist at once
_SLICE = 16  # tokens: on a CPU their logits stay in its cache until they are done with


def own_logprob(anatomy: Anatomy, h_ND: Tensor, next_N: Tensor) -> Tensor:
    """ln p of each next token [N], from the final-normed states of the tokens before them."""
    device = h_ND.device
    piece = max(LEAST, BYTES // (4 * int(anatomy.config.vocab_size)))
    slices = _SLICE if device.type == "cpu" else piece
    logprob_N = torch.empty(len(next_N), device=device)
    for start in range(0, len(next_N), piece):
        head_NV = anatomy.head(h_ND[start : start + piece]).to(device)
        for first in range(0, len(head_NV), slices):
            logits_NV = anatomy.of_head(head_NV[first : first + slices])
            here = slice(start + first, start + first + len(logits_NV))
            own_N = logits_NV.gather(1, next_N[here, None])[:, 0]
            most_N1 = logits_NV.amax(dim=-1, keepdim=True)  # `logsumexp`, in place
            own_N -= most_N1[:, 0]
            logprob_N[here] = own_N - logits_NV.sub_(most_N1).exp_().sum(dim=-1).log_()
    return logprob_N
