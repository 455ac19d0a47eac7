// Two texts as one, column by column: what heat.js and curves.js draw of a single text they then draw
// of the pair.  A column is a token of a, of b, or of both; a row is a site of a beside one of b.  The
// difference is b - a, where both are there; z on each side is that run's own.

// `pair` is what `api/compare` says; `a` and `b` are what `readText` gives.
export function pairText(pair, a, b) {
  const side = pair.columns.map(([i, j]) => (i === null ? [b, j] : [a, i]));
  const of = (name) => side.map(([text, t]) => text.tokens[name][t]);
  const part = of("part");
  const S = pair.sites.length;
  const names = pair.sites.map(([i, j]) => (a.sites[i] === b.sites[j] ? a.sites[i] : `${a.sites[i]} | ${b.sites[j]}`));
  return {
    T: pair.columns.length,
    S,
    K: 2,
    sites: pair.sites.map(([i]) => a.sites[i]), // on the axes, where there is no room for two
    names,
    n_prompt: part.filter((each) => each === "prompt").length,
    tokens: Object.fromEntries(["id", "piece", "text", "role", "part", "special", "content", "turn"].map((name) => [name, of(name)])),
    norm: Float32Array.from({ length: pair.columns.length * S }, (_, i) => {
      const [text, t] = side[Math.floor(i / S)];
      const site = pair.sites[i % S][text === a ? 0 : 1];
      return text.norm[t * text.S + site];
    }),
    traits: null, // of the chosen one: [a's, b's], by `pairMeasures`
  };
}

// One trait of both texts on the pair's columns: {a, b, difference}, each as `measure` gives one.
// `shared` is its number in either text, `measured` what `measure` gave of each.
export function pairMeasures(pair, texts, shared, measured) {
  const S = pair.sites.length;
  const sides = [0, 1].map((k) => {
    const { value, z } = measured[k];
    const pick = (values) => {
      const out = new Float32Array(pair.columns.length * S).fill(NaN);
      pair.columns.forEach((column, c) => {
        if (column[k] === null) return;
        pair.sites.forEach((sites, s) => (out[c * S + s] = values[column[k] * texts[k].S + sites[k]]));
      });
      return out;
    };
    return { trait: k, as: measured[k].as, value: pick(value), z: pick(z), S };
  });
  const apart = (name) => sides[0][name].map((value, i) => sides[1][name][i] - value);
  const difference = { trait: 0, as: sides[0].as, value: apart("value"), z: apart("z"), S };
  const traits = [0, 1].map((k) => {
    const about = texts[k].traits[shared[k]];
    const at = (name) => pair.sites.map((sites) => about[name][sites[k]]);
    const names = ["neutral_mean", "neutral_std", "neutral_prompt_mean", "neutral_prompt_std", "there"];
    return { ...about, ...Object.fromEntries(names.map((name) => [name, at(name)])) };
  });
  return { a: sides[0], b: sides[1], difference, traits };
}
