"""run.json: stable, checked, and kept where a newer version wrote more."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.runs.build import header_of
from traitscope.errors import RunError
from traitscope.runs import Run, RunHeader, default_run_dir
from traitscope.runs.files import sha256
from traitscope.runs.header import read_header


def sealed(members: dict[str, object]) -> bytes:
    members.pop("checksum", None)
    body = json.dumps(members, indent=1)[:-2].encode()
    return body + f',\n "checksum": "{sha256(body)}"\n}}\n'.encode()


def test_header_round_trip() -> None:
    header = header_of()
    data = header.to_bytes()
    assert RunHeader.from_bytes(data, Path("run.json")) == header
    assert RunHeader.from_bytes(data, Path("run.json")).to_bytes() == data
    assert json.loads(data)["captures"][0]["set"] == "greetings"


def test_equal_headers_are_equal_bytes_whatever_the_order() -> None:
    header = header_of()
    shuffled = replace(header, generation=dict(reversed(list(header.generation.items()))))
    assert shuffled.to_bytes() == header.to_bytes()


def test_numbers_and_paths_become_plain() -> None:
    odd = {"path": Path("a") / "b", "n": np.float32(1.5), "nan": float("nan"), "s": {"b", "a"}}
    data = replace(header_of(), proofs=odd).to_bytes()
    assert json.loads(data)["proofs"] == {"path": "a/b", "n": 1.5, "nan": None, "s": ["a", "b"]}


def test_unknown_members_are_kept(tmp_path: Path) -> None:
    members = json.loads(header_of().to_bytes())
    (tmp_path / "run.json").write_bytes(sealed({**members, "later": {"x": 1}}))
    header = read_header(tmp_path)
    assert header.extra == {"later": {"x": 1}}
    assert json.loads(header.to_bytes())["later"] == {"x": 1}


def test_a_newer_format_is_refused_by_name(tmp_path: Path) -> None:
    members = json.loads(header_of().to_bytes())
    newer = {**members, "format_version": 3, "traitscope_version": "9.1"}
    (tmp_path / "run.json").write_bytes(sealed(newer))
    with pytest.raises(RunError, match=r"newer version of traitscope \(9\.1\)"):
        Run.open(tmp_path)


def test_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"Expected a run folder .* got .*nowhere, which does not"):
        Run.open(tmp_path / "nowhere")
    with pytest.raises(RunError, match="Expected a run folder"):
        Run.open(tmp_path)


def test_default_run_dir(tmp_path: Path) -> None:
    first = default_run_dir("overnight", "0123abcd", tmp_path)
    assert first == tmp_path / "overnight-0123abcd"
    assert default_run_dir("overnight", "0123abcd", tmp_path, fresh=True) == first
    first.mkdir()
    second = default_run_dir("overnight", "0123abcd", tmp_path, fresh=True)
    assert second.name == "overnight-0123abcd-2"
    second.mkdir()
    assert default_run_dir("overnight", "0123abcd", tmp_path, fresh=True).name.endswith("-3")
    assert default_run_dir("overnight", "0123abcd", tmp_path) == first
    assert default_run_dir("../my suite", "0123abcd").as_posix() == "runs/my-suite-0123abcd"
