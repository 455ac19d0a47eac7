"""The page of a block's inside in a real browser: numbers, keys, address, files, a second side."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.runs.build import generation
from tests.viewer.inside import BLOCK, EVIL, HEADS, PIECES, inside_run
from traitscope.runs import Run
from traitscope.runs.contributions import Contributions
from traitscope.viewer import make_app, open_runs
from traitscope.viewer.internals_api import rows_of

GEN = generation(0).id


def saved(page: Page, key: str) -> Path:
    with page.expect_download() as waited:
        page.keyboard.press(key)
    return Path(waited.value.path())


def at(page: Page, words: str) -> None:
    expect(page).to_have_url(re.compile(words))


def number(words: str) -> float:
    return float(words.replace("−", "-").replace("+", ""))


def test_who_wrote_the_trait(page: Page, serve: Callable[[Any], str], tmp_path: Path) -> None:
    folder = inside_run(tmp_path / "run")
    run = Run.open(folder)
    written = Contributions(run.internals(GEN, BLOCK), run.directions["alpha"])
    tokens = run.text(GEN).tokens
    here = serve(make_app(open_runs([folder])))

    # from the trajectory, at its token
    page.goto(f"{here}#/text/0/{GEN}?trait=alpha&token=7")
    page.get_by_role("link", name=f"inside block {BLOCK}").click()
    page.wait_for_selector(".account table")
    assert page.title() != "1" and page.locator("img").count() == 0  # markup stayed text
    assert EVIL in page.locator("h1").inner_text()
    assert EVIL in page.locator(".inside-words").inner_text()

    # the parts, their sum and the true change, as the maths has them
    def check(at: str) -> None:
        rows = rows_of(tokens, at)
        for i, account in enumerate(written.accounts(rows)):
            shown = page.locator(".account table").nth(i)
            for name, value in (
                ("sum of the parts", account.total),
                ("true change", account.change),
            ):
                cell = shown.locator("tr", has_text=name).locator("td")
                assert number(cell.inner_text()) == pytest.approx(value.mean(), abs=0.0051)
        heads = written.heads(rows).mean(axis=0)
        cells = page.locator(".heads tbody tr td:nth-of-type(1)").all_inner_texts()
        assert [number(cell) for cell in cells] == pytest.approx(list(heads), abs=0.0051)

    check("7")
    page.keyboard.press("o")  # of the answer
    expect(page.get_by_role("button", name="the answer")).to_have_attribute("aria-pressed", "true")
    at(page, r"over=response\[:\]")
    page.wait_for_selector("th:has-text('looked at most')")
    page.wait_for_load_state("networkidle")
    check("response[:]")

    # what was written has colours, both ways: on the words, on the map
    colours = page.locator(".tok").evaluate_all("all => all.map((t) => t.style.backgroundColor)")
    assert len({colour for colour in colours if colour}) > 2
    shades = page.locator(".map").evaluate(
        "(c) => new Set(new Uint32Array(c.getContext('2d').getImageData(80, 12, c.width - 100,"
        " 30).data.buffer)).size"
    )
    assert shades > 4

    # keys: head, token, neuron, trait; each in the address, and back undoes a deliberate one
    page.keyboard.press("ArrowDown")
    at(page, r"head=\d")
    page.keyboard.press("ArrowLeft")
    at(page, "token=6")
    page.keyboard.press("n")
    at(page, r"neuron=\d.*paint=neuron")
    expect(page.locator(".neurons tr[aria-selected=true]")).to_have_count(1)
    page.keyboard.press("t")
    at(page, "trait=beta")
    page.go_back()
    at(page, "trait=alpha")
    expect(page.get_by_role("button", name="alpha")).to_have_attribute("aria-pressed", "true")

    # the address alone brings the state back
    state = page.evaluate("location.hash")
    page.goto("about:blank")
    page.goto(here + state)
    page.wait_for_selector(".neurons tr[aria-selected=true]")
    assert page.evaluate("location.hash") == state

    # another capture beside it
    page.get_by_label("compare with").select_option(index=1)
    page.wait_for_selector("th:has-text('b − a') >> nth=0")
    other = Contributions(run.internals(generation(1).id, BLOCK), run.directions["alpha"])
    rows = rows_of(run.text(generation(1).id).tokens, "response[:]")
    apart = other.heads(rows).mean(axis=0) - written.heads(rows).mean(axis=0)
    cells = page.locator(".heads tbody tr td:nth-of-type(3)").all_inner_texts()
    assert [number(cell) for cell in cells] == pytest.approx(list(apart), abs=0.0051)

    page.get_by_label("tokens of b").fill("6")
    page.keyboard.press("Enter")
    at(page, "bat=6")
    page.wait_for_selector("th:has-text('b: token 6') >> nth=0")
    sixth = other.heads(rows_of(tokens, "6"))[0]
    cells = page.locator(".heads tbody tr td:nth-of-type(2)").all_inner_texts()
    assert [number(cell) for cell in cells] == pytest.approx(list(sixth), abs=0.0051)

    # files
    page.locator("h1").click()
    assert saved(page, "g").read_bytes().startswith(b"\x89PNG")
    table = list(csv.reader(io.StringIO(saved(page, "x").read_text("utf-8"))))
    assert len(table) == len(PIECES)  # without the first token, with a head line
    assert table[0][5] == "head 0 wrote of alpha"
    row = next(row for row in table if row[0] == "7")
    own = written.heads(rows_of(tokens, "7"))[0]
    assert [float(value) for value in row[5 : 5 + HEADS]] == pytest.approx(list(own), abs=1e-5)
    assert [row[2] for row in table[1:]] == list(PIECES[1:])


def test_a_file_that_leaves_tensors_out_is_said(
    page: Page, serve: Callable[[Any], str], tmp_path: Path
) -> None:
    """Nothing is asked for that is not there: the page has no error, and says why."""
    folder = inside_run(tmp_path / "bare", kind="bare")
    page.goto(f"{serve(make_app(open_runs([folder])))}#/internals/0/{GEN}/{BLOCK}?token=7")
    expect(page.locator(".account")).to_contain_text("head_to_score are not in the file")
    page.locator(".matrix").hover(position={"x": 30, "y": 30})  # attention is there
    expect(page.get_by_role("status")).to_contain_text("0 <s> → 0 <s>: 1.000")
