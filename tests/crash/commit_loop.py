"""A process to be killed: commits made-up texts to a run one by one, creating or resuming it.

    python -m tests.crash.commit_loop RUN_FOLDER N_TEXTS

Prints the number of each text once its commit has returned.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.runs.build import capture, directions, header_of, internals_of, text_record
from traitscope.runs import RunWriter


def open_run(path: Path, n_texts: int) -> RunWriter:
    header = header_of(range(n_texts))
    if (path / "run.json").exists():
        return RunWriter.resume(path, header)
    return RunWriter.create(path, header, directions())


def commit_missing(writer: RunWriter, n_texts: int, *, say: bool = False) -> None:
    """Commit every text that is not done yet, one part each; every third with internals."""
    done = writer.done_generations()
    for number in range(n_texts):
        record = text_record(number)
        if record.generation not in done:
            writer.event("batch", text=number)
            internals = [internals_of(record)] if number % 3 == 0 else []
            writer.commit([record], [capture(number)], internals)
        if say:
            print(number, flush=True)


if __name__ == "__main__":
    with open_run(Path(sys.argv[1]), int(sys.argv[2])) as run_writer:
        commit_missing(run_writer, int(sys.argv[2]), say=True)
