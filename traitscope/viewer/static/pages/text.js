// The trajectory page: one text, its tokens, the map of sites x tokens and the two curves, all under
// one cross-hair.  What is pinned is in the address; a hover moves the cross-hair and leaving gives
// it back.  Owns events and the order of drawing; what is drawn, and its arithmetic, is in ../draw.

import { el, fill } from "../dom.js";
import { drawLegend, drawOverSites, drawOverTokens } from "../draw/curves.js";
import { FRAME, drawCross, drawHeat, heatAt, placesOf } from "../draw/heat.js";
import { DASHES, UNITS, atLeast, colourOf, columnsOf, formatted, holdsFrom, limitOf, measure, readText, settles, themeOf } from "../draw/scale.js";
import { paintTokens, pointAt, renderTokens, spansInSight } from "../draw/tokens.js";
import { marksNote, readingCard, tokenCard } from "./text_cards.js";
import { saveCsv, savePng } from "./text_export.js";
import { lineKey, neighbours, skeleton, titleOf, traitButton } from "./text_parts.js";
import { queryOf, stateOf, windowOf } from "./text_state.js";

const QUIET = 250; // ms without a key before the address follows

export async function open(main, route, app) {
  const [, run, id] = route.path;
  const place = `api/runs/${encodeURIComponent(run)}`;
  const path = `${place}/texts/${encodeURIComponent(id)}`;
  const [json, numbers, scale] = await Promise.all([app.api(path), app.bytes(`${path}/numbers`), app.api(`${place}/scale`)]);
  app.trail([[`#/run/${run}`, app.runName(Number(run))], [`#/text/${run}/${id}`, titleOf(json)]]);
  if (json.status !== "done") return failed(main, json, route, app);
  const text = readText(json, numbers);
  const page = new TextPage(main, { run, text, scale }, app);
  page.show(stateOf(route.query, text));
  return {
    keys: keysOf(page),
    update: (next) => next.path[1] === run && next.path[2] === id && page.show(stateOf(next.query, text)),
    close: () => page.close(),
  };
}

function failed(main, json, route, app) {
  const run = route.path[1];
  const query = route.query.toString();
  fill(
    main,
    el("h1", {}, el("bdi", {}, titleOf(json))),
    el("p", { class: "problem" }, `This text failed, so there is nothing to draw: ${json.error}`),
    json.messages.map((message) => el("p", {}, el("b", {}, `${message.role}: `), el("bdi", {}, message.content))),
    neighbours(json, run, app, query));
  return { keys: neighbourKeys(() => json, run, app, () => query) };
}

function neighbourKeys(text, run, app, query) {
  const go = (id) => id && app.go(`#/text/${run}/${id}?${query()}`);
  return [
    { key: "n", what: "next text", run: () => go(text().next) },
    { key: "p", what: "previous text", run: () => go(text().previous) },
  ];
}

function keysOf(page) {
  const across = (event, step) => page.step(event.shiftKey ? 10 * step : step);
  return [
    { key: "ArrowLeft", what: "token before (with Shift: ten)", run: (event) => across(event, -1) },
    { key: "ArrowRight", what: "next token (with Shift: ten)", run: (event) => across(event, 1) },
    { key: "ArrowUp", what: "next site (also ])", run: () => page.climb(1) },
    { key: "ArrowDown", what: "site before (also [)", run: () => page.climb(-1) },
    { key: "]", run: () => page.climb(1) },
    { key: "[", run: () => page.climb(-1) },
    { key: "Home", what: "first token", run: () => page.step(-Infinity) },
    { key: "End", what: "last token", run: () => page.step(Infinity) },
    { key: "b", what: "before the answer: prompt[-1] at the trait's own site", run: () => page.toReading() },
    { key: "t", what: "next trait", run: () => page.turnTrait(1) },
    { key: "T", what: "trait before", run: () => page.turnTrait(-1) },
    { key: "o", what: "all traits over one another, or one", run: () => page.overlayAll() },
    { key: "v", what: "values: z, cosine, raw", run: () => page.turn("as", ["z", "cosine", "raw"]) },
    { key: "s", what: "colour scale of the run or of this text", run: () => page.turn("scale", ["run", "text"]) },
    { key: "h", what: "hide or show template tokens", run: () => page.turn("template", [false, true]) },
    { key: "c", what: "change per token", run: () => page.turn("change", [false, true]) },
    { key: "m", what: "mark where the trait settles", run: () => page.turn("settles", [false, true]) },
    { key: "+", what: "closer, around the cross-hair", run: () => page.zoom(1) },
    { key: "-", what: "further away", run: () => page.zoom(-1) },
    { key: "Escape", what: "the whole text again", run: () => page.zoom(-Infinity) },
    { key: "g", what: "save as PNG", run: () => page.savePng() },
    { key: "x", what: "save as CSV", run: () => page.saveCsv() },
    ...neighbourKeys(() => page.text, page.run, page.app, () => page.elsewhere()),
  ];
}

class TextPage {
  constructor(main, { run, text, scale }, app) {
    Object.assign(this, { main, run, text, scale, app, state: null, hover: null, spans: null });
    this.measured = new Map(); // "trait as" -> what `measure` gave
    this.parts = skeleton(this);
    main.append(this.parts.root);
    this.redraw = () => this.draw();
    addEventListener("theme", this.redraw);
    this.watch = new ResizeObserver(this.redraw);
    this.watch.observe(this.parts.heat); // its size is that of the window
    this.listen();
  }

  close() {
    removeEventListener("theme", this.redraw);
    this.watch.disconnect();
    clearTimeout(this.quiet);
    clearTimeout(this.rest);
    cancelAnimationFrame(this.frame);
  }

  // --- state ------------------------------------------------------------------------------------

  show(state) {
    clearTimeout(this.quiet);
    this.state = state;
    this.hover = null;
    if (this.laid !== state.template) this.layTokens();
    this.draw();
    return true;
  }

  query = () => queryOf(this.state, this.text);

  // the same view of another text, whose tokens are others
  elsewhere() {
    const query = new URLSearchParams(this.query());
    for (const name of ["token", "zoom"]) query.delete(name);
    return query.toString().replaceAll("%2C", ",");
  }

  hash = () => `#/text/${this.run}/${this.text.generation}?${this.query()}`;

  // A deliberate change: one step of the browser's history.
  push(change) {
    this.settleAddress();
    this.state = Object.freeze({ ...this.state, ...change });
    this.app.go(this.hash());
    this.show(this.state);
  }

  // A step of the keyboard: the address follows when the keys rest.
  replace(change) {
    this.state = Object.freeze({ ...this.state, ...change });
    this.hover = null;
    clearTimeout(this.quiet);
    this.quiet = setTimeout(() => this.settleAddress(), QUIET);
    this.draw();
  }

  settleAddress() {
    clearTimeout(this.quiet);
    this.app.go(this.hash(), { replace: true });
  }

  turn(name, values) {
    this.push({ [name]: values[(values.indexOf(this.state[name]) + 1) % values.length] });
  }

  turnTrait(step) {
    const { K } = this.text;
    this.choose((this.state.trait + step + K) % K);
  }

  // another trait, at the same site: what is compared is one thing
  choose(trait) {
    if (trait === this.state.trait) return;
    const rest = this.state.with.filter((k) => k !== trait);
    this.push({ trait, with: this.state.with.length ? [...rest, this.state.trait].sort((a, b) => a - b) : [] });
  }

  // the arrow keys are the page's again
  chooseSite(select) {
    select.blur();
    this.push({ site: Number(select.value) });
  }

  overlay(trait) {
    const there = this.state.with.includes(trait);
    const rest = this.state.with.filter((k) => k !== trait);
    this.push({ with: there ? rest : [...rest, trait].sort((a, b) => a - b) });
  }

  overlayAll() {
    const others = this.text.traits.map((each, k) => k).filter((k) => k !== this.state.trait);
    this.push({ with: this.state.with.length === others.length ? [] : others });
  }

  step(by) {
    const at = Math.max(this.columns.findIndex((t) => t >= this.state.token), 0);
    const next = Math.min(Math.max(at + by, 0), this.columns.length - 1);
    if (this.columns.length) this.replace({ token: this.columns[next] });
  }

  climb(by) {
    this.replace({ site: Math.min(Math.max(this.state.site + by, 0), this.text.S - 1) });
  }

  zoom(by) {
    const most = Math.max(Math.ceil(Math.log2(this.columns.length / 12)), 0);
    const zoom = Math.min(Math.max(this.state.zoom + by, 0), most);
    if (zoom !== this.state.zoom) this.push({ zoom });
  }

  toReading() {
    this.push({ token: Math.max(this.text.n_prompt - 1, 0), site: this.text.traits[this.state.trait].site });
  }

  // --- what is drawn ----------------------------------------------------------------------------

  measure(trait) {
    const name = `${trait} ${this.state.as}`;
    if (!this.measured.has(name)) this.measured.set(name, measure(this.text, trait, this.state.as));
    return this.measured.get(name);
  }

  lineOf(trait) {
    const { lines } = this.view.theme;
    return {
      measured: this.measure(trait),
      colour: lines[trait % lines.length],
      dash: trait === this.state.trait ? [] : DASHES[trait % DASHES.length],
    };
  }

  limit(measured) {
    const { as, scale } = this.state;
    if (scale === "text") return limitOf(this.text, measured);
    return atLeast(this.scale.traits[this.text.traits[measured.trait].name]?.[as] ?? NaN, as);
  }

  here() {
    return { token: this.state.token, site: this.state.site, ...this.hover };
  }

  layTokens() {
    this.laid = this.state.template;
    this.columns = columnsOf(this.text, this.laid);
    this.places = new Map(this.columns.map((t, c) => [t, c]));
    this.spans = renderTokens(this.parts.words, this.text, this.columns);
    this.pointed = null;
  }

  // `ratio`: pixels to a CSS pixel, for a picture; the screen's own if not given
  draw(ratio) {
    const { text, columns, state, parts } = this;
    const measured = this.measure(state.trait);
    const column = this.places.get(state.token) ?? 0;
    const shown = windowOf(state.zoom, columns.length, column);
    const theme = themeOf(parts.root);
    this.view = { text, measured, columns, ...shown, limit: this.limit(measured), theme, ratio };
    this.lines = [state.trait, ...state.with].map((trait) => this.lineOf(trait));
    parts.tokens.style.height = `${state.change ? 190 : 150}px`;
    drawHeat(parts.heat, this.view, colourOf);
    drawLegend(parts.legend, this.view, colourOf);
    this.drawControls();
    readingCard(parts.reading, this.view, (token, site) => this.push({ token, site }));
    this.painted = null;
    this.drawHere();
  }

  // Everything that follows the cross-hair.
  drawHere() {
    const { text, state, parts, view, lines } = this;
    const { token, site } = this.here();
    if (this.painted !== site) {
      this.paint(site);
      this.markSettled(site);
      marksNote(parts.note, view, state, site);
      this.painted = site;
    }
    pointAt(parts.words, this.spans, token, this.pointed);
    this.pointed = token;
    const zs = view.measured.z.subarray(token * text.S, (token + 1) * text.S);
    const all = text.traits.map((each, trait) => this.measure(trait));
    drawCross(parts.cross, view, this.places.get(token) ?? -1, site);
    drawOverTokens(parts.tokens, view, site, lines, { velocity: state.change, settles: state.settles }, token);
    drawOverSites(parts.sites, view, token, lines, holdsFrom(zs), site);
    tokenCard(parts.token, view, token, site, all);
    parts.site.textContent = `at ${text.sites[site]}`;
    parts.at.textContent = `at token ${token}`;
  }

  // Of a long text those in sight now and the others when the hand rests: it moves on at 60 a second.
  paint(site) {
    clearTimeout(this.rest);
    const long = this.spans.size > 500 && this.hover;
    const near = long ? spansInSight(this.parts.words, this.spans) : this.spans;
    paintTokens(near, this.view, site, colourOf);
    if (long) this.rest = setTimeout(() => paintTokens(this.spans, this.view, this.painted, colourOf), QUIET);
  }

  markSettled(site) {
    this.settled?.classList.remove("tok-settled");
    const found = this.state.settles ? settles(this.text, this.view.measured, site) : null;
    this.settled = found ? this.spans.get(found.token) : null;
    this.settled?.classList.add("tok-settled");
  }

  drawControls() {
    const { parts, state, text, view, scale } = this;
    for (const button of parts.root.querySelectorAll("[data-state]")) {
      const [name, value] = button.dataset.state.split(" ");
      const pressed = value === undefined ? state[name] : String(state[name]) === value;
      button.setAttribute("aria-pressed", pressed);
    }
    const focused = [...parts.traits.querySelectorAll("button")].indexOf(document.activeElement);
    fill(parts.traits, text.traits.map((about, trait) => traitButton(this, about, trait)));
    parts.traits.querySelectorAll("button")[focused]?.focus();
    parts.siteSelect.value = state.site;
    const of = state.scale === "text" ? "this text" : scale.texts < scale.of ? `${scale.texts} of ${scale.of} texts` : `the run's ${scale.of} text${scale.of === 1 ? "" : "s"}`;
    const ends = `\u00b1${formatted(view.limit, state.as).slice(1)}`;
    const band = state.as === "z" ? "grey: |z| < 1" : "grey: |z| < 1 at its site";
    parts.unit.textContent = UNITS[state.as];
    parts.ends.textContent = `ends at ${ends}, the 99th percentile of ${of}; ${band}`;
    fill(parts.key, state.with.length ? this.lines.map((each) => lineKey(text, each)) : null);
    fill(parts.neighbours, neighbours(text, this.run, this.app, this.elsewhere()));
    const trait = text.traits[state.trait].name;
    fill(parts.internals,
      text.blocks.map((block) => this.app.link(`#/internals/${this.run}/${text.generation}/${block}?trait=${trait}&token=${state.token}`, `inside block ${block}`)),
      this.app.link(`#/compare?a=${this.run}/${text.generation}&trait=${trait}`, "compare"));
  }

  // --- events -----------------------------------------------------------------------------------

  listen() {
    const { cross, tokens, sites, words } = this.parts;
    this.follows(cross, (x, y) => {
      const at = heatAt(cross, this.view, x, y);
      return at && { token: this.columns[at.column], site: at.site };
    });
    this.follows(tokens, (x) => {
      const at = placesOf(this.view, tokens.clientWidth, tokens.clientHeight);
      const column = this.view.from + Math.floor((x - FRAME.left) / at.cell);
      return column >= this.view.from && column < this.view.to ? { token: this.columns[column] } : null;
    });
    this.follows(sites, (x, y) => {
      const at = placesOf(this.view, sites.clientWidth, sites.clientHeight);
      const site = this.text.S - 1 - Math.floor((y - FRAME.top) / at.row);
      return site >= 0 && site < this.text.S ? { site } : null;
    });
    this.follows(words, (x, y, target) => {
      const span = target.closest?.(".tok");
      return span ? { token: Number(span.dataset.t) } : null;
    });
  }

  // Hovering moves the cross-hair, leaving gives it back, a click pins it.
  follows(element, find) {
    const found = (event) => {
      const box = element.getBoundingClientRect();
      return find(event.clientX - box.left, event.clientY - box.top, event.target);
    };
    element.addEventListener("pointermove", (event) => this.hovered(found(event)));
    element.addEventListener("pointerleave", () => this.hovered(null));
    element.addEventListener("click", (event) => {
      const at = found(event);
      if (at) this.push(at);
    });
  }

  hovered(at) {
    const before = this.here();
    this.hover = at;
    const now = this.here();
    if (now.token === before.token && now.site === before.site) return;
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(() => this.drawHere());
  }

  // --- saving -----------------------------------------------------------------------------------

  savePng = () => savePng(this).catch((error) => this.app.status(error.message));
  saveCsv = () => saveCsv(this);
}
