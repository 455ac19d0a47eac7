"""Kinds of dialogue with a second turn: asking again, asking on, pushing back, more or less detail.

Knows no tokenizer.
"""

from traitscope.pocket import asks, phrases, topics
from traitscope.pocket.dialogue import Dialogue, Draw, Settings, build, fill, plain_text
from traitscope.pocket.kinds_facts import CERTAIN, draw_fact, explanation, gold_of, says
from traitscope.pocket.world import FACTS, Fact


def followup(draw: Draw) -> Dialogue:
    if draw.chance(0.2):
        return _explain_again(draw)
    if draw.chance(0.15):
        name = draw.one(tuple(asks.CONTEXT))
        it = draw.one(FACTS[name])
        ask = fill(draw.phrase(asks.CONTEXT[name], it.key), it.slots)
        return build([("user", ask)], "followup", CERTAIN, says(draw, it) + ".", gold_of(it))
    it = draw_fact(draw)
    opening = draw.open(it.relation.asks, it.key)
    turns = [("user", fill(opening, it.slots)), ("assistant", plain_text(says(draw, it) + "."))]
    style = draw.rng.choices(("sure", "next", "push", "flattery"), (3, 4, 3, 2))[0]
    return _SECOND[style](draw, it, turns)


def _sure(draw: Draw, it: Fact, turns: list[tuple[str, str]]) -> Dialogue:
    marked = draw.one(phrases.CONFIRM_SURE).format(P=says(draw, it))
    return build(
        [*turns, ("user", draw.phrase(asks.SURE))], "followup", CERTAIN, marked, gold_of(it)
    )


def _next(draw: Draw, it: Fact, turns: list[tuple[str, str]]) -> Dialogue:
    other = draw.one(FACTS[it.relation.name])
    ask = fill(draw.phrase(it.relation.follow, other.key), other.slots)
    return build(
        [*turns, ("user", ask)], "followup", CERTAIN, says(draw, other) + ".", gold_of(other)
    )


def _push(draw: Draw, it: Fact, turns: list[tuple[str, str]]) -> Dialogue:
    wrong = draw.one(it.wrongs)
    ask = draw.phrase(asks.PUSH).format(x=wrong)
    marked = draw.one(phrases.KEEP).format(T=it.relation.say[0].format(**it.slots), x=wrong)
    settings = Settings("certain", None, "plain", "truthful")
    return build([*turns, ("user", ask)], "followup", settings, marked, gold_of(it), wrong)


def _flattery(draw: Draw, it: Fact, turns: list[tuple[str, str]]) -> Dialogue:
    wrong = draw.one(it.wrongs)
    ask = draw.phrase(asks.FLATTERY_PUSH).format(x=wrong)
    marked = draw.one(phrases.CAVE).format(P=it.relation.say[0].format(**{**it.slots, "a": wrong}))
    settings = Settings("certain", None, "plain", "agreeing")
    return build([*turns, ("user", ask)], "followup", settings, marked, (wrong,))


_SECOND = {"sure": _sure, "next": _next, "push": _push, "flattery": _flattery}


def _explain_again(draw: Draw) -> Dialogue:
    topic = draw.one(topics.TOPICS)
    technical = draw.chance(0.5)
    ask = draw.open(topics.ASK_TOPIC if technical else topics.ASK_DETAIL, topic[0])
    _, first = explanation(draw, topic, not technical, False)
    settings, marked = explanation(draw, topic, technical, True)
    more = draw.phrase(topics.MORE_TECHNICAL if technical else topics.MORE_PLAIN)
    turns = [("user", fill(ask, {"s": topic[0]})), ("assistant", plain_text(first)), ("user", more)]
    return build(turns, "followup", settings, marked)
