"""Directions files: what is saved is loaded, and what is wrong is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.runs.build import directions_of
from traitscope.core import TraitDirections, Window
from traitscope.errors import TraitError
from traitscope.runs import load_directions, save_directions


def test_round_trip(tmp_path: Path) -> None:
    saved = directions_of("alpha")
    save_directions(tmp_path / "new" / "alpha.safetensors", saved)
    loaded = load_directions(tmp_path / "new" / "alpha.safetensors")
    assert (loaded.hash, loaded.sites, loaded.metadata) == (saved.hash, saved.sites, saved.metadata)
    np.testing.assert_array_equal(loaded.direction, saved.direction)
    np.testing.assert_array_equal(loaded.neutral_prompt_std, saved.neutral_prompt_std)
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["alpha.safetensors"]


def test_equal_directions_are_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_directions(tmp_path / name, directions_of("alpha"))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_site_without_direction_is_zero(tmp_path: Path) -> None:
    zero = directions_of("alpha")
    zero.direction[0] = 0
    save_directions(tmp_path / "zero", zero)
    assert not load_directions(tmp_path / "zero").direction[0].any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trait": "Über"}, "a trait's name"),
        ({"direction": np.ones((5, 8), dtype=np.float32)}, "unit vectors .* site embed"),
        ({"direction": np.ones((4, 8), dtype=np.float32)}, r"shape \[5, d\]"),
        ({"direction": np.eye(5, 8)}, "as float32"),
        ({"neutral_std": np.ones(4, dtype=np.float32)}, "'neutral_std' as float32 for 5 sites"),
        ({"neutral_std": -np.ones(5, dtype=np.float32)}, "no negative spread"),
        ({"neutral_mean": np.full(5, np.nan, dtype=np.float32)}, "finite numbers"),
    ],
)
def test_wrong_directions_are_named(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    wrong: TraitDirections = replace(directions_of("alpha"), **change)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(TraitError, match=message):
        save_directions(tmp_path / "alpha.safetensors", wrong)
    assert list(tmp_path.iterdir()) == []


def test_damaged_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "alpha.safetensors"
    with pytest.raises(TraitError, match="No such file"):
        load_directions(path)
    save_directions(path, directions_of("alpha"))
    whole = path.read_bytes()
    for position in (*range(0, len(whole), 13), len(whole) - 1):
        damaged = bytearray(whole)
        damaged[position] ^= 0x15
        path.write_bytes(damaged)
        try:
            same = load_directions(path)
        except TraitError:
            continue
        # what the hash leaves out: free metadata, which the run's own checksums cover
        assert same.hash == directions_of("alpha").hash
    for length in (0, 7, 8, 100, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(TraitError):
            load_directions(path)


def test_where_neutral_text_has_no_spread_there_is_no_z() -> None:
    # the last prompt token at `embed` is the same token in every chat: its spread is rounding
    made = directions_of("alpha")
    mean, std = made.neutral_prompt_mean.copy(), made.neutral_prompt_std.copy()
    mean[0], std[0], mean[1], std[1] = 1.3, 1e-8, 0.0, 0.0
    still = replace(made, neutral_prompt_mean=mean, neutral_prompt_std=std)
    score = np.array([1.3 + 3e-8, 5.0], dtype=np.float32)
    for site in (0, 1):
        assert np.isnan(still.z(score, site, Window.parse("prompt[-1]"))).all()
        assert np.isfinite(still.z(score, site, Window.parse("response[:]"))).all()
    assert np.isfinite(still.z(score, 2, Window.parse("prompt[-1]"))).all()
