"""What is refused by name is refused with its reason, before a forward; the docs list them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from tests.tiny import BASE, EXTRA, hf_model, tokenizer
from traitscope.engine import agreement
from traitscope.engine.agree import Probe
from traitscope.errors import ModelError
from traitscope.models import FAMILIES, Model
from traitscope.models.anatomy import text_config
from traitscope.models.refusals import REASONS, REFUSED, RULES, context_of, refuse

DOCS = Path(__file__).parents[2] / "docs" / "models.md"


@pytest.mark.parametrize("name", REFUSED)
def test_an_architecture_is_refused_with_its_reason(name: str) -> None:
    config = AutoConfig.for_model(name)
    with pytest.raises(ModelError) as caught:
        refuse(config.get_text_config(decoder=True))
    said = str(caught.value)
    assert said.startswith(f"'{name}' is not supported: {REASONS[REFUSED[name]]}")
    assert "docs/models.md" in said
    assert "\n" not in said


def test_a_refused_one_is_not_a_known_one() -> None:
    assert not REFUSED.keys() & FAMILIES.keys()
    assert set(REFUSED.values()) <= set(REASONS)
    assert set(EXTRA) == set(FAMILIES), "every known architecture is tested, tiny"


@pytest.mark.parametrize("name", FAMILIES)
def test_a_known_one_is_not_refused(name: str) -> None:
    refuse(hf_model(name).config.get_text_config(decoder=True))


@pytest.mark.parametrize(
    ("name", "changes", "rule"),
    [
        ("falcon", {"alibi": True}, "alibi = true"),
        ("opt", {"do_layer_norm_before": False}, "do_layer_norm_before = false"),
        (
            "qwen3",
            {"layer_types": ["linear_attention", "full_attention", "full_attention"]},
            "layer_types with linear_attention",
        ),
        ("llama", {"is_causal": False}, "is_causal = false"),
        ("gemma3_text", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
        ("llama", {"num_kv_shared_layers": 2}, "num_kv_shared_layers > 0"),
        ("llama", {"layer_types": ["indexed_attention"] * 3}, "layer_types other than"),
        ("llama", {"is_encoder_decoder": True}, "is_encoder_decoder = true"),
    ],
)
def test_a_config_is_refused_whatever_its_family(
    name: str, changes: dict[str, Any], rule: str
) -> None:
    hf = hf_model(name)
    for key, value in changes.items():  # past the config's own checks
        object.__setattr__(hf.config, key, value)
    (held,) = [r for r in RULES if r.holds(hf.config)][:1]
    with pytest.raises(ModelError, match=re.escape(rule)) as caught:
        Model.wrap(hf, tokenizer())
    assert held.reason in str(caught.value)


def test_no_forward_is_run_for_a_refused_one(monkeypatch: pytest.MonkeyPatch) -> None:
    hf = AutoModelForCausalLM.from_config(
        AutoConfig.for_model("bloom", vocab_size=300, hidden_size=32, n_layer=1, n_head=4)
    )
    monkeypatch.setattr(hf, "forward", lambda *_, **__: pytest.fail("a forward was run"))
    with pytest.raises(ModelError, match="ALiBi"):
        Model.wrap(hf, tokenizer())


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_rotary_factors_do_not_depend_on_the_neighbours(kind: str) -> None:
    """Within the context that is allowed, one long row leaves the others as they are alone."""
    rope: dict[str, Any] = {"rope_type": kind, "rope_theta": 10000.0, "factor": 4.0}
    changes: dict[str, Any] = {"max_position_embeddings": 32}
    if kind == "longrope":
        rope["short_factor"], rope["long_factor"] = [1.0] * 6, [3.0] * 6
        rope["original_max_position_embeddings"] = 32
        changes = {"max_position_embeddings": 128}
    hf = hf_model("llama", rope_parameters=rope, **changes)
    assert context_of(hf.config) == 32
    assert Model.wrap(hf, tokenizer()).context == 32
    text = torch.arange(1, 9)[None]
    with torch.inference_mode():
        alone = hf(text).logits
        for length, same in ((32, True), (40, False)):
            mixed = torch.cat([text.repeat(1, 5)[:, :length], torch.ones(1, length).long()])
            mixed[0, 8:] = 7
            assert torch.allclose(hf(mixed).logits[:1, :8], alone, atol=1e-4) is same


# --- forms of any architecture -------------------------------------------------------------------


def _one_sentence(hf: Any, said: str) -> None:
    with pytest.raises(ModelError, match=said) as caught:
        Model.wrap(hf, tokenizer(), allow_unproven=True)
    assert str(caught.value).startswith("Expected ")
    assert "\n" not in str(caught.value)


class _Prompted(nn.Module):
    """As peft's prefix tuning, where peft is not installed."""

    def __init__(self, hf: Any, *learnt: bool) -> None:
        super().__init__()
        self.hf = hf
        self.peft_config = {
            f"a{i}": SimpleNamespace(is_prompt_learning=p) for i, p in enumerate(learnt)
        }

    def __getattr__(self, name: str) -> Any:
        return super().__getattr__(name) if name in ("hf",) else getattr(self.hf, name)

    def forward(self, *args: Any, **given: Any) -> Any:
        return self.hf(*args, **given)


def test_learnt_prompts_are_refused() -> None:
    _one_sentence(_Prompted(hf_model("llama"), False, True), "adapter 'a1'.*learnt prompt before")
    Model.wrap(_Prompted(hf_model("llama"), False), tokenizer())


@pytest.mark.parametrize(
    "kind", ["PrefixTuningConfig", "PromptTuningConfig", "PromptEncoderConfig"]
)
def test_learnt_prompts_of_peft_are_refused(kind: str) -> None:
    peft = pytest.importorskip("peft")
    config = getattr(peft, kind)(task_type="CAUSAL_LM", num_virtual_tokens=3)
    _one_sentence(
        peft.get_peft_model(hf_model("llama"), config), rf"\({kind}\), which puts a learnt"
    )


@pytest.mark.parametrize("way", ["flex_attention", "flash_attention_2", "paged|sdpa"])
def test_a_way_of_attention_that_cannot_take_our_masks_is_refused(way: str) -> None:
    hf = hf_model("llama")
    hf.config._attn_implementation_internal = way  # past the check for what is installed
    _one_sentence(hf, rf"got attn_implementation='{re.escape(way)}'.*attn_implementation='sdpa'")


@pytest.mark.parametrize("way", ["eager", "sdpa"])
def test_a_way_of_attention_that_can_is_not(way: str) -> None:
    hf = hf_model("llama")
    hf.set_attn_implementation(way)
    assert all(proof.held for proof in Model.wrap(hf, tokenizer()).proofs)


def test_the_way_of_a_wrapper_s_text_part_counts() -> None:
    hf = hf_model("llama")
    hf.config = SimpleNamespace(
        to_dict=dict,
        get_text_config=lambda decoder, own=hf.config: own,
        _attn_implementation="sdpa",
    )
    hf.config.get_text_config(True)._attn_implementation_internal = "flex_attention"
    _one_sentence(hf, "attn_implementation='flex_attention'")


def test_another_dtype_is_refused() -> None:
    _one_sentence(hf_model("llama").double(), "float32, bfloat16 or float16, got float64")


@pytest.mark.filterwarnings("ignore")
def test_weights_that_torch_packs_are_refused() -> None:
    quantise: Any = torch.ao.quantization.quantize_dynamic
    packed = quantise(hf_model("llama"), {nn.Linear})
    _one_sentence(packed, r"weights that are tensors, got a \w+ in '.*_packed_params")


# --- how far -------------------------------------------------------------------------------------


NOPE: dict[str, Any] = {"floor_scale": 24, "attn_scale": 0.5, "no_rope_layers": [1, 0, 1]}


def test_a_tuned_temperature_is_kept_to_where_it_is_one() -> None:
    """Llama 4's: its position comes from the cache, which has one for all rows."""
    hf = hf_model("llama4_text", attn_temperature_tuning=True, **NOPE)
    model = Model.wrap(hf, tokenizer())
    assert model.context == 23
    twin = hf_model("llama4_text", attn_temperature_tuning=False, **NOPE)
    text = torch.arange(1, 25)[None]
    with torch.inference_mode():
        assert torch.equal(hf(text[:, :23]).logits, twin(text[:, :23]).logits)
        assert not torch.allclose(hf(text).logits, twin(text).logits)
    within, beyond = Probe((18, 3, 9), (5, 2, 3), rows=2), Probe((22, 3, 9), (8, 2, 3), rows=2)
    assert all(proof.held for proof in agreement(model, within))
    free = replace(model, anatomy=replace(model.anatomy, config=twin.config))
    assert free.context == 256
    assert not all(proof.held for proof in agreement(free, beyond))


@pytest.mark.parametrize(
    ("changes", "context"),
    [
        ({}, 256),  # from 8192 tokens on
        ({"floor_scale": 100}, 99),
        ({"floor_scale": 1000}, 256),
        ({"floor_scale": 100, "attn_temperature_tuning": False}, 256),
        ({"floor_scale": 100, "no_rope_layers": [1, 1, 1]}, 256),
        ({"max_position_embeddings": 10**6}, 8191),
    ],
)
def test_how_far_a_tuned_temperature_is_one(changes: dict[str, Any], context: int) -> None:
    config = hf_model("llama4_text", **{"no_rope_layers": [1, 0, 1], **changes}).config
    assert context_of(config) == context
    nested = SimpleNamespace(get_text_config=lambda decoder: config)
    assert context_of(text_config(SimpleNamespace(config=nested))) == context


def test_the_docs_list_what_is_supported_and_refused() -> None:
    text = DOCS.read_text(encoding="utf-8")
    supported, _, refused = text.partition("## Refused")
    assert {name for name in re.findall(r"`([a-z0-9_]+)`", supported) if name in FAMILIES} == set(
        FAMILIES
    )
    for reason, said in REASONS.items():
        names = [name for name, why in REFUSED.items() if why == reason]
        if names:
            assert f"| {', '.join(f'`{name}`' for name in names)} | {said} |" in refused
    for rule in RULES:
        assert f"| {rule.name} | {rule.reason} |" in refused


def test_what_the_docs_call_exact_by_structure_is_not_refused() -> None:
    text = " ".join(DOCS.read_text(encoding="utf-8").split())
    (listed,) = re.findall(r"Exact by structure, without being in the table: (.*?)\.", text)
    names = re.findall(r"`([a-z0-9_]+)`", listed)
    assert len(names) > 10
    for name in names:
        assert name not in FAMILIES
        refuse(AutoConfig.for_model(name).get_text_config())


def test_a_config_without_heads_named_as_usual() -> None:
    """GPT-2's n_embd, n_head, n_positions; OPT's ffn_dim: read through the config's own names."""
    for name in ("gpt2", "gpt_bigcode", "gptj", "opt", "xglm", "codegen"):
        model = Model.wrap(hf_model(name), tokenizer())
        said = model.describe()
        assert (said["d_model"], said["n_heads"], said["n_blocks"]) == (48, 4, 3), name
        assert said["context"] == BASE["max_position_embeddings"]
