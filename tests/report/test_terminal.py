"""The screen: honest, aligned, and deaf to what prompts and models put into it."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from tests.report.planted import STATS, TRAITS, Text, planted
from traitscope.report import night, one_line, summarise
from traitscope.report.hints import hints
from traitscope.report.summary import Summary

EVIL = "\x1b[31m[bold red]\x07pay\u202elive[/] [link=x]\tnow\n\x9b2J\ud800"


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


def summary_of(tmp_path: Path, texts: Sequence[Text], **more: object) -> Summary:
    return summarise(planted(tmp_path / "run", texts, **more))


def drawn(summary: Summary, width: int = 100, *, colour: bool = False, **more: object) -> str:
    stream = io.StringIO()
    console = Console(
        file=stream,
        width=width,
        force_terminal=colour,
        color_system="truecolor" if colour else None,
        markup=False,
        highlight=False,
    )
    console.print(night(summary, width=width, colour=colour, **more), crop=False)
    return stream.getvalue()


def many(count: int) -> list[Text]:
    return [Text(f"Prompt {i}?", (" so",), z={TRAITS[0]: [i / 10]}) for i in range(count)]


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    text = Text(EVIL, (EVIL,), z={TRAITS[0]: [9.0]}, label=None)
    broken = Text(f"{EVIL}2", error=f"Expected {EVIL}, got nothing.")
    expect = [{"text": EVIL, "trait": EVIL, "higher": EVIL, "lower": EVIL}]
    for width in (60, 120):
        page = drawn(
            summary_of(tmp_path / str(width), [text, broken], expect=expect), width, full=True
        )
        assert "[bold red]" in page
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]", page)


def test_colours_are_the_only_escapes(tmp_path: Path) -> None:
    text = Text(EVIL, (EVIL,), z={TRAITS[0]: [9.0]})
    page = drawn(summary_of(tmp_path, [text]), colour=True)
    assert "\x1b[" in page
    assert "\x1b" not in re.sub("\x1b\\[[0-9;]*m", "", page)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\tb\r\nc", "a b  c"),
        ("\x1b[0m", "␛[0m"),
        ("\x7f\x85", "␡ "),
        ("日本 é 👩\u200d🔬", "日本 é 👩\u200d🔬"),
        ("\u202e\ufeff\ue000", "\ufffd" * 3),
    ],
)
def test_one_line(text: str, shown: str) -> None:
    assert one_line(text) == shown


def test_every_line_fits(tmp_path: Path) -> None:
    texts = [*many(20), Text("日本語のとても長いプロンプトです。" * 5, ("はい",), z={})]
    summary = replace(summary_of(tmp_path, texts), path="runs/x")
    for width in (60, 72, 80, 90, 100, 140):
        lines = drawn(summary, width).splitlines()
        assert max(cell_len(line.rstrip()) for line in lines) <= width, width


def test_hundreds_of_prompts_show_both_ends(tmp_path: Path) -> None:
    summary = summary_of(tmp_path, many(300))
    page = drawn(summary)
    for shown in ("Prompt 299?", "Prompt 298?", "… 296 more", "Prompt 1?", "Prompt 0?"):
        assert shown in page
    assert "Prompt 150?" not in page
    assert "Prompt 150?" in drawn(summary, full=True)


def test_plain_output_has_no_escape_and_ascii_is_ascii(tmp_path: Path) -> None:
    summary = summary_of(tmp_path, many(9))
    assert "\x1b" not in drawn(summary)
    assert drawn(summary, unicode=False).isascii()


def test_without_colour_the_strongest_token_is_marked(tmp_path: Path) -> None:
    text = Text("Rain?", (" It", " might", " rain"), z={TRAITS[0]: [0.0, 4.0, 1.0]})
    assert "\u2039might\u203a" in drawn(summary_of(tmp_path, [text]))


def test_of_a_long_answer_the_part_around_the_strongest_token_is_shown(tmp_path: Path) -> None:
    words = [f" w{i}" for i in range(60)]
    z = [9.0 if i == 40 else 0.0 for i in range(60)]
    summary = summary_of(tmp_path, [Text("Long?", words, z={TRAITS[0]: z})])
    for width in (60, 80, 100, 140):
        line = next(line for line in drawn(summary, width).splitlines() if "Long?" in line)
        assert "\u2039w40\u203a" in line, "its strongest token is in sight"
        assert " …" in line and "w39 \u2039" in line, "with words before it"
        coloured = drawn(summary, width, colour=True)
        assert "w40" in coloured and "\u2039w40" not in coloured


def samples(prompt: str, mean: float, count: int = 5) -> list[Text]:
    return [
        Text(prompt, (f" {i}",), z={TRAITS[0]: [mean + 0.1 * i]}, sample=i) for i in range(count)
    ]


HIGHER = {"text": "Up is higher", "trait": TRAITS[0], "higher": "Up?", "lower": "Down?"}


def test_one_sample_each_is_said_to_be_untested_in_these_words(tmp_path: Path) -> None:
    summary = summary_of(
        tmp_path, [*samples("Up?", 3, 1), *samples("Down?", 0, 1)], expect=[HIGHER]
    )
    for width in (60, 80, 100, 140):
        page = drawn(summary, width)
        assert page.count("one sample each: not tested") == 1
        assert "permutation" not in page


def test_a_tested_expectation_shows_its_p_and_how_it_was_made(tmp_path: Path) -> None:
    summary = summary_of(tmp_path, [*samples("Up?", 3), *samples("Down?", 0)], expect=[HIGHER])
    page = drawn(summary)
    assert "1 of 1 held, 1 of them with p at most 0.05" in page
    (line,) = [line for line in page.splitlines() if "Up is higher" in line]
    assert line.split()[-4:] == ["+3.00", "0.5", "0.50", "0.004"]
    assert "p: permutation over whole answers, one-sided, corrected over 1 test" in page


def test_what_held_by_a_difference_of_chance_is_named(tmp_path: Path) -> None:
    up = [
        Text("Up?", (f" {i}",), z={TRAITS[0]: [z]}, sample=i)
        for i, z in enumerate((5, 0, 0, 0, -1))
    ]
    summary = summary_of(tmp_path, [*up, *samples("Down?", 0)], expect=[HIGHER])
    assert summary.expectations[0].held
    assert any("chance can make" in line for line in hints(summary))


def test_more_reasons_than_fit_are_counted(tmp_path: Path) -> None:
    bad = [Text(f"Long {n}", error=f"Expected 512 tokens, got {n}.") for n in range(600, 620)]
    summary = summary_of(tmp_path, [*many(2), *bad])
    page = drawn(summary)
    assert "got 605." in page and "got 606." not in page
    assert "… 14 more captures for 14 more reasons: --all names them" in page
    assert "got 619." in drawn(summary, full=True)


def test_what_failed_and_what_is_missing_come_first(tmp_path: Path) -> None:
    bad = Text("Too long", error="Expected at most 512 tokens, got 900.")
    page = drawn(summary_of(tmp_path, [*many(2), bad], missing=[Text("Later")]))
    first, rest = page.split("What was found")
    assert "not finished: 2 of 4 captures, 1 failed" in first
    assert "Expected at most 512 tokens, got 900." in first
    assert "the same command goes on" in rest


def test_a_run_with_nothing_in_it(tmp_path: Path) -> None:
    page = drawn(summary_of(tmp_path, [], missing=many(2), events=()))
    assert "0 of 2 captures" in page
    assert "What was found" not in page
    assert "What it cost" not in page


def test_hints_name_the_expectation_furthest_off(tmp_path: Path) -> None:
    expect = [
        {"text": f"off by {n}", "trait": TRAITS[0], "higher": "Prompt 0?", "lower": f"Prompt {n}?"}
        for n in (1, 5, 3)
    ]
    (first, *_) = hints(summary_of(tmp_path, many(6), expect=expect))
    assert first.startswith('3 of 3 expectations did not hold; furthest off: "off by 5"')


def test_words_alone_are_named_when_they_tell_as_much(tmp_path: Path) -> None:
    texts = [
        Text(name, (" a",), z={TRAITS[0]: [z]}, embed={TRAITS[0]: [2 * z]})
        for name, z in (("up", 3.0), ("down", -3.0))
    ]
    assert any("words alone" in line for line in hints(summary_of(tmp_path, texts)))


def test_an_interrupted_call_is_said(tmp_path: Path) -> None:
    page = drawn(summary_of(tmp_path, many(2), events=[("interrupted", STATS)]))
    assert "last call, interrupted: 1 model load" in page
    page = drawn(summary_of(tmp_path / "2", many(2), events=[("finished", STATS)] * 2))
    assert "last call: 1 model load" in page
    assert "all 2 calls: 2 model loads" in page


def test_each_expectation_says_why_it_was_not_tested(tmp_path: Path) -> None:
    before = {**HIGHER, "text": "Before", "window": "prompt[-1]", "margin": -1.0}
    absent = {**HIGHER, "text": "Absent", "lower": "Nobody?"}
    summary = summary_of(
        tmp_path, [*samples("Up?", 3), *samples("Down?", 0)], expect=[HIGHER, before, absent]
    )
    lines = [line.rstrip() for line in drawn(summary, 140).splitlines()]
    last = {
        name: line.split()[-1] for name in ("Up is", "Before") for line in lines if name in line
    }
    assert last == {"Up is": "0.004", "Before": "a"}
    assert "  a: not tested: every sample reads the same prompt" in lines
    assert any("not measured: the run has no text for 'Nobody?' yet" in line for line in lines)
