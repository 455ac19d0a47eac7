"""Data sets as other tools write them, read as conversations; and what they may not hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from traitscope.conversations import Conversation, conversations_from, load_conversations
from traitscope.core import Message
from traitscope.errors import PromptError

HI, YO = Message("user", "Hi"), "Yo"
ASK = {"role": "user", "content": "Hi"}
SAY = {"role": "assistant", "content": "Yo"}


def read(*records: dict[str, Any]) -> list[Conversation]:
    return conversations_from(records, "here")


SAME: dict[str, dict[str, Any]] = {
    "from and value": {
        "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yo"}]
    },
    "from with our roles": {
        "conversations": [{"from": "user", "value": "Hi"}, {"from": "assistant", "value": "Yo"}]
    },
    "roles under conversations": {"conversations": [ASK, SAY]},
    "completion": {"prompt": "Hi", "completion": "Yo"},
    "completion as turns": {"prompt": [ASK], "completion": [SAY]},
    "instruction": {"instruction": "Hi", "input": "", "output": "Yo"},
    "training file": {"messages": [ASK, SAY | {"weight": 1}], "tools": [], "functions": None},
}


@pytest.mark.parametrize("record", SAME.values(), ids=SAME)
def test_one_conversation(record: dict[str, Any]) -> None:
    (found,) = read(record)
    assert (found.prompt.messages, found.response) == ((HI,), YO)


def test_more_than_a_question() -> None:
    system = Message("system", "Be brief.")
    shared = {**SAME["from and value"], "system": "Be brief.", "id": 7}
    told = {"instruction": "Hi", "input": "there", "output": "Yo", "system": "Be brief."}
    tools = [
        {"from": "human", "value": "Hi"},
        {"from": "function_call", "value": "{}"},
        {"from": "observation", "value": "20"},
        {"from": "gpt", "value": "Yo"},
    ]
    first, second, third = read(shared, told, {"conversations": tools})
    assert (first.prompt.messages, first.prompt.label) == ((system, HI), "7")
    assert second.prompt.messages == (system, Message("user", "Hi\n\nthere"))
    assert [m.role for m in third.prompt.messages] == ["user", "assistant", "tool"]
    (asked,) = read({"custom_id": "r1", "method": "POST", "body": {"messages": [ASK], "n": 1}})
    assert (asked.prompt.messages, asked.response, asked.prompt.label) == ((HI,), None, "r1")


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": "Hi", "chosen": "Yo", "rejected": "No"},
        {"prompt": [ASK], "chosen": [SAY], "rejected": [{**SAY, "content": "No"}]},
        {"prompt": "Hi", "chosen": [ASK, SAY], "rejected": [ASK, {**SAY, "content": "No"}]},
        {"chosen": [ASK, SAY], "rejected": [ASK, {**SAY, "content": "No"}], "score_chosen": 1.5},
    ],
)
def test_a_preference_is_two_texts(record: dict[str, Any]) -> None:
    better, worse = read({**record, "id": "a", "tags": {"topic": "tea"}})
    assert better.prompt.messages == worse.prompt.messages == (HI,)
    assert (better.response, worse.response) == ("Yo", "No")
    assert (better.prompt.label, worse.prompt.label) == ("a/chosen", "a/rejected")
    assert better.prompt.tags == {"topic": "tea", "side": "chosen"}
    assert read(record)[1].prompt.label is None


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"conversations": [{"from": "human"}]}, "expected turns with 'from' and 'value'"),
        ({"conversations": "Hi"}, "expected turns with 'from' and 'value', got 'Hi'"),
        ({"conversations": []}, "'messages': expected a list of turns"),
        ({"conversations": [{"from": "alien", "value": "Hi"}]}, "expected one of system, user"),
        ({"conversations": [{"from": [], "value": "Hi"}]}, r"got \[\]"),
        ({**SAME["from and value"], "source": "x"}, "key 'source' is not known.*into 'tags'"),
        ({"chosen": "Yo", "rejected": "No"}, "expected 'chosen' as a list of turns, or a 'prompt'"),
        ({"prompt": 3, "chosen": "Yo", "rejected": "No"}, "expected a list of turns, got 3"),
        ({"prompt": "Hi", "completion": 3}, "'content': expected text"),
        ({"instruction": 3, "output": "Yo"}, "'content': expected text"),
        ({"messages": [ASK], "tools": [{"type": "function"}]}, "expected no 'tools' in a line"),
        ({"custom_id": "r1", "response": {"body": {}}}, "which holds the answer alone"),
        ({"messages": [ASK], "modle": "x"}, "key 'modle' is not known"),
    ],
)
def test_a_mistake_is_one_sentence_with_its_place(record: dict[str, Any], words: str) -> None:
    with pytest.raises(PromptError, match=words) as caught:
        read(record)
    assert str(caught.value).startswith("here, entry 1")


def test_what_was_exported_can_be_read_again(tmp_path: Path) -> None:
    line: dict[str, Any] = {
        "generation": "df3f619804a92fdb-1",
        "prompt_id": "df3f619804a92fdb",
        "sample": 1,
        "label": "hi",
        "tags": {"topic": "tea"},
        "messages": [ASK],
        "thinking": "Hm",
        "response": "Yo",
        "n_prompt": 2,
        "status": "done",
        "error": "",
        "token_ids": [1, 2, 3],
        "scores": {},
    }
    path = tmp_path / "texts.jsonl"
    path.write_text(json.dumps(line) + "\n" + json.dumps({**line, "sample": 0}) + "\n")
    second, first = load_conversations(path)
    assert (first.prompt.label, second.prompt.label) == ("hi", "hi#1")
    assert (first.prompt.messages, first.response, first.thinking) == ((HI,), "Yo", "Hm")
    assert first.token_ids == (1, 2, 3)
    (alone,) = read({**line, "messages": []})
    assert (alone.prompt.messages, alone.n_prompt) == ((), 2)
    (asked,) = read({**line, "token_ids": [1, 2]})
    assert asked.response is None
    with pytest.raises(PromptError, match="got one that failed"):
        read({**line, "status": "failed", "error": "Too long."})
