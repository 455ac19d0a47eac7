"""A small suite on a tiny saved model, and what it means that two runs are the same."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tiny import hf_model, tokenizer
from traitscope.runs import Run, verify
from traitscope.suite import Suite, suite_from_dict
from traitscope.traits import extract
from traitscope.traits.pairs import Example

CONTEXT = 96
TEXTS = ("Is it so?", "Why is the sky blue at noon?", "Say a word.", "No.")
TRAITS = ("hedged", "loud")
TOLERANCE = 1e-5  # in units of |h|: what the project promises
NEUTRAL = tuple(Example(f"What of {n}?", f"It is {n * n} of them.") for n in range(3))


def save_model(folder: Path, **changes: Any) -> Path:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "max_position_embeddings": CONTEXT}
    hf_model("llama", **{**sizes, **changes}).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def write_trait(folder: Path, pairs: Sequence[tuple[str, str]], *, about: str = "") -> Path:
    """A trait's folder; each pair is a positive and a negative response to the same question."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "trait.toml").write_text(f'positive = "More."\nnegative = "Less."\n{about}')
    lines = []
    for number, pair in enumerate(pairs):
        sides = zip(("positive", "negative"), pair, strict=True)
        entry: dict[str, object] = {"scenario": f"s{number}"}
        entry |= {side: {"prompt": f"How {number}?", "response": text} for side, text in sides}
        lines.append(json.dumps(entry) + "\n")
    (folder / "pairs.jsonl").write_text("".join(lines))
    return folder


def save_traits(folder: Path) -> None:
    write_trait(folder / "hedged", [("perhaps so", "it is so"), ("maybe", "yes"), ("I doubt", "I")])
    write_trait(folder / "loud", [("OH YES", "oh yes"), ("NEVER", "never"), ("AH!", "ah.")])


def small_suite(folder: Path, **changes: Any) -> Suite:
    """The suite in `folder`, where `save_model` and `save_traits` have been; keys replaced.

    `generation` is merged into what is there.
    """
    table: dict[str, Any] = {
        "name": "small",
        "model": "./model",
        "device": "cpu",
        "traits": [f"./{name}" for name in TRAITS],
        "rows": 2,
        "prompts": {
            "asks": {"texts": list(TEXTS)},
            "inside": {"texts": [TEXTS[1]], "kind": "internals", "blocks": [1]},
        },
    }
    generation = {"max_new_tokens": 6, "temperature": 0.8, "seed": 3}
    generation |= changes.pop("generation", {})
    return suite_from_dict({**table, "generation": generation, **changes}, root=folder)


def few_neutral_chats(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(extract, "neutral_chats", lambda: NEUTRAL)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file's bytes."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def assert_same(run: Run, other: Run) -> None:
    """Both whole, with the same texts, captures, tokens, internals; numbers within rounding."""
    assert verify(run.path) == []
    assert verify(other.path) == []
    assert outcomes(run) == outcomes(other)
    assert run.missing() == other.missing() == []
    for row in run.generations():
        if row.status == "done":
            same_text(run, other, row.generation.id)


def outcomes(run: Run) -> dict[str, list[object]]:
    texts = [(r.generation, r.prompt, r.response, r.status, r.error) for r in run.generations()]
    captures = [(row.capture, row.status, row.error) for row in run.captures()]
    return {
        "texts": sorted(texts, key=lambda text: text[0]),
        "captures": sorted(captures, key=lambda capture: capture[0]),
    }


def same_text(run: Run, other: Run, generation: str) -> None:
    a, b = run.text(generation), other.text(generation)
    np.testing.assert_array_equal(a.tokens.token_id, b.tokens.token_id)
    apart_TS = np.abs(a.score - b.score).max(axis=-1) / b.norm
    assert apart_TS.max() <= TOLERANCE
    np.testing.assert_allclose(a.norm, b.norm, rtol=TOLERANCE)
    np.testing.assert_allclose(a.logprob, b.logprob, atol=1e-4)
    assert run.internal_blocks(generation) == other.internal_blocks(generation)
    for block in run.internal_blocks(generation):
        same_tensors(
            run.internals(generation, block).tensors, other.internals(generation, block).tensors
        )


def same_tensors(a: Mapping[str, Any], b: Mapping[str, Any]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=1e-3, atol=1e-4, err_msg=name)
