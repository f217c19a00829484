"use strict";
(() => {
  const data = JSON.parse(document.getElementById("explorer-data").textContent);
  const byId = (id) => document.getElementById(id);
  const make = (tag, text, css) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    if (css) element.className = css;
    return element;
  };
  const title = (item) => data.titles[item];
  let matching = data.rows.map((_, index) => index);
  let current = 0;

  const topItem = (model, row) => row.candidates[model.ranking[0][0]];

  // Keep the users that match the search and the filter.
  function filter() {
    const wanted = byId("search").value.trim().toLowerCase();
    const kind = byId("filter").value;
    matching = [];
    data.rows.forEach((row, index) => {
      const words = [String(row.user), ...row.history.map(title), ...row.candidates.map(title)];
      if (wanted && !words.some((word) => word.toLowerCase().includes(wanted))) return;
      const hits = row.models.filter((model) => model.ranking).map((model) => topItem(model, row) === row.target);
      if (kind === "disagree" && (hits.every(Boolean) || !hits.some(Boolean))) return;
      if (kind === "all-wrong" && hits.some(Boolean)) return;
      matching.push(index);
    });
    current = 0;
    draw();
  }

  function heading(model) {
    const element = make("h3");
    element.append(make("i", undefined, `swatch ${model.css}`), model.name);
    return element;
  }

  function rankedItem([position, score, probability], row) {
    const item = row.candidates[position];
    const line = make("li", undefined, item === row.target ? "target" : "");
    const text = make("div", undefined, "ranked");
    text.append(make("span", title(item)), make("span", score.toFixed(2), "score"));
    const meter = make("div", undefined, "meter");
    const bar = make("b");
    bar.style.width = `${Math.round(100 * probability)}%`;
    meter.append(bar);
    line.append(text, meter);
    return line;
  }

  function card(model, row) {
    const box = make("div", undefined, `card ${model.css}`);
    box.append(heading(model));
    for (const mode of ["generated", "constrained"]) {
      if (model[mode]) {
        const line = make("p", `${mode}: `);
        line.append(make("span", model[mode].text || "(nothing)", model[mode].correct ? "right" : "wrong"));
        box.append(line);
      }
    }
    if (model.error) box.append(make("p", `failed: ${model.error}`, "wrong"));
    if (model.ranking) {
      const list = make("ol");
      list.append(...model.ranking.map((ranked) => rankedItem(ranked, row)));
      box.append(list);
    }
    return box;
  }

  function draw() {
    const any = matching.length > 0;
    byId("count").textContent = any ? `user ${current + 1} of ${matching.length}` : "no user matches";
    byId("user").hidden = !any;
    if (!any) return;
    const row = data.rows[matching[current]];
    byId("target").textContent = `User ${row.user}: the next item was ${title(row.target)}`;
    byId("history").replaceChildren(...row.history.map((item) => make("li", title(item))));
    byId("models").replaceChildren(...row.models.map((model) => card(model, row)));
  }

  function move(by) {
    if (matching.length) current = (current + by + matching.length) % matching.length;
    draw();
  }

  byId("search").addEventListener("input", filter);
  byId("filter").addEventListener("change", filter);
  byId("previous").addEventListener("click", () => move(-1));
  byId("next").addEventListener("click", () => move(1));
  filter();
})();
