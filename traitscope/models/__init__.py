"""Models: loaded once, taken apart, proved; and the texts that go in and out of them.

`anatomy.py` is the only place that knows architectures; `taps.py` reads the residual stream
inside the forward; `proof.py` holds both against the model itself; `text.py` renders chats and
spells ids.  Nothing here knows of traits, runs or screens.
"""

from traitscope.models.anatomy import FAMILIES, Anatomy, Family, dissect
from traitscope.models.fingerprint import hash_tensors
from traitscope.models.model import (
    DTYPES,
    Checkpoint,
    Model,
    known_dtype,
    load,
    load_checkpoint,
    locate,
    pick_device,
)
from traitscope.models.proof import Proof, is_finite, prove, timed, tolerance
from traitscope.models.taps import Means, Scores, States, Taps
from traitscope.models.text import Rendered, Speller, render

__all__ = [
    "DTYPES",
    "FAMILIES",
    "Anatomy",
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
    "dissect",
    "hash_tensors",
    "is_finite",
    "known_dtype",
    "load",
    "load_checkpoint",
    "locate",
    "pick_device",
    "prove",
    "render",
    "timed",
    "tolerance",
]
