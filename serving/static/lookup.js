// The figures of one page, asked of the API.

import { byId, make } from "./dom.js";
import { NONE, moment, number } from "./format.js";

const INSTANT = /_(seen|at|time|start|end)$/;

function shown(name, value) {
  if (typeof value === "number") return number(value);
  const ms = INSTANT.test(name) ? Date.parse(value) : NaN;
  return Number.isNaN(ms) ? String(value ?? NONE) : moment(ms, Date.now());
}

async function ask(page) {
  const path = page.split("/").map(encodeURIComponent).join("/");
  const answer = byId("lookup-answer");
  try {
    const response = await fetch(`/api/page-stats/${path}`, { headers: { accept: "application/json" } });
    const body = await response.json();
    answer.replaceChildren(response.ok ? figures(body) : make("p", "empty", body.error));
  } catch {
    answer.replaceChildren(make("p", "empty", "The server does not answer; try again."));
  }
}

function figures(row) {
  const all = make("dl", "figures");
  for (const [name, value] of Object.entries(row)) {
    if (name === "view" || name === "version") continue;
    all.append(make("dt", "", name.replaceAll("_", " ")), make("dd", "", shown(name, value)));
  }
  return all;
}

/** Ask for `page` and show it in the form too. */
export function look(page) {
  byId("lookup-id").value = page;
  ask(page);
}

export function begin() {
  byId("lookup-form").addEventListener("submit", (event) => {
    event.preventDefault();
    ask(byId("lookup-id").value.trim());
  });
}
