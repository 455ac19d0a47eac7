"""What is proved about a model before a number of it is believed.

One tiny forward (2 rows of 7 tokens) holds the taps against the model's own hidden states, `mid`
against what attention and MLP really added, the last site against what the final norm is given,
and our logits against the model's own.  Each check gives its largest difference in units of the
state's norm (logits: of the largest logit) and a verdict against a tolerance by dtype; what cannot
be measured, since values are not finite, has no verdict.  `insist` turns verdicts into an error;
this module does not know when that is wanted.

Legend: B rows, T tokens, D model width, S sites.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from traitscope.errors import ModelError
from traitscope.models.anatomy import Anatomy, Block
from traitscope.models.taps import States, Taps

__all__ = [
    "FINITE",
    "Proof",
    "device_of",
    "difference",
    "insist",
    "is_finite",
    "probe_ids",
    "prove",
    "timed",
    "tolerance",
]

FINITE = "finite values"

# float32: rounding of a few additions. Narrow dtypes: a couple of units in the last place, since
# a sum is rounded once by the model and once by us.
_TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-9, torch.float16: 4e-3, torch.bfloat16: 3e-2}

_PROBE = (2, 7)  # rows and tokens


@dataclass(frozen=True)
class Proof:
    """One check: its largest difference in `unit`, what was allowed, and whether it held.

    `held` is None, and `difference` NaN, where it could not be measured; `detail` says why.
    `seconds` is what it took; a forward that serves several checks is counted with the first.
    """

    name: str
    difference: float
    allowed: float
    held: bool | None
    detail: str = ""
    unit: str = "|h|"
    seconds: float = 0.0

    @classmethod
    def of(
        cls, name: str, difference: float, allowed: float, detail: str = "", unit: str = "|h|"
    ) -> Proof:
        """A measured one; a NaN holds nothing."""
        return cls(name, difference, allowed, difference <= allowed, detail, unit)

    @classmethod
    def skipped(cls, name: str, allowed: float, why: str, unit: str = "|h|") -> Proof:
        return cls(name, math.nan, allowed, None, f"not measured: {why}", unit)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def is_finite(proofs: Iterable[Proof]) -> bool:
    """Whether states and logits were numbers, or there is nothing to be compared."""
    return not any(proof.name == FINITE and proof.held is False for proof in proofs)


def insist(what: str, name: str, proofs: Sequence[Proof]) -> None:
    """Raise a ModelError that names the proofs that do not hold; `what` describes the model."""
    broken = [proof for proof in proofs if proof.held is False]
    if broken:
        said = "; ".join(
            f"{p.name} (off by {p.difference:.2g} {p.unit}, allowed {p.allowed:.2g})"
            for p in broken
        )
        raise ModelError(
            f"Expected {what} to prove exact, but these checks failed: {said}. Its numbers could "
            f"not be trusted. Try float32, look at 'traitscope doctor --model {name}', or go on "
            "all the same with --allow-unproven."
        )


def timed(proofs: Iterable[Proof]) -> Iterator[Proof]:
    """The same proofs with the seconds that each took to come."""
    began = time.perf_counter()
    for proof in proofs:
        yield replace(proof, seconds=round(time.perf_counter() - began, 4))
        began = time.perf_counter()


def tolerance(dtype: torch.dtype) -> float:
    """The largest difference, in units of the state's norm, that rounding can explain."""
    return _TOLERANCE.get(dtype, 3e-2)


def probe_ids(vocabulary: int, rows: int, tokens: int) -> Tensor:
    """Fixed token ids [rows, tokens] spread over the vocabulary (no tokenizer needed)."""
    steps = torch.arange(1, rows * tokens + 1, dtype=torch.int64)
    return ((steps * 2654435761) % max(vocabulary - 1, 1)).view(rows, tokens)


def prove(hf: Any, anatomy: Anatomy) -> list[Proof]:
    """Run the checks; see the module's docstring.  Raises nothing: the caller judges."""
    with torch.inference_mode():
        return list(timed(_proofs(hf, anatomy)))


def _proofs(hf: Any, anatomy: Anatomy) -> Iterator[Proof]:
    ids_BT = probe_ids(int(anatomy.config.vocab_size), *_PROBE).to(device_of(hf))
    seen = _Seen(anatomy, device_of(hf))
    states = States()
    try:
        with Taps(anatomy, states):
            out = hf(
                input_ids=ids_BT,
                attention_mask=torch.ones_like(ids_BT),
                output_hidden_states=True,
                use_cache=False,
            )
    finally:
        seen.close()
    h = [h_BTD.to(device_of(hf)) for h_BTD in states.h]  # a model may span several devices
    finite = _finite(anatomy, h, out.logits)
    yield finite
    allowed = tolerance(h[0].dtype)
    for name, measure, detail in _measures(anatomy, h, out, seen):
        if finite.held:
            yield Proof.of(name, measure(), allowed, detail)
        else:
            yield Proof.skipped(name, allowed, "values are not finite")
    name, unit, allowed = "logits = the model's own", "largest logit", tolerance(out.logits.dtype)
    if finite.held:
        yield Proof.of(name, _logits_apart(anatomy, out), allowed, unit=unit)
    else:
        yield Proof.skipped(name, allowed, "values are not finite", unit)


def _measures(
    anatomy: Anatomy, h: list[Tensor], out: Any, seen: _Seen
) -> Iterator[tuple[str, Callable[[], float], str]]:
    """Each check of states: name, how its difference is measured, what there is to say."""
    own = out.hidden_states
    posts = [h[i] for i, site in enumerate(anatomy.sites) if site.place != "mid"]
    blocks = range(len(anatomy.blocks))

    def worst(pairs: Iterable[tuple[Tensor, Tensor]]) -> float:
        return max(difference(mine, theirs) for mine, theirs in pairs)

    yield (
        "taps = hidden states",
        lambda: worst(zip(posts[:-1], own[:-1], strict=True)),  # the last one is normed
        "",
    )
    if anatomy.parallel:
        added = (h[i] + seen.attention[i] + seen.mlp[i] for i in blocks)
        yield (
            "post = pre + attention + MLP",
            lambda: worst(zip(h[1:], added, strict=True)),
            "parallel blocks have no mid",
        )
    else:
        after = (h[2 * i] + seen.attention[i] for i in blocks)
        yield "mid = pre + attention", lambda: worst(zip(h[1::2], after, strict=True)), ""
        rest = (h[2 * i + 1] + seen.mlp[i] for i in blocks)
        yield "post = mid + MLP", lambda: worst(zip(h[2::2], rest, strict=True)), ""
    yield (
        "last site = before the final norm",
        lambda: worst(
            [
                (h[-1], seen.before_norm),
                (anatomy.final_norm(seen.before_norm), out.hidden_states[-1]),
            ]
        ),
        "",
    )


def _logits_apart(anatomy: Anatomy, out: Any) -> float:
    own = out.logits.float()
    mine = anatomy.logits(out.hidden_states[-1])
    return float((mine - own).abs().max() / own.abs().max().clamp_min(1e-30))


def _finite(anatomy: Anatomy, h: list[Tensor], logits: Tensor) -> Proof:
    names = [*(site.name for site in anatomy.sites), "the logits"]
    every = zip(names, [*h, logits], strict=True)
    broken = [name for name, tensor in every if not bool(torch.isfinite(tensor).all())]
    detail = f"first at {broken[0]}" if broken else ""
    return Proof.of(FINITE, float(len(broken)), 0.0, detail, "sites")


def difference(mine: Tensor, own: Tensor) -> float:
    """The largest |mine - own| of any token, in units of |own|; NaN counts as infinite."""
    mine, own = mine.float(), own.to(mine.device).float()
    norm = torch.linalg.vector_norm(own, dim=-1).clamp_min(1e-30)
    ratio = torch.linalg.vector_norm(mine - own, dim=-1) / norm
    return float(torch.nan_to_num(ratio, nan=float("inf")).max())


class _Seen:
    """What attention and MLP of each block add to the stream (post-norm and multiplier included),
    and what the final norm is given."""

    def __init__(self, anatomy: Anatomy, home: torch.device) -> None:
        self._home = home
        n_blocks = len(anatomy.blocks)
        self.attention: list[Tensor] = [torch.empty(0)] * n_blocks
        self.mlp: list[Tensor] = [torch.empty(0)] * n_blocks
        self._multiplier = anatomy.residual_multiplier
        self._handles = [
            handle for i, block in enumerate(anatomy.blocks) for handle in self._watch(i, block)
        ]
        self.before_norm = torch.empty(0)
        self._handles.append(anatomy.final_norm.register_forward_pre_hook(self._keep_input))

    def _keep_input(self, _: nn.Module, args: tuple[Any, ...]) -> None:
        self.before_norm = args[0]

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
