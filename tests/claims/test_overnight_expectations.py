"""What the bundled suite expects, held against the bundled model.

At least three quarters of the expectations hold for each of five seeds with the directions made
from the pairs, and fewer than half over five shuffles of the pairs' sides.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import PocketCache
from traitscope.core import TraitDirections
from traitscope.models import Model, load
from traitscope.paths import BUNDLED_TRAITS
from traitscope.report.expectations import judge
from traitscope.runner import run_suite
from traitscope.runs import Run, save_directions
from traitscope.suite import load_suite, suite_from_dict
from traitscope.traits.extract import extract
from traitscope.traits.pairs import Trait, load_trait

extract_module = sys.modules[extract.__module__]  # the function has the module's name
SEEDS = (0, 1, 2, 3, 4)
SHUFFLES = (0, 1, 2, 3, 4)
TRAITS = ("uncertainty_calibration", "commitment_strength", "cognitive_load", "sycophancy")


@pytest.fixture(autouse=True)
def home(pocket_cache: PocketCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAITSCOPE_HOME", str(pocket_cache.home))


@pytest.fixture(scope="module")
def pocket() -> Model:
    return load("pocket")


def held(model: Model, seed: int, traits: Sequence[str], out: Path) -> list[bool]:
    """Which expectations of the bundled suite hold, with these traits (names or files)."""
    bundled = load_suite("overnight", {"seed": seed})
    table = {**bundled.to_dict(), "traits": list(traits)}
    sets = table["prompts"]
    assert isinstance(sets, dict)
    table["prompts"] = {name: part for name, part in sets.items() if "internals" not in name}
    suite = suite_from_dict(table, root=bundled.root)
    outcome = run_suite(suite, out=out, model=model)
    run = Run.open(outcome.path)
    verdicts = judge(run, run.generations())
    assert all(verdict.held is not None for verdict in verdicts)
    return [bool(verdict.held) for verdict in verdicts]


@pytest.mark.parametrize("seed", SEEDS)
def test_three_quarters_of_the_expectations_hold(pocket: Model, tmp_path: Path, seed: int) -> None:
    got = held(pocket, seed, TRAITS, tmp_path / "run")
    assert np.mean(got) >= 0.75, got


def shuffled(trait: Trait, seed: int) -> Trait:
    """The pairs with their sides exchanged in a random half."""
    flips = np.random.default_rng([seed, len(trait.pairs)]).permutation(len(trait.pairs)) % 2
    pairs = [
        replace(pair, positive=pair.negative, negative=pair.positive) if flip else pair
        for pair, flip in zip(trait.pairs, flips, strict=True)
    ]
    return replace(trait, pairs=tuple(pairs))


def test_fewer_than_half_hold_with_shuffled_pairs(
    pocket: Model, pocket_cache: PocketCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a shuffle changes a text's side, not its states
    read = pocket_cache.once(extract_module.mean_states)
    monkeypatch.setattr(extract_module, "mean_states", read)
    # over several shuffles: expectations on one trait share a direction, and come right together
    got = []
    for seed in SHUFFLES:
        data = [shuffled(load_trait(BUNDLED_TRAITS / name), seed) for name in TRAITS]
        made: dict[str, TraitDirections] = extract(pocket, data)
        files = []
        for name, directions in made.items():
            files.append(str(tmp_path / str(seed) / f"{name}.safetensors"))
            save_directions(files[-1], directions)
        got += held(pocket, 0, files, tmp_path / f"run-{seed}")
    assert np.mean(got) < 0.5, got
