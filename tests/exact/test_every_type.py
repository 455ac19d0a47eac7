"""Every type that transformers' AutoModelForCausalLM knows, tiny: exact, or one clear sentence.

Slow (about a minute on one core).  A type that cannot be built from small sizes is counted, not
failed: its config asks for more than sizes.  docs/models.md has the counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from tests.tiny import BASE, EXTRA, LATENT, MOE, ROUTED, tokenizer
from traitscope.checkup import at_load
from traitscope.errors import ModelError
from traitscope.models import Model
from traitscope.models.refusals import refuse

LARGEST = 60_000_000  # parameters
OTHER_NAMES = {
    **dict.fromkeys(("n_embd", "d_model"), 48),
    **dict.fromkeys(("n_layer", "num_layers", "decoder_layers"), 3),
    **dict.fromkeys(("n_head", "attention_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("ffn_dim", "n_inner", "decoder_ffn_dim"), 80),
    "n_positions": 256,
    "encoder_layers": 1,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 80,
}
SMALL_IDS = {"pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 3}
EYE = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 16,
}


def sizes(kind: str) -> Iterator[dict[str, Any]]:
    """Ways to ask for a small one, the likeliest first."""
    for more in (EXTRA.get(kind, {}), {"head_dim": 12}, MOE, {**ROUTED, "head_dim": 12}):
        yield {**BASE, **more}
    yield {**BASE, **ROUTED, **LATENT}
    yield {**BASE, **LATENT}
    for more in ({}, {"head_dim": 12}, ROUTED):
        yield {**BASE, **OTHER_NAMES, **more}
    yield {**BASE, **SMALL_IDS, "is_decoder": True, "num_key_value_heads": 4}
    for more in ({}, {"head_dim": 12}, {**MOE, "head_dim": 12}):
        yield {"text_config": {**BASE, **SMALL_IDS, **more}, "vision_config": EYE}


def refused(kind: str) -> str:
    """What the type's own config says against it, if it can be made."""
    try:
        config = AutoConfig.for_model(kind).get_text_config()
    except Exception:  # noqa: BLE001  # whatever it is, there is no config without more
        return ""
    try:
        refuse(config)
    except ModelError as error:
        return str(error)
    return ""


def built(kind: str) -> Any:
    """A model that runs; None where no sizes give one."""
    for options in sizes(kind):
        try:
            config = AutoConfig.for_model(kind, **options)
            for part in (config, config.get_text_config()):
                if getattr(part, "layer_types", None) and len(part.layer_types) != 3:
                    part.layer_types = list(part.layer_types)[:3]
            with torch.device("meta"):
                count = sum(
                    p.numel() for p in AutoModelForCausalLM.from_config(config).parameters()
                )
            if count > LARGEST:
                continue
            torch.manual_seed(0)
            model = AutoModelForCausalLM.from_config(config).float().eval()
            with torch.inference_mode():
                for parameter in model.parameters():
                    if parameter.dim() >= 2:
                        parameter.normal_(0, 0.15)
                model(input_ids=torch.arange(3, 10)[None])
        except Exception:  # noqa: BLE001  # whatever it is, other sizes are tried
            continue
        return model
    return None


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_every_type_is_exact_or_refused_in_one_sentence() -> None:
    outcomes: dict[str, list[str]] = {"exact": [], "refused": [], "not built": []}
    said: list[str] = []
    for kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        if refused(kind):
            outcomes["refused"].append(kind)
            continue
        model = built(kind)
        if model is None:
            outcomes["not built"].append(kind)
            continue
        try:
            made = Model.wrap(model, tokenizer())
            made.proven(at_load(made))
        except ModelError as error:
            said.append(str(error))
            outcomes["refused"].append(kind)
        else:
            outcomes["exact"].append(kind)
    print({name: len(kinds) for name, kinds in outcomes.items()}, outcomes["not built"])
    assert not [sentence for sentence in said if "\n" in sentence]
    assert len(outcomes["exact"]) >= 80
    assert len(outcomes["not built"]) <= 20
    assert sum(map(len, outcomes.values())) == len(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
