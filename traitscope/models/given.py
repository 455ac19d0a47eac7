"""Token ids of a conversation that exists: where its prompt ends and what its answer's ids are.

The prompt's ids are those of the same chat when it is asked, so that the boundary comes from ids
and a token before it stands where it stood then.  The answer's ids are what the template writes
after them, up to the token that ends the turn.  This module does not know numbers or runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from traitscope.conversations import Conversation
from traitscope.errors import PromptError
from traitscope.models.text import Rendered, Speller, render, rendered_text

__all__ = ["given_ids"]


def given_ids(tokenizer: Any, conversation: Conversation) -> tuple[Rendered, tuple[int, ...]]:
    """The prompt as the model reads it, and all ids of the text, the prompt's first.

    Raises PromptError where the template refuses the chat, or where ids that were given do not
    say what the turns say.
    """
    ids = conversation.token_ids
    if not conversation.prompt.messages:
        assert ids is not None and conversation.n_prompt is not None  # as conversations.py reads
        return _without_turns(tokenizer, ids, conversation.n_prompt), ids
    rendered = render(tokenizer, conversation.prompt)
    if ids is not None:
        _check_agreement(tokenizer, conversation, rendered, ids)
        return rendered, ids
    if conversation.response is None:
        return rendered, rendered.token_ids
    answer = _answer(tokenizer, conversation, rendered, conversation.response)
    return rendered, (*rendered.token_ids, *answer)


def _without_turns(tokenizer: Any, ids: tuple[int, ...], n_prompt: int) -> Rendered:
    text = Speller(tokenizer).decode(ids[:n_prompt])
    return Rendered(text, ids[:n_prompt], ((0, len(text), "user", 0),) if text else ())


def _answer(
    tokenizer: Any, conversation: Conversation, rendered: Rendered, response: str
) -> tuple[int, ...]:
    """The answer as the template writes it; where that cannot be told apart, its own text."""
    written = rendered_text(tokenizer, conversation.prompt, answer=response)
    if written is None or not written.startswith(rendered.text):
        return _ids(tokenizer, response)
    ids, n_prompt = _ids(tokenizer, written), len(rendered.token_ids)
    if ids[:n_prompt] == rendered.token_ids:
        answer = ids[n_prompt:]
    else:  # a token reaches over the boundary: a model that was asked could not have written it
        answer = _ids(tokenizer, written[len(rendered.text) :])
    return _until_end(tokenizer, answer)


def _until_end(tokenizer: Any, ids: tuple[int, ...]) -> tuple[int, ...]:
    """Without the blank that templates write after the token that ends the turn."""
    speller = Speller(tokenizer)
    ends = [at for at, i in enumerate(ids, 1) if i in speller.special]
    blank = bool(ends) and not speller.decode(ids[ends[-1] :]).strip()
    return ids[: ends[-1]] if blank else ids


def _ids(tokenizer: Any, text: str) -> tuple[int, ...]:
    return tuple(int(i) for i in tokenizer(text, add_special_tokens=False)["input_ids"])


def _check_agreement(
    tokenizer: Any, conversation: Conversation, rendered: Rendered, ids: Sequence[int]
) -> None:
    where, n_prompt = conversation.prompt.where, len(rendered.token_ids)
    if tuple(ids[:n_prompt]) != rendered.token_ids:
        same = (a == b for a, b in zip(ids, rendered.token_ids, strict=False))
        at = next((at for at, equal in enumerate(same) if not equal), len(ids))
        raise PromptError(
            f"{where}: expected 'token_ids' to begin with the {n_prompt} ids of its turns before "
            f"the answer, got others from position {at} on. Leave the turns or the ids out."
        )
    said = Speller(tokenizer).decode(ids[n_prompt:], skip_special=True).strip()
    if conversation.response is not None and said != conversation.response.strip():
        raise PromptError(
            f"{where}: expected 'token_ids' to say what the answer says "
            f"({conversation.response.strip()[:40]!r}), got {said[:40]!r}. Leave one of them out."
        )
