"""A vector of an older layout -> a trait's directions on a model.

The file is read as data: a 1-D tensor, nothing else is unpickled.  The vector is normalised in
float64.  It was found at one site; without a site of its own beside the path it is read at every
site, as the layout's own projections did, and a warning says so in the directions' metadata.
With one it stands there alone, and all other sites have no direction (zeros); so do the sites for
which a set of several vectors, one a layer, has none.  What is normal comes from the bundled
neutral chats, as for every other direction.

Shapes: S sites, D model width.
"""

from __future__ import annotations

import hashlib
import pickle
import struct
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from traitscope.core import Float32, TraitDirections, read_site
from traitscope.errors import TraitError
from traitscope.models import Model
from traitscope.traits.extract import calibrated
from traitscope.traits.vector_names import VectorSource

__all__ = ["Vector", "VectorSet", "directions_of", "load_vector"]

_WIDEST = 2**20  # no residual stream is; a tensor of strides may claim any width
_UNREADABLE = (
    pickle.UnpicklingError,  # anything but tensors and plain values
    RuntimeError,
    EOFError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    ImportError,
    OverflowError,
    AssertionError,
    struct.error,
)


@dataclass(frozen=True, eq=False)
class Vector:
    """A trait's one vector, of unit length: [D] float32; `source` says where it belongs."""

    name: str
    source: VectorSource
    unit: Float32

    @cached_property
    def data_hash(self) -> str:
        """Over the numbers and where they are read."""
        raw = f"{self.source.layer} {self.source.site}\0".encode() + self.unit.tobytes()
        return hashlib.sha256(raw).hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class VectorSet:
    """A trait's vectors of several layers, rising; each stands at its own site."""

    name: str
    source: VectorSource
    vectors: tuple[Vector, ...]

    @cached_property
    def data_hash(self) -> str:
        raw = " ".join(vector.data_hash for vector in self.vectors)
        return hashlib.sha256(raw.encode()).hexdigest()[:16]


def load_vector(name: str, source: VectorSource) -> Vector | VectorSet:
    """Read a vector's file, or a set's; TraitError for anything but 1-D tensors of numbers."""
    if not source.layers:
        return _vector(name, source)
    each = (replace(source, path=path, layer=layer, layers=()) for layer, path in source.layers)
    return VectorSet(name, source, tuple(_vector(name, one) for one in each))


def _vector(name: str, source: VectorSource) -> Vector:
    tensor = _loaded(source)
    if not isinstance(tensor, Tensor) or tensor.dim() != 1 or not 0 < tensor.numel() <= _WIDEST:
        came = (
            f"shape {list(tensor.shape)}" if isinstance(tensor, Tensor) else type(tensor).__name__
        )
        raise TraitError(
            f"Expected a 1-D tensor in {source.path}, got {came}. Save the vector alone."
        )
    plain = tensor.is_floating_point() and tensor.layout == torch.strided and not tensor.is_meta
    wide = tensor.detach().to(torch.float64).numpy() if plain else np.full(1, np.nan)
    norm = float(np.linalg.norm(wide))
    if not np.isfinite(norm) or norm == 0:
        raise TraitError(
            f"Expected finite numbers, not all of them 0, in {source.path}, got others "
            f"({str(tensor.dtype).removeprefix('torch.')}). Make the vector again."
        )
    return Vector(name, source, np.asarray(wide / norm, dtype=np.float32))


def _loaded(source: VectorSource) -> object:
    try:
        with warnings.catch_warnings():  # about pickles that are then refused
            warnings.simplefilter("ignore")
            return torch.load(source.path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise TraitError(
            f"Expected to read {source.path}, got '{error.strerror}'. Check the file."
        ) from error
    except _UNREADABLE as error:
        raise TraitError(
            f"Expected a 1-D tensor in {source.path}, got a damaged file or one of other Python "
            "objects, which could run code and are not loaded. Save the vector alone: "
            "torch.save(vector, PATH)."
        ) from error


def directions_of(
    model: Model, vectors: Sequence[Vector | VectorSet]
) -> dict[str, TraitDirections]:
    """Directions of several vectors on one model, with what is normal; TraitError for misfits."""
    made = {
        v.name: (_placed(model, v), _metadata(model, v))
        if isinstance(v, Vector)
        else _set(model, v)
        for v in vectors
    }
    return calibrated(model, made)


def _set(model: Model, vectors: VectorSet) -> tuple[Float32, Mapping[str, str]]:
    """[S, D]: each layer's vector at its own site; and what there is to know of the set."""
    n_blocks, names = len(model.anatomy.blocks), [site.name for site in model.sites]
    fits = [v for v in vectors.vectors if v.source.layer != n_blocks]
    if not fits:
        _site(model, vectors.vectors[0].source)  # says why
    direction_SD = np.zeros((len(names), model.anatomy.d_model), dtype=np.float32)
    places = {}
    for vector in fits:
        alone = replace(vector, source=replace(vector.source, site=_site(model, vector.source)))
        direction_SD += _placed(model, alone)
        places[str(alone.source.site)] = vector
    middle = names[read_site(model.sites, 0.5)]
    site = min(places, key=lambda place: (abs(names.index(place) - names.index(middle)), place))
    about = dict(_metadata(model, places[site]))
    about |= {"data_hash": vectors.data_hash, "vector_path": vectors.source.path.as_posix()}
    about["vector_site"] = " ".join(places)
    notes = [f"vectors of {len(places)} sites, none at the other {len(names) - len(places)}"]
    if len(fits) < len(vectors.vectors):
        notes.append(f"layer {n_blocks}, after the final norm, is left out")
    return direction_SD, {**about, "warning": "; ".join(notes)}


def _placed(model: Model, vector: Vector) -> Float32:
    """[S, D]: the vector at every site, or at the one that was named, zeros elsewhere."""
    width, source = model.anatomy.d_model, vector.source
    if len(vector.unit) != width:
        raise TraitError(
            f"Expected a vector of width {width} for '{model.name}' in {source.path}, got "
            f"{len(vector.unit)}. It belongs to another model: choose that one, or another vector."
        )
    site = _site(model, source)
    direction_SD = np.zeros((len(model.sites), width), dtype=np.float32)
    chosen = slice(None) if source.site is None else [s.name for s in model.sites].index(site)
    direction_SD[chosen] = vector.unit
    return direction_SD


def _site(model: Model, source: VectorSource) -> str:
    """The site that a vector belongs to; TraitError where this model has no such place."""
    n_blocks, layer = len(model.anatomy.blocks), source.layer
    names = [site.name for site in model.sites]
    if source.site is not None:
        if source.site not in names:
            raise TraitError(
                f"Expected a site of '{model.name}' ({names[0]} ... {names[-1]}) for "
                f"{source.path}, got '{source.site}'. Name one of those."
            )
        return source.site
    assert layer is not None  # vector_at asks for one of the two
    if layer > n_blocks:
        raise TraitError(
            f"Expected a layer from 0 to {n_blocks - 1} of '{model.name}' in the name of "
            f"{source.path}, got {layer}. It belongs to another model."
        )
    if layer == n_blocks:
        raise TraitError(
            f"Expected a vector of a site of '{model.name}', but layer {layer} of {source.path} is "
            "hidden_states after the final norm, which no site is. Choose an earlier layer, or "
            f"read it before the norm all the same: '{source.path.name}@{n_blocks - 1}.post'."
        )
    return "embed" if layer == 0 else f"{layer - 1}.post"


def _metadata(model: Model, vector: Vector) -> Mapping[str, str]:
    source, site = vector.source, _site(model, vector.source)
    about = {
        "method": source.method,
        "model": model.name,
        "model_fingerprint": model.fingerprint,
        "dtype": model.dtype_name,
        "data_hash": vector.data_hash,
        "display_name": vector.name.replace("_", " ").capitalize(),
        "positive": "",
        "negative": "",
        "read_site": site,
        "read_window": "response[:]",
        "vector_path": source.path.as_posix(),
        "vector_site": site,
    }
    if source.site is None:
        about["warning"] = f"one vector, found at {site}, is read at every site"
    elif source.layer == len(model.anatomy.blocks):
        about["warning"] = f"a vector found after the final norm is read at {site}, before it"
    return about
