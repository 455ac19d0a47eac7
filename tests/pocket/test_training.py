"""The recipe in small: deterministic, and the same after an interruption."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from traitscope.pocket.train import TINY, Recipe, main, rate, train


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(TINY, tmp_path_factory.mktemp("whole"), "cpu")


def test_the_same_seed_gives_the_same_weights(whole: Path, tmp_path: Path) -> None:
    assert same(weights(whole), weights(train(TINY, tmp_path, "cpu")))


def test_a_resumed_run_ends_where_an_undisturbed_one_does(whole: Path, tmp_path: Path) -> None:
    train(TINY, tmp_path, "cpu", stop_after=2)
    assert not same(weights(whole), weights(tmp_path / "model"))
    assert same(weights(whole), weights(train(TINY, tmp_path, "cpu")))


def test_another_recipe_does_not_go_on_from_a_checkpoint(whole: Path) -> None:
    with pytest.raises(ValueError, match="another recipe"):
        train(replace(TINY, steps=5), whole.parent, "cpu")


def test_files_hold_bf16_and_load_as_float32(whole: Path) -> None:
    assert {tensor.dtype for tensor in weights(whole).values()} == {torch.bfloat16}
    model = AutoModelForCausalLM.from_pretrained(whole)
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_the_command_line_trains_a_few_steps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--tiny", "--steps", "3", "--device", "cpu", "--out", str(tmp_path)]
    assert main(given) == 0
    assert "step 3/3" in capsys.readouterr().out
    assert (tmp_path / "model" / "chat_template.jinja").exists()


def test_the_rate_warms_up_and_comes_down() -> None:
    recipe = Recipe(steps=1000, warmup=100)
    rates = [rate(recipe, step) for step in range(1000)]
    assert rates[0] < rates[99] == max(rates)
    assert rates[-1] < 0.03 * recipe.learning_rate
