"""A planted direction is found and a shuffled one is not; means, neutral numbers, the cache.

The planted model is a tiny one whose embedding rows for some letters carry a known vector.  The
plain computation beside it runs one text at a time, without padding, with hooks of its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.runner.small import NEUTRAL, few_neutral_chats, save_model, write_trait
from tests.tiny import BASE, hf_model, model, tokenizer
from traitscope.core import TraitDirections
from traitscope.engine import Scored, mean_states, score_texts
from traitscope.errors import TraitError
from traitscope.models import Model, load
from traitscope.runs import load_directions, save_directions
from traitscope.traits import extract as room
from traitscope.traits.extract import cached, extract, fits, stacked
from traitscope.traits.pairs import Example, Trait, load_trait

WIDTH = int(BASE["hidden_size"])
MORE, LESS, OTHER = "abcdefgh", "stuvwxyz", "ijklmnopqr"
SPECIAL = (256, 257, 258)

Floats = NDArray[np.float64]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of this test."""
    monkeypatch.setenv("TRAITSCOPE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    few_neutral_chats(monkeypatch)
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def plain_model() -> Model:
    return model("llama")


def words(random: np.random.Generator, letters: str) -> str:
    """Half of the letters from `letters`, half from those that carry nothing."""
    chosen = [*random.choice(list(letters), 12), *random.choice(list(OTHER), 12)]
    return "".join(random.permutation(chosen))


def contrast(folder: Path, *, shuffled: bool = False, n: int = 16) -> Trait:
    """Positive responses lean to MORE, negative ones to LESS; or half of the pairs turned round."""
    random = np.random.default_rng(5)
    pairs = [(words(random, MORE), words(random, LESS)) for _ in range(n)]
    if shuffled:
        pairs = [pair if i % 2 else (pair[1], pair[0]) for i, pair in enumerate(pairs)]
    return load_trait(write_trait(folder, pairs))


def uneven(folder: Path) -> Trait:
    """Texts of many lengths, special tokens and a system turn among them."""
    texts = [
        ("perhaps it is so", "yes"),
        ("who<eos> knows", "it is certain, as everybody in the whole village can tell you"),
        ("é, perhaps", "Yes."),
        ("I doubt it<pad>", "no<bos>!"),
    ]
    trait = load_trait(write_trait(folder, texts))
    first = trait.pairs[0]
    spoken = replace(first, positive=replace(first.positive, system="Answer with doubt."))
    return replace(trait, pairs=(spoken, *trait.pairs[1:]))


# --- planted -------------------------------------------------------------------------------------


def planted(strength: float = 3.0) -> tuple[Model, Floats]:
    """A model whose letters carry + or - a vector; every token is far out in one dimension."""
    hf = hf_model("llama", seed=1)
    vector = np.random.default_rng(0).normal(size=WIDTH)
    vector[0] = 0.0
    vector /= np.linalg.norm(vector)
    rows = hf.get_input_embeddings().weight
    ids = tokenizer().get_vocab()
    with torch.no_grad():
        rows[:, 0] += 300.0  # as large models have it
        for letters, sign in ((MORE, 1.0), (LESS, -1.0)):
            for letter in letters:
                rows[ids[letter]] += torch.from_numpy(sign * strength * vector).float()
    return Model.wrap(hf, tokenizer()), vector


def test_a_planted_direction_is_found(tmp_path: Path) -> None:
    model_, vector = planted()
    found = extract(model_, [contrast(tmp_path / "planted")])["planted"]
    assert float(found.direction[0] @ vector) > 0.95, "at embed, and positive is more of it"
    shuffled = extract(model_, [contrast(tmp_path / "shuffled", shuffled=True)])["shuffled"]
    assert abs(float(shuffled.direction[0] @ vector)) < 0.4


def test_more_of_it_scores_higher_on_unseen_text(tmp_path: Path) -> None:
    model_, _ = planted()
    found = extract(model_, [contrast(tmp_path / "planted")])["planted"]
    random = np.random.default_rng(99)
    said = [words(random, letters) for letters in (MORE, LESS) for _ in range(8)]
    means = [
        plain_states(model_, Example("How?", text))[1].mean(axis=1)  # [S, D]
        for text in said
    ]
    score_NS = np.einsum("nsd,sd->ns", np.stack(means), found.direction.astype(np.float64))
    assert (score_NS[:8, 0].min() > score_NS[8:, 0].max()).all()
    assert (score_NS[:8].mean(axis=0) > score_NS[8:].mean(axis=0)).all(), "at every site"


def test_directions_are_unit_float32(plain_model: Model, tmp_path: Path) -> None:
    found = extract(plain_model, [uneven(tmp_path / "hedged")])["hedged"]
    assert found.direction.shape == (len(plain_model.sites), WIDTH)
    assert found.direction.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found.direction, axis=1), 1.0, atol=1e-6)


def test_sides_that_do_not_differ_are_refused(plain_model: Model, tmp_path: Path) -> None:
    trait = load_trait(write_trait(tmp_path / "flat", [("so", "so"), ("ja", "ja")]))
    with pytest.raises(TraitError, match=r"'flat'.*differ at every site.*embed.*equal"):
        extract(plain_model, [trait])


# --- against a plain computation -----------------------------------------------------------------


def plain_states(model_: Model, example: Example) -> tuple[Floats, Floats]:
    """One text alone: the last prompt token's states [S, D] and the response's content [S, T, D].

    Embeddings and blocks' outputs come from hooks on the modules' own inputs and outputs, the
    middle from the input of the norm before the MLP; checked against output_hidden_states.
    """
    prompt = [*model_.render(example.chat).token_ids]
    response = tokenizer()(example.response, add_special_tokens=False)["input_ids"]
    kept: list[torch.Tensor] = []
    layers, handles = model_.hf.model.layers, []
    for layer in layers:
        norm = layer.post_attention_layernorm
        handles.append(norm.register_forward_pre_hook(lambda _, args: kept.append(args[0])))
        handles.append(layer.register_forward_hook(lambda _, __, out: kept.append(out)))
    with torch.inference_mode():
        ids = torch.tensor([[*prompt, *response]])
        hidden = model_.hf(ids, output_hidden_states=True).hidden_states
    for handle in handles:
        handle.remove()
    for block in range(len(layers) - 1):
        assert torch.equal(kept[2 * block + 1], hidden[block + 1])
    h_STD = torch.cat([hidden[0], *kept]).double().numpy()
    said = [len(prompt) + i for i, id_ in enumerate(response) if id_ not in SPECIAL]
    return h_STD[:, len(prompt) - 1], h_STD[:, said]


def plain_direction(model_: Model, trait: Trait) -> Floats:
    difference = [
        plain_states(model_, pair.positive)[1].mean(axis=1)
        - plain_states(model_, pair.negative)[1].mean(axis=1)
        for pair in trait.pairs
    ]
    mean_SD = np.mean(difference, axis=0)
    return np.asarray(mean_SD / np.linalg.norm(mean_SD, axis=1, keepdims=True))


def test_the_mean_is_over_the_content_of_the_responses(plain_model: Model, tmp_path: Path) -> None:
    trait = uneven(tmp_path / "hedged")
    found = extract(plain_model, [trait])["hedged"]
    np.testing.assert_allclose(found.direction, plain_direction(plain_model, trait), atol=1e-5)


def test_traits_made_together_are_those_made_alone(plain_model: Model, tmp_path: Path) -> None:
    traits = [uneven(tmp_path / "hedged"), contrast(tmp_path / "planted", n=3)]
    both = extract(plain_model, traits)
    assert list(both) == ["hedged", "planted"]
    for trait in traits:
        expected = plain_direction(plain_model, trait)
        np.testing.assert_allclose(both[trait.name].direction, expected, atol=1e-5)
        assert both[trait.name].trait == trait.name
        assert both[trait.name].metadata["data_hash"] == trait.data_hash


@pytest.mark.parametrize(
    ("window", "first", "last"), [("response[1:3]", 1, 3), ("response[0]", 0, 1)]
)
def test_the_window_is_the_traits(
    plain_model: Model, tmp_path: Path, window: str, first: int, last: int
) -> None:
    about = f'extract_window = "{window}"\n'
    trait = load_trait(
        write_trait(tmp_path / "cut", [("maybe", "yes!"), ("so so", "no no")], about=about)
    )
    found = extract(plain_model, [trait])["cut"].direction
    difference = [
        plain_states(plain_model, pair.positive)[1][:, first:last].mean(axis=1)
        - plain_states(plain_model, pair.negative)[1][:, first:last].mean(axis=1)
        for pair in trait.pairs
    ]
    mean_SD = np.mean(difference, axis=0)
    expected = mean_SD / np.linalg.norm(mean_SD, axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_window_without_tokens_is_refused(plain_model: Model, tmp_path: Path) -> None:
    pairs = [("maybe so", "yes"), ("perhaps", "of course")]
    trait = load_trait(
        write_trait(tmp_path / "cut", pairs, about='extract_window = "response[4:]"\n')
    )
    with pytest.raises(TraitError, match=r"'cut', pair '1'.*'response\[4:\]' of the negative side"):
        extract(plain_model, [trait])


def test_a_pair_longer_than_the_context_is_refused(plain_model: Model, tmp_path: Path) -> None:
    trait = load_trait(write_trait(tmp_path / "long", [("maybe", "yes"), ("so " * 90, "no")]))
    with pytest.raises(TraitError, match=r"at most 256 tokens.*How 1"):
        extract(plain_model, [trait])


def test_what_is_normal(
    plain_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chats = (*NEUTRAL, Example("Is it?", "It<eos> is.<pad>", "Be brief."))
    monkeypatch.setattr(room, "neutral_chats", lambda: chats)
    found = extract(plain_model, [uneven(tmp_path / "hedged"), contrast(tmp_path / "other", n=2)])
    texts = [plain_states(plain_model, chat) for chat in chats]
    for directions in found.values():
        v_SD = directions.direction.astype(np.float64)
        said = [np.einsum("std,sd->ts", said_STD, v_SD) for _, said_STD in texts]
        asked = np.stack([np.einsum("sd,sd->s", last_SD, v_SD) for last_SD, _ in texts])
        every, means = np.concatenate(said), np.stack([text.mean(axis=0) for text in said])
        for got, expected in (
            (directions.neutral_mean, every.mean(axis=0)),
            (directions.neutral_std, every.std(axis=0, ddof=1)),
            (directions.neutral_response_std, means.std(axis=0, ddof=1)),
            (directions.neutral_prompt_mean, asked.mean(axis=0)),
            (directions.neutral_prompt_std, asked.std(axis=0, ddof=1)),
        ):
            np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch_tokens", [1, 150, 100_000])
def test_the_batch_does_not_matter(
    plain_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch_tokens: int
) -> None:
    trait = uneven(tmp_path / "hedged")
    expected = extract(plain_model, [trait])["hedged"]
    monkeypatch.setenv("TRAITSCOPE_HOME", str(tmp_path / "another"))
    for name, whole in (("mean_states", mean_states), ("score_texts", score_texts)):
        monkeypatch.setattr(room, name, partial(whole, batch_tokens=batch_tokens))
    found = extract(plain_model, [trait])["hedged"]
    np.testing.assert_allclose(found.direction, expected.direction, atol=1e-5)
    np.testing.assert_allclose(found.neutral_mean, expected.neutral_mean, atol=1e-4)
    np.testing.assert_allclose(found.neutral_std, expected.neutral_std, atol=1e-4)


def test_means_are_accumulated_in_float64(
    plain_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers that float32 loses: a difference of 1 between ones of 1e8, a spread of 1 on 1e7."""
    n_sites = len(plain_model.sites)
    random = np.random.default_rng(0)

    def states(_: Model, texts: Sequence[object], *__: object, **___: object) -> object:
        mean_NSD = np.zeros((len(texts), n_sites, WIDTH), dtype=np.float32)
        mean_NSD[[0, 2, 5], :, 0] = [[1e8], [1.0], [1e8]]  # + 1e8, + 1, - 1e8: dimension 0 is 1
        mean_NSD[0, :, 1] = 1.0
        return mean_NSD

    def scores(_: Model, texts: Sequence[Sequence[int]], *__: object) -> Iterator[object]:
        for i, text in enumerate(texts):
            spread = random.integers(-1, 2, size=(len(text), n_sites, 1))
            score = (spread + 1e7).astype(np.float32)
            yield Scored(i, score, score[..., 0], score[:, 0, 0], None, 0, 0.0)

    monkeypatch.setattr(room, "mean_states", states)
    monkeypatch.setattr(room, "score_texts", scores)
    trait = load_trait(write_trait(tmp_path / "far", [("a", "b"), ("c", "d"), ("e", "f")]))
    found = extract(plain_model, [trait])["far"]
    np.testing.assert_allclose(found.direction[:, :2], np.sqrt(0.5), atol=1e-5)
    assert (found.neutral_std > 0.6).all()
    assert (found.neutral_std < 1.0).all()
    assert (found.neutral_response_std < 0.6).all()
    assert (found.neutral_response_std > 0.01).all()


def test_progress_counts_every_text(plain_model: Model, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    trait = uneven(tmp_path / "hedged")
    extract(plain_model, [trait], lambda done, total: seen.append((done, total)))
    total = 2 * len(trait.pairs) + len(NEUTRAL)
    assert seen[-1] == (total, total)
    assert seen == sorted(seen)


# --- the cache -----------------------------------------------------------------------------------


class Forwards:
    """Counts a model's forwards."""

    def __init__(self, model_: Model) -> None:
        self.count = 0
        self._handle = model_.hf.model.register_forward_hook(self._hook)

    def _hook(self, *_: object) -> None:
        self.count += 1

    def __enter__(self) -> Forwards:
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.remove()


def same(a: TraitDirections, b: TraitDirections) -> bool:
    return a.hash == b.hash and a.metadata == b.metadata and a.sites == b.sites


def test_the_second_call_does_no_forward(plain_model: Model, tmp_path: Path, home: Path) -> None:
    trait, more = uneven(tmp_path / "hedged"), contrast(tmp_path / "other", n=2)
    assert cached(plain_model, trait) is None
    with Forwards(plain_model) as forwards:
        made = extract(plain_model, [trait])["hedged"]
        assert forwards.count > 0
        forwards.count = 0
        assert same(extract(plain_model, [trait])["hedged"], made)
        assert forwards.count == 0
        both = extract(plain_model, [more, trait])
        assert forwards.count > 0, "the other one is made"
    assert same(both["hedged"], made), "and this one is read"
    assert list(both) == ["other", "hedged"], "in the order asked for"
    assert [p.suffix for p in (home / "directions").iterdir()] == [".safetensors"] * 2


def cut(raw: bytes) -> bytes:
    return raw[: len(raw) // 2]


def flipped(raw: bytes) -> bytes:
    return raw[:-5] + bytes([raw[-5] ^ 1]) + raw[-4:]


@pytest.mark.parametrize("damage", [cut, flipped, lambda raw: b"", lambda raw: b"\0" * 100])
def test_a_damaged_file_is_made_again(
    plain_model: Model, tmp_path: Path, home: Path, damage: Callable[[bytes], bytes]
) -> None:
    trait = contrast(tmp_path / "other", n=2)
    made = extract(plain_model, [trait])["other"]
    (path,) = (home / "directions").iterdir()
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert cached(plain_model, trait) is None
    assert same(extract(plain_model, [trait])["other"], made)
    assert path.read_bytes() == whole


def test_other_data_model_dtype_and_neutral_text_have_other_files(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trait = contrast(tmp_path / "other", n=2)
    folder = save_model(tmp_path / "model")
    model_ = load(str(folder))
    wide = load(str(folder), dtype="bfloat16")
    assert model_.fingerprint == wide.fingerprint
    another = load(str(save_model(tmp_path / "another", seed=1)))
    for one, data in (
        (model_, trait),
        (model_, contrast(tmp_path / "other", n=3)),
        (wide, trait),
        (another, trait),
    ):
        assert cached(one, data) is None
        extract(one, [data])
        assert cached(one, data) is not None
    monkeypatch.setattr(room, "neutral_chats", lambda: NEUTRAL[1:])
    assert cached(model_, trait) is None
    assert len(list((home / "directions").iterdir())) == 4


# --- another model's -----------------------------------------------------------------------------


def test_directions_of_another_model_are_refused(plain_model: Model, tmp_path: Path) -> None:
    trait = contrast(tmp_path / "other", n=2)
    made = extract(plain_model, [trait])["other"]
    fits(made, plain_model, tmp_path / "other.safetensors")
    twin = replace(model("llama", seed=1), name="twin")
    with pytest.raises(TraitError, match=f"'twin'.*'{plain_model.name}'.*{made_on(made)}"):
        fits(made, twin, tmp_path / "other.safetensors")
    narrow = replace(model("llama", hidden_size=32), name="narrow")
    with pytest.raises(TraitError, match=r"'narrow'.* width 32.*width 48"):
        fits(made, narrow, tmp_path / "other.safetensors")
    shallow = replace(model("llama", num_hidden_layers=2), name="shallow")
    with pytest.raises(TraitError, match=r"'shallow' .5 sites.*7 sites"):
        fits(made, shallow, tmp_path / "other.safetensors")


def made_on(directions: TraitDirections) -> str:
    return directions.metadata["model_fingerprint"]


def test_directions_survive_their_file(plain_model: Model, tmp_path: Path) -> None:
    made = extract(plain_model, [contrast(tmp_path / "other", n=2)])["other"]
    save_directions(tmp_path / "other.safetensors", made)
    assert same(load_directions(tmp_path / "other.safetensors"), made)


def test_stacked_keeps_the_order(plain_model: Model, tmp_path: Path) -> None:
    traits = [contrast(tmp_path / "b", n=2), uneven(tmp_path / "a")]
    made = list(extract(plain_model, traits).values())
    stack_SDK = stacked(made)
    assert stack_SDK.shape == (len(plain_model.sites), WIDTH, 2)
    for k, directions in enumerate(made):
        np.testing.assert_array_equal(stack_SDK[:, :, k], directions.direction)
