"""What the README shows works: its Python runs as it stands, and is as short as it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.conftest import PocketCache

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def python_blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_the_python_example_runs_and_gives_labelled_scores(
    tmp_path: Path, pocket_cache: PocketCache
) -> None:
    (block,) = python_blocks()
    lines = [line for line in block.splitlines() if line.strip()]
    assert len(lines) - 1 <= 6  # and one that prints
    code = f"{block}\nassert scores.dims == ('token', 'site', 'trait'), scores.dims"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "TRAITSCOPE_HOME": str(pocket_cache.home)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "2.post" in done.stdout


def test_every_command_of_the_readme_exists() -> None:
    from typer.main import get_command

    from traitscope.cli.app import app

    known = set(get_command(app).commands)  # type: ignore[attr-defined]
    shown = set(re.findall(r"^\s*traitscope ([a-z]+)", README, flags=re.MULTILINE))
    assert shown
    assert shown <= known
