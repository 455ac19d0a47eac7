// A scatter of responses on a canvas: z of one reading against z of another.  A dot is a response,
// never a token.  `points` are {x, y}; a view is {points, xName, yName, diagonal, theme}.

import { line, sized } from "./heat.js";
import { ticksOf } from "./curves.js";

const FRAME = { left: 52, right: 12, top: 10, bottom: 40 };
const NEAR = 12; // px

function scales(view, width, height) {
  const sizes = view.points.flatMap((p) => [Math.abs(p.x), Math.abs(p.y)]).filter(Number.isFinite);
  const most = Math.max(1.5, ...sizes) * 1.08; // one scale for both: the diagonal is where they agree
  const across = (v) => FRAME.left + ((v + most) / (2 * most)) * (width - FRAME.left - FRAME.right);
  const up = (v) => height - FRAME.bottom - ((v + most) / (2 * most)) * (height - FRAME.top - FRAME.bottom);
  return { most, across, up };
}

export function drawPoints(canvas, view, chosen) {
  const { g, width, height } = sized(canvas);
  const { most, across, up } = scales(view, width, height);
  g.fillStyle = view.theme.palette.css[127];
  g.fillRect(across(-1), FRAME.top, across(1) - across(-1), height - FRAME.top - FRAME.bottom);
  g.fillRect(FRAME.left, up(1), width - FRAME.left - FRAME.right, up(-1) - up(1));
  g.font = `11px ${view.theme.font}`;
  for (const tick of ticksOf(most)) {
    g.strokeStyle = view.theme.line;
    line(g, across(tick), FRAME.top, across(tick), height - FRAME.bottom);
    line(g, FRAME.left, up(tick), width - FRAME.right, up(tick));
    const words = tick === 0 ? "0" : `${tick < 0 ? "\u2212" : "+"}${Number(Math.abs(tick).toPrecision(3))}`;
    g.fillStyle = view.theme.faint;
    g.textAlign = "center";
    g.textBaseline = "top";
    g.fillText(words, across(tick), height - FRAME.bottom + 5);
    g.textAlign = "right";
    g.textBaseline = "middle";
    g.fillText(words, FRAME.left - 6, up(tick));
  }
  if (view.diagonal) {
    g.strokeStyle = view.theme.faint;
    g.setLineDash([4, 4]);
    line(g, across(-most), up(-most), across(most), up(most));
    g.setLineDash([]);
  }
  drawNames(g, view, width, height);
  const ink = view.theme.palette.css[view.theme.dark ? 220 : 230];
  g.globalAlpha = view.points.length > 400 ? 0.4 : 0.75;
  view.points.forEach((p, i) => i !== chosen && dot(g, across(p.x), up(p.y), 3.5, ink));
  g.globalAlpha = 1;
  const here = view.points[chosen];
  if (here) {
    dot(g, across(here.x), up(here.y), 6, view.theme.cross);
    dot(g, across(here.x), up(here.y), 4, ink);
  }
}

function drawNames(g, view, width, height) {
  g.fillStyle = view.theme.ink;
  g.textAlign = "center";
  g.textBaseline = "bottom";
  g.fillText(view.xName, (FRAME.left + width - FRAME.right) / 2, height - 4);
  g.save();
  g.translate(4, (FRAME.top + height - FRAME.bottom) / 2);
  g.rotate(-Math.PI / 2);
  g.textBaseline = "top";
  g.fillText(view.yName, 0, 0);
  g.restore();
}

function dot(g, x, y, size, colour) {
  if (Number.isNaN(x + y)) return;
  g.fillStyle = colour;
  g.beginPath();
  g.arc(x, y, size, 0, 7);
  g.fill();
}

// The number of the nearest point within reach of a place on the canvas; -1 for none.
export function pointNear(canvas, view, x, y) {
  const { across, up } = scales(view, canvas.clientWidth, canvas.clientHeight);
  let [best, least] = [-1, NEAR];
  view.points.forEach((p, i) => {
    const far = Math.hypot(across(p.x) - x, up(p.y) - y);
    if (far < least) [best, least] = [i, far];
  });
  return best;
}
