"""Which fields of a config its class obeys: found by trying them out, on a few tokens.

A config may hold `sliding_window` or `layer_types` though the class never reads them.  Masks made
by such a field would hide what the model sees, and that shows only in texts longer than the
window.  So a window is narrowed to one token for the moment: where it is obeyed, the last token's
state no longer depends on the tokens before it.  Masks by kind of layer are handed over, and are
taken or not.  This module knows no architecture by name, and nothing of caches or batches.

Legend: B rows, T tokens, D model width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from traitscope.errors import ModelError
from traitscope.models.anatomy import Anatomy
from traitscope.models.proof import device_of, difference, probe_ids, tolerance
from traitscope.models.structure import UNREADABLE

__all__ = ["Obeyed", "as_obeyed"]

_WINDOW = "sliding_window"
_PROBE = (2, 3)  # rows and tokens


class Obeyed:
    """A config as its class reads it: fields that it ignores are None, the others its own.

    What is set is set on the config itself: others hold it as well.
    """

    def __init__(self, config: Any, ignored: frozenset[str]) -> None:
        vars(self).update(_config=config, _ignored=ignored)

    def __getattr__(self, name: str) -> Any:
        if name in vars(self).get("_ignored", ()):
            return None
        return getattr(vars(self).get("_config"), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._config, name, value)


def as_obeyed(hf: Any, anatomy: Anatomy, *, believe: bool = False) -> Anatomy:
    """The same anatomy; its `config` without `layer_types` and `sliding_window` if ignored.

    `believe`: a window that makes no difference is obeyed all the same (somebody has said so, and
    the class may have read it where nobody here can narrow it).  A config with neither costs
    nothing, any other at most three forwards of six tokens.  Raises ModelError where some layers
    obey a window and others do not.
    """
    config, ignored = anatomy.config, set[str]()
    if getattr(config, "layer_types", None) and not _takes_kinds(hf, anatomy):
        ignored.add("layer_types")
    by_kind = getattr(config, "layer_types", None) and not ignored
    if getattr(config, _WINDOW, None) and not by_kind and not _obeys_window(hf, anatomy, believe):
        ignored.add(_WINDOW)
    return replace(anatomy, config=Obeyed(config, frozenset(ignored))) if ignored else anatomy


def _takes_kinds(hf: Any, anatomy: Anatomy) -> bool:
    """Whether the stack takes a dict of masks, one for each of `layer_types`."""
    rows, tokens = _PROBE
    dtype = hf.get_input_embeddings().weight.dtype
    ahead_TT = torch.full((tokens, tokens), torch.finfo(dtype).min, dtype=dtype).triu(1)
    mask_BITT = ahead_TT.to(device_of(hf)).repeat(rows, 1, 1, 1)
    try:
        _last(hf, anatomy, dict.fromkeys(anatomy.config.layer_types, mask_BITT))
    except torch.OutOfMemoryError:
        raise
    except UNREADABLE:
        return False
    return True


def _obeys_window(hf: Any, anatomy: Anatomy, believe: bool) -> bool:
    with _window(anatomy, 1):
        narrow_BD = _last(hf, anatomy)
    with _window(anatomy, _PROBE[1]):
        wide_BD = _last(hf, anatomy)
    if not bool(torch.isfinite(wide_BD).all() and torch.isfinite(narrow_BD).all()):
        return True  # the proofs will say so
    # the rows end with the same token
    seen = difference(wide_BD[:1], wide_BD[1:])
    allowed = min(tolerance(wide_BD.dtype), seen / 10)
    if difference(narrow_BD[:1], narrow_BD[1:]) <= allowed:
        return True
    if difference(narrow_BD, wide_BD) <= allowed:
        return believe
    raise ModelError(
        f"Expected layers that all look at the last {getattr(anatomy.config, _WINDOW)} tokens "
        f"({_WINDOW}), or none, got '{anatomy.config.model_type}', where some do and nothing in "
        "its config says which. Choose another model."
    )


@torch.inference_mode()
def _last(hf: Any, anatomy: Anatomy, mask: Any = None) -> Tensor:
    """States [B, D] of the last token, which is the same one in all rows."""
    ids_BT = probe_ids(int(anatomy.config.vocab_size), *_PROBE)
    ids_BT[:, -1] = ids_BT[0, -1]
    ids_BT = ids_BT.to(device_of(hf))
    out = anatomy.stack(input_ids=ids_BT, attention_mask=mask, use_cache=False)
    return out[0][:, -1]  # type: ignore[no-any-return]  # transformers' outputs are untyped


@contextmanager
def _window(anatomy: Anatomy, tokens: int) -> Iterator[None]:
    """Within it every holder of the config's window has this one."""
    window = getattr(anatomy.config, _WINDOW)
    holders = _holders(anatomy, window)
    try:
        for holder in holders:
            setattr(holder, _WINDOW, tokens)
        yield
    finally:
        for holder in holders:
            setattr(holder, _WINDOW, window)


def _holders(anatomy: Anatomy, window: int) -> list[Any]:
    """The config, those of the modules, and modules that have read it already."""
    modules = list(anatomy.stack.modules())
    configs = [anatomy.config, *(vars(module).get("config") for module in modules)]
    found = [config for config in configs if getattr(config, _WINDOW, None) == window]
    found += [module for module in modules if vars(module).get(_WINDOW) == window]
    return list({id(holder): holder for holder in found}.values())
