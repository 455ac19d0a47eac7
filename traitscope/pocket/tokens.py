"""The pocket's tokenizer and chat format: byte-level BPE, digits one by one, turns as Gemma's.

Owns how text becomes token ids and which tokens are the model's own answer.  Any text in any
script round-trips.  Knows nothing of the grammar's kinds and nothing of torch.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from traitscope.pocket.dialogue import Dialogue, Message

PAD, BOS, EOS, START, END = "<pad>", "<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"
SPECIALS = (PAD, BOS, EOS, START, END)  # ids 0 to 4
VOCABULARY = 2048

CHAT_TEMPLATE = """{{- bos_token -}}
{%- set first = namespace(text='') -%}
{%- if messages and messages[0]['role'] == 'system' -%}
{%- set first.text = messages[0]['content'] | trim + '\\n\\n' -%}
{%- set messages = messages[1:] -%}
{%- endif -%}
{%- for message in messages -%}
{%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}
{%- if role not in ['user', 'model'] -%}
{{- raise_exception('Roles are user, assistant and, at the start, system; came: ' + role) -}}
{%- endif -%}
{{- '<start_of_turn>' + role + '\\n' + first.text \
+ message['content'] | trim + '<end_of_turn>\\n' -}}
{%- set first.text = '' -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<start_of_turn>model\\n' -}}
{%- endif -%}
"""


def render(messages: Sequence[Message]) -> tuple[str, list[tuple[int, int]]]:
    """The chat template's text, and the spans (characters) of the answers with their end tokens."""
    text, folded, spans = BOS, "", []
    for role, content in messages:
        if role == "system":
            folded = content.strip() + "\n\n"
            continue
        text += f"{START}{'model' if role == 'assistant' else role}\n"
        at = len(text)
        text += f"{folded}{content.strip()}{END}"
        folded = ""
        if role == "assistant":
            spans.append((at, len(text)))
        text += "\n"
    return text, spans


def train_tokenizer(texts: Iterable[str]) -> Tokenizer:
    """A byte-level BPE over the texts, with the special tokens first."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIALS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, 1)]
    )
    return tokenizer


def wrap(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """The tokenizer as transformers knows it, chat template included."""
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        additional_special_tokens=[START, END],
        padding_side="left",
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
    )
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Writes tokenizer.json, tokenizer_config.json and chat_template.jinja."""
    wrap(tokenizer).save_pretrained(str(folder))


def encode(
    tokenizer: Tokenizer,
    dialogues: Sequence[Dialogue],
    prompt_weight: float,
    deciding_weight: float = 1.0,
) -> list[tuple[list[int], list[float]]]:
    """Token ids of each dialogue, and how much each token counts in the loss."""
    rendered = [render(dialogue.messages) for dialogue in dialogues]
    deciding = [
        [(a + spans[-1][0], b + spans[-1][0]) for a, b in dialogue.deciding()]
        for dialogue, (_, spans) in zip(dialogues, rendered, strict=True)
    ]
    encodings = tokenizer.encode_batch([text for text, _ in rendered], add_special_tokens=False)
    items = []
    for encoding, (_, spans), key in zip(encodings, rendered, deciding, strict=True):
        weights = [
            deciding_weight
            if any(s < b and a < e for a, b in key)
            else 1.0
            if any(a <= s and e <= b for a, b in spans)
            else prompt_weight
            for s, e in encoding.offsets
        ]
        items.append((encoding.ids, weights))
    return items
