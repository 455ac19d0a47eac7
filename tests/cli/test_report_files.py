"""`report --html` and `--markdown`: the files, what is said of them, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.report.planted import TRAITS, Text, planted
from traitscope.cli.frame import run as command
from traitscope.runs import Run, verify

TEXTS = [
    Text(f"Prompt {i}?", tuple(f" w{n}" for n in range(60)), z={TRAITS[0]: [i / 4] * 60})
    for i in range(40)
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    monkeypatch.chdir(tmp_path)
    planted(tmp_path / "run", TEXTS)
    return tmp_path / "run"


def test_one_file_is_written_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["report", "run", "--html", "night.html"]) == 0
    said, wrong = capsys.readouterr()
    size = f"{Path('night.html').stat().st_size / 1e6:.2f} MB"
    told = "trajectories of 40 texts. Open it in any browser."
    assert said == f"Wrote night.html: {size}, {told}\n"
    assert wrong == ""
    assert command(["report", "run", "--html", "night.html"]) == 0
    assert capsys.readouterr().out.startswith("Replaced the earlier report night.html: ")


def test_what_does_not_fit_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["report", "run", "--html", "a.html", "--max-mb", "0.2", "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    html = json.loads(line)["html"]
    ids = {text.generation.id for text in TEXTS}
    assert html["captures"] and html["left_out"]
    assert {*html["captures"], *html["left_out"]} == ids
    assert html["bytes"] == Path("a.html").stat().st_size <= 200_000
    assert command(["report", "run", "--html", "a.html", "--max-mb", "0.2"]) == 0
    said = capsys.readouterr().out.splitlines()[1]
    assert said.startswith(f"Left out, to stay below --max-mb 0.2: {len(html['left_out'])} of 40")


def test_captures_are_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    names = ["--captures", "Prompt 3?", "--captures", TEXTS[5].generation.id]
    assert command(["report", "run", "--html", "a.html", *names, "--json"]) == 0
    html = json.loads(capsys.readouterr().out)["html"]
    assert html["captures"] == [TEXTS[3].generation.id, TEXTS[5].generation.id]


def test_markdown_goes_to_the_screen_or_to_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["report", "run", "--markdown"]) == 0
    page = capsys.readouterr().out
    assert page.startswith("## ✓ planted: finished: all 40 captures are there\n")
    for order in (["run", "--markdown", "n.md"], ["--markdown", "run", "n.md"]):
        assert command(["report", *order]) == 0
        assert Path("n.md").read_text(encoding="utf-8") == page
    assert "Replaced the earlier report n.md" in capsys.readouterr().out


def test_both_at_once_are_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    both = ["--html", "a.html", "--markdown", "--json"]
    assert command(["report", "run", "a.md", *both]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    result = json.loads(line)
    assert result["html"]["path"] == "a.html" and result["markdown"]["path"] == "a.md"
    assert result["counts"]["done"] == 40


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["run", "x.md"], "Expected one run, got 'x.md' as well"),
        (["run", "--max-mb", "3"], "Expected --html FILE with --max-mb"),
        (["run", "--captures", "x"], "Expected --html FILE with --captures"),
        (["run", "--html", "a.html", "--max-mb", "0"], "a size above 0 in million bytes, got 0"),
        (
            ["run", "--html", "a.html", "--max-mb", "nan"],
            "a size above 0 in million bytes, got nan",
        ),
        (["run", "--markdown", "--json"], "Expected a FILE for --markdown beside --json"),
        (["run", "--html", "mine.html"], "mine.html is something else"),
        (["run", "--html", "no/a.html"], "Expected a folder no to write a.html into"),
        (["run", "--html", "run"], "got the folder run"),
        (["run", "--html", "a.html", "--captures", "Prompt 3!"], "Did you mean 'Prompt 3?'"),
    ],
)
def test_mistakes_are_2_and_leave_nothing(
    args: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mine.html").write_text("my own page")
    assert command(["report", *args]) == 2
    out, wrong = capsys.readouterr()
    assert said in out + wrong and "Traceback" not in wrong
    assert Path("mine.html").read_text() == "my own page"
    assert not Path("a.html").exists()


def test_a_report_within_its_run_does_no_harm(folder: Path) -> None:
    assert command(["report", "run", "--html", "run/report.html"]) == 0
    assert [p for p in verify(folder) if p.kind == "damaged"] == []
    assert len(Run.open(folder).generations()) == 40
