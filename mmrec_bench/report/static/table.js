"use strict";
// Sorts tables by their headings; on the page of all boards also filters rows and chooses columns.
(() => {
  const value = (row, col, kind) => {
    const cell = [...row.cells].find((one) => one.dataset.col === col);
    const raw = cell ? cell.dataset.v : "";
    if (kind === "text") return raw.toLowerCase();
    return raw === "" ? NaN : Number(raw);
  };

  const compare = (a, b, kind) => {
    if (kind === "text") return a < b ? -1 : a > b ? 1 : 0;
    return a - b;
  };

  // What is not known stands last, whichever way the rest is sorted.
  const sort = (table, heading, ascending) => {
    const { col, kind } = heading.dataset;
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => [value(row, col, kind), row]);
    const missing = (one) => (kind === "text" ? one === "" : Number.isNaN(one));
    rows.sort(([a], [b]) => {
      if (missing(a) || missing(b)) return missing(a) - missing(b);
      return ascending ? compare(a, b, kind) : compare(b, a, kind);
    });
    body.append(...rows.map(([, row]) => row));
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
  };

  const sortable = (table) => {
    table.tHead.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (!button) return;
      const heading = button.closest("th");
      const now = heading.getAttribute("aria-sort");
      const { col, kind } = heading.dataset;
      const first = kind === "text" || col === "place";
      sort(table, heading, now ? now === "descending" : first);
    });
  };

  const store = (key, fallback) => {
    try { return JSON.parse(localStorage.getItem(key)) ?? fallback; } catch { return fallback; }
  };

  const columns = (form, tables) => {
    const boxes = [...form.querySelectorAll("input[type=checkbox]")];
    const initial = new Map(boxes.map((box) => [box.value, box.checked]));
    const KEY = "mmrec-columns";
    // A column that no choice was made about stays as its board has it.
    const chosen = new Map(Object.entries(store(KEY, {})));
    const apply = (name) => {
      for (const table of tables) {
        for (const cell of table.querySelectorAll(`[data-col="${CSS.escape(name)}"]`)) {
          if (cell.dataset.first === undefined) cell.dataset.first = cell.hidden ? "hidden" : "";
          cell.hidden = chosen.has(name) ? !chosen.get(name) : cell.dataset.first === "hidden";
        }
      }
    };
    const keep = () => {
      try { localStorage.setItem(KEY, JSON.stringify(Object.fromEntries(chosen))); } catch { /* no storage */ }
    };
    for (const box of boxes) {
      if (chosen.has(box.value)) {
        box.checked = chosen.get(box.value);
        apply(box.value);
      }
      box.addEventListener("change", () => {
        chosen.set(box.value, box.checked);
        apply(box.value);
        keep();
      });
    }
    document.getElementById("reset").addEventListener("click", () => {
      chosen.clear();
      for (const box of boxes) {
        box.checked = initial.get(box.value);
        apply(box.value);
      }
      keep();
    });
  };

  const filter = (form) => {
    const find = document.getElementById("find");
    const dataset = document.getElementById("dataset");
    const count = document.getElementById("count");
    const none = document.getElementById("none");
    const sections = [...document.querySelectorAll(".sheet-of")];
    const all = sections.reduce((n, one) => n + one.querySelectorAll("tbody tr").length, 0);
    const apply = () => {
      const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const section of sections) {
        const here = !dataset.value || section.dataset.dataset === dataset.value;
        let rows = 0;
        for (const row of section.querySelectorAll("tbody tr")) {
          row.hidden = !words.every((word) => row.dataset.find.includes(word));
          rows += row.hidden ? 0 : 1;
        }
        section.hidden = !here || rows === 0;
        shown += section.hidden ? 0 : rows;
      }
      count.textContent = shown === all ? `${all} rows` : `${shown} of ${all} rows`;
      none.hidden = shown > 0;
    };
    form.addEventListener("submit", (event) => event.preventDefault());
    find.addEventListener("input", apply);
    dataset.addEventListener("change", apply);
    apply();
  };

  document.addEventListener("DOMContentLoaded", () => {
    const tables = [...document.querySelectorAll("table.board")];
    tables.forEach(sortable);
    const form = document.getElementById("controls");
    if (!form) return;
    form.hidden = false;
    columns(form, tables);
    filter(form);
    const menu = form.querySelector("details.menu");
    document.addEventListener("click", (event) => {
      if (!menu.contains(event.target)) menu.open = false;
    });
    menu.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || !menu.open) return;
      menu.open = false;
      menu.querySelector("summary").focus();
    });
  });
})();
