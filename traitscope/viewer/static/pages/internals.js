// The inside of one block for one text (Tier 3): who wrote the trait, for a token or over a span, what
// each head looked at, and another capture's inside beside it.  What is chosen is in the address.
// Numbers are fetched as they are asked for and kept; the drawing is in ../draw/inside.js.

import { el, fill } from "../dom.js";
import { LEAST, LINES, drawLooks, drawMatrix, matrixAt, partsView, readParts, tokenView } from "../draw/inside.js";
import { drawCross, drawHeat, heatAt } from "../draw/heat.js";
import { colourOf, columnsOf, themeOf } from "../draw/scale.js";
import { paintTokens, pointAt, renderTokens, visibleText } from "../draw/tokens.js";
import { saveRows, savePicture } from "../picture.js";
import { accountTable, headsTable, neuronsTable, shown, skeleton } from "./internals_parts.js";
import { OVERS, SPAN, queryOf, stateOf } from "./internals_state.js";
import { titleOf } from "./text_parts.js";

const TOP = 14; // neurons
const QUIET = 120; // ms without a key before numbers are asked for
const PAINTS = ["attention", "mlp", "head", "looks", "neuron"];

export async function open(main, route, app) {
  const [, run, id, block] = route.path;
  const place = `api/runs/${encodeURIComponent(run)}`;
  const here = `${place}/internals/${encodeURIComponent(id)}/${encodeURIComponent(block)}`;
  app.status("reading the block \u2026");
  const [text, side, list] = await Promise.all([app.api(`${place}/texts/${encodeURIComponent(id)}`), app.api(here), app.api("api/internals")]);
  app.status("");
  text.T = text.tokens.id.length;
  app.trail([[`#/run/${run}`, app.runName(Number(run))], [`#/text/${run}/${id}`, titleOf(text)], [location.hash, `block ${block}`]]);
  const page = new InsidePage(main, { run, text, side, here, others: list.captures }, app);
  page.show(stateOf(route.query, side, text));
  return {
    keys: keysOf(page),
    update: (next) => next.path.slice(1).join("/") === [run, id, block].join("/") && page.show(stateOf(next.query, side, text)),
    close: () => page.close(),
  };
}

function keysOf(page) {
  return [
    { key: "ArrowLeft", what: "token before (with Shift: ten)", run: (event) => page.step(event.shiftKey ? -10 : -1) },
    { key: "ArrowRight", what: "next token (with Shift: ten)", run: (event) => page.step(event.shiftKey ? 10 : 1) },
    { key: "ArrowUp", what: "head before", run: () => page.turnHead(-1) },
    { key: "ArrowDown", what: "next head", run: () => page.turnHead(1) },
    { key: "n", what: "next of the top neurons", run: () => page.turnNeuron(1) },
    { key: "p", what: "top neuron before", run: () => page.turnNeuron(-1) },
    { key: "t", what: "next trait", run: () => page.turnTrait(1) },
    { key: "T", what: "trait before", run: () => page.turnTrait(-1) },
    { key: "o", what: "of this token, the answer, the prompt", run: () => page.turn("over", OVERS) },
    { key: "[", what: "block before", run: () => page.turnBlock(-1) },
    { key: "]", what: "next block", run: () => page.turnBlock(1) },
    { key: "b", what: "neurons by contribution or by activation", run: () => page.turn("by", ["contribution", "activation"]) },
    { key: "c", what: "tokens coloured by attention, MLP, head, its looks, neuron", run: () => page.turnPaint() },
    { key: "h", what: "hide or show template tokens", run: () => page.turn("template", [false, true]) },
    { key: "g", what: "save as PNG", run: () => page.savePng() },
    { key: "x", what: "save as CSV", run: () => page.saveCsv() },
  ];
}

class InsidePage {
  constructor(main, { run, text, side, here, others }, app) {
    Object.assign(this, { run, text, side, here, others, app, state: null, kept: new Map(), turnNumber: 0, data: {} });
    this.parts = skeleton(this);
    main.append(this.parts.root);
    this.redraw = () => this.draw();
    addEventListener("theme", this.redraw);
    this.watch = new ResizeObserver(this.redraw);
    this.watch.observe(this.parts.looks);
    this.listOthers();
    this.listen();
  }

  close() {
    this.closed = true;
    removeEventListener("theme", this.redraw);
    this.watch.disconnect();
    clearTimeout(this.quiet);
  }

  // --- state ------------------------------------------------------------------------------------

  show(state) {
    clearTimeout(this.quiet);
    const before = this.state;
    this.state = state;
    if (before?.template !== state.template) {
      this.columns = columnsOf(this.text, state.template);
      this.spans = renderTokens(this.parts.words, this.text, this.columns);
      this.pointed = null;
    }
    this.load();
    return true;
  }

  hash = () => `#/internals/${this.run}/${this.text.generation}/${this.side.block}?${queryOf(this.state, this.side)}`;

  push(change) {
    this.settle();
    this.state = Object.freeze({ ...this.state, ...change });
    this.app.go(this.hash());
    this.show(this.state);
  }

  // A step of the keyboard: address and numbers follow when the keys rest.
  replace(change) {
    this.state = Object.freeze({ ...this.state, ...change });
    clearTimeout(this.quiet);
    this.point(this.state.token);
    this.quiet = setTimeout(() => {
      this.settle();
      this.load();
    }, QUIET);
  }

  settle() {
    clearTimeout(this.quiet);
    this.app.go(this.hash(), { replace: true });
  }

  turn(name, values) {
    const at = values.indexOf(this.state[name]);
    this.push({ [name]: values[(at + 1) % values.length] });
  }

  turnTrait(step) {
    const n = this.side.traits.length;
    this.push({ trait: (this.state.trait + step + n) % n });
  }

  turnHead(step) {
    this.replace({ head: (this.head() + step + this.side.heads) % this.side.heads });
  }

  turnNeuron(step) {
    const top = this.data.neurons?.top ?? [];
    const at = top.findIndex((row) => row.neuron === this.state.neuron);
    if (top.length) this.toNeuron(top[(Math.max(at, step < 0 ? 0 : -1) + step + top.length) % top.length].neuron);
  }

  toNeuron = (neuron) => this.push({ neuron, paint: "neuron" });

  turnPaint() {
    const known = this.state.neuron === null ? PAINTS.slice(0, -1) : PAINTS;
    this.turn("paint", known);
  }

  step(by) {
    const at = Math.max(this.columns.findIndex((t) => t >= this.state.token), 0);
    const next = Math.min(Math.max(at + by, 0), this.columns.length - 1);
    if (this.columns.length) this.replace({ token: this.columns[next] });
  }

  overSpan(words) {
    const span = words.trim();
    if (span === "") this.push({ over: "token" });
    else if (/^\d{1,9}:\d{1,9}$/.test(span)) this.push({ over: span });
    else this.app.status("Expected a span such as 12:20: the first token, and the one after the last.");
  }

  toBlock(block) {
    this.app.go(`#/internals/${this.run}/${this.text.generation}/${block}?${queryOf(this.state, this.side)}`);
  }

  beside = (b) => this.push({ b, bat: "" });

  besideAt(words) {
    const at = words.trim();
    if (at === "" || SPAN.test(at)) this.push({ bat: at });
    else this.app.status("Expected a token of b such as 12, or a span such as 12:20; nothing for its answer.");
  }

  turnBlock(step) {
    const { blocks, block } = this.side;
    if (blocks.length > 1) this.toBlock(blocks[(blocks.indexOf(block) + step + blocks.length) % blocks.length]);
  }

  // The tokens that numbers are means over, as the API has it.
  at = () => (this.state.over === "token" ? String(this.state.token) : this.state.over);
  trait = () => this.side.traits[this.state.trait];

  // The chosen head, else the one that wrote most.
  head() {
    const { heads } = this.data.account ?? { heads: [] };
    const sizes = heads.map(Math.abs);
    return this.state.head ?? Math.max(sizes.indexOf(Math.max(...sizes)), 0);
  }

  // --- numbers ----------------------------------------------------------------------------------

  get(path) {
    if (this.kept.size > 300) this.kept.clear();
    if (!this.kept.has(path)) {
      const asked = this.app.api(path);
      asked.catch(() => this.kept.delete(path));
      this.kept.set(path, asked);
    }
    return this.kept.get(path);
  }

  floats(path) {
    const name = `${path} floats`;
    if (!this.kept.has(name)) {
      const asked = this.app.bytes(path).then((bytes) => new Float32Array(bytes));
      asked.catch(() => this.kept.delete(name));
      this.kept.set(name, asked);
    }
    return this.kept.get(name);
  }

  // All that the state asks for; what fails is said where it would stand.
  async load() {
    const mine = ++this.turnNumber;
    const { text, side, state, here } = this;
    const query = `trait=${encodeURIComponent(this.trait())}&at=${encodeURIComponent(this.at())}`;
    const said = {};
    // what the file has not is known before it is asked for
    const hold = async (name, needs, ask) => {
      try {
        if (side.problems[needs]) throw new Error(side.problems[needs]);
        said[name] = await ask();
      } catch (error) {
        said[name] = error;
      }
    };
    const other = state.b ? `b=${encodeURIComponent(state.b)}&bat=${encodeURIComponent(this.otherAt())}` : "";
    await Promise.all([
      hold("parts", "account", () => this.floats(`${here}/tokens?trait=${encodeURIComponent(this.trait())}`).then((values) => readParts(values, side, text.T))),
      hold("account", "account", () => this.get(`${here}/account?${query}`)),
      hold("neurons", "neurons", () => this.get(state.b ? `api/compare/neurons?a=${this.name()}&${query}&${other}&n=${TOP}` : `${here}/neurons?${query}&by=${state.by}&n=${TOP}`)),
      hold("looks", "attention", () => this.floats(`${here}/attention?at=${encodeURIComponent(this.at())}`)),
      hold("carried", "carried", () => this.floats(`${here}/carried?${query}`)),
      state.b ? hold("other", "account", () => this.get(`api/compare/account?a=${this.name()}&${query}&${other}`)) : null,
      state.neuron === null ? null : hold("neuron", "neurons", () => this.floats(`${here}/neuron/${state.neuron}?trait=${encodeURIComponent(this.trait())}`)),
    ]);
    if (mine !== this.turnNumber || this.closed) return;
    this.data = Object.fromEntries(Object.entries(said).filter(([, value]) => !(value instanceof Error)));
    this.failed = Object.fromEntries(Object.entries(said).filter(([, value]) => value instanceof Error));
    await hold("matrix", "attention", () => this.floats(`${here}/attention/${this.head()}`));
    if (mine !== this.turnNumber || this.closed) return;
    if (!(said.matrix instanceof Error)) this.data.matrix = said.matrix;
    else this.failed.matrix = said.matrix;
    this.draw();
  }

  name = () => `${this.run}/${this.text.generation}/${this.side.block}`;
  // A span of positions or a token says nothing about another text: there it is the answer.
  otherAt = () => this.state.bat || (this.state.over.includes("[") ? this.state.over : "response[:]");

  listOthers() {
    const mine = this.name();
    const options = this.others
      .filter((each) => each.name !== mine)
      .map((each) => el("option", { value: each.name }, `${this.app.runs.length > 1 ? `${this.app.runName(each.run)}: ` : ""}${each.label} \u00b7 block ${each.block}`));
    fill(this.parts.other, el("option", { value: "" }, "nothing"), options);
  }

  // --- what is drawn ----------------------------------------------------------------------------

  draw() {
    if (!this.spans || !this.failed) return;
    const { parts, state } = this;
    this.theme = themeOf(parts.root);
    this.drawControls();
    this.drawWords();
    this.drawLooks();
    this.drawMap();
    this.drawMatrix();
    this.drawTables();
    this.point(state.token);
  }

  drawControls() {
    const { parts, state, side, text } = this;
    const choice = (name, value, words, title) =>
      el("button", { type: "button", title, "aria-pressed": String(state[name] === value), onclick: () => this.push({ [name]: value }) }, words);
    fill(parts.traits, side.traits.map((name, trait) => choice("trait", trait, name, text.traits.find((each) => each.name === name)?.positive)));
    fill(parts.overs, choice("over", "token", `token ${state.token}`, "(o)"), choice("over", "response[:]", "the answer", "mean over its content tokens (o)"),
      choice("over", "prompt[:]", "the prompt", "mean over its content tokens (o)"));
    parts.span.value = /^\d+:\d+$/.test(state.over) ? state.over : "";
    parts.other.value = state.b;
    parts.otherSpan.value = state.bat;
    parts.otherSpan.hidden = !state.b;
    const paints = {
      attention: ["attention wrote", `to ${side.heads_write_to}`], mlp: ["MLP wrote", `to ${side.neurons_write_to}`],
      head: [`head ${this.head()} wrote`, `to ${side.heads_write_to}`], looks: [`head ${this.head()} looked`, `from ${this.overWords()}`],
      neuron: [`neuron ${state.neuron}`, "its contribution"],
    };
    fill(parts.paints, PAINTS.filter((name) => name !== "neuron" || state.neuron !== null).map((name) => choice("paint", name, paints[name][0], `${paints[name][1]} (c)`)));
    parts.grid.classList.toggle("two", Boolean(state.b));
  }

  overWords() {
    const { over, token } = this.state;
    return { token: `token ${token}`, "response[:]": "the answer", "prompt[:]": "the prompt" }[over] ?? `tokens ${over}`;
  }

  otherWords() {
    const at = this.otherAt();
    return { "response[:]": "its answer", "prompt[:]": "its prompt" }[at] ?? `${at.includes(":") ? "tokens" : "token"} ${at}`;
  }

  // What the words are coloured by: [T].
  painted() {
    const { data, state, text } = this;
    const head = this.head();
    if (state.paint === "mlp") return data.parts?.mlp;
    if (state.paint === "head") return data.parts?.rows.find((row) => row.head === head)?.values;
    if (state.paint === "looks") return data.looks?.subarray(head * text.T, (head + 1) * text.T);
    if (state.paint === "neuron") return data.neuron?.filter((_, i) => i % 2 === 1);
    return data.parts?.attention;
  }

  drawWords() {
    const { parts, text, columns, state } = this;
    const values = this.painted();
    if (!values) return fill(parts.wordsNote, "");
    const view = tokenView(text, values, columns, this.theme);
    paintTokens(this.spans, view, 0, colourOf);
    fill(parts.wordsNote, state.paint === "looks" ? "share of its attention" : `along ${this.trait()}, ends at \u00b1${shown(view.limit).slice(1)}`);
  }

  drawLooks() {
    const { parts, data, text, state } = this;
    const head = this.head();
    if (!data.looks) return fill(parts.looksNote, this.failed.looks?.message ?? "");
    const row = (values) => values?.subarray(head * text.T, (head + 1) * text.T);
    const view = tokenView(text, row(data.looks), this.columns, this.theme);
    const rest = drawLooks(parts.looks, view, this.lookFrom(), row(data.looks), row(data.carried));
    fill(parts.looksNote, `of head ${head} from ${this.overWords()}${state.over === "token" ? "" : ", drawn from its last token"}: as wide as the weight`,
      data.carried ? `, coloured by what it brought of ${this.trait()}` : "",
      view.columns.filter((t) => row(data.looks)[t] >= LEAST).length > LINES ? `; the ${LINES} largest` : "",
      rest > 0.01 ? `; ${Math.round(100 * rest)}% went to ${state.template ? "no" : "template"} tokens, not shown (h)` : "",
      this.failed.carried ? ` (${this.failed.carried.message})` : "");
  }

  // The lines of a span start at its last token.
  lookFrom() {
    const { over, token } = this.state;
    const { n_prompt, T } = this.text;
    const span = /^(\d+):(\d+)$/.exec(over);
    const last = { token, "response[:]": T - 1, "prompt[:]": n_prompt - 1 }[over] ?? Math.min(Number(span?.[2] ?? T), T) - 1;
    return [...this.columns].reverse().find((t) => t <= last) ?? this.columns[0];
  }

  drawMap() {
    const { parts, data, text, columns } = this;
    if (!data.parts) return fill(parts.mapNote, this.failed.parts?.message ?? "");
    this.mapView = partsView(text, data.parts, columns, this.theme);
    parts.map.style.height = `${Math.min(Math.max(this.mapView.text.S * 17, 90), 420) + 30}px`;
    drawHeat(parts.map, this.mapView, colourOf);
    fill(parts.mapNote, `what each wrote of ${this.trait()} at each token, along the site it writes to; ends at \u00b1${shown(this.mapView.limit).slice(1)}, the 99th percentile of this text`);
  }

  drawMatrix() {
    const { parts, data, side, text, state } = this;
    fill(parts.matrixNote, el("b", {}, `attention of head ${this.head()}`), ": ", side.step > 1 ? `a cell is the largest weight of ${side.step} \u00d7 ${side.step} tokens` : "a row for each token");
    if (data.matrix) drawMatrix(parts.matrix, { matrix: data.matrix, step: side.step }, text.T, state.token, this.theme);
    else fill(parts.matrixNote, this.failed.matrix?.message ?? "");
  }

  drawTables() {
    const { parts, data, failed, state } = this;
    const names = [`a: ${this.overWords()}`, `b: ${this.otherWords()}`];
    const other = state.b ? (data.other ?? null) : null;
    if (data.account) {
      accountTable(parts.account, data.account, other, names, this.side.model.dtype === "float32" ? 1e-4 : 2e-2);
      headsTable(parts.heads, this, data.account, other, (head) => this.lookedMost(head), names);
    } else {
      fill(parts.account, el("p", { class: "dim" }, failed.account?.message ?? ""));
      fill(parts.heads);
    }
    if (failed.other) parts.account.append(el("p", { class: "bad" }, failed.other.message));
    if (other && !other.same) parts.account.append(el("p", { class: "small" }, "Another model or another block: its heads and neurons have other numbers, so they are not subtracted."));
    if (data.neurons) neuronsTable(parts.neurons, this, data.neurons, names);
    else fill(parts.neurons, el("p", { class: "dim" }, failed.neurons?.message ?? ""));
  }

  lookedMost(head) {
    const { text, data } = this;
    if (!data.looks) return "";
    let best = -1;
    for (let t = 0; t < text.T; t += 1) {
      if (text.tokens.content[t] && (best < 0 || data.looks[head * text.T + t] > data.looks[head * text.T + best])) best = t;
    }
    return best < 0 ? "" : `${visibleText(text, best)} ${Math.round(100 * data.looks[head * text.T + best])}%`;
  }

  // The cross-hair, and what was written under it.
  point(token) {
    const { parts, data, text } = this;
    pointAt(parts.words, this.spans, token, this.pointed);
    this.pointed = token;
    if (!data.parts || !this.mapView) return;
    const row = data.parts.rows.findIndex((part) => part.head === this.head());
    drawCross(parts.cross, this.mapView, this.columns.indexOf(token), row < 0 ? -1 : this.mapView.text.S - 1 - row);
    const wrote = [["attention", data.parts.attention[token]], ["MLP", data.parts.mlp[token]], ...data.parts.rows.filter((part) => part.head === this.head()).map((part) => [part.name, part.values[token]])];
    fill(parts.here, `token ${token} `, el("bdi", { class: "mono" }, visibleText(text, token)), ` (${text.tokens.role[token]}): `, wrote.map(([name, value]) => `${name} ${shown(value)}`).join(", "));
  }

  // --- events -----------------------------------------------------------------------------------

  listen() {
    const { map, words, matrix, looks } = this.parts;
    const spot = (event) => {
      const box = event.currentTarget.getBoundingClientRect();
      return [event.clientX - box.left, event.clientY - box.top];
    };
    const inMap = (event) => this.mapView && heatAt(map, this.mapView, ...spot(event));
    const inWords = (event) => event.target.closest?.(".tok");
    const follow = (element, find) => {
      element.addEventListener("pointermove", (event) => {
        const found = find(event);
        if (found) this.point(found.token);
      });
      element.addEventListener("pointerleave", () => this.state && this.point(this.state.token));
      element.addEventListener("click", (event) => {
        const found = find(event);
        if (found) this.push(event.shiftKey ? this.spanTo(found.token) : found);
      });
    };
    follow(map, (event) => {
      const found = inMap(event);
      if (!found) return null;
      const part = this.data.parts.rows[this.mapView.text.S - 1 - found.site];
      return { token: this.columns[found.column], ...(part.head === undefined ? {} : { head: part.head }) };
    });
    follow(words, (event) => {
      const span = inWords(event);
      return span ? { token: Number(span.dataset.t) } : null;
    });
    follow(matrix, (event) => {
      const found = matrixAt(matrix, this.text.T, ...spot(event));
      if (found) this.app.status(this.lookWords(found));
      return found ? { token: found.from } : null;
    });
    follow(looks, (event) => {
      const view = { text: { S: 1 }, from: 0, to: this.columns.length };
      const found = heatAt(looks, view, spot(event)[0], 20);
      return found ? { token: this.columns[found.column] } : null;
    });
  }

  spanTo(token) {
    const [from, to] = [this.state.token, token].sort((a, b) => a - b);
    return { over: `${from}:${to + 1}` };
  }

  lookWords({ from, to }) {
    const { text, side, data } = this;
    const n = Math.round(Math.sqrt(data.matrix?.length ?? 0));
    const weight = data.matrix?.[Math.floor(from / side.step) * n + Math.floor(to / side.step)];
    return weight === undefined ? "" : `${from} ${visibleText(text, from)} \u2192 ${to} ${visibleText(text, to)}: ${weight.toFixed(3)}`;
  }

  // --- saving -----------------------------------------------------------------------------------

  fileName = () => `${this.text.generation}.block${this.side.block}.${this.trait()}.${this.at().replace(/[^0-9a-z-]+/g, "_")}`;
  savePng = () => savePicture(this.parts.root, this.fileName()).catch((error) => this.app.status(error.message));

  // A row for each token: what each part wrote, and what the head looked at.
  saveCsv() {
    const { data, text, columns } = this;
    const { tokens } = text;
    const rows = data.parts?.rows ?? [];
    const head = this.head();
    const seen = data.looks ? [`head ${head} looked from ${this.at()}`] : [];
    const brought = data.carried ? [`head ${head} brought from there`] : [];
    const trait = this.trait();
    const table = [["position", "token_id", "text", "role", "part", ...rows.map((row) => `${row.name} wrote of ${trait}`), ...seen, ...brought]];
    for (const t of columns) {
      const looked = [...(data.looks ? [data.looks[head * text.T + t]] : []), ...(data.carried ? [data.carried[head * text.T + t]] : [])];
      table.push([t, tokens.id[t], tokens.text[t], tokens.role[t], tokens.part[t], ...rows.map((row) => row.values[t]), ...looked]);
    }
    saveRows(table, this.fileName());
  }
}
