"""The shell in a real browser: token, pages, keys, light and dark, back and forward."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import Page

from tests.report.planted import Text, planted
from traitscope.viewer import make_app, open_runs


def test_from_the_printed_url_to_a_run_and_back(
    page: Page, serve: Callable[[Any], str], tmp_path: Path
) -> None:
    for name in ("one", "two"):
        planted(tmp_path / name, [Text("Tea?")])
    here = serve(make_app(open_runs([tmp_path / "one", tmp_path / "two"]), token="let me in"))
    page.goto(f"{here}?token=let%20me%20in")
    page.get_by_role("link", name="two").click()
    page.wait_for_selector("h1:has-text('planted')")
    assert page.url == f"{here}#/run/1"  # no token in it
    page.keyboard.press("?")
    assert page.get_by_role("dialog").is_visible()
    page.keyboard.press("Escape")
    theme = page.evaluate("document.documentElement.dataset.theme")
    page.keyboard.press("d")
    assert page.evaluate("document.documentElement.dataset.theme") != theme
    page.go_back()
    page.wait_for_selector("h1:has-text('Runs')")
    page.go_forward()
    page.wait_for_selector("h1:has-text('planted')")
    page.goto(f"{here}#/nothing")
    page.wait_for_selector("[role=alert]:has-text('There is no page')")
