"""Planted readings come out as they were planted."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tests.report.planted import STATS, Text, planted
from traitscope.report import summarise, to_json
from traitscope.report.expectations import TOO_FEW


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


FIRM = Text(
    "Tea or coffee?",
    (" Tea", ",", " surely"),
    z={"firmness": [1.0, 0.0, 5.0], "doubt": [-1.0, -1.0, -1.0]},
    before={"firmness": 1.5, "doubt": -0.5},
    embed={"firmness": [0.5, 0.0, 1.0]},
)
LOOSE = Text("Cats, perhaps?", (" Maybe",), z={"firmness": [-2.0]}, before={"firmness": -1.0})


def rows(tmp_path: Path, *texts: Text, trait: int = 0, **more: object):
    summary = summarise(planted(tmp_path / "run", texts, **more))
    return {row.name: row for row in summary.traits[trait].prompts}


def test_both_readings_and_embed_are_exact(tmp_path: Path) -> None:
    row = rows(tmp_path, LOOSE, FIRM)["Tea or coffee?"]
    assert row.before == pytest.approx(1.5, abs=1e-5)
    assert row.response == pytest.approx(2.0, abs=1e-5)
    assert row.embed == pytest.approx(0.5, abs=1e-5)
    assert row.samples == 1
    assert row.spread is None


def test_prompts_are_ordered_by_the_answer(tmp_path: Path) -> None:
    assert list(rows(tmp_path, LOOSE, FIRM)) == ["Tea or coffee?", "Cats, perhaps?"]
    assert list(rows(tmp_path / "2", LOOSE, FIRM, trait=1)) == ["Cats, perhaps?", "Tea or coffee?"]


def test_strongest_token_with_its_words(tmp_path: Path) -> None:
    strongest = rows(tmp_path, FIRM)["Tea or coffee?"].strongest
    assert strongest is not None
    assert (strongest.before, strongest.token, strongest.after) == (" Tea,", " surely", "")
    assert strongest.z == pytest.approx(5.0, abs=1e-5)


def test_several_samples_are_averaged_with_their_spread(tmp_path: Path) -> None:
    texts = [
        Text("Tea?", (" a",), z={"firmness": [z]}, before={"firmness": 0.5}, sample=i)
        for i, z in enumerate((1.0, 2.0, 3.0))
    ]
    row = rows(tmp_path, *texts)["Tea?"]
    assert row.samples == 3
    assert row.response == pytest.approx(2.0, abs=1e-5)
    assert row.spread == pytest.approx(1.0, abs=1e-5)
    assert row.values == pytest.approx((1.0, 2.0, 3.0), abs=1e-5)


def test_an_empty_answer_reads_nothing_and_is_counted(tmp_path: Path) -> None:
    summary = summarise(planted(tmp_path / "run", [FIRM, Text("Silent?", ())]))
    last = summary.traits[0].prompts[-1]
    assert last.name == "Silent?"
    assert math.isnan(last.response)
    assert math.isnan(last.embed)
    assert last.strongest is None
    assert summary.counts.empty == 1
    assert to_json(summary)["traits"][0]["prompts"][-1]["response"] is None


def test_counts_failures_and_what_is_missing(tmp_path: Path) -> None:
    bad = Text("Too long", error="Expected at most 512 tokens, got 900.")
    run = planted(tmp_path / "run", [FIRM, bad], missing=[LOOSE])
    summary = summarise(run)
    counts = summary.counts
    assert (counts.wanted, counts.done, counts.failed, counts.missing) == (3, 1, 1, 1)
    assert summary.state == "unfinished"
    (failure,) = summary.failures
    assert failure.reason == bad.error
    assert failure.prompts == ("Too long",)


def test_nothing_done_yet(tmp_path: Path) -> None:
    summary = summarise(planted(tmp_path / "run", [], missing=[FIRM], events=()))
    assert summary.counts.done == 0
    assert summary.cost.last is None
    assert [trait.prompts for trait in summary.traits] == [(), ()]


def test_cost_is_summed_over_calls(tmp_path: Path) -> None:
    events = (("interrupted", STATS), ("note", {"tokens": 7}), ("finished", STATS))
    cost = summarise(planted(tmp_path / "run", [FIRM], events=events)).cost
    assert cost.calls == 2
    assert cost.total.model_loads == 2
    assert cost.total.seconds["generate"] == 4.0
    assert cost.total.tokens_per_second == 150.0
    assert cost.last is not None
    assert not cost.last.interrupted


EXPECT = {"text": "Tea is firmer", "trait": "firmness", "higher": "Tea or coffee?", "margin": 3.0}


def verdicts(tmp_path: Path, *texts: Text, **table: object):
    expect = [{**EXPECT, "lower": "Cats, perhaps?", **table}]
    return summarise(planted(tmp_path / "run", texts, expect=expect)).expectations


def test_an_expectation_is_measured_and_said_to_be_untested(tmp_path: Path) -> None:
    (verdict,) = verdicts(tmp_path, FIRM, LOOSE)
    assert verdict.difference == pytest.approx(4.0, abs=1e-5)
    assert verdict.held is True
    assert verdict.site == "1.post"
    assert verdict.spread == pytest.approx(0.5)
    assert (verdict.tested, verdict.note) == (False, "one sample each: not tested")


@pytest.mark.parametrize(
    ("table", "difference", "held"),
    [
        ({"margin": 4.5}, 4.0, False),
        ({"window": "prompt[-1]"}, 2.5, False),
        ({"window": "prompt[-1]", "margin": 2.0}, 2.5, True),
        ({"window": "response[0]"}, 3.0, True),
        ({"site": "embed"}, 0.5, False),
        ({"site": 0.5}, 4.0, True),
    ],
)
def test_window_site_and_margin(
    tmp_path: Path, table: dict[str, object], difference: float, held: bool
) -> None:
    (verdict,) = verdicts(tmp_path, FIRM, LOOSE, **table)
    assert verdict.difference == pytest.approx(difference, abs=1e-5)
    assert verdict.held is held


def test_an_id_names_a_prompt_before_its_text_does(tmp_path: Path) -> None:
    named = Text("Else", (" a",), z={"firmness": [-4.0]}, label="Cats, perhaps?")
    (verdict,) = verdicts(tmp_path, FIRM, LOOSE, named)
    assert verdict.difference == pytest.approx(6.0, abs=1e-5)


@pytest.mark.parametrize(
    ("texts", "why"),
    [
        ((FIRM,), "the run has no text for 'Cats, perhaps?' yet"),
        ((FIRM, Text("Cats, perhaps?", error="Too long.")), "'Cats, perhaps?' failed: Too long."),
        ((FIRM, Text("Cats, perhaps?", ())), "'Cats, perhaps?' has nothing to read in response[:]"),
    ],
)
def test_not_measured_and_why(tmp_path: Path, texts: tuple[Text, ...], why: str) -> None:
    (verdict,) = verdicts(tmp_path, *texts)
    assert verdict.held is None
    assert verdict.note == f"not measured: {why}"


def test_a_site_that_the_model_lacks_is_named(tmp_path: Path) -> None:
    (verdict,) = verdicts(tmp_path, FIRM, LOOSE, site="9.post")
    assert verdict.held is None
    assert "9.post" in verdict.note


def samples(prompt: str, mean: float, count: int) -> list[Text]:
    return [
        Text(prompt, (f" {i}",), z={"firmness": [mean + 0.1 * i]}, sample=i) for i in range(count)
    ]


def test_two_to_four_samples_are_too_few(tmp_path: Path) -> None:
    high, low = samples("Tea or coffee?", 3, 4), samples("Cats, perhaps?", 0, 5)
    (verdict,) = verdicts(tmp_path, *high, *low)
    assert (verdict.tested, verdict.note) == (False, TOO_FEW)
    assert verdict.samples == (4, 5)


def test_five_samples_are_tested_exactly(tmp_path: Path) -> None:
    high, low = samples("Tea or coffee?", 3, 5), samples("Cats, perhaps?", 0, 5)
    (verdict,) = verdicts(tmp_path, *high, *low)
    assert verdict.tested
    assert verdict.p == pytest.approx(1 / 252)


def test_a_prompt_is_one_observation_however_many_samples(tmp_path: Path) -> None:
    high, low = samples("Tea or coffee?", 3, 6), samples("Cats, perhaps?", 0, 6)
    (verdict,) = verdicts(tmp_path, *high, *low, window="prompt[-1]")
    assert not verdict.tested
    assert verdict.p is None
    assert "same prompt" in verdict.note
