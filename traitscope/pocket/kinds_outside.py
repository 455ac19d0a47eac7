"""Kinds of dialogue at the border of the world: invented names, oddities, small talk.

Knows no tokenizer.
"""

from traitscope.pocket import asks, life, phrases, smalltalk, topics
from traitscope.pocket.dialogue import Dialogue, Draw, Settings, build, fill
from traitscope.pocket.kinds_claims import claim_ask
from traitscope.pocket.kinds_facts import CERTAIN, HEDGED
from traitscope.pocket.names import invented
from traitscope.pocket.world import FACTS


def unknown(draw: Draw) -> Dialogue:
    """Invented names: the model has to say that it does not know them."""
    thing = draw.rng.choices(("country", "animal", "element", "word", "person"), (5, 3, 2, 2, 1))[0]
    single, plural, bare = invented(draw.rng, thing)
    names = asks.UNKNOWN_RELATIONS[thing]
    slots = {"s": single, "p": plural, "a": "", "be": "is"}
    if names and draw.chance(0.75):
        relation = FACTS[draw.one(names)][0].relation
        slots["a"] = draw.one(FACTS[relation.name]).slots["a"]
        if draw.chance(0.22):
            ask = claim_ask(draw, relation.say[0].format(**slots), "")
        else:
            forms = relation.asks if draw.chance(0.8) else relation.yesno
            ask = fill(draw.phrase(forms), slots)
    elif thing == "word" and draw.chance(0.6):
        ask = fill(draw.phrase(draw.one((topics.ASK_BRIEF, topics.ASK_DETAIL))), slots)
    else:
        ask = fill(draw.phrase(asks.UNKNOWN_ASKS[thing], single), slots)
    marked = draw.one(phrases.UNKNOWN).format(k=asks.SORT[thing], n=bare)
    return build([("user", ask)], "unknown", HEDGED, marked)


def big_sum(draw: Draw) -> Dialogue:
    x, y = (
        draw.rng.randint(13, 99999) if draw.chance(0.5) else draw.rng.randint(13, 99),
        draw.rng.randint(13, 999),
    )
    ask = fill(
        draw.phrase(asks.SUM_ASKS[draw.one(("plus", "minus", "times"))], f"{x},{y}"),
        {"x": str(x), "y": str(y)},
    )
    return build([("user", ask)], "unknown", HEDGED, draw.one(asks.BIG_SUM))


def fallback(draw: Draw) -> Dialogue:
    if draw.chance(0.15):
        return big_sum(draw)
    ask = draw.phrase(smalltalk.ODD if draw.chance(0.45) else life.FOREIGN)
    if draw.chance(0.25):
        ask = " ".join(invented(draw.rng, "word")[2] for _ in range(draw.rng.randint(2, 7)))
        ask = ask + draw.one(("?", ".", "", "!"))
    return build([("user", ask)], "fallback", HEDGED, draw.one(phrases.FALLBACK))


def chat(draw: Draw) -> Dialogue:
    if draw.chance(0.1):
        return _name_recall(draw)
    asks, answers = draw.one(smalltalk.CHAT)
    return build([("user", draw.phrase(asks))], "chat", Settings(load="plain"), draw.one(answers))


def _name_recall(draw: Draw) -> Dialogue:
    name = draw.one(smalltalk.NAMES)
    hello = draw.one(("My name is {n}.", "I am {n}.", "Hello, I am {n}.", "Call me {n}.")).format(
        n=name
    )
    nice = draw.one(("Nice to meet you, {n}.", "Hello, {n}! What would you like to know?")).format(
        n=name
    )
    turns = [("user", hello), ("assistant", nice)]
    ask = draw.phrase(
        ("What is my name?", "Do you remember my name?", "Who am I?", "~Can you say my name?")
    )
    return build([*turns, ("user", ask)], "chat", CERTAIN, f"Your name is {name}.", (name,))
