// The heat map: sites (rows, the last one on top) x tokens (columns), on a canvas of its own, since
// a chart library takes longer to redraw 2000 x 81 cells than a hand takes to move on.  A bitmap
// with a pixel a cell is made once for what is shown and drawn scaled; the cross-hair lies on a
// second canvas above it.  A view is {text, measured, columns, from, to, limit, theme, ratio}: columns
// `from` to `to` (exclusive) are shown; `ratio` (pixels to a CSS pixel) is the screen's if not given.  Knows nothing of pages, only of canvases.

export const FRAME = { left: 62, right: 10, top: 8, bottom: 22 };

// A canvas as large as it is shown, in device pixels, cleared: {g, width, height} in CSS pixels.
export function sized(canvas, ratio = globalThis.devicePixelRatio || 1) {
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== w || canvas.height !== h) Object.assign(canvas, { width: w, height: h });
  const g = canvas.getContext("2d");
  g.setTransform(ratio, 0, 0, ratio, 0, 0);
  g.clearRect(0, 0, width, height);
  return { g, width, height };
}

// Where things are on a canvas of this size: x of a column's left edge, y of a site's top edge.
export function placesOf(view, width, height) {
  const n = Math.max(view.to - view.from, 1);
  const inner = { width: width - FRAME.left - FRAME.right, height: height - FRAME.top - FRAME.bottom };
  const [cell, row] = [inner.width / n, inner.height / view.text.S];
  return {
    ...inner,
    cell,
    row,
    x: (column) => FRAME.left + (column - view.from) * cell,
    y: (site) => FRAME.top + (view.text.S - 1 - site) * row,
  };
}

// Which column and site are under a point of the canvas; null outside.
export function heatAt(canvas, view, x, y) {
  const at = placesOf(view, canvas.clientWidth, canvas.clientHeight);
  const column = view.from + Math.floor((x - FRAME.left) / at.cell);
  const site = view.text.S - 1 - Math.floor((y - FRAME.top) / at.row);
  const inside = column >= view.from && column < view.to && site >= 0 && site < view.text.S;
  return inside ? { column, site } : null;
}

export function drawHeat(canvas, view, colourOf) {
  const { g, width, height } = sized(canvas, view.ratio);
  const at = placesOf(view, width, height);
  hatched(g, FRAME.left, FRAME.top, at.width, at.height, view.theme);
  const cells = bitmapOf(view, colourOf);
  if (cells) {
    // where several tokens share a pixel their colours are mixed, not dropped
    g.imageSmoothingEnabled = at.cell < 1 || at.row < 1;
    g.imageSmoothingQuality = "high";
    g.drawImage(cells, FRAME.left, FRAME.top, at.width, at.height);
  }
  drawSiteNames(g, view, at);
  drawRoles(g, view, at, height - FRAME.bottom);
}

function bitmapOf(view, colourOf) {
  const { text, measured, columns, from, to, limit, theme } = view;
  if (to <= from) return null;
  const image = new ImageData(to - from, text.S);
  const { rgb } = theme.palette;
  for (let c = from; c < to; c += 1) {
    for (let s = 0; s < text.S; s += 1) {
      const i = columns[c] * text.S + s;
      const colour = colourOf(measured.value[i], measured.z[i], limit, measured.as);
      if (colour < 0) continue; // nothing there: the hatching shows
      const pixel = 4 * ((text.S - 1 - s) * (to - from) + (c - from));
      [image.data[pixel], image.data[pixel + 1], image.data[pixel + 2]] = rgb[colour];
      image.data[pixel + 3] = 255;
    }
  }
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width: to - from, height: text.S });
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

function hatched(g, x, y, width, height, theme) {
  g.save();
  g.beginPath();
  g.rect(x, y, width, height);
  g.clip();
  g.strokeStyle = theme.line;
  g.lineWidth = 1;
  g.beginPath();
  for (let i = -height; i < width; i += 6) {
    g.moveTo(x + i, y + height);
    g.lineTo(x + i + height, y);
  }
  g.stroke();
  g.restore();
}

// Every site's name, or every second, fourth, ... where they would touch; the last one always.
export function drawSiteNames(g, view, at, chosen = -1) {
  const { sites, S } = view.text;
  g.font = `11px ${view.theme.font}`;
  g.textAlign = "right";
  g.textBaseline = "middle";
  let step = 1;
  while (step * at.row < 13) step *= 2;
  for (let s = S - 1; s >= 0; s -= step) {
    g.fillStyle = s === chosen ? view.theme.ink : view.theme.faint;
    g.fillText(sites[s], FRAME.left - 7, at.y(s) + at.row / 2);
  }
}

// Under the columns: whose words these are, with a line where the answer begins.
export function drawRoles(g, view, at, y) {
  const { tokens, n_prompt } = view.text;
  g.font = `11px ${view.theme.font}`;
  g.textAlign = "left";
  g.textBaseline = "top";
  for (const run of rolesOf(view)) {
    const [x, end] = [at.x(run.from), at.x(run.to)];
    g.fillStyle = view.theme.line;
    g.fillRect(x + 0.5, y + 3, Math.max(end - x - 1, 0.5), 2);
    g.fillStyle = view.theme.faint;
    const name = run.role === "template" ? "" : run.role;
    if (name && g.measureText(name).width + 2 < end - x) g.fillText(name, x + 1, y + 8);
  }
  const answer = view.columns.findIndex((t) => t >= n_prompt);
  if (answer < view.from || answer >= view.to || !tokens.id.length) return;
  g.strokeStyle = view.theme.ink;
  g.setLineDash([2, 3]);
  line(g, at.x(answer), FRAME.top, at.x(answer), y + 6);
  g.setLineDash([]);
}

function rolesOf(view) {
  const { role, turn } = view.text.tokens;
  const runs = [];
  for (let c = view.from; c < view.to; c += 1) {
    const t = view.columns[c];
    const last = runs[runs.length - 1];
    if (last && last.role === role[t] && last.turn === turn[t]) last.to = c + 1;
    else runs.push({ role: role[t], turn: turn[t], from: c, to: c + 1 });
  }
  return runs;
}

export function line(g, x, y, toX, toY) {
  g.beginPath();
  g.moveTo(x, y);
  g.lineTo(toX, toY);
  g.stroke();
}

// The cross-hair on the canvas above the heat map; a column of -1 is one that is not shown.
export function drawCross(canvas, view, column, site) {
  const { g, width, height } = sized(canvas, view.ratio);
  const at = placesOf(view, width, height);
  const shown = column >= view.from && column < view.to;
  const [x, y] = [at.x(column), at.y(site)];
  g.strokeStyle = view.theme.cross;
  g.globalAlpha = 0.55;
  g.lineWidth = 1;
  if (site >= 0) {
    const middle = y + at.row / 2;
    line(g, FRAME.left, middle, shown ? x : width - FRAME.right, middle);
    if (shown) line(g, x + at.cell, middle, width - FRAME.right, middle);
  }
  if (shown) {
    const middle = x + at.cell / 2;
    line(g, middle, FRAME.top, middle, y);
    line(g, middle, y + at.row, middle, height - FRAME.bottom + 6);
    g.globalAlpha = 1;
    g.lineWidth = 1.5;
    const [w, h] = [Math.max(at.cell, 4), Math.max(at.row, 4)];
    g.strokeRect(x + (at.cell - w) / 2, y + (at.row - h) / 2, w, h);
  }
  g.globalAlpha = 1;
  markSite(g, view, at, site);
}

// The chosen site's name, above whatever names stand there.
function markSite(g, view, at, site) {
  if (site < 0) return;
  const y = Math.min(Math.max(at.y(site) + at.row / 2, FRAME.top + 5), FRAME.top + at.height - 5);
  g.fillStyle = view.theme.surface;
  g.fillRect(0, y - 8, FRAME.left - 3, 16);
  g.font = `bold 11px ${view.theme.font}`;
  g.textAlign = "right";
  g.textBaseline = "middle";
  g.fillStyle = view.theme.ink;
  g.fillText(view.text.sites[site], FRAME.left - 7, y);
}
