"""Where each turn's own characters stand in a rendered chat; what lies outside is template.

The chat is rendered once more with marks in place of the contents: the pieces between the marks
are the template's.  Where a template changes or refuses contents, the contents are searched for
one after the other.  This module knows texts; not tokens, and not what a template looks like.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from traitscope.core import Message
from traitscope.models.thoughts import Thoughts, split_thought

__all__ = ["Span", "Turns", "Writer", "refusals", "spans_of"]

Turns = Sequence[Message]
Writer = Callable[[Turns], str]
Span = tuple[int, int, str, int]  # start, end, role, turn


class _Slot(NamedTuple):
    """A place of the chat where somebody's own words go."""

    turn: int
    role: str
    content: str
    mark: str


def spans_of(write: Writer, text: str, messages: Turns, thoughts: Thoughts) -> tuple[Span, ...]:
    """The spans of `text`, which is `write(messages)`, in order; thoughts have their own."""
    apart = [_apart(m, thoughts) for m in messages]
    spans = _walked(write, text, messages)
    if spans is None and apart != list(messages) and _written(write, apart) == text:
        spans = _walked(write, text, apart)  # a template that takes thoughts out of the text
    if spans is None:
        spans = _searched(text, messages, apart)
    return tuple(part for span in spans for part in _parted(text, span, thoughts))


def _apart(message: Message, thoughts: Thoughts) -> Message:
    """A turn of an assistant who thought aloud, with the thought apart from the answer."""
    if message.role != "assistant" or message.thinking:
        return message
    parts = split_thought(thoughts, message.content)
    return message if parts is None else replace(message, thinking=parts[0], content=parts[1])


def _parted(text: str, span: Span, thoughts: Thoughts) -> Iterator[Span]:
    """A span; that of an assistant who thought aloud in its parts, without the marks."""
    start, end, role, turn = span
    said = text[start:end]
    if role != "assistant" or split_thought(thoughts, said) is None:
        yield span
        return
    for passage in thoughts.passages(said):
        yield start + passage.start, start + passage.end, passage.kind, turn


def _slots(messages: Turns) -> Iterator[_Slot]:
    for turn, m in enumerate(messages):
        if m.thinking:
            yield _Slot(turn, "thinking", m.thinking, f"⟦{turn}?⟧")
        yield _Slot(turn, m.role, m.content, f"⟦{turn}⟧")


def _walked(write: Writer, text: str, messages: Turns) -> list[Span] | None:
    """The spans by what the template writes between marks; None where it does not add up."""
    found = _pieces(write, messages)
    if found is None:
        return None
    slots, pieces = found
    spans, at = [], 0
    for slot, before, behind in zip(slots, pieces, pieces[1:], strict=False):
        start = at + len(before)
        content = _as_written(text, start, slot.content, behind)
        if content is None or not text.startswith(before, at):
            return None
        at = start + len(content)
        spans.append((start, at, slot.role, slot.turn))
    return spans if text[at:] == pieces[-1] else None


def _as_written(text: str, start: int, content: str, behind: str) -> str | None:
    """A content as it stands at `start`, before `behind`: whole, or without blanks at its ends."""
    for each in (content, content.strip("\n"), content.rstrip(), content.lstrip(), content.strip()):
        if text.startswith(each + behind, start):
            return each
    return None


def _pieces(write: Writer, messages: Turns) -> tuple[list[_Slot], list[str]] | None:
    """The slots that the template fills, in order, and the pieces around them (one more)."""
    marks = [
        replace(m, content=f"⟦{turn}⟧", thinking=f"⟦{turn}?⟧" if m.thinking else "")
        for turn, m in enumerate(messages)
    ]
    rest = _written(write, marks)
    if rest is None:
        return None
    slots, pieces = [], []
    for slot in _slots(messages):
        before, found, behind = rest.partition(slot.mark)
        if found:
            slots.append(slot)
            pieces.append(before)
            rest = behind
        elif slot.role != "thinking":  # thoughts of earlier turns are often left out
            return None
    return slots, [*pieces, rest]


def _written(write: Writer, messages: Turns) -> str | None:
    try:
        return write(messages)
    except refusals():
        return None


def refusals() -> tuple[type[Exception], ...]:
    """What a template raises that cannot take a chat, or a value that it was given."""
    from jinja2.exceptions import TemplateError

    return TemplateError, TypeError, ValueError, LookupError, AttributeError


def _searched(text: str, messages: Turns, apart: Turns) -> list[Span]:
    """The contents that are found, each from the end of the last."""
    spans, at = [], 0
    for turn, versions in enumerate(zip(messages, apart, strict=True)):
        for version in dict.fromkeys(versions):
            found = []
            for slot in _slots([version]):
                content = slot.content.strip()
                start = text.find(content, at)
                if start >= 0:
                    found.append((start, start + len(content), slot.role, turn))
                    at = start + len(content)
            spans += found
            if any(role != "thinking" for _, _, role, _ in found):
                break
    return spans
