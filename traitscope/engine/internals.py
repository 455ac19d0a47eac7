"""Everything inside one block for one text, and who wrote each trait there.

One forward over the finished text with hooks on the block's parts; attention is computed the
plain ("eager") way for that forward, so that its weights exist.  Output weights are projected on
the trait's direction at the site they write to, with post-norm gains and residual multipliers
folded in, so that contributions of heads and neurons add up to the change of the score.
This module does not know files or suites.

Legend: T tokens, D model width, F neurons, H heads, dh head width, K traits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from traitscope.core import Generation, Internals
from traitscope.errors import ModelError, memory_errors
from traitscope.models import Model
from traitscope.models.anatomy import Block
from traitscope.models.families import Family
from traitscope.models.proof import difference, tolerance

__all__ = ["capture_internals", "check_internals", "eager"]


def check_internals(model: Model, block: int) -> None:
    """Raise ModelError where this block's internals cannot be taken apart."""
    n_blocks = len(model.anatomy.blocks)
    if not 0 <= block < n_blocks:
        raise ModelError(
            f"Expected a block from 0 to {n_blocks - 1} of '{model.name}', got {block}. "
            "Choose one of those, or 'middle'."
        )
    family = model.anatomy.family
    if family.experts:
        raise ModelError(
            f"Internals of mixture-of-experts blocks ('{model.anatomy.config.model_type}') are "
            "not supported. Its trajectories are: leave the internals out."
        )
    if not family.qkv or not family.up:
        raise ModelError(
            f"Internals of '{model.anatomy.config.model_type}' are not supported: where its q, k, "
            "v and neurons are is not known. Its trajectories are: leave the internals out, or "
            "name the parts with the suite's key 'family' (docs/models.md)."
        )


def capture_internals(
    model: Model,
    generation: Generation,
    token_ids: Sequence[int],
    block: int,
    direction_SDK: NDArray[np.float32],
    traits: Sequence[str],
) -> Internals:
    """The inside of `block` while the model reads `token_ids`; see `core.Internals`."""
    check_internals(model, block)
    anatomy = model.anatomy
    parts = anatomy.blocks[block]
    seen = _watch(model, parts, token_ids)
    attn_out = _linear(_get(parts.attention, anatomy.family.attn_out))
    down = _linear(_get(parts.mlp, anatomy.family.down))
    _check_written(model, seen, ("head_out", "attn_raw", "attn_whole"), attn_out)
    _check_written(model, seen, ("neurons", "mlp_raw", "mlp_whole"), down)
    sites = [site.name for site in anatomy.sites]
    to_mid = sites.index(f"{block}.post" if anatomy.parallel else f"{block}.mid")
    to_post = sites.index(f"{block}.post")
    direction = torch.from_numpy(np.ascontiguousarray(direction_SDK)).to(model.device)
    heads = _writer(
        attn_out,
        parts.attn_post_norm,
        direction[to_mid],
        anatomy.residual_multiplier,
    )
    neurons = _writer(
        down,
        parts.mlp_post_norm,
        direction[to_post],
        anatomy.residual_multiplier,
    )
    tensors = {
        **_qkv(seen, anatomy.family, anatomy.config),
        **_mlp(seen, anatomy.family),
        "attention": seen["attention"],
        "head_out": seen["head_out"],
        "attn_out": seen["attn_added"] * anatomy.residual_multiplier,
        "mlp_out": seen["mlp_added"] * anatomy.residual_multiplier,
        "resid_pre": seen["pre"],
        "resid_post": seen["post"],
        "attn_post_norm_scale": heads.scale(seen["attn_raw"], seen["attn_added"]),
        "mlp_post_norm_scale": neurons.scale(seen["mlp_raw"], seen["mlp_added"]),
        "head_to_score": heads.to_score.view(len(traits), anatomy.n_heads, -1),
        "neuron_to_score": neurons.to_score,
        "attn_bias_score": heads.bias_score,
        "mlp_bias_score": neurons.bias_score,
    }
    if not anatomy.parallel:
        tensors["resid_mid"] = seen["mid"]
    if parts.mlp_post_norm is not None or anatomy.residual_multiplier != 1:
        tensors["down_out"] = seen["mlp_raw"]
    arrays = {name: _array(tensor) for name, tensor in tensors.items()}
    return Internals(generation, block, tuple(traits), arrays, _notes(model, sites, to_mid))


def _notes(model: Model, sites: list[str], to_mid: int) -> Mapping[str, str]:
    return {
        "model": model.name,
        "heads": str(model.anatomy.n_heads),
        "heads_write_to": sites[to_mid],
        "layout": "parallel" if model.anatomy.parallel else "sequential",
    }


# --- one forward, watched ------------------------------------------------------------------------


def _watch(model: Model, parts: Block, token_ids: Sequence[int]) -> dict[str, Tensor]:
    """The block's tensors for one text, without the batch dimension."""
    family = model.anatomy.family
    seen: dict[str, Tensor] = {}
    id_1T = torch.tensor([list(token_ids)], device=model.device)
    places = _places(parts, family)
    hooks = _hooks(places, seen, model.device)
    with memory_errors(), torch.inference_mode(), eager(model.anatomy.config), hooks:
        model.anatomy.stack(input_ids=id_1T, use_cache=False)
    if "attention" not in seen:
        raise ModelError(
            f"Expected '{type(parts.attention).__name__}' to return its attention weights, but it "
            "does not. Internals of this architecture are not supported; trajectories are."
        )
    return {name: tensor[0] for name, tensor in seen.items()}


_Place = tuple[nn.Module, str, Callable[[Any, Any], Tensor | None]]


def _places(parts: Block, family: Family) -> Iterator[_Place]:
    """Which module is watched, under which name, and what is taken of (input, output)."""
    attn_out, down = _get(parts.attention, family.attn_out), _get(parts.mlp, family.down)
    yield parts.module, "pre", lambda x, y: x
    yield parts.module, "post", lambda x, y: _first(y)
    if parts.mid_input_of is not None:
        yield parts.mid_input_of, "mid", lambda x, y: x
    for name in family.qkv:
        yield _get(parts.attention, name), name, lambda x, y: y
    yield attn_out, "head_out", lambda x, y: x
    yield attn_out, "attn_raw", lambda x, y: y
    yield parts.attention, "attn_whole", lambda x, y: _first(y)
    yield parts.attn_post_norm or parts.attention, "attn_added", lambda x, y: _first(y)
    yield parts.attention, "attention", lambda x, y: y[1] if isinstance(y, tuple) else None
    if family.gate:
        yield _get(parts.mlp, family.gate), "gate", lambda x, y: y
    yield _get(parts.mlp, family.up), "up", lambda x, y: y
    yield down, "neurons", lambda x, y: x
    yield down, "mlp_raw", lambda x, y: y
    yield parts.mlp, "mlp_whole", lambda x, y: _first(y)
    yield parts.mlp_post_norm or parts.mlp, "mlp_added", lambda x, y: _first(y)


@contextmanager
def _hooks(places: Iterator[_Place], seen: dict[str, Tensor], home: torch.device) -> Iterator[None]:
    def hook_for(name: str, take: Callable[[Any, Any], Tensor | None]) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
            tensor = take(args[0] if args else kwargs["hidden_states"], out)
            if tensor is not None:
                # some blocks add in place afterwards; a model may span several devices
                seen[name] = tensor.float().clone().to(home)

        return hook

    handles = [
        module.register_forward_hook(hook_for(name, take), with_kwargs=True)
        for module, name, take in places
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def eager(config: Any) -> Iterator[None]:
    """Plain attention for a while: the only kind that returns its weights.

    Blocks read this key in each forward; Falcon's too, whose model refuses to have it set.
    """
    before = config._attn_implementation
    config._attn_implementation = "eager"
    try:
        yield
    finally:
        config._attn_implementation = before


# --- parts of parts ------------------------------------------------------------------------------


def _qkv(seen: dict[str, Tensor], family: Family, config: Any) -> dict[str, Tensor]:
    """q [T, H*dh], k and v [T, Hkv*dh]: the projections' outputs."""
    if len(family.qkv) == 3:
        return {name: seen[key] for name, key in zip("qkv", family.qkv, strict=True)}
    fused = seen[family.qkv[0]]
    heads = int(config.num_attention_heads)
    width = seen["head_out"].shape[1]  # H*dh, as wide as q; k and v share the rest
    kv_width = (fused.shape[1] - width) // 2
    if family.qkv_layout == "grouped":
        split = fused.view(fused.shape[0], kv_width * heads // width, -1, width // heads)
        parts = {"q": split[:, :, :-2], "k": split[:, :, -2], "v": split[:, :, -1]}
        return {name: part.flatten(1) for name, part in parts.items()}
    sizes = [width, kv_width, kv_width]
    return dict(zip("qkv", torch.split(fused, sizes, dim=1), strict=True))


def _mlp(seen: dict[str, Tensor], family: Family) -> dict[str, Tensor]:
    """gate, up and neurons [T, F]; gate is before the activation, and only where there is one."""
    parts = {"up": seen["up"], "neurons": seen["neurons"]}
    if family.gate_up_fused:
        parts["gate"], parts["up"] = seen["up"].chunk(2, dim=-1)
    elif family.gate:
        parts["gate"] = seen["gate"]
    return parts


@dataclass(frozen=True)
class _Writer:
    """What writes to the stream: its output weights and bias as they move each trait's score."""

    to_score: Tensor  # [K, inputs]
    bias_score: Tensor  # [K]
    gain: Tensor | None  # [D], of the post-norm

    def scale(self, raw_TD: Tensor, normed_TD: Tensor) -> Tensor:
        """The post-norm's factor per token: normed = scale * gain * raw.  1 without one.

        The least-squares ratio of the two is exact, since they are parallel.
        """
        if self.gain is None:
            return torch.ones(raw_TD.shape[0])
        gained_TD = (raw_TD * self.gain).cpu().double()  # not every device has float64
        ratio_T = (normed_TD.cpu().double() * gained_TD).sum(-1) / gained_TD.pow(2).sum(-1)
        return torch.nan_to_num(ratio_T).float()


def _writer(
    linear: tuple[Tensor, Tensor | None],
    norm: nn.Module | None,
    direction_DK: Tensor,
    multiplier: float,
) -> _Writer:
    weight_DI, bias_D = (None if t is None else t.to(direction_DK.device) for t in linear)
    assert weight_DI is not None
    gain = None if norm is None else _gain(norm, weight_DI)
    reader_DK = direction_DK.float() * multiplier
    if gain is not None:
        reader_DK = reader_DK * gain[:, None]
    bias_score = torch.zeros(direction_DK.shape[1], device=direction_DK.device)
    if bias_D is not None:
        bias_score = bias_D.float() @ reader_DK
    return _Writer((weight_DI.float().T @ reader_DK).T, bias_score, gain)


def _gain(norm: nn.Module, like: Tensor) -> Tensor:
    """The gain of an RMS norm, whatever it is called and however it is stored.

    A constant vector has root mean square equal to its own entries, so the norm returns its gain
    (eps is negligible beside entries of 1000).
    """
    constant = torch.full((1, like.shape[0]), 1000.0, device=like.device, dtype=torch.float32)
    with torch.inference_mode():
        return norm(constant)[0].float()  # type: ignore[no-any-return]  # untyped callable


def _linear(module: nn.Module) -> tuple[Tensor, Tensor | None]:
    """Weight as [outputs, inputs] and bias of a Linear or of GPT-2's Conv1D."""
    weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
    if not isinstance(weight, Tensor) or not weight.is_floating_point():
        raise ModelError(
            f"Expected a plain linear layer, got {type(module).__name__}. Internals need the "
            "weights themselves: load the model without quantisation. Trajectories work as it is."
        )
    transposed = type(module).__name__ == "Conv1D"
    weight = weight.detach()
    return (weight.T if transposed else weight), None if bias is None else bias.detach()


def _check_written(
    model: Model,
    seen: dict[str, Tensor],
    names: tuple[str, str, str],
    linear: tuple[Tensor, Tensor | None],
) -> None:
    """Do these weights write what the part adds?  Not so beside an adapter, or scaled later."""
    inputs_TI, raw_TD, whole_TD = (seen[name] for name in names)
    weight_DI, bias_D = linear
    written_TD = inputs_TI @ weight_DI.float().T.to(inputs_TI.device)
    if bias_D is not None:
        written_TD = written_TD + bias_D.float().to(inputs_TI.device)
    allowed = 10 * tolerance(model.dtype)
    if difference(written_TD, raw_TD) > allowed or difference(raw_TD, whole_TD) > allowed:
        raise ModelError(
            f"Expected the output weights of '{type(model.hf).__name__}' to write what its parts "
            "add to the stream, but something else is added or scaled on the way (an adapter that "
            "is not merged?). Merge it, or leave the internals out: trajectories work as it is."
        )


def _first(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output  # type: ignore[no-any-return]  # untyped outputs


def _get(module: nn.Module, name: str) -> nn.Module:
    return getattr(module, name)  # type: ignore[no-any-return]  # by name: untyped


def _array(tensor: Tensor) -> NDArray[np.float32]:
    return np.ascontiguousarray(tensor.detach().float().cpu().numpy())
