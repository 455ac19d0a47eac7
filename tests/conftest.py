"""One thread a process: the tests run in as many processes as there are cores."""

from __future__ import annotations

import os

# before torch is imported, and inherited by what the tests start
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["HF_HUB_OFFLINE"] = "1"  # nothing is ever fetched by a test
os.environ["COLUMNS"] = "100"  # pages are as wide here as through a pipe, wherever tests run
