"""The verbs that make something: run, capture, init.

argv becomes a `Suite`, the suite goes to the runner, and what it leaves is reported.  torch is
imported only when there is something to run.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from traitscope.cli.of_suite import of_a_suite
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
from traitscope.errors import InputError
from traitscope.report.plain import one_line

if TYPE_CHECKING:
    from traitscope.runner import Outcome
    from traitscope.suite import Suite
    from traitscope.ticks import Progress

__all__ = ["block_of", "capture", "init", "make_suite", "report_outcome", "run"]

SOME_FAILED = 1


@of_a_suite
def run(suite: Suite, out: Path | None, fresh: bool, retry_failed: bool, screen: Screen) -> int:
    """Run a suite: load its model once, ask all its prompts, keep every trait at every token.

    The same command goes on where it stopped, and makes only what is new.
    Options beside a suite win over its file.

    Examples:

      traitscope run overnight

      traitscope run my-suite/ --model google/gemma-2-2b-it --samples 5
    """
    return make_suite(suite, out, fresh, retry_failed, screen)


def capture(
    model: Annotated[
        str, typer.Option("--model", metavar="NAME", help="pocket, a local folder or a hub id.")
    ],
    trait: Annotated[
        list[str],
        typer.Option(
            "--trait",
            metavar="NAME",
            help="A bundled trait, a trait's folder or a vector (.pt); may be repeated.",
        ),
    ],
    prompts: Annotated[
        list[str] | None,
        typer.Option("--prompts", metavar="TEXT", help="A prompt; may be repeated."),
    ] = None,
    prompts_file: Annotated[
        str | None,
        typer.Option(
            "--prompts-file", metavar="FILE", help="Prompts: .txt, one a line, or .jsonl."
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
    """Capture traits on prompts, without a suite.

    Examples:

      traitscope capture --model pocket --trait sycophancy --prompts "Am I right?"

      traitscope capture --model pocket --trait sycophancy --prompts-file my.txt --internals middle
    """
    asked = _asked(prompts or [], prompts_file)
    blocks = [block_of(layer) for layer in internals or []]
    from traitscope.runner import capture_suite

    suite = capture_suite(
        model,
        asked,
        trait,
        blocks,
        given(
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            seed=seed,
            samples=samples,
            prompt_logprobs=False if no_prompt_logprobs else None,
        ),
        **given(
            adapter=adapter,
            revision=revision,
            trust_remote_code=trust_remote_code,
            device=device,
            dtype=dtype,
            rows=rows,
            keep=keep,
            thinking=thinking,
            template=template_of(template_arg),
            allow_unproven=allow_unproven,
        ),
    )
    place = None if out is None else Path(os.path.expanduser(out))
    return make_suite(suite, place, fresh, retry_failed, Screen.now(json=json))


def init(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="A new or an empty folder.")],
    json: Json = False,
) -> int:
    """Copy the bundled suite, its prompts and its traits out, to be edited.

    Example:

      traitscope init my-suite
    """
    from traitscope.suite import init_folder

    screen = Screen.now(json=json)
    place = init_folder(folder)
    files = sorted(str(p.relative_to(place)) for p in place.rglob("*") if p.is_file())
    if json:
        screen.result({"folder": str(place), "suite": str(place / "suite.toml"), "files": files})
        return 0
    lines = (
        f"A suite to edit is in {place}: {len(files)} files.",
        "  suite.toml  the model, the prompt sets, what is expected",
        "  prompts/    one prompt a line",
        "  traits/     the pairs that define each trait",
        f"next  traitscope run {place}",
    )
    screen.show("\n".join(map(one_line, lines)))
    return 0


# --- running and reporting -----------------------------------------------------------------------


def make_suite(
    suite: Suite, out: Path | None, fresh: bool, retry_failed: bool, screen: Screen
) -> int:
    """Run a suite as the options say, and report it."""
    from traitscope.runner import run_suite

    def call(progress: Progress) -> Outcome:
        return run_suite(suite, out=out, fresh=fresh, progress=progress, retry_failed=retry_failed)

    return report_outcome(call, screen)


def report_outcome(call: Callable[[Progress], Outcome], screen: Screen) -> int:
    """Do the work with progress on the screen, report what is there, and say the exit status."""
    from traitscope.cli.progress import progress_on

    with screen.work(), progress_on(screen) as progress:
        outcome = call(progress)
    return _report(outcome, screen)


def _report(outcome: Outcome, screen: Screen) -> int:
    from traitscope.cli.read import show_report
    from traitscope.cli.result import run_result
    from traitscope.report import summarise
    from traitscope.runs import Run

    summary = summarise(Run.open(outcome.path))
    if screen.json:
        screen.result(run_result(outcome, summary))
    else:
        if outcome.already_done:
            screen.say("Nothing to make: all of it is there already. Nothing was loaded.")
        show_report(summary, screen)
    counts = summary.counts
    return SOME_FAILED if counts.failed or counts.missing else 0


def _asked(prompts: list[str], file: str | None) -> dict[str, Any]:
    if bool(prompts) == bool(file):
        came = "both" if file else "neither"
        raise InputError(f"Expected --prompts TEXT or --prompts-file FILE, got {came}.")
    return {"file": file} if file else {"texts": prompts}


def block_of(layer: str) -> int | str:
    """What --internals names; InputError for anything else."""
    if layer == "middle":
        return layer
    if layer.isdecimal() and len(layer) < 10:
        return int(layer)
    raise InputError(f"--internals: expected a block's number from 0, or 'middle', got '{layer}'.")
