"""Invented names, by syllables: countries, animals, elements, words and people that do not exist.

There are millions of them, so that a model cannot learn the names, only what it is to be unknown.
Knows nothing of dialogues.
"""

import random

from traitscope.pocket.world import FACTS

_STARTS = (
    "b br bl c ch cl cr d dr f fl fr g gl gr h j k kl kr l m n p pl pr qu r s sh sk sl sn sp st str t th "
    "tr tw v w wr y z zh zw"
).split()
_VOWELS = "a a e e i o o u ai au ea ee oo ou y".split()
_MIDDLES = (
    "b d f g k l m n p r s t v x z ld lm mb nd ng nt rb rd rg rl rn rth rv sk ss st th zz".split()
)
_ENDS = {
    "country": "ia ania istan land a or esia onia ola ary mark uay ovia ea eria en in avia".split(),
    "animal": "le er ock ump ig im ob ug ank elk ibb ox um ap ole".split(),
    "element": "ium ium ium on ine um ogen".split(),
    "word": "osis ation ism ity ence ology graphy esis ing ment".split(),
    "person": "a o en er ick us elle ard in ya".split(),
}
_KNOWN = frozenset(fact.slots["s"].lower() for facts in FACTS.values() for fact in facts)


def _stem(rng: random.Random) -> str:
    stem = rng.choice(_STARTS) + rng.choice(_VOWELS) + rng.choice(_MIDDLES)
    if rng.random() < 0.35:
        stem += rng.choice(_VOWELS) + rng.choice(_MIDDLES)
    return stem


def invented(rng: random.Random, thing: str) -> tuple[str, str, str]:
    """A thing that does not exist: as one, as many, and its bare name."""
    name = _stem(rng) + rng.choice(_ENDS[thing])
    while name in _KNOWN:
        name = _stem(rng) + rng.choice(_ENDS[thing])
    if thing == "animal":
        article = "an" if name[0] in "aeiou" else "a"
        return f"{article} {name}", f"{name}s", f"{article} {name}"
    if thing == "country":
        return name.capitalize(), name.capitalize(), name.capitalize()
    if thing == "person":
        family = (_stem(rng) + rng.choice(_ENDS["person"])).capitalize()
        full = f"{name.capitalize()} {family}"
        return full, full, full
    return name, name, name
