"use strict";
// Shows the figures of one metric at a time.
document.addEventListener("DOMContentLoaded", () => {
  const choice = document.getElementById("metric");
  const groups = [...document.querySelectorAll(".metric")];
  const show = () => {
    for (const group of groups) group.hidden = group.dataset.metric !== choice.value;
  };
  choice.closest("label").hidden = groups.length < 2;
  choice.addEventListener("change", show);
  show();
});
