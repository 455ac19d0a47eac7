"""Conversations that exist already: JSONL -> `Conversation` values.

One JSON object a line: `messages` (role and content, as the OpenAI and Hugging Face formats have
them) or `prompt` and `response`; optional `id` (a label of one's own, unique), `tags` (a flat
object), `token_ids` (the text's own ids) and, with ids alone, `n_prompt`.  The last turn is the
response if it is the assistant's; all before it is the prompt.  Content may be text, null, or a
list of parts of type "text"; an assistant's `tool_calls` become text, one JSON object a line; what
it thought may stand in `reasoning_content`, `reasoning` or `thinking`, or in parts of that type;
"developer" is system, "function" is tool.  Other keys of a turn are ignored, other keys of a line
are mistakes.  This module knows nothing of templates or tokens.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

from traitscope.core import Message, Prompt
from traitscope.errors import PromptError, did_you_mean
from traitscope.prompts import (
    ROLES,
    check_label,
    check_labels,
    check_tags,
    check_text,
    thinking_of,
)
from traitscope.textfile import parse_json, read_lines, shown

__all__ = ["Conversation", "conversation_from", "conversations_from", "load_conversations"]

_KEYS = ("messages", "prompt", "response", "id", "tags", "token_ids", "n_prompt")
_OTHER_NAMES = {"developer": "system", "function": "tool", "model": "assistant"}
_LARGEST_ID = 2**31 - 1


@dataclass(frozen=True)
class Conversation:
    """One text that exists.  `prompt` is the chat before the response, without turns where only
    ids were given.  `response` is None where no assistant has answered, or where ids alone say;
    `thinking` is what was thought before it, where that is known apart.  `token_ids` are used as
    they are; `n_prompt` of them are the prompt (known with ids alone)."""

    prompt: Prompt
    response: str | None
    token_ids: tuple[int, ...] | None = None
    n_prompt: int | None = None
    thinking: str = ""

    @property
    def answer(self) -> Message:
        """The response as a turn."""
        return Message("assistant", self.response or "", self.thinking)


def load_conversations(path: str | Path) -> list[Conversation]:
    """The conversations of a `.jsonl` file, in order; `prompt.where` of each is 'file:line'.

    Raises PromptError, naming file and line, for anything that is not as described above.
    """
    path = Path(path)
    lines = read_lines(path, "a file of conversations", PromptError)
    numbered = [(f"{path}:{n}", line) for n, line in enumerate(lines, 1) if line.strip()]
    if not numbered:
        raise PromptError(f"{path}: expected at least one conversation, got an empty file.")
    made = [conversation_from(parse_json(line, at, PromptError), at) for at, line in numbered]
    check_labels(each.prompt for each in made)
    return made


def conversations_from(records: Iterable[object], where: str) -> list[Conversation]:
    """Conversations that are objects already, as `load_conversations` reads them from lines."""
    made = [conversation_from(record, f"{where}, entry {n}") for n, record in enumerate(records, 1)]
    check_labels(each.prompt for each in made)
    return made


def conversation_from(record: object, where: str) -> Conversation:
    """One object as a conversation; PromptError names `where`."""
    if not _is_object(record):
        raise PromptError(
            f'{where}: expected an object such as {{"messages": [...]}}, got {shown(record)}.'
        )
    for key in record:
        if key not in _KEYS:
            raise PromptError(
                f"{where}: key {shown(key)} is not known. Known here: {', '.join(_KEYS)}."
                f"{did_you_mean(str(key), _KEYS)}"
            )
    label = check_label(record["id"], where) if record.get("id") is not None else None
    tags = check_tags(record["tags"], where) if record.get("tags") is not None else {}
    ids = _ids(record["token_ids"], where) if record.get("token_ids") is not None else None
    messages, answer = _turns(record, where, ids is not None)
    n_prompt = _n_prompt(record, ids, where)
    prompt = Prompt(messages, label, tags, where)
    if answer is None:
        return Conversation(prompt, None, ids, n_prompt)
    return Conversation(prompt, answer.content, ids, n_prompt, answer.thinking)


def _turns(
    record: Mapping[str, object], where: str, has_ids: bool
) -> tuple[tuple[Message, ...], Message | None]:
    """The chat before the response, and the response."""
    if ("prompt" in record) + ("messages" in record) != 1:
        if has_ids and "prompt" not in record and "response" not in record:
            return (), None
        came = "both" if "prompt" in record else "neither"
        raise PromptError(f"{where}: expected either 'messages' or 'prompt', got {came}.")
    if "prompt" in record:
        prompt = _content(record["prompt"], f"{where}: 'prompt'")
        check_text(prompt, f"{where}: 'prompt'")
        response = record.get("response")
        if response is None:
            return (Message("user", prompt),), None
        said = _content(response, f"{where}: 'response'")
        return (Message("user", prompt),), Message("assistant", said)
    if "response" in record:
        raise PromptError(
            f"{where}: expected 'response' beside 'prompt', got it beside 'messages'. "
            "The answer is the last of the messages."
        )
    turns = record["messages"]
    if not isinstance(turns, list | tuple) or not turns:
        raise PromptError(f"{where}: 'messages': expected a list of turns, got {shown(turns)}.")
    messages = tuple(_message(turn, f"{where}: 'messages', turn {n}") for n, turn in _count(turns))
    if messages[-1].role != "assistant":
        return messages, None
    if len(messages) == 1:
        raise PromptError(
            f"{where}: expected a turn before the assistant's answer, got the answer alone. "
            "Add what it answers."
        )
    return messages[:-1], messages[-1]


def _message(turn: object, where: str) -> Message:
    if not _is_object(turn) or "role" not in turn:
        raise PromptError(
            f"{where}: expected an object with 'role' and 'content', got {shown(turn)}."
        )
    role = turn["role"]
    role = _OTHER_NAMES.get(role, role) if isinstance(role, str) else role
    if not isinstance(role, str) or role not in ROLES:
        hint = did_you_mean(role, ROLES) if isinstance(role, str) else ""
        raise PromptError(
            f"{where}: 'role': expected one of {', '.join(ROLES)}, got {shown(role)}.{hint}"
        )
    content, thought = _content_and_thought(turn.get("content"), f"{where}: 'content'")
    thinking = thinking_of(turn, where, thought) if role == "assistant" else ""
    calls = turn.get("tool_calls") or ()
    if not isinstance(calls, list | tuple):
        raise PromptError(f"{where}: 'tool_calls': expected a list, got {shown(calls)}.")
    parts = [content] if content else []
    return Message(role, "\n".join([*parts, *(_call(call) for call in calls)]), thinking)


def _content_and_thought(value: object, where: str) -> tuple[str, str]:
    """The text of a turn, and that of its parts of type "thinking" or "reasoning"."""
    if not isinstance(value, list | tuple):
        return _content(value, where), ""
    said, thought = [], []
    for n, part in _count(value):
        kind = part.get("type") if _is_object(part) else None
        if _is_object(part) and kind in ("thinking", "reasoning"):
            inner = next((part[k] for k in (str(kind), "text") if k in part), None)
            thought.append(_content(inner, f"{where}, part {n}"))
        else:
            said.append(_part(part, f"{where}, part {n}"))
    return "".join(said), "".join(thought)


def _content(value: object, where: str) -> str:
    """Text, null, or a list of text parts; an assistant's turn may be empty."""
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return "".join(_part(part, f"{where}, part {n}") for n, part in _count(value))
    if not isinstance(value, str):
        raise PromptError(f"{where}: expected text or a list of text parts, got {shown(value)}.")
    if value:
        check_text(f".{value}", where)  # blank is fine here, half a character is not
    return value


def _part(part: object, where: str) -> str:
    if not _is_object(part) or part.get("type") != "text" or not isinstance(part.get("text"), str):
        raise PromptError(
            f'{where}: expected {{"type": "text", "text": "..."}}, got {shown(part)}. '
            "Only text can be scored: leave other parts out."
        )
    return _content(part["text"], where)


def _call(call: object) -> str:
    """A tool call as text; templates differ in how they write one."""
    inner = call.get("function", call) if _is_object(call) else call
    return inner if isinstance(inner, str) else json.dumps(inner, ensure_ascii=False)


def _ids(value: object, where: str) -> tuple[int, ...]:
    fine = isinstance(value, list | tuple) and all(
        type(i) is int and 0 <= i <= _LARGEST_ID for i in value
    )
    if not fine or not value:
        raise PromptError(f"{where}: 'token_ids': expected a list of ids, got {shown(value)}.")
    assert isinstance(value, list | tuple)
    return tuple(value)


def _n_prompt(record: Mapping[str, object], ids: tuple[int, ...] | None, where: str) -> int | None:
    if "messages" in record or "prompt" in record or ids is None:
        if record.get("n_prompt") is not None:
            raise PromptError(
                f"{where}: expected 'n_prompt' beside 'token_ids' alone: with turns the boundary "
                "is known. Remove it."
            )
        return None
    value = record.get("n_prompt")
    value = 0 if value is None else value
    if type(value) is not int or not 0 <= value <= len(ids):
        raise PromptError(
            f"{where}: 'n_prompt': expected a number from 0 to {len(ids)}, got {shown(value)}."
        )
    return value


def _count(items: Iterable[object]) -> Iterable[tuple[int, object]]:
    return enumerate(items, 1)


def _is_object(value: object) -> TypeGuard[Mapping[str, object]]:
    return isinstance(value, Mapping)
