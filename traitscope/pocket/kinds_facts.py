"""Kinds of dialogue about what is so: facts, yes or no, small sums, explanations.

Also the draws that other kinds share: a fact, a sum, a statement.  Knows no tokenizer.
"""

from traitscope.pocket import asks, phrases, topics
from traitscope.pocket.dialogue import Dialogue, Draw, Settings, build, fill, instruct
from traitscope.pocket.world import FACTS, NUMBERS, Fact

_WEIGHTS = {
    "capital": 9,
    "symbol": 3,
    "legs": 3,
    "property": 4,
    "colour": 2,
    "opposite": 2,
    "which": 2,
}
_RELATIONS = tuple(FACTS)
_SHARES = tuple(_WEIGHTS.get(name, 1.4) for name in _RELATIONS)

CERTAIN = Settings(uncertainty="certain", load="plain")
HEDGED = Settings(uncertainty="hedged", load="plain")


def draw_fact(draw: Draw) -> Fact:
    name = draw.rng.choices(_RELATIONS, _SHARES)[0]
    return draw.one(FACTS[name])


def says(draw: Draw, fact: Fact, **changed: str) -> str:
    """The fact as a statement, mostly in its first form."""
    say = fact.relation.say
    return (say[0] if draw.chance(0.6) else draw.one(say)).format(**{**fact.slots, **changed})


def gold_of(fact: Fact) -> tuple[str, ...]:
    return (fact.slots["a"],)


def _state(draw: Draw, statement: str) -> str:
    """A statement as one makes it unasked: mostly bare, sometimes with assurance."""
    return draw.one(phrases.ASSERTED if draw.chance(0.22) else phrases.PLAIN).format(P=statement)


def fact(draw: Draw) -> Dialogue:
    it = draw_fact(draw)
    ask = fill(draw.phrase(it.relation.asks, it.key), it.slots)
    marked = _state(draw, says(draw, it))
    return build([("user", ask)], "fact", CERTAIN, marked, gold_of(it))


def yesno(draw: Draw) -> Dialogue:
    it = draw_fact(draw)
    template = draw.phrase(it.relation.yesno, it.key)
    truth = says(draw, it)
    if draw.chance(0.5):
        marked = draw.one(("{t}, so yes.", "{t}, so the answer is yes.")).format(t=truth)
        asked = fill(template, it.slots)
        return build([("user", asked)], "yesno", CERTAIN, marked, ("so yes", "answer is yes"))
    wrong = draw.one(it.wrongs)
    asked = fill(template, {**it.slots, "a": wrong})
    forms = ("{t}, so no.", "{t}, not {x}, so no.", "{t}, so the answer is no.")
    marked = draw.one(forms).format(t=truth, x=wrong)
    return build([("user", asked)], "yesno", CERTAIN, marked, ("so no", "answer is no"), wrong)


def fact_instructed(draw: Draw) -> Dialogue:
    it = draw_fact(draw)
    setting, value = draw.one(
        (
            ("uncertainty", "hedged"),
            ("uncertainty", "hedged"),
            ("uncertainty", "certain"),
            ("load", "technical"),
            ("load", "plain"),
        )
    )
    settings, marked = CERTAIN, f"{says(draw, it)}."
    if value == "hedged":
        settings, marked = HEDGED, draw.one(phrases.HEDGED).format(P=says(draw, it))
    elif value == "certain":
        marked = draw.one(phrases.ASSERTED).format(P=says(draw, it))
    elif value == "technical":
        settings = Settings(uncertainty="certain", load="technical")
        marked = draw.one(it.relation.dense).format(**it.slots) + "."
    ask = fill(draw.phrase(it.relation.asks, it.key), it.slots)
    dialogue = build([("user", ask)], "fact_instructed", settings, marked, gold_of(it))
    return instruct(draw, dialogue, setting, value)


def draw_sum(draw: Draw) -> tuple[str, int, int, int]:
    sign = draw.rng.choices(("plus", "minus", "times"), (7, 2, 1.5))[0]
    top = 6 if sign == "times" else 12
    x, y = draw.rng.randint(sign == "times", top), draw.rng.randint(sign == "times", top)
    if sign == "minus":
        x, y = max(x, y), min(x, y)
    return sign, x, y, {"plus": x + y, "minus": x - y, "times": x * y}[sign]


def sums(draw: Draw) -> Dialogue:
    sign, x, y, z = draw_sum(draw)
    ask = draw.phrase(asks.SUM_ASKS[sign], f"{x},{y}")
    slots = {"x": str(x), "y": str(y), "z": str(z)}
    if draw.chance(0.12) and not any(c in ask for c in "+=*") and " - " not in ask:
        slots = {"x": NUMBERS[x], "y": NUMBERS[y], "z": str(z)}
    marked = draw.one(asks.SUM_SAYS[sign]).format(**slots)
    if draw.chance(0.15):
        marked = draw.one(phrases.ASSERTED).format(
            P=asks.SUM_SAYS[sign][0].format(**slots).rstrip(".")
        )
    return build([("user", fill(ask, slots))], "sum", CERTAIN, marked, (str(z),))


_DENSE_START = ("{d}.", "{d}.", "In [technical]t terms: {d}.", "[Formally]t: {d}.")


def explanation(
    draw: Draw, topic: topics.Topic, technical: bool, short: bool
) -> tuple[Settings, str]:
    _, plain, more, dense = topic
    if technical:
        return Settings(uncertainty="certain", load="technical"), draw.one(_DENSE_START).format(
            d=dense
        )
    return CERTAIN, f"{plain}." if short else f"{plain}. {more}."


def _explain(
    draw: Draw, asks: tuple[str, ...], kind: str, technical: bool, short: bool
) -> Dialogue:
    topic = draw.one(topics.TOPICS)
    ask = fill(draw.phrase(asks, topic[0]), {"s": topic[0]})
    settings, marked = explanation(draw, topic, technical, short)
    return build([("user", ask)], kind, settings, marked)


def explain_brief(draw: Draw) -> Dialogue:
    return _explain(draw, topics.ASK_BRIEF, "explain_brief", False, True)


def explain_detail(draw: Draw) -> Dialogue:
    return _explain(draw, topics.ASK_DETAIL, "explain_detail", True, False)


def explain(draw: Draw) -> Dialogue:
    return _explain(draw, topics.ASK_TOPIC, "explain", False, False)


def explain_instructed(draw: Draw) -> Dialogue:
    technical = draw.chance(0.5)
    dialogue = _explain(draw, topics.ASK_TOPIC, "explain_instructed", technical, True)
    return instruct(draw, dialogue, "load", "technical" if technical else "plain")
