"""Two of a kind over the wire: columns, partners, shifts, correlations, two insides."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from tests.report.planted import Text, planted
from tests.runs.build import generation
from tests.viewer.conftest import client_of
from tests.viewer.inside import BLOCK, EVIL, PIECES, inside_run
from tests.viewer.texts import ODD, ODD_PROMPT, directions, record, write_run
from traitscope.core import sites_of
from traitscope.runs import Run
from traitscope.runs.contributions import Contributions
from traitscope.viewer.internals_api import rows_of

GEN, OTHER = generation(0).id, generation(1).id
A, B = f"0/{GEN}/{BLOCK}", f"0/{OTHER}/{BLOCK}"
rng = np.random.default_rng(3)
PROMPTS = [f"Question {i}?" for i in range(8)]
DOUBT = {(p, s): float(rng.normal()) for p in PROMPTS for s in range(2)}


def answers(moved: float, samples: int = 2) -> list[Text]:
    """Firmness is the opposite of doubt, but for a little; the second run's doubt is moved."""
    return [
        Text(
            prompt,
            z={"doubt": [DOUBT[prompt, s] + moved] * 2, "firmness": [-DOUBT[prompt, s] + s] * 2},
            before={"doubt": 0.5 * i, "firmness": 0.0},
            sample=s,
            label=EVIL if (i, s) == (0, 0) else None,
        )
        for i, prompt in enumerate(PROMPTS)
        for s in range(samples)
    ]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    here = tmp_path_factory.mktemp("runs")
    planted(here / "a", answers(0.0))
    planted(here / "b", [*answers(1.5, samples=1), Text("Only here?"), Text("No.", error="Full.")])
    return here / "a", here / "b"


@pytest.fixture
def client(folders: tuple[Path, Path]) -> TestClient:
    return client_of(*folders)


def name(prompt: str, sample: int = 0) -> str:
    return Text(prompt, sample=sample).generation.id


# --- two texts -----------------------------------------------------------------------------------


def test_two_texts_line_up(tmp_path: Path) -> None:
    inside_run(tmp_path / "run")
    said = client_of(tmp_path / "run").get(f"/api/compare?a=0/{GEN}&b=0/{OTHER}").json()
    # made-up ids differ, so these line up by their characters, which are the same
    assert said["by"] == "characters"
    assert said["columns"] == [[i, i] for i in range(len(PIECES))]
    assert said["sites"] == [[i, i] for i in range(5)]
    assert said["traits"] == ["alpha", "beta"]


def test_two_models_of_different_depth(tmp_path: Path) -> None:
    for folder, blocks in (("deep", 6), ("flat", 3)):
        known = directions(("alpha", "beta"), sites_of(blocks))
        write_run(tmp_path / folder, [record(1, ODD, ODD_PROMPT, known)], known)
    client = client_of(tmp_path / "deep", tmp_path / "flat")
    said = client.get(f"/api/compare?a=0/{OTHER}&b=1/{OTHER}").json()
    deep, flat = (Run.open(tmp_path / folder) for folder in ("deep", "flat"))
    names = {str(deep.sites[i]): str(flat.sites[j]) for i, j in said["sites"]}
    assert names["embed"] == "embed" and names["5.post"] == "2.post"
    assert said["common"] == len(ODD)
    assert any("differ in depth" in note for note in said["notes"])
    assert any("directions of alpha, beta differ" in note for note in said["notes"])


def test_partners_are_the_same_chat_first(client: TestClient) -> None:
    said = client.get(f"/api/compare/partners?a=0/{name(PROMPTS[1])}").json()
    first, second, *rest = said["texts"]
    assert (first["run"], first["generation"]) == (1, name(PROMPTS[1]))
    assert (second["run"], second["generation"]) == (0, name(PROMPTS[1], 1))
    assert second["why"] == "another sample"
    assert said["of"] == 15 + 9  # the failed one is none
    assert rest[0]["run"] == 0
    found = client.get(f"/api/compare/partners?a=0/{name(PROMPTS[1])}&q=ONLY%20here").json()
    assert [each["title"] for each in found["texts"]] == ["Only here?"]


# --- two runs and a run's traits -----------------------------------------------------------------


def test_two_runs_over_the_prompts_that_both_have(client: TestClient) -> None:
    said = client.get("/api/compare/runs?a=0&b=1").json()
    assert (said["n"], said["prompts"], said["alone"]) == (8, 8, [8, 1])
    moved = dict(zip(said["traits"], said["mean"], strict=True))
    assert moved["doubt"] == pytest.approx(1.5, abs=1e-5)
    assert moved["firmness"] == pytest.approx(0, abs=1e-5)
    low, high = (dict(zip(said["traits"], said[side], strict=True)) for side in ("low", "high"))
    assert low["doubt"] == pytest.approx(1.5, abs=1e-5) == high["doubt"]
    assert said["together"] == pytest.approx([1, 1], abs=1e-6)
    pair = next(p for p in said["pairs"] if p["a"] == name(PROMPTS[3]))
    k = said["traits"].index("doubt")
    assert pair["za"][k] == pytest.approx(DOUBT[PROMPTS[3], 0], abs=1e-5)
    assert pair["zb"][k] == pytest.approx(DOUBT[PROMPTS[3], 0] + 1.5, abs=1e-5)


def test_correlations_are_over_responses(client: TestClient, folders: tuple[Path, Path]) -> None:
    said = client.get("/api/runs/0/correlation").json()
    assert (said["n"], said["prompts"], said["of"]) == (16, 8, 16)
    x, y = (said["traits"].index(trait) for trait in ("doubt", "firmness"))
    z = np.array([[p["z"][x], p["z"][y]] for p in said["points"]])
    own = [[DOUBT[p, s], -DOUBT[p, s] + s] for p in PROMPTS for s in range(2)]
    np.testing.assert_allclose(z, own, atol=1e-5)
    r = np.corrcoef(z.T)[0, 1]
    assert said["pearson"][x][y] == pytest.approx(r, abs=1e-9)
    assert said["low"][x][y] < r < said["high"][x][y]
    assert said["sites"] == ["1.post", "1.post"]
    run = Run.open(folders[0])
    cosine = run.directions["doubt"].direction[4] @ run.directions["firmness"].direction[4]
    assert said["cosine"][x][y] == pytest.approx(float(cosine), abs=1e-6)
    before = client.get("/api/runs/0/correlation?window=before").json()
    assert before["points"][4]["z"][x] == pytest.approx(1.0, abs=1e-5)
    assert before["pearson"][x][y] is None  # firmness does not vary there


# --- two insides ---------------------------------------------------------------------------------


def test_a_second_inside(tmp_path: Path) -> None:
    folder = inside_run(tmp_path / "run")
    client = client_of(folder)
    captures = client.get("/api/internals").json()["captures"]
    assert [each["name"] for each in captures] == [A, B]
    run = Run.open(folder)
    sides = [
        Contributions(run.internals(g, BLOCK), run.directions["beta"]).mean_neurons(
            rows_of(run.text(g).tokens, "response[:]")
        )[1]
        for g in (GEN, OTHER)
    ]
    said = client.get(f"/api/compare/neurons?a={A}&b={B}&trait=beta&n=4").json()
    order = np.argsort(-np.abs(sides[1] - sides[0]))[:4]
    assert [row["neuron"] for row in said["top"]] == order.tolist()
    np.testing.assert_allclose([row["contribution"] for row in said["top"]], sides[0][order])
    np.testing.assert_allclose([row["other"] for row in said["top"]], sides[1][order])
    account = client.get(f"/api/compare/account?a={A}&b={B}&trait=beta&bat=6").json()
    own = client.get(f"/api/runs/0/internals/{OTHER}/{BLOCK}/account?trait=beta&at=6").json()
    assert account == {**own, "same": True}


def test_neurons_of_two_models_are_not_subtracted(tmp_path: Path) -> None:
    inside_run(tmp_path / "a")
    inside_run(tmp_path / "b", fingerprint="another")
    client = client_of(tmp_path / "a", tmp_path / "b")
    said = client.get(f"/api/compare/neurons?a={A}&b=1/{OTHER}/{BLOCK}").json()
    assert said["same"] is False
    assert all("other" not in row for row in said["top"])
    said = client.get(f"/api/compare/account?a={A}&b=1/{OTHER}/{BLOCK}").json()
    assert said["same"] is False


# --- what is not there ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/api/compare", "a: expected a run and a text"),
        ("/api/compare?a=0/x-0&b=0/x-0", "Expected one of the run's texts, got 'x-0'"),
        ("/api/compare?a=0/../../etc/passwd", "a: expected a run and a text"),
        ("/api/compare?a=٠/x-0&b=0/x-0", "the number of a run"),
        ("/api/compare?a=9/x-0", "open runs, from 0, got 9"),
        ("/api/compare/partners", "a: expected"),
        ("/api/compare/runs?a=0", "the number of a run, got ''"),
        ("/api/compare/runs?a=-1&b=0", "the number of a run, got '-1'"),
        ("/api/compare/runs?a=0&b=0&window=all", "answer, before"),
        ("/api/compare/neurons?a=0/x-0/1", "Expected internals of text x-0"),
        ("/api/compare/account?a=0/x-0", "a: expected a run, a text and a block"),
        ("/api/runs/x/correlation", "the number of a run"),
        ("/api/runs/0/correlation?window=%3Cb%3E", "window: expected one of"),
    ],
)
def test_what_is_not_there_is_one_sentence(client: TestClient, path: str, words: str) -> None:
    said = client.get(path)
    assert said.status_code in (400, 404)
    assert words in said.json()["error"]


def test_a_failed_text_is_set_beside_nothing(client: TestClient) -> None:
    said = client.get(f"/api/compare?a=0/{name(PROMPTS[0])}&b=1/{name('No.')}")
    assert said.status_code == 404
    assert "failed: Full." in said.json()["error"]


def test_a_run_without_texts(tmp_path: Path) -> None:
    planted(tmp_path / "empty", [], missing=[Text("Tea?")])
    client = client_of(tmp_path / "empty")
    said = client.get("/api/runs/0/correlation").json()
    assert (said["n"], said["traits"], said["points"]) == (0, [], [])
    said = client.get("/api/compare/runs?a=0&b=0").json()
    assert (said["n"], said["pairs"]) == (0, [])
