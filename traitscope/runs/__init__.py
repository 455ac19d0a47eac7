"""The run folder: write, commit, resume, verify, read.  No torch.

`RunWriter` makes and extends a run, `Run` reads one, `verify` says whether every record is whole,
`compare` sets two runs of the same texts side by side.
The format is docs/format.md.
"""

from traitscope.runs.audit import Problem, verify
from traitscope.runs.comparison import Comparison, compare
from traitscope.runs.header import RunHeader, default_run_dir
from traitscope.runs.reader import Run, TextData
from traitscope.runs.tables import CaptureRow, GenerationRow
from traitscope.runs.tensors import load_directions, save_directions
from traitscope.runs.writer import RunWriter

__all__ = [
    "CaptureRow",
    "Comparison",
    "GenerationRow",
    "Problem",
    "Run",
    "RunHeader",
    "RunWriter",
    "TextData",
    "compare",
    "default_run_dir",
    "load_directions",
    "save_directions",
    "verify",
]
