"""The HTML report: one file, nothing fetched, text that stays text, the run's own numbers."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.report.planted import SITES, TRAITS, Text, planted
from traitscope.errors import InputError
from traitscope.report import summarise
from traitscope.report.bundle import bundle
from traitscope.report.html import Page, html
from traitscope.report.save import HTML_MARK, check, save
from traitscope.report.trajectory import script_json
from traitscope.runs import Run

EVIL = (
    "</script><script>alert(1)</script><img src=x onerror=alert(1)> \u2028 ]]> <!-- ${x} {{ 7*7 }}"
)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


def many(count: int, words: int = 1) -> list[Text]:
    said = [f" w{i}" for i in range(words)]
    return [Text(f"Prompt {i}?", said, z={TRAITS[0]: [i / 10] * words}) for i in range(count)]


def page_of(run: Run, **options: Any) -> Page:
    return html(summarise(run), run, **options)


def data_of(page: Page) -> dict[str, Any]:
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page.text)
    found: dict[str, Any] = json.loads(data)
    return found


def test_hostile_text_is_never_markup(tmp_path: Path) -> None:
    text = Text(EVIL, (EVIL,), z={TRAITS[0]: [9.0]}, label=EVIL)
    expect = [{"text": EVIL, "trait": TRAITS[0], "higher": EVIL, "lower": EVIL}]
    run = planted(tmp_path / "run", [text, Text("no", error=EVIL)], expect=expect)
    page = page_of(run)
    assert page.text.count("<script") == page.text.count("</script>") == 2
    assert "<img" not in page.text
    assert "{{ 7*7 }}" in page.text and "49" not in re.findall("<h1>.*", page.text)[0]
    (one,) = data_of(page)["texts"]
    assert one["tokens"]["text"][3] == EVIL
    assert "\u2028" not in page.text


def test_json_in_a_script_cannot_end_it() -> None:
    said = script_json({"a": "</script><!--&\u2028\u2029é"})
    assert not re.search("[<>&]", said) and said.isascii()
    assert json.loads(said) == {"a": "</script><!--&\u2028\u2029é"}


def test_nothing_may_be_fetched_and_only_its_own_script_runs(tmp_path: Path) -> None:
    page = page_of(planted(tmp_path / "run", many(3))).text
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="(.*?)">', page)
    assert policy.startswith("default-src 'none';") and "unsafe-eval" not in policy
    (script,) = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert not re.search(r"""(?:src|href)=["'](?!#|data:)""", page), "no address but its own places"
    assert not re.search(r"https?://", page)


def test_its_numbers_are_those_in_the_parts(tmp_path: Path) -> None:
    run = planted(tmp_path / "run", many(4, words=3))
    rows = pq.read_table(tmp_path / "run" / "parts" / "00001.tokens.parquet").to_pylist()
    texts = data_of(page_of(run))["texts"]
    assert len(texts) == 4
    for text in texts:
        mine = [row for row in rows if row["generation"] == text["generation"]]
        numbers = np.frombuffer(base64.b64decode(text["numbers"]), dtype="<f4")
        norm, score = np.split(numbers, [len(mine) * len(SITES)])
        assert np.array_equal(norm, np.array([row["norm"] for row in mine], np.float32).ravel())
        score = score.reshape(len(mine), len(SITES), len(TRAITS))
        for k, trait in enumerate(TRAITS):
            expected = np.array([row[f"score.{trait}"] for row in mine], np.float32)
            assert np.array_equal(score[:, :, k], expected)


def test_readings_are_those_of_the_tables(tmp_path: Path) -> None:
    run = planted(
        tmp_path / "run", [Text("Up?", (" a",), z={TRAITS[0]: [3.0]}, before={TRAITS[0]: 1})]
    )
    page = page_of(run)
    (text,) = data_of(page)["texts"]
    assert text["readings"][0] == [pytest.approx(1.0), pytest.approx(3.0)]
    assert '<td class="num more">+3.00</td>' in page.text


@pytest.mark.parametrize("most", [0.15, 0.2, 1.0])
def test_the_file_stays_below_its_limit_and_says_what_is_left_out(
    tmp_path: Path, most: float
) -> None:
    run = planted(tmp_path / "run", many(60, words=60))
    page = page_of(run, max_mb=most)
    assert len(page.text.encode()) <= most * 1e6
    assert len(page.shown) + len(page.left_out) == 60
    assert [text["generation"] for text in data_of(page)["texts"]] == [
        row.generation.id for row in page.shown
    ]
    if most < 1:
        assert page.shown and page.left_out
        assert f"Left out to keep this file small: {len(page.left_out)} texts: “" in page.text
    else:
        assert not page.left_out and "Left out" not in page.text


def test_long_words_count_as_well(tmp_path: Path) -> None:
    texts = [Text(f"{i} {'long ' * 4000}?", (" so",)) for i in range(20)]
    page = page_of(planted(tmp_path / "run", texts), max_mb=0.4)
    assert len(page.text.encode()) <= 400_000
    assert page.shown and page.left_out


def test_what_the_report_talks_about_comes_first(tmp_path: Path) -> None:
    page = page_of(planted(tmp_path / "run", many(30)))
    names = [row.prompt.text for row in page.shown]
    assert names[:4] == ["Prompt 29?", "Prompt 28?", "Prompt 1?", "Prompt 0?"]
    assert len(names) == 30


@pytest.mark.parametrize("by", ["id", "prompt", "label", "words"])
def test_captures_are_chosen_by_any_of_their_names(tmp_path: Path, by: str) -> None:
    texts = [Text("Tea?", sample=i) for i in range(3)] + [Text("Milk?", label="milk")]
    run = planted(tmp_path / "run", texts)
    tea = texts[0].generation
    name = {"id": f"{tea.prompt_id}-1", "prompt": tea.prompt_id, "label": "milk", "words": "Tea?"}[
        by
    ]
    shown = [row.generation.sample for row in page_of(run, captures=[name, name]).shown]
    assert shown == {"id": [1], "prompt": [0, 1, 2], "label": [0], "words": [0, 1, 2]}[by]


def test_a_capture_that_is_not_there(tmp_path: Path) -> None:
    run = planted(tmp_path / "run", [Text("Tea?"), Text("Milk?", error="Too long.")])
    with pytest.raises(InputError, match=r"got 'Teas\?'.* Did you mean 'Tea\?'"):
        page_of(run, captures=["Teas?"])
    with pytest.raises(InputError, match=r"'Milk\?' failed: Too long\."):
        page_of(run, captures=["Milk?"])


@pytest.mark.parametrize("texts", [[], [Text("no", error="Too long.")], many(1), many(250)])
def test_runs_small_and_large(tmp_path: Path, texts: Sequence[Text]) -> None:
    page = page_of(planted(tmp_path / "run", texts, missing=[Text("Later")], events=()))
    done = sum(not text.error for text in texts)
    assert len(page.shown) == done
    assert ("None: no text is done." in page.text) == (done == 0)
    assert ("and 42 more" in page.text) == (done == 250)


# --- the file ------------------------------------------------------------------------------------


def test_an_earlier_report_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "night.html"
    assert check(path) is False
    text = page_of(planted(tmp_path / "run", many(2))).text
    assert save(path, text) == path.stat().st_size
    assert check(path) is True
    save(path, text)
    path.write_text("my own page")
    for refuse in (check, lambda p: save(p, text)):
        with pytest.raises(InputError, match=r"is something else\. Choose another name"):
            refuse(path)
    assert path.read_text() == "my own page"
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["night.html"]


@pytest.mark.parametrize(
    ("name", "said"),
    [(".", "got the folder"), ("no/x.html", "there is none"), ("/dev/null", "device")],
)
def test_places_that_cannot_be(tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        check(tmp_path / name)


def test_the_mark_is_where_it_is_looked_for(tmp_path: Path) -> None:
    text = page_of(
        planted(tmp_path / "run", [Text(EVIL * 50, label=EVIL * 50), *many(50, 50)])
    ).text
    assert HTML_MARK in text[:4096]


# --- the bundler ---------------------------------------------------------------------------------


def test_modules_become_one_script() -> None:
    b = "export const two = 2;\nconst hidden = 1;\n"
    c = 'import { two } from "./b.js";\nexport function three() {}\nexport let x = 1;\n'
    a = 'import { two } from "./b.js";\nimport { three, x } from "./c.js";\nconst x2 = two + x;\n'
    sources = {"a": a, "b": b, "c": c}
    script = bundle("a", sources)
    assert script.index("const b_js") < script.index("const c_js") < script.index("const a_js")
    assert script.count("const b_js") == 1
    assert "return { three, x };" in script
    assert not re.search(r"^\s*(import|export)\b", script, flags=re.MULTILINE)


@pytest.mark.parametrize(
    "source",
    [
        'import * as b from "./b.js";',
        "export default 1;",
        "export { x };",
        'import { a } from "./a.js";',
        'const s = "</script>";',
    ],
)
def test_what_the_bundler_does_not_know_is_refused(source: str) -> None:
    with pytest.raises(AssertionError):
        bundle("a", {"a": source, "b": ""})
