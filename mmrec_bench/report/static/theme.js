"use strict";
// Runs before anything is drawn, so that a chosen theme does not flash.
(() => {
  const NAMES = { "": "system", light: "light", dark: "dark" };
  const KEY = "mmrec-theme";
  const read = () => {
    try { return localStorage.getItem(KEY) || ""; } catch { return ""; }
  };
  const keep = (value) => {
    try { localStorage.setItem(KEY, value); } catch { /* a page from disk may have no storage */ }
  };
  const root = document.documentElement;
  root.classList.add("scripted");
  let theme = read() in NAMES ? read() : "";
  const apply = () => {
    if (theme) root.dataset.theme = theme;
    else delete root.dataset.theme;
  };
  apply();
  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const tell = () => { button.textContent = `Theme: ${NAMES[theme]}`; };
    button.hidden = false;
    tell();
    button.addEventListener("click", () => {
      const order = Object.keys(NAMES);
      theme = order[(order.indexOf(theme) + 1) % order.length];
      keep(theme);
      apply();
      tell();
    });
  });
})();
