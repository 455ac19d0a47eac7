"""Texts that exist, end to end on a tiny model: a run of their own, or more of a run's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.runner.small import CONTEXT, TOLERANCE, save_model, small_suite
from tests.tiny import tokenizer
from traitscope import fill as filling
from traitscope import task
from traitscope.conversations import conversation_from
from traitscope.core import Keep, Prompt
from traitscope.errors import InputError, Interrupted, PromptError, RunError
from traitscope.models import Model, given_ids, load
from traitscope.replays import replay, replay_run, replay_suite
from traitscope.report import night, summarise
from traitscope.runner import Tick, run_suite
from traitscope.runs import Run, RunWriter, compare, verify

SITES = ("0.post", "1.mid")


@pytest.fixture(scope="module")
def model(home: Path) -> Model:
    return load(str(home / "model"), device="cpu")


@pytest.fixture(scope="module")
def traits(home: Path) -> dict[str, str]:
    return {name: f"{home}/{name}" for name in ("hedged", "loud")}


def written(home: Path, place: Path, **changes: Any) -> Run:
    """A run with one trait; its texts are what is read again."""
    suite = small_suite(home, traits=["./hedged"], **changes)
    return Run.open(run_suite(suite, out=place).path)


@pytest.fixture(scope="module")
def captured(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return written(home, tmp_path_factory.mktemp("captured") / "run", keep={"sites": list(SITES)})


def as_conversations(run: Run) -> list[dict[str, Any]]:
    rows = run.generations()
    ids = [run.text(row.generation).tokens.token_id.tolist() for row in rows]
    return [{"token_ids": i, "n_prompt": r.n_prompt} for i, r in zip(ids, rows, strict=True)]


def whole(run: Run) -> Run:
    assert (verify(run.path), run.state) == ([], "complete")
    return run


CHATS: list[dict[str, Any]] = [
    {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello!"},
            {"role": "user", "content": "More"},
            {"role": "assistant", "content": "No."},
        ],
        "id": "long",
    },
    {"prompt": "Tea?", "response": "Yes."},
    {"messages": [{"role": "user", "content": "Tea?"}]},
]


# --- a run of their own --------------------------------------------------------------------------


def test_replaying_a_capture_gives_its_numbers(
    captured: Run, model: Model, traits: dict[str, str], tmp_path: Path
) -> None:
    again = whole(
        replay(model, as_conversations(captured), [traits["hedged"]], keep=SITES, out=tmp_path)
    )
    sides = compare(captured, again)
    assert len(sides.pairs) == len(captured.generations()) == len(again.generations())
    for name, other in sides.pairs:
        a, b = captured.text(name), again.text(other)
        np.testing.assert_array_equal(a.tokens.part, b.tokens.part)
        assert (np.abs(a.score - b.score).max(axis=-1) / a.norm).max() <= TOLERANCE
        np.testing.assert_allclose(a.logprob, b.logprob, atol=1e-4)
        for site in SITES:
            h, i = captured.states(name, site), [str(s) for s in captured.sites].index(site)
            apart = np.linalg.norm(h - again.states(other, site), axis=-1) / a.norm[:, i]
            assert apart.max() <= TOLERANCE
            np.testing.assert_allclose(np.linalg.norm(h, axis=-1), a.norm[:, i], rtol=TOLERANCE)
    assert {row.finish for row in again.generations()} == {"given"}


def test_turns_roles_and_the_boundary(model: Model, traits: dict[str, str], tmp_path: Path) -> None:
    run = whole(replay(model, CHATS, [traits["hedged"]], out=tmp_path / "run"))
    long, short, asked = run.generations()
    table = run.text(long.generation).tokens
    said = {
        (role, turn): "".join(p for p, r, t in zip(table.piece, table.role, table.turn, strict=True)
                              if (r, t) == (role, turn)).replace("Ġ", " ")
        for role, turn in zip(table.role.tolist(), table.turn.tolist(), strict=True)
        if role != "template"
    }  # fmt: skip
    assert said == {
        ("system", 0): "Be brief.",
        ("user", 1): "Hi",
        ("assistant", 2): "Hello!",
        ("user", 3): "More",
        ("assistant", 4): "No.",
    }
    assert (long.response, long.prompt.label, short.response, asked.response) == (
        "No.", "long", "Yes.", "",
    )  # fmt: skip
    # the prompt's ids are those of the same chat when it is asked, the end token is the answer's
    rendered = model.render(Prompt.of("Tea?")).token_ids
    ids = run.text(short.generation).tokens.token_id.tolist()
    assert (tuple(ids[: short.n_prompt]), ids[-1]) == (rendered, tokenizer().eos_token_id)
    assert asked.n_tokens == asked.n_prompt == short.n_prompt
    assert asked.generation.prompt_id == model.render(Prompt.of("Tea?")).prompt_id


def test_the_same_call_does_nothing_and_new_lines_are_added(
    home: Path, traits: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    real = task.score_texts

    def reading(model: Model, texts: Any, *others: Any, **options: Any) -> Any:
        read.append(len(texts))
        return real(model, texts, *others, **options)

    monkeypatch.setattr(task, "score_texts", reading)

    def call() -> Any:
        suite = replay_suite(str(home / "model"), "chats.jsonl", [traits["hedged"]], ["middle"])
        return run_suite(suite)

    file = Path("chats.jsonl")
    file.write_text("".join(json.dumps(chat) + "\n" for chat in CHATS[:2]))
    first = call()
    assert whole(Run.open(first.path)).internal_blocks(
        Run.open(first.path).generations()[0].generation
    )
    assert first.path.name.startswith("replay-")
    assert first.stats["new_tokens"] == 0
    again = call()
    assert (again.already_done, again.stats["model_loads"], read) == (True, 0, [2])
    file.write_text("".join(json.dumps(chat) + "\n" for chat in CHATS))
    more = call()
    assert (more.path, read) == (first.path, [2, 1])
    assert len(whole(Run.open(first.path)).captures()) == 2 * len(CHATS)


def test_too_long_and_foreign_ids_are_recorded_failures(
    model: Model, traits: dict[str, str], tmp_path: Path
) -> None:
    chats = [
        {"token_ids": [5] * (CONTEXT + 1)},
        {"token_ids": [1, 300]},
        {"token_ids": [5] * CONTEXT},
    ]
    run = replay(model, chats, [traits["hedged"]], out=tmp_path / "run")
    long, foreign, fine = run.generations()
    assert (long.status, foreign.status, fine.status) == ("failed", "failed", "done")
    assert f"has {CONTEXT + 1} tokens" in long.error
    assert "below 300" in foreign.error
    assert night(summarise(run))
    assert (verify(run.path), run.state) == ([], "complete")


def test_without_logprobs_there_are_none(
    model: Model, traits: dict[str, str], tmp_path: Path
) -> None:
    run = replay(model, CHATS[:1], [traits["hedged"]], logprobs=False, out=tmp_path / "run")
    assert np.isnan(run.text(whole(run).generations()[0].generation).logprob).all()
    with pytest.raises(RunError, match="logprobs False instead of True"):
        replay(model, CHATS[:1], [traits["hedged"]], out=tmp_path / "run")


def test_ids_beside_turns_must_agree(model: Model, traits: dict[str, str], tmp_path: Path) -> None:
    prompt = list(model.render(Prompt.of("Tea?")).token_ids)
    answer = tokenizer()("Yes.", add_special_tokens=False)["input_ids"]
    good = {"prompt": "Tea?", "response": "Yes.", "token_ids": [*prompt, *answer]}
    run = whole(replay(model, [good], [traits["hedged"]], out=tmp_path / "run"))
    assert run.generations()[0].n_prompt == len(prompt)
    for wrong, words in (
        ({**good, "prompt": "Tee?"}, "entry 1: expected 'token_ids' to begin with"),
        ({**good, "response": "No."}, "to say what the answer says"),
    ):
        with pytest.raises(PromptError, match=words):
            replay(model, [wrong], [traits["hedged"]], out=tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_without_a_template_the_answer_follows_at_once() -> None:
    plain = tokenizer(template=False)
    conversation = conversation_from({"prompt": "The sky is", "response": " blue."}, "here")
    rendered, ids = given_ids(plain, conversation)
    assert plain.decode(ids) == "The sky is blue."
    assert plain.decode(ids[len(rendered.token_ids) :]) == " blue."


def test_what_a_template_writes_after_the_end_is_no_answer() -> None:
    chatty = tokenizer().__class__(tokenizer_object=tokenizer().backend_tokenizer)
    chatty.chat_template = tokenizer().chat_template.replace("{{ eos_token }}", "{{ eos_token }}\n")
    chatty.add_special_tokens({"eos_token": "<eos>", "bos_token": "<bos>"})
    conversation = conversation_from({"prompt": "Tea?", "response": "Yes. "}, "here")
    rendered, ids = given_ids(chatty, conversation)
    assert chatty.decode(ids[len(rendered.token_ids) :]) == "Yes.<eos>"


# --- more of a run's own texts -------------------------------------------------------------------


def test_a_further_trait_of_a_run(
    home: Path, model: Model, traits: dict[str, str], tmp_path: Path
) -> None:
    run = written(home, tmp_path / "run")
    before = {row.generation: run.text(row.generation) for row in run.generations()}
    outcome = replay_run(run.path, [traits["loud"]])
    assert (outcome.stats["replayed"], outcome.stats["model_loads"]) == (len(before), 1)
    more = whole(Run.open(run.path))
    assert more.traits == ("hedged", "loud")
    both = small_suite(home, traits=["./hedged", "./loud"])
    at_once = Run.open(run_suite(both, out=tmp_path / "both").path)
    for name, text in before.items():
        np.testing.assert_array_equal(more.text(name).score[:, :, :1], text.score)
        apart = np.abs(more.text(name).score - at_once.text(name).score).max(axis=-1) / text.norm
        assert apart.max() <= TOLERANCE
    again = replay_run(run.path, [traits["loud"]], model=model)
    assert (again.already_done, again.stats["model_loads"]) == (True, 0)
    # the suite that made it still finds it finished, and new texts get all of its traits
    assert run_suite(small_suite(home, traits=["./hedged"]), out=run.path).already_done
    wider = {"asks": {"texts": ["Is it so?", "And that?"]}}
    run_suite(small_suite(home, traits=["./hedged"], prompts=wider), out=run.path)
    assert whole(Run.open(run.path)).unscored() == {}


def test_killed_at_every_commit_it_goes_on(
    home: Path,
    model: Model,
    traits: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = written(home, tmp_path / "run")
    monkeypatch.setattr(filling, "AT_ONCE", 1)
    real_commit, real_add = RunWriter.commit, RunWriter.add_traits
    left = 0

    def dying(real: Any) -> Any:
        def operation(self: RunWriter, *given: Any, **more: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise SystemExit(99)  # no handler of ours catches it
            return real(self, *given, **more)

        return operation

    monkeypatch.setattr(RunWriter, "commit", dying(real_commit))
    monkeypatch.setattr(RunWriter, "add_traits", dying(real_add))
    seen = []
    for _ in range(20):
        left = 1
        try:
            replay_run(run.path, [traits["loud"]], model=model, keep=["0.post"])
        except SystemExit:
            now = Run.open(run.path)
            assert [p for p in verify(run.path) if p.kind == "damaged"] == []
            assert night(summarise(now)), "the report says what there is"
            seen.append(len(now.unscored()) if "loud" in now.traits else -1)
            continue
        break
    # announced, then one text after the other
    assert seen == [4, 3, 2, 1]
    done = whole(Run.open(run.path))
    assert done.unkept(Keep(("0.post",))) == {}


def test_ctrl_c_keeps_what_was_read(
    home: Path,
    model: Model,
    traits: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = written(home, tmp_path / "run")
    texts = 0

    def stop(tick: Tick) -> None:
        nonlocal texts
        texts += tick.phase == "replay" and tick.done > 0
        if texts == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(filling, "AT_ONCE", 1)
    with pytest.raises(Interrupted, match="goes on"):
        replay_run(run.path, [traits["loud"]], model=model, progress=stop)
    assert len(Run.open(run.path).unscored()) == 2
    assert Run.open(run.path).events()[-1]["kind"] == "interrupted"
    assert replay_run(run.path, [traits["loud"]], model=model).stats["replayed"] == 2
    whole(Run.open(run.path))


def test_ctrl_c_right_after_a_commit_commits_nothing_twice(
    home: Path,
    model: Model,
    traits: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, real = written(home, tmp_path / "run"), RunWriter._commit

    def stopped(self: RunWriter, *given: Any) -> Any:
        real(self, *given)
        raise KeyboardInterrupt  # the line is there, the writer does not know it

    with monkeypatch.context() as patch:
        patch.setattr(RunWriter, "_commit", stopped)
        with pytest.raises(Interrupted):
            replay_run(run.path, [traits["loud"]], model=model)
    assert verify(run.path) == []
    assert replay_run(run.path, [traits["loud"]], model=model).already_done
    whole(Run.open(run.path))


def test_half_the_memory_is_enough(
    home: Path,
    model: Model,
    traits: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a run's texts, and of conversations: less goes at once, and nothing is lost."""
    run, real = written(home, tmp_path / "run"), filling.score_texts
    tried: list[int] = []

    def small(*given: Any, batch_tokens: int, **options: Any) -> Any:
        tried.append(batch_tokens)
        if batch_tokens > 600:
            raise torch.OutOfMemoryError
        return real(*given, batch_tokens=batch_tokens, **options)

    monkeypatch.setattr(filling, "score_texts", small)
    monkeypatch.setattr(task, "score_texts", small)
    replay_run(run.path, [traits["loud"]], model=model)
    assert (len(tried), max(tried[1:]) <= 600) == (2, True)
    whole(Run.open(run.path))
    whole(replay(model, CHATS, [traits["hedged"]], out=tmp_path / "chats"))


def test_after_an_oom_no_fewer_than_one_text_is_read(
    home: Path,
    model: Model,
    traits: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A forward's tokens, halved to nothing, would mean as many as ever."""
    real, tried = task.score_texts, list[int]()

    def small(*given: Any, batch_tokens: int, **options: Any) -> Any:
        tried.append(batch_tokens)
        if len(tried) == 1:
            raise torch.OutOfMemoryError
        return real(*given, batch_tokens=batch_tokens, **options)

    monkeypatch.setattr(task, "forward_tokens", lambda model: 1)
    monkeypatch.setattr(task, "score_texts", small)
    whole(replay(model, CHATS, [traits["hedged"]], out=tmp_path / "chats"))
    assert tried == [1, 1]


def test_another_model_is_refused(
    home: Path, captured: Run, traits: dict[str, str], tmp_path: Path
) -> None:
    save_model(tmp_path / "other", intermediate_size=48)
    with pytest.raises(RunError, match="Expected the model that made"):
        replay_run(captured.path, [traits["loud"]], model=str(tmp_path / "other"))
    with pytest.raises(RunError, match="Expected float32, in which"):
        replay_run(captured.path, [traits["loud"]], dtype="bfloat16")
    assert Run.open(captured.path).traits == ("hedged",)


def test_keep_asked_for_later_fills_in(home: Path, captured: Run, tmp_path: Path) -> None:
    run = written(home, tmp_path / "run")
    key = run.header.key
    keep = {"sites": list(SITES), "tokens": "last"}
    outcome = run_suite(small_suite(home, traits=["./hedged"], keep=keep), out=run.path)
    assert (outcome.stats["made"], outcome.stats["new_tokens"]) == (0, 0)
    later = whole(Run.open(run.path))
    assert later.header.key == key
    for row in later.generations():
        at = later.state_positions(row.generation, SITES[0])
        assert at.tolist() == [row.n_prompt - 1, row.n_tokens - 1]
        whole_text = captured.states(row.generation, SITES[0])
        apart = np.linalg.norm(later.states(row.generation, SITES[0]) - whole_text[at], axis=-1)
        assert (apart / np.linalg.norm(whole_text[at], axis=-1)).max() <= TOLERANCE
    again = run_suite(small_suite(home, traits=["./hedged"], keep=keep), out=run.path)
    assert again.already_done


def test_a_site_that_the_model_has_not(
    model: Model, traits: dict[str, str], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"one of this model's sites \(embed \.\.\. 1\.post\)"):
        replay(model, CHATS, [traits["hedged"]], keep=["7.post"], out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


# --- two runs ------------------------------------------------------------------------------------


def test_two_models_on_the_same_texts(
    home: Path, model: Model, traits: dict[str, str], tmp_path: Path
) -> None:
    save_model(tmp_path / "deeper", num_hidden_layers=3)
    a = replay(model, CHATS, [traits["hedged"]], out=tmp_path / "a")
    b = replay(
        str(tmp_path / "deeper"), CHATS[:2], [traits["loud"], traits["hedged"]], out=tmp_path / "b"
    )
    sides = compare(a, b)
    assert [x == y for x, y in sides.pairs] == [True, True], "one name for one text"
    assert (sides.traits, len(sides.sites)) == (("hedged",), len(a.sites))
    name = sides.pairs[0][0]
    shift = sides.difference(name)
    assert (shift.dims, shift.sizes["trait"]) == (("token", "site", "trait"), 1)
    site = sides.sites[-1]
    expected = b.scores(name).sel(site=site, trait="hedged") - a.scores(name).sel(
        site=site, trait="hedged"
    )
    np.testing.assert_array_equal(shift.sel(site=site, trait="hedged").values, expected.values)
    notes = "\n".join(sides.notes)
    for words in (
        "1 of 3 texts",
        "traits loud",
        "sites 2.mid, 2.post",
        "differ in depth",
        "as_='z'",
    ):
        assert words in notes
    with pytest.raises(RunError, match="a text that both runs have"):
        sides.difference("0123456789abcdef-0")


def test_other_vocabularies_are_refused(captured: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Run.open(captured.path)
    real = Run.text

    def text(self: Run, generation: Any) -> Any:
        from dataclasses import replace

        made = real(self, generation)
        if self is not other:
            return made
        return replace(made, tokens=replace(made.tokens, piece=("?",) * len(made.tokens.piece)))

    monkeypatch.setattr(Run, "text", text)
    with pytest.raises(RunError, match="Expected runs of one vocabulary"):
        compare(captured, other)
