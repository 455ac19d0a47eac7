"""One thread a process: the tests run in as many processes as there are cores."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

# before torch is imported, and inherited by what the tests start
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["HF_HUB_OFFLINE"] = "1"  # nothing is ever fetched by a test
os.environ["COLUMNS"] = "100"  # pages are as wide here as through a pipe, wherever tests run

Seen = dict[tuple[tuple[int, ...], bytes], Any]  # by a text's ids and what of it is chosen


@dataclass(frozen=True)
class PocketCache:
    """A TRAITSCOPE_HOME with the bundled model's own directions, and the states behind them."""

    home: Path
    seen: Seen

    def once(self, read: Callable[..., Any]) -> Callable[..., Any]:
        """`mean_states`, for which each text is read once."""
        return _once(read, self.seen)


@pytest.fixture(scope="session")
def pocket_cache(tmp_path_factory: pytest.TempPathFactory) -> PocketCache:
    """Made once for all processes of a session: some ten seconds of reading pairs."""
    root = tmp_path_factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
    home, states = root / "pocket-cache", root / "pocket-states.pickle"
    with FileLock(root / "pocket-cache.lock"):
        if not states.exists():
            seen = _extracted(home)
            states.write_bytes(pickle.dumps(seen))
    return PocketCache(home, pickle.loads(states.read_bytes()))


def _extracted(home: Path) -> Seen:
    import sys

    from traitscope.models import load
    from traitscope.paths import BUNDLED_TRAITS
    from traitscope.suite import load_suite
    from traitscope.traits.extract import extract
    from traitscope.traits.pairs import load_trait

    seen: Seen = {}
    module = sys.modules[extract.__module__]  # the function has the module's name
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRAITSCOPE_HOME", str(home))
        patch.setattr(module, "mean_states", _once(vars(module)["mean_states"], seen))
        names = load_suite("overnight").to_dict()["traits"]
        assert isinstance(names, list)
        extract(load("pocket"), [load_trait(BUNDLED_TRAITS / name) for name in names])
    return seen


def _once(read: Callable[..., Any], seen: Seen) -> Callable[..., Any]:
    def remembered(model: Any, texts: Any, chosen: Any, **options: Any) -> Any:
        import numpy as np

        keys = [(tuple(ids), mask.tobytes()) for ids, mask in zip(texts, chosen, strict=True)]
        new = [i for i, key in enumerate(keys) if key not in seen]
        if new:
            made = read(model, [texts[i] for i in new], [chosen[i] for i in new], **options)
            seen.update(zip((keys[i] for i in new), made, strict=True))
        return np.stack([seen[key] for key in keys])

    return remembered
