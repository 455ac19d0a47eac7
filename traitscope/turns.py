"""One turn of a chat, as the OpenAI and Hugging Face formats have it -> `Message`.

Content may be text, null, or a list of parts of type "text"; an assistant's `tool_calls` become
text, one JSON object a line; what it thought may stand in `reasoning_content`, `reasoning` or
`thinking`, or in parts of that type; "developer" is system, "function" is tool, "model" is the
assistant.  This module does not know chats, files or templates.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TypeGuard

from traitscope.core import Message
from traitscope.errors import PromptError, did_you_mean
from traitscope.textfile import shown

__all__ = ["KEYS", "ROLES", "check_text", "check_whole", "content_of", "message_from"]

ROLES = ("system", "user", "assistant", "tool")
_OTHER_NAMES = {"developer": "system", "function": "tool", "model": "assistant"}
_THOUGHT_KEYS = ("reasoning_content", "reasoning", "thinking")
KEYS = ("role", "content", "name", "tool_calls", "tool_call_id", *_THOUGHT_KEYS)


def message_from(turn: object, where: str) -> Message:
    """One turn; PromptError names `where`."""
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
    content, thought = _parts(turn.get("content"), f"{where}: 'content'")
    thinking = _thinking(turn, where, thought) if role == "assistant" else ""
    calls = turn.get("tool_calls") or ()
    if not isinstance(calls, list | tuple):
        raise PromptError(f"{where}: 'tool_calls': expected a list, got {shown(calls)}.")
    parts = [content] if content else []
    return Message(role, "\n".join([*parts, *(_call(call) for call in calls)]), thinking)


def _parts(value: object, where: str) -> tuple[str, str]:
    """The text of a turn, and that of its parts of type "thinking" or "reasoning"."""
    if not isinstance(value, list | tuple):
        return content_of(value, where), ""
    said, thought = [], []
    for n, part in enumerate(value, 1):
        kind = part.get("type") if _is_object(part) else None
        if _is_object(part) and kind in ("thinking", "reasoning"):
            inner = next((part[k] for k in (str(kind), "text") if k in part), None)
            thought.append(content_of(inner, f"{where}, part {n}"))
        else:
            said.append(_part(part, f"{where}, part {n}"))
    return "".join(said), "".join(thought)


def content_of(value: object, where: str) -> str:
    """Text, null, or a list of text parts; an assistant's turn may be empty."""
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return "".join(_part(part, f"{where}, part {n}") for n, part in enumerate(value, 1))
    if not isinstance(value, str):
        raise PromptError(f"{where}: expected text or a list of text parts, got {shown(value)}.")
    if value:
        check_whole(value, where)
    return value


def _part(part: object, where: str) -> str:
    if not _is_object(part) or part.get("type") != "text" or not isinstance(part.get("text"), str):
        raise PromptError(
            f'{where}: expected {{"type": "text", "text": "..."}}, got {shown(part)}. '
            "Only text can be scored: leave other parts out."
        )
    return content_of(part["text"], where)


def _call(call: object) -> str:
    """A tool call as text; templates differ in how they write one."""
    inner = call.get("function", call) if _is_object(call) else call
    return inner if isinstance(inner, str) else json.dumps(inner, ensure_ascii=False)


def _thinking(turn: Mapping[str, object], where: str, found: str) -> str:
    """What an assistant thought before it answered, by any of its names, each at most once;
    `found` is what its content had of it."""
    given = {key: turn[key] for key in _THOUGHT_KEYS if turn.get(key) not in (None, "")}
    texts = {found} if found else set()
    for key, value in given.items():
        if not isinstance(value, str):
            raise PromptError(f"{where}: '{key}': expected text, got {shown(value)}.")
        check_whole(value, f"{where}: '{key}'")
        texts.add(value)
    if len(texts) > 1:
        raise PromptError(
            f"{where}: expected one thought, got several that differ "
            f"({', '.join(given) or 'in the content'}). Leave one of them."
        )
    return texts.pop() if texts else ""


def check_text(text: str, where: str) -> None:
    """Raise PromptError for a text that says nothing, or has half a character in it."""
    if not text.strip():
        raise PromptError(f"{where}: expected a prompt, got an empty one. Fill it or remove it.")
    check_whole(text, where)


def check_whole(text: str, where: str) -> None:
    """Raise PromptError for half a character, which no tokenizer and no file can hold."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as problem:
        raise PromptError(
            f"{where}: expected text, got half a surrogate pair ({shown(text[problem.start])}) at "
            f"character {problem.start}. Write the whole character."
        ) from problem


def _is_object(value: object) -> TypeGuard[Mapping[str, object]]:
    return isinstance(value, Mapping)
