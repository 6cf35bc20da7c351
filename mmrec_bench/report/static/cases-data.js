"use strict";
// The case explorer, first part: data, and how items and ranks are shown.
// A page from disk can load no modules, so cases-data.js, cases-detail.js and cases-list.js are
// plain scripts, read in this order, that see one another's top-level names.
// All data comes from script files that call mmrecData, since such a page may fetch nothing else.
// Whatever comes from data sets is put in place as text only.

const PAGE = 50;
const waiting = new Map();
const chunks = new Map();
let folder = "";
let index = null;
let items = null;
let view = [];
let page = 0;
let current = -1;

const ui = {};
const make = (name, css, text) => {
  const element = document.createElement(name);
  if (css) element.className = css;
  if (text !== undefined) element.textContent = text;
  return element;
};

// ---- data -------------------------------------------------------------------------------

window.mmrecData = (kind, json) => {
  const value = JSON.parse(json);
  if (kind === "index") index = value;
  if (kind === "items") items = value;
  if (kind === "c") chunks.set(`c${value[0]}`, value[1]);
  if (kind === "p") chunks.set(`p${value[0]}-${value[1]}`, value[2]);
};

const load = (name) => {
  if (!waiting.has(name)) {
    waiting.set(name, new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = `${folder}/${name}.js`;
      script.addEventListener("load", resolve);
      script.addEventListener("error", () => {
        waiting.delete(name);
        reject(new Error(`${folder}/${name}.js is missing`));
      });
      document.head.append(script);
    }));
  }
  return waiting.get(name);
};

const chunkOf = async (row) => {
  const number = Math.floor(row / index.chunk);
  await load(`c${number}`);
  return chunks.get(`c${number}`)[row % index.chunk];
};

// ---- what is shown of a rank ------------------------------------------------------------

const shownRuns = () => index.runs.filter((_, i) => ui.runs[i].checked);
const rank = (run, row) => run.ranks[row];
const isRight = (value, k) => value > 0 && value <= k;
// A target that was left out counts as one place behind all.
const place = (value) => (value > 0 ? value : index.n_candidates + 1);
const short = (value) => (value > 0 ? String(value) : "out");

const chip = (value, k) => {
  const element = make("span", "rank", short(value));
  if (value <= 0) {
    element.classList.add("out");
    element.title = "left out";
  } else if (isRight(value, k)) {
    element.classList.add("right");
  }
  return element;
};

// ---- items --------------------------------------------------------------------------------

const titleOf = (item) => (items ? items.title[item] || items.id[item] || `item ${item}` : "…");

let pictured = null;
const hasPictures = () => {
  pictured = pictured ?? items.picture.some(Boolean);
  return pictured;
};

const picture = (item, css, name = items.picture[item]) => {
  const box = make("span", `pic ${css || ""}`);
  if (!hasPictures()) {
    box.hidden = true;
  } else if (name) {
    const image = make("img");
    image.src = `pictures/${name}.jpg`;
    image.alt = "";
    image.loading = "lazy";
    box.append(image);
  } else if (css !== "tiny") {
    box.textContent = "no picture";
  }
  return box;
};

const card = (item) => {
  const element = make("li");
  const words = make("span", "any", titleOf(item));
  words.dir = "auto";
  element.title = items.about[item] || items.id[item];
  element.append(picture(item), words);
  return element;
};
