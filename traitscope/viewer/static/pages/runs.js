// The list of runs.  Where there is one only, its page opens at once.

import { el, fill, when } from "../dom.js";

export async function open(main, route, app) {
  app.trail([]);
  const runs = await app.loadRuns();
  if (runs.length === 1 && !runs[0].error) {
    location.replace("#/run/0");
    return {};
  }
  const list = new List(main, runs, app);
  return { keys: list.keys };
}

class List {
  constructor(main, runs, app) {
    Object.assign(this, { runs, app, cursor: 0 });
    this.body = el("tbody");
    const names = ["run", "model", "captures", "traits", "created"];
    const head = el("tr", {}, names.map((name) => el("th", { scope: "col" }, name)));
    main.append(el("h1", {}, "Runs"), el("table", { class: "runs wide" }, el("thead", {}, head), this.body),
      el("p", {}, app.link("#/compare", "compare runs")));
    this.draw();
    const move = (step) => () => {
      this.cursor = Math.min(Math.max(this.cursor + step, 0), runs.length - 1);
      this.draw();
    };
    this.keys = [
      { key: "j", what: "next run (also ↓)", run: move(1) },
      { key: "ArrowDown", run: move(1) },
      { key: "k", what: "run before (also ↑)", run: move(-1) },
      { key: "ArrowUp", run: move(-1) },
      { key: "Enter", what: "open the run", run: () => this.enter() },
    ];
  }

  enter() {
    const run = this.runs[this.cursor];
    if (!run.error) this.app.go(`#/run/${run.run}`);
  }

  draw() {
    fill(this.body, this.runs.map((run, i) => this.row(run, i)));
    this.body.children[this.cursor]?.scrollIntoView({ block: "nearest" });
  }

  row(run, i) {
    const properties = { "aria-selected": String(i === this.cursor) };
    if (run.error) return el("tr", properties, el("td", {}, run.folder), el("td", { class: "bad", colspan: 4 }, run.error));
    return el(
      "tr",
      properties,
      el("td", {}, this.app.link(`#/run/${run.run}`, run.folder)),
      el("td", {}, el("bdi", {}, run.model)),
      el("td", {}, `${run.recorded} of ${run.wanted}`),
      el("td", { class: "dim" }, run.traits.join(", ")),
      el("td", { class: "dim" }, when(run.created)),
    );
  }
}
