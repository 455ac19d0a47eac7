"""From logits to the next token, the same whatever the batch.

Temperature, top-k and top-p leave a set of candidates; Gumbel noise on their log-weights picks
one (argmax of log p + G is a draw from p; Gumbel 1954, Maddison et al. 2014, arXiv 1411.0030).
The noise of a candidate is a pure function of (seed, prompt id, sample, position, token id), a
counter hash, so that neither batch size nor order nor rounding of the others can change a text.
This module does not know caches, rows' history or when a text ends.

Legend: B rows, V vocabulary, C candidates.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from traitscope.core import Generation, GenerationConfig

__all__ = ["gap", "gumbel", "noise_key", "pick"]

# SplitMix64 (Steele, Lea, Flood 2014), on int64: products wrap, shifts are made logical
_GOLDEN = 0x9E3779B97F4A7C15 - 2**64
_MIX_1 = 0xBF58476D1CE4E5B9 - 2**64
_MIX_2 = 0x94D049BB133111EB - 2**64
_FIRST_CANDIDATES = 256


def noise_key(seed: int, generation: Generation) -> int:
    """The 63-bit key of one text's noise."""
    raw = f"{seed}/{generation.prompt_id}/{generation.sample}".encode()
    return int.from_bytes(hashlib.sha256(raw).digest()[:8], "little") >> 1


def _mix(x: Tensor) -> Tensor:
    x = (x ^ ((x >> 30) & 0x3FFFFFFFF)) * _MIX_1
    x = (x ^ ((x >> 27) & 0x1FFFFFFFFF)) * _MIX_2
    return x ^ ((x >> 31) & 0x1FFFFFFFF)


def gumbel(key_B: Tensor, position_B: Tensor, token_BC: Tensor) -> Tensor:
    """Standard Gumbel noise [B, C] in float32, a function of its three int64 arguments alone.

    32 random bits make w in (0, 1); -log(-log(1 - w)) keeps the large values exact, where w is
    small.
    """
    row_B = _mix(key_B + position_B * _GOLDEN)
    bits_BC = _mix(row_B[:, None] + token_BC * _GOLDEN) & 0xFFFFFFFF
    w_BC = ((bits_BC.float() + 0.5) * 2.0**-32).clamp_max(1 - 2.0**-24)
    return -torch.log(-torch.log1p(-w_BC))


def pick(
    logits_BV: Tensor,
    key_B: Tensor,
    position_B: Tensor,
    config: GenerationConfig,
    ask: bool = True,
) -> tuple[Tensor, Tensor]:
    """The next token [B] and its log probability [B] under the model itself.

    `logits_BV` float32; `position_B` is the position that the new token will have.  The log
    probability is natural, at temperature 1 with nothing truncated, whatever was used to draw.
    `ask` False never waits for the host: a nucleus is then taken from a full sort at once.
    """
    logprob_BV = torch.log_softmax(logits_BV, dim=-1)  # one pass: half of what logsumexp takes
    if config.temperature == 0:
        token_B = logits_BV.argmax(dim=-1)
    else:
        token_B = _draw(logprob_BV, key_B, position_B, config, ask)
    return token_B, logprob_BV.gather(1, token_B[:, None])[:, 0]


def gap(logits_V: Tensor, generation: Generation, position: int, config: GenerationConfig) -> float:
    """How far apart the two best are of what the token at `position` is the argmax of."""
    best = logits_V.float()
    if config.temperature > 0:
        key_B = torch.tensor([noise_key(config.seed, generation)], device=best.device)
        position_B = torch.tensor([position], device=best.device)
        logprob_BV = torch.log_softmax(best, dim=-1)[None]
        best = _noisy(logprob_BV, key_B, position_B, config)[0][0]
    first, second = best.topk(2).values.tolist()
    return float(first - second)


def _draw(
    logprob_BV: Tensor, key_B: Tensor, position_B: Tensor, config: GenerationConfig, ask: bool
) -> Tensor:
    noisy_BC, token_BC = _noisy(logprob_BV, key_B, position_B, config, ask)
    return token_BC.gather(1, noisy_BC.argmax(dim=-1, keepdim=True))[:, 0]


def _noisy(
    logprob_BV: Tensor,
    key_B: Tensor,
    position_B: Tensor,
    config: GenerationConfig,
    ask: bool = True,
) -> tuple[Tensor, Tensor]:
    """Perturbed log-weights and ids [B, C] of the candidates."""
    vocabulary = logprob_BV.shape[1]
    top_k = min(config.top_k or vocabulary, vocabulary)
    if top_k == vocabulary and config.top_p >= 1.0:
        every_BV = torch.arange(vocabulary, device=logprob_BV.device).expand_as(logprob_BV)
        noisy_BV = logprob_BV / config.temperature + gumbel(key_B, position_B, every_BV)
        return noisy_BV, every_BV
    weight_BV = logprob_BV / config.temperature
    weight_BC, token_BC = _candidates(weight_BV, top_k, config.top_p, ask)
    return weight_BC + gumbel(key_B, position_B, token_BC), token_BC


def _candidates(
    weight_BV: Tensor, top_k: int, top_p: float, ask: bool = True
) -> tuple[Tensor, Tensor]:
    """Log-weights and ids [B, C], best first, -inf where truncated.

    The token that crosses `top_p` is kept.  top_p is taken of what top_k leaves, as transformers
    does.  The nucleus is looked for among the best few, and in a full sort only where they do
    not reach it.
    """
    vocabulary = weight_BV.shape[1]
    width = top_k if top_k < vocabulary else min(_FIRST_CANDIDATES, vocabulary)
    best_BC, token_BC = weight_BV.topk(width, dim=-1)
    if top_p >= 1.0:
        return best_BC, token_BC
    pool_B1 = (best_BC if top_k < vocabulary else weight_BV).logsumexp(dim=-1, keepdim=True)
    before_BC = _mass_before(best_BC, pool_B1)
    enough = width in (vocabulary, top_k)
    if not enough and not (ask and bool((before_BC[:, -1] >= top_p).all())):
        best_BC, token_BC = weight_BV.sort(dim=-1, descending=True, stable=True)
        before_BC = _mass_before(best_BC, pool_B1)
    return best_BC.masked_fill(before_BC >= top_p, float("-inf")), token_BC


def _mass_before(best_BC: Tensor, pool_B1: Tensor) -> Tensor:
    """The probability of all better candidates; to the bit the same however many stand behind,
    so that a row keeps its nucleus when a neighbour needs the full sort."""
    mass_BC = (best_BC - pool_B1).exp()
    return mass_BC.cumsum(dim=-1) - mass_BC
