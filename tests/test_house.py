"""How the package hangs together, read from its source: who imports whom, who prints, how long.

The ranks are the house's floors: a module imports from its own floor or from below.
"""

from __future__ import annotations

import ast
import io
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import traitscope

ROOT = Path(traitscope.__file__).parent

# the longest matching prefix counts; a module that is in no room has no place in the house
RANK = {
    "errors": 0,
    "lazy": 0,
    "core": 1,
    "paths": 1,
    "textfile": 1,
    "ticks": 1,
    "sizing": 1,
    "prompts": 2,
    "turns": 2,
    "shapes": 2,
    "conversations": 2,
    "suite": 2,
    "suite_tables": 2,
    "copyout": 2,
    "runs": 2,
    "pocket": 2,
    "traits.directions": 2,
    "traits.vector_names": 2,
    "models": 3,
    "engine": 3,
    "report": 3,
    "exports": 3,
    "exports.experiments": 4,
    "exports.layout": 4,
    "viewer": 3,
    "traits": 4,
    "pocket.tokens": 4,
    "pocket.train": 4,
    "pocket.evaluate": 4,
    "pocket.measure": 4,
    "machine": 3,
    "others": 3,
    "gauge": 4,
    "forecast": 4,
    "usage": 4,
    "kept_plans": 2,
    "calibrate": 5,
    "planner": 6,
    "plans": 6,
    "checkup": 4,
    "sidebyside": 4,
    "speedtest": 4,
    "work": 5,
    "prepare": 5,
    "fill": 5,
    "replays": 5,
    "task": 5,
    "runner": 5,
    "cluster": 6,
    "cli": 7,
    "__main__": 8,
}
NO_TORCH = {
    "errors",
    "lazy",
    "core",
    "paths",
    "textfile",
    "prompts",
    "suite",
    "suite_tables",
    "copyout",
}
NO_TORCH |= {"conversations", "runs", "report", "viewer", "traits.directions", "ticks"}
NO_TORCH |= {"turns", "shapes", "sizing", "kept_plans"}
NO_TORCH |= {"exports.flat", "exports.place"}
FORBIDDEN = {
    "engine": {"runs", "suite", "report", "viewer", "prompts", "conversations", "rich", "traits"},
    "models": {"runs", "suite", "report", "viewer", "prompts", "rich", "traits"},
    "report": {"models", "engine", "traits", "runner", "task", "work", "fill", "replays"},
    "viewer": {"models", "engine", "traits", "runner", "task", "work", "fill", "replays"},
}
MAY_PRINT = {"cli", "pocket.train", "pocket.evaluate"}
LONGEST = 400
# words, and little else
DATA = {"pocket.kinds", "pocket.life", "pocket.phrases", "pocket.topics", "pocket.world"}


@cache
def modules() -> dict[str, Path]:
    """Dotted names within the package ("runs.writer", "runs" for its `__init__`) and files."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(modules()[module].read_text(encoding="utf-8"))


def room(module: str, rooms: set[str] | dict[str, int]) -> str | None:
    """The longest of `rooms` that the module is, or is in."""
    parts = module.split(".")
    prefixes = [".".join(parts[:end]) for end in range(len(parts), 0, -1)]
    return next((prefix for prefix in prefixes if prefix in rooms), None)


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def at_import(node: ast.AST) -> Iterator[ast.AST]:
    """What runs when the module is imported: no function bodies, nothing under TYPE_CHECKING."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) or is_type_checking(child):
            continue
        yield child
        yield from at_import(child)


@cache
def imports(module: str, *, lazy: bool) -> frozenset[str]:
    """Absolute names of what a module imports; within the package without "traitscope."."""
    nodes = ast.walk(tree(module)) if lazy else at_import(tree(module))
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are absolute"
            found |= {_imported(node.module or "", alias.name) for alias in node.names}
    return frozenset(name.removeprefix("traitscope.") for name in found)


def _imported(source: str, name: str) -> str:
    """`from traitscope.runs import writer` imports the module, not a name of `runs`."""
    whole = f"{source}.{name}".removeprefix("traitscope.")
    return (
        f"traitscope.{whole}" if source.startswith("traitscope") and whole in modules() else source
    )


def inside(names: frozenset[str]) -> set[str]:
    return {name for name in names if name in modules()}


def loaded_with(module: str) -> set[str]:
    """The package's modules that are loaded when `module` is: its parents, and all they import."""
    seen: set[str] = set()
    waiting = {module}
    while waiting:
        name = waiting.pop()
        seen.add(name)
        parts = name.split(".")
        parents = {".".join(parts[:end]) for end in range(1, len(parts))}
        waiting |= (parents | inside(imports(name, lazy=False))) - seen
    return seen - {""}


def floor(module: str) -> int:
    return RANK.get(room(module, RANK) or "", 0)


INSIDE = sorted(set(modules()) - {""})


def test_every_module_has_a_floor() -> None:
    assert [module for module in INSIDE if room(module, RANK) is None] == []


def test_imports_go_one_way() -> None:
    upward = [
        f"{module} (floor {floor(module)}) imports {other} (floor {floor(other)})"
        for module in INSIDE
        for other in inside(imports(module, lazy=True))
        if floor(other) > floor(module)
    ]
    assert upward == []


def test_rooms_do_not_know_what_is_none_of_their_business() -> None:
    known = [
        f"{module} imports {other}"
        for home, forbidden in FORBIDDEN.items()
        for module in INSIDE
        if room(module, {home})
        for other in imports(module, lazy=True)
        if room(other, forbidden)
    ]
    assert known == []


def test_nobody_imports_the_front_door() -> None:
    # it would load by name what should be imported from where it is; the version alone is there
    taken = [
        f"{module} imports {alias.name}"
        for module in INSIDE
        for node in ast.walk(tree(module))
        if isinstance(node, ast.ImportFrom) and node.module == "traitscope"
        for alias in node.names
        if alias.name not in modules() and alias.name != "__version__"
    ]
    assert taken == []


def test_no_import_goes_in_a_circle() -> None:
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, f"a circle: {' -> '.join([*path, module])}"
        if module not in done:
            for other in inside(imports(module, lazy=False)) - {module}:
                visit(other, (*path, module))
            done.add(module)

    for module in INSIDE:
        visit(module, ())


def heavy(module: str, *, lazy: bool) -> bool:
    roots = {name.split(".")[0] for name in imports(module, lazy=lazy)}
    return bool(roots & {"torch", "transformers"})


def test_no_torch_below_the_models() -> None:
    loading = [
        f"{module} loads {other}, which loads torch"
        for module in INSIDE
        if room(module, NO_TORCH)
        for other in sorted(loaded_with(module))
        if heavy(other, lazy=False)
    ]
    assert loading == []


def test_readers_of_runs_never_import_torch() -> None:
    # not within a function either: the machine of who looks at a run may have none
    readers = [module for module in INSIDE if room(module, {"runs", "report", "viewer"})]
    assert [module for module in readers if heavy(module, lazy=True)] == []


def test_importing_the_torch_free_rooms_loads_no_torch() -> None:
    # what the source says, held against what Python does
    rooms = [name for name in ("runs", "suite", "prompts", "report") if name in modules()]
    code = f"""
import sys
import traitscope
opened = {{name for name in sys.modules if name.startswith("traitscope.")}}
assert opened == {{"traitscope.lazy"}}, "the front door is lazy"
import {", ".join(f"traitscope.{name}" for name in rooms)}
loaded = sorted({{"torch", "transformers"}} & set(sys.modules))
assert not loaded, loaded
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_only_the_command_line_prints_or_exits() -> None:
    ends = {"print", "exit", "quit", "sys.exit", "os._exit", "SystemExit"}
    streams = ("sys.stdout.", "sys.stderr.")
    calls = [
        f"{module}:{node.lineno} calls {ast.unparse(node.func)}"
        for module in INSIDE
        if not room(module, MAY_PRINT)
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Call)
        and (ast.unparse(node.func) in ends or ast.unparse(node.func).startswith(streams))
    ]
    assert calls == []


def test_a_module_opens_with_what_it_owns() -> None:
    assert [module for module in INSIDE if not ast.get_docstring(tree(module))] == []


def test_a_module_is_read_in_one_sitting() -> None:
    lengths = {m: lines_of_code(modules()[m].read_text("utf-8")) for m in INSIDE if m not in DATA}
    assert {module: length for module, length in lengths.items() if length > LONGEST} == {}


def lines_of_code(source: str) -> int:
    """Lines with code on them: blank lines, comments and docstrings do not count."""
    empty = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    lines: set[int] = set()
    first = True  # of a statement: a string there is a docstring
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in empty | {tokenize.ENDMARKER} and not (
            first and token.type == tokenize.STRING
        ):
            lines |= set(range(token.start[0], token.end[0] + 1))
        if token.type not in {tokenize.COMMENT, tokenize.NL}:
            first = token.type in empty
    return len(lines)


def test_the_front_door_is_sorted_and_complete() -> None:
    names = traitscope.__all__
    assert names == sorted(names)
    assert set(names) == {name for home in traitscope._HOME.values() for name in home}
    typed = {
        alias.name
        for node in tree("").body
        if is_type_checking(node)
        for statement in node.body
        for alias in statement.names
    }
    assert typed == set(names), "what mypy sees is what Python loads"


@pytest.mark.parametrize("name", traitscope.__all__)
def test_each_name_of_the_front_door_opens(name: str) -> None:
    home = next(home for home, names in traitscope._HOME.items() if name in names)
    value = getattr(traitscope, name)
    assert name in dir(traitscope)
    assert value is getattr(sys.modules[f"traitscope.{home}"], name)


def test_an_unknown_name_at_the_front_door() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        traitscope.nothing  # noqa: B018  # asking is the test


def test_lists_of_public_names_are_true() -> None:
    wrong = [
        f"{module} lists {name}, which it has not"
        for module in INSIDE
        for node in tree(module).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        for name in set(ast.literal_eval(node.value)) - bound_names(module)
    ]
    assert wrong == []


def bound_names(module: str) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names
