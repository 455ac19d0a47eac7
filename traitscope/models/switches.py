"""The variables that a chat template reads, and what a user may set of them.

A template takes what it is given and ignores the rest in silence; here that is a mistake with a
sentence.  What a variable does is the template's own business.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from traitscope.errors import ModelError, did_you_mean
from traitscope.models.thoughts import SWITCHES, template_text

__all__ = ["template_arguments"]

# what every template is given, by us or by transformers
_OURS = {"messages", "add_generation_prompt", "continue_final_message", "tokenize", "chat_template"}
_GIVEN = _OURS | {"raise_exception", "strftime_now", "tools", "documents"}


def template_arguments(
    tokenizer: Any, given: Mapping[str, Any], thinking: bool | None, name: str
) -> dict[str, Any]:
    """What the template is told beside the chat; `name` is the model's.

    `thinking` sets the template's own switch, whatever that is called.  Raises ModelError for a
    variable that it never reads, and where it has no such switch.
    """
    if not given and thinking is None:
        return {}
    source = template_text(tokenizer)
    if not source:
        wanted = sorted(given) or ["thinking"]
        raise ModelError(
            f"Expected a chat template that can be told {_quoted(wanted)}, but the tokenizer of "
            f"'{name}' has none: its prompts are plain text. Leave that out."
        )
    reads = _variables(source)
    free = sorted(reads - _GIVEN - set(getattr(tokenizer, "special_tokens_map", {})))
    for key in given:
        if key in _OURS:
            raise ModelError(
                f"The chat template's '{key}' is set by traitscope itself. Leave it out."
            )
        if key not in reads:
            raise ModelError(
                f"The chat template of '{name}' never reads '{key}'. It reads: "
                f"{', '.join(free) or 'nothing beside the chat'}.{did_you_mean(key, free)}"
            )
    return {**given, **_switch(reads, free, given, thinking, name)}


def _switch(
    reads: set[str], free: list[str], given: Mapping[str, Any], thinking: bool | None, name: str
) -> dict[str, bool]:
    if thinking is None:
        return {}
    for switch in SWITCHES:
        if switch in reads:
            if given.get(switch, thinking) is not thinking:
                raise ModelError(
                    f"Expected 'thinking' and the template's '{switch}' to agree, got {thinking} "
                    f"and {given[switch]}. Leave one of them out."
                )
            return {switch: thinking}
    reads_else = f"It reads: {', '.join(free)}. Set one of these with --template-arg KEY=VALUE, or"
    raise ModelError(
        f"The chat template of '{name}' has no switch for thinking (known: {', '.join(SWITCHES)}). "
        f"{reads_else if free else 'It reads nothing beside the chat:'} leave thinking as it is."
    )


def _variables(source: str) -> set[str]:
    """The names that a template takes from outside."""
    from jinja2 import TemplateSyntaxError, meta
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    # transformers' own tag for training is no variable, and plain Jinja does not know it
    source = re.sub(r"\{%[-+]?\s*(?:end)?generation\s*[-+]?%\}", "", source)
    environment = ImmutableSandboxedEnvironment(extensions=["jinja2.ext.loopcontrols"])
    try:
        return set(meta.find_undeclared_variables(environment.parse(source)))
    except TemplateSyntaxError as error:
        raise ModelError(
            f"Expected a chat template that can be read, got a mistake in line {error.lineno} "
            f"({error.message}). Mend the tokenizer's chat_template."
        ) from error


def _quoted(names: list[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
