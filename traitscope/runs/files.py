"""How bytes reach the disk: temporary name, write, sync, rename, sync the folder; and the lock.

Everything a run keeps passes through `stage` and `publish` (new files) or `append` (the two
journals), so that a kill or a full disk at any instruction leaves either nothing or the whole.
`disk_error` turns the operating system's words into one sentence.  Knows nothing of what the
bytes mean.
"""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import sys
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from traitscope.errors import MachineError, RunError, TraitscopeError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

__all__ = [
    "TEMPORARY",
    "FileEntry",
    "Lock",
    "append",
    "disk_error",
    "file_sha256",
    "publish",
    "read_bytes",
    "sha256",
    "stage",
    "whole",
    "write_atomic",
]

TEMPORARY = ".tmp"  # ends the name of every file that is not published yet
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_LOCKS_HERE = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


@dataclass(frozen=True)
class FileEntry:
    """One published file as the manifest records it; `name` is relative to the run, with `/`."""

    name: str
    bytes: int
    sha256: str
    rows: int


# --- writing -------------------------------------------------------------------------------------


def write_all(file: IO[bytes], data: bytes | memoryview) -> None:
    """Write every byte of `data`; an unbuffered file may take fewer at a time."""
    view = memoryview(data)
    while view:
        written = file.write(view)
        view = view[written:]


def sync(file: IO[bytes]) -> None:
    """Wait until the file's bytes are on the disk itself."""
    if sys.platform == "darwin":
        try:  # fsync alone leaves the bytes in the drive's cache on macOS
            fcntl.fcntl(file.fileno(), fcntl.F_FULLFSYNC)
            return
        except OSError:  # a volume that has no such call
            pass
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until the folder's entries (new names) are on the disk."""
    if sys.platform == "win32":  # folders cannot be opened there
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def stage(path: Path, data: bytes | memoryview) -> Path:
    """Write `data` beside `path` under a temporary name, synced; on failure nothing is left."""
    temporary = path.with_name(path.name + TEMPORARY)
    whole = False
    try:
        with open(temporary, "wb", buffering=0) as file:
            write_all(file, data)
            sync(file)
        whole = True
    finally:
        if not whole:
            temporary.unlink(missing_ok=True)
    return temporary


def publish(paths: Iterable[Path]) -> None:
    """Give staged files their names and sync the folders; each path is the final one."""
    paths = list(paths)
    for path in paths:
        os.replace(path.with_name(path.name + TEMPORARY), path)
    for folder in {path.parent for path in paths}:
        sync_folder(folder)


def write_atomic(path: Path, data: bytes | memoryview) -> None:
    """Replace `path` by `data` or leave it as it was."""
    temporary = stage(path, data)
    try:
        publish([path])
    finally:
        temporary.unlink(missing_ok=True)


def append(file: IO[bytes], line: bytes, *, durable: bool) -> None:
    """Append one line; if that fails the file keeps its former length.

    The undoing is itself synced: a line that came back after a power cut would name files that
    were removed.
    """
    size = os.fstat(file.fileno()).st_size
    whole = False
    try:
        write_all(file, line)
        if durable:
            sync(file)
        whole = True
    finally:
        if not whole:
            os.ftruncate(file.fileno(), size)
            if durable:
                sync(file)


# --- reading -------------------------------------------------------------------------------------


def read_bytes(path: Path) -> bytes:
    """The file's bytes; RunError where it is missing or cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise RunError(
            f"Expected to read {path}, got '{error.strerror}'. "
            "'traitscope verify' lists what is whole."
        ) from error


def whole(folder: Path, entry: FileEntry) -> Path:
    """The path of a committed file; RunError unless its bytes are those that were committed."""
    path = folder / entry.name
    try:
        found = file_sha256(path)
    except OSError as error:
        raise _damaged(path, f"got '{error.strerror}'") from error
    if found != entry.sha256:
        raise _damaged(path, "but it does not match its checksum in the manifest")
    return path


def sha256(data: bytes | memoryview) -> str:
    return hashlib.sha256(data).hexdigest()


def file_sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _damaged(path: Path, reason: str) -> RunError:
    return RunError(
        f"Expected {path} as it was committed, {reason}. 'traitscope verify' lists what is whole; "
        "restore the file from a copy, or run the suite into a new folder with --fresh."
    )


# --- errors --------------------------------------------------------------------------------------


def disk_error(error: OSError, place: Path | str, kept: str) -> TraitscopeError:
    """One sentence for a failed write; `kept` says what is still there."""
    reason = error.strerror or str(error)
    if error.errno in _FULL:
        return MachineError(
            f"Expected room on the disk for {place}, got '{reason}'; {kept}. "
            "Free some space, then run the same command again."
        )
    if error.errno == errno.EIO:
        return MachineError(
            f"Expected the disk to take {place}, got '{reason}'; {kept}. Check the disk."
        )
    return RunError(
        f"Expected to write {place}, got '{reason}'; {kept}. Choose a folder that can be written."
    )


# --- the lock ------------------------------------------------------------------------------------


class Lock:
    """An exclusive lock on a run folder, held while the object is open.

    The kernel frees it when the process ends, however it ends, so a left-over `lock` file means
    nothing.  Where the file system knows no locks, `held` is False and the writer goes on.
    """

    def __init__(self, folder: Path) -> None:
        """Raises RunError naming the process that holds the folder, OSError if not writable."""
        self.held = True
        with ExitStack() as on_failure:
            self._file = on_failure.enter_context(open(folder / "lock", "a+b", buffering=0))
            try:
                _lock(self._file)
            except OSError as error:
                if error.errno not in _NO_LOCKS_HERE:
                    raise RunError(
                        f"Expected to be the only writer of {folder}, but {_owner(self._file)} is "
                        "writing to it. Wait until it ends or stop it; reading is possible "
                        "meanwhile."
                    ) from error
                self.held = False
            self._file.truncate(0)
            write_all(self._file, f"{os.getpid()} {socket.gethostname()}\n".encode())
            on_failure.pop_all()

    def close(self) -> None:
        self._file.close()


def _lock(file: IO[bytes]) -> None:
    if sys.platform == "win32":
        file.seek(1 << 30)  # a byte far behind the text, which stays readable to others
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)


def _owner(file: IO[bytes]) -> str:
    file.seek(0)
    pid, _, host = file.read(256).decode("utf-8", "replace").strip().partition(" ")
    return f"process {pid} on {host}" if pid.isdigit() else "another process"
