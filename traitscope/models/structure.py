"""Where the parts of an unknown decoder are: found by structure, believed only if it adds up.

One tiny forward is watched at every part of every block.  A reading of the blocks (which part is
attention, which is the MLP, whose input is the state between them) is accepted only if in every
block mid = pre + what attention added and post = mid + what the MLP added or, where they run in
parallel, post = pre + both; with contributions that are large enough to tell readings apart.  What
is found goes through the same proofs as a known family.  No name of an architecture is in here.

Legend: B rows, T tokens, D model width.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from traitscope.errors import ModelError
from traitscope.models.anatomy import decoder_of, text_config
from traitscope.models.families import Family
from traitscope.models.proof import device_of, difference, probe_ids, tolerance

__all__ = ["UNREADABLE", "discover"]

_ATTENTION = re.compile(r"attn|attention", re.IGNORECASE)
_QUERY = re.compile(r"^(q|qkv|query|query_key_value|c_attn|w_?qkv|w_?q)(_?proj|_lin)?$", re.I)
_PROBE = (2, 7)  # rows and tokens
_OUT = ("o_proj", "out_proj", "dense")
_OVERRIDE = (
    "Name its parts with the suite's key 'family' or Model.wrap(..., family=...): docs/models.md "
    "shows how."
)
# what code that nobody here has read may raise when it is called as transformers' own models are
UNREADABLE = (
    AttributeError,
    IndexError,
    KeyError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
)


def discover(hf: Any) -> Family:
    """The row that fits a transformers causal LM.

    Raises ModelError where no reading adds up: it says what was found and how to name the parts.
    """
    config = text_config(hf)
    stack = decoder_of(hf)
    path, blocks = _blocks_of(stack, config)
    watched = _observe(hf, stack, blocks, int(config.vocab_size))
    for reading in _readings(blocks, watched):
        if reading.adds_up(watched.blocks):
            return replace(
                _named(reading, blocks),
                blocks=path,
                final_norm=_final_norm(watched, config),
                residual_multiplier=reading.multiplier(watched.blocks[0]),
                logit_scale=_logit_scale(hf, config, watched),
            )
    parts = ", ".join(name for name, _ in blocks[0].named_children())
    raise ModelError(
        "Expected blocks that add attention and then an MLP to one stream of states, or both at "
        f"once, got '{config.model_type}', where no reading of a block ({parts}) adds up. "
        f"{_OVERRIDE}"
    )


def _blocks_of(stack: nn.Module, config: Any) -> tuple[str, nn.ModuleList]:
    """Path and modules of the one list whose members each have attention."""
    lists = {
        name: module
        for name, module in stack.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) and all(map(_attentions, module))
    }
    # a list within a block of another list is a part of that block
    outer = {n: m for n, m in lists.items() if not any(n.startswith(f"{o}.") for o in lists)}
    wanted = getattr(config, "num_hidden_layers", None)
    if len(outer) > 1:
        outer = {name: module for name, module in outer.items() if len(module) == wanted}
    if len(outer) != 1:
        found = ", ".join(sorted(outer)) or "none"
        raise ModelError(
            f"Expected one list of blocks with attention in '{config.model_type}', found {found}. "
            f"Blocks without attention are not supported; otherwise: {_OVERRIDE}"
        )
    return next(iter(outer.items()))


def _attentions(block: nn.Module) -> list[str]:
    """Names of a block's parts that may be its attention."""
    heavy = [(name, part) for name, part in block.named_children() if _has_matrix(part)]
    named = [name for name, _ in heavy if _ATTENTION.search(name)]
    return named or [n for n, p in heavy if any(_QUERY.match(c) for c, _ in p.named_children())]


def _has_matrix(module: nn.Module) -> bool:
    return any(parameter.dim() >= 2 for parameter in module.parameters())


# --- one forward, watched ------------------------------------------------------------------------


@dataclass
class _Seen:
    """The states [B, T, D] that went into and came out of a module's parts; "" is the module."""

    into: dict[str, Tensor] = field(default_factory=dict)
    out: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class _Watched:
    blocks: list[_Seen]
    stack: _Seen
    logits: Tensor


def _observe(hf: Any, stack: nn.Module, blocks: nn.ModuleList, vocabulary: int) -> _Watched:
    seen, whole, home = [_Seen() for _ in blocks], _Seen(), device_of(hf)
    handles: list[Any] = []
    for store, module in [*zip(seen, blocks, strict=True), (whole, stack)]:
        for name, part in [("", module), *module.named_children()]:
            handles.append(part.register_forward_hook(_keep(store, name, home), with_kwargs=True))
    ids_BT = probe_ids(vocabulary, *_PROBE).to(home)
    try:
        with torch.inference_mode():
            out = hf(input_ids=ids_BT, attention_mask=torch.ones_like(ids_BT), use_cache=False)
    except torch.OutOfMemoryError:
        raise
    except UNREADABLE as error:
        raise ModelError(
            f"Expected {type(hf).__name__} to run as transformers' causal language models do, but "
            f"it raises {type(error).__name__} ({error}). It is not supported."
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    return _Watched(seen, whole, out.logits)


def _keep(store: _Seen, name: str, home: torch.device) -> Any:
    def hook(_: nn.Module, args: Sequence[Any], kwargs: dict[str, Any], output: Any) -> None:
        given = args[0] if args else kwargs.get("hidden_states")
        made = output[0] if isinstance(output, tuple) else output
        for where, states in ((store.into, given), (store.out, made)):
            if isinstance(states, Tensor) and states.shape[:-1].numel() == prod(_PROBE):
                # some blocks add in place afterwards, some MLPs see [B * T, D]
                where[name] = states.clone().view(*_PROBE, -1).to(home)

    return hook


# --- readings ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Reading:
    """One way to read a block.  `mid` None: attention and MLP run in parallel."""

    attention: str
    attn_norm: str | None
    mlp: str
    mlp_norm: str | None
    mid: str | None

    def multiplier(self, seen: _Seen) -> float | None:
        """What scales everything that is added; None: nothing does."""
        attn, mlp = self._added(seen)
        end = seen.out[""] if self.mid is None else seen.into[self.mid]
        part = attn + mlp if self.mid is None else attn
        change, added = _wide(end - seen.into[""]), _wide(part)
        ratio = float(change @ added / added.pow(2).sum())
        return None if abs(ratio - 1) <= 10 * tolerance(end.dtype) else ratio

    def adds_up(self, blocks: list[_Seen]) -> bool:
        """In every block; and at least once enough is added to have told it from nothing."""
        needed = {"", self.attention, self.mlp, *filter(None, (self.attn_norm, self.mlp_norm))}
        if any(not needed <= seen.out.keys() or "" not in seen.into for seen in blocks):
            return False
        if self.mid is not None and any(self.mid not in seen.into for seen in blocks):
            return False
        if any(state.shape != seen.into[""].shape for seen in blocks for state in self._all(seen)):
            return False
        scale = self.multiplier(blocks[0]) or 1.0
        least = 3 * tolerance(blocks[0].out[""].dtype)
        return all(self._holds(seen, scale) for seen in blocks) and all(
            max(sizes) > least
            for sizes in zip(*(self._sizes(seen, scale) for seen in blocks), strict=True)
        )

    def _added(self, seen: _Seen) -> tuple[Tensor, Tensor]:
        return seen.out[self.attn_norm or self.attention], seen.out[self.mlp_norm or self.mlp]

    def _all(self, seen: _Seen) -> tuple[Tensor, ...]:
        mid = () if self.mid is None else (seen.into[self.mid],)
        return (*self._added(seen), *mid, seen.out[""])

    def _sizes(self, seen: _Seen, scale: float) -> tuple[float, float]:
        pre = seen.into[""]
        return tuple(difference(pre + scale * part, pre) for part in self._added(seen))  # type: ignore[return-value]  # of two

    def _holds(self, seen: _Seen, scale: float) -> bool:
        attn, mlp = self._added(seen)
        pre, post = seen.into[""], seen.out[""]
        allowed = tolerance(pre.dtype)
        if self.mid is None:
            return difference(post, pre + scale * attn + scale * mlp) <= allowed
        mid = seen.into[self.mid]
        return (
            difference(mid, pre + scale * attn) <= allowed
            and difference(post, mid + scale * mlp) <= allowed
        )


def _readings(blocks: nn.ModuleList, watched: _Watched) -> Iterator[_Reading]:
    """All readings of the parts' names, the plainest first; one after the other before parallel."""
    children = list(blocks[0].named_children())
    plain = [name for name, part in children if not _has_matrix(part)]
    attentions = _attentions(blocks[0])
    mlps = [name for name, part in children if _has_matrix(part) and name not in attentions]
    seen = watched.blocks[0]
    attn_options = [(a, norm) for a in attentions for norm in _after(a, plain, seen)]
    mlp_options = [(m, norm) for m in mlps for norm in _after(m, plain, seen)]
    for (attn, attn_norm), (mlp, mlp_norm) in product(attn_options, mlp_options):
        for mid in [*plain, mlp]:
            yield _Reading(attn, attn_norm, mlp, mlp_norm, mid)
    for (attn, attn_norm), (mlp, mlp_norm) in product(attn_options, mlp_options):
        yield _Reading(attn, attn_norm, mlp, mlp_norm, None)


def _after(part: str, plain: list[str], seen: _Seen) -> Iterator[str | None]:
    """What may stand between a part and the stream: nothing, or what reads the part's output."""
    yield None
    for name in plain:
        if name in seen.into and part in seen.out and torch.equal(seen.into[name], seen.out[part]):
            yield name


# --- the rest of the row -------------------------------------------------------------------------


def _final_norm(watched: _Watched, config: Any) -> str:
    last = watched.blocks[-1].out[""]
    for name, given in watched.stack.into.items():
        if name and given.shape == last.shape and torch.equal(given, last):
            return name
    raise ModelError(
        f"Expected a norm that reads what the last block of '{config.model_type}' writes, found "
        f"none. {_OVERRIDE}"
    )


def _logit_scale(hf: Any, config: Any, watched: _Watched) -> float | None:
    """Logits over the head's output, where the config does not say it in a known key."""
    known = ("logit_scale", "logits_scaling", "final_logit_softcapping")
    if any(getattr(config, key, None) for key in known) or "" not in watched.stack.out:
        return None
    with torch.inference_mode():
        own = _wide(hf.get_output_embeddings()(watched.stack.out[""]))
    logits = _wide(watched.logits)
    if own.shape != logits.shape:
        return None
    ratio = float(own @ logits / own.pow(2).sum())
    return None if abs(ratio - 1) <= 10 * tolerance(watched.logits.dtype) else ratio


def _wide(tensor: Tensor) -> Tensor:
    """Flat, in float64, on the host: not every device has it."""
    return tensor.cpu().double().flatten()


def _named(reading: _Reading, blocks: nn.ModuleList) -> Family:
    """The row of a reading; the parts of parts by their usual names, or internals are not known."""
    attention = getattr(blocks[0], reading.attention)
    mlp = getattr(blocks[0], reading.mlp)
    qkv = ("q_proj", "k_proj", "v_proj")
    out = next((name for name in _OUT if hasattr(attention, name)), "")
    known = _are_linear(attention, (*qkv, out or "-"))
    return Family(
        attention=reading.attention,
        attn_post_norm=reading.attn_norm,
        mlp=reading.mlp,
        mlp_post_norm=reading.mlp_norm,
        mid_input_of=reading.mid or "",
        parallel=reading.mid is None,
        qkv=qkv if known else (),
        attn_out=out,
        up="up_proj" if _are_linear(mlp, ("up_proj", "down_proj")) else "",
        gate="gate_proj" if hasattr(mlp, "gate_proj") else None,
        experts=any(_is_expert(getattr(block, reading.mlp)) for block in blocks),
    )


def _are_linear(module: nn.Module, names: Sequence[str]) -> bool:
    return all(isinstance(getattr(module, name, None), nn.Linear) for name in names)


def _is_expert(mlp: nn.Module) -> bool:
    lists = any(isinstance(module, nn.ModuleList) for module in mlp.modules())
    return lists or any(parameter.dim() >= 3 for parameter in mlp.parameters())
