"""Conversations: the formats that people have, and one sentence with file and line for the rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from traitscope.conversations import Conversation, load_conversations
from traitscope.errors import PromptError, SuiteError
from traitscope.suite import suite_from_dict

USER = {"role": "user", "content": "Hi"}
BOT = {"role": "assistant", "content": "Hello."}


def read(folder: Path, *records: Any) -> list[Conversation]:
    file = folder / "chats.jsonl"
    lines = [r if isinstance(r, str) else json.dumps(r, ensure_ascii=True) for r in records]
    file.write_text("\n".join(lines), encoding="utf-8")
    return load_conversations(file)


def turns(conversation: Conversation) -> list[tuple[str, str]]:
    return [(m.role, m.content) for m in conversation.prompt.messages]


def test_the_last_assistant_turn_is_the_response(tmp_path: Path) -> None:
    (made,) = read(tmp_path, {"messages": [USER, BOT, USER, {**BOT, "content": "Again."}]})
    assert turns(made) == [("user", "Hi"), ("assistant", "Hello."), ("user", "Hi")]
    assert made.response == "Again."
    assert made.prompt.where.endswith("chats.jsonl:1")


def test_a_conversation_that_ends_with_the_user_has_no_response(tmp_path: Path) -> None:
    made = read(tmp_path, {"messages": [USER]}, "", {"prompt": "Why?"})
    assert [each.response for each in made] == [None, None]
    assert made[1].prompt.where.endswith(":3")


def test_what_the_openai_format_brings(tmp_path: Path) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    part = {"type": "text"}
    record = {
        "messages": [
            {"role": "developer", "content": [{**part, "text": "Be "}, {**part, "text": "brief."}]},
            {**USER, "name": "ann"},
            {"role": "assistant", "content": None, "tool_calls": [call], "refusal": None},
            {"role": "tool", "tool_call_id": "1", "content": "42"},
            BOT,
        ],
        "id": 7,
        "tags": {"topic": "law", "hard": True},
    }
    (made,) = read(tmp_path, record)
    assert turns(made) == [
        ("system", "Be brief."),
        ("user", "Hi"),
        ("assistant", '{"name": "look", "arguments": "{}"}'),
        ("tool", "42"),
    ]
    assert (made.response, made.prompt.label) == ("Hello.", "7")
    assert made.prompt.tags == {"topic": "law", "hard": "true"}


def test_ids_alone(tmp_path: Path) -> None:
    made = read(tmp_path, {"token_ids": [1, 2, 3], "n_prompt": 2}, {"token_ids": [4]})
    assert [(each.token_ids, each.n_prompt) for each in made] == [((1, 2, 3), 2), ((4,), 0)]


WRONG = [
    ("[1]", "expected an object"),
    ("{", "expected one JSON object a line"),
    ({"mesages": [USER]}, "Did you mean 'messages'?"),
    ({"messages": [USER], "prompt": "x"}, "either 'messages' or 'prompt', got both"),
    ({"response": "x"}, "either 'messages' or 'prompt', got neither"),
    ({"messages": [USER], "response": "x"}, "The answer is the last of the messages"),
    ({"messages": []}, "expected a list of turns"),
    ({"messages": [BOT]}, "a turn before the assistant's answer"),
    ({"messages": [{"role": "usr", "content": "a"}]}, "Did you mean 'user'?"),
    ({"messages": [{**USER, "content": [{"type": "image_url"}]}]}, "Only text can be scored"),
    ({"messages": [{**USER, "content": 3}]}, "expected text or a list of text parts"),
    ({"messages": [{**USER, "content": "\ud800"}]}, "half a surrogate pair"),
    ({"prompt": "  "}, "got an empty one"),
    ({"token_ids": [1, "2"]}, "expected a list of ids"),
    ({"token_ids": []}, "expected a list of ids"),
    ({"token_ids": [1], "n_prompt": 2}, "a number from 0 to 1, got 2"),
    ({"prompt": "x", "token_ids": [1], "n_prompt": 1}, "the boundary is known"),
    ({"prompt": "x", "tags": []}, "expected a flat JSON object"),
]


@pytest.mark.parametrize(("record", "words"), WRONG)
def test_each_mistake_has_its_line(tmp_path: Path, record: Any, words: str) -> None:
    with pytest.raises(PromptError) as problem:
        read(tmp_path, {"prompt": "fine"}, record)
    assert words in str(problem.value)
    assert "chats.jsonl:2" in str(problem.value)
    assert len(str(problem.value).splitlines()) == 1


def test_an_id_comes_once_and_a_file_is_not_empty(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match=r"chats.jsonl:2.*an id of its own"):
        read(tmp_path, {"prompt": "a", "id": "x"}, {"prompt": "b", "id": "x"})
    with pytest.raises(PromptError, match="at least one conversation"):
        read(tmp_path, "", " ")


def table(**changes: Any) -> dict[str, Any]:
    return {"name": "n", "model": "pocket", "traits": ["sycophancy"], **changes}


def test_a_suite_of_conversations(tmp_path: Path) -> None:
    read(tmp_path, {"prompt": "Tea?", "response": "No.", "id": "tea", "tags": {"a": "b"}})
    sets = {"logged": {"conversations": "chats.jsonl", "tags": {"set": "one", "a": "c"}}}
    suite = suite_from_dict(table(prompts=sets), root=tmp_path)
    (made,) = suite.conversations()["logged"]
    assert made.prompt.tags == {"set": "one", "a": "b"}
    assert suite.prompts_named("tea") == (made.prompt,)
    assert suite.replays


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        ({"a": {"conversations": [{"prompt": "x"}], "samples": 2}}, "'samples' only with prompts"),
        ({"a": {"conversations": [{"prompt": "x"}]}, "b": {"texts": ["y"]}}, "got both"),
        ({"a": {"conversations": []}}, "at least one text"),
        ({"a": {"conversations": [{"prompt": ""}]}}, "conversations, entry 1"),
        ({"a": {"conversations": "none.jsonl"}}, "no such file"),
    ],
)
def test_sets_that_do_not_fit(tmp_path: Path, sets: Any, words: str) -> None:
    with pytest.raises(SuiteError, match=words):
        suite_from_dict(table(prompts=sets), root=tmp_path)


def test_logprobs_of_prompts_are_asked_for_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match=r"Of those it is 'generation\.prompt_logprobs'"):
        suite_from_dict(table(prompts={"a": {"texts": ["x"]}}, logprobs=False), root=tmp_path)


@pytest.mark.parametrize("keep", [["3.post"], {"sites": ["3.post"]}])
def test_keep_in_both_forms(tmp_path: Path, keep: Any) -> None:
    suite = suite_from_dict(table(prompts={"a": {"texts": ["x"]}}, keep=keep), root=tmp_path)
    assert suite.kept("bfloat16").dtype == "bfloat16"
    assert (suite.kept("float16").dtype, suite.kept("float32").sites) == ("float32", ("3.post",))


@pytest.mark.parametrize(
    ("keep", "words"),
    [
        (["3.pst"], "'keep.sites', entry 1: expected a list of sites"),
        ({"site": ["3.post"]}, "Did you mean 'sites'?"),
        ({"tokens": "some"}, "'prompt', 'response', 'last' or 'all', got 'some'"),
    ],
)
def test_keep_names_its_mistakes(tmp_path: Path, keep: Any, words: str) -> None:
    with pytest.raises(SuiteError) as problem:
        suite_from_dict(table(prompts={"a": {"texts": ["x"]}}, keep=keep), root=tmp_path)
    assert words in str(problem.value)
