"""What is asked of a suite: the command line that `run` and `plan` have in common.

A verb gets the suite as it is meant, with the options that win over its file, and the folder.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from traitscope.cli.options import (
    Adapter,
    AllowUnproven,
    Device,
    Dtype,
    Fresh,
    Json,
    Keep,
    MaxNewTokens,
    NoPromptLogprobs,
    Out,
    RetryFailed,
    Revision,
    Rows,
    Samples,
    Seed,
    Temperature,
    TemplateArg,
    Thinking,
    TopK,
    TopP,
    TrustRemoteCode,
    given,
    template_of,
)
from traitscope.cli.screen import Screen

if TYPE_CHECKING:
    from traitscope.suite import Suite

__all__ = ["of_a_suite"]


def of_a_suite(work: Callable[[Suite, Path | None, bool, bool, Screen], int]) -> Callable[..., int]:
    """The verb that reads the command line and does `work` (suite, out, fresh, retry_failed,
    screen); its help is that of `work`."""

    def verb(
        suite: Annotated[
            str,
            typer.Argument(
                metavar="SUITE",
                help="A suite's file or folder, or the name of a bundled one: overnight.",
            ),
        ],
        model: Annotated[
            str | None,
            typer.Option("--model", metavar="NAME", help="pocket, a local folder or a hub id."),
        ] = None,
        adapter: Adapter = None,
        revision: Revision = None,
        trust_remote_code: TrustRemoteCode = None,
        max_new_tokens: MaxNewTokens = None,
        temperature: Temperature = None,
        top_p: TopP = None,
        top_k: TopK = None,
        seed: Seed = None,
        samples: Samples = None,
        no_prompt_logprobs: NoPromptLogprobs = False,
        thinking: Thinking = None,
        template_arg: TemplateArg = None,
        device: Device = None,
        dtype: Dtype = None,
        rows: Rows = None,
        keep: Keep = None,
        out: Out = None,
        fresh: Fresh = False,
        retry_failed: RetryFailed = False,
        allow_unproven: AllowUnproven = False,
        json: Json = False,
    ) -> int:
        from traitscope.suite import load_suite

        options = given(
            model=model,
            adapter=adapter,
            revision=revision,
            trust_remote_code=trust_remote_code,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            seed=seed,
            samples=samples,
            prompt_logprobs=False if no_prompt_logprobs else None,
            device=device,
            dtype=dtype,
            rows=rows,
            keep=keep,
            thinking=thinking,
            template=template_of(template_arg),
            allow_unproven=allow_unproven or None,  # not given leaves the suite's own
        )
        place = None if out is None else Path(os.path.expanduser(out))
        return work(load_suite(suite, options), place, fresh, retry_failed, Screen.now(json=json))

    verb.__doc__ = work.__doc__
    return verb
