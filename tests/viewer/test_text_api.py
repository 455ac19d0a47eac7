"""One text over the wire: the numbers are those in the parts, and only listed texts are there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient

from tests.viewer.conftest import client_of
from tests.viewer.texts import MARKUP, ODD, ODD_PROMPT, long_run, odd_run
from traitscope.report.readings import place_of, read_text
from traitscope.runs import Run


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("odd") / "run"
    odd_run(folder)
    return folder


@pytest.fixture(scope="module")
def client(odd: Path) -> TestClient:
    return client_of(odd)


def ids(odd: Path) -> list[str]:
    return [row.generation.id for row in Run.open(odd).generations()]


def asked(client: TestClient, path: str) -> Any:
    answer = client.get(path)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_bytes_are_the_parts_norm_then_score(client: TestClient, odd: Path) -> None:
    text = ids(odd)[0]
    answer = client.get(f"/api/runs/0/texts/{text}/numbers")
    assert answer.headers["content-type"] == "application/octet-stream"
    numbers = np.frombuffer(answer.content, dtype="<f4")
    # straight from the table, by the format's own words
    rows = [
        row
        for row in pq.read_table(odd / "parts" / "00001.tokens.parquet").to_pylist()
        if row["generation"] == text
    ]
    t, s = len(ODD), len(rows[0]["norm"])
    norm, score = np.split(numbers, [t * s])
    assert np.array_equal(norm.reshape(t, s), np.array([row["norm"] for row in rows], np.float32))
    score = score.reshape(t, s, 3)  # gamma came later
    for k, trait in enumerate(("alpha", "beta")):
        expected = np.array([row[f"score.{trait}"] for row in rows], np.float32)
        assert np.array_equal(score[:, :, k], expected)
    assert np.isnan(score[:, :, 2]).all()


def test_tokens_have_their_own_text_role_and_logprob(client: TestClient, odd: Path) -> None:
    said = asked(client, f"/api/runs/0/texts/{ids(odd)[0]}")
    tokens = said["tokens"]
    assert tokens["text"] == [text for text, _ in ODD]
    assert tokens["role"] == [role for _, role in ODD]
    assert tokens["part"].count("prompt") == said["n_prompt"] == ODD_PROMPT
    assert tokens["piece"][13].startswith("<0x")  # a byte of a character: no text, a piece
    assert tokens["logprob"][0] is None and all(value < 0 for value in tokens["logprob"][1:])
    known = Run.open(odd).text(ids(odd)[0])
    assert tokens["content"] == known.tokens.content.tolist()
    assert tokens["logprob"][5] == known.logprob[5]
    answer = [t for t, inside in enumerate(tokens["answer"]) if inside]
    assert answer == list(range(30, 38))  # behind its thoughts and the tool, before the end mark
    assert said["messages"] == [{"role": "user", "content": MARKUP}]
    assert said["sites"] == [site.name for site in Run.open(odd).sites]


def test_readings_are_the_reports(client: TestClient, odd: Path) -> None:
    run, text = Run.open(odd), ids(odd)[0]
    traits = asked(client, f"/api/runs/0/texts/{text}")["traits"]
    for number, trait in enumerate(("alpha", "beta")):
        place = place_of(run, trait)
        reading = read_text(run, run.text(text), place)
        assert traits[number]["site"] == place.site
        assert traits[number]["reading"]["before"] == reading.before
        assert traits[number]["reading"]["response"] == reading.response
        # the mean over what it thought, by hand; the answer has none of it
        tokens = run.text(text).tokens
        thought = tokens.role == "thinking"
        score = run.text(text).score[thought, place.site, number].mean(dtype=np.float64)
        known = run.directions[trait]
        z = (score - known.neutral_mean[place.site]) / known.neutral_std[place.site]
        assert traits[number]["reading"]["thoughts"] == pytest.approx(z, rel=1e-5)
    # alpha has no direction at embed: nothing to read there, and said so
    assert traits[0]["reading"]["embed"] is None
    assert traits[0]["there"] == [False, False] + [True] * 7
    assert traits[1]["reading"]["embed"] is not None


def test_a_trait_that_is_not_scored_yet_has_no_reading(client: TestClient, odd: Path) -> None:
    gamma = asked(client, f"/api/runs/0/texts/{ids(odd)[0]}")["traits"][2]
    assert gamma["name"] == "gamma"
    assert gamma["scored"] is False and gamma["reading"] is None


def test_a_failed_text_says_why_and_has_no_numbers(client: TestClient, odd: Path) -> None:
    failed = ids(odd)[1]
    said = asked(client, f"/api/runs/0/texts/{failed}")
    assert said["status"] == "failed" and said["error"] == f"Too {MARKUP}."
    assert "tokens" not in said
    assert client.get(f"/api/runs/0/texts/{failed}/numbers").content == b""


def test_texts_are_in_the_runs_order(client: TestClient, odd: Path) -> None:
    first, second, third = ids(odd)
    said = asked(client, f"/api/runs/0/texts/{second}")
    assert (said["previous"], said["next"], said["number"], said["of"]) == (first, third, 2, 3)
    assert asked(client, f"/api/runs/0/texts/{first}")["previous"] is None
    assert asked(client, f"/api/runs/0/texts/{third}")["next"] is None


@pytest.mark.parametrize(
    "path",
    [
        "/api/runs/0/texts/0000000000000000-0",
        "/api/runs/0/texts/nothing/numbers",
        "/api/runs/0/texts/..%2F..%2Frun.json",
        "/api/runs/0/texts/%2e%2e/numbers",
        "/api/runs/0/texts/<b>/numbers",
        "/api/runs/1/scale",
        "/api/runs/-1/scale",
        "/api/runs/9999999999999/texts/x",
    ],
)
def test_only_what_is_listed_is_there(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["error"].endswith(".")


def test_the_runs_scale_is_the_99th_percentile_of_content_tokens(
    client: TestClient, odd: Path
) -> None:
    said = asked(client, "/api/runs/0/scale")
    run = Run.open(odd)
    texts = [row.generation for row in run.generations() if row.status == "done"]
    assert (said["texts"], said["of"], said["percentile"]) == (2, 2, 99)
    for name in ("raw", "cosine", "z"):
        for trait in ("alpha", "beta"):
            values = [
                run.scores(text, as_=name).sel(trait=trait).values[run.text(text).tokens.content]
                for text in texts
            ]
            # alpha has no direction at the first two sites: no score of 0 enters
            values = [value[:, 2:] if trait == "alpha" else value for value in values]
            expected = np.percentile(np.abs(np.concatenate(values)), 99)
            assert said["traits"][trait][name] == pytest.approx(expected, rel=1e-5)
    assert said["traits"]["gamma"] == {"raw": None, "cosine": None, "z": None}


def test_a_large_text_is_whole(tmp_path: Path) -> None:
    long_run(tmp_path / "run", 2000, 26, ("alpha", "beta"))
    client = client_of(tmp_path / "run")
    text = ids(tmp_path / "run")[0]
    said = asked(client, f"/api/runs/0/texts/{text}")
    assert len(said["tokens"]["id"]) == 2000 and len(said["sites"]) == 53
    assert len(client.get(f"/api/runs/0/texts/{text}/numbers").content) == 2000 * 53 * 3 * 4
