"""Vectors of an older layout as traits: their layers, what is refused, and a run with one."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from transformers import AutoModelForCausalLM

from tests.runner.small import small_suite
from tests.tiny import model as tiny_model
from traitscope.errors import SuiteError, TraitError
from traitscope.report import hints as report_hints
from traitscope.report import night, summarise
from traitscope.report.hints import hints
from traitscope.runner import run_suite
from traitscope.runs import Run
from traitscope.traits.extract import stacked
from traitscope.traits.vector_names import VectorSource, vector_at
from traitscope.traits.vectors import directions_of, load_vector

D, L = 32, 2  # of the small suite's model


def drawn(width: int = D, seed: int = 0) -> torch.Tensor:
    return torch.randn(width, generator=torch.Generator().manual_seed(seed)) * 7


def put(root: Path, name: str, value: Any, trait: str = "calm") -> Path:
    folder = root / "experiments" / "first" / trait / "extraction" / "vectors"
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(value, folder / name)
    return folder / name


def source(path: Path, layer: int | None = 1, site: str | None = None) -> VectorSource:
    return VectorSource(path, "calm", "probe", layer, site)


# --- names ---------------------------------------------------------------------------------------


def test_a_file_names_trait_method_and_layer(tmp_path: Path) -> None:
    path = put(tmp_path, "mean_diff_layer3.pt", drawn())
    found = vector_at(str(path), tmp_path)
    assert found == VectorSource(path, "calm", "mean_diff", 3, None)
    assert vector_at(f"{path}@2.post", tmp_path) == VectorSource(
        path, "calm", "mean_diff", 3, "2.post"
    )


def test_a_folder_with_one_vector_is_that_one(tmp_path: Path) -> None:
    path = put(tmp_path, "probe_layer16.pt", drawn())
    found = vector_at("experiments/first/calm", tmp_path)
    assert found == VectorSource(path, "calm", "probe", 16, None)


def test_a_folder_with_several_methods_lists_them(tmp_path: Path) -> None:
    for name in ("probe_layer16.pt", "probe_layer2.pt", "mean_diff_layer16.pt"):
        put(tmp_path, name, drawn())
    found = vector_at("experiments/first/calm", tmp_path)
    assert isinstance(found, str)
    assert "got 3 of 2: mean_diff_layer16.pt, probe_layer2.pt, probe_layer16.pt." in found
    with pytest.raises(
        SuiteError, match=r"mean_diff_layer16\.pt.*, or a method's, .*_layer\*\.pt'"
    ):
        small_suite(tmp_path, traits=["./experiments/first/calm"])


def test_layers_of_one_method_are_a_set(tmp_path: Path) -> None:
    paths = {n: put(tmp_path, f"probe_layer{n}.pt", drawn()) for n in (10, 2)}
    folder = paths[2].parent
    whole = VectorSource(
        folder / "probe_layer*.pt", "calm", "probe", None, None, ((2, paths[2]), (10, paths[10]))
    )
    assert vector_at("experiments/first/calm", tmp_path) == whole
    put(tmp_path, "mean_diff_layer16.pt", drawn())
    for entry in (f"{folder}/probe_layer*.pt", f"{folder}/probe", "experiments/first/calm/probe"):
        assert vector_at(entry, tmp_path) == whole
    for entry in (f"{folder}/prob", f"{folder}/prob_layer*.pt", "experiments/first/calm/prob"):
        assert not isinstance(vector_at(entry, tmp_path), VectorSource)
        with pytest.raises(SuiteError, match="expected"):
            small_suite(tmp_path, traits=[entry])
    said = vector_at("experiments/first/calm/probe@3.post", tmp_path)
    assert isinstance(said, str)
    assert "expected no site beside several vectors" in said
    alone = tmp_path / "elsewhere"
    alone.mkdir()
    torch.save(drawn(), alone / "probe_layer2.pt")
    found = vector_at("elsewhere/probe", tmp_path)
    assert isinstance(found, VectorSource)
    assert found.trait == "probe"


@pytest.mark.parametrize("entry", ["none_layer3.pt", "./vector.pt", "experiments/first/Calm!"])
def test_what_is_not_a_vector_is_said(entry: str, tmp_path: Path) -> None:
    torch.save(drawn(), tmp_path / "vector.pt")
    put(tmp_path, "probe_layer1.pt", drawn(), trait="Calm!")
    with pytest.raises(SuiteError, match="expected"):
        small_suite(tmp_path, traits=[entry])


def test_pairs_win_over_vectors(tmp_path: Path) -> None:
    put(tmp_path, "probe_layer1.pt", drawn())
    (tmp_path / "experiments" / "first" / "calm" / "trait.toml").touch()
    assert vector_at("experiments/first/calm", tmp_path) is None


# --- files ---------------------------------------------------------------------------------------


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("was-here"),))


def test_a_pickle_of_anything_else_is_never_run(tmp_path: Path) -> None:
    plain = tmp_path / "probe_layer1.pt"
    plain.write_bytes(pickle.dumps(Evil()))
    saved = put(tmp_path, "probe_layer1.pt", Evil())
    for path in (plain, saved):
        with pytest.raises(TraitError, match="could run code and are not loaded") as caught:
            load_vector("calm", source(path))
        assert "\n" not in str(caught.value) and "weights_only" not in str(caught.value)
    assert not Path("was-here").exists()


@pytest.mark.parametrize(
    ("value", "match"),
    [
        ({"vector": torch.ones(4)}, "got dict"),
        (torch.ones(2, 4), r"got shape \[2, 4\]"),
        (torch.ones(0), r"got shape \[0\]"),
        (torch.ones(1).expand(2**40), r"got shape \[1099511627776\]"),
        (torch.zeros(4), "not all of them 0"),
        (torch.tensor([1.0, float("nan")]), "finite"),
        (torch.arange(4), "int64"),
        (torch.ones(4).to_sparse(), "finite"),
    ],
)
def test_other_contents_are_refused(value: Any, match: str, tmp_path: Path) -> None:
    path = put(tmp_path, "probe_layer1.pt", value)
    with pytest.raises(TraitError, match=match):
        load_vector("calm", source(path))


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 torn", b"\x80\x02garbage", b"\0" * 300])
def test_damaged_files_are_one_sentence(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "a_layer1.pt").write_bytes(data)
    with pytest.raises(TraitError, match="damaged"):
        load_vector("calm", source(tmp_path / "a_layer1.pt"))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_vectors_are_normalised_whatever_their_type(dtype: torch.dtype, tmp_path: Path) -> None:
    value = drawn().to(dtype).requires_grad_()
    vector = load_vector("calm", source(put(tmp_path, "a_layer1.pt", value)))
    assert vector.unit.dtype == np.float32
    expected = value.detach().double() / value.detach().double().norm()
    np.testing.assert_allclose(vector.unit, expected, rtol=1e-6)


# --- on a model ----------------------------------------------------------------------------------


def place(layer: int | None, tmp_path: Path, site: str | None = None, width: int = 48) -> Any:
    subject = tiny_model("llama")  # three blocks of width 48
    path = put(tmp_path, f"probe_layer{layer}.pt", drawn(width))
    vector = load_vector("calm", source(path, layer, site))
    return subject, vector, directions_of(subject, [vector])["calm"]


@pytest.mark.parametrize(("layer", "site"), [(0, "embed"), (1, "0.post"), (2, "1.post")])
def test_layer_n_is_hidden_states_n(layer: int, site: str, tmp_path: Path) -> None:
    subject, vector, made = place(layer, tmp_path)
    assert made.metadata["read_site"] == site
    assert (made.direction == vector.unit).all()  # at every site
    assert made.metadata["warning"] == f"one vector, found at {site}, is read at every site"
    assert made.metadata["model_fingerprint"] == subject.fingerprint
    assert (made.neutral_std > 0).all()


def test_a_named_site_is_the_only_one(tmp_path: Path) -> None:
    subject, vector, made = place(2, tmp_path, site="1.mid")
    names = [site.name for site in subject.sites]
    there = names.index("1.mid")
    assert (made.direction[there] == vector.unit).all()
    assert not np.delete(made.direction, there, axis=0).any()
    assert made.metadata["read_site"] == "1.mid"
    assert "warning" not in made.metadata


def test_a_set_stands_at_its_own_sites(tmp_path: Path) -> None:
    subject = tiny_model("llama")  # three blocks of width 48
    values = {n: drawn(48, seed=n) for n in (0, 1, 3)}  # 3 is after the final norm
    for n, value in values.items():
        put(tmp_path, f"probe_layer{n}.pt", value)
    found = vector_at("experiments/first/calm", tmp_path)
    assert isinstance(found, VectorSource)
    loaded = load_vector("calm", found)
    made = directions_of(subject, [loaded])["calm"]
    for n, site in ((0, "embed"), (1, "0.post")):
        at = [s.name for s in subject.sites].index(site)
        expected = values[n] / values[n].norm()
        np.testing.assert_allclose(made.direction[at], expected, rtol=1e-5)
    assert int(made.direction.any(axis=1).sum()) == 2
    assert made.metadata["read_site"] == "0.post", "the nearest to the middle"
    assert made.metadata["warning"] == (
        "vectors of 2 sites, none at the other 5; layer 3, after the final norm, is left out"
    )
    assert made.metadata["data_hash"] == loaded.data_hash
    put(tmp_path, "probe_layer1.pt", drawn(48, seed=9))
    assert load_vector("calm", found).data_hash != loaded.data_hash
    put(tmp_path, "probe_layer1.pt", drawn(40))
    with pytest.raises(TraitError, match=r"width 48 .*probe_layer1\.pt, got 40"):
        directions_of(subject, [load_vector("calm", found)])
    put(tmp_path, "probe_layer1.pt", drawn(48))
    put(tmp_path, "probe_layer9.pt", drawn(48))
    found = vector_at("experiments/first/calm", tmp_path)
    assert isinstance(found, VectorSource)
    with pytest.raises(TraitError, match=r"probe_layer9\.pt, got 9\. It belongs to another"):
        directions_of(subject, [load_vector("calm", found)])


def test_a_set_of_a_vector_after_the_final_norm_alone_is_refused(tmp_path: Path) -> None:
    path = put(tmp_path, "probe_layer3.pt", drawn(48))
    found = vector_at(f"{path.parent}/probe", tmp_path)
    assert isinstance(found, VectorSource)
    with pytest.raises(TraitError, match="after the final norm"):
        directions_of(tiny_model("llama"), [load_vector("calm", found)])


def test_a_run_with_a_set(home: Path, tmp_path: Path) -> None:
    for n in range(L + 1):
        put(home, f"probe_layer{n}.pt", drawn(seed=n), trait="several")
    suite = small_suite(home, traits=["./experiments/first/several"])
    run = Run.open(run_suite(suite, out=tmp_path / "run").path)
    text = run.text(run.generations()[0].generation)
    names = [site.name for site in run.sites]
    assert text.score[:, [names.index("embed"), names.index("0.post")]].all()
    assert not text.score[:, names.index("0.mid")].any()
    assert run_suite(suite, out=tmp_path / "run").already_done
    assert any("several: vectors of 2 sites" in hint for hint in hints(summarise(run)))


def test_after_the_final_norm_is_refused_unless_asked_for(tmp_path: Path) -> None:
    with pytest.raises(TraitError, match=r"after the final norm.*probe_layer3\.pt@2\.post"):
        place(3, tmp_path)
    _, vector, made = place(3, tmp_path, site="2.post")
    assert (made.direction[-1] == vector.unit).all()
    assert "found after the final norm" in made.metadata["warning"]
    with pytest.raises(TraitError, match=r"from 0 to 2 .* got 4"):
        place(4, tmp_path)
    with pytest.raises(TraitError, match=r"site of .* got '7\.post'"):
        place(1, tmp_path, site="7.post")


def test_a_vector_of_another_width_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TraitError, match=r"width 48 .* got 47"):
        place(1, tmp_path, width=47)


def test_what_is_normal_is_measured(tmp_path: Path) -> None:
    """Against one text at a time: neutral answers' content tokens, projected."""
    from traitscope.traits import extract

    subject, vector, made = place(1, tmp_path)
    scores = []
    for chat in extract.neutral_chats():
        text = extract._text(subject, chat)
        states = subject.hf(
            torch.tensor([text.token_ids]), output_hidden_states=True, use_cache=False
        ).hidden_states[1][0]
        chosen = text.tokens.content & (text.tokens.part == "response")
        scores.append((states.detach().numpy() @ vector.unit)[chosen])
    every = np.concatenate(scores).astype(np.float64)
    at = made.sites.index(next(s for s in made.sites if s.name == "0.post"))
    np.testing.assert_allclose(made.neutral_mean[at], every.mean(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(made.neutral_std[at], every.std(ddof=1), rtol=1e-4)
    assert stacked([made]).shape == (7, 48, 1)


def test_a_run_with_a_vector(home: Path, tmp_path: Path) -> None:
    path = put(tmp_path, "probe_layer1.pt", drawn())
    suite = small_suite(home, traits=["./loud", str(path.parents[2])], prompts=_ONE)
    outcome = run_suite(suite, out=tmp_path / "run")
    run = Run.open(outcome.path)
    assert run.traits == ("loud", "calm")
    hf = AutoModelForCausalLM.from_pretrained(home / "model").eval()
    text = run.text(run.generations()[0].generation)
    ids = torch.tensor([text.tokens.token_id.tolist()])
    states = hf(ids, output_hidden_states=True).hidden_states[1][0].detach().numpy()
    unit = (drawn() / drawn().norm()).numpy()
    own = states @ unit
    names = [site.name for site in run.sites]
    mine = text.score[:, names.index("0.post"), 1]
    assert np.abs(mine - own).max() <= 1e-5 * np.linalg.norm(states, axis=1).max()
    summary = summarise(run)
    assert summary.traits[1].site == "0.post"
    assert "calm: one vector, found at 0.post, is read at every site." in hints(summary)
    assert len(hints(summary)) <= report_hints.MOST
    again = run_suite(suite, out=tmp_path / "run")
    assert again.already_done
    path.unlink()
    put(tmp_path, "probe_layer1.pt", drawn(seed=1))
    other = small_suite(home, traits=["./loud", str(path.parents[2])], prompts=_ONE)
    with pytest.raises(Exception, match="other data of the trait calm"):
        run_suite(other, out=tmp_path / "run")


def test_a_run_with_a_vector_at_one_site(home: Path, tmp_path: Path) -> None:
    """There is no z where there is no direction, and the report can say so."""
    path = put(tmp_path, "probe_layer2.pt", drawn())
    suite = small_suite(home, traits=[f"{path}@1.post"], prompts=_ONE)
    run = Run.open(run_suite(suite, out=tmp_path / "run").path)
    z = run.scores(run.generations()[0].generation, as_="z")
    assert np.isfinite(z.sel(site="1.post")).all()
    assert np.isnan(z.drop_sel(site="1.post")).all()
    summary = summarise(run)
    (row,) = summary.traits[0].prompts
    assert summary.traits[0].site == "1.post"
    assert np.isfinite(row.response)
    assert np.isnan(row.embed)
    assert "calm" in render(night(summary))


def render(page: Any) -> str:
    console = Console(width=100)
    with console.capture() as captured:
        console.print(page)
    return captured.get()


_ONE = {"asks": {"texts": ["Is it so?"]}}
