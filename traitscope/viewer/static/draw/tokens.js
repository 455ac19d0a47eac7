// The conversation as coloured tokens: a block for each turn, a span for each token.  Spans have no
// padding, border or margin, so that letters of Arabic and marks of Devanagari still join across
// them; each turn is an isolated paragraph in the direction of its words, so that right-to-left text
// or a stray bidi control moves nothing beyond it.  All text goes in as text.  Knows nothing of
// pages; the styles it needs are in STYLE, for pages that carry their own.

export const STYLE = `
.turn { display: grid; grid-template-columns: 72px minmax(0, 1fr); margin: 0 0 7px; }
.turn-role { font-size: 11px; line-height: 22px; opacity: 0.7; user-select: none; overflow: hidden; text-overflow: ellipsis; }
.turn-text { margin: 0; line-height: 22px; white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: isolate; }
.turn-thinking .turn-text, .turn-tool .turn-text { font-size: 13px; opacity: 0.92; }
.turn-thinking .turn-text { font-style: italic; }
.tok { cursor: crosshair; }
.turn-marks { unicode-bidi: isolate; direction: ltr; }
.tok-template { font-family: ui-monospace, Menlo, Consolas, monospace; font-size: 11px; text-decoration: underline dotted; }
.tok-nothing { background-image: repeating-linear-gradient(135deg, #8886 0 1px, transparent 1px 5px); }
.tok-line::before { content: "\\21b5"; opacity: 0.45; }
.tok-part::before { content: "\\00b7"; opacity: 0.7; }
.tok-settled { text-decoration: underline 2px; text-underline-offset: 3px; }
.tok-here { outline: 2px solid currentColor; outline-offset: -1px; border-radius: 2px; }
`;

// Before characters of these kinds a dot may stand for the bytes that have none of their own; in
// scripts whose letters join it would pull them apart.
const STANDS_ALONE = /^[\p{Script=Latin}\p{Script=Greek}\p{Script=Cyrillic}\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Hangul}\p{Emoji_Presentation}]/u;
const FROM_RIGHT = /[\p{Script=Arabic}\p{Script=Hebrew}\p{Script=Syriac}\p{Script=Thaana}\p{Script=Nko}\p{Script=Adlam}]/u;
const JOINER = /\u200d$/;

// The raw piece of a token that has no text, or its text with what cannot be seen spelt out.
export function visibleText(text, t) {
  const own = text.tokens.text[t];
  if (own === "") return text.tokens.piece[t] || "\u2205";
  return own
    .replace(/\r?\n|\r/g, "\u21b5")
    .replace(/\t/g, "\u21e5")
    .replace(/^ +| +$/g, (spaces) => "\u2423".repeat(spaces.length))
    .replace(/[\p{Cc}\p{Cf}\u2028\u2029]/gu, (c) => `U+${c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`);
}

// Fills `host` with the tokens at `columns`; gives back their spans by position.
export function renderTokens(host, text, columns) {
  const spans = new Map();
  const blocks = turnsOf(text, columns).map((turn) => turnBlock(text, turn, spans));
  host.replaceChildren(...blocks);
  return spans;
}

// Consecutive tokens of one turn and one role; template tokens go with what stands before them.
export function turnsOf(text, columns) {
  const { role, turn, content } = text.tokens;
  const turns = [];
  for (const t of columns) {
    const last = turns[turns.length - 1];
    const answers = t >= text.n_prompt;
    const joins = last && last.turn === turn[t] && last.answers === answers;
    const named = content[t] ? role[t] : null;
    if (joins && (named === null || last.role === null || last.role === named)) {
      last.tokens.push(t);
      last.role ??= named;
    } else turns.push({ turn: turn[t], answers, role: named, tokens: [t] });
  }
  return turns;
}

function turnBlock(text, turn, spans) {
  const block = made("div", `turn turn-${turn.role ?? "template"}`);
  const name = made("div", "turn-role");
  name.textContent = turn.role ?? "template";
  const words = made("p", "turn-text");
  const { content } = text.tokens;
  words.dir = directionOf(turn.tokens.filter((t) => content[t]).map((t) => text.tokens.text[t]).join(""));
  let marks = null; // template tokens stand together, in their own direction
  for (const t of turn.tokens) {
    const span = tokenSpan(text, t);
    spans.set(t, span);
    if (!span.classList.contains("tok-template")) marks = null;
    else if (!marks) words.append((marks = made("span", "turn-marks")));
    (marks ?? words).append(span);
  }
  block.append(name, words);
  return block;
}

// "rtl" where the first letter is of a script that runs from right to left.
export function directionOf(words) {
  const letter = words.match(/\p{L}/u)?.[0] ?? "";
  return FROM_RIGHT.test(letter) ? "rtl" : "ltr";
}

function made(tag, name) {
  const node = document.createElement(tag);
  node.className = name;
  return node;
}

function tokenSpan(text, t) {
  const { content, special } = text.tokens;
  const own = text.tokens.text[t];
  const span = made("span", "tok");
  span.dataset.t = t;
  const template = special[t] || (!content[t] && text.tokens.role[t] === "template");
  if (template) {
    span.classList.add("tok-template");
    span.textContent = visibleText(text, t);
    return span;
  }
  span.textContent = own;
  if (/^[\r\n]/.test(own)) span.classList.add("tok-line");
  if (own === "" && dotted(text, t)) span.classList.add("tok-part");
  return span;
}

// May a dot stand here: before a character that stands alone, and not within an emoji of several.
function dotted(text, t) {
  const texts = text.tokens.text;
  let next = t + 1;
  while (next < text.T && texts[next] === "") next += 1;
  let before = t - 1;
  while (before >= 0 && texts[before] === "") before -= 1;
  if (before >= 0 && JOINER.test(texts[before])) return false;
  return next === text.T || STANDS_ALONE.test(texts[next]);
}

// Colours spans (pairs of position and span) by their values at one site.
export function paintTokens(spans, view, site, colourOf) {
  const { measured, text, limit, theme } = view;
  const { css, ink } = theme.palette;
  for (const [t, span] of spans) {
    const i = t * text.S + site;
    const colour = colourOf(measured.value[i], measured.z[i], limit, measured.as);
    span.classList.toggle("tok-nothing", colour < 0);
    span.style.backgroundColor = colour < 0 || colour === 127 ? "" : css[colour];
    span.style.color = colour < 0 || colour === 127 ? "" : ink[colour];
  }
}

// The [position, span] pairs of a box that can be seen; the box is what they are placed in.
export function spansInSight(host, spans) {
  const all = [...spans];
  const [top, bottom] = [host.scrollTop, host.scrollTop + host.clientHeight];
  const first = firstOf(all, (span) => span.offsetTop + span.offsetHeight >= top);
  return all.slice(first, firstOf(all, (span) => span.offsetTop > bottom));
}

// Where a condition that stays true once it is becomes true.
function firstOf(all, holds) {
  let [low, high] = [0, all.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (holds(all[middle][1])) high = middle;
    else low = middle + 1;
  }
  return low;
}

// Moves the mark of the cross-hair, and scrolls it into view within its box.
export function pointAt(host, spans, token, before) {
  spans.get(before)?.classList.remove("tok-here");
  const span = spans.get(token);
  if (!span) return;
  span.classList.add("tok-here");
  const [box, mark] = [host.getBoundingClientRect(), span.getBoundingClientRect()];
  if (mark.top < box.top) host.scrollTop -= box.top - mark.top + 8;
  if (mark.bottom > box.bottom) host.scrollTop += mark.bottom - box.bottom + 8;
}
