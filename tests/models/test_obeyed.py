"""What a config says and its class ignores is ignored; what it obeys is obeyed.

Windows here are longer than the texts of a load and shorter than these.
"""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import nn

from tests.tiny import EXTRA, hf_model, tokenizer
from traitscope.engine import agreement
from traitscope.engine.agree import Probe
from traitscope.errors import ModelError
from traitscope.models import FAMILIES, Model, dissect
from traitscope.models.obeyed import Obeyed, as_obeyed

WINDOW = 20
FAR = Probe((34, 3, 22), (3, 5, 2), rows=2)
IGNORED: dict[str, dict[str, Any]] = {
    "llama": {},
    "olmo2": {},
    "gpt2": {},
    "deepseek_v3": {},
    "granite": {},
    "internlm3": {},
    "iquestcoder": {"use_sliding_window": False},
}
OBEYED = ("mistral", "mixtral", "phi3", "phimoe", "starcoder2", "ministral3")


def _wrapped(hf: Any) -> Model:
    return Model.wrap(hf, tokenizer())


def _window(model: Model) -> Any:
    return model.anatomy.config.sliding_window


@pytest.mark.parametrize("name", EXTRA)
def test_every_known_architecture_sees_as_far_as_its_class_does(name: str) -> None:
    """With a window in its config, whether or not it has one of its own."""
    proofs = agreement(_wrapped(hf_model(name, sliding_window=WINDOW)), FAR)
    assert [proof.name for proof in proofs if not proof.held] == []


@pytest.mark.parametrize("name", IGNORED)
def test_a_window_that_its_class_ignores_is_ignored(name: str) -> None:
    hf = hf_model(name, sliding_window=WINDOW, **IGNORED[name])
    assert _window(_wrapped(hf)) is None
    assert hf.config.sliding_window == WINDOW


@pytest.mark.parametrize("name", OBEYED)
def test_a_window_that_its_class_obeys_is_obeyed(name: str) -> None:
    hf = hf_model(name, sliding_window=WINDOW)
    model = _wrapped(hf)
    assert model.anatomy.config is hf.config
    assert _window(model) == WINDOW


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_narrow_dtypes_too(dtype: torch.dtype) -> None:
    llama, mistral = (hf_model(name, sliding_window=WINDOW) for name in ("llama", "mistral"))
    assert _window(_wrapped(llama.to(dtype))) is None
    assert _window(_wrapped(mistral.to(dtype))) == WINDOW


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_however_little_a_token_sees_of_the_others(dtype: torch.dtype) -> None:
    """Less than rounding may explain elsewhere."""
    for name, window in (("llama", None), ("mistral", WINDOW)):
        hf = hf_model(name, sliding_window=WINDOW)
        with torch.no_grad():
            for block in hf.model.layers:
                block.self_attn.o_proj.weight.mul_(1e-3)
        assert _window(_wrapped(hf.to(dtype))) == window


@pytest.mark.parametrize("said", ["full_attention", "sliding_attention"])
def test_kinds_of_layers_that_its_class_ignores(said: str) -> None:
    """Llama takes one mask for all."""
    hf = hf_model("llama", sliding_window=WINDOW, layer_types=[said] * 3)
    model = _wrapped(hf)
    assert model.anatomy.config.layer_types is None
    assert _window(model) is None
    assert all(proof.held for proof in agreement(model, FAR))


def test_kinds_of_layers_that_its_class_obeys() -> None:
    hf = hf_model("gemma2", sliding_window=WINDOW)
    assert _wrapped(hf).anatomy.config is hf.config


def test_memory_that_is_out_is_not_a_mask_that_is_not_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hf = hf_model("gemma2", sliding_window=WINDOW)
    anatomy, plain = dissect(hf), hf.model.forward

    def full(**given: Any) -> Any:
        if isinstance(given["attention_mask"], dict):
            raise torch.OutOfMemoryError("full")
        return plain(**given)

    monkeypatch.setattr(hf.model, "forward", full)
    with pytest.raises(torch.OutOfMemoryError):
        as_obeyed(hf, anatomy)


class _Reads(nn.Module):
    """A decoder that read its window when it was made."""

    def __init__(self, config: Any, inner: nn.Module) -> None:
        super().__init__()
        self.sliding_window, self.inner, self.own = config.sliding_window, inner, config

    def forward(self, **given: Any) -> Any:
        was, self.own.sliding_window = self.own.sliding_window, self.sliding_window
        try:
            return self.inner(**given)
        finally:
            self.own.sliding_window = was


def test_a_window_that_was_read_before() -> None:
    hf = hf_model("mistral", sliding_window=WINDOW)
    anatomy = dissect(hf)
    object.__setattr__(anatomy, "stack", _Reads(hf.config, hf.model))
    assert as_obeyed(hf, anatomy).config is hf.config
    assert anatomy.stack.sliding_window == WINDOW


def test_layers_that_differ_and_do_not_say_so_are_refused() -> None:
    hf = hf_model("mistral", sliding_window=WINDOW)

    def forget(_: Any, args: Any, given: dict[str, Any]) -> Any:
        tokens = given["hidden_states"].shape[1]
        ahead = torch.full((1, 1, tokens, tokens), -1e30).triu(1)
        return args, {**given, "attention_mask": ahead}

    hf.model.layers[1].self_attn.register_forward_pre_hook(forget, with_kwargs=True)
    with pytest.raises(ModelError, match=r"last 20 tokens \(sliding_window\), or none") as caught:
        _wrapped(hf)
    assert "\n" not in str(caught.value)
    assert hf.config.sliding_window == WINDOW


def test_the_window_is_put_back_whatever_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    hf = hf_model("llama", sliding_window=WINDOW)
    narrowed = []

    def broken(*_: Any, **__: Any) -> Any:
        narrowed.append(hf.config.sliding_window)
        raise KeyError("broken")

    monkeypatch.setattr(hf.model.layers[2], "forward", broken)
    with pytest.raises(KeyError):
        _wrapped(hf)
    assert (narrowed, hf.config.sliding_window) == ([1], WINDOW)


@pytest.mark.parametrize(
    ("name", "changes", "forwards"),
    [
        ("llama", {}, 1),
        ("llama", {"sliding_window": WINDOW}, 3),
        ("gemma2", {}, 2),
    ],
)
def test_it_costs_a_few_tokens_and_only_where_there_is_a_question(
    name: str, changes: dict[str, Any], forwards: int
) -> None:
    hf = hf_model(name, **changes)
    seen = []
    hf.model.layers[0].register_forward_hook(lambda _, args, __: seen.append(args[0].shape[:2]))
    _wrapped(hf)
    *tried, proved = [rows * tokens for rows, tokens in seen]
    assert len(seen) == forwards
    assert all(count <= proved / 2 for count in tried)


def test_a_model_of_no_numbers_is_left_to_the_proofs() -> None:
    hf = hf_model("llama", sliding_window=WINDOW)
    with torch.no_grad():
        hf.model.layers[1].mlp.down_proj.weight.fill_(float("nan"))
    with pytest.raises(ModelError, match="finite values"):
        _wrapped(hf)


def test_a_window_that_somebody_names_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an architecture that nobody knows here: its window may be out of reach."""
    row = FAMILIES["llama"]
    monkeypatch.delitem(FAMILIES, "llama")
    model = Model.wrap(hf_model("llama", sliding_window=WINDOW), tokenizer(), family=row)
    assert _window(model) == WINDOW


def test_what_is_ignored_is_none_and_the_rest_is_the_config() -> None:
    config = hf_model("llama", sliding_window=WINDOW).config
    seen = Obeyed(config, frozenset({"sliding_window"}))
    assert (seen.sliding_window, seen.vocab_size) == (None, config.vocab_size)
    seen._attn_implementation = "eager"
    assert config._attn_implementation == "eager"
    with pytest.raises(AttributeError, match="nothing"):
        _ = seen.nothing
    for twin in (copy.copy(seen), copy.deepcopy(seen), pickle.loads(pickle.dumps(seen))):
        assert (twin.sliding_window, twin.hidden_size) == (None, 48)
