"""The prompt table over the wire: a page of it as JSON, or all that is picked as CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from traitscope.exports.flat import guarded
from traitscope.report.columns import STATISTICS
from traitscope.viewer.answers import answer, choice, whole_number
from traitscope.viewer.open_runs import OpenRuns, asked_run
from traitscope.viewer.run_api import scores_of
from traitscope.viewer.scores import AS
from traitscope.viewer.table import Row, Table, Threshold, Wanted

__all__ = ["routes"]

PAGE, MOST = 100, 500  # rows
SHOWN = 400  # characters of a prompt or a response in a row
AT_ONCE = 1000  # rows of CSV made in one go


def routes() -> list[Route]:
    return [
        Route("/api/runs/{run}/captures", _captures),
        Route("/api/runs/{run}/captures.csv", _csv),
    ]


def _table(request: Request) -> Table:
    runs: OpenRuns = request.app.state.runs
    number = asked_run(request)
    scores = scores_of(runs, number)

    return runs.memo(number, "table", lambda run: Table(run, scores))


def _wanted(query: QueryParams) -> Wanted:
    sort = query.get("sort", "order")
    return Wanted(
        search=query.get("q", ""),
        prompt_set=query.get("set", ""),
        kind=query.get("kind", ""),
        status=choice(query, "status", {"done", "failed", "missing"}) or "",
        tag=query.get("tag", ""),
        where=tuple(Threshold.parse(text) for text in query.getlist("where")),
        sort=sort.removeprefix("-") or "order",
        falling=sort.startswith("-"),
        how=choice(query, "as", set(AS)) or "z",
    )


def _captures(request: Request) -> Response:
    table, query = _table(request), request.query_params
    wanted = _wanted(query)
    offset = whole_number(query, "offset", 0, 0, 999_999_999)
    limit = whole_number(query, "limit", PAGE, 1, MOST)
    picked = table.pick(wanted)
    page = picked[offset : offset + limit]
    scores = table.scores(page, wanted.how)
    return answer(
        {
            "total": len(table.rows),
            "matched": len(picked),
            "offset": offset,
            "as": wanted.how,
            "traits": table.run.traits,
            "rows": [
                {**_row(row), "scores": {name: scores[name][i] for name in STATISTICS}}
                for i, row in enumerate(page)
            ],
        }
    )


def _row(row: Row) -> dict[str, Any]:
    text, capture = row.text, row.capture
    return {
        "number": row.number,
        "generation": capture.generation.id,
        "sample": capture.generation.sample,
        "set": capture.prompt_set,
        "kind": capture.kind,
        "status": row.status,
        "error": row.error,
        "in_suite": row.in_suite,
        "label": None if text is None else text.prompt.label,
        "tags": {} if text is None else text.prompt.tags,
        "prompt": "" if text is None else text.prompt.text[:SHOWN],
        "response": "" if text is None else text.response[:SHOWN],
        "cut": text is not None and max(len(text.prompt.text), len(text.response)) > SHOWN,
        "finish": None if text is None else text.finish,
        "tokens": 0 if text is None else text.n_tokens - text.n_prompt,
        "readable": text is not None and text.status == "done",
    }


# --- CSV -----------------------------------------------------------------------------------------


def _csv(request: Request) -> Response:
    table, wanted = _table(request), _wanted(request.query_params)
    picked = table.pick(wanted)
    name = f"{table.run.path.name}-captures.csv".encode("ascii", "replace").decode()
    name = "".join(c if c.isalnum() or c in "._-" else "-" for c in name)
    return StreamingResponse(
        _lines(table, picked, wanted.how),
        media_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


def _lines(table: Table, rows: list[Row], how: str) -> Iterator[str]:
    """Texts whole, and guarded: no spreadsheet takes one for a formula."""
    about = ["set", "kind", "status", "error", "label", "generation", "sample", "prompt"]
    about += ["response", "tags", "finish", "tokens"]
    names = [f"{t}.{s}.{how}" for t in table.run.traits for s in STATISTICS]
    yield _line([*about, *names])
    for first in range(0, len(rows), AT_ONCE):
        some = rows[first : first + AT_ONCE]
        scores = table.scores(some, how)
        numbers = np.stack([scores[name] for name in STATISTICS], axis=2).reshape(len(some), -1)
        yield "".join(
            _line([*_cells(row, about), *("" if v != v else f"{v:.9g}" for v in values)])
            for row, values in zip(some, numbers.tolist(), strict=True)
        )


def _cells(row: Row, names: list[str]) -> list[str]:
    said = _row(row)
    if row.text is not None:
        said |= {"prompt": row.text.prompt.text, "response": row.text.response}
    said["tags"] = json.dumps(dict(said["tags"]), ensure_ascii=False) if said["tags"] else ""
    return [guarded("" if said[name] is None else str(said[name])) for name in names]


def _line(cells: list[str]) -> str:
    out = io.StringIO()
    csv.writer(out).writerow(cells)
    return out.getvalue()
