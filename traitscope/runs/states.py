"""Kept states of one text at one site: a safetensors file, bfloat16 or float32.

numpy only, which has no bfloat16: the file is laid out here (8 bytes of length, a JSON header,
the bytes).  A bfloat16 is the upper half of a float32.  Shapes: N tokens, D model width.
"""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from traitscope.core import Float32, Generation, Keep, KeptStates
from traitscope.errors import RunError

__all__ = ["parse_states", "states_bytes", "states_key", "states_name"]

_SAFE_GENERATION = re.compile(r"[0-9A-Za-z_]{1,64}-\d+")
_NAME = re.compile(
    r"states/(?P<generation>[^.]+)\.(?P<site>embed|\d+\.(?:mid|post))"
    r"\.(?P<tokens>prompt|response|last|all)\.(?P<dtype>bfloat16|float32)\.safetensors"
)
_STORED = {"float32": ("F32", "<f4"), "bfloat16": ("BF16", "<u2")}


def states_name(generation: Generation, keep: Keep) -> str:
    """`states/GENERATION.SITE.TOKENS.DTYPE.safetensors`; ValueError for an unsafe id."""
    if not _SAFE_GENERATION.fullmatch(generation.id) or len(keep.sites) != 1:
        raise ValueError(f"no file name for states of '{generation.id}' at {keep.sites}")
    return f"states/{generation.id}.{keep.sites[0]}.{keep.tokens}.{keep.dtype}.safetensors"


def states_key(name: str) -> tuple[Generation, Keep]:
    """What a file of states is of, by its name."""
    match = _NAME.fullmatch(name)
    assert match is not None  # the manifest's names are checked when they are read
    site, tokens, dtype = match["site"], cast(Any, match["tokens"]), cast(Any, match["dtype"])
    return Generation.parse(match["generation"]), Keep((site,), tokens, dtype)


def states_bytes(states: KeptStates) -> bytes:
    """The file's bytes; equal states give equal bytes."""
    kind, _ = _STORED[states.keep.dtype]
    h = np.ascontiguousarray(states.h, dtype="<f4")
    data = (_rounded(h) if kind == "BF16" else h).tobytes()
    position = np.ascontiguousarray(states.position, dtype="<i4").tobytes()
    about = {
        "format": "traitscope.states",
        "format_version": 1,
        "generation": states.generation.id,
        "site": states.site,
        "tokens": states.keep.tokens,
    }
    inner = json.dumps(about, separators=(",", ":"), sort_keys=True)
    header = {
        "__metadata__": {"traitscope": inner},
        "h": {"dtype": kind, "shape": list(h.shape), "data_offsets": [0, len(data)]},
        "position": {
            "dtype": "I32",
            "shape": [len(states.position)],
            "data_offsets": [len(data), len(data) + len(position)],
        },
    }
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    return struct.pack("<Q", len(raw)) + raw + data + position


def parse_states(data: bytes, place: Path) -> KeptStates:
    """States from a file's bytes; RunError where it is damaged or something else."""
    try:
        (length,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8 : 8 + length])
        about = json.loads(header["__metadata__"]["traitscope"])
        dtype = next(name for name, (kind, _) in _STORED.items() if kind == header["h"]["dtype"])
        stored = _tensor(data[8 + length :], header["h"], _STORED[dtype][1])
        position = _tensor(data[8 + length :], header["position"], "<i4").astype(np.int32)
        h = _widened(stored) if dtype == "bfloat16" else stored.astype(np.float32)
        keep = Keep((about["site"],), about["tokens"], cast(Any, dtype))
        return KeptStates(Generation.parse(about["generation"]), keep, position, h)
    except (ValueError, KeyError, TypeError, StopIteration, struct.error) as error:
        raise RunError(
            f"Expected the states of one text in {place}, but it is damaged or something else "
            f"({error}). 'traitscope verify' lists what is whole."
        ) from error


def _tensor(data: bytes, entry: dict[str, Any], dtype: str) -> NDArray[Any]:
    start, end = entry["data_offsets"]
    return np.frombuffer(data[start:end], dtype=dtype).reshape(entry["shape"])


def _rounded(h: Float32) -> NDArray[np.uint16]:
    """float32 as bfloat16 bits, to the nearest, ties to even; exact where h is one already."""
    bits = h.view("<u4")
    return np.asarray((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16, dtype="<u2")


def _widened(bits: NDArray[np.uint16]) -> Float32:
    return (bits.astype("<u4") << 16).view("<f4").astype(np.float32)
