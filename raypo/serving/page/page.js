"use strict";
// The page of a raypo server: a history on the left, what one or two models recommend on the right.

const at = (id) => document.getElementById(id);
const state = { history: [], target: null, models: [], asked: 0, answers: [] };

async function call(path, body) {
  const headers = { "content-type": "application/json" };
  if (at("token").value) headers.authorization = "Bearer " + at("token").value;
  const options = body ? { method: "POST", headers, body: JSON.stringify(body) } : { headers };
  const response = await fetch(path, options);
  const answer = await response.json();
  if (!response.ok) {
    if (response.status === 401) at("doors").open = true;
    throw new Error(answer.detail);
  }
  return answer;
}

function say(text, isProblem = false) {
  at("status").textContent = text;
  at("status").classList.toggle("problem", isProblem);
}

function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

// History ---------------------------------------------------------------------------------------

function showHistory(focused) {
  const list = at("history");
  list.replaceChildren(...state.history.map((item, place) => historyItem(item, place)));
  if (focused !== undefined && list.children.length) {
    const row = list.children[Math.min(focused.place, list.children.length - 1)];
    row.querySelector(`[data-does=${focused.does}]`).focus();
  }
  recommend();
}

function historyItem(item, place) {
  const row = element("li", undefined, { draggable: "true" });
  row.append(element("span", item.title, { class: "name" }));
  const does = { up: ["↑", "earlier", -1], down: ["↓", "later", 1], remove: ["×", "remove", 0] };
  for (const [name, [sign, words, step]] of Object.entries(does)) {
    const button = element("button", sign, {
      type: "button", "aria-label": `${item.title}: ${words}`, "data-does": name,
    });
    button.onclick = () => {
      if (step) move(place, place + step);
      else state.history.splice(place, 1);
      showHistory({ place: Math.max(0, place + step), does: name });
    };
    row.append(button);
  }
  row.ondragstart = (event) => event.dataTransfer.setData("text/plain", String(place));
  row.ondragover = (event) => { event.preventDefault(); row.classList.add("over"); };
  row.ondragleave = () => row.classList.remove("over");
  row.ondrop = (event) => {
    event.preventDefault();
    move(Number(event.dataTransfer.getData("text/plain")), place);
    showHistory();
  };
  return row;
}

function move(from, to) {
  if (to < 0 || to >= state.history.length) return;
  state.history.splice(to, 0, ...state.history.splice(from, 1));
}

function add(item) {
  state.history.push(item);
  forgetTarget();
  showHistory();
}

function forgetTarget() {
  state.target = null;
  at("next").textContent = "";
}

// Titles complete themselves --------------------------------------------------------------------

let searching = 0;

async function search() {
  const text = at("title").value.trim();
  const number = ++searching;
  if (!text || text.includes("\n")) return showFound([]);
  try {
    const found = await call("v1/items?limit=8&q=" + encodeURIComponent(text));
    if (number === searching) showFound(found.items);
  } catch (problem) {
    say(problem.message, true);
  }
}

function showFound(items) {
  const list = at("found");
  list.replaceChildren(...items.map((item, place) => {
    const row = element("li", item.title, { role: "option", id: "found-" + place, "aria-selected": "false" });
    row.onmousedown = (event) => { event.preventDefault(); take(item); };
    row.item = item;
    return row;
  }));
  list.hidden = !items.length;
  at("title").setAttribute("aria-expanded", String(!list.hidden));
  at("title").removeAttribute("aria-activedescendant");
}

function take(item) {
  at("title").value = "";
  searching++;
  showFound([]);
  add(item);
}

function chooseFound(step) {
  const rows = [...at("found").children];
  if (!rows.length) return;
  const now = rows.findIndex((row) => row.getAttribute("aria-selected") === "true");
  const next = (now + step + rows.length + (now < 0 && step < 0 ? 1 : 0)) % rows.length;
  rows.forEach((row, place) => row.setAttribute("aria-selected", String(place === next)));
  at("title").setAttribute("aria-activedescendant", "found-" + next);
  rows[next].scrollIntoView({ block: "nearest" });
}

async function addTyped() {
  const chosen = at("found").querySelector("[aria-selected=true]");
  if (chosen) return take(chosen.item);
  const lines = at("title").value.split("\n").map((line) => line.trim()).filter(Boolean);
  const unknown = [];
  for (const line of lines) {
    const found = (await call("v1/items?limit=1&q=" + encodeURIComponent(line))).items[0];
    if (found) state.history.push(found);
    else unknown.push(line);
  }
  at("title").value = unknown.join("\n");
  searching++;
  showFound([]);
  forgetTarget();
  showHistory();
  if (unknown.length) say("No title holds: " + unknown.join("; "), true);
}

// Recommendations -------------------------------------------------------------------------------

async function recommend() {
  const number = ++state.asked;
  if (!state.history.length) {
    at("results").replaceChildren();
    return say("Add a title, or take a random test user.");
  }
  const models = [at("first").value, at("second").value].filter(Boolean);
  say("Ranking …");
  try {
    const body = { history: state.history.map((item) => item.id), k: Number(at("count").value) || 10 };
    const answers = await Promise.all(models.map((model) => call("v1/recommend", { ...body, model })));
    if (number !== state.asked) return; // a later question is on its way
    state.answers = answers;
    at("results").replaceChildren(...answers.map((answer, place) => table(answer, answers[1 - place])));
    say(answers.map((one) => `${one.model}: ${Math.round(one.milliseconds.total)} ms`).join(", "));
  } catch (problem) {
    if (number === state.asked) say(problem.message, true);
  }
}

function table(answer, other) {
  const made = element("table");
  made.append(element("caption", answer.model));
  const head = made.createTHead().insertRow();
  const columns = ["", "Item", "LLM", "Recom\u00admender", "Popu\u00adlarity"];
  for (const [place, name] of columns.entries()) {
    head.append(element("th", name, { scope: "col", class: place === 4 ? "wide" : "" }));
  }
  const ranks = new Map(other ? other.items.map((item) => [item.id, item.rank]) : []);
  const body = made.createTBody();
  for (const item of answer.items) {
    const row = body.insertRow();
    if (state.target && state.target.id === item.id) row.className = "target";
    row.insertCell().append(String(item.rank), ...(other ? [" ", change(item.rank, ranks.get(item.id), other)] : []));
    const title = element("button", item.title, { type: "button", title: "Which history item matters most?" });
    title.onclick = () => explain(answer, item);
    const cell = row.insertCell();
    cell.append(title);
    if (item.text && item.text !== item.title) cell.append(element("small", item.text.slice(item.title.length).trim()));
    row.insertCell().textContent = item.language_model ? "#" + item.language_model.rank : "–";
    row.insertCell().textContent = item.recommender ? "#" + item.recommender.rank : "–";
    const popularity = row.insertCell();
    popularity.className = "wide";
    popularity.textContent = item.popularity.toLocaleString();
  }
  return made;
}

function change(rank, otherRank, other) {
  if (otherRank === undefined) return element("span", "new", { class: "up", title: `not in ${other.model}'s list` });
  const step = otherRank - rank;
  if (!step) return element("span", "=");
  return element("span", (step > 0 ? "▲" : "▼") + Math.abs(step), {
    class: step > 0 ? "up" : "down", title: `#${otherRank} by ${other.model}`,
  });
}

// Which history item matters most: the same candidates ranked without each.
async function explain(answer, item) {
  if (state.history.length < 2) return say("With one item in the history, that one matters.");
  say(`What matters most for ${item.title} …`);
  const candidates = answer.items.map((one) => one.id);
  const score = (one) => one.items.find((found) => found.id === item.id);
  try {
    const without = await Promise.all(state.history.map((_, place) => call("v1/rank", {
      model: answer.model, candidates,
      history: state.history.filter((_, other) => other !== place).map((one) => one.id),
    })));
    const changes = without.map((one) => score(one).score - item.score);
    const place = changes.indexOf(Math.min(...changes));
    for (const [other, row] of [...at("history").children].entries()) row.classList.toggle("matters", other === place);
    const rank = score(without[place]).rank;
    say(changes[place] < 0
      ? `${item.title}: ${state.history[place].title} matters most; without it, #${rank} instead of #${item.rank}.`
      : `${item.title}: no item of the history speaks for it by itself.`);
  } catch (problem) {
    say(problem.message, true);
  }
}

async function randomUser() {
  try {
    const example = await call("v1/example");
    state.history = example.history;
    state.target = example.target;
    at("next").textContent = `Chose next: ${example.target.title}`;
    showHistory();
  } catch (problem) {
    say(problem.message, true);
  }
}

async function loadModels() {
  try {
    const found = await call("v1/models");
    state.models = found.data;
    const options = (chosen) => found.data.map((model) => {
      const option = element("option", model.id, { value: model.id });
      option.selected = model.id === chosen;
      return option;
    });
    at("first").replaceChildren(...options((found.data.find((model) => model.default) || {}).id));
    at("second").replaceChildren(element("option", "nothing", { value: "" }), ...options(null));
    say("Add a title, or take a random test user.");
  } catch (problem) {
    say(problem.message, true);
  }
}

at("title").oninput = search;
at("title").onkeydown = (event) => {
  if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    if (at("found").hidden) return;
    event.preventDefault();
    chooseFound(event.key === "ArrowDown" ? 1 : -1);
  } else if (event.key === "Enter" && !event.shiftKey) {
    event.preventDefault();
    addTyped().catch((problem) => say(problem.message, true));
  } else if (event.key === "Escape") showFound([]);
};
at("title").onblur = () => showFound([]);
at("add").onsubmit = (event) => {
  event.preventDefault();
  addTyped().catch((problem) => say(problem.message, true));
};
at("clear").onclick = () => { state.history = []; forgetTarget(); showHistory(); };
at("random").onclick = randomUser;
for (const id of ["first", "second", "count"]) at(id).onchange = recommend;
at("token").value = sessionStorage.getItem("token") || "";
at("token").onchange = () => { sessionStorage.setItem("token", at("token").value); loadModels(); };
loadModels();
