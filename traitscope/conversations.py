"""Conversations that exist already: JSONL -> `Conversation` values.

One JSON object a line: `messages` (role and content, as the OpenAI and Hugging Face formats have
them) or `prompt` and `response`; optional `id` (a label of one's own, unique), `tags` (a flat
object), `token_ids` (the text's own ids) and, with ids alone, `n_prompt`.  The last turn is the
response if it is the assistant's; all before it is the prompt.  A turn is as `turns` has it; its
other keys are ignored, other keys of a line are mistakes.  Lines as other tools write them are
known to `shapes`.  This module knows nothing of templates or tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

from traitscope.core import Message, Prompt
from traitscope.errors import PromptError, did_you_mean
from traitscope.prompts import check_label, check_labels, check_tags
from traitscope.shapes import as_ours
from traitscope.textfile import parse_json, read_lines, shown
from traitscope.turns import check_text, content_of, message_from

__all__ = ["Conversation", "conversation_from", "conversations_from", "load_conversations"]

_KEYS = ("messages", "prompt", "response", "id", "tags", "token_ids", "n_prompt")
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
    records = ((parse_json(line, at, PromptError), at) for at, line in numbered)
    made = [one for record, at in records for one in conversations_of(record, at)]
    check_labels(each.prompt for each in made)
    return made


def conversations_from(records: Iterable[object], where: str) -> list[Conversation]:
    """Conversations that are objects already, as `load_conversations` reads them from lines."""
    entries = [(record, f"{where}, entry {n}") for n, record in enumerate(records, 1)]
    made = [one for record, at in entries for one in conversations_of(record, at)]
    check_labels(each.prompt for each in made)
    return made


def conversations_of(record: object, where: str) -> list[Conversation]:
    """The conversations of one object, as we or another tool write it (`shapes`): two for a pair
    of preferences, else one; PromptError names `where`."""
    if not _is_object(record):
        raise PromptError(
            f'{where}: expected an object such as {{"messages": [...]}}, got {shown(record)}.'
        )
    return [conversation_from(line, where) for line in as_ours(record, where)]


def conversation_from(record: Mapping[str, object], where: str) -> Conversation:
    """One object in our own keys as a conversation; PromptError names `where`."""
    for key in record:
        if key not in _KEYS:
            raise PromptError(
                f"{where}: key {shown(key)} is not known. Known here: {', '.join(_KEYS)}."
                f"{did_you_mean(str(key), _KEYS)} What is yours goes into 'tags'."
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
        prompt = content_of(record["prompt"], f"{where}: 'prompt'")
        check_text(prompt, f"{where}: 'prompt'")
        response = record.get("response")
        if response is None:
            return (Message("user", prompt),), None
        said = content_of(response, f"{where}: 'response'")
        return (Message("user", prompt),), Message("assistant", said)
    if "response" in record:
        raise PromptError(
            f"{where}: expected 'response' beside 'prompt', got it beside 'messages'. "
            "The answer is the last of the messages."
        )
    turns = record["messages"]
    if not isinstance(turns, list | tuple) or not turns:
        raise PromptError(f"{where}: 'messages': expected a list of turns, got {shown(turns)}.")
    messages = tuple(
        message_from(turn, f"{where}: 'messages', turn {n}") for n, turn in _count(turns)
    )
    if messages[-1].role != "assistant":
        return messages, None
    if len(messages) == 1:
        raise PromptError(
            f"{where}: expected a turn before the assistant's answer, got the answer alone. "
            "Add what it answers."
        )
    return messages[:-1], messages[-1]


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
