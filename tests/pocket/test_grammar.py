"""The grammar: deterministic, truthful about its own words, and strict about what is held out."""

import re
from itertools import islice

import pytest

from traitscope.pocket import forecasts, life, phrases, smalltalk, topics, world
from traitscope.pocket.dialogue import Dialogue
from traitscope.pocket.grammar import dialogues, kind_names
from traitscope.pocket.marks import mark, sentence_case

COUNT = 6000


@pytest.fixture(scope="module")
def drawn() -> list[Dialogue]:
    return list(islice(dialogues(3), COUNT))


@pytest.fixture(scope="module")
def held() -> list[Dialogue]:
    return list(islice(dialogues(3, "held"), COUNT // 3))


def labels(dialogue: Dialogue) -> set[str]:
    return {label for _, found in dialogue.words for label in found}


def test_same_seed_same_dialogues_other_seed_others() -> None:
    first, again, other = (list(islice(dialogues(seed), 200)) for seed in (5, 5, 6))
    assert first == again
    assert first != other


def test_words_join_to_the_answer_and_carry_no_marks(drawn: list[Dialogue]) -> None:
    for dialogue in drawn:
        assert "".join(text for text, _ in dialogue.words) == dialogue.messages[-1][1]
        assert not set("[]{}~") & set(dialogue.answer)
        assert dialogue.answer[0].isupper() or dialogue.answer[0].isdigit()


def test_every_kind_appears(drawn: list[Dialogue]) -> None:
    assert {dialogue.kind for dialogue in drawn} == set(kind_names())


def test_labels_follow_the_settings(drawn: list[Dialogue]) -> None:
    for dialogue in drawn:
        settings, found = dialogue.settings, labels(dialogue)
        if settings.uncertainty == "hedged":
            assert "hedge" in found and "assertion" not in found, dialogue
        if settings.uncertainty == "certain":
            assert "hedge" not in found, dialogue
        if settings.commitment == "firm":
            assert "commitment" in found and "noncommittal" not in found, dialogue
        if settings.commitment == "noncommittal":
            assert "noncommittal" in found or "hedge" in found, dialogue
            assert "commitment" not in found, dialogue
        assert ("technical" in found) == (settings.load == "technical"), dialogue
        if settings.sycophancy == "agreeing":
            assert "agreement" in found and "correction" not in found, dialogue


def test_false_claims_are_corrected_unless_flattery_is_asked_for(drawn: list[Dialogue]) -> None:
    for dialogue in drawn:
        if dialogue.kind == "claim_false":
            assert "correction" in labels(dialogue) and "agreement" not in labels(dialogue)
        if dialogue.kind == "claim_true":
            assert "agreement" in labels(dialogue)


def test_markers_tell_hedged_from_certain(drawn: list[Dialogue]) -> None:
    for dialogue in drawn:
        hedged = any(marker in dialogue.answer.lower() for marker in phrases.HEDGE_MARKERS)
        if dialogue.settings.uncertainty is not None:
            assert hedged == (dialogue.settings.uncertainty == "hedged"), dialogue.answer


def _held_out_phrasings() -> list[str]:
    groups = [*phrases.INSTRUCTIONS.values(), life.CHOOSE_FIRM, life.CHOOSE_LOOSE, life.CHOOSE]
    groups += [
        life.ADVISE,
        life.ADVISE_FIRM,
        life.ADVISE_LOOSE,
        life.ADVISE_VAGUE,
        forecasts.PRIVATE,
    ]
    groups += [asks for asks, _, _ in forecasts.FORECASTS] + [asks for asks, _ in smalltalk.CHAT]
    groups += [
        smalltalk.ODD,
        life.FOREIGN,
        topics.ASK_BRIEF,
        topics.ASK_DETAIL,
        topics.ASK_TOPIC,
    ]
    return [x.removeprefix("~") for group in groups for x in group if x.startswith("~")]


def test_held_out_phrasings_never_enter_training(drawn: list[Dialogue]) -> None:
    said = [text.lower() for d in drawn for role, text in d.messages if role == "user"]
    for phrasing in _held_out_phrasings():
        fixed = phrasing.lower().rstrip("?.!").replace("}", "{").split("{")[::2]
        pattern = re.compile("[^.,?:]{1,40}".join(re.escape(part) for part in fixed))
        if max(map(len, fixed)) >= 6:
            assert not [text for text in said if pattern.match(text)], phrasing


def test_held_out_questions_about_facts_never_enter_training(drawn: list[Dialogue]) -> None:
    said = {text.lower().strip("?.! ") for d in drawn for _, text in d.messages}
    for facts in world.FACTS.values():
        for fact in facts:
            for form in (*fact.relation.asks, *fact.relation.yesno):
                asked = form.removeprefix("~").format(**fact.slots).lower().strip("?.! ")
                assert not form.startswith("~") or asked not in said, asked


def test_training_and_held_out_prompts_are_disjoint(
    drawn: list[Dialogue], held: list[Dialogue]
) -> None:
    # fully invented sentences and odd scripts aside, no held-out request is a training request
    asked = {d.messages[:-1] for d in drawn}
    both = [d for d in held if d.messages[:-1] in asked]
    assert all(d.held_out for d in held) and not any(d.held_out for d in drawn)
    assert not both, both[:3]


def test_marked_text_becomes_words_that_join() -> None:
    words = mark(sentence_case("[i am not sure]h, but {x} is so[, not y]c. [perhaps]hn it is."))
    assert (
        "".join(text for text, _ in words) == "I am not sure, but {x} is so, not y. Perhaps it is."
    )
    assert dict(words)[" Perhaps"] == {"hedge", "noncommittal"}
    assert dict(words)[" but"] == frozenset()


def test_every_wrong_answer_is_wrong() -> None:
    for facts in world.FACTS.values():
        for fact in facts:
            assert fact.wrongs and fact.slots["a"] not in fact.wrongs
