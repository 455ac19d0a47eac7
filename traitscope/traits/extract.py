"""From pairs to directions: mean difference per site, and what is normal there.

direction[site] = unit(mean over pairs of (mean state of the positive response - of the negative)),
the difference-in-means of Marks & Tegmark (arXiv 2310.06824), taken over response tokens.  What
is normal comes from the bundled neutral chats: content tokens of the assistant, the responses'
means, and the last prompt token.  Means are accumulated in float64 over float32 states.
This module does not know suites or runs; it caches under the fingerprint of model, data, method.

Shapes: N texts, T tokens, S sites, K traits, D model width.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from traitscope.core import Site, TokenTable, TraitDirections, Window
from traitscope.engine import mean_states, score_texts
from traitscope.errors import TraitError
from traitscope.models import Model
from traitscope.paths import cache_dir
from traitscope.runs import load_directions, save_directions
from traitscope.traits.pairs import Example, Trait, neutral_chats

__all__ = ["METHOD", "cached", "calibrated", "extract", "fits", "stacked", "texts_to_read"]

METHOD = "mean_difference"
_VERSION = "1"  # raised when the same data would give other numbers

ANSWER = Window.parse("response[:]")

Float32 = NDArray[np.float32]
OnDone = Callable[[int, int], None]


@dataclass(frozen=True)
class _Text:
    """A conversation as ids, with what is known of its tokens."""

    token_ids: tuple[int, ...]
    tokens: TokenTable


def extract(
    model: Model, traits: Sequence[Trait], on_done: OnDone = lambda done, total: None
) -> dict[str, TraitDirections]:
    """Directions of several traits in one pass over their texts; cached ones are read.

    `on_done(done, total)` counts texts.  Raises TraitError where a pair cannot be rendered, has
    no response tokens, or where the two sides do not differ.
    """
    found = {trait.name: cached(model, trait) for trait in traits}
    missing = [trait for trait in traits if found[trait.name] is None]
    if missing:
        made = _make(model, missing, on_done)
        for trait in missing:
            save_directions(_cache_path(model, trait), made[trait.name])
        found.update(made)
    return {name: directions for name, directions in found.items() if directions is not None}


def cached(model: Model, trait: Trait) -> TraitDirections | None:
    """The directions made before for this model, data and method; None where there are none."""
    path = _cache_path(model, trait)
    if not path.is_file():
        return None
    try:
        return load_directions(path)
    except TraitError:
        return None  # damaged: it is made again


def fits(directions: TraitDirections, model: Model, source: Path) -> None:
    """Raise TraitError where a directions file belongs to another model."""
    theirs = directions.metadata.get("model_fingerprint", "")
    shape = (len(model.sites), model.anatomy.d_model)
    if directions.direction.shape != shape or directions.sites != model.sites:
        got = f"{len(directions.sites)} sites of width {directions.direction.shape[1]}"
        raise TraitError(
            f"{source}: expected directions for '{model.name}' ({shape[0]} sites of width "
            f"{shape[1]}), got {got}. They belong to another model: extract them on this one."
        )
    if theirs != model.fingerprint:
        raise TraitError(
            f"{source}: expected directions made on '{model.name}' ({model.fingerprint}), got "
            f"ones made on '{directions.metadata.get('model', '?')}' ({theirs or 'unknown'}). "
            "Extract them on this model."
        )


def calibrated(
    model: Model, made: Mapping[str, tuple[Float32, Mapping[str, str]]]
) -> dict[str, TraitDirections]:
    """Directions [S, D] that were made elsewhere, by trait and with their metadata, and what is
    normal for them here."""
    if not made:
        return {}
    neutral = [_text(model, chat) for chat in neutral_chats()]
    units = [direction_SD for direction_SD, _ in made.values()]
    normal = _Normal.of(model, neutral, np.stack(units, axis=2))
    return {
        name: _beside(
            model,
            name,
            made[name][0],
            normal,
            k,
            {**made[name][1], "neutral_hash": _neutral_hash()},
        )
        for k, name in enumerate(made)
    }


def stacked(directions: Sequence[TraitDirections]) -> Float32:
    """All traits' directions as the engine wants them: [S, D, K]."""
    return np.stack([d.direction for d in directions], axis=2)


# --- the cache -----------------------------------------------------------------------------------


def _cache_path(model: Model, trait: Trait) -> Path:
    raw = [model.fingerprint, model.dtype_name, trait.data_hash, _neutral_hash(), METHOD, _VERSION]
    if model.arguments:  # they are in every text that was read
        raw.append(json.dumps(dict(model.arguments), sort_keys=True))
    digest = hashlib.sha256("\0".join(raw).encode()).hexdigest()[:24]
    return cache_dir() / "directions" / f"{trait.name}-{digest}.safetensors"


def _neutral_hash() -> str:
    raw = "\0".join(f"{chat.prompt}\1{chat.response}" for chat in neutral_chats())
    return hashlib.sha256(raw.encode()).hexdigest()[:16]


# --- making them ---------------------------------------------------------------------------------


def texts_to_read(
    model: Model, traits: Sequence[Trait]
) -> tuple[list[tuple[int, ...]], list[NDArray[np.bool_]], list[tuple[int, ...]]]:
    """The ids of all texts of pairs and which of their tokens count, and the neutral texts' ids."""
    texts, chosen = _pairs(model, traits)
    neutral = [_text(model, chat).token_ids for chat in neutral_chats()]
    return [text.token_ids for text in texts], chosen, neutral


def _pairs(model: Model, traits: Sequence[Trait]) -> tuple[list[_Text], list[NDArray[np.bool_]]]:
    """The texts of all pairs, positive and negative in turn, and the tokens that count."""
    texts: list[_Text] = []
    chosen: list[NDArray[np.bool_]] = []
    for trait in traits:
        for pair in trait.pairs:
            for side, example in (("positive", pair.positive), ("negative", pair.negative)):
                text = _text(model, example)
                mask = trait.extract_window.pick(text.tokens)
                if not mask.any():
                    raise TraitError(
                        f"Trait '{trait.name}', pair '{pair.id}': expected tokens in "
                        f"'{trait.extract_window}' of the {side} side, got none. Mend the pair or "
                        "the window."
                    )
                texts.append(text)
                chosen.append(mask)
    return texts, chosen


def _make(model: Model, traits: Sequence[Trait], on_done: OnDone) -> dict[str, TraitDirections]:
    texts, chosen = _pairs(model, traits)
    neutral = [_text(model, chat) for chat in neutral_chats()]
    total, done = len(texts) + len(neutral), 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        on_done(done, total)

    mean_NSD = mean_states(model, [t.token_ids for t in texts], chosen, on_done=count)
    units, at = [], 0
    for trait in traits:
        n = 2 * len(trait.pairs)
        units.append(_unit(mean_NSD[at : at + n], trait.name, model.sites))
        at += n
    normal = _Normal.of(model, neutral, np.stack(units, axis=2))
    count(len(neutral))
    return {t.name: _assemble(model, t, units[k], normal, k) for k, t in enumerate(traits)}


def _text(model: Model, example: Example) -> _Text:
    """Prompt as rendered, then the response's own ids: the boundary comes from the ids.

    An answer has no thought here: of a model that thinks, an empty one stands before it.
    """
    rendered = model.render(example.chat)
    frame = model.frame(example.chat, rendered)
    written = [frame, example.response] if frame else [example.response]
    pieces = (model.tokenizer(text, add_special_tokens=False)["input_ids"] for text in written)
    ids = (*rendered.token_ids, *(int(i) for piece in pieces for i in piece))
    model.check_ids(ids)
    if len(ids) > model.context:
        raise TraitError(
            "Directions are made of pairs and of neutral chats: expected each of them to have at "
            f"most {model.context} tokens (the context of '{model.name}'), got {len(ids)} in the "
            f"one that begins '{example.prompt[:60]}'. Take a model of a longer context, or "
            "shorten it where it is yours."
        )
    return _Text(ids, model.speller.table(ids, rendered))


def _unit(mean_NSD: Float32, name: str, sites: Sequence[Site]) -> Float32:
    """[S, D]: rows alternate positive, negative."""
    wide = mean_NSD.astype(np.float64)
    difference_SD = (wide[0::2] - wide[1::2]).mean(axis=0)
    norm_S = np.linalg.norm(difference_SD, axis=1)
    if not np.isfinite(norm_S).all() or (norm_S < 1e-12).any():
        bad = sites[int(np.argmin(np.nan_to_num(norm_S, nan=0.0)))]
        raise TraitError(
            f"Trait '{name}': expected the two sides of its pairs to differ at every site, but at "
            f"{bad} their mean states are equal or not finite. Check the pairs and the dtype."
        )
    return np.asarray(difference_SD / norm_S[:, None], dtype=np.float32)


@dataclass(frozen=True)
class _Normal:
    """Neutral numbers [S, K]: content tokens, responses' means, last prompt tokens."""

    token_mean: Float32
    token_std: Float32
    response_std: Float32
    prompt_mean: Float32
    prompt_std: Float32

    @classmethod
    def of(cls, model: Model, texts: Sequence[_Text], direction_SDK: Float32) -> _Normal:
        tokens, means, prompts = [], [], []
        for scored in score_texts(model, [t.token_ids for t in texts], direction_SDK):
            table, score_TSK = texts[scored.index].tokens, scored.score
            said_TSK = score_TSK[ANSWER.pick(table)].astype(np.float64)
            tokens.append(said_TSK)
            means.append(said_TSK.mean(axis=0))
            prompts.append(score_TSK[table.n_prompt - 1].astype(np.float64))
        every = np.concatenate(tokens)
        parts = [
            every.mean(axis=0),
            every.std(axis=0, ddof=1),
            np.stack(means).std(axis=0, ddof=1),
            np.stack(prompts).mean(axis=0),
            np.stack(prompts).std(axis=0, ddof=1),
        ]
        return cls(*(part.astype(np.float32) for part in parts))


def _beside(
    model: Model,
    name: str,
    direction_SD: Float32,
    normal: _Normal,
    k: int,
    metadata: Mapping[str, str],
) -> TraitDirections:
    """One trait's directions beside the neutral numbers of trait `k`."""
    return TraitDirections(
        trait=name,
        sites=model.sites,
        direction=direction_SD,
        neutral_mean=normal.token_mean[:, k].copy(),
        neutral_std=normal.token_std[:, k].copy(),
        neutral_response_std=normal.response_std[:, k].copy(),
        neutral_prompt_mean=normal.prompt_mean[:, k].copy(),
        neutral_prompt_std=normal.prompt_std[:, k].copy(),
        metadata=metadata,
    )


def _assemble(
    model: Model, trait: Trait, direction_SD: Float32, normal: _Normal, k: int
) -> TraitDirections:
    return _beside(
        model,
        trait.name,
        direction_SD,
        normal,
        k,
        {
            "method": METHOD,
            "model": model.name,
            "model_fingerprint": model.fingerprint,
            "dtype": model.dtype_name,
            "data_hash": trait.data_hash,
            "neutral_hash": _neutral_hash(),
            "pairs": str(len(trait.pairs)),
            "display_name": trait.display_name,
            "positive": trait.positive,
            "negative": trait.negative,
            "extract_window": str(trait.extract_window),
            "read_site": str(trait.read_site),
            "read_window": str(trait.read_window),
        },
    )
