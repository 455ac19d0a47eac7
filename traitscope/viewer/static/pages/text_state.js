// What the trajectory page shows, as one frozen value, and as the query of its address.  Whatever
// does not fit the text (an unknown trait, a token that is not there) falls back to the default, so
// that an old or edited link still opens.

const VALUES = ["z", "cosine", "raw"];
const ZOOMS = 8; // at most 2^8 times

// From an address's query and a text (as `readText` gives it): trait and site by number.
export function stateOf(query, text) {
  const trait = named(text.traits.map((each) => each.name), query.get("trait"), firstScored(text));
  const others = (query.get("with") ?? "").split(",");
  return Object.freeze({
    trait,
    site: named(text.sites, query.get("site"), text.traits[trait].site),
    token: within(query.get("token"), text.T, Math.max(text.n_prompt - 1, 0)),
    as: VALUES.includes(query.get("as")) ? query.get("as") : "z",
    scale: query.get("scale") === "text" ? "text" : "run",
    zoom: within(query.get("zoom"), ZOOMS + 1, 0),
    template: query.has("template"),
    change: query.has("change"),
    settles: query.has("settles"),
    with: text.traits.map((each, k) => k).filter((k) => k !== trait && others.includes(text.traits[k].name)),
  });
}

// The query of a state; what is as by default is left out, but for what a link should always say.
export function queryOf(state, text) {
  const query = new URLSearchParams({
    trait: text.traits[state.trait].name,
    site: text.sites[state.site],
    as: state.as,
    token: state.token,
  });
  if (state.scale !== "run") query.set("scale", state.scale);
  if (state.zoom) query.set("zoom", state.zoom);
  if (state.with.length) query.set("with", state.with.map((k) => text.traits[k].name).join(","));
  for (const mark of ["template", "change", "settles"]) if (state[mark]) query.set(mark, "1");
  return query.toString().replaceAll("%2C", ",");
}

function named(names, name, otherwise) {
  const place = names.indexOf(name);
  return place < 0 ? otherwise : place;
}

function within(text, end, otherwise) {
  return /^\d{1,9}$/.test(text ?? "") && Number(text) < end ? Number(text) : otherwise;
}

function firstScored(text) {
  return Math.max(text.traits.findIndex((each) => each.scored), 0);
}

// The columns shown, [from, to): all of them, or a part of 1/2^zoom around a column.
export function windowOf(zoom, n, column) {
  const size = Math.min(n, Math.max(Math.ceil(n / 2 ** zoom), 12));
  const from = Math.min(Math.max(column - Math.floor(size / 2), 0), n - size);
  return { from, to: from + size };
}
