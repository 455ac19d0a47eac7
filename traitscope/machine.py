"""What this machine is: processors, memory, accelerators, versions; as plain values.

Sizes are in bytes; what cannot be known here is None.  Measures nothing and loads no model.
"""

from __future__ import annotations

import gc
import os
import platform
import sys
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import torch

__all__ = [
    "all_memory",
    "free_memory",
    "is_intel",
    "let_go",
    "machine",
    "peak_memory",
    "versions",
]


def versions() -> dict[str, str]:
    """What numbers may depend on besides model and suite; recorded by every run."""
    packages = ("torch", "transformers", "tokenizers", "numpy")
    return {
        **{name: version(name) for name in packages},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "threads": str(torch.get_num_threads()),
    }


def machine() -> dict[str, Any]:
    """`cores` that this process may use, torch's `threads`, `memory`, `devices`, `versions`.

    `float32_matmul` is torch's precision for products in float32: "highest" is float32 itself,
    which a run's own products have whatever this says.
    """
    memory = psutil.virtual_memory()
    return {
        "cores": _cores(),
        "threads": torch.get_num_threads(),
        "memory": int(memory.total),
        "memory_free": int(memory.available),
        "float32_matmul": _float32_matmul(),
        "devices": [*_cuda(), *_mps()],
        "versions": {k: v for k, v in versions().items() if k != "threads"},
    }


def _float32_matmul() -> str:
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:  # each kind of device has been told something of its own
        of_cuda, of_cpu = (
            b.matmul.fp32_precision for b in (torch.backends.cuda, torch.backends.mkldnn)
        )
        return f"CUDA {of_cuda}, CPU {of_cpu}"


def is_intel() -> bool:
    """Whether the processor is one of Intel's, as far as the system says."""
    named = platform.processor()
    with suppress(OSError), Path("/proc/cpuinfo").open() as file:
        named += file.read(4096)
    return "GenuineIntel" in named


def free_memory(device: torch.device) -> int | None:
    """Bytes that torch may still take on a device; None where that is not known."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(free + kept)
    if device.type == "mps":
        return _free_of_mps()
    if device.type == "cpu":
        return min([int(psutil.virtual_memory().available), *_left_in_group()])
    return None


def let_go() -> None:
    """Give the memory of a model that nobody holds any more back, before the next one is loaded."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


def peak_memory(device: torch.device) -> int | None:
    """The most bytes that were in use so far: of torch on a GPU, of this process elsewhere."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_reserved(device))  # recordings have a part of their own
    if device.type == "mps":
        return int(torch.mps.driver_allocated_memory())
    process = psutil.Process().memory_info()
    if hasattr(process, "peak_wset"):  # Windows
        return int(process.peak_wset)
    from resource import RUSAGE_SELF, getrusage

    unit = 1 if sys.platform == "darwin" else 1024
    return getrusage(RUSAGE_SELF).ru_maxrss * unit


def all_memory(device: torch.device) -> int:
    """Bytes of memory that the device has."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory())
    return int(psutil.virtual_memory().total)


def _free_of_mps() -> int:
    """What its limit leaves, and what the memory that it shares with all programs does; what torch
    keeps for itself to use again is free."""
    used, held = torch.mps.current_allocated_memory(), torch.mps.driver_allocated_memory()
    here = psutil.virtual_memory().available + held - used
    return int(min(torch.mps.recommended_max_memory() - used, here))


def _left_in_group(root: Path = Path("/sys/fs/cgroup")) -> list[int]:
    """What a container's limit leaves (Linux control groups, version 2)."""
    try:
        most, used = ((root / f"memory.{name}").read_text() for name in ("max", "current"))
        if most.strip() == "max":
            return []
        stat = dict(line.split() for line in (root / "memory.stat").read_text().splitlines())
        # files that were read count as used, and give way
        return [max(0, int(most) - int(used) + int(stat.get("inactive_file", 0)))]
    except (OSError, ValueError):
        return []


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cuda() -> list[dict[str, Any]]:
    found = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        try:
            free, total = torch.cuda.mem_get_info(index)
        except RuntimeError:  # in use by another program alone, or full
            free, total = 0, torch.cuda.get_device_properties(index).total_memory
        name = torch.cuda.get_device_name(index)
        found.append(
            {"device": f"cuda:{index}", "name": name, "memory": total, "memory_free": free}
        )
    return found


def _mps() -> list[dict[str, Any]]:
    if not torch.backends.mps.is_available():
        return []
    most = torch.mps.recommended_max_memory()
    name = platform.processor() or "Apple GPU"
    return [{"device": "mps", "name": name, "memory": most, "memory_free": _free_of_mps()}]
