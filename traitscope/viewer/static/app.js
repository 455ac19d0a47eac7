// The shell: which page stands in <main>, keys, light and dark, and how data is fetched.
// A page is a module with `open(main, route, app)`; it gives back {close, update, keys}, all optional.
// Every state is in the address: #/NAME/...?query.

import { el, fill } from "./dom.js";

const PAGES = {
  "": "./pages/runs.js",
  run: "./pages/run.js",
  text: "./pages/text.js",
  internals: "./pages/internals.js",
  compare: "./pages/compare.js",
  correlation: "./pages/correlation.js",
};
const byId = (id) => document.getElementById(id);

// --- data ----------------------------------------------------------------------------------------

async function fetched(path) {
  let response;
  try {
    response = await fetch(path, { credentials: "same-origin" });
  } catch (error) {
    throw new Error("The viewer does not answer: it was stopped. Start 'traitscope view' again.");
  }
  if (response.ok) return response;
  let said = `The viewer answered with ${response.status}.`;
  try {
    said = (await response.json()).error ?? said;
  } catch (error) {
    // not JSON: the status is all there is to say
  }
  throw new Error(said);
}

const app = {
  runs: [],
  api: async (path) => (await fetched(path)).json(),
  bytes: async (path) => (await fetched(path)).arrayBuffer(),

  // replace: the state changes with no step to go back to (a hover)
  go(hash, { replace = false } = {}) {
    if (hash === location.hash) return;
    if (!replace) {
      // at once, not by the event that a new hash would bring later: keys may have moved on by then
      history.pushState(null, "", hash);
      show();
      return;
    }
    history.replaceState(null, "", hash);
    shown = hash;
  },
  link: (hash, text, properties = {}) => el("a", { href: hash, ...properties }, text),
  status: (text) => fill(byId("status"), text),
  // the way from the list of runs to this page: [[hash, text], ...]; the last one is the title
  trail(steps) {
    const links = steps.map(([hash, text]) => [el("span", { class: "step" }, "›"), app.link(hash, text)]);
    fill(byId("trail"), links);
    document.title = [...steps.map(([, text]) => text)].reverse().concat("traitscope").join(" · ");
  },
  runName: (number) => app.runs[number]?.folder ?? `run ${number}`,
  async loadRuns() {
    app.runs = (await app.api("api/runs")).runs;
    return app.runs;
  },
};

// --- the router ----------------------------------------------------------------------------------

let current = null; // {name, page}
let turn = 0; // a page that is still opening when the next one is asked for is dropped
let shown = null;

function routeOf(hash) {
  const [path, query = ""] = hash.replace(/^#\/?/, "").split(/\?(.*)/s);
  const parts = path.split("/").filter(Boolean).map(unescaped);
  return { path: parts, query: new URLSearchParams(query) };
}

function unescaped(part) {
  try {
    return decodeURIComponent(part);
  } catch (error) {
    return part;
  }
}

async function show() {
  if (location.hash === shown) return;
  shown = location.hash;
  const route = routeOf(shown);
  const name = route.path[0] ?? "";
  if (current?.name === name && current.page?.update?.(route)) return;
  const mine = ++turn;
  current?.page?.close?.();
  current = null;
  const main = byId("main");
  const place = el("div", { class: `page page-${name || "runs"}` });
  try {
    if (!Object.hasOwn(PAGES, name)) throw new Error(`There is no page '${name}'. The first page lists the runs.`);
    const [module] = await Promise.all([import(PAGES[name]), app.runs.length ? null : app.loadRuns()]);
    if (mine !== turn) return;
    fill(main, place);
    scrollTo(0, 0);
    app.status("");
    const page = await module.open(place, route, app);
    if (mine !== turn) page?.close?.();
    else current = { name, page };
  } catch (error) {
    if (mine === turn) fill(main, problem(error));
  }
}

function problem(error) {
  return el("p", { class: "problem", role: "alert" }, error.message, " ", app.link("#/", "All runs"));
}

// --- keys ----------------------------------------------------------------------------------------

const KEYS = [
  { key: "?", what: "this sheet", run: sheet },
  { key: "d", what: "light or dark", run: turnTheme },
  { key: "u", what: "up: to the page before this one in the path", run: up },
];

function keysOfPage() {
  const keys = current?.page?.keys;
  return typeof keys === "function" ? keys() : (keys ?? []);
}

function typing(target) {
  return target.closest?.("input:not([type=checkbox]), textarea, select, [contenteditable]") !== null;
}

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  if (byId("sheet").open) {
    if (event.key === "?") byId("sheet").close();
    return;
  }
  if (typing(event.target)) {
    if (event.key !== "Escape") return;
    event.preventDefault(); // a search field would be emptied
    event.target.blur();
    return;
  }
  const key = [...keysOfPage(), ...KEYS].find((known) => known.key === event.key);
  if (!key) return;
  event.preventDefault();
  key.run(event);
}

const NAMES = { ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", " ": "space", Escape: "Esc" };

function sheet() {
  const rows = (keys) =>
    keys
      .filter((key) => key.what)
      .map((key) => el("tr", {}, el("td", {}, el("kbd", {}, NAMES[key.key] ?? key.key)), el("td", {}, key.what)));
  const dialog = byId("sheet");
  const own = rows(keysOfPage());
  fill(
    dialog,
    own.length ? [el("h2", {}, "On this page"), el("table", {}, own)] : null,
    el("h2", {}, "Everywhere"),
    el("table", {}, rows(KEYS)),
    el("form", { method: "dialog" }, el("button", {}, "Close")),
  );
  dialog.showModal();
}

function up() {
  const links = [byId("home"), ...byId("trail").querySelectorAll("a")];
  links.at(-2)?.click();
}

// --- light and dark ------------------------------------------------------------------------------

const DARK = matchMedia("(prefers-color-scheme: dark)");

// what was chosen here wins over what the system says
function paintTheme() {
  const chosen = remembered();
  document.documentElement.dataset.theme = chosen ?? (DARK.matches ? "dark" : "light");
  dispatchEvent(new CustomEvent("theme"));
}

function turnTheme() {
  const next = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  try {
    localStorage.setItem("traitscope-theme", next);
  } catch (error) {
    // storage is off: it holds until the page is left
  }
  document.documentElement.dataset.theme = next;
  dispatchEvent(new CustomEvent("theme"));
}

function remembered() {
  try {
    const theme = localStorage.getItem("traitscope-theme");
    return theme === "dark" || theme === "light" ? theme : null;
  } catch (error) {
    return null;
  }
}

// --- begin ---------------------------------------------------------------------------------------

paintTheme();
DARK.addEventListener("change", paintTheme);
byId("theme").addEventListener("click", turnTheme);
byId("help").addEventListener("click", sheet);
addEventListener("keydown", pressed);
addEventListener("hashchange", show);
show();
