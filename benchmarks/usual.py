"""The usual capture script, as one finds it: written here to be measured, not to be used.

One prompt at a time; the whole context is run again for every new token (no cache); a hook per
block copies its output to the host; one trait at a time is projected from those copies.  The
model is loaded anew for every prompt, and the whole is done once per trait.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM

__all__ = ["one_prompt", "opened"]


def opened(folder: Path, dtype: torch.dtype) -> Any:
    """A load, as it is done before each prompt."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()


def one_prompt(
    hf: Any, prompt: Sequence[int], new: int, direction_BD: np.ndarray[Any, Any], end: int
) -> tuple[list[int], np.ndarray[Any, Any]]:
    """New ids; the trait's score [tokens, blocks], of each context's last token at each block."""
    states: dict[int, np.ndarray[Any, Any]] = {}

    def copy(block: int) -> Callable[..., None]:
        def hook(_: Any, __: Any, output: Any) -> None:
            h_BTD = output[0] if isinstance(output, tuple) else output
            states[block] = h_BTD.detach().float().cpu().numpy()

        return hook

    blocks = hf.get_decoder().layers
    handles = [block.register_forward_hook(copy(i)) for i, block in enumerate(blocks)]
    ids, scores = list(prompt), []
    try:
        for _ in range(new):
            with torch.no_grad():
                out = hf(input_ids=torch.tensor([ids]), use_cache=False)
            last = np.stack([states[i][0, -1] for i in range(len(blocks))])
            scores.append((last * direction_BD).sum(axis=1))
            ids.append(int(out.logits[0, -1].argmax()))
            if ids[-1] == end:
                break
    finally:
        for handle in handles:
            handle.remove()
    return ids[len(prompt) :], np.stack(scores)
