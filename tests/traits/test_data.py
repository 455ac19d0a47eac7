"""What the shipped trait data promises: whole, grouped, balanced, and without a giveaway.

A direction made from pairs is only as good as the pairs.  These tests read the files alone, so
that whoever edits them learns at once what has slipped.
"""

import itertools
import json
import re
import tomllib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import traitscope

PACKAGE = Path(traitscope.__file__).parent
DATA = PACKAGE / "traits" / "data"
TRAITS = ("cognitive_load", "commitment_strength", "sycophancy", "uncertainty_calibration")
SIDES = ("positive", "negative")
WINDOW = re.compile(r"(prompt|response)\[(-?\d+|-?\d*:-?\d*)\]")

Pair = dict[str, Any]


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9']+", text.lower())


@pytest.fixture(params=TRAITS)
def pairs(request: pytest.FixtureRequest) -> list[Pair]:
    return read(DATA / request.param / "pairs.jsonl")


@pytest.fixture(scope="module")
def neutral() -> list[dict[str, str]]:
    return read(DATA / "neutral.jsonl")


def held_out_guesses(pairs: list[Pair], feature: Callable[[str], str]) -> Iterator[float]:
    """1 for each response whose side its feature gives away, judged from the other scenarios.

    A feature not seen there, or seen equally often on both sides, is half a guess.
    """
    counts: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    total: dict[str, Counter[str]] = defaultdict(Counter)
    for pair in pairs:
        for side in SIDES:
            value = feature(pair[side]["response"])
            counts[pair["scenario"]][value][side] += 1
            total[value][side] += 1
    for pair in pairs:
        for side in SIDES:
            value = feature(pair[side]["response"])
            rest = total[value] - counts[pair["scenario"]][value]
            lead = rest[side] - rest["positive" if side == "negative" else "negative"]
            yield 0.5 if lead == 0 else float(lead > 0)


def guessed(pairs: list[Pair], feature: Callable[[str], str]) -> float:
    guesses = list(held_out_guesses(pairs, feature))
    return sum(guesses) / len(guesses)


def test_the_four_traits_are_there() -> None:
    assert tuple(sorted(p.parent.name for p in DATA.glob("*/trait.toml"))) == TRAITS


@pytest.mark.parametrize("name", TRAITS)
def test_the_trait_file_is_complete(name: str) -> None:
    text = (DATA / name / "trait.toml").read_text(encoding="utf-8")
    trait = tomllib.loads(text)
    assert set(trait) == {
        "name", "display_name", "positive", "negative",
        "extract_window", "read_site", "read_window",
    }  # fmt: skip
    assert trait["name"] == name
    assert re.fullmatch(r"[a-z0-9_]{1,64}", name)
    assert trait["display_name"]
    assert trait["positive"] != trait["negative"]
    assert 0.0 <= trait["read_site"] <= 1.0
    for key in ("extract_window", "read_window"):
        assert WINDOW.fullmatch(trait[key]), trait[key]
    assert text.startswith("#"), "the header says how to edit it"


def test_every_pair_is_whole(pairs: list[Pair]) -> None:
    for pair in pairs:
        assert set(pair) == {"id", "scenario", "kind", "positive", "negative"}, pair
        assert pair["kind"] in ("natural", "instructed"), pair["id"]
        for side in SIDES:
            assert {"prompt", "response"} <= set(pair[side]) <= {"prompt", "response", "system"}
            for text in pair[side].values():
                assert text, pair["id"]
                assert text == text.strip(), (pair["id"], text)
                assert text.isascii(), (pair["id"], text)


def test_there_are_enough_pairs_of_both_kinds_in_enough_scenarios(pairs: list[Pair]) -> None:
    assert len(pairs) >= 100
    scenarios = Counter(pair["scenario"] for pair in pairs)
    assert len(scenarios) >= 15
    assert min(scenarios.values()) >= 5
    assert max(scenarios.values()) <= 8
    kinds = Counter(pair["kind"] for pair in pairs)
    assert 0.5 <= kinds["natural"] / len(pairs) <= 0.7
    both = {(pair["scenario"], pair["kind"]) for pair in pairs}
    assert len(both) == 2 * len(scenarios), "each scenario holds both kinds"


def test_scenarios_stand_together(pairs: list[Pair]) -> None:
    order = [pair["scenario"] for pair in pairs]
    changes = sum(a != b for a, b in itertools.pairwise(order))
    assert changes == len(set(order)) - 1


def test_no_id_and_no_text_occurs_twice(pairs: list[Pair]) -> None:
    ids = [pair["id"] for pair in pairs]
    assert len(set(ids)) == len(ids)
    responses = [pair[side]["response"].lower() for pair in pairs for side in SIDES]
    assert [t for t, n in Counter(responses).items() if n > 1] == []
    asked = defaultdict(set)  # a prompt may serve both sides of one pair, never two pairs
    for pair in pairs:
        for side in SIDES:
            asked[pair[side].get("system"), pair[side]["prompt"].lower()].add(pair["id"])
    assert [key for key, used in asked.items() if len(used) > 1] == []


def test_scenarios_share_no_near_copies(pairs: list[Pair]) -> None:
    """Two responses of one side with nearly the same words would leak across a split."""
    for side in SIDES:
        bags = [
            (pair["scenario"], pair["id"], set(words(pair[side]["response"]))) for pair in pairs
        ]
        for at, (scenario, name, bag) in enumerate(bags):
            for other, other_name, other_bag in bags[at + 1 :]:
                alike = len(bag & other_bag) / len(bag | other_bag)
                assert other == scenario or alike < 0.8, (side, name, other_name)


def test_the_sides_differ(pairs: list[Pair]) -> None:
    for pair in pairs:
        assert words(pair["positive"]["response"]) != words(pair["negative"]["response"])
        if pair["kind"] == "instructed":
            asked = [(pair[side].get("system"), pair[side]["prompt"]) for side in SIDES]
            assert asked[0] != asked[1], pair["id"]


def test_lengths_are_sane_and_alike(pairs: list[Pair]) -> None:
    lengths = {side: [len(pair[side]["response"].split()) for pair in pairs] for side in SIDES}
    for counts in lengths.values():
        assert min(counts) >= 5
        assert max(counts) <= 40
    ratio = sum(lengths["positive"]) / sum(lengths["negative"])
    assert 0.75 <= ratio <= 1.35
    longer = sum(a > b for a, b in zip(lengths["positive"], lengths["negative"], strict=True))
    assert 0.15 <= longer / len(pairs) <= 0.8, "length alone must not tell the sides apart"


@pytest.mark.parametrize(
    ("artefact", "feature", "bound"),
    [
        ("final punctuation", lambda text: text[-1], 0.55),
        ("first word", lambda text: words(text)[0], 0.7),
        ("first character", lambda text: text[0], 0.7),
        ("number of sentences", lambda text: str(len(re.findall(r"[.!?]( |$)", text))), 0.7),
        ("a semicolon", lambda text: str(";" in text), 0.6),
        ("a colon", lambda text: str(":" in text), 0.6),
        ("a quotation mark", lambda text: str("'" in text), 0.6),
        ("a digit", lambda text: str(bool(re.search(r"\d", text))), 0.6),
    ],
)
def test_no_artefact_gives_a_side_away(
    pairs: list[Pair], artefact: str, feature: Callable[[str], str], bound: float
) -> None:
    assert guessed(pairs, feature) <= bound, artefact


def test_an_artefact_would_be_found(pairs: list[Pair]) -> None:
    """The guard itself: mark one side, and it is given away."""
    marked = [
        {**pair, "positive": {"response": "Well, " + pair["positive"]["response"]}}
        for pair in pairs
    ]
    assert guessed(marked, lambda text: words(text)[0]) > 0.75


def test_no_pair_asks_what_the_bundled_suite_asks(pairs: list[Pair]) -> None:
    """The suite's expectations are no test if its prompts were trained on."""
    files = (PACKAGE / "suites" / "overnight" / "prompts").glob("*.txt")
    suite = {line.strip() for path in files for line in path.read_text("utf-8").splitlines()}
    assert suite
    assert suite.isdisjoint(pair[side]["prompt"] for pair in pairs for side in SIDES)


def test_neutral_chats_are_whole(neutral: list[dict[str, str]]) -> None:
    assert len(neutral) >= 100
    assert all(set(chat) == {"prompt", "response"} for chat in neutral)
    assert all(text.strip() == text and text.isascii() for c in neutral for text in c.values())
    assert len({chat["response"] for chat in neutral}) == len(neutral)


@pytest.mark.parametrize("name", TRAITS)
def test_neutral_chats_are_none_of_the_pairs(name: str, neutral: list[dict[str, str]]) -> None:
    taken = {p[side]["response"] for p in read(DATA / name / "pairs.jsonl") for side in SIDES}
    assert taken.isdisjoint(chat["response"] for chat in neutral)
