"""The pocket: the small language model that ships with the package.

Owns the model's files (`model/`), the grammar that its training text comes from (`world`, `life`,
`topics`, `phrases`, `grammar`), its training recipe (`train`) and the measurement of what it
learnt (`evaluate`).  Importing this package loads nothing heavy: it only says where the files
lie.  It knows nothing of traits' directions, engines or runs.
"""

from pathlib import Path

POCKET_DIR: Path = Path(__file__).parent / "model"

__all__ = ["POCKET_DIR"]
