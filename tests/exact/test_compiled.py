"""Compiled steps give what plain steps give, on every architecture; where they do not, steps are
made as they are and the reason is kept.

Most tests let the compiler trace a step and run what it traced; one has it make a program.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch

from tests.exact.reference import (
    GREEDY,
    NUCLEUS,
    VARIANTS,
    assert_same,
    directions,
    model,
    requests,
)
from traitscope.core import GenerationConfig, Trace
from traitscope.engine import Batching, Clock, Steps, compiling, generate
from traitscope.engine import step as steps
from traitscope.engine.step import Made, Step

LENGTHS, NEW_TOKENS = (3, 1, 44, 6), (7, 6, 3, 5)
OFTEN = ("gemma2", "qwen3_moe")  # the others take minutes together


@pytest.fixture(autouse=True)
def tracing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    torch._dynamo.reset()
    monkeypatch.setattr(compiling, "BACKEND", "eager")
    monkeypatch.setattr(steps, "FEWEST", 1)  # or there would be one shape
    yield
    torch._dynamo.reset()


def made(
    name: str, kind: Steps, config: GenerationConfig, clock: Clock | None = None
) -> list[Trace]:
    batching = Batching(rows=3, steps=kind)
    subject, texts = model(name), requests(LENGTHS, NEW_TOKENS)
    traces = generate(subject, texts, directions(subject), config, batching, clock)
    return sorted(traces, key=lambda trace: trace.generation)


def assert_plain(traces: list[Trace], name: str, config: GenerationConfig) -> None:
    for trace, plain in zip(traces, made(name, "plain", config), strict=True):
        assert_same(model(name), trace, plain, config)


@pytest.mark.parametrize(
    "name", [n if n in OFTEN else pytest.param(n, marks=pytest.mark.slow) for n in VARIANTS]
)
def test_compiled_steps_are_plain_steps(name: str) -> None:
    compiled = made(name, "compiled", NUCLEUS, clock := Clock())
    assert_plain(compiled, name, NUCLEUS)
    assert clock.plain_steps == ""


@pytest.mark.slow
def test_a_program_is_made_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "BACKEND", "inductor")
    compiled = made("gemma2", "compiled", NUCLEUS, clock := Clock())
    assert_plain(compiled, "gemma2", NUCLEUS)
    assert clock.plain_steps == ""


def test_a_second_generation_compiles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Taps, slots and directions are new then; the program is the same."""
    programs = list[int]()

    def backend(graph: Any, _: object) -> Any:
        programs.append(len(graph.graph.nodes))
        return graph.forward

    monkeypatch.setattr(compiling, "BACKEND", backend)
    made("gemma2", "compiled", GREEDY)
    once = len(programs)
    assert 0 < once <= 4  # one text and several; a first shape and all that come later
    made("gemma2", "compiled", GREEDY)
    assert len(programs) == once


def test_keys_are_not_copied_for_every_head(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers does so for a compiler, though the attention takes them as they are."""
    heads = set[tuple[int, int]]()

    def backend(graph: Any, _: object) -> Any:
        for node in graph.graph.nodes:
            if "scaled_dot_product_attention" in str(node.target):
                query, key = (part.meta["example_value"] for part in node.args[:2])
                heads.add((query.shape[1], key.shape[1]))
        return graph.forward

    monkeypatch.setattr(compiling, "BACKEND", backend)
    assert_plain(made("llama", "compiled", GREEDY), "llama", GREEDY)
    groups = model("llama").anatomy.config.num_key_value_heads
    assert groups < model("llama").anatomy.n_heads
    assert heads == {(groups, groups)}


@pytest.mark.parametrize("first", [True, False])
def test_what_cannot_be_compiled_is_made_as_it_is(
    first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, or with a later shape."""
    shapes = list[tuple[int, ...]]()

    def compiler(compute: Callable[..., Any], **_: Any) -> Callable[..., Any]:
        def run(*shape: int) -> Any:
            shapes.append(shape)
            if first or shape != shapes[0]:
                raise torch._dynamo.exc.Unsupported("a call to print\nand much more", [])
            return compute(*shape)

        return run

    monkeypatch.setattr(torch, "compile", compiler)
    clock = Clock()
    assert_plain(made("gemma2", "compiled", GREEDY, clock), "gemma2", GREEDY)
    assert clock.plain_steps == "a step could not be compiled: Unsupported: a call to print"
    assert len(set(shapes)) == (1 if first else 2)


def test_a_program_that_is_wrong_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def compiler(compute: Callable[..., Any], **_: Any) -> Callable[..., Any]:
        def run(*shape: int) -> Any:
            token_B, number_BW = compute(*shape)
            return token_B, number_BW * 1.5

        return run

    monkeypatch.setattr(torch, "compile", compiler)
    clock = Clock()
    assert_plain(made("gemma2", "compiled", GREEDY, clock), "gemma2", GREEDY)
    assert "not the plain one" in clock.plain_steps


def test_a_program_is_what_a_graph_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the step as it is where only that can be recorded."""
    ways = list[str]()

    def record(compute: Callable[[], Made]) -> Callable[[], Made]:
        assert isinstance(compute, partial)
        way = "program" if isinstance(compute.func, compiling.Compiled) else "step"
        ways.append(way)
        if way == "program":
            raise RuntimeError("operation not permitted when stream is capturing")
        return compute

    real = steps.BucketedStep

    def step_for(*given: Any) -> Step:
        return real(*given[:4], record, compiling.Compiled)

    with monkeypatch.context() as patched:
        patched.setattr("traitscope.engine.decode.step_for", step_for)
        compiled = made("gemma2", "compiled", GREEDY, clock := Clock())
    assert_plain(compiled, "gemma2", GREEDY)
    assert ways[:2] == ["program", "step"]
    assert set(ways[2:]) <= {"step"}
    assert "not permitted" in clock.plain_steps
