"""The front door, as a reader of the README walks through it."""

from __future__ import annotations

import ast
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import traitscope as ts
from traitscope import work
from traitscope.errors import InputError, TraitError
from traitscope.runs import verify

EXAMPLE = """
import traitscope as ts

model = ts.load("./model")
run = ts.capture(model, ["Is it so?", "Why?"], ["./hedged", "./loud"], max_new_tokens=5)
first = run.generations()[0].generation
scores = run.scores(first)
"""


@pytest.fixture(autouse=True)
def _beside_the_model(home: Path, tmp_path: Path) -> None:
    for name in ("model", "hedged", "loud"):
        (tmp_path / name).symlink_to(home / name)


def test_six_lines_to_a_labelled_array() -> None:
    assert len(ast.parse(EXAMPLE).body) <= 6
    names: dict[str, Any] = {}
    exec(compile(EXAMPLE, "example", "exec"), names)
    run, scores = names["run"], names["scores"]
    text = run.text(names["first"])
    assert scores.dims == ("token", "site", "trait")
    assert scores.shape == (len(text.tokens.token_id), 5, 2)
    assert list(scores.coords["trait"].values) == ["hedged", "loud"]
    assert list(scores.coords["site"].values) == ["embed", "0.mid", "0.post", "1.mid", "1.post"]
    one = scores.sel(site="1.post", trait="loud")
    np.testing.assert_array_equal(one.values, text.score[:, 4, 1])
    said = scores.where(scores.part == "response", drop=True)
    assert len(said.token) == len(text.tokens.token_id) - text.tokens.n_prompt <= 5
    assert verify(run.path) == []


def test_the_same_call_finds_it_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    def call() -> ts.Run:
        return ts.capture("./model", ["Is it so?"], ["./loud"], max_new_tokens=3)

    run = call()
    monkeypatch.setattr(work, "load_checkpoint", None)  # loading would fail
    again = call()
    assert again.path == run.path
    assert again.path.parent == Path("runs")
    assert [event["kind"] for event in again.events()] == ["created", "finished"]


def test_internals_of_the_same_texts() -> None:
    run = ts.capture(
        "./model", ["Is it so?"], ["./loud"], internals=[0, "middle"], max_new_tokens=3, out="mine"
    )
    assert run.path == Path("mine")
    (row,) = run.generations()
    assert [c.capture.kind for c in run.captures()] == ["trajectory", "internals"]
    assert run.internal_blocks(row.generation) == [0]  # of two blocks, 0 is in the middle
    tensors = run.internals(row.generation, 0).tensors
    assert len(tensors["neurons"]) == len(run.text(row.generation).tokens.token_id)


def test_prompts_can_be_added_and_samples_asked_for() -> None:
    run = ts.capture("./model", ["Is it so?"], ["./loud"], max_new_tokens=3, out="mine")
    more = ts.capture(
        "./model", ["Is it so?", "Why?"], ["./loud"], max_new_tokens=3, samples=2, out="mine"
    )
    assert (len(run.generations()), len(more.generations())) == (1, 4)
    fresh = ts.capture("./model", ["Why?"], ["./loud"], max_new_tokens=3, out="mine", fresh=True)
    assert fresh.path == Path("mine-2")


def test_one_text_is_not_a_list() -> None:
    with pytest.raises(InputError, match=r"prompts: expected a list of texts"):
        ts.capture("./model", "Is it so?", ["./loud"])
    with pytest.raises(InputError, match=r"traits: expected a list of texts"):
        ts.capture("./model", ["Is it so?"], "./loud")
    assert not Path("runs").exists()


def test_mistakes_name_what_is_known() -> None:
    with pytest.raises(InputError, match=r"unknown trait 'sycophany'.*Did you mean 'sycophancy'"):
        ts.capture("./model", ["Is it so?"], ["sycophany"])
    with pytest.raises(InputError, match=r"max_tokens.*not known.*Did you mean 'max_new_tokens'"):
        ts.capture("./model", ["Is it so?"], ["./loud"], max_tokens=3)
    with pytest.raises(InputError, match=r"temperature.*>= 0.*-1"):
        ts.capture("./model", ["Is it so?"], ["./loud"], temperature=-1)
    Path("bad").mkdir()
    Path("bad/trait.toml").write_text('positive = "a"\nnegative = "b"\n')
    Path("bad/pairs.jsonl").write_text("{}\n")
    with pytest.raises(TraitError, match=r"pairs\.jsonl:1: "):
        ts.capture("./model", ["Is it so?"], ["./bad"])
    assert not Path("runs").exists()


def test_every_name_is_there_and_opening_the_door_loads_no_torch() -> None:
    for name in ts.__all__:
        assert getattr(ts, name) is not None
    assert list(ts.__all__) == sorted(ts.__all__)
    assert set(ts.__all__) <= set(dir(ts))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = ts.nothing
    program = """
        import sys
        import traitscope
        traitscope.load_suite, traitscope.Run, traitscope.Prompt
        assert not {"torch", "transformers", "xarray"} & set(sys.modules)
    """
    root = Path(ts.__file__).parents[1]
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True, cwd=root)
