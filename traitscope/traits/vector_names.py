"""Vectors of an older layout, by their names: EXPERIMENT/TRAIT/extraction/vectors/METHOD_layerN.pt.

`layerN` there means `hidden_states[N]`: 0 is `embed`, N is `N-1.post`.  (N = L is after the final
norm, which no site is; that is known only beside a model.)  `PATH@SITE` names another site.
Several layers of one method are one set, a vector for each of its sites: `PATH/METHOD`,
`PATH/METHOD_layer*.pt`, or the folder where it holds one method.
Reads names only; what is in the files is `vectors.py`'s.  No torch.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from traitscope.textfile import shown

__all__ = ["VectorSource", "vector_at"]

_NAME = re.compile(r"(?P<method>.+)_layer(?P<layer>\d{1,6})\.pt")
_PATTERN = re.compile(r"(?P<method>.+)_layer\*\.pt")
_AT = re.compile(r"(?P<path>.+)@(?P<site>embed|\d{1,6}\.(?:mid|post))", re.DOTALL)
_VECTORS = Path("extraction") / "vectors"
_LISTED = 12  # names in an error


@dataclass(frozen=True)
class VectorSource:
    """One vector's file, or a set of them.  `layer` indexes `hidden_states` there, None where its
    name has none.

    `site` is the site that was named beside the path, if any: the vector is then read there alone.
    `layers` are a set's layers, rising, each with its file; `path` is then their pattern.
    """

    path: Path
    trait: str
    method: str
    layer: int | None
    site: str | None
    layers: tuple[tuple[int, Path], ...] = ()


def vector_at(entry: str, root: Path) -> VectorSource | str | None:
    """The vector that a suite's entry names, a sentence about what is wrong, or None: no vector.

    `entry` is the path of a .pt file, of a trait's folder or of a method in it; one file may have
    `@SITE`.  A folder with `trait.toml` is not looked into: its pairs are the trait.
    """
    path, site = _parted(entry, root)
    several = _set_at(path)
    if several is not None:
        return several if site is None else _no_site(entry)
    if path.suffix != ".pt":
        if os.path.isfile(path / "trait.toml") or not os.path.isdir(path / _VECTORS):
            return None
        found = _only(path / _VECTORS, entry)
        if isinstance(found, str):
            return found
        if isinstance(found, VectorSource):
            return found if site is None else _no_site(entry)
        path = found
    if not os.path.isfile(path):
        return f"expected a vector's file at {shown(entry)}, got none. Check the path."
    name = _NAME.fullmatch(path.name)
    if name is None and site is None:
        return (
            f"expected a vector named METHOD_layerN.pt, got {shown(path.name)}. Rename it, or say "
            "where it is to be read: PATH@12.post."
        )
    method, layer = (name["method"], int(name["layer"])) if name else (path.stem, None)
    return VectorSource(path, _trait_of(path), method, layer, site)


def _set_at(path: Path) -> VectorSource | None:
    """The set that a pattern or a method's name stands for; None where there is none."""
    pattern = _PATTERN.fullmatch(path.name)
    if pattern is None and (path.suffix == ".pt" or os.path.exists(path)):
        return None
    method = path.name if pattern is None else pattern["method"]
    for folder in (path.parent, path.parent / _VECTORS):
        of_method = [v for v in _vectors_in(folder) if v[0] == method]
        if of_method:
            return _set_of(folder, of_method)
    return None


def _set_of(folder: Path, found: list[tuple[str, int, Path]]) -> VectorSource:
    """Vectors of one method as a set."""
    method = found[0][0]
    path = folder / f"{method}_layer*.pt"
    layers = tuple((layer, file) for _, layer, file in found)
    inside = folder.resolve().parts[-2:] == _VECTORS.parts
    trait = folder.resolve().parents[1].name if inside else method
    return VectorSource(path, trait, method, None, None, layers)


def _vectors_in(folder: Path) -> list[tuple[str, int, Path]]:
    """Method, layer and file of each vector in a folder, in order; a layer's first name only."""
    if not os.path.isdir(folder):
        return []
    matches = [(path, _NAME.fullmatch(path.name)) for path in folder.iterdir()]
    named = sorted((m["method"], int(m["layer"]), path) for path, m in matches if m is not None)
    return list(
        {(method, layer): (method, layer, path) for method, layer, path in reversed(named)}.values()
    )[::-1]


def _no_site(entry: str) -> str:
    return (
        f"expected no site beside several vectors, got {shown(entry)}. Each is read at its own "
        "site: leave '@SITE' out, or name one file."
    )


def _parted(entry: str, root: Path) -> tuple[Path, str | None]:
    """Path and site; a path that has an `@` of its own and is there is meant."""
    whole = root / os.path.expanduser(entry)
    match = _AT.fullmatch(entry)
    if match is None or os.path.exists(whole):
        return whole, None
    return root / os.path.expanduser(match["path"]), match["site"]


def _only(folder: Path, entry: str) -> Path | VectorSource | str:
    """A folder's one vector or its one method's set, or a sentence that lists what there is."""
    named = _vectors_in(folder)
    if len(named) == 1:
        return named[0][2]
    if not named:
        return (
            f"expected a vector METHOD_layerN.pt in {shown(str(folder))}, got none. Check the path."
        )
    methods = dict.fromkeys(method for method, _, _ in named)
    if len(methods) == 1:
        return _set_of(folder, named)
    names = [path.name for _, _, path in named]
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    base = f"{entry.split('@')[0].rstrip('/')}/{_VECTORS.as_posix()}"
    return (
        f"expected vectors of one method at {shown(entry)}, got {len(names)} of {len(methods)}: "
        f"{', '.join(names[:_LISTED])}{more}. Name one, '{base}/{names[0]}', or a method's, "
        f"'{base}/{named[0][0]}_layer*.pt'."
    )


def _trait_of(path: Path) -> str:
    """The folder of the layout, else the file's own name."""
    whole = path.resolve()
    inside = whole.parent.parts[-2:] == _VECTORS.parts
    return whole.parents[2].name if inside else whole.stem
