"""A trait's files: what is read, one sentence for each mistake, and what its hash stands for."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from traitscope.core import Window
from traitscope.errors import TraitError
from traitscope.traits.pairs import load_trait, neutral_chats

ABOUT = 'positive = "Hedged."\nnegative = "Firm."\n'

Entry = dict[str, Any]


def pair(number: int, **changes: object) -> Entry:
    return {
        "id": f"p{number}",
        "scenario": "weather",
        "kind": "natural",
        "positive": {"prompt": "Rain?", "response": f"Perhaps {number}."},
        "negative": {"prompt": "Rain?", "response": f"Yes {number}.", "system": "Be brief."},
        **changes,
    }


def trait(folder: Path, about: str = ABOUT, *entries: object) -> Path:
    """A trait's folder; its pairs are two good ones, or the entries (texts are lines as is)."""
    folder = folder / "hedged"
    folder.mkdir(exist_ok=True)
    (folder / "trait.toml").write_text(about, encoding="utf-8")
    lines = [e if isinstance(e, str) else json.dumps(e) for e in entries or (pair(1), pair(2))]
    (folder / "pairs.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def mistake(folder: Path) -> str:
    with pytest.raises(TraitError) as caught:
        load_trait(folder)
    said = str(caught.value)
    assert "\n" not in said, "one sentence or two, on one line"
    return said


# --- what is read --------------------------------------------------------------------------------


def test_a_trait_is_read_with_its_defaults(tmp_path: Path) -> None:
    made = load_trait(trait(tmp_path))
    assert (made.name, made.display_name) == ("hedged", "hedged")
    assert (made.positive, made.negative) == ("Hedged.", "Firm.")
    assert made.extract_window == made.read_window == Window.parse("response[:]")
    assert made.read_site == 0.5
    assert [p.id for p in made.pairs] == ["p1", "p2"]
    chat = made.pairs[0].negative.chat
    assert [(m.role, m.content) for m in chat.messages] == [
        ("system", "Be brief."),
        ("user", "Rain?"),
    ]
    assert [m.role for m in made.pairs[0].positive.chat.messages] == ["user"]


def test_what_is_given_wins_over_the_defaults(tmp_path: Path) -> None:
    more = 'extract_window = "response[2:]"\nread_window = "prompt[-1]"\nread_site = "1.post"\n'
    made = load_trait(trait(tmp_path, ABOUT + more + 'display_name = "On the fence"\n'))
    assert (str(made.extract_window), str(made.read_window)) == ("response[2:]", "prompt[-1]")
    assert (made.read_site, made.display_name) == ("1.post", "On the fence")


@pytest.mark.parametrize(("written", "read"), [("0", 0.0), ("1", 1.0), ("0.25", 0.25)])
def test_a_depth_is_read_as_a_number(tmp_path: Path, written: str, read: float) -> None:
    got = load_trait(trait(tmp_path, f"{ABOUT}read_site = {written}\n")).read_site
    assert isinstance(got, float)
    assert got == read


def test_an_id_is_the_line_where_none_is_given(tmp_path: Path) -> None:
    without = {k: v for k, v in pair(0).items() if k not in ("id", "kind")}
    made = load_trait(trait(tmp_path, ABOUT, without, "", without))
    assert [(p.id, p.kind) for p in made.pairs] == [("1", "natural"), ("3", "natural")]


def test_the_bundled_neutral_chats_are_read() -> None:
    chats = neutral_chats()
    assert len(chats) > 50
    assert all(chat.prompt.strip() and chat.response.strip() for chat in chats)


# --- one sentence for each mistake ---------------------------------------------------------------

TOML_MISTAKES = [
    (ABOUT + 'read_wndow = "x"\n', ["key 'read_wndow' is not known", "Did you mean 'read_window'"]),
    (ABOUT + "display_name = 3\n", ["'display_name'", "expected a text, got 3"]),
    (ABOUT + "read_site = true\n", ["'read_site'", "depth", "got True"]),
    (ABOUT + "read_site = [0.5]\n", ["'read_site'", "got [0.5]"]),
    (ABOUT + "read_site = 1.5\n", ["'read_site'", "0.0 to 1.0", "got 1.5"]),
    (ABOUT + "read_site = nan\n", ["'read_site'", "0.0 to 1.0", "got nan"]),
    pytest.param(f"{ABOUT}read_site = {10**400}\n", ["'read_site'", "0.0 to 1.0"], id="huge"),
    (ABOUT + 'read_site = "middle"\n', ["'read_site'", "'3.post'", "got 'middle'"]),
    (ABOUT + 'read_window = "answer[:]"\n', ["'read_window'", "response[:]", "got 'answer[:]'"]),
    (ABOUT + 'extract_window = "response"\n', ["'extract_window'", "got 'response'"]),
    ('negative = "Firm."\n', ["'positive'", "one sentence", "got none"]),
    ('positive = "Hedged."\nnegative = "  "\n', ["'negative'", "one sentence", "got none"]),
    (ABOUT + 'name = "fence"\n', ["'name'", "folder's name ('hedged')", "got 'fence'"]),
    (ABOUT + 'name = "On the fence"\n', ["'name'", "a-z", "got 'On the fence'"]),
    (ABOUT + "name =\n", ["expected TOML", "line 3"]),
]


@pytest.mark.parametrize(("about", "words"), TOML_MISTAKES)
def test_a_mistake_in_trait_toml(tmp_path: Path, about: str, words: list[str]) -> None:
    folder = trait(tmp_path, about)
    said = mistake(folder)
    assert said.startswith(f"{folder / 'trait.toml'}: ")
    for word in words:
        assert word in said


def without(key: str) -> Entry:
    return {k: v for k, v in pair(2).items() if k != key}


def side(**changes: object) -> Entry:
    return pair(2, positive={"prompt": "Rain?", "response": "Perhaps.", **changes})


PAIR_MISTAKES: list[tuple[object, list[str]]] = [
    (pair(2, knid="instructed"), ["key 'knid' is not known", "Did you mean 'kind'"]),
    (side(respones="x"), ["key 'positive.respones' is not known", "Did you mean 'response'"]),
    (pair(2, kind="instruct"), ["'kind'", "'natural' or 'instructed'", "got 'instruct'"]),
    (pair(2, kind=None), ["'kind'", "got None"]),
    (pair(1), ["an id of its own", "got 'p1'", "line 1"]),
    (pair(2, id=7), ["'id'", "expected a text, got 7"]),
    (without("scenario"), ["'scenario'", "expected a text, got None"]),
    (without("negative"), ["'negative'", "expected an object", "got None"]),
    (pair(2, positive="Perhaps."), ["'positive'", "expected an object", "got 'Perhaps.'"]),
    (side(response=" \n"), ["'response'", "expected a text"]),
    (side(prompt=""), ["'prompt'", "expected a text, got ''"]),
    (side(prompt=["Rain?"]), ["'prompt'", "expected a text, got ['Rain?']"]),
    (side(system=3), ["'system'", "expected a text, got 3"]),
    (side(response="half \ud800"), ["'response'", "surrogate"]),
    ("[1, 2]", ["expected an object", "got [1, 2]"]),
    ('{"id": "p2"', ["one JSON object a line", "column"]),
    ('{"id": "p2", "id": "p3"}', ["'id' comes twice"]),
]


@pytest.mark.parametrize(("entry", "words"), PAIR_MISTAKES)
def test_a_mistake_in_pairs_names_the_line(tmp_path: Path, entry: object, words: list[str]) -> None:
    folder = trait(tmp_path, ABOUT, pair(1), entry, pair(4))
    said = mistake(folder)
    assert said.startswith(f"{folder / 'pairs.jsonl'}:2: ")
    for word in words:
        assert word in said


def test_a_line_number_is_an_id_too(tmp_path: Path) -> None:
    third = {k: v for k, v in pair(3).items() if k != "id"}
    folder = trait(tmp_path, ABOUT, pair(1), pair(2, id="3"), third)
    said = mistake(folder)
    assert said.startswith(f"{folder / 'pairs.jsonl'}:3: expected an id of its own, got '3', which")
    assert "line 2" in said


@pytest.mark.parametrize("entries", [("",), (pair(1),)])
def test_two_pairs_at_least(tmp_path: Path, entries: tuple[object, ...]) -> None:
    said = mistake(trait(tmp_path, ABOUT, *entries))
    count = sum(bool(entry) for entry in entries)
    assert re.search(rf"pairs\.jsonl: expected at least 2 pairs, got {count}", said)


@pytest.mark.parametrize("name", ["trait.toml", "pairs.jsonl"])
def test_not_utf8(tmp_path: Path, name: str) -> None:
    folder = trait(tmp_path)
    raw = (folder / name).read_bytes()
    (folder / name).write_bytes(raw + "# café".encode("latin-1"))
    said = mistake(folder)
    assert said.startswith(f"{folder / name}:3: expected UTF-8 text, got byte 0xe9")


@pytest.mark.parametrize("name", ["trait.toml", "pairs.jsonl"])
def test_a_missing_file(tmp_path: Path, name: str) -> None:
    folder = trait(tmp_path)
    (folder / name).unlink()
    assert mistake(folder).startswith(f"{folder / name}: expected")


# --- the hash ------------------------------------------------------------------------------------

Change = Callable[[Entry], object]


def changed(side_: str, key: str) -> Change:
    return lambda entry: entry[side_].update({key: "Other."})


CHANGES: list[Change] = [
    *(changed(s, key) for s in ("positive", "negative") for key in ("prompt", "response")),
    changed("positive", "system"),
    lambda entry: entry["negative"].pop("system"),
    lambda entry: entry.update(scenario="law"),
    lambda entry: entry.update(kind="instructed"),
    lambda entry: entry.update(id="p9"),
    lambda entry: entry.update(positive=entry["negative"], negative=entry["positive"]),
]


@pytest.mark.parametrize("change", CHANGES)
def test_the_hash_changes_with_a_pair(tmp_path: Path, change: Change) -> None:
    before = load_trait(trait(tmp_path)).data_hash
    entry = pair(2)
    change(entry)
    assert load_trait(trait(tmp_path, ABOUT, pair(1), entry)).data_hash != before


@pytest.mark.parametrize(
    "about",
    [
        ABOUT.replace("Hedged", "Doubting"),
        ABOUT.replace("Firm", "Sure"),
        ABOUT + 'extract_window = "response[1:]"\n',
        ABOUT + 'read_window = "prompt[-1]"\n',
        ABOUT + "read_site = 0.6\n",
        ABOUT + 'read_site = "0.post"\n',
    ],
)
def test_the_hash_changes_with_the_trait(tmp_path: Path, about: str) -> None:
    before = load_trait(trait(tmp_path)).data_hash
    assert load_trait(trait(tmp_path, about)).data_hash != before


def test_the_hash_changes_with_the_number_of_pairs(tmp_path: Path) -> None:
    before = load_trait(trait(tmp_path)).data_hash
    assert load_trait(trait(tmp_path, ABOUT, pair(1), pair(2), pair(3))).data_hash != before


def test_the_hash_does_not_change_with_how_it_is_written(tmp_path: Path) -> None:
    before = load_trait(trait(tmp_path)).data_hash
    about = (
        "# a remark\nread_site = 0.50\nread_window = 'response[ : ]'\nnegative = 'Firm.'\n"
        'extract_window = "response[:]"\nname = "hedged"\npositive = """Hedged."""\n'
    )
    backwards = json.dumps(dict(reversed(pair(1).items())), indent=None, separators=(" ,  ", ": "))
    escaped = json.dumps(pair(2)).replace("Perhaps", "\\u0050erhaps")
    folder = trait(tmp_path, about, "", backwards, "  ", escaped)
    lines = (folder / "pairs.jsonl").read_bytes().replace(b"\n", b"\r\n")
    (folder / "pairs.jsonl").write_bytes(b"\xef\xbb\xbf" + lines)
    assert load_trait(folder).data_hash == before
