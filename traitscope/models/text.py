"""From a prompt to token ids, and from token ids to what is known of each token.

Chats are rendered by the tokenizer's own template and tokenised without further special tokens
(or there would be two BOS).  Where a tokenizer has no template, the turns' texts are joined by
blank lines and tokenised as the tokenizer likes.  A system turn that the template refuses is
folded into the first user turn.  Roles come from the rendered text, the prompt/response boundary
from the ids.  This module does not know models or numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from traitscope.core import Int32, Prompt, TokenTable, prompt_id_of
from traitscope.errors import PromptError

__all__ = ["Rendered", "Speller", "render", "rendered_text"]


@dataclass(frozen=True)
class Rendered:
    """A prompt as the model reads it.  `spans` are (start, end, role, turn) of the turns' own
    characters in `text`; what lies outside is template.  `offsets` are the tokens' places in
    `text` as the tokenizer gives them; empty where it gives none."""

    text: str
    token_ids: tuple[int, ...]
    spans: tuple[tuple[int, int, str, int], ...]
    offsets: tuple[tuple[int, int], ...] = ()

    @property
    def prompt_id(self) -> str:
        return prompt_id_of(self.token_ids)


def render(tokenizer: Any, prompt: Prompt) -> Rendered:
    """The prompt's ids, up to where the assistant begins to write.

    Raises PromptError where the template refuses the chat.
    """
    messages = [(m.role, m.content) for m in prompt.messages]
    has_template = bool(getattr(tokenizer, "chat_template", None))
    if has_template:
        text, write = _apply_template(tokenizer, messages, prompt.where)
    else:
        text, write = _joined(messages), _joined
    encoded = tokenizer(
        text,
        add_special_tokens=not has_template,
        return_offsets_mapping=bool(getattr(tokenizer, "is_fast", False)),
    )
    ids = tuple(int(i) for i in encoded["input_ids"])
    if not ids:
        raise PromptError(f"{prompt.where or 'A prompt'}: expected some text, got none.")
    offsets = tuple((int(a), int(b)) for a, b in encoded.get("offset_mapping", ()))
    return Rendered(text, ids, _spans(write, text, messages), offsets)


def rendered_text(tokenizer: Any, prompt: Prompt, answer: str) -> str | None:
    """The chat with its answer as the template writes it; None without a template.

    Raises PromptError where the template refuses it.
    """
    if not getattr(tokenizer, "chat_template", None):
        return None
    messages = [*((m.role, m.content) for m in prompt.messages), ("assistant", answer)]
    return _apply_template(tokenizer, messages, prompt.where, ask=False)[0]


_Turns = list[tuple[str, str]]
_Writer = Callable[[_Turns], str]


def _joined(messages: _Turns) -> str:
    return "\n\n".join(content for _, content in messages)


def _template(tokenizer: Any, messages: _Turns, *, ask: bool = True) -> str:
    chat = [{"role": role, "content": content} for role, content in messages]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=ask)
    return str(text)


def _fold_system(messages: _Turns) -> _Turns:
    """System turns become the beginning of the user turn that follows."""
    system = [content for role, content in messages if role == "system"]
    others = [(role, content) for role, content in messages if role != "system"]
    if not system or not others:
        return messages
    role, first = others[0]
    return [(role, "\n\n".join([*system, first])), *others[1:]]


def _apply_template(
    tokenizer: Any, messages: _Turns, where: str, *, ask: bool = True
) -> tuple[str, _Writer]:
    """The chat as the template writes it, and how it was written."""
    from jinja2.exceptions import TemplateError

    def plain(turns: _Turns) -> str:
        return _template(tokenizer, turns, ask=ask)

    def folded(turns: _Turns) -> str:
        return _template(tokenizer, _fold_system(turns), ask=ask)

    try:
        return plain(messages), plain
    except TemplateError as error:
        refused = error
    try:
        return folded(messages), folded
    except TemplateError:
        raise PromptError(
            f"{where or 'A prompt'}: this model's chat template refuses it ({refused}). "
            "Check the order and the names of the roles."
        ) from refused


def _spans(write: _Writer, text: str, messages: _Turns) -> tuple[tuple[int, int, str, int], ...]:
    """Where each turn's own characters stand in the rendered text.

    The chat is rendered once more with marks in place of the contents: the pieces between the
    marks are the template's.  Where a template changes or refuses contents, the contents are
    searched for one after the other, from the end of the last.
    """
    marks = [f"⟦{i}⟧" for i in range(len(messages))]
    pieces = _pieces(write, messages, marks)
    if pieces is not None:
        for strip in (False, True):
            spans = _walk(pieces, text, messages, strip)
            if spans is not None:
                return spans
    spans_found, at = [], 0
    for turn, (role, content) in enumerate(messages):
        start = text.find(content.strip(), at)
        if start >= 0:
            at = start + len(content.strip())
            spans_found.append((start, at, role, turn))
    return tuple(spans_found)


def _pieces(write: _Writer, messages: _Turns, marks: list[str]) -> list[str] | None:
    from jinja2.exceptions import TemplateError

    try:
        marked = write([(role, mark) for (role, _), mark in zip(messages, marks, strict=True)])
    except TemplateError:
        return None
    pieces, rest = [], marked
    for mark in marks:
        before, found, rest = rest.partition(mark)
        if not found:
            return None
        pieces.append(before)
    return [*pieces, rest]


def _walk(
    pieces: list[str], text: str, messages: _Turns, strip: bool
) -> tuple[tuple[int, int, str, int], ...] | None:
    spans, at = [], 0
    for turn, ((role, content), piece) in enumerate(zip(messages, pieces, strict=False)):
        content = content.strip() if strip else content
        if not text.startswith(piece + content, at):
            return None
        start = at + len(piece)
        at = start + len(content)
        spans.append((start, at, role, turn))
    return tuple(spans) if text[at:] == pieces[-1] else None


class Speller:
    """Turns ids of one text into a `TokenTable`.  Holds what is constant for a tokenizer.

    `special` are the ids of its special tokens.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        added = getattr(tokenizer, "added_tokens_decoder", {})
        self.special = {int(i) for i in tokenizer.all_special_ids}
        self.special |= {int(i) for i, token in added.items() if token.special}

    def decode(self, ids: Sequence[int], *, skip_special: bool = False) -> str:
        kept = [i for i in ids if i not in self.special] if skip_special else list(ids)
        text = self._tokenizer.decode(
            kept, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return str(text)

    def table(self, token_ids: Sequence[int], rendered: Rendered) -> TokenTable:
        """The tokens of a text: `rendered`'s prompt, then its response.

        Roles are template, system, user, assistant or tool; special tokens are template wherever
        they stand.  `start` and `end` are offsets into the decoded text; a token that holds only
        a part of a character is empty, and the one that completes it has the character.
        """
        ids = [int(i) for i in token_ids]
        n_prompt = len(rendered.token_ids)
        text, ends = self._spell(ids)
        starts = np.concatenate([[0], ends[:-1]]).astype(np.int32)
        special = np.array([i in self.special for i in ids], dtype=np.bool_)
        role = np.full(len(ids), "template", dtype="<U9")
        turn = np.zeros(len(ids), dtype=np.int32)
        begin, finish = self._located(rendered, text, starts[:n_prompt], ends[:n_prompt])
        for start, end, name, number in rendered.spans:
            # a token may bring the space before; part of a character is empty, and stands before it
            reached = (begin >= start) | (finish > start)
            turn[:n_prompt][reached] = number
            if start < end:
                role[:n_prompt][reached & (begin < end)] = name
        role[n_prompt:] = "assistant"
        turn[n_prompt:] = 1 + max((span[3] for span in rendered.spans), default=-1)
        role[special] = "template"
        return TokenTable(
            token_id=np.array(ids, dtype=np.int32),
            role=role,
            part=np.where(np.arange(len(ids)) < n_prompt, "prompt", "response"),
            special=special,
            turn=turn,
            piece=tuple(self._pieces(ids)),
            start=starts,
            end=ends,
            text=text,
        )

    def _pieces(self, ids: list[int]) -> list[str]:
        pieces = self._tokenizer.convert_ids_to_tokens(ids)
        return ["" if piece is None else str(piece) for piece in pieces]

    def _spell(self, ids: list[int]) -> tuple[str, Int32]:
        """The decoded text and each token's end in it [T].

        Tokens are decoded together with those before them since the last whole character, so
        that leading spaces and characters of several tokens come out as in the whole text.
        """
        parts: list[str] = []
        ends = np.zeros(len(ids), dtype=np.int32)
        length, anchor, done = 0, 0, 0
        for i in range(len(ids)):
            before = self.decode(ids[anchor:done])
            now = self.decode(ids[anchor : i + 1])
            whole = not now.endswith("�") or i == len(ids) - 1
            if whole and len(now) >= len(before):
                parts.append(now[len(before) :])
                length += len(parts[-1])
                anchor, done = done, i + 1
            ends[i] = length
        return "".join(parts), ends

    def _located(
        self, rendered: Rendered, text: str, starts: Int32, ends: Int32
    ) -> tuple[Int32, Int32]:
        """Where the prompt's tokens stand in the rendered text: starts and ends.

        The decoded text is the rendered one with, at most, something before it (a BOS that the
        tokenizer adds).  Where it is not (SentencePiece puts spaces between its sections, an
        unknown character has no text), the tokenizer's own offsets say it.
        """
        prompt_text = text[: int(ends[-1])] if len(ends) else ""
        shift = prompt_text.find(rendered.text)
        if shift < 0 and rendered.offsets:
            offsets = np.array(rendered.offsets, dtype=np.int32)
            return np.maximum.accumulate(offsets[:, 0]), offsets[:, 1]
        if shift < 0:  # normalised: keep the ends aligned
            shift = max(len(prompt_text) - len(rendered.text), 0)
        return starts - shift, ends - shift
