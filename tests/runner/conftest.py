"""One tiny model and one cache of directions for a file of tests; nothing waits for the disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runner.small import few_neutral_chats, save_model, save_traits


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the model and the traits; the cache is elsewhere."""
    folder = tmp_path_factory.mktemp("home")
    save_model(folder / "model")
    save_traits(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRAITSCOPE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(os, "fsync", lambda descriptor: None)
        few_neutral_chats(patch)
        yield folder


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
