"""Texts that exist already, in one forward each: length-sorted batches, no cache.

Texts of a batch are aligned at position 0 and padded on the right: a causal model never looks
there, so no mask is needed and padding cannot change a number.  What is kept of a forward is the
sink's business.  Logits are made on request, for real tokens only, a few at a time.  This module
does not know where texts come from.

Legend: B rows, T tokens, S sites, D model width, K traits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from traitscope.core import Float32
from traitscope.engine.joining import forward_tokens
from traitscope.engine.lean import lean
from traitscope.engine.logprob import own_logprob
from traitscope.engine.undisturbed import undisturbed
from traitscope.errors import memory_errors
from traitscope.models import Means, Model, Scores, Taps

__all__ = ["Scored", "mean_states", "score_texts"]


@dataclass(frozen=True)
class Scored:
    """The numbers of text `index`: score [T, S, K], norm [T, S], logprob [T] (NaN at position 0,
    and everywhere when it was not asked for), kept [T, sites kept, D] or None.

    `batch` counts from 0, `seconds` is the wall time of that batch.
    """

    index: int
    score: Float32
    norm: Float32
    logprob: Float32
    kept: Float32 | None
    batch: int
    seconds: float


def score_texts(
    model: Model,
    texts: Sequence[Sequence[int]],
    direction_SDK: Float32,
    *,
    batch_tokens: int | None = None,
    logprobs: bool = False,
    keep: Sequence[int] = (),
    own: bool = False,
) -> Generator[Scored, None, None]:
    """Yield the numbers of every text, longest first.

    `direction_SDK` [S, D, K] unit float32 (K may be 0).  `logprobs` takes the model's own log
    probability of each token but the first; `keep`: indices of the sites whose states come too.
    `own` reads them as the model's own code does, with nothing made cheaper: the reference.
    """
    direction = torch.from_numpy(np.ascontiguousarray(direction_SDK)).to(model.device)
    sink = Scores(direction, keep)
    around = undisturbed(model) if own else lean(model, steps=False)
    with memory_errors(), around, Taps(model.anatomy, sink):
        for batch, chosen in enumerate(_batches(texts, batch_tokens or forward_tokens(model))):
            began = time.perf_counter()
            rows = [texts[i] for i in chosen]
            h_BTD = _forward(model, rows)
            score_BTSK, norm_BTS = (part.cpu().numpy() for part in sink.read())
            kept_BTX = sink.kept_BTX().cpu().numpy() if keep else None
            said = _logprobs(model, rows, h_BTD) if logprobs else [_unknown(row) for row in rows]
            seconds = time.perf_counter() - began
            for row, i in enumerate(chosen):
                n = len(texts[i])
                kept = None if kept_BTX is None else kept_BTX[row, :n].reshape(n, len(keep), -1)
                score, norm = score_BTSK[row, :n].copy(), norm_BTS[row, :n].copy()
                yield Scored(i, score, norm, said[row], kept, batch, seconds)


def mean_states(
    model: Model,
    texts: Sequence[Sequence[int]],
    chosen_tokens: Sequence[NDArray[np.bool_]],
    *,
    batch_tokens: int | None = None,
    on_done: Callable[[int], None] = lambda count: None,
) -> NDArray[np.float32]:
    """The mean state over each text's chosen tokens: [N, S, D] float32.

    A text without chosen tokens gives zeros.
    """
    sink = Means()
    out_NSD = np.zeros((len(texts), len(model.sites), model.anatomy.d_model), dtype=np.float32)
    with memory_errors(), lean(model, steps=False), Taps(model.anatomy, sink):
        for chosen in _batches(texts, batch_tokens or forward_tokens(model)):
            sink.weight_BT = _weights([chosen_tokens[i] for i in chosen]).to(model.device)
            _forward(model, [texts[i] for i in chosen])
            out_NSD[chosen] = sink.mean_BSD.numpy()
            on_done(len(chosen))
    return out_NSD


def _batches(texts: Sequence[Sequence[int]], batch_tokens: int) -> Iterator[list[int]]:
    """Indices of texts that go together: longest first, at most `batch_tokens` with padding."""
    order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
    while order:
        rows = max(1, batch_tokens // max(len(texts[order[0]]), 1))
        yield order[:rows]
        order = order[rows:]


@torch.inference_mode()
def _forward(model: Model, texts: list[Sequence[int]]) -> Tensor:
    """One plain forward; the final-normed states [B, T, D]."""
    width = max(len(text) for text in texts)
    # any id will do as padding; the text's own first one never looks like a pad token
    id_BT = torch.tensor([[*text, *[text[0]] * (width - len(text))] for text in texts])
    out = model.anatomy.stack(input_ids=id_BT.to(model.device), use_cache=False)
    return out[0]  # type: ignore[no-any-return]  # transformers' outputs are untyped


@torch.inference_mode()
def _logprobs(model: Model, texts: list[Sequence[int]], h_BTD: Tensor) -> list[Float32]:
    """ln p of each text's tokens [T], NaN at position 0; padding is left out."""
    before_ND = torch.cat([h_BTD[row, : len(text) - 1] for row, text in enumerate(texts)])
    next_N = torch.tensor([i for text in texts for i in text[1:]], dtype=torch.int64)
    flat = own_logprob(model.anatomy, before_ND, next_N.to(before_ND.device)).cpu().numpy()
    out, at = [_unknown(text) for text in texts], 0
    for logprob in out:
        logprob[1:] = flat[at : at + len(logprob) - 1]
        at += len(logprob) - 1
    return out


def _unknown(text: Sequence[int]) -> Float32:
    return np.full(len(text), np.nan, dtype=np.float32)


def _weights(chosen: list[NDArray[np.bool_]]) -> Tensor:
    width = max(len(mask) for mask in chosen)
    weight_BT = torch.zeros(len(chosen), width)
    for row, mask in enumerate(chosen):
        if mask.any():
            weight_BT[row, : len(mask)] = torch.from_numpy(mask / mask.sum()).float()
    return weight_BT
