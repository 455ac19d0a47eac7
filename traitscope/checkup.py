"""Does this machine and this model give exact numbers?  Every check that there is, in one place.

`at_load` is what each run measures by itself and keeps in run.json; `doctor` measures the same
and more, in each dtype that is asked for.  A check has a difference, what was allowed, and a
verdict; nothing is raised for one that fails.  What is compared is the business of `models.proof`
and `engine.agree`; here are the checks of ids and texts, and the order of them all.  This module
does not know runs, suites or screens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from traitscope.core import Float32, Generation, GenerationConfig, Prompt, Trace
from traitscope.engine import (
    LONG,
    QUICK,
    WIDE,
    Batching,
    Probe,
    Request,
    agreement,
    generate,
    repetition,
)
from traitscope.errors import InputError, MachineError
from traitscope.machine import free_memory, let_go, machine
from traitscope.models import (
    Checkpoint,
    Model,
    Proof,
    Rendered,
    hash_tensors,
    is_finite,
    known_dtype,
    load_checkpoint,
    locate,
    pick_device,
    timed,
)

__all__ = ["Check", "Diagnosis", "at_load", "doctor"]

_CHATS = (Prompt.of("Is it so?"), Prompt.of("What is the capital of France?"))
_ANSWER = 4  # tokens

Progress = Callable[[str, int, int, str], None]  # phase, done, total, unit


@dataclass(frozen=True)
class Check:
    """One check in one dtype."""

    dtype: str
    proof: Proof

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.proof.name, "dtype": self.dtype, **self.proof.to_dict()}


@dataclass(frozen=True)
class Diagnosis:
    """What was found: the machine, the model, and each check in each dtype, in order.

    `model` is what a run records of it, with `dtypes` and `load_seconds` by dtype, and `left_out`:
    why, by dtype, where one that nobody asked for does not fit; a deep diagnosis has
    `tensors_sha256` by dtype too.
    """

    machine: Mapping[str, Any]
    model: Mapping[str, Any]
    checks: tuple[Check, ...]

    @property
    def held(self) -> bool:
        return all(check.proof.held for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON values (a difference that is not finite stays a float)."""
        return {
            "machine": dict(self.machine),
            "model": dict(self.model),
            "checks": [check.to_dict() for check in self.checks],
            "held": self.held,
        }


def doctor(
    model: Model | str = "pocket",
    *,
    device: str = "auto",
    dtypes: Sequence[str] = (),
    deep: bool = False,
    progress: Progress = lambda phase, done, total, unit: None,
) -> Diagnosis:
    """Examine a model on this machine: a name is loaded once per dtype, a `Model` as it is.

    `dtypes`: by default the checkpoint's own, and float32 where it fits.  `deep` compares longer
    texts and more rows, and hashes every tensor.  Raises InputError (no such model, dtype or
    device; a dtype beside a loaded model) and MachineError (out of memory); a check that fails is
    no error.
    """
    checks: list[Check] = []
    about: dict[str, Any] = {}
    seconds: dict[str, float] = {}
    hashes: dict[str, str] = {}
    left_out: dict[str, str] = {}
    found = machine()  # before anything is loaded: the memory that is free
    for subject in _loaded(model, device, dtypes, left_out, progress):
        dtype = subject.dtype_name
        about, seconds[dtype] = subject.describe(), subject.load_seconds
        with _room(subject):
            for number, proof in enumerate(_examined(subject, deep)):
                checks.append(Check(dtype, proof))
                progress("check", number + 1, 0, f"checks in {dtype}")
            if deep:
                hashes[dtype] = hash_tensors(
                    subject.hf, lambda done, total: progress("hash", done, total, "bytes")
                )
        del subject  # the next one is loaded in its place
        let_go()
    about |= {"dtypes": list(seconds), "load_seconds": seconds, "left_out": left_out}
    about.pop("dtype")
    return Diagnosis(found, about | ({"tensors_sha256": hashes} if deep else {}), tuple(checks))


def at_load(model: Model) -> list[Proof]:
    """What a run measures of a loaded model before it believes a number: seconds at any size."""
    return list(_basic(model, QUICK))


def _examined(model: Model, deep: bool) -> Iterator[Proof]:
    agree = True
    probe = LONG if deep else WIDE
    for proof in _basic(model, probe):
        agree = agree and (proof.name != "batched = alone" or bool(proof.held))
        yield proof
    yield from repetition(model, probe, agree=agree)


def _basic(model: Model, probe: Probe) -> Iterator[Proof]:
    yield from model.proofs
    yield from agreement(model, probe)
    yield from timed(_texts(model))


# --- loading -------------------------------------------------------------------------------------


def _loaded(
    model: Model | str,
    device: str,
    dtypes: Sequence[str],
    left_out: dict[str, str],
    progress: Progress,
) -> Iterator[Model]:
    """The model in one dtype after the other; only one is in memory at a time."""
    if isinstance(model, Model):
        if dtypes or device != "auto":
            raise InputError(
                f"Expected a model's name beside a dtype or a device, got '{model.name}', which is "
                "loaded already. Leave them out, or give the name."
            )
        yield model
        return
    checkpoint = locate(model)
    pick_device(device)  # a mistake is said before anything is loaded
    for number, dtype in enumerate(_wanted(checkpoint, dtypes)):
        if number and not dtypes and (why := _too_large(checkpoint, device, dtype)):
            left_out[dtype] = why
            continue
        progress("load", 0, 0, "")
        yield load_checkpoint(checkpoint, device=device, dtype=dtype, allow_unproven=True)


def _too_large(checkpoint: Checkpoint, device: str, dtype: str) -> str:
    """Why its weights do not fit where they are made or where they go; empty where they do."""
    needed = checkpoint.weights_bytes(dtype)
    for place in dict.fromkeys((torch.device("cpu"), pick_device(device))):
        free = free_memory(place)
        if free is not None and needed > free:
            return f"needs {needed / 1e9:.1f} GB on {place}, of which {free / 1e9:.1f} are free"
    return ""


def _wanted(checkpoint: Checkpoint, dtypes: Sequence[str]) -> list[str]:
    """Each dtype once, in order."""
    asked = [checkpoint.dtype(dtype) for dtype in dtypes or ("auto", "float32")]
    return list(dict.fromkeys(known_dtype(dtype) for dtype in asked))


class _room:
    """Out of memory while checking is the machine's failure, said in one sentence."""

    def __init__(self, model: Model) -> None:
        self._said = f"Out of memory on {model.device} while checking '{model.name}' in "
        self._said += (
            f"{model.dtype_name}. Use a narrower dtype, another device, or leave --deep out."
        )

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, torch.OutOfMemoryError):
            raise MachineError(self._said) from error


# --- ids and texts -------------------------------------------------------------------------------


def _texts(model: Model) -> Iterator[Proof]:
    """No double BOS; and where a prompt ends and its answer begins."""
    chats = [model.render(prompt) for prompt in _CHATS]
    yield _no_double_bos(model, chats)
    yield _boundary(model, chats)


def _no_double_bos(model: Model, chats: Sequence[Rendered]) -> Proof:
    name, unit = "no double BOS", "extra"
    bos = model.tokenizer.bos_token_id
    if bos is None:
        return Proof.of(name, 0.0, 0.0, "this tokenizer has no BOS", unit)
    most = max(_leading(chat.token_ids, bos) for chat in chats)
    detail = "a prompt begins without BOS" if most == 0 else ""
    if most > 1:
        detail = f"a prompt begins with {most} BOS: see the tokenizer's chat template"
    return Proof.of(name, float(max(most - 1, 0)), 0.0, detail, unit)


def _leading(ids: Sequence[int], bos: int) -> int:
    return next((i for i, token in enumerate(ids) if token != bos), len(ids))


def _boundary(model: Model, chats: Sequence[Rendered]) -> Proof:
    """What is stored is the prompt's ids and then the written ones, and it is spelt accordingly."""
    name, unit = "prompt | response", "tokens"
    room = min(_ANSWER, model.context - max(len(chat.token_ids) for chat in chats))
    if room < 1:
        return Proof.skipped(name, 0.0, "the context is too short", unit)
    if not is_finite(model.proofs):
        return Proof.skipped(name, 0.0, "values are not finite", unit)
    wrong, by_id = 0, {chat.prompt_id: chat for chat in chats}
    for trace in _answers(model, chats, room):
        wrong += _misplaced(model, by_id[trace.generation.prompt_id], trace)
    return Proof.of(name, float(wrong), 0.0, "the decoded text agrees" if not wrong else "", unit)


def _answers(model: Model, chats: Sequence[Rendered], room: int) -> Iterator[Trace]:
    requests = [Request(Generation(chat.prompt_id), chat.token_ids, room) for chat in chats]
    none: Float32 = np.zeros((len(model.sites), model.anatomy.d_model, 1), dtype=np.float32)
    config = GenerationConfig(temperature=0.0)
    yield from generate(model, requests, none, config, Batching(rows=2))


def _misplaced(model: Model, chat: Rendered, trace: Trace) -> int:
    """How many tokens are not where they belong; a text that is spelt otherwise counts as one."""
    ids, n = trace.token_ids.tolist(), len(chat.token_ids)
    table = model.speller.table(ids, chat)
    in_prompt = [part == "prompt" for part in table.part]
    wrong = sum(a != b for a, b in zip(ids, chat.token_ids, strict=False)) + abs(trace.n_prompt - n)
    wrong += sum(inside != (i < n) for i, inside in enumerate(in_prompt))
    prompt_text = table.text[: int(table.end[n - 1])]
    for spelt, own in ((table.text, ids), (prompt_text, ids[:n])):
        wrong += int(_plain(spelt) != _plain(model.speller.decode(own)))
    return int(wrong)


def _plain(text: str) -> str:
    """Without the sign for bytes that are no text: how many there are depends on the decoder."""
    return text.replace("\ufffd", "")
