"""Token ids of a conversation that exists: where its prompt ends and what its answer's ids are.

The prompt's ids are those of the same chat when it is asked, so that the boundary comes from ids
and a token before it stands where it stood then.  The answer's ids are what the template writes
after them, up to the token that ends the turn; a thought that the template does not write is put
between the model's marks.  This module does not know numbers or runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from traitscope.conversations import Conversation
from traitscope.core import Message, Prompt
from traitscope.errors import PromptError
from traitscope.models.text import NONE, Arguments, Rendered, Speller, render, rendered_text
from traitscope.models.thoughts import Thoughts, opened_by, split_thought, thoughts_of

__all__ = ["frame_of", "given_ids"]

_ANSWER = "⟦answer⟧"


def given_ids(
    tokenizer: Any, conversation: Conversation, arguments: Arguments = NONE
) -> tuple[Rendered, tuple[int, ...]]:
    """The prompt as the model reads it, and all ids of the text, the prompt's first.

    Raises PromptError where the template refuses the chat, where ids that were given do not say
    what the turns say, and for a thought where the model marks none.
    """
    ids = conversation.token_ids
    if not conversation.prompt.messages:
        assert ids is not None and conversation.n_prompt is not None  # as conversations.py reads
        return _without_turns(tokenizer, ids, conversation.n_prompt), ids
    rendered = render(tokenizer, conversation.prompt, arguments)
    if ids is not None:
        _check_agreement(tokenizer, conversation, rendered, ids)
        return rendered, ids
    if conversation.response is None:
        return rendered, rendered.token_ids
    answer = _answer(tokenizer, conversation, rendered, arguments)
    return rendered, (*rendered.token_ids, *answer)


def frame_of(tokenizer: Any, prompt: Prompt, rendered: Rendered, arguments: Arguments) -> str:
    """What stands between a prompt and an answer that was not thought about: an empty thought, a
    channel's name, or nothing (and nothing for a model that does not think)."""
    thoughts = thoughts_of(tokenizer)
    if not thoughts:
        return ""
    answer = Message("assistant", _ANSWER)
    written = rendered_text(tokenizer, prompt, answer, arguments) or ""
    if written.startswith(rendered.text):
        frame, found, _ = written[len(rendered.text) :].partition(_ANSWER)
        if found and not _in_thought(thoughts, rendered, frame):
            return frame
    return "" if rendered.inside is None else rendered.inside.end


def _in_thought(thoughts: Thoughts, rendered: Rendered, frame: str) -> bool:
    """Whether what follows a frame would be thought."""
    last = thoughts.passages(frame + _ANSWER, rendered.inside)[-1:]
    return [passage.kind for passage in last] == ["thinking"]


def _without_turns(tokenizer: Any, ids: tuple[int, ...], n_prompt: int) -> Rendered:
    text = Speller(tokenizer).decode(ids[:n_prompt])
    spans = ((0, len(text), "user", 0),) if text else ()
    return Rendered(text, ids[:n_prompt], spans, (), opened_by(thoughts_of(tokenizer), text))


def _answer(
    tokenizer: Any, conversation: Conversation, rendered: Rendered, arguments: Arguments
) -> tuple[int, ...]:
    """The answer as the template writes it; where that cannot be told apart, its own text."""
    thoughts, said = thoughts_of(tokenizer), conversation.answer
    if said.thinking and not thoughts:
        raise PromptError(
            f"{conversation.prompt.where}: expected an answer alone, since this model's template "
            "has no place for thoughts, got one with a thought. Leave it out, or make it part of "
            "the answer."
        )
    written = rendered_text(tokenizer, conversation.prompt, said, arguments)
    if written is None or not written.startswith(rendered.text):
        return _ids(tokenizer, _composed(thoughts, rendered, said, written))
    after = written[len(rendered.text) :]
    if not _holds(thoughts, rendered, said, after):
        return _ids(tokenizer, _composed(thoughts, rendered, said, written))
    ids, n_prompt = _ids(tokenizer, written), len(rendered.token_ids)
    if ids[:n_prompt] == rendered.token_ids:
        answer = ids[n_prompt:]
    else:  # a token reaches over the boundary: a model that was asked could not have written it
        answer = _ids(tokenizer, after)
    return _until_end(tokenizer, answer)


def _parts(thoughts: Thoughts, rendered: Rendered, said: Message) -> tuple[str, str]:
    """Thought and answer, also where the thought is part of the text."""
    if said.thinking:
        return said.thinking, said.content
    apart = split_thought(thoughts, said.content)
    if apart is None and rendered.inside and _closes(thoughts, rendered, said.content):
        apart = split_thought(thoughts, said.content, rendered.inside)
    return apart or ("", said.content)


def _closes(thoughts: Thoughts, rendered: Rendered, content: str) -> bool:
    """Whether a text closes the thought that its prompt has opened."""
    passages = thoughts.passages(content, rendered.inside)
    return any(p.kind == "assistant" for p in passages)


def _holds(thoughts: Thoughts, rendered: Rendered, said: Message, after: str) -> bool:
    """Whether the template wrote all that was said, the thought as thought."""
    if not thoughts:
        return True
    wanted = _parts(thoughts, rendered, said)
    if not any(wanted):
        return True
    got = split_thought(thoughts, after, rendered.inside) or ("", after)
    return wanted[0].strip() in got[0] and wanted[1].strip() in got[1]


def _composed(thoughts: Thoughts, rendered: Rendered, said: Message, written: str | None) -> str:
    """A turn that the template does not write as the model would: thought, marks and answer."""
    thought, answer = _parts(thoughts, rendered, said)
    inside = rendered.inside
    if not thought and inside is None:
        return said.content
    marks = inside or thoughts.marks[0]
    begin = "" if inside is not None else marks.begin
    _, found, closing = (written or "").rpartition(answer.strip() or "\0")
    return f"{begin}{thought.strip()}{marks.end}{answer}{closing.rstrip() if found else ''}"


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
    if conversation.response is None:
        return
    thoughts, speller = thoughts_of(tokenizer), Speller(tokenizer)
    said = speller.decode(ids[n_prompt:], skip_special=True).strip()
    wanted = _parts(thoughts, rendered, conversation.answer)[1].strip()
    if said not in (wanted, conversation.response.strip()) and thoughts:
        said = speller.table(ids, rendered).words("assistant").strip()
    if said not in (wanted, conversation.response.strip()):
        raise PromptError(
            f"{where}: expected 'token_ids' to say what the answer says "
            f"({wanted[:40]!r}), got {said[:40]!r}. Leave one of them out."
        )
