"""A run, a text and a comparison as a notebook shows them: a small piece of HTML, without network.

Numbers are z at each trait's read site.  Text of people and models is escaped, each piece with a
direction of its own.  Colours carry their own ink, so that they read in light and dark notebooks,
and what they say stands in a number as well.  No script, nothing fetched, no torch.
"""

from __future__ import annotations

import base64
import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from traitscope.core import Float32, Window
from traitscope.errors import TraitscopeError

if TYPE_CHECKING:
    from traitscope.runs.comparison import Comparison
    from traitscope.runs.reader import Run, TextData
    from traitscope.runs.tables import GenerationRow

__all__ = ["comparison_html", "run_html", "text_html"]

TEXTS = 10  # of a run
TRAITS = 6
TOKENS = 300  # of a text
_LONG = 120  # characters of a prompt or an answer in a table
_MORE = ("#fde0bd", "#fdb863", "#e08214")  # z from 1, 2, 3: as in the report
_LESS = ("#d6e6f4", "#92c0e4", "#5a9bd4")
_DIM = "opacity:.65"
_CELL = "padding:2px 10px 2px 0;text-align:left;vertical-align:top"
_NUMBER = f"{_CELL};text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums"
_RESPONSE = Window.parse("response[:]")
_BEFORE = Window.parse("prompt[-1]")


def run_html(run: Run) -> str:
    """What it is, how far it got, and its first texts with the z of their answers."""
    try:
        return _box(_run_lines(run))
    except TraitscopeError as error:  # a notebook shows what a script would be told
        return _box([f"<b>{escape(str(run.path))}</b>", f"<div>{escape(str(error))}</div>"])


def text_html(text: TextData) -> str:
    """Its tokens coloured for each trait, with a map of sites x tokens; without a run its words."""
    if text.run is None:
        return _box([f"<b>{text.generation.id}</b>", _words(text.tokens.text)])
    head = f'<b>{text.generation.id}</b> <span style="{_DIM}">{len(text.score)} tokens, z</span>'
    blocks = [_trait(text, text.run, trait) for trait in text.run.traits[:TRAITS]]
    return _box([head, *blocks, *_others(text.run.traits)])


def comparison_html(comparison: Comparison) -> str:
    a, b = comparison.a, comparison.b
    names = [f"{escape(run.header.name)} ({escape(str(run.path))})" for run in (a, b)]
    said = f"texts in common: {len(comparison.pairs)}, {len(comparison.sites)} sites, "
    said += f"traits {', '.join(comparison.traits) or 'none'}"
    notes = "".join(f"<li>{escape(note)}</li>" for note in comparison.notes)
    return _box(
        [f"<b>{names[0]}</b> and <b>{names[1]}</b>", f"<div>{said}</div>", f"<ul>{notes}</ul>"]
    )


# --- a run ---------------------------------------------------------------------------------------


def _run_lines(run: Run) -> Iterator[str]:
    rows, header = run.generations(), run.header
    done = [row for row in rows if row.status == "done"]
    yield f"<b>{escape(header.name)}</b> <span>{run.state}</span>"
    about = [
        str(header.model.get("name", "")),
        f"{len(done)} texts",
        f"{len(rows) - len(done)} failed" if len(done) < len(rows) else "",
        f"{len(run.missing())} captures still to make" if run.missing() else "",
        f"{len(run.sites)} sites",
        str(run.path),
    ]
    yield f'<div style="{_DIM}">{escape(" · ".join(filter(None, about)))}</div>'
    if rows:
        yield _table(run, rows[:TEXTS])
    if len(rows) > TEXTS:
        yield f'<div style="{_DIM}">… and {len(rows) - TEXTS} more: run.generations()</div>'
    yield from _others(run.traits)


def _table(run: Run, rows: Sequence[GenerationRow]) -> str:
    traits = run.traits[:TRAITS]
    names = (name.replace("_", "_<wbr>") for name in traits)  # of letters, digits and underscores
    heads = ["text", "prompt", *names, "answer"]
    lines = ["".join(f'<th style="{_CELL}">{head}</th>' for head in heads)]
    for row in rows:
        name = f'<td style="{_NUMBER};text-align:left"><code>{row.generation.id}</code></td>'
        cells = [name, _cell(row.prompt.label or row.prompt.text)]
        if row.status == "done":
            text = run.text(row.generation)
            cells += [_number(_mean(run, text, trait, _RESPONSE)) for trait in traits]
            cells.append(_cell(row.response))
        else:
            cells += ["<td></td>"] * len(traits) + [_cell(f"failed: {row.error}")]
        lines.append("".join(cells))
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<table style="border-collapse:collapse;margin:4px 0">{body}</table>'


def _cell(text: str) -> str:
    said = text if len(text) <= _LONG else f"{text[:_LONG]}…"
    return f'<td style="{_CELL}"><bdi>{escape(said)}</bdi></td>'


def _number(z: float) -> str:
    return f'<td style="{_NUMBER}">{_span(_signed(z), z)}</td>'


def _others(traits: Sequence[str]) -> Iterator[str]:
    if len(traits) > TRAITS:
        others = escape(", ".join(traits[TRAITS:]))
        yield f'<div style="{_DIM}">Not shown: {others}</div>'


# --- a text --------------------------------------------------------------------------------------


def _trait(text: TextData, run: Run, trait: str) -> str:
    site = run.read_site(trait)
    readings = [_mean(run, text, trait, window) for window in (_BEFORE, _RESPONSE)]
    said = (
        f"at {run.sites[site].name}: before {_signed(readings[0])}, answer {_signed(readings[1])}"
    )
    z_TS = np.stack([_z(run, text, trait, s) for s in range(len(run.sites))], axis=1)
    return (
        f'<div style="margin-top:6px"><b>{escape(trait)}</b> '
        f'<span style="{_DIM}">{said}</span></div>'
        f"{_strip(text, z_TS[:, site])}{_map(text, z_TS, run)}"
    )


def _shown(text: TextData) -> NDArray[np.intp]:
    """Positions of the tokens shown: content, and the last one of the prompt."""
    shown = text.tokens.content.copy()
    shown[max(text.tokens.n_prompt - 1, 0)] = True
    return np.flatnonzero(shown)[:TOKENS]


def _strip(text: TextData, z_T: Float32) -> str:
    tokens, pieces = text.tokens, []
    before = True
    for t in _shown(text):
        if before and t >= tokens.n_prompt:
            before = False
            pieces.append(f'<span style="{_DIM}"> ▸ </span>')
        own = tokens.text[int(tokens.start[t]) : int(tokens.end[t])]
        bare = own.lstrip(" ")  # words stand apart
        pieces.append(" " * (len(own) - len(bare)) + _span(bare.replace("\n", "↵"), float(z_T[t])))
    more = int(tokens.content.sum()) - TOKENS
    rest = f'<span style="{_DIM}"> … {more} tokens more</span>' if more > 0 else ""
    return f'<div style="white-space:pre-wrap"><bdi>{"".join(pieces)}</bdi>{rest}</div>'


def _map(text: TextData, z_TS: Float32, run: Run) -> str:
    """Sites (the last one on top) x tokens; within the neutral band the notebook shows through."""
    z_ST = z_TS[_shown(text)].T[::-1]
    if not z_ST.size:
        return ""
    height, width = min(max(6 * len(z_ST), 60), 240), min(12 * z_ST.shape[1], 720)
    style = f"width:{width}px;height:{height}px;image-rendering:pixelated;border:1px solid #8886"
    what = f"sites {run.sites[0]} (below) to {run.sites[-1]} (on top), tokens from left to right"
    return (
        f'<img alt="{what}" title="{what}" style="{style}" '
        f'src="data:image/png;base64,{base64.b64encode(_png(_pixels(z_ST))).decode()}">'
    )


def _pixels(z: Float32) -> NDArray[np.uint8]:
    """[..., 4] bytes: clear within the neutral band and where there is nothing."""
    colours = [[0, 0, 0, 0], *([*bytes.fromhex(c[1:]), 255] for c in (*_MORE, *_LESS))]
    size = np.minimum(np.nan_to_num(np.abs(z)), 3).astype(int)
    palette = np.array(colours, dtype=np.uint8)
    return np.asarray(palette[np.where((z < 0) & (size > 0), size + 3, size)])


def _png(pixels: NDArray[np.uint8]) -> bytes:
    """An image of bytes [height, width, 4] (W3C PNG, section 11: IHDR, IDAT, IEND)."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


# --- numbers and pieces --------------------------------------------------------------------------


def _z(run: Run, text: TextData, trait: str, site: int) -> Float32:
    """z of each token, the last one of the prompt by its own neutral numbers: [T]."""
    score = text.score[:, site, run.traits.index(trait)]
    z = run.directions[trait].z(score, site, _RESPONSE)
    last = text.tokens.n_prompt - 1
    if last >= 0:
        z[last] = run.directions[trait].z(score[last : last + 1], site, _BEFORE)[0]
    return z


def _mean(run: Run, text: TextData, trait: str, window: Window) -> float:
    return run.reading(text, trait, window).z


def _span(text: str, z: float) -> str:
    colour = _colour(z)
    if not colour:
        return escape(text)
    style = f"background:{colour};color:#16181b;border-radius:2px"
    return f'<span style="{style}" title="{_signed(z)}">{escape(text)}</span>'


def _colour(z: float) -> str:
    if math.isnan(z) or abs(z) < 1:
        return ""
    return (_MORE if z > 0 else _LESS)[min(int(abs(z)), 3) - 1]


def _signed(z: float) -> str:
    return "\u2013" if math.isnan(z) else f"{z:+.2f}".replace("-", "\u2212")


def _words(text: str) -> str:
    return f'<div style="white-space:pre-wrap"><bdi>{escape(text[:5000])}</bdi></div>'


def _box(lines: Sequence[str] | Iterator[str]) -> str:
    return f'<div style="max-width:1000px;line-height:1.5">{"".join(lines)}</div>'
