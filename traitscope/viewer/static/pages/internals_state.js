// What the page of a block's inside shows, as one frozen value and as the query of its address.
// Whatever does not fit the text falls back to the default, so that an edited link still opens.

export const OVERS = ["token", "response[:]", "prompt[:]"];
export const SPAN = /^\d{1,9}(:\d{1,9})?$/; // a token, or from:to
const PAINTS = ["attention", "mlp", "head", "looks", "neuron"];

export function stateOf(query, side, text) {
  const token = within(query.get("token"), text.T);
  const over = query.get("over") ?? "";
  const neuron = within(query.get("neuron"), side.neurons);
  const paint = query.get("paint");
  const trait = side.traits.indexOf(query.get("trait"));
  const answered = text.tokens.part.some((part, t) => part === "response" && text.tokens.content[t]);
  return Object.freeze({
    trait: Math.max(trait, 0),
    token: token ?? Math.max(text.n_prompt - 1, 0),
    over: OVERS.includes(over) || /^\d{1,9}:\d{1,9}$/.test(over) ? over : token === null && answered ? "response[:]" : "token",
    head: within(query.get("head"), side.heads),
    neuron,
    by: query.get("by") === "activation" ? "activation" : "contribution",
    paint: PAINTS.includes(paint) && (paint !== "neuron" || neuron !== null) ? paint : "attention",
    template: query.has("template"),
    bat: SPAN.test(query.get("bat") ?? "") ? query.get("bat") : "",
    b: /^\d{1,6}\/[0-9A-Za-z_-]+\/\d{1,6}$/.test(query.get("b") ?? "") ? query.get("b") : "",
  });
}

export function queryOf(state, side) {
  const query = new URLSearchParams({ trait: side.traits[state.trait], token: state.token, over: state.over });
  if (state.head !== null) query.set("head", state.head);
  if (state.neuron !== null) query.set("neuron", state.neuron);
  if (state.by !== "contribution") query.set("by", state.by);
  if (state.paint !== "attention") query.set("paint", state.paint);
  if (state.template) query.set("template", "1");
  if (state.b) query.set("b", state.b);
  if (state.b && state.bat) query.set("bat", state.bat);
  return query.toString().replaceAll("%5B", "[").replaceAll("%5D", "]").replaceAll("%3A", ":").replaceAll("%2F", "/");
}

function within(words, end) {
  return /^\d{1,9}$/.test(words ?? "") && Number(words) < end ? Number(words) : null;
}
