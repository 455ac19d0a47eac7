"""The table of captures over the wire: rows, scores, order, filters, pages, CSV, hostility."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from tests.report.planted import TRAITS, Text
from tests.report.test_columns import alone
from tests.viewer.captures import FEW, MARKUP, Asked, add, run_of, varied
from tests.viewer.conftest import client_of
from traitscope.runs import Run, RunWriter

Row = dict[str, Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("table") / "run"
    run_of(path, FEW, missing=[varied(50)])
    return path


@pytest.fixture(scope="module")
def client(folder: Path) -> TestClient:
    return client_of(folder)


def table(client: TestClient, query: str = "") -> dict[str, Any]:
    said = client.get(f"/api/runs/0/captures?{query}")
    assert said.status_code == 200, said.text
    found: dict[str, Any] = said.json()
    return found


def names(client: TestClient, query: str) -> list[str]:
    return [row["prompt"] for row in table(client, query)["rows"]]


def test_every_capture_has_a_row_in_the_suites_order(client: TestClient, folder: Path) -> None:
    found, run = table(client), Run.open(folder)
    assert found["total"] == found["matched"] == len(run.header.captures) == 12
    assert [(r["generation"], r["set"], r["kind"]) for r in found["rows"]] == [
        (c.generation.id, c.prompt_set, c.kind) for c in run.header.captures
    ]
    assert [row["status"] for row in found["rows"]].count("failed") == 1
    assert found["rows"][-1]["status"] == "missing"


def test_the_numbers_are_those_of_the_parts(client: TestClient, folder: Path) -> None:
    run = Run.open(folder)
    for row in table(client)["rows"]:
        for k, trait in enumerate(TRAITS):
            said = {name: row["scores"][name][k] for name in row["scores"]}
            if row["readable"]:
                for name, value in alone(run, row["generation"], trait).items():
                    expected = None if math.isnan(value) else pytest.approx(value, 1e-5, 1e-6)
                    assert said[name] == expected
            else:
                assert set(said.values()) == {None}


def test_raw_scores_are_the_scores_themselves(client: TestClient, folder: Path) -> None:
    row, run = table(client, "as=raw")["rows"][1], Run.open(folder)
    text = run.text(row["generation"])
    inside = (text.tokens.part == "response") & text.tokens.content
    read = text.score[inside, 4, 1]
    assert row["scores"]["mean"][1] == pytest.approx(read.mean(), rel=1e-6)
    assert row["scores"]["max"][1] == pytest.approx(read.max(), rel=1e-6)
    assert row["scores"]["last"][1] == pytest.approx(read[-1], rel=1e-6)


@pytest.mark.parametrize("statistic", ["before", "mean", "max", "last", "embed"])
@pytest.mark.parametrize("k", [0, 1])
def test_sorted_by_a_score_either_way_with_the_unread_last(
    client: TestClient, statistic: str, k: int
) -> None:
    for sign, step in (("", 1), ("-", -1)):
        rows = table(client, f"sort={sign}{TRAITS[k]}.{statistic}")["rows"]
        values = [row["scores"][statistic][k] for row in rows]
        read = [value for value in values if value is not None]
        assert len(read) >= 8
        assert values == [*sorted(read, reverse=step < 0), *[None] * (len(values) - len(read))]


@pytest.mark.parametrize("name", ["prompt", "response", "set", "status", "tokens"])
def test_sorted_by_words(client: TestClient, name: str) -> None:
    rising = [row["number"] for row in table(client, f"sort={name}")["rows"]]
    falling = [row["number"] for row in table(client, f"sort=-{name}")["rows"]]
    assert sorted(rising) == sorted(falling) == list(range(12))
    keys = {row["number"]: row[name] for row in table(client)["rows"]}
    told = [keys[n] if isinstance(keys[n], int) else keys[n].casefold() for n in rising[:-1]]
    assert told == sorted(told)
    assert rising != falling


def test_search_looks_into_prompts_answers_labels_tags_and_reasons(client: TestClient) -> None:
    assert names(client, "q=question 3") == ["Question 3?"]
    assert names(client, "q=OF1") == ["Question 1?"]  # in the answer
    (first, *_) = table(client)["rows"]
    assert first["prompt"] in names(client, f"q={first['generation'][:8]}")
    assert names(client, "q=@formula") == ["=1+1"]
    assert names(client, "q=third=2") == ["Question 2?"]
    assert names(client, "q=expected+less") == ["Too long?"]
    assert names(client, "q=no+such+words") == []


def test_filters_by_set_status_kind_and_tag(client: TestClient) -> None:
    assert set(names(client, "set=odd")) == {"Question 1?", "Question 3?", "Tea?", "Too long?"}
    assert names(client, "status=failed") == ["Too long?"]
    assert table(client, "status=missing")["matched"] == 1
    assert names(client, "kind=internals") == []
    assert names(client, "tag=third%3D1") == ["Question 1?", "Question 4?"]
    assert len(names(client, "tag=third")) == 5


def test_a_threshold_keeps_what_is_beyond_it(client: TestClient) -> None:
    every = [row["scores"]["max"][0] for row in table(client)["rows"]]
    for where, expected in (
        (f"{TRAITS[0]}.max>=0.25", [v for v in every if v is not None and v >= 0.25]),
        (f"{TRAITS[0]}.max<=0.25", [v for v in every if v is not None and v <= 0.25]),
    ):
        rows = table(client, f"where={where}")["rows"]
        assert [row["scores"]["max"][0] for row in rows] == expected
        assert 0 < len(expected) < len(every)
    both = f"where={TRAITS[0]}.max>=0&where={TRAITS[1]}.mean<=0"
    for row in table(client, both)["rows"]:
        assert row["scores"]["max"][0] >= 0 >= row["scores"]["mean"][1]


def test_pages_are_pieces_of_the_whole(client: TestClient) -> None:
    whole = [row["number"] for row in table(client, f"sort=-{TRAITS[0]}.mean")["rows"]]
    pieces = []
    for offset in range(0, 15, 5):
        page = table(client, f"sort=-{TRAITS[0]}.mean&offset={offset}&limit=5")
        assert page["matched"] == 12
        pieces += [row["number"] for row in page["rows"]]
    assert pieces == whole
    assert table(client, "offset=999999")["rows"] == []


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=501",
        "limit=1000000000",
        "limit=99999999999999999999",
        "limit=-1",
        "limit=x",
        "limit=1e3",
        "limit=٣",
        "offset=-1",
        "offset=1.5",
        "sort=nothing",
        "sort=nothing.mean",
        "sort=firmness.nothing",
        "sort=__class__",
        "status=nothing",
        "as=nothing",
        "where=nothing",
        "where=firmness.mean>1",
        "where=nothing.mean>=1",
        "where=firmness.mean>=nan",
        "where=firmness.mean>=1e999",
        "where=firmness.generations>=1",
        "where=firmness.mean>=" + "9" * 400,
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(client: TestClient, query: str) -> None:
    said = client.get(f"/api/runs/0/captures?{query}")
    assert said.status_code == 400
    assert "xpected" in said.json()["error"]
    assert client.get(f"/api/runs/0/captures.csv?{query}").status_code in (200, 400)


def test_markup_stays_text_and_answers_are_no_pages(client: TestClient) -> None:
    (row,) = table(client, "q=onerror+tea")["rows"]
    assert row["prompt"].startswith(MARKUP)
    assert (row["label"], row["set"], row["tags"]) == (MARKUP, MARKUP, {MARKUP: MARKUP})
    said = client.get("/api/runs/0/captures")
    assert said.headers["content-type"] == "application/json"
    assert said.headers["x-content-type-options"] == "nosniff"


def test_csv_has_what_is_picked_whole_and_guarded(client: TestClient, folder: Path) -> None:
    said = client.get(f"/api/runs/0/captures.csv?sort=-{TRAITS[0]}.mean")
    assert said.headers["content-type"] == "text/csv; charset=utf-8"
    assert said.headers["content-disposition"] == 'attachment; filename="run-captures.csv"'
    rows = list(csv.DictReader(io.StringIO(said.text)))
    shown = table(client, f"sort=-{TRAITS[0]}.mean")["rows"]
    assert [row["generation"] for row in rows] == [row["generation"] for row in shown]
    for row, seen in zip(rows, shown, strict=True):
        for k, trait in enumerate(TRAITS):
            for name, values in seen["scores"].items():
                cell = row[f"{trait}.{name}.z"]
                number = float(cell) if cell else math.nan
                expected = math.nan if values[k] is None else values[k]
                np.testing.assert_allclose(number, expected, rtol=1e-6)
    formula = next(row for row in rows if row["label"].endswith("@formula"))
    assert (formula["prompt"], formula["label"], formula["response"]) == (
        "'=1+1",
        "'@formula",
        " -2",
    )
    narrowed = client.get("/api/runs/0/captures.csv?set=odd&status=failed").text.splitlines()
    assert len(narrowed) == 2


def test_the_facts_and_what_was_found(client: TestClient) -> None:
    facts = client.get("/api/runs/0").json()
    assert facts["counts"] == {
        "wanted": 12,
        "done": 10,
        "trajectories": 10,
        "internals": 0,
        "failed": 1,
        "missing": 1,
        "outside": 0,
        "texts": 9,
        "cut": 2,
    }
    assert facts["state"] == "unfinished"
    assert facts["failures"][0]["reason"].endswith(f"{MARKUP}.")
    assert facts["sets"] == {MARKUP: 1, "both": 1, "even": 5, "odd": 4}
    assert facts["cost"]["total"]["model_loads"] == 1
    assert [trait["site"] for trait in facts["traits"]] == ["1.post"] * 2
    found = client.get("/api/runs/0/found").json()
    assert found["traits"][0]["ends"][0]["name"] == MARKUP
    assert found["traits"][0]["ends"][0]["answer"] == pytest.approx(9.0)


def test_a_run_that_grows_is_followed(tmp_path: Path) -> None:
    path = tmp_path / "run"
    run = run_of(path, [varied(0)], missing=[varied(1), varied(2)])
    client = client_of(path)
    sort = f"sort=-{TRAITS[0]}.mean"
    assert [row["status"] for row in table(client, sort)["rows"]] == ["done", "missing", "missing"]
    before = client.get("/api/runs/0").json()
    assert before["live"]["going_on"] is False  # the log says that it ended
    with RunWriter.resume(path, run.header) as writer:
        add(writer, [varied(1)])
        after = client.get("/api/runs/0").json()
        assert after["live"]["going_on"] is True
        assert after["stamp"] != before["stamp"]
        assert (after["counts"]["done"], after["counts"]["missing"]) == (2, 1)
        assert after["newest"][0]["prompt"] == "Question 1?"
        assert after["live"]["captures_per_minute"] > 0
        assert after["live"]["left"] >= 0
        rows = table(client, sort)["rows"]
        assert [row["status"] for row in rows] == ["done", "done", "missing"]
        for row in rows[:2]:
            expected = alone(Run.open(path), row["generation"], TRAITS[0])["mean"]
            assert row["scores"]["mean"][0] == pytest.approx(expected, rel=1e-5)
        add(writer, [varied(2)])
        writer.event("finished")
        last = client.get("/api/runs/0").json()
        assert (last["live"]["going_on"], last["state"]) == (False, "complete")


def test_a_run_that_vanishes_is_said(tmp_path: Path) -> None:
    import shutil

    run_of(tmp_path / "run", [varied(0)])
    client = client_of(tmp_path / "run")
    shutil.rmtree(tmp_path / "run")
    said = client.get("/api/runs/0/captures")
    assert (said.status_code, set(said.json())) == (404, {"error"})
    (listed,) = client.get("/api/runs").json()["runs"]
    assert "moved or removed" in listed["error"]


def test_a_damaged_part_is_said_and_not_shown(tmp_path: Path) -> None:
    run_of(tmp_path / "run", [varied(0)])
    (part,) = (tmp_path / "run" / "parts").glob("*.tokens.parquet")
    part.write_bytes(part.read_bytes()[:-9] + b"damaged!!")
    said = client_of(tmp_path / "run").get("/api/runs/0/captures")
    assert said.status_code == 404
    assert "checksum" in said.json()["error"]


def test_runs_that_appear_in_a_watched_folder_are_listed(tmp_path: Path) -> None:
    run_of(tmp_path / "one", [varied(0)])
    client = client_of(tmp_path)
    assert [run["folder"] for run in client.get("/api/runs").json()["runs"]] == ["one"]
    run_of(tmp_path / "another", [varied(1)])
    assert [r["folder"] for r in client.get("/api/runs").json()["runs"]] == ["one", "another"]
    assert client.get("/api/runs/1").json()["folder"] == "another"


def test_facts_stay_small_however_many_tags_and_failures(tmp_path: Path) -> None:
    long = "so long " * 200
    failed = [Asked(Text(f"{long}{n}?", error="Expected less."), ("asked",)) for n in range(40)]
    tagged = [replace(varied(n), tags={"number": str(n), "all": "yes"}) for n in range(250)]
    run_of(tmp_path / "run", [*failed, *tagged], a_part=300)
    said = client_of(tmp_path / "run").get("/api/runs/0")
    assert len(said.content) < 20_000
    facts = said.json()
    assert len(facts["tags"]) == 200 and facts["tags"]["all=yes"] == 250
    (failure,) = facts["failures"]
    assert (failure["captures"], len(failure["prompts"]), failure["others"]) == (40, 3, 37)
