"use strict";
(() => {
  const table = document.getElementById("trials");
  const box = document.getElementById("shown");
  const heads = [...table.tHead.rows[0].cells];
  const rows = [...table.tBodies[0].rows];
  let pinned = null;

  // Which trial it is, in words: its row of the table.
  function words(number) {
    const row = rows.find((one) => one.dataset.trial === number);
    return heads.map((head, index) => [head.textContent, row.cells[index].textContent])
      .filter(([, text]) => text).map(([name, text]) => `${name} ${text}`).join(" · ");
  }

  function show(number) {
    for (const one of document.querySelectorAll("[data-trial].on")) one.classList.remove("on");
    box.hidden = number === null;
    if (number === null) return;
    for (const one of document.querySelectorAll(`[data-trial="${number}"]`)) one.classList.add("on");
    box.textContent = words(number);
  }

  const trialAt = (event) => event.target.closest?.("[data-trial]")?.dataset.trial ?? null;

  function pin(number) {
    pinned = number === pinned ? null : number;
    show(pinned);
  }

  // Best or largest first; again, the other way round. Empty cells stay last.
  function sortBy(column) {
    const order = heads[column].dataset.order === "down" ? "up" : "down";
    const text = (row) => row.cells[column].textContent;
    const sign = order === "down" ? -1 : 1;
    const numbers = rows.every((row) => Number.isFinite(Number(text(row))));
    rows.sort((one, other) => {
      const [a, b] = [text(one), text(other)];
      if (!a || !b) return Boolean(b) - Boolean(a);
      return sign * (numbers ? Number(a) - Number(b) : a.localeCompare(b));
    });
    for (const head of heads) delete head.dataset.order;
    heads[column].dataset.order = order;
    table.tBodies[0].append(...rows);
  }

  document.addEventListener("pointerover", (event) => { if (pinned === null) show(trialAt(event)); });
  document.addEventListener("focusin", (event) => { if (pinned === null) show(trialAt(event)); });
  document.addEventListener("click", (event) => {
    const column = heads.indexOf(event.target);
    if (column >= 0) sortBy(column);
    else pin(trialAt(event));
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && trialAt(event) !== null) pin(trialAt(event));
    if (event.key === "Escape") pin(null);
  });
})();
