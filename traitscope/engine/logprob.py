"""The model's own log probabilities, without a tensor of all tokens by the whole vocabulary.

Legend: N tokens, D model width, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from traitscope.models import Anatomy

__all__ = ["at_once", "own_logprob"]

# the tokens, and about the bytes, of logits that exist at once: of more, the memory is fetched anew
# from the system every time
LEAST, BYTES = 128, 16 << 20
_SLICE = 16  # tokens: on a CPU their logits stay in its cache until they are done with
# on other devices, whose products want many rows; `sizing.py` counts so many tokens
AWAY, BYTES_AWAY = 512, 256 << 20


def own_logprob(
    anatomy: Anatomy, h_ND: Tensor, next_N: Tensor, head_NV: Tensor | None = None
) -> Tensor:
    """ln p of each next token [N], from the final-normed states of the tokens before them.

    `head_NV` is what the head gave of the first of them, if somebody has it already; it is
    overwritten.
    """
    device = h_ND.device
    slices = _SLICE if device.type == "cpu" else AWAY
    logprob_N = torch.empty(len(next_N), device=device)
    done = 0
    while done < len(next_N):
        if head_NV is None:
            head_NV = anatomy.head_of(h_ND[done : done + at_once(anatomy, device)])
        for first in range(0, len(head_NV), slices):
            logits_NV = anatomy.scaled(head_NV[first : first + slices])
            here = slice(done + first, done + first + len(logits_NV))
            logprob_N[here] = _of_next(logits_NV, next_N[here])
        done, head_NV = done + len(head_NV), None
    return logprob_N


def at_once(anatomy: Anatomy, device: torch.device) -> int:
    """Of how many tokens logits exist at once."""
    token = 4 * int(anatomy.config.vocab_size)
    if device.type == "cpu":
        return max(LEAST, BYTES // token)
    return max(LEAST, min(AWAY, BYTES_AWAY // token))


def _of_next(logits_NV: Tensor, next_N: Tensor) -> Tensor:
    """ln p of a token in each row [N]; on a CPU the logits are overwritten."""
    if logits_NV.device.type != "cpu":  # one kernel there
        return logits_NV.log_softmax(dim=-1).gather(1, next_N[:, None])[:, 0]
    most_N1 = logits_NV.amax(dim=-1, keepdim=True)
    over_N = logits_NV.gather(1, next_N[:, None])[:, 0] - most_N1[:, 0]
    return over_N - logits_NV.sub_(most_N1).exp_().sum(dim=-1).log_()
