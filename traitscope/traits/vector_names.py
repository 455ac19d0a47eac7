"""Vectors of an older layout, by their names: EXPERIMENT/TRAIT/extraction/vectors/METHOD_layerN.pt.

`layerN` there means `hidden_states[N]`: 0 is `embed`, N is `N-1.post`.  (N = L is after the final
norm, which no site is; that is known only beside a model.)  `PATH@SITE` names another site.
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
_AT = re.compile(r"(?P<path>.+)@(?P<site>embed|\d{1,6}\.(?:mid|post))", re.DOTALL)
_VECTORS = Path("extraction") / "vectors"
_LISTED = 12  # names in an error


@dataclass(frozen=True)
class VectorSource:
    """One vector's file.  `layer` indexes `hidden_states` there, None where its name has none.

    `site` is the site that was named beside the path, if any: the vector is then read there alone.
    """

    path: Path
    trait: str
    method: str
    layer: int | None
    site: str | None


def vector_at(entry: str, root: Path) -> VectorSource | str | None:
    """The vector that a suite's entry names, a sentence about what is wrong, or None: no vector.

    `entry` is the path of a .pt file, or of a trait's folder that holds one vector; either with
    `@SITE`.  A folder with `trait.toml` is not looked into: its pairs are the trait.
    """
    path, site = _parted(entry, root)
    if path.suffix != ".pt":
        if os.path.isfile(path / "trait.toml") or not os.path.isdir(path / _VECTORS):
            return None
        found = _only(path / _VECTORS, entry)
        if isinstance(found, str):
            return found
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


def _parted(entry: str, root: Path) -> tuple[Path, str | None]:
    """Path and site; a path that has an `@` of its own and is there is meant."""
    whole = root / os.path.expanduser(entry)
    match = _AT.fullmatch(entry)
    if match is None or os.path.exists(whole):
        return whole, None
    return root / os.path.expanduser(match["path"]), match["site"]


def _only(folder: Path, entry: str) -> Path | str:
    """The one vector of a folder, or a sentence that lists what there is."""
    matches = [(path, _NAME.fullmatch(path.name)) for path in folder.iterdir()]
    named = [(m["method"], int(m["layer"]), path) for path, m in matches if m is not None]
    if len(named) == 1:
        return named[0][2]
    if not named:
        return (
            f"expected a vector METHOD_layerN.pt in {shown(str(folder))}, got none. Check the path."
        )
    names = [path.name for _, _, path in sorted(named)]
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return (
        f"expected one vector at {shown(entry)}, got {len(names)}: {', '.join(names[:_LISTED])}"
        f"{more}. Name one: '{entry.split('@')[0].rstrip('/')}/{_VECTORS.as_posix()}/{names[0]}'."
    )


def _trait_of(path: Path) -> str:
    """The folder of the layout, else the file's own name."""
    whole = path.resolve()
    inside = whole.parent.parts[-2:] == _VECTORS.parts
    return whole.parents[2].name if inside else whole.stem
