// The list of runs.

import { el, when } from "../dom.js";

export async function open(main, route, app) {
  app.trail([]);
  const runs = await app.loadRuns();
  if (runs.length === 1 && !runs[0].error) {
    location.replace("#/run/0"); // nothing to choose from
    return {};
  }
  main.append(el("h1", {}, "Runs"), el("table", { class: "list" }, runs.map((run) => row(run, app))));
  return {};
}

function row(run, app) {
  const name = app.link(`#/run/${run.run}`, run.folder);
  if (run.error) return el("tr", {}, el("td", {}, run.folder), el("td", { class: "bad", colspan: 3 }, run.error));
  const done = run.wanted - run.missing;
  return el(
    "tr",
    {},
    el("td", {}, name),
    el("td", {}, run.model.name),
    el("td", { class: "num" }, `${done} of ${run.wanted}`),
    el("td", { class: "dim" }, when(run.created)),
  );
}
