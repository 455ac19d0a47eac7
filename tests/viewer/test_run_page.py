"""The run's page in a real browser: what it says, the table, keys, addresses, a run that grows."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.report.planted import TRAITS, Text, planted
from tests.report.test_columns import alone
from tests.viewer.captures import FEW, MARKUP, add, run_of, varied
from traitscope.runs import Run, RunWriter
from traitscope.viewer import make_app, open_runs

Serve = Callable[[Any], str]


def rows(page: Page) -> list[list[str]]:
    """The cells of the rows that stand in the document."""
    found: list[list[str]] = page.evaluate(
        "[...document.querySelectorAll('tr[data-row]')]"
        ".map((row) => [...row.cells].map((cell) => cell.innerText))"
    )
    return found


def settled(page: Page, count: int) -> list[list[str]]:
    expect(page.locator("tr[data-row]:not(.waiting)")).to_have_count(count)
    return rows(page)


def number(cell: str) -> float | None:
    return None if cell == "·" else float(cell.replace("−", "-"))


def test_what_the_page_says_is_what_the_parts_hold(
    page: Page, serve: Serve, tmp_path: Path
) -> None:
    run = run_of(tmp_path / "run", FEW)
    page.goto(f"{serve(make_app(open_runs([tmp_path / 'run'])))}#/run/0?show=before,mean,max,last")
    shown = settled(page, 11)
    by_prompt = {row.prompt.text: row.generation.id for row in run.generations()}
    for cells in shown:
        prompt = cells[1].split("\n")[0]
        if "Question" not in prompt:
            continue
        said = [number(cell) for cell in cells[4:]]
        expected = [
            alone(run, by_prompt[prompt], trait)[name]
            for trait in TRAITS
            for name in ("before", "mean", "max", "last")
        ]
        assert said == pytest.approx(expected, abs=0.00501)
    expect(page.locator("ul.failed")).to_contain_text("Expected less")
    expect(page.locator(".traits")).to_contain_text("highest")
    # what was asked, said and tagged is text
    expect(page.locator(".captures bdi", has_text="<script>throw 1</script>").first).to_be_visible()
    assert page.locator("img").count() == 0
    assert "broken" not in page.title()
    assert page.get_by_role("option", name=MARKUP).first.text_content() is not None


def test_sort_search_filter_threshold_and_back(page: Page, serve: Serve, tmp_path: Path) -> None:
    run_of(tmp_path / "run", FEW)
    here = serve(make_app(open_runs([tmp_path / "run"])))
    page.goto(f"{here}#/run/0")
    settled(page, 11)
    page.get_by_role("button", name="max").nth(1).click()  # of the first trait, not the column's
    page.wait_for_url(f"{here}#/run/0?sort=-{TRAITS[0]}.max")
    page.wait_for_selector("th[aria-sort=descending]")
    shown = [number(cells[5]) for cells in settled(page, 11)]
    read = [value for value in shown if value is not None]
    assert read == sorted(read, reverse=True) and read[0] == 9.0
    page.get_by_label("set", exact=True).select_option("odd")
    settled(page, 4)
    page.keyboard.press("Escape")
    page.get_by_label("search").fill("question")
    assert {cells[1].split("\n")[0] for cells in settled(page, 2)} == {"Question 1?", "Question 3?"}
    page.get_by_text("threshold").click()
    page.get_by_label("threshold").fill("0.25")
    page.get_by_role("button", name="add").click()
    page.wait_for_url("**where=**")
    page.wait_for_selector(".chip")
    kept = settled(page, page.locator("tr[data-row]").count())
    assert all((number(cells[4]) or -9) >= 0.25 for cells in kept)
    address = page.url
    page.go_back()
    settled(page, 2)
    page.go_back()
    settled(page, 4)
    page.goto("about:blank")
    page.goto(address)  # a state can be sent to somebody else
    assert rows(page) == [] or len(rows(page)) <= 2
    settled(page, len(kept))
    assert page.get_by_label("search").input_value() == "question"
    with page.expect_download() as saved:
        page.get_by_role("button", name="CSV").click()
    with open(saved.value.path(), encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == len(kept)


def test_the_keyboard_goes_everywhere(page: Page, serve: Serve, tmp_path: Path) -> None:
    run_of(tmp_path / "run", FEW)
    here = serve(make_app(open_runs([tmp_path / "run"])))
    page.goto(f"{here}#/run/0")
    shown = settled(page, 11)
    for key in ("j", "j", "ArrowDown", "k"):
        page.keyboard.press(key)
    expect(page.locator("tr[aria-selected=true]")).to_contain_text(shown[2][1].split("\n")[0])
    page.keyboard.press("End")
    expect(page.locator("tr[aria-selected=true]")).to_contain_text("Too long?")
    page.keyboard.press("Home")
    page.keyboard.press("s")
    page.wait_for_selector("th[aria-sort=descending]")
    page.keyboard.press("x")
    page.wait_for_selector("th[aria-sort=descending]", state="detached")
    page.keyboard.press("/")
    page.keyboard.type("question 2")
    (only,) = settled(page, 1)
    page.keyboard.press("Escape")
    page.keyboard.press("Enter")
    generation = next(r for r in Run.open(tmp_path / "run").generations() if "2?" in r.prompt.text)
    page.wait_for_url(f"{here}#/text/0/{generation.generation.id}")
    page.wait_for_selector(".page-text .token")
    page.go_back()
    page.wait_for_selector(".page-run")
    assert settled(page, 1) == [only]


def test_thousands_of_rows_are_never_all_there(page: Page, serve: Serve, tmp_path: Path) -> None:
    many = [varied(n) for n in range(1500)]
    run_of(tmp_path / "run", many, a_part=500)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{serve(make_app(open_runs([tmp_path / 'run'])))}#/run/0")
    page.wait_for_selector("tr[data-row='0'] td.num")
    expect(page.locator(".said")).to_have_text("1500 captures")
    assert len(rows(page)) < 60
    page.keyboard.press("End")
    page.wait_for_selector("tr[data-row='1499'] td.num")
    assert "Question 1499?" in rows(page)[-1][1]
    page.locator(".scroll").evaluate("(box) => { box.scrollTop = 700 * 42; }")
    page.wait_for_selector("tr[data-row='705'] td.num")
    assert len(rows(page)) < 60
    tables = [url for url in asked if "/captures?" in url]
    assert 3 <= len(tables) <= 6 and all("limit=100" in url for url in tables)


def test_a_run_that_goes_on_is_followed(page: Page, serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "run"
    run = run_of(path, [varied(0)], missing=[varied(1), varied(2)])
    with RunWriter.resume(path, run.header) as writer:
        page.goto(f"{serve(make_app(open_runs([path])))}#/run/0")
        expect(page.locator(".badge").first).to_contain_text("going on")
        expect(page.locator("progress")).to_have_attribute("value", "1")
        add(writer, [varied(1)])
        expect(page.locator("progress")).to_have_attribute("value", "2")
        expect(page.locator(".newest li").first).to_contain_text("Question 1?")
        expect(page.locator("tr[data-row='1']")).to_contain_text("Question 1?")
        add(writer, [varied(2)])
        writer.event("finished")
    expect(page.locator(".badge").first).to_contain_text("finished")
    expect(page.locator("progress")).to_have_count(0)


def test_what_the_server_refuses_is_said_once(
    chromium: Browser, serve: Serve, tmp_path: Path
) -> None:
    run_of(tmp_path / "run", [varied(0)])
    (part,) = (tmp_path / "run" / "parts").glob("*.tokens.parquet")
    part.write_bytes(b"damaged")
    page = chromium.new_page()  # the browser itself writes refused requests to the console
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{serve(make_app(open_runs([tmp_path / 'run'])))}#/run/0")
    expect(page.locator(".nothing")).to_contain_text("checksum")
    expect(page.locator(".found .problem")).to_contain_text("checksum")
    page.wait_for_timeout(500)
    assert len([url for url in asked if "/captures?" in url]) == 1
    page.close()


def test_expectations_lead_to_their_texts(page: Page, serve: Serve, tmp_path: Path) -> None:
    texts = [Text("Tea?", z={TRAITS[0]: [2.0, 2.0]}), Text("Coffee?")]
    expected = {"trait": TRAITS[0], "margin": 1.0}
    planted(
        tmp_path / "run",
        texts,
        expect=[
            {**expected, "text": "Tea is firmer", "higher": "Tea?", "lower": "Coffee?"},
            {**expected, "text": "Coffee is firmer", "higher": "Coffee?", "lower": "Tea?"},
            {**expected, "text": "Cocoa is firmer", "higher": "Cocoa?", "lower": "Tea?"},
        ],
    )
    page.goto(f"{serve(make_app(open_runs([tmp_path / 'run'])))}#/run/0")
    panel = page.locator(".expected")
    expect(panel).to_contain_text("Expected: 1 of 3 held")
    expect(panel.locator("tr", has_text="Tea is firmer")).to_contain_text("✓")
    expect(panel.locator("tr", has_text="Tea is firmer")).to_contain_text("+2.00")
    expect(panel.locator("tr", has_text="Coffee is firmer")).to_contain_text("✗")
    expect(panel.locator("tr", has_text="Cocoa is firmer")).to_contain_text("not measured")
    link = panel.get_by_role("link", name="Tea is firmer").get_attribute("href") or ""
    first, second = (text.generation.id for text in texts)
    assert link == f"#/compare?a=0%2F{second}&b=0%2F{first}&trait={TRAITS[0]}"


def test_a_model_that_did_not_prove_exact_is_owned_up_to(
    page: Page, serve: Serve, tmp_path: Path
) -> None:
    check = {"name": "batched = alone", "difference": 0.5, "allowed": 1e-5, "held": False}
    unproven = {"checks": [check], "dtype": "float32", "device": "cpu"}
    planted(tmp_path / "run", [Text("Tea?")], events=[("unproven", unproven)])
    page.goto(f"{serve(make_app(open_runs([tmp_path / 'run'])))}#/run/0")
    warning = page.get_by_role("alert")
    expect(warning).to_contain_text("do not trust these numbers")
    expect(warning).to_contain_text("batched = alone: off by 5.0e-01")
