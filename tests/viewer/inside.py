"""A run with the inside of one block, made of numbers that add up: two heads that share one key
and value, neurons behind a gate, post-norm factors, biases.  Tokens and tags hold markup."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.runs.build import SITES, TRAITS, D, directions, generation, header_of, text_record
from traitscope.core import Capture, Internals, TextRecord
from traitscope.runs import RunWriter

EVIL = '<img src=x onerror="document.title=1">'
PIECES = ("<s>", "Is", " it", " &amp;", "?", EVIL, " \u202eno", " tea", ".")
N_PROMPT, BLOCK, HEADS, WIDTH, NEURONS = 5, 1, 2, 3, 6
BIAS = 0.25  # of each bias vector's entries


def inside_run(
    path: Path,
    *,
    kind: str = "sequential",
    numbers: tuple[int, ...] = (0, 1),
    fingerprint: str = "ff00",
) -> Path:
    """Texts `numbers` with internals of block 1."""
    records = [text_record(i, pieces=PIECES, n_prompt=N_PROMPT, prompt=EVIL) for i in numbers]
    records = [replace(r, prompt=replace(r.prompt, tags={"by": EVIL})) for r in records]
    captures = [Capture(generation(i), "inside", "internals") for i in numbers]
    model = {**header_of().model, "fingerprint": fingerprint}
    header = replace(header_of(), name=EVIL, captures=tuple(captures), model=model)
    with RunWriter.create(path, header, directions()) as writer:
        writer.commit(records, captures, [internals_of(record, kind) for record in records])
    return path


def internals_of(record: TextRecord, kind: str = "sequential") -> Internals:
    """`kind` "bare" leaves most tensors out, as a format may."""
    rng = np.random.default_rng([7, *record.generation.id.encode()])
    n = len(PIECES)

    def normal(*shape: int) -> NDArray[np.float32]:
        return rng.normal(size=shape).astype(np.float32)

    attention = np.tril(rng.uniform(0.1, 1, size=(HEADS, n, n))).astype(np.float32)
    attention /= attention.sum(axis=2, keepdims=True)
    v, up = normal(n, WIDTH), normal(n, NEURONS)  # one value head for both
    head_out = np.einsum("hts,sd->thd", attention, v).reshape(n, HEADS * WIDTH)
    gate = normal(n, NEURONS)
    neurons = np.tanh(gate) * up
    o_proj, down = normal(D, HEADS * WIDTH), normal(D, NEURONS)
    attn_scale, mlp_scale = rng.uniform(0.5, 2, size=(2, n)).astype(np.float32)
    attn_out = attn_scale[:, None] * (head_out @ o_proj.T + BIAS)
    mlp_out = mlp_scale[:, None] * (neurons @ down.T + BIAS)
    pre = normal(n, D)
    names = [site.name for site in SITES]
    to_mid, to_post = (
        np.stack([directions()[t].direction[names.index(f"{BLOCK}.{place}")] for t in TRAITS])
        for place in ("mid", "post")
    )
    tensors = {
        "attention": attention,
        "v": v,
        "k": normal(n, WIDTH),
        "q": normal(n, HEADS * WIDTH),
        "head_out": head_out,
        "gate": gate,
        "up": up,
        "neurons": neurons,
        "attn_out": attn_out,
        "mlp_out": mlp_out,
        "resid_pre": pre,
        "resid_mid": pre + attn_out,
        "resid_post": pre + attn_out + mlp_out,
        "head_to_score": (to_mid @ o_proj).reshape(len(TRAITS), HEADS, WIDTH),
        "neuron_to_score": to_post @ down,
        "attn_bias_score": BIAS * to_mid.sum(axis=1),
        "mlp_bias_score": BIAS * to_post.sum(axis=1),
        "attn_post_norm_scale": attn_scale,
        "mlp_post_norm_scale": mlp_scale,
    }
    if kind == "bare":
        tensors = {"neurons": neurons, "attention": attention}
    arrays = {name: np.ascontiguousarray(array, np.float32) for name, array in tensors.items()}
    return Internals(record.generation, BLOCK, TRAITS, arrays, {"layout": "sequential"})
