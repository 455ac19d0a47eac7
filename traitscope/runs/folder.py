"""Getting a run folder ready: a new one, or one that a kill has left.

Only the holder of the lock may call these.  What the manifest names is never touched; what it
does not name in `parts/`, `internals/` and `states/`, directions that run.json does not name, and
temporary files, are left-overs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from traitscope.core import TraitDirections
from traitscope.errors import RunError
from traitscope.runs.files import TEMPORARY, disk_error, read_bytes, sha256, sync, write_atomic
from traitscope.runs.header import HEADER_NAME, RunHeader
from traitscope.runs.lines import Manifest, split_lines
from traitscope.runs.tensors import directions_bytes

__all__ = [
    "EVENTS",
    "FOLDERS",
    "MANIFEST",
    "check_committed",
    "check_new",
    "cut_torn",
    "disk",
    "leftovers",
    "remove_leftovers",
    "write_directions",
]

MANIFEST, EVENTS = "manifest.jsonl", "events.jsonl"
FOLDERS = ("directions", "internals", "parts", "states")


@contextmanager
def disk(place: Path | str, kept: str) -> Iterator[None]:
    """Turn an OSError inside into one sentence; `kept` says what is still there."""
    try:
        yield
    except OSError as error:
        raise disk_error(error, place, kept) from error


def check_new(path: Path) -> None:
    """RunError unless the folder is empty, or what a killed `create` leaves."""
    if (path / HEADER_NAME).exists():
        raise RunError(
            f"Expected a new folder, but {path} is a run already. "
            "Resume it, or start a new one with --fresh."
        )
    ours = {"lock", MANIFEST, EVENTS, HEADER_NAME + TEMPORARY, *FOLDERS}
    others = sorted(entry.name for entry in path.iterdir() if entry.name not in ours)
    if others:
        raise RunError(
            f"Expected a new or empty folder for the run, but {path} holds '{others[0]}'. "
            "Choose another one."
        )


def write_directions(
    path: Path, header: RunHeader, directions: Mapping[str, TraitDirections]
) -> list[dict[str, str]]:
    """Write directions/ and return what the header says of each."""
    traits = []
    for name, trait in directions.items():
        sites = tuple(site.name for site in trait.sites)
        if trait.trait != name or sites != tuple(header.sites):
            raise ValueError(f"directions of '{trait.trait}' under '{name}' are for sites {sites}")
        data = directions_bytes(trait)
        file = f"directions/{name}.safetensors"
        write_atomic(path / file, data)
        traits.append({"name": name, "hash": trait.hash, "file": file, "sha256": sha256(data)})
    return traits


def check_committed(path: Path, manifest: Manifest) -> None:
    """RunError unless every file that the manifest names is there with its size."""
    for part in manifest.parts:
        for entry in part.files:
            file = path / entry.name
            size = file.stat().st_size if file.is_file() else None
            if size != entry.bytes:
                raise RunError(
                    f"Expected {entry.bytes} bytes in {file}, got "
                    f"{'no such file' if size is None else size}: the run is damaged. Restore "
                    "the file from a copy, or run the suite into a new folder with --fresh."
                )


def cut_torn(path: Path) -> int:
    """Cut what follows the last whole line of a journal; the number of bytes cut."""
    _, torn = split_lines(read_bytes(path))
    if torn:
        with open(path, "r+b", buffering=0) as file:
            file.truncate(path.stat().st_size - len(torn))
            sync(file)
    return len(torn)


def leftovers(path: Path, manifest: Manifest, header: RunHeader | None) -> list[str]:
    """Names of temporary files, and of files that neither a part nor run.json names."""
    committed = {entry.name for part in manifest.parts for entry in part.files}
    found = [name for name in _names(path, ".") if name.endswith(TEMPORARY)]
    known = {f"directions/{name}.safetensors" for name in header.trait_names} if header else set()
    for name in _names(path, "directions"):
        # without run.json nobody knows which directions count
        if name.endswith(TEMPORARY) or (header is not None and name not in known):
            found.append(name)
    for folder in ("parts", "internals", "states"):
        found += [name for name in _names(path, folder) if name not in committed]
    return sorted(found)


def remove_leftovers(path: Path, manifest: Manifest, header: RunHeader) -> list[str]:
    names = leftovers(path, manifest, header)
    for name in names:
        (path / name).unlink()
    return names


def _names(path: Path, folder: str) -> Iterator[str]:
    """Files of one folder, relative to the run; hidden ones are the system's, not ours."""
    place = path / folder
    for entry in place.iterdir() if place.is_dir() else ():
        if entry.is_file() and not entry.name.startswith("."):
            yield entry.relative_to(path).as_posix()
