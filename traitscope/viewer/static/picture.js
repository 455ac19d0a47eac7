// What is shown, as a file: any part of a page as a PNG, and rows as CSV.

import { download } from "./dom.js";

const NOT_XML = /[\0-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]/g;
const MARGIN = 16; // px; below twice that, since letters may be set a little larger in a picture
const TALLEST = 8000; // px: browsers refuse larger canvases

// --- a picture -----------------------------------------------------------------------------------

// Saves an element as the browser shows it.  Elements marked with data-no-picture are left out.
export async function savePicture(root, name) {
  const { image, width, height } = await imageOf(root);
  const ratio = Math.max(globalThis.devicePixelRatio || 1, 2);
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width: Math.round(width * ratio), height: Math.round(height * ratio) });
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/png")).catch(() => null);
  if (!blob) throw new Error("This browser does not save a page as a picture. Take a screenshot, or save the CSV.");
  download(`${name}.png`, blob);
}

async function imageOf(root) {
  const width = root.scrollWidth + 2 * MARGIN;
  const height = Math.min(root.scrollHeight + 4 * MARGIN, TALLEST);
  const copy = root.cloneNode(true);
  const drawn = [...root.querySelectorAll("canvas")];
  [...copy.querySelectorAll("canvas")].forEach((canvas, i) => canvas.replaceWith(pictured(drawn[i])));
  // heights that follow the window would follow the picture's
  const stacks = [...root.querySelectorAll(".stack")];
  [...copy.querySelectorAll(".stack")].forEach((stack, i) => (stack.style.height = `${stacks[i].clientHeight}px`));
  const chosen = [...root.querySelectorAll("select")];
  [...copy.querySelectorAll("select")].forEach((select, i) => select.options[chosen[i].selectedIndex]?.setAttribute("selected", ""));
  const typed = [...root.querySelectorAll("input")];
  [...copy.querySelectorAll("input")].forEach((input, i) => input.setAttribute("value", typed[i].value));
  for (const node of copy.querySelectorAll("[data-no-picture]")) node.remove();
  for (const node of textsIn(copy)) node.data = node.data.replace(NOT_XML, "\ufffd");
  const { fontFamily, fontSize, lineHeight, color } = getComputedStyle(root);
  const paper = getComputedStyle(document.body).backgroundColor;
  const box = document.createElement("div");
  box.setAttribute("style", `box-sizing:border-box;padding:${MARGIN}px;width:${width}px;height:${height}px;overflow:hidden;background:${paper};color:${color};font-family:${fontFamily};font-size:${fontSize};line-height:${lineHeight}`);
  const style = document.createElement("style");
  style.textContent = rules();
  box.append(style, copy);
  const theme = document.documentElement.dataset.theme;
  const inside = new XMLSerializer().serializeToString(box);
  const svg = `<svg xmlns="http://www.w3.org/2000/svg" data-theme="${theme}" width="${width}" height="${height}"><foreignObject width="100%" height="100%">${inside}</foreignObject></svg>`;
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(svg)}`;
  await image.decode();
  return { image, width, height };
}

function pictured(canvas) {
  const image = document.createElement("img");
  image.setAttribute("class", canvas.className);
  image.setAttribute("style", `width:${canvas.clientWidth}px;height:${canvas.clientHeight}px`);
  if (canvas.width && canvas.height) image.src = canvas.toDataURL();
  return image;
}

const rules = () =>
  [...document.styleSheets].flatMap((sheet) => [...sheet.cssRules].map((rule) => rule.cssText)).join("\n");

function textsIn(node) {
  const walker = document.createTreeWalker(node, NodeFilter.SHOW_TEXT);
  const found = [];
  while (walker.nextNode()) found.push(walker.currentNode);
  return found;
}

// --- a table -------------------------------------------------------------------------------------

export function saveRows(rows, name) {
  download(`${name}.csv`, rows.map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n");
}

function cell(value) {
  let text = value === null || value === undefined || Number.isNaN(value) ? "" : String(value);
  // a spreadsheet would run these; an apostrophe says that they are text, and one in front is kept
  if (typeof value === "string" && /^[=+\-@\t\r']/.test(value)) text = `'${text}`;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
