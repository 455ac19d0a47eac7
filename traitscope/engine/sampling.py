"""From logits to the next token, the same whatever the batch.

Temperature, top-k and top-p leave a set of candidates; Gumbel noise on their log-weights picks
one (argmax of log p + G is a draw from p; Gumbel 1954, Maddison et al. 2014, arXiv 1411.0030).
Candidates are those that a stable sort would give, equal ones by their ids, however they are
found: in bfloat16 many logits are equal.  This module does not know caches, rows' history or
when a text ends.

Legend: B rows, V vocabulary, C candidates.
"""

from __future__ import annotations

import torch
from torch import Tensor

from traitscope.core import Generation, GenerationConfig
from traitscope.engine.noise import best_of_all, gumbel, noise_key

__all__ = ["gap", "pick"]

_FEW = 256  # candidates, which hold most nuclei


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
        token_B = _argmax(logits_BV)
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
        weight_BC, token_BC = _candidates(logprob_BV / config.temperature, config, ask=False)
        best = (weight_BC + gumbel(key_B, position_B, token_BC))[0]
    first, second = best.topk(2).values.tolist()
    return float(first - second)


def _argmax(logits_BV: Tensor) -> Tensor:
    """The first of the largest [B]; by numpy where it can, which takes a seventh of the time."""
    if logits_BV.device.type != "cpu" or torch.compiler.is_compiling():
        return logits_BV.argmax(dim=-1)
    return torch.from_numpy(logits_BV.numpy().argmax(axis=-1))


def _draw(
    logprob_BV: Tensor, key_B: Tensor, position_B: Tensor, config: GenerationConfig, ask: bool
) -> Tensor:
    if ask and not _cuts_k(config, logprob_BV):
        if config.top_p < 1.0:
            return _draw_from_nucleus(logprob_BV, key_B, position_B, config)
        return _best_of_all(logprob_BV, key_B, position_B, config)
    return _noisiest(*_candidates(logprob_BV / config.temperature, config, ask), key_B, position_B)


def _draw_from_nucleus(
    logprob_BV: Tensor, key_B: Tensor, position_B: Tensor, config: GenerationConfig
) -> Tensor:
    """Each row by its best few candidates, where they reach `top_p`; else without sorting.

    Then the winner among all tokens is the nucleus's if it is within.  If not, no token that
    comes after it is either: the next is the winner among those before it.
    """
    top_p, vocabulary = config.top_p, logprob_BV.shape[1]
    weight_BV = logprob_BV / config.temperature
    pool_B1 = weight_BV.logsumexp(dim=-1, keepdim=True)
    best_BC, token_BC = _ordered(*weight_BV.topk(min(_FEW, vocabulary), dim=-1))
    beyond_BC = _mass_before(best_BC, pool_B1) >= top_p
    few_BC = best_BC.masked_fill(beyond_BC, float("-inf"))
    token_B = _noisiest(few_BC, token_BC, key_B, position_B)
    if vocabulary <= _FEW:
        return token_B
    # others may be as good as the last of the few, and come before it
    reached_B = (beyond_BC | (best_BC > best_BC[:, -1:])).all(dim=-1)
    live_R = (~reached_B).nonzero()[:, 0]
    weight_RV, left_RV, pool_R1 = weight_BV[live_R], logprob_BV[live_R], pool_B1[live_R]
    id_V = torch.arange(vocabulary, device=weight_BV.device)
    while len(live_R):
        winner_R = _best_of_all(left_RV, key_B[live_R], position_B[live_R], config)
        token_B[live_R] = winner_R
        won_R1 = weight_RV.gather(1, winner_R[:, None])
        before_RV = (weight_RV > won_R1) | ((weight_RV == won_R1) & (id_V < winner_R[:, None]))
        mass_RV = (weight_RV - pool_R1).exp_().mul_(before_RV)
        out_R = mass_RV.sum(dim=-1, dtype=torch.float64) >= top_p
        left_RV = left_RV.masked_fill_(~before_RV, float("-inf"))[out_R]
        live_R, weight_RV, pool_R1 = live_R[out_R], weight_RV[out_R], pool_R1[out_R]
    return token_B


def _best_of_all(
    logprob_BV: Tensor, key_B: Tensor, position_B: Tensor, config: GenerationConfig
) -> Tensor:
    if logprob_BV.device.type == "cpu":
        return best_of_all(logprob_BV, key_B, position_B, config.temperature)
    return _noisiest(*_every(logprob_BV / config.temperature), key_B, position_B)


def _noisiest(weight_BC: Tensor, token_BC: Tensor, key_B: Tensor, position_B: Tensor) -> Tensor:
    """Of candidates [B, C], or [1, C] where all rows have the same."""
    noisy_BC = weight_BC + gumbel(key_B, position_B, token_BC)
    return token_BC.expand_as(noisy_BC).gather(1, noisy_BC.argmax(dim=-1, keepdim=True))[:, 0]


def _cuts_k(config: GenerationConfig, logprob_BV: Tensor) -> bool:
    return 0 < config.top_k < logprob_BV.shape[1]


def _every(weight_BV: Tensor) -> tuple[Tensor, Tensor]:
    return weight_BV, torch.arange(weight_BV.shape[1], device=weight_BV.device)[None]


def _candidates(weight_BV: Tensor, config: GenerationConfig, ask: bool) -> tuple[Tensor, Tensor]:
    """Log-weights and ids [B, C], -inf where truncated.

    The token that crosses `top_p` is kept.  top_p is taken of what top_k leaves, as transformers
    does.
    """
    if _cuts_k(config, weight_BV):
        best_BC, token_BC = _best(weight_BV, config.top_k, ask)
        if config.top_p < 1.0:
            best_BC, token_BC = _ordered(best_BC, token_BC)
    elif config.top_p < 1.0:
        best_BC, token_BC = weight_BV.sort(dim=-1, descending=True, stable=True)
    else:
        return _every(weight_BV)
    if config.top_p < 1.0:
        before_BC = _mass_before(best_BC, best_BC.logsumexp(dim=-1, keepdim=True))
        best_BC = best_BC.masked_fill(before_BC >= config.top_p, float("-inf"))
    return best_BC, token_BC


def _best(weight_BV: Tensor, width: int, ask: bool) -> tuple[Tensor, Tensor]:
    """The best `width` < V of each row and their ids, of equal ones the lowest ids.

    A CPU takes any of those that equal the last, which is mended; CUDA takes the lowest ids.
    """
    if not ask:
        return weight_BV.topk(width, dim=-1)
    best_BC, token_BC = weight_BV.topk(width + 1, dim=-1)
    best_BC, token_BC, next_B = best_BC[:, :-1], token_BC[:, :-1], best_BC[:, -1]
    for row in (next_B == best_BC[:, -1]).nonzero()[:, 0].tolist():
        places = (best_BC[row] == next_B[row]).nonzero()[:, 0]
        token_BC[row, places] = (weight_BV[row] == next_B[row]).nonzero()[: len(places), 0]
    return best_BC, token_BC


def _ordered(best_BC: Tensor, token_BC: Tensor) -> tuple[Tensor, Tensor]:
    """Best first, equal ones by id."""
    token_BC, by_id_BC = token_BC.sort(dim=-1)
    best_BC, order_BC = best_BC.gather(1, by_id_BC).sort(dim=-1, descending=True, stable=True)
    return best_BC, token_BC.gather(1, order_BC)


def _mass_before(best_BC: Tensor, pool_B1: Tensor) -> Tensor:
    """The probability of all better candidates, of best ones first."""
    mass_BC = (best_BC - pool_B1).exp()
    return mass_BC.cumsum(dim=-1) - mass_BC
