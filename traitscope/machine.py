"""What this machine is: processors, memory, accelerators, versions; as plain values.

Sizes are in bytes; what cannot be known here is None.  Measures nothing and loads no model.
"""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from typing import Any

import psutil
import torch

__all__ = ["machine", "versions"]


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

    `float32_matmul` is torch's precision for products in float32: "highest" is float32 itself.
    """
    memory = psutil.virtual_memory()
    return {
        "cores": _cores(),
        "threads": torch.get_num_threads(),
        "memory": int(memory.total),
        "memory_free": int(memory.available),
        "float32_matmul": torch.get_float32_matmul_precision(),
        "devices": [*_cuda(), *_mps()],
        "versions": {k: v for k, v in versions().items() if k != "threads"},
    }


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cuda() -> list[dict[str, Any]]:
    found = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        free, total = torch.cuda.mem_get_info(index)
        name = torch.cuda.get_device_name(index)
        found.append(
            {"device": f"cuda:{index}", "name": name, "memory": total, "memory_free": free}
        )
    return found


def _mps() -> list[dict[str, Any]]:
    if not torch.backends.mps.is_available():
        return []
    most, used = torch.mps.recommended_max_memory(), torch.mps.driver_allocated_memory()
    name = platform.processor() or "Apple GPU"
    return [{"device": "mps", "name": name, "memory": most, "memory_free": most - used}]
