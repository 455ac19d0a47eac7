"""The HTML report in a browser: opened from the disk, with the network off."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.report.planted import TRAITS, Text, planted
from tests.viewer.texts import MARKUP, odd_run
from traitscope.report import summarise
from traitscope.report.html import html
from traitscope.report.save import save
from traitscope.runs import Run

INKED = """id => {
  const canvas = document.getElementById(id);
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return new Set(new Uint32Array(data.buffer)).size;
}"""


@pytest.fixture
def offline(chromium: Browser) -> Iterator[Page]:
    """A page without network that fails its test for any error, and for asking for anything."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, offline=True)
    page = context.new_page()
    page.set_default_timeout(10_000)
    wrong: list[str] = []
    page.on("console", lambda said: wrong.append(said.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda r: None if r.is_navigation_request() else wrong.append(r.url))
    yield page
    context.close()
    assert wrong == []


def written(run: Run, path: Path) -> str:
    save(path, html(summarise(run), run).text)
    return path.as_uri()


def planted_report(tmp_path: Path) -> str:
    texts = [
        Text(
            "Firm?",
            (" Yes", " indeed"),
            z={TRAITS[0]: [4.0, 2.0], TRAITS[1]: [-3.0, 0.0]},
            before={TRAITS[0]: 2.0},
        ),
        Text("Loose?", (" Maybe",), z={TRAITS[0]: [-2.0]}),
    ]
    return written(planted(tmp_path / "run", texts), tmp_path / "night.html")


def test_it_opens_shows_and_follows_the_keys(tmp_path: Path, offline: Page) -> None:
    offline.goto(planted_report(tmp_path))
    assert offline.title() == "planted · traitscope"
    for canvas in ("heat", "legend", "over-tokens", "over-sites"):
        assert offline.evaluate(INKED, canvas) > 3, f"something is drawn on {canvas}"
    reading = offline.locator("#reading")
    assert (
        reading.inner_text()
        == "firmness, z at 1.post: +2.00 before a word is written, +3.00 over the answer"
    )
    offline.locator("#trajectories").scroll_into_view_if_needed()
    assert "token 2," in offline.locator("#token-about").inner_text()
    offline.keyboard.press("ArrowRight")
    rows = offline.locator("#token-traits tr")
    assert "token 3," in offline.locator("#token-about").inner_text()
    assert rows.nth(0).inner_text().split() == ["firmness", "+4.00"]
    offline.keyboard.press("t")
    assert reading.inner_text().startswith("doubt, z at 1.post:")
    offline.keyboard.press("v")
    assert rows.nth(1).inner_text().split() == ["doubt", "\u22123.00", "\u22120.001"]
    offline.keyboard.press("n")
    assert offline.locator("#words").inner_text().split()[-1] == "Maybe"
    offline.wait_for_url("**as=cosine*")
    seen = offline.url
    offline.reload()
    assert offline.url == seen
    assert offline.locator("#trait").input_value() == "1"
    assert offline.locator("#words").inner_text().split()[-1] == "Maybe"


def test_a_link_in_a_table_opens_the_text_and_a_click_pins(tmp_path: Path, offline: Page) -> None:
    offline.goto(planted_report(tmp_path))
    offline.get_by_role("link", name="Loose?").first.click()
    expect(offline.locator("#words")).to_contain_text("Maybe")  # what follows a link comes later
    assert offline.locator("#words").inner_text().split()[-1] == "Maybe"
    offline.locator("#words .tok", has_text="Maybe").click()
    assert "token 3," in offline.locator("#token-about").inner_text()
    box = offline.locator("#cross").bounding_box()
    assert box is not None
    offline.mouse.click(box["x"] + box["width"] - 20, box["y"] + 12)  # the last site, on top
    offline.mouse.move(0, 0)
    assert "at 2.post" in offline.locator("#token-about").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_odd_texts_stay_text(tmp_path: Path, offline: Page, scheme: str) -> None:
    odd_run(tmp_path / "run")
    offline.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    offline.goto(written(Run.open(tmp_path / "run"), tmp_path / "odd.html"))
    assert "owned" not in offline.title()
    offline.check("#template")
    assert MARKUP in offline.locator("#words").inner_text()
    assert offline.locator("#words script, #words img, h1 script").count() == 0


def test_on_paper_it_is_light_and_everything_is_open(tmp_path: Path, offline: Page) -> None:
    texts = [Text(f"Prompt {i}?", (" so",), z={TRAITS[0]: [i / 10]}) for i in range(12)]
    offline.emulate_media(color_scheme="dark")
    offline.goto(written(planted(tmp_path / "run", texts), tmp_path / "night.html"))
    assert not offline.get_by_text("Prompt 6?").first.is_visible()
    offline.pdf(path=tmp_path / "night.pdf")
    assert (tmp_path / "night.pdf").stat().st_size > 10_000
    assert offline.get_by_text("Prompt 6?").first.is_visible()
    assert offline.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 24, 27)"
