"use strict";
// Under `report --serve` only: runs under way, and whether the pages were written anew.
document.addEventListener("DOMContentLoaded", () => {
  const box = document.getElementById("live");
  if (!box || !location.protocol.startsWith("http")) return;
  let version = null;
  let told = "";

  const make = (name, text, css) => {
    const element = document.createElement(name);
    if (text !== undefined) element.textContent = text;
    if (css) element.className = css;
    return element;
  };

  const line = (run) => {
    const item = make("li");
    item.append(make("span", run.title, "any"));
    const bar = make("progress");
    bar.max = run.total || 1;
    bar.value = run.done;
    bar.setAttribute("aria-label", `${run.title}: ${run.done} of ${run.total} cases`);
    item.append(bar, make("span", run.words, "soft"));
    return item;
  };

  const draw = (state) => {
    const changed = version !== null && version !== state.version;
    version = version ?? state.version;
    const now = JSON.stringify([state.runs, changed, state.failure]);
    if (now === told) return;
    told = now;
    box.replaceChildren();
    box.hidden = !changed && !state.runs.length && !state.failure;
    if (state.failure) box.append(make("p", `The pages are not up to date: ${state.failure}`));
    if (changed) {
      const button = make("button", "New results: show them");
      button.type = "button";
      button.addEventListener("click", () => location.reload());
      box.append(button);
    }
    if (!state.runs.length) return;
    box.append(make("h2", "Under way"));
    const list = make("ul");
    list.append(...state.runs.map(line));
    box.append(list);
  };

  const poll = async () => {
    try {
      const answer = await fetch("live.json", { cache: "no-store" });
      if (answer.ok) draw(await answer.json());
      if (answer.status === 404) return;
    } catch { /* the server has ended; it may come back */ }
    setTimeout(poll, 2000);
  };
  poll();
});
