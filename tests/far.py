"""A device that is not there: what is on it stays apart from the host, though both are one memory.

`far` is a backend of torch's own kind for such things.  A tensor on it holds one on the host and
counts what a real accelerator would charge for: a value that the host reads (it waits), a tensor
that the host sends.  An operation of two devices fails as it would there.  So what would stop a
step from being recorded on a GPU is found without one; what a GPU's kernels do is not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["DEVICE", "Log", "far_away", "moved"]

aten = torch.ops.aten
_HOST = torch.device("cpu")
_COPIES = {aten.copy_.default, aten._to_copy.default}
# their results' sizes, or their results, are known on the device alone
_READ = {
    aten._local_scalar_dense.default: "a value was read",
    aten.nonzero.default: "nonzero",
    aten.masked_select.default: "masked_select",
    aten.equal.default: "equal",
    aten.is_nonzero.default: "a value was read",
    aten.repeat_interleave.Tensor: "repeat_interleave",
    aten._unique2.default: "unique",
    aten.bincount.default: "bincount",
}
_INDEXED = {
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
}


@cache
def _name() -> str:
    backend = torch.utils.backend_registration
    backend._setup_privateuseone_for_python_backend("far")
    return "far"


def DEVICE() -> torch.device:
    return torch.device(_name(), 0)


class Log:
    """What the host had to do for the device, by name."""

    def __init__(self) -> None:
        self.reads, self.sends = Counter[str](), Counter[str]()
        self.calls = 0

    def clear(self) -> None:
        self.reads.clear()
        self.sends.clear()
        self.calls = 0

    def __str__(self) -> str:
        return f"read {dict(self.reads)}, sent {dict(self.sends)}"


class Far(Tensor):
    """A tensor on the far device; `near` is its memory."""

    near: Tensor

    @staticmethod
    def __new__(cls, near: Tensor) -> Far:
        with torch.inference_mode(False):  # views of tensors from outside it are made in it
            # torch does not type it
            return torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined,no-any-return]  # no stub
                cls,
                near.shape,
                strides=near.stride(),
                storage_offset=near.storage_offset(),
                dtype=near.dtype,
                device=DEVICE(),
            )

    def __init__(self, near: Tensor) -> None:
        self.near = near

    def __repr__(self) -> str:  # type: ignore[override]  # torch's has an argument of its own
        return f"Far({self.near!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {}, Log())


class _Mode(TorchDispatchMode):
    """Sees also what has no tensor yet: `zeros(..., device=...)`."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self.log = log

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {}, self.log)


@contextmanager
def far_away() -> Iterator[Log]:
    """Within it the far device works, and the log counts."""
    log = Log()
    with _Mode(log):
        yield log


def moved(module: nn.Module) -> None:
    """Its parameters and buffers go to the far device; what is shared stays shared."""
    seen: dict[int, Any] = {}
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                if id(parameter) not in seen:
                    seen[id(parameter)] = nn.Parameter(Far(parameter.data), requires_grad=False)
                part._parameters[name] = seen[id(parameter)]
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = seen.setdefault(id(buffer), Far(buffer))


def _run(func: Any, args: Any, kwargs: dict[str, Any], log: Log) -> Any:
    if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"):
        with _Mode(log):  # made of other operations, which inference sees as one
            return func.decompose(*args, **kwargs)
    leaves = pytree.tree_leaves((args, kwargs))
    fars = [x for x in leaves if isinstance(x, Far)]
    asked = [x for x in leaves if isinstance(x, torch.device)]
    far = asked[0].type == "far" if asked else bool(fars)
    if far or fars:
        log.calls += 1
        _charge(func, args, [x for x in leaves if isinstance(x, Tensor)], far, log)
    args, kwargs = pytree.tree_map_only(Far, lambda x: x.near, (args, kwargs))
    args, kwargs = pytree.tree_map_only(torch.device, lambda x: _HOST, (args, kwargs))
    if func is aten.histc.default and fars:  # a host counts real numbers only
        args = (args[0].float(), *args[1:])
    made = func(*args, **kwargs)
    if not far:
        return made
    known = {id(x.near): x for x in fars}
    return pytree.tree_map_only(Tensor, lambda x: known[id(x)] if id(x) in known else Far(x), made)


def _charge(func: Any, args: Any, tensors: list[Tensor], far: bool, log: Log) -> None:
    """Counts what the host does for this call; refuses tensors of two devices."""
    nears = [x for x in tensors if not isinstance(x, Far)]
    if func in _COPIES:
        there = isinstance(args[0], Far) if func is aten.copy_.default else far
        source = args[1] if func is aten.copy_.default else args[0]
        if isinstance(source, Far) and not there:
            log.reads["a copy"] += 1
        elif there and not isinstance(source, Far):
            log.sends["a copy"] += 1
        return
    if func in _READ:
        log.reads[_READ[func]] += 1
    if func in _INDEXED:
        indices = [x for x in args[1] if isinstance(x, Tensor)]
        if any(x.dtype in (torch.bool, torch.uint8) for x in indices):
            log.reads["an index of truth values"] += 1
        if not all(isinstance(x, Far) for x in indices):
            log.sends["an index"] += 1
        nears = [x for x in nears if not any(x is index for index in indices)]
    if any(x.dim() for x in nears):
        shapes = [tuple(x.shape) for x in nears]
        raise RuntimeError(f"{func}: tensors on two devices; on the host: {shapes}")
