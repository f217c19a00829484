"use strict";
(() => {
  const table = document.getElementById("trials");
  const box = document.getElementById("selected");
  const headings = [...table.tHead.rows[0].cells];
  const rows = [...table.tBodies[0].rows];
  let pinned = null;

  // A trial in words: its row of the table.
  function describe(number) {
    const row = rows.find((one) => one.dataset.trial === number);
    return headings.map((heading, index) => [heading.textContent, row.cells[index].textContent])
      .filter(([, text]) => text).map(([name, text]) => `${name} ${text}`).join(" · ");
  }

  function select(number) {
    for (const one of document.querySelectorAll("[data-trial].on")) one.classList.remove("on");
    box.hidden = number === null;
    if (number === null) return;
    for (const one of document.querySelectorAll(`[data-trial="${number}"]`)) one.classList.add("on");
    box.textContent = describe(number);
  }

  const trialAt = (event) => event.target.closest?.("[data-trial]")?.dataset.trial ?? null;

  function pin(number) {
    pinned = number === pinned ? null : number;
    select(pinned);
  }

  // Descending first, ascending at the next click. Empty cells stay last.
  function sortBy(column) {
    const order = headings[column].dataset.order === "down" ? "up" : "down";
    const text = (row) => row.cells[column].textContent;
    const sign = order === "down" ? -1 : 1;
    const numbers = rows.every((row) => Number.isFinite(Number(text(row))));
    rows.sort((one, other) => {
      const [a, b] = [text(one), text(other)];
      if (!a || !b) return Boolean(b) - Boolean(a);
      return sign * (numbers ? Number(a) - Number(b) : a.localeCompare(b));
    });
    for (const heading of headings) delete heading.dataset.order;
    headings[column].dataset.order = order;
    table.tBodies[0].append(...rows);
  }

  document.addEventListener("pointerover", (event) => { if (pinned === null) select(trialAt(event)); });
  document.addEventListener("focusin", (event) => { if (pinned === null) select(trialAt(event)); });
  document.addEventListener("click", (event) => {
    const column = headings.indexOf(event.target);
    if (column >= 0) sortBy(column);
    else pin(trialAt(event));
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && trialAt(event) !== null) pin(trialAt(event));
    if (event.key === "Escape") pin(null);
  });
})();
