"""Options that several verbs share: their names, types and help, once."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from traitscope.errors import InputError

__all__ = [
    "Adapter",
    "AllowUnproven",
    "Device",
    "Dtype",
    "Fresh",
    "Json",
    "Keep",
    "MaxNewTokens",
    "Out",
    "RetryFailed",
    "Revision",
    "Rows",
    "RunFolder",
    "Samples",
    "Seed",
    "Temperature",
    "TemplateArg",
    "Thinking",
    "TopK",
    "TopP",
    "TrustRemoteCode",
    "given",
    "template_of",
]

_WHAT = "What goes with the model"
_HOW = "How texts are made"
_WHERE = "Where it runs and where it goes"

MaxNewTokens = Annotated[
    int | None,
    typer.Option(
        "--max-new-tokens",
        metavar="N",
        help="Longest answer in tokens, the end token counted.",
        rich_help_panel=_HOW,
    ),
]
Temperature = Annotated[
    float | None,
    typer.Option(
        "--temperature", metavar="T", help="0 always takes the likeliest.", rich_help_panel=_HOW
    ),
]
TopP = Annotated[
    float | None,
    typer.Option(
        "--top-p",
        metavar="P",
        help="Sample from the likeliest tokens that add up to P.",
        rich_help_panel=_HOW,
    ),
]
TopK = Annotated[
    int | None,
    typer.Option(
        "--top-k",
        metavar="K",
        help="Sample from the K likeliest tokens; 0: all.",
        rich_help_panel=_HOW,
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(
        "--seed", metavar="N", help="The same seed gives the same texts.", rich_help_panel=_HOW
    ),
]
Samples = Annotated[
    int | None,
    typer.Option(
        "--samples",
        metavar="N",
        help="Answers to each prompt; 5 or more let the report test differences.",
        rich_help_panel=_HOW,
    ),
]
NoPromptLogprobs = Annotated[
    bool,
    typer.Option(
        "--no-prompt-logprobs",
        help="Leave the prompts' own log probabilities out: faster where the vocabulary is large.",
        rich_help_panel=_HOW,
    ),
]
Thinking = Annotated[
    bool | None,
    typer.Option(
        "--thinking/--no-thinking",
        help="The switch for thinking of the model's chat template.",
        show_default=False,
        rich_help_panel=_HOW,
    ),
]
TemplateArg = Annotated[
    list[str] | None,
    typer.Option(
        "--template-arg",
        metavar="KEY=VALUE",
        help="A variable of the model's chat template (reasoning_effort=high); may be repeated. "
        "VALUE is JSON, else text.",
        rich_help_panel=_HOW,
    ),
]
Adapter = Annotated[
    str | None,
    typer.Option(
        "--adapter", metavar="DIR", help="A LoRA adapter's folder.", rich_help_panel=_WHAT
    ),
]
Revision = Annotated[
    str | None,
    typer.Option(
        "--revision",
        metavar="NAME",
        help="The model's revision on the hub: a branch, a tag or a commit.",
        rich_help_panel=_WHAT,
    ),
]
TrustRemoteCode = Annotated[
    bool | None,
    typer.Option(
        "--trust-remote-code",
        help="Run the Python code that comes with the checkpoint.",
        rich_help_panel=_WHAT,
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="NAME",
        help="auto, cpu, cuda, cuda:N, mps, or spread (all GPUs).",
        rich_help_panel=_WHERE,
    ),
]
Dtype = Annotated[
    str | None,
    typer.Option(
        "--dtype",
        metavar="NAME",
        help="auto (as the checkpoint says), float32, bfloat16 or float16.",
        rich_help_panel=_WHERE,
    ),
]
Rows = Annotated[
    str | None,
    typer.Option(
        "--rows", metavar="N", help="Texts in one batch, or auto.", rich_help_panel=_WHERE
    ),
]
Out = Annotated[
    str | None,
    typer.Option(
        "--out",
        metavar="DIR",
        help="The run's folder. Without it: runs/NAME-HASH.",
        rich_help_panel=_WHERE,
    ),
]
Fresh = Annotated[
    bool,
    typer.Option(
        "--fresh",
        help="Start a new, numbered run instead of going on with the one that is there.",
        rich_help_panel=_WHERE,
    ),
]
RetryFailed = Annotated[
    bool,
    typer.Option("--retry-failed", help="Try again what failed before.", rich_help_panel=_WHERE),
]
AllowUnproven = Annotated[
    bool,
    typer.Option(
        "--allow-unproven",
        help="Go on with a model that fails its checks at load; the run and its report say so.",
        rich_help_panel=_WHERE,
    ),
]
Keep = Annotated[
    list[str] | None,
    typer.Option(
        "--keep",
        metavar="SITE",
        help="Keep the raw states of a site (13.post) beside the scores; may be repeated.",
    ),
]
Json = Annotated[
    bool,
    typer.Option(
        "--json",
        help="Print one line of JSON, the result; progress goes to standard error as JSON lines.",
    ),
]
RunFolder = Annotated[str, typer.Argument(metavar="RUN", help="A run's folder.")]


def template_of(pairs: list[str] | None) -> dict[str, Any] | None:
    """KEY=VALUE pairs as a table; InputError for what is none, or comes twice."""
    table: dict[str, Any] = {}
    for pair in pairs or []:
        key, equals, value = pair.partition("=")
        if not equals or not key.isidentifier() or key in table:
            what = "each KEY once" if key in table else "KEY=VALUE"
            raise InputError(f"--template-arg: expected {what}, got '{pair}'.")
        try:
            table[key] = json.loads(value)
        except (ValueError, RecursionError):
            table[key] = value
    return table or None


def given(**options: Any) -> dict[str, Any]:
    """The options that were given; a whole number among `rows` is one."""
    rows = options.get("rows")
    if isinstance(rows, str) and rows.isdecimal() and len(rows) < 10:
        options["rows"] = int(rows)
    return {name: value for name, value in options.items() if value is not None}
