"""Prompt files -> `Prompt` values.

`.txt`: one prompt a line.  Blank lines are skipped, space around a line is dropped; a `#` has no
meaning, since a prompt may well start with one.
`.jsonl`: one JSON object a line, `{"prompt": "..."}` or `{"messages": [{"role", "content"}, ...]}`
that ends with the user's (or a tool's) turn; optional `"id"` (the user's own label, unique) and
`"tags"` (a flat object).  A turn is as `turns` has it.  The text is kept to the letter.
Both are UTF-8, with or without a byte order mark, with any line ends.  The same prompt may come
twice: its text is made once.  This module knows nothing of suites, templates or tokens.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeGuard

from traitscope.core import Message, Prompt
from traitscope.errors import PromptError, did_you_mean
from traitscope.textfile import parse_json, read_lines, shown
from traitscope.turns import KEYS, check_text, message_from

__all__ = [
    "check_label",
    "check_labels",
    "check_tags",
    "load_prompts",
]

_KEYS = ("prompt", "messages", "id", "tags")
_LAST_ROLES = ("user", "tool")


def load_prompts(path: str | Path) -> list[Prompt]:
    """The prompts of a `.txt` or `.jsonl` file, in order; `where` of each is 'file:line'.

    Raises PromptError, naming file and line, for anything that is not as described above, for an
    empty file and for an id that comes twice.
    """
    path = Path(path)
    lines = read_lines(path, "a file of prompts", PromptError)
    readers = {".txt": _from_text, ".jsonl": _from_json}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise PromptError(
            f"{path}: expected a file of prompts that ends in .txt (one a line) or .jsonl (one "
            f"JSON object a line), got '{path.suffix or 'no ending'}'. Rename it."
        )
    prompts = [
        reader(line, f"{path}:{number}") for number, line in enumerate(lines, 1) if line.strip()
    ]
    if not prompts:
        raise PromptError(f"{path}: expected at least one prompt, got an empty file.")
    check_labels(prompts)
    return prompts


def _from_text(line: str, where: str) -> Prompt:
    return Prompt((Message("user", line.strip()),), where=where)


def _from_json(line: str, where: str) -> Prompt:
    record = parse_json(line, where, PromptError)
    if not _is_object(record):
        raise PromptError(
            f'{where}: expected a JSON object such as {{"prompt": "..."}}, got {shown(record)}.'
        )
    _check_keys(record, _KEYS, where)
    if ("prompt" in record) == ("messages" in record):
        came = "both" if "prompt" in record else "neither"
        raise PromptError(f"{where}: expected either 'prompt' or 'messages', got {came}.")
    return Prompt(
        _messages(record, where),
        label=check_label(record["id"], where) if "id" in record else None,
        tags=check_tags(record["tags"], where) if "tags" in record else {},
        where=where,
    )


def _messages(record: Mapping[str, object], where: str) -> tuple[Message, ...]:
    if "prompt" in record:
        return (Message("user", _text(record["prompt"], "prompt", where)),)
    turns = record["messages"]
    if not isinstance(turns, list) or not turns:
        raise PromptError(f"{where}: 'messages': expected a list of turns, got {shown(turns)}.")
    messages = tuple(_message(turn, i, where) for i, turn in enumerate(turns, 1))
    if messages[-1].role not in _LAST_ROLES:
        raise PromptError(
            f"{where}: expected the last turn to be the user's (or a tool's), got "
            f"'{messages[-1].role}'. The answer is what will be generated: remove that turn."
        )
    return messages


def _message(turn: object, number: int, where: str) -> Message:
    name = f"{where}: 'messages, turn {number}'"
    if _is_object(turn):
        _check_keys(turn, KEYS, name)
    message = message_from(turn, name)
    if message.role != "assistant":  # who called a tool may have said nothing
        check_text(message.content, f"{name}: 'content'")
    return message


def _text(value: object, name: str, where: str) -> str:
    if not isinstance(value, str):
        raise PromptError(f"{where}: '{name}': expected text, got {shown(value)}.")
    check_text(value, f"{where}: '{name}'")
    return value


def check_label(value: object, where: str) -> str:
    """An `id` as text; a number is written as one."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return _text(value, "id", where)


def check_tags(value: object, where: str) -> dict[str, str]:
    """A flat object of texts; numbers and truth values become text."""
    if not _is_object(value):
        raise PromptError(f"{where}: 'tags': expected a flat JSON object, got {shown(value)}.")
    for key in value:
        check_text(key, f"{where}: a key of 'tags'")
    return {key: _tag(item, f"tags.{key}", where) for key, item in value.items()}


def _tag(value: object, name: str, where: str) -> str:
    """A tag's value as text; numbers and truth values are written as in JSON."""
    if isinstance(value, str):
        check_text(value, f"{where}: '{name}'")
        return value
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    raise PromptError(f"{where}: '{name}': expected text or a number, got {shown(value)}.")


def _check_keys(record: Mapping[str, object], known: tuple[str, ...], where: str) -> None:
    for key in record:
        if key not in known:
            raise PromptError(
                f"{where}: key {shown(key)} is not known. Known here: {', '.join(known)}."
                f"{did_you_mean(key, known)}"
            )


def check_labels(prompts: Iterable[Prompt]) -> None:
    """Raise PromptError for a label that comes twice."""
    seen: dict[str, str] = {}
    for prompt in prompts:
        if prompt.label is None:
            continue
        if prompt.label in seen:
            raise PromptError(
                f"{prompt.where}: expected an id of its own, got {shown(prompt.label)}, which "
                f"{seen[prompt.label]} has already. Rename one of them."
            )
        seen[prompt.label] = prompt.where


def _is_object(value: object) -> TypeGuard[dict[str, object]]:
    return isinstance(value, dict)
