"""What goes with a checkpoint: adapters, quantised weights, code of its own, several devices."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.tiny import hf_model, tokenizer
from traitscope.core import Generation
from traitscope.engine import agreement, capture_internals
from traitscope.errors import ModelError
from traitscope.models import Model, Scores, checkpoint, load, locate

WITH_PEFT = pytest.mark.skipif(find_spec("peft") is None, reason="peft is an optional extra")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    hf_model("llama").save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def _internals(model: Model) -> Any:
    drawn = np.random.default_rng(0).normal(size=(7, 48, 1)).astype(np.float32)
    return capture_internals(model, Generation("p"), [1, 2, 3, 4], 1, drawn, ["a"])


# --- adapters ------------------------------------------------------------------------------------


def _adapted() -> Any:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(
        r=2, target_modules=["q_proj", "o_proj", "down_proj"], init_lora_weights=False
    )
    torch.manual_seed(1)
    return peft.get_peft_model(hf_model("llama"), config).eval()


@WITH_PEFT
def test_an_adapter_is_merged(base: Path, tmp_path: Path) -> None:
    adapted = _adapted()
    adapted.save_pretrained(tmp_path)
    model = load(str(base), device="cpu", adapter=str(tmp_path))
    ids = torch.arange(1, 12)[None]
    with torch.inference_mode():
        own, mine = adapted(ids).logits, model.hf(ids).logits
        without = hf_model("llama")(ids).logits
    assert torch.allclose(mine, own, atol=1e-4)
    assert not torch.allclose(mine, without, atol=1e-2)
    assert all(proof.held for proof in [*model.proofs, *agreement(model)])
    _internals(model)
    plain = locate(str(base)).fingerprint
    assert len({plain, model.fingerprint}) == 2
    other = shutil.copytree(tmp_path, tmp_path / "other")
    config = json.loads((other / "adapter_config.json").read_text())
    (other / "adapter_config.json").write_text(json.dumps({**config, "lora_alpha": 3}))
    assert locate(str(base), adapter=str(other)).fingerprint != model.fingerprint


@WITH_PEFT
def test_an_adapter_that_is_not_merged() -> None:
    """Trajectories are exact; its output weights are not the ones that write, and it is said."""
    model = Model.wrap(_adapted(), tokenizer())
    assert all(proof.held for proof in agreement(model))
    with pytest.raises(ModelError, match="adapter that is not merged"):
        _internals(model)


@WITH_PEFT
def test_an_adapter_of_another_model(base: Path, tmp_path: Path) -> None:
    _adapted().save_pretrained(tmp_path)
    gpt2 = tmp_path / "gpt2"
    hf_model("gpt2").save_pretrained(gpt2)
    tokenizer().save_pretrained(gpt2)
    with pytest.raises(ModelError, match=r"Expected an adapter of .*does not fit"):
        load(str(gpt2), device="cpu", adapter=str(tmp_path))


def test_an_adapter_s_folder_is_checked(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"adapter_config\.json and its weights, got"):
        locate(str(base), adapter=str(tmp_path))
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"adapter_model\.safetensors.*found none"):
        locate(str(base), adapter=str(tmp_path))


def test_without_peft_it_is_said(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.bin").write_bytes(b"")
    monkeypatch.setattr(checkpoint, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"needs the package 'peft'.*traitscope\[adapters\]"):
        load(str(base), device="cpu", adapter=str(tmp_path))


@WITH_PEFT
@pytest.mark.filterwarnings("ignore")
def test_learnt_prompts_are_no_weights_to_merge(base: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    config = peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    peft.get_peft_model(hf_model("llama"), config).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="which puts a learnt prompt before each"):
        load(str(base), device="cpu", adapter=str(tmp_path))


# --- quantised -----------------------------------------------------------------------------------


class _Int8(nn.Module):
    """A linear layer as quantisers make it: weights that are not floating point."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        scale = linear.weight.detach().abs().amax(1, keepdim=True) / 127
        self.register_buffer("scale", scale)
        self.register_buffer("weight", (linear.weight.detach() / scale).round().to(torch.int8))

    def forward(self, x: Tensor) -> Tensor:
        return x @ (self.weight.to(x.dtype) * self.scale.to(x.dtype)).T  # type: ignore[operator, no-any-return]  # buffers


def test_quantised_weights_have_trajectories_and_no_internals() -> None:
    hf = hf_model("llama")
    for layer in hf.model.layers:
        layer.self_attn.o_proj = _Int8(layer.self_attn.o_proj)
        layer.mlp.down_proj = _Int8(layer.mlp.down_proj)
    model = Model.wrap(hf, tokenizer())
    assert model.dtype == torch.float32
    assert all(proof.held for proof in [*model.proofs, *agreement(model)])
    with pytest.raises(ModelError, match=r"without quantisation. Trajectories work"):
        _internals(model)


def test_quantised_checkpoints_need_accelerate(
    base: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    folder = shutil.copytree(base, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    (folder / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr(checkpoint, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match="quantised weights, needs the package 'accelerate'"):
        load(str(folder), device="cpu")


# --- code of its own, several devices ------------------------------------------------------------


def test_code_of_its_own_is_not_run_unless_asked_for(base: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(base, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    auto = {"AutoConfig": "mine.Config", "AutoModelForCausalLM": "mine.Model"}
    (folder / "config.json").write_text(
        json.dumps({**config, "model_type": "mine", "auto_map": auto})
    )
    witness = tmp_path / "was_run"
    (folder / "mine.py").write_text(f"open({str(witness)!r}, 'w')\n")
    with pytest.raises(ModelError, match=r"'mine'.*brings Python code.*--trust-remote-code"):
        load(str(folder), device="cpu")
    assert not witness.exists()


def test_a_native_architecture_needs_no_code(base: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(base, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    auto = {"AutoModelForCausalLM": "mine.Model"}
    (folder / "config.json").write_text(json.dumps({**config, "auto_map": auto}))
    assert load(str(folder), device="cpu").anatomy.config.model_type == "llama"


def test_spread_without_accelerate_is_one_sentence(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"several devices.*pip install 'traitscope\[large\]'"):
        load(str(base), device="spread")


@pytest.mark.skipif(find_spec("accelerate") is None, reason="accelerate is an optional extra")
def test_spread_over_what_there_is(base: Path) -> None:
    spread, plain = load(str(base), device="spread"), load(str(base), device="cpu")
    assert spread.fingerprint == plain.fingerprint
    ids = torch.arange(1, 9)[None].to(spread.device)
    with torch.inference_mode():
        own = plain.hf(ids.cpu()).logits
        assert torch.allclose(spread.hf(ids).logits.cpu(), own, atol=1e-4)
    assert all(proof.held for proof in agreement(spread))


def test_states_from_other_devices_are_gathered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each site's states are moved to where the directions are."""
    moved: list[torch.device] = []
    real = Tensor.to

    def to(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        moved.extend(arg for arg in args if isinstance(arg, torch.device))
        return real(self, *args, **kwargs)

    monkeypatch.setattr(Tensor, "to", to)
    scores = Scores(torch.eye(4)[None].repeat(3, 1, 1)[:, :, :2])
    for site in range(3):
        scores.take(site, torch.ones(2, 1, 4))
    score, norm = scores.read()
    assert (score.shape, norm.shape) == ((2, 1, 3, 2), (2, 1, 3))
    assert moved.count(torch.device("cpu")) >= 3
