"use strict";
// The case explorer, last part: the list and the controls.
// A page from disk can load no modules, so cases-data.js, cases-detail.js and cases-list.js are
// plain scripts, read in this order, that see one another's top-level names.

// ---- searching, filtering, sorting --------------------------------------------------------

let searched = null;
const haystacks = () => {
  searched = searched || {
    titles: items.title.map((title, i) => `${title} ${items.id[i]}`.toLowerCase()),
    users: index.users.map((user) => user.toLowerCase()),
  };
  return searched;
};

const matching = (words) => {
  const { titles, users } = haystacks();
  const hits = words.map((word) => titles.map((title) => title.includes(word)));
  return (row) => words.every(
    (word, w) => hits[w][index.target[row]] || users[row].includes(word),
  );
};

const KEEP = {
  all: () => true,
  right: (rights) => rights.every(Boolean),
  wrong: (rights) => !rights.some(Boolean),
  disagree: (rights) => rights.some(Boolean) && !rights.every(Boolean),
};

const spread = (row, runs) => {
  let low = Infinity;
  let high = -Infinity;
  for (const run of runs) {
    const value = place(rank(run, row));
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  return runs.length ? high - low : 0;
};
const mean = (row, runs) => runs.reduce((sum, run) => sum + place(rank(run, row)), 0) / (runs.length || 1);

const ORDER = {
  case: null,
  spread: (row, runs) => -spread(row, runs),
  best: mean,
  worst: (row, runs) => -mean(row, runs),
  short: (row) => index.length[row],
  long: (row) => -index.length[row],
  rare: (row) => index.popularity[row],
  popular: (row) => -index.popularity[row],
};

const apply = () => {
  const started = performance.now();
  const runs = shownRuns();
  const k = Number(ui.k.value);
  const words = ui.find.value.toLowerCase().split(/\s+/).filter(Boolean);
  const fits = words.length && items ? matching(words) : () => true;
  const keep = KEEP[ui.keep.value];
  view = [];
  for (let row = 0; row < index.users.length; row += 1) {
    if (!fits(row)) continue;
    if (ui.keep.value !== "all" && !keep(runs.map((run) => isRight(rank(run, row), k)))) continue;
    view.push(row);
  }
  const order = ORDER[ui.sort.value];
  if (order) {
    const keys = new Map(view.map((row) => [row, order(row, runs)]));
    view.sort((a, b) => keys.get(a) - keys.get(b) || a - b);
  }
  page = 0;
  draw();
  performance.measure("mmrec-apply", { start: started, end: performance.now() });
};

// ---- the list -----------------------------------------------------------------------------

const heading = (text, css, title) => {
  const element = make("th", css, text);
  element.scope = "col";
  if (title) element.title = title;
  return element;
};

const draw = () => {
  const runs = shownRuns();
  const k = Number(ui.k.value);
  const pages = Math.max(1, Math.ceil(view.length / PAGE));
  page = Math.min(Math.max(0, page), pages - 1);
  const head = make("tr");
  head.append(heading("case"), heading("user", "left user"), heading("target", "left"), heading("items", "", "items in the history"));
  for (const run of runs) head.append(heading(String(run.number), "", run.label));
  head.append(heading("spread", "", "worst rank less best rank of the runs shown"));
  ui.head.replaceChildren(head);
  ui.body.replaceChildren(...view.slice(page * PAGE, (page + 1) * PAGE).map((row) => line(row, runs, k)));
  const all = index.users.length.toLocaleString("en");
  const n = view.length.toLocaleString("en");
  ui.count.textContent = view.length === index.users.length ? `${n} cases` : `${n} of ${all} cases`;
  ui.page.value = String(page + 1);
  ui.page.max = String(pages);
  ui.pages.textContent = `of ${pages.toLocaleString("en")}`;
  ui.before.disabled = page === 0;
  ui.after.disabled = page >= pages - 1;
  ui.empty.hidden = view.length > 0;
};

const line = (row, runs, k) => {
  const element = make("tr");
  element.dataset.row = String(row);
  if (row === current) element.setAttribute("aria-current", "true");
  const number = make("td");
  const button = make("button", "go", String(row + 1));
  button.type = "button";
  button.setAttribute("aria-label", `Open case ${row + 1}`);
  number.append(button);
  const title = make("td", "title any", titleOf(index.target[row]));
  title.dir = "auto";
  const user = make("td", "user any", index.users[row]);
  element.append(number, user, title, make("td", "soft", String(index.length[row])));
  for (const run of runs) {
    const cell = make("td");
    cell.append(chip(rank(run, row), k));
    element.append(cell);
  }
  element.append(make("td", "soft", String(spread(row, runs))));
  return element;
};

// ---- putting the page together -----------------------------------------------------------

const choice = (label, options) => {
  const box = make("label", "", `${label} `);
  const select = make("select");
  for (const [value, text] of options) {
    const option = make("option", "", text);
    option.value = value;
    select.append(option);
  }
  box.append(select);
  return [box, select];
};

const controls = () => {
  const form = make("form", "controls");
  form.setAttribute("role", "search");
  form.setAttribute("aria-label", "Cases");
  form.addEventListener("submit", (event) => event.preventDefault());
  const find = make("label", "", "Search ");
  ui.find = make("input");
  ui.find.type = "search";
  ui.find.placeholder = "target title, item id, user";
  ui.find.autocomplete = "off";
  find.append(ui.find);
  let box;
  [box, ui.keep] = choice("Show", [["all", "all cases"], ["right", "all runs right"], ["wrong", "all runs wrong"], ["disagree", "runs disagree"]]);
  form.append(find, box);
  [box, ui.k] = choice("right =", [["1", "first"], ["5", "in first 5"], ["10", "in first 10"]]);
  form.append(box);
  [box, ui.sort] = choice("Sort", [["case", "by case"], ["spread", "largest spread of ranks"], ["best", "best ranked"], ["worst", "worst ranked"], ["short", "shortest history"], ["long", "longest history"], ["rare", "rarest target"], ["popular", "most popular target"]]);
  form.append(box, runMenu());
  ui.count = make("output");
  ui.count.setAttribute("aria-live", "polite");
  form.append(ui.count);
  let timer = 0;
  ui.find.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(apply, 80);
  });
  for (const select of [ui.keep, ui.k, ui.sort]) select.addEventListener("change", refresh);
  return form;
};

const refresh = () => {
  apply();
  if (current >= 0) open(current, { focus: false });
};

const runMenu = () => {
  const menu = make("details", "menu");
  menu.append(make("summary", "", "Runs"));
  const sheet = make("div", "sheet");
  const fields = make("fieldset");
  fields.append(make("legend", "", "Runs by their place in the leaderboard"));
  ui.runs = index.runs.map((run, i) => {
    const label = make("label");
    const box = make("input");
    box.type = "checkbox";
    box.checked = i < 8;
    box.addEventListener("change", refresh);
    const words = make("span", "any", `${run.number} ${run.label}${run.seeds > 1 ? ` (one of ${run.seeds} seeds)` : ""}`);
    label.append(box, words);
    fields.append(label);
    return box;
  });
  sheet.append(fields);
  menu.append(sheet);
  document.addEventListener("click", (event) => {
    if (!menu.contains(event.target)) menu.open = false;
  });
  menu.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    menu.open = false;
    menu.firstChild.focus();
  });
  return menu;
};

const pager = () => {
  const box = make("nav", "pager");
  box.setAttribute("aria-label", "Pages of the list");
  const button = (text, step) => {
    const element = make("button", "quiet", text);
    element.type = "button";
    element.addEventListener("click", () => {
      page += step;
      draw();
    });
    return element;
  };
  ui.before = button("Previous page", -1);
  ui.after = button("Next page", 1);
  const label = make("label", "", "Page ");
  ui.page = make("input");
  ui.page.type = "number";
  ui.page.min = "1";
  ui.page.addEventListener("change", () => {
    page = (Number(ui.page.value) || 1) - 1;
    draw();
  });
  ui.pages = make("span");
  label.append(ui.page, ui.pages);
  box.append(ui.before, label, ui.after);
  return box;
};

const build = (root) => {
  const form = controls();
  const table = make("table", "list");
  ui.head = make("thead");
  ui.body = make("tbody");
  table.append(make("caption", "", "Cases, with the rank that each run gave the target"), ui.head, ui.body);
  ui.body.addEventListener("click", (event) => {
    const row = event.target.closest("tr");
    if (row) open(Number(row.dataset.row));
  });
  ui.empty = make("p", "note", "No case fits.");
  const left = make("div");
  left.append(key(index.runs.slice(0, 8)), scrolling(table, "List of cases"), ui.empty, pager());
  for (const note of index.notes) left.append(make("p", "note any", note));
  ui.detail = make("section", "detail");
  ui.detail.setAttribute("aria-label", "The chosen case");
  ui.detail.tabIndex = 0;
  ui.detail.append(make("p", "soft", "Choose a case to see it."));
  const two = make("div", "two");
  two.append(left, ui.detail);
  root.replaceChildren(form, two);
};

const wanted = () => {
  const found = /^#case=(\d+)$/.exec(location.hash);
  const row = found ? Number(found[1]) - 1 : -1;
  return row >= 0 && row < index.users.length ? row : -1;
};

document.addEventListener("DOMContentLoaded", async () => {
  const root = document.getElementById("explorer");
  folder = root.dataset.folder;
  root.append(make("p", "note", "Reading the index …"));
  try {
    const rest = load("items");
    await load("index");
    build(root);
    apply();
    performance.mark("mmrec-list");
    await rest;
    draw();
    performance.mark("mmrec-titles");
  } catch (error) {
    root.replaceChildren(make("p", "note", error.message));
    return;
  }
  if (ui.find.value) apply();
  if (wanted() >= 0) open(wanted(), { focus: false });
  window.addEventListener("hashchange", () => {
    const row = wanted();
    if (row >= 0 && row !== current) open(row);
  });
});
