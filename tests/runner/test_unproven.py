"""A model that fails a check at load: refused, unless told otherwise; then the run says so."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from tests import tiny
from tests.runner.small import save_model, small_suite
from traitscope.errors import ModelError
from traitscope.models import Model
from traitscope.replays import replay_run
from traitscope.report import night, summarise
from traitscope.runner import run_suite
from traitscope.runs import Run, verify
from traitscope.suite import Suite


@pytest.fixture
def odd(home: Path) -> str:
    """A model whose chats begin with two BOS."""
    folder = home / "odd"
    if not folder.exists():
        save_model(folder)
        tokenizer = tiny.tokenizer.__wrapped__()
        tokenizer.chat_template = "{{ bos_token }}" + tokenizer.chat_template
        tokenizer.save_pretrained(folder)
    return "./odd"


def suite_of(home: Path, odd: str, **changes: object) -> Suite:
    return small_suite(home, model=odd, prompts={"asks": {"texts": ["Why?"]}}, **changes)


def page(run: Run) -> str:
    stream = io.StringIO()
    console = Console(file=stream, width=100, markup=False, highlight=False)
    console.print(night(summarise(run), width=100, colour=False), crop=False)
    return stream.getvalue()


def test_it_is_refused_before_anything_is_written(home: Path, odd: str) -> None:
    with pytest.raises(ModelError) as caught:
        run_suite(suite_of(home, odd))
    said = str(caught.value)
    assert "these checks failed: no double BOS (off by 1 extra, allowed 0)" in said
    assert "--allow-unproven" in said
    assert "float32 on cpu" in said
    assert not Path("runs").exists()


def test_told_otherwise_it_goes_on_and_says_so(home: Path, odd: str) -> None:
    outcome = run_suite(suite_of(home, odd, allow_unproven=True))
    assert verify(outcome.path) == []
    header = json.loads((outcome.path / "run.json").read_text())
    assert header["suite"]["allow_unproven"] is True
    assert [p["name"] for p in header["proofs"] if not p["held"]] == ["no double BOS"]
    run = Run.open(outcome.path)
    assert run.missing() == []
    summary = summarise(run)
    assert summary.unproven == (
        "no double BOS: off by 1.0e+00 extra, allowed 0.0e+00, in float32 on cpu",
    )
    shown = page(run)
    assert "did not prove exact (--allow-unproven)" in shown
    assert "no double BOS" in shown
    more = small_suite(home, model=odd, prompts={"asks": {"texts": ["Why?", "How?"]}})
    with pytest.raises(ModelError, match="no double BOS"):
        run_suite(more)  # what was allowed once is not allowed for ever


def test_a_run_that_goes_on_where_the_model_fails_says_so(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proofs in run.json are those of the call that made it, and they held."""
    one = {"asks": {"texts": ["Why?"]}}
    two = {"asks": {"texts": ["Why?", "How?"]}}
    run = Run.open(run_suite(small_suite(home, prompts=one)).path)
    assert summarise(run).unproven == ()
    assert "--allow-unproven" not in page(run)
    monkeypatch.setattr("traitscope.engine.slots.Slots.move", lambda *_: None)
    with pytest.raises(ModelError, match="batched = alone"):
        run_suite(small_suite(home, prompts=two))
    again = run_suite(small_suite(home, prompts=two, allow_unproven=True))
    assert again.resumed and again.path == run.path
    (said,) = summarise(Run.open(run.path)).unproven
    assert said.startswith("batched = alone: off by")
    assert "batched = alone: off by" in page(Run.open(run.path))


def test_a_wrapped_model_is_asked_too(home: Path, odd: str) -> None:
    tokenizer = tiny.tokenizer.__wrapped__()
    tokenizer.chat_template = "{{ bos_token }}" + tokenizer.chat_template
    sizes = {"hidden_size": 32, "num_hidden_layers": 2}
    model = Model.wrap(tiny.hf_model("llama", **sizes), tokenizer)
    with pytest.raises(ModelError, match="no double BOS"):
        run_suite(suite_of(home, odd), model=model)
    assert run_suite(suite_of(home, odd, allow_unproven=True), model=model).stats["made"] == 1


def test_a_run_that_goes_on_on_another_kind_of_device_says_so(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of(*texts: str) -> Run:
        return Run.open(run_suite(small_suite(home, prompts={"asks": {"texts": [*texts]}})).path)

    run = of("Who?")
    assert run.devices == ("cpu",)
    assert "Made on" not in page(run)
    with monkeypatch.context() as patch:
        patch.setattr(Model, "device_kind", "cuda NVIDIA X")
        run = of("Who?", "How?")
        assert run.devices == ("cpu", "cuda NVIDIA X")
        assert "Made on cpu, then cuda NVIDIA X: the last digits" in page(run)
        run = of("Who?", "How?", "When?")
        assert run.devices == ("cpu", "cuda NVIDIA X"), "it is said once"
    replay_run(run.path, [], keep=["0.post"])
    assert Run.open(run.path).devices == ("cpu", "cuda NVIDIA X", "cpu")
    assert summarise(Run.open(run.path)).devices == ("cpu", "cuda NVIDIA X")
    assert verify(run.path) == []
