"""How much memory is left, where a container has less than its machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from traitscope.machine import _left_in_group


@pytest.mark.parametrize(
    ("most", "stat", "left"),
    [
        ("1000", "anon 500\ninactive_file 250\n", [450]),  # files that were read give way
        ("1000", "anon 500\n", [200]),
        ("700", "inactive_file 50\n", [0]),
        ("max", "inactive_file 250\n", []),
    ],
)
def test_what_a_group_has_left(tmp_path: Path, most: str, stat: str, left: list[int]) -> None:
    for name, value in (("max", most), ("current", "800"), ("stat", stat)):
        (tmp_path / f"memory.{name}").write_text(value)
    assert _left_in_group(tmp_path) == left


def test_without_groups_nothing_is_known(tmp_path: Path) -> None:
    assert _left_in_group(tmp_path) == []
