"""Proofs at load catch a model that is read wrongly, `agreement` a cache or a mask that leaks.

Each wrong reading here is one that somebody has made, or that a new architecture invites.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.tiny import EXTRA, hf_model, model, tokenizer
from traitscope.engine import agreement, slots, step
from traitscope.engine.slots import SlotLayer, Slots, masks
from traitscope.errors import ModelError
from traitscope.models import FAMILIES, Model, dissect, prove, tolerance

TAPS, LOGITS, FINITE = "taps = hidden states", "logits = the model's own", "finite values"
MID, POST = "mid = pre + attention", "post = mid + MLP"
PARALLEL, LAST = "post = pre + attention + MLP", "last site = before the final norm"


def _refused(hf: nn.Module, *checks: str) -> str:
    """The message of a refusal that names each of `checks`."""
    with pytest.raises(ModelError) as caught:
        Model.wrap(hf, tokenizer(), name="mine")
    said = str(caught.value)
    assert said.startswith("Expected 'mine' (")
    assert "\n" not in said
    for check in checks:
        assert check in said
    return said


@pytest.mark.parametrize("name", EXTRA)
def test_every_known_architecture_proves_exact(name: str) -> None:
    hf = hf_model(name)
    anatomy = dissect(hf)
    proofs = prove(hf, anatomy)
    assert all(proof.held for proof in proofs)
    assert all(proof.difference <= 1e-5 for proof in proofs)
    between = [PARALLEL] if anatomy.parallel else [MID, POST]
    assert [proof.name for proof in proofs] == [FINITE, TAPS, *between, LAST, LOGITS]


@pytest.mark.parametrize(
    ("name", "change", "checks"),
    [
        # the input of Gemma-2's post-norm is attention's output; of the MLP, a normed residual
        ("gemma2", {"mid_input_of": "post_attention_layernorm"}, (MID, POST)),
        ("gemma3_text", {"mid_input_of": "mlp"}, (MID, POST)),
        ("gemma2", {"mid_input_of": "input_layernorm"}, (MID, POST)),
        ("llama", {"mid_input_of": "mlp"}, (MID, POST)),
        ("llama", {"mid_input_of": "input_layernorm"}, (MID, POST)),
        ("gpt2", {"mid_input_of": "ln_1"}, (MID, POST)),
        ("olmo2", {"mid_input_of": "post_attention_layernorm"}, (MID, POST)),
        # what is added is the post-norm's output, not attention's own
        ("gemma2", {"attn_post_norm": None}, (MID,)),
        ("olmo2", {"mlp_post_norm": None}, (POST,)),
        # parallel blocks read as sequential ones
        ("gpt_neox", {"parallel": False}, (MID,)),
        ("falcon", {"mid_input_of": "input_layernorm", "parallel": False}, (MID,)),
    ],
)
def test_a_wrong_row_is_caught(
    monkeypatch: pytest.MonkeyPatch, name: str, change: dict[str, Any], checks: tuple[str, ...]
) -> None:
    monkeypatch.setitem(FAMILIES, name, replace(FAMILIES[name], **change))
    _refused(hf_model(name), *checks)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_sequential_read_as_parallel_loses_mid_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """It cannot be caught by adding up, which holds; every site that is left is still right."""
    monkeypatch.setitem(FAMILIES, name, replace(FAMILIES[name], parallel=True))
    subject = model(name)
    assert [site.name for site in subject.sites] == ["embed", "0.post", "1.post", "2.post"]


@pytest.mark.parametrize("name", ["falcon", "gpt_neox", "stablelm"])
def test_parallel_is_read_from_the_config(name: str) -> None:
    key = "parallel_attn" if name == "falcon" else "use_parallel_residual"
    for parallel in (True, False):
        subject = model(name, **{key: parallel})
        assert subject.anatomy.parallel is parallel
        assert len(subject.sites) == (4 if parallel else 7)


@pytest.mark.parametrize(
    ("name", "change", "check"),
    [
        ("granite", {"residual_multiplier": 1.0}, MID),
        ("granite", {"logit_scale": 1.0}, LOGITS),
        ("cohere", {"logit_scale": 1.0}, LOGITS),
        ("gemma2", {"logit_softcap": None}, LOGITS),
        ("llama", {"logit_softcap": 30.0}, LOGITS),
    ],
)
def test_a_forgotten_factor_is_caught(name: str, change: dict[str, Any], check: str) -> None:
    hf = hf_model(name)
    with torch.no_grad():
        hf.get_output_embeddings().weight.mul_(40)  # so that a soft cap bites
    anatomy = dissect(hf)
    assert all(proof.held for proof in prove(hf, anatomy))
    broken = [p.name for p in prove(hf, replace(anatomy, **change)) if not p.held]
    assert check in broken


def test_factors_are_read_from_the_config() -> None:
    granite, gemma, cohere = (dissect(hf_model(name)) for name in ("granite", "gemma2", "cohere"))
    assert granite.residual_multiplier == 0.3
    assert granite.logit_scale == 1 / 4
    assert gemma.logit_softcap == 30.0
    assert cohere.logit_scale == 0.25


def test_a_block_that_adds_something_more_is_caught() -> None:
    """As Gemma 4 does after the MLP: mid and post no longer differ by the MLP alone."""
    hf = hf_model("llama")
    block = hf.model.layers[1]
    plain = block.forward
    block.forward = lambda *args, **kwargs: plain(*args, **kwargs) * 1.01
    _refused(hf, POST)


@pytest.mark.parametrize(
    "where", ["model.embed_tokens", "model.layers.1.mlp.down_proj", "model.norm", "lm_head"]
)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_caught(where: str, value: float) -> None:
    hf = hf_model("llama")
    with torch.no_grad():
        hf.get_submodule(where).weight.fill_(value)
    said = _refused(hf)
    if where.startswith(("model.embed", "model.layers")):
        assert FINITE in said


def test_one_broken_row_of_a_weight_is_caught() -> None:
    hf = hf_model("gpt2")
    with torch.no_grad():
        hf.transformer.h[2].mlp.c_fc.weight[3, 5] = float("nan")
    _refused(hf, FINITE)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["gemma2", "granite", "gpt2", "falcon", "olmo2"])
def test_narrow_dtypes_prove_exact_too(name: str, dtype: torch.dtype) -> None:
    subject = Model.wrap(hf_model(name).to(dtype), tokenizer())
    assert subject.dtype == dtype
    assert {proof.allowed for proof in subject.proofs} <= {tolerance(dtype), 0.0}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_dtypes_still_catch_a_wrong_row(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    wrong = replace(FAMILIES["gemma2"], mid_input_of="post_attention_layernorm")
    monkeypatch.setitem(FAMILIES, "gemma2", wrong)
    _refused(hf_model("gemma2").to(dtype), MID)


# --- not known -----------------------------------------------------------------------------------


def test_a_model_without_a_head_is_refused() -> None:
    with pytest.raises(ModelError, match="output head"):
        Model.wrap(hf_model("llama").model, tokenizer())
    with pytest.raises(ModelError, match="AutoModelForCausalLM"):
        Model.wrap(nn.Linear(3, 3), tokenizer())


def test_alibi_is_refused() -> None:
    """Falcon's alibi cannot take a mask per row."""
    with pytest.raises(ModelError, match="ALiBi"):
        model("falcon", alibi=True)


def test_longrope_is_kept_to_where_every_text_has_the_same_factors() -> None:
    """Beyond the original length one long row would change all the others."""
    factors = [1.0 + i / 6 for i in range(6)]
    rope = {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": [1.0] * 6,
        "long_factor": factors,
        "original_max_position_embeddings": 64,
        "factor": 4.0,
    }
    subject = model("phi3", rope_parameters=rope, original_max_position_embeddings=64)
    assert subject.context == 64
    assert model("phi3").context == 256


# --- agreement -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt2", "falcon", "mixtral"])
def test_agreement_holds(name: str) -> None:
    proofs = agreement(model(name))
    assert [proof.name for proof in proofs] == ["batched = alone", "slots = a plain forward"]
    assert all(proof.held for proof in proofs)
    assert all(proof.difference <= 1e-5 for proof in proofs)
    assert proofs[0].detail == "3 of 3 texts equal"


def test_agreement_in_a_narrow_dtype_is_reported_not_judged() -> None:
    proofs = agreement(Model.wrap(hf_model("llama").to(torch.bfloat16), tokenizer()))
    assert [proof.allowed for proof in proofs] == [0.25, 0.25]
    assert all(proof.held for proof in proofs)


_Update = Callable[..., tuple[Tensor, Tensor]]


def _one_column_late(update: _Update) -> _Update:
    def wrong(self: SlotLayer, keys: Tensor, values: Tensor, *args: Any, **kwargs: Any) -> Any:
        now = self._announced.now
        if now.position_N is not None:
            now = replace(now, position_N=(now.position_N - 1).clamp_min(0))
            before, self._announced.now = self._announced.now, now
            out = update(self, keys, values, *args, **kwargs)
            self._announced.now = before
            return out
        return update(self, keys, values, *args, **kwargs)

    return wrong


def _rows_swapped(update: _Update) -> _Update:
    """Only a batch of several rows can show it."""

    def wrong(self: SlotLayer, keys: Tensor, values: Tensor, *args: Any, **kwargs: Any) -> Any:
        return update(self, keys.flip(0), values, *args, **kwargs)

    return wrong


def _values_of_the_first(update: _Update) -> _Update:
    def wrong(self: SlotLayer, keys: Tensor, values: Tensor, *args: Any, **kwargs: Any) -> Any:
        return update(self, keys, values[:1].expand_as(values), *args, **kwargs)

    return wrong


@pytest.mark.parametrize("breaking", [_one_column_late, _rows_swapped, _values_of_the_first])
def test_agreement_notices_a_broken_cache(
    monkeypatch: pytest.MonkeyPatch, breaking: Callable[[_Update], _Update]
) -> None:
    subject = model("llama")
    monkeypatch.setattr(SlotLayer, "update", breaking(SlotLayer.update))
    proofs = {proof.name: proof for proof in agreement(subject)}
    if breaking is _one_column_late:  # wrong alone as well
        assert not proofs["slots = a plain forward"].held
    else:  # texts alone are right: the check that is named after batches says so, and only that
        assert not proofs["batched = alone"].held
        assert proofs["slots = a plain forward"].held


def test_agreement_notices_a_slot_that_is_not_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that takes a finished row's place leaves its past behind."""
    subject = model("llama")
    monkeypatch.setattr(Slots, "move", lambda self, source, target, columns: None)
    assert not all(proof.held for proof in agreement(subject))


def _leaks_ahead(config: Any, position: Tensor, columns: int, dtype: torch.dtype) -> Any:
    return masks(config, position + 1, columns, dtype)


def _as_boolean(config: Any, position: Tensor, columns: int, dtype: torch.dtype) -> Any:
    """What eager attention silently adds as 0 and 1."""
    return (masks(config, position, columns, dtype) == 0).to(dtype)


def _no_mask(config: Any, position: Tensor, columns: int, dtype: torch.dtype) -> Any:
    return torch.zeros_like(masks(config, position, columns, dtype))


@pytest.mark.parametrize("wrong", [_leaks_ahead, _as_boolean, _no_mask])
def test_agreement_notices_a_mask_that_leaks(
    monkeypatch: pytest.MonkeyPatch, wrong: Callable[..., Any]
) -> None:
    subject = model("gpt2")
    monkeypatch.setattr(slots, "masks", wrong)
    assert not all(proof.held for proof in agreement(subject))


def test_agreement_notices_a_window_that_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts of nine and four more tokens reach beyond this window of 8."""
    subject = model("gemma2")

    def wrong(config: Any, position: Tensor, columns: int, dtype: torch.dtype) -> Any:
        made = masks(config, position, columns, dtype)
        return dict.fromkeys(made, made["full_attention"])

    monkeypatch.setattr(slots, "masks", wrong)
    assert not all(proof.held for proof in agreement(subject))


def test_agreement_notices_positions_that_are_off(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = model("llama")
    plain = step.Step.forward

    def wrong(self: Any, ids: Tensor, position: Tensor, columns: int) -> Tensor:
        return plain(self, ids, position * 2, columns)

    monkeypatch.setattr(step.Step, "forward", wrong)
    assert not all(proof.held for proof in agreement(subject))
