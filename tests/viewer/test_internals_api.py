"""What the page of a block's inside is sent: the file's numbers, sums that hold, and no more."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from starlette.testclient import TestClient

from tests.runs.build import directions, generation
from tests.viewer.conftest import client_of
from tests.viewer.inside import BLOCK, HEADS, N_PROMPT, NEURONS, PIECES, inside_run
from traitscope.runs import Run
from traitscope.runs.contributions import Contributions, pooled
from traitscope.viewer.internals_api import rows_of

GEN = generation(0).id
HERE = f"/api/runs/0/internals/{GEN}/{BLOCK}"
T = len(PIECES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return inside_run(tmp_path_factory.mktemp("runs") / "inside")


@pytest.fixture
def client(folder: Path) -> TestClient:
    return client_of(folder)


@pytest.fixture
def t(folder: Path) -> dict[str, NDArray[Any]]:
    return dict(Run.open(folder).internals(GEN, BLOCK).tensors)


def floats(client: TestClient, path: str, *shape: int) -> NDArray[np.float32]:
    said = client.get(f"{HERE}/{path}")
    assert said.status_code == 200, said.text
    return np.frombuffer(said.content, "<f4").reshape(shape)


def test_what_the_file_holds(client: TestClient) -> None:
    said = client.get(HERE).json()
    assert (said["heads"], said["neurons"], said["step"]) == (HEADS, NEURONS, 1)
    assert (said["site_before"], said["heads_write_to"], said["neurons_write_to"]) == (
        "0.post",
        "1.mid",
        "1.post",
    )
    assert said["traits"] == ["alpha", "beta"]
    assert "attention" in said["tensors"]


def test_parts_stand_beside_the_true_change(client: TestClient, t: dict[str, Any]) -> None:
    """Of one token and as a mean over the answer's content tokens."""
    mid, post = directions()["beta"].direction[-2:]
    for at, rows in (("7", [7]), ("response[:]", range(N_PROMPT, T)), ("0:7", range(1, 7))):
        said = client.get(f"{HERE}/account?trait=beta&at={at}").json()
        assert said["tokens"] == len(list(rows))
        first, second = said["accounts"]
        for account, before, after, v in (
            (first, "resid_pre", "resid_mid", mid),
            (second, "resid_mid", "resid_post", post),
        ):
            change = ((t[after] - t[before])[rows] @ v).mean()
            assert account["change"] == pytest.approx(change, abs=1e-5)
            assert account["total"] == pytest.approx(change, abs=1e-5)
            assert sum(part["value"] for part in account["parts"]) == pytest.approx(
                change, abs=1e-5
            )
            assert account["off"] < 1e-6
            assert all(abs(part["value"]) > 1e-3 for part in account["parts"])
        assert sum(said["heads"]) == pytest.approx(first["parts"][0]["value"], abs=1e-5)


def test_a_file_whose_numbers_were_changed_does_not_add_up(folder: Path) -> None:
    inside = Run.open(folder).internals(GEN, BLOCK)
    wrong = {**inside.tensors, "neuron_to_score": 1.1 * inside.tensors["neuron_to_score"]}
    written = Contributions(replace(inside, tensors=wrong), directions()["beta"])
    first, second = written.accounts(np.arange(T))
    assert np.abs(first.total - first.change).max() < 1e-5
    assert np.abs(second.total - second.change).max() > 0.01


def test_what_was_written_at_each_token(client: TestClient, t: dict[str, Any]) -> None:
    columns = floats(client, "tokens?trait=alpha", T, HEADS + 5)
    heads, attn_bias, neurons, mlp_bias = np.split(
        columns[:, :-2], [HEADS, HEADS + 1, HEADS + 2], 1
    )
    mid, post = directions()["alpha"].direction[-2:]
    np.testing.assert_allclose(heads.sum(1) + attn_bias[:, 0], t["attn_out"] @ mid, atol=1e-5)
    np.testing.assert_allclose((neurons + mlp_bias)[:, 0], t["mlp_out"] @ post, atol=1e-5)
    np.testing.assert_allclose(columns[:, -2], t["attn_out"] @ mid, atol=1e-5)
    np.testing.assert_allclose(columns[:, -1], t["mlp_out"] @ post, atol=1e-5)


def test_top_neurons(client: TestClient, t: dict[str, Any]) -> None:
    said = client.get(f"{HERE}/neurons?trait=beta&at=6&n=3").json()
    written = t["neurons"][6] * t["neuron_to_score"][1] * t["mlp_post_norm_scale"][6]
    order = np.argsort(-np.abs(written))[:3]
    assert [row["neuron"] for row in said["top"]] == order.tolist()
    np.testing.assert_allclose([row["contribution"] for row in said["top"]], written[order], 1e-5)
    assert said["all"] == pytest.approx(written.sum(), abs=1e-5)
    said = client.get(f"{HERE}/neurons?trait=beta&at=6&by=activation").json()
    order = np.argsort(-np.abs(t["neurons"][6]))
    assert [row["neuron"] for row in said["top"]] == order.tolist()
    activation, contribution = floats(client, "neuron/4?trait=beta", T, 2).T
    np.testing.assert_array_equal(activation, t["neurons"][:, 4])
    assert contribution[6] == pytest.approx(written[4], abs=1e-6)


def test_attention_is_the_files(client: TestClient, t: dict[str, Any]) -> None:
    np.testing.assert_array_equal(floats(client, "attention?at=6", HEADS, T), t["attention"][:, 6])
    np.testing.assert_array_equal(floats(client, "attention/1", T, T), t["attention"][1])
    mean = t["attention"][:, N_PROMPT:].mean(axis=1)
    np.testing.assert_allclose(floats(client, "attention?at=response[:]", HEADS, T), mean, 1e-6)
    carried = floats(client, "carried?at=6&trait=beta", HEADS, T)
    heads = floats(client, "tokens?trait=beta", T, HEADS + 5)[6, :HEADS]
    np.testing.assert_allclose(carried.sum(axis=1), heads, atol=1e-5)


def test_one_head_of_a_long_text_is_pooled(folder: Path) -> None:
    inside = Run.open(folder).internals(GEN, BLOCK)
    matrix, step = pooled(inside, 1, 4)
    assert (step, matrix.shape) == (3, (3, 3))
    own = np.asarray(inside.tensors["attention"][1])
    assert matrix[2, 1] == own[6:9, 3:6].max()
    assert matrix[0, 2] == 0


def test_only_what_is_touched_is_read(folder: Path) -> None:
    """Tensors are mapped: a long text's [heads, T, T] is not read for one row of it."""
    for tensor in Run.open(folder).internals(GEN, BLOCK).tensors.values():
        while isinstance(tensor, np.ndarray) and not isinstance(tensor, np.memmap):
            tensor = tensor.base
        assert isinstance(tensor, np.memmap)


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        (f"/api/runs/0/internals/{GEN}/0", 404, "but the run has 1"),
        (f"/api/runs/0/internals/{GEN}/١", 404, "number of a block"),
        (f"/api/runs/0/internals/{GEN}/-1", 404, "number of a block"),
        ("/api/runs/0/internals/..%2f..%2frun.json/1", 404, ""),
        ("/api/runs/0/internals/%2e%2e/1", 404, ""),
        ("/api/runs/0/internals/x-0/1", 404, "but the run has none"),
        (f"/api/runs/5/internals/{GEN}/1", 404, "open runs"),
        (f"{HERE}/account?trait=../alpha", 400, "trait: expected one of alpha, beta"),
        (f"{HERE}/account?at={T}", 400, f"from 0 to {T - 1}"),
        (f"{HERE}/account?at=-1", 400, "at: expected a token"),
        (f"{HERE}/account?at=0:1", 404, "there are none"),
        (f"{HERE}/neurons?n=501", 400, "from 1 to 500"),
        (f"{HERE}/neurons?by=size", 400, "activation, contribution"),
        (f"{HERE}/neuron/6", 404, "from 0 to 5"),
        (f"{HERE}/attention/2", 404, "from 0 to 1"),
        (f"{HERE}/attention/%2e%2e", 404, ""),
    ],
)
def test_what_is_not_there_is_one_sentence(
    client: TestClient, path: str, status: int, words: str
) -> None:
    said = client.get(path)
    assert said.status_code == status
    assert words in said.json()["error"]


def test_tensors_that_a_file_leaves_out(tmp_path: Path) -> None:
    client = client_of(inside_run(tmp_path / "bare", kind="bare"))
    assert client.get(HERE).json()["tensors"] == ["attention", "neurons"]
    assert client.get(f"{HERE}/attention?at=3").status_code == 200
    said = client.get(f"{HERE}/account")
    assert said.status_code == 404
    assert "head_to_score are not in the file" in said.json()["error"]


def test_a_span_takes_content_tokens(folder: Path) -> None:
    tokens = Run.open(folder).text(GEN).tokens
    assert rows_of(tokens, "0").tolist() == [0]  # a single token may be any
    assert rows_of(tokens, "0:3").tolist() == [1, 2]
    assert rows_of(tokens, None).tolist() == list(range(N_PROMPT, T))
    assert rows_of(tokens, "prompt[-1]").tolist() == [N_PROMPT - 1]
