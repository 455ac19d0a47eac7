"""Text of people and models, made safe to show: nothing in it can steer a screen.

Prompts and answers are data.  An escape sequence in them would move the cursor, a bidirectional
override would turn a line around; both are shown as a visible sign.  Markup of the drawing library
is none of this module's business: the drawing code never parses text as markup.
"""

from __future__ import annotations

import unicodedata

__all__ = ["around", "one_line", "shorten"]

_JOINERS = "\u200c\u200d"  # they build emoji and letters of many scripts, and do nothing alone
_SPACES = dict.fromkeys(map(ord, "\t\n\r\v\f\x85\u2028\u2029"), " ")


def one_line(text: str) -> str:
    """`text` on one line: line ends and tabs as spaces, other invisible characters as a sign."""
    text = text.translate(_SPACES)
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_shown, text))


def _shown(character: str) -> str:
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)  # the control pictures: escape as U+241B
    if code == 0x7F:
        return "\u2421"
    kind = unicodedata.category(character)
    hidden = kind in ("Cc", "Cs", "Co", "Cn") or (kind == "Cf" and character not in _JOINERS)
    return "\ufffd" if hidden else character


def shorten(text: str, length: int, ellipsis: str = "…") -> str:
    """At most `length` characters, cut at the end."""
    return text if len(text) <= length else text[: max(length - len(ellipsis), 0)] + ellipsis


def around(text: str, start: int, end: int, margin: int) -> tuple[str, str, str]:
    """The piece [start, end) of `text` with up to `margin` characters on either side."""
    return text[max(start - margin, 0) : start], text[start:end], text[end : end + margin]
