"""The verb that reads what exists: replay, of a file of conversations or of a run's own texts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from traitscope.cli.make import block_of, make_suite, report_outcome
from traitscope.cli.options import (
    Adapter,
    AllowUnproven,
    Device,
    Dtype,
    Fresh,
    Json,
    Keep,
    Out,
    RetryFailed,
    Revision,
    TemplateArg,
    Thinking,
    TrustRemoteCode,
    given,
    template_of,
)
from traitscope.cli.screen import Screen
from traitscope.errors import InputError

if TYPE_CHECKING:
    from traitscope.runner import Outcome
    from traitscope.ticks import Progress

__all__ = ["replay"]


def replay(
    what: Annotated[
        str,
        typer.Argument(
            metavar="FILE|RUN",
            help="Conversations (.jsonl, messages or prompt and response a line), or a run.",
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="NAME",
            help="pocket, a local folder or a hub id; of a run, its own.",
        ),
    ] = None,
    adapter: Adapter = None,
    revision: Revision = None,
    trust_remote_code: TrustRemoteCode = None,
    trait: Annotated[
        list[str] | None,
        typer.Option(
            "--trait",
            metavar="NAME",
            help="A bundled trait, a trait's folder or a directions file; may be repeated.",
        ),
    ] = None,
    internals: Annotated[
        list[str] | None,
        typer.Option(
            "--internals",
            metavar="LAYER",
            help="Keep everything inside this block: a number from 0, or middle; may be repeated.",
        ),
    ] = None,
    keep: Keep = None,
    no_logprobs: Annotated[
        bool,
        typer.Option(
            "--no-logprobs",
            help="Leave the tokens' log probabilities out: faster where the vocabulary is large.",
        ),
    ] = False,
    thinking: Thinking = None,
    template_arg: TemplateArg = None,
    device: Device = None,
    dtype: Dtype = None,
    out: Out = None,
    fresh: Fresh = False,
    retry_failed: RetryFailed = False,
    allow_unproven: AllowUnproven = False,
    json: Json = False,
) -> int:
    """Score texts that exist, in one forward each; nothing is generated.

    Of a run, its own tokens are scored on further traits, which become part of it.

    Examples:

      traitscope replay chats.jsonl --model pocket --trait sycophancy

      traitscope replay runs/overnight-1a2b3c4d --trait ./my-trait
    """
    place = Path(os.path.expanduser(what))
    traits = trait or []
    if place.is_dir():
        beside = {"--internals": internals, "--no-logprobs": no_logprobs, "--out": out}
        beside |= {"--fresh": fresh, "--retry-failed": retry_failed}
        beside |= {"--thinking": thinking is not None, "--template-arg": template_arg}
        _nothing_beside_a_run({**beside, "--adapter": adapter, "--revision": revision})
        if not (traits or keep):
            raise InputError("Expected --trait NAME or --keep SITE for the run, got neither.")
        how = given(model=model, keep=keep, device=device, dtype=dtype)
        how |= {"trust_remote_code": bool(trust_remote_code), "allow_unproven": allow_unproven}
        return _run_again(place, traits, how, json)
    if model is None or not traits:
        raise InputError(
            f"Expected --model NAME and --trait NAME for conversations, got no "
            f"{'--model' if model is None else '--trait'}."
        )
    blocks = [block_of(layer) for layer in internals or []]
    from traitscope.replays import replay_suite

    others = given(
        adapter=adapter,
        revision=revision,
        trust_remote_code=trust_remote_code,
        device=device,
        dtype=dtype,
        keep=keep,
        thinking=thinking,
        template=template_of(template_arg),
        allow_unproven=allow_unproven,
    )
    suite = replay_suite(model, place, traits, blocks, logprobs=not no_logprobs, **others)
    folder = None if out is None else Path(os.path.expanduser(out))
    return make_suite(suite, folder, fresh, retry_failed, Screen.now(json=json))


def _run_again(place: Path, traits: list[str], how: dict[str, Any], json: bool) -> int:
    from traitscope.replays import replay_run

    def call(progress: Progress) -> Outcome:
        return replay_run(place, traits, progress=progress, **how)

    return report_outcome(call, Screen.now(json=json))


def _nothing_beside_a_run(options: dict[str, object]) -> None:
    for name, value in options.items():
        if value:
            raise InputError(
                f"Expected {name} only with a file of conversations, got it with a run. "
                "What is scored of a run becomes part of it."
            )
