// Two runs over the prompts that both have: how far each trait moved (b - a, in z), a dot for each
// response, and the texts that moved most.  The unit is a response; intervals draw whole prompts.

import { el, fill, plural, signed } from "../dom.js";
import { drawPoints, pointNear } from "../draw/points.js";
import { themeOf } from "../draw/scale.js";
import { savePicture, saveRows } from "../picture.js";

const SHOWN = 60; // rows
const WINDOWS = { answer: "over the answer", before: "before a word is written" };

export const STYLE = `
.runs-grid { display: grid; grid-template-columns: minmax(0, 1fr) minmax(340px, 440px); gap: 12px 24px; align-items: start; }
.runs-grid canvas { width: 100%; aspect-ratio: 1; display: block; cursor: pointer; }
.runs-grid table { width: 100%; font-size: 13px; font-variant-numeric: tabular-nums; }
.runs-grid th { font-weight: 500; color: var(--dim); text-align: right; padding: 2px 10px 2px 0; white-space: nowrap; }
.runs-grid th:first-child { text-align: left; }
.runs-grid td { padding: 2px 10px 2px 0; vertical-align: baseline; }
.runs-grid tbody tr.pick { cursor: pointer; }
.runs-grid tbody tr.pick:hover { background: var(--panel); }
.runs-grid tr[aria-selected="true"] { background: var(--mark); }
.runs-grid tr[aria-selected="true"] > td { box-shadow: none; }
.runs-grid .small, .runs-page .small { font-size: 12px; margin: 4px 0; }
.runs-grid .bar { width: 90px; }
`;

export async function openRuns(main, route, app) {
  const [a, b] = ["a", "b"].map((side) => route.query.get(side));
  app.trail([[`#/run/${a}`, app.runName(Number(a))], [location.hash, `beside ${app.runName(Number(b))}`]]);
  const page = new RunsPage(main, a, b, app);
  await page.show(route.query);
  return {
    keys: [
      { key: "t", what: "next trait", run: () => page.turn(1) },
      { key: "T", what: "trait before", run: () => page.turn(-1) },
      { key: "w", what: "over the answer, or before a word is written", run: () => page.push({ window: page.state.window === "answer" ? "before" : "answer" }) },
      { key: "ArrowDown", what: "next text of the list", run: () => page.point(page.state.point + 1) },
      { key: "ArrowUp", what: "text before", run: () => page.point(page.state.point - 1) },
      { key: "Enter", what: "the two texts beside one another", run: () => page.openPoint(page.order?.[page.state.point]) },
      { key: "s", what: "swap the two", run: () => page.swap() },
      { key: "g", what: "save as PNG", run: () => page.savePng() },
      { key: "x", what: "save as CSV", run: () => page.saveCsv() },
    ],
    update: (next) => {
      page.show(next.query).catch((error) => app.status(error.message));
      return true;
    },
    close: () => page.close(),
  };
}

class RunsPage {
  constructor(main, a, b, app) {
    Object.assign(this, { a, b, app, kept: new Map(), state: null });
    const button = (words, title, run) => el("button", { type: "button", title, onclick: run }, words);
    this.parts = {
      windows: el("span", { class: "group" }),
      table: el("div", { class: "card" }),
      list: el("div", { class: "card" }),
      notes: el("ul", { class: "small dim" }),
      said: el("p", { class: "small" }),
      canvas: el("canvas", { role: "img", "aria-label": "a dot for each response" }),
      under: el("p", { class: "small", "aria-live": "polite" }),
    };
    const { parts } = this;
    parts.root = el("div", { class: "runs-page" }, el("style", {}, STYLE),
      el("div", { class: "text-title" }, el("h1", {}, el("bdi", {}, app.runName(Number(a))), " (a) beside ", el("bdi", {}, app.runName(Number(b))), " (b)"),
        el("span", { class: "controls", "data-no-picture": "", style: "margin-left:auto" }, button("swap", "a for b (s)", () => this.swap()), " ",
          el("span", { class: "group" }, button("PNG", "save the picture (g)", () => this.savePng()), button("CSV", "save the numbers (x)", () => this.saveCsv())))),
      el("div", { class: "controls" }, "read ", parts.windows),
      el("div", { class: "runs-grid" }, el("div", {}, parts.table, parts.said, parts.notes, parts.list), el("div", {}, parts.canvas, parts.under)));
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
      this.app.status("reading both runs \u2026");
      this.kept.set(window, await this.app.api(`api/compare/runs?a=${this.a}&b=${this.b}&window=${window}`));
      this.app.status("");
    }
    if (mine !== this.asked) return;
    this.said = this.kept.get(window);
    const trait = Math.max(this.said.traits.indexOf(query.get("trait")), 0);
    const point = /^\d{1,6}$/.test(query.get("point") ?? "") ? Number(query.get("point")) : 0;
    this.state = Object.freeze({ window, trait, point });
    this.draw();
  }

  hash(state = this.state, [a, b] = [this.a, this.b]) {
    const query = new URLSearchParams({ a, b, trait: this.said.traits[state.trait] ?? "", window: state.window });
    if (state.point) query.set("point", state.point);
    return `#/compare?${query}`;
  }

  push = (change) => this.app.go(this.hash({ ...this.state, ...change }));
  turn = (step) => this.push({ trait: (this.state.trait + step + this.said.traits.length) % this.said.traits.length, point: 0 });
  swap = () => this.app.go(this.hash(this.state, [this.b, this.a]));

  point(place) {
    const last = Math.min(this.order.length, SHOWN) - 1;
    const state = { ...this.state, point: Math.min(Math.max(place, 0), Math.max(last, 0)) };
    this.state = Object.freeze(state);
    this.app.go(this.hash(), { replace: true });
    this.draw();
  }

  openPoint(i) {
    const pair = this.said.pairs[i];
    if (pair) this.app.go(`#/compare?a=${this.a}/${pair.a}&b=${this.b}/${pair.b}&trait=${this.said.traits[this.state.trait]}`);
  }

  draw() {
    if (!this.state) return;
    const { parts, said, state } = this;
    const trait = said.traits[state.trait];
    fill(parts.windows, Object.entries(WINDOWS).map(([name, words]) =>
      el("button", { type: "button", "aria-pressed": String(name === state.window), onclick: () => this.push({ window: name }) }, words)));
    this.drawShifts();
    const value = (side) => said.pairs.map((pair) => pair[side][state.trait] ?? NaN);
    const [za, zb] = [value("za"), value("zb")];
    const far = za.map((z, i) => Math.abs(zb[i] - z));
    this.order = far.map((_, i) => i).filter((i) => Number.isFinite(far[i])).sort((i, j) => far[j] - far[i]);
    this.points = za.map((x, i) => ({ x, y: zb[i] }));
    this.chosen = this.order[state.point] ?? -1;
    this.view = { points: this.points, xName: `${trait ?? ""} in a, z`, yName: `${trait ?? ""} in b, z`, diagonal: true, theme: themeOf(parts.root) };
    drawPoints(parts.canvas, this.view, this.hovered ?? this.chosen);
    this.drawUnder();
    this.drawList(za, zb);
  }

  drawShifts() {
    const { parts, said, state } = this;
    const most = Math.max(...said.mean.map((value) => Math.abs(value ?? 0)), 1e-9);
    const range = (k) => (said.low[k] === null ? "" : `${signed(said.low[k])} to ${signed(said.high[k])}`);
    const bar = (value) => {
      const share = Math.min(Math.abs(value ?? 0) / most, 1) * 50;
      return el("td", { class: "bar" }, el("i", { class: value < 0 ? "bar-less" : "bar-more", style: value < 0 ? `right:50%;width:${share}%` : `left:50%;width:${share}%` }));
    };
    fill(parts.table, el("table", {}, el("thead", {}, el("tr", {}, ["trait", "mean of b \u2212 a, z", "", "95% interval", "r of a with b"].map((words) => el("th", {}, words)))),
      el("tbody", {}, said.traits.map((trait, k) => el("tr", { class: "pick", "aria-selected": String(k === state.trait), onclick: () => this.push({ trait: k, point: 0 }) },
        el("td", {}, trait), el("td", { class: "num" }, signed(said.mean[k])), bar(said.mean[k]), el("td", { class: "num dim" }, range(k)), el("td", { class: "num" }, signed(said.together[k])))))));
    const n = `${plural(said.n, "response")} of ${plural(said.prompts, "prompt")}`;
    parts.said.textContent = said.low.some((value) => value !== null)
      ? `The unit is a response, never a token: ${n}. Intervals: prompts drawn with replacement, ${said.draws} times, all their responses with them; not corrected for looking at ${plural(said.traits.length, "trait")}.`
      : `The unit is a response, never a token: ${n}. Fewer than five prompts: no interval.`;
    const alone = said.alone.map((count, k) => (count > 0 ? `${plural(count, "text")} of ${"ab"[k]} without a partner.` : "")).filter(Boolean);
    fill(parts.notes, [...said.notes, ...alone].map((note) => el("li", {}, note)));
  }

  drawList(za, zb) {
    const { parts, said, state } = this;
    const shown = this.order.slice(0, SHOWN);
    fill(parts.list, el("table", {}, el("thead", {}, el("tr", {}, [`moved most (${shown.length} of ${this.order.length})`, "a", "b", "b \u2212 a"].map((words) => el("th", {}, words)))),
      el("tbody", {}, shown.map((i, place) => el("tr", { class: "pick", "aria-selected": String(place === state.point), onclick: () => this.openPoint(i) },
        el("td", {}, this.app.link(`#/compare?a=${this.a}/${said.pairs[i].a}&b=${this.b}/${said.pairs[i].b}&trait=${said.traits[state.trait]}`, el("bdi", {}, said.pairs[i].title))),
        [za[i], zb[i], zb[i] - za[i]].map((value) => el("td", { class: "num" }, signed(value))))))));
  }

  drawUnder() {
    const { parts, said, points } = this;
    const i = this.hovered ?? this.chosen;
    if (i < 0) return fill(parts.under, "");
    fill(parts.under, el("bdi", {}, said.pairs[i].title), `: a ${signed(points[i].x)}, b ${signed(points[i].y)}. On the dashed line both are equal; grey: within one neutral spread.`);
  }

  listen() {
    const { canvas } = this.parts;
    const near = (event) => {
      const box = canvas.getBoundingClientRect();
      return this.view ? pointNear(canvas, this.view, event.clientX - box.left, event.clientY - box.top) : -1;
    };
    const hover = (i) => {
      this.hovered = i < 0 ? null : i;
      drawPoints(canvas, this.view, this.hovered ?? this.chosen);
      this.drawUnder();
    };
    canvas.addEventListener("pointermove", (event) => hover(near(event)));
    canvas.addEventListener("pointerleave", () => this.view && hover(-1));
    canvas.addEventListener("click", (event) => this.openPoint(near(event)));
  }

  fileName = () => `compare.${this.app.runName(Number(this.a))}.${this.app.runName(Number(this.b))}.${this.state.window}`;
  savePng = () => savePicture(this.parts.root, this.fileName()).catch((error) => this.app.status(error.message));

  saveCsv() {
    const { said } = this;
    const head = said.traits.flatMap((trait) => [`a.${trait}`, `b.${trait}`, `b-a.${trait}`]);
    const rows = said.pairs.map((pair) => [pair.a, pair.b, pair.title, ...said.traits.flatMap((_, k) => [pair.za[k], pair.zb[k], pair.za[k] === null || pair.zb[k] === null ? null : pair.zb[k] - pair.za[k]])]);
    saveRows([["generation_a", "generation_b", "prompt", ...head], ...rows], this.fileName());
  }
}
