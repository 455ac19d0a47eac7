"""From a prompt to token ids, and from token ids to what is known of each token.

Chats are rendered by the tokenizer's own template and tokenised without further special tokens
(or there would be two BOS).  Where a tokenizer has no template, the turns' texts are joined by
blank lines and tokenised as the tokenizer likes.  A system turn that the template refuses is
folded into the first user turn.  Roles come from the rendered text, the prompt/response boundary
from the ids.  This module does not know models or numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from traitscope.core import Int32, Message, Prompt, TokenTable, prompt_id_of
from traitscope.errors import PromptError
from traitscope.models.spans import Span, Turns, Writer, refusals, spans_of
from traitscope.models.thoughts import Marks, opened_by, thoughts_of

__all__ = ["NONE", "Arguments", "Rendered", "Speller", "render", "rendered_text"]

Arguments = Mapping[str, Any]  # further variables of a chat template
NONE: Arguments = MappingProxyType({})
_UNKNOWN_ID = (LookupError, TypeError, ValueError, OverflowError)
_FARTHEST = 64  # tokens without text that are decoded again and again


@dataclass(frozen=True)
class Rendered:
    """A prompt as the model reads it.  `spans` are (start, end, role, turn) of the turns' own
    characters in `text`; what lies outside is template.  `offsets` are the tokens' places in
    `text` as the tokenizer gives them; empty where it gives none.  `inside` are the marks of a
    thought that the prompt has opened already."""

    text: str
    token_ids: tuple[int, ...]
    spans: tuple[Span, ...]
    offsets: tuple[tuple[int, int], ...] = ()
    inside: Marks | None = None

    @property
    def prompt_id(self) -> str:
        return prompt_id_of(self.token_ids)


def render(tokenizer: Any, prompt: Prompt, arguments: Arguments = NONE) -> Rendered:
    """The prompt's ids, up to where the assistant begins to write.

    `arguments` are further variables of the chat template.  Raises PromptError where the template
    refuses the chat.
    """
    has_template = bool(getattr(tokenizer, "chat_template", None))
    if has_template:
        text, write = _apply_template(tokenizer, prompt.messages, prompt.where, arguments)
    else:
        text, write = _joined(prompt.messages), _joined
    encoded = tokenizer(
        text,
        add_special_tokens=not has_template,
        return_offsets_mapping=bool(getattr(tokenizer, "is_fast", False)),
    )
    ids = tuple(int(i) for i in encoded["input_ids"])
    if not ids:
        raise PromptError(f"{prompt.where or 'A prompt'}: expected some text, got none.")
    offsets = tuple((int(a), int(b)) for a, b in encoded.get("offset_mapping", ()))
    thoughts = thoughts_of(tokenizer)
    spans = spans_of(write, text, prompt.messages, thoughts)
    asked = text[max((span[1] for span in spans), default=0) :]
    return Rendered(text, ids, spans, offsets, opened_by(thoughts, asked))


def rendered_text(
    tokenizer: Any, prompt: Prompt, answer: Message, arguments: Arguments = NONE
) -> str | None:
    """The chat with its answer as the template writes it; None without a template.

    Raises PromptError where the template refuses it.
    """
    if not getattr(tokenizer, "chat_template", None):
        return None
    messages = (*prompt.messages, answer)
    return _apply_template(tokenizer, messages, prompt.where, arguments, ask=False)[0]


def _joined(messages: Turns) -> str:
    return "\n\n".join(m.content for m in messages)


def _template(tokenizer: Any, messages: Turns, arguments: Arguments, ask: bool) -> str:
    chat = [_as_template_has_it(m) for m in messages]
    text = tokenizer.apply_chat_template(
        chat, tokenize=False, add_generation_prompt=ask, **arguments
    )
    return str(text)


def _as_template_has_it(message: Message) -> dict[str, str]:
    """A turn with its thought under each name that templates know; they use one of them."""
    turn = {"role": message.role, "content": message.content}
    if message.thinking:
        turn |= dict.fromkeys(("reasoning_content", "thinking", "reasoning"), message.thinking)
    return turn


def _fold_system(messages: Turns) -> Turns:
    """System turns become the beginning of the user turn that follows."""
    system = [m.content for m in messages if m.role == "system"]
    others = [m for m in messages if m.role != "system"]
    if not system or not others:
        return messages
    first = replace(others[0], content="\n\n".join([*system, others[0].content]))
    return [first, *others[1:]]


def _apply_template(
    tokenizer: Any, messages: Turns, where: str, arguments: Arguments, *, ask: bool = True
) -> tuple[str, Writer]:
    """The chat as the template writes it, and how it was written."""

    def plain(turns: Turns) -> str:
        return _template(tokenizer, turns, arguments, ask)

    def folded(turns: Turns) -> str:
        return _template(tokenizer, _fold_system(turns), arguments, ask)

    try:
        return plain(messages), plain
    except refusals() as error:
        refused: Exception = error
    try:
        return folded(messages), folded
    except refusals():
        told = f" Check also {dict(arguments)}, which it is told." if arguments else ""
        raise PromptError(
            f"{where or 'A prompt'}: this model's chat template refuses it ({refused}). "
            f"Check the order and the names of the roles.{told}"
        ) from refused


class Speller:
    """Turns ids of one text into a `TokenTable`.  Holds what is constant for a tokenizer.

    `special` are the ids of its special tokens.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._thoughts = thoughts_of(tokenizer)
        added = getattr(tokenizer, "added_tokens_decoder", {})
        self.special = {int(i) for i in tokenizer.all_special_ids}
        self.special |= {int(i) for i, token in added.items() if token.special}

    def decode(self, ids: Sequence[int], *, skip_special: bool = False) -> str:
        kept = [i for i in ids if i not in self.special] if skip_special else list(ids)
        try:
            return self._decoded(kept)
        except _UNKNOWN_ID:  # as some tokenizers say that they have no such id
            return self._decoded([i for i in kept if self._has(i)])

    def _decoded(self, ids: list[int]) -> str:
        text = self._tokenizer.decode(
            ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return str(text)

    def _has(self, token: int) -> bool:
        try:
            self._decoded([token])
        except _UNKNOWN_ID:
            return False
        return True

    def answer(self, tokens: TokenTable) -> str:
        """The words of a response: without special tokens, thoughts and the marks around them."""
        written = tokens.part == "response"
        if (tokens.role[written & ~tokens.special] == "assistant").all():
            return self.decode(tokens.token_id[written].tolist(), skip_special=True)
        return tokens.words("assistant")

    def table(self, token_ids: Sequence[int], rendered: Rendered) -> TokenTable:
        """The tokens of a text: `rendered`'s prompt, then its response.

        Roles are template, system, user, assistant, thinking or tool; special tokens are template
        wherever they stand, and so are the marks around a thought.  `start` and `end` are offsets
        into the decoded text; a token that holds only a part of a character is empty, and the one
        that completes it has the character.
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
        role[n_prompt:] = self._written(text, starts[n_prompt:], ends[n_prompt:], rendered.inside)
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

    def _written(
        self, text: str, starts: Int32, ends: Int32, inside: Marks | None
    ) -> NDArray[np.str_]:
        """What each token of a response is: thought, answer, or a mark around a thought.

        A token that holds a mark and words is the words'; part of a character is what the
        character is.
        """
        if not starts.size or not self._thoughts:
            return np.full(len(starts), "assistant", dtype="<U9")
        begin = int(starts[0])
        said = text[begin:]
        kind = np.zeros(len(said) + 1, dtype=np.int8)
        for passage in self._thoughts.passages(said, inside):
            kind[passage.start : passage.end] = 1 + (passage.kind == "thinking")
        kind[-1] = kind[-2] if said else 1 + (inside is not None)
        spans = zip(starts - begin, ends - begin, strict=True)
        found = [int(kind[a : max(b, a + 1)].max()) for a, b in spans]
        return np.array(["template", "assistant", "thinking"], dtype="<U9")[found]

    def _pieces(self, ids: list[int]) -> list[str]:
        try:
            pieces = self._tokenizer.convert_ids_to_tokens(ids)
        except _UNKNOWN_ID:
            fine = {i: self._has(i) for i in set(ids)}
            pieces = [self._tokenizer.convert_ids_to_tokens(i) if fine[i] else None for i in ids]
        return ["" if piece is None else str(piece) for piece in pieces]

    def _spell(self, ids: list[int]) -> tuple[str, Int32]:
        """The decoded text and each token's end in it [T].

        Tokens are decoded together with those before them since the last whole character, so
        that leading spaces and characters of several tokens come out as in the whole text.  Ids
        that have no text (of a padded vocabulary) are no neighbour to learn a space from.
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
                if parts[-1] or done - anchor > _FARTHEST:
                    anchor = done
                done = i + 1
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
