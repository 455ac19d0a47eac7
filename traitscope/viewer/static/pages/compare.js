// Two of a kind beside one another: `#/compare?a=0/TEXT&b=1/TEXT` two texts, `#/compare?a=0&b=1` two
// runs; where one is still to be chosen, what there is to choose from.

import { openPicker } from "./compare_pick.js";
import { openRuns } from "./compare_runs.js";
import { openTexts } from "./compare_texts.js";

export async function open(main, route, app) {
  const [a, b] = ["a", "b"].map((side) => route.query.get(side) ?? "");
  const kind = a.includes("/") ? (b.includes("/") ? openTexts : openPicker) : b !== "" && a !== "" ? openRuns : openPicker;
  const page = await kind(main, route, app);
  const same = (next) => ["a", "b"].every((side) => (next.query.get(side) ?? "") === route.query.get(side)) && next.path.length === 1;
  return { ...page, update: (next) => same(next) && page.update?.(next) };
}
