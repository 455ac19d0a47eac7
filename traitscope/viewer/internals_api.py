"""Tier 3 for the pages: one block's inside for one text, in pieces as small as they are asked for.

`internals/GEN/BLOCK` says what the file holds.  Below it `account` (heads, biases and neurons
beside the true change), `neurons` (the top ones), and as little-endian float32: `tokens` (what each
part wrote at each token, [T, C]), `neuron/I` (activation and contribution, [T, 2]), `attention`
(where all heads looked from some tokens, [H, T]), `carried` (what of the trait they brought from
there, [H, T]) and `attention/H` (one head's matrix, pooled where a text is long).  `at` says which
tokens: `12`, `3:20`, `response[:]`; a slice takes content tokens, and numbers are means over them.
The arithmetic is `runs.contributions`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from traitscope.core import Internals, TokenTable, Window
from traitscope.errors import InputError, RunError
from traitscope.runs import Run
from traitscope.runs.contributions import Account, Contributions, Rows, attention_of, pooled
from traitscope.viewer.answers import answer, choice, whole_number
from traitscope.viewer.open_runs import asked_run

__all__ = [
    "account_json",
    "block_of",
    "contributions_of",
    "neurons_json",
    "routes",
    "rows_of",
    "side_json",
]

MATRIX = 384  # cells of an attention matrix along each side, at most
_SPAN = re.compile(r"(\d{1,9}):(\d{1,9})")
BY = {"contribution", "activation"}


def routes() -> list[Route]:
    place = "/api/runs/{run}/internals/{text}/{block}"
    return [
        Route(place, _block),
        Route(f"{place}/account", _account),
        Route(f"{place}/tokens", _tokens),
        Route(f"{place}/neurons", _neurons),
        Route(f"{place}/neuron/{{neuron}}", _neuron),
        Route(f"{place}/attention", _attention),
        Route(f"{place}/attention/{{head}}", _matrix),
        Route(f"{place}/carried", _carried),
    ]


# --- what is asked for ---------------------------------------------------------------------------


def block_of(run: Run, text: str, block: str) -> Internals:
    """The internals that a path names; RunError for what the run does not list."""
    return run.internals(text, _number(block, "a block"))


def contributions_of(run: Run, inside: Internals, query: QueryParams) -> Contributions:
    """The same for a trait: the query's, else the first that internals were kept for."""
    trait = choice(query, "trait", set(run.traits)) or inside.traits[0]
    return Contributions(inside, run.directions[trait])


def rows_of(tokens: TokenTable, at: str | None) -> Rows:
    """Positions that `at` means: a token, or the content tokens of a span or window (not none)."""
    n_tokens, at = len(tokens.piece), at or "response[:]"
    if at.isascii() and at.isdecimal() and len(at) < 10:
        if int(at) >= n_tokens:
            raise InputError(f"at: expected a token from 0 to {n_tokens - 1}, got {at}.")
        return np.array([int(at)], dtype=np.intp)
    span, chosen = _SPAN.fullmatch(at), np.zeros(n_tokens, dtype=np.bool_)
    if span:
        chosen[int(span[1]) : int(span[2])] = True
        chosen &= tokens.content
    elif at.startswith(("prompt[", "response[")):
        chosen = Window.parse(at).pick(tokens)
    else:
        raise InputError(
            f"at: expected a token such as 12, or a span such as 3:20 or response[:], got '{at}'."
        )
    if not chosen.any():
        raise RunError(
            f"Expected content tokens in {at}, but there are none in this text. Choose a token, "
            "or another span."
        )
    return np.flatnonzero(chosen)


def _number(text: str, what: str) -> int:
    if text.isascii() and text.isdecimal() and len(text) < 10:
        return int(text)
    raise RunError(f"Expected the number of {what}, got '{text}'.")


def _inside(request: Request) -> tuple[Run, Internals]:
    run = request.app.state.runs[asked_run(request)]
    return run, block_of(run, request.path_params["text"], request.path_params["block"])


def _asked(request: Request) -> tuple[Contributions, Rows, TokenTable]:
    """Block, trait and tokens of a request."""
    run, inside = _inside(request)
    tokens = run.text(inside.generation).tokens
    rows = rows_of(tokens, request.query_params.get("at"))
    return contributions_of(run, inside, request.query_params), rows, tokens


def _floats(*arrays: NDArray[Any]) -> Response:
    parts = [np.ascontiguousarray(array, dtype="<f4").tobytes() for array in arrays]
    return Response(b"".join(parts), media_type="application/octet-stream")


# --- the block -----------------------------------------------------------------------------------


def _block(request: Request) -> Response:
    run, inside = _inside(request)
    return answer(side_json(run, inside, Contributions(inside, run.directions[inside.traits[0]])))


def side_json(run: Run, inside: Internals, written: Contributions) -> dict[str, Any]:
    """What the file holds, in words and sizes; 0 for parts that it has not."""
    shapes = {name: array.shape for name, array in sorted(inside.tensors.items())}
    sites = [site.name for site in run.sites]
    model, n_tokens = run.header.model, len(run.text(inside.generation).tokens.piece)
    return {
        "generation": inside.generation.id,
        "block": inside.block,
        "blocks": run.internal_blocks(inside.generation),
        "model": {name: model.get(name, "") for name in ("name", "fingerprint", "dtype")},
        "traits": list(inside.traits),
        "parallel": written.parallel,
        "site_before": sites[max(sites.index(written.heads_write_to) - 1, 0)],
        "heads_write_to": written.heads_write_to,
        "neurons_write_to": written.neurons_write_to,
        "heads": max(shapes.get("head_to_score", (0, 0))[1], shapes.get("attention", (0,))[0]),
        "neurons": shapes.get("neurons", (0, 0))[1],
        "tensors": list(shapes),
        "step": max(1, -(-n_tokens // MATRIX)),
        "problems": _problems(written, np.array([n_tokens - 1])),
    }


def _problems(written: Contributions, rows: Rows) -> dict[str, str]:
    """What cannot be had of this file, and why: so that nobody asks for it."""
    wanted: dict[str, Callable[[], object]] = {
        "account": lambda: written.accounts(rows),
        "neurons": lambda: written.mean_neurons(rows),
        "attention": lambda: attention_of(written.inside, rows),
        "carried": lambda: written.carried(rows),
    }
    problems = {}
    for name, attempt in wanted.items():
        try:
            attempt()
        except RunError as error:
            problems[name] = str(error)
    return problems


# --- who wrote the trait -------------------------------------------------------------------------


def _account(request: Request) -> Response:
    written, rows, _ = _asked(request)
    return answer(account_json(written, rows))


def account_json(written: Contributions, rows: Rows) -> dict[str, Any]:
    """Means over the tokens: each account's parts, sum and true change, and each head's share."""
    return {
        "trait": written.directions.trait,
        "tokens": len(rows),
        "accounts": [_means(account) for account in written.accounts(rows)],
        "heads": written.heads(rows).mean(axis=0).tolist(),
    }


def _means(account: Account) -> dict[str, Any]:
    """`off` is the largest difference of sum and change at a token, in units of |h|."""
    off = np.abs(account.total - account.change) / np.maximum(account.norm, 1e-12)
    return {
        "site": account.site,
        "before": account.before.mean(),
        "after": account.after.mean(),
        "change": account.change.mean(),
        "total": account.total.mean(),
        "parts": [{"name": name, "value": part.mean()} for name, part in account.parts.items()],
        "off": off.max(),
        "there": account.there,
    }


def _tokens(request: Request) -> Response:
    """[T, C]: each head; attention's bias, all neurons, the MLP's bias; each account's change."""
    run, inside = _inside(request)
    written = contributions_of(run, inside, request.query_params)
    rows = np.arange(len(run.text(inside.generation).tokens.piece))
    parts = [written.bias("attn", rows), written.all_neurons(rows), written.bias("mlp", rows)]
    changes = [account.change for account in written.accounts(rows)]
    return _floats(np.column_stack([written.heads(rows), *parts, *changes]))


# --- neurons -------------------------------------------------------------------------------------


def _neurons(request: Request) -> Response:
    written, rows, _ = _asked(request)
    by = choice(request.query_params, "by", BY) or "contribution"
    count = whole_number(request.query_params, "n", 20, 1, 500)
    return answer(neurons_json(written, rows, by, count))


def neurons_json(written: Contributions, rows: Rows, by: str, count: int) -> dict[str, Any]:
    """The neurons of the largest mean activation or contribution, and how much of all they are."""
    activation, contribution = written.mean_neurons(rows)
    sizes = np.abs(activation if by == "activation" else contribution)
    top = np.argsort(-sizes, kind="stable")[:count]
    return {
        "trait": written.directions.trait,
        "tokens": len(rows),
        "by": by,
        "of": len(sizes),
        "all": contribution.sum(),
        "top": [
            {
                "neuron": int(i),
                "activation": activation[i],
                "contribution": contribution[i],
                "weight": written.weight_of(int(i)),
            }
            for i in top
        ],
    }


def _neuron(request: Request) -> Response:
    """[T, 2]: one neuron's activation and contribution at every token."""
    run, inside = _inside(request)
    written = contributions_of(run, inside, request.query_params)
    neuron = _number(request.path_params["neuron"], "a neuron")
    return _floats(np.column_stack(written.one_neuron(neuron)))


# --- attention -----------------------------------------------------------------------------------


def _attention(request: Request) -> Response:
    written, rows, _ = _asked(request)
    return _floats(attention_of(written.inside, rows))


def _carried(request: Request) -> Response:
    written, rows, _ = _asked(request)
    return _floats(written.carried(rows))


def _matrix(request: Request) -> Response:
    _, inside = _inside(request)
    matrix, _ = pooled(inside, _number(request.path_params["head"], "a head"), MATRIX)
    return _floats(matrix)
