"""Chat templates in the shapes that models which think have, and tokenizers that know their marks.

Written for the tests after what such templates do: where they put a thought, whether they keep
those of earlier turns, what they call their switch, and whether the prompt opens the thought.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tokenizers import AddedToken, Tokenizer
from transformers import PreTrainedTokenizerFast

from tests.tiny import tokenizer


@dataclass(frozen=True)
class Thinker:
    """A template, the tokens it is written with, and what it is known to do.

    `switch` is its variable, `opens` whether a prompt opens a thought, `keeps` whether thoughts of
    earlier turns stay in the prompt.
    """

    template: str
    marks: tuple[str, ...]
    special: tuple[str, ...] = ()
    switch: str | None = None
    opens: bool = False
    keeps: bool = False
    told: dict[str, Any] = field(default_factory=dict)


# a switch; an empty thought when it is off; thoughts of earlier turns are left out
SWITCHED = Thinker(
    template="""
{%- set last = namespace(user=-1) -%}
{%- for m in messages -%}{%- if m.role == 'user' -%}{%- set last.user = loop.index0 -%}{%- endif -%}
{%- endfor -%}
{%- for m in messages -%}
{%- set said = m.content if m.content is string else '' -%}{%- set thought = '' -%}
{%- if m.reasoning_content is string -%}{%- set thought = m.reasoning_content -%}
{%- elif m.role == 'assistant' and '</think>' in said -%}
{%- set thought = said.split('</think>')[0].split('<think>')[-1] -%}
{%- set said = said.split('</think>')[-1].lstrip('\n') -%}
{%- endif -%}
{{- '<|im_start|>' + m.role + '\n' -}}
{%- if m.role == 'assistant' and loop.index0 > last.user and (loop.last or thought) -%}
{{- '<think>\n' + thought.strip('\n') + '\n</think>\n\n' + said.lstrip('\n') -}}
{%- else -%}{{- said -}}{%- endif -%}
{{- '<|im_end|>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}
{%- if enable_thinking is defined and enable_thinking is false -%}
{{- '<think>\n\n</think>\n\n' -}}{%- endif -%}{%- endif -%}""",
    marks=("<think>", "</think>"),
    special=("<|im_start|>", "<|im_end|>"),
    switch="enable_thinking",
)

# the prompt opens the thought, and nothing turns it off
OPENED = Thinker(
    template="""
{{- bos_token -}}{%- for m in messages -%}
{%- if m.role == 'assistant' -%}
{{- '<|Assistant|>' + m.content.split('</think>')[-1] + eos_token -}}
{%- else -%}{{- '<|User|>' + m.content -}}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|Assistant|><think>\n' -}}{%- endif -%}""",
    marks=("<think>", "</think>"),
    special=("<|User|>", "<|Assistant|>"),
    opens=True,
)

# a switch of another name; off, the prompt holds the closing mark alone
CLOSED = Thinker(
    template="""
{%- if not thinking is defined -%}{%- set thinking = false -%}{%- endif -%}
{{- bos_token -}}{%- for m in messages -%}
{%- if m.role == 'assistant' -%}
{%- if m.thinking -%}{{- '<|Assistant|><think>' + m.thinking + '</think>' + m.content -}}
{%- else -%}{{- '<|Assistant|></think>' + m.content -}}{%- endif -%}{{- eos_token -}}
{%- else -%}{{- '<|User|>' + m.content -}}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|Assistant|>' + ('<think>' if thinking else '</think>') -}}{%- endif -%}""",
    marks=("<think>", "</think>"),
    special=("<|User|>", "<|Assistant|>"),
    switch="thinking",
    keeps=True,
)

# channels: the name of a channel is between special tokens
CHANNELS = Thinker(
    template="""
{{- '<|start|>system<|message|>Reasoning: ' + (reasoning_effort or 'medium') + '<|end|>' -}}
{%- for m in messages -%}
{%- if m.role == 'assistant' -%}
{%- if '<|channel|>' in m.content -%}{{- raise_exception('channels in a content') -}}{%- endif -%}
{%- if loop.last and m.thinking -%}
{{- '<|start|>assistant<|channel|>analysis<|message|>' + m.thinking + '<|end|>' -}}{%- endif -%}
{{- '<|start|>assistant<|channel|>final<|message|>' + m.content -}}
{{- '<|return|>' if loop.last else '<|end|>' -}}
{%- else -%}{{- '<|start|>' + m.role + '<|message|>' + m.content + '<|end|>' -}}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|start|>assistant' -}}{%- endif -%}""",
    marks=(),
    special=("<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|return|>"),
    told={"reasoning_effort": "high"},
)

# other marks, and thoughts of earlier turns are kept
BRACKETS = Thinker(
    template="""
{{- bos_token -}}{%- for m in messages -%}
{%- if m.role == 'assistant' -%}
{%- if m.reasoning_content -%}{{- '[THINK]' + m.reasoning_content + '[/THINK]' -}}{%- endif -%}
{{- m.content + eos_token -}}
{%- else -%}{{- '[INST]' + m.content + '[/INST]' -}}{%- endif -%}
{%- endfor -%}""",
    marks=("[THINK]", "[/THINK]"),
    special=("[INST]", "[/INST]"),
    keeps=True,
)

# the answer is framed too
FRAMED = Thinker(
    template="""
{{- bos_token -}}{%- for m in messages -%}
{%- if m.role == 'assistant' -%}
{{- '<A><think>\n' + (m.reasoning_content or '') + '\n</think>\n<answer>\n' -}}
{{- m.content + '\n</answer>' + eos_token -}}
{%- else -%}{{- '<U>' + m.content -}}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<A>' -}}
{%- if enable_thinking is defined and not enable_thinking -%}
{{- '<think>\n\n</think>\n' -}}{%- endif -%}{%- endif -%}""",
    marks=("<think>", "</think>", "<answer>", "</answer>"),
    special=("<A>", "<U>"),
    switch="enable_thinking",
    keeps=True,
)

# marks that are words
WORDS = Thinker(
    template="""
{{- bos_token -}}{%- if thinking -%}{{- 'Write "Here is my thought process:" before your thoughts '
'and "Here is my response:" before your answer.' -}}{%- endif -%}
{%- for m in messages -%}{{- '<' + m.role + '>' -}}
{%- if m.reasoning_content -%}{{- 'Here is my thought process:\n\n' + m.reasoning_content +
'\n\nHere is my response:\n\n' -}}{%- endif -%}
{{- m.content + eos_token -}}{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<assistant>' -}}{%- endif -%}""",
    marks=(),
    special=("<user>", "<assistant>", "<system>"),
    switch="thinking",
    keeps=True,
)

THINKERS = {
    "switched": SWITCHED,
    "opened": OPENED,
    "closed": CLOSED,
    "channels": CHANNELS,
    "brackets": BRACKETS,
    "framed": FRAMED,
    "words": WORDS,
}
SPELT = ("spelt out", "tokens", "special tokens")


def thinker(name: str, spelt: str = "spelt out") -> Any:
    """Its tokenizer: bytes, with the marks spelt out, as tokens, or as special tokens."""
    shape = THINKERS[name]
    made = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(tokenizer().backend_tokenizer.to_str()),
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
    )
    made.add_tokens([AddedToken(token, special=True) for token in shape.special])
    if spelt != "spelt out":
        special = spelt == "special tokens"
        made.add_tokens([AddedToken(mark, special=special) for mark in shape.marks])
    made.chat_template = shape.template
    return made
