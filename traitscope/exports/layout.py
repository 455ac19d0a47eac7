"""What stands in the files of the older layout: one text as plain dicts of tensors and values.

Two tiers: projections at every block with where tokens look ("residual stream activations"), and
the inside of one block ("layer internal states").  Rows of a response are shifted: there row i is
the state *before* response token i, here every token's state is at the token's own position, so
row i is ours at the position just before.  This module writes no file and loads no model.

Legend: n tokens of a part, T of the text, L blocks, H heads, D model width, F neurons.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from traitscope.core import Float32, Internals
from traitscope.runs import GenerationRow, Run, TextData

__all__ = ["Page", "as_json", "gate_alone"]

Plain = dict[str, Any]

NOTES = (
    "Exported by traitscope.",
    "Prompt row i is the state at prompt token i. Response row i is the state before response "
    "token i, at the position just before it; the state at the last token is not here.",
    "Every layer is projected on its own direction (unit length, float32); zeros where the trait "
    "has none at that place.",
    "residual_in of a layer is residual_out of the one before it, or the embedding; residual_out "
    "is before any final norm.",
)
AFTER_ATTN = "after_attn is the residual between attention and MLP."
NO_AFTER_ATTN = (
    "after_attn is NaN (null in .json): attention and MLP run in parallel, there is no such state."
)
ATTENTION = "Attention was computed by replaying the stored tokens, and is the mean over heads."
NO_ATTENTION = "Attention was left out (--no-attention): attention_weights is empty."
INSIDE = (
    "q_proj, k_proj and v_proj are the projections' outputs, each with its own width, before norms "
    "and rotary embedding.",
    "gelu is the activation of the gate alone, whatever function it is, not yet multiplied by "
    "up_proj; without a gate it is the activation of up_proj.",
)
DOWN = "down_proj is the projection's own output."
DOWN_ADDED = (
    "down_proj is what the MLP adds to the stream, after a norm of its output if it has one."
)

_ACTIVATIONS: tuple[Callable[[Tensor], Tensor], ...] = (
    functional.silu,
    functional.gelu,
    lambda x: functional.gelu(x, approximate="tanh"),
    functional.relu,
    lambda x: functional.relu(x).square(),
    lambda x: x * torch.sigmoid(1.702 * x),
)
_FITS = 0.02  # of the largest neuron: bfloat16 rounds each of three factors by up to 0.4%


@dataclass(frozen=True)
class Page:
    """One text of a run, as the layout has it.  `attention` [T, T] for each block, or None."""

    run: Run
    row: GenerationRow
    text: TextData
    attention: Sequence[Tensor] | None

    def trajectory(self, trait: str) -> Plain:
        """Tier 2: what residual_stream_activations/prompt_I.pt holds."""
        return {
            **self._texts(),
            "projections": self._projections(trait),
            "attention_weights": self._attention(),
            "metadata": self._metadata(trait, ATTENTION if self.attention else NO_ATTENTION),
        }

    def inside(self, trait: str, internals: Internals) -> Plain:
        """Tier 3: what layer_internal_states/prompt_I_layerL.pt holds."""
        tensors = {name: torch.tensor(array).float() for name, array in internals.tensors.items()}
        down = DOWN if "down_out" in tensors or _adds_plainly(tensors) else DOWN_ADDED
        metadata = self._metadata(trait, *INSIDE, down)
        return {
            **self._texts(),
            "layer": internals.block,
            "internals": self._internals(tensors),
            "metadata": {**metadata, "layer": internals.block},
        }

    # --- both tiers --------------------------------------------------------------------------

    @property
    def _n(self) -> int:
        """Tokens of the prompt."""
        return self.row.n_prompt

    def _texts(self) -> Plain:
        tokens = self.text.tokens
        cut = int(tokens.start[self._n]) if self._n < len(tokens.start) else len(tokens.text)
        parts = {"prompt": slice(self._n), "response": slice(self._n, None)}
        said = self.row.response
        if self.row.thinking:  # these layouts know no thoughts: they are part of what was written
            plain = np.flatnonzero((tokens.part == "response") & ~tokens.special)
            said = "".join(tokens.text[tokens.start[t] : tokens.end[t]] for t in plain)
        texts = {"prompt": tokens.text[:cut], "response": said}
        return {
            part: {
                "text": texts[part],
                "tokens": list(tokens.piece[rows]),
                "token_ids": tokens.token_id[rows].tolist(),
                "n_tokens": len(tokens.piece[rows]),
            }
            for part, rows in parts.items()
        }

    def _metadata(self, trait: str, *notes: str) -> Plain:
        header, about = self.run.header, self.run.directions[trait].metadata
        mid = any(site.place == "mid" for site in self.run.sites)
        words = [*NOTES, AFTER_ATTN if mid else NO_AFTER_ATTN, *notes]
        if "warning" in about:
            words.append(f"Note: {about['warning']}.")
        return {
            "trait": trait,
            "trait_display_name": about.get("display_name") or trait.replace("_", " ").title(),
            "vector_path": about.get("vector_path") or f"directions/{trait}.safetensors",
            "model": str(header.model.get("name", "")),
            "capture_date": header.created,
            "temperature": float(header.generation.get("temperature", math.nan)),
            "generation": self.row.generation.id,
            "label": self.row.prompt.label,
            "format_notes": " ".join(words),
        }

    def _split(self, rows: Tensor) -> dict[str, Tensor]:
        """Rows of all T tokens as the layout's prompt and response rows."""
        before = rows[self._n - 1 : len(rows) - 1]
        return {"prompt": rows[: self._n].clone(), "response": before.clone()}

    # --- tier 2 ------------------------------------------------------------------------------

    def _projections(self, trait: str) -> dict[str, Tensor]:
        """[n, L, 3]: residual_in, after_attn, residual_out."""
        score_TS = self.text.score[:, :, self.run.traits.index(trait)]
        return self._split(torch.from_numpy(_three(self.run, score_TS)))

    def _attention(self) -> Plain:
        if self.attention is None:
            return {"prompt": {}, "response": []}
        n, n_tokens = self._n, len(self.text.score)
        rows = {f"layer_{i}": _rows(a, n - 1, n_tokens - 1) for i, a in enumerate(self.attention)}
        return {
            "prompt": {f"layer_{i}": a[:n, :n].clone() for i, a in enumerate(self.attention)},
            "response": [
                {layer: each[i] for layer, each in rows.items()} for i in range(n_tokens - n)
            ],
        }

    # --- tier 3 ------------------------------------------------------------------------------

    def _internals(self, tensors: Mapping[str, Tensor]) -> Plain:
        out: Plain = {"prompt": {}, "response": {}}
        for kind, named in _parts(tensors).items():
            for part in out:
                out[part][kind] = {}
            for name, rows in named.items():
                for part, chosen in self._split(rows).items():
                    out[part][kind][name] = chosen
        if "attention" in tensors:
            weights, n = tensors["attention"], self._n
            out["prompt"]["attention"]["attn_weights"] = weights[:, :n, :n].clone()
            out["response"]["attention"]["attn_weights"] = [
                weights[:, p : p + 1, : p + 1].clone() for p in range(n - 1, weights.shape[1] - 1)
            ]
        return out


def as_json(page: Plain) -> bytes:
    """The .json beside a .pt: tensors as lists, NaN as null, most of the attention left out."""
    page = dict(page)
    if "attention_weights" in page:
        weights = page.pop("attention_weights")
        page["attention_summary"] = {
            "prompt_layers": len(weights["prompt"]),
            "response_tokens": len(weights["response"]),
        }
    if "internals" in page:
        page["internals"] = {part: _shortened(part, of) for part, of in page["internals"].items()}
    return json.dumps(_listed(page), ensure_ascii=False, allow_nan=False).encode(errors="replace")


def _shortened(part: str, inside: Plain) -> Plain:
    kept: Plain = {"mlp": {"gelu": inside["mlp"]["gelu"]}, "residual": inside["residual"]}
    weights = inside["attention"].get("attn_weights")
    if part == "prompt" and weights is not None:
        kept["attention"] = {"attn_weights": weights}
    return kept


def _listed(value: Any) -> Any:
    """Tensors as nested lists; numbers with the nine digits that bring a float32 back."""
    if isinstance(value, Tensor):
        return _listed(value.tolist())
    if isinstance(value, dict):
        return {key: _listed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_listed(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.9g}") if math.isfinite(value) else None
    return value


def _three(run: Run, score_TS: Float32) -> Float32:
    """Scores at the sites as [T, L, 3]; NaN where a block has no state after attention."""
    at = {site.name: number for number, site in enumerate(run.sites)}
    n_blocks = 1 + max(site.block for site in run.sites)
    out = np.full((len(score_TS), n_blocks, 3), np.nan, dtype=np.float32)
    for block in range(n_blocks):
        before = f"{block - 1}.post" if block else "embed"
        for place, site in enumerate((before, f"{block}.mid", f"{block}.post")):
            if site in at:
                out[:, block, place] = score_TS[:, at[site]]
    return out


def _rows(attention_TT: Tensor, first: int, last: int) -> Sequence[Tensor]:
    """Rows first to last - 1, each up to its own column: views of one tensor, saved once."""
    lengths = [p + 1 for p in range(first, last)]
    flat = torch.cat([attention_TT[p, : p + 1] for p in range(first, last)] or [torch.empty(0)])
    return torch.split(flat, lengths) if lengths else ()


def _parts(t: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The layout's names for a block's tensors of all T tokens; what is absent is left out."""
    mlp = {"up_proj": t.get("up"), "gelu": None, "down_proj": t.get("down_out", t.get("mlp_out"))}
    if "neurons" in t and "up" in t:
        mlp["gelu"] = gate_alone(t.get("gate"), t["up"], t["neurons"])
    residual = {"input": t.get("resid_pre"), "output": t.get("resid_post")}
    nowhere = torch.full_like(t["resid_post"], math.nan)
    residual["after_attn"] = t.get("resid_mid", nowhere)
    attention = {f"{name}_proj": t.get(name) for name in "qkv"}
    every = {"attention": attention, "mlp": mlp, "residual": residual}
    return {
        kind: {name: rows for name, rows in named.items() if rows is not None}
        for kind, named in every.items()
    }


def gate_alone(gate: Tensor | None, up: Tensor, neurons: Tensor) -> Tensor:
    """act(gate) [T, F] from neurons = act(gate) * up; without a gate neurons are act(up) already.

    Which function it is, the numbers tell: the one that makes the neurons.  For one that is not
    known here it is neurons / up, NaN where both are 0.
    """
    if gate is None:
        return neurons
    off = [float((act(gate) * up - neurons).abs().max()) for act in _ACTIVATIONS]
    best = min(range(len(off)), key=off.__getitem__)
    if off[best] <= _FITS * float(neurons.abs().max()):
        return _ACTIVATIONS[best](gate)
    return neurons / up


def _adds_plainly(t: Mapping[str, Tensor]) -> bool:
    """No post-norm divides the MLP's output (of a run that kept no `down_out`)."""
    return bool((t.get("mlp_post_norm_scale", torch.zeros(1)) == 1).all())
