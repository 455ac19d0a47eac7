"""The doctor's verdicts: all hold on a sound model; one broken thing breaks the check of its name.

What is broken is broken as it would break: a cache that forgets to move a row, a mask without its
window, a template with two BOS, weights that are not numbers, an anatomy that points elsewhere.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests import tiny
from traitscope import checkup
from traitscope.checkup import Diagnosis, at_load, doctor
from traitscope.core import Generation, GenerationConfig
from traitscope.engine import decode, gumbel, noise_key, slots, step
from traitscope.engine.sampling import gap
from traitscope.engine.slots import Slots, masks
from traitscope.errors import InputError, MachineError, ModelError
from traitscope.models import FAMILIES, Model, Speller, anatomy, hash_tensors, prove
from traitscope.models.fingerprint import fingerprint_module

SEQUENTIAL = ["mid = pre + attention", "post = mid + MLP"]
PARALLEL = ["post = pre + attention + MLP"]
AT_LOAD = [
    "last site = before the final norm",
    "logits = the model's own",
    "batched = alone",
    "slots = a plain forward",
    "no double BOS",
    "prompt | response",
]
MORE = ["two equal runs agree", "sampled text = alone"]


def failed(found: Diagnosis) -> list[str]:
    return [check.proof.name for check in found.checks if check.proof.held is False]


def failed_at_load(model: Model) -> list[str]:
    return [proof.name for proof in at_load(model) if proof.held is False]


def unmeasured(found: Diagnosis) -> list[str]:
    return [check.proof.name for check in found.checks if check.proof.held is None]


@pytest.mark.parametrize("name", ["llama", "gemma2", "falcon", "gpt2", "mixtral"])
def test_all_holds_on_a_sound_model(name: str) -> None:
    model = tiny.model(name)
    found = doctor(model)
    middle = PARALLEL if model.anatomy.parallel else SEQUENTIAL
    names = ["finite values", "taps = hidden states", *middle, *AT_LOAD, *MORE]
    assert [check.proof.name for check in found.checks] == names
    assert found.held
    assert (failed(found), unmeasured(found)) == ([], [])
    for check in found.checks:
        assert 0 <= check.proof.difference <= check.proof.allowed <= 1e-5, check
        assert check.dtype == "float32"
    assert "6 of 6 texts equal" in found.checks[-1].proof.detail
    assert [proof.name for proof in at_load(model)] == names[: -len(MORE)]


def test_a_narrow_dtype_has_its_own_allowance() -> None:
    hf = tiny.hf_model("llama").to(torch.bfloat16)
    found = doctor(Model.wrap(hf, tiny.tokenizer()))
    assert found.held
    assert found.model["dtypes"] == ["bfloat16"]
    allowed = {check.proof.name: check.proof.allowed for check in found.checks}
    assert allowed["batched = alone"] == 0.25
    assert allowed["sampled text = alone"] == 1.0


def _twins(monkeypatch: pytest.MonkeyPatch, apart: float, nudge: float) -> Model:
    """A model whose tokens come in pairs of nearly one logit; a batch nudges the second."""
    hf = tiny.hf_model("llama")
    with torch.no_grad():
        hf.lm_head.weight[1::2] = hf.lm_head.weight[0::2] * (1 - apart)
    own = step.pick

    def nudged(logits_BV: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
        if len(logits_BV) > 1:
            logits_BV = logits_BV.clone()
            logits_BV[:, 1::2] += nudge
        return own(logits_BV, *rest)

    monkeypatch.setattr(step, "pick", nudged)
    return Model.wrap(hf, tiny.tokenizer())


def test_a_near_tie_is_excused_and_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    found = doctor(_twins(monkeypatch, 0.0, 1e-6))
    (batched,) = (c.proof for c in found.checks if c.proof.name == "batched = alone")
    assert batched.held
    assert "0 of 6 texts equal; near ties excused: text 1 at token 25 (0.0e+00)" in batched.detail
    assert batched.detail.count("(") == 6, "each one is listed"
    assert found.held


def test_a_flip_that_is_no_tie_is_not_excused(monkeypatch: pytest.MonkeyPatch) -> None:
    found = doctor(_twins(monkeypatch, 1e-3, 1e-1))
    assert failed(found) == ["batched = alone"]
    (batched,) = (c.proof for c in found.checks if c.proof.name == "batched = alone")
    assert "excused" not in batched.detail
    assert failed_at_load(_twins(monkeypatch, 1e-3, 1e-1)) == ["batched = alone"]


def test_the_gap_is_that_of_what_was_drawn() -> None:
    logits = torch.tensor([1.0, 3.0, 2.5, 0.0])
    name = Generation("00" * 8)
    assert gap(logits, name, 5, GenerationConfig(temperature=0)) == 0.5
    config = GenerationConfig(temperature=0.5, top_k=3, seed=4)
    token = torch.tensor([[1, 2, 0]])
    noise = gumbel(torch.tensor([noise_key(4, name)]), torch.tensor([5]), token)[0]
    first, second, _ = (logits.log_softmax(-1)[token[0]] / 0.5 + noise).sort(descending=True)[0]
    assert gap(logits, name, 5, config) == pytest.approx(float(first - second), abs=1e-6)


# --- the cache and its masks ---------------------------------------------------------------------


def test_a_cache_that_forgets_to_move_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Slots, "move", lambda *_: None)
    model = tiny.model("llama")
    found = doctor(model)
    assert failed(found) == ["batched = alone"]
    assert not found.held
    # it would only say the same again
    assert unmeasured(found) == ["sampled text = alone"]
    assert failed_at_load(model) == ["batched = alone"]


def test_a_cache_that_writes_a_row_too_far(monkeypatch: pytest.MonkeyPatch) -> None:
    prefill = Slots.prefill

    def shifted(self: Slots, first: int, rows: int, offset: int, tokens: int) -> None:
        prefill(self, first and first - 1, rows, offset, tokens)

    monkeypatch.setattr(Slots, "prefill", shifted)
    monkeypatch.setattr(decode, "takes_ragged", lambda model: False)  # the trial would see it
    assert failed(doctor(tiny.model("llama"))) == ["batched = alone"]


def test_a_mask_without_its_window(monkeypatch: pytest.MonkeyPatch) -> None:
    def everything(config: Any, position_BT: Tensor, columns: int, dtype: torch.dtype) -> Any:
        wide = type("Wide", (), {"layer_types": config.layer_types, "sliding_window": 10**6})
        return masks(wide, position_BT, columns, dtype)

    monkeypatch.setattr(slots, "masks", everything)
    model = tiny.model("gemma2")
    assert failed(doctor(model)) == ["slots = a plain forward"]
    assert failed_at_load(model) == ["slots = a plain forward"]


# --- the dice ------------------------------------------------------------------------------------


def test_dice_that_know_their_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def by_row(logits: Tensor, key_B: Tensor, position_B: Tensor, config: Any, *ask: Any) -> Any:
        return pick(logits, key_B + torch.arange(len(key_B)), position_B, config, *ask)

    pick = step.pick
    monkeypatch.setattr(step, "pick", by_row)
    assert failed(doctor(tiny.model("llama"))) == ["sampled text = alone"]


def test_dice_of_a_shared_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    def shared(logits: Tensor, key_B: Tensor, position_B: Tensor, config: Any, *ask: Any) -> Any:
        noise = torch.randint(0, 2**40, key_B.shape) if config.temperature else 0
        return pick(logits, key_B + noise, position_B, config, *ask)

    pick = step.pick
    monkeypatch.setattr(step, "pick", shared)
    assert failed(doctor(tiny.model("llama"))) == MORE


# --- tokens --------------------------------------------------------------------------------------


def two_bos() -> Any:
    tokenizer = tiny.tokenizer.__wrapped__()
    tokenizer.chat_template = "{{ bos_token }}" + tokenizer.chat_template
    return tokenizer


def test_a_template_with_two_bos() -> None:
    model = Model.wrap(tiny.hf_model("llama"), two_bos())
    assert failed(doctor(model)) == ["no double BOS"]
    assert failed_at_load(model) == ["no double BOS"]


def test_a_tokenizer_without_a_template_or_bos() -> None:
    model = tiny.model("gpt2", template=False)
    bos = next(c.proof for c in doctor(model).checks if c.proof.name == "no double BOS")
    assert (bos.held, bos.detail) == (True, "a prompt begins without BOS")
    tokenizer = tiny.tokenizer.__wrapped__(False)
    tokenizer.bos_token = None
    found = at_load(Model.wrap(tiny.hf_model("gpt2"), tokenizer))
    assert [p.detail for p in found if p.name == "no double BOS"] == ["this tokenizer has no BOS"]


def test_a_boundary_that_is_one_off(monkeypatch: pytest.MonkeyPatch) -> None:
    table = Speller.table

    def one_off(self: Speller, ids: Any, rendered: Any) -> Any:
        made = table(self, ids, rendered)
        return replace(made, part=np.roll(made.part, -1))

    monkeypatch.setattr(Speller, "table", one_off)
    assert failed(doctor(tiny.model("llama"))) == ["prompt | response"]


def test_a_text_that_is_spelt_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    spell = Speller._spell

    def lossy(self: Speller, ids: list[int]) -> Any:
        text, ends = spell(self, ids)
        return text.replace("?", "!"), ends

    monkeypatch.setattr(Speller, "_spell", lossy)
    assert failed_at_load(tiny.model("llama")) == ["prompt | response"]


def test_a_context_too_short_for_a_chat_is_not_a_failure() -> None:
    found = doctor(tiny.model("llama", max_position_embeddings=40))
    assert failed(found) == []
    assert unmeasured(found) == ["prompt | response"]
    assert not found.held


# --- the model -----------------------------------------------------------------------------------


def spoiled(value: float) -> Any:
    hf = tiny.hf_model("llama")
    with torch.no_grad():
        hf.model.layers[1].mlp.down_proj.weight[3, 5] = value
    return hf


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_numbers(value: float) -> None:
    hf = spoiled(value)
    with pytest.raises(ModelError, match=r"finite values \(off by 4 sites.*--allow-unproven"):
        Model.wrap(hf, tiny.tokenizer())
    found = doctor(Model.wrap(hf, tiny.tokenizer(), allow_unproven=True))
    assert failed(found) == ["finite values"]
    assert found.checks[0].proof.detail == "first at 1.post"
    assert "no double BOS" not in unmeasured(found)
    assert len(unmeasured(found)) == len(found.checks) - 2


def test_a_head_that_is_not_a_number() -> None:
    hf = tiny.hf_model("llama")
    with torch.no_grad():
        hf.lm_head.weight[7] = float("nan")
    found = doctor(Model.wrap(hf, tiny.tokenizer(), allow_unproven=True))
    assert failed(found) == ["finite values"]
    assert found.checks[0].proof.detail == "first at the logits"


@pytest.mark.parametrize(
    ("wrong", "names"),
    [
        ({"mid_input_of": "mlp"}, SEQUENTIAL),  # normed already
        ({"final_norm": "layers.0.input_layernorm"}, ["last site = before the final norm"]),
    ],
)
def test_an_anatomy_that_points_elsewhere(
    monkeypatch: pytest.MonkeyPatch, wrong: dict[str, str], names: list[str]
) -> None:
    monkeypatch.setitem(anatomy.FAMILIES, "llama", replace(FAMILIES["llama"], **wrong))
    model = Model.wrap(tiny.hf_model("llama"), tiny.tokenizer(), allow_unproven=True)
    assert failed(doctor(model)) == names


def test_logits_without_their_scale() -> None:
    model = tiny.model("granite")
    found = prove(model.hf, replace(model.anatomy, logit_scale=1.0))
    assert [p.name for p in found if not p.held] == ["logits = the model's own"]


# --- asking --------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny.hf_model("llama").to(torch.bfloat16).save_pretrained(tmp_path / "model")
    tiny.tokenizer().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_a_name_is_loaded_in_each_dtype(folder: Path) -> None:
    steps: list[tuple[str, int, int, str]] = []
    found = doctor(str(folder), progress=lambda *step: steps.append(step))
    assert found.model["dtypes"] == ["bfloat16", "float32"]
    assert "dtype" not in found.model
    assert found.held
    half = len(found.checks) // 2
    assert [check.dtype for check in found.checks] == ["bfloat16"] * half + ["float32"] * half
    assert [step[0] for step in steps].count("load") == 2
    same = doctor(str(folder), dtypes=["auto", "bfloat16"])
    assert same.model["dtypes"] == ["bfloat16"]


def test_float32_is_left_out_where_it_does_not_fit(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless it is asked for: then it is loaded, and fails as loading fails."""
    size = next(folder.glob("*.safetensors")).stat().st_size  # in bfloat16
    monkeypatch.setattr(checkup, "free_memory", lambda device: 2 * size - 1)
    found = doctor(str(folder))
    assert found.held and found.model["dtypes"] == ["bfloat16"]
    assert list(found.model["left_out"]) == ["float32"]
    assert "on cpu" in found.model["left_out"]["float32"]
    assert doctor(str(folder), dtypes=["float32"]).model["dtypes"] == ["float32"]
    monkeypatch.setattr(checkup, "free_memory", lambda device: 2 * size + 1)
    assert doctor(str(folder)).model["left_out"] == {}


def test_what_cannot_be_asked(folder: Path) -> None:
    with pytest.raises(ModelError, match="Unknown dtype 'int8'"):
        doctor(str(folder), dtypes=["int8"])
    with pytest.raises(ModelError, match="Unknown device 'abacus'"):
        doctor(str(folder), device="abacus")
    with pytest.raises(InputError, match="loaded already"):
        doctor(tiny.model("llama"), dtypes=["float32"])


def test_out_of_memory_is_the_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(checkup, "_texts", full)
    with pytest.raises(MachineError, match="Out of memory on cpu while checking 'wrapped'"):
        doctor(tiny.model("llama"))


def test_deep_compares_more_and_hashes_every_tensor() -> None:
    steps: list[tuple[str, int, int, str]] = []
    model = tiny.model("llama")
    found = doctor(model, deep=True, progress=lambda *step: steps.append(step))
    assert found.held
    batched = next(c.proof for c in found.checks if c.proof.name == "batched = alone")
    assert batched.detail == "12 of 12 texts equal"
    assert found.model["tensors_sha256"] == {"float32": hash_tensors(model.hf, lambda *_: None)}
    hashed = [step for step in steps if step[0] == "hash"]
    assert hashed[-1][1] == hashed[-1][2] > 0
    assert "tensors_sha256" not in doctor(model).model


def test_the_hash_sees_what_a_sample_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    def both(hf: Any) -> tuple[str, str]:
        return fingerprint_module(hf, tiny.tokenizer()), hash_tensors(hf, lambda *_: None)

    hf = tiny.hf_model("llama")
    sampled, whole = both(hf)
    assert both(tiny.hf_model("llama")) == (sampled, whole)
    with torch.no_grad():
        hf.model.layers[2].mlp.up_proj.weight.view(-1)[1] += 1e-3  # between two sampled places
    assert both(hf)[0] == sampled
    assert both(hf)[1] != whole
    monkeypatch.setattr("traitscope.models.fingerprint._CHUNK", 1000)
    assert both(tiny.hf_model("llama"))[1] == whole, "in whatever chunks"
