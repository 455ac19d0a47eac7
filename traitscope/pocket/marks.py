"""Marked text: `[I am not sure]h but it is so` labels the words in brackets.

The letters are in LABELS; several may stand together (`[it depends]hn`).  `mark` turns marked
text into words, whose texts joined are the text without its marks.  Knows no phrases.
"""

import re

LABELS = {
    "h": "hedge",
    "s": "assertion",
    "t": "technical",
    "a": "agreement",
    "c": "correction",
    "f": "commitment",
    "n": "noncommittal",
}

Word = tuple[str, frozenset[str]]

_MARKED = re.compile(r"\[([^\]]*)\]([a-z]+)")
_SENTENCE = re.compile(r"(^|[.!?] )(\[?)([a-z])")


def sentence_case(marked: str) -> str:
    """Capitalises the first letter of every sentence of marked text."""
    return _SENTENCE.sub(lambda m: m.group(1) + m.group(2) + m.group(3).upper(), marked)


def mark(marked: str) -> tuple[Word, ...]:
    """Marked text -> words (text, labels); the texts joined are the text without its marks."""
    pieces: list[tuple[str, frozenset[str]]] = []
    at = 0
    for found in _MARKED.finditer(marked):
        pieces.append((marked[at : found.start()], frozenset()))
        pieces.append((found.group(1), frozenset(LABELS[x] for x in found.group(2))))
        at = found.end()
    pieces.append((marked[at:], frozenset()))
    words: list[Word] = []
    space = ""
    for text, labels in pieces:
        for part in re.findall(r"\s*\S+|\s+$", text):
            if not part.strip():
                space = part
            elif words and not space and not part[0].isspace() and not part[0].isalnum():
                words[-1] = (words[-1][0] + part, words[-1][1])
            else:
                words.append((space + part, labels))
                space = ""
    return tuple(words)
