"""A model's identity: what changes when its numbers would.

A checkpoint folder is identified by its config, tokenizer and template files and, for every
tensor, its name, shape, dtype and a sample of its bytes, without loading it (seconds at any
size).  A model that exists only in memory is identified by the same things taken from its
tensors.  The two are told apart, and are never equal to each other.  `hash_tensors` reads every
byte instead, of what is loaded.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import nn

from traitscope.errors import ModelError

__all__ = ["fingerprint_folder", "fingerprint_module", "fingerprint_of", "hash_tensors"]

_SAMPLES = 16  # places per tensor or file
_BYTES = 64  # bytes at each
_CHUNK = 1 << 26  # bytes brought to the host at once
_SMALL = {".json", ".jinja", ".model", ".py"}
_SMALL_NAMES = {"merges.txt", "vocab.txt"}  # other text is for people
_WEIGHTS = {".safetensors", ".bin", ".pt", ".gguf"}


def fingerprint_folder(folder: Path) -> str:
    """ "files:" and 32 hex digits over a checkpoint folder's contents.

    Raises ModelError for a safetensors file that is damaged or cut off.
    """
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.iterdir() if p.is_file()):
        if path.suffix in _SMALL or path.name in _SMALL_NAMES:
            digest.update(path.name.encode() + b"\0")
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        elif path.suffix == ".safetensors":
            digest.update(path.name.encode() + b"\0")
            _add_safetensors(digest, path)
        elif path.suffix in _WEIGHTS:
            digest.update(path.name.encode() + b"\0")
            size = path.stat().st_size
            with path.open("rb") as file:
                _add_samples(digest, file, 0, size)
    return "files:" + digest.hexdigest()[:32]


def _add_safetensors(digest: Any, path: Path) -> None:
    with path.open("rb") as file:
        raw = _safetensors_header(file, path)
        digest.update(raw)
        for name, entry in sorted(json.loads(raw).items()):
            if name != "__metadata__":
                start, end = entry["data_offsets"]
                _add_samples(digest, file, 8 + len(raw) + start, end - start)


def _safetensors_header(file: BinaryIO, path: Path) -> bytes:
    size = path.stat().st_size
    length = int.from_bytes(file.read(8), "little")
    try:
        raw = file.read(min(length, size))
        entries = json.loads(raw)
        ends = [e["data_offsets"][1] for name, e in entries.items() if name != "__metadata__"]
        whole = 8 + length + max(ends, default=0) == size
    except (ValueError, AttributeError, KeyError, TypeError, IndexError):
        whole = False
    if not whole:
        raise ModelError(
            f"Expected a whole safetensors file, but '{path}' is damaged or cut off. "
            "Check that the download is complete, or save the model again."
        )
    return raw


def _add_samples(digest: Any, file: BinaryIO, start: int, size: int) -> None:
    digest.update(struct.pack("<Q", size))
    for k in range(_SAMPLES):
        file.seek(start + max(0, (size - _BYTES) * k // (_SAMPLES - 1)))
        digest.update(file.read(min(_BYTES, size)))


def fingerprint_of(*parts: str) -> str:
    """ "files:" and 32 hex digits over other fingerprints and what else goes with them."""
    return "files:" + hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def fingerprint_module(hf: nn.Module, tokenizer: Any, more: str = "") -> str:
    """ "memory:" and 32 hex digits over config, vocabulary, template and sampled tensors.

    Raises ModelError for weights that are no tensors.
    """
    digest = hashlib.sha256(more.encode())
    config = getattr(hf, "config", None)
    digest.update(json.dumps(_plain(config), sort_keys=True, default=str).encode())
    digest.update(json.dumps(tokenizer.get_vocab(), sort_keys=True).encode())
    digest.update(str(getattr(tokenizer, "chat_template", None)).encode())
    for name, tensor in sorted(hf.state_dict().items()):
        if not isinstance(tensor, torch.Tensor):
            raise ModelError(
                f"Expected weights that are tensors, got a {type(tensor).__name__} in '{name}', as "
                "torch.ao.quantization packs them. Wrap the model as it was before, or load a "
                "checkpoint that is quantised as transformers does it."
            )
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        flat = tensor.detach().reshape(-1)
        if flat.numel():
            places = torch.arange(256) * (flat.numel() - 1) // 255
            sample = flat[places.to(flat.device)].float().cpu().contiguous()
            digest.update(sample.numpy().tobytes())
    return "memory:" + digest.hexdigest()[:32]


def hash_tensors(hf: nn.Module, on_bytes: Callable[[int, int], None]) -> str:
    """SHA-256 (64 hex digits) over every tensor as it is loaded: name, shape, dtype, all bytes.

    Tensors in the order of their names, bytes little-endian and row by row; weights that are tied
    count under each name.  `on_bytes(done, total)` is called for each chunk.
    """
    digest = hashlib.sha256()
    tensors = sorted(hf.state_dict().items())
    total = sum(tensor.numel() * tensor.element_size() for _, tensor in tensors)
    done = 0
    for name, tensor in tensors:
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\0".encode())
        flat = tensor.detach().reshape(-1)
        step = max(1, _CHUNK // tensor.element_size())
        for start in range(0, flat.numel(), step):
            chunk = flat[start : start + step].contiguous().view(torch.uint8).cpu().numpy()
            digest.update(chunk.data)
            done += chunk.nbytes
            on_bytes(done, total)
    return digest.hexdigest()


def _plain(config: Any) -> Any:
    plain = dict(config.to_dict()) if config is not None else {}
    for volatile in ("_name_or_path", "transformers_version", "torch_dtype", "dtype"):
        plain.pop(volatile, None)
    return plain
