"""What the peers' ways have in common: padding, and splitting what came out by text.

A way is given `batches` (lists of texts' ids), the directions [S, D, K] in the order of our sites
(`embed`, `0.mid`, `0.post`, ...), and gives back texts (new ids of each, without what follows the
end token) and scores [T, S', K] of each, with S' the sites that it can read.  Imports torch alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

PAD, EOS = 0, 2
Batches = list[list[list[int]]]


def padded(batch: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Ids and mask, padded on the left."""
    width = max(map(len, batch))
    ids = torch.tensor([[PAD] * (width - len(text)) + text for text in batch])
    mask = torch.tensor([[0] * (width - len(text)) + [1] * len(text) for text in batch])
    return ids, mask


def padded_right(batch: list[list[int]]) -> tuple[Tensor, Tensor]:
    width = max(map(len, batch))
    ids = torch.tensor([text + [PAD] * (width - len(text)) for text in batch])
    mask = torch.tensor([[1] * len(text) + [0] * (width - len(text)) for text in batch])
    return ids, mask


def until_end(row: list[int]) -> list[int]:
    return row[: row.index(EOS) + 1] if EOS in row else row


def per_text(
    batch: list[list[int]],
    sequences: Tensor,
    score_BTSK: Tensor,
    texts: list[list[int]],
    scores: list[Tensor],
) -> None:
    """Add new ids and scores of each text of a left-padded batch; its last token has no state."""
    width = max(map(len, batch))
    for row, prompt in enumerate(batch):
        text = until_end(sequences[row, width:].tolist())
        texts.append(text)
        scores.append(score_BTSK[row, width - len(prompt) : width + len(text) - 1].clone())


def project(h_BTD: Tensor, direction_DK: Tensor) -> Tensor:
    return h_BTD.float() @ direction_DK
