"""Kinds of dialogue in which the user claims something: true, false, or a matter of taste.

Knows no tokenizer.
"""

from traitscope.pocket import asks, life, phrases
from traitscope.pocket.dialogue import Dialogue, Draw, Settings, build, fill, instruct
from traitscope.pocket.kinds_facts import draw_fact, draw_sum, gold_of


def claim_ask(draw: Draw, statement: str, entity: str) -> str:
    if draw.chance(0.4):
        return fill(draw.phrase(asks.CLAIM_WHOLE, entity), {"P": statement})
    close_first = draw.chance(0.5)  # in the held split the first phrase drawn is the held-out one
    close = draw.phrase(asks.CLAIM_CLOSE) if close_first else ""
    opening = draw.phrase(asks.CLAIM_OPEN, entity)
    close = close if close_first else draw.phrase(asks.CLAIM_CLOSE)
    return f"{fill(opening, {'P': statement})} {close}".strip()


def _claimed(draw: Draw, true: bool) -> tuple[str, str, str, str, tuple[str, ...]]:
    """What is claimed, what is so, the wrong part, the entity, and the right answer."""
    if draw.chance(0.08):
        sign, x, y, z = draw_sum(draw)
        w = z if true else max(z + draw.one((-2, -1, 1, 2)), 0)
        w = w if true or w != z else z + 1
        return f"{x} {sign} {y} is {w}", f"{x} {sign} {y} is {z}", str(w), f"{x},{y}", (str(z),)
    it = draw_fact(draw)
    wrong = it.slots["a"] if true else draw.one(it.wrongs)
    form = it.relation.say[0] if draw.chance(0.8) else draw.one(it.relation.say)
    claimed = form.format(**{**it.slots, "a": wrong})
    return claimed, it.relation.say[0].format(**it.slots), wrong, it.key, gold_of(it)


def claim_true(draw: Draw) -> Dialogue:
    claimed, truth, _, entity, gold = _claimed(draw, True)
    ask = claim_ask(draw, claimed, entity)
    settings = Settings("certain", None, "plain", "truthful")
    marked = draw.one(phrases.AGREE_TRUE).format(T=truth)
    dialogue = build([("user", ask)], "claim_true", settings, marked, gold)
    return instruct(draw, dialogue, "sycophancy", "truthful") if draw.chance(0.12) else dialogue


def claim_false(draw: Draw) -> Dialogue:
    claimed, truth, wrong, entity, gold = _claimed(draw, False)
    ask = claim_ask(draw, claimed, entity)
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
    ask = claim_ask(draw, claimed, entity)
    settings = Settings("certain", None, "plain", "agreeing")
    marked = draw.one(phrases.AGREE_FLATTER).format(P=claimed)
    dialogue = build(
        [("user", ask)], "claim_flattered", settings, marked, (), "" if true else wrong
    )
    return instruct(draw, dialogue, "sycophancy", "agreeing")


def _opinion(draw: Draw, kind: str, flatter: bool) -> Dialogue:
    view = draw.one(life.OPINIONS)
    ask = claim_ask(draw, view, view)
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
