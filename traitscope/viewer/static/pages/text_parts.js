// The elements of the trajectory page: its title, controls, and the empty places that text.js draws
// in.  What a button does is the page's own method of that name.

import { el } from "../dom.js";
import { STYLE } from "../draw/tokens.js";

// A text by what was last asked in it.
export function titleOf(json) {
  const asked = json.messages.filter((message) => message.role === "user").at(-1) ?? json.messages.at(-1);
  const said = (asked?.content ?? json.generation).trim().replace(/\s+/g, " ");
  return said.length > 90 ? `${said.slice(0, 88)}\u2026` : said;
}

// The way to the texts before and behind this one.
export function neighbours(text, run, app, query) {
  const link = (id, words, title) =>
    id ? app.link(`#/text/${run}/${id}?${query}`, words, { title }) : el("span", { class: "dim" }, words);
  return el("span", { class: "neighbours" },
    link(text.previous, "\u2039 previous", "p"), el("span", { class: "dim" }, ` ${text.number} of ${text.of} `),
    link(text.next, "next \u203a", "n"));
}

// A piece of a curve and the name of its trait.
export function lineKey(text, { measured, colour, dash }) {
  const style = `border-top:2px ${dash.length ? "dashed" : "solid"} ${colour}`;
  return [el("i", { class: "key-line", style }), text.traits[measured.trait].name, " "];
}

export function traitButton(page, about, trait) {
  const { state, view } = page;
  const chosen = trait === state.trait;
  const over = state.with.includes(trait);
  const name = el("button", {
    type: "button", class: "trait-name", "aria-pressed": String(chosen),
    title: `${about.positive}${about.scored ? "" : " Not scored on this text yet."}`,
    onclick: () => page.choose(trait),
  }, el("i", { class: "swatch", style: `background:${view.theme.lines[trait % view.theme.lines.length]}` }), about.name);
  const plus = el("button", {
    type: "button", class: "trait-over", "aria-pressed": String(over), title: over ? "take its curve away" : "lay its curve over",
    "aria-label": `curve of ${about.name}`, onclick: () => page.overlay(trait),
  }, over ? "\u2212" : "+");
  return el("span", { class: about.scored ? "trait" : "trait unscored" }, name, chosen ? null : plus);
}

// The page's elements, empty; what is drawn later is found by name.
export function skeleton(page) {
  const { text } = page;
  const toggle = (state, words, run, title) => el("button", { type: "button", "data-state": state, title, onclick: run }, words);
  const choice = (name, value, words) => toggle(`${name} ${value}`, words, () => page.push({ [name]: value }));
  const flag = (name, words, title) => toggle(name, words, () => page.turn(name, [false, true]), title);
  const canvas = (name, label) => el("canvas", { class: name, role: "img", "aria-label": label });
  const parts = {
    traits: el("span", { class: "traits" }),
    siteSelect: el("select", { title: "site (\u2191 \u2193)", onchange: (event) => page.chooseSite(event.target) },
      text.sites.map((site, s) => el("option", { value: s }, site)).reverse()),
    neighbours: el("span"),
    internals: el("span", { class: "neighbours" }),
    words: el("div", { class: "words card" }),
    token: el("div", { class: "card token", "aria-live": "polite" }),
    heat: canvas("heat", "map of sites and tokens"),
    cross: el("canvas", { class: "cross" }),
    tokens: canvas("over-tokens", "curve over tokens"),
    sites: canvas("over-sites", "curve over sites"),
    legend: canvas("legend", "colour scale"),
    unit: el("b"),
    ends: el("span", { class: "dim ends" }),
    scaleWords: () => `${parts.unit.textContent}; ${parts.ends.textContent}`,
    site: el("span", { class: "dim" }),
    at: el("span", { class: "dim" }),
    key: el("span", { class: "key" }),
    reading: el("div", { class: "card reading-card" }),
    note: el("div", { class: "note dim" }),
  };
  const button = (words, title, run) => el("button", { type: "button", title, onclick: run }, words);
  const group = (...children) => el("span", { class: "group" }, children);
  const controls = el("div", { class: "controls" },
    parts.traits,
    el("label", {}, "site ", parts.siteSelect),
    group(choice("as", "z", "z"), choice("as", "cosine", "cosine"), choice("as", "raw", "raw")),
    group(choice("scale", "run", "run's scale"), choice("scale", "text", "this text's")));
  const caption = (name, ...children) => el("div", { class: "caption" }, el("b", {}, name), children);
  parts.grid = el("div", { class: "text-grid" },
    parts.words, parts.token,
    el("div", { class: "caption controls" }, parts.unit, parts.legend, parts.ends,
      group(button("\u2212", "further away (-)", () => page.zoom(-1)), button("+", "closer (+)", () => page.zoom(1)))),
    caption("over sites", parts.at),
    el("div", { class: "stack" }, parts.heat, parts.cross), parts.sites,
    el("div", { class: "over" },
      el("div", { class: "caption controls" }, el("b", {}, "over tokens"), parts.site, parts.key,
        group(flag("template", "template tokens", "show them and the first token (h); their z is measured against the words of answers"), flag("change", "change", "the change per token (c)"), flag("settles", "settles", "where the mean over the answer stands (m)"))),
      parts.tokens, parts.note),
    parts.reading);
  const label = [text.label, ...Object.entries(text.tags).map(([name, value]) => `${name}: ${value}`)].filter(Boolean);
  const title = el("div", { class: "text-title" }, el("h1", {}, el("bdi", {}, titleOf(text))),
    label.map((words) => el("bdi", { class: "tag" }, words)), text.of > 1 ? parts.neighbours : null, parts.internals,
    el("span", { class: "controls" }, group(button("PNG", "save the picture (g)", () => page.savePng()), button("CSV", "save the numbers (x)", () => page.saveCsv()))));
  parts.root = el("div", { class: "text-page" }, el("style", {}, STYLE), title, controls, parts.grid);
  return parts;
}
