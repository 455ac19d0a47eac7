"""Odd tokenizers on odd texts, end to end: whole runs, or one sentence; never a traceback.

Tokenizers of characters and of words, without a decoder, without pad or any special token, in
Python, with several templates or broken ones, and with ids that the model has not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import ByT5Tokenizer, CanineTokenizer, PreTrainedTokenizerFast

from tests.tiny import TEMPLATE, hf_model, tokenizer
from traitscope.errors import ModelError, PromptError
from traitscope.models import Model, Speller
from traitscope.replays import replay
from traitscope.runner import capture
from traitscope.runs import Run, verify

TEXTS = (
    "Is it so?",
    "مرحبا بالعالم",
    "नमस्ते क्षि",
    "👩‍👩‍👧‍👦🏳️‍🌈 🇫🇮",
    "e\u0301a\u0308\u0323",
    "a\ufffdb",
    "x\x00y",
    "\u202eabc\u202c ﬁ Ⅷ",
    "\n\n\n x",
    "𓀀𒀀",
)


def fast(backend: Tokenizer, template: Any = None, **special: str) -> Any:
    made = PreTrainedTokenizerFast(tokenizer_object=backend, **special)
    made.chat_template = template
    return made


def of_bytes(template: Any = None, **special: str) -> Any:
    return fast(Tokenizer.from_str(tokenizer().backend_tokenizer.to_str()), template, **special)


def of_characters() -> Any:
    vocabulary = {"<unk>": 0, **{chr(code): code for code in range(32, 127)}}
    return fast(Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>")), unk_token="<unk>")


def of_words() -> Any:
    words = ("<unk>", "Is", "it", "so", "?", "perhaps", "maybe", "yes", "doubt", "is", "I", "OH")
    backend = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return fast(backend, unk_token="<unk>")


def of_word_pieces() -> Any:
    letters = "abcdefghijklmnopqrstuvwxyz0123456789?.!"
    pieces = ["[UNK]", *letters, *(f"##{letter}" for letter in letters)]
    backend = Tokenizer(models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    return fast(backend, unk_token="[UNK]")


def normalised() -> Any:
    made = of_bytes(TEMPLATE, bos_token="<bos>", eos_token="<eos>")
    made.backend_tokenizer.normalizer = normalizers.NFKC()
    return made


ODD = {
    "characters, no decoder": of_characters,
    "words, no decoder": of_words,
    "word pieces": of_word_pieces,
    "bytes, in Python": ByT5Tokenizer,
    "normalised": normalised,
    "no special tokens": of_bytes,
    "empty template": lambda: of_bytes(""),
    "several templates": lambda: of_bytes(
        {"default": TEMPLATE, "tool_use": "x"}, bos_token="<bos>", eos_token="<eos>"
    ),
}


def model_of(made: Any, vocabulary: int = 512) -> Model:
    sizes = {"num_hidden_layers": 2, "hidden_size": 32}
    return Model.wrap(hf_model("llama", vocab_size=vocabulary, **sizes), made)


def whole(run: Run) -> Run:
    assert (verify(run.path), run.state) == ([], "complete")
    assert not [row.error for row in run.generations() if row.error]
    return run


@pytest.mark.parametrize("name", ODD)
def test_runs_are_whole(name: str, home: Path) -> None:
    model = model_of(ODD[name]())
    whole(capture(model, TEXTS, [f"{home}/hedged"], max_new_tokens=5, seed=1))
    chats = [{"prompt": text, "response": f"{text} so"} for text in TEXTS]
    whole(replay(model, chats, [f"{home}/hedged"]))


def test_ids_without_text_leave_the_words_around_them_as_they_are() -> None:
    """A padded vocabulary: the model may write ids that the tokenizer has not."""
    made = of_characters()
    speller = Speller(made)
    ids = [73, 115, 324, 324, 105, 400, 116]
    text, ends = speller._spell(ids)
    assert text == made.decode(ids)
    assert ends.tolist() == [1, 3, 3, 3, 5, 5, 7]
    long = [73, *[324] * 300, 115]
    assert speller._spell(long)[1][-1] >= 2


def test_a_tokenizer_of_code_points(home: Path) -> None:
    """Its ids go beyond any small model, and it knows no pieces of several characters."""
    with pytest.raises(ModelError, match=r"whose ids are below 512, got 57345 for"):
        capture(model_of(CanineTokenizer()), ["Is it so?"], [f"{home}/hedged"])


def test_a_tokenizer_of_another_model(home: Path) -> None:
    made = of_bytes(TEMPLATE, bos_token="<bos>", eos_token="<eos>")
    made.add_tokens([f"<x{n}>" for n in range(60)])
    model = model_of(made, vocabulary=300)
    run = capture(model, ["Why?", "Is it <x50>?"], [f"{home}/hedged"], max_new_tokens=2)
    done, failed = run.generations()
    assert (done.status, failed.status) == ("done", "failed")
    assert failed.error.startswith("Expected token ids below 300, the vocabulary of 'wrapped', got")
    made.chat_template = f"<x50>{TEMPLATE}"
    with pytest.raises(ModelError, match=r"got \d+ for '<x50>'\. It is another model's"):
        capture(model_of(made, 300), ["Why?"], [f"{home}/hedged"])


@pytest.mark.parametrize(
    "template", ["{% for m in messages %}{{ m.content", "{{ messages[0].content + 1 }}"]
)
def test_a_broken_template_is_one_sentence(template: str, home: Path) -> None:
    with pytest.raises(PromptError, match="chat template refuses it"):
        capture(model_of(of_bytes(template)), ["Why?"], [f"{home}/hedged"])
