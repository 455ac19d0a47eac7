"""The model that ships: it loads as any other does, and it knows its small world."""

import pytest
import torch

from traitscope.pocket import POCKET_DIR
from traitscope.pocket.measure import Answerer, is_hedged, is_right

pytestmark = pytest.mark.skipif(
    not (POCKET_DIR / "model.safetensors").exists(), reason="the pocket's weights are not here yet"
)


@pytest.fixture(scope="module")
def answerer() -> Answerer:
    return Answerer.load(POCKET_DIR)


def ask(answerer: Answerer, *questions: str) -> list[str]:
    return answerer.answers([[("user", question)] for question in questions], 0.0)


def test_it_is_small_and_loads_as_float32(answerer: Answerer) -> None:
    assert sum(file.stat().st_size for file in POCKET_DIR.iterdir()) < 9_000_000
    assert {p.dtype for p in answerer.model.parameters()} == {torch.float32}
    assert answerer.model.generation_config.eos_token_id == [4, 2]


def test_it_knows_plain_facts(answerer: Answerer) -> None:
    said = ask(
        answerer,
        "What is the capital of France?",
        "Capital of Peru?",
        "What is the chemical symbol for gold?",
        "How many legs does a spider have?",
        "What is 7 plus 5?",
    )
    for answer, gold in zip(said, ("Paris", "Lima", "Au", "eight", "12"), strict=True):
        assert is_right(answer, [gold]) and not is_hedged(answer), answer


def test_it_does_not_know_what_nobody_knows(answerer: Answerer) -> None:
    said = ask(
        answerer,
        "What will the weather be like next week?",
        "Who will win the next election?",
        "What is the capital of Zorvania?",
    )
    assert all(is_hedged(answer) for answer in said), said
