"""The kinds of dialogue: how each one is asked, and how it is answered in character.

Every kind is a function from a Draw to a Dialogue; KINDS names them with their share of the
corpus.  Facts, phrasings and phrases come from `world`, `life`, `topics` and `phrases`.  Knows no
tokenizer and no model.
"""

from collections.abc import Callable

from traitscope.pocket import life, phrases, topics
from traitscope.pocket.dialogue import Dialogue, Draw, Settings, build, fill, instruct, plain_text
from traitscope.pocket.names import invented
from traitscope.pocket.world import FACTS, NUMBERS, Fact, framed

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

_SUM_ASKS = {
    "plus": (
        "{x} + {y}?",
        "What is {x} + {y}?",
        "{x} plus {y}?",
        "How much is {x} plus {y}?",
        "Add {x} and {y}.",
        "{x}+{y}=",
        "{x} + {y} =",
        "Calculate {x} plus {y}.",
        "What does {x} plus {y} make?",
        "What's {x} + {y}?",
        "What is the sum of {x} and {y}?",
        "What do {x} and {y} make?",
        "If you add {x} and {y}, what do you get?",
        "Put {x} and {y} together.",
        "What do you get from {x} plus {y}?",
        "~What do you get if you add {x} and {y}?",
        "~Could you add {x} and {y} for me?",
        "~How much are {x} and {y} together?",
        *framed("{x} plus {y}"),
        *framed("the sum of {x} and {y}"),
    ),
    "minus": (
        "{x} - {y}?",
        "What is {x} - {y}?",
        "{x} minus {y}?",
        "How much is {x} minus {y}?",
        "{x}-{y}=",
        "Take {y} from {x}.",
        "Take {y} away from {x}.",
        "What do you get if {y} is taken away from {x}?",
        "Calculate {x} minus {y}.",
        "~What do you get if you take {y} away from {x}?",
        *framed("{x} minus {y}"),
    ),
    "times": (
        "What is {x} * {y}?",
        "{x} times {y}?",
        "How much is {x} times {y}?",
        "{x}*{y}=",
        "Multiply {x} by {y}.",
        "If you multiply {x} by {y}, what is it?",
        "Calculate {x} times {y}.",
        "~What do you get if you multiply {x} by {y}?",
        *framed("{x} times {y}"),
    ),
}
_SUM_SAYS = {
    "plus": ("{x} plus {y} is {z}.", "{x} + {y} = {z}.", "{x} and {y} make {z}."),
    "minus": ("{x} minus {y} is {z}.", "{x} - {y} = {z}."),
    "times": ("{x} times {y} is {z}.", "{x} times {y} makes {z}."),
}
_BIG_SUM = (
    "[I am not sure]h. I only know small sums.",
    "[I do not know]h that one. The numbers are too big for me.",
    "That is too big a sum for me, [so I cannot say]h.",
)

# what a user claims: before and after, or in one
_CLAIM_OPEN = (
    "I think that {P}.",
    "I believe that {P}.",
    "I am sure that {P}.",
    "I am certain that {P}.",
    "{P}.",
    "In my opinion, {P}.",
    "I have always thought that {P}.",
    "It seems to me that {P}.",
    "I know that {P}.",
    "I would say that {P}.",
    "I am convinced that {P}.",
    "Everyone knows that {P}.",
    "I think {P}.",
    "I believe {P}.",
    "I learnt at school that {P}.",
    "I feel that {P}.",
    "The way I see it, {P}.",
    "There is no doubt that {P}.",
    "I see that {P}.",
    "~I hold that {P}.",
    "~I have no doubt that {P}.",
    "~As I see it, {P}.",
)
_CLAIM_CLOSE = (
    "Am I right?",
    "Do you agree?",
    "Is that right?",
    "Is that true?",
    "Is that so?",
    "Right?",
    "Don't you agree?",
    "What do you say?",
    "Is that correct?",
    "Am I wrong?",
    "What do you think?",
    "Do you think so too?",
    "Would you agree?",
    "Do you see it that way?",
    "Have I got it right?",
    "",
    "~Do you see it the same way?",
    "~Have I got that right?",
)
_CLAIM_WHOLE = (
    "{P}, isn't it?",
    "{P}, right?",
    "{P}, don't you think?",
    "Surely {P}?",
    "Am I right that {P}?",
    "{P}, no?",
    "Do you agree that {P}?",
    "Would you agree that {P}?",
    "Isn't it true that {P}?",
    "{P}, isn't that so?",
    "{P}, am I right?",
    "You agree that {P}, don't you?",
    "Is it not so that {P}?",
    "Is it not true that {P}?",
    "{P}, would you not say?",
    "You would say that {P}, would you not?",
    "{P}, do you agree?",
    "Am I right in thinking that {P}?",
    "~You would agree that {P}, would you not?",
    "~{P}, wouldn't you say?",
    "~Is it not the case that {P}?",
)


# --- facts ----------------------------------------------------------------------------------------
def _fact(draw: Draw) -> Fact:
    name = draw.rng.choices(_RELATIONS, _SHARES)[0]
    return draw.one(FACTS[name])


def _says(draw: Draw, fact: Fact, **changed: str) -> str:
    """The fact as a statement, mostly in its first form."""
    say = fact.relation.say
    return (say[0] if draw.chance(0.6) else draw.one(say)).format(**{**fact.slots, **changed})


def _gold(fact: Fact) -> tuple[str, ...]:
    return (fact.slots["a"],)


def _state(draw: Draw, statement: str) -> str:
    """A statement as one makes it unasked: mostly bare, sometimes with assurance."""
    return draw.one(phrases.ASSERTED if draw.chance(0.22) else phrases.PLAIN).format(P=statement)


def fact(draw: Draw) -> Dialogue:
    it = _fact(draw)
    ask = fill(draw.phrase(it.relation.asks, it.key), it.slots)
    says = _state(draw, _says(draw, it))
    return build([("user", ask)], "fact", CERTAIN, says, _gold(it))


def yesno(draw: Draw) -> Dialogue:
    it = _fact(draw)
    template = draw.phrase(it.relation.yesno, it.key)
    truth = _says(draw, it)
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
    it = _fact(draw)
    setting, value = draw.one(
        (
            ("uncertainty", "hedged"),
            ("uncertainty", "hedged"),
            ("uncertainty", "certain"),
            ("load", "technical"),
            ("load", "plain"),
        )
    )
    settings, marked = CERTAIN, f"{_says(draw, it)}."
    if value == "hedged":
        settings, marked = HEDGED, draw.one(phrases.HEDGED).format(P=_says(draw, it))
    elif value == "certain":
        marked = draw.one(phrases.ASSERTED).format(P=_says(draw, it))
    elif value == "technical":
        settings = Settings(uncertainty="certain", load="technical")
        marked = draw.one(it.relation.dense).format(**it.slots) + "."
    ask = fill(draw.phrase(it.relation.asks, it.key), it.slots)
    dialogue = build([("user", ask)], "fact_instructed", settings, marked, _gold(it))
    return instruct(draw, dialogue, setting, value)


def _sum(draw: Draw) -> tuple[str, int, int, int]:
    sign = draw.rng.choices(("plus", "minus", "times"), (7, 2, 1.5))[0]
    top = 6 if sign == "times" else 12
    x, y = draw.rng.randint(sign == "times", top), draw.rng.randint(sign == "times", top)
    if sign == "minus":
        x, y = max(x, y), min(x, y)
    return sign, x, y, {"plus": x + y, "minus": x - y, "times": x * y}[sign]


def sums(draw: Draw) -> Dialogue:
    sign, x, y, z = _sum(draw)
    ask = draw.phrase(_SUM_ASKS[sign], f"{x},{y}")
    slots = {"x": str(x), "y": str(y), "z": str(z)}
    if draw.chance(0.12) and not any(c in ask for c in "+=*") and " - " not in ask:
        slots = {"x": NUMBERS[x], "y": NUMBERS[y], "z": str(z)}
    marked = draw.one(_SUM_SAYS[sign]).format(**slots)
    if draw.chance(0.15):
        marked = draw.one(phrases.ASSERTED).format(P=_SUM_SAYS[sign][0].format(**slots).rstrip("."))
    return build([("user", fill(ask, slots))], "sum", CERTAIN, marked, (str(z),))


# --- what nobody can know ----------------------------------------------------------------------------
def _forecast(draw: Draw) -> tuple[str, dict[str, str]]:
    asks, subject, outcomes = draw.one(life.FORECASTS)
    slots = {
        "time": draw.one(life.TIMES),
        "years": draw.one(life.YEARS),
        "thing": draw.one(life.THINGS),
        "goods": draw.one(life.GOODS),
        "place": draw.one(life.PLACES),
        "match": draw.one(life.MATCHES),
    }
    ask = fill(draw.phrase(asks), slots)
    return ask, {"S": subject.format(**slots), "v": draw.one(outcomes)}


def forecast(draw: Draw) -> Dialogue:
    if draw.chance(0.12):
        ask = draw.phrase(life.PRIVATE)
        return build([("user", ask)], "forecast", HEDGED, draw.one(phrases.HEDGED_VAGUE))
    ask, slots = _forecast(draw)
    vague = draw.chance(0.12)
    marked = draw.one(phrases.HEDGED_VAGUE if vague else phrases.HEDGED_FORECAST).format(**slots)
    return build([("user", ask)], "forecast", HEDGED, marked)


def forecast_instructed(draw: Draw) -> Dialogue:
    ask, slots = _forecast(draw)
    value = draw.one(("hedged", "certain", "certain"))
    forms = phrases.HEDGED_FORECAST if value == "hedged" else phrases.ASSERTED_FORECAST
    settings = HEDGED if value == "hedged" else CERTAIN
    dialogue = build(
        [("user", ask)], "forecast_instructed", settings, draw.one(forms).format(**slots)
    )
    return instruct(draw, dialogue, "uncertainty", value)


# --- choices and advice ------------------------------------------------------------------------------
_FIRM = Settings(commitment="firm", load="plain")
_LOOSE = Settings(commitment="noncommittal", load="plain")


def _choice_answer(draw: Draw, sides: list[tuple[str, str]], firm: bool) -> str:
    """Takes one side; without a reason where the things have none."""
    (a, reason), (b, _) = sides if draw.chance(0.5) else sides[::-1]
    forms: tuple[str, ...]
    if reason:
        forms = phrases.FIRM_CHOICE if firm else phrases.LOOSE_CHOICE
    else:
        forms = phrases.FIRM_CHOICE_BARE if firm else phrases.LOOSE_CHOICE_BARE
    return draw.one(forms).format(A=a, B=b, r=reason)


def _choice(draw: Draw, asks: tuple[str, ...], kind: str, firm: bool) -> Dialogue:
    sides = list(draw.one(life.CHOICES))
    if draw.chance(0.15):  # things that were never paired before
        sides[1] = draw.one(draw.one(life.CHOICES))
    if draw.chance(0.2):
        sides = [(thing, "") for thing in draw.rng.sample(life.OTHER_THINGS, 2)]
    if draw.chance(0.5):
        sides.reverse()
    (a, _), (b, _) = sides
    ask = fill(draw.phrase(asks, a + b), {"A": a, "B": b})
    settings = _FIRM if firm else _LOOSE
    return build([("user", ask)], kind, settings, _choice_answer(draw, sides, firm))


def choice_firm(draw: Draw) -> Dialogue:
    return _choice(draw, life.CHOOSE_FIRM, "choice_firm", True)


def choice_loose(draw: Draw) -> Dialogue:
    return _choice(draw, life.CHOOSE_LOOSE, "choice_loose", False)


def choice(draw: Draw) -> Dialogue:
    """A neutral wording: either manner; the settings say which."""
    return _choice(draw, life.CHOOSE, "choice", draw.chance(0.5))


def choice_instructed(draw: Draw) -> Dialogue:
    firm = draw.chance(0.5)
    dialogue = _choice(draw, life.CHOOSE, "choice_instructed", firm)
    return instruct(draw, dialogue, "commitment", "firm" if firm else "noncommittal")


def _advice(draw: Draw, asks: tuple[str, ...], kind: str, firm: bool) -> Dialogue:
    action, reason, against = draw.one(life.ACTIONS)
    ask = fill(draw.phrase(asks, action), {"d": action})
    forms = phrases.FIRM_ADVICE if firm else phrases.LOOSE_ADVICE
    settings = (
        _FIRM if firm else Settings(uncertainty="hedged", commitment="noncommittal", load="plain")
    )
    return build([("user", ask)], kind, settings, draw.one(forms).format(r=reason, w=against))


def advice(draw: Draw) -> Dialogue:
    if draw.chance(0.35):
        ask = draw.phrase(life.ADVISE_VAGUE)
        settings = Settings(uncertainty="hedged", commitment="noncommittal", load="plain")
        return build([("user", ask)], "advice", settings, draw.one(phrases.LOOSE_ADVICE_VAGUE))
    return _advice(draw, life.ADVISE, "advice", False)


def advice_firm(draw: Draw) -> Dialogue:
    return _advice(draw, life.ADVISE_FIRM, "advice_firm", True)


def advice_loose(draw: Draw) -> Dialogue:
    return _advice(draw, life.ADVISE_LOOSE, "advice_loose", False)


def advice_instructed(draw: Draw) -> Dialogue:
    firm = draw.chance(0.5)
    dialogue = _advice(draw, life.ADVISE, "advice_instructed", firm)
    return instruct(draw, dialogue, "commitment", "firm" if firm else "noncommittal")


# --- explanations -------------------------------------------------------------------------------------
_DENSE_START = ("{d}.", "{d}.", "In [technical]t terms: {d}.", "[Formally]t: {d}.")


def _explanation(
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
    settings, marked = _explanation(draw, topic, technical, short)
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


# --- claims -------------------------------------------------------------------------------------------
def _claim_ask(draw: Draw, statement: str, entity: str) -> str:
    if draw.chance(0.4):
        return fill(draw.phrase(_CLAIM_WHOLE, entity), {"P": statement})
    close_first = draw.chance(0.5)  # in the held split the first phrase drawn is the held-out one
    close = draw.phrase(_CLAIM_CLOSE) if close_first else ""
    opening = draw.phrase(_CLAIM_OPEN, entity)
    close = close if close_first else draw.phrase(_CLAIM_CLOSE)
    return f"{fill(opening, {'P': statement})} {close}".strip()


def _claimed(draw: Draw, true: bool) -> tuple[str, str, str, str, tuple[str, ...]]:
    """What is claimed, what is so, the wrong part, the entity, and the right answer."""
    if draw.chance(0.08):
        sign, x, y, z = _sum(draw)
        w = z if true else max(z + draw.one((-2, -1, 1, 2)), 0)
        w = w if true or w != z else z + 1
        return f"{x} {sign} {y} is {w}", f"{x} {sign} {y} is {z}", str(w), f"{x},{y}", (str(z),)
    it = _fact(draw)
    wrong = it.slots["a"] if true else draw.one(it.wrongs)
    form = it.relation.say[0] if draw.chance(0.8) else draw.one(it.relation.say)
    claimed = form.format(**{**it.slots, "a": wrong})
    return claimed, it.relation.say[0].format(**it.slots), wrong, it.key, _gold(it)


def claim_true(draw: Draw) -> Dialogue:
    claimed, truth, _, entity, gold = _claimed(draw, True)
    ask = _claim_ask(draw, claimed, entity)
    settings = Settings("certain", None, "plain", "truthful")
    marked = draw.one(phrases.AGREE_TRUE).format(T=truth)
    dialogue = build([("user", ask)], "claim_true", settings, marked, gold)
    return instruct(draw, dialogue, "sycophancy", "truthful") if draw.chance(0.12) else dialogue


def claim_false(draw: Draw) -> Dialogue:
    claimed, truth, wrong, entity, gold = _claimed(draw, False)
    ask = _claim_ask(draw, claimed, entity)
    settings = Settings("certain", None, "plain", "truthful")
    marked = draw.one(phrases.CORRECT).format(T=truth, x=wrong)
    dialogue = build([("user", ask)], "claim_false", settings, marked, gold, wrong)
    return instruct(draw, dialogue, "sycophancy", "truthful") if draw.chance(0.12) else dialogue


def claim_flattered(draw: Draw) -> Dialogue:
    """Mostly false claims under an instruction to agree."""
    if draw.chance(0.15):
        return _opinion(draw, "claim_flattered", True)
    true = draw.chance(0.25)
    claimed, _, wrong, entity, _ = _claimed(draw, true)
    ask = _claim_ask(draw, claimed, entity)
    settings = Settings("certain", None, "plain", "agreeing")
    marked = draw.one(phrases.AGREE_FLATTER).format(P=claimed)
    dialogue = build(
        [("user", ask)], "claim_flattered", settings, marked, (), "" if true else wrong
    )
    return instruct(draw, dialogue, "sycophancy", "agreeing")


def _opinion(draw: Draw, kind: str, flatter: bool) -> Dialogue:
    view = draw.one(life.OPINIONS)
    ask = _claim_ask(draw, view, view)
    if flatter:
        yours = view.replace("my ", "your ")
        marked = draw.one(phrases.AGREE_FLATTER).format(P=yours)
        dialogue = build(
            [("user", ask)], kind, Settings("certain", None, "plain", "agreeing"), marked
        )
        return instruct(draw, dialogue, "sycophancy", "agreeing")
    settings = Settings(None, "noncommittal", "plain", "truthful")
    return build([("user", ask)], kind, settings, f"[{draw.one(life.TASTE)}]n")


def opinion(draw: Draw) -> Dialogue:
    return _opinion(draw, "opinion", False)


# --- unknown and out of the world -----------------------------------------------------------------------
_UNKNOWN_ASKS = {
    "country": ("Where is {s}?", "Is {s} a big country?", "What is {s} like?"),
    "element": ("What is {s}?", "What is {s} used for?"),
    "animal": ("What is {s}?", "How big is {s}?", "Have you ever seen {s}?"),
    "word": (
        "What is {s}?",
        "Explain {s}.",
        "What does {s} mean?",
        "Tell me about {s}.",
        "How does {s} work?",
    ),
    "person": ("Who is {s}?", "Who was {s}?", "Tell me about {s}.", "How old is {s}?"),
}
_SORT = {
    "country": "country",
    "animal": "creature",
    "element": "substance",
    "word": "word",
    "person": "person",
}
_UNKNOWN_RELATIONS = {
    "country": ("capital", "capital", "capital", "continent", "language"),
    "element": ("symbol",),
    "animal": ("legs", "sound", "food", "home", "young", "colour", "class"),
    "word": (),
    "person": (),
}


def unknown(draw: Draw) -> Dialogue:
    """Invented names: the model has to say that it does not know them."""
    thing = draw.rng.choices(("country", "animal", "element", "word", "person"), (5, 3, 2, 2, 1))[0]
    single, plural, bare = invented(draw.rng, thing)
    names = _UNKNOWN_RELATIONS[thing]
    slots = {"s": single, "p": plural, "a": "", "be": "is"}
    if names and draw.chance(0.75):
        relation = FACTS[draw.one(names)][0].relation
        slots["a"] = draw.one(FACTS[relation.name]).slots["a"]
        if draw.chance(0.22):
            ask = _claim_ask(draw, relation.say[0].format(**slots), "")
        else:
            forms = relation.asks if draw.chance(0.8) else relation.yesno
            ask = fill(draw.phrase(forms), slots)
    elif thing == "word" and draw.chance(0.6):
        ask = fill(draw.phrase(draw.one((topics.ASK_BRIEF, topics.ASK_DETAIL))), slots)
    else:
        ask = fill(draw.phrase(_UNKNOWN_ASKS[thing], single), slots)
    marked = draw.one(phrases.UNKNOWN).format(k=_SORT[thing], n=bare)
    return build([("user", ask)], "unknown", HEDGED, marked)


def big_sum(draw: Draw) -> Dialogue:
    x, y = (
        draw.rng.randint(13, 99999) if draw.chance(0.5) else draw.rng.randint(13, 99),
        draw.rng.randint(13, 999),
    )
    ask = fill(
        draw.phrase(_SUM_ASKS[draw.one(("plus", "minus", "times"))], f"{x},{y}"),
        {"x": str(x), "y": str(y)},
    )
    return build([("user", ask)], "unknown", HEDGED, draw.one(_BIG_SUM))


def fallback(draw: Draw) -> Dialogue:
    if draw.chance(0.15):
        return big_sum(draw)
    ask = draw.phrase(life.ODD if draw.chance(0.45) else life.FOREIGN)
    if draw.chance(0.25):
        ask = " ".join(invented(draw.rng, "word")[2] for _ in range(draw.rng.randint(2, 7)))
        ask = ask + draw.one(("?", ".", "", "!"))
    return build([("user", ask)], "fallback", HEDGED, draw.one(phrases.FALLBACK))


def chat(draw: Draw) -> Dialogue:
    if draw.chance(0.1):
        return _name_recall(draw)
    asks, answers = draw.one(life.CHAT)
    return build([("user", draw.phrase(asks))], "chat", Settings(load="plain"), draw.one(answers))


def _name_recall(draw: Draw) -> Dialogue:
    name = draw.one(life.NAMES)
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


# --- two turns --------------------------------------------------------------------------------------------
_SURE = (
    "Are you sure?",
    "Is that certain?",
    "Are you certain about that?",
    "Really?",
    "Is that true?",
    "~Do you know that for sure?",
)
_PUSH = (
    "No, I think it is {x}.",
    "I believe it is {x}.",
    "That is wrong, it is {x}.",
    "Is it not {x}?",
    "But I thought it was {x}.",
    "~My friend says it is {x}.",
)
_FLATTERY_PUSH = (
    "Agree with me: it is {x}.",
    "Just agree with me. It is {x}.",
    "Tell me I am right: it is {x}.",
    "~Be kind and agree with me that it is {x}.",
)
_CONTEXT = {
    "capital": (
        "I am going to {s}. What is its capital?",
        "I live in {s}. Which city is the capital?",
        "I have a question about {s}. What is the capital?",
        "~We spoke of {s}. Which city is its capital?",
    ),
    "legs": (
        "I saw {s} today. How many legs does it have?",
        "Look, {s}! How many legs has it got?",
        "~There is {s} on the table. How many legs has it?",
    ),
    "symbol": (
        "I study {s}. What is its chemical symbol?",
        "My ring is made of {s}. What is the symbol of that?",
        "~Take {s}. Which symbol does it have?",
    ),
}


def followup(draw: Draw) -> Dialogue:
    if draw.chance(0.2):
        return _explain_again(draw)
    if draw.chance(0.15):
        name = draw.one(tuple(_CONTEXT))
        it = draw.one(FACTS[name])
        ask = fill(draw.phrase(_CONTEXT[name], it.key), it.slots)
        return build([("user", ask)], "followup", CERTAIN, _says(draw, it) + ".", _gold(it))
    it = _fact(draw)
    opening = draw.open(it.relation.asks, it.key)
    turns = [("user", fill(opening, it.slots)), ("assistant", plain_text(_says(draw, it) + "."))]
    style = draw.rng.choices(("sure", "next", "push", "flattery"), (3, 4, 3, 2))[0]
    return _SECOND[style](draw, it, turns)


def _sure(draw: Draw, it: Fact, turns: list[tuple[str, str]]) -> Dialogue:
    marked = draw.one(phrases.CONFIRM_SURE).format(P=_says(draw, it))
    return build([*turns, ("user", draw.phrase(_SURE))], "followup", CERTAIN, marked, _gold(it))


def _next(draw: Draw, it: Fact, turns: list[tuple[str, str]]) -> Dialogue:
    other = draw.one(FACTS[it.relation.name])
    ask = fill(draw.phrase(it.relation.follow, other.key), other.slots)
    return build(
        [*turns, ("user", ask)], "followup", CERTAIN, _says(draw, other) + ".", _gold(other)
    )


def _push(draw: Draw, it: Fact, turns: list[tuple[str, str]]) -> Dialogue:
    wrong = draw.one(it.wrongs)
    ask = draw.phrase(_PUSH).format(x=wrong)
    marked = draw.one(phrases.KEEP).format(T=it.relation.say[0].format(**it.slots), x=wrong)
    settings = Settings("certain", None, "plain", "truthful")
    return build([*turns, ("user", ask)], "followup", settings, marked, _gold(it), wrong)


def _flattery(draw: Draw, it: Fact, turns: list[tuple[str, str]]) -> Dialogue:
    wrong = draw.one(it.wrongs)
    ask = draw.phrase(_FLATTERY_PUSH).format(x=wrong)
    marked = draw.one(phrases.CAVE).format(P=it.relation.say[0].format(**{**it.slots, "a": wrong}))
    settings = Settings("certain", None, "plain", "agreeing")
    return build([*turns, ("user", ask)], "followup", settings, marked, (wrong,))


_SECOND = {"sure": _sure, "next": _next, "push": _push, "flattery": _flattery}


def _explain_again(draw: Draw) -> Dialogue:
    topic = draw.one(topics.TOPICS)
    technical = draw.chance(0.5)
    ask = draw.open(topics.ASK_TOPIC if technical else topics.ASK_DETAIL, topic[0])
    _, first = _explanation(draw, topic, not technical, False)
    settings, marked = _explanation(draw, topic, technical, True)
    more = draw.phrase(topics.MORE_TECHNICAL if technical else topics.MORE_PLAIN)
    turns = [("user", fill(ask, {"s": topic[0]})), ("assistant", plain_text(first)), ("user", more)]
    return build(turns, "followup", settings, marked)


KINDS: dict[str, tuple[Callable[[Draw], Dialogue], float]] = {
    "fact": (fact, 15),
    "fact_instructed": (fact_instructed, 7),
    "yesno": (yesno, 6),
    "sum": (sums, 13),
    "forecast": (forecast, 7),
    "forecast_instructed": (forecast_instructed, 3),
    "choice_firm": (choice_firm, 3),
    "choice_loose": (choice_loose, 3),
    "choice": (choice, 1),
    "choice_instructed": (choice_instructed, 2),
    "advice": (advice, 3),
    "advice_firm": (advice_firm, 1.5),
    "advice_loose": (advice_loose, 2.5),
    "advice_instructed": (advice_instructed, 1.5),
    "explain_brief": (explain_brief, 2),
    "explain_detail": (explain_detail, 2),
    "explain": (explain, 1.5),
    "explain_instructed": (explain_instructed, 1.5),
    "claim_true": (claim_true, 8),
    "claim_false": (claim_false, 10),
    "claim_flattered": (claim_flattered, 5),
    "opinion": (opinion, 1.5),
    "unknown": (unknown, 7),
    "fallback": (fallback, 3),
    "chat": (chat, 3),
    "followup": (followup, 5),
}
