"""The command line: argv -> configuration -> call.  The only place that prints or exits.

`main` is the console's entry.  What a verb does is somewhere else: here are names, help, progress,
the one line of `--json`, and the exit status (0 all done, 1 some captures failed, 2 bad input,
3 interrupted, 4 the machine failed).
"""

from __future__ import annotations

import sys

from traitscope.cli.frame import run

__all__ = ["main"]


def main() -> None:
    """Run the command in `sys.argv` and exit with its status."""
    sys.exit(run(sys.argv[1:]))
