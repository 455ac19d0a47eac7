"""Kinds of dialogue about what is not settled: forecasts, choices, advice.

Knows no facts and no tokenizer.
"""

from traitscope.pocket import forecasts, life, phrases
from traitscope.pocket.dialogue import Dialogue, Draw, Settings, build, fill, instruct
from traitscope.pocket.kinds_facts import CERTAIN, HEDGED


def _forecast(draw: Draw) -> tuple[str, dict[str, str]]:
    asks, subject, outcomes = draw.one(forecasts.FORECASTS)
    slots = {
        "time": draw.one(forecasts.TIMES),
        "years": draw.one(forecasts.YEARS),
        "thing": draw.one(forecasts.THINGS),
        "goods": draw.one(forecasts.GOODS),
        "place": draw.one(forecasts.PLACES),
        "match": draw.one(forecasts.MATCHES),
    }
    ask = fill(draw.phrase(asks), slots)
    return ask, {"S": subject.format(**slots), "v": draw.one(outcomes)}


def forecast(draw: Draw) -> Dialogue:
    if draw.chance(0.12):
        ask = draw.phrase(forecasts.PRIVATE)
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
