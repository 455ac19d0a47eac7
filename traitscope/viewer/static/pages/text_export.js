// What the trajectory page shows, as a picture and as a table.

import { download } from "../dom.js";
import { line } from "../draw/heat.js";
import { STYLE } from "../draw/tokens.js";

const FINE = 2; // pixels of a picture to one of the screen
const MARGIN = 16;
const HEAD = 44; // the picture's title
const LEGEND = 40;
const TALLEST = 4000; // px of words in a picture
const NOT_XML = /[\0-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]/g;

// --- a table ------------------------------------------------------------------------------------

// A row per token shown; of each trait shown its value at every site, as `TRAIT.AS@SITE`.
export function csvOf({ text, columns, from, to }, lines) {
  const { tokens, sites, S } = text;
  const named = lines.flatMap(({ measured }) =>
    sites.map((site) => `${text.traits[measured.trait].name}.${measured.as}@${site}`));
  const rows = [["position", "token_id", "text", "role", "part", "logprob", ...named]];
  for (const t of columns.slice(from, to)) {
    const values = lines.flatMap(({ measured }) => Array.from(measured.value.subarray(t * S, (t + 1) * S), numeral));
    rows.push([t, tokens.id[t], guarded(tokens.text[t]), tokens.role[t], tokens.part[t], numeral(tokens.logprob[t] ?? NaN), ...values]);
  }
  return rows.map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
}

// the shortest digits that are this float32; nothing for what is not there
function numeral(value) {
  if (Number.isNaN(value)) return "";
  for (let digits = 6; digits < 9; digits += 1) {
    const short = Number(value.toPrecision(digits));
    if (Math.fround(short) === value) return String(short);
  }
  return String(Number(value.toPrecision(9)));
}

// no spreadsheet takes it for a formula: as `traitscope export` has it
function guarded(text) {
  return /^[=+\-@\t\r\n'\uff1d\uff0b\uff0d\uff20]/.test(text) ? `'${text}` : text;
}

function cell(value) {
  const text = String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

export function saveCsv(page) {
  download(`${nameOf(page)}.csv`, csvOf(page.view, page.lines));
}

function nameOf({ text, state }) {
  return `${text.generation}.${text.traits[state.trait].name}.${state.as}`;
}

// --- a picture ----------------------------------------------------------------------------------

// The page's own drawings on one canvas, with the words above.
export async function savePng(page) {
  const words = await wordsImage(page.parts.words, page.view.theme);
  page.draw(FINE);
  const blob = (await blobOf(page, words)) ?? (await blobOf(page, null));
  page.draw();
  if (!blob) throw new Error("This picture is too large for the browser to save.");
  download(`${nameOf(page)}.png`, blob);
}

// null where the browser does not give a picture back that has words in it, as some do not.
async function blobOf(page, words) {
  try {
    return await new Promise((resolve) => pictureOf(page, words).toBlob(resolve, "image/png"));
  } catch (error) {
    if (error.name !== "SecurityError") throw error;
    return null;
  }
}

function pictureOf(page, words) {
  const { parts, view } = page;
  const origin = parts.grid.getBoundingClientRect();
  const drawn = [parts.heat, parts.cross, parts.sites, parts.tokens];
  const boxes = drawn.map((canvas) => canvas.getBoundingClientRect());
  const head = MARGIN + HEAD + (words ? words.height + 12 : 0);
  const first = Math.min(...boxes.map((box) => box.top));
  const height = head + LEGEND + Math.max(...boxes.map((box) => box.bottom)) - first + MARGIN;
  const width = origin.width + 2 * MARGIN;
  const { canvas, g } = blank(width, height, view.theme);
  drawHead(g, page);
  if (words) g.drawImage(words.image, MARGIN, MARGIN + HEAD, words.width, words.height);
  const legend = parts.legend.getBoundingClientRect();
  g.drawImage(parts.legend, MARGIN, head, legend.width, legend.height);
  g.fillText(parts.scaleWords(), MARGIN + legend.width + 8, head);
  drawn.forEach((part, i) => {
    const box = boxes[i];
    g.drawImage(part, MARGIN + box.left - origin.left, head + LEGEND + box.top - first, box.width, box.height);
  });
  return canvas;
}

function blank(width, height, theme) {
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width: Math.round(width * FINE), height: Math.round(height * FINE) });
  const g = canvas.getContext("2d");
  g.scale(FINE, FINE);
  g.fillStyle = theme.surface;
  g.fillRect(0, 0, width, height);
  return { canvas, g };
}

function drawHead(g, page) {
  const { text, state, lines } = page;
  const { theme } = page.view;
  const { token, site } = page.here();
  const title = `${text.traits[state.trait].name} at ${text.sites[site]}, token ${token}`;
  g.textBaseline = "top";
  g.fillStyle = theme.ink;
  g.font = `bold 14px ${theme.font}`;
  g.fillText(title, MARGIN, MARGIN);
  let x = MARGIN + g.measureText(title).width + 16;
  g.font = `12px ${theme.font}`;
  for (const { measured, colour, dash } of lines.slice(1)) {
    g.strokeStyle = colour;
    g.lineWidth = 2;
    g.setLineDash(dash);
    line(g, x, MARGIN + 8, x + 24, MARGIN + 8);
    const { name } = text.traits[measured.trait];
    g.fillText(name, x + 29, MARGIN + 2);
    x += 29 + g.measureText(name).width + 14;
  }
  g.setLineDash([]);
  g.fillStyle = theme.faint;
  g.fillText([text.run.name, text.run.model, text.generation].join(" \u00b7 "), MARGIN, MARGIN + 20);
}

// The words as the browser sets them, as an image: all of them, not only those scrolled to.
async function wordsImage(words, theme) {
  const copy = words.cloneNode(true);
  for (const node of textsIn(copy)) node.data = node.data.replace(NOT_XML, "\ufffd");
  const last = words.lastElementChild;
  const end = last ? last.offsetTop + last.offsetHeight + 8 : 0;
  const [width, height] = [words.clientWidth, Math.min(end, TALLEST)];
  const style = document.createElement("style");
  style.textContent = STYLE;
  copy.prepend(style);
  copy.removeAttribute("class");
  const { fontFamily, fontSize } = getComputedStyle(words);
  copy.setAttribute("style", `box-sizing:border-box;width:${width}px;padding:8px;color:${theme.ink};font-family:${fontFamily};font-size:${fontSize}`);
  const inside = new XMLSerializer().serializeToString(copy);
  const svg = `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}"><foreignObject width="100%" height="100%">${inside}</foreignObject></svg>`;
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(svg)}`;
  await image.decode();
  return { image, width, height };
}

function textsIn(node) {
  const walker = document.createTreeWalker(node, NodeFilter.SHOW_TEXT);
  const found = [];
  while (walker.nextNode()) found.push(walker.currentNode);
  return found;
}
