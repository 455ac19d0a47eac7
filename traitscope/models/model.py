"""A model, loaded once: weights, tokenizer, anatomy and proofs in one object.

`load` loads what a name means, `Model.wrap` takes a model that is loaded already; both refuse what
is known not to work, find the parts (named, given, or by structure) and prove them.  This module
does not know prompts' files, traits or runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import torch
from torch import nn

from traitscope.core import Prompt, Site
from traitscope.errors import ModelError
from traitscope.models.anatomy import Anatomy, dissect, text_config
from traitscope.models.checkpoint import DTYPES, Checkpoint, load_weights, locate
from traitscope.models.families import FAMILIES, Family, family_of
from traitscope.models.fingerprint import fingerprint_module
from traitscope.models.given import frame_of
from traitscope.models.obeyed import as_obeyed
from traitscope.models.proof import Proof, device_of, insist, prove
from traitscope.models.refusals import context_of, refuse, refuse_form, refuse_unproved_window
from traitscope.models.structure import discover
from traitscope.models.text import Arguments, Rendered, Speller, render

__all__ = ["Model", "load", "load_checkpoint"]


@dataclass(frozen=True)
class Model:
    """A loaded causal language model.

    `proofs` are the checks made at load (all held, unless it was asked for with
    `allow_unproven`); `load_seconds` is 0 for a wrapped model.  `arguments` are what its chat
    template is told beside the chat: see `told`.
    """

    name: str
    hf: Any
    tokenizer: Any
    anatomy: Anatomy
    fingerprint: str
    proofs: tuple[Proof, ...]
    load_seconds: float = 0.0
    source: Literal["checkpoint", "wrapped"] = "checkpoint"
    arguments: Arguments = field(default_factory=dict)

    @classmethod
    def wrap(
        cls,
        model: nn.Module,
        tokenizer: Any,
        *,
        name: str = "wrapped",
        family: Family | Mapping[str, object] | None = None,
        allow_unproven: bool = False,
    ) -> Model:
        """Take a transformers model and tokenizer that are loaded already.

        The model is put into eval mode.  `family` names the parts of an architecture that is
        neither known nor found.  Raises ModelError where a proof does not hold, unless
        `allow_unproven`.
        """
        model.eval()
        row = family if isinstance(family, Family | None) else family_of(family)
        fingerprint = fingerprint_module(model, tokenizer, "" if row is None else repr(row))
        made = _assemble(name, model, tokenizer, fingerprint, row, source="wrapped")
        return made if allow_unproven else made.proven()

    @property
    def sites(self) -> tuple[Site, ...]:
        return self.anatomy.sites

    @property
    def device(self) -> torch.device:
        """Where ids go in: the device of the embedding."""
        return device_of(self.hf)

    @property
    def device_kind(self) -> str:
        """What does the arithmetic: "cpu", "mps", or "cuda" and the GPU's name."""
        device = self.device
        if device.type != "cuda":
            return device.type
        return f"cuda {torch.cuda.get_device_name(device)}"

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the residual stream."""
        dtype: torch.dtype = self.hf.get_input_embeddings().weight.dtype
        return dtype

    @property
    def dtype_name(self) -> str:
        return _dtype_name(self.hf)

    @property
    def context(self) -> int:
        """The most tokens a text may have."""
        return context_of(self.anatomy.config)

    @cached_property
    def end_ids(self) -> frozenset[int]:
        """Ids that end a text: those of the generation config, else the tokenizer's."""
        generation = getattr(self.hf, "generation_config", None)
        ids = getattr(generation, "eos_token_id", None)
        if ids is None:
            ids = self.tokenizer.eos_token_id
        if ids is None:
            return frozenset()
        return frozenset(int(i) for i in (ids if isinstance(ids, Sequence) else [ids]))

    @cached_property
    def speller(self) -> Speller:
        return Speller(self.tokenizer)

    @property
    def vocabulary(self) -> int:
        """How many token ids there are."""
        return int(self.anatomy.config.vocab_size)

    def render(self, prompt: Prompt) -> Rendered:
        """The prompt's ids; ModelError where the tokenizer is not this model's."""
        rendered = render(self.tokenizer, prompt, self.arguments)
        self.check_ids(rendered.token_ids)
        return rendered

    def check_ids(self, ids: Sequence[int]) -> None:
        """Raise ModelError for an id that the model has not: on a GPU it would end the process."""
        largest = max(ids)
        if largest >= self.vocabulary:
            raise ModelError(
                f"Expected a tokenizer of '{self.name}', whose ids are below {self.vocabulary}, "
                f"got {largest} for {self.speller.decode([largest])!r}. It is another model's, "
                "or tokens were added without resizing the embedding: load the right one."
            )

    def frame(self, prompt: Prompt, rendered: Rendered) -> str:
        """What stands between a prompt and an answer that was not thought about."""
        return frame_of(self.tokenizer, prompt, rendered, self.arguments)

    def told(self, arguments: Arguments) -> Model:
        """This model with a chat template that is told `arguments` (`template_arguments`)."""
        return replace(self, arguments=dict(arguments))

    def proven(self, proofs: Sequence[Proof] | None = None) -> Model:
        """This model; ModelError where one of `proofs` (its own without) does not hold."""
        what = f"'{self.name}' ({type(self.hf).__name__}) in {self.dtype_name} on {self.device}"
        insist(what, self.name, self.proofs if proofs is None else proofs)
        return self

    def describe(self) -> dict[str, Any]:
        """What a run records about the model."""
        return {
            "name": self.name,
            "fingerprint": self.fingerprint,
            "architecture": type(self.hf).__name__,
            "model_type": self.anatomy.config.model_type,
            "dtype": self.dtype_name,
            "device": str(self.device),
            "device_kind": self.device_kind,
            "n_blocks": len(self.anatomy.blocks),
            "n_heads": self.anatomy.n_heads,
            "d_model": self.anatomy.d_model,
            "vocabulary": self.vocabulary,
            "parameters": sum(p.numel() for p in self.hf.parameters()),
            "context": self.context,
        }


def load(
    name: str,
    *,
    device: str = "auto",
    dtype: str = "auto",
    revision: str | None = None,
    adapter: str | None = None,
    family: Family | Mapping[str, object] | None = None,
    trust_remote_code: bool = False,
    allow_unproven: bool = False,
) -> Model:
    """Load a model once, prove it, and return it.

    `device`: auto (CUDA, else MPS, else CPU), a torch device, or "spread" (all GPUs, by
    accelerate); `dtype`: auto (as the checkpoint says), float32, bfloat16 or float16; the others
    as in `locate`.  Raises ModelError (not found, not supported, no such device, and unless
    `allow_unproven` a proof that does not hold) and MachineError (out of memory).
    """
    checkpoint = locate(
        name,
        revision=revision,
        adapter=adapter,
        family=family,
        trust_remote_code=trust_remote_code,
    )
    return load_checkpoint(checkpoint, device=device, dtype=dtype, allow_unproven=allow_unproven)


def load_checkpoint(
    checkpoint: Checkpoint,
    *,
    device: str = "auto",
    dtype: str = "auto",
    allow_unproven: bool = False,
) -> Model:
    """As `load`, for a checkpoint that was located before."""
    import time

    began = time.perf_counter()
    hf = load_weights(checkpoint, device, DTYPES[checkpoint.dtype(dtype)])
    took = time.perf_counter() - began
    made = _assemble(
        checkpoint.name,
        hf,
        checkpoint.tokenizer,
        checkpoint.fingerprint,
        checkpoint.family,
        seconds=took,
    )
    return made if allow_unproven else made.proven()


def _assemble(
    name: str,
    hf: Any,
    tokenizer: Any,
    fingerprint: str,
    family: Family | None = None,
    *,
    seconds: float = 0.0,
    source: Literal["checkpoint", "wrapped"] = "checkpoint",
) -> Model:
    config = text_config(hf)
    refuse(config)
    refuse_form(hf, config, _dtype_name(hf), DTYPES)
    anatomy = dissect(hf, family or _family_of(hf))
    anatomy = as_obeyed(hf, anatomy, believe=config.model_type not in FAMILIES)
    proofs = tuple(prove(hf, anatomy))
    return Model(name, hf, tokenizer, anatomy, fingerprint, proofs, seconds, source)


def _dtype_name(hf: Any) -> str:
    return str(hf.get_input_embeddings().weight.dtype).removeprefix("torch.")


def _family_of(hf: Any) -> Family:
    """The row of a model: the table's, or found by structure.  Raises ModelError for neither."""
    config = text_config(hf)
    if config.model_type in FAMILIES:
        return FAMILIES[config.model_type]
    refuse_unproved_window(config)
    return discover(hf)
