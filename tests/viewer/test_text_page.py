"""The trajectory page in a real browser: one cross-hair, states in the address, what is saved."""

from __future__ import annotations

import csv
import io
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import numpy as np
import pytest
from playwright.sync_api import Download, Page

from tests.viewer.texts import MARKUP, ODD, ODD_PROMPT, long_run, odd_run
from traitscope.core import Float32
from traitscope.runs import Run
from traitscope.viewer import make_app, open_runs

Serve = Callable[[Any], str]
MINUS = "\u2212"
READ = 6  # 2.post, half-way up four blocks: where the traits are read


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    odd_run(tmp_path / "run")
    return tmp_path / "run"


def text_of(run: Path, number: int = 0) -> str:
    return Run.open(run).generations()[number].generation.id


def z_of(run: Path, trait: str, number: int = 0) -> Float32:
    """z [T, S], the last prompt token by its own neutral numbers (as docs/format.md has it)."""
    opened = Run.open(run)
    text = opened.text(text_of(run, number))
    k, known = opened.traits.index(trait), opened.directions[trait]
    z = (text.score[:, :, k] - known.neutral_mean) / known.neutral_std
    last = text.tokens.n_prompt - 1
    z[last] = (text.score[last, :, k] - known.neutral_prompt_mean) / known.neutral_prompt_std
    z[:, ~known.direction.any(axis=1)] = np.nan
    return z


def opened(page: Page, here: str, run: Path, query: str = "", number: int = 0) -> None:
    page.goto(f"{here}#/text/0/{text_of(run, number)}{query}")
    page.wait_for_selector(".token-traits tr")


def shown(page: Page, trait: str) -> str:
    row = page.locator(".token-traits tr", has_text=trait)
    return row.locator(".num").inner_text()


def said(value: float) -> str:
    sign = MINUS if value < 0 else "+"
    return f"{sign}{abs(value):.2f}" if abs(value) < 10 else f"{sign}{abs(value):.1f}"


def query_of(page: Page) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(page.url.partition("?")[2]).items()}


def rested(page: Page, **expected: str) -> None:
    """Waits until the address says so: it follows the keys when they rest."""
    for _ in range(40):
        if expected.items() <= query_of(page).items():
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"expected {expected} in {page.url}")


def over_heat(page: Page, column: int, columns: int, site: int, sites: int) -> tuple[float, float]:
    """The middle of a cell of the heat map, on the screen."""
    box = page.locator(".cross").bounding_box()
    assert box is not None
    left, right, top, bottom = 62, 10, 8, 22  # FRAME of draw/heat.js
    x = left + (column + 0.5) * (box["width"] - left - right) / columns
    y = top + (sites - site - 0.5) * (box["height"] - top - bottom) / sites
    return box["x"] + x, box["y"] + y


def test_one_cross_hair_through_all(page: Page, serve: Serve, odd: Path) -> None:
    here = serve(make_app(open_runs([odd])))
    z, sites = z_of(odd, "alpha"), [site.name for site in Run.open(odd).sites]
    opened(page, here, odd)
    # it begins at prompt[-1], at the trait's own site
    assert page.locator(".tok-here").get_attribute("data-t") == str(ODD_PROMPT - 1)
    assert shown(page, "alpha") == said(z[ODD_PROMPT - 1, READ])

    # hovering a cell moves all of it, and leaving gives it back; the address stays
    columns = page.locator(".tok").count()
    before = page.url
    page.mouse.move(*over_heat(page, 3, columns, 7, len(sites)))
    page.wait_for_selector(".tok-here[data-t='5']")
    assert shown(page, "alpha") == said(z[5, 7])
    assert page.locator(".over .caption").inner_text().split("\n")[:2] == [
        "over tokens",
        "at 3.mid",
    ]
    page.mouse.move(5, 5)
    page.wait_for_selector(f".tok-here[data-t='{ODD_PROMPT - 1}']")
    assert page.url == before

    # a click pins, and is a step to go back from
    page.mouse.click(*over_heat(page, 3, columns, 6, len(sites)))
    rested(page, token="5", site=sites[6])
    page.locator(".tok[data-t='11']").click()
    rested(page, token="11", site=sites[6])
    page.mouse.move(5, 5)
    page.go_back()
    page.wait_for_selector(".tok-here[data-t='5']")
    page.go_forward()
    page.wait_for_selector(".tok-here[data-t='11']")
    assert shown(page, "alpha") == said(z[11, 6])

    # keys: tokens, sites; template tokens are passed over while they are hidden
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowRight")
    rested(page, token="12", site=sites[7])
    page.locator(".tok[data-t='20']").click()
    page.mouse.move(5, 5)
    page.keyboard.press("ArrowRight")
    rested(page, token="22")
    page.keyboard.press("h")
    page.wait_for_selector(".tok[data-t='21']")
    page.keyboard.press("ArrowLeft")
    rested(page, token="21", template="1")
    page.keyboard.press("Home")
    rested(page, token="0")


def test_every_state_is_in_the_address(page: Page, serve: Serve, odd: Path) -> None:
    here = serve(make_app(open_runs([odd])))
    opened(page, here, odd)
    page.get_by_role("button", name="beta", exact=True).click()
    page.locator("select").select_option(label="3.post")
    page.keyboard.press("ArrowUp")  # the last one already: the keys are the page's again
    page.keyboard.press("ArrowDown")
    rested(page, site="3.mid")
    page.keyboard.press("]")
    page.get_by_role("button", name="cosine").click()
    page.get_by_role("button", name="this text's").click()
    page.get_by_role("button", name="curve of alpha").click()
    for key in ("c", "m", "h", "+"):
        page.keyboard.press(key)
    page.locator(".tok[data-t='30']").click()
    state = {"trait": "beta", "site": "3.post", "as": "cosine", "scale": "text", "with": "alpha"}
    state |= {"token": "30", "change": "1", "settles": "1", "template": "1", "zoom": "1"}
    rested(page, **state)
    page.mouse.move(5, 5)
    score = Run.open(odd).scores(text_of(odd), as_="cosine")
    value = float(score.sel(trait="beta", site="3.post").values[30])
    assert shown(page, "beta") == f"{'+' if value >= 0 else MINUS}{abs(value):.3f}"
    notes = page.locator(".note").inner_text()
    assert "the value minus that of the token shown before it, at 3.post" in notes
    assert "within 0.5 z of the mean over the whole answer" in notes

    # the same link elsewhere shows the same
    words = page.locator(".token").inner_text(), page.locator(".ends").inner_text(), notes
    other = page.context.new_page()
    other.goto(page.url)
    other.wait_for_selector(".token-traits tr")
    there = other.locator(".token").inner_text(), other.locator(".ends").inner_text()
    assert (*there, other.locator(".note").inner_text()) == words
    assert other.get_by_role("button", name="cosine").get_attribute("aria-pressed") == "true"
    other.close()

    # a link that does not fit the text opens all the same
    opened(page, here, odd, "?trait=nothing&site=99.post&as=loud&token=9999&zoom=x&with=alpha,none")
    assert page.locator(".trait-name[aria-pressed=true]").inner_text() == "alpha"
    assert page.locator(".tok-here").get_attribute("data-t") == str(ODD_PROMPT - 1)


def test_colours_are_those_of_the_numbers(page: Page, serve: Serve, odd: Path) -> None:
    here = serve(make_app(open_runs([odd])))
    z = z_of(odd, "alpha")[:, READ]
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme)
        opened(page, here, odd, "?as=z")
        painted = _painted(page)
        neutral = {t for t, colour in painted.items() if colour is None}
        assert neutral == {t for t in painted if abs(z[t]) < 1}
        # orange is more, blue is less, and further is stronger
        for t, colour in painted.items():
            if colour is not None:
                assert (colour[0] > colour[2]) == (z[t] > 0), (t, z[t], colour)
    # raw and cosine have the same neutral tokens
    for as_ in ("raw", "cosine"):
        page.get_by_role("button", name=as_, exact=True).click()
        assert {t for t, colour in _painted(page).items() if colour is None} == neutral
    # where a trait has no direction nothing has a colour, and it is said
    page.locator("select").select_option(label="embed")
    assert page.locator(".tok-nothing").count() == len(painted)
    assert shown(page, "alpha") == "\u2013"


def _painted(page: Page) -> dict[int, tuple[int, ...] | None]:
    """The colour behind each token, None where it has none."""
    code = "nodes => nodes.map(node => [Number(node.dataset.t), node.style.backgroundColor])"
    pairs = page.locator(".tok").evaluate_all(code)
    return {
        t: tuple(int(part) for part in css[4:-1].split(",")) if css else None for t, css in pairs
    }


def test_what_comes_from_outside_is_text(page: Page, serve: Serve, odd: Path) -> None:
    here = serve(make_app(open_runs([odd])))
    opened(page, here, odd, "?token=5")
    assert page.locator(".tok[data-t='5']").inner_text() == MARKUP
    assert page.locator(".token-text").inner_text() == MARKUP
    assert page.locator(".page img, .page script, #trail img").count() == 0
    roles = page.locator(".turn-role").all_inner_texts()
    assert [role for role in roles if role != "template"] == [
        *("system", "user", "assistant", "user", "thinking", "tool", "assistant")
    ]
    assert page.locator(".tok", has_text="crossing").count() == 0  # the override stays in its token
    page.locator(".tok[data-t='22']").click()
    assert page.locator(".token-text").inner_text() == "U+202Egnissorc"
    # a failed text says why, in its own words
    page.keyboard.press("n")
    page.wait_for_selector(".problem")
    assert f"Too {MARKUP}." in page.locator(".problem").inner_text()
    assert MARKUP in page.locator(".page").inner_text()
    # the next one is all prompt; the trait that came later is not scored on it
    page.keyboard.press("n")
    page.wait_for_selector(".reading")
    # what is looked at goes along from text to text, over one that failed too
    page.keyboard.press("v")
    rested(page, token="4", **{"as": "cosine"})
    page.keyboard.press("p")
    page.wait_for_selector(".problem")
    page.keyboard.press("p")
    page.wait_for_selector(f".tok-here[data-t='{ODD_PROMPT - 1}']")
    assert page.get_by_role("button", name="cosine").get_attribute("aria-pressed") == "true"
    for _ in range(2):
        page.keyboard.press("n")
        page.wait_for_selector("h1:has-text('Nothing comes'), .problem")
    page.wait_for_selector(".reading")
    assert "mean of 0 tokens" in page.locator(".reading").inner_text()
    page.get_by_role("button", name="gamma", exact=True).click()
    assert "Not scored on this text yet" in page.locator(".reading-card").inner_text()
    assert page.title() != "owned"


def test_blocks_without_mid_and_a_long_text(page: Page, serve: Serve, tmp_path: Path) -> None:
    odd_run(tmp_path / "run", mid=False)
    long_run(tmp_path / "long", 2000, 40, ("alpha", "beta"))
    here = serve(make_app(open_runs([tmp_path / "run", tmp_path / "long"])))
    opened(page, here, tmp_path / "run")
    sites = ["embed", "0.post", "1.post", "2.post", "3.post"]
    assert page.locator("select option").all_inner_texts() == sites[::-1]
    page.goto(f"{here}#/text/1/{text_of(tmp_path / 'long')}?token=1500")
    page.wait_for_selector(".tok-here[data-t='1500']")
    assert (
        page.locator(".tok").count() == 1998 + 1
    )  # without the first token; the last of the prompt
    box, mark = (page.locator(name).bounding_box() for name in (".words", ".tok-here"))
    assert box is not None and mark is not None
    assert box["y"] <= mark["y"] and mark["y"] + mark["height"] <= box["y"] + box["height"]
    # closer: a part around the cross-hair, and back
    page.keyboard.press("+")
    page.keyboard.press("+")
    rested(page, zoom="2")
    rows = list(csv.reader(io.StringIO(saved(page, "x").decode())))
    assert [int(rows[1][0]), int(rows[-1][0])] == [1250, 1749]
    page.keyboard.press("Escape")
    page.wait_for_timeout(100)
    assert "zoom" not in query_of(page)


def saved(page: Page, key: str) -> bytes:
    with page.expect_download() as download:
        page.keyboard.press(key)
    value: Download = download.value
    return Path(value.path()).read_bytes()


def test_csv_and_png_are_what_is_shown(page: Page, serve: Serve, odd: Path) -> None:
    here = serve(make_app(open_runs([odd])))
    opened(page, here, odd, "?trait=beta&as=raw&with=alpha&template=1")
    rows = list(csv.reader(io.StringIO(saved(page, "x").decode(), newline="")))
    run = Run.open(odd)
    text = run.text(text_of(odd))
    head = ["position", "token_id", "text", "role", "part", "logprob"]
    sites = [site.name for site in run.sites]
    names = [f"{trait}.raw@{site}" for trait in ("beta", "alpha") for site in sites]
    assert rows[0] == head + names
    guarded = [f"'{own}" if own.startswith("\n") else own for own, _ in ODD]  # no formula begins so
    assert [row[2] for row in rows[1:]] == guarded and "'\n\n" in guarded
    numbers = [
        [np.float32(cell) if cell else np.float32("nan") for cell in r[6:]] for r in rows[1:]
    ]
    expected = np.concatenate([text.score[:, :, 1], text.score[:, :, 0]], axis=1)
    expected[:, len(sites) : len(sites) + 2] = np.nan  # alpha has no direction there
    assert np.array_equal(np.array(numbers), expected, equal_nan=True)

    picture = saved(page, "g")
    assert picture.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", picture[16:24])
    box = page.locator(".text-grid").bounding_box()
    assert box is not None and width == round(2 * (box["width"] + 32)) and height > 800


# --- the arithmetic, in the browser that runs it --------------------------------------------------


@pytest.fixture
def draw(page: Page, serve: Serve, tmp_path: Path) -> Callable[..., Any]:
    """Calls a function of draw/scale.js (or another module) with JSON values."""
    odd_run(tmp_path / "run")
    page.goto(serve(make_app(open_runs([tmp_path / "run"]))))

    def call(name: str, *values: Any, module: str = "draw/scale.js") -> Any:
        code = "([module, name, text]) => import(new URL(module, document.baseURI)).then((found) =>"
        code += " found[name](...JSON.parse(text, (_, v) => v === 'NaN' ? NaN : v)))"
        return page.evaluate(code, [f"static/{module}", name, json.dumps(values)])

    return call


def test_the_scale_is_symmetric_and_neutral_within_the_band(draw: Callable[..., Any]) -> None:
    colour = lambda value, z, as_="z": draw("colourOf", value, z, 4, as_) - 127  # noqa: E731
    assert [colour(z, z) for z in (0, 0.99, -0.99)] == [0, 0, 0]
    assert [colour(z, z) for z in (1.001, 4, 400)] == [1, 127, 127]
    assert [colour(-z, -z) for z in (1.001, 2.5, 4)] == [-colour(z, z) for z in (1.001, 2.5, 4)]
    assert colour(2.5, 2.5) == 64  # half-way between the band's edge and the end
    assert colour(3, 0.5, "raw") == 0 and colour(2, 1.5, "raw") == 64  # from 0, but for the band
    assert draw("colourOf", "NaN", "NaN", 4, "z") == -1


def test_percentiles_are_numpys(draw: Callable[..., Any]) -> None:
    values = np.random.default_rng(0).normal(size=37).tolist()
    for q in (0, 50, 99, 100):
        assert draw("percentile", values, q) == pytest.approx(np.percentile(values, q), abs=1e-12)
    assert draw("percentile", [1, "NaN", 3], 50) == 2
    assert draw("atLeast", 0.3, "z") == 2 and draw("atLeast", 0.3, "raw") == 0.3


def test_from_which_layer_on(draw: Callable[..., Any]) -> None:
    first = lambda *zs: draw("holdsFrom", zs)  # noqa: E731
    assert first(0, 0.5, 2, 3, 1.2) == 2
    assert first(2, 0.5, 2, 3) == 2  # what lies before a return into the band does not count
    assert first(2, 2, 2) == 0
    assert first(3, 3, 0.9) is None
    assert first(-2, -2, 2, 2) == 2  # another side is not the same
    assert first(-2, "NaN", -3) == 0  # no direction there: passed over
    assert first("NaN", "NaN") is None
    assert first() is None


def test_where_a_trait_settles_and_the_change_per_token(draw: Callable[..., Any]) -> None:
    # means so far: 4, 2, 2, 1.5, 1.5; the whole 1.5: within 0.5 from the second on
    z = [9, 4, 0, 2, 0, 1.5, 9]
    answer = [False, True, True, True, True, True, False]
    text = {"S": 1, "tokens": {"answer": answer}}
    measured = {"z": z, "value": z, "S": 1}
    found = draw("settles", text, measured, 0)
    assert (found["token"], found["after"], found["whole"]) == (2, 2, 1.5)
    assert found["means"] == [4, 2, 2, 1.5, 1.5]
    assert draw("settles", {"S": 1, "tokens": {"answer": []}}, measured, 0) is None
    steps = draw("velocity", measured, 0, [1, 2, 5])  # hidden tokens are passed over
    assert np.isnan(steps[0]) and steps[1:] == [-4, 1.5]


def test_a_turn_runs_as_its_first_letter_does(draw: Callable[..., Any]) -> None:
    direction = lambda words: draw("directionOf", words, module="draw/tokens.js")  # noqa: E731
    assert [direction(words) for words in ("مرحبا abc", "12. שלום", "…")] == ["rtl", "rtl", "ltr"]
    assert [direction(words) for words in ("abc مرحبا", "東京", "")] == ["ltr"] * 3


def test_a_window_of_the_text(draw: Callable[..., Any]) -> None:
    window = lambda *values: draw("windowOf", *values, module="pages/text_state.js")  # noqa: E731
    assert window(0, 100, 50) == {"from": 0, "to": 100}
    assert window(2, 100, 50) == {"from": 38, "to": 63}
    assert window(2, 100, 3) == {"from": 0, "to": 25}
    assert window(2, 100, 99) == {"from": 75, "to": 100}
    assert window(8, 5, 2) == {"from": 0, "to": 5}
