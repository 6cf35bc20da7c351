"use strict";
// The case explorer, second part: one case.
// A page from disk can load no modules, so cases-data.js, cases-detail.js and cases-list.js are
// plain scripts, read in this order, that see one another's top-level names.

// ---- one case -----------------------------------------------------------------------------

const section = (title, ...children) => {
  const element = make("section");
  element.append(make("h3", "", title), ...children);
  return element;
};

const strip = (list, label) => {
  const element = make("ul", "items");
  element.tabIndex = 0;
  element.setAttribute("aria-label", label);
  element.append(...list.map(card));
  return element;
};

const scrolling = (table, label) => {
  const box = make("div", "wide");
  box.tabIndex = 0;
  box.setAttribute("role", "region");
  box.setAttribute("aria-label", label);
  box.append(table);
  return box;
};

const itemCell = (item, isTarget) => {
  const cell = make("th", "item");
  cell.scope = "row";
  const box = make("div");
  const words = make("span", "any", titleOf(item));
  words.dir = "auto";
  const text = make("span");
  text.append(words);
  if (isTarget) text.append(make("span", "tag", "target"));
  box.append(picture(item, "tiny"), text);
  cell.append(box);
  return cell;
};

const matrix = (one, chosen, k) => {
  const table = make("table", "matrix");
  const head = make("tr");
  head.append(heading("shown"), heading("candidate", "item"));
  for (const [run] of chosen) head.append(heading(String(run.number), "", run.label));
  table.append(make("thead"), make("tbody"));
  table.tHead.append(head);
  one.c.forEach((item, i) => {
    const isTarget = one.t.includes(item);
    const row = make("tr", isTarget ? "target" : "");
    row.append(make("td", "soft", String(i + 1)), itemCell(item, isTarget));
    for (const [, outcome] of chosen) {
      const cell = make("td");
      const value = outcome.k ? outcome.k[i] ?? 0 : 0;
      const mark = chip(value, isTarget ? k : 0);
      if (!isTarget && value === 1) mark.classList.add("first");
      if (outcome.s && outcome.s[i] !== null) mark.title = `score ${outcome.s[i]}`;
      cell.append(mark);
      row.append(cell);
    }
    table.tBodies[0].append(row);
  });
  return scrolling(table, "Candidates in the order shown, with the rank that each run gave them");
};

const tops = (one, chosen) => chosen.map(([run, outcome]) => {
  const list = make("ul", "items");
  list.tabIndex = 0;
  list.setAttribute("aria-label", `First items of ${run.label}`);
  for (const item of outcome.top || []) {
    const element = card(item);
    if (one.t.includes(item)) element.append(make("span", "tag", "target"));
    list.append(element);
  }
  const box = make("div");
  box.append(make("h4", "", `${run.number} ${run.label}`), list);
  return box;
});

const texts = (run, answer) => {
  if (run.prompt >= 0 && index.orders[run.prompt] > 1) {
    try { return JSON.parse(answer); } catch { /* cut, or written by an older version */ }
  }
  return [answer];
};

const answers = (chosen) => chosen.filter(([, outcome]) => outcome.a).map(([run, outcome]) => {
  const [text, how, read, written, invented] = outcome.a;
  const box = make("div", "answer");
  const facts = [how, `${read} tokens read`, `${written} written`];
  if (invented) facts.push(`${invented} named that were no candidates`);
  box.append(make("h4", "", `${run.number} ${run.label} — ${facts.join(", ")}`));
  for (const own of texts(run, text)) {
    const body = make("pre", "any", own);
    body.tabIndex = 0;
    box.append(body);
  }
  return box;
});

const turn = ([role, parts]) => {
  const box = make("div", `turn ${role}`);
  const said = make("div", "said any");
  said.dir = "auto";
  for (const part of parts) {
    if (typeof part === "string") said.append(part);
    else if (part[0]) said.append(picture(part[1], "", part[0]));
    else said.append(make("span", "pic", `picture of ${titleOf(part[1])}`.slice(0, 60)));
  }
  box.append(make("h4", "", role), said);
  return box;
};

const prompts = (row, runs) => {
  const groups = [...new Set(runs.map((run) => run.prompt))].filter((one) => one >= 0);
  return groups.map((group) => {
    const names = runs.filter((run) => run.prompt === group).map((run) => `${run.number} ${run.label}`);
    const box = make("details");
    box.append(make("summary", "", `Prompt of ${names.join(", ")}`));
    const body = make("div");
    box.append(body);
    box.addEventListener("toggle", async () => {
      if (!box.open || body.firstChild) return;
      const number = Math.floor(row / index.chunk);
      try {
        await load(`p${group}-${number}`);
      } catch (error) {
        body.append(make("p", "note", error.message));
        return;
      }
      const orders = chunks.get(`p${group}-${number}`)[row % index.chunk];
      orders.forEach((messages, i) => {
        if (orders.length > 1) body.append(make("h4", "", `order ${i + 1} of ${orders.length}`));
        body.append(...messages.map(turn));
      });
    });
    return box;
  });
};

const open = async (row, { focus = true } = {}) => {
  current = row;
  let one = null;
  try {
    await load("items");
    one = await chunkOf(row);
  } catch (error) {
    ui.detail.replaceChildren(make("p", "note", error.message));
    return;
  }
  if (row !== current) return;
  const runs = shownRuns();
  const chosen = runs.map((run) => [run, one.r[index.runs.indexOf(run)]]);
  const title = make("h2", "any", `Case ${row + 1}, user ${index.users[row]}`);
  title.tabIndex = -1;
  const head = make("div", "head");
  head.append(title, stepper(row));
  const parts = [head];
  const facts = make("p", "soft", `${index.length[row]} items in the history; the target was taken ${index.popularity[row]} times in train.`);
  parts.push(facts, section("Target", strip(one.t, "Target")));
  const history = one.h.length ? strip(one.h, "History, oldest first") : make("p", "note", "Nothing.");
  parts.push(section("History, oldest first", history));
  if (one.c) parts.push(section("Candidates in the order shown, and their ranks", key(runs), matrix(one, chosen, Number(ui.k.value))));
  else parts.push(section("First items of each run", ...tops(one, chosen)));
  const said = answers(chosen);
  if (said.length) parts.push(section("Answers", ...said));
  const asked = prompts(row, runs);
  if (asked.length) {
    const note = make("p", "note", "As the instruction builder writes them; a model with a short window may have read fewer items of the history.");
    parts.push(section("Prompts", note, ...asked));
  }
  ui.detail.replaceChildren(...parts);
  ui.detail.scrollTop = 0;
  for (const element of ui.body.rows) {
    if (element.dataset.row === String(row)) element.setAttribute("aria-current", "true");
    else element.removeAttribute("aria-current");
  }
  history_(row);
  if (!focus) return;
  title.focus({ preventScroll: true });
  // Where the case stands below the list, it would else be out of sight.
  const narrow = window.matchMedia("(max-width: 70rem)").matches;
  (narrow ? ui.detail : title).scrollIntoView({ block: narrow ? "start" : "nearest" });
};

const history_ = (row) => {
  const hash = `#case=${row + 1}`;
  if (location.hash !== hash) window.history.replaceState(null, "", hash);
};

const key = (runs) => {
  const list = make("ul", "legend");
  for (const run of runs) {
    const entry = make("li");
    entry.append(make("b", "", String(run.number)), make("span", "any", run.label));
    list.append(entry);
  }
  return list;
};

const stepper = (row) => {
  const box = make("p", "links");
  const at = view.indexOf(row);
  const step = (text, other) => {
    const button = make("button", "quiet", text);
    button.type = "button";
    button.disabled = other === undefined;
    button.addEventListener("click", () => {
      const there = Math.floor(view.indexOf(other) / PAGE);
      if (there !== page) {
        page = there;
        draw();
      }
      open(other);
    });
    return button;
  };
  const back = make("button", "quiet", "Back to the list");
  back.type = "button";
  back.addEventListener("click", () => {
    const own = ui.body.querySelector(`tr[data-row="${row}"] button`);
    (own || ui.find).focus();
  });
  box.append(step("Previous", at > 0 ? view[at - 1] : undefined), step("Next", at >= 0 ? view[at + 1] : undefined), back);
  return box;
};
