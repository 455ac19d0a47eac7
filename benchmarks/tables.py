"""Writes `results/README.md` from the results' JSON files: each table, its command and machine.

The table of docs/speed.md too.  Nothing is measured here, and no figure is written by hand.
"""

from __future__ import annotations

import json
from typing import Any

from benchmarks.common import HERE, RESULTS, Table, text_of
from benchmarks.targets import table

SPEED = HERE.parent / "docs" / "speed.md"
BEGIN, END = "<!-- table: python -m benchmarks.tables -->\n", "<!-- end of table -->"

HEAD = """# Results

Made by `make bench`, written by `python -m benchmarks.tables`. Contestants take turns in one run;
"x base" is the median of paired rounds, beside it the least and the most. What each script does is
said at its top; what the ratios were meant to reach is in [docs/speed.md](../../docs/speed.md).
"""


def main() -> None:
    parts = [HEAD]
    for path in sorted(RESULTS.glob("*.json")):
        parts.append(section(json.loads(path.read_text(encoding="utf-8"))))
    (RESULTS / "README.md").write_text("\n".join(parts), encoding="utf-8")
    written = SPEED.read_text(encoding="utf-8")
    SPEED.write_text(with_table(written, text_of(table())), encoding="utf-8")


def with_table(page: str, text: str) -> str:
    """The page with the text between its two marks."""
    head, _, rest = page.partition(BEGIN)
    return f"{head}{BEGIN}{text}\n{END}{rest.partition(END)[2]}"


def section(result: dict[str, Any]) -> str:
    machine = result["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    where = f"{machine['processor']}, {machine['cores']} cores, {machine['memory_GB']} GB"
    lines = [
        f"## {result['benchmark']}\n",
        f"`{result['command']}` on {result['when']}; {where}, {machine['threads']} threads, "
        f"GPU: {machine['gpu'] or 'none'}; {versions}; at least {result['rounds']} rounds.",
        *(text_of(Table(**table)) for table in result["tables"]),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
