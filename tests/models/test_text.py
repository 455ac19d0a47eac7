"""Texts: what the model reads, whose words each token is, and where it stands in the text.

Two kinds of tokenizer: bytes, where a character may be many tokens, and SentencePiece's, where a
piece carries the space before it and the text decoded is not always the text given.

A special token that a user types ('<eos>') is read as that special token, since a rendered chat
is tokenised as one text, as every tool does it.  It is template and special wherever it stands,
so that it enters no mean.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from jinja2.exceptions import TemplateError
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from tests.tiny import TEMPLATE, tokenizer
from traitscope.core import Message, Prompt, TokenTable, prompt_id_of
from traitscope.errors import PromptError
from traitscope.models import Rendered, Speller, render

GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}<start>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
    "{{ m['content'] | trim }}<end>\n{% endfor %}"
    "{% if add_generation_prompt %}<start>model\n{% endif %}"
)
DECORATED = (
    "{% for m in messages %}[{{ m['role'] | upper }}] {{ m['content'] }} !\n{% endfor %}"
    "{% if add_generation_prompt %}[ASSISTANT]{% endif %}"
)
LOUD = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] | upper }}\n{% endfor %}assistant:"
ODD = (
    "Grüße, naïve café",
    "Привет, мир",
    "你好，世界",
    "こんにちは",
    "مرحبا بالعالم",
    "שלום עולם",
    "नमस्ते",
    "🦊🌲 👩‍👩‍👧 🇫🇮",
    "e\u0301a\u0308\u0323o\u0302\u0301",
    "a\tb\n\n c  ",
    "x\u200by\ufeffz",
    "x² ≤ ∞ — “quoted”…",
    "\u202eright to left\u202c",
    "Zal\u0336\u0321\u034dgo" * 4,
    "Donaudampfschifffahrtsgesellschaftskapitän" * 12,
    "�",
    "a�b",
    "\x00\x7f",
    "C:\\path\\to",
    "⟦0⟧ ⟦1⟧",
)


def _bytes(template: str | None = TEMPLATE, **options: Any) -> Any:
    """The byte tokenizer, with another template."""
    made = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(tokenizer().backend_tokenizer.to_str()),
        bos_token="<bos>",
        eos_token="<eos>",
        **options,
    )
    made.chat_template = template
    return made


@lru_cache
def _backend() -> str:
    """A Unigram over pieces that carry their space, with bytes to fall back on."""
    raw = Tokenizer(models.Unigram())
    raw.normalizer = normalizers.Replace(" ", "▁")
    raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    words = "the user asks the assistant and the model answers hello there my friend system"
    trainer = trainers.UnigramTrainer(
        vocab_size=90,
        special_tokens=["<unk>", "<bos>", "<eos>"],
        unk_token="<unk>",
        show_progress=False,
    )
    raw.train_from_iterator([words] * 20 + list("abcdefghijklmnopqrstuvwxyz[]:!/.,\n"), trainer)
    raw.add_special_tokens([AddedToken("<bos>"), AddedToken("<eos>")])
    raw.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return str(raw.to_str())


def _pieces(template: str | None = TEMPLATE, *, adds_bos: bool = True) -> Any:
    raw = Tokenizer.from_str(_backend())
    if adds_bos:
        raw.post_processor = processors.TemplateProcessing(
            single="<bos> $A", special_tokens=[("<bos>", raw.token_to_id("<bos>"))]
        )
    made = PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<bos>", eos_token="<eos>", unk_token="<unk>"
    )
    made.chat_template = template
    return made


def _chat(*turns: tuple[str, str]) -> Prompt:
    return Prompt(tuple(Message(role, content) for role, content in turns))


def _table(made: Any, prompt: Prompt, response: str = "") -> tuple[Rendered, TokenTable]:
    rendered = render(made, prompt)
    new = made(response, add_special_tokens=False)["input_ids"] if response else []
    table = Speller(made).table([*rendered.token_ids, *new], rendered)
    _whole(made, rendered, table)
    return rendered, table


def _whole(made: Any, rendered: Rendered, table: TokenTable) -> None:
    """What holds of every table: pieces join to the text, nothing is left out or overlaps."""
    ids = table.token_id.tolist()
    joined = "".join(table.text[a:b] for a, b in zip(table.start, table.end, strict=True))
    assert joined == table.text
    assert table.text == made.decode(
        ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
    )
    assert (table.start <= table.end).all()
    assert table.end[-1] == len(table.text)
    assert len(table.piece) == len(ids)
    assert list(table.piece) == made.convert_ids_to_tokens(ids)
    assert table.n_prompt == len(rendered.token_ids)
    assert (table.part[: table.n_prompt] == "prompt").all()
    assert (table.part[table.n_prompt :] == "response").all()
    flagged = {i for i, token in made.added_tokens_decoder.items() if token.special}
    special = [i in flagged.union(made.all_special_ids) for i in ids]
    assert table.special.tolist() == special
    assert (table.role[table.special] == "template").all()
    assert (np.diff(table.turn) >= 0).all()


def _said(table: TokenTable, role: str, turn: int | None = None) -> str:
    """The text of a role's tokens, in one turn."""
    mask = (table.role == role) & ((table.turn == turn) if turn is not None else True)
    return "".join(table.text[a:b] for a, b in zip(table.start[mask], table.end[mask], strict=True))


# --- rendering -----------------------------------------------------------------------------------


def test_there_is_one_bos() -> None:
    """The template writes it, and the tokenizer would add it once more."""
    for made in (_bytes(), _pieces(), _pieces(GEMMA)):
        ids = render(made, Prompt.of("hello")).token_ids
        assert ids[0] == made.bos_token_id
        assert ids.count(made.bos_token_id) == 1
    assert _pieces()("hello")["input_ids"][0] == _pieces().bos_token_id


def test_a_tokenizer_without_a_template_does_as_it_likes() -> None:
    prompt = _chat(("system", "my friend"), ("user", "hello there"))
    made = _pieces(None)
    rendered, table = _table(made, prompt, " the answers")
    assert rendered.text == "my friend\n\nhello there"
    assert rendered.token_ids[0] == made.bos_token_id
    assert list(rendered.token_ids) == made(rendered.text)["input_ids"]
    assert "friend" in _said(table, "system")
    assert "hello there" in _said(table, "user")
    bare = _pieces(None, adds_bos=False)
    assert bare.bos_token_id not in render(bare, prompt).token_ids
    rendered, table = _table(_bytes(None), prompt, "Yes.")
    assert _said(table, "user") == "hello there"
    assert _said(table, "assistant") == "Yes."


def test_the_prompt_id_is_a_hash_of_the_rendered_ids() -> None:
    prompt = Prompt.of("hello")
    rendered = render(_bytes(), prompt)
    raw = b"".join(i.to_bytes(4, "little") for i in rendered.token_ids)
    assert rendered.prompt_id == hashlib.sha256(raw).hexdigest()[:16]
    assert rendered.prompt_id == prompt_id_of(rendered.token_ids)
    assert render(_bytes(GEMMA), prompt).prompt_id != rendered.prompt_id
    assert render(_bytes(), Prompt.of("hello ")).prompt_id == rendered.prompt_id  # it trims
    labelled = Prompt(prompt.messages, label="mine", where="somewhere")
    assert render(_bytes(), labelled).prompt_id == rendered.prompt_id


def test_a_system_turn_that_is_refused_is_folded_in() -> None:
    prompt = _chat(("system", "Be brief."), ("user", "Why?"), ("assistant", "So."), ("user", "Oh?"))
    rendered, table = _table(_bytes(GEMMA), prompt)
    assert "user\nBe brief.\n\nWhy?<end>" in rendered.text
    assert _said(table, "system") == "Be brief."
    assert _said(table, "user") == "Why?Oh?"
    assert _said(table, "assistant") == "So."


@pytest.mark.parametrize("system", ["user", "start", "model", "u", ""])
def test_a_folded_system_turn_is_found_whatever_it_says(system: str) -> None:
    prompt = _chat(("system", system), ("user", "user"), ("assistant", "model"), ("user", "end"))
    _, table = _table(_bytes(GEMMA), prompt)
    assert _said(table, "system") == system
    assert _said(table, "user", 1) == "user"
    assert _said(table, "assistant", 2) == "model"
    assert _said(table, "user", 3) == "end"
    start = table.text.index("user\n") + len("user\n")
    if system:
        assert table.start[table.role == "system"][0] == start


def test_a_chat_that_is_refused_anyway_is_one_sentence() -> None:
    strict = "{{ raise_exception('Roles must alternate') }}"
    prompt = Prompt((Message("system", "a"), Message("user", "b")), where="prompts.txt:3")
    with pytest.raises(PromptError, match=r"prompts\.txt:3.*Roles must alternate") as caught:
        render(_bytes(strict), prompt)
    assert "\n" not in str(caught.value)
    with pytest.raises(PromptError, match="Roles must alternate"):
        render(_bytes(strict), Prompt.of("b"))


def test_a_template_that_is_broken_is_one_sentence() -> None:
    with pytest.raises(PromptError, match="chat template"):
        render(_bytes("{{ messages[0]['content'] "), Prompt.of("b"))
    assert issubclass(PromptError, Exception)
    assert not issubclass(PromptError, TemplateError)


def test_nothing_at_all_is_refused() -> None:
    with pytest.raises(PromptError, match="expected some text"):
        render(_bytes(None), Prompt.of(""))


# --- whose words ---------------------------------------------------------------------------------

CHAT = (
    ("system", "Be brief."),
    ("user", "Why is the sky blue?"),
    ("assistant", "Rayleigh."),
    ("tool", "42"),
    ("user", "Sure?"),
)


@pytest.mark.parametrize("template", [TEMPLATE, DECORATED, None])
def test_roles_and_turns(template: str | None) -> None:
    _, table = _table(_bytes(template), _chat(*CHAT), "Yes, quite.")
    for turn, (role, content) in enumerate(CHAT):
        assert _said(table, role, turn) == content
    assert _said(table, "assistant", len(CHAT)) == "Yes, quite."
    assert {str(r) for r in table.role} == {"template", "system", "user", "assistant", "tool"}
    response = table.part == "response"
    assert (table.role[response] == "assistant").all()
    assert (table.turn[response] == len(CHAT)).all()


@pytest.mark.parametrize("template", [TEMPLATE, GEMMA, DECORATED])
@pytest.mark.parametrize(
    "contents",
    [
        ("user", "assistant", "user"),
        ("assistant", "user", "model"),
        ("", "", ""),
        ("", "x", ""),
        ("a", "a", "a"),
        ("<|user|>", "[USER] x", "<start>user\n"),
        ("⟦1⟧", "⟦0⟧", "⟦2⟧"),
    ],
)
def test_contents_that_look_like_the_template(template: str, contents: tuple[str, ...]) -> None:
    roles = ("user", "assistant", "user")
    _, table = _table(_bytes(template), _chat(*zip(roles, contents, strict=True)), "user")
    for turn, (role, content) in enumerate(zip(roles, contents, strict=True)):
        said = content.strip() if template != DECORATED else content
        assert _said(table, role, turn) == said
    assert _said(table, "assistant", 3) == "user"


def test_a_template_that_trims() -> None:
    _, table = _table(_bytes(), _chat(("user", "  spaces \n around  "), ("assistant", " a ")))
    assert _said(table, "user") == "spaces \n around"
    assert _said(table, "assistant") == "a"


def test_a_template_that_changes_the_words_gives_no_wrong_role() -> None:
    """They cannot be found: they stay template, and nothing else is taken for them."""
    _, table = _table(_bytes(LOUD), _chat(("user", "hello"), ("user", "WORLD")), "Yes")
    assert _said(table, "user") == "WORLD"
    assert _said(table, "assistant") == "Yes"


def test_twelve_turns() -> None:
    turns = [("user" if i % 2 == 0 else "assistant", f"turn {i}") for i in range(12)]
    _, table = _table(_bytes(), _chat(*turns))
    for i, (role, content) in enumerate(turns):
        assert _said(table, role, i) == content


# --- special tokens ------------------------------------------------------------------------------


def test_a_special_token_that_a_user_types_is_that_token() -> None:
    """See the top of this file."""
    made = _bytes()
    rendered, table = _table(made, Prompt.of("say <eos> please"), "no <eos> yes")
    ids = np.array(rendered.token_ids)
    assert (ids == made.eos_token_id).sum() == 2  # the user's, and the template's
    assert _said(table, "user") == "say  please"
    assert _said(table, "assistant") == "no  yes"
    assert table.text.count("<eos>") == 3
    assert not table.content[table.token_id == made.eos_token_id].any()


def test_special_tokens_are_those_added_as_special_too() -> None:
    made = _bytes()
    made.add_special_tokens({"extra_special_tokens": ["<|end|>"]})
    made.add_tokens(["<word>"])
    prompt = Prompt.of("a <word> b<|end|>")
    rendered = render(made, prompt)
    table = Speller(made).table(rendered.token_ids, rendered)
    by_piece = dict(zip(table.piece, table.special.tolist(), strict=True))
    assert by_piece["<|end|>"]
    assert not by_piece["<word>"]
    assert _said(table, "user") == "a <word> b"


def test_decoding_without_special_tokens() -> None:
    made = _bytes()
    ids = made("yes<eos>no", add_special_tokens=False)["input_ids"]
    assert Speller(made).decode(ids) == "yes<eos>no"
    assert Speller(made).decode(ids, skip_special=True) == "yesno"
    assert Speller(made).decode([]) == ""


def test_a_tokenizer_without_pad_or_end_token() -> None:
    raw = Tokenizer.from_str(tokenizer().backend_tokenizer.to_str())
    made = PreTrainedTokenizerFast(tokenizer_object=raw)
    _, table = _table(made, Prompt.of("hello"), "yes")
    assert made.pad_token is None
    assert _said(table, "user") == "hello"
    assert _said(table, "assistant") == "yes"


def test_the_first_token_is_never_content() -> None:
    _, table = _table(_bytes(None), Prompt.of("hello"))
    assert table.role[0] == "user"
    assert not table.content[0]
    assert table.content[1:].all()


# --- characters ----------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ODD)
def test_odd_texts_in_bytes(text: str) -> None:
    rendered, table = _table(_bytes(), _chat(("user", text), ("assistant", text)), text)
    assert table.text.startswith(rendered.text)
    if text.endswith("�"):  # cannot be told from half a character: it is the next token's
        return
    assert _said(table, "user") == text.strip()
    assert _said(table, "assistant", 1) == text.strip()
    assert _said(table, "assistant", 2) == text


@pytest.mark.parametrize("text", [t for t in ODD if "\ufeff" not in t])
@pytest.mark.parametrize("template", [TEMPLATE, GEMMA, None])
def test_odd_texts_in_pieces(template: str | None, text: str) -> None:
    """Characters it does not know become <unk>: what is left still joins, in its place."""
    _table(_pieces(template), _chat(("user", text), ("assistant", text)), text)


def test_a_character_of_several_tokens_ends_with_the_last() -> None:
    _, table = _table(_bytes(None), Prompt.of("a🦊b"))
    spans = [table.text[a:b] for a, b in zip(table.start, table.end, strict=True)]
    assert spans == ["a", "", "", "", "🦊", "b"]
    assert len(set(table.piece)) == 6  # each has its own piece, for display


@pytest.mark.parametrize("content", ["🦊", "éa", "中文", "a🦊"])
def test_every_token_of_a_turn_s_characters_is_the_turn_s(content: str) -> None:
    """The empty ones too, that hold a part of the first or last character."""
    _, table = _table(_bytes(), _chat(("user", content), ("assistant", content)), content)
    size = len(content.encode())
    for turn, role in enumerate(("user", "assistant", "assistant")):
        mask = (table.turn == turn) & (table.role == role)
        assert mask.sum() == size
        places = np.flatnonzero(mask)
        assert (np.diff(places) == 1).all()


def test_half_a_character_at_the_end_of_a_response() -> None:
    made = _bytes()
    rendered = render(made, Prompt.of("x"))
    half = made("é", add_special_tokens=False)["input_ids"][:1]
    word = made("ok", add_special_tokens=False)["input_ids"]
    for response in (half, word + half, half + word, half + half, half * 5 + word + half * 2):
        table = Speller(made).table([*rendered.token_ids, *response], rendered)
        _whole(made, rendered, table)
        assert _said(table, "user") == "x"


def test_random_tokens_of_a_model_that_babbles() -> None:
    made = _bytes()
    rendered = render(made, Prompt.of("Grüße 🦊"))
    rng = np.random.default_rng(0)
    for _ in range(30):
        response = rng.integers(0, 259, size=40).tolist()
        table = Speller(made).table([*rendered.token_ids, *response], rendered)
        _whole(made, rendered, table)
        assert _said(table, "user") == "Grüße 🦊"


def test_ids_beyond_the_vocabulary_have_no_piece() -> None:
    """A model's embedding is often wider than its tokenizer."""
    made = _bytes()
    rendered = render(made, Prompt.of("x"))
    table = Speller(made).table([*rendered.token_ids, 65, 299, 66], rendered)
    assert table.piece[-2] == ""
    assert table.start[-2] == table.end[-2]
    assert len(_said(table, "assistant")) == 2


# --- pieces that carry their space ---------------------------------------------------------------


def test_leading_spaces_are_where_they_are_in_the_text() -> None:
    made = _pieces(None)
    _, table = _table(made, Prompt.of("hello there my friend"), " the model answers")
    assert any(piece.startswith("▁") for piece in table.piece)
    assert "hello there my friend the model answers" in " ".join(table.text.split())
    words = [w for w in table.text.split() if w != "<bos>"]
    for word in words:
        at = table.text.index(word)
        covering = (table.start < at + len(word)) & (table.end > at)
        pieces = "".join(p for p, c in zip(table.piece, covering, strict=True) if c)
        assert word in pieces


@pytest.mark.parametrize("template", [TEMPLATE, GEMMA, DECORATED])
def test_roles_in_pieces(template: str) -> None:
    """The spaces that the tokenizer puts between its sections move nobody's words."""
    turns = (("user", "hello there"), ("assistant", "my friend"), ("user", "the model"))
    _, table = _table(_pieces(template), _chat(*turns), "the assistant answers")
    for turn, (role, content) in enumerate(turns):
        assert _said(table, role, turn).strip() == content
    assert _said(table, "assistant", 3).strip() == "the assistant answers"


def test_roles_after_words_that_it_does_not_know() -> None:
    """<unk> is shorter or longer than what it stands for; what comes after is still found."""
    turns = (("user", "你好，世界 hello"), ("assistant", "🦊🦊🦊🦊🦊🦊"), ("user", "the model"))
    _, table = _table(_pieces(GEMMA), _chat(*turns), "answers")
    assert "hello" in _said(table, "user", 0)
    assert _said(table, "user", 2).strip() == "the model"
    assert "start" not in _said(table, "user")
