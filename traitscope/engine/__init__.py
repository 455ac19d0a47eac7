"""The engine: batched decoding with taps, replay, internals.  Tensors in, traces out.

`decode.py` is the loop, `step.py` one step of it, `slots.py` its cache, `sampling.py` how a token
is drawn and `noise.py` its dice, `numbers.py` what is said of a token; `replay.py` scores texts
that exist, `internals.py` opens one block, `attention.py` says where each block looks, `agree.py`
measures that batched = alone; `lean.py` makes forwards cheaper on a CPU.  The engine knows nothing
of disks, suites or screens.
"""

from traitscope.engine.agree import LONG, QUICK, WIDE, Probe, agreement, repetition
from traitscope.engine.attention import mean_attention
from traitscope.engine.decode import Batching, Clock, Request, Steps, generate
from traitscope.engine.internals import capture_internals, check_internals
from traitscope.engine.joining import forward_tokens, join_rule
from traitscope.engine.noise import gumbel, noise_key
from traitscope.engine.numbers import Numbers
from traitscope.engine.outbox import block_steps
from traitscope.engine.packing import has_products, memory_for_texts, packed_bytes
from traitscope.engine.replay import Scored, mean_states, score_texts
from traitscope.engine.sampling import pick

__all__ = [
    "LONG",
    "QUICK",
    "WIDE",
    "Batching",
    "Clock",
    "Numbers",
    "Probe",
    "Request",
    "Scored",
    "Steps",
    "agreement",
    "block_steps",
    "capture_internals",
    "check_internals",
    "forward_tokens",
    "generate",
    "gumbel",
    "has_products",
    "join_rule",
    "mean_attention",
    "mean_states",
    "memory_for_texts",
    "noise_key",
    "packed_bytes",
    "pick",
    "repetition",
    "score_texts",
]
