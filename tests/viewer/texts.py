"""Runs of made-up texts for the trajectory page: odd scripts, long texts, holes in the numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from tests.runs.build import header_of
from traitscope.core import (
    Capture,
    Generation,
    Message,
    Prompt,
    Site,
    TextRecord,
    TokenTable,
    Trace,
    TraitDirections,
    prompt_id_of,
    sites_of,
)
from traitscope.runs import RunWriter

D = 6

Token = tuple[str, str]  # its own text ("" for a part of a character), its role

MARKUP = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"

# a conversation with everything that is hard to draw
ODD: tuple[Token, ...] = (
    ("<s>", "template"),
    ("Be", "system"),
    (" brief", "system"),
    (".\n", "system"),
    ("<user>", "template"),
    (MARKUP, "user"),
    (" مر", "user"),
    ("حبا", "user"),
    (" بالعالم", "user"),
    ("؟", "user"),
    ("<assistant>", "template"),
    ("你", "assistant"),
    ("好", "assistant"),
    ("", "assistant"),
    ("", "assistant"),
    ("", "assistant"),
    ("🎉", "assistant"),
    (" नम", "assistant"),
    ("स्ते", "assistant"),
    ("\n\n", "assistant"),
    ("שלום", "assistant"),
    ("<user>", "template"),
    ("\u202egnissorc", "user"),
    ("?", "user"),
    ("<assistant>", "template"),
    ("Let", "thinking"),
    (" me", "thinking"),
    (" see", "thinking"),
    ('{"weather":', "tool"),
    (' "rain"}', "tool"),
    ("It", "assistant"),
    (" will", "assistant"),
    ("", "assistant"),
    ("", "assistant"),
    (" 👩\u200d", "assistant"),
    ("👧", "assistant"),
    (" rain", "assistant"),
    (".", "assistant"),
    ("</s>", "template"),
)
ODD_PROMPT = 25


def directions(
    traits: Sequence[str], sites: Sequence[Site], *, holes: Sequence[int] = ()
) -> dict[str, TraitDirections]:
    """Unit vectors; at the sites in `holes` the first trait has none."""
    made = {}
    for trait in traits:
        rng = np.random.default_rng([*trait.encode()])
        raw = rng.normal(size=(len(sites), D))
        unit = (raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float32)
        if trait == traits[0]:
            unit[list(holes)] = 0
        mean, std, response, prompt, spread = rng.uniform(0.5, 1, size=(5, len(sites)))
        numbers = (np.asarray(a, np.float32) for a in (mean - 0.7, std, response, prompt, spread))
        about = {"positive": f"More {trait} & <b>", "negative": "Less", "read_site": "0.5"}
        made[trait] = TraitDirections(trait, tuple(sites), unit, *numbers, metadata=about)
    return made


def record(
    number: int,
    tokens: Sequence[Token],
    n_prompt: int,
    known: dict[str, TraitDirections],
    *,
    prompt: str = "Héllo?",
) -> TextRecord:
    """A text whose states wander, so that its scores look like some."""
    rng = np.random.default_rng(number)
    n, first = len(tokens), next(iter(known.values()))
    steps = rng.normal(size=(n, len(first.sites), D))
    state = np.cumsum(steps, axis=1) * 0.6 + np.cumsum(rng.normal(size=(n, 1, D)), axis=0) * 0.2
    state = state.astype(np.float32)
    score = np.stack(
        [np.einsum("tsd,sd->ts", state, each.direction) for each in known.values()], axis=2
    )
    texts, roles = [text for text, _ in tokens], np.array([role for _, role in tokens])
    ends = np.cumsum([len(text) for text in texts]).astype(np.int32)
    special = np.array([text.startswith("<") and text.endswith(">") for text in texts])
    special &= roles == "template"
    logprob = -rng.exponential(size=n).astype(np.float32)
    logprob[:1] = np.nan
    ids = rng.integers(0, 2**17, size=n).astype(np.int32)
    generation = Generation(prompt_id_of([number]), 0)
    table = TokenTable(
        token_id=ids,
        role=roles,
        part=np.where(np.arange(n) < n_prompt, "prompt", "response"),
        special=special,
        turn=np.cumsum(roles != np.roll(roles, 1)).astype(np.int32) // 2,
        piece=tuple(text or f"<0x{(i * 37) % 256:02X}>" for i, text in enumerate(texts)),
        start=np.concatenate([[0], ends[:-1]]).astype(np.int32),
        end=ends,
        text="".join(texts),
    )
    norm = np.linalg.norm(state, axis=2).astype(np.float32)
    trace = Trace(generation, ids, n_prompt, score.astype(np.float32), norm, logprob, "stop", 0.5)
    asked = Prompt((Message("user", prompt),), None, {"kind": "odd"})
    return TextRecord(generation, asked, "".join(texts[n_prompt:]), table, trace)


def write_run(
    path: Path,
    records: Sequence[TextRecord],
    known: dict[str, TraitDirections],
    *,
    name: str = "odd",
    further: dict[str, TraitDirections] | None = None,
) -> None:
    """A run of these texts; traits in `further` come later and are scored on none of them."""
    sites = next(iter(known.values())).sites
    captures = tuple(Capture(each.generation, "texts") for each in records)
    header = replace(
        header_of(),
        name=name,
        sites=tuple(site.name for site in sites),
        traits=tuple({"name": t, "hash": d.hash, "file": ""} for t, d in known.items()),
        captures=captures,
    )
    with RunWriter.create(path, header, known) as writer:
        writer.commit(records, captures)
        if further:
            writer.add_traits(further)


def long_tokens(n: int) -> list[Token]:
    words = (" the", " weather", " may", " turn", ",", " perhaps", " not", " so", ".", "\n")
    said = [(words[(i * 7 + i // 9) % len(words)], "assistant") for i in range(n - 12)]
    return [("<s>", "template"), *[(" word", "user")] * 10, ("<assistant>", "template"), *said]


def long_run(path: Path, n: int, blocks: int, traits: Sequence[str]) -> None:
    known = directions(traits, sites_of(blocks))
    write_run(path, [record(1, long_tokens(n), 12, known, prompt="Tell me all.")], known)


def odd_run(path: Path, *, mid: bool = True) -> list[TextRecord]:
    """An odd text, one that failed, one that is all prompt; a hole, and a trait not scored yet."""
    sites = sites_of(4, mid=mid)
    known = directions(("alpha", "beta"), sites, holes=(0, 1))
    records = [
        record(1, ODD, ODD_PROMPT, known, prompt=MARKUP),
        TextRecord(Generation(prompt_id_of([2]), 0), Prompt.of(MARKUP), error=f"Too {MARKUP}."),
        record(3, ODD[:5], 5, known, prompt="Nothing comes."),
    ]
    write_run(path, records, known, further=directions(("gamma",), sites))
    return records
