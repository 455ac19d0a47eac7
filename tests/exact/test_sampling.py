"""Sampling: what truncation keeps, how often each token is drawn, and what the noise depends on."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import chisquare, kstest
from torch import Tensor

from tests.exact.reference import truncated
from traitscope.core import Generation, GenerationConfig
from traitscope.engine import gumbel, noise, noise_key, pick

EULER = 0.5772156649015329
DRAWS = 8000


def _config(**changes: float) -> GenerationConfig:
    return GenerationConfig(**{"temperature": 1.0, **changes})  # type: ignore[arg-type]  # floats and whole numbers


def _draws(logits_V: Tensor, config: GenerationConfig, n: int = DRAWS, key: int = 11) -> Tensor:
    """`n` draws from one distribution, at n positions of one text."""
    position_B = torch.arange(n)
    key_B = torch.full((n,), key)
    return pick(logits_V.expand(n, -1), key_B, position_B, config)[0]


def _counts(logits_V: Tensor, config: GenerationConfig, key: int = 11) -> np.ndarray:
    drawn = _draws(logits_V, config, key=key).numpy()
    return np.bincount(drawn, minlength=len(logits_V))


# --- what is kept --------------------------------------------------------------------------------


def test_top_p_keeps_the_token_that_crosses() -> None:
    logits = torch.tensor([0.05, 0.5, 0.45]).log()
    assert (_counts(logits, _config(top_p=0.9)) > 0).tolist() == [False, True, True]
    assert (_counts(logits, _config(top_p=0.5)) > 0).tolist() == [False, True, False]
    assert (_counts(logits, _config(top_p=0.51)) > 0).tolist() == [False, True, True]
    assert (_counts(logits, _config(top_p=0.96)) > 0).tolist() == [True, True, True]
    assert (_counts(logits, _config(top_p=1e-6)) > 0).tolist() == [False, True, False]


def test_top_k_keeps_the_best_k() -> None:
    logits = torch.tensor([0.1, 0.3, 0.2, 0.25, 0.15]).log()
    for k, kept in ((1, {1}), (2, {1, 3}), (3, {1, 2, 3}), (5, set(range(5))), (99, set(range(5)))):
        counts = _counts(logits, _config(top_k=k))
        assert set(np.flatnonzero(counts).tolist()) == kept


def test_top_p_is_taken_of_what_top_k_leaves() -> None:
    """.4 .3 .2 .1: of the best two, .4 is 57%, so 0.5 keeps one; of all four it keeps two."""
    logits = torch.tensor([0.4, 0.3, 0.2, 0.1]).log()
    assert (_counts(logits, _config(top_p=0.5)) > 0).tolist() == [True, True, False, False]
    both = _counts(logits, _config(top_k=2, top_p=0.5))
    assert (both > 0).tolist() == [True, False, False, False]


def test_temperature_comes_before_the_nucleus() -> None:
    """.5 .3 .2 at temperature 0.5 is .66 .24 .11: 0.6 keeps one, where it kept two."""
    logits = torch.tensor([0.5, 0.3, 0.2]).log()
    assert (_counts(logits, _config(top_p=0.6)) > 0).sum() == 2
    assert (_counts(logits, _config(top_p=0.6, temperature=0.5)) > 0).sum() == 1


def test_temperature_zero_is_the_best_token() -> None:
    logits = torch.randn(50, 700, generator=torch.Generator().manual_seed(0))
    keys, positions = torch.arange(50), torch.arange(50)
    config = _config(temperature=0.0, top_p=0.5, top_k=3)
    token, _ = pick(logits, keys, positions, config)
    assert torch.equal(token, logits.argmax(-1))


@pytest.mark.parametrize("config", [_config(temperature=0.0), _config(top_p=0.5), _config(top_k=3)])
def test_logprob_is_untempered_and_untruncated(config: GenerationConfig) -> None:
    logits = torch.randn(20, 400, generator=torch.Generator().manual_seed(1)) * 3
    token, logprob = pick(logits, torch.arange(20), torch.arange(20), config)
    own = logits.double().log_softmax(-1)[torch.arange(20), token]
    torch.testing.assert_close(logprob.double(), own, atol=1e-5, rtol=1e-5)


# --- how often -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config",
    [
        _config(),
        _config(temperature=0.6),
        _config(temperature=1.7),
        _config(top_k=5),
        _config(top_p=0.8),
        _config(top_k=8, top_p=0.85, temperature=1.3),
        _config(top_p=0.999999),
    ],
    ids=str,
)
def test_frequencies_are_the_softmax(config: GenerationConfig) -> None:
    logits = torch.randn(12, generator=torch.Generator().manual_seed(2))
    weight = truncated(logits / config.temperature, config.top_k, config.top_p)
    expected = weight.double().softmax(-1).numpy()
    counts = _counts(logits, config)
    kept = expected > 0
    assert counts[~kept].sum() == 0
    assert chisquare(counts[kept], expected[kept] * counts.sum()).pvalue > 1e-3


def test_chi_square_would_notice_the_wrong_temperature() -> None:
    logits = torch.randn(12, generator=torch.Generator().manual_seed(2))
    expected = (logits / 0.9).double().softmax(-1).numpy()
    counts = _counts(logits, _config(temperature=1.0))
    assert chisquare(counts, expected * counts.sum()).pvalue < 1e-6


def test_truncation_that_cuts_nothing_draws_the_very_same_tokens() -> None:
    """The truncated path and the one over the full vocabulary share their noise."""
    logits = torch.randn(40, generator=torch.Generator().manual_seed(3))
    every = _draws(logits, _config())
    assert torch.equal(every, _draws(logits, _config(top_p=0.9999999)))
    assert torch.equal(every, _draws(logits, _config(top_k=39, top_p=1.0))) or bool(
        (every == logits.argmin()).any()
    )


def test_the_log_of_a_zero_is_never_drawn() -> None:
    logits = torch.randn(30, generator=torch.Generator().manual_seed(4))
    logits[::2] = float("-inf")
    for config in (_config(), _config(top_p=0.95), _config(top_k=20)):
        assert (_draws(logits, config, n=2000) % 2 == 1).all()


# --- large vocabularies --------------------------------------------------------------------------


def _plain_pick(logits_V: Tensor, key: int, position: int, config: GenerationConfig) -> int:
    weight = truncated(logits_V.log_softmax(-1) / config.temperature, config.top_k, config.top_p)
    every = torch.arange(len(logits_V))[None]
    noise = gumbel(torch.tensor([key]), torch.tensor([position]), every)[0]
    return int((weight + noise).argmax())


@pytest.mark.parametrize("ask", [True, False], ids=["asking", "never asking"])
@pytest.mark.parametrize("narrow", [False, True], ids=["float32", "from bfloat16"])
@pytest.mark.parametrize("spread", [0.1, 1.0, 4.0], ids=["flat", "middling", "peaked"])
@pytest.mark.parametrize(
    "config",
    [
        _config(),
        _config(top_p=0.95),
        _config(top_p=0.5, temperature=0.7),
        _config(top_p=0.05),
        _config(top_k=700, top_p=0.9),
        _config(top_k=50),
    ],
    ids=str,
)
def test_picks_are_those_of_a_plain_account(
    spread: float, narrow: bool, config: GenerationConfig, ask: bool
) -> None:
    """Flat rows' nuclei are thousands of tokens, far beyond the first candidates; and many logits
    that were bfloat16 are equal, of which the lowest ids are the better ones."""
    if config.top_k and narrow and not ask:
        pytest.skip("on a CPU, which asks, the others would not be the lowest ids")
    logits = torch.randn(6, 5000, generator=torch.Generator().manual_seed(5)) * spread
    logits = logits.bfloat16().float() if narrow else logits
    for draw in range(8):
        key_B, position_B = torch.arange(6) * 977 + draw, torch.arange(6) + 3
        token, _ = pick(logits, key_B, position_B, config, ask)
        for row in range(6):
            plain = _plain_pick(logits[row], int(key_B[row]), int(position_B[row]), config)
            assert int(token[row]) == plain


@pytest.mark.parametrize("rows", [1, 3, 700])
@pytest.mark.parametrize("piece", [1, 64, 1000])
def test_the_winner_piece_by_piece_is_the_winner(
    rows: int, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(noise, "_PIECE", piece)
    logprob = torch.randn(rows, 1003, generator=torch.Generator().manual_seed(7)).log_softmax(-1)
    logprob[:, ::3] = float("-inf")
    keys, positions = torch.arange(rows) * 7919 + 2**62, torch.arange(rows) % 50
    for temperature in (0.7, 1.0, 3.0):
        whole = logprob / temperature + _noise(keys, positions, 1003)
        got = noise.best_of_all(logprob, keys, positions, temperature)
        assert torch.equal(got, whole.argmax(-1))


def test_a_wide_nucleus_is_kept_whole() -> None:
    """Of 4,000 equal tokens 0.5 keeps 2,000: nearly as many different ones are drawn."""
    logits = torch.linspace(0, 1e-3, 4000)
    drawn = _draws(logits, _config(top_p=0.5), n=1500)
    assert (drawn >= 1999).all()
    assert len(drawn.unique()) > 900


@pytest.mark.parametrize("equal", [100, 600, 1500])
@pytest.mark.parametrize("ask", [True, False], ids=["asking", "never asking"])
def test_of_equal_tokens_the_lowest_ids_are_the_nucleus(equal: int, ask: bool) -> None:
    """Among the first candidates and beyond them."""
    logits = torch.full((1500,), -60.0)
    ids = torch.randperm(1500, generator=torch.Generator().manual_seed(8))[:equal].sort().values
    logits[ids] = 0.0
    rows = torch.arange(3 * equal)
    drawn, _ = pick(logits.expand(len(rows), -1), rows, rows, _config(top_p=0.5), ask)
    inside = ids[: len(ids) // 2 + 1]  # rounding may take one more
    assert torch.isin(drawn, inside).all()
    assert len(drawn.unique()) > 0.9 * len(ids) // 2


def test_a_row_does_not_depend_on_its_neighbours_nucleus() -> None:
    """A flat neighbour has its nucleus beyond the first candidates; the peaked row draws as before,
    even with a threshold put exactly where its mass adds up to."""
    generator = torch.Generator().manual_seed(6)
    flat = torch.zeros(5000)
    for seed in range(30):
        peaked = torch.randn(5000, generator=generator) * 4
        mass = peaked.softmax(-1).sort(descending=True).values.cumsum(-1)
        config = _config(top_p=float(mass[2 + seed % 5]))
        keys, positions = torch.arange(200) + seed, torch.arange(200)
        alone, _ = pick(peaked.expand(200, -1), keys, positions, config)
        beside = torch.cat([peaked.expand(200, -1), flat[None]])
        with_flat, _ = pick(beside, torch.arange(201) + seed, torch.arange(201), config)
        assert torch.equal(alone, with_flat[:200])


# --- the noise -----------------------------------------------------------------------------------


def _noise(keys: Tensor, positions: Tensor, tokens: int) -> Tensor:
    return gumbel(keys, positions, torch.arange(tokens).expand(len(keys), -1))


def test_noise_is_a_function_of_its_arguments() -> None:
    keys = torch.tensor([noise_key(0, Generation("ab" * 8, i)) for i in range(6)])
    positions = torch.tensor([3, 90, 4, 5, 3, 1000])
    whole = _noise(keys, positions, 500)
    order = torch.tensor([5, 2, 0, 1, 4, 3])
    assert torch.equal(_noise(keys[order], positions[order], 500), whole[order])
    for row in range(6):
        assert torch.equal(
            _noise(keys[row : row + 1], positions[row : row + 1], 500)[0], whole[row]
        )
    tokens = torch.tensor([[7, 499, 0]])  # only some candidates, in any order
    assert torch.equal(gumbel(keys[:1], positions[:1], tokens)[0], whole[0, [7, 499, 0]])


def test_noise_is_gumbel() -> None:
    noise = _noise(torch.arange(50), torch.arange(50) * 7, 2000).flatten().double()
    assert torch.isfinite(noise).all()
    assert abs(noise.mean().item() - EULER) < 0.015
    assert abs(noise.var().item() - math.pi**2 / 6) < 0.03
    assert kstest(noise[::10].numpy(), "gumbel_r").pvalue > 1e-3


@pytest.mark.parametrize("shift", [1, 2, 3, 255, 256])
def test_noise_of_neighbouring_tokens_and_positions_is_unrelated(shift: int) -> None:
    n = 300
    noise = _noise(torch.full((n,), 12345), torch.arange(n), 600).numpy()
    bound = 4 / math.sqrt(noise[:-shift].size / 2)
    by_token = np.corrcoef(noise[:, :-shift].ravel(), noise[:, shift:].ravel())[0, 1]
    assert abs(by_token) < bound
    if shift < n:
        by_position = np.corrcoef(noise[:-shift].ravel(), noise[shift:].ravel())[0, 1]
        assert abs(by_position) < bound
    # token t at position p and t - shift at p + 1: a hash that only adds them up would be caught
    diagonal = np.corrcoef(noise[:-1, shift:].ravel(), noise[1:, :-shift].ravel())[0, 1]
    assert abs(diagonal) < bound


def test_noise_of_samples_seeds_and_prompts_is_unrelated() -> None:
    names = [Generation(p * 16, s) for p in "abc" for s in range(3)]
    keys = [noise_key(seed, name) for seed in (0, 1) for name in names]
    assert len(set(keys)) == len(keys)
    assert all(0 <= key < 2**63 for key in keys)
    noise = _noise(torch.tensor(keys), torch.full((len(keys),), 5), 20000).numpy()
    related = np.abs(np.corrcoef(noise) - np.eye(len(keys)))
    assert related.max() < 5 / math.sqrt(20000)


def test_large_ids_positions_and_keys_are_fine() -> None:
    keys = torch.tensor([0, 1, 2**63 - 1])
    tokens = torch.tensor([[0, 255_999, 2**31 - 1]]).expand(3, -1)
    noise = gumbel(keys, torch.tensor([0, 131_072, 2**31]), tokens)
    assert torch.isfinite(noise).all()
    assert len(noise.unique()) == 9


def test_seed_and_sample_change_the_texts() -> None:
    logits = torch.zeros(1, 1000)
    drawn = {
        int(pick(logits, torch.tensor([noise_key(seed, name)]), torch.tensor([4]), _config())[0])
        for seed in range(3)
        for name in (Generation("ab" * 8, 0), Generation("ab" * 8, 1), Generation("cd" * 8, 0))
    }
    assert len(drawn) >= 8
