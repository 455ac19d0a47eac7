"""Copying the bundled suite out: whole or not at all, and what is edited there has its effect."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from traitscope import copyout
from traitscope.errors import InputError, MachineError
from traitscope.paths import BUNDLED_SUITES, BUNDLED_TRAITS
from traitscope.suite import init_folder, load_suite


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_the_copy_is_the_suite(tmp_path: Path) -> None:
    dest = init_folder(tmp_path / "new" / "mine")
    copy, bundled = load_suite(dest), load_suite("overnight")
    assert copy.trait_names == bundled.trait_names
    same = {"traits": None}
    assert {**copy.to_dict(), **same} == {**bundled.to_dict(), **same}
    for name, prompts in bundled.prompt_sets().items():
        assert [p.messages for p in copy.prompt_sets()[name]] == [p.messages for p in prompts]
    assert list((tmp_path / "new").iterdir()) == [dest], "no leavings beside it"


def test_only_the_traits_list_differs(tmp_path: Path) -> None:
    dest = init_folder(tmp_path / "mine")
    before = (BUNDLED_SUITES / "overnight" / "suite.toml").read_text().splitlines()
    after = (dest / "suite.toml").read_text().splitlines()
    changed = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
    assert all(b == a.replace('"', '"traits/', 1) for a, b in changed)
    assert len(changed) == len(load_suite("overnight").traits)


def test_traits_are_those_of_the_copy(tmp_path: Path) -> None:
    dest = init_folder(tmp_path / "mine")
    for source in load_suite(dest).trait_sources:
        assert source.path == dest / "traits" / source.name
        assert tree(source.path) == tree(BUNDLED_TRAITS / source.name)
        for file in source.path.iterdir():
            assert file.read_bytes() == (BUNDLED_TRAITS / source.name / file.name).read_bytes()


def test_editing_the_copy_has_its_effect(tmp_path: Path) -> None:
    dest = init_folder(tmp_path / "mine")
    with (dest / "prompts" / "cognitive.txt").open("a") as file:
        file.write("Explain tides.\n")
    (dest / "traits" / "sycophancy").rename(dest / "traits" / "flattery")
    text = (dest / "suite.toml").read_text()
    text = text.replace("traits/sycophancy", "traits/flattery")
    text = text.replace('trait = "sycophancy"', 'trait = "flattery"')
    (dest / "suite.toml").write_text(text.replace("temperature = 0.7", "temperature = 0.0"))
    suite = load_suite(dest)
    assert suite.trait_names[-1] == "flattery"
    assert suite.config().temperature == 0
    assert suite.prompt_sets()["cognitive"][-1].text == "Explain tides."


def test_a_copy_in_a_folder_of_the_bundled_name_is_what_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    init_folder("overnight")
    assert load_suite("overnight").source == str(Path("overnight", "suite.toml"))


def test_an_empty_folder_is_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    inode = tmp_path.stat().st_ino
    init_folder(".")
    assert tmp_path.stat().st_ino == inode, "a shell that stands in it goes on standing there"
    assert {path.name for path in tmp_path.iterdir()} == {"suite.toml", "prompts", "traits"}
    load_suite(".")


def test_a_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("mine")
    with pytest.raises(InputError) as caught:
        init_folder(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: expected a new or an empty folder, got one with 'notes.md' in it. "
        "Name another."
    )
    assert tree(tmp_path) == {"notes.md"}


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(InputError, match="got a file"):
        init_folder(tmp_path / "mine")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="got a file"):
        init_folder(tmp_path / "gone")


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("fails_at", [1, 8, 12])
def test_a_copy_that_fails_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool, fails_at: int
) -> None:
    dest = tmp_path / "mine"
    if there:
        dest.mkdir()
    copied = 0
    copyfile = shutil.copyfile

    def full(source: str, target: str, **options: bool) -> str:
        nonlocal copied
        copied += 1
        if copied == fails_at:
            raise OSError(28, "No space left on device")
        return copyfile(source, target, **options)

    monkeypatch.setattr(copyout.shutil, "copyfile", full)
    with pytest.raises(MachineError, match=r"got '\[Errno 28\] No space left on device'\."):
        init_folder(dest)
    assert tree(tmp_path) == ({"mine"} if there else set())


def test_a_move_that_fails_leaves_an_empty_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def fails_at_the_last(self: Path, target: Path) -> Path:
        if self.name == "suite.toml":
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails_at_the_last)
    with pytest.raises(MachineError, match="Input/output error"):
        init_folder(tmp_path)
    assert tree(tmp_path) == set()


def test_a_place_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match="expected a place to copy the suite to"):
        init_folder(tmp_path / "file" / "mine")
