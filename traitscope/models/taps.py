"""Reading the residual stream at every site, inside the model's own forward.

`Taps` watches a model and hands each site's states h_BTD to a sink, in the order of
`Anatomy.sites`.  Sinks decide what is kept: `Scores` projects on all traits and keeps no state,
`Means` keeps means over chosen tokens, `States` keeps everything (for proofs and tests).
This module does not know what a batch row means, nor where numbers go afterwards.

Legend: B rows, T tokens, S sites, D model width, K traits, N = B * T, X = D for each kept site.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from traitscope.models.anatomy import Anatomy
from traitscope.models.forwards import wrap_forward

__all__ = ["Means", "Scores", "Sink", "States", "Taps"]


class Sink(Protocol):
    """What receives the states of one forward."""

    def start(self) -> None:
        """A forward begins: forget the one before."""

    def take(self, site: int, h_BTD: Tensor) -> None:
        """The states of one site, in the model's dtype; called once per site, in order."""


class Taps:
    """Watches all 2L+1 sites (L+1 where blocks are parallel).  A context manager.

    `embed` is the input of block 0, `mid` the input of the module that `Anatomy` names, `post`
    what the block returns.  Only states are handed on; the forward itself is not changed.  A
    module is watched by a `forward` of its own around the one it has, which costs a fifth of a
    hook; where others have put hooks on it (a steering vector, say) by a hook as well, so that
    what they change is seen.
    """

    def __init__(self, anatomy: Anatomy, sink: Sink) -> None:
        self.sink = sink
        self._undo: list[Callable[[], None]] = []
        self._shape = torch.Size()
        site = 0
        self._on_input(anatomy.blocks[0].module, site)
        for block in anatomy.blocks:
            if block.mid_input_of is not None:
                site += 1
                self._on_input(block.mid_input_of, site)
            site += 1
            self._on_output(block.module, site)

    def _on_input(self, module: nn.Module, site: int) -> None:
        def see(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            h_BTD = args[0] if args else kwargs["hidden_states"]
            if site == 0:
                self._shape = h_BTD.shape
                self.sink.start()
            elif h_BTD.dim() == 2:  # OPT's MLP sees [B * T, D]
                h_BTD = h_BTD.view(self._shape)
            self.sink.take(site, h_BTD)

        if module._forward_pre_hooks:
            handle = module.register_forward_pre_hook(
                lambda _, args, kwargs: see(args, kwargs), with_kwargs=True
            )
            self._undo.append(handle.remove)
            return

        def watched(inner: Callable[..., Any]) -> Callable[..., Any]:
            @wraps(inner)
            def forward(*args: Any, **kwargs: Any) -> Any:
                see(args, kwargs)
                return inner(*args, **kwargs)

            return forward

        self._undo.append(wrap_forward(module, watched))

    def _on_output(self, module: nn.Module, site: int) -> None:
        take = self.sink.take

        def see(output: Any) -> None:
            # Falcon's blocks return a tuple, most others the tensor itself
            take(site, output[0] if isinstance(output, tuple) else output)

        if module._forward_hooks:
            handle = module.register_forward_hook(lambda _, __, output: see(output))
            self._undo.append(handle.remove)
            return

        def watched(inner: Callable[..., Any]) -> Callable[..., Any]:
            @wraps(inner)
            def forward(*args: Any, **kwargs: Any) -> Any:
                output = inner(*args, **kwargs)
                see(output)
                return output

            return forward

        self._undo.append(wrap_forward(module, watched))

    def close(self) -> None:
        while self._undo:
            self._undo.pop()()

    def __enter__(self) -> Taps:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Scores:
    """Projects every state on all traits in float32, and takes its norm.

    `direction_SDK` holds unit directions.  After a forward, `read()` gives score [B, T, S, K] and
    norm [B, T, S], both float32 on the model's device.  Short forwards (decode steps) keep
    references and project once, in one stacked product; long ones project site by site, so that
    no full states are kept, but those of the sites in `keep`: `kept_BTX()` gives them until the
    next forward.  Those of several short forwards can be projected together instead: `states()`
    gives them as they are, and `project` takes them.
    """

    STACK_TOKENS = 256  # up to here the stacked states are small beside the weights
    FEW_TRAITS = 64  # up to here the traits are the short side of the product

    def __init__(self, direction_SDK: Tensor, keep: Sequence[int] = ()) -> None:
        # K before D: for a few traits this product is two to four times as fast on a CPU
        self.direction_SKD = direction_SDK.float().transpose(1, 2).contiguous()
        self.keep = tuple(keep)
        self._kept: dict[int, Tensor] = {}
        self._states: list[Tensor] = []
        self._long: tuple[Tensor, Tensor] | None = None  # score [B, T, S, K], norm [B, T, S]

    @property
    def many(self) -> bool:
        """Whether the directions are the larger part of what a short forward's product reads."""
        return self.direction_SKD.shape[1] > self.FEW_TRAITS

    def start(self) -> None:
        self._states.clear()
        self._long = None

    def take(self, site: int, h_BTD: Tensor) -> None:
        if site in self.keep:  # a copy: some blocks add to their input in place
            self._kept[site] = h_BTD.float().clone()
        if h_BTD.shape[0] * h_BTD.shape[1] <= self.STACK_TOKENS:
            self._states.append(h_BTD)
            return
        h_BTD, direction_KD = h_BTD.float(), self.direction_SKD[site]
        score_BTSK, norm_BTS = self._long = self._long or self._room(h_BTD)
        norm_BTS[:, :, site] = torch.linalg.vector_norm(h_BTD, dim=-1)
        here = h_BTD.device == direction_KD.device and h_BTD.device.type != "mps"
        if here and not torch.compiler.is_compiling():
            score_NSK = score_BTSK.flatten(0, 1)
            torch.mm(h_BTD.flatten(0, 1), direction_KD.t(), out=score_NSK[:, site])
        else:  # a compiler takes no place to write to; on MPS it may not arrive before torch 2.14
            score_BTSK[:, :, site] = nn.functional.linear(h_BTD, direction_KD.to(h_BTD.device))

    def read(self) -> tuple[Tensor, Tensor]:
        if self._long:
            score_BTSK, norm_BTS = self._long
        else:
            h_SBTD = torch.stack(self._gather(self._states)).float()
            score_SNK = self._project(h_SBTD.flatten(1, 2))
            norm_BTS = torch.linalg.vector_norm(h_SBTD, dim=-1).permute(1, 2, 0)
            score_BTSK = score_SNK.reshape(*h_SBTD.shape[:3], -1).permute(1, 2, 0, 3)
        self.start()
        return score_BTSK, norm_BTS

    def states(self) -> list[Tensor]:
        """What a short forward's `read()` would project: each site's [B, T, D], as it was."""
        states = self._gather(self._states)
        self.start()
        return states

    def project(self, h_NSD: Tensor, score_NSK: Tensor) -> None:
        """Scores of float32 states, written where the second argument says."""
        for site, direction_KD in enumerate(self.direction_SKD):
            torch.mm(h_NSD[:, site], direction_KD.t(), out=score_NSK[:, site])

    def kept_BTX(self) -> Tensor:
        """States of the kept sites in float32, side by side in the order of `keep`."""
        return torch.cat(self._gather([self._kept[site] for site in self.keep]), dim=2)

    def _project(self, h_SND: Tensor) -> Tensor:
        if not self.many:
            return torch.bmm(self.direction_SKD, h_SND.transpose(1, 2)).transpose(1, 2)
        return torch.bmm(h_SND, self.direction_SKD.transpose(1, 2))

    def _room(self, h_BTD: Tensor) -> tuple[Tensor, Tensor]:
        """For a long forward's scores and norms, where each site's are written when it comes."""
        shape = (*h_BTD.shape[:2], *self.direction_SKD.shape[:2])
        home = self.direction_SKD
        return home.new_empty(shape), home.new_empty(shape[:3])

    def _gather(self, parts: list[Tensor]) -> list[Tensor]:
        """All on the directions' device; a no-op unless the model spans several."""
        return [part.to(self.direction_SKD.device) for part in parts]


class Means:
    """Means of states over chosen tokens, in float32.

    Set `weight_BT` (summing to 1 per row) before a forward; `mean_BSD` holds the means after it.
    """

    def __init__(self) -> None:
        self.weight_BT = torch.empty(0)
        self._means: list[Tensor] = []

    def start(self) -> None:
        self._means.clear()

    def take(self, site: int, h_BTD: Tensor) -> None:
        weight_BT = self.weight_BT.to(h_BTD.device)
        self._means.append(torch.einsum("bt,btd->bd", weight_BT, h_BTD.float()).cpu())

    @property
    def mean_BSD(self) -> Tensor:
        return torch.stack(self._means, dim=1)


class States:
    """Keeps every state: for proofs at load and for tests, on short texts."""

    def __init__(self) -> None:
        self.h: list[Tensor] = []

    def start(self) -> None:
        self.h.clear()

    def take(self, site: int, h_BTD: Tensor) -> None:
        self.h.append(h_BTD)
