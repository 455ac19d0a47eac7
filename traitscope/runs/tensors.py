"""Two kinds of safetensors file: a trait's directions, and the internals of one block.

numpy only.  Metadata are one JSON object under the key `traitscope`: safetensors writes several
metadata entries in random order, and equal contents should be equal bytes.  Shapes: S sites,
D model width, the rest as in `core.Internals`.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load, save

from traitscope.core import TRAIT_NAME, Generation, Internals, Site, TraitDirections
from traitscope.errors import InputError, RunError, TraitError
from traitscope.runs.files import disk_error, write_atomic
from traitscope.runs.lines import plain

__all__ = [
    "directions_bytes",
    "internals_bytes",
    "internals_name",
    "load_directions",
    "open_internals",
    "save_directions",
]

_NEUTRAL = (
    "neutral_mean",
    "neutral_std",
    "neutral_response_std",
    "neutral_prompt_mean",
    "neutral_prompt_std",
)
_UNIT_TOLERANCE = 1e-4  # float32 rounding of a norm over some thousand dimensions is below 1e-5
_SAFE_GENERATION = re.compile(r"[0-9A-Za-z_]{1,64}-\d+")


# --- directions ----------------------------------------------------------------------------------


def save_directions(path: str | Path, directions: TraitDirections) -> None:
    """Write one trait's directions atomically; raises TraitError for what may not be kept."""
    path = Path(path)
    data = directions_bytes(directions)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, data)
    except OSError as error:
        raise disk_error(error, path, "nothing there was changed") from error


def load_directions(path: str | Path) -> TraitDirections:
    """Read and check one trait's directions; TraitError names what is wrong."""
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise TraitError(
            f"Expected a directions file, got '{error.strerror}' for {path}. "
            "'traitscope extract' makes one."
        ) from error
    return parse_directions(data, path)


def directions_bytes(directions: TraitDirections) -> bytes:
    """The file's bytes; equal directions give equal bytes."""
    _check(directions, "the directions given")
    tensors = {name: _little(getattr(directions, name)) for name in ("direction", *_NEUTRAL)}
    about = {
        "format": "traitscope.directions",
        "format_version": 1,
        "trait": directions.trait,
        "sites": [site.name for site in directions.sites],
        "hash": directions.hash,
        "metadata": dict(sorted(directions.metadata.items())),
    }
    return save(tensors, metadata={"traitscope": _json(about)})


def parse_directions(data: bytes, place: str | Path) -> TraitDirections:
    """Directions from a file's bytes; TraitError names what is wrong with `place`."""
    try:
        about, tensors = _parse(data)
        sites = tuple(Site.parse(name) for name in about["sites"])
        directions = TraitDirections(
            trait=about["trait"],
            sites=sites,
            direction=np.asarray(tensors["direction"]),
            metadata=about["metadata"],
            **{name: np.asarray(tensors[name]) for name in _NEUTRAL},
        )
        recorded = about["hash"]
    except (SafetensorError, ValueError, KeyError, TypeError, InputError) as error:
        raise TraitError(
            f"Expected a trait's directions in {place}, but it is damaged or something else "
            f"({error}). Extract them again with 'traitscope extract'."
        ) from error
    _check(directions, str(place))
    if directions.hash != recorded:
        raise TraitError(
            f"Expected the numbers in {place} to have the hash {recorded}, got {directions.hash}: "
            "the file was changed or damaged. Extract them again with 'traitscope extract'."
        )
    return directions


def _check(directions: TraitDirections, place: str) -> None:
    """Name, shapes, dtype, finite numbers, unit norms (or zero: no direction at that site)."""
    again = "Extract them again with 'traitscope extract'."
    if not TRAIT_NAME.fullmatch(directions.trait):
        raise TraitError(
            f"Expected a trait's name of a-z, 0-9 and _ (at most 64) in {place}, "
            f"got '{directions.trait}'. Rename the trait."
        )
    n = len(directions.sites)
    if directions.direction.ndim != 2 or len(directions.direction) != n:
        raise TraitError(
            f"Expected 'direction' of shape [{n}, d] in {place}, "
            f"got {list(directions.direction.shape)}. {again}"
        )
    for name in ("direction", *_NEUTRAL):
        array = getattr(directions, name)
        if array.dtype != np.float32 or (name in _NEUTRAL and array.shape != (n,)):
            raise TraitError(
                f"Expected '{name}' as float32 for {n} sites in {place}, "
                f"got {array.dtype} {list(array.shape)}. {again}"
            )
        if not np.isfinite(array).all() or (name.endswith("std") and (array < 0).any()):
            raise TraitError(
                f"Expected finite numbers (and no negative spread) in '{name}' of {place}. {again}"
            )
    _check_unit(directions, place, again)


def _check_unit(directions: TraitDirections, place: str, again: str) -> None:
    norms = np.linalg.norm(directions.direction.astype(np.float64), axis=1)
    wrong = np.flatnonzero((np.abs(norms - 1) > _UNIT_TOLERANCE) & (norms != 0))
    if wrong.size:
        raise TraitError(
            f"Expected unit vectors in {place}, got a length of {norms[wrong[0]]:.6g} at site "
            f"{directions.sites[wrong[0]]}. {again}"
        )


# --- internals -----------------------------------------------------------------------------------


def internals_name(generation: Generation, block: int) -> str:
    """`GENERATION.BLOCK.safetensors`; ValueError for an id that is no safe file name."""
    if not _SAFE_GENERATION.fullmatch(generation.id) or block < 0:
        raise ValueError(f"no file name for generation '{generation.id}' and block {block}")
    return f"{generation.id}.{block}.safetensors"


def internals_bytes(internals: Internals) -> bytes:
    about = {
        "format": "traitscope.internals",
        "format_version": 1,
        "generation": internals.generation.id,
        "block": internals.block,
        "traits": list(internals.traits),
        "metadata": dict(sorted(internals.metadata.items())),
    }
    tensors = {name: _little(array) for name, array in internals.tensors.items()}
    return save(tensors, metadata={"traitscope": _json(about)})


def open_internals(path: Path) -> Internals:
    """Internals whose tensors stay on the disk until they are touched: a long text's are large.

    RunError where the file is damaged or something else.
    """
    try:
        with safe_open(path, framework="np"):
            pass  # checks the layout: lengths, offsets, dtypes
        about, tensors = _map(path)
        return Internals(
            generation=Generation.parse(about["generation"]),
            block=int(about["block"]),
            traits=tuple(about["traits"]),
            tensors=tensors,
            metadata=about["metadata"],
        )
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"Expected the internals of one block in {path}, but it is damaged or something else "
            f"({error}). 'traitscope verify' lists what is whole."
        ) from error


# --- shared --------------------------------------------------------------------------------------


def _parse(data: bytes) -> tuple[dict[str, Any], Mapping[str, NDArray[np.generic]]]:
    tensors = load(data)  # checks the layout: lengths, offsets, dtypes
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["traitscope"]), tensors


def _map(path: Path) -> tuple[dict[str, Any], Mapping[str, NDArray[np.generic]]]:
    """As `_parse`, of a file that is mapped into memory instead of read."""
    whole = np.asarray(np.memmap(path, dtype=np.uint8, mode="r"))
    (length,) = struct.unpack("<Q", whole[:8].tobytes())
    header = json.loads(whole[8 : 8 + length].tobytes())
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__":
            first, last = (8 + length + offset for offset in entry["data_offsets"])
            dtype = np.dtype({"F32": "<f4", "F16": "<f2"}[entry["dtype"]])
            tensors[name] = whole[first:last].view(dtype).reshape(entry["shape"])
    return json.loads(header["__metadata__"]["traitscope"]), tensors


def _little(array: NDArray[np.generic]) -> NDArray[np.generic]:
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))


def _json(about: Mapping[str, object]) -> str:
    return json.dumps(plain(about), separators=(",", ":"), sort_keys=True)
