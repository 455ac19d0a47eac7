"""Unknown architectures: found by structure or refused; parts named by hand; wrappers."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

from tests.tiny import BASE, EXTRA, LATENT, hf_model, tokenizer
from traitscope.core import Generation
from traitscope.engine import agreement, capture_internals, check_internals
from traitscope.errors import ModelError
from traitscope.models import FAMILIES, Family, Model, discover, dissect, family_of, prove

PARTS = ("blocks", "final_norm", "attention", "mlp", "attn_post_norm", "mlp_post_norm", "experts")


@pytest.fixture
def unknown(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make an architecture of the table one that nobody knows."""
    return lambda name: monkeypatch.delitem(FAMILIES, name)


@pytest.mark.parametrize("name", EXTRA)
def test_what_is_found_is_what_the_table_says(name: str) -> None:
    """Every known architecture, taken apart without its row."""
    hf = hf_model(name)
    row, found = FAMILIES[name], discover(hf)
    assert [getattr(found, part) for part in PARTS] == [getattr(row, part) for part in PARTS]
    assert found.parallel is row.is_parallel(hf.config)
    if not found.parallel:
        assert found.mid_input_of == row.mid_input_of
    assert found.logit_scale is None
    own = getattr(hf.config, "residual_multiplier", None)
    if own in (None, 1.0):
        assert found.residual_multiplier is None
    else:
        assert found.residual_multiplier == pytest.approx(own, rel=1e-5)


def test_parallel_is_tried_out(unknown: Any) -> None:
    unknown("gpt_neox")
    for parallel in (True, False):
        hf = hf_model("gpt_neox", use_parallel_residual=parallel)
        model = Model.wrap(hf, tokenizer())
        assert model.anatomy.parallel is parallel
        assert all(proof.held for proof in agreement(model))


def test_factors_that_no_config_names_are_measured() -> None:
    """MiniCPM3 scales what it adds by scale_depth / sqrt(L) and its logits by its width."""
    options = {**BASE, **LATENT, "scale_depth": 1.4, "dim_model_base": 12}
    torch.manual_seed(0)
    hf = AutoModelForCausalLM.from_config(AutoConfig.for_model("minicpm3", **options)).eval()
    for parameter in hf.parameters():
        nn.init.normal_(parameter, 0.0, 0.15) if parameter.dim() > 1 else None
    model = Model.wrap(hf, tokenizer())
    assert model.anatomy.residual_multiplier == pytest.approx(1.4 / 3**0.5, rel=1e-5)
    assert all(proof.held for proof in [*model.proofs, *agreement(model)])


@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_internals_of_a_found_one_are_those_of_a_known_one(unknown: Any, name: str) -> None:
    hf = hf_model(name)
    drawn = torch.nn.functional.normalize(torch.randn(7, 48, 1), dim=1).numpy()
    known = capture_internals(
        Model.wrap(hf, tokenizer()), Generation("p"), [1, 2, 3], 1, drawn, ["a"]
    )
    unknown(name)
    found = capture_internals(
        Model.wrap(hf, tokenizer()), Generation("p"), [1, 2, 3], 1, drawn, ["a"]
    )
    assert known.tensors.keys() == found.tensors.keys()
    assert all((known.tensors[key] == found.tensors[key]).all() for key in known.tensors)


def test_a_stream_with_something_more_is_not_found(unknown: Any) -> None:
    hf = hf_model("llama")
    unknown("llama")
    hf.model.layers[1].register_forward_hook(lambda _, __, out: out * 1.01)
    with pytest.raises(ModelError, match=r"no reading of a block .* adds up") as caught:
        Model.wrap(hf, tokenizer())
    assert "'family'" in str(caught.value)
    assert "self_attn" in str(caught.value)


def test_parts_that_add_nothing_tell_nothing(unknown: Any) -> None:
    hf = hf_model("llama")
    unknown("llama")
    for layer in hf.model.layers:
        nn.init.zeros_(layer.mlp.down_proj.weight)
    with pytest.raises(ModelError, match="adds up"):
        Model.wrap(hf, tokenizer())


def test_two_lists_of_blocks_are_not_guessed_between(unknown: Any) -> None:
    hf = hf_model("llama")
    unknown("llama")
    hf.model.more = nn.ModuleList(list(hf_model("llama", seed=1).model.layers))
    with pytest.raises(ModelError, match=r"one list of blocks .* found layers, more"):
        Model.wrap(hf, tokenizer())
    model = Model.wrap(hf, tokenizer(), family={})
    assert len(model.anatomy.blocks) == 3


def test_a_window_of_an_unknown_one_is_not_believed(unknown: Any) -> None:
    hf = hf_model("mistral")
    unknown("mistral")
    with pytest.raises(ModelError, match=r"sliding_window = 8.*cannot be proved"):
        Model.wrap(hf, tokenizer())
    told = Model.wrap(hf, tokenizer(), family=Family())
    assert all(proof.held for proof in agreement(told))


def test_a_model_that_does_not_take_our_cache_is_a_proof_that_fails(unknown: Any) -> None:
    hf = hf_model("llama")
    unknown("llama")
    model = Model.wrap(hf, tokenizer())

    def narrow(input_ids: Any, attention_mask: Any = None, use_cache: bool = False) -> Any:
        raise TypeError("got an unexpected keyword argument 'position_ids'")

    hf.model.forward = narrow
    (proof,) = agreement(model)
    assert not proof.held
    assert "position_ids" in proof.detail


# --- parts named by hand -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gpt2", "falcon", "gemma2", "glm4", "opt"])
def test_a_row_written_by_hand_is_that_row(name: str) -> None:
    row = FAMILIES[name]
    written = {
        key: "" if value is None else list(value) if isinstance(value, tuple) else value
        for key, value in asdict(row).items()
        if key not in ("residual_multiplier", "logit_scale")
    }
    assert family_of(written) == row
    model = Model.wrap(hf_model(name), tokenizer(), family=written)
    assert model.anatomy.family == row
    assert model.fingerprint != Model.wrap(hf_model(name), tokenizer()).fingerprint


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"block": "h"}, "'block' is not known.*Did you mean 'blocks'?"),
        ({"blocks": 3}, "'blocks': expected a path.*got 3"),
        ({"parallel": "yes"}, "'parallel': expected true, false or a list.*got 'yes'"),
        ({"qkv": ["a", "b"]}, "'qkv': expected a list of one or three names"),
        ({"qkv_layout": "odd"}, "'qkv_layout': expected one of split, grouped"),
        ({"residual_multiplier": "x"}, "'residual_multiplier': expected a number"),
        ({"experts": 1}, "'experts': expected true or false"),
        ({"attention": "attn"}, "Expected a part 'attn' in LlamaDecoderLayer, found self_attn"),
    ],
)
def test_a_mistake_in_a_row_is_one_sentence(given: dict[str, object], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        Model.wrap(hf_model("llama"), tokenizer(), family=given)


def test_a_wrong_row_does_not_prove() -> None:
    with pytest.raises(ModelError, match="prove exact"):
        Model.wrap(hf_model("llama"), tokenizer(), family={"mid_input_of": "input_layernorm"})


# --- wrappers of several models ------------------------------------------------------------------

VISION = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
WRAPPERS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "gemma3": (EXTRA["gemma3_text"], VISION, {"mm_tokens_per_image": 4}),
    "mistral3": (
        {"model_type": "mistral", "sliding_window": 8},
        {**VISION, "model_type": "pixtral"},
        {},
    ),
    "llava": ({"model_type": "llama"}, {**VISION, "model_type": "clip_vision_model"}, {}),
}


def _wrapper(name: str) -> Any:
    text, vision, others = WRAPPERS[name]
    config = AutoConfig.for_model(
        name, text_config={**BASE, **text}, vision_config=vision, **others
    )
    torch.manual_seed(0)
    hf = AutoModelForImageTextToText.from_config(config).float().eval()
    for parameter in hf.parameters():
        nn.init.normal_(parameter, 0.0, 0.15) if parameter.dim() > 1 else None
    return hf


@pytest.mark.parametrize("name", WRAPPERS)
def test_the_text_part_of_a_wrapper(name: str) -> None:
    model = Model.wrap(_wrapper(name), tokenizer())
    assert len(model.sites) == 7
    assert model.context == 256
    assert all(proof.held for proof in [*model.proofs, *agreement(model)])
    check_internals(model, 1)


def test_a_family_is_proved_on_the_model_that_is_there() -> None:
    """One table, many versions: a row that no longer fits is noticed, not believed."""
    hf = hf_model("llama")
    wrong = replace(FAMILIES["llama"], final_norm="layers.0.input_layernorm")
    assert not all(proof.held for proof in prove(hf, dissect(hf, wrong)))
