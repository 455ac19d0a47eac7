"""What goes over the wire: values as JSON, mistakes as one sentence, parameters read with care.

NaN and infinities are null.  Every error is `{"error": sentence}`: 404 for what is not there, 400
for a parameter that cannot be.  Nothing here knows a run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from traitscope.errors import InputError, RunError, TraitscopeError
from traitscope.runs.lines import plain

__all__ = ["ERRORS", "answer", "choice", "number", "whole_number"]


class _Json(JSONResponse):
    def render(self, content: object) -> bytes:
        return json.dumps(plain(content), allow_nan=False, separators=(",", ":")).encode()


def answer(value: Mapping[str, object]) -> Response:
    """JSON of plain values, numpy's included."""
    return _Json(value)


# --- parameters ----------------------------------------------------------------------------------


def whole_number(query: QueryParams, name: str, default: int, lowest: int, highest: int) -> int:
    """A whole number within its bounds; InputError for anything else."""
    text = query.get(name)
    if text is None:
        return default
    if text.isascii() and text.isdecimal() and len(text) < 10 and lowest <= int(text) <= highest:
        return int(text)
    raise InputError(f"{name}: expected a whole number from {lowest} to {highest}, got '{text}'.")


def number(query: QueryParams, name: str) -> float | None:
    """A finite number, or None where there is none; InputError for anything else."""
    text = query.get(name)
    if text is None or text == "":
        return None
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if abs(value) < float("inf"):
        return value
    raise InputError(f"{name}: expected a number, got '{text}'.")


def choice(query: QueryParams, name: str, allowed: Mapping[str, object] | set[str]) -> str | None:
    """One of the allowed words, or None where there is none; InputError for another one."""
    text = query.get(name)
    if text is None or text == "" or text in allowed:
        return text or None
    raise InputError(f"{name}: expected one of {', '.join(sorted(allowed))}, got '{text}'.")


# --- errors --------------------------------------------------------------------------------------


def _known(request: Request, error: Exception) -> Response:
    status = 404 if isinstance(error, RunError) else 400 if isinstance(error, InputError) else 500
    return JSONResponse({"error": str(error)}, status_code=status)


def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    said = {404: "Nothing is here. The first page lists the runs."}.get(error.status_code)
    return JSONResponse({"error": said or error.detail}, status_code=error.status_code)


def _unknown(request: Request, error: Exception) -> Response:
    said = f"Something failed that should not have ({type(error).__name__})."
    return JSONResponse({"error": f"{said} The terminal says where."}, status_code=500)


ERRORS = {TraitscopeError: _known, HTTPException: _http, Exception: _unknown}
