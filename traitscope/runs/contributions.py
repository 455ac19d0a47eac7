"""Who wrote a trait inside one block: heads, neurons, biases, beside the change that is there.

Reads `core.Internals` and the trait's directions; numpy only.  A contribution is what a part adds
to the score, read along the direction of the site that it writes to, in units of the residual
stream; post-norms and multipliers are in the stored weights and factors.  Everything is linear,
so a mean over tokens of the parts is the parts of the mean.  Knows no screen and no disk.

Legend: T tokens, N tokens asked for, H heads, F neurons, dh head width, D model width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from traitscope.core import Internals, TraitDirections
from traitscope.errors import RunError

__all__ = ["Account", "Contributions", "attention_of", "pooled"]

Float64 = NDArray[np.float64]
Rows = NDArray[np.intp]

_ROWS_AT_ONCE = 256  # neurons of this many tokens are widened to float64 together
_CHECKED = 4  # tokens at which a head's output is held against attention times values
_SPLITS = 1e-2  # heads kept as float16 reproduce their output to about 1e-3


@dataclass(frozen=True)
class Account:
    """One write to the stream along the direction of `site`: all arrays [N].

    `before` and `after` are h . v of the stream on either side.  `parts` should add up to
    `after - before`; what is left over is rounding, or something that the model adds besides.
    `norm` is |h| after it, the unit of that rounding.  `there`: the trait has a direction there;
    without one all is 0.
    """

    site: str
    before: Float64
    after: Float64
    norm: Float64
    parts: Mapping[str, Float64]
    there: bool

    @property
    def change(self) -> Float64:
        return self.after - self.before

    @property
    def total(self) -> Float64:
        return np.asarray(np.sum(list(self.parts.values()), axis=0))


@dataclass(frozen=True)
class Contributions:
    """One block's internals, read for one trait."""

    inside: Internals
    directions: TraitDirections

    def __post_init__(self) -> None:
        if self.directions.trait not in self.inside.traits:
            raise RunError(
                f"Expected one of the traits that internals were kept for "
                f"({', '.join(self.inside.traits)}), got '{self.directions.trait}': it was added "
                "to the run later. A new run with that trait keeps its internals too."
            )

    # --- what is there ---------------------------------------------------------------------------

    @property
    def parallel(self) -> bool:
        """Attention and MLP both write to `post`: such blocks have no `mid`."""
        return f"{self.inside.block}.mid" not in self._sites

    @property
    def heads_write_to(self) -> str:
        return f"{self.inside.block}.{'post' if self.parallel else 'mid'}"

    @property
    def neurons_write_to(self) -> str:
        return f"{self.inside.block}.post"

    # --- parts -----------------------------------------------------------------------------------

    def heads(self, rows: Rows) -> Float64:
        """What each head wrote: [N, H]."""
        head_out, to_score = tensors(self.inside, "head_out", "head_to_score")
        weight_Hd = to_score[self._trait].astype(np.float64)
        out_NHd = head_out[rows].astype(np.float64).reshape(len(rows), *weight_Hd.shape)
        written_NH = np.einsum("nhd,hd->nh", out_NHd, weight_Hd)
        return np.asarray(written_NH * self._scale("attn", rows)[:, None])

    def neurons(self, rows: Rows) -> Float64:
        """What each neuron wrote: [N, F]."""
        neurons, to_score = tensors(self.inside, "neurons", "neuron_to_score")
        weight_F = to_score[self._trait].astype(np.float64)
        values_NF = neurons[rows].astype(np.float64)
        return np.asarray(values_NF * weight_F * self._scale("mlp", rows)[:, None])

    def mean_neurons(self, rows: Rows) -> tuple[Float64, Float64]:
        """Mean activation and mean contribution of each neuron over the tokens asked for: 2 [F]."""
        neurons, to_score = tensors(self.inside, "neurons", "neuron_to_score")
        scale = self._scale("mlp", rows)
        activation, written = np.zeros(neurons.shape[1]), np.zeros(neurons.shape[1])
        for first in range(0, len(rows), _ROWS_AT_ONCE):
            some = slice(first, first + _ROWS_AT_ONCE)
            values = neurons[rows[some]].astype(np.float64)
            activation += values.sum(axis=0)
            written += scale[some] @ values
        weight_F = to_score[self._trait].astype(np.float64)
        return activation / len(rows), written * weight_F / len(rows)

    def all_neurons(self, rows: Rows) -> Float64:
        """What all neurons together wrote: [N]."""
        neurons, to_score = tensors(self.inside, "neurons", "neuron_to_score")
        weight_F = to_score[self._trait].astype(np.float64)
        pieces = [rows[i : i + _ROWS_AT_ONCE] for i in range(0, len(rows), _ROWS_AT_ONCE)]
        sums = [neurons[piece].astype(np.float64) @ weight_F for piece in pieces]
        return np.concatenate([np.zeros(0), *sums]) * self._scale("mlp", rows)

    def one_neuron(self, neuron: int) -> tuple[Float64, Float64]:
        """One neuron's activation and contribution at every token: 2 [T]."""
        weight = self.weight_of(neuron)
        activation = tensors(self.inside, "neurons")[0][:, neuron].astype(np.float64)
        every = np.arange(len(activation))
        return activation, activation * weight * self._scale("mlp", every)

    def weight_of(self, neuron: int) -> float:
        """What a neuron of activation 1 adds to the score, before a post-norm's factor."""
        (to_score,) = tensors(self.inside, "neuron_to_score")
        if not 0 <= neuron < to_score.shape[1]:
            raise RunError(f"Expected a neuron from 0 to {to_score.shape[1] - 1}, got {neuron}.")
        return float(to_score[self._trait, neuron])

    def bias(self, part: str, rows: Rows) -> Float64:
        """The bias's share of what "attn" or "mlp" wrote: [N]."""
        (bias,) = tensors(self.inside, f"{part}_bias_score")
        return float(bias[self._trait]) * self._scale(part, rows)

    # --- sums ------------------------------------------------------------------------------------

    def accounts(self, rows: Rows) -> tuple[Account, ...]:
        """Parts beside the true change: at `mid` and at `post`, in parallel blocks at `post`."""
        attention = {
            "heads": self.heads(rows).sum(axis=1),
            "attention bias": self.bias("attn", rows),
        }
        mlp = {"neurons": self.all_neurons(rows), "MLP bias": self.bias("mlp", rows)}
        if self.parallel:
            return (self._account("resid_pre", "resid_post", {**attention, **mlp}, rows),)
        return (
            self._account("resid_pre", "resid_mid", attention, rows),
            self._account("resid_mid", "resid_post", mlp, rows),
        )

    def carried(self, rows: Rows) -> Float64:
        """Mean of what each head carried of the trait from each token it looked at: [H, T].

        Summed over the tokens looked at it is what the head wrote.  RunError where a head's output
        is not its attention times its values, since then it cannot be split.
        """
        attention, v, head_out, to_score = tensors(
            self.inside, "attention", "v", "head_out", "head_to_score"
        )
        weight_Hd = to_score[self._trait].astype(np.float64)
        n_heads, width = weight_Hd.shape
        values_TGd = v.astype(np.float64).reshape(len(v), -1, width)
        group = np.arange(n_heads) * values_TGd.shape[1] // n_heads
        some = rows[:: max(1, len(rows) // _CHECKED)]
        self._check_split(attention[:, some], values_TGd, group, head_out[some])
        carries_TH = np.einsum("thd,hd->th", values_TGd[:, group], weight_Hd)
        share_N = self._scale("attn", rows) / len(rows)
        look_HT = np.stack([share_N @ head[rows].astype(np.float64) for head in attention])
        return np.asarray(look_HT * carries_TH.T)

    # --- inside ----------------------------------------------------------------------------------

    @property
    def _trait(self) -> int:
        return self.inside.traits.index(self.directions.trait)

    @property
    def _sites(self) -> list[str]:
        return [site.name for site in self.directions.sites]

    def _scale(self, part: str, rows: Rows) -> Float64:
        (scale,) = tensors(self.inside, f"{part}_post_norm_scale")
        return scale[rows].astype(np.float64)

    def _account(
        self, before: str, after: str, parts: Mapping[str, Float64], rows: Rows
    ) -> Account:
        site = f"{self.inside.block}.{after.removeprefix('resid_')}"
        direction_D = self.directions.direction[self._sites.index(site)].astype(np.float64)
        first, last = (h[rows].astype(np.float64) for h in tensors(self.inside, before, after))
        norm = np.linalg.norm(last, axis=1)
        there = bool(direction_D.any())
        return Account(site, first @ direction_D, last @ direction_D, norm, parts, there)

    def _check_split(
        self,
        look_HNT: NDArray[np.generic],
        values_TGd: Float64,
        group: NDArray[np.intp],
        head_out: NDArray[np.generic],
    ) -> None:
        look = look_HNT.astype(np.float64)
        made_NHd = np.einsum("hnt,thd->nhd", look, values_TGd[:, group])
        own_NHd = head_out.astype(np.float64).reshape(made_NHd.shape)
        apart = np.abs(made_NHd - own_NHd).max(initial=0.0)
        if apart > _SPLITS * np.abs(own_NHd).max(initial=0.0):
            raise RunError(
                "Expected heads that write their attention times their values, but in this model "
                "something else stands between. What a head wrote is shown, not from where."
            )


# --- attention -----------------------------------------------------------------------------------


def attention_of(inside: Internals, rows: Rows) -> Float64:
    """Where each head looked from the tokens asked for, their mean: [H, T]."""
    (attention,) = tensors(inside, "attention")
    return np.asarray(attention[:, rows].mean(axis=1, dtype=np.float64))


def pooled(inside: Internals, head: int, most: int) -> tuple[NDArray[np.float32], int]:
    """One head's matrix, and how many tokens a cell is wide and high (the largest weight of it).

    1 as long as the text has at most `most` tokens.
    """
    (attention,) = tensors(inside, "attention")
    if not 0 <= head < len(attention):
        raise RunError(f"Expected a head from 0 to {len(attention) - 1}, got {head}.")
    n_tokens = attention.shape[1]
    step = max(1, -(-n_tokens // most))
    edges = np.arange(0, n_tokens, step)
    matrix = attention[head]
    if step > 1:
        matrix = np.maximum.reduceat(np.maximum.reduceat(matrix, edges, axis=0), edges, axis=1)
    return np.asarray(matrix, dtype=np.float32), step


def tensors(inside: Internals, *names: str) -> tuple[NDArray[np.generic], ...]:
    """Tensors by name; RunError for those that the file has not (a format may leave any out)."""
    lacking = [name for name in names if name not in inside.tensors]
    if lacking:
        raise RunError(
            f"Expected the tensors {', '.join(names)} in the internals of {inside.generation.id} "
            f"at block {inside.block}, but {', '.join(lacking)} are not in the file. A new run "
            "keeps them."
        )
    return tuple(inside.tensors[name] for name in names)
