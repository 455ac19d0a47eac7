"""What is proved about a model before a number of it is believed.

One tiny forward (2 rows of 7 tokens) holds the taps against the model's own hidden states, `mid`
against what attention and MLP really added, and our logits against the model's own.  Each check
gives its largest difference in units of the state's norm (logits: of the largest logit) and a
verdict against a tolerance by dtype.  This module does not know what happens to a verdict.

Legend: B rows, T tokens, D model width, S sites.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from traitscope.models.anatomy import Anatomy, Block
from traitscope.models.taps import States, Taps

__all__ = ["Proof", "device_of", "difference", "probe_ids", "prove", "tolerance"]

# float32: rounding of a few additions. Narrow dtypes: a couple of units in the last place, since
# a sum is rounded once by the model and once by us.
_TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-9, torch.float16: 4e-3, torch.bfloat16: 3e-2}

_PROBE = (2, 7)  # rows and tokens


@dataclass(frozen=True)
class Proof:
    """One check: its largest difference, what was allowed, and whether it held."""

    name: str
    difference: float
    allowed: float
    held: bool
    detail: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def tolerance(dtype: torch.dtype) -> float:
    """The largest difference, in units of the state's norm, that rounding can explain."""
    return _TOLERANCE.get(dtype, 3e-2)


def probe_ids(vocabulary: int, rows: int, tokens: int) -> Tensor:
    """Fixed token ids [rows, tokens] spread over the vocabulary (no tokenizer needed)."""
    steps = torch.arange(1, rows * tokens + 1, dtype=torch.int64)
    return ((steps * 2654435761) % max(vocabulary - 1, 1)).view(rows, tokens)


def prove(hf: Any, anatomy: Anatomy) -> list[Proof]:
    """Run the checks; see the module's docstring.  Raises nothing: the caller judges."""
    ids_BT = probe_ids(int(anatomy.config.vocab_size), *_PROBE).to(device_of(hf))
    added = _Added(anatomy, device_of(hf))
    states = States()
    try:
        with torch.inference_mode(), Taps(anatomy, states):
            out = hf(
                input_ids=ids_BT,
                attention_mask=torch.ones_like(ids_BT),
                output_hidden_states=True,
                use_cache=False,
            )
    finally:
        added.close()
    with torch.inference_mode():
        return [
            _taps_are_hidden_states(anatomy, states.h, out.hidden_states),
            *_mid_is_between(anatomy, states.h, added),
            _logits_are_own(anatomy, out),
            _finite(states.h),
        ]


def _taps_are_hidden_states(anatomy: Anatomy, h: list[Tensor], hidden: tuple[Tensor, ...]) -> Proof:
    """embed and every .post but the last; the last one through the final norm."""
    allowed = tolerance(h[0].dtype)
    posts = [h[i] for i, site in enumerate(anatomy.sites) if site.place != "mid"]
    worst = max(difference(mine, own) for mine, own in zip(posts[:-1], hidden[:-1], strict=True))
    normed = anatomy.final_norm(posts[-1])
    worst = max(worst, difference(normed, hidden[-1]))
    return Proof("taps = hidden states", worst, allowed, worst <= allowed)


def _mid_is_between(anatomy: Anatomy, h: list[Tensor], added: _Added) -> list[Proof]:
    """mid = pre + what attention added; post = mid + what the rest added."""
    allowed, home = tolerance(h[0].dtype), h[0].device
    if anatomy.parallel:
        worst = max(
            difference(h[i + 1].to(home), h[i].to(home) + added.attention[i] + added.mlp[i])
            for i in range(len(anatomy.blocks))
        )
        name = "post = pre + attention + MLP"
        return [Proof(name, worst, allowed, worst <= allowed, "parallel blocks have no mid")]
    first = second = 0.0
    for i in range(len(anatomy.blocks)):
        # a model may span several devices
        pre, mid, post = (h_BTD.to(home) for h_BTD in h[2 * i : 2 * i + 3])
        first = max(first, difference(mid, pre + added.attention[i]))
        second = max(second, difference(post, mid + added.mlp[i]))
    return [
        Proof("mid = pre + attention", first, allowed, first <= allowed),
        Proof("post = mid + MLP", second, allowed, second <= allowed),
    ]


def _logits_are_own(anatomy: Anatomy, out: Any) -> Proof:
    own = out.logits.float()
    mine = anatomy.logits(out.hidden_states[-1])
    worst = float((mine - own).abs().max() / own.abs().max().clamp_min(1e-30))
    allowed = tolerance(out.logits.dtype)
    return Proof("logits = the model's own", worst, allowed, worst <= allowed)


def _finite(h: list[Tensor]) -> Proof:
    broken = [i for i, h_BTD in enumerate(h) if not bool(torch.isfinite(h_BTD).all())]
    detail = f"first at site {broken[0]}" if broken else ""
    return Proof("finite values", float(len(broken)), 0.0, not broken, detail)


def difference(mine: Tensor, own: Tensor) -> float:
    """The largest |mine - own| of any token, in units of |own|; NaN counts as infinite."""
    mine, own = mine.float(), own.to(mine.device).float()
    norm = torch.linalg.vector_norm(own, dim=-1).clamp_min(1e-30)
    ratio = torch.linalg.vector_norm(mine - own, dim=-1) / norm
    return float(torch.nan_to_num(ratio, nan=float("inf")).max())


class _Added:
    """What attention and MLP of each block add to the stream: post-norm and multiplier included."""

    def __init__(self, anatomy: Anatomy, home: torch.device) -> None:
        self._home = home
        n_blocks = len(anatomy.blocks)
        self.attention: list[Tensor] = [torch.empty(0)] * n_blocks
        self.mlp: list[Tensor] = [torch.empty(0)] * n_blocks
        self._multiplier = anatomy.residual_multiplier
        self._handles = [
            handle for i, block in enumerate(anatomy.blocks) for handle in self._watch(i, block)
        ]

    def _watch(self, index: int, block: Block) -> list[Any]:
        def keep(store: list[Tensor]) -> Any:
            def hook(_: nn.Module, __: Any, output: Any) -> None:
                added = output[0] if isinstance(output, tuple) else output
                # a product is a copy: Falcon adds attention to the MLP's output in place
                store[index] = (added * self._multiplier).view(*_PROBE, -1).to(self._home)

            return hook

        attention = block.attn_post_norm or block.attention
        mlp = block.mlp_post_norm or block.mlp
        return [
            attention.register_forward_hook(keep(self.attention)),
            mlp.register_forward_hook(keep(self.mlp)),
        ]

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()


def device_of(hf: Any) -> torch.device:
    """Where ids go in: the device of the embedding, also where a model spans several."""
    return torch.device(hf.get_input_embeddings().weight.device)
