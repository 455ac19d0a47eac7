"""What the tests of a cheaper forward share: models, their texts, and the same without it."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch

from tests.exact.reference import NUCLEUS, requests, run
from tests.tiny import hf_model, tokenizer
from traitscope.engine import Batching, decode, packing, replay
from traitscope.models import Model

SUBJECTS = ["gemma2", "gemma3_text", "llama", "gpt2", "qwen2", "gpt_neox", "mixtral", "gpt_oss"]
SUBJECTS += ["falcon"]  # its linear layers are of a class of its own
LENGTHS, NEW_TOKENS = (3, 1, 44, 9, 1, 17, 2), (9, 6, 4, 1, 12, 7, 11)


def n_packed() -> int:
    return sum(len(part.weights) for parts in packing._known.values() for part in parts.values())


def bytes_packed() -> int:
    return sum(part.size for parts in packing._known.values() for part in parts.values())


def fresh(name: str, dtype: torch.dtype = torch.float32, **changes: Any) -> Model:
    return Model.wrap(hf_model(name, **changes).to(dtype), tokenizer(), name=name)


def traces(subject: Model) -> Any:
    return run(subject, requests(LENGTHS, NEW_TOKENS), NUCLEUS, Batching(rows=4, join=2))


def plainly(monkeypatch: pytest.MonkeyPatch, work: Any) -> Any:
    with monkeypatch.context() as without:
        for user in (decode, replay):
            without.setattr(user, "lean", lambda model, **_: nullcontext())
        without.setattr(decode, "takes_ragged", lambda model: False)
        return work()


def touched(subject: Model) -> list[str]:
    """Modules with a forward that is not their class's."""
    return [name for name, m in subject.hf.named_modules() if "forward" in vars(m)]
