"""Loading: what save_pretrained wrote comes back; what is wrong is one sentence, whatever is wrong.

And the fingerprint: it changes when the model's numbers would, and only then.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.exact.reference import GREEDY, directions, requests
from tests.tiny import TEMPLATE, hf_model, tokenizer
from traitscope.core import Prompt
from traitscope.engine import Batching, generate
from traitscope.errors import InputError, ModelError
from traitscope.models import Checkpoint, Model, load, locate, pick_device
from traitscope.models.checkpoint import _attention


def _save(folder: Path, name: str = "llama", *, shard: str = "1GB", **changes: Any) -> Path:
    hf_model(name, **changes).save_pretrained(folder, max_shard_size=shard)
    tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _save(tmp_path_factory.mktemp("models") / "plain")


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


def _edit_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def _numbers(model: Model) -> list[tuple[list[int], Any]]:
    made = generate(model, requests((5, 9), (4, 4)), directions(model), GREEDY, Batching(2))
    return [(trace.token_ids.tolist(), trace.score) for trace in made]


def _error(caught: pytest.ExceptionInfo[ModelError], *parts: str) -> str:
    """The message: one line for a person, that names what it is about."""
    said = str(caught.value)
    assert "\n" not in said
    assert "Traceback" not in said
    assert len(said) < 900
    assert said.rstrip().endswith((".", "?"))
    assert isinstance(caught.value, InputError)
    for part in parts:
        assert part in said
    return said


# --- what comes back -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shard", "changes"),
    [
        ("llama", "1GB", {}),
        ("llama", "60KB", {}),
        ("gemma2", "40KB", {"tie_word_embeddings": True}),
        ("gpt2", "1GB", {"tie_word_embeddings": True}),
        ("mixtral", "1GB", {}),
        ("falcon", "1GB", {}),
    ],
)
def test_what_was_saved_comes_back(
    tmp_path: Path, name: str, shard: str, changes: dict[str, Any]
) -> None:
    folder = _save(tmp_path / "model", name, shard=shard, **changes)
    assert (len(list(folder.glob("*.safetensors"))) > 1) == (shard != "1GB")
    hf = hf_model(name, **changes)
    if changes:
        assert hf.get_output_embeddings().weight is hf.get_input_embeddings().weight
    model = load(str(folder), device="cpu")
    assert (model.name, model.source, model.dtype_name) == (str(folder), "checkpoint", "float32")
    assert model.load_seconds > 0
    assert all(proof.held for proof in model.proofs)
    assert model.fingerprint.startswith("files:")
    made, expected = _numbers(model), _numbers(Model.wrap(hf, tokenizer()))
    assert [ids for ids, _ in made] == [ids for ids, _ in expected]
    for (_, score), (_, own) in zip(made, expected, strict=True):
        assert (score == own).all()
    prompt = Prompt.of("Hello there")
    assert model.render(prompt) == Model.wrap(hf, tokenizer()).render(prompt)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_dtypes(saved: Path, dtype: str) -> None:
    model = load(str(saved), device="cpu", dtype=dtype)
    assert model.dtype == getattr(torch, dtype)
    assert model.describe()["dtype"] == dtype
    assert all(proof.held for proof in model.proofs)


@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
@pytest.mark.parametrize("said", ["bfloat16", "torch.float16", None])
def test_dtype_auto_is_what_the_checkpoint_says(folder: Path, key: str, said: str | None) -> None:
    _edit_config(folder, dtype=None)
    _edit_config(folder, **{key: said})
    expected = "float32" if said is None else said.removeprefix("torch.")
    checkpoint = locate(str(folder))
    assert checkpoint.dtype("auto") == expected
    assert checkpoint.dtype("float32") == "float32"
    if said == "bfloat16" and key == "dtype":
        assert load(str(folder), device="cpu").dtype_name == expected


def test_dtype_auto_reads_a_wrapper_s_text_part(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"text_config": {"dtype": "bfloat16"}}))
    assert Checkpoint("mine", tmp_path).dtype("auto") == "bfloat16"


@pytest.mark.parametrize("key", ["_attn_implementation", "attn_implementation"])
@pytest.mark.parametrize(
    ("asked", "had"),
    [
        ("flex_attention", "sdpa"),
        ("flash_attention_2", "sdpa"),
        ("sdpa", "sdpa"),
        ("eager", "eager"),
        (None, "sdpa"),
    ],
)
def test_a_way_of_attention_that_a_config_asks_for(
    saved: Path, folder: Path, key: str, asked: str | None, had: str
) -> None:
    """One that cannot take our masks, or is not installed, is left for one that is."""
    _edit_config(folder, **{key: asked})
    model = load(str(folder), device="cpu")
    assert model.hf.config._attn_implementation == had
    assert _numbers(model)[0][0] == _numbers(load(str(saved), device="cpu"))[0][0]


def test_where_fused_attention_is_not_to_be_trusted_no_config_can_ask_for_it(folder: Path) -> None:
    mps = torch.device("mps")
    assert _attention(locate(str(folder)), mps) == {"attn_implementation": "eager"}
    _edit_config(folder, _attn_implementation="sdpa")
    found = _attention(locate(str(folder)), mps)
    assert found["attn_implementation"] == "eager"
    assert found["config"]._attn_implementation is None
    assert _attention(locate(str(folder)), torch.device("cpu")) == {}


def test_a_class_without_fused_attention_is_loaded_with_its_own(tmp_path: Path) -> None:
    _save(tmp_path, "xglm")
    _edit_config(tmp_path, _attn_implementation="flex_attention")
    assert load(str(tmp_path), device="cpu").hf.config._attn_implementation == "eager"


def test_what_a_run_records(saved: Path) -> None:
    model = load(str(saved), device="cpu")
    said = model.describe()
    assert json.loads(json.dumps(said)) == said
    assert said["parameters"] == sum(p.numel() for p in hf_model("llama").parameters())
    assert (said["n_blocks"], said["n_heads"], said["d_model"], said["context"]) == (3, 4, 48, 256)
    assert (said["architecture"], said["model_type"]) == ("LlamaForCausalLM", "llama")


def test_end_ids_are_those_of_the_generation_config() -> None:
    hf = hf_model("llama")
    assert Model.wrap(hf, tokenizer()).end_ids == {258}
    hf.generation_config.eos_token_id = [3, 258]
    assert Model.wrap(hf, tokenizer()).end_ids == {3, 258}
    hf.generation_config.eos_token_id = None
    assert Model.wrap(hf, tokenizer()).end_ids == {tokenizer().eos_token_id}


def test_a_wrapped_model_is_put_into_eval_mode() -> None:
    hf = hf_model("gpt2").train()
    assert not Model.wrap(hf, tokenizer()).hf.training
    assert Model.wrap(hf, tokenizer(), name="mine").describe()["name"] == "mine"


# --- not found -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "",
        "gpt2",
        "./nowhere",
        "/nowhere/at/all",
        "a/b/c",
        "~nobody/x",
        "x" * 400,
        "a\0b",
        "http://a/b",
    ],
)
def test_an_unknown_model_is_one_sentence(name: str) -> None:
    with pytest.raises(ModelError, match="Unknown model") as caught:
        load(name)
    _error(caught, "'pocket'", "config.json") if len(name) < 300 else None


def test_a_name_that_is_no_hub_id() -> None:
    with pytest.raises(ModelError) as caught:
        locate("not an/id")
    _error(caught, "not a hub id", "pocket")


def test_a_hub_id_offline_is_one_clear_sentence() -> None:
    """The tests run with HF_HUB_OFFLINE=1."""
    with pytest.raises(ModelError) as caught:
        load("nobody-at-all/nothing")
    _error(caught, "'nobody-at-all/nothing'", "HF_HUB_OFFLINE", "local folder")


def _hub_failures() -> list[type[Exception]]:
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    client = [kind for kind in HfHubHTTPError.__bases__ if kind is not OSError]
    return [*client, LocalEntryNotFoundError, ConnectionError, TimeoutError, OSError]


@pytest.mark.parametrize("failure", _hub_failures())
def test_whatever_the_hub_s_client_raises(
    monkeypatch: pytest.MonkeyPatch, failure: type[Exception]
) -> None:
    import huggingface_hub

    def fail(*args: Any, **kwargs: Any) -> None:
        raise failure("no route\nto anywhere")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(ModelError) as caught:
        locate("nobody/nothing")
    _error(caught, "'nobody/nothing'", "no route", "network")


def test_a_hub_id_is_fetched_without_what_is_not_needed(
    monkeypatch: pytest.MonkeyPatch, saved: Path
) -> None:
    import huggingface_hub

    asked: dict[str, Any] = {}

    def fetch(name: str, **kwargs: Any) -> str:
        asked.update(name=name, **kwargs)
        return str(saved)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    checkpoint = locate("someone/something", revision="abc")
    assert (checkpoint.folder, checkpoint.revision) == (saved, "abc")
    assert (asked["name"], asked["revision"]) == ("someone/something", "abc")
    assert "*.bin" not in asked["allow_patterns"]


# --- damaged -------------------------------------------------------------------------------------


def _cut(name: str, keep: int) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        raw = (folder / name).read_bytes()
        (folder / name).write_bytes(raw[:keep] if keep >= 0 else raw[: len(raw) + keep])

    return damage


def _write(name: str, text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(text) and None


def _remove(*names: str) -> Callable[[Path], None]:
    return lambda folder: [(folder / name).unlink() for name in names] and None


def _without_one_tensor(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _shards_less_one(folder: Path) -> None:
    _remove("model.safetensors")(folder)
    hf_model("llama").save_pretrained(folder, max_shard_size="60KB")
    sorted(folder.glob("*.safetensors"))[1].unlink()


def _pickled(folder: Path) -> None:
    _remove("model.safetensors")(folder)
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04no weights at all")


WEIGHTS = "model.safetensors"
DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "no config": (_remove("config.json"), "config.json"),
    "no weights": (_remove(WEIGHTS), "weights"),
    "empty weights": (_cut(WEIGHTS, 0), "download is complete"),
    "a few bytes": (_cut(WEIGHTS, 5), "download is complete"),
    "half a header": (_cut(WEIGHTS, 100), "download is complete"),
    "cut off": (_cut(WEIGHTS, -1000), "download is complete"),
    "garbage": (_write(WEIGHTS, "not weights " * 50), "download is complete"),
    "one tensor missing": (_without_one_tensor, "'model.layers.1.mlp.up_proj.weight'"),
    "one shard missing": (_shards_less_one, "model-00002-of"),
    "a pickle": (_pickled, "does not load"),
    "config is not JSON": (_write("config.json", "{ nonsense"), "JSON"),
    "config is a list": (_write("config.json", "[1]"), "JSON object"),
    "config is empty": (_write("config.json", "{}"), "model_type"),
    "config of a deeper model": (lambda f: _edit_config(f, num_hidden_layers=5), "18 are missing"),
    "config of a wider model": (lambda f: _edit_config(f, hidden_size=64), "does not load"),
    "an unknown type": (lambda f: _edit_config(f, model_type="zzz"), "zzz"),
    "a strange dtype": (lambda f: _edit_config(f, dtype="float3"), "Unknown dtype 'float3'"),
    "no tokenizer": (_remove("tokenizer.json", "tokenizer_config.json"), "tokenizer"),
    "tokenizer is not JSON": (_write("tokenizer.json", "{ nonsense"), "tokenizer"),
    "tokenizer is empty": (_write("tokenizer.json", "{}"), "tokenizer"),
    "tokenizer of another kind": (
        _write("tokenizer.json", '{"added_tokens": [], "model": {"type": "Nope"}}'),
        "tokenizer",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_folder_is_one_sentence(folder: Path, damage: str) -> None:
    break_it, said = DAMAGES[damage]
    break_it(folder)
    with pytest.raises(ModelError) as caught:
        load(str(folder), device="cpu")
    _error(caught, said)


@pytest.mark.parametrize("keep", [0, 5, 100, -1])
def test_a_cut_file_has_no_fingerprint(folder: Path, keep: int) -> None:
    """It is asked for before anything is loaded."""
    _cut(WEIGHTS, keep)(folder)
    with pytest.raises(ModelError) as caught:
        _ = locate(str(folder)).fingerprint
    _error(caught, "model.safetensors", "cut off")


@pytest.mark.parametrize("dtype", ["float64", "int8", "fp16", "half", "torch.float32", ""])
def test_an_unknown_dtype_is_one_sentence(saved: Path, dtype: str) -> None:
    with pytest.raises(ModelError) as caught:
        load(str(saved), device="cpu", dtype=dtype)
    _error(caught, f"Unknown dtype '{dtype}'", "'bfloat16'")


@pytest.mark.parametrize("device", ["gpu", "cpux", "", "cuda:x", "meta", "xpu", "cuda:77"])
def test_an_unknown_device_is_one_sentence(saved: Path, device: str) -> None:
    with pytest.raises(ModelError) as caught:
        load(str(saved), device=device)
    _error(caught, f"'{device}'", "'auto'")


def test_devices() -> None:
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("auto").type in ("cpu", "cuda", "mps")


# --- the fingerprint -----------------------------------------------------------------------------


def _print(folder: Path) -> str:
    return locate(str(folder)).fingerprint


def test_a_copy_has_the_same_fingerprint(saved: Path, folder: Path) -> None:
    assert folder.name != saved.name
    for path in folder.iterdir():
        os.utime(path, (1, 1))
    (folder / "README.md").write_text("words about it")
    assert _print(folder) == _print(saved)
    assert len(_print(saved)) == len("files:") + 32


def _change_weight(folder: Path, name: str, index: tuple[int, ...]) -> None:
    tensors = load_file(folder / WEIGHTS)
    tensors[name][index] += 0.5
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def _change_end_token(folder: Path) -> None:
    path = folder / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "eos_token_id": 7}))


def _change_template(folder: Path) -> None:
    path = folder / "chat_template.jinja"
    path.write_text(path.read_text().replace("<|", "<<"))


def _change_vocabulary(folder: Path) -> None:
    path = folder / "tokenizer.json"
    said = path.read_text()
    assert "<pad>" in said
    path.write_text(said.replace("<pad>", "<pod>"))


CHANGES: dict[str, Callable[[Path], None]] = {
    "a norm's weight": lambda f: _change_weight(f, "model.norm.weight", (0,)),
    "a bit of the embedding": lambda f: _change_weight(f, "model.embed_tokens.weight", (0, 0)),
    "the last weight": lambda f: _change_weight(f, "model.layers.2.mlp.up_proj.weight", (79, 47)),
    "config": lambda f: _edit_config(f, rms_norm_eps=1e-5),
    "end token": _change_end_token,
    "template": _change_template,
    "vocabulary": _change_vocabulary,
    "merges of the old kind": _write("merges.txt", "a b"),
    "vocabulary of the old kind": _write("vocab.txt", "a"),
    "SentencePiece": _write("tokenizer.model", "a"),
    "one more shard": lambda f: save_file({"x": torch.zeros(1)}, f / "extra.safetensors"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_fingerprint_changes_with(saved: Path, folder: Path, change: str) -> None:
    CHANGES[change](folder)
    assert _print(folder) != _print(saved)


def test_the_fingerprint_of_shapes_and_dtypes(tmp_path: Path) -> None:
    """The same bytes under another shape or dtype are another model."""
    prints = set()
    for i, tensor in enumerate(
        (torch.zeros(4, 6), torch.zeros(6, 4), torch.zeros(12, 4, dtype=torch.float16))
    ):
        folder = tmp_path / str(i)
        folder.mkdir()
        save_file({"w": tensor}, folder / WEIGHTS)
        prints.add(Checkpoint("x", folder).fingerprint)
    assert len(prints) == 3


def _wrapped(**changes: Any) -> str:
    return Model.wrap(hf_model("llama", **changes), tokenizer()).fingerprint


def test_the_fingerprint_of_a_wrapped_model() -> None:
    plain = _wrapped()
    assert plain.startswith("memory:")
    assert _wrapped() == plain
    others = [_wrapped(seed=1), _wrapped(rms_norm_eps=1e-5)]
    hf = hf_model("llama")
    with torch.no_grad():
        hf.model.norm.weight[5] += 0.25
    others.append(Model.wrap(hf, tokenizer()).fingerprint)
    others.append(Model.wrap(hf_model("llama"), tokenizer(template=False)).fingerprint)
    others.append(Model.wrap(hf_model("llama").bfloat16(), tokenizer()).fingerprint)
    assert len({plain, *others}) == 6
    assert TEMPLATE in str(tokenizer().chat_template)
