"""Disks are slow: only the tests that need it wait for them."""

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    return
