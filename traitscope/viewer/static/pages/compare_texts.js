// Two texts beside one another, lined up token by token, with their difference: b - a.  One cross-hair
// moves through both texts, the map of differences and the curves.  Each side's z is that run's own.

import { el, fill, signed } from "../dom.js";
import { drawLegend, drawOverSites, drawOverTokens } from "../draw/curves.js";
import { FRAME, drawCross, drawHeat, heatAt, placesOf } from "../draw/heat.js";
import { pairMeasures, pairText } from "../draw/pair.js";
import { UNITS, atLeast, colourOf, columnsOf, formatted, limitOf, measure, readText, themeOf } from "../draw/scale.js";
import { STYLE as TOKENS, paintTokens, pointAt, renderTokens, visibleText } from "../draw/tokens.js";
import { savePicture, saveRows } from "../picture.js";
import { titleOf } from "./text_parts.js";

const AS = ["z", "cosine", "raw"];
const QUIET = 250; // ms without a key before the address follows
const STYLE = `
.pair-grid { display: grid; grid-template-columns: minmax(0, 1fr) minmax(300px, 360px); gap: 6px 16px; align-items: start; }
.pair-words { display: grid; grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); gap: 12px; }
.pair-words .card { max-height: 232px; overflow-y: auto; position: relative; font-size: 15px; }
.pair-words h2 { margin: 0 0 6px; font-size: 13px; display: flex; gap: 8px; align-items: baseline; min-width: 0; }
.pair-words h2 .dim { font-weight: 400; flex: 0 1 auto; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.pair-words h2 a { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.pair-words .turn { grid-template-columns: 60px minmax(0, 1fr); }
.tok-alone { text-decoration: underline dotted; text-decoration-color: var(--dim); }
.pair-table { width: 100%; font-size: 13px; font-variant-numeric: tabular-nums; }
.pair-table th { font-weight: 500; color: var(--dim); text-align: right; padding: 1px 0 1px 8px; white-space: nowrap; }
.pair-table th:first-child { text-align: left; padding-left: 0; }
.pair-table td { padding: 1px 0 1px 8px; text-align: right; white-space: nowrap; }
.pair-table bdi { display: inline-block; max-width: 84px; overflow: hidden; text-overflow: ellipsis; vertical-align: bottom; }
.pair-table td:first-child { text-align: left; padding-left: 0; white-space: normal; overflow-wrap: anywhere; }
.pair-table .chosen td { font-weight: 600; }
.pair-notes { font-size: 12px; margin: 6px 0 0; padding-left: 16px; }
.pair-grid h3 { font-size: 13px; margin: 0 0 4px; }
.pair-grid .caption .ends { flex: 1; line-height: 1.25; }
.pair-grid .over-tokens { height: 160px; }
`;

export async function openTexts(main, route, app) {
  const names = ["a", "b"].map((side) => route.query.get(side));
  const places = names.map((name) => {
    const [run, id] = name.split("/");
    return { run, id, path: `api/runs/${encodeURIComponent(run)}/texts/${encodeURIComponent(id)}` };
  });
  const asked = `api/compare?a=${encodeURIComponent(names[0])}&b=${encodeURIComponent(names[1])}`;
  const [pair, ...said] = await Promise.all([app.api(asked), ...places.flatMap(({ path }) => [app.api(path), app.bytes(`${path}/numbers`)])]);
  const texts = [readText(said[0], said[1]), readText(said[2], said[3])];
  app.trail([
    [`#/run/${places[0].run}`, app.runName(Number(places[0].run))],
    [`#/text/${places[0].run}/${places[0].id}`, titleOf(texts[0])],
    [location.hash, `beside ${titleOf(texts[1])}`],
  ]);
  if (!pair.traits.length) throw new Error("These two runs have no trait in common, so there is nothing to set side by side.");
  const page = new PairPage(main, { names, places, pair, texts }, app);
  page.show(page.stateOf(route.query));
  return { keys: keysOf(page), update: (next) => page.show(page.stateOf(next.query)), close: () => page.close() };
}

function keysOf(page) {
  return [
    { key: "ArrowLeft", what: "token before (with Shift: ten)", run: (event) => page.step(event.shiftKey ? -10 : -1) },
    { key: "ArrowRight", what: "next token (with Shift: ten)", run: (event) => page.step(event.shiftKey ? 10 : 1) },
    { key: "ArrowUp", what: "next site", run: () => page.climb(1) },
    { key: "ArrowDown", what: "site before", run: () => page.climb(-1) },
    { key: "Home", what: "first token", run: () => page.step(-Infinity) },
    { key: "End", what: "last token", run: () => page.step(Infinity) },
    { key: "a", what: "where the texts part", run: () => page.toParting() },
    { key: "t", what: "next trait", run: () => page.turnTrait(1) },
    { key: "T", what: "trait before", run: () => page.turnTrait(-1) },
    { key: "v", what: "values: z, cosine, raw", run: () => page.push({ as: AS[(AS.indexOf(page.state.as) + 1) % AS.length] }) },
    { key: "h", what: "hide or show template tokens", run: () => page.push({ template: !page.state.template }) },
    { key: "s", what: "swap the two", run: () => page.swap() },
    { key: "g", what: "save as PNG", run: () => page.savePng() },
    { key: "x", what: "save as CSV", run: () => page.saveCsv() },
  ];
}

const shown = (value, as) => (value === 0 ? "0" : as === "plain" ? signed(value) : as === "size" ? (Number.isFinite(value) ? value.toFixed(2).replace("-", "\u2212") : "\u00b7") : formatted(value, as));

class PairPage {
  constructor(main, { names, places, pair, texts }, app) {
    Object.assign(this, { names, places, pair, texts, app, state: null, hover: null, kept: new Map() });
    this.both = pairText(pair, ...texts);
    this.columnOf = [0, 1].map((k) => new Map(pair.columns.flatMap((column, c) => (column[k] === null ? [] : [[column[k], c]]))));
    this.parts = this.skeleton();
    main.append(this.parts.root);
    this.redraw = () => this.draw();
    addEventListener("theme", this.redraw);
    this.watch = new ResizeObserver(this.redraw);
    this.watch.observe(this.parts.heat);
    this.listen();
  }

  close() {
    removeEventListener("theme", this.redraw);
    this.watch.disconnect();
    clearTimeout(this.quiet);
    cancelAnimationFrame(this.frame);
  }

  // --- state ------------------------------------------------------------------------------------

  stateOf(query) {
    const { pair, texts, both } = this;
    const trait = pair.traits.includes(query.get("trait")) ? query.get("trait") : pair.traits[0];
    const own = texts[0].traits.find((each) => each.name === trait).site;
    const sites = both.sites.indexOf(query.get("site"));
    const byDefault = pair.sites.findIndex(([i]) => i === own);
    const at = query.get("at");
    return Object.freeze({
      trait,
      site: sites >= 0 ? sites : Math.max(byDefault, 0),
      at: /^\d{1,9}$/.test(at ?? "") && Number(at) < both.T ? Number(at) : Math.max(both.n_prompt - 1, 0),
      as: AS.includes(query.get("as")) ? query.get("as") : "z",
      template: query.has("template"),
    });
  }

  hash(state = this.state, names = this.names) {
    const query = new URLSearchParams({ a: names[0], b: names[1], trait: state.trait, site: this.both.sites[state.site], as: state.as, at: state.at });
    if (state.template) query.set("template", "1");
    return `#/compare?${query.toString().replaceAll("%2F", "/")}`;
  }

  show(state) {
    clearTimeout(this.quiet);
    const before = this.state;
    this.state = state;
    this.hover = null;
    if (before?.template !== state.template) this.layTokens();
    this.draw();
    return true;
  }

  push(change) {
    this.settle();
    this.state = Object.freeze({ ...this.state, ...change });
    this.app.go(this.hash());
    if ("template" in change) this.layTokens();
    this.hover = null;
    this.draw();
  }

  replace(change) {
    this.state = Object.freeze({ ...this.state, ...change });
    this.hover = null;
    clearTimeout(this.quiet);
    this.quiet = setTimeout(() => this.settle(), QUIET);
    this.draw();
  }

  settle() {
    clearTimeout(this.quiet);
    this.app.go(this.hash(), { replace: true });
  }

  step(by) {
    const at = Math.max(this.columns.findIndex((c) => c >= this.state.at), 0);
    const next = Math.min(Math.max(at + by, 0), this.columns.length - 1);
    if (this.columns.length) this.replace({ at: this.columns[next] });
  }

  climb = (by) => this.replace({ site: Math.min(Math.max(this.state.site + by, 0), this.both.S - 1) });

  turnTrait(step) {
    const { traits } = this.pair;
    this.push({ trait: traits[(traits.indexOf(this.state.trait) + step + traits.length) % traits.length] });
  }

  toParting() {
    const first = this.pair.columns.findIndex(([i, j]) => i === null || j === null);
    if (first >= 0) this.push({ at: first });
  }

  swap() {
    this.settle();
    this.app.go(this.hash(this.state, [this.names[1], this.names[0]]).replace(/&(at|site)=[^&]*/g, ""));
  }

  // --- what is drawn ----------------------------------------------------------------------------

  measures() {
    const { trait, as } = this.state;
    const name = `${trait} ${as}`;
    if (!this.kept.has(name)) {
      const shared = this.texts.map((text) => text.traits.findIndex((each) => each.name === trait));
      const measured = this.texts.map((text, k) => measure(text, shared[k], as));
      this.kept.set(name, { own: measured, shared, ...pairMeasures(this.pair, this.texts, shared, measured) });
    }
    return this.kept.get(name);
  }

  layTokens() {
    const { template } = this.state;
    this.columns = columnsOf(this.both, template);
    this.place = new Map(this.columns.map((c, i) => [c, i]));
    this.spans = this.texts.map((text, k) => renderTokens(this.parts.words[k], text, columnsOf(text, template)));
    this.spans.forEach((spans, k) => {
      for (const [t, span] of spans) {
        const [i, j] = this.pair.columns[this.columnOf[k].get(t)];
        span.classList.toggle("tok-alone", i === null || j === null);
      }
    });
    this.pointed = [null, null];
  }

  draw() {
    if (!this.state) return;
    const { parts, both, texts, state, columns } = this;
    const found = this.measures();
    const theme = themeOf(parts.root);
    both.traits = found.traits;
    const limit = atLeast(Math.max(...found.own.map((measured, k) => limitOf(texts[k], measured))), state.as);
    const apart = atLeast(limitOf(both, found.difference), state.as);
    const shown = { text: both, columns, from: 0, to: columns.length, theme };
    this.view = { ...shown, measured: found.difference, limit: apart };
    this.curves = { ...shown, measured: found.a, limit };
    this.lines = [
      { measured: found.a, colour: theme.lines[0], dash: [] },
      { measured: found.b, colour: theme.lines[1], dash: [6, 3] },
    ];
    this.wordViews = texts.map((text, k) => ({ text, measured: found.own[k], limit, theme }));
    drawHeat(parts.heat, this.view, colourOf);
    drawLegend(parts.legend, this.view, colourOf);
    this.drawControls(limit, apart);
    this.drawReadings();
    this.painted = null;
    this.drawHere();
  }

  drawHere() {
    const { parts, pair, view, lines } = this;
    const { at, site } = { at: this.state.at, site: this.state.site, ...this.hover };
    if (this.painted !== site) {
      this.wordViews.forEach((words, k) => paintTokens(this.spans[k], words, pair.sites[site][k], colourOf));
      this.painted = site;
    }
    pair.columns[at]?.forEach((t, k) => {
      pointAt(parts.words[k], this.spans[k], t, this.pointed[k]);
      this.pointed[k] = t;
    });
    drawCross(parts.cross, view, this.place.get(at) ?? -1, site);
    drawOverTokens(parts.tokens, this.curves, site, lines, {}, at);
    drawOverSites(parts.sites, this.curves, at, lines, null, site);
    this.drawToken(at, site);
    parts.site.textContent = `at ${view.text.names[site]}`;
    const [i, j] = pair.columns[at] ?? [];
    parts.at.textContent = `at token ${i ?? "\u2013"} of a, ${j ?? "\u2013"} of b`;
  }

  // The cross-hair's token: all traits on both sides.
  drawToken(at, site) {
    const { parts, pair, texts, state } = this;
    const ts = pair.columns[at] ?? [null, null];
    const name = (k) => (ts[k] === null ? el("td", { class: "dim", title: "no such token" }, "\u2013") : el("td", {}, el("bdi", { class: "mono" }, visibleText(texts[k], ts[k]))));
    const values = (of) => {
      const [a, b] = [0, 1].map((k) => (ts[k] === null ? NaN : of(texts[k], k)));
      return [a, b, b - a];
    };
    const row = (words, [a, b, apart], as, chosen = false) =>
      el("tr", { class: chosen ? "chosen" : "" }, el("td", {}, words), [a, b, apart].map((value) => el("td", {}, shown(value, as))));
    const traits = pair.traits.map((trait) => {
      const own = values((text, k) => {
        const measured = this.measureOf(text, k, trait);
        return measured.value[ts[k] * text.S + pair.sites[site][k]];
      });
      return row(trait, own, state.as, trait === state.trait);
    });
    fill(parts.token,
      el("table", { class: "pair-table" },
        el("thead", {}, el("tr", {}, [`${state.as} at ${this.both.names[site]}`, "a", "b", "b \u2212 a"].map((words) => el("th", {}, words)))),
        el("tbody", {}, el("tr", {}, el("td", { class: "dim" }, "token"), name(0), name(1), el("td")), traits,
          row("log probability", values((text, k) => text.tokens.logprob[ts[k]] ?? NaN), "plain"),
          row("|h|", values((text, k) => text.norm[ts[k] * text.S + pair.sites[site][k]]), "size"))));
  }

  measureOf(text, k, trait) {
    const name = `${k} ${trait} ${this.state.as}`;
    if (!this.kept.has(name)) this.kept.set(name, measure(text, text.traits.findIndex((each) => each.name === trait), this.state.as));
    return this.kept.get(name);
  }

  // The two numbers that the report gives of each text: before a word is written, and over the answer.
  drawReadings() {
    const { parts, pair, texts, state } = this;
    const of = (trait, k, name) => texts[k].traits.find((each) => each.name === trait).reading?.[name] ?? NaN;
    const rows = pair.traits.flatMap((trait) => ["before", "response"].map((name) => {
      const [a, b] = [of(trait, 0, name), of(trait, 1, name)];
      return el("tr", { class: trait === state.trait ? "chosen" : "" }, el("td", {}, `${trait}, ${name === "before" ? "before" : "answer"}`),
        [a, b, b - a].map((value) => el("td", {}, signed(value))));
    }));
    fill(parts.readings, el("h3", {}, "readings, z at each trait\u2019s own site"), el("table", { class: "pair-table" },
      el("thead", {}, el("tr", {}, ["", "a", "b", "b \u2212 a"].map((words) => el("th", {}, words)))), el("tbody", {}, rows)),
      el("p", { class: "dim", style: "font-size:12px;margin:4px 0 0" }, "One response each: a difference here is of these two texts, not yet of what they stand for."));
  }

  drawControls(limit, apart) {
    const { parts, state, pair, both } = this;
    const choice = (name, value, words) =>
      el("button", { type: "button", "aria-pressed": String(state[name] === value), onclick: () => this.push({ [name]: value }) }, words);
    fill(parts.traits, pair.traits.map((trait) => choice("trait", trait, trait)));
    fill(parts.values, AS.map((as) => choice("as", as, as)));
    parts.siteSelect.value = state.site;
    parts.template.setAttribute("aria-pressed", String(state.template));
    const end = (value) => `\u00b1${formatted(value, state.as).slice(1)}`;
    fill(parts.unit, el("b", {}, "difference, b \u2212 a"), ` ${UNITS[state.as]}; ends at ${end(apart)} (the words at ${end(limit)}); grey: less than one neutral spread; hatched: a token that only one has`);
    const key = ({ colour, dash }, words) => [el("i", { class: "key-line", style: `border-top:2px ${dash.length ? "dashed" : "solid"} ${colour}` }), words, " "];
    fill(parts.key, key(this.lines[0], "a"), key(this.lines[1], "b"));
    fill(parts.notes, pair.notes.map((note) => el("li", {}, note)),
      pair.common === both.T ? null : el("li", { class: "dim" }, "Underlined tokens are in one of the two only."));
  }

  // --- elements and events ----------------------------------------------------------------------

  skeleton() {
    const { texts, both, app, places } = this;
    const canvas = (name, label) => el("canvas", { class: name, role: "img", "aria-label": label });
    const words = [0, 1].map(() => el("div"));
    const button = (label, title, run) => el("button", { type: "button", title, onclick: run }, label);
    const parts = {
      words,
      traits: el("span", { class: "traits" }),
      values: el("span", { class: "group" }),
      siteSelect: el("select", { title: "site (\u2191 \u2193)", onchange: (event) => this.push({ site: Number(event.target.value) }) },
        both.names.map((site, s) => el("option", { value: s }, site)).reverse()),
      template: button("template tokens", "show them (h)", () => this.push({ template: !this.state.template })),
      notes: el("ul", { class: "pair-notes" }),
      token: el("div", { class: "card", "aria-live": "polite" }),
      readings: el("div", { class: "card readings" }),
      heat: canvas("heat", "differences at sites and tokens"),
      cross: el("canvas", { class: "cross" }),
      sites: canvas("over-sites", "both curves over sites"),
      tokens: canvas("over-tokens", "both curves over tokens"),
      legend: canvas("legend", "colour scale"),
      unit: el("span", { class: "dim ends" }),
      key: el("span", { class: "key" }),
      site: el("span", { class: "dim" }),
      at: el("span", { class: "dim" }),
    };
    const side = (k) => el("div", {}, el("h2", {}, ["a", "b"][k], app.link(`#/text/${places[k].run}/${places[k].id}`, el("bdi", {}, titleOf(texts[k]))),
      el("span", { class: "dim" }, `${texts[k].run.model} \u00b7 ${app.runName(Number(places[k].run))}${texts[k].sample ? ` \u00b7 sample ${texts[k].sample}` : ""}`)),
      el("div", { class: "card" }, words[k]));
    const caption = (...children) => el("div", { class: "caption controls" }, children);
    parts.root = el("div", { class: "pair-page" }, el("style", {}, TOKENS, STYLE),
      el("div", { class: "controls" }, parts.traits, el("label", {}, "site ", parts.siteSelect), parts.values, parts.template,
        button("swap", "a for b (s)", () => this.swap()), app.link(`#/compare?a=${this.names[0]}`, "beside another \u2026"),
        el("span", { class: "group", "data-no-picture": "", style: "margin-left:auto" }, button("PNG", "save the picture (g)", () => this.savePng()), button("CSV", "save the numbers (x)", () => this.saveCsv()))),
      el("div", { class: "pair-grid" },
        el("div", {}, el("div", { class: "pair-words" }, side(0), side(1)), parts.notes), parts.token,
        caption(parts.legend, parts.unit), caption(el("b", {}, "over sites"), parts.at),
        el("div", { class: "stack" }, parts.heat, parts.cross), parts.sites,
        el("div", {}, caption(el("b", {}, "over tokens"), parts.site, parts.key), parts.tokens), parts.readings));
    return parts;
  }

  listen() {
    const { cross, tokens, sites, words } = this.parts;
    this.follows(cross, (x, y) => {
      const at = heatAt(cross, this.view, x, y);
      return at && { at: this.columns[at.column], site: at.site };
    });
    this.follows(tokens, (x) => {
      const found = heatAt(tokens, { ...this.view, text: { S: 1 } }, x, 20);
      return found && { at: this.columns[found.column] };
    });
    this.follows(sites, (x, y) => {
      const at = placesOf(this.view, sites.clientWidth, sites.clientHeight);
      const site = this.both.S - 1 - Math.floor((y - FRAME.top) / at.row);
      return site >= 0 && site < this.both.S ? { site } : null;
    });
    words.forEach((element, k) => this.follows(element, (x, y, target) => {
      const span = target.closest?.(".tok");
      return span ? { at: this.columnOf[k].get(Number(span.dataset.t)) } : null;
    }));
  }

  follows(element, find) {
    const found = (event) => {
      const box = element.getBoundingClientRect();
      return find(event.clientX - box.left, event.clientY - box.top, event.target);
    };
    const hover = (at) => {
      this.hover = at;
      cancelAnimationFrame(this.frame);
      this.frame = requestAnimationFrame(() => this.drawHere());
    };
    element.addEventListener("pointermove", (event) => hover(found(event)));
    element.addEventListener("pointerleave", () => hover(null));
    element.addEventListener("click", (event) => {
      const at = found(event);
      if (at) this.push(at);
    });
  }

  // --- saving -----------------------------------------------------------------------------------

  fileName = () => `compare.${this.texts[0].generation}.${this.texts[1].generation}.${this.state.trait}.${this.state.as}`;
  savePng = () => savePicture(this.parts.root, this.fileName()).catch((error) => this.app.status(error.message));

  // A row for each column of the map: both tokens, and at each pair of sites a, b and b - a.
  saveCsv() {
    const { pair, both, texts } = this;
    const { a, b, difference } = this.measures();
    const head = both.names.flatMap((site) => ["a", "b", "b-a"].map((side) => `${side}@${site}`));
    const rows = [["position_a", "text_a", "position_b", "text_b", "part", ...head]];
    for (const c of this.columns) {
      const [i, j] = pair.columns[c];
      const values = both.sites.flatMap((site, s) => [a, b, difference].map((each) => each.value[c * both.S + s]));
      rows.push([i, i === null ? "" : texts[0].tokens.text[i], j, j === null ? "" : texts[1].tokens.text[j], both.tokens.part[c], ...values]);
    }
    saveRows(rows, this.fileName());
  }
}
