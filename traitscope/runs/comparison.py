"""Two runs that read the same texts: which texts pair up, and how their scores differ.

Texts pair up by equal token ids, never by their words: the same words under another tokenizer are
other positions.  Scores of two models are each along that model's own directions; as raw numbers
they are in each stream's own units, as "z" in units of its neutral text.  This module reads two
runs and changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from traitscope.core import Generation
from traitscope.errors import RunError
from traitscope.runs.reader import As, Run

if TYPE_CHECKING:
    import xarray

__all__ = ["Comparison", "compare", "differences", "partners"]


@dataclass(frozen=True)
class Comparison:
    """Two runs side by side.

    `pairs`: texts with equal token ids, a's first, in a's order.  `sites`, `traits`: names that
    both have.  `notes`: a sentence for each thing that does not line up.
    """

    a: Run
    b: Run
    pairs: tuple[tuple[Generation, Generation], ...]
    sites: tuple[str, ...]
    traits: tuple[str, ...]
    notes: tuple[str, ...]

    def difference(self, generation: Generation | str, *, as_: As = "raw") -> xarray.DataArray:
        """b minus a for one text (by its name in a), dims (token, site, trait).

        `as_` and the coordinates are those of `Run.scores`.  RunError for a text without partner.
        """
        name = generation if isinstance(generation, str) else generation.id
        partner = {a.id: b for a, b in self.pairs}.get(name)
        if partner is None:
            raise RunError(
                f"Expected a text that both runs have, got '{name}'. Comparison.pairs lists the "
                f"{len(self.pairs)} that they have."
            )
        shared = {"site": list(self.sites), "trait": list(self.traits)}
        a = self.a.scores(name, as_=as_).sel(shared)
        b = self.b.scores(partner, as_=as_).sel(shared)
        attrs = {"as": as_, "a": self.a.header.key, "b": self.b.header.key, "generation": name}
        return a.copy(data=b.values - a.values).rename("difference").assign_attrs(attrs)

    def _repr_html_(self) -> str:
        from traitscope.runs.notebook import comparison_html  # wanted by notebooks alone

        return comparison_html(self)


def compare(a: Run, b: Run) -> Comparison:
    """Pair two runs' texts by their token ids; RunError where their vocabularies differ.

    Reads the tokens of every done text of both.
    """
    texts_a, texts_b = _texts(a), _texts(b)
    _check_vocabulary(a, b, texts_a, texts_b)
    by_ids = {ids: generation for generation, (ids, _) in reversed([*texts_b.items()])}
    pairs = tuple((g, by_ids[ids]) for g, (ids, _) in texts_a.items() if ids in by_ids)
    sites = tuple(site.name for site in a.sites if site in b.sites)
    traits = tuple(trait for trait in a.traits if trait in b.traits)
    return Comparison(a, b, pairs, sites, traits, (*_alone(a, b, pairs), *differences(a, b)))


_Texts = Mapping[Generation, tuple[tuple[int, ...], tuple[str, ...]]]


def _texts(run: Run) -> _Texts:
    """Token ids and pieces of every done text."""
    done = [row.generation for row in run.generations() if row.status == "done"]
    tokens = {generation: run.text(generation).tokens for generation in done}
    return {g: (tuple(table.token_id.tolist()), table.piece) for g, table in tokens.items()}


def _check_vocabulary(a: Run, b: Run, texts_a: _Texts, texts_b: _Texts) -> None:
    """One id, one piece: seen in the texts, since runs keep no vocabulary."""
    pieces = {i: piece for ids, row in texts_a.values() for i, piece in zip(ids, row, strict=True)}
    for ids, row in texts_b.values():
        for i, piece in zip(ids, row, strict=True):
            if pieces.get(i, piece) != piece:
                raise RunError(
                    f"Expected runs of one vocabulary, got token {i} as {pieces[i]!r} in {a.path} "
                    f"and as {piece!r} in {b.path}. Texts of different tokenizers have no tokens "
                    "in common: compare the reports instead."
                )


def _alone(a: Run, b: Run, pairs: Sequence[tuple[Generation, Generation]]) -> list[str]:
    notes = []
    for run, paired in ((a, {x for x, _ in pairs}), (b, {y for _, y in pairs})):
        rows = [row.generation for row in run.generations() if row.status == "done"]
        alone = sum(name not in paired for name in rows)
        if alone:
            notes.append(f"{alone} of {len(rows)} texts of {run.path} have no partner.")
    return notes


def differences(a: Run, b: Run, names: tuple[str, str] | None = None) -> list[str]:
    """What does not line up between two runs whatever their texts: sites, traits, models.

    `names` are what the sentences call the two; without them, their paths.
    """
    name_a, name_b = names or (str(a.path), str(b.path))
    notes = []
    for name, run, other in ((name_a, a, b), (name_b, b, a)):
        for what, every, shared in (
            ("sites", [site.name for site in run.sites], [site.name for site in other.sites]),
            ("traits", list(run.traits), list(other.traits)),
        ):
            only = [each for each in every if each not in shared]
            if only:
                notes.append(f"Only {name} has the {what} {', '.join(_short(only))}.")
    if len(a.sites) != len(b.sites):
        notes.append(
            "The models differ in depth: a site of one name lies elsewhere in each. "
            "Compare depths, not names."
        )
    shared = [trait for trait in a.traits if trait in b.traits]
    others = [t for t in shared if a.directions[t].hash != b.directions[t].hash]
    if others:
        notes.append(
            f"The directions of {', '.join(others)} differ: raw scores are in units of each run's "
            "own; z (as_='z' in Python) puts both on the scale of neutral text."
        )
    if a.header.model.get("fingerprint") == b.header.model.get("fingerprint"):
        notes.append("Both runs are of the same model.")
    return notes


def _short(names: Sequence[str]) -> list[str]:
    """The first and the last of many."""
    return list(names) if len(names) <= 4 else [*names[:2], "...", names[-1]]


def partners(a: Run, b: Run) -> list[tuple[Generation, Generation]]:
    """Done texts of one prompt and sample: by name, else by what was asked.  No token is read.

    Of two models the answers may differ, and of two tokenizers the prompts' tokens do.
    """
    rows_b = [row for row in b.generations() if row.status == "done"]
    names = {row.generation for row in rows_b}
    asked = {(row.prompt.messages, row.generation.sample): row.generation for row in rows_b}
    pairs = []
    for row in a.generations():
        if row.status == "done":
            same = asked.get((row.prompt.messages, row.generation.sample))
            partner = row.generation if row.generation in names else same
            if partner is not None:
                pairs.append((row.generation, partner))
    return pairs
