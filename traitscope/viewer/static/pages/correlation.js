// How the traits go together over a run: a matrix of correlations over responses, and a dot for each
// response of the chosen two.  Beside it the cosine of the directions: traits whose directions point
// the same way go together whatever the texts say.

import { el, fill, plural, signed } from "../dom.js";
import { drawPoints, pointNear } from "../draw/points.js";
import { colourOf, themeOf } from "../draw/scale.js";
import { savePicture, saveRows } from "../picture.js";
import { STYLE as RUNS } from "./compare_runs.js";

const WINDOWS = { answer: "over the answer", before: "before a word is written" };
const KINDS = { pearson: "Pearson", spearman: "Spearman (ranks)", cosine: "cosine of the directions" };
const STYLE = `
.matrix-table { border-collapse: separate; border-spacing: 2px; }
.matrix-table th { text-align: left; white-space: nowrap; }
.matrix-table thead th { text-align: center !important; white-space: normal; overflow-wrap: anywhere; padding: 0 4px; }
.matrix-table td:not([style]) { cursor: default; }
.matrix-table td { text-align: center; padding: 6px 4px; min-width: 76px; cursor: pointer; border-radius: 3px; }
.matrix-table td small { display: block; font-size: 11px; opacity: 0.85; white-space: nowrap; }
.matrix-table td[aria-selected="true"] { outline: 2px solid var(--ink); outline-offset: -1px; }
`;

export async function open(main, route, app) {
  const run = route.path[1] ?? "0";
  app.trail([[`#/run/${run}`, app.runName(Number(run))], [location.hash, "correlations"]]);
  const page = new CorrelationPage(main, run, app);
  await page.show(route.query);
  return {
    keys: [
      { key: "ArrowLeft", what: "another trait across", run: () => page.move("x", -1) },
      { key: "ArrowRight", what: "another trait across", run: () => page.move("x", 1) },
      { key: "ArrowUp", what: "another trait down", run: () => page.move("y", -1) },
      { key: "ArrowDown", what: "another trait down", run: () => page.move("y", 1) },
      { key: "r", what: "Pearson, ranks, the directions", run: () => page.turn("of", Object.keys(KINDS)) },
      { key: "w", what: "over the answer, or before a word is written", run: () => page.turn("window", Object.keys(WINDOWS)) },
      { key: "g", what: "save as PNG", run: () => page.savePng() },
      { key: "x", what: "save as CSV", run: () => page.saveCsv() },
    ],
    update: (next) => {
      if ((next.path[1] ?? "0") !== run) return false;
      page.show(next.query).catch((error) => app.status(error.message));
      return true;
    },
    close: () => page.close(),
  };
}

class CorrelationPage {
  constructor(main, run, app) {
    Object.assign(this, { run, app, kept: new Map(), state: null });
    const button = (words, title, act) => el("button", { type: "button", title, onclick: act }, words);
    this.parts = {
      kinds: el("span", { class: "group" }),
      windows: el("span", { class: "group" }),
      matrix: el("div"),
      said: el("div", { class: "small dim" }),
      canvas: el("canvas", { role: "img", "aria-label": "a dot for each response" }),
      under: el("p", { class: "small", "aria-live": "polite" }),
    };
    const { parts } = this;
    parts.root = el("div", { class: "runs-page" }, el("style", {}, RUNS, STYLE),
      el("div", { class: "text-title" }, el("h1", {}, "How the traits go together over the run"),
        el("span", { class: "controls", "data-no-picture": "", style: "margin-left:auto" }, el("span", { class: "group" }, button("PNG", "save the picture (g)", () => this.savePng()), button("CSV", "save the numbers (x)", () => this.saveCsv())))),
      el("div", { class: "controls" }, parts.kinds, parts.windows),
      el("div", { class: "runs-grid" }, el("div", {}, parts.matrix, parts.said), el("div", {}, parts.canvas, parts.under)));
    main.append(parts.root);
    this.redraw = () => this.draw();
    addEventListener("theme", this.redraw);
    this.watch = new ResizeObserver(this.redraw);
    this.watch.observe(parts.canvas);
    this.listen();
  }

  close() {
    removeEventListener("theme", this.redraw);
    this.watch.disconnect();
  }

  async show(query) {
    const mine = (this.asked = (this.asked ?? 0) + 1);
    const window = query.get("window") === "before" ? "before" : "answer";
    if (!this.kept.has(window)) {
      this.app.status("reading the run \u2026");
      this.kept.set(window, await this.app.api(`api/runs/${encodeURIComponent(this.run)}/correlation?window=${window}`));
      this.app.status("");
    }
    if (mine !== this.asked) return;
    this.said = this.kept.get(window);
    const { traits } = this.said;
    const place = (name, otherwise) => (traits.includes(query.get(name)) ? traits.indexOf(query.get(name)) : Math.min(otherwise, traits.length - 1));
    this.state = Object.freeze({ window, of: query.get("of") in KINDS ? query.get("of") : "pearson", x: place("x", 0), y: place("y", 1) });
    this.draw();
  }

  hash(state) {
    const { traits } = this.said;
    return `#/correlation/${this.run}?${new URLSearchParams({ of: state.of, window: state.window, x: traits[state.x] ?? "", y: traits[state.y] ?? "" })}`;
  }

  push = (change) => this.app.go(this.hash({ ...this.state, ...change }));
  turn = (name, values) => this.push({ [name]: values[(values.indexOf(this.state[name]) + 1) % values.length] });

  move(name, step) {
    const n = this.said.traits.length;
    if (n) this.push({ [name]: (this.state[name] + step + n) % n });
  }

  draw() {
    if (!this.state) return;
    const { parts, said, state } = this;
    const theme = themeOf(parts.root);
    const choice = (name, words) => ([value, label]) =>
      el("button", { type: "button", title: words, "aria-pressed": String(state[name] === value), onclick: () => this.push({ [name]: value }) }, label);
    fill(parts.kinds, Object.entries(KINDS).map(choice("of", "(r)")));
    fill(parts.windows, Object.entries(WINDOWS).map(choice("window", "(w)")));
    this.drawMatrix(theme);
    this.drawWords();
    const { traits, points } = said;
    if (!traits.length) return;
    this.view = {
      points: points.map((point) => ({ x: point.z[state.x] ?? NaN, y: point.z[state.y] ?? NaN })),
      xName: `${traits[state.x]}, z at ${said.sites[state.x]}`, yName: `${traits[state.y]}, z at ${said.sites[state.y]}`, diagonal: false, theme,
    };
    drawPoints(parts.canvas, this.view, this.hovered ?? -1);
    this.drawUnder();
  }

  drawMatrix(theme) {
    const { parts, said, state } = this;
    const { traits } = said;
    const cell = (y, x) => {
      const value = said[state.of][y][x];
      const ranged = state.of === "pearson" && said.low[y][x] !== null;
      if (x === y) return el("td", { class: "dim" }, "1");
      const colour = colourOf(value ?? NaN, Infinity, 1, "raw");
      const style = colour < 0 ? "" : `background:${theme.palette.css[colour]};color:${theme.palette.ink[colour]}`;
      return el("td", { style, "aria-selected": String(y === state.y && x === state.x), onclick: () => this.push({ x, y }), title: `${traits[y]} with ${traits[x]}` },
        signed(value), ranged ? el("small", {}, `${signed(said.low[y][x])} to ${signed(said.high[y][x])}`) : null);
    };
    fill(parts.matrix, traits.length ? el("table", { class: "matrix-table" },
      el("thead", {}, el("tr", {}, el("th"), traits.map((trait) => el("th", {}, trait.replaceAll("_", "_\u200b"))))),
      el("tbody", {}, traits.map((trait, y) => el("tr", {}, el("th", {}, trait), traits.map((_, x) => cell(y, x)))))) : el("p", {}, "No response of this run has a number yet."));
  }

  drawWords() {
    const { parts, said, state } = this;
    const n = `n = ${plural(said.n, "response")} of ${plural(said.prompts, "prompt")}${said.n < said.of ? ` (${said.of - said.n} without a number are left out)` : ""}`;
    const interval = said.low.flat().some((value) => value !== null)
      ? `95% intervals: prompts are drawn with replacement, ${said.draws} times, all their responses with them. They are not corrected for looking at every pair.`
      : "Fewer than five prompts: no intervals.";
    const lines = {
      pearson: [`The unit is a response, never a token: ${n}. Each is its z ${WINDOWS[state.window]}, at each trait\u2019s own site.`, interval,
        "Over prompts that were chosen to differ, a correlation is of these prompts; the suite\u2019s choice is in it."],
      spearman: [`The unit is a response, never a token: ${n}. Of ranks: it asks only whether one rises with the other.`],
      cosine: ["How alike two directions are, at the site at which both are read; a dot where they are read at different sites. Traits whose directions point the same way go together whatever the texts say."],
    }[state.of];
    fill(parts.said, lines.map((words) => el("p", { class: "small" }, words)), said.left_out.length ? el("p", { class: "small" }, `Without a number: ${said.left_out.join(", ")}.`) : null);
  }

  drawUnder() {
    const { parts, said } = this;
    const point = said.points[this.hovered ?? -1];
    const shown = said.points.length < said.of ? `${said.points.length} of ${said.of} responses` : plural(said.points.length, "response");
    fill(parts.under, point ? [el("bdi", {}, point.title), `: ${signed(point.z[this.state.x])} and ${signed(point.z[this.state.y])}; a click opens it.`] : `${shown}, a dot each; grey: within one neutral spread.`);
  }

  listen() {
    const { canvas } = this.parts;
    const near = (event) => {
      const box = canvas.getBoundingClientRect();
      return this.view ? pointNear(canvas, this.view, event.clientX - box.left, event.clientY - box.top) : -1;
    };
    const hover = (i) => {
      if (!this.view) return;
      this.hovered = i < 0 ? null : i;
      drawPoints(canvas, this.view, i);
      this.drawUnder();
    };
    canvas.addEventListener("pointermove", (event) => hover(near(event)));
    canvas.addEventListener("pointerleave", () => hover(-1));
    canvas.addEventListener("click", (event) => {
      const point = this.said.points[near(event)];
      if (point) this.app.go(`#/text/${this.run}/${point.generation}?trait=${this.said.traits[this.state.x]}`);
    });
  }

  fileName = () => `correlation.${this.app.runName(Number(this.run))}.${this.state.of}.${this.state.window}`;
  savePng = () => savePicture(this.parts.root, this.fileName()).catch((error) => this.app.status(error.message));

  saveCsv() {
    const { said, state } = this;
    const rows = said.traits.flatMap((y, i) => said.traits.map((x, j) => [y, x, said[state.of][i][j], state.of === "pearson" ? said.low[i][j] : null, state.of === "pearson" ? said.high[i][j] : null, said.n, said.prompts]));
    saveRows([["trait", "with", state.of, "low_95", "high_95", "responses", "prompts"], ...rows], this.fileName());
  }
}
