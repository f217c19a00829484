"use strict";
(() => {
  const data = JSON.parse(document.getElementById("explorer-data").textContent);
  const byId = (id) => document.getElementById(id);
  const make = (tag, text, kind) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    if (kind) element.className = kind;
    return element;
  };
  const title = (item) => data.titles[item];
  let shown = data.rows.map((_, index) => index);
  let place = 0;

  const firstOf = (model, row) => model.ranking && row.candidates[model.ranking[0][0]];

  // Keep the users that the search and the filter leave.
  function filter() {
    const wanted = byId("search").value.trim().toLowerCase();
    const which = byId("which").value;
    shown = [];
    data.rows.forEach((row, index) => {
      const words = [String(row.user), ...row.history.map(title), ...row.candidates.map(title)];
      if (wanted && !words.some((word) => word.toLowerCase().includes(wanted))) return;
      const hits = row.models.filter((model) => model.ranking).map((model) => firstOf(model, row) === row.target);
      if (which === "disagree" && (hits.every(Boolean) || !hits.some(Boolean))) return;
      if (which === "all-wrong" && hits.some(Boolean)) return;
      shown.push(index);
    });
    place = 0;
    draw();
  }

  function card(model, row) {
    const box = make("div", undefined, "card");
    box.append(make("h3", model.name));
    for (const [key, label] of [["generated", "generated"], ["constrained", "constrained"]]) {
      if (model[key]) {
        const line = make("p", `${label}: `);
        line.append(make("span", model[key].text || "(nothing)", model[key].right ? "right" : "wrong"));
        box.append(line);
      }
    }
    if (model.error) box.append(make("p", `failed: ${model.error}`, "wrong"));
    if (model.ranking) {
      const list = make("ol");
      for (const [candidate, score, share] of model.ranking) {
        const item = row.candidates[candidate];
        const line = make("li", title(item), item === row.target ? "target" : "");
        line.append(make("span", score.toFixed(2)));
        const meter = make("div", undefined, "meter");
        const bar = make("b");
        bar.style.width = `${Math.round(100 * share)}%`;
        meter.append(bar);
        line.append(meter);
        list.append(line);
      }
      box.append(list);
    }
    return box;
  }

  function draw() {
    const any = shown.length > 0;
    byId("count").textContent = any ? `user ${place + 1} of ${shown.length}` : "no user matches";
    byId("user").hidden = !any;
    if (!any) return;
    const row = data.rows[shown[place]];
    byId("who").textContent = `User ${row.user}: next was ${title(row.target)}`;
    byId("history").replaceChildren(...row.history.map((item) => make("li", title(item))));
    byId("models").replaceChildren(...row.models.map((model) => card(model, row)));
  }

  function step(by) {
    if (shown.length) place = (place + by + shown.length) % shown.length;
    draw();
  }

  byId("search").addEventListener("input", filter);
  byId("which").addEventListener("change", filter);
  byId("previous").addEventListener("click", () => step(-1));
  byId("next").addEventListener("click", () => step(1));
  filter();
})();
