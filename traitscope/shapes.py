"""Lines of data sets as other tools write them -> lines as `conversations` reads them.

Known: `conversations` with from and value (ShareGPT), `prompt` and `completion`, `instruction`,
`input` and `output` (Alpaca), `custom_id` and `body` (a batch's input), `chosen` and `rejected`
(preferences: two texts, with a tag `side`), and a line of our own exported texts.jsonl.  Keys that
hold no words are left out; any other key is a mistake, as in our own lines.  Knows shapes only:
what a turn or an id may be is for who reads the result.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from traitscope.errors import PromptError
from traitscope.textfile import shown

__all__ = ["as_ours"]

_SPEAKERS = {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "function_call": "assistant",
    "observation": "tool",
    "function_response": "tool",
}
_NO_WORDS = ("parallel_tool_calls", "score_chosen", "score_rejected")
_OFFERED = ("tools", "functions")  # a template writes them into the prompt
_EXPORTED = {"generation", "token_ids", "n_prompt", "status"}


def as_ours(record: Mapping[str, Any], where: str) -> Iterator[dict[str, Any]]:
    """The line's texts in our own keys; keys that are not known stay, to be named."""
    if record.keys() >= _EXPORTED:
        yield _exported(record, where)
        return
    for key in _OFFERED:
        if record.get(key):
            raise PromptError(
                f"{where}: expected no {shown(key)} in a line, got some: a chat template writes "
                "them into every prompt. Remove the key, or set it for all texts in the suite's "
                "table [template]."
            )
    line = {k: v for k, v in record.items() if k not in (*_NO_WORDS, *_OFFERED)}
    if "custom_id" in line:
        line = _batched(line, where)
    if "chosen" in line and "rejected" in line:
        yield from _preferences(line, where)
    elif "conversations" in line:
        yield _speakers(line, where)
    elif "instruction" in line and "output" in line:
        yield _instruction(line)
    elif "completion" in line and "prompt" in line:
        yield _answered(line, line.pop("prompt"), line.pop("completion"))
    else:
        yield line


def _batched(line: dict[str, Any], where: str) -> dict[str, Any]:
    """A line of a batch's input; one of its output has no question."""
    body = line.get("body")
    if not isinstance(body, Mapping) or "messages" not in body:
        raise PromptError(
            f"{where}: expected a text with its question, got a line of a batch's output, which "
            "holds the answer alone. Put each answer behind the messages of the input line with "
            "its custom_id."
        )
    return {"id": line["custom_id"], "messages": body["messages"]}


def _speakers(line: dict[str, Any], where: str) -> dict[str, Any]:
    """from and value as role and content; a `system` beside them comes first."""
    turns, system = line.pop("conversations"), line.pop("system", None)
    messages = [{"role": "system", "content": system}] if system else []
    for turn in turns if isinstance(turns, list | tuple) else [turns]:
        if isinstance(turn, Mapping) and "from" in turn and "value" in turn:
            role = turn["from"]
            role = _SPEAKERS.get(role, role) if isinstance(role, str) else role
            rest = {key: turn[key] for key in turn if key not in ("from", "value")}
            messages.append({**rest, "role": role, "content": turn["value"]})
        elif isinstance(turn, Mapping) and "role" in turn:
            messages.append(dict(turn))
        else:
            raise PromptError(
                f"{where}: 'conversations': expected turns with 'from' and 'value', got "
                f"{shown(turn)}."
            )
    return {**line, "messages": messages}


def _instruction(line: dict[str, Any]) -> dict[str, Any]:
    asked, given = line.pop("instruction"), line.pop("input", "")
    system = line.pop("system", None)
    content = f"{asked}\n\n{given}" if given else asked
    turn = {"role": "user", "content": content}
    turns = [{"role": "system", "content": system}, turn] if system else [turn]
    return _answered(line, turns, line.pop("output"))


def _preferences(line: dict[str, Any], where: str) -> Iterator[dict[str, Any]]:
    """Two texts; an id gets the side behind it, so that each has its own."""
    prompt, sides = line.pop("prompt", None), ("chosen", "rejected")
    answers = {side: line.pop(side) for side in sides}
    tags = line.get("tags") or {}
    for side, answer in answers.items():
        one = {**line, "tags": {"side": side, **tags} if isinstance(tags, Mapping) else tags}
        if line.get("id") is not None:
            one["id"] = f"{line['id']}/{side}"
        if prompt is None and not isinstance(answer, list | tuple):
            raise PromptError(
                f"{where}: expected '{side}' as a list of turns, or a 'prompt' beside it, got "
                f"{shown(answer)}."
            )
        yield _answered(one, [] if prompt is None else prompt, answer)


def _answered(line: dict[str, Any], prompt: Any, answer: Any) -> dict[str, Any]:
    """A prompt (text or turns) and its answer (text or turns, which may begin with the prompt)."""
    if isinstance(prompt, str) and isinstance(answer, str):
        return {**line, "prompt": prompt, "response": answer}
    before = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    turns = isinstance(answer, list | tuple)
    after = list(answer) if turns else [{"role": "assistant", "content": answer}]
    if not isinstance(before, list | tuple):
        return {**line, "messages": before}  # whoever reads it says what was expected
    whole = after[: len(before)] == list(before)
    return {**line, "messages": after if whole else [*before, *after]}


def _exported(record: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A text of our own export, by its own ids; samples of one prompt have names of their own."""
    if record["status"] != "done":
        raise PromptError(
            f"{where}: expected a text that is done, got one that failed "
            f"({shown(record.get('error'))}). Remove the line."
        )
    label, sample = record.get("label"), record.get("sample") or 0
    line = {key: record[key] for key in ("token_ids", "tags") if record.get(key)}
    line["id"] = f"{label}#{sample}" if label and sample else label
    turns = record.get("messages")
    if not turns:
        return {**line, "n_prompt": record["n_prompt"]}
    thought = {"thinking": record["thinking"]} if record.get("thinking") else {}
    said = {"role": "assistant", "content": record.get("response"), **thought}
    answered = len(record["token_ids"]) > record["n_prompt"]
    return {**line, "messages": [*turns, said] if answered else turns}
