// The report's trajectories: one text at a time, its tokens, the map of sites x tokens and the two
// curves under one cross-hair.  Numbers come from the page itself, drawing and arithmetic from the
// viewer's modules.  What is chosen stands in the address, behind "#", so that it can be sent along.
// Text goes in as text, never as markup.

import { drawLegend, drawOverSites, drawOverTokens } from "./curves.js";
import { FRAME, drawCross, drawHeat, heatAt, placesOf } from "./heat.js";
import { UNITS, atLeast, colourOf, columnsOf, formatted, holdsFrom, measure, readText, themeOf } from "./scale.js";
import { STYLE, paintTokens, pointAt, renderTokens, visibleText } from "./tokens.js";

const QUIET = 250; // ms without a key before the address follows
const WAYS = ["z", "cosine", "raw"];
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const texts = new Map(); // what was decoded already, by the text's id
const state = { text: 0, trait: 0, site: 0, token: 0, as: "z", template: false };
let hover = null; // where the pointer is, as {token, site}
let text, columns, places, spans, view, line;
let measures = [];
let pointed = null;

// --- a text -------------------------------------------------------------------------------------

function decoded(number) {
  const packed = data.texts[number];
  if (!texts.has(number)) {
    const bytes = Uint8Array.from(atob(packed.numbers), (c) => c.charCodeAt(0));
    texts.set(number, readText({ ...packed, sites: data.sites, traits: data.traits }, bytes.buffer));
  }
  return texts.get(number);
}

function openText(number, token) {
  state.text = number;
  text = decoded(number);
  state.token = Math.min(token ?? Math.max(text.n_prompt - 1, 0), text.T - 1);
  $("text").value = number;
  lay();
}

function lay() {
  columns = columnsOf(text, state.template);
  if (!columns.includes(state.token)) state.token = columns.find((t) => t > state.token) ?? columns.at(-1) ?? 0;
  places = new Map(columns.map((t, c) => [t, c]));
  spans = renderTokens($("words"), text, columns);
  pointed = null;
  draw();
}

// --- drawing ------------------------------------------------------------------------------------

const here = () => ({ token: state.token, site: state.site, ...hover });

function draw() {
  measures = text.traits.map((about, k) => measure(text, k, state.as));
  const measured = measures[state.trait];
  const theme = themeOf($("trajectories"));
  const limit = atLeast(text.traits[state.trait].limits[state.as] ?? NaN, state.as);
  view = { text, measured, columns, from: 0, to: columns.length, limit, theme };
  line = [{ measured, colour: theme.ink, dash: [] }];
  drawHeat($("heat"), view, colourOf);
  drawLegend($("legend"), view, colourOf);
  for (const name of ["trait", "site", "as"]) $(name).value = state[name];
  $("template").checked = state.template;
  $("unit").textContent = `${UNITS[state.as]}; the scale ends at the 99th percentile of the texts here`;
  drawReading();
  drawHere();
}

// What the tables say of this text.
function drawReading() {
  const { site, name } = text.traits[state.trait];
  const [before, answer] = text.readings[state.trait].map((z) => formatted(z, "z"));
  $("reading").textContent = `${name}, z at ${text.sites[site]}: ${before} before a word is written, ${answer} over the answer`;
}

function drawHere() {
  const { token, site } = here();
  paintTokens(spans, view, site, colourOf);
  pointAt($("words"), spans, token, pointed);
  pointed = token;
  drawCross($("cross"), view, places.get(token) ?? -1, site);
  drawOverTokens($("over-tokens"), view, site, line, { velocity: false, settles: false }, token);
  const zs = view.measured.z.subarray(token * text.S, (token + 1) * text.S);
  drawOverSites($("over-sites"), view, token, line, holdsFrom(zs), site);
  drawToken(token, site);
}

function drawToken(token, site) {
  const { tokens } = text;
  const logprob = tokens.logprob[token];
  $("token-text").textContent = visibleText(text, token);
  $("token-about").textContent = [
    `token ${token}, id ${tokens.id[token]}, ${tokens.role[token]}`,
    logprob === null ? "" : `logprob ${logprob.toFixed(2)}`,
    `|h| ${text.norm[token * text.S + site].toPrecision(4)}`,
    `at ${text.sites[site]}`,
  ].filter(Boolean).join(" \u00b7 ");
  const rows = measures.map(({ z, value }, k) => {
    const at = token * text.S + site;
    const row = document.createElement("tr");
    row.className = k === state.trait ? "chosen" : "";
    const shown = state.as === "z" ? "" : formatted(value[at], state.as);
    for (const words of [text.traits[k].name, formatted(z[at], "z"), shown]) row.insertCell().textContent = words;
    return row;
  });
  $("token-traits").replaceChildren(...rows);
}

// --- what is chosen -----------------------------------------------------------------------------

let quiet = 0;

// An address that says what is seen; it follows when the keys rest, as browsers ask for.
function follow() {
  clearTimeout(quiet);
  quiet = setTimeout(() => {
    try {
      history.replaceState(null, "", addressOf());
    } catch {
      location.replace(addressOf()); // where a page from a disk may not write its history
    }
  }, QUIET);
}

function addressOf() {
  const said = new URLSearchParams({
    text: data.texts[state.text].generation,
    trait: data.traits[state.trait].name,
    site: data.sites[state.site],
    token: state.token,
    as: state.as,
  });
  return `#${said}`;
}

// What an address asks for; what it does not say, or says wrongly, stays as it is.
function fromAddress() {
  const asked = new URLSearchParams(location.hash.slice(1));
  const find = (list, name, otherwise) => (list.indexOf(name) < 0 ? otherwise : list.indexOf(name));
  const number = find(data.texts.map((each) => each.generation), asked.get("text"), state.text);
  state.trait = find(data.traits.map((each) => each.name), asked.get("trait"), state.trait);
  state.site = find(data.sites, asked.get("site"), data.traits[state.trait].site);
  state.as = WAYS.includes(asked.get("as")) ? asked.get("as") : state.as;
  openText(number, /^\d+$/.test(asked.get("token") ?? "") ? Number(asked.get("token")) : undefined);
  return asked.has("text");
}

function change(name, value) {
  state[name] = value;
  hover = null;
  if (name === "text") openText(value);
  else if (name === "template") lay();
  else draw();
  follow();
}

const turned = (value, by, length) => (value + by + length) % length;
const within = (value, length) => Math.min(Math.max(value, 0), length - 1);

function step(by) {
  const at = within(Math.max(columns.findIndex((t) => t >= state.token), 0) + by, columns.length);
  if (columns.length) change("token", columns[at]);
}

const KEYS = {
  ArrowLeft: (event) => step(event.shiftKey ? -10 : -1),
  ArrowRight: (event) => step(event.shiftKey ? 10 : 1),
  ArrowUp: () => change("site", within(state.site + 1, data.sites.length)),
  ArrowDown: () => change("site", within(state.site - 1, data.sites.length)),
  n: () => change("text", turned(state.text, 1, data.texts.length)),
  p: () => change("text", turned(state.text, -1, data.texts.length)),
  t: () => change("trait", turned(state.trait, 1, data.traits.length)),
  v: () => change("as", WAYS[turned(WAYS.indexOf(state.as), 1, WAYS.length)]),
  h: () => change("template", !state.template),
};

// Keys belong to the trajectories while these are on the screen, and to a field that is typed in.
function pressed(event) {
  const run = KEYS[event.key];
  const busy = event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select");
  const box = $("trajectories").getBoundingClientRect();
  if (!run || busy || box.top > innerHeight * 0.6 || box.bottom < 80) return;
  event.preventDefault();
  run(event);
}

// --- pointers -----------------------------------------------------------------------------------

// Hovering moves the cross-hair, leaving gives it back, a click pins it.
function follows(element, find) {
  const found = (event) => {
    const box = element.getBoundingClientRect();
    return find(event.clientX - box.left, event.clientY - box.top, event.target);
  };
  element.addEventListener("pointermove", (event) => hovered(found(event)));
  element.addEventListener("pointerleave", () => hovered(null));
  element.addEventListener("click", (event) => {
    const at = found(event);
    hover = null;
    if (at) Object.assign(state, at);
    drawHere();
    $("site").value = state.site;
    follow();
  });
}

let frame = 0;

function hovered(at) {
  const before = here();
  hover = at;
  const now = here();
  if (now.token === before.token && now.site === before.site) return;
  cancelAnimationFrame(frame);
  frame = requestAnimationFrame(drawHere);
}

function listen() {
  follows($("cross"), (x, y) => {
    const at = heatAt($("cross"), view, x, y);
    return at && { token: columns[at.column], site: at.site };
  });
  follows($("over-tokens"), (x) => {
    const at = placesOf(view, $("over-tokens").clientWidth, 100);
    const column = Math.floor((x - FRAME.left) / at.cell);
    return column >= 0 && column < columns.length ? { token: columns[column] } : null;
  });
  follows($("over-sites"), (x, y) => {
    const at = placesOf(view, 100, $("over-sites").clientHeight);
    const site = text.S - 1 - Math.floor((y - FRAME.top) / at.row);
    return site >= 0 && site < text.S ? { site } : null;
  });
  follows($("words"), (x, y, target) => {
    const span = target.closest?.(".tok");
    return span ? { token: Number(span.dataset.t) } : null;
  });
  for (const name of ["text", "trait", "site"]) {
    $(name).addEventListener("change", (event) => change(name, Number(event.target.value)));
  }
  $("as").addEventListener("change", (event) => change("as", event.target.value));
  $("template").addEventListener("change", (event) => change("template", event.target.checked));
  $("before").addEventListener("click", () => KEYS.p());
  $("next").addEventListener("click", () => KEYS.n());
  addEventListener("keydown", pressed);
  addEventListener("hashchange", () => fromAddress() && $("trajectories").scrollIntoView());
  addEventListener("resize", draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
}

// --- the page -----------------------------------------------------------------------------------

function options(select, names) {
  select.replaceChildren(...names.map((name, i) => {
    const option = document.createElement("option");
    Object.assign(option, { value: i, textContent: name });
    return option;
  }));
}

// On paper: light, and with everything that can be opened, open.
function onPaper(paper) {
  document.documentElement.classList.toggle("paper", paper);
  if (paper) for (const each of document.querySelectorAll("details")) each.open = true;
  if (data.texts.length) draw();
}

function main() {
  addEventListener("beforeprint", () => onPaper(true));
  addEventListener("afterprint", () => onPaper(false));
  if (!data.texts.length || !data.traits.length) return;
  const style = document.createElement("style");
  style.textContent = STYLE;
  document.head.append(style);
  options($("text"), data.texts.map((each) => each.name));
  options($("trait"), data.traits.map((each) => each.name));
  options($("site"), data.sites);
  $("stage").hidden = false;
  $("needs-script").remove();
  $("heat-box").style.height = `${Math.min(Math.max(30 + 14 * data.sites.length, 190), 460)}px`;
  $("over-sites").style.height = $("heat-box").style.height;
  state.site = data.traits[0].site;
  const asked = fromAddress();
  listen();
  if (asked) $("trajectories").scrollIntoView();
}

main();
