"""What tests of the viewer share: a test client that is let in, a server, and a real browser.

`serve(app)` listens on a free port in a thread.  `page` is a page of headless Chromium that fails
its test where a script fails, something is written to the console as an error, or anything is
asked of another host; it is skipped where the system has no Chromium.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from playwright.sync_api import Browser, Page, sync_playwright
from starlette.testclient import TestClient

from traitscope.viewer import make_app, open_runs

HERE = "http://127.0.0.1:8765"


def client_of(*folders: Path, token: str = "") -> TestClient:
    """Asks a viewer of these runs as a browser on this machine would."""
    return TestClient(make_app(open_runs(folders), token=token), base_url=HERE)


@pytest.fixture
def serve() -> Iterator[Callable[[Any], str]]:
    """Serves an application until the test ends; returns its address, with a slash at the end."""
    running: list[tuple[uvicorn.Server, threading.Thread]] = []

    def start(app: Any) -> str:
        config = uvicorn.Config(app, port=0, lifespan="off", ws="none", log_level="error")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        running.append((server, thread))
        deadline = time.monotonic() + 10
        while not server.started:
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.01)
        return f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"

    yield start
    for server, thread in running:
        server.should_exit = server.force_exit = True
        thread.join(10)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next((found for name in names if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("this system has no Chromium: pages are not tested in a browser")
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=quiet)
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Browser, serve: object) -> Iterator[Page]:
    """A page as wide as a small laptop's; see the module's words for what it does not forgive.

    It is closed before the servers are: what it still asks for would be refused.
    """
    context = chromium.new_context(viewport={"width": 1366, "height": 768}, accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(10_000)
    wrong: list[str] = []
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda asked: wrong.append(asked.url) if _foreign(asked.url) else None)
    yield page
    context.close()
    assert wrong == []


def _foreign(url: str) -> bool:
    return not url.startswith(("http://127.0.0.1:", "data:", "blob:", "about:"))
