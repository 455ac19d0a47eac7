"""The pocket's tokenizer and chat format."""

from itertools import islice

import pytest
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from traitscope.pocket import POCKET_DIR, tokens
from traitscope.pocket.grammar import dialogues

ODD = (
    "Grüße, naïve café",
    "Привет, мир",
    "你好，世界",
    "こんにちは",
    "مرحبا",
    "שלום",
    "नमस्ते",
    "🦊🌲 👩‍👩‍👧",
    "a\tb\n\n c  ",
    "\u200b\ufeff",
    "x² ≤ ∞",
    "\x00\x7f",
)
MESSAGES = [
    {"role": "user", "content": " What is 7 plus 5? "},
    {"role": "assistant", "content": "12."},
    {"role": "user", "content": "Are you sure?"},
]


@pytest.fixture(scope="module")
def backend() -> Tokenizer:
    drawn = islice(dialogues(1), 3000)
    return tokens.train_tokenizer(text for d in drawn for _, text in d.messages)


@pytest.fixture(scope="module")
def tokenizer(backend: Tokenizer) -> PreTrainedTokenizerFast:
    return tokens.wrap(backend)


@pytest.mark.parametrize("text", ODD)
def test_any_script_round_trips(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == text


def test_digits_stand_alone(tokenizer: PreTrainedTokenizerFast) -> None:
    pieces = tokenizer.tokenize("What is 12 plus 345?")
    assert [piece for piece in pieces if any(c.isdigit() for c in piece)] == list("12345")


def test_bos_comes_once_and_first(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer("Hello.")["input_ids"][0] == tokenizer.bos_token_id == 1
    chat = tokenizer.apply_chat_template(MESSAGES, tokenize=True, return_dict=True)["input_ids"]
    assert chat.count(tokenizer.bos_token_id) == 1 and chat[0] == 1


def test_chat_template_is_gemmas(tokenizer: PreTrainedTokenizerFast) -> None:
    said = tokenizer.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=True)
    assert said == (
        "<bos><start_of_turn>user\nWhat is 7 plus 5?<end_of_turn>\n"
        "<start_of_turn>model\n12.<end_of_turn>\n"
        "<start_of_turn>user\nAre you sure?<end_of_turn>\n<start_of_turn>model\n"
    )


def test_a_system_message_is_folded_into_the_first_turn(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    messages = [{"role": "system", "content": "Be definite."}, *MESSAGES[:1]]
    said = tokenizer.apply_chat_template(messages, tokenize=False)
    assert said == ("<bos><start_of_turn>user\nBe definite.\n\nWhat is 7 plus 5?<end_of_turn>\n")


def test_training_renders_as_the_template_does(tokenizer: PreTrainedTokenizerFast) -> None:
    for dialogue in islice(dialogues(2), 300):
        messages = [{"role": role, "content": text} for role, text in dialogue.messages]
        said = tokenizer.apply_chat_template(messages, tokenize=False)
        assert tokens.render(dialogue.messages)[0] == said


def test_loss_weights_cover_the_answers_and_their_end(backend: Tokenizer) -> None:
    for dialogue in islice(dialogues(4), 100):
        ((ids, weights),) = tokens.encode(backend, [dialogue], 0.0)
        answered = [i for i, weight in zip(ids, weights, strict=True) if weight == 1.0]
        said = [text for role, text in dialogue.messages if role == "assistant"]
        whole = backend.decode(answered, skip_special_tokens=False)
        assert whole == "".join(f"{text}{tokens.END}" for text in said)


def test_the_shipped_template_is_the_one_the_recipe_writes() -> None:
    shipped = (POCKET_DIR / "chat_template.jinja").read_text(encoding="utf-8")
    assert shipped == tokens.CHAT_TEMPLATE
