"""Two texts, two runs and a run's traits in a real browser: numbers, keys, addresses, files."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from tests.report.planted import planted
from tests.runs.build import generation
from tests.viewer.inside import EVIL, N_PROMPT, PIECES, inside_run
from tests.viewer.test_compare_api import DOUBT, PROMPTS, answers, name
from traitscope.runs import Run
from traitscope.viewer import make_app, open_runs

Serve = Callable[[Any], str]
GEN, OTHER = generation(0).id, generation(1).id


def at(page: Page, words: str) -> None:
    expect(page).to_have_url(re.compile(words))


def saved(page: Page, key: str) -> Path:
    with page.expect_download() as waited:
        page.keyboard.press(key)
    return Path(waited.value.path())


def rows(path: Path) -> list[list[str]]:
    return list(csv.reader(io.StringIO(path.read_text("utf-8"))))


def number(words: str) -> float:
    return float(words.replace("−", "-").replace("+", ""))


def test_two_texts_beside_one_another(page: Page, serve: Serve, tmp_path: Path) -> None:
    folder = inside_run(tmp_path / "run")
    run = Run.open(folder)
    z = [run.scores(g, as_="z").values for g in (GEN, OTHER)]
    here = serve(make_app(open_runs([folder])))

    # found by its words, chosen by a key
    page.goto(f"{here}#/compare?a=0/{GEN}&trait=beta")
    page.wait_for_selector(".pick tbody a")
    page.keyboard.press("/")
    page.keyboard.type("onerror")
    page.keyboard.press("Escape")
    page.wait_for_selector("text=1 texts.")
    page.keyboard.press("Enter")
    page.wait_for_selector(".pair-table .chosen")
    assert page.title() != "1" and page.locator("img").count() == 0
    assert EVIL in page.locator(".pair-words .card").nth(1).inner_text()

    # the token under the cross-hair: both sides and b - a, as the run has them
    page.keyboard.press("t")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowUp")
    at(page, rf"at={N_PROMPT}\b")
    at(page, "site=1.mid")  # above 0.post, the traits' own
    for trait, k in (("alpha", 0), ("beta", 1)):
        cells = page.locator(".pair-table").first.locator("tr", has_text=trait).locator("td")
        a, b = (side[N_PROMPT, 3, k] for side in z)
        shown = [number(words) for words in cells.all_inner_texts()[1:]]
        assert shown == pytest.approx([a, b, b - a], abs=0.011)

    # hovering moves the cross-hair, leaving gives it back, back undoes a choice
    state = page.evaluate("location.hash")
    page.locator(".pair-words .card").nth(1).locator(".tok").last.hover()
    expect(page.locator(".caption", has_text="over sites")).to_contain_text(
        f"token {len(PIECES) - 1} of a"
    )
    page.locator("h2").first.hover()
    expect(page.locator(".caption", has_text="over sites")).to_contain_text(
        f"token {N_PROMPT} of a"
    )
    page.keyboard.press("v")
    at(page, "as=cosine")
    page.go_back()
    at(page, "as=z")
    page.goto("about:blank")
    page.goto(here + state)
    page.wait_for_selector(".pair-table .chosen")
    assert page.evaluate("location.hash") == state

    # files: the difference is that of the run, at every site
    assert saved(page, "g").read_bytes().startswith(b"\x89PNG")
    head, *table = rows(saved(page, "x"))
    chosen = 0 if "trait=alpha" in state else 1
    own = z[1][N_PROMPT, :, chosen] - z[0][N_PROMPT, :, chosen]
    row = next(row for row in table if row[0] == str(N_PROMPT))
    mine = [float(row[head.index(f"b-a@{site}")]) for site in run.sites]
    np.testing.assert_allclose(mine, own, atol=1e-5)
    page.keyboard.press("s")
    at(page, rf"a=0/{OTHER}&b=0/{GEN}")


def test_two_runs_and_the_traits_of_one(page: Page, serve: Serve, tmp_path: Path) -> None:
    planted(tmp_path / "a", answers(0.0))
    planted(tmp_path / "b", answers(1.5, samples=1))
    here = serve(make_app(open_runs([tmp_path / "a", tmp_path / "b"])))
    page.goto(f"{here}#/compare")
    page.wait_for_selector("select")
    page.keyboard.press("Enter")
    at(page, r"#/compare\?a=0&b=1")
    row = page.locator(".runs-grid table").first.locator("tr", has_text="doubt")
    expect(row).to_contain_text("+1.50")
    expect(page.locator(".runs-page")).to_contain_text("never a token: 8 responses of 8 prompts")
    row.click()
    at(page, "trait=doubt")
    page.keyboard.press("w")
    at(page, "window=before")
    page.go_back()
    pressed = page.locator(".runs-page .controls button[aria-pressed=true]")
    expect(pressed).to_contain_text("answer")
    head, *table = rows(saved(page, "x"))
    line = next(row for row in table if row[0] == name(PROMPTS[2]))
    doubt = DOUBT[PROMPTS[2], 0]
    assert float(line[head.index("b.doubt")]) == pytest.approx(doubt + 1.5, abs=1e-5)
    page.keyboard.press("ArrowDown")
    at(page, "point=1")
    page.keyboard.press("Enter")  # the two texts beside one another
    page.wait_for_selector(".pair-table")

    page.goto(f"{here}#/correlation/0")
    z = np.array([[DOUBT[p, s], -DOUBT[p, s] + s] for p in PROMPTS for s in range(2)])
    r = float(np.corrcoef(z.T)[0, 1])
    cell = page.locator(".matrix-table tbody tr").first.locator("td").nth(1)
    expect(cell).to_contain_text(f"{r:+.2f}".replace("-", "−"))
    expect(page.locator(".runs-page")).to_contain_text(
        "never a token: n = 16 responses of 8 prompts"
    )
    page.keyboard.press("r")
    page.keyboard.press("r")
    at(page, "of=cosine")
    page.keyboard.press("ArrowRight")
    at(page, "x=doubt")
    page.go_back()
    at(page, "x=firmness")
    assert saved(page, "g").read_bytes().startswith(b"\x89PNG")
    assert len(rows(saved(page, "x"))) == 5
    page.locator("canvas").hover()
    assert page.locator("img").count() == 0
