"""A model, loaded once: weights, tokenizer, anatomy and proofs in one object.

`locate` finds the checkpoint that a name means (the bundled pocket, a local folder, a hub id)
without loading it, `load` loads it, `Model.wrap` takes a model that is loaded already.  This
module does not know prompts' files, traits or runs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from traitscope.core import Prompt, Site
from traitscope.errors import MachineError, ModelError
from traitscope.models.anatomy import Anatomy, context_of, dissect
from traitscope.models.fingerprint import fingerprint_folder, fingerprint_module
from traitscope.models.proof import Proof, insist, prove
from traitscope.models.text import Rendered, Speller, render
from traitscope.pocket import POCKET_DIR

__all__ = [
    "DTYPES",
    "Checkpoint",
    "Model",
    "known_dtype",
    "load",
    "load_checkpoint",
    "locate",
    "pick_device",
]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_WEIGHTS = ("*.safetensors", "*.bin")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on this machine's disk: what a model's name means, before anything is loaded."""

    name: str
    folder: Path
    revision: str | None = None

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint_folder(self.folder)

    @cached_property
    def tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        try:
            return AutoTokenizer.from_pretrained(str(self.folder))
        except Exception as error:  # tokenizers raises bare ones; whatever it is, it is the files
            raise ModelError(
                f"Expected a tokenizer in the checkpoint of '{self.name}', but it does not load "
                f"({_first_line(error)}). Save the tokenizer beside the model."
            ) from error

    @cached_property
    def config(self) -> dict[str, Any]:
        place = self.folder / "config.json"
        try:
            read = json.loads(place.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ModelError(
                f"Expected JSON in '{place}', but it cannot be read ({_first_line(error)}). "
                "Check that the download is complete."
            ) from error
        if not isinstance(read, dict):
            raise ModelError(f"Expected a JSON object in '{place}', got a {type(read).__name__}.")
        return read

    def dtype(self, wanted: str) -> str:
        """The dtype that `wanted` ("auto", "float32", ...) means for this checkpoint."""
        if wanted != "auto":
            return known_dtype(wanted)
        text = self.config.get("text_config") or {}
        for key in ("dtype", "torch_dtype"):
            said = self.config.get(key) or text.get(key)
            if said:
                return known_dtype(str(said).removeprefix("torch."))
        return "float32"


def locate(name: str, *, revision: str | None = None) -> Checkpoint:
    """The checkpoint that `name` means: "pocket", a local folder, or a hub id.

    A hub id is fetched (or found in the cache) as transformers does it: `revision`, the token and
    offline mode of the environment are honoured.  Raises ModelError where there is none.
    """
    if name == "pocket":
        return Checkpoint("pocket", POCKET_DIR)
    folder = _path(name)
    if folder is not None and folder.is_dir():
        return Checkpoint(name, _checked(folder))
    taken = folder is None or folder.exists()
    if taken or name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise ModelError(
            f"Unknown model '{name}'. Expected 'pocket', a folder with config.json and weights, "
            "or a hub id such as 'google/gemma-2-2b-it'. Check the spelling and the place."
        )
    return Checkpoint(name, _from_hub(name, revision), revision)


def _path(name: str) -> Path | None:
    """The path of that name, None where there can be none (too long, an unknown ~user)."""
    try:
        folder = Path(name).expanduser()
        folder.exists()
    except (OSError, RuntimeError, ValueError):
        return None
    return folder if name else None


def _checked(folder: Path) -> Path:
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"Expected a model folder with config.json and weights, but '{folder}' has no "
            "config.json. Give the folder that save_pretrained wrote."
        )
    if not any(any(folder.glob(pattern)) for pattern in _WEIGHTS):
        raise ModelError(
            f"Expected weights (*.safetensors) in the model folder '{folder}', found none. "
            "Give the folder that save_pretrained wrote."
        )
    return folder


def _from_hub(name: str, revision: str | None) -> Path:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    patterns = ["*.json", "*.safetensors", "*.model", "*.jinja", "*.txt"]
    # among its bases is the root of the HTTP client's errors, whichever client this release uses
    failures = tuple(
        kind
        for kind in (OSError, *HfHubHTTPError.__mro__)
        if issubclass(kind, Exception) and kind is not Exception
    )
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except HFValidationError as error:
        raise ModelError(
            f"Unknown model '{name}': not a hub id ({_first_line(error)}). Expected 'pocket', a "
            "folder, or an id such as 'google/gemma-2-2b-it'."
        ) from error
    except failures as error:
        if constants.HF_HUB_OFFLINE:
            raise ModelError(
                f"The model '{name}' is not a folder here nor in the hub's cache, and "
                "HF_HUB_OFFLINE forbids fetching it. Unset that, or give a local folder."
            ) from error
        raise ModelError(
            f"The model '{name}' is not a folder here and cannot be had from the hub "
            f"({_first_line(error)}). Check the id, the network and your access token, or give "
            "a local folder."
        ) from error


@dataclass(frozen=True)
class Model:
    """A loaded causal language model.

    `proofs` are the checks made at load (all held, unless it was asked for with
    `allow_unproven`); `load_seconds` is 0 for a wrapped model.
    """

    name: str
    hf: Any
    tokenizer: Any
    anatomy: Anatomy
    fingerprint: str
    proofs: tuple[Proof, ...]
    load_seconds: float = 0.0
    source: Literal["checkpoint", "wrapped"] = "checkpoint"

    @classmethod
    def wrap(
        cls,
        model: nn.Module,
        tokenizer: Any,
        *,
        name: str = "wrapped",
        allow_unproven: bool = False,
    ) -> Model:
        """Take a transformers model and tokenizer that are loaded already.

        The model is put into eval mode.  Raises ModelError where a proof does not hold, unless
        `allow_unproven`.
        """
        model.eval()
        fingerprint = fingerprint_module(model, tokenizer)
        made = _assemble(name, model, tokenizer, fingerprint, source="wrapped")
        return made if allow_unproven else made.proven()

    @property
    def sites(self) -> tuple[Site, ...]:
        return self.anatomy.sites

    @property
    def device(self) -> torch.device:
        """Where ids go in: the device of the embedding."""
        return torch.device(next(self.hf.parameters()).device)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the residual stream."""
        dtype: torch.dtype = next(p.dtype for p in self.hf.parameters() if p.is_floating_point())
        return dtype

    @property
    def dtype_name(self) -> str:
        return str(self.dtype).removeprefix("torch.")

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

    def render(self, prompt: Prompt) -> Rendered:
        return render(self.tokenizer, prompt)

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
            "n_blocks": len(self.anatomy.blocks),
            "n_heads": self.anatomy.n_heads,
            "d_model": self.anatomy.d_model,
            "vocabulary": int(self.anatomy.config.vocab_size),
            "parameters": sum(p.numel() for p in self.hf.parameters()),
            "context": self.context,
        }


def load(
    name: str,
    *,
    device: str = "auto",
    dtype: str = "auto",
    revision: str | None = None,
    allow_unproven: bool = False,
) -> Model:
    """Load a model once, prove it, and return it.

    `device`: auto (CUDA, else MPS, else CPU) or a torch device; `dtype`: auto (as the checkpoint
    says), float32, bfloat16 or float16.  Raises ModelError (not found, not supported, no such
    device, and unless `allow_unproven` a proof that does not hold) and MachineError (out of
    memory).
    """
    checkpoint = locate(name, revision=revision)
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

    target = pick_device(device)
    began = time.perf_counter()
    hf = _load_weights(checkpoint, target, DTYPES[known_dtype(checkpoint.dtype(dtype))])
    took = time.perf_counter() - began
    made = _assemble(
        checkpoint.name, hf, checkpoint.tokenizer, checkpoint.fingerprint, seconds=took
    )
    return made if allow_unproven else made.proven()


def _load_weights(checkpoint: Checkpoint, target: torch.device, dtype: torch.dtype) -> Any:
    from transformers import AutoModelForCausalLM

    with _quiet_bars():
        try:
            hf, info = AutoModelForCausalLM.from_pretrained(
                str(checkpoint.folder), dtype=dtype, output_loading_info=True
            )
            hf = hf.to(target).eval()
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise MachineError(
                f"Out of memory while loading '{checkpoint.name}' onto {target}. Use a narrower "
                "dtype, another device or a smaller model."
            ) from error
        except Exception as error:  # transformers, safetensors and pickle each raise their own
            raise ModelError(
                f"Expected a causal language model in '{checkpoint.folder}', but it does not load "
                f"({_first_line(error)}). Check that the download is complete."
            ) from error
    missing = sorted(info["missing_keys"])
    if missing:  # transformers would draw them at random, and say so in a warning only
        raise ModelError(
            f"Expected all weights of '{checkpoint.name}' in '{checkpoint.folder}', but "
            f"{len(missing)} are missing, '{missing[0]}' first. Check that the download is "
            "complete and that config.json belongs to these weights."
        )
    return hf


def _assemble(
    name: str,
    hf: Any,
    tokenizer: Any,
    fingerprint: str,
    *,
    seconds: float = 0.0,
    source: Literal["checkpoint", "wrapped"] = "checkpoint",
) -> Model:
    anatomy = dissect(hf)
    proofs = tuple(prove(hf, anatomy))
    return Model(name, hf, tokenizer, anatomy, fingerprint, proofs, seconds, source)


def pick_device(wanted: str) -> torch.device:
    """The torch device that `wanted` means; raises ModelError where it is not there."""
    if wanted == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError as error:
        raise ModelError(
            f"Unknown device '{wanted}'. Expected 'auto', 'cpu', 'cuda', 'cuda:1' or 'mps'."
        ) from error
    there = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not there.get(device.type, False):
        here = ", ".join(kind for kind, present in there.items() if present)
        raise ModelError(
            f"The device '{wanted}' is not on this machine. Here: {here}. "
            "Use one of them, or 'auto'."
        )
    return device


def known_dtype(name: str) -> str:
    """`name`; ModelError where it is not one of `DTYPES`."""
    if name not in DTYPES:
        raise ModelError(
            f"Unknown dtype '{name}'. Expected 'auto', {', '.join(map(repr, DTYPES))}."
        )
    return name


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:200] if text else type(error).__name__


class _quiet_bars:
    """transformers' own progress bars off while a model loads; as they were afterwards."""

    def __enter__(self) -> None:
        from transformers.utils import logging

        self._was_on = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()

    def __exit__(self, *_: object) -> None:
        from transformers.utils import logging

        if self._was_on:
            logging.enable_progress_bar()
