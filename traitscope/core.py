"""The nouns: sites, messages, prompts, windows, texts.  Plain values, no torch, no disks.

Shapes: T tokens, S sites, K traits, D model width, F neurons, H heads.  Scores and norms are
float32 in units of the residual stream; logprobs are natural logs under the model itself
(temperature 1, nothing truncated).  A token's state is the state at the token's own position:
the model has just read it.  This module does not know how anything is computed or stored.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from traitscope.errors import InputError, did_you_mean

__all__ = [
    "KINDS",
    "LEAST_SPREAD",
    "TRAIT_NAME",
    "Capture",
    "FurtherScores",
    "Generation",
    "GenerationConfig",
    "Internals",
    "Keep",
    "KeptStates",
    "Kind",
    "Message",
    "Prompt",
    "Reading",
    "Site",
    "TextRecord",
    "TokenTable",
    "Trace",
    "TraitDirections",
    "Window",
    "mean_or_nan",
    "prompt_id_of",
    "read_site",
    "sites_of",
]

LEAST_SPREAD = 1e-6  # of the mean: below it neutral numbers differ by rounding alone
Kind = Literal["trajectory", "internals"]
KINDS: tuple[Kind, ...] = ("trajectory", "internals")
TRAIT_NAME = re.compile(r"[a-z0-9_]{1,64}")

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]


# --- sites ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Site:
    """One place of the residual stream: `embed`, `l.mid` or `l.post`.

    `embed` is what enters block 0, `l.mid` the residual after attention was added in block l,
    `l.post` what leaves block l, always before the final norm.
    """

    block: int  # -1 for embed
    place: Literal["embed", "mid", "post"]

    @property
    def name(self) -> str:
        return "embed" if self.place == "embed" else f"{self.block}.{self.place}"

    @classmethod
    def parse(cls, text: str) -> Site:
        """`"embed"`, `"3.mid"`, `"3.post"`; raises InputError for anything else."""
        if text == "embed":
            return cls(-1, "embed")
        match = re.fullmatch(r"(\d+)\.(mid|post)", text)
        if match is None:
            raise InputError(f"Expected a site such as 'embed', '3.mid' or '3.post', got '{text}'.")
        return cls(int(match[1]), "mid" if match[2] == "mid" else "post")

    def __str__(self) -> str:
        return self.name


def sites_of(n_blocks: int, *, mid: bool | Sequence[bool] = True) -> tuple[Site, ...]:
    """The sites of a model in the order of the data: embed, 0.mid, 0.post, ..., L-1.post.

    `mid` says, for all blocks or per block, whether there is a state between attention and MLP
    (blocks that run both in parallel have none).
    """
    has_mid = [mid] * n_blocks if isinstance(mid, bool) else list(mid)
    sites = [Site(-1, "embed")]
    for block in range(n_blocks):
        if has_mid[block]:
            sites.append(Site(block, "mid"))
        sites.append(Site(block, "post"))
    return tuple(sites)


def read_site(sites: Sequence[Site], where: str | float, *, default: float = 0.5) -> int:
    """Index into `sites` of a place to read: a site's name, a depth (0.0 to 1.0), or "read".

    A depth is turned into the nearest `.post`: block round(depth * (L - 1)).  "read" means
    `default`, the trait's own `read_site`.
    """
    if where == "read":
        where = default
    if isinstance(where, str) and re.fullmatch(r"[01]?\.\d+|[01]|[01]\.", where):
        where = float(where)
    if isinstance(where, str):
        names = [site.name for site in sites]
        if where not in names:
            raise InputError(
                f"Expected one of this model's sites ({names[0]} ... {names[-1]}), 'read' or a "
                f"depth from 0.0 to 1.0, got '{where}'.{did_you_mean(where, names)}"
            )
        return names.index(where)
    if not 0.0 <= where <= 1.0:
        raise InputError(f"Expected a depth from 0.0 to 1.0, got {where}.")
    posts = [i for i, site in enumerate(sites) if site.place == "post"]
    return posts[round(where * (len(posts) - 1))]


# --- windows -------------------------------------------------------------------------------------

_WINDOW = re.compile(r"(prompt|response|thinking)\[(-?\d+|(-?\d*):(-?\d*))\]")


@dataclass(frozen=True)
class Window:
    """Which tokens are read: `prompt[-1]`, `response[0]`, `response[:]`, `thinking[:]`.

    An index picks that one token of the part, whatever it is (`prompt[-1]` is the last token
    before a word is written, usually of the template).  A slice is taken over the part's content
    tokens: special and template tokens and the first token (an attention sink) never enter a mean.
    `thinking` is what the model thought before it answered, and `response` is then the answer
    alone; thoughts of earlier turns are part of the prompt.
    """

    part: Literal["prompt", "response", "thinking"]
    index: int | None = None
    start: int | None = None
    stop: int | None = None

    @classmethod
    def parse(cls, text: str) -> Window:
        match = _WINDOW.fullmatch(text.replace(" ", ""))
        if match is None:
            raise InputError(
                "Expected a window such as 'prompt[-1]', 'response[0]', 'response[:]' or "
                f"'thinking[:]', got '{text}'."
            )
        part = cast(Literal["prompt", "response", "thinking"], match[1])
        if ":" not in match[2]:
            return cls(part, index=int(match[2]))
        start, stop = match[3], match[4]
        return cls(part, None, int(start) if start else None, int(stop) if stop else None)

    def pick(self, tokens: TokenTable) -> NDArray[np.bool_]:
        """Mask [T] of the tokens read; all False where the window is empty (e.g. no response)."""
        in_part = tokens.within(self.part)
        if self.index is None:
            chosen = np.flatnonzero(in_part & tokens.content)[self.start : self.stop]
        else:
            places = np.flatnonzero(in_part)
            inside = -len(places) <= self.index < len(places)
            chosen = places[[self.index]] if inside else places[:0]
        mask = np.zeros(len(in_part), dtype=np.bool_)
        mask[chosen] = True
        return mask

    def __str__(self) -> str:
        if self.index is not None:
            return f"{self.part}[{self.index}]"
        start = "" if self.start is None else self.start
        stop = "" if self.stop is None else self.stop
        return f"{self.part}[{start}:{stop}]"


# --- prompts -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Message:
    """One turn of a chat.  `role` is system, user, assistant or tool.

    `thinking` is what an assistant thought before it said `content`, where that is known apart.
    """

    role: str
    content: str
    thinking: str = ""


@dataclass(frozen=True)
class Prompt:
    """One thing to ask: a chat that ends before the assistant's answer.

    `label` is the user's own id, unique within a suite or None; `tags` are the user's own.
    `where` names the file and line for messages to people.
    """

    messages: tuple[Message, ...]
    label: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    where: str = ""

    @classmethod
    def of(cls, text: str) -> Prompt:
        """A single user turn."""
        return cls((Message("user", text),))

    @property
    def text(self) -> str:
        """The last user turn, for display and for naming the prompt in expectations."""
        return next((m.content for m in reversed(self.messages) if m.role == "user"), "")


def prompt_id_of(token_ids: Sequence[int] | Int32) -> str:
    """The id of a prompt: 16 hex digits of the SHA-256 of its rendered ids, as little-endian int32.

    The rendered ids include the chat template, so the same words under another template are
    another prompt.
    """
    raw = np.asarray(token_ids, dtype="<i4").tobytes()
    return hashlib.sha256(raw).hexdigest()[:16]


@dataclass(frozen=True)
class GenerationConfig:
    """How texts are sampled.  `max_new_tokens` counts the end token; temperature 0 is greedy.

    `top_p` keeps the token that crosses the threshold; `top_k` 0 keeps all.  Without
    `prompt_logprobs` a prompt's own tokens get no log probability, and the head is not asked.
    """

    max_new_tokens: int = 50
    temperature: float = 0.7
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0
    samples: int = 1
    prompt_logprobs: bool = True

    def __post_init__(self) -> None:
        checks = (
            (self.max_new_tokens >= 1, "max_new_tokens", "1 or more", self.max_new_tokens),
            (0 <= self.temperature < float("inf"), "temperature", "0 or more", self.temperature),
            (0 < self.top_p <= 1, "top_p", "above 0 and at most 1", self.top_p),
            (self.top_k >= 0, "top_k", "0 (all) or more", self.top_k),
            (0 <= self.seed < 2**63, "seed", "0 or more and below 2**63", self.seed),
            (self.samples >= 1, "samples", "1 or more", self.samples),
        )
        for fine, name, expected, got in checks:
            if not fine:
                raise InputError(f"{name}: expected {expected}, got {got}.")


# --- texts and their numbers ---------------------------------------------------------------------


@dataclass(frozen=True, order=True)
class Generation:
    """The name of one text: (prompt id, sample index).  Made once, its tokens stored once."""

    prompt_id: str
    sample: int = 0

    @property
    def id(self) -> str:
        return f"{self.prompt_id}-{self.sample}"

    @classmethod
    def parse(cls, text: str) -> Generation:
        prompt_id, _, sample = text.rpartition("-")
        return cls(prompt_id, int(sample))


@dataclass(frozen=True)
class TokenTable:
    """What is known of each token of one text besides numbers; all arrays [T].

    `role`: template, system, user, assistant, thinking, tool.  `part`: prompt or response.
    `turn` counts messages from 0.  `piece` is the raw vocabulary piece, for display; `start` and
    `end` are character offsets in the decoded text (byte tokens have no text of their own).
    `text` is the whole decoded text that they point into.
    """

    token_id: Int32
    role: NDArray[np.str_]
    part: NDArray[np.str_]
    special: NDArray[np.bool_]
    turn: Int32
    piece: tuple[str, ...]
    start: Int32
    end: Int32
    text: str

    @property
    def content(self) -> NDArray[np.bool_]:
        """Tokens that may enter means, maxima and calibration: [T].

        Not the first token (an attention sink), no template, no special token.
        """
        mask: NDArray[np.bool_] = (self.role != "template") & ~self.special
        mask[:1] = False
        return mask

    @property
    def n_prompt(self) -> int:
        return int((self.part == "prompt").sum())

    def within(self, part: Literal["prompt", "response", "thinking"]) -> NDArray[np.bool_]:
        """The tokens of the prompt, of the answer, or of the thoughts before it: [T].

        The marks around a thought are in neither; without a thought the answer is all that is not
        the prompt.
        """
        written: NDArray[np.bool_] = self.part == "response"
        if part == "prompt":
            return ~written
        thought: NDArray[np.bool_] = written & (self.role == "thinking")
        if part == "thinking":
            return thought
        answer = np.flatnonzero(written & (self.role == "assistant"))
        if not answer.size:  # a text of special tokens alone, or one that ends in its thoughts
            return np.zeros_like(written) if thought.any() else written
        begun: NDArray[np.bool_] = np.arange(len(written)) >= answer[0]
        return written & ~thought & begun

    def words(self, role: str) -> str:
        """The characters of a role's tokens in the response."""
        chosen = np.flatnonzero((self.part == "response") & (self.role == role))
        return "".join(self.text[self.start[t] : self.end[t]] for t in chosen)


@dataclass(frozen=True)
class Trace:
    """What the engine hands over when a text is finished: ids and numbers, nothing else.

    `token_ids` [T] prompt and response; `score` [T, S, K]; `norm` [T, S] is |h|; `logprob` [T],
    NaN at position 0 (and where it was not asked for).  `finish` is "stop" (an end token),
    "length", or "given" (the text existed).  `seconds` is the wall time from the row's admission
    to its last token, of a given text that of its batch.  `kept` [T, sites kept, D]: states.
    """

    generation: Generation
    token_ids: Int32
    n_prompt: int
    score: Float32
    norm: Float32
    logprob: Float32
    finish: Literal["stop", "length", "given"]
    seconds: float
    kept: Float32 | None = None


@dataclass(frozen=True)
class TextRecord:
    """One text as it is committed to a run: done with its numbers, or failed with its reason.

    A failed text has no `tokens` and no `trace`, and `error` is one sentence.  `response` is the
    decoded response without special tokens and without its thoughts, which `thinking` has.
    """

    generation: Generation
    prompt: Prompt
    response: str = ""
    tokens: TokenTable | None = None
    trace: Trace | None = None
    error: str = ""
    thinking: str = ""

    @property
    def status(self) -> Literal["done", "failed"]:
        return "failed" if self.trace is None else "done"


@dataclass(frozen=True)
class Keep:
    """Which raw states are kept: the sites' names, of which tokens, stored as what.

    "last" is the last token of the prompt and the last of the response.
    """

    sites: tuple[str, ...] = ()
    tokens: Literal["prompt", "response", "last", "all"] = "all"
    dtype: Literal["bfloat16", "float32"] = "float32"

    def positions(self, n_tokens: int, n_prompt: int) -> Int32:
        """The positions kept of a text, rising."""
        every = np.arange(n_tokens, dtype=np.int32)
        prompt, response = every[:n_prompt], every[n_prompt:]
        last = np.concatenate([prompt[-1:], response[-1:]])
        return {"prompt": prompt, "response": response, "last": last, "all": every}[self.tokens]

    def pick(self, generation: Generation, kept_TSD: Float32, n_prompt: int) -> list[KeptStates]:
        """What is kept of a text whose states at `sites` are all there: one item a site."""
        position = self.positions(len(kept_TSD), n_prompt)
        return [
            KeptStates(generation, replace(self, sites=(site,)), position, kept_TSD[position, i])
            for i, site in enumerate(self.sites)
        ]


@dataclass(frozen=True)
class KeptStates:
    """States of one text at one site: h [N, D] float32 at `position` [N], as `keep` asked.

    `keep` names this one site.  What is stored as bfloat16 is rounded to it, which changes
    nothing where the model ran in bfloat16.
    """

    generation: Generation
    keep: Keep
    position: Int32
    h: Float32

    @property
    def site(self) -> str:
        return self.keep.sites[0]


@dataclass(frozen=True)
class FurtherScores:
    """Scores of a text that is committed already on traits that came later: [T, S, K]."""

    generation: Generation
    traits: tuple[str, ...]
    score: Float32


@dataclass(frozen=True, order=True)
class Capture:
    """What a suite asks for: (generation, prompt set, kind); the unit that is counted."""

    generation: Generation
    prompt_set: str
    kind: Kind = "trajectory"


@dataclass(frozen=True)
class Internals:
    """Everything inside one block for one text; all tensors float32.

    `tensors`: q [T, H*dh], k, v [T, Hkv*dh] (the projections' outputs, before q/k norms and
    rotary); attention [H, T, T] (row t: where token t looked; zero after it); head_out
    [T, H*dh] (each head's output, before the output projection); gate, up, neurons [T, F]
    (neurons = act(gate) * up; without a gate, neurons = act(up)); attn_out, mlp_out [T, D] (what
    each adds to the stream, post-norm and multiplier included); down_out [T, D] (what the MLP's
    output projection gives, only where mlp_out is not that); resid_pre, resid_mid, resid_post
    [T, D] (no resid_mid where blocks are parallel); attn_post_norm_scale, mlp_post_norm_scale [T]
    (1 without a post-norm); head_to_score [K, H, dh], neuron_to_score [K, F], attn_bias_score,
    mlp_bias_score [K].

    Who wrote a trait k at token t, read along the direction of the site that is written to:
    (resid_mid - resid_pre) . v[mid] = attn_post_norm_scale[t]
        * (sum over heads of head_out[t, h] . head_to_score[k, h] + attn_bias_score[k])
    (resid_post - resid_mid) . v[post] = mlp_post_norm_scale[t]
        * (neurons[t] . neuron_to_score[k] + mlp_bias_score[k])
    In parallel blocks both write to post: the two right sides add up to
    (resid_post - resid_pre) . v[post].
    """

    generation: Generation
    block: int
    traits: tuple[str, ...]
    tensors: Mapping[str, NDArray[np.generic]]
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class TraitDirections:
    """One trait on one model: a unit vector per site, and what is normal there.

    `direction` [S, D] unit float32, positive = more of the trait.  `neutral_mean`, `neutral_std`
    [S]: scores of neutral content tokens of the assistant.  `neutral_response_std` [S]: spread of
    the neutral responses' means.  `neutral_prompt_mean`, `neutral_prompt_std` [S]: scores of the
    last prompt token before neutral responses.  `metadata`: strings; at least `method`,
    `model_fingerprint`, `data_hash`, `read_site`, `read_window`, `positive`, `negative`.
    """

    trait: str
    sites: tuple[Site, ...]
    direction: Float32
    neutral_mean: Float32
    neutral_std: Float32
    neutral_response_std: Float32
    neutral_prompt_mean: Float32
    neutral_prompt_std: Float32
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def hash(self) -> str:
        """16 hex digits over the trait's name, sites, directions and neutral numbers."""
        digest = hashlib.sha256(self.trait.encode())
        digest.update(" ".join(site.name for site in self.sites).encode())
        for array in (
            self.direction,
            self.neutral_mean,
            self.neutral_std,
            self.neutral_response_std,
            self.neutral_prompt_mean,
            self.neutral_prompt_std,
        ):
            digest.update(np.ascontiguousarray(array, dtype="<f4").tobytes())
        return digest.hexdigest()[:16]

    def z(self, score: Float32, site: int, window: Window) -> Float32:
        """Scores at one site as z: (score - neutral mean) / neutral std, for that kind of token.

        `prompt[-1]` has its own neutral numbers, since it is nearly always a template token.
        NaN where the trait has no direction (all zero) and where neutral text has no spread: at
        `embed` the last prompt token is the same in every chat.
        """
        if not self.direction[site].any():
            return np.full_like(score, np.nan, dtype=np.float32)
        if window.part == "prompt" and window.index == -1:
            mean, std = self.neutral_prompt_mean[site], self.neutral_prompt_std[site]
        else:
            mean, std = self.neutral_mean[site], self.neutral_std[site]
        if std <= LEAST_SPREAD * abs(mean):
            return np.full_like(score, np.nan, dtype=np.float32)
        return np.asarray((score - mean) / std, dtype=np.float32)


@dataclass(frozen=True)
class Reading:
    """One number for one text and trait: the mean score over a window at a site, and its z."""

    trait: str
    site: Site
    window: Window
    score: float
    z: float


def mean_or_nan(values: Iterable[float]) -> float:
    """The mean, NaN for nothing (without numpy's warning)."""
    known = list(values)
    return sum(known) / len(known) if known else float("nan")
