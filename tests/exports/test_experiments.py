"""The older layout: every number against the model's own `output_hidden_states`,
`output_attentions` and modules that the test names itself; what is refused, and going on."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import gelu, silu

from tests.runner.small import few_neutral_chats
from tests.tiny import hf_model, model, tokenizer
from traitscope.core import TraitDirections
from traitscope.errors import InputError, ModelError
from traitscope.exports.experiments import MARKER, export_experiments
from traitscope.exports.layout import gate_alone
from traitscope.models import Model
from traitscope.runner import capture
from traitscope.runs import Run
from traitscope.runs.tensors import save_directions

KINDS = ("llama", "gemma2", "gpt2", "gpt_neox")
TRAITS = ("calm", "loud")
TIER_2 = "inference/residual_stream_activations"
TIER_3 = "inference/layer_internal_states"
BLOCK, N_BLOCKS, HEADS = 1, 3, 4
TEXTS = ["Is it so?", "日本 👩‍🔬\n=1"]
tanh_gelu = partial(gelu, approximate="tanh")


@dataclass(frozen=True)
class Case:
    """A run of one architecture, its export, and the same weights, eager throughout."""

    kind: str
    model: Model
    run: Run
    out: Path
    hf: Any

    def loaded(self, trait: str, tier: str, name: str) -> dict[str, Any]:
        found: dict[str, Any] = torch.load(
            self.out / trait / tier / f"{name}.pt", weights_only=True
        )
        return found

    def own(self, number: int) -> tuple[Any, list[int], int]:
        """The model's own forward over the text that is prompt_I; its ids; the prompt's length."""
        text = self.run.text(list(self.run.generations())[number].generation)
        ids = text.tokens.token_id.tolist()
        with torch.inference_mode():
            out = self.hf(
                torch.tensor([ids]),
                output_hidden_states=True,
                output_attentions=True,
                use_cache=False,
            )
        return out, ids, text.tokens.n_prompt

    def direction(self, trait: str, site: str) -> Tensor:
        names = [s.name for s in self.run.sites]
        return torch.from_numpy(self.run.directions[trait].direction[names.index(site)])


def directions_file(subject: Model, trait: str, folder: Path) -> str:
    rng = np.random.default_rng(len(trait) + ord(trait[0]))
    raw = rng.normal(size=(len(subject.sites), subject.anatomy.d_model))
    unit = (raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float32)
    ones = np.ones(len(subject.sites), dtype=np.float32)
    metadata = {"model_fingerprint": subject.fingerprint, "display_name": trait.title()}
    made = TraitDirections(trait, subject.sites, unit, *[ones] * 5, metadata=metadata)
    save_directions(folder / f"{trait}.safetensors", made)
    return str(folder / f"{trait}.safetensors")


def run_of(subject: Model, folder: Path, **more: Any) -> Run:
    files = [directions_file(subject, trait, folder) for trait in TRAITS]
    options = {"temperature": 0.8, "max_new_tokens": 5, "internals": [BLOCK], **more}
    return capture(subject, TEXTS, files, out=folder / "run", **options)


@pytest.fixture(scope="module", params=KINDS)
def case(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Case]:
    folder = tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda descriptor: None)
        patch.setenv("TRAITSCOPE_HOME", str(folder / "home"))
        few_neutral_chats(patch)
        subject = model(request.param)
        run = run_of(subject, folder)
        export_experiments(run, folder / "out", model=subject)
        hf = hf_model(request.param)
        hf.set_attn_implementation("eager")
        yield Case(request.param, subject, run, folder / "out", hf)


def close(mine: Tensor, own: Tensor, scale: float = 1.0) -> None:
    assert mine.shape == own.shape
    torch.testing.assert_close(mine, own, rtol=1e-4, atol=2e-5 * scale, check_dtype=False)


# --- tier 2 --------------------------------------------------------------------------------------


def test_files_are_there_and_nothing_else(case: Case) -> None:
    names = {p.relative_to(case.out).as_posix() for p in case.out.rglob("*") if p.is_file()}
    stems = [f"{TIER_2}/prompt_{i}" for i in range(2)]
    stems += [f"{TIER_3}/prompt_{i}_layer{BLOCK}" for i in range(2)]
    expected = {f"{t}/{stem}{end}" for t in TRAITS for stem in stems for end in (".pt", ".json")}
    assert names == expected | {MARKER}


@pytest.mark.parametrize("number", [0, 1])
def test_texts_are_the_runs_own(case: Case, number: int) -> None:
    row = case.run.generations()[number]
    text = case.run.text(row.generation)
    found = case.loaded("calm", TIER_2, f"prompt_{number}")
    n = row.n_prompt
    assert found["prompt"]["token_ids"] == text.tokens.token_id[:n].tolist()
    assert found["response"]["token_ids"] == text.tokens.token_id[n:].tolist()
    assert found["prompt"]["tokens"] + found["response"]["tokens"] == list(text.tokens.piece)
    assert (found["prompt"]["n_tokens"], found["response"]["n_tokens"]) == (n, len(text.score) - n)
    assert TEXTS[number] in found["prompt"]["text"]
    assert found["prompt"]["text"] == text.tokens.text[: text.tokens.end[n - 1]]
    assert found["response"]["text"] == row.response


@pytest.mark.parametrize("trait", TRAITS)
@pytest.mark.parametrize("number", [0, 1])
def test_projections_are_the_models_own(case: Case, trait: str, number: int) -> None:
    """residual_in and residual_out of a prompt token at its own place, of a response token at
    the place before it; after_attn is what attention added to residual_in, or nowhere."""
    own, ids, n = case.own(number)
    found = case.loaded(trait, TIER_2, f"prompt_{number}")["projections"]
    assert found["prompt"].shape == (n, N_BLOCKS, 3)
    assert found["response"].shape == (len(ids) - n, N_BLOCKS, 3)
    places = {"prompt": range(n), "response": range(n - 1, len(ids) - 1)}
    norm = float(own.hidden_states[-2].norm(dim=-1).max())
    for part, rows in places.items():
        for block in range(N_BLOCKS):
            before = f"{block - 1}.post" if block else "embed"
            h = own.hidden_states[block][0]
            expected = (h @ case.direction(trait, before))[list(rows)]
            close(found[part][:, block, 0], expected, norm)
            # hidden_states has the last one after the final norm
            last = block == N_BLOCKS - 1
            h = last_of(case, ids) if last else own.hidden_states[block + 1][0]
            expected = (h @ case.direction(trait, f"{block}.post"))[list(rows)]
            close(found[part][:, block, 2], expected, norm)
        if case.kind == "gpt_neox":
            assert found[part][:, :, 1].isnan().all()
            assert not found[part][:, :, [0, 2]].isnan().any()
        else:
            for block in range(N_BLOCKS):
                mid = mid_of(case, ids, block)
                expected = (mid @ case.direction(trait, f"{block}.mid"))[list(rows)]
                close(found[part][:, block, 1], expected, norm)


def test_a_response_row_is_not_the_tokens_own(case: Case) -> None:
    """What the shift by one is about: the row of the token itself is another."""
    row = case.run.generations()[0]
    text, n = case.run.text(row.generation), row.n_prompt
    found = case.loaded("calm", TIER_2, "prompt_0")["projections"]["response"]
    at_token = torch.from_numpy(text.score[n:, 0, 0].copy())
    before = torch.from_numpy(text.score[n - 1 : -1, 0, 0].copy())
    assert torch.equal(found[:, 0, 0], before)
    assert not torch.allclose(found[:, 0, 0], at_token)


def input_of(case: Case, ids: list[int], module: Any) -> Tensor:
    """What goes into one of the model's own modules, [T, D]."""
    seen: list[Tensor] = []
    handle = module.register_forward_pre_hook(lambda _, args: seen.append(args[0].clone()))
    with torch.inference_mode():
        case.hf(torch.tensor([ids]), use_cache=False)
    handle.remove()
    return seen[0][0]


def mid_of(case: Case, ids: list[int], block: int) -> Tensor:
    """The stream after attention: what goes into the norm before the MLP."""
    stack = case.hf.get_decoder()
    layer = (stack.h if case.kind == "gpt2" else stack.layers)[block]
    names = {"gpt2": "ln_2", "llama": "post_attention_layernorm"}
    return input_of(case, ids, getattr(layer, names.get(case.kind, "pre_feedforward_layernorm")))


def last_of(case: Case, ids: list[int]) -> Tensor:
    """The stream after the last block: what goes into the final norm."""
    names = {"gpt2": "ln_f", "gpt_neox": "final_layer_norm"}
    return input_of(case, ids, getattr(case.hf.get_decoder(), names.get(case.kind, "norm")))


@pytest.mark.parametrize("number", [0, 1])
def test_attention_is_the_models_own(case: Case, number: int) -> None:
    own, ids, n = case.own(number)
    found = case.loaded("loud", TIER_2, f"prompt_{number}")["attention_weights"]
    layers = [f"layer_{i}" for i in range(N_BLOCKS)]
    assert list(found["prompt"]) == layers
    assert len(found["response"]) == len(ids) - n
    for i, layer in enumerate(layers):
        mean = own.attentions[i][0].mean(dim=0)
        close(found["prompt"][layer], mean[:n, :n])
        for t, each in enumerate(found["response"]):
            assert list(each) == layers
            close(each[layer], mean[n - 1 + t, : n + t])
            assert each[layer].sum() == pytest.approx(1.0, abs=1e-5)


def test_metadata_say_what_is_there(case: Case) -> None:
    for name, tier in (("prompt_1", TIER_2), (f"prompt_1_layer{BLOCK}", TIER_3)):
        about = case.loaded("calm", tier, name)["metadata"]
        assert about["trait"] == "calm"
        assert about["trait_display_name"] == "Calm"
        assert about["vector_path"] == "directions/calm.safetensors"
        assert about["model"] == "wrapped"
        assert about["capture_date"] == case.run.header.created
        assert about["temperature"] == 0.8
        notes = about["format_notes"]
        assert "Response row i is the state before response token i" in notes
        assert ("after_attn is NaN" in notes) == (case.kind == "gpt_neox")
    assert about["layer"] == BLOCK
    assert "activation of the gate alone" in notes
    assert "own width" in notes


# --- tier 3 --------------------------------------------------------------------------------------


def inside(case: Case, ids: list[int]) -> dict[str, Tensor]:
    """Every tensor of block 1, by the outputs of modules that are named here."""
    stack = case.hf.get_decoder()
    layer = (stack.h if case.kind == "gpt2" else stack.layers)[BLOCK]
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(_: Any, args: Any, out: Any) -> None:
            seen[name] = (out[0] if isinstance(out, tuple) else out)[0].clone()

        return hook

    if case.kind in ("llama", "gemma2"):
        attention = layer.self_attn
        watched = {f"{x}_proj": getattr(attention, f"{x}_proj") for x in "qkv"}
        watched |= {f"{x}_proj": getattr(layer.mlp, f"{x}_proj") for x in ("gate", "up", "down")}
    elif case.kind == "gpt2":
        watched = {
            "qkv": layer.attn.c_attn,
            "up_proj": layer.mlp.c_fc,
            "down_proj": layer.mlp.c_proj,
        }
    else:
        watched = {
            "qkv": layer.attention.query_key_value,
            "up_proj": layer.mlp.dense_h_to_4h,
            "down_proj": layer.mlp.dense_4h_to_h,
        }
    handles = [m.register_forward_hook(keep(name)) for name, m in watched.items()]
    with torch.inference_mode():
        case.hf(torch.tensor([ids]), use_cache=False)
    for handle in handles:
        handle.remove()
    if case.kind == "gpt2":
        seen |= dict(zip(("q_proj", "k_proj", "v_proj"), seen["qkv"].split(48, 1), strict=True))
    elif case.kind == "gpt_neox":
        heads = seen["qkv"].view(len(ids), HEADS, 3, 12)
        seen |= {f"{x}_proj": heads[:, :, i].flatten(1) for i, x in enumerate("qkv")}
    act = {"llama": silu, "gemma2": tanh_gelu, "gpt2": tanh_gelu, "gpt_neox": gelu}[case.kind]
    seen["gelu"] = act(seen.get("gate_proj", seen["up_proj"]))
    return seen


@pytest.mark.parametrize("number", [0, 1])
def test_internals_are_the_models_own(case: Case, number: int) -> None:
    own, ids, n = case.own(number)
    expected = inside(case, ids)
    page = case.loaded("calm", TIER_3, f"prompt_{number}_layer{BLOCK}")
    assert page["layer"] == BLOCK
    rows = {"prompt": list(range(n)), "response": list(range(n - 1, len(ids) - 1))}
    for part, chosen in rows.items():
        found = page["internals"][part]
        assert set(found) == {"attention", "mlp", "residual"}
        assert set(found["attention"]) == {"q_proj", "k_proj", "v_proj", "attn_weights"}
        assert set(found["mlp"]) == {"up_proj", "gelu", "down_proj"}
        assert set(found["residual"]) == {"input", "after_attn", "output"}
        for kind in ("attention", "mlp"):
            for name in set(found[kind]) - {"attn_weights"}:
                close(found[kind][name], expected[name][chosen], 10)
        residual = found["residual"]
        scale = float(own.hidden_states[BLOCK + 1].abs().max())
        close(residual["input"], own.hidden_states[BLOCK][0][chosen], scale)
        close(residual["output"], own.hidden_states[BLOCK + 1][0][chosen], scale)
        if case.kind == "gpt_neox":
            assert residual["after_attn"].isnan().all()
        else:
            mid = mid_of(case, ids, BLOCK)
            close(residual["after_attn"], mid[chosen], scale)
    weights = own.attentions[BLOCK][0]
    close(page["internals"]["prompt"]["attention"]["attn_weights"], weights[:, :n, :n])
    steps = page["internals"]["response"]["attention"]["attn_weights"]
    assert len(steps) == len(ids) - n
    for t, step in enumerate(steps):
        close(step, weights[:, n - 1 + t : n + t, : n + t])


def test_gelu_is_the_gate_alone(case: Case) -> None:
    page = case.loaded("calm", TIER_3, f"prompt_0_layer{BLOCK}")["internals"]["prompt"]["mlp"]
    neurons = torch.tensor(
        case.run.internals(case.run.generations()[0].generation, BLOCK).tensors["neurons"]
    )[: len(page["gelu"])]
    alone = torch.allclose(page["gelu"], neurons, atol=1e-4)
    assert alone == (case.kind in ("gpt2", "gpt_neox"))  # which have no gate


@pytest.mark.parametrize("act", [silu, gelu, tanh_gelu, torch.relu, lambda x: x.relu().square()])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_activation_is_found_by_its_numbers(act: Any, dtype: torch.dtype) -> None:
    gate, up = torch.randn(2, 20, 50, generator=torch.Generator().manual_seed(3)).to(dtype) * 2
    found = gate_alone(gate.float(), up.float(), (act(gate) * up).float())
    tolerance = 1e-5 if dtype is torch.float32 else 0.02
    torch.testing.assert_close(found, act(gate).float(), atol=tolerance, rtol=tolerance)


def test_an_activation_of_ones_own_is_divided_out() -> None:
    gate, up = torch.randn(2, 20, 50, generator=torch.Generator().manual_seed(3))
    found = gate_alone(gate, up, torch.sin(3 * gate) * up)
    torch.testing.assert_close(found, torch.sin(3 * gate), atol=1e-4, rtol=1e-4)


# --- json ----------------------------------------------------------------------------------------


def same(listed: Any, tensor: Tensor) -> None:
    """null where NaN, and the same float32 everywhere else."""
    array = np.array(listed, dtype=object)
    assert array.shape == tuple(tensor.shape)
    flat = [math.nan if x is None else x for x in array.ravel().tolist()]
    np.testing.assert_array_equal(np.array(flat, dtype=np.float32), tensor.numpy().ravel())


def no_constants(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")


def test_json_says_the_same(case: Case) -> None:
    pages = ((TIER_2, "prompt_1"), (TIER_3, f"prompt_1_layer{BLOCK}"))
    for tier, name in pages:
        path = case.out / "loud" / tier / f"{name}.json"
        found = json.loads(path.read_text(encoding="utf-8"), parse_constant=no_constants)
        page = case.loaded("loud", tier, name)
        assert (found["prompt"], found["response"]) == (page["prompt"], page["response"])
        assert found["metadata"] == page["metadata"]
        if tier == TIER_2:
            assert set(found) == {*page} - {"attention_weights"} | {"attention_summary"}
            count = page["response"]["n_tokens"]
            assert found["attention_summary"] == {
                "prompt_layers": N_BLOCKS,
                "response_tokens": count,
            }
            for part in ("prompt", "response"):
                same(found["projections"][part], page["projections"][part])
            continue
        assert found["layer"] == BLOCK
        for part in ("prompt", "response"):
            inside, own = found["internals"][part], page["internals"][part]
            assert set(inside) == {"mlp", "residual", *(["attention"] if part == "prompt" else [])}
            assert set(inside["mlp"]) == {"gelu"}
            same(inside["mlp"]["gelu"], own["mlp"]["gelu"])
            for place in ("input", "after_attn", "output"):
                same(inside["residual"][place], own["residual"][place])
        weights = found["internals"]["prompt"]["attention"]
        assert set(weights) == {"attn_weights"}
        same(weights["attn_weights"], page["internals"]["prompt"]["attention"]["attn_weights"])


# --- going on, and what is refused ---------------------------------------------------------------


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Model, Run]:
    monkeypatch.setenv("TRAITSCOPE_HOME", str(tmp_path / "home"))
    few_neutral_chats(monkeypatch)
    subject = model("llama")
    return subject, run_of(subject, tmp_path)


def files(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()}


def test_without_attention_no_model_is_needed(made: tuple[Model, Run], tmp_path: Path) -> None:
    subject, run = made
    done = export_experiments(run, tmp_path / "out", attention=False)
    assert (done.texts, done.files, done.kept) == (2, 16, 0)
    page = torch.load(tmp_path / "out" / "calm" / TIER_2 / "prompt_0.pt", weights_only=True)
    assert page["attention_weights"] == {"prompt": {}, "response": []}
    assert "Attention was left out" in page["metadata"]["format_notes"]
    found = json.loads((tmp_path / "out" / "calm" / TIER_2 / "prompt_0.json").read_text())
    assert found["attention_summary"] == {"prompt_layers": 0, "response_tokens": 0}
    with pytest.raises(InputError, match="the other choice of --no-attention"):
        export_experiments(run, tmp_path / "out", model=subject)


def test_the_same_call_goes_on(made: tuple[Model, Run], tmp_path: Path) -> None:
    subject, run = made
    out = tmp_path / "out"
    export_experiments(run, out, model=subject)
    whole = files(out)
    gone = out / "loud" / TIER_2 / "prompt_1.json"
    gone.unlink()
    kept = out / "calm" / TIER_2 / "prompt_0.pt"
    kept.write_bytes(b"not made again")
    done = export_experiments(run, out, model=subject)
    assert (done.files, done.kept) == (16, 15)
    assert done.bytes == gone.stat().st_size
    assert kept.read_bytes() == b"not made again"
    kept.write_bytes(whole[str(kept.relative_to(out))])
    assert files(out) == whole
    again = export_experiments(run, out)  # nothing is missing: nothing is loaded
    assert (again.kept, again.bytes) == (16, 0)


def test_it_goes_on_after_a_stop_in_the_middle(
    made: tuple[Model, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject, run = made
    export_experiments(run, tmp_path / "whole", model=subject)
    left = 5

    def stop(content: Any, buffer: Any) -> None:
        nonlocal left
        left -= 1
        if not left:
            raise KeyboardInterrupt
        real(content, buffer)

    real = torch.save
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            export_experiments(run, tmp_path / "out", model=subject)
    assert 0 < len(files(tmp_path / "out")) < 17
    export_experiments(run, tmp_path / "out", model=subject)
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_new_texts_come_behind(made: tuple[Model, Run], tmp_path: Path) -> None:
    subject, run = made
    export_experiments(run, tmp_path / "out", attention=False)
    before = files(tmp_path / "out")
    more = capture(
        subject,
        ["First?", *TEXTS],
        [str(tmp_path / f"{t}.safetensors") for t in TRAITS],
        out=run.path,
        temperature=0.8,
        max_new_tokens=5,
        internals=[BLOCK],
    )
    export_experiments(more, tmp_path / "out", attention=False)
    after = files(tmp_path / "out")
    assert {name: after[name] for name in before if name != MARKER} == {
        name: data for name, data in before.items() if name != MARKER
    }
    page = torch.load(tmp_path / "out" / "calm" / TIER_2 / "prompt_2.pt", weights_only=True)
    assert "First?" in page["prompt"]["text"]


def test_a_folder_of_somebody_else_is_refused(made: tuple[Model, Run], tmp_path: Path) -> None:
    _, run = made
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds 'mine\.txt'"):
        export_experiments(run, tmp_path / "out", attention=False)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["mine.txt"]
    with pytest.raises(InputError, match="got the run"):
        export_experiments(run, run.path, attention=False)
    export_experiments(run, tmp_path / "there", attention=False)
    marker = tmp_path / "there" / MARKER
    marker.write_text(marker.read_text().replace(run.header.key, "00000000"))
    with pytest.raises(InputError, match="of another run"):
        export_experiments(run, tmp_path / "there", attention=False)
    marker.write_text("{")
    with pytest.raises(InputError, match="damaged"):
        export_experiments(run, tmp_path / "there", attention=False)


def test_another_model_is_refused(made: tuple[Model, Run], tmp_path: Path) -> None:
    _, run = made
    with pytest.raises(ModelError, match="another one or has changed"):
        export_experiments(run, tmp_path / "a", model=model("llama", seed=1))
    with pytest.raises(ModelError, match="given from Python"):
        export_experiments(run, tmp_path / "b")


def test_the_runs_model_is_loaded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAITSCOPE_HOME", str(tmp_path / "home"))
    few_neutral_chats(monkeypatch)
    hf_model("llama").save_pretrained(tmp_path / "mine")
    tokenizer().save_pretrained(tmp_path / "mine")
    from traitscope.exports import experiments
    from traitscope.models import load

    subject = load(str(tmp_path / "mine"), device="cpu")
    run = run_of(subject, tmp_path)
    loads = []
    real = experiments.load_checkpoint

    def counted(*args: Any, **options: Any) -> Model:
        loads.append(args)
        return real(*args, **options)

    monkeypatch.setattr(experiments, "load_checkpoint", counted)
    export_experiments(run, tmp_path / "out", device="cpu")
    assert len(loads) == 1
    hf_model("llama", seed=1).save_pretrained(tmp_path / "other")
    tokenizer().save_pretrained(tmp_path / "other")
    with pytest.raises(ModelError, match="--model"):
        export_experiments(run, tmp_path / "more", model=str(tmp_path / "other"))
    assert len(loads) == 1
