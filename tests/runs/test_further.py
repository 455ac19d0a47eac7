"""What is added to texts that are committed: scores on further traits, and kept states."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.runs.build import (
    SITES,
    TRAITS,
    D,
    capture,
    directions,
    directions_of,
    generation,
    header_of,
    internals_of,
    text_record,
)
from traitscope.core import FurtherScores, Keep, KeptStates
from traitscope.errors import RunError
from traitscope.runs import Run, RunWriter, verify
from traitscope.runs.states import parse_states, states_bytes

ALL = Keep(("1.post",), "all", "float32")
NARROW = Keep(("0.mid",), "response", "bfloat16")


def further(number: int, *traits: str) -> FurtherScores:
    n = len(text_record(number).tokens.token_id)  # type: ignore[union-attr]  # it has tokens
    score = np.random.default_rng(number).normal(size=(n, len(SITES), len(traits)))
    return FurtherScores(generation(number), traits, (score * 0.1).astype(np.float32))


def states(number: int, keep: Keep) -> KeptStates:
    position = keep.positions(6, 4)
    h = np.random.default_rng(number).normal(size=(len(position), D)).astype(np.float32)
    return KeptStates(generation(number), keep, position, h)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two texts; then a further trait on the first, then on the second, and states."""
    path = tmp_path_factory.mktemp("whole") / "run"
    with RunWriter.create(path, header_of(range(2)), directions()) as writer:
        records = [text_record(0), text_record(1)]
        writer.commit(records, [capture(0), capture(1)], [internals_of(records[0])])
        writer.add_traits({"gamma": directions_of("gamma")})
        writer.commit([], further=[further(0, "gamma")])
        writer.commit([], states=[states(0, ALL), states(1, NARROW)], further=[further(1, "gamma")])
    assert verify(path) == []
    return path


@pytest.fixture
def path(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "run")


def test_further_scores_stand_behind_the_first(whole: Path) -> None:
    run = Run.open(whole)
    assert run.traits == (*TRAITS, "gamma")
    assert (run.state, run.unscored()) == ("complete", {})
    for number in (0, 1):
        trace, text = text_record(number).trace, run.text(generation(number))
        assert trace is not None
        np.testing.assert_array_equal(text.score[:, :, :2], trace.score)
        np.testing.assert_array_equal(text.score[:, :, 2:], further(number, "gamma").score)
    z = run.scores(generation(1), as_="z").sel(trait="gamma")
    assert z.shape == (6, len(SITES))
    assert run.internals(generation(0), 1).traits == TRAITS


def test_a_trait_that_is_announced_and_not_scored(path: Path) -> None:
    """What a kill leaves between run.json and the scores."""
    with RunWriter.resume(path, Run.open(path).header) as writer:
        writer.add_traits({"delta": directions_of("delta")})
        with pytest.raises(ValueError, match="expected new traits"):
            writer.add_traits({"delta": directions_of("delta")})
        writer.commit([], further=[further(1, "delta")])
    run = Run.open(path)
    assert verify(path) == []
    assert run.state == "unfinished"
    assert run.unscored() == {generation(0): ("delta",)}
    assert np.isnan(run.text(generation(0)).score[:, :, 3]).all()
    with RunWriter.resume(path, run.header) as writer:
        writer.commit([], further=[further(0, "delta"), further(1, "delta")])  # one is there
    assert (verify(path), Run.open(path).state) == ([], "complete")


def test_directions_without_run_json_are_a_left_over(path: Path) -> None:
    header = Run.open(path).header
    stray = path / "directions" / "delta.safetensors"
    shutil.copy(path / "directions" / "gamma.safetensors", stray)
    assert [(p.file, p.kind) for p in verify(path)] == [
        ("directions/delta.safetensors", "leftover")
    ]
    with RunWriter.resume(path, header):
        assert not stray.exists()


def test_states_come_back(whole: Path) -> None:
    run = Run.open(whole)
    np.testing.assert_array_equal(run.states(generation(0), "1.post"), states(0, ALL).h)
    assert run.state_positions(generation(1), "0.mid").tolist() == [4, 5]
    narrow, h = run.states(generation(1), SITES[1]), states(1, NARROW).h
    assert narrow.dtype == np.float32
    np.testing.assert_allclose(narrow, h, rtol=2**-8)
    assert run.unkept(ALL) == {generation(1): ("1.post",)}
    with pytest.raises(RunError, match=r"at 1\.post, but the run has 0\.mid"):
        run.states(generation(1), "1.post")


def test_bfloat16_is_kept_exactly_and_rounded_to_even() -> None:
    torch = pytest.importorskip("torch")
    h = torch.randn(500, 7) * 10.0 ** torch.randint(-20, 20, (500, 7))
    ties = torch.tensor([1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8, 0.0, -0.0, 2.0**-133, 3e38])
    h = torch.cat([h, ties[None]])
    keep = Keep(("embed",), "all", "bfloat16")
    position = np.arange(len(h), dtype=np.int32)
    for given in (h, h.bfloat16().float()):
        data = states_bytes(KeptStates(generation(0), keep, position, given.numpy()))
        back = parse_states(data, Path("x"))
        np.testing.assert_array_equal(back.h, h.bfloat16().float().numpy())
    assert data == states_bytes(KeptStates(generation(0), keep, position, given.numpy()))


def test_others_read_the_file_of_states(whole: Path) -> None:
    from safetensors.torch import load_file

    (file,) = (whole / "states").glob("*.bfloat16.safetensors")
    tensors = load_file(file)
    assert str(tensors["h"].dtype) == "torch.bfloat16"
    run = Run.open(whole)
    h = run.states(generation(1), "0.mid")
    np.testing.assert_array_equal(tensors["h"].float().numpy(), h)


def test_every_flipped_byte_is_seen(path: Path) -> None:
    for file in [*(path / "states").iterdir(), *(path / "parts").glob("*[0-9].[sf]*.parquet")]:
        data = file.read_bytes()
        for at in range(0, len(data), max(1, len(data) // 7)):
            file.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
            (problem,) = (p for p in verify(path) if p.file.startswith(("parts/", "states/")))
            assert "checksum" in problem.message
        file.write_bytes(data)
    assert verify(path) == []


def test_readers_of_format_1_refuse_it(whole: Path) -> None:
    """They know kind "texts" alone, and version 1."""
    lines = (whole / "manifest.jsonl").read_text().splitlines()
    kinds = [json.loads(line)["kind"] for line in lines]
    assert kinds == ["texts", "further", "further"]
    assert json.loads((whole / "run.json").read_bytes())["format_version"] == 2


def test_a_run_without_additions_stays_of_format_1(tmp_path: Path) -> None:
    with RunWriter.create(tmp_path / "run", header_of(range(1)), directions()) as writer:
        writer.commit([text_record(0)], [capture(0)])
    assert json.loads((tmp_path / "run" / "run.json").read_bytes())["format_version"] == 1
    assert b'"further"' not in (tmp_path / "run" / "manifest.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"further": [further(7, "gamma")]}, "no done text"),
        ({"further": [further(0, "alpha")]}, "expected scores of"),
        ({"further": [FurtherScores(generation(0), ("gamma",), np.zeros((5, 5, 1)))]}, "finite"),
        ({"states": [states(7, ALL)]}, "no text or no site"),
        ({"states": [states(1, Keep(("9.post",)))]}, "no text or no site"),
        ({"states": [KeptStates(generation(1), ALL, np.arange(5), np.zeros((5, D)))]}, "'all'"),
    ],
)
def test_mistakes_of_the_caller(path: Path, wrong: dict[str, list[object]], message: str) -> None:
    before = (path / "manifest.jsonl").read_bytes()
    with (
        RunWriter.resume(path, Run.open(path).header) as writer,
        pytest.raises(ValueError, match=message),
    ):
        writer.commit([], **wrong)  # type: ignore[arg-type]  # on purpose
    assert (path / "manifest.jsonl").read_bytes() == before
