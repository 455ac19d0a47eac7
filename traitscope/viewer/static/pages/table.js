// The table of a run's captures.  The server filters, sorts and cuts; here is a window on it: as many
// rows as are in sight stand in the document, the pages around them are kept, nothing else is asked
// for.  What is picked, sorted and pointed at is in the address.

import { PALETTES, colourOf, formatted } from "../draw/scale.js";
import { el, fill, signed } from "../dom.js";

const PAGE = 100; // rows asked for at once
const ROW = 42; // px, as in style.css
const SPARE = 12; // rows drawn beyond what is in sight
const LIMIT = { z: 4, raw: 0 }; // where the colours end
const STATISTICS = {
  before: "at prompt[-1]: before a word is written",
  mean: "mean over the answer",
  max: "largest over the answer",
  last: "last token of the answer",
  embed: "mean at embed: what the words alone say",
};
const SHOWN = "mean,max,last";
const SIGNS = { done: "✓", failed: "✗", missing: "…" };

export async function openTable(main, route, app, run) {
  const table = new Table(main, app, run);
  await table.update(route);
  return table;
}

class Table {
  constructor(main, app, run) {
    this.app = app;
    this.run = run;
    this.path = `api/runs/${run.run}/captures`;
    this.pages = new Map();
    this.asked = null; // the query whose pages are kept
    this.matched = 0;
    this.cursor = 0;
    this.drawn = "";
    this.body = el("tbody");
    this.table = el("table", { class: "captures", "aria-label": "captures" });
    this.scroll = el("div", { class: "scroll", tabindex: 0, onscroll: () => this.draw() }, this.table);
    this.tools = el("div", { class: "tools", role: "search" });
    main.append(this.tools, this.scroll);
    this.build();
    this.theme = () => this.draw(true);
    addEventListener("theme", this.theme);
    this.resized = new ResizeObserver(() => this.draw());
    this.resized.observe(this.scroll);
    this.body.addEventListener("click", (event) => this.clicked(event));
    this.body.addEventListener("dblclick", (event) => this.clicked(event, true));
  }

  close() {
    this.closed = true;
    clearTimeout(this.timer);
    this.resized.disconnect();
    removeEventListener("theme", this.theme);
  }

  // --- the address ---------------------------------------------------------------------------------

  // What is asked of the server; the rest of the address is how it is shown.
  query() {
    const query = new URLSearchParams();
    for (const name of ["sort", "q", "set", "kind", "status", "tag", "as"]) {
      if (this.state.get(name)) query.set(name, this.state.get(name));
    }
    for (const where of this.state.getAll("where")) query.append("where", where);
    return query;
  }

  async update(route) {
    this.state = new URLSearchParams(route.query);
    this.cursor = Math.max(Number.parseInt(this.state.get("row") ?? "0", 10) || 0, 0);
    const asked = this.query().toString();
    this.readTools();
    if (asked !== this.asked) {
      this.forget(asked);
      const first = Math.floor(this.cursor / PAGE);
      await this.fetch(first);
    }
    this.header();
    this.intoSight();
    this.draw(true);
    return true;
  }

  // A changed state in the address; `null` takes a name out of it.
  set(changes, { replace = false } = {}) {
    const state = new URLSearchParams(this.state);
    for (const [name, value] of Object.entries(changes)) {
      state.delete(name);
      for (const one of [value].flat()) if (one !== null && one !== "") state.append(name, one);
    }
    const query = state.toString();
    this.app.go(`#/run/${this.run.run}${query ? `?${query}` : ""}`, { replace });
    if (replace) this.state = state;
  }

  // --- data ----------------------------------------------------------------------------------------

  forget(asked) {
    this.asked = asked;
    this.pages = new Map();
    this.waiting = new Set();
    this.problem = null;
  }

  // The run grew: what is in sight is asked for again, without a flicker.
  changed(run) {
    this.run = run;
    this.forget(this.asked);
    this.draw(true);
  }

  async fetch(page) {
    // what was refused is not asked for again until something changes
    if (this.pages.has(page) || this.waiting.has(page) || this.problem) return;
    const { asked, waiting, pages } = this;
    waiting.add(page);
    const query = this.query();
    query.set("offset", page * PAGE);
    query.set("limit", PAGE);
    try {
      const found = await this.app.api(`${this.path}?${query}`);
      if (this.closed || asked !== this.asked || pages !== this.pages) return;
      this.matched = found.matched;
      this.total = found.total;
      pages.set(page, found.rows);
      for (const old of [...pages.keys()].slice(0, -20)) pages.delete(old);
    } catch (error) {
      if (asked !== this.asked) return;
      this.matched = 0;
      this.problem = error.message;
    } finally {
      waiting.delete(page);
    }
    this.cursor = Math.min(this.cursor, Math.max(this.matched - 1, 0));
    this.count();
    this.draw(true);
  }

  rowAt(place) {
    return this.pages.get(Math.floor(place / PAGE))?.[place % PAGE];
  }

  // --- tools ---------------------------------------------------------------------------------------

  build() {
    const { run } = this;
    const select = (name, any, options) =>
      options.length > 1
        ? el(
            "select",
            { name, "aria-label": name, onchange: (event) => this.set({ [name]: event.target.value, row: null }) },
            el("option", { value: "" }, any),
            options.map(([value, text]) => el("option", { value }, text ?? value)),
          )
        : null;
    const counted = (counts) => Object.entries(counts).map(([name, n]) => [name, `${name} (${n})`]);
    this.search = el("input", {
      type: "search",
      placeholder: "search prompts and answers",
      "aria-label": "search",
      oninput: (event) => {
        clearTimeout(this.timer);
        const value = event.target.value;
        this.timer = setTimeout(() => this.set({ q: value, row: null }), 200);
      },
    });
    const statuses = ["done", "failed", "missing"].filter((status) => status === "done" || run.counts[status]);
    this.selects = [
      select("set", "all sets", counted(run.sets)),
      select("kind", "all kinds", counted(run.kinds)),
      select("status", "any status", statuses.map((status) => [status])),
      select("tag", "any tag", counted(run.tags)),
    ].filter(Boolean);
    this.threshold = this.thresholdForm();
    this.columns = el("span", { class: "columns", role: "group", "aria-label": "columns" });
    this.said = el("span", { class: "said dim" });
    const csv = el("button", { type: "button", title: "all that is picked, as CSV", onclick: () => this.csv() }, "CSV");
    fill(this.tools, el("h2", {}, "Prompts"), this.search, this.selects, this.threshold, this.columns, this.said, csv);
  }

  thresholdForm() {
    const statistic = el("select", { "aria-label": "statistic" }, Object.keys(STATISTICS).map((name) => el("option", {}, name)));
    statistic.value = "mean";
    const trait = el("select", { "aria-label": "trait" }, this.run.traits.map(({ trait: name }) => el("option", {}, name)));
    const side = el("select", { "aria-label": "at least or at most" }, el("option", { value: ">=" }, "≥"), el("option", { value: "<=" }, "≤"));
    const value = el("input", { type: "number", step: "any", "aria-label": "threshold", placeholder: "z" });
    const add = (event) => {
      event.preventDefault();
      if (value.value === "") return;
      const where = `${trait.value}.${statistic.value}${side.value}${Number(value.value)}`;
      value.value = "";
      this.set({ where: [...new Set([...this.state.getAll("where"), where])], row: null });
    };
    this.wheres = el("span", { class: "wheres" });
    return el(
      "span",
      {},
      el("details", { class: "threshold" }, el("summary", {}, "threshold"), el("form", { onsubmit: add }, trait, statistic, side, value, el("button", {}, "add"))),
      this.wheres,
    );
  }

  readTools() {
    const { state } = this;
    if (document.activeElement !== this.search) this.search.value = state.get("q") ?? "";
    for (const select of this.selects) select.value = state.get(select.name) ?? "";
    const wheres = state.getAll("where");
    fill(
      this.wheres,
      wheres.map((where) =>
        el(
          "button",
          { type: "button", class: "chip", title: "take it away", onclick: () => this.set({ where: wheres.filter((other) => other !== where), row: null }) },
          where.replace(">=", " ≥ ").replace("<=", " ≤ "),
          " ×",
        ),
      ),
    );
    const shown = this.statistics();
    const turn = (name) => {
      const next = Object.keys(STATISTICS).filter((other) => (other === name) !== shown.includes(other));
      if (next.length) this.set({ show: next.join(",") === SHOWN ? null : next.join(",") });
    };
    const how = state.get("as") === "raw" ? "raw" : "z";
    fill(
      this.columns,
      Object.entries(STATISTICS).map(([name, what]) =>
        el("button", { type: "button", title: what, "aria-pressed": String(shown.includes(name)), onclick: () => turn(name) }, name),
      ),
      el("button", { type: "button", title: "z, or the score as it is", "aria-pressed": "false", onclick: () => this.set({ as: how === "z" ? "raw" : null }) }, how),
    );
  }

  statistics() {
    const names = (this.state.get("show") ?? SHOWN).split(",").filter((name) => Object.hasOwn(STATISTICS, name));
    return names.length ? names : SHOWN.split(",");
  }

  count() {
    const { matched, total } = this;
    fill(this.said, this.problem ? "" : matched === total ? `${total} captures` : `${matched} of ${total} captures`);
  }

  csv() {
    const link = el("a", { href: `${this.path}.csv?${this.query()}`, download: "" });
    document.body.append(link);
    link.click();
    link.remove();
  }

  // --- drawing -------------------------------------------------------------------------------------

  header() {
    const shown = this.statistics();
    const { traits } = this.run;
    const sort = this.state.get("sort") ?? "";
    const sorted = (name) => (sort === name ? "ascending" : sort === `-${name}` ? "descending" : null);
    const button = (name, text, title, first) => {
      const is = sorted(name);
      const next = is === null ? first + name : is === (first ? "descending" : "ascending") ? (first ? name : `-${name}`) : null;
      const arrow = is === "ascending" ? "↑" : is === "descending" ? "↓" : "";
      return el("button", { type: "button", class: "sort", title, onclick: () => this.set({ sort: next, row: null }) }, text, arrow);
    };
    const th = (name, text, properties, first = "") =>
      el("th", { scope: "col", "aria-sort": sorted(name), ...properties }, button(name, text, properties.title, first));
    const about = [
      th("status", "", { class: "sign", title: "status", rowspan: 2 }),
      th("prompt", "prompt", { class: "prompt", rowspan: 2 }),
      th("response", "response", { class: "response", rowspan: 2 }),
      th("set", "set", { class: "set", rowspan: 2 }),
    ];
    const groups = traits.map(({ trait, site, positive }) =>
      el("th", { scope: "colgroup", colspan: shown.length, class: "group", title: `${trait}, read at ${site}\n${positive}` }, trait.replaceAll("_", " "), el("span", { class: "dim" }, ` ${site}`)),
    );
    const numbers = traits.flatMap(({ trait }) =>
      shown.map((name, i) => th(`${trait}.${name}`, name, { class: i ? "num" : "num first", title: `${trait}: ${STATISTICS[name]}` }, "-")),
    );
    const columns = [
      el("col", { class: "sign" }),
      el("col", { class: "prompt" }),
      el("col", { class: "response" }),
      el("col", { class: "set" }),
      numbers.map(() => el("col", { class: "number" })),
    ];
    fill(this.table, el("colgroup", {}, columns), el("thead", {}, el("tr", {}, about, groups), el("tr", {}, numbers)), this.body);
    this.table.style.minWidth = `${520 + 50 * numbers.length}px`;
    this.width = 4 + numbers.length;
  }

  // Rows in sight and a few more; the others are two empty rows as high as they would be.
  draw(anew = false) {
    if (this.closed || !this.width) return;
    const { scrollTop, clientHeight } = this.scroll;
    const first = Math.max(Math.floor(scrollTop / ROW) - SPARE, 0);
    const last = Math.min(Math.ceil((scrollTop + clientHeight) / ROW) + SPARE, this.matched);
    const drawn = `${first} ${last}`;
    if (drawn === this.drawn && !anew) return;
    this.drawn = drawn;
    for (let page = Math.floor(first / PAGE); page * PAGE < Math.max(last, 1); page += 1) this.fetch(page);
    const space = (rows) => (rows > 0 ? el("tr", { class: "space", "aria-hidden": "true" }, el("td", { colspan: this.width, style: `height:${rows * ROW}px` })) : null);
    const rows = [];
    for (let place = first; place < last; place += 1) rows.push(this.row(place));
    const nothing = this.problem ?? (this.matched || this.waiting.size ? null : "No capture is like that.");
    fill(
      this.body,
      nothing ? el("tr", { class: "nothing" }, el("td", { colspan: this.width, role: "alert" }, nothing)) : [space(first), rows, space(this.matched - last)],
    );
    this.table.setAttribute("aria-rowcount", this.matched);
  }

  row(place) {
    const row = this.rowAt(place);
    const properties = { "data-row": place, "aria-rowindex": place + 1, "aria-selected": String(place === this.cursor), class: row ? null : "waiting" };
    if (!row) return el("tr", properties, el("td", { colspan: this.width }, "…"));
    return el("tr", properties, this.about(row), this.numbers(row));
  }

  about(row) {
    const text = row.prompt || (row.status === "missing" ? "not made yet" : row.generation);
    const name = row.readable ? this.app.link(this.address(row), text) : el("span", {}, text);
    const beside = [row.label, row.sample ? `sample ${row.sample + 1}` : null, ...Object.entries(row.tags).map(([key, value]) => `${key}=${value}`)].filter(Boolean);
    const said = row.error || row.response || (row.readable ? "(no words)" : "");
    return [
      el("td", { class: `sign ${row.status}`, title: row.in_suite ? row.status : `${row.status}, not in the suite any more` }, SIGNS[row.status]),
      el("td", { class: "prompt", title: row.prompt }, el("bdi", {}, name), beside.length ? el("bdi", { class: "tags" }, beside.join(" · ")) : null),
      el("td", { class: row.error ? "response bad" : "response", title: said }, el("bdi", {}, said)),
      el("td", { class: "set", title: `${row.set}, ${row.kind}` }, el("bdi", {}, row.set), row.kind === "internals" ? el("span", { class: "tags" }, "internals") : null),
    ];
  }

  numbers(row) {
    const how = this.state.get("as") === "raw" ? "raw" : "z";
    const palette = PALETTES[document.documentElement.dataset.theme === "dark" ? "dark" : "light"];
    const shown = this.statistics();
    return this.run.traits.flatMap((_, k) =>
      shown.map((name, i) => {
        const value = row.scores[name][k];
        const colour = how === "z" && value !== null ? colourOf(value, value, LIMIT.z, "z") : -1;
        const painted = colour < 0 || Math.abs(value) < 1 ? null : `background:${palette.css[colour]};color:${palette.ink[colour]}`;
        return el("td", { class: i ? "num" : "num first", style: painted }, how === "z" || value === null ? signed(value) : formatted(value, how));
      }),
    );
  }

  address(row) {
    const trait = /^-?([a-z0-9_]+)\./.exec(this.state.get("sort") ?? "")?.[1];
    return `#/text/${this.run.run}/${row.generation}${trait ? `?trait=${trait}` : ""}`;
  }

  // --- the cursor ----------------------------------------------------------------------------------

  clicked(event, opens = false) {
    const place = event.target.closest("tr[data-row]")?.dataset.row;
    if (place === undefined) return;
    this.point(Number(place));
    if (opens) this.enter();
  }

  point(place) {
    this.cursor = Math.min(Math.max(place, 0), Math.max(this.matched - 1, 0));
    this.set({ row: this.cursor || null }, { replace: true });
    this.intoSight();
    this.draw(true);
  }

  intoSight() {
    const head = this.table.tHead?.offsetHeight ?? 0;
    const top = this.cursor * ROW;
    const seen = this.scroll.clientHeight - head;
    if (seen <= 0) return;
    // the rows before must be there to be scrolled past
    if (this.body.offsetHeight < this.matched * ROW) this.draw(true);
    if (top < this.scroll.scrollTop) this.scroll.scrollTop = top;
    else if (top + ROW > this.scroll.scrollTop + seen) this.scroll.scrollTop = top + ROW - seen;
  }

  enter() {
    const row = this.rowAt(this.cursor);
    if (row?.readable) this.app.go(this.address(row));
  }

  get keys() {
    const seen = Math.max(Math.floor(this.scroll.clientHeight / ROW) - 2, 1);
    const move = (step) => () => this.point(this.cursor + step);
    return [
      { key: "j", what: "next row (also ↓)", run: move(1) },
      { key: "ArrowDown", run: move(1) },
      { key: "k", what: "row before (also ↑)", run: move(-1) },
      { key: "ArrowUp", run: move(-1) },
      { key: "PageDown", what: "a screen on", run: move(seen) },
      { key: "PageUp", what: "a screen back", run: move(-seen) },
      { key: "Home", what: "first row", run: () => this.point(0) },
      { key: "End", what: "last row", run: () => this.point(this.matched - 1) },
      { key: "Enter", what: "open the text of the row", run: () => this.enter() },
      { key: "/", what: "search", run: () => this.search.focus() },
      { key: "s", what: "sort by the next trait's mean, highest first", run: () => this.nextSort() },
      { key: "x", what: "take filters and order away", run: () => this.set({ q: null, set: null, kind: null, status: null, tag: null, where: null, sort: null, row: null }) },
      { key: "e", what: "save what is picked as CSV", run: () => this.csv() },
    ];
  }

  nextSort() {
    const names = this.run.traits.map(({ trait }) => `-${trait}.mean`);
    this.set({ sort: names[names.indexOf(this.state.get("sort")) + 1] ?? null, row: null });
  }
}
