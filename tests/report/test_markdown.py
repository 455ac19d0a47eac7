"""The Markdown report: tables that hold whatever stands in a prompt, an answer or an error."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from tests.report.planted import TRAITS, Text, planted
from traitscope.report import summarise
from traitscope.report.markdown import escaped, markdown

EVIL = (
    "a | b `code` ``` <script>alert(1)</script> <!-- [l](http://x.y) ![i](j) **b** __b__ _e_ "
    "~~s~~ $x$ @someone #12 :smile: www.x.y http://x.y \\| \\ &amp; {{x}}\n\n- list\n# head\n| x |"
)
ONE_LINE = EVIL.replace("\n", " ")


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


def rendered(text: str) -> str:
    return MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(text)


def cells_of(page: str) -> list[list[str]]:
    """The rows of a page's tables, as text."""
    rows = re.findall(r"<tr>(.*?)</tr>", rendered(page), flags=re.DOTALL)
    return [
        [
            unescape(re.sub(r"<[^>]*>", "", cell))
            for cell in re.findall(r"<t[hd].*?>(.*?)</t[hd]>", row)
        ]
        for row in rows
    ]


@pytest.mark.parametrize(
    "text",
    [
        EVIL,
        "1. one",
        "12) twelve",
        "- x",
        "+ x",
        "= x",
        "> x",
        "# x",
        "www.x.y",
        "\\",
        "|",
        "``",
        "*",
    ],
)
def test_text_stays_text(text: str) -> None:
    html = rendered(escaped(text, 1000))
    assert re.fullmatch("<p>(.*)</p>\n", html), html
    shown = unescape(re.sub("</?p>", "", html)).strip()
    assert shown == " ".join(text.split("\n")).strip()
    assert not re.search("<(?!/?p>)", html), "no element but the paragraph"


@pytest.mark.parametrize("sign", ["http://", "www.", "@someone", ":smile:", "#12", "$x$", "|", "`"])
def test_what_only_some_renderers_read_is_not_there(sign: str) -> None:
    assert sign in EVIL
    assert sign not in re.sub(r"&#\d+;", "&", escaped(EVIL, 1000))


def test_names_and_plain_sentences_can_be_read_in_the_source() -> None:
    plain = "uncertainty_calibration: one sample each: not tested (10 of 12), +0.53 - 3.1 s · 09:08"
    assert escaped(plain) == plain


def test_hostile_text_breaks_no_table(tmp_path: Path) -> None:
    text = Text(EVIL, (EVIL, " b|c"), z={TRAITS[0]: [0.0, 9.0]}, label=EVIL)
    broken = Text("no", error=EVIL)
    expect = [{"text": EVIL, "trait": TRAITS[0], "higher": EVIL, "lower": EVIL}]
    page = markdown(summarise(planted(tmp_path / "run", [text, broken], expect=expect)), full=True)
    html = rendered(page)
    assert (
        "<script" not in html and "<a " not in html and "<img" not in html and "<code" not in html
    )
    rows = cells_of(page)
    assert {len(row) for row in rows} == {3, 5}, "failures have 3 cells, the others 5"
    assert any(ONE_LINE[:100] in cell for row in rows for cell in row)
    assert "<b>b&#124;c</b>" in page, "the strongest token is bold, and text"
    assert html.count("<h3>") == 5


def test_both_ends_are_shown_and_all_with_full(tmp_path: Path) -> None:
    texts = [Text(f"Prompt {i}?", (" so",), z={TRAITS[0]: [i / 10]}) for i in range(30)]
    summary = summarise(planted(tmp_path / "run", texts))
    page, whole = markdown(summary), markdown(summary, full=True)
    assert "| Prompt 29? | +0.00 | +2.90 |" in page
    assert "… 24 more" in page and "Prompt 15?" not in page
    assert "Prompt 15?" in whole


def test_the_words_for_what_was_not_tested(tmp_path: Path) -> None:
    texts = [Text("Up?", (" a",), z={TRAITS[0]: [3.0]}), Text("Down?", (" b",))]
    expect = [{"text": "Up is higher", "trait": TRAITS[0], "higher": "Up?", "lower": "Down?"}]
    page = markdown(summarise(planted(tmp_path / "run", texts, expect=expect)))
    assert "- one sample each: not tested\n" in page
    assert "| ✓ | Up is higher | +3.00 | 0.5 | 0.50 |" in page


def test_a_run_with_nothing_in_it(tmp_path: Path) -> None:
    page = markdown(summarise(planted(tmp_path / "run", [], missing=[Text("Later")], events=())))
    assert page.startswith("## ✗ planted: not finished: 0 of 1 captures")
    assert "What was found" not in page
