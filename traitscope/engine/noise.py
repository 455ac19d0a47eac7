"""The dice: Gumbel noise that is a pure function of what it is for.

The noise of a candidate depends on (seed, prompt id, sample, position, token id) alone, by a
counter hash, so that neither batch size nor order nor rounding of the others can change a text.
On a CPU the noise of a whole vocabulary is made and used piece by piece, in memory that stays in
the processor's caches; the numbers are the same.  This module does not know what is truncated.

Legend: B rows, V vocabulary, C candidates.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from traitscope.core import Generation

__all__ = ["best_of_all", "gumbel", "noise_key"]

# SplitMix64 (Steele, Lea, Flood 2014), on int64: products wrap, shifts are made logical
_GOLDEN = 0x9E3779B97F4A7C15 - 2**64
_MIX_1 = 0xBF58476D1CE4E5B9 - 2**64
_MIX_2 = 0x94D049BB133111EB - 2**64
_PIECE = 1 << 16  # candidates at once for each thread: three arrays of them stay in its cache


def noise_key(seed: int, generation: Generation) -> int:
    """The 63-bit key of one text's noise."""
    raw = f"{seed}/{generation.prompt_id}/{generation.sample}".encode()
    return int.from_bytes(hashlib.sha256(raw).digest()[:8], "little") >> 1


def gumbel(key_B: Tensor, position_B: Tensor, token_BC: Tensor) -> Tensor:
    """Standard Gumbel noise [B, C] in float32, a function of its three int64 arguments alone; the
    candidates are [B, C], or [1, C] where all rows have the same.

    32 random bits make w in (0, 1); -log(-log(1 - w)) keeps the large values exact, where w is
    small.
    """
    row_B = _mix(key_B + position_B * _GOLDEN)
    bits_BC = _mix(row_B[:, None] + token_BC * _GOLDEN) & 0xFFFFFFFF
    w_BC = ((bits_BC.float() + 0.5) * 2.0**-32).clamp_max(1 - 2.0**-24)
    return -torch.log(-torch.log1p(-w_BC))


def best_of_all(
    logprob_BV: Tensor, key_B: Tensor, position_B: Tensor, temperature: float
) -> Tensor:
    """The argmax [B] of `logprob_BV / temperature` and the noise of every token, on a CPU."""
    rows, vocabulary = logprob_BV.shape
    row_B1 = _mix(key_B + position_B * _GOLDEN)[:, None]
    width = min(vocabulary, max(1, _PIECE * torch.get_num_threads() // rows))
    step_C = torch.arange(width) * _GOLDEN
    bits_BC, beside_BC = torch.empty(2, rows, width, dtype=torch.int64)
    noise_BC, weight_BC = torch.empty(2, rows, width)
    token_B = torch.zeros(rows, dtype=torch.int64)
    best_B = torch.full((rows,), float("-inf"))
    for first in range(0, vocabulary, width):
        n = min(width, vocabulary - first)
        bits, noise, weight = bits_BC[:, :n], noise_BC[:, :n], weight_BC[:, :n]
        torch.add(row_B1 + _wrapped(first * _GOLDEN), step_C[:n], out=bits)
        _mix_(bits, beside_BC[:, :n])
        noise.copy_(bits.bitwise_and_(0xFFFFFFFF))  # `gumbel`, in place, but for its last sign
        noise.add_(0.5).mul_(2.0**-32).clamp_max_(1 - 2.0**-24).neg_().log1p_().neg_().log_()
        torch.div(logprob_BV[:, first : first + n], temperature, out=weight)
        here_B, place_B = weight.sub_(noise).max(dim=-1)
        token_B = torch.where(here_B > best_B, place_B + first, token_B)
        best_B = torch.maximum(best_B, here_B)
    return token_B


def _mix(x: Tensor) -> Tensor:
    x = (x ^ ((x >> 30) & 0x3FFFFFFFF)) * _MIX_1
    x = (x ^ ((x >> 27) & 0x1FFFFFFFFF)) * _MIX_2
    return x ^ ((x >> 31) & 0x1FFFFFFFF)


def _mix_(x: Tensor, beside: Tensor) -> None:
    """`_mix` in place."""
    for shift, low, factor in ((30, 0x3FFFFFFFF, _MIX_1), (27, 0x1FFFFFFFFF, _MIX_2)):
        x ^= torch.bitwise_right_shift(x, shift, out=beside).bitwise_and_(low)
        x *= factor
    x ^= torch.bitwise_right_shift(x, 31, out=beside).bitwise_and_(0x1FFFFFFFF)


def _wrapped(value: int) -> int:
    """As int64 arithmetic has it."""
    return (value + 2**63) % 2**64 - 2**63
