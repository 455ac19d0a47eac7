// The words and numbers beside the drawings: the token under the cross-hair, what a trait's reading
// says, and what the marks mean.  Knows no state but what it is given.

import { el, fill } from "../dom.js";
import { NEUTRAL, SETTLED, answerOf, formatted, holdsFrom, settles, wordsOf } from "../draw/scale.js";
import { visibleText } from "../draw/tokens.js";

// The token under the cross-hair: who wrote it, how likely it was, and every trait at the site.
export function tokenCard(card, view, token, site, lines) {
  const { text, measured } = view;
  const { tokens } = text;
  const at = token * text.S + site;
  fill(
    card,
    el("div", { class: "token-name" }, el("bdi", { class: "token-text" }, visibleText(text, token)),
      el("span", { class: "dim token-place", title: placeOf(text, token) }, placeOf(text, token))),
    el("dl", { class: "token-facts" },
      fact("id", tokens.id[token]),
      fact("piece", el("bdi", { class: "mono" }, tokens.piece[token])),
      fact("logprob", logprobOf(tokens.logprob[token])),
      fact("|h|", `${text.norm[at].toPrecision(4)} at ${text.sites[site]}`)),
    el("p", { class: "token-holds" }, holdsSentence(text, measured, token)),
    el("table", { class: "token-traits" },
      lines.map(({ trait, value, z }) => traitRow(view, trait, value[at], z[at]))),
  );
}

const fact = (name, value) => [el("dt", {}, name), el("dd", {}, value)];

function placeOf(text, token) {
  const { tokens, n_prompt } = text;
  const part = tokens.part[token] === "prompt" ? "prompt" : "answer";
  const place = token === n_prompt - 1 ? "the last token before the answer" : `token ${token} of ${text.T}, ${part}`;
  const piece = tokens.text[token] === "" ? " \u00b7 a part of a character" : "";
  return ` ${place} \u00b7 ${tokens.role[token]}${tokens.special[token] ? ", special" : ""}${piece}`;
}

function logprobOf(logprob) {
  if (logprob === null) return "not known";
  const p = Math.exp(logprob);
  return `${formatted(logprob, "raw")} (p ${p < 0.001 ? p.toExponential(0) : p.toFixed(3)})`;
}

// A number with a bar from the middle: right is more, left is less, pale within the neutral band.
function traitRow(view, trait, value, z) {
  const { as } = view.measured;
  const chosen = trait === view.measured.trait;
  const part = Math.min(Math.abs(z) / 6, 1) * 50; // 6 z fill it
  const side = z < 0 ? `right:50%` : `left:50%`;
  const band = Math.abs(z) < NEUTRAL ? "bar-neutral" : z < 0 ? "bar-less" : "bar-more";
  const bar = Number.isNaN(z) ? null : el("i", { class: band, style: `${side};width:${part}%` });
  return el("tr", { class: chosen ? "chosen" : null },
    el("td", {}, view.text.traits[trait].name),
    el("td", { class: "bar" }, bar),
    el("td", { class: "num" }, formatted(value, as)));
}

// From which site on a token's reading stays outside the neutral band.
export function holdsSentence(text, measured, token) {
  const zs = measured.z.subarray(token * text.S, (token + 1) * text.S);
  const known = Array.from(zs.keys()).filter((s) => !Number.isNaN(zs[s]));
  if (!known.length) return "No reading at this token.";
  const last = known.at(-1);
  const z = (s) => formatted(zs[s], "z");
  const from = holdsFrom(zs);
  if (from === null) return `Not outside the neutral band to the end: z ${z(last)} at ${text.sites[last]}, the last site.`;
  if (from === last) return `Outside the neutral band only at the last site, ${text.sites[last]}: z ${z(last)}.`;
  return `Outside the neutral band from ${text.sites[from]} on: z ${z(from)} there, ${z(last)} at ${text.sites[last]}, the last site.`;
}

// What the chosen trait's reading says, at its own site: before a word, over the answer, words alone.
export function readingCard(card, view, jump) {
  const { text, measured } = view;
  const about = text.traits[measured.trait];
  const title = el("h3", {}, `What ${about.name} reads at ${text.sites[about.site]}`);
  const poles = el("p", { class: "dim poles" }, `+ ${about.positive || "more"}  \u2212 ${about.negative || "less"}`);
  if (!about.scored) {
    const how = `Not scored on this text yet. 'traitscope replay RUN --trait ${about.name}' does it.`;
    fill(card, title, el("p", {}, how), poles);
    return;
  }
  const { before, thoughts, response, embed } = about.reading;
  const n = answerOf(text).length;
  const rows = [
    ["before a word is written", "prompt[-1]", before, () => jump(text.n_prompt - 1, about.site)],
    ...(thoughts === null ? [] : [["in its thoughts", "mean over thinking[:]", thoughts, null]]),
    ["over the answer", `mean of ${n} token${n === 1 ? "" : "s"}`, response, null],
    ["its words alone", "the same at embed", embed, null],
  ];
  fill(card, title,
    el("table", { class: "reading" },
      el("tr", { class: "dim" }, el("td", {}), el("td", { class: "num" }, "z"), el("td", {}, "beside neutral")),
      rows.map(readingRow)),
    el("p", {}, `Before the answer: ${lower(holdsSentence(text, measured, text.n_prompt - 1))}`),
    el("p", { class: "dim" }, `Means of neutral answers differ by ${apart(about)} z there. What the words alone give is no finding about the layers above.`),
    poles);
}

const lower = (sentence) => sentence.charAt(0).toLowerCase() + sentence.slice(1);
const apart = (about) => (about.neutral_response_std[about.site] / about.neutral_std[about.site]).toFixed(2);

function readingRow([name, window, z, run]) {
  const title = run ? el("button", { type: "button", class: "plain", onclick: run, title: "put the cross-hair there (b)" }, name) : name;
  return el("tr", {},
    el("td", {}, title, el("div", { class: "dim" }, window)),
    el("td", { class: "num" }, formatted(z, "z")),
    el("td", {}, wordsOf(z)));
}

// What the optional marks are, and what they found here.
export function marksNote(note, view, state, site) {
  const { text, measured } = view;
  const said = [];
  if (state.change) {
    said.push(["Change", `the value minus that of the token shown before it, at ${text.sites[site]}.`]);
  }
  if (state.settles) said.push(["Settles", `${settledAt(text, measured, site)} Defined as the first token of the answer from which the mean so far (dotted on the z scale) stays within ${SETTLED} z of the mean over the whole answer.`]);
  fill(note, said.map(([name, words]) => el("p", {}, el("b", {}, `${name}: `), words)));
}

function settledAt(text, measured, site) {
  const found = settles(text, measured, site);
  if (!found) return "nothing to read here.";
  return `at token ${found.token}, after ${found.after} of the answer's ${found.tokens.length} tokens (mean ${formatted(found.whole, "z")} z at ${text.sites[site]}).`;
}
