// Numbers of one text -> values on a scale -> colours.  Owns the arithmetic of the trajectory page
// and the one diverging colour scale (blue: less, orange: more; grey: within the neutral band).
//
// A text is what `readText` gives: T tokens, S sites, K traits; `norm` [T, S] and `score` [T, S, K]
// are Float32Arrays in units of the residual stream.  z is (score - neutral mean) / neutral spread
// of the site, at the last prompt token with that token's own neutral numbers; cosine is
// score / |h|.  What is not there (a trait without a direction at a site, or not scored) is NaN.
// Nothing here knows of pages, requests or elements, but for the theme that `themeOf` reads.

export const NEUTRAL = 1; // z: about two of three neutral tokens lie within
export const SETTLED = 0.5; // z: how near the mean so far must stay to the mean over the answer
export const LEAST = 2; // z: no scale ends nearer to the neutral band
const TINY = 1e-12;
const LEAST_SPREAD = 1e-6; // of the mean: below it neutral numbers differ by rounding alone
const LEVELS = 127; // colours on each side of the neutral one

export const UNITS = {
  raw: "score: h\u00b7v, units of the stream",
  cosine: "cosine: score / |h|",
  z: "z: spreads of neutral text",
};

// --- a text ---------------------------------------------------------------------------------

// The answers of texts/GEN and texts/GEN/numbers as one object.
export function readText(json, buffer) {
  const T = json.tokens.id.length;
  const S = json.sites.length;
  const K = json.traits.length;
  const all = floats(buffer);
  if (all.length !== T * S * (K + 1)) {
    throw new Error(`Expected ${T * S * (K + 1)} numbers of this text, got ${all.length}.`);
  }
  return { ...json, T, S, K, norm: all.subarray(0, T * S), score: all.subarray(T * S) };
}

// Little-endian float32, whatever this machine is.
function floats(buffer) {
  if (new Uint8Array(new Uint32Array([1]).buffer)[0] === 1) return new Float32Array(buffer);
  const view = new DataView(buffer);
  return Float32Array.from({ length: buffer.byteLength / 4 }, (_, i) => view.getFloat32(4 * i, true));
}

// A trait on all tokens and sites: `value` on the scale asked for ("raw", "cosine" or "z"), and `z`,
// which says what lies within the neutral band; both [T, S].
export function measure(text, trait, as) {
  const { T, S, K, score, norm } = text;
  const about = text.traits[trait];
  const z = new Float32Array(T * S);
  const value = as === "z" ? z : new Float32Array(T * S);
  for (let t = 0; t < T; t += 1) {
    const last = t === text.n_prompt - 1;
    const mean = last ? about.neutral_prompt_mean : about.neutral_mean;
    const std = last ? about.neutral_prompt_std : about.neutral_std;
    for (let s = 0; s < S; s += 1) {
      const at = t * S + s;
      const raw = about.there[s] ? score[at * K + trait] : NaN;
      z[at] = std[s] > LEAST_SPREAD * Math.abs(mean[s]) ? (raw - mean[s]) / std[s] : NaN;
      if (as === "raw") value[at] = raw;
      if (as === "cosine") value[at] = raw / Math.max(norm[at], TINY);
    }
  }
  return { trait, as, value, z, S };
}

// The tokens that are shown, by position.  Without template: those of the turns, and the last one
// of the prompt, which is where a trait is read before a word is written.
export function columnsOf(text, template) {
  const all = Array.from({ length: text.T }, (_, t) => t);
  const words = all.filter((t) => text.tokens.content[t] || (t === text.n_prompt - 1 && t > 0));
  return template || !words.length ? all : words;
}

// The percentile (0 to 100) of an array, between neighbours as numpy has it; NaN for none.
export function percentile(values, q) {
  const sorted = Float64Array.from(values).filter(Number.isFinite).sort();
  if (!sorted.length) return NaN;
  const place = ((sorted.length - 1) * q) / 100;
  const below = Math.floor(place);
  const above = Math.min(below + 1, sorted.length - 1);
  return sorted[below] + (sorted[above] - sorted[below]) * (place - below);
}

// Where the scale of one text ends: the 99th percentile of |value| over content tokens and sites.
export function limitOf(text, measured) {
  const sizes = [];
  for (let t = 0; t < text.T; t += 1) {
    if (!text.tokens.content[t]) continue;
    for (let s = 0; s < text.S; s += 1) sizes.push(Math.abs(measured.value[t * text.S + s]));
  }
  return atLeast(percentile(sizes, 99), measured.as);
}

// A z scale reaches beyond the neutral band, and no scale is empty.
export function atLeast(limit, as) {
  const least = as === "z" ? LEAST : TINY;
  return limit > least ? limit : least;
}

// --- what is read ---------------------------------------------------------------------------

// The tokens of the answer that enter its mean: what was thought before it does not.
export function answerOf(text) {
  return Array.from(text.tokens.answer.keys()).filter((t) => text.tokens.answer[t]);
}

// The mean of values at one site over some tokens; NaN for none.
export function meanAt(values, S, site, tokens) {
  let sum = 0;
  for (const t of tokens) sum += values[t * S + site];
  return tokens.length ? sum / tokens.length : NaN;
}

// The first site from which z stays outside the neutral band, on one side, up to the last site.
// Sites without a direction are passed over.  null where the last one lies within.
export function holdsFrom(zs) {
  let first = null;
  let side = 0;
  for (let s = zs.length - 1; s >= 0; s -= 1) {
    if (Number.isNaN(zs[s])) continue;
    const here = Math.abs(zs[s]) < NEUTRAL ? 0 : Math.sign(zs[s]);
    if (here === 0 || (side !== 0 && here !== side)) break;
    side = here;
    first = s;
  }
  return first;
}

// The first token of the answer from which the mean so far stays within SETTLED z of the mean over
// the whole answer, and the means so far (z); null without an answer.
export function settles(text, measured, site) {
  const tokens = answerOf(text);
  let sum = 0;
  const means = tokens.map((t, i) => (sum += measured.z[t * text.S + site]) / (i + 1));
  const whole = means[means.length - 1];
  if (!tokens.length || Number.isNaN(whole)) return null;
  let first = means.length - 1;
  while (first > 0 && Math.abs(means[first - 1] - whole) <= SETTLED) first -= 1;
  return { token: tokens[first], after: first + 1, tokens, means, whole };
}

// The change from the token shown before; NaN for the first one.
export function velocity(measured, site, columns) {
  const at = (i) => measured.value[columns[i] * measured.S + site];
  return columns.map((_, i) => (i ? at(i) - at(i - 1) : NaN));
}

// --- colours --------------------------------------------------------------------------------

// from nearly neutral to the end of the scale; on each stop one of the two inks is legible
const STOPS = {
  light: {
    less: ["#dbe8f5", "#9ec6e8", "#4f94cd", "#1b5a99"],
    neutral: "#efeeeb",
    more: ["#fde6cb", "#fdbf78", "#e5871b", "#a94f04"],
  },
  dark: {
    less: ["#20374d", "#2c6391", "#4f9bd6", "#a8d6fa"],
    neutral: "#2a2d31",
    more: ["#4a341c", "#8d5817", "#dd8a2a", "#ffcd94"],
  },
};
const INKS = ["#16181b", "#ffffff"];

// Curves of traits: of other colours than the scale, told apart by their dashes as well.
export const LINES = {
  light: ["#5b3fb5", "#00785a", "#b02a76", "#6b6200", "#16788f", "#7a4a2b"],
  dark: ["#b3a1ff", "#3fcf9f", "#f58fc4", "#d8cf4f", "#6fd3e8", "#d9a989"],
};
export const DASHES = [[6, 3], [2, 2], [8, 3, 2, 3], [12, 3], [4, 4]];

const channels = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
const hexOf = (rgb) => `#${rgb.map((c) => Math.round(c).toString(16).padStart(2, "0")).join("")}`;

function between(stops, part) {
  const place = part * (stops.length - 1);
  const below = Math.min(Math.floor(place), stops.length - 2);
  const [a, b] = [channels(stops[below]), channels(stops[below + 1])];
  return a.map((c, i) => c + (b[i] - c) * (place - below));
}

// Relative luminance after WCAG 2: which ink is legible on a colour.
function luminance(rgb) {
  const linear = rgb.map((c) => (c <= 10 ? c / 3294 : ((c / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
}

function paletteOf(stops) {
  const part = (i) => (Math.abs(i) - 1) / (LEVELS - 1);
  const colours = [];
  for (let i = -LEVELS; i <= LEVELS; i += 1) {
    if (i === 0) colours.push(channels(stops.neutral));
    else colours.push(between(i < 0 ? stops.less : stops.more, part(i)));
  }
  return {
    rgb: colours.map((rgb) => rgb.map(Math.round)),
    css: colours.map(hexOf),
    ink: colours.map((rgb) => INKS[luminance(rgb) < 0.22 ? 1 : 0]),
  };
}

export const PALETTES = { light: paletteOf(STOPS.light), dark: paletteOf(STOPS.dark) };

// The number of a value's colour in a palette: LEVELS is the neutral one; -1 where nothing is there.
// What lies within the neutral band (|z| < 1) is neutral on every scale; outside, the colour grows
// with |value| up to `limit`: on a z scale from the band's edge, on the others from 0.
export function colourOf(value, z, limit, as) {
  if (Number.isNaN(value)) return -1;
  if (!(Math.abs(z) >= NEUTRAL)) return LEVELS; // nor does it stand out where there is no z
  const from = as === "z" ? NEUTRAL : 0;
  const part = Math.min(Math.max((Math.abs(value) - from) / (limit - from), 0), 1);
  const step = 1 + Math.round(part * (LEVELS - 1));
  return value < 0 ? LEVELS - step : LEVELS + step;
}

// --- words and themes -----------------------------------------------------------------------

// A value with its sign, as short as its scale allows.
export function formatted(value, as) {
  if (value === null || !Number.isFinite(value)) return "\u2013";
  const digits = as === "cosine" ? 3 : Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2;
  const sign = value < 0 ? "\u2212" : "+";
  return sign + Math.abs(value).toFixed(digits);
}

// What a z says beside neutral text, in words.
export function wordsOf(z) {
  if (z === null || !Number.isFinite(z)) return "nothing to read";
  const size = Math.abs(z);
  if (size < NEUTRAL) return "the same";
  const much = size < 2 ? "somewhat" : size < 4 ? "clearly" : "far";
  return `${much} ${z > 0 ? "more" : "less"}`;
}

// The colours that canvases are drawn with, from the style variables that hold at an element.
export function themeOf(element) {
  const style = getComputedStyle(element);
  const of = (name, other) => style.getPropertyValue(name).trim() || other;
  const ink = style.color;
  const dark = luminance(rgbOf(ink)) > 0.4;
  const name = dark ? "dark" : "light";
  return {
    dark,
    ink,
    faint: of("--dim", dark ? "#8b9199" : "#71767d"),
    line: of("--line", dark ? "#3a3f45" : "#dddcd8"),
    surface: of("--paper", dark ? "#1c1f23" : "#ffffff"),
    cross: dark ? "#ffffff" : "#101214",
    font: style.fontFamily,
    palette: PALETTES[name],
    lines: LINES[name],
  };
}

const rgbOf = (css) => (css.match(/[\d.]+/g) || [0, 0, 0]).slice(0, 3).map(Number);
