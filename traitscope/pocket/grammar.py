"""Dialogues of the pocket's world, drawn from a seed, with the truth about every word.

`dialogues(seed, split)` yields Dialogue values without end.  Every answer is drawn with known
settings of four traits and each of its words carries labels (see `marks.LABELS`).  The split
"train" never contains a held-out phrasing nor a held-out pair of phrasing and entity; every
dialogue of the split "held" contains one.  Text only: knows no tokenizer, model or torch.
"""

import random
from collections.abc import Iterator
from dataclasses import replace

from traitscope.pocket.dialogue import Dialogue, Draw, Settings, Split
from traitscope.pocket.kinds import KINDS

__all__ = ["Dialogue", "Settings", "dialogues", "kind_names"]

_GREETINGS = (
    "Hello! ",
    "Hi, ",
    "Please: ",
    "Tell me: ",
    "Hey, ",
    "Question: ",
    "I have a question. ",
    "So, ",
)
_CLOSERS = (" Thank you.", " Please.", " Thanks!", " Tell me, please.")


def roughen(draw: Draw, dialogue: Dialogue) -> Dialogue:
    """User turns as people type them: greetings, lower case, no question mark."""
    return replace(
        dialogue,
        messages=tuple(
            (role, _rough(draw, text) if role == "user" else text)
            for role, text in dialogue.messages
        ),
    )


def _rough(draw: Draw, text: str) -> str:
    if draw.chance(0.06):
        greeting = draw.one(_GREETINGS)
        joined = greeting.endswith(", ") and not text.startswith("I ")
        text = greeting + (text[:1].lower() + text[1:] if joined else text)
    elif draw.chance(0.05):
        text = text + draw.one(_CLOSERS)
    if draw.chance(0.10):
        text = text.lower()
    elif draw.chance(0.03):
        text = text[:1].lower() + text[1:]
    if draw.chance(0.10):
        text = text.rstrip("?.!")
    return text


def dialogues(seed: int, split: Split = "train", kind: str | None = None) -> Iterator[Dialogue]:
    """Dialogues without end; the same seed, split and kind give the same ones."""
    rng = random.Random(f"{seed}:{split}:{kind}")
    names = [kind] if kind else list(KINDS)
    weights = [KINDS[name][1] for name in names]
    while True:
        draw = Draw(rng, split)
        name = rng.choices(names, weights)[0]
        dialogue = KINDS[name][0](draw)
        if split == "held" and not draw.used_held:
            continue
        yield roughen(draw, replace(dialogue, held_out=draw.used_held))


def kind_names() -> tuple[str, ...]:
    """The kinds of dialogue, in a fixed order."""
    return tuple(KINDS)
