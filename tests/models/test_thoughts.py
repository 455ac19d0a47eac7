"""Models that think: what is thought and what is said, whatever the marks and their tokens.

Templates are in the shapes of `thinkers`.  A thought has its own role in an answer that is made,
in one that is read, and in the history of a chat; the marks around it are template.
"""

from __future__ import annotations

import re
from itertools import product
from typing import Any

import numpy as np
import pytest

from tests.models.thinkers import SPELT, THINKERS, thinker
from tests.tiny import tokenizer
from traitscope.conversations import conversation_from
from traitscope.core import Message, Prompt, TokenTable, Window
from traitscope.errors import ModelError, PromptError
from traitscope.models import Speller, given_ids, render, template_arguments
from traitscope.models.given import frame_of
from traitscope.models.thoughts import opened_by, thoughts_of

ALL = [pytest.param(name, spelt, id=f"{name}, {spelt}") for name, spelt in product(THINKERS, SPELT)]
THOUGHT = "It is late,\n\nso: no 🦊."
ANSWER = "Say <think> no, naïvely."
CHAT = [
    {"role": "user", "content": "Is <think> a word?</think>"},
    {"role": "assistant", "content": "Hm.", "reasoning_content": "An older thought"},
    {"role": "user", "content": "So?"},
]


def read(made: Any, turns: list[dict[str, str]], told: dict[str, Any] | None = None) -> TokenTable:
    """The tokens of a conversation that exists."""
    conversation = conversation_from({"messages": turns}, "chats.jsonl:1")
    rendered, ids = given_ids(made, conversation, told or {})
    table = Speller(made).table(ids, rendered)
    assert table.token_id.tolist() == list(ids)
    assert table.n_prompt == len(rendered.token_ids)
    return table


def written(made: Any, response: str, told: dict[str, Any] | None = None) -> TokenTable:
    """The tokens of an answer that a model made."""
    rendered = render(made, Prompt.of("Why?"), told or {})
    new = made(response, add_special_tokens=False)["input_ids"]
    return Speller(made).table([*rendered.token_ids, *new], rendered)


def plain(text: str, made: Any) -> str:
    """A text as its role holds it: a special token is template wherever it stands."""
    special = "|".join(re.escape(made.decode(i)) for i in Speller(made).special)
    return re.sub(special, "", text)


def said(table: TokenTable, role: str, part: str = "response") -> str:
    chosen = np.flatnonzero((table.role == role) & (table.part == part))
    return "".join(table.text[table.start[t] : table.end[t]] for t in chosen)


# --- texts that exist ----------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "spelt"), ALL)
def test_a_thought_beside_an_answer_has_its_own_role(name: str, spelt: str) -> None:
    made = thinker(name, spelt)
    last = {"role": "assistant", "content": ANSWER, "reasoning_content": THOUGHT}
    table = read(made, [*CHAT, last])
    assert (said(table, "thinking"), said(table, "assistant")) == (THOUGHT, plain(ANSWER, made))
    asked = plain("Is <think> a word?</think>So?", made)
    assert said(table, "user", "prompt") == asked, "a user may say it"
    assert said(table, "assistant", "prompt") == "Hm."
    kept = THINKERS[name].keeps
    assert said(table, "thinking", "prompt") == ("An older thought" if kept else "")
    assert Speller(made).answer(table) == plain(ANSWER, made)


@pytest.mark.parametrize(("name", "spelt"), ALL)
def test_an_answer_without_a_thought_is_not_thought(name: str, spelt: str) -> None:
    """Also where the prompt has opened one: it is closed, empty, before the answer."""
    made = thinker(name, spelt)
    table = read(made, [*CHAT, {"role": "assistant", "content": ANSWER}])
    assert (said(table, "thinking"), said(table, "assistant")) == ("", plain(ANSWER, made))
    opened = render(made, Prompt.of("Why?")).inside
    assert (opened is not None) is THINKERS[name].opens
    if opened is not None:
        assert "</think>" in table.text[table.end[table.n_prompt - 1] :]


@pytest.mark.parametrize("name", ["switched", "opened", "framed"])
def test_a_thought_that_is_part_of_the_text_is_told_apart(name: str) -> None:
    """As many data sets have it, in an answer and in a history."""
    made = thinker(name)
    aloud = f"<think>\n{THOUGHT}\n</think>\n\n{ANSWER}"
    table = read(
        made, [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": aloud}]
    )
    assert (said(table, "thinking"), said(table, "assistant")) == (THOUGHT, ANSWER)
    history = [CHAT[0], {"role": "assistant", "content": aloud}, CHAT[2]]
    table = read(made, [*history, {"role": "assistant", "content": "Yes."}])
    assert said(table, "assistant", "prompt").strip() == ANSWER
    assert said(table, "assistant") == "Yes."
    if THINKERS[name].opens:  # a model that goes on within the prompt's thought
        rest = f"{THOUGHT}\n</think>\n\n{ANSWER}"
        table = read(made, [CHAT[0], {"role": "assistant", "content": rest}])
        assert (said(table, "thinking"), said(table, "assistant")) == (THOUGHT, ANSWER)


def test_thoughts_under_their_other_names() -> None:
    made = thinker("switched")
    ask = {"role": "user", "content": "Why?"}
    for more in (
        {"content": "So.", "thinking": "T"},
        {"content": "So.", "reasoning": "T"},
        {"content": "So.", "reasoning": "T", "reasoning_content": "T"},
        {"content": [{"type": "thinking", "thinking": "T"}, {"type": "text", "text": "So."}]},
        {
            "content": [
                {"type": "thinking", "thinking": [{"type": "text", "text": "T"}]},
                {"type": "text", "text": "So."},
            ]
        },
        {"content": [{"type": "reasoning", "text": "T"}, {"type": "text", "text": "So."}]},
    ):
        table = read(made, [ask, {"role": "assistant", **more}])  # type: ignore[dict-item]  # wrong on purpose
        assert (said(table, "thinking"), said(table, "assistant")) == ("T", "So.")
    both = {"role": "assistant", "content": "So.", "reasoning": "T", "thinking": "U"}
    with pytest.raises(PromptError, match="expected one thought, got several"):
        read(made, [ask, both])


def test_a_model_that_does_not_think_has_no_place_for_a_thought() -> None:
    turns = [{"role": "user", "content": "Why?"}]
    answer = {"role": "assistant", "content": "So.", "reasoning_content": "Hm"}
    with pytest.raises(PromptError, match="no place for thoughts"):
        read(tokenizer(), [*turns, answer])
    plain = {"role": "assistant", "content": "<think>Hm</think>So."}
    table = read(tokenizer(), [*turns, plain])
    assert said(table, "assistant") == "<think>Hm</think>So.", "there the marks are words"


def test_token_ids_say_what_the_turns_say_thoughts_and_all() -> None:
    made = thinker("switched", "special tokens")
    turns = [CHAT[0], {"role": "assistant", "content": "So.", "reasoning_content": "Hm"}]
    ids = read(made, turns).token_id.tolist()
    for answer in (turns[1], {"role": "assistant", "content": "So."}):
        record = {"messages": [CHAT[0], answer], "token_ids": ids}
        rendered, found = given_ids(made, conversation_from(record, "x"))
        assert list(found) == ids
        assert said(Speller(made).table(found, rendered), "thinking") == "Hm"
    record = {"messages": [CHAT[0], {"role": "assistant", "content": "No."}], "token_ids": ids}
    with pytest.raises(PromptError, match="expected 'token_ids' to say what the answer says"):
        given_ids(made, conversation_from(record, "x"))
    alone = {"token_ids": read(thinker("opened"), turns).token_id.tolist()}
    n_prompt = len(render(thinker("opened"), Prompt.of(CHAT[0]["content"])).token_ids)
    opened = conversation_from({**alone, "n_prompt": n_prompt}, "x")
    rendered, found = given_ids(thinker("opened"), opened)
    table = Speller(thinker("opened")).table(found, rendered)
    assert (said(table, "thinking"), said(table, "assistant")) == ("Hm", "So.")


# --- texts that are made -------------------------------------------------------------------------


@pytest.mark.parametrize("spelt", SPELT)
def test_an_answer_that_is_made(spelt: str) -> None:
    made = thinker("switched", spelt)
    spare = plain("<think>", made)
    for response, thought, answer in (
        ("<think>\nHm 🦊.\n</think>\n\nSo.<|im_end|>", "Hm 🦊.", "So."),
        ("<think>\nHm, and", "Hm, and", ""),  # it ended in the thought
        ("<think>\n\n</think>\n\nSo.", "", "So."),
        ("So <think> is\n a word", "", f"So {spare} is\n a word"),
        ("</think>So.", "", "So."),
        ("<think>Hm</think> \n <think>Oh</think> So.", "HmOh", "So."),
        ("<think>", "", ""),
        ("<|im_end|>", "", ""),
    ):
        table = written(made, response)
        assert (said(table, "thinking"), said(table, "assistant")) == (thought, answer), response


@pytest.mark.parametrize("spelt", SPELT)
def test_a_thought_that_the_prompt_has_opened(spelt: str) -> None:
    made = thinker("opened", spelt)
    table = written(made, "Hm.\n</think>\n\nSo.<eos>")
    assert (said(table, "thinking"), said(table, "assistant")) == ("Hm.", "So.")
    table = written(made, "Hm and")
    assert (said(table, "thinking"), said(table, "assistant")) == ("Hm and", "")
    assert (table.role[: table.n_prompt] != "thinking").all()
    asked = thinker("closed", spelt)
    assert said(written(asked, "So.", {"thinking": True}), "thinking") == "So."
    assert said(written(asked, "So.", {"thinking": False}), "assistant") == "So."


def test_channels() -> None:
    made = thinker("channels")
    call = "<|start|>assistant to=functions.f<|channel|>commentary json<|message|>{}<|call|>"
    table = written(
        made,
        "<|channel|>analysis<|message|>First.<|end|>"
        f"{call}<|start|>assistant<|channel|>analysis<|message|>Then.<|end|>"
        "<|start|>assistant<|channel|>final<|message|>So.<|return|>",
    )
    assert said(table, "thinking") == "First.Then."
    assert said(table, "assistant") == "{}So."
    assert Speller(made).answer(table) == "{}So."
    assert said(written(made, "<|channel|>final<|message|>So."), "assistant") == "So."


# --- windows -------------------------------------------------------------------------------------


def test_a_response_is_the_answer_and_thinking_what_came_before_it() -> None:
    made = thinker("switched")

    def words(table: TokenTable, window: str) -> str:
        chosen = np.flatnonzero(Window.parse(window).pick(table))
        return "".join(table.text[table.start[t] : table.end[t]] for t in chosen)

    table = written(made, "<think>\nHm.\n</think>\n\nSo!<|im_end|>")
    assert words(table, "response[:]") == "So!"
    assert words(table, "response[0]") == "S"
    assert words(table, "response[-1]") == "<|im_end|>", "an index picks whatever is there"
    assert words(table, "response[1:]") == "o!"
    assert (words(table, "thinking[:]"), words(table, "thinking[-1]")) == ("Hm.", ".")
    assert words(table, "prompt[:]") == "Why?"
    unfinished = written(made, "<think>\nHm")
    assert words(unfinished, "response[:]") == words(unfinished, "response[0]") == ""
    assert words(unfinished, "thinking[:]") == "Hm"
    plain = written(made, "So")
    assert (words(plain, "response[:]"), words(plain, "thinking[:]")) == ("So", "")


# --- what the template is told -------------------------------------------------------------------


@pytest.mark.parametrize("name", THINKERS)
def test_the_switch_is_found_by_its_name(name: str) -> None:
    made, shape = thinker(name), THINKERS[name]
    for wanted in (True, False):
        if shape.switch is None:
            with pytest.raises(ModelError, match="has no switch for thinking"):
                template_arguments(made, {}, wanted, "m")
            continue
        told = template_arguments(made, {}, wanted, "m")
        assert told == {shape.switch: wanted}
        off = render(made, Prompt.of("Why?"), {shape.switch: False})
        assert (render(made, Prompt.of("Why?"), told) == off) is not wanted
        assert off.inside is None
    assert template_arguments(made, shape.told, None, "m") == shape.told


def test_what_a_template_never_reads_is_said() -> None:
    made = thinker("switched")
    with pytest.raises(ModelError, match=r"never reads 'enable_thinkin'.*Did you mean 'enable_th"):
        template_arguments(made, {"enable_thinkin": False}, None, "m")
    with pytest.raises(ModelError, match="never reads 'loop'"):
        template_arguments(made, {"loop": 1}, None, "m")
    with pytest.raises(ModelError, match="'messages' is set by traitscope itself"):
        template_arguments(made, {"messages": []}, None, "m")
    with pytest.raises(ModelError, match="to agree, got True and False"):
        template_arguments(made, {"enable_thinking": False}, True, "m")
    with pytest.raises(ModelError, match="has none: its prompts are plain text"):
        template_arguments(tokenizer(template=False), {}, False, "m")
    with pytest.raises(ModelError, match="It reads nothing beside the chat: leave thinking"):
        template_arguments(tokenizer(), {}, True, "m")
    broken = thinker("switched")
    broken.chat_template = "{% for m in messages %}\n{% if %}{% endfor %}"
    with pytest.raises(ModelError, match="a mistake in line 2"):
        template_arguments(broken, {"a": 1}, None, "m")


def test_a_value_that_the_template_cannot_take_is_a_sentence() -> None:
    made = thinker("channels")
    with pytest.raises(PromptError, match=r"refuses it .*Check also {'reasoning_effort': 3}"):
        render(made, Prompt.of("Why?"), {"reasoning_effort": 3})
    assert "high" in render(made, Prompt.of("Why?"), {"reasoning_effort": "high"}).text


# --- what stands before an answer ----------------------------------------------------------------


@pytest.mark.parametrize("name", THINKERS)
def test_before_an_answer_that_was_not_thought_about_stands_its_frame(name: str) -> None:
    made, prompt = thinker(name), Prompt((Message("user", "Why?"),))
    rendered = render(made, prompt)
    frame = frame_of(made, prompt, rendered, {})
    expected = {
        "switched": "<think>\n\n</think>\n\n",
        "opened": "\n</think>\n\n",
        "channels": "<|channel|>final<|message|>",
        "framed": "<think>\n\n</think>\n<answer>\n",
    }
    assert frame == expected.get(name, "")
    assert said(written(made, f"{frame}So."), "assistant") == "So."
    assert frame_of(tokenizer(), prompt, rendered, {}) == ""


def test_a_prompt_is_searched_for_an_open_thought_behind_its_last_turn_only() -> None:
    made = thinker("switched")
    assert render(made, Prompt.of("<think>")).inside is None
    thoughts = thoughts_of(made)
    assert opened_by(thoughts, "<think>a</think><think>") is not None
    assert opened_by(thoughts, "<think>a</think>") is None
    assert not thoughts_of(tokenizer())
