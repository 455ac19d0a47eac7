"""What a dialogue is, and how one is put together: values, draws under a split, instructions.

A Dialogue carries its messages, the settings its last answer was drawn with, and the labels of
every word of that answer.  A Draw makes the random choices and keeps held-out phrasings (`~`) and
held-out pairs of phrasing and entity out of the training split.  Knows no kinds of dialogue.
"""

import random
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

from traitscope.pocket import phrases
from traitscope.pocket.marks import Word, mark, sentence_case

T = TypeVar("T")
Split = Literal["train", "held"]
Message = tuple[str, str]  # role, content


@dataclass(frozen=True)
class Settings:
    """What an answer was drawn with; None where a trait does not apply."""

    uncertainty: Literal["hedged", "certain"] | None = None
    commitment: Literal["firm", "noncommittal"] | None = None
    load: Literal["plain", "technical"] | None = None
    sycophancy: Literal["agreeing", "truthful"] | None = None


@dataclass(frozen=True)
class Dialogue:
    """One conversation.  `words` joined give the last answer exactly."""

    messages: tuple[Message, ...]
    kind: str
    settings: Settings
    words: tuple[Word, ...]
    gold: tuple[str, ...] = ()  # any of these in the answer makes it a right one
    wrong: str = ""  # what the user wrongly claimed
    instructed: bool = False
    held_out: bool = False

    def deciding(self) -> list[tuple[int, int]]:
        """Where the last answer decides something: the right answer, the verdict (characters)."""
        found = [m.span() for g in self.gold for m in re.finditer(re.escape(g), self.answer, re.I)]
        at = 0
        for text, labels in self.words:
            if labels & {"agreement", "correction"}:
                found.append((at, at + len(text)))
            at += len(text)
        return found

    @property
    def answer(self) -> str:
        return "".join(text for text, _ in self.words)


@dataclass
class Draw:
    """Random choices under a split: remembers whether a held-out phrasing was used."""

    rng: random.Random
    split: Split
    used_held: bool = field(default=False)

    def one(self, items: Sequence[T]) -> T:
        return items[self.rng.randrange(len(items))]

    def chance(self, p: float) -> bool:
        return self.rng.random() < p

    def phrase(self, items: Sequence[str], entity: str = "") -> str:
        """One phrasing for an entity; in the held split, the first one drawn is held out."""
        is_open = [
            x for x in items if not x.startswith("~") and not held_pair(x, entity, len(items))
        ]
        if self.split == "held" and not self.used_held:
            marked = [x for x in items if x.startswith("~")]
            pairs = [x for x in items if held_pair(x, entity, len(items))]
            pool = pairs if pairs and (not marked or self.chance(0.3)) else marked
            if pool:
                self.used_held = True
                return self.one(pool).removeprefix("~")
        return self.one(is_open or items[:1])

    def open(self, items: Sequence[str], entity: str = "") -> str:
        """One phrasing that may be trained on, in either split: for the earlier turns."""
        allowed = [x for x in items if not x.startswith("~")]
        return self.one([x for x in allowed if not held_pair(x, entity, len(items))] or allowed[:1])


def held_pair(phrasing: str, entity: str, among: int) -> bool:
    """Whether an open phrasing (of so many) is held out of training for an entity: 1 in 16."""
    if not entity or among < 4 or phrasing.startswith("~"):
        return False
    return zlib.crc32(f"{phrasing}|{entity}".encode()) % 16 == 0


def build(
    messages: Sequence[Message],
    kind: str,
    settings: Settings,
    marked: str,
    gold: tuple[str, ...] = (),
    wrong: str = "",
) -> Dialogue:
    """A dialogue whose last answer is the marked text."""
    words = mark(sentence_case(marked))
    answer = "".join(text for text, _ in words)
    turns = (*messages, ("assistant", answer))
    return Dialogue(turns, kind, settings, words, gold, wrong)


def plain_text(marked: str) -> str:
    """The text of marked text, capitalised: for the earlier answers of a dialogue."""
    return "".join(text for text, _ in mark(sentence_case(marked)))


def fill(template: str, slots: dict[str, str]) -> str:
    """A phrasing with its slots filled and its first letter a capital."""
    text = template.format(**slots)
    return text[:1].upper() + text[1:]


def instruct(draw: Draw, dialogue: Dialogue, setting: str, value: str) -> Dialogue:
    """The dialogue with an instruction before or after the first request, or as system message."""
    text = draw.phrase(phrases.INSTRUCTIONS[setting, value])
    role, content = dialogue.messages[0]
    place = draw.rng.random()
    if place < 0.45:
        first: tuple[Message, ...] = ((role, f"{content} {text}"),)
    elif place < 0.85:
        first = ((role, f"{text} {content}"),)
    else:
        first = (("system", text), (role, content))
    return replace(dialogue, messages=first + dialogue.messages[1:], instructed=True)
