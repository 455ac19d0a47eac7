"""Where things lie: what ships with the package, and the cache.

Nothing here opens a file or makes a folder, and nothing here knows what the files hold.
"""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

__all__ = ["BUNDLED_SUITES", "BUNDLED_TRAITS", "PACKAGE", "cache_dir"]

PACKAGE = Path(__file__).resolve().parent
BUNDLED_SUITES = PACKAGE / "suites"  # NAME/suite.toml, NAME/prompts/*
BUNDLED_TRAITS = PACKAGE / "traits" / "data"  # TRAIT/trait.toml, TRAIT/pairs.jsonl


def cache_dir() -> Path:
    """`$TRAITSCOPE_HOME`, else the platform's cache folder for traitscope; it may not exist yet."""
    home = os.environ.get("TRAITSCOPE_HOME")
    return Path(home).expanduser() if home else platformdirs.user_cache_path("traitscope")
