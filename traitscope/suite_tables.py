"""The tables of a suite file: keys, types, ranges, defaults; and a sentence for each mistake.

Frozen pydantic models, strict about types and unknown keys.  Each field's `description` completes
"expected ..." in the sentence about it, so that the words stand beside the rule.  This module
reads no file and does not know whether a trait, a prompt or a model exists.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

from traitscope.core import GenerationConfig, Kind, Site, Window
from traitscope.errors import InputError, did_you_mean
from traitscope.textfile import shown

__all__ = ["Expectation", "GenerationTable", "KeepTable", "PromptSet", "SuiteTable", "sentences"]

_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
_DEFAULT = GenerationConfig()

Location = tuple[str | int, ...]


class _Table(BaseModel):
    # strict: TOML has types of its own, so "50" is not 50 and true is not 1
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def _site_name(text: str) -> str:
    try:
        return Site.parse(text).name
    except InputError as problem:
        raise ValueError from problem


class GenerationTable(_Table):
    """`[generation]`: the fields and defaults of `core.GenerationConfig`."""

    max_new_tokens: int = Field(
        _DEFAULT.max_new_tokens, ge=1, lt=2**31, description="a whole number >= 1"
    )
    temperature: float = Field(_DEFAULT.temperature, ge=0, description="a number >= 0")
    top_p: float = Field(_DEFAULT.top_p, gt=0, le=1, description="a number > 0 and <= 1")
    top_k: int = Field(_DEFAULT.top_k, ge=0, lt=2**31, description="a whole number >= 0 (0: all)")
    seed: int = Field(_DEFAULT.seed, ge=0, lt=2**63, description="a whole number >= 0")
    samples: int = Field(_DEFAULT.samples, ge=1, lt=2**31, description="a whole number >= 1")
    prompt_logprobs: bool = Field(_DEFAULT.prompt_logprobs, description="true or false")


class KeepTable(_Table):
    """`[keep]`, or `keep = ["3.post"]` for its `sites`: raw states to be kept beside the scores.

    `tokens`: of the prompt, the response, "last" (the last one of either), or all; `dtype`
    "auto" is the model's own where that is bfloat16, else float32.
    """

    sites: tuple[Annotated[str, AfterValidator(_site_name)], ...] = Field(
        (), strict=False, description="a list of sites such as '3.post'"
    )
    tokens: Literal["prompt", "response", "last", "all"] = Field(
        "all", description="'prompt', 'response', 'last' or 'all'"
    )
    dtype: Literal["auto", "bfloat16", "float32"] = Field(
        "auto", description="'auto', 'bfloat16' or 'float32'"
    )

    @model_validator(mode="before")
    @classmethod
    def _sites_alone(cls, data: object) -> object:
        return {"sites": data} if isinstance(data, list | tuple) else data


class PromptSet(_Table):
    """`[prompts.NAME]`: prompts from a file or given inline, and what is captured on them.

    Or `conversations`, which have their answers: they are read, nothing is generated.
    """

    file: str | None = Field(None, description="the path of a .txt or .jsonl file, as text")
    texts: Annotated[tuple[str, ...], Field(strict=False)] | None = Field(
        None, description="a list of prompts, each a text"
    )
    conversations: str | Annotated[tuple[dict[str, Any], ...], Field(strict=False)] | None = Field(
        None, description="the path of a .jsonl file, as text, or a list of conversations"
    )
    kind: Kind = Field("trajectory", description="'trajectory' or 'internals'")
    blocks: tuple[Annotated[int, Field(ge=0)] | Literal["middle"], ...] = Field(
        (), strict=False, description="a list of block numbers (from 0) or 'middle'"
    )
    samples: int | None = Field(None, ge=1, lt=2**31, description="a whole number >= 1")
    tags: dict[str, str] = Field({}, description="a flat table of texts, e.g. {topic = 'law'}")

    @model_validator(mode="before")
    @classmethod
    def _middle_is_the_default(cls, data: object) -> object:
        if isinstance(data, dict) and data.get("kind") == "internals":
            return {"blocks": ["middle"], **data}
        return data

    @model_validator(mode="after")
    def _fits_together(self) -> PromptSet:
        sources = ("file", "texts", "conversations")
        named = [name for name in sources if getattr(self, name) is not None]
        if len(named) != 1:
            came = " and ".join(named) or "none of them"
            raise ValueError(f"expected one of 'file', 'texts' or 'conversations', got {came}")
        if getattr(self, named[0]) == ():
            raise ValueError(f"expected at least one text in '{named[0]}', got none")
        if self.samples is not None and self.conversations is not None:
            raise ValueError("expected 'samples' only with prompts, got it with conversations")
        if self.kind == "internals" and not self.blocks:
            raise ValueError("expected at least one block in 'blocks', got none")
        if self.kind == "trajectory" and self.blocks:
            raise ValueError("expected 'blocks' only with kind = \"internals\", got a trajectory")
        return self


def _window(text: str) -> str:
    try:
        return str(Window.parse(text))
    except InputError as problem:
        raise ValueError from problem


def _site(where: str | float) -> str | float:
    return where if where == "read" or not isinstance(where, str) else _site_name(where)


class Expectation(_Table):
    """`[[expect]]`: on `trait`, the prompt `higher` lies above `lower` by at least `margin` z.

    `higher` and `lower` are a prompt's id or its text; both are read in `window` at `site`.
    """

    text: str = Field(min_length=1, description="a sentence that says what is expected")
    trait: str = Field(description="the name of one of the suite's traits")
    higher: str = Field(description="the text or the id of a prompt of the suite")
    lower: str = Field(description="the text or the id of a prompt of the suite")
    window: Annotated[str, AfterValidator(_window)] = Field(
        "response[:]", description="a window such as 'prompt[-1]' or 'response[:]'"
    )
    site: Annotated[str | Annotated[float, Field(ge=0, le=1)], AfterValidator(_site)] = Field(
        "read", description="'read', a site such as '3.post', or a depth from 0.0 to 1.0"
    )
    margin: float = Field(0.5, ge=0, description="a number >= 0")


class SuiteTable(_Table):
    """The whole file.  `logprobs` is for conversations: without it their tokens have none."""

    name: str = Field(pattern=_NAME, description="a name of letters, digits, '_', '.' and '-'")
    description: str = Field("", description="a text")
    model: str = Field(min_length=1, description="'pocket', a local folder or a hub id, as text")
    revision: str | None = Field(None, min_length=1, description="a revision of the model, as text")
    adapter: str | None = Field(
        None, min_length=1, description="the folder of a LoRA adapter, as text"
    )
    family: dict[str, str | bool | float | Annotated[tuple[str, ...], Field(strict=False)]] = Field(
        {}, description="a flat table that names the parts of the model's blocks (docs/models.md)"
    )
    trust_remote_code: bool = Field(
        False, description="true (run the Python code that comes with the checkpoint) or false"
    )
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|mps|spread|cuda(:[0-9]{1,4})?)$",
        description="'auto', 'cpu', 'cuda', 'cuda:N', 'mps' or 'spread' (all GPUs)",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="'auto', 'float32', 'bfloat16' or 'float16'"
    )
    rows: Annotated[int, Field(ge=1, lt=2**31)] | Literal["auto"] = Field(
        "auto", description="a whole number >= 1 or 'auto'"
    )
    allow_unproven: bool = Field(
        False, description="true (go on with a model that fails its checks) or false"
    )
    traits: tuple[str, ...] = Field(
        min_length=1,
        strict=False,
        description="a list of at least one trait: names, trait folders, directions files or "
        "vectors (.pt)",
    )
    thinking: bool | None = Field(
        None, description="true or false (the switch of the model's chat template)"
    )
    template: dict[str, JsonValue] = Field(
        {}, description="a table of variables for the model's chat template: texts, numbers, ..."
    )
    generation: GenerationTable = Field(
        default_factory=lambda: GenerationTable.model_validate({}),
        description="a table [generation]",
    )
    logprobs: bool = Field(True, description="true or false")
    keep: KeepTable = Field(
        default_factory=lambda: KeepTable.model_validate({}),
        description="a table [keep], or a list of sites",
    )
    prompts: dict[str, PromptSet] = Field(
        min_length=1,
        description="at least one table [prompts.NAME] with 'file', 'texts' or 'conversations'",
    )
    expect: tuple[Expectation, ...] = Field((), strict=False, description="tables [[expect]]")


def sentences(
    problem: ValidationError, source: str, beside: Collection[Location] = ()
) -> list[str]:
    """One sentence for each mistake; `beside` are the places that the file does not decide."""
    lines = [_sentence(error, source, beside) for error in problem.errors()]
    return list(dict.fromkeys(lines))  # each arm of a union reports for itself, in the same words


def _sentence(error: ErrorDetails, source: str, beside: Collection[Location]) -> str:
    table, prefix, suffix, rest = _place(error["loc"])
    if not rest:
        return f"{source}: '{prefix.rstrip('.')}'{suffix}: {_of_table(error)}."
    key = str(rest[0])
    name = f"'{prefix}{key}'{suffix}"
    if error["type"] == "extra_forbidden":
        known = list(table.model_fields)
        return (
            f"{source}: key {name} is not known. Known here: {', '.join(known)}."
            f"{did_you_mean(key, known)}"
        )
    if len(rest) > 1 and isinstance(rest[1], int):
        name += f", entry {rest[1] + 1}"
    if error["loc"][: len(error["loc"]) - len(rest) + 1] in beside:
        source, name = "Given beside the suite", name.replace(prefix, "", 1)
    came = "nothing" if error["type"] == "missing" else shown(error["input"])
    return f"{source}: {name}: expected {table.model_fields[key].description}, got {came}."


def _place(location: Location) -> tuple[type[BaseModel], str, str, Location]:
    """The table that a location is in, how to name a key there, and what is left of it."""
    match location:
        case ("generation", *rest):
            return GenerationTable, "generation.", "", tuple(rest)
        case ("keep", *rest):
            return KeepTable, "keep.", "", tuple(rest)
        case ("prompts", name, *rest):
            return PromptSet, f"prompts.{name}.", "", tuple(rest)
        case ("expect", int(number), *rest):
            return Expectation, "expect.", f" of [[expect]] number {number + 1}", tuple(rest)
        case _:
            return SuiteTable, "", "", location


def _of_table(error: ErrorDetails) -> str:
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    return f"expected a table, got {shown(error['input'])}"
