"""What is refused by name is refused with its reason, before a forward; the docs list them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tests.tiny import BASE, EXTRA, hf_model, tokenizer
from traitscope.errors import ModelError
from traitscope.models import FAMILIES, Model
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


def test_a_config_without_heads_named_as_usual() -> None:
    """GPT-2's n_embd, n_head, n_positions; OPT's ffn_dim: read through the config's own names."""
    for name in ("gpt2", "gpt_bigcode", "gptj", "opt", "xglm", "codegen"):
        model = Model.wrap(hf_model(name), tokenizer())
        said = model.describe()
        assert (said["d_model"], said["n_heads"], said["n_blocks"]) == (48, 4, 3), name
        assert said["context"] == BASE["max_position_embeddings"]
