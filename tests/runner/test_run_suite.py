"""A suite end to end on a tiny model: what is made, what is not made again, what is refused.

Everything runs in a folder of its own; `world` counts what is loaded and generated.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.runner.small import (
    CONTEXT,
    TEXTS,
    TOLERANCE,
    assert_same,
    save_model,
    save_traits,
    small_suite,
    tree,
)
from tests.tiny import tokenizer
from traitscope import prepare, task, work
from traitscope.core import Capture, Generation, Prompt
from traitscope.errors import Interrupted, MachineError, ModelError, RunError, TraitError
from traitscope.models import Model, load, render
from traitscope.runner import Outcome, Tick, run_suite
from traitscope.runs import Run, RunWriter, save_directions, verify
from traitscope.runs import writer as writing
from traitscope.traits.extract import extract
from traitscope.traits.pairs import load_trait


@dataclass
class World:
    """What a call did with the machine: loads, and the texts it began to generate."""

    loads: list[str] = field(default_factory=list)
    texts: list[list[Generation]] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)

    def clear(self) -> None:
        for seen in (self.loads, self.texts, self.rows):
            seen.clear()

    @property
    def made(self) -> list[Generation]:
        return sorted(generation for texts in self.texts for generation in texts)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    seen = World()
    load_checkpoint, generate = work.load_checkpoint, task.generate

    def loading(checkpoint: Any, **options: Any) -> Model:
        seen.loads.append(checkpoint.name)
        return load_checkpoint(checkpoint, **options)

    def generating(model: Model, requests: Any, *others: Any) -> Any:
        seen.texts.append([request.generation for request in requests])
        seen.rows.append(others[2].rows)
        return generate(model, requests, *others)

    monkeypatch.setattr(work, "load_checkpoint", loading)
    monkeypatch.setattr(task, "generate", generating)
    return seen


@pytest.fixture(scope="module")
def undisturbed(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    place = tmp_path_factory.mktemp("undisturbed") / "run"
    return Run.open(run_suite(small_suite(home), out=place).path)


def generation(text: str, sample: int = 0) -> Generation:
    return Generation(render(tokenizer(), Prompt.of(text)).prompt_id, sample)


def finished(outcome: Outcome) -> Run:
    run = Run.open(outcome.path)
    assert run.state == "complete"
    assert verify(outcome.path) == []
    return run


def asks(*texts: str, **options: Any) -> dict[str, Any]:
    return {"prompts": {"asks": {"texts": list(texts), **options}}}


# --- the first time ------------------------------------------------------------------------------


def test_one_load_and_every_capture(home: Path, world: World) -> None:
    outcome = run_suite(small_suite(home))
    run = finished(outcome)
    assert len(world.loads) == outcome.stats["model_loads"] == 1
    assert not outcome.already_done
    assert not outcome.resumed
    inside = Capture(generation(TEXTS[1]), "inside", "internals")
    wanted = [*(Capture(generation(text), "asks") for text in TEXTS), inside]
    assert [(row.capture, row.status, row.in_suite) for row in run.captures()] == [
        (capture, "done", True) for capture in wanted
    ]
    assert outcome.stats["made"] == len(wanted)
    assert world.made == sorted(generation(text) for text in TEXTS), "each once, though in two sets"
    assert [row.prompt.text for row in run.generations()] == list(TEXTS)
    assert run.internal_blocks(generation(TEXTS[1])) == [1]
    assert outcome.path.parent == Path("runs")
    assert outcome.path.name == f"small-{run.header.key}"


def test_scores_are_those_of_the_directions(home: Path, undisturbed: Run) -> None:
    """Each text replayed alone, with the run's own directions."""
    model = load(str(home / "model"))
    for row in undisturbed.generations():
        text = undisturbed.text(row.generation)
        with torch.inference_mode():
            ids = torch.from_numpy(text.tokens.token_id.astype(np.int64))[None]
            out = model.hf(ids, output_hidden_states=True)
        embed, between = out.hidden_states[0][0].numpy(), out.hidden_states[1][0].numpy()
        for k, trait in enumerate(undisturbed.traits):
            direction = undisturbed.directions[trait].direction
            for site, h_TD in ((0, embed), (2, between)):
                apart = np.abs(text.score[:, site, k] - h_TD @ direction[site])
                assert (apart <= TOLERANCE * text.norm[:, site]).all()
        assert [site.name for site in undisturbed.sites[:3]] == ["embed", "0.mid", "0.post"]


def test_internals_are_of_the_run_s_own_text(undisturbed: Run) -> None:
    name = generation(TEXTS[1])
    text, inside = undisturbed.text(name), undisturbed.internals(name, 1)
    site = [s.name for s in undisturbed.sites].index("1.post")
    for k, trait in enumerate(undisturbed.traits):
        score_T = inside.tensors["resid_post"] @ undisturbed.directions[trait].direction[site]
        assert (np.abs(score_T - text.score[:, site, k]) <= TOLERANCE * text.norm[:, site]).all()


def test_the_stats_are_the_last_event_and_add_up(home: Path) -> None:
    outcome = run_suite(small_suite(home))
    run = finished(outcome)
    finish = next(event for event in reversed(run.events()) if event["kind"] == "finished")
    assert {key: finish[key] for key in outcome.stats} == json.loads(json.dumps(outcome.stats))
    texts = [run.text(row.generation).tokens for row in run.generations()]
    assert outcome.stats["tokens"] == sum(len(tokens.token_id) for tokens in texts)
    assert outcome.stats["new_tokens"] == sum(len(t.token_id) - t.n_prompt for t in texts)
    seconds = outcome.stats["seconds"]
    assert seconds["total"] >= seconds["generate"] + seconds["write"] > 0


def test_progress_names_the_phases_in_order(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAITSCOPE_HOME", str(tmp_path / "empty"))
    ticks: list[Tick] = []
    run_suite(small_suite(home), progress=ticks.append)
    phases = list(dict.fromkeys(tick.phase for tick in ticks))
    assert phases == ["load", "directions", "generate", "internals", "done"]
    assert all(tick.done <= tick.total for tick in ticks)
    assert max(tick.tokens for tick in ticks if tick.phase == "generate") > 0


def test_the_order_of_prompts_does_not_matter(home: Path, undisturbed: Run) -> None:
    backwards = {
        "inside": {"texts": [TEXTS[1]], "kind": "internals", "blocks": [1]},
        "asks": {"texts": list(reversed(TEXTS))},
    }
    run = finished(run_suite(small_suite(home, prompts=backwards)))
    assert run.header.key == undisturbed.header.key
    assert_same(run, undisturbed)


def test_the_rows_do_not_matter(home: Path, undisturbed: Run) -> None:
    assert_same(finished(run_suite(small_suite(home, rows=1))), undisturbed)


def test_two_internals_sets_open_a_block_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[int] = []
    capture_internals = task.capture_internals

    def opening(model: Model, name: Generation, ids: Any, block: int, *others: Any) -> Any:
        opened.append(block)
        return capture_internals(model, name, ids, block, *others)

    monkeypatch.setattr(task, "capture_internals", opening)
    one = {"texts": [TEXTS[0]], "kind": "internals", "blocks": [0]}
    suite = small_suite(home, prompts={"one": one, "two": {**one, "blocks": ["middle", 1]}})
    run = finished(run_suite(suite))
    assert sorted(opened) == [0, 1]
    assert run.internal_blocks(generation(TEXTS[0])) == [0, 1]
    assert [row.status for row in run.captures()] == ["done", "done"]


# --- the same again ------------------------------------------------------------------------------


def test_the_same_again_loads_and_writes_nothing(home: Path, world: World) -> None:
    outcome = run_suite(small_suite(home))
    before = tree(outcome.path)
    world.clear()
    again = run_suite(small_suite(home))
    assert (again.path, again.already_done, again.resumed) == (outcome.path, True, True)
    assert world.loads == []
    assert again.stats["model_loads"] == again.stats["made"] == 0
    assert tree(outcome.path) == before


def test_an_added_prompt_is_the_only_one_made(
    home: Path, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = run_suite(small_suite(home))
    kept = {
        row.generation: Run.open(outcome.path).text(row.generation)
        for row in Run.open(outcome.path).generations()
    }
    monkeypatch.setattr(prepare, "extract", None)  # the run has its directions
    world.clear()
    more = {
        "asks": {"texts": ["New one?", *TEXTS]},
        "inside": {"texts": [TEXTS[1]], "kind": "internals", "blocks": [1]},
    }
    again = run_suite(small_suite(home, prompts=more))
    run = finished(again)
    assert again.path == outcome.path
    assert (again.resumed, again.already_done) == (True, False)
    assert world.made == [generation("New one?")]
    made = run.text(generation("New one?")).tokens
    assert again.stats["new_tokens"] == len(made.token_id) - made.n_prompt
    assert again.stats["made"] == 1
    assert len(run.generations()) == len(TEXTS) + 1
    for name, text in kept.items():
        np.testing.assert_array_equal(run.text(name).score, text.score)


def test_a_removed_prompt_is_kept_and_marked(home: Path, world: World) -> None:
    outcome = run_suite(small_suite(home))
    world.clear()
    again = run_suite(small_suite(home, **asks(*TEXTS[1:])))
    assert again.already_done
    assert world.loads == []
    run = finished(again)
    assert again.path == outcome.path
    outside = [row for row in run.generations() if not row.in_suite]
    assert [row.prompt.text for row in outside] == [TEXTS[0]]
    assert len(run.text(outside[0].generation).score) > 0
    gone = {(row.capture.prompt_set, row.in_suite) for row in run.captures() if not row.in_suite}
    assert gone == {("asks", False), ("inside", False)}
    back = run_suite(small_suite(home))
    assert back.already_done
    assert all(row.in_suite for row in finished(back).generations())
    assert world.loads == []


def test_words_about_the_suite_are_recorded_and_make_nothing(home: Path, world: World) -> None:
    outcome = run_suite(small_suite(home))
    parts = {name: data for name, data in tree(outcome.path).items() if "parts" in name}
    world.clear()
    expect = {"text": "A over B", "trait": "loud", "higher": TEXTS[0], "lower": TEXTS[1]}
    again = run_suite(small_suite(home, description="What it is for.", expect=[expect]))
    assert again.already_done
    assert world.loads == []
    run = finished(again)
    assert run.header.suite["description"] == "What it is for."
    assert run.header.suite["expect"][0]["text"] == "A over B"
    assert {name: data for name, data in tree(run.path).items() if "parts" in name} == parts


def test_more_samples_are_further_texts(home: Path, world: World) -> None:
    outcome = run_suite(small_suite(home, **asks(*TEXTS[:2])))
    world.clear()
    again = run_suite(small_suite(home, **asks(*TEXTS[:2]), generation={"samples": 3}))
    assert again.path == outcome.path
    run = finished(again)
    assert world.made == sorted(generation(text, n) for text in TEXTS[:2] for n in (1, 2))
    for text in TEXTS[:2]:
        ids = {tuple(run.text(generation(text, n)).tokens.token_id.tolist()) for n in range(3)}
        assert len(ids) == 3, "each sample has dice of its own"
    assert run.header.generation["samples"] == 3
    fewer = run_suite(small_suite(home, **asks(*TEXTS[:2])))
    assert fewer.already_done
    assert finished(fewer).header.generation["samples"] == 1


def test_a_set_s_own_samples(home: Path) -> None:
    sets = {"asks": {"texts": [TEXTS[0]], "samples": 2}, "others": {"texts": list(TEXTS[:2])}}
    run = finished(run_suite(small_suite(home, prompts=sets)))
    assert sorted(row.generation for row in run.generations()) == sorted(
        [generation(TEXTS[0], 0), generation(TEXTS[0], 1), generation(TEXTS[1], 0)]
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"generation": {"seed": 4}},
        {"generation": {"temperature": 0.0}},
        {"generation": {"max_new_tokens": 3}},
        {"generation": {"top_p": 0.5}},
        {"generation": {"top_k": 9}},
        {"traits": ["./loud"]},
        {"traits": ["./loud", "./hedged"]},
        {"dtype": "bfloat16"},
    ],
)
def test_what_changes_numbers_is_another_folder(
    home: Path, undisturbed: Run, changes: dict[str, Any]
) -> None:
    suite = small_suite(home, **changes)
    source = work.Source.of(suite, None)
    key = work.Work.of(suite, source, work.trait_data(suite.trait_sources)).key
    assert key != undisturbed.header.key


def test_what_does_not_change_numbers_is_the_same_folder(home: Path, undisturbed: Run) -> None:
    changes = {"rows": 5, "description": "x", "name": "other", "generation": {"samples": 9}}
    suite = small_suite(home, **changes, **asks("Something else?"))
    source = work.Source.of(suite, None)
    traits = work.trait_data(suite.trait_sources)
    assert work.Work.of(suite, source, traits).key == undisturbed.header.key


def test_another_model_or_other_trait_data_are_another_folder(home: Path, tmp_path: Path) -> None:
    def key(folder: Path) -> str:
        suite = small_suite(folder)
        source = work.Source.of(suite, None)
        return work.Work.of(suite, source, work.trait_data(suite.trait_sources)).key

    save_model(tmp_path / "model")
    save_traits(tmp_path)
    assert key(tmp_path) == key(home), "where they lie does not matter"
    pairs = tmp_path / "loud" / "pairs.jsonl"
    pairs.write_text(pairs.read_text().replace("NEVER", "NO!"))
    data = key(tmp_path)
    save_model(tmp_path / "model", seed=1)
    assert len({key(home), data, key(tmp_path)}) == 3


# --- where it goes -------------------------------------------------------------------------------


def test_a_folder_of_another_suite_is_refused(home: Path, tmp_path: Path, world: World) -> None:
    out = tmp_path / "mine"
    run_suite(small_suite(home), out=out)
    before = tree(out)
    world.clear()
    other = {"seed": 4, "temperature": 0.0}
    with pytest.raises(RunError) as caught:
        run_suite(small_suite(home, generation=other), out=out)
    for words in (str(out), "seed 3 instead of 4", "temperature 0.8 instead of 0.0", "--fresh"):
        assert words in str(caught.value)
    with pytest.raises(RunError, match=r"dtype float32 instead of bfloat16\."):
        run_suite(small_suite(home, dtype="bfloat16"), out=out)
    with pytest.raises(RunError, match=r"the traits hedged \+ loud instead of loud\."):
        run_suite(small_suite(home, traits=["./loud"]), out=out)
    save_traits(tmp_path)
    pairs = tmp_path / "loud" / "pairs.jsonl"
    pairs.write_text(pairs.read_text().replace("NEVER", "NO!"))
    traits = [str(home / "hedged"), str(tmp_path / "loud")]
    with pytest.raises(RunError, match=r"with other data of the trait loud\."):
        run_suite(small_suite(home, traits=traits), out=out)
    save_model(tmp_path / "other", seed=1)
    with pytest.raises(RunError, match=r"with another model '.*model'\."):
        run_suite(small_suite(home, model=str(tmp_path / "other")), out=out)
    assert world.loads == []
    assert tree(out) == before


def test_without_prompt_logprobs_it_is_another_run(home: Path, undisturbed: Run) -> None:
    """Runs made before there was this choice have the key of those that it was not made for."""
    assert "prompt_logprobs" not in undisturbed.header.generation
    less = {"prompt_logprobs": False}
    run = Run.open(run_suite(small_suite(home, generation=less)).path)
    assert verify(run.path) == []
    assert run.header.key != undisturbed.header.key
    for row in run.generations():
        there = undisturbed.text(row.generation).logprob
        here = run.text(row.generation).logprob
        assert np.isnan(here[: row.n_prompt]).all()
        np.testing.assert_allclose(here[row.n_prompt :], there[row.n_prompt :], atol=1e-5)
    for suite, path, words in (
        (small_suite(home), run.path, "False instead of True"),
        (small_suite(home, generation=less), undisturbed.path, "True instead of False"),
    ):
        with pytest.raises(RunError, match=rf"with prompt_logprobs {words}\."):
            run_suite(suite, out=path)


def test_fresh_starts_a_numbered_folder(home: Path, undisturbed: Run) -> None:
    suite = small_suite(home, **asks(TEXTS[0]))
    paths = [run_suite(suite, fresh=True).path for _ in range(3)]
    stem = f"small-{undisturbed.header.key}"
    assert [path.name for path in paths] == [stem, f"{stem}-2", f"{stem}-3"]
    out = [run_suite(suite, out=Path("mine"), fresh=True).path for _ in range(2)]
    assert out == [Path("mine"), Path("mine-2")]
    assert run_suite(suite, out=Path("mine")).already_done
    for path in (*paths, *out):
        assert verify(path) == []


# --- prompts that fail ---------------------------------------------------------------------------

TEMPLATE = len(render(tokenizer(), Prompt.of("x")).token_ids) - 1


def test_a_prompt_longer_than_the_context_fails_alone(home: Path, world: World) -> None:
    long = "y" * (CONTEXT - TEMPLATE)
    sets = {
        "asks": {"texts": [TEXTS[0], long]},
        "inside": {"texts": [long, TEXTS[0]], "kind": "internals", "blocks": [0]},
    }
    run = finished(run_suite(small_suite(home, prompts=sets)))
    failed = generation(long)
    assert {row.capture for row in run.captures() if row.status == "failed"} == {
        Capture(failed, "asks"),
        Capture(failed, "inside", "internals"),
    }
    (row,) = (row for row in run.generations() if row.status == "failed")
    assert f"{CONTEXT} tokens" in row.error
    assert f"holds {CONTEXT}" in row.error
    assert all(r.error == row.error for r in run.captures() if r.status == "failed")
    assert [r.status for r in run.captures() if r.capture.generation != failed] == ["done"] * 2
    world.clear()
    assert run_suite(small_suite(home, prompts=sets)).already_done
    assert world.loads == []
    further = {**sets, "more": {"texts": [long]}}
    assert not run_suite(small_suite(home, prompts=further)).already_done
    world.clear()
    again = run_suite(small_suite(home, prompts=further))
    assert again.already_done, "a further capture of a failed text is recorded as failed"
    assert world.loads == []


def test_a_prompt_that_nearly_fills_the_context_is_answered_shortly(home: Path) -> None:
    room = 2
    nearly = "y" * (CONTEXT - TEMPLATE - room)
    run = finished(run_suite(small_suite(home, **asks(nearly, TEXTS[0]))))
    text = run.text(generation(nearly)).tokens
    assert text.n_prompt == CONTEXT - room
    assert len(text.token_id) - text.n_prompt <= room
    assert all(row.status == "done" for row in run.captures())


def test_retry_failed_makes_what_failed_again(home: Path, world: World) -> None:
    long = "y" * CONTEXT
    suite = small_suite(home, **asks(TEXTS[0], long))
    outcome = run_suite(suite)
    world.clear()
    again = run_suite(suite, retry_failed=True)
    assert (again.already_done, len(world.loads)) == (False, 1)
    run = finished(again)
    assert [row.status for row in run.captures()] == ["done", "failed"]
    assert world.made == [], "what is done is not made again"
    assert again.path == outcome.path


def test_a_text_that_failed_once_can_succeed_later(
    home: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: Run
) -> None:
    suite = small_suite(home)
    bad = generation(TEXTS[1])
    with monkeypatch.context() as patch:
        generate = task.generate

        def overflowing(*args: Any) -> Iterator[Any]:
            for trace in generate(*args):
                if trace.generation == bad:
                    trace.score[-1, -1, 0] = np.nan
                yield trace

        patch.setattr(task, "generate", overflowing)
        outcome = run_suite(suite)
    run = finished(outcome)
    assert {row.capture.prompt_set for row in run.captures() if row.status == "failed"} == {
        "asks",
        "inside",
    }
    assert run_suite(suite).already_done
    assert not run_suite(suite, retry_failed=True).already_done
    assert_same(finished(outcome), undisturbed)


# --- internals -----------------------------------------------------------------------------------


def inside(*blocks: object) -> dict[str, Any]:
    return {"texts": [TEXTS[1]], "kind": "internals", "blocks": list(blocks)}


def test_a_further_block_makes_only_internals(home: Path, world: World) -> None:
    sets = {"asks": {"texts": list(TEXTS)}}
    outcome = run_suite(small_suite(home, prompts={**sets, "inside": inside(1)}))
    before = Run.open(outcome.path).internals(generation(TEXTS[1]), 1)
    world.clear()
    again = run_suite(small_suite(home, prompts={**sets, "inside": inside(0, 1)}))
    run = finished(again)
    assert world.made == []
    assert again.stats["new_tokens"] == 0
    assert run.internal_blocks(generation(TEXTS[1])) == [0, 1]
    after = run.internals(generation(TEXTS[1]), 1)
    np.testing.assert_array_equal(before.tensors["neurons"], after.tensors["neurons"])
    world.clear()
    assert run_suite(small_suite(home, prompts={**sets, "inside": inside(0, 1)})).already_done
    assert world.loads == []


def test_an_unknown_block_is_refused_before_anything_is_written(home: Path) -> None:
    with pytest.raises(ModelError, match=r"block from 0 to 1 .*got 2"):
        run_suite(small_suite(home, prompts={"inside": inside(2)}))
    assert not Path("runs").exists()


# --- given models and directions -----------------------------------------------------------------


def test_a_model_that_is_loaded_is_not_loaded_again(
    home: Path, world: World, undisturbed: Run
) -> None:
    model = load(str(home / "model"))
    outcome = run_suite(small_suite(home), model=model)
    assert world.loads == []
    assert outcome.stats["model_loads"] == 0
    run = finished(outcome)
    assert run.header.key == undisturbed.header.key, "it is the same model as the folder's"
    assert_same(run, undisturbed)
    wrapped = Model.wrap(model.hf, model.tokenizer)
    other = finished(run_suite(small_suite(home), model=wrapped))
    assert other.header.model["fingerprint"].startswith("memory:")
    assert other.header.key != run.header.key
    assert world.loads == []


def test_directions_from_a_file(home: Path, tmp_path: Path, undisturbed: Run) -> None:
    save_directions(tmp_path / "doubt.safetensors", undisturbed.directions["hedged"])
    traits = ["./loud", str(tmp_path / "doubt.safetensors")]
    run = finished(run_suite(small_suite(home, traits=traits)))
    assert run.traits == ("loud", "doubt"), "the file's name is the trait's"
    np.testing.assert_array_equal(
        run.directions["doubt"].direction, undisturbed.directions["hedged"].direction
    )
    name = generation(TEXTS[0])
    np.testing.assert_allclose(
        run.text(name).score, undisturbed.text(name).score[:, :, ::-1], atol=1e-4
    )


def test_a_file_of_another_model_is_refused_before_anything_is_written(
    home: Path, tmp_path: Path
) -> None:
    for name, changes in (("twin", {"seed": 1}), ("wide", {"hidden_size": 48})):
        model = load(str(save_model(tmp_path / name, **changes)))
        made = extract(model, [load_trait(home / "hedged")])["hedged"]
        save_directions(tmp_path / f"{name}.safetensors", made)
        suite = small_suite(home, traits=[str(tmp_path / f"{name}.safetensors")])
        with pytest.raises(TraitError) as caught:
            run_suite(suite)
        assert str(home / "model") in str(caught.value)
        assert (str(tmp_path / name) if name == "twin" else "width 48") in str(caught.value)
    assert not Path("runs").exists()


# --- the machine fails ---------------------------------------------------------------------------


class Failing:
    """The engine's forward, which raises `error` at the calls that are named."""

    def __init__(self, patch: pytest.MonkeyPatch, error: BaseException, *at: int) -> None:
        from traitscope.engine.step import Step

        forward = Step.forward
        self.calls = 0

        def failing(step: Any, *args: Any) -> Any:
            self.calls += 1
            if self.calls in at or not at:
                raise error
            return forward(step, *args)

        patch.setattr(Step, "forward", failing)


@pytest.fixture
def model(home: Path, monkeypatch: pytest.MonkeyPatch) -> Model:
    """Loaded, and known to agree: the forwards that are counted are the run's own."""
    loaded = load(str(home / "model"))
    monkeypatch.setattr(task, "at_load", lambda model: [])
    return loaded


def taps(model: Model) -> int:
    """Forwards that are not the modules' own; transformers keeps hooks of its own, so no count."""
    return sum("forward" in vars(module) for module in model.hf.modules())


@pytest.mark.parametrize("at", [1, 4, 8])
def test_out_of_memory_halves_the_rows(
    home: Path,
    model: Model,
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    undisturbed: Run,
    at: int,
) -> None:
    Failing(monkeypatch, torch.OutOfMemoryError("CUDA out of memory."), at)
    outcome = run_suite(small_suite(home, rows=4), model=model)
    assert world.rows == [4, 2]
    run = finished(outcome)
    assert [e["rows"] for e in run.events() if e["kind"] == "out_of_memory"] == [2]
    assert_same(run, undisturbed)
    assert taps(model) == 0


def test_out_of_memory_with_one_row_is_the_machine_s(
    home: Path, model: Model, world: World, monkeypatch: pytest.MonkeyPatch, undisturbed: Run
) -> None:
    with monkeypatch.context() as patch:
        Failing(patch, torch.OutOfMemoryError("CUDA out of memory."))
        with pytest.raises(MachineError, match="Out of memory on cpu with one text at a time"):
            run_suite(small_suite(home, rows=4), model=model, out=Path("mine"))
    assert world.rows == [4, 2, 1]
    assert verify(Path("mine")) == []
    assert_same(finished(run_suite(small_suite(home), model=model, out=Path("mine"))), undisturbed)


@pytest.mark.parametrize("where", [(prepare, "extract"), (task, "capture_internals")])
def test_out_of_memory_elsewhere_is_the_machine_s(
    home: Path,
    model: Model,
    monkeypatch: pytest.MonkeyPatch,
    undisturbed: Run,
    where: tuple[Any, str],
) -> None:
    def failing(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with monkeypatch.context() as patch:
        patch.setattr(*where, failing)
        with pytest.raises(MachineError, match="Out of memory"):
            run_suite(small_suite(home), model=model)
    assert_same(finished(run_suite(small_suite(home), model=model)), undisturbed)


@pytest.mark.parametrize("at", [1, 2, 5])
def test_a_full_disk_is_the_machine_s_and_the_run_goes_on(
    home: Path, model: Model, monkeypatch: pytest.MonkeyPatch, undisturbed: Run, at: int
) -> None:
    publish, calls = writing.publish, 0

    def full(paths: Sequence[Path]) -> None:
        nonlocal calls
        calls += 1
        if calls >= at:
            raise OSError(errno.ENOSPC, "No space left on device")
        publish(paths)

    with monkeypatch.context() as patch:
        patch.setattr(writing, "publish", full)
        with pytest.raises(MachineError, match="room on the disk") as caught:
            run_suite(small_suite(home), model=model, out=Path("mine"))
    assert verify(Path("mine")) == []
    assert taps(model) == 0, f"though the error is still at hand: {caught.value}"
    assert_same(finished(run_suite(small_suite(home), model=model, out=Path("mine"))), undisturbed)


# --- Ctrl-C --------------------------------------------------------------------------------------


def interrupting(phase: str, at: int) -> Callable[[Tick], None]:
    """A progress callback: Ctrl-C at the phase's tick number `at`."""
    seen = 0

    def progress(tick: Tick) -> None:
        nonlocal seen
        seen += tick.phase == phase
        if tick.phase == phase and seen == at:
            raise KeyboardInterrupt

    return progress


@pytest.mark.parametrize("phase", ["load", "directions"])
def test_interrupted_before_anything_is_written(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: Run, phase: str
) -> None:
    monkeypatch.setenv("TRAITSCOPE_HOME", str(tmp_path / "empty"))
    with pytest.raises((KeyboardInterrupt, Interrupted)):
        run_suite(small_suite(home), progress=interrupting(phase, 1))
    assert not Path("runs").exists()
    assert_same(finished(run_suite(small_suite(home))), undisturbed)


@pytest.mark.parametrize(
    ("phase", "at"),
    [*(("generate", n) for n in (1, 2, 6, 8, 11, 13)), ("internals", 1), ("internals", 2)],
)
def test_interrupted_at_a_tick(
    home: Path, model: Model, world: World, undisturbed: Run, phase: str, at: int
) -> None:
    sets = {"asks": {"texts": list(TEXTS)}, "inside": {**inside(1), "texts": list(TEXTS[1:3])}}
    suite = small_suite(home, prompts=sets)
    with pytest.raises(Interrupted) as caught:
        run_suite(suite, model=model, progress=interrupting(phase, at))
    (path,) = Path("runs").iterdir()
    assert verify(path) == []
    run = Run.open(path)
    kept = [row.capture for row in run.captures()]
    assert f"{len(kept)} of 6 captures" in str(caught.value)
    assert (len(kept) >= 4) == (phase == "internals")
    assert run.events()[-1]["kind"] == "interrupted"
    assert taps(model) == 0
    there = {row.generation for row in run.generations()}
    world.clear()
    again = run_suite(suite, model=model)
    assert again.resumed
    assert there.isdisjoint(world.made), "what was kept is not made again"
    assert len(there) + len(world.made) == len(TEXTS)
    whole = finished(again)
    for text in TEXTS:
        np.testing.assert_array_equal(
            whole.text(generation(text)).tokens.token_id,
            undisturbed.text(generation(text)).tokens.token_id,
        )
        assert not (
            whole.text(generation(text)).score - undisturbed.text(generation(text)).score
            > TOLERANCE * undisturbed.text(generation(text)).norm[:, :, None]
        ).any()
    for text in TEXTS[1:3]:
        assert whole.internal_blocks(generation(text)) == [1]
    assert run_suite(suite, model=model).already_done


def test_what_waits_to_be_committed_is_kept(home: Path, model: Model, world: World) -> None:
    """With many rows texts are committed a few at a time; here three, and one is left waiting."""
    suite = small_suite(home, rows=12)
    with pytest.raises(Interrupted):
        run_suite(suite, model=model, progress=interrupting("generate", 8))
    (path,) = Path("runs").iterdir()
    assert len(Run.open(path).generations()) == len(TEXTS)
    world.clear()
    finished(run_suite(suite, model=model, fresh=True))
    assert len(world.texts) == 1, "nor is it made twice where nothing happens"


MOMENTS = ["before", "staging", "publishing", "appending", "noting", "after"]


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("at", [1, 3, 5])
def test_interrupted_during_a_commit(
    home: Path,
    model: Model,
    monkeypatch: pytest.MonkeyPatch,
    undisturbed: Run,
    moment: str,
    at: int,
) -> None:
    with monkeypatch.context() as patch:
        once = _interrupt(patch, moment, at)
        with pytest.raises((Interrupted, KeyboardInterrupt)) as caught:
            run_suite(small_suite(home), model=model, out=Path("mine"))
        assert once["calls"] >= at
    assert verify(Path("mine")) == []
    assert taps(model) == 0, f"though the error is still at hand: {caught.value}"
    again = run_suite(small_suite(home), model=model, out=Path("mine"))
    assert_same(finished(again), undisturbed)


def _interrupt(patch: pytest.MonkeyPatch, moment: str, at: int) -> dict[str, int]:
    """Ctrl-C once, around or in the commit number `at`."""
    seen = {"calls": 0}
    place: Any = RunWriter if moment in ("before", "after") else writing
    names = {
        "staging": "stage",
        "publishing": "publish",
        "appending": "seal_part",
        "noting": "_rows",  # the part is in the manifest, and the writer has not noted it yet
    }
    name = names.get(moment, "commit")
    real = getattr(place, name)

    def counted(*args: Any, **others: Any) -> Any:
        seen["calls"] += 1
        now = seen["calls"] == at
        if now and moment != "after":
            raise KeyboardInterrupt
        result = real(*args, **others)
        if now:
            raise KeyboardInterrupt
        return result

    patch.setattr(place, name, counted)
    return seen


def test_interrupted_again_and_again(home: Path, model: Model, undisturbed: Run) -> None:
    """Every call is stopped at its third step; each of them gets a little further."""
    suite = small_suite(home)
    for _ in range(40):
        try:
            outcome = run_suite(suite, model=model, progress=interrupting("generate", 8))
        except Interrupted:
            continue
        assert_same(finished(outcome), undisturbed)
        return
    pytest.fail("it never came to an end")


# --- two at once ---------------------------------------------------------------------------------


def test_a_run_that_another_process_finishes_meanwhile(
    home: Path, model: Model, undisturbed: Run
) -> None:
    suite = small_suite(home)
    with pytest.raises(Interrupted):
        run_suite(suite, model=model, progress=interrupting("generate", 8))

    def other(tick: Tick) -> None:
        if tick.phase == "load":
            run_suite(suite, model=model)

    outcome = run_suite(suite, model=model, progress=other)
    assert_same(finished(outcome), undisturbed)
    assert outcome.stats["new_tokens"] == 0


def test_a_run_that_another_process_makes_meanwhile(home: Path, model: Model) -> None:
    suite = small_suite(home)

    def other(tick: Tick) -> None:
        if tick.phase == "load":
            run_suite(suite, model=model)

    with pytest.raises(RunError, match="is a run already"):
        run_suite(suite, model=model, progress=other)
    assert run_suite(suite, model=model).already_done
