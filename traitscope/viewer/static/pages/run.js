// One run: did it finish, what was expected and found, what failed; and the table of its captures.
// While the run goes on the page follows it: cheap facts every two seconds, the rest when it changed.

import { duration, el, fill, plural, signed, when } from "../dom.js";
import { openTable } from "./table.js";

const EVERY = 2000; // ms between two looks at a run that goes on
const SELDOM = 15000; // ms between two looks at what was found: it reads every text

export async function open(main, route, app) {
  const number = route.path[1];
  const path = `api/runs/${encodeURIComponent(number)}`;
  let run = await app.api(path);
  app.trail([[`#/run/${number}`, run.folder]]);
  const places = Object.fromEntries(
    ["head", "progress", "found", "failures", "prompts"].map((name) => [name, el("section", { class: name })]),
  );
  main.append(...Object.values(places));
  let closed = false;
  let looked = 0;

  const draw = () => {
    fill(places.head, head(run, number, app));
    fill(places.progress, progress(run, number, app));
    fill(places.failures, failures(run));
  };
  const find = async () => {
    looked = Date.now();
    try {
      const found = await app.api(`${path}/found`);
      if (!closed) fill(places.found, expected(found, number, app), traits(run, found, number, app));
    } catch (error) {
      if (!closed) fill(places.found, el("p", { class: "problem" }, error.message));
    }
  };
  draw();
  fill(places.found, el("p", { class: "dim" }, "Reading the scores of all texts …"));
  const table = await openTable(places.prompts, route, app, run);
  find();

  const follow = async () => {
    if (closed) return;
    if (!document.hidden) await look();
    if (!closed && (run.live.going_on || run.counts.missing)) timer = setTimeout(follow, EVERY);
  };
  const look = async () => {
    try {
      const before = run.stamp;
      run = await app.api(path);
      if (closed) return;
      app.status("");
      draw();
      if (run.stamp === before) return;
      table.changed(run);
      if (Date.now() - looked > SELDOM || !run.counts.missing) await find();
    } catch (error) {
      app.status(error.message);
    }
  };
  let timer = run.state === "complete" ? null : setTimeout(follow, EVERY);

  return {
    keys: () => table.keys,
    update: (next) => next.path[1] === number && table.update(next),
    close() {
      closed = true;
      clearTimeout(timer);
      table.close();
    },
  };
}

// --- what it is and how it ended -------------------------------------------------------------------

function head(run, number, app) {
  const { counts, cost, model } = run;
  const facts = [
    `${counts.done} of ${plural(counts.wanted, "capture")}`,
    plural(counts.trajectories, "trajectory", "trajectories"),
    `${counts.internals} internals`,
    plural(counts.texts, "answer"),
    counts.cut ? `${counts.cut} cut at ${run.generation.max_new_tokens ?? "most"} tokens` : null,
    counts.outside ? `${counts.outside} not in the suite any more` : null,
  ];
  const machine = [model.name, model.dtype, model.device, `seed ${run.generation.seed}`, `temperature ${run.generation.temperature}`];
  const seconds = cost.total.seconds.total;
  const work = [
    when(run.created),
    seconds ? `took ${duration(seconds)}` : null,
    cost.calls > 1 ? `in ${cost.calls} calls` : null,
    cost.last ? plural(cost.total.model_loads, "model load") : null,
    cost.last ? plural(cost.total.batches, "batch", "batches") : null,
    cost.total.tokens_per_second ? `${Math.round(cost.total.tokens_per_second)} tokens/s` : null,
  ];
  const line = (parts) => parts.filter((part) => part !== null && part !== undefined && !/undefined|null/.test(part)).join(" · ");
  return [
    el("h1", {}, el("bdi", {}, run.name), " ", badge(run)),
    run.description ? el("p", {}, el("bdi", {}, run.description)) : null,
    el("p", { class: "facts" }, line(facts)),
    el("p", { class: "facts dim" }, line(machine)),
    el("p", { class: "facts dim" }, line(work)),
    proofs(run),
    el("p", { class: "facts" }, app.link(`#/correlation/${number}`, "how the traits go together"), app.runs.length > 1 ? [" · ", app.link(`#/compare?a=${number}`, "beside another run")] : null),
  ];
}

function badge(run) {
  const { counts } = run;
  const [sign, kind, words] = run.live.going_on
    ? ["▶", "", "going on"]
    : counts.missing
      ? ["■", "bad", `stopped, ${counts.missing} to make`]
      : counts.failed
        ? ["✗", "bad", `finished, ${counts.failed} failed`]
        : ["✓", "good", "finished"];
  return el("span", { class: `badge ${kind}` }, `${sign} ${words}`);
}

// What was measured at load: one line where all holds, a warning where a check was passed over.
function proofs(run) {
  const all = Array.isArray(run.proofs) ? run.proofs.filter((proof) => proof && typeof proof === "object" && "held" in proof) : [];
  if (run.unproven.length) {
    return el(
      "div",
      { class: "warning", role: "alert" },
      el("b", {}, "The model did not prove exact (--allow-unproven): do not trust these numbers."),
      el("ul", {}, run.unproven.map((sentence) => el("li", {}, sentence))),
    );
  }
  if (!all.length) return null;
  const alone = all.find((proof) => proof.name === "batched = alone" && typeof proof.difference === "number");
  const short = alone ? `: batched = alone within ${alone.difference.toExponential(1)} ${alone.unit ?? "|h|"}` : "";
  return el(
    "details",
    { class: "proofs" },
    el("summary", {}, `${all.filter((proof) => proof.held).length} of ${plural(all.length, "check")} at load held${short}`),
    el(
      "table",
      {},
      all.map((proof) =>
        el(
          "tr",
          {},
          el("td", {}, proof.held === false ? "✗" : proof.held ? "✓" : "·"),
          el("td", {}, proof.name),
          el("td", { class: "num" }, typeof proof.difference === "number" ? proof.difference.toExponential(1) : "–"),
          el("td", { class: "dim" }, `allowed ${proof.allowed} ${proof.unit ?? ""}`),
          el("td", { class: "dim" }, proof.detail ?? ""),
        ),
      ),
    ),
  );
}

// --- while it goes on ------------------------------------------------------------------------------

function progress(run, number, app) {
  const { counts, live } = run;
  if (!counts.missing) return null;
  const over = counts.done + counts.failed;
  const facts = [
    `${over} of ${counts.wanted}`,
    live.captures_per_minute ? `${live.captures_per_minute.toFixed(live.captures_per_minute < 10 ? 1 : 0)} a minute` : null,
    live.tokens_per_second ? `${Math.round(live.tokens_per_second)} tokens/s` : null,
    live.going_on ? `for ${duration(live.seconds)}` : "nobody is writing to it: the same command goes on from here",
    live.left !== null ? `about ${duration(live.left)} left` : null,
  ];
  return [
    el("progress", { max: counts.wanted, value: over, "aria-label": "captures" }),
    el("p", { class: "facts" }, facts.filter(Boolean).join(" · ")),
    live.going_on && run.newest.length
      ? el(
          "ul",
          { class: "newest" },
          run.newest.map((text) =>
            el("li", {}, app.link(`#/text/${number}/${text.generation}`, text.prompt || text.generation), " ", el("bdi", { class: "dim" }, text.response)),
          ),
        )
      : null,
  ];
}

function failures(run) {
  if (!run.failures.length) return null;
  return [
    el("h2", {}, `Failed: ${plural(run.counts.failed, "capture")}`),
    el(
      "ul",
      { class: "failed" },
      run.failures.map((failure) =>
        el(
          "li",
          {},
          el("b", {}, `${failure.prompt_set}, ${failure.captures} × ${failure.kind}: `),
          el("bdi", {}, failure.reason),
          el("span", { class: "dim" }, " ", failure.prompts.map((name) => [el("bdi", {}, `“${shorten(name, 60)}”`), " "]), failure.others ? `and ${failure.others} more` : ""),
        ),
      ),
    ),
  ];
}

// --- what was found --------------------------------------------------------------------------------

function expected(found, number, app) {
  const verdicts = found.expectations;
  if (!verdicts.length) return null;
  const held = verdicts.filter((verdict) => verdict.held === true).length;
  const notes = new Set(verdicts.filter((verdict) => verdict.held !== null).map((verdict) => verdict.note));
  const shared = notes.size === 1 && !verdicts.some((verdict) => verdict.tested) ? [...notes][0] : null;
  return el(
    "div",
    { class: "panel expected" },
    el("h2", {}, `Expected: ${held} of ${verdicts.length} held`, shared ? el("span", { class: "dim" }, ` · ${shared}`) : null),
    el("table", { class: "wide" }, [
      el("thead", {}, el("tr", {}, ["", "", "z apart", "wanted"].map((name) => el("th", { class: "num" }, name)))),
      verdicts.map((verdict) => expectation(verdict, found, number, app, shared)),
    ]),
  );
}

function expectation(verdict, found, number, app, shared) {
  const sign = verdict.held === true ? "✓" : verdict.held === false ? "✗" : "?";
  const word = verdict.held === true ? "held" : verdict.held === false ? "did not hold" : "not measured";
  const [higher, lower] = [found.texts[verdict.higher], found.texts[verdict.lower]];
  const query = new URLSearchParams({ a: `${number}/${lower}`, b: `${number}/${higher}`, trait: verdict.trait });
  const text = higher && lower ? app.link(`#/compare?${query}`, verdict.text) : el("span", {}, verdict.text);
  text.title = `${verdict.trait} at ${verdict.site}, ${verdict.window}: “${verdict.higher}” over “${verdict.lower}”`;
  const said = verdict.tested ? `p = ${verdict.p.toPrecision(2)}, ${verdict.note}` : verdict.note !== shared ? verdict.note : "";
  return el(
    "tr",
    {},
    el("td", { class: verdict.held === false ? "bad" : verdict.held ? "good" : "dim", title: word }, sign),
    el("td", {}, text, said ? el("span", { class: "dim" }, ` ${said}`) : null),
    el("td", { class: "num" }, signed(verdict.difference)),
    el("td", { class: "num dim" }, verdict.margin),
  );
}

// Each trait: what its poles are, where it is read, and the prompts at its ends.
function traits(run, found, number, app) {
  const ends = new Map(found.traits.map((trait) => [trait.trait, trait]));
  return el(
    "div",
    { class: "panel traits" },
    el("h2", {}, "Traits: the prompts at their ends ", el("span", { class: "dim" }, "z before a word is written, and over the answer")),
    run.traits.map((trait) => traitCard(trait, ends.get(trait.trait), found, number, app)),
  );
}

function traitCard(trait, end, found, number, app) {
  const rows = end?.ends ?? [];
  const shown = rows.length > 2 ? [rows[0], rows.at(-1)] : rows;
  const where = `z at ${trait.site}${end?.neutral_spread ? `, neutral answers differ by ${end.neutral_spread.toFixed(2)}` : ""}`;
  return el(
    "div",
    { class: "trait-card" },
    el("b", { title: `more: ${trait.positive}\nless: ${trait.negative}` }, trait.trait),
    el("span", { class: "dim" }, ` ${where}`),
    trait.verdict ? el("span", { class: "badge" }, trait.verdict) : null,
    trait.warning ? el("p", { class: "bad" }, trait.warning) : null,
    el(
      "table",
      { class: "wide" },
      shown.map((row, i) =>
        el(
          "tr",
          {},
          el("td", { class: i ? "less" : "more" }, i ? "lowest" : "highest"),
          el("td", { class: "name" }, named(row, found, number, trait.trait, app)),
          el("td", { class: "num dim" }, signed(row.before)),
          el("td", { class: "num" }, signed(row.answer)),
        ),
      ),
    ),
  );
}

function named(row, found, number, trait, app) {
  const generation = found.texts[row.name];
  const name = shorten(row.name, 90) || "(no words)";
  return generation ? app.link(`#/text/${number}/${generation}?${new URLSearchParams({ trait })}`, name) : el("bdi", {}, name);
}

function shorten(text, length) {
  return text.length <= length ? text : `${text.slice(0, length - 1)}…`;
}
