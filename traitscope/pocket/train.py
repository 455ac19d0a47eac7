"""`python -m traitscope.pocket.train`: makes the pocket again from a seed.

Owns the recipe: model shape, batches by length, loss, schedule, checkpoints, the files written.
The same seed on the same machine with the same threads gives the same weights, interrupted or
not.  Shapes: B rows, T tokens, V vocabulary.  Knows the grammar only as a stream of dialogues.
"""

import argparse
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor
from transformers import Gemma2Config, Gemma2ForCausalLM, GenerationConfig

from traitscope.pocket import tokens
from traitscope.pocket.grammar import dialogues

Item = tuple[list[int], list[float]]  # token ids, loss weights


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights, besides the machine and its threads."""

    seed: int = 0
    steps: int = 5600
    batch_tokens: int = 2048
    pool: int = 4096  # dialogues that are sorted by length together
    tokenizer_dialogues: int = 40_000
    learning_rate: float = 2e-3
    warmup: int = 200
    weight_decay: float = 0.05
    prompt_weight: float = 0.05
    deciding_weight: float = 3.0
    hidden: int = 192
    inner: int = 768
    blocks: int = 6


# for tests: learns nothing, takes a second
TINY = Recipe(
    steps=4, batch_tokens=512, pool=64, tokenizer_dialogues=800, hidden=48, inner=64, blocks=2
)


@dataclass
class Progress:
    """Where in the run we are: steps done, and the next batch of which pool."""

    step: int = 0
    pool: int = 0
    batch: int = 0


def model_config(recipe: Recipe) -> Gemma2Config:
    return Gemma2Config(
        vocab_size=tokens.VOCABULARY,
        hidden_size=recipe.hidden,
        intermediate_size=recipe.inner,
        num_hidden_layers=recipe.blocks,
        num_attention_heads=6,
        num_key_value_heads=3,
        head_dim=32,
        query_pre_attn_scalar=32,
        max_position_embeddings=1024,
        sliding_window=256,
        attn_logit_softcapping=50.0,
        final_logit_softcapping=30.0,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=[4, 2],
        attn_implementation="eager",
        dtype="float32",
    )


def make_tokenizer(recipe: Recipe) -> Tokenizer:
    """A tokenizer of the world's words: invented names and oddities would only dilute it."""
    drawn = islice(dialogues(recipe.seed), recipe.tokenizer_dialogues)
    kept = (d for d in drawn if d.kind not in ("unknown", "fallback"))
    return tokens.train_tokenizer(text for d in kept for _, text in d.messages)


def pool_batches(recipe: Recipe, tokenizer: Tokenizer, pool: int) -> list[list[Item]]:
    """The batches of one pool: rows of like length together, in a shuffled order."""
    drawn = list(islice(dialogues((recipe.seed + 1) * 1_000_003 + pool), recipe.pool))
    items = tokens.encode(tokenizer, drawn, recipe.prompt_weight, recipe.deciding_weight)
    items.sort(key=lambda item: len(item[0]), reverse=True)
    batches = []
    while items:  # few distinct shapes: the widths are multiples of 8, the rows follow from them
        rows = recipe.batch_tokens // (padded_width(items[0]) - 1)
        batches.append(items[:rows])
        items = items[rows:]
    batches = batches[:-1] or batches  # the last one is ragged
    generator = torch.Generator().manual_seed(recipe.seed * 7919 + pool)
    return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]


def padded_width(item: Item) -> int:
    """A multiple of 8 tokens that predict, and one more that is only predicted."""
    return -(-(len(item[0]) - 1) // 8) * 8 + 1


def stream(recipe: Recipe, tokenizer: Tokenizer, at: Progress) -> Iterator[list[Item]]:
    """Batches from where `at` stands; moves `at` on before each one is handed out."""
    while True:
        batches = pool_batches(recipe, tokenizer, at.pool)
        while at.batch < len(batches):
            at.batch += 1
            yield batches[at.batch - 1]
        at.pool, at.batch = at.pool + 1, 0


def to_tensors(batch: list[Item], device: str) -> tuple[Tensor, Tensor]:
    """Ids and weights, right-padded: [B, T] both."""
    width = max(padded_width(item) for item in batch)
    ids_BT = torch.zeros(len(batch), width, dtype=torch.long)
    weights_BT = torch.zeros(len(batch), width)
    for row, (ids, weights) in enumerate(batch):
        ids_BT[row, : len(ids)] = torch.tensor(ids)
        weights_BT[row, : len(weights)] = torch.tensor(weights)
    return ids_BT.to(device), weights_BT.to(device)


def batch_loss(model: Gemma2ForCausalLM, ids_BT: Tensor, weights_BT: Tensor) -> Tensor:
    """Mean cross-entropy of the next token, weighted; padding on the right needs no mask."""
    with torch.autocast(ids_BT.device.type, dtype=torch.bfloat16):
        logits_BTV = model(input_ids=ids_BT[:, :-1], use_cache=False).logits
    losses = torch.nn.functional.cross_entropy(
        logits_BTV.float().flatten(0, 1), ids_BT[:, 1:].flatten(), reduction="none"
    )
    weights = weights_BT[:, 1:].flatten()
    return (losses * weights).sum() / weights.sum()


def rate(recipe: Recipe, step: int) -> float:
    """Warmup, then a cosine down to a fiftieth."""
    if step < recipe.warmup:
        return recipe.learning_rate * (step + 1) / recipe.warmup
    done = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return recipe.learning_rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))


def make_optimizer(model: Gemma2ForCausalLM, recipe: Recipe) -> torch.optim.AdamW:
    matrices = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() <= 1]
    return torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": recipe.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ],
        lr=recipe.learning_rate,
        betas=(0.9, 0.98),
    )


# --- files ------------------------------------------------------------------------------------
def save_checkpoint(
    path: Path, recipe: Recipe, at: Progress, model: Gemma2ForCausalLM, adam: torch.optim.AdamW
) -> None:
    """Weights and the optimizer's moments in one safetensors file, written atomically."""
    tensors = {}
    for name, parameter in model.named_parameters():
        tensors[f"weight.{name}"] = parameter.detach().cpu()
        for key, value in adam.state[parameter].items():
            tensors[f"{key}.{name}"] = value.detach().cpu()
    said = {"recipe": json.dumps(asdict(recipe)), "progress": json.dumps(asdict(at))}
    temporary = path.with_suffix(".tmp")
    save_file(tensors, temporary, metadata=said)
    os.replace(temporary, path)


def load_checkpoint(
    path: Path, recipe: Recipe, model: Gemma2ForCausalLM, adam: torch.optim.AdamW
) -> Progress:
    """Puts weights and moments back; refuses a checkpoint of another recipe."""
    with safe_open(path, framework="pt") as file:
        said = file.metadata()
        if json.loads(said["recipe"]) != asdict(recipe):
            raise ValueError(
                f"{path} was written with another recipe; choose another --out or remove it."
            )
        for name, parameter in model.named_parameters():
            parameter.data.copy_(file.get_tensor(f"weight.{name}"))
            state = {"step": file.get_tensor(f"step.{name}")}
            for key in ("exp_avg", "exp_avg_sq"):
                state[key] = file.get_tensor(f"{key}.{name}").to(parameter.device)
            adam.state[parameter] = state
    return Progress(**json.loads(said["progress"]))


def export(model: Gemma2ForCausalLM, tokenizer: Tokenizer, folder: Path) -> None:
    """The model's files as transformers reads them; weights bf16, to be loaded as float32."""
    fresh = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    weights = {
        name: p.detach().to("cpu", torch.bfloat16).contiguous()
        for name, p in model.named_parameters()
    }
    save_file(weights, fresh / "model.safetensors", metadata={"format": "pt"})
    model.config.save_pretrained(fresh)
    GenerationConfig(
        bos_token_id=1, pad_token_id=0, eos_token_id=[4, 2], max_new_tokens=80
    ).save_pretrained(fresh)
    tokens.save_tokenizer(tokenizer, fresh)
    for file in fresh.iterdir():
        file.chmod(0o644)  # safetensors leaves its files to the owner alone
    if folder.exists():
        shutil.rmtree(folder)
    os.replace(fresh, folder)


# --- the run ----------------------------------------------------------------------------------
def train(
    recipe: Recipe, out: Path, device: str, stop_after: int | None = None, every: int = 200
) -> Path:
    """Trains (or goes on training) in `out`; gives the folder of the model's files.

    `stop_after` ends early, after so many steps in all, as an interruption would.
    """
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.seed)
    torch.use_deterministic_algorithms(device == "cpu")
    # filling fresh memory guards reads that do not happen here, and takes a third of the time
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    tokenizer = make_tokenizer(recipe)
    model = Gemma2ForCausalLM(model_config(recipe)).to(device).train()
    adam = make_optimizer(model, recipe)
    checkpoint = out / "checkpoint.safetensors"
    at = load_checkpoint(checkpoint, recipe, model, adam) if checkpoint.exists() else Progress()
    meter = Meter(recipe.steps, at.step)
    batches = stream(recipe, tokenizer, at)
    while at.step < recipe.steps:
        ids_BT, weights_BT = to_tensors(next(batches), device)
        for group in adam.param_groups:
            group["lr"] = rate(recipe, at.step)
        loss = batch_loss(model, ids_BT, weights_BT)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
        adam.zero_grad()
        at.step += 1
        meter.tick(at.step, loss, ids_BT.numel())
        stopping = at.step == stop_after or at.step == recipe.steps
        if at.step % every == 0 or stopping:
            save_checkpoint(checkpoint, recipe, at, model, adam)
            export(model, tokenizer, out / "model")
        if stopping:
            break
    return out / "model"


class Meter:
    """Prints loss, speed and the time left, every 20 steps."""

    def __init__(self, steps: int, done: int) -> None:
        self.steps, self.first, self.start = steps, done, time.monotonic()
        self.tokens, self.losses = 0, [0.0]

    def tick(self, step: int, loss: Tensor, size: int) -> None:
        self.tokens += size
        self.losses.append(float(loss.detach()))
        if step % 20 and step != self.steps:
            return
        spent = time.monotonic() - self.start
        left = spent / (step - self.first) * (self.steps - step)
        mean = sum(self.losses[-20:]) / len(self.losses[-20:])
        print(
            f"step {step}/{self.steps}  loss {mean:.4f}  {self.tokens / spent:,.0f} tokens/s  "
            f"spent {spent / 60:.1f} min  left {left / 60:.1f} min",
            flush=True,
        )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m traitscope.pocket.train", description=__doc__)
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--steps", type=int, help=f"{Recipe.steps} unless given")
    parser.add_argument("--out", type=Path, default=Path("pocket-training"))
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tiny", action="store_true", help="a toy of a few seconds, to try out")
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    device = given.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    shape = TINY if given.tiny else Recipe()
    recipe = replace(shape, seed=given.seed, steps=given.steps or shape.steps)
    try:
        folder = train(recipe, given.out, device)
    except KeyboardInterrupt:
        print("Interrupted; the same command goes on from the last checkpoint.", file=sys.stderr)
        return 3
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"The model is in {folder}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
