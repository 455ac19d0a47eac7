"""What runs inside a peer's environment: a model is loaded once, then orders come line by line.

Started as `python -m benchmarks.peers.worker PEER JOB.json`.  An order is a JSON line with `do`
("generate" or "replay"), `batches` and `given`; the answer is one with seconds, and with `keep`
the texts and scores that were made are left in that file, to be compared before anything is
timed.  A way to work is a module `with_PEER`: see `ways.py` for what its functions are given.
Imports nothing of traitscope.
"""

from __future__ import annotations

import json
import os
import sys
import time
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any


def main() -> None:
    peer, job = sys.argv[1], json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    os.environ["HF_HUB_OFFLINE"] = "1"
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    import torch

    torch.set_num_threads(job["threads"])
    torch.set_default_device(job["device"])  # where ids and masks are made
    way = import_module(f"benchmarks.peers.with_{peer}")
    model = way.open_model(opened(job), job["folder"])
    directions = torch.load(job["directions"], map_location=job["device"], weights_only=True)
    say(answers, {"sites": way.sites(job["blocks"]), "versions": versions(job["packages"])})
    for line in sys.stdin:
        order = json.loads(line)
        work = getattr(way, order["do"])
        began, cpu = time.perf_counter(), time.process_time()
        texts, scores = work(model, order["batches"], directions, **order["given"])
        if job["device"] == "cuda":
            torch.cuda.synchronize()
        answer = {"wall": time.perf_counter() - began, "cpu": time.process_time() - cpu}
        if "keep" in order:
            torch.save({"texts": texts, "scores": scores}, order["keep"])
        say(answers, answer)


def opened(job: dict[str, Any]) -> Any:
    """The model as transformers loads it; with answers that end by themselves where asked."""
    import torch
    from transformers import AutoModelForCausalLM

    from benchmarks.ending import Ending

    dtype = getattr(torch, job["dtype"])
    hf = AutoModelForCausalLM.from_pretrained(job["folder"], dtype=dtype).eval().to(job["device"])
    if job["ending"]:
        Ending(hf, job["ending"]).__enter__()
    return hf


def versions(packages: list[str]) -> dict[str, str]:
    return {package: version(package) for package in packages}


def say(answers: Any, answer: dict[str, Any]) -> None:
    print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
