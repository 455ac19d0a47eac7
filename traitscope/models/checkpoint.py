"""Checkpoints: what a model's name means, found without loading it; and loading it.

`locate` finds the checkpoint (the bundled pocket, a local folder, a hub id) and what goes with it
(revision, adapter, family); `load_weights` gives the transformers model on its device, in its
dtype, an adapter merged.  This module does not know what is done with a model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from traitscope.errors import MachineError, ModelError, memory_errors
from traitscope.models.families import Family, family_of
from traitscope.models.fingerprint import fingerprint_folder, fingerprint_of
from traitscope.models.refusals import ATTENTION, refuse_prompts
from traitscope.pocket import POCKET_DIR

__all__ = [
    "DTYPES",
    "SPREAD",
    "Checkpoint",
    "known_dtype",
    "load_weights",
    "locate",
    "pick_device",
]

SPREAD = "spread"  # a device: all GPUs, filled one after the other

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_WEIGHTS = ("*.safetensors", "*.bin")
_FILES = ("*.json", "*.model", "*.jinja", "*.txt")
_DOUBLES = ["original/*", "consolidated*", "*/*"]  # the same weights once more, for other programs


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on this machine's disk: what a model's name means, before anything is loaded."""

    name: str
    folder: Path
    revision: str | None = None
    adapter: Path | None = None
    family: Family | None = None
    trust_remote_code: bool = False

    @cached_property
    def fingerprint(self) -> str:
        """Over the checkpoint's files and, where there are any, the adapter's and the family."""
        own = fingerprint_folder(self.folder)
        if self.adapter is None and self.family is None:
            return own
        adapter = "" if self.adapter is None else fingerprint_folder(self.adapter)
        return fingerprint_of(own, adapter, repr(self.family))

    @cached_property
    def tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        try:
            return AutoTokenizer.from_pretrained(
                str(self.folder), trust_remote_code=self.trust_remote_code
            )
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

    def weights_bytes(self, dtype: str) -> int:
        """About what the weights take in a dtype: their files' size, in that dtype's numbers."""
        kinds = [list(self.folder.glob(pattern)) for pattern in _WEIGHTS]
        found: list[Path] = next(filter(None, kinds), [])
        stored, wanted = (getattr(torch, self.dtype(name)).itemsize for name in ("auto", dtype))
        return sum(path.stat().st_size for path in found) * int(wanted) // int(stored)


def locate(
    name: str,
    *,
    revision: str | None = None,
    adapter: str | None = None,
    family: Family | Mapping[str, object] | None = None,
    trust_remote_code: bool = False,
) -> Checkpoint:
    """The checkpoint that `name` means: "pocket", a local folder, or a hub id.

    A hub id is fetched (or found in the cache) as transformers does it: `revision`, the token and
    offline mode of the environment are honoured.  `adapter` is the folder of a LoRA adapter,
    `family` a `Family` or its keys, where the architecture's parts must be named.  Code that comes
    with a checkpoint runs only with `trust_remote_code`.  Raises ModelError where there is none.
    """
    row = family if isinstance(family, Family | None) else family_of(family)
    folder, fetched = _folder_of(name, revision, trust_remote_code)
    return Checkpoint(
        name,
        folder,
        revision if fetched else None,
        None if adapter is None else _checked_adapter(adapter),
        row,
        trust_remote_code,
    )


def _folder_of(name: str, revision: str | None, code: bool) -> tuple[Path, bool]:
    """The checkpoint's folder, and whether it is a snapshot of the hub's."""
    if name == "pocket":
        return POCKET_DIR, False
    folder = _path(name)
    if folder is not None and folder.is_dir():
        return _checked(folder), False
    taken = folder is None or folder.exists()
    if taken or name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise ModelError(
            f"Unknown model '{name}'. Expected 'pocket', a folder with config.json and weights, "
            "or a hub id such as 'google/gemma-2-2b-it'. Check the spelling and the place."
        )
    return _from_hub(name, revision, code), True


def _checked_adapter(name: str) -> Path:
    folder = _path(name)
    if folder is None or not (folder / "adapter_config.json").is_file():
        raise ModelError(
            f"Expected an adapter's folder, with adapter_config.json and its weights, got '{name}'."
            " Give the folder that peft's save_pretrained wrote."
        )
    if not any(any(folder.glob(pattern)) for pattern in _WEIGHTS):
        raise ModelError(
            f"Expected weights (adapter_model.safetensors) in the adapter's folder '{folder}', "
            "found none. Check that it is complete."
        )
    return folder


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


def _from_hub(name: str, revision: str | None, code: bool) -> Path:
    folder = _snapshot(name, revision, [*_FILES, "*.safetensors", *(["*.py"] if code else [])])
    if not any(folder.glob("*.safetensors")):  # an older checkpoint
        folder = _snapshot(name, revision, ["*.bin"])
    return _checked(folder)


def _snapshot(name: str, revision: str | None, patterns: list[str]) -> Path:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError

    # among its bases is the root of the HTTP client's errors, whichever client this release uses
    failures = tuple(
        kind
        for kind in (OSError, *HfHubHTTPError.__mro__)
        if issubclass(kind, Exception) and kind is not Exception
    )
    try:
        return Path(
            snapshot_download(
                name, revision=revision, allow_patterns=patterns, ignore_patterns=_DOUBLES
            )
        )
    except HFValidationError as error:
        raise ModelError(
            f"Unknown model '{name}': not a hub id ({_first_line(error)}). Expected 'pocket', a "
            "folder, or an id such as 'google/gemma-2-2b-it'."
        ) from error
    except GatedRepoError as error:
        raise ModelError(
            f"The model '{name}' is gated: the hub gives it only to who accepted its licence. "
            "Accept it on the model's page, and set HF_TOKEN or run 'hf auth login'."
        ) from error
    except failures as error:
        at = f" at revision '{revision}'" if revision else ""
        if constants.HF_HUB_OFFLINE:
            raise ModelError(
                f"The model '{name}'{at} is not a folder here nor in the hub's cache, and "
                "HF_HUB_OFFLINE forbids fetching it. Unset that, or give a local folder."
            ) from error
        raise ModelError(
            f"The model '{name}'{at} is not a folder here and cannot be had from the hub "
            f"({_first_line(error)}). Check the id, the network and your access token, or give "
            "a local folder."
        ) from error


# --- weights -------------------------------------------------------------------------------------


def load_weights(checkpoint: Checkpoint, device: str, dtype: torch.dtype) -> Any:
    """The transformers model, in eval mode; an adapter merged into it.

    Raises ModelError where it does not load, MachineError where it does not fit.
    """
    target = None if device == SPREAD else pick_device(device)
    quantised = "quantization_config" in checkpoint.config
    _check_code(checkpoint)
    if target is None or quantised:
        _need("accelerate", "A model over several devices, or with quantised weights,", "large")
    where: dict[str, Any] = {}
    if target is None:
        where["device_map"] = "auto"
    elif quantised:
        where["device_map"] = {"": target}  # such weights are made where they stay
    with _quiet_bars():
        try:
            with memory_errors():
                hf, info = _auto_class(checkpoint).from_pretrained(
                    str(checkpoint.folder),
                    dtype=dtype,
                    output_loading_info=True,
                    trust_remote_code=checkpoint.trust_remote_code,
                    **where,
                    **_attention(checkpoint, target),
                )
                hf = hf.eval() if where else hf.to(target).eval()
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise MachineError(
                f"Out of memory while loading '{checkpoint.name}' onto {target or 'all devices'}. "
                "Use a narrower dtype, another device ('spread': all GPUs) or a smaller model."
            ) from error
        except Exception as error:  # transformers, safetensors and pickle each raise their own
            raise ModelError(
                f"Expected a causal language model in '{checkpoint.folder}', but it does not load "
                f"({_first_line(error)}). Check that the download is complete."
            ) from error
    _check_missing(checkpoint, info["missing_keys"])
    return hf if checkpoint.adapter is None else _merged(hf, checkpoint, quantised)


def _attention(checkpoint: Checkpoint, target: torch.device | None) -> dict[str, Any]:
    """MPS's fused attention may let tokens of narrow dtypes look ahead (pytorch issue 195910):
    plain attention is taken there.  A way that the config asks for goes before any other: one
    that cannot be had is taken out of it."""
    from transformers import AutoConfig

    plain = target is not None and target.type == "mps"
    found: dict[str, Any] = {"attn_implementation": "eager"} if plain else {}
    keys = ("_attn_implementation", "attn_implementation")
    parts = (checkpoint.config, checkpoint.config.get("text_config") or {})
    asked = {str(part[key]) for part in parts for key in keys if part.get(key)}
    if not asked <= set(ATTENTION[:1] if plain else ATTENTION):
        found["config"] = AutoConfig.from_pretrained(
            str(checkpoint.folder), trust_remote_code=checkpoint.trust_remote_code
        )
        found["config"]._attn_implementation = None
    return found


def _auto_class(checkpoint: Checkpoint) -> Any:
    """The causal LM's class; that of texts and images where the checkpoint is such a wrapper."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
    from transformers.models.auto import modeling_auto

    kind = checkpoint.config.get("model_type")
    alone = kind in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    wrapped = kind in modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    return AutoModelForImageTextToText if wrapped and not alone else AutoModelForCausalLM


def _check_code(checkpoint: Checkpoint) -> None:
    """A checkpoint that brings its own code is loaded only where that was asked for."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    kind = checkpoint.config.get("model_type")
    native = kind in CONFIG_MAPPING_NAMES
    if checkpoint.trust_remote_code or native or not checkpoint.config.get("auto_map"):
        return
    raise ModelError(
        f"Expected an architecture that transformers has, got '{kind}': '{checkpoint.name}' brings "
        "Python code of its own, which would run on this machine. Read it, and if you trust it, "
        "say so with --trust-remote-code, or trust_remote_code = true in the suite."
    )


def _check_missing(checkpoint: Checkpoint, keys: Any) -> None:
    missing = sorted(keys)
    if missing:  # transformers would draw them at random, and say so in a warning only
        raise ModelError(
            f"Expected all weights of '{checkpoint.name}' in '{checkpoint.folder}', but "
            f"{len(missing)} are missing, '{missing[0]}' first. Check that the download is "
            "complete and that config.json belongs to these weights."
        )


def _merged(hf: Any, checkpoint: Checkpoint, quantised: bool) -> Any:
    """The model with the adapter's weights added to its own."""
    if quantised:
        raise ModelError(
            f"Expected weights that an adapter can be added to, got quantised ones in "
            f"'{checkpoint.name}'. Use the checkpoint that is not quantised."
        )
    _need("peft", "An adapter", "adapters")
    peft = import_module("peft")

    try:
        adapted = peft.PeftModel.from_pretrained(hf, str(checkpoint.adapter))
        refuse_prompts(adapted)
        return adapted.merge_and_unload(safe_merge=True).eval()
    except ModelError:
        raise
    except Exception as error:  # whatever it is, it is the adapter's files or another model's
        raise ModelError(
            f"Expected an adapter of '{checkpoint.name}' in '{checkpoint.adapter}', but it does "
            f"not fit ({_first_line(error)}). Give the model that it was trained on."
        ) from error


def _need(package: str, what: str, extra: str) -> None:
    if find_spec(package) is None:
        raise ModelError(
            f"{what} needs the package '{package}', which is not installed here. "
            f"Install it: pip install 'traitscope[{extra}]'."
        )


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
