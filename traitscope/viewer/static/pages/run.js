// One run: what it is and how far it is.

import { el } from "../dom.js";

export async function open(main, route, app) {
  const number = Number(route.path[1]);
  const run = await app.api(`api/runs/${route.path[1]}`);
  app.trail([[`#/run/${number}`, app.runName(number)]]);
  main.append(el("h1", {}, run.name), el("p", { class: "dim" }, `${run.wanted} captures, ${run.state}`));
  return {};
}
