"""Who is let in: token, cookie, Host, Origin, method; and the headers of every answer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests.report.planted import Text, planted
from tests.viewer.conftest import HERE, client_of
from traitscope.viewer import cookie_of, make_app, open_runs
from traitscope.viewer.guard import HEADERS

TOKEN = "a-token-of-the-tests"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    planted(tmp_path / "run", [Text("Tea?")])
    return tmp_path / "run"


@pytest.fixture
def client(run: Path) -> TestClient:
    return client_of(run, token=TOKEN)


@pytest.mark.parametrize("path", ["/", "/api/runs", "/static/app.js", "/nothing"])
def test_without_the_token_nothing_is_shown(client: TestClient, path: str) -> None:
    for asked in (path, f"{path}?token=", f"{path}?token=another", f"{path}?token={TOKEN}x"):
        said = client.get(asked)
        assert said.status_code == 401
        assert "traitscope view" in said.text
        assert "planted" not in said.text


def test_a_cookie_that_is_not_ours_opens_nothing(client: TestClient) -> None:
    name, _ = cookie_of(TOKEN)
    for value in ("", TOKEN, cookie_of("another")[1]):
        client.cookies.set(name, value)
        assert client.get("/api/runs").status_code == 401


def test_the_token_is_kept_in_a_cookie_and_leaves_the_address(client: TestClient) -> None:
    first = client.get(f"/?token={TOKEN}", follow_redirects=False)
    assert (first.status_code, first.headers["location"]) == (303, "./")
    (cookie,) = first.headers.get_list("set-cookie")
    assert "HttpOnly" in cookie and "SameSite=lax" in cookie
    assert "Path" not in cookie  # the browser takes the page's own: a proxy serves others beside it
    assert TOKEN not in cookie
    assert client.get("/").status_code == 200  # with the cookie alone
    assert client.get("/api/runs").json()["runs"][0]["name"] == "planted"


def test_two_viewers_do_not_share_a_cookie() -> None:
    assert cookie_of("one")[0] != cookie_of("two")[0]


def test_a_script_may_send_the_token_with_each_request(client: TestClient) -> None:
    assert client.get(f"/api/runs?token={TOKEN}").status_code == 200
    assert "set-cookie" not in client.get(f"/api/runs?token={TOKEN}").headers


def test_without_a_token_asked_for_everyone_is_let_in(run: Path) -> None:
    assert client_of(run).get("/api/runs").status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8765",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "192.168.1.5:8765",
        "localhost:8765@evil.example",
        "0.0.0.0:8765",
        "[::]:8765",
        "",
        "2130706433",
    ],
)
def test_another_host_is_refused(run: Path, host: str) -> None:
    said = client_of(run).get("/api/runs", headers={"host": host})
    assert said.status_code == 403
    assert "--allow-host" in said.json()["error"]


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:1", "127.0.0.1", "127.8.9.1:80", "[::1]:8765", "localhost.:8765"],
)
def test_loopback_names_are_answered(run: Path, host: str) -> None:
    assert client_of(run).get("/api/runs", headers={"host": host}).status_code == 200


def test_a_named_host_is_answered_and_no_other(run: Path) -> None:
    app = make_app(open_runs([run]), hosts=frozenset({"hub.example"}))
    client = TestClient(app, base_url=HERE)
    assert client.get("/api/runs", headers={"host": "hub.example:443"}).status_code == 200
    assert client.get("/api/runs", headers={"host": "a.hub.example"}).status_code == 403


def test_two_hosts_at_once_are_refused(run: Path) -> None:
    hosts = [("host", "127.0.0.1"), ("host", "evil.example")]
    assert client_of(run).get("/api/runs", headers=hosts).status_code == 403


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1", "", "x"])
def test_a_foreign_page_is_refused(run: Path, origin: str) -> None:
    said = client_of(run).get("/api/runs", headers={"origin": origin})
    assert said.status_code == 403
    assert not any(name.startswith("access-control") for name in said.headers)


def test_the_viewers_own_page_is_no_foreign_one(run: Path) -> None:
    said = client_of(run).get("/api/runs", headers={"origin": HERE})
    assert said.status_code == 200
    assert not any(name.startswith("access-control") for name in said.headers)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_nothing_can_be_changed(client: TestClient, method: str) -> None:
    for path in ("/", "/api/runs"):
        said = client.request(method, f"{path}?token={TOKEN}")
        assert (said.status_code, said.headers["allow"]) == (405, "GET, HEAD")


def test_head_is_get_without_the_body(client: TestClient) -> None:
    said = client.head(f"/api/runs?token={TOKEN}")
    assert (said.status_code, said.content) == (200, b"")


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/", {}),
        ("/api/runs", {}),
        ("/api/runs/99", {}),
        ("/static/app.js", {}),
        ("/nothing", {}),
        ("/", {"host": "evil.example"}),
    ],
)
def test_every_answer_says_how_it_may_be_used(
    run: Path, path: str, headers: Mapping[str, str]
) -> None:
    said = client_of(run).get(path, headers=headers)
    for name, value in HEADERS.items():
        assert said.headers[name] == value
    assert "server" not in said.headers


@pytest.mark.parametrize(
    "path",
    [
        "/static/../server.py",
        "/static/..%2fserver.py",
        "/static/%2e%2e/server.py",
        "/static/%2e%2e%2fserver.py",
        "/static/..%5cserver.py",
        "/static//etc/passwd",
        "/static/%2fetc%2fpasswd",
        "/static/pages/../../server.py",
        "/static/",
        "/static/pages",
        "/static/app.js%00.html",
        "/../run.json",
        "/run.json",
    ],
)
def test_no_path_leads_to_another_file(run: Path, path: str) -> None:
    said = client_of(run).get(path)
    assert said.status_code == 404
    assert set(said.json()) == {"error"}


@pytest.mark.parametrize(
    "number", ["1", "-1", "00000000000001", "x", "0.0", "٣", "0%2f..", "..%2f0", "%00", "1e3"]
)
def test_a_run_that_was_not_listed_is_not_served(run: Path, number: str) -> None:
    said = client_of(run).get(f"/api/runs/{number}")
    assert said.status_code == 404
    assert set(said.json()) == {"error"}
