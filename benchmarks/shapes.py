"""The models and the prompts that are measured: built from a config, seeded, nothing downloaded.

A shape is a row of numbers; `build` makes a random causal LM of it, `wrapped` hands it to
traitscope, `folder` leaves it on disk for those that load one.  Greedy texts of random weights vary
enough to compare by.  Knows nothing of time.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from benchmarks.ending import EOS
from traitscope.models import Model

__all__ = ["SHAPES", "Shape", "build", "directions", "folder", "prompts", "wrapped"]

PAD, BOS = 0, 1
CONTEXT = 4096


@dataclass(frozen=True)
class Shape:
    """The numbers that a model's cost depends on."""

    name: str
    kind: str
    blocks: int
    d_model: int
    heads: int
    kv_heads: int
    head: int
    mlp: int
    vocabulary: int

    def config(self) -> Any:
        return AutoConfig.for_model(
            self.kind,
            num_hidden_layers=self.blocks,
            hidden_size=self.d_model,
            num_attention_heads=self.heads,
            num_key_value_heads=self.kv_heads,
            head_dim=self.head,
            intermediate_size=self.mlp,
            vocab_size=self.vocabulary,
            max_position_embeddings=CONTEXT,
            pad_token_id=PAD,
            bos_token_id=BOS,
            eos_token_id=EOS,
        )


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("tiny", "gemma2", 2, 32, 4, 2, 8, 64, 300),
        Shape("tiny-llama", "llama", 2, 32, 4, 2, 8, 64, 300),
        Shape("framework", "gemma2", 12, 64, 4, 2, 16, 256, 2048),
        Shape("130m", "gemma2", 12, 768, 8, 4, 96, 3072, 32000),
        Shape("gemma-2-2b", "gemma2", 26, 2304, 8, 4, 256, 9216, 256000),
        Shape("llama-3-8b", "llama", 32, 4096, 32, 8, 128, 14336, 128256),
    )
}


def build(
    shape: Shape, dtype: torch.dtype = torch.float32, device: str = "cpu", seed: int = 0
) -> Any:
    """A random model in eval mode; the same weights for the same arguments."""
    torch.manual_seed(seed)
    with torch.device(device):
        hf = AutoModelForCausalLM.from_config(shape.config(), dtype=dtype).eval()
    if hf.config.tie_word_embeddings:  # else greedy texts repeat the last prompt token for ever
        with torch.no_grad():
            hf.get_input_embeddings().weight.mul_(0.25)
    hf.generation_config.eos_token_id = EOS
    hf.generation_config.pad_token_id = PAD
    return hf


def tokenizer(shape: Shape) -> Any:
    """Words `w3`, `w4`, ... for ids; what is measured goes by ids."""
    words = {"<pad>": PAD, "<bos>": BOS, "<eos>": EOS}
    words |= {f"w{i}": i for i in range(len(words), shape.vocabulary)}
    raw = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>"
    )


def wrapped(shape: Shape, hf: Any) -> Model:
    return Model.wrap(hf, tokenizer(shape), name=shape.name)


def folder(shape: Shape, hf: Any, place: Path) -> Path:
    """A checkpoint of the model, as `from_pretrained` reads it."""
    if not (place / "config.json").exists():
        hf.save_pretrained(place)
        tokenizer(shape).save_pretrained(place)
    return place


def prompts(
    shape: Shape, count: int, shortest: int, longest: int, seed: int = 0
) -> list[list[int]]:
    """Prompts of random ids and lengths, each beginning with the BOS token."""
    dice = random.Random(seed)
    lengths = [dice.randint(shortest, longest) for _ in range(count)]
    return [[BOS, *(dice.randrange(3, shape.vocabulary) for _ in range(n - 1))] for n in lengths]


def directions(model: Model, traits: int, seed: int = 0) -> Any:
    """Random unit directions [S, D, K] in float32."""
    generator = torch.Generator().manual_seed(seed)
    size = (len(model.sites), model.anatomy.d_model, traits)
    drawn = torch.randn(size, generator=generator)
    return torch.nn.functional.normalize(drawn, dim=1).numpy()
