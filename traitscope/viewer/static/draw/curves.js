// The two curves beside the heat map, sharing its axes: over tokens (x as the heat map's columns)
// and over sites (y as its rows).  Several traits may lie over one another; the first one given is
// the chosen one: its neutral band is shaded, and its marks are drawn.  A line is {measured, colour,
// dash}; a view is that of heat.js.  Knows nothing of pages, only of canvases.

import { FRAME, drawRoles, drawSiteNames, line, placesOf, sized } from "./heat.js";
import { NEUTRAL, formatted, settles, velocity } from "./scale.js";

const LANE = 46; // height of the lane that shows the change per token

// The neutral band of a trait for one token at one site, in the units of the scale: [low, high].
export function bandAt(text, measured, t, s) {
  if (measured.as === "z") return [-NEUTRAL, NEUTRAL];
  const about = text.traits[measured.trait];
  const last = t === text.n_prompt - 1;
  const mean = (last ? about.neutral_prompt_mean : about.neutral_mean)[s];
  const std = (last ? about.neutral_prompt_std : about.neutral_std)[s] * NEUTRAL;
  const unit = measured.as === "cosine" ? Math.max(text.norm[t * text.S + s], 1e-12) : 1;
  return [(mean - std) / unit, (mean + std) / unit];
}

// --- over tokens ----------------------------------------------------------------------------

// `marks`: {velocity, settles} (booleans); `token` is where the cross-hair is.
export function drawOverTokens(canvas, view, site, lines, marks, token) {
  const { g, width, height } = sized(canvas, view.ratio);
  const at = placesOf(view, width, height);
  const bottom = height - FRAME.bottom - (marks.velocity ? LANE : 0);
  const scale = scaleOf(tokenRange(view, site, lines), bottom, FRAME.top);
  const middle = (c) => at.x(c) + at.cell / 2;
  drawValueAxis(g, view, scale, width);
  within(g, FRAME.left, FRAME.top, at.width, bottom - FRAME.top, () => {
    bandOverTokens(g, view, site, lines[0].measured, scale, at);
    for (const each of [...lines].reverse()) {
      styled(g, each, view);
      stroked(g, view.from, view.to, (c) => valueAt(each, view, view.columns[c], site), middle, scale);
      if (at.cell > 7 && each === lines[0]) dots(g, view, each, site, middle, scale);
    }
    g.setLineDash([]);
    if (marks.settles) drawSettling(g, view, site, lines[0], middle, scale);
  });
  if (marks.velocity) drawVelocity(g, view, site, lines[0], at, bottom, width);
  drawRoles(g, view, at, height - FRAME.bottom);
  crossTokens(g, view, site, lines[0], token, middle, scale, bottom);
}

const valueAt = (each, view, t, s) => each.measured.value[t * view.text.S + s];

// Symmetric, and as far as what is shown reaches: template tokens may be cut off.
function tokenRange(view, site, lines) {
  const { text, columns } = view;
  let most = lines[0].measured.as === "raw" ? 0 : view.limit * 1.08;
  for (const t of columns) {
    if (!text.tokens.content[t] && t !== text.n_prompt - 1) continue;
    for (const each of lines) {
      const size = Math.abs(valueAt(each, view, t, site));
      if (size * 1.08 > most) most = size * 1.08;
    }
  }
  return most || 1;
}

function scaleOf(most, low, high) {
  return { most, low, high, at: (v) => low + ((v + most) / (2 * most)) * (high - low) };
}

function drawValueAxis(g, view, scale, width) {
  const { as } = view.measured;
  g.font = `11px ${view.theme.font}`;
  g.textAlign = "right";
  g.textBaseline = "middle";
  for (const value of ticksOf(scale.most)) {
    const y = scale.at(value);
    g.strokeStyle = view.theme.line;
    g.globalAlpha = value === 0 ? 1 : 0.6;
    line(g, FRAME.left, y, width - FRAME.right, y);
    g.globalAlpha = 1;
    g.fillStyle = view.theme.faint;
    g.fillText(value === 0 ? "0" : tickText(value, as), FRAME.left - 7, y);
  }
}

// A few round numbers on either side of 0.
export function ticksOf(most) {
  const rough = most / 1.6;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [5, 2, 1].map((m) => m * power).find((size) => size <= rough) || rough;
  const each = Math.floor((most * 0.97) / step);
  return Array.from({ length: 2 * each + 1 }, (_, i) => (i - each) * step);
}

function tickText(value, as) {
  const size = Math.abs(value);
  const digits = size >= 1 || size === 0 ? 0 : Math.ceil(-Math.log10(size) - 1e-9);
  return (value < 0 ? "\u2212" : "+") + (size >= 1e5 ? size.toExponential(0) : size.toFixed(digits));
}

function within(g, x, y, width, height, draw) {
  g.save();
  g.beginPath();
  g.rect(x, y, width, height);
  g.clip();
  draw();
  g.restore();
}

function bandOverTokens(g, view, site, measured, scale, at) {
  g.fillStyle = view.theme.palette.css[127];
  for (let c = view.from; c < view.to; c += 1) {
    const [low, high] = bandAt(view.text, measured, view.columns[c], site);
    // a hair wider, so that neighbours leave no seam
    g.fillRect(at.x(c) - 0.2, scale.at(high), at.cell + 0.4, scale.at(low) - scale.at(high));
  }
}

function styled(g, each, view) {
  g.strokeStyle = each.colour;
  g.fillStyle = each.colour;
  g.lineWidth = each.measured !== view.measured ? 1.4 : view.to - view.from > 600 ? 1 : 2;
  g.setLineDash(each.dash);
  g.lineJoin = "round";
}

// A line through values; a gap where one is not there.
function stroked(g, from, to, value, x, scale) {
  g.beginPath();
  let open = false;
  for (let i = from; i < to; i += 1) {
    const v = value(i);
    if (Number.isNaN(v)) open = false;
    else if (open) g.lineTo(x(i), scale.at(v));
    else {
      g.moveTo(x(i), scale.at(v));
      open = true;
    }
  }
  g.stroke();
}

function dots(g, view, each, site, middle, scale) {
  for (let c = view.from; c < view.to; c += 1) {
    g.beginPath();
    g.arc(middle(c), scale.at(valueAt(each, view, view.columns[c], site)), 2.4, 0, 7);
    g.fill();
  }
}

// A flag at the token where the trait settles; on a z scale also the mean so far, which says it.
function drawSettling(g, view, site, each, middle, scale) {
  const found = settles(view.text, each.measured, site);
  if (!found) return;
  const column = new Map(view.columns.map((t, c) => [t, c]));
  if (each.measured.as === "z") {
    g.strokeStyle = view.theme.ink;
    g.lineWidth = 1.2;
    g.setLineDash([1, 2]);
    const shown = found.tokens.map((t, i) => [column.get(t), found.means[i]]);
    stroked(g, 0, shown.length, (i) => shown[i][1], (i) => middle(shown[i][0]), scale);
    g.setLineDash([]);
  }
  const x = middle(column.get(found.token));
  g.strokeStyle = view.theme.ink;
  g.fillStyle = view.theme.ink;
  g.lineWidth = 1.2;
  line(g, x, scale.low, x, scale.high);
  g.beginPath();
  g.moveTo(x, scale.high);
  g.lineTo(x + 9, scale.high + 4);
  g.lineTo(x, scale.high + 8);
  g.fill();
}

function drawVelocity(g, view, site, each, at, top, width) {
  const steps = velocity(each.measured, site, view.columns);
  const shown = steps.slice(view.from, view.to).map(Math.abs).filter(Number.isFinite);
  const most = Math.max(...shown, 1e-12);
  const zero = top + 6 + (LANE - 6) / 2;
  const { css } = view.theme.palette;
  g.strokeStyle = view.theme.line;
  line(g, FRAME.left, zero, width - FRAME.right, zero);
  for (let c = view.from; c < view.to; c += 1) {
    const step = steps[c];
    if (Number.isNaN(step)) continue;
    const height = (step / most) * ((LANE - 8) / 2);
    g.fillStyle = css[step < 0 ? 127 - 85 : 127 + 85];
    g.fillRect(at.x(c) + at.cell * 0.15, Math.min(zero, zero - height), at.cell * 0.7, Math.abs(height));
  }
  g.fillStyle = view.theme.faint;
  g.textAlign = "right";
  g.textBaseline = "middle";
  g.fillText("change", FRAME.left - 7, zero - 6);
  g.fillText(`\u00b1${formatted(most, each.measured.as).slice(1)}`, FRAME.left - 7, zero + 7);
}

function crossTokens(g, view, site, each, token, middle, scale, bottom) {
  const column = view.columns.indexOf(token);
  if (column < view.from || column >= view.to) return;
  const x = middle(column);
  g.strokeStyle = view.theme.cross;
  g.globalAlpha = 0.55;
  g.lineWidth = 1;
  line(g, x, FRAME.top, x, bottom);
  g.globalAlpha = 1;
  const value = valueAt(each, view, token, site);
  ring(g, view, each, x, Math.min(Math.max(scale.at(value), FRAME.top), bottom));
}

function ring(g, view, each, x, y) {
  if (Number.isNaN(y)) return;
  g.beginPath();
  g.arc(x, y, 4.5, 0, 7);
  g.fillStyle = each.colour;
  g.fill();
  g.strokeStyle = view.theme.surface;
  g.lineWidth = 1.5;
  g.stroke();
}

// --- over sites -----------------------------------------------------------------------------

// `holds`: the first site from which the trait stays outside the neutral band, or null.
export function drawOverSites(canvas, view, token, lines, holds, site) {
  const { g, width, height } = sized(canvas, view.ratio);
  const at = placesOf(view, width, height);
  const scale = scaleOf(siteRange(view, token, lines), FRAME.left, width - FRAME.right);
  const middle = (s) => at.y(s) + at.row / 2;
  bandOverSites(g, view, token, lines[0].measured, scale, middle);
  drawSiteNames(g, view, at, site);
  drawFoot(g, view, scale, height);
  within(g, FRAME.left, FRAME.top - 3, at.width, at.height + 6, () => {
    for (const each of [...lines].reverse()) {
      styled(g, each, view);
      upright(g, view.text.S, (s) => valueAt(each, view, token, s), middle, scale);
    }
    g.setLineDash([]);
  });
  if (holds !== null) drawHolds(g, view, token, lines[0], holds, middle, scale);
  crossSites(g, view, token, lines[0], site, middle, scale, width);
}

function siteRange(view, token, lines) {
  let most = lines[0].measured.as === "raw" ? 0 : view.limit * 1.08;
  for (const each of lines) {
    for (let s = 0; s < view.text.S; s += 1) {
      const size = Math.abs(valueAt(each, view, token, s));
      if (size * 1.08 > most) most = size * 1.08;
    }
  }
  return most || 1;
}

function bandOverSites(g, view, token, measured, scale, middle) {
  const { S } = view.text;
  const edges = Array.from({ length: S }, (_, s) => bandAt(view.text, measured, token, s));
  g.fillStyle = view.theme.palette.css[127];
  within(g, FRAME.left, 0, scale.high - scale.low, 1e5, () => {
    g.beginPath();
    for (let s = 0; s < S; s += 1) g.lineTo(scale.at(edges[s][0]), middle(s));
    for (let s = S - 1; s >= 0; s -= 1) g.lineTo(scale.at(edges[s][1]), middle(s));
    g.fill();
  });
}

function drawFoot(g, view, scale, height) {
  g.textAlign = "center";
  g.textBaseline = "top";
  for (const value of ticksOf(scale.most)) {
    const x = scale.at(value);
    g.strokeStyle = view.theme.line;
    g.globalAlpha = value === 0 ? 1 : 0.6;
    line(g, x, FRAME.top, x, height - FRAME.bottom);
    g.globalAlpha = 1;
    g.fillStyle = view.theme.faint;
    g.fillText(value === 0 ? "0" : tickText(value), x, height - FRAME.bottom + 6);
  }
}

function upright(g, n, value, y, scale) {
  g.beginPath();
  let open = false;
  for (let s = 0; s < n; s += 1) {
    const v = value(s);
    if (Number.isNaN(v)) open = false;
    else if (open) g.lineTo(scale.at(v), y(s));
    else {
      g.moveTo(scale.at(v), y(s));
      open = true;
    }
  }
  g.stroke();
}

// From here on: a tick on the curve and the words beside it.
function drawHolds(g, view, token, each, holds, middle, scale) {
  const y = middle(holds);
  const x = scale.at(valueAt(each, view, token, holds));
  g.strokeStyle = view.theme.ink;
  g.lineWidth = 2;
  line(g, x - 9, y, x + 9, y);
  g.fillStyle = view.theme.ink;
  g.font = `11px ${view.theme.font}`;
  g.textBaseline = "middle";
  const right = x > (scale.low + scale.high) / 2;
  g.textAlign = right ? "right" : "left";
  const words = [`from ${view.text.sites[holds]} on`, right ? x - 13 : x + 13, y];
  g.strokeStyle = view.theme.surface;
  g.lineWidth = 4;
  g.strokeText(...words);
  g.fillText(...words);
}

function crossSites(g, view, token, each, site, middle, scale, width) {
  if (site < 0) return;
  g.strokeStyle = view.theme.cross;
  g.globalAlpha = 0.55;
  g.lineWidth = 1;
  line(g, FRAME.left, middle(site), width - FRAME.right, middle(site));
  g.globalAlpha = 1;
  ring(g, view, each, scale.at(valueAt(each, view, token, site)), middle(site));
}

// --- the legend -----------------------------------------------------------------------------

// The colour scale with its ends, its unit and its neutral band, along the width of a canvas.
export function drawLegend(canvas, view, colourOf) {
  const { g, width } = sized(canvas, view.ratio);
  const { as } = view.measured;
  const [left, right, top, tall] = [16, width - 16, 2, 10];
  const { css } = view.theme.palette;
  const inside = as === "z" ? (v) => v : () => 2; // other scales have their band by site: not here
  for (let x = left; x < right; x += 1) {
    const value = (((x - left) / (right - left)) * 2 - 1) * view.limit;
    g.fillStyle = css[colourOf(value, inside(value), view.limit, as)];
    g.fillRect(x, top, 1.3, tall);
  }
  g.font = `11px ${view.theme.font}`;
  g.textBaseline = "top";
  g.textAlign = "center";
  g.fillStyle = view.theme.faint;
  const place = (v) => left + ((v / view.limit + 1) / 2) * (right - left);
  const ends = [-view.limit, view.limit].map((v) => [v, formatted(v, as)]);
  const apart = as === "z" && place(NEUTRAL) - place(-NEUTRAL) > 24;
  const edges = apart ? [[-NEUTRAL, "\u22121"], [NEUTRAL, "+1"]] : [[0, "0"]];
  for (const [value, words] of [...ends, ...edges]) g.fillText(words, place(value), top + tall + 3);
}
