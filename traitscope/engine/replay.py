"""Texts that exist already, in one forward each: length-sorted batches, no cache, no logits.

Texts of a batch are aligned at position 0 and padded on the right: a causal model never looks
there, so no mask is needed and padding cannot change a number.  What is kept of a forward is the
sink's business.  This module does not know where texts come from.

Legend: B rows, T tokens, S sites, D model width, K traits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from traitscope.models import Means, Model, Scores, Taps

__all__ = ["mean_states", "score_texts"]

BATCH_TOKENS = 4096


def score_texts(
    model: Model,
    texts: Sequence[Sequence[int]],
    direction_SDK: NDArray[np.float32],
    *,
    batch_tokens: int = BATCH_TOKENS,
) -> Iterator[tuple[int, NDArray[np.float32], NDArray[np.float32]]]:
    """Yield (index, score [T, S, K], norm [T, S]) for every text, in order of length."""
    direction = torch.from_numpy(np.ascontiguousarray(direction_SDK)).to(model.device)
    sink = Scores(direction)
    with Taps(model.anatomy, sink):
        for chosen in _batches(texts, batch_tokens):
            _forward(model, [texts[i] for i in chosen])
            score_BTSK, norm_BTS = (part.cpu().numpy() for part in sink.read())
            for row, i in enumerate(chosen):
                length = len(texts[i])
                yield i, score_BTSK[row, :length].copy(), norm_BTS[row, :length].copy()


def mean_states(
    model: Model,
    texts: Sequence[Sequence[int]],
    chosen_tokens: Sequence[NDArray[np.bool_]],
    *,
    batch_tokens: int = BATCH_TOKENS,
    on_done: Callable[[int], None] = lambda count: None,
) -> NDArray[np.float32]:
    """The mean state over each text's chosen tokens: [N, S, D] float32.

    A text without chosen tokens gives zeros.
    """
    sink = Means()
    out_NSD = np.zeros((len(texts), len(model.sites), model.anatomy.d_model), dtype=np.float32)
    with Taps(model.anatomy, sink):
        for chosen in _batches(texts, batch_tokens):
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
def _forward(model: Model, texts: list[Sequence[int]]) -> None:
    width = max(len(text) for text in texts)
    # any id will do as padding; the text's own first one never looks like a pad token
    id_BT = torch.tensor([[*text, *[text[0]] * (width - len(text))] for text in texts])
    model.anatomy.stack(input_ids=id_BT.to(model.device), use_cache=False)


def _weights(chosen: list[NDArray[np.bool_]]) -> Tensor:
    width = max(len(mask) for mask in chosen)
    weight_BT = torch.zeros(len(chosen), width)
    for row, mask in enumerate(chosen):
        if mask.any():
            weight_BT[row, : len(mask)] = torch.from_numpy(mask / mask.sum()).float()
    return weight_BT
