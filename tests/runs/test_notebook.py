"""What a notebook shows: a run, a text, a comparison; small, safe, without network and torch."""

from __future__ import annotations

import base64
import re
import struct
import subprocess
import sys
import zlib
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from tests.report.planted import READ, SITES, TRAITS, Text, planted
from tests.viewer.texts import MARKUP, odd_run
from traitscope.errors import InputError, RunError
from traitscope.runs import Run, compare

EVIL = "<script>alert(1)</script><img src=x onerror=alert(1)>\u202e\n&amp;"


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


class Page(HTMLParser):
    """The elements, their addresses, and the text of a piece of HTML."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.addresses: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        assert not any(name.startswith("on") for name, _ in attrs)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def shown(thing: Run | object) -> Page:
    html = thing._repr_html_()  # type: ignore[attr-defined]  # asked by name
    assert "url(" not in html and "<style" not in html
    page = Page(html)
    assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
    return page


def test_a_run_shows_its_first_texts_with_their_readings(tmp_path: Path) -> None:
    texts = [Text(f"Prompt {i}?", (" so",), z={TRAITS[0]: [i / 4]}) for i in range(14)]
    run = planted(tmp_path / "run", [*texts, Text("no", error=EVIL)], missing=[Text("Later")])
    page = shown(run)
    assert "planted" in page.text and "unfinished" in page.text
    assert "14 texts · 1 failed · 1 captures still to make" in page.text
    assert "Prompt 9?" in page.text and "Prompt 10?" not in page.text
    assert "+2.25" in page.text and "… and 5 more" in page.text
    assert len(run._repr_html_()) < 20_000


def test_hostile_text_is_no_markup(tmp_path: Path) -> None:
    run = planted(tmp_path / "run", [Text(EVIL, (EVIL,), label=EVIL), Text("no", error=EVIL)])
    for thing in (run, run.text(run.generations()[0].generation), compare(run, run)):
        page = shown(thing)
        assert not page.tags & {"script", "iframe", "a"}
    assert EVIL.replace("\n", "") in shown(run).text.replace("\n", "")


def test_odd_texts_are_shown(tmp_path: Path) -> None:
    odd_run(tmp_path / "run")
    run = Run.open(tmp_path / "run")
    page = shown(run.text(run.generations()[0].generation))
    assert MARKUP in page.text and "नमस्ते" in page.text and "🎉" in page.text
    assert "\u2013" in page.text, "a trait that is not scored yet has no reading"


def test_the_map_is_an_image_of_sites_and_tokens(tmp_path: Path) -> None:
    text = Text("Up?", (" a", " b"), z={TRAITS[0]: [5.0, -1.5]})
    run = planted(tmp_path / "run", [text])
    html = run.text(text.generation)._repr_html_()
    first = re.findall(r"base64,([^\"]+)", html)[0]
    data = base64.b64decode(first)
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", data[16:24])
    assert (width, height) == (4, len(SITES)), "prompt, its last token, two words"
    (size,) = struct.unpack(">I", data[33:37])
    rows = np.frombuffer(zlib.decompress(data[41 : 41 + size]), np.uint8).reshape(height, -1)
    assert (rows[:, 0] == 0).all()
    pixels = rows[:, 1:].reshape(height, width, 4)
    mine = pixels[height - 1 - READ]
    assert mine[2].tolist() == [0xE0, 0x82, 0x14, 255]  # far above
    assert mine[3].tolist() == [0xD6, 0xE6, 0xF4, 255]  # a little below
    assert pixels[height - 2, 2:].max() == 0, "nothing of note at the other sites"


def test_a_long_text_is_cut_and_says_so(tmp_path: Path) -> None:
    text = Text("Long?", tuple(f" w{i}" for i in range(2000)))
    page = shown(planted(tmp_path / "run", [text]).text(text.generation))
    assert "1701 tokens more" in page.text


def test_a_damaged_run_shows_its_error(tmp_path: Path) -> None:
    planted(tmp_path / "run", [Text("a?")])
    (tmp_path / "run" / "parts" / "00001.generations.parquet").write_bytes(b"damaged")
    page = shown(Run.open(tmp_path / "run"))
    assert "00001.generations.parquet" in page.text


def test_a_comparison_says_what_both_have(tmp_path: Path) -> None:
    run = planted(tmp_path / "run", [Text("a?")])
    page = shown(compare(run, run))
    assert "texts in common: 1, 7 sites, traits firmness, doubt" in page.text
    assert "Both runs are of the same model." in page.text


def test_no_torch_is_loaded(tmp_path: Path) -> None:
    planted(tmp_path / "run", [Text("a?")])
    code = f"""
import sys
from traitscope.runs import Run
run = Run.open({str(tmp_path / "run")!r})
run._repr_html_(), run.text(run.generations()[0].generation)._repr_html_()
assert not {{"torch", "transformers", "xarray", "IPython"}} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# --- one reading ---------------------------------------------------------------------------------


def test_a_reading_is_the_mean_over_a_window_and_its_z(tmp_path: Path) -> None:
    text = Text("Up?", (" a", " b"), z={TRAITS[0]: [5.0, -1.0]}, before={TRAITS[0]: 1.5})
    run = planted(tmp_path / "run", [text])
    name = text.generation.id
    whole = run.reading(name, TRAITS[0])
    assert (whole.z, whole.score) == (pytest.approx(2.0), pytest.approx(5.0))
    assert str(whole.window) == "response[:]" and whole.site.name == "1.post"
    assert run.reading(name, TRAITS[0], "prompt[-1]").z == pytest.approx(1.5)
    assert run.reading(run.text(name), TRAITS[0], "response[0]").z == pytest.approx(5.0)
    assert run.reading(name, TRAITS[0], site="embed").z == pytest.approx(0.0)
    assert np.isnan(run.reading(name, TRAITS[0], "response[7]").z)
    with pytest.raises(RunError, match="Expected one of the traits firmness, doubt"):
        run.reading(name, "nothing")
    with pytest.raises(InputError, match=r"9\.post"):
        run.reading(name, TRAITS[0], site="9.post")


def test_unescaped_words_are_those_of_the_text(tmp_path: Path) -> None:
    text = Text("Rain & snow?", (" It", " <might>"), z={TRAITS[0]: [0.0, 4.0]})
    html = planted(tmp_path / "run", [text]).text(text.generation)._repr_html_()
    assert "&lt;might&gt;" in html and "<might>" in unescape(html)
