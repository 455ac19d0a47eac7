// The elements of the page of a block's inside: its places, and the tables of who wrote the trait.
// Two captures stand beside one another with their difference.  What a button does is the page's
// own method of that name.

import { el, fill } from "../dom.js";
import { STYLE as TOKENS } from "../draw/tokens.js";
import { formatted } from "../draw/scale.js";
import { titleOf } from "./text_parts.js";

export const STYLE = `
.inside-grid { display: grid; grid-template-columns: minmax(0, 1fr) minmax(330px, 400px); gap: 8px 16px; align-items: start; }
.inside-grid.two { grid-template-columns: minmax(0, 1fr) minmax(420px, 520px); }
.inside-grid > div { display: grid; gap: 8px; min-width: 0; }
.inside-words { max-height: 176px; overflow-y: auto; position: relative; font-size: 15px; }
.inside-grid .looks { width: 100%; height: 176px; display: block; }
.inside-grid .map { width: 100%; display: block; cursor: crosshair; }
.inside-grid .map-cross { position: absolute; inset: 0; width: 100%; height: 100%; pointer-events: none; }
.inside-grid .matrix { width: 100%; aspect-ratio: 1; max-height: 380px; cursor: crosshair; display: block; }
.inside-page .caption { white-space: normal; line-height: 1.25; flex-wrap: wrap; row-gap: 2px; }
.who { width: 100%; font-size: 13px; font-variant-numeric: tabular-nums; }
.who th { font-weight: 500; color: var(--dim); text-align: left; padding: 1px 8px 1px 0; white-space: nowrap; }
.who th.num { text-align: right; }
.who td { padding: 1px 8px 1px 0; }
.who .sum td, .who .sum th { border-top: 1px solid var(--line); font-weight: 600; color: var(--ink); }
.who tr[aria-selected="true"] { background: var(--mark); }
.who tr[aria-selected="true"] > td { box-shadow: none; }
.who tbody tr.pick { cursor: pointer; }
.who tbody tr.pick:hover { background: var(--panel); }
.who .bar { width: 34%; min-width: 60px; }
.tall { max-height: 260px; overflow-y: auto; }
.inside-grid h3 { font-size: 13px; margin: 0 0 4px; display: flex; gap: 8px; align-items: baseline; flex-wrap: wrap; }
.inside-grid h3 .group { margin-left: auto; }
.account h3:not(:first-child) { margin-top: 10px; }
.inside-page input { width: 84px; padding: 2px 7px; }
.inside-page .controls select { max-width: 210px; }
.inside-grid .small { font-size: 12px; line-height: 1.3; margin: 2px 0 0; }
`;

export function skeleton(page) {
  const { text, side, app } = page;
  const canvas = (name, label) => el("canvas", { class: name, role: "img", "aria-label": label });
  const parts = {
    traits: el("span", { class: "traits" }),
    overs: el("span", { class: "group" }),
    span: el("input", { size: 11, placeholder: "from:to", title: "a span of tokens, such as 12:20", "aria-label": "span of tokens",
      onchange: (event) => page.overSpan(event.target.value) }),
    block: el("select", { title: "block", onchange: (event) => page.toBlock(event.target.value) },
      side.blocks.map((block) => el("option", { value: block }, block))),
    other: el("select", { "aria-label": "compare with", title: "another capture's inside beside this one's", onchange: (event) => page.beside(event.target.value) }),
    otherSpan: el("input", { size: 11, placeholder: "its answer", title: "a token or a span of b, such as 12 or 12:20; nothing: as in a, or its answer", "aria-label": "tokens of b", hidden: true,
      onchange: (event) => page.besideAt(event.target.value) }),
    paints: el("span", { class: "group" }),
    words: el("div", { class: "inside-words card" }),
    wordsNote: el("span", { class: "dim" }),
    looks: canvas("looks", "lines from the token to what the head looked at"),
    looksNote: el("span", { class: "dim" }),
    map: canvas("map", "what each part wrote at each token"),
    cross: el("canvas", { class: "map-cross" }),
    mapNote: el("span", { class: "dim" }),
    matrix: canvas("matrix", "attention of one head"),
    matrixNote: el("span", { class: "dim" }),
    here: el("p", { class: "small", "aria-live": "polite" }),
    account: el("div", { class: "card account" }),
    heads: el("div", { class: "card heads" }),
    neurons: el("div", { class: "card neurons" }),
  };
  parts.block.value = side.block;
  const button = (words, title, run) => el("button", { type: "button", title, onclick: run }, words);
  const caption = (...children) => el("div", { class: "caption controls" }, children);
  parts.grid = el("div", { class: "inside-grid" },
    el("div", {},
      caption(el("b", {}, "tokens"), parts.wordsNote, parts.paints),
      parts.words,
      caption(el("b", {}, "attention"), parts.looksNote),
      parts.looks,
      caption(el("b", {}, "parts \u00d7 tokens"), parts.mapNote),
      el("div", { style: "position:relative" }, parts.map, parts.cross),
      parts.here, parts.neurons),
    el("div", {}, parts.account, parts.heads, el("div", { class: "card" }, el("h3", {}, parts.matrixNote), parts.matrix)));
  parts.root = el("div", { class: "inside-page" }, el("style", {}, TOKENS, STYLE),
    el("div", { class: "text-title" },
      el("h1", {}, `inside block ${side.block} \u00b7 `, el("bdi", {}, titleOf(text))),
      el("span", { class: "dim" }, `${text.run.model} \u00b7 ${app.runName(Number(page.run))}`),
      el("span", { class: "neighbours" }, app.link(`#/text/${page.run}/${text.generation}`, "trajectory")),
      el("span", { class: "controls", "data-no-picture": "" }, el("span", { class: "group" },
        button("PNG", "save the picture (g)", () => page.savePng()), button("CSV", "save the numbers (x)", () => page.saveCsv())))),
    el("div", { class: "controls" }, parts.traits, side.blocks.length > 1 ? el("label", {}, "block ", parts.block) : null,
      el("label", {}, "of "), parts.overs, parts.span, el("label", {}, "beside ", parts.other), parts.otherSpan),
    parts.grid);
  return parts;
}

// --- tables --------------------------------------------------------------------------------------

const number = (value, digits) => el("td", { class: "num" }, value === undefined ? "" : shown(value, digits));

// a share of nothing is written as 0
export function shown(value) {
  if (value === null || !Number.isFinite(value)) return "\u2013";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size < 0.005) return `${value < 0 ? "\u2212" : "+"}${size.toExponential(0).replace("e-", "e\u2212")}`;
  return formatted(value, "raw");
}

export function barCell(value, most) {
  const share = Math.min(Math.abs(value) / (most || 1), 1) * 50;
  const side = value < 0 ? `right:50%;width:${share}%` : `left:50%;width:${share}%`;
  return el("td", { class: "bar" }, el("i", { class: value < 0 ? "bar-less" : "bar-more", style: side }));
}

// Parts, their sum and the true change; `others` are the accounts of the capture beside it.
// `rounding` is what the model's own arithmetic may leave over, in |h|.
export function accountTable(host, mine, others, names, rounding) {
  const two = others !== null;
  const row = (name, value, other, kind = "") =>
    el("tr", { class: kind }, el("th", {}, name), number(value), two ? [number(other), number(other - value)] : null);
  const heads = () => two ? el("tr", {}, el("th", {}), names.map((name) => el("th", { class: "num" }, name)), el("th", { class: "num" }, "b \u2212 a")) : null;
  const tables = mine.accounts.map((account, i) => {
    const other = two ? others.accounts[i] : null;
    if (!account.there) return [el("h3", {}, `written to ${account.site}`), el("p", { class: "small" }, "The trait has no direction at this site, so nothing is read there.")];
    const worst = Math.max(account.off, other?.off ?? 0);
    return [
      el("h3", {}, `written to ${account.site}`),
      el("table", { class: "who" }, el("tbody", {}, heads(),
        row(`before it, along ${account.site}`, account.before, other?.before),
        account.parts.map((part, p) => row(part.name, part.value, other?.parts[p].value)),
        row("sum of the parts", account.total, other?.total, "sum"),
        row("true change", account.change, other?.change),
        row("after it", account.after, other?.after))),
      el("p", { class: `small ${worst > rounding ? "bad" : "dim"}` },
        `Sum and change differ by at most ${shown(worst).slice(1)} |h| at a token${worst > rounding ? ": the parts do not explain it all." : "."}`),
    ];
  });
  fill(host, tables);
}

// Each head's share, and the content token that it looked at most.
export function headsTable(host, page, mine, others, looked, names) {
  const two = others?.same === true;
  const most = Math.max(...mine.heads.map((value, head) => Math.abs(two ? others.heads[head] - value : value)), 1e-12);
  const rows = mine.heads.map((value, head) =>
    el("tr", { class: "pick", "aria-selected": String(head === page.head()), onclick: () => page.push({ head }) },
      el("th", {}, head), number(value), two ? [number(others.heads[head]), number(others.heads[head] - value)] : null,
      barCell(two ? others.heads[head] - value : value, most),
      two ? null : el("td", { class: "dim" }, el("bdi", {}, looked(head)))));
  const labels = two ? [...names, "b \u2212 a", ""] : ["wrote", "", "looked at most"];
  fill(host, el("h3", {}, "heads", el("span", { class: "dim" }, `wrote to ${page.side.heads_write_to}`)),
    el("div", { class: "tall" }, el("table", { class: "who" },
      el("thead", {}, el("tr", {}, el("th", {}, "head"), labels.map((words, i) => el("th", { class: two ? i < 3 ? "num" : "" : i ? "" : "num" }, words)))),
      el("tbody", {}, rows))));
}

// The top neurons.  With another capture: those whose contribution differs most.
export function neuronsTable(host, page, said, names) {
  const two = said.top.some((row) => "other" in row);
  const most = Math.max(...said.top.map((row) => Math.abs(two ? row.other - row.contribution : row.contribution)), 1e-12);
  const rows = said.top.map((row) =>
    el("tr", { class: "pick", "aria-selected": String(row.neuron === page.state.neuron), onclick: () => page.toNeuron(row.neuron) },
      el("th", {}, row.neuron), number(row.activation), number(row.contribution),
      two ? [number(row.other), number(row.other - row.contribution)] : null,
      barCell(two ? row.other - row.contribution : row.contribution, most)));
  const labels = two ? ["activation", ...names, "b \u2212 a", ""] : ["activation", "wrote", ""];
  const sum = said.top.reduce((total, row) => total + row.contribution, 0);
  const choice = (by, words, title) =>
    el("button", { type: "button", title, "aria-pressed": String(page.state.by === by), onclick: () => page.push({ by }) }, words);
  fill(host,
    el("h3", {}, "neurons", el("span", { class: "dim" }, two ? "whose contributions differ most" : `top ${said.top.length} of ${said.of}, by the size of`),
      two ? null : el("span", { class: "group" }, choice("contribution", "contribution", "to the trait (b)"), choice("activation", "activation", "act(gate) \u00b7 up (b)"))),
    el("table", { class: "who" },
      el("thead", {}, el("tr", {}, el("th", {}, "neuron"), labels.map((words) => el("th", { class: words ? "num" : "" }, words)))),
      el("tbody", {}, rows)),
    el("p", { class: "small dim" }, `These wrote ${shown(sum)}, all ${said.of} neurons ${shown(said.all)}.`));
}
