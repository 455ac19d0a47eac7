"""Models: loaded once, taken apart, proved; and the texts that go in and out of them.

`families.py` is the only place that knows architectures by name, `anatomy.py` finds their parts,
`structure.py` those of unknown ones, `obeyed.py` what a class makes of its config, `refusals.py`
says what cannot work; `checkpoint.py` finds and loads; `taps.py` reads the residual stream inside
the forward, `forwards.py` lets it in; `proof.py` holds all of it against the model itself;
`text.py` renders chats and spells ids, `given.py` those that have an answer; `thoughts.py` knows
how thoughts are marked, `switches.py` what a chat template can be told.
Nothing here knows of traits, runs or screens.
"""

from traitscope.models.anatomy import Anatomy, dissect
from traitscope.models.checkpoint import (
    DTYPES,
    SPREAD,
    Checkpoint,
    known_dtype,
    locate,
    pick_device,
)
from traitscope.models.families import FAMILIES, Family, family_of
from traitscope.models.fingerprint import hash_tensors
from traitscope.models.forwards import is_anothers, is_hooked, is_watched, wrap_forward
from traitscope.models.given import given_ids
from traitscope.models.model import Model, load, load_checkpoint
from traitscope.models.proof import Proof, is_finite, prove, timed, tolerance
from traitscope.models.structure import UNREADABLE, discover
from traitscope.models.switches import template_arguments
from traitscope.models.taps import Means, Scores, States, Taps
from traitscope.models.text import NONE, Arguments, Rendered, Speller, render

__all__ = [
    "DTYPES",
    "FAMILIES",
    "NONE",
    "SPREAD",
    "UNREADABLE",
    "Anatomy",
    "Arguments",
    "Checkpoint",
    "Family",
    "Means",
    "Model",
    "Proof",
    "Rendered",
    "Scores",
    "Speller",
    "States",
    "Taps",
    "discover",
    "dissect",
    "family_of",
    "given_ids",
    "hash_tensors",
    "is_anothers",
    "is_finite",
    "is_hooked",
    "is_watched",
    "known_dtype",
    "load",
    "load_checkpoint",
    "locate",
    "pick_device",
    "prove",
    "render",
    "template_arguments",
    "timed",
    "tolerance",
    "wrap_forward",
]
