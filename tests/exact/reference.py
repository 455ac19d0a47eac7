"""What the exactness tests share: models by name, requests, and plain ways to get each number.

Nothing here uses the package's anatomy, taps, masks or candidates: a number of the engine is held
against transformers' own forward over the whole text, alone and without a cache.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tests.tiny import EXTRA, hf_model, tokenizer
from traitscope.core import Generation, GenerationConfig, Trace, prompt_id_of
from traitscope.engine import Batching, Request, generate, gumbel, noise_key
from traitscope.models import Model

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in EXTRA},
    "falcon sequential": ("falcon", {"parallel_attn": False}),
    "falcon grouped": ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2}),
    "falcon per head": ("falcon", {"multi_query": False}),
    "gpt_neox sequential": ("gpt_neox", {"use_parallel_residual": False}),
    "qwen2 sliding": (
        "qwen2",
        {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
    ),
    "stablelm parallel": ("stablelm", {"use_parallel_residual": True}),
}
# an eighth of the vocabulary ends a text, so that rows end at all sorts of times
END_IDS = tuple(range(4, 300, 8))
GREEDY = GenerationConfig(temperature=0.0)
NUCLEUS = GenerationConfig(temperature=0.7, top_p=0.9, top_k=40, seed=7)


@lru_cache(maxsize=4)
def model(name: str) -> Model:
    model_type, changes = VARIANTS[name]
    hf = hf_model(model_type, **changes)
    hf.generation_config.eos_token_id = list(END_IDS)
    return Model.wrap(hf, tokenizer(), name=name)


def directions(model: Model, traits: int = 2) -> NDArray[np.float32]:
    """Random unit directions [S, D, K]."""
    shape = (len(model.sites), model.anatomy.d_model, traits)
    drawn = np.random.default_rng(5).normal(size=shape)
    unit = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return np.asarray(unit, dtype=np.float32)


def requests(
    lengths: tuple[int, ...], new_tokens: tuple[int, ...], seed: int = 0, sample: int = 0
) -> list[Request]:
    """Prompts of random ids that end no text."""
    rng = np.random.default_rng(seed)
    words = np.setdiff1d(np.arange(256), END_IDS)
    made = []
    for length, most in zip(lengths, new_tokens, strict=True):
        ids = tuple(int(i) for i in rng.choice(words, size=length))
        made.append(Request(Generation(prompt_id_of(ids), sample), ids, most))
    return made


def run(
    model: Model,
    wanted: list[Request],
    config: GenerationConfig,
    batching: Batching,
) -> dict[Generation, Trace]:
    made = {t.generation: t for t in generate(model, wanted, directions(model), config, batching)}
    assert sorted(made) == sorted(request.generation for request in wanted)
    return made


def run_alone(
    model: Model, wanted: list[Request], config: GenerationConfig
) -> dict[Generation, Trace]:
    parts = [run(model, [request], config, Batching(1)) for request in wanted]
    return {generation: trace for part in parts for generation, trace in part.items()}


# --- the model's own -----------------------------------------------------------------------------


@torch.inference_mode()
def own_logits(model: Model, ids: list[int]) -> Tensor:
    """Logits [T, V] of one whole text, by transformers alone."""
    logits: Tensor = model.hf(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float()
    return logits


def own_blocks(model: Model) -> nn.ModuleList:
    """The blocks, found by being the one list of them."""
    n_blocks = model.hf.config.num_hidden_layers
    lists = [m for m in model.hf.modules() if isinstance(m, nn.ModuleList)]
    (blocks,) = [m for m in lists if len(m) == n_blocks]  # experts are four
    return blocks


def perturbed(model: Model, trace: Trace, position: int, config: GenerationConfig) -> Tensor:
    """What the next token at `position` is the argmax of: [V], -inf where truncated."""
    ids = trace.token_ids[:position].tolist()
    weight = own_logits(model, ids)[-1]
    if config.temperature == 0:
        return weight
    weight = truncated(weight.log_softmax(-1) / config.temperature, config.top_k, config.top_p)
    key = torch.tensor([noise_key(config.seed, trace.generation)])
    noise = gumbel(key, torch.tensor([position]), torch.arange(len(weight))[None])[0]
    return weight + noise


def truncated(weight: Tensor, top_k: int, top_p: float) -> Tensor:
    """Log-weights [V] with -inf outside top-k, then top-p: token by token, as one would say it."""
    kept = weight.sort(descending=True, stable=True).indices.tolist()
    kept = kept[:top_k] if top_k else kept
    mass = weight[kept].double().softmax(-1).tolist()
    total, nucleus = 0.0, []
    for token, share in zip(kept, mass, strict=True):
        if total >= top_p:
            break
        nucleus.append(token)
        total += share
    out = torch.full_like(weight, float("-inf"))
    out[nucleus] = weight[nucleus]
    return out


# --- two traces of one text ----------------------------------------------------------------------


def assert_same(
    model: Model,
    a: Trace,
    b: Trace,
    config: GenerationConfig,
    *,
    allowed: float = 1e-5,
) -> None:
    """Tokens equal, scores and norms within `allowed` |h|, logprobs within 1e-4.

    A flip is excused only where the two best perturbed logits differ by less than 1e-5; what is
    compared then is the text up to there.
    """
    assert (a.generation, a.n_prompt) == (b.generation, b.n_prompt)
    n = min(len(a.token_ids), len(b.token_ids))
    apart = np.flatnonzero(a.token_ids[:n] != b.token_ids[:n])
    if len(apart) or len(a.token_ids) != len(b.token_ids):
        n = int(apart[0]) if len(apart) else n
        best = perturbed(model, a, n, config).topk(2).values
        gap = float(best[0] - best[1])
        assert gap < 1e-5, f"the texts differ at {n}, where the best two are {gap:.2g} apart"
    else:
        assert a.finish == b.finish
    norm = b.norm[:n]
    assert np.isfinite(a.score).all()
    assert np.isfinite(a.norm).all()
    assert (np.abs(a.norm[:n] - norm) <= allowed * norm).all()
    off = np.abs(a.score[:n] - b.score[:n]) / norm[:, :, None]
    most = off.max(initial=0)  # there may be no traits
    assert most <= allowed, f"scores are {most:.2g} |h| apart"
    np.testing.assert_allclose(a.logprob[:n], b.logprob[:n], rtol=1e-5, atol=1e-4)
