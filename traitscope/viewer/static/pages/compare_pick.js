// What can be set beside a text: the same chat elsewhere first, then whatever is looked for; and which
// two runs.  The text that was come from stays a.

import { el, fill } from "../dom.js";
import { titleOf } from "./text_parts.js";

const QUIET = 200; // ms without a key

export const STYLE = `
.pick { display: grid; gap: 12px; max-width: 900px; }
.pick table { width: 100%; }
.pick td { padding: 3px 12px 3px 0; vertical-align: baseline; }
.pick input[type=search] { width: min(420px, 100%); }
`;

export async function openPicker(main, route, app) {
  const a = route.query.get("a") ?? "";
  return a.includes("/") ? pickText(main, a, route, app) : pickRuns(main, a, app);
}

async function pickText(main, a, route, app) {
  const [run, id] = a.split("/");
  const text = await app.api(`api/runs/${encodeURIComponent(run)}/texts/${encodeURIComponent(id)}`);
  app.trail([[`#/run/${run}`, app.runName(Number(run))], [`#/text/${run}/${id}`, titleOf(text)], [location.hash, "beside what?"]]);
  const list = el("tbody");
  const note = el("p", { class: "dim" });
  const search = el("input", { type: "search", placeholder: "words of a prompt", "aria-label": "search", value: route.query.get("q") ?? "" });
  let [turn, quiet] = [0, 0];
  const show = async () => {
    const mine = ++turn;
    try {
      const said = await app.api(`api/compare/partners?a=${encodeURIComponent(a)}&q=${encodeURIComponent(search.value)}`);
      if (mine !== turn) return;
      const keep = new URLSearchParams(route.query);
      const link = (each) => {
        keep.set("a", a);
        keep.set("b", `${each.run}/${each.generation}`);
        keep.delete("q");
        return `#/compare?${keep.toString().replaceAll("%2F", "/")}`;
      };
      fill(list, said.texts.map((each) => el("tr", {}, el("td", {}, app.link(link(each), el("bdi", {}, each.title))),
        el("td", { class: "dim" }, app.runName(each.run)), el("td", { class: "dim" }, each.why))));
      note.textContent = said.of > said.texts.length ? `${said.texts.length} of ${said.of}: search for more.` : `${said.of} texts.`;
    } catch (error) {
      note.textContent = error.message;
    }
  };
  search.addEventListener("input", () => {
    clearTimeout(quiet);
    quiet = setTimeout(() => {
      const query = new URLSearchParams({ a, ...(search.value ? { q: search.value } : {}) });
      app.go(`#/compare?${query.toString().replaceAll("%2F", "/")}`, { replace: true });
      show();
    }, QUIET);
  });
  main.append(el("style", {}, STYLE), el("div", { class: "pick" }, el("h1", {}, "Beside \u201c", el("bdi", {}, titleOf(text)), "\u201d"), search, note, el("table", {}, list)));
  await show();
  return {
    keys: [
      { key: "/", what: "search", run: () => search.focus() },
      { key: "Enter", what: "the first of them", run: () => list.querySelector("a")?.click() },
    ],
    close: () => clearTimeout(quiet),
  };
}

async function pickRuns(main, a, app) {
  app.trail([["#/compare", "compare runs"]]);
  const choice = (name, value) =>
    el("select", { "aria-label": name, title: name }, app.runs.map((run, i) => el("option", { value: i, selected: i === value }, app.runName(i))));
  const first = choice("a", Number(a) || 0);
  const second = choice("b", Math.min((Number(a) || 0) + 1, app.runs.length - 1));
  const go = () => app.go(`#/compare?a=${first.value}&b=${second.value}`);
  main.append(el("style", {}, STYLE), el("div", { class: "pick" }, el("h1", {}, "Two runs beside one another"),
    app.runs.length < 2
      ? el("p", {}, "Only one run is open. Start the viewer with two: traitscope view RUN RUN")
      : el("p", {}, first, " and ", second, " ", el("button", { type: "button", onclick: go }, "compare"))));
  return { keys: app.runs.length < 2 ? [] : [{ key: "Enter", what: "compare these two", run: go }] };
}
