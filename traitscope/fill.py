"""What committed texts still lack: scores on traits that came later, and kept states.

Each text is read once more, in one forward, by its own token ids; nothing is generated.  What is
lacking is worked out from the run, so that a stop anywhere loses nothing.  This module does not
know why something is wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace

import numpy as np
import torch

from traitscope.core import FurtherScores, Generation, Keep, KeptStates, read_site
from traitscope.engine import Clock, Scored, forward_tokens, score_texts
from traitscope.models import Model
from traitscope.runs import Run, RunWriter
from traitscope.traits.extract import stacked

__all__ = ["fill", "sites_kept"]

AT_ONCE = 24  # texts a commit


def sites_kept(model: Model, keep: Keep) -> list[int]:
    """Indices of the sites to keep; InputError for one that the model has not."""
    return [read_site(model.sites, site) for site in keep.sites]


def fill(
    writer: RunWriter,
    run: Run,
    model: Model,
    keep: Keep,
    clock: Clock,
    on_done: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Score and keep what the texts of `run` lack; the number of texts read."""
    unscored, unkept = run.unscored(), run.unkept(keep)
    groups: dict[tuple[tuple[str, ...], tuple[str, ...]], list[Generation]] = {}
    for name in {**unscored, **unkept}:
        lacking = unscored.get(name, ()), unkept.get(name, ())
        groups.setdefault(lacking, []).append(name)
    total, done = sum(map(len, groups.values())), 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        on_done(done, total)

    for (traits, sites), names in groups.items():
        group = _Group(writer, run, model, traits, replace(keep, sites=sites))
        wanted, batch_tokens = dict.fromkeys(names), forward_tokens(model)
        while wanted:
            try:
                group.fill(wanted, batch_tokens, clock, count)
            except torch.OutOfMemoryError:
                if batch_tokens == 1:
                    raise
                batch_tokens = max(1, batch_tokens // 8)
    return total


class _Group:
    """Texts that lack the same traits and the same sites."""

    def __init__(
        self, writer: RunWriter, run: Run, model: Model, traits: Sequence[str], keep: Keep
    ) -> None:
        self.writer, self.run, self.model = writer, run, model
        self.traits, self.keep = tuple(traits), keep
        nothing = np.zeros((len(model.sites), model.anatomy.d_model, 0), dtype=np.float32)
        self.n_prompt = {row.generation: row.n_prompt for row in run.generations()}
        directions = [run.directions[name] for name in traits]
        self.direction_SDK = stacked(directions) if directions else nothing

    def fill(
        self,
        wanted: dict[Generation, None],
        batch_tokens: int,
        clock: Clock,
        count: Callable[[int], None],
    ) -> None:
        """Commit what `wanted` lack; each leaves `wanted` when it is committed."""
        names = list(wanted)
        ids = [self.run.text(name).tokens.token_id.tolist() for name in names]
        pending: list[tuple[Generation, Scored]] = []

        committing = False

        def flush() -> None:
            nonlocal committing
            committing = True  # stays so where a commit was cut short
            if pending:
                self._commit(pending)
            committing = False
            for name, _ in pending:
                del wanted[name]
            made = len(pending)
            pending.clear()
            count(made)

        keep = sites_kept(self.model, self.keep)
        with closing(
            score_texts(self.model, ids, self.direction_SDK, batch_tokens=batch_tokens, keep=keep)
        ) as texts:
            try:
                for text in texts:
                    pending.append((names[text.index], text))
                    clock.tokens += len(text.norm)
                    if len(pending) >= AT_ONCE:
                        flush()
            finally:  # also where Ctrl-C or a lack of memory ends it: what is read is kept
                if not committing:  # one that was cut short may have happened: never twice
                    flush()

    def _commit(self, pending: Sequence[tuple[Generation, Scored]]) -> None:
        further = [FurtherScores(name, self.traits, text.score) for name, text in pending]
        states: list[KeptStates] = []
        for name, text in pending:
            if text.kept is not None:
                states += self.keep.pick(name, text.kept, self.n_prompt[name])
        self.writer.commit([], states=states, further=further if self.traits else [])
