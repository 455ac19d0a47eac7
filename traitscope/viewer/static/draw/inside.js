// The inside of one block on canvases: what each part wrote at each token (a map, drawn by heat.js),
// lines from a token to what a head looked at, and one head's whole matrix.  Weights are 0 to 1, what
// was written is in units of the residual stream.  Knows nothing of pages or requests.

import { placesOf, sized } from "./heat.js";
import { colourOf, percentile } from "./scale.js";
import { visibleText } from "./tokens.js";

export const LINES = 48; // from one token, the largest weights
export const LEAST = 0.005; // a line of less would not be seen
const LABELS = 58; // px under the lines
const LETTERS = 9;

// --- parts x tokens ------------------------------------------------------------------------------

// What `internals/.../tokens` sends, by name: arrays [T] of each head, of attention's bias, of all
// neurons, of the MLP's bias, and of the true change of each account.
export function readParts(values, side, T) {
  const C = values.length / T;
  const column = (c) => Float32Array.from({ length: T }, (_, t) => values[t * C + c]);
  const heads = Array.from({ length: side.heads }, (_, h) => ({ name: `head ${h}`, head: h, values: column(h) }));
  const [bias, neurons, mlpBias] = [0, 1, 2].map((i) => column(side.heads + i));
  const rest = [
    { name: "attn bias", values: bias },
    { name: "neurons", values: neurons },
    { name: "MLP bias", values: mlpBias },
  ].filter((part) => part.name === "neurons" || part.values.some((value) => value !== 0));
  const changes = Array.from({ length: C - side.heads - 3 }, (_, i) => column(side.heads + 3 + i));
  const attention = bias.map((value, t) => value + heads.reduce((sum, part) => sum + part.values[t], 0));
  return { rows: [...heads, ...rest], attention, mlp: neurons.map((value, t) => value + mlpBias[t]), changes };
}

// The map's view for heat.js, in which rows are what sites are there; the first row is on top.
export function partsView(text, parts, columns, theme) {
  const rows = [...parts.rows].reverse();
  const S = rows.length;
  const value = new Float32Array(text.T * S);
  rows.forEach((row, s) => row.values.forEach((v, t) => (value[t * S + s] = v)));
  const sizes = [];
  for (const t of columns) if (text.tokens.content[t]) for (let s = 0; s < S; s += 1) sizes.push(Math.abs(value[t * S + s]));
  return viewOf({ ...text, S, sites: rows.map((row) => row.name) }, value, columns, percentile(sizes, 99), theme);
}

// The view of one number a token, for tokens.js.
export function tokenView(text, values, columns, theme) {
  const sizes = columns.filter((t) => text.tokens.content[t]).map((t) => Math.abs(values[t]));
  return viewOf({ ...text, S: 1, sites: [""] }, values, columns, percentile(sizes, 99), theme);
}

function viewOf(text, value, columns, limit, theme) {
  const z = new Float32Array(value.length).fill(Infinity); // what was written has no neutral band
  const measured = { value, z, as: "raw", S: text.S };
  return { text, measured, columns, from: 0, to: columns.length, limit: limit > 0 ? limit : 1, theme };
}

// --- lines ---------------------------------------------------------------------------------------

// From `token` to what was looked at.  As wide as the weight; coloured by what was carried of the
// trait from there, where that is known.  Gives back the share that went to tokens not shown.
export function drawLooks(canvas, view, token, weights, carried) {
  const { g, width, height } = sized(canvas);
  const at = placesOf(view, width, height);
  const places = new Map(view.columns.map((t, c) => [t, c]));
  const middle = (t) => at.x(places.get(t)) + at.cell / 2;
  const base = height - LABELS;
  const seen = view.columns.filter((t) => weights[t] >= LEAST).sort((a, b) => weights[b] - weights[a]);
  const most = carried ? Math.max(...seen.map((t) => Math.abs(carried[t])), 1e-12) : 1;
  if (places.has(token)) {
    for (const t of seen.slice(0, LINES).reverse()) {
      // by the square root: a pale line of little is hard to see
      const size = carried ? Math.sign(carried[t]) * Math.sqrt(Math.abs(carried[t]) / most) : NaN;
      const colour = carried ? view.theme.palette.css[colourOf(size, Infinity, 1, "raw")] : view.theme.faint;
      drawArc(g, middle(token), middle(t), base, weights[t], colour);
    }
  }
  drawLabels(g, view, at, places, base, token, [...new Set([token, ...seen])]);
  const shown = view.columns.reduce((sum, t) => sum + weights[t], 0);
  return Math.max(weights.reduce((sum, weight) => sum + weight, 0) - shown, 0);
}

function drawArc(g, from, to, base, weight, colour) {
  g.strokeStyle = colour;
  g.lineWidth = 0.6 + 8 * weight;
  g.beginPath();
  if (Math.abs(from - to) < 1) {
    g.arc(from, base - 9, 7, 0, 7); // to itself
  } else {
    const high = Math.min(14 + Math.abs(from - to) * 0.6, (base - 6) * 1.25);
    g.moveTo(from, base);
    g.bezierCurveTo(from, base - high, to, base - high, to, base);
  }
  g.stroke();
}

// Every token's text upright under its column, or of the most looked at where there is no room.
function drawLabels(g, view, at, places, base, token, order) {
  const taken = [];
  g.textAlign = "right";
  g.textBaseline = "middle";
  const wanted = at.cell >= 10 ? view.columns : order;
  for (const t of wanted) {
    if (!places.has(t)) continue;
    const x = at.x(places.get(t)) + at.cell / 2;
    if (taken.some((other) => Math.abs(other - x) < 10)) continue;
    taken.push(x);
    g.save();
    g.translate(x, base + 5);
    g.rotate(-Math.PI / 2);
    g.font = `${t === token ? "bold " : ""}11px ${view.theme.font}`;
    g.fillStyle = t === token ? view.theme.ink : view.theme.faint;
    g.fillText(shortened(visibleText(view.text, t)), 0, 0);
    g.restore();
  }
}

const shortened = (words) => {
  const letters = [...words];
  return letters.length > LETTERS ? `${letters.slice(0, LETTERS - 1).join("")}\u2026` : words;
};

// --- the matrix ----------------------------------------------------------------------------------

// Row: the token that looks; column: what it looks at.  Colours are by the square root of the weight,
// since most weights are small beside those of the first token.
export function drawMatrix(canvas, { matrix, step }, T, token, theme) {
  const { g, width, height } = sized(canvas);
  const n = Math.round(Math.sqrt(matrix.length));
  const at = squareOf(width, height);
  const image = new ImageData(n, n);
  const { rgb } = theme.palette;
  matrix.forEach((weight, i) => {
    if (i % n > Math.floor(i / n)) return;
    const [r, green, b] = rgb[127 + Math.round(Math.sqrt(Math.min(Math.max(weight, 0), 1)) * 127)];
    image.data.set([r, green, b, 255], 4 * i);
  });
  const cells = document.createElement("canvas");
  Object.assign(cells, { width: n, height: n });
  cells.getContext("2d").putImageData(image, 0, 0);
  g.imageSmoothingEnabled = at.side / n < 1;
  g.drawImage(cells, at.x, at.y, at.side, at.side);
  g.strokeStyle = theme.line;
  g.strokeRect(at.x + 0.5, at.y + 0.5, at.side - 1, at.side - 1);
  const row = (at.side * step) / T;
  const y = at.y + Math.floor(token / step) * row;
  g.strokeStyle = theme.cross;
  g.strokeRect(at.x - 1, y, at.side + 2, Math.max(row, 2));
  g.fillStyle = theme.faint;
  g.font = `11px ${theme.font}`;
  g.textBaseline = "bottom";
  g.textAlign = "left";
  g.fillText("looked at \u2192", at.x, at.y - 3);
  g.save();
  g.translate(at.x - 4, at.y);
  g.rotate(-Math.PI / 2);
  g.textAlign = "right";
  g.fillText("\u2190 from token", 0, 0);
  g.restore();
}

function squareOf(width, height) {
  return { x: 18, y: 16, side: Math.max(Math.min(width - 20, height - 18), 8) };
}

// The tokens under a point of the matrix: {from, to}; null outside.
export function matrixAt(canvas, T, x, y) {
  const at = squareOf(canvas.clientWidth, canvas.clientHeight);
  const [to, from] = [(x - at.x) / at.side, (y - at.y) / at.side].map((part) => Math.floor(part * T));
  return from >= 0 && from < T && to >= 0 && to <= from ? { from, to } : null;
}
