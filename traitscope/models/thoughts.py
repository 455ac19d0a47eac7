"""How models mark their thoughts, as data; and which characters of a text are thought.

A model that thinks writes its thoughts between two marks, before its answer or in a channel of
their own.  Marks are found in the text, so that it makes no difference whether the tokenizer has a
token for them or spells them out.  Only those count that the tokenizer or its chat template knows,
and only where a turn begins: an answer may speak of '<think>'.  What the template's switches are
called stands here too.  This module does not know tokens, numbers or runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

__all__ = [
    "SWITCHES",
    "Marks",
    "Passage",
    "Thoughts",
    "opened_by",
    "split_thought",
    "template_text",
    "thoughts_of",
]

# names of the template's variable that turns thinking on and off, the commonest first
SWITCHES = ("enable_thinking", "thinking", "reasoning", "enable_reasoning", "think")


@dataclass(frozen=True)
class Marks:
    """One way to mark thoughts.

    `signs` must all occur in a chat template (or the one in a vocabulary) for it to count.
    `opens`, `closes` are patterns; `frames` one for what stands around an answer and is neither.
    `begin` and `end` are what is written around a thought where the template writes nothing.
    `anywhere`: an opening counts also in the middle of a turn (marks that no prose contains).
    """

    signs: tuple[str, ...]
    begin: str
    end: str
    opens: str
    closes: str
    frames: str = ""
    anywhere: bool = False


def _pair(opens: str, closes: str, begin: str = "{}\n", end: str = "\n{}\n\n") -> Marks:
    """Marks that are two fixed words."""
    return Marks(
        signs=(closes,),
        begin=begin.format(opens),
        end=end.format(closes),
        opens=re.escape(opens),
        closes=re.escape(closes),
    )


_HARMONY = r"(?:<\|start\|>assistant)?(?: to=[^<]*)?<\|channel\|>"
_SOLAR = r"(?:<\|begin\|>assistant)?"

# the first of two that open alike wins
_KNOWN = (
    Marks(  # Hunyuan, and others that frame the answer too
        signs=("</think>", "<answer>"),
        begin="<think>\n",
        end="\n</think>\n<answer>\n",
        opens="<think>",
        closes=r"</think>(?:\s*<answer>)?",
        frames="</answer>",
    ),
    _pair("<think>", "</think>"),
    _pair("<thought>", "</thought>"),
    _pair("<thinking>", "</thinking>"),
    _pair("<reasoning>", "</reasoning>"),
    _pair("<seed:think>", "</seed:think>", "{}", "{}"),
    _pair("[THINK]", "[/THINK]", "{}", "{}"),
    _pair("◁think▷", "◁/think▷", "{}", "{}"),
    _pair("<|START_THINKING|>", "<|END_THINKING|>", "{}", "{}"),
    _pair("<|THINK_START|>", "<|THINK_END|>", "{}", "{}"),
    _pair("<|inner_prefix|>", "<|inner_suffix|>", "{}", "{}"),
    _pair("<|begin_of_thought|>", "<|end_of_thought|>"),
    _pair("Here is my thought process:", "Here is my response:", "{}\n\n", "\n\n{}\n\n"),
    Marks(  # Gemma 4: a channel named thought
        signs=("<|channel>", "<channel|>"),
        begin="<|channel>thought\n",
        end="\n<channel|>",
        opens=r"<\|channel>thought\b",
        closes=r"<channel\|>",
        anywhere=True,
    ),
    Marks(  # Solar: a message of its own
        signs=("<|think|>", "<|content|>"),
        begin="<|think|>",
        end="<|end|><|begin|>assistant<|content|>",
        opens=_SOLAR + r"<\|think\|>",
        closes=r"<\|end\|>(?:<\|begin\|>assistant<\|content\|>)?",
        frames=_SOLAR + r"<\|content\|>",
        anywhere=True,
    ),
    Marks(  # Harmony: channels; what is not analysis is said
        signs=("<|channel|>", "<|message|>"),
        begin="<|channel|>analysis<|message|>",
        end="<|end|><|start|>assistant<|channel|>final<|message|>",
        opens=_HARMONY + r"analysis[^<]*<\|message\|>",
        closes=r"<\|(?:end|return|call)\|>",
        frames=_HARMONY + r"[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>",
        anywhere=True,
    ),
)


@dataclass(frozen=True)
class Passage:
    """A stretch of a text that is thought or answer; what lies between passages is marks."""

    start: int
    end: int
    kind: Literal["thinking", "assistant"]


@dataclass(frozen=True)
class Thoughts:
    """The marks that a tokenizer knows; false where it knows none."""

    marks: tuple[Marks, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.marks)

    def passages(self, text: str, inside: Marks | None = None) -> list[Passage]:
        """The passages of what an assistant wrote; `inside`: a thought is open when it begins.

        Blanks beside a mark belong to the mark, as the templates write them.
        """
        return [p for p in self._walk(text, inside) if p.start < p.end]

    def _walk(self, text: str, inside: Marks | None) -> Iterator[Passage]:
        at, marked = 0, inside is not None  # whether a mark stands before `at`
        while True:
            if inside is not None:
                close = re.compile(inside.closes).search(text, at)
                end = len(text) if close is None else close.start()
                yield _trimmed(text, at, end, "thinking", before=True, after=close is not None)
                if close is None:
                    return
                at, marked, inside = close.end(), True, None
                continue
            opened, start, end = self._next(text, at, fresh=marked or at == 0)
            more = start < end
            yield _trimmed(text, at, start, "assistant", before=marked, after=more)
            if not more:
                return
            at, marked, inside = end, True, opened

    def _next(self, text: str, at: int, *, fresh: bool) -> tuple[Marks | None, int, int]:
        """The next mark from `at` outside of a thought: what it opens (None: nothing), where it
        begins and ends; the text's end where there is none."""
        for marks in self.marks:
            here = re.compile(rf"\s*(?:{marks.opens})").match(text, at) if fresh else None
            if here:
                return marks, here.start(), here.end()
        for marks in self.marks:
            bare = re.compile(rf"\s*(?:{marks.closes})").match(text, at) if fresh else None
            if bare:  # a thought that was never opened, or closed by the prompt
                return None, bare.start(), bare.end()
        found = [
            (place.start(), -place.end(), opened)
            for marks in self.marks
            for pattern, opened in _later(marks)
            if (place := re.compile(pattern).search(text, at))
        ]
        if not found:
            return None, len(text), len(text)
        start, end, opened = min(found, key=lambda each: each[:2])
        return opened, start, -end


def _later(marks: Marks) -> Iterator[tuple[str, Marks | None]]:
    """Patterns of marks that count in the middle of an answer, and what they open."""
    if marks.anywhere:
        yield marks.opens, marks
        yield marks.closes, None
    if marks.frames:
        yield marks.frames, None


def _trimmed(
    text: str,
    start: int,
    end: int,
    kind: Literal["thinking", "assistant"],
    *,
    before: bool,
    after: bool,
) -> Passage:
    if before:
        start = min(end, start + len(text[start:end]) - len(text[start:end].lstrip()))
    if after:
        end = max(start, start + len(text[start:end].rstrip()))
    return Passage(start, end, kind)


def opened_by(thoughts: Thoughts, asked: str) -> Marks | None:
    """The marks of a thought that is open where a prompt ends; `asked` is what its template
    writes behind the last turn."""
    open_at = {}
    for marks in thoughts.marks:
        ends = [found.end() for found in re.finditer(marks.opens, asked)]
        if ends and not re.compile(marks.closes).search(asked, ends[-1]):
            open_at[ends[-1]] = marks
    return open_at[max(open_at)] if open_at else None


def thoughts_of(tokenizer: Any) -> Thoughts:
    """The marks that a tokenizer knows: those of its chat template or of its vocabulary."""
    template = template_text(tokenizer)
    known = [
        marks
        for marks in _KNOWN
        if all(sign in template for sign in marks.signs)
        or (len(marks.signs) == 1 and _has_token(tokenizer, marks.signs[0]))
    ]
    # of two that open alike the first
    return Thoughts(tuple({marks.opens: marks for marks in reversed(known)}.values()))


def _has_token(tokenizer: Any, piece: str) -> bool:
    try:
        number = tokenizer.convert_tokens_to_ids(piece)
        return number is not None and tokenizer.convert_ids_to_tokens(number) == piece
    except (LookupError, TypeError, ValueError):  # a tokenizer of characters has no such pieces
        return False


def template_text(tokenizer: Any) -> str:
    """The source of the chat template (of all, where there are several); "" without one."""
    template = getattr(tokenizer, "chat_template", None) or ""
    return "\n".join(template.values()) if isinstance(template, dict) else str(template)


def split_thought(
    thoughts: Thoughts, said: str, inside: Marks | None = None
) -> tuple[str, str] | None:
    """A turn that holds its thought in its text, as (thought, answer); None where it holds none."""
    passages = thoughts.passages(said, inside)
    if not any(p.kind == "thinking" for p in passages):
        return None
    return _joined(said, passages, "thinking"), _joined(said, passages, "assistant")


def _joined(text: str, passages: Sequence[Passage], kind: str) -> str:
    return "\n\n".join(text[p.start : p.end] for p in passages if p.kind == kind)
