"""ES modules -> one plain script, so that a page may carry them and open from a disk.

Each module becomes a function that gives back what it exports; what it imports is taken from those
before it.  Understands what the viewer's drawing modules keep to: one named import a line, exports
written where a thing is declared, no circles.  This is no parser: anything else is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

__all__ = ["DRAW", "bundle"]

DRAW = Path(__file__).parents[1] / "viewer" / "static" / "draw"

_IMPORT = re.compile(r'^import \{ ([\w, ]+) \} from "\./(\w+)\.js";$', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:const|let|function|class) (\w+))", re.MULTILINE)
_LEFT = re.compile(r"^\s*(?:import|export)\b.*$", re.MULTILINE)
_CLOSING = re.compile(
    r"<(?:/script|!--)", re.IGNORECASE
)  # would end the script element, or hide it


def bundle(entry: str, sources: Mapping[str, str]) -> str:
    """The module `entry` with all that it imports, as a classic script; names without ".js"."""
    done: dict[str, str] = {}
    _add(entry, sources, done, ())
    script = "\n".join(['"use strict";', "(() => {", *done.values(), "})();", ""])
    assert not _CLOSING.search(script), "a script that ends its own element"
    return script


def _add(
    name: str, sources: Mapping[str, str], done: dict[str, str], path: tuple[str, ...]
) -> None:
    assert name not in path, f"a circle of imports: {' -> '.join([*path, name])}"
    if name in done:
        return
    source = sources[name]
    for _, other in _IMPORT.findall(source):
        _add(other, sources, done, (*path, name))
    exported = _EXPORT.findall(source)
    body = _EXPORT.sub("", _IMPORT.sub(r"const { \1 } = \2_js;", source))
    left = _LEFT.search(body)
    assert left is None, f"{name}.js: expected plain imports and exports, got '{left[0]}'"
    done[name] = f"const {name}_js = (() => {{\n{body}\nreturn {{ {', '.join(exported)} }};\n}})();"
