// The figures of one page, asked of the API.

import { byId, make } from "./dom.js";
import { NONE, moment, number } from "./format.js";

const INSTANT = /_(seen|at|time|start|end)$/;

function shown(name, value) {
  if (typeof value === "number") return number(value);
  const ms = INSTANT.test(name) ? Date.parse(value) : NaN;
  return Number.isNaN(ms) ? String(value ?? NONE) : moment(ms, Date.now());
}

// How often somebody asked; a late answer to an earlier question is not shown.
let asked = 0;

async function ask(page) {
  const mine = ++asked;
  let found;
  try {
    // As a parameter: in a path, a browser would resolve dots.
    const response = await fetch(`/api/views/page_stats?${new URLSearchParams({ limit: 1, page_id: page })}`);
    found = answer(page, response, await response.json());
  } catch {
    found = make("p", "empty", "The server does not answer; try again.");
  }
  if (mine === asked) byId("lookup-answer").replaceChildren(found);
}

function answer(page, response, body) {
  if (response.status === 404) return make("p", "empty", "No data yet: view page_stats does not run.");
  if (!response.ok) return make("p", "empty", body.error);
  const [row] = body.rows;
  return row ? figures(row) : make("p", "empty", `No view of page "${page}" has been counted; ids begin with a slash.`);
}

function figures(row) {
  const all = make("dl", "figures");
  for (const [name, value] of Object.entries(row)) all.append(make("dt", "", name.replaceAll("_", " ")), make("dd", "", shown(name, value)));
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
