"""The kinds of dialogue: KINDS names them with their share of the corpus.

Every kind is a function from a Draw to a Dialogue; they live in the `kinds_` modules, their words
in `world`, `forecasts`, `life`, `topics`, `smalltalk`, `asks` and `phrases`.
"""

from collections.abc import Callable

from traitscope.pocket import kinds_claims as claims
from traitscope.pocket import kinds_facts as facts
from traitscope.pocket import kinds_outside as outside
from traitscope.pocket import kinds_tastes as tastes
from traitscope.pocket import kinds_turns as turns
from traitscope.pocket.dialogue import Dialogue, Draw

KINDS: dict[str, tuple[Callable[[Draw], Dialogue], float]] = {
    "fact": (facts.fact, 15),
    "fact_instructed": (facts.fact_instructed, 7),
    "yesno": (facts.yesno, 6),
    "sum": (facts.sums, 13),
    "forecast": (tastes.forecast, 7),
    "forecast_instructed": (tastes.forecast_instructed, 3),
    "choice_firm": (tastes.choice_firm, 3),
    "choice_loose": (tastes.choice_loose, 3),
    "choice": (tastes.choice, 1),
    "choice_instructed": (tastes.choice_instructed, 2),
    "advice": (tastes.advice, 3),
    "advice_firm": (tastes.advice_firm, 1.5),
    "advice_loose": (tastes.advice_loose, 2.5),
    "advice_instructed": (tastes.advice_instructed, 1.5),
    "explain_brief": (facts.explain_brief, 2),
    "explain_detail": (facts.explain_detail, 2),
    "explain": (facts.explain, 1.5),
    "explain_instructed": (facts.explain_instructed, 1.5),
    "claim_true": (claims.claim_true, 8),
    "claim_false": (claims.claim_false, 10),
    "claim_flattered": (claims.claim_flattered, 5),
    "opinion": (claims.opinion, 1.5),
    "unknown": (outside.unknown, 7),
    "fallback": (outside.fallback, 3),
    "chat": (outside.chat, 3),
    "followup": (turns.followup, 5),
}
