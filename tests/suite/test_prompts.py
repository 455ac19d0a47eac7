"""Prompt files: what is read, and the one sentence for what cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from traitscope.core import Message
from traitscope.errors import PromptError
from traitscope.prompts import load_prompts


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
    return path


def jsonl(folder: Path, *records: object) -> Path:
    return write(folder, "p.jsonl", "\n".join(json.dumps(record) for record in records))


def mistake(path: Path) -> str:
    with pytest.raises(PromptError) as caught:
        load_prompts(path)
    message = str(caught.value)
    assert "\n" not in message, "one sentence for one mistake, on one line"
    return message


def test_a_line_is_a_prompt(tmp_path: Path) -> None:
    path = write(tmp_path, "p.txt", "# is not a comment\n\n  What is 7 plus 5?  \n\t\nWarum?")
    prompts = load_prompts(path)
    assert [prompt.text for prompt in prompts] == [
        "# is not a comment",
        "What is 7 plus 5?",
        "Warum?",
    ]
    assert [prompt.where for prompt in prompts] == [f"{path}:1", f"{path}:3", f"{path}:5"]
    assert {prompt.label for prompt in prompts} == {None}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_byte_order_mark_and_any_line_end(tmp_path: Path, end: str) -> None:
    path = write(tmp_path, "p.txt", f"\ufeffOne?{end}Two?{end}")
    assert [prompt.text for prompt in load_prompts(path)] == ["One?", "Two?"]


def test_a_line_ends_nowhere_else(tmp_path: Path) -> None:
    # str.splitlines would cut at each of these
    text = "a\u2028b\u0085c\x0bd\x0ce\x1cf"
    assert [prompt.text for prompt in load_prompts(write(tmp_path, "p.txt", text))] == [text]
    record = write(tmp_path, "p.jsonl", json.dumps({"prompt": text}, ensure_ascii=False))
    assert load_prompts(record)[0].text == text


def test_the_same_prompt_may_come_twice(tmp_path: Path) -> None:
    assert len(load_prompts(write(tmp_path, "p.txt", "Why?\nWhy?\n"))) == 2


def test_a_huge_line_is_a_prompt(tmp_path: Path) -> None:
    text = "word " * 1_000_000
    assert load_prompts(write(tmp_path, "p.txt", text))[0].text == text.strip()
    assert load_prompts(jsonl(tmp_path, {"prompt": text}))[0].text == text


def test_chats_ids_and_tags(tmp_path: Path) -> None:
    chat = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": " Why?\n"},
    ]
    path = jsonl(
        tmp_path,
        {"prompt": " kept \x00 to the letter\n", "id": "odd"},
        {"messages": chat, "id": 17, "tags": {"topic": "law", "hard": True, "level": 2, "p": 0.5}},
    )
    odd, talk = load_prompts(path)
    assert odd.messages == (Message("user", " kept \x00 to the letter\n"),)
    assert odd.label == "odd"
    assert [message.role for message in talk.messages] == ["system", "user", "assistant", "user"]
    assert talk.text == " Why?\n"
    assert talk.label == "17"
    assert talk.tags == {"topic": "law", "hard": "true", "level": "2", "p": "0.5"}
    assert talk.where == f"{path}:2"


def test_a_tool_may_have_the_last_turn(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "12 * 12?"}, {"role": "tool", "content": "144"}]
    assert load_prompts(jsonl(tmp_path, {"messages": chat}))[0].messages[-1].role == "tool"


def test_no_such_file(tmp_path: Path) -> None:
    write(tmp_path, "prompts.txt", "Why?")
    message = mistake(tmp_path / "promts.txt")
    assert message.startswith(f"{tmp_path / 'promts.txt'}: expected a file of prompts")
    assert message.endswith("got no such file. Did you mean 'prompts.txt'?")
    assert "There is no folder" in mistake(tmp_path / "nowhere" / "p.txt")


def test_a_folder(tmp_path: Path) -> None:
    assert mistake(tmp_path).endswith("got a folder. Name a file in it.")


def test_another_ending(tmp_path: Path) -> None:
    message = mistake(write(tmp_path, "p.csv", "Why?"))
    assert ".txt" in message
    assert ".jsonl" in message
    assert "got '.csv'" in message


def test_nothing_but_a_device(tmp_path: Path) -> None:
    (tmp_path / "p.txt").symlink_to("/dev/null")
    assert "no plain file" in mistake(tmp_path / "p.txt")


@pytest.mark.parametrize("name", ["p.txt", "p.jsonl"])
@pytest.mark.parametrize("content", ["", "\n \n\t\r\n", "\ufeff"])
def test_an_empty_file(tmp_path: Path, name: str, content: str) -> None:
    path = write(tmp_path, name, content)
    assert mistake(path) == f"{path}: expected at least one prompt, got an empty file."


def test_not_utf8(tmp_path: Path) -> None:
    path = write(tmp_path, "p.txt", b"fine\nalso \xff not\n")
    assert mistake(path) == (
        f"{path}:2: expected UTF-8 text, got byte 0xff at byte 10. Save the file as UTF-8."
    )
    assert "byte 0xff at byte 0" in mistake(write(tmp_path, "b.txt", b"\xff\xfe\xe9"))


@pytest.mark.parametrize(
    "content", [b"\x7fELF\x02\x01\x00\x00", "What?\nWhy?".encode("utf-16-le"), b"one\ntw\0o"]
)
def test_binary_and_utf16(tmp_path: Path, content: bytes) -> None:
    assert "got a NUL byte at byte" in mistake(write(tmp_path, "p.txt", content))
    assert "got a NUL byte at byte" in mistake(write(tmp_path, "p.jsonl", content))


BAD_LINES = {
    "broken": ('{"prompt": "a"', ["column", "expected one JSON object a line"]),
    "two objects": ('{"prompt": "a"} {"prompt": "b"}', ["Extra data"]),
    "no object": ('["a"]', ["expected a JSON object", "got ['a']"]),
    "a number": ("3", ["expected a JSON object", "got 3"]),
    "no JSON number": ('{"prompt": "a", "tags": {"x": NaN}}', ["NaN is not a JSON number"]),
    "a long number": ('{"id": ' + "9" * 5000 + "}", ["expected JSON"]),
    "endless": ("[" * 100_000, ["nested without end"]),
    "key twice": ('{"prompt": "a", "prompt": "b"}', ["the key 'prompt' comes twice"]),
    "unknown key": ('{"promt": "a"}', ["key 'promt' is not known", "Did you mean 'prompt'?"]),
    "neither": ('{"id": "a"}', ["expected either 'prompt' or 'messages', got neither"]),
    "both": ('{"prompt": "a", "messages": []}', ["either 'prompt' or 'messages', got both"]),
    "wrong type": ('{"prompt": {"a": [1]}}', ["'prompt': expected text, got {'a': [1]}"]),
    "null": ('{"prompt": null}', ["'prompt': expected text, got None"]),
    "empty": ('{"prompt": " \\n"}', ["'prompt': expected a prompt, got an empty one"]),
    "surrogate": ('{"prompt": "a\\ud800"}', ["half a surrogate pair ('\\ud800') at character 1"]),
    "key surrogate": ('{"\\ud800": "a"}', ["key '\\ud800' is not known"]),
    "tag surrogate": ('{"prompt": "a", "tags": {"x": "\\udfff"}}', ["'tags.x'", "surrogate"]),
    "tag key surrogate": ('{"prompt": "a", "tags": {"\\udfff": "x"}}', ["a key of 'tags'"]),
    "id surrogate": ('{"prompt": "a", "id": "\\udfff"}', ["'id'", "surrogate"]),
    "id type": ('{"prompt": "a", "id": true}', ["'id': expected text, got True"]),
    "id empty": ('{"prompt": "a", "id": ""}', ["'id'", "empty"]),
    "tags type": ('{"prompt": "a", "tags": ["x"]}', ["'tags': expected a flat JSON object"]),
    "deep tags": ('{"prompt": "a", "tags": {"x": {"y": 1}}}', ["'tags.x': expected text or a"]),
    "no turns": ('{"messages": []}', ["'messages': expected a list of turns, got []"]),
    "turns type": ('{"messages": "a"}', ["'messages': expected a list of turns, got 'a'"]),
    "turn type": ('{"messages": ["a"]}', ["'messages, turn 1'", "'role' and 'content'"]),
    "no role": ('{"messages": [{"content": "a"}]}', ["'role' and 'content'"]),
    "role": (
        '{"messages": [{"role": "usr", "content": "a"}]}',
        ["expected one of system, user, assistant, tool, got 'usr'", "Did you mean 'user'?"],
    ),
    "role type": ('{"messages": [{"role": [], "content": "a"}]}', ["expected one of", "got []"]),
    "turn key": (
        '{"messages": [{"role": "user", "content": "a", "nme": "b"}]}',
        ["key 'nme' is not known. Known here: role, content"],
    ),
    "content parts": (
        '{"messages": [{"role": "user", "content": [{"type": "image", "image": "a"}]}]}',
        ["'messages, turn 1': 'content', part 1", "Only text can be scored"],
    ),
    "empty turn": (
        '{"messages": [{"role": "user", "content": null}]}',
        ["'messages, turn 1': 'content': expected a prompt, got an empty one"],
    ),
    "answered": (
        '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}',
        ["the last turn to be the user's (or a tool's), got 'assistant'"],
    ),
}


@pytest.mark.parametrize("case", BAD_LINES)
def test_a_bad_line_is_named(tmp_path: Path, case: str) -> None:
    line, words = BAD_LINES[case]
    path = write(tmp_path, "p.jsonl", '{"prompt": "fine"}\n\n' + line)
    message = mistake(path)
    assert message.startswith(f"{path}:3: ")
    assert [word for word in words if word not in message] == []
    assert len(message) < 400, "a huge value is cut"
    message.encode("utf-8")  # can be printed and stored


def test_an_id_twice_names_both_lines(tmp_path: Path) -> None:
    path = jsonl(tmp_path, {"prompt": "a", "id": "x"}, {"prompt": "b"}, {"prompt": "c", "id": "x"})
    assert mistake(path) == (
        f"{path}:3: expected an id of its own, got 'x', which {path}:1 has already. "
        "Rename one of them."
    )
