// Begins: connects, and shows each picture as it comes.

import { recolour } from "./charts.js";
import { byId, say } from "./dom.js";
import { clock, span } from "./format.js";
import { connect } from "./live.js";
import { begin } from "./lookup.js";
import * as panels from "./panels.js";

const TICK = 500, RELOAD_PAUSE = 60000;
const BUILD = document.querySelector('meta[name="build"]').content;
// Each with the places that it fills.
const PANELS = [
  [panels.events, "tile-rate"],
  [panels.traffic, "traffic", "tile-users", "tile-errors"],
  [panels.top, "top"],
  [panels.fraud, "fraud"],
  [panels.views, "views", "tile-fresh"],
  [panels.jobs, "jobs"],
  [panels.replays, "replays"],
  [panels.pixel, "tile-pixel", "tile-apart"],
];
const broken = new Set();
let picture = null, arrived = 0, paintSeconds = 0, link = "connecting", nextTry = 0, scheduled = false;

const live = connect({
  picture(newest, at) {
    [picture, arrived] = [newest, at];
    if (!scheduled) requestAnimationFrame(draw);
    scheduled = true;
  },
  link(state, next) {
    [link, nextTry] = [state, next];
    tell();
  },
});

/** The server's clock, epoch ms: what it said, and the time since. */
const serverNow = () => picture.at + performance.now() - arrived;

function draw() {
  scheduled = false;
  if (replaced()) return;
  for (const [show, ...places] of PANELS) guarded(show, places);
  say(byId("database"), picture.database);
  tell();
  const of = arrived;
  // The frame after this one begins once this one is on the screen.
  requestAnimationFrame(() => { paintSeconds = (performance.now() - of) / 1000; });
}

/** Let a panel that fails stop no other: its places are marked until it succeeds again. */
function guarded(show, places) {
  try {
    show(picture.sections, serverNow(), picture, live.transitSeconds() + paintSeconds);
    places.forEach((id) => broken.delete(id));
  } catch (error) {
    if (!broken.has(places[0])) console.error(error);
    places.forEach((id) => broken.add(id));
  }
}

/** Whether the page is of another build than the server, and so loads itself anew. */
function replaced() {
  if (picture.build === BUILD) return false;
  try {
    // While servers of both builds run, the next page may be the old one again.
    if (Date.now() - Number(sessionStorage.getItem("reloaded")) < RELOAD_PAUSE) return false;
    sessionStorage.setItem("reloaded", Date.now());
  } catch { return false; }
  location.reload();
  return true;
}

/** Say how old everything is; values that are no longer renewed look so. */
function tell() {
  document.body.dataset.link = link;
  say(byId("link"), { live: "Live", lost: "Connection lost", connecting: "Connecting" }[link]);
  say(byId("as-of"), picture ? `as of ${clock(picture.at)}${link === "live" ? "" : `, ${span((serverNow() - picture.at) / 1000)} ago`}` : "");
  const lost = link === "lost";
  byId("banner").hidden = !lost;
  say(byId("banner-text"), lost ? (picture ? "Connection lost: these values are old." : "The server does not answer.") : "");
  say(byId("banner-next"), lost ? `Next try ${nextTry > Date.now() ? `in ${Math.ceil((nextTry - Date.now()) / 1000)} s` : "now"}.` : "");
  if (picture) for (const place of document.querySelectorAll("[data-section]")) age(place);
}

/** Say of a place what is old among the sections, one or several, that it shows. */
function age(place) {
  const sections = place.dataset.section.split(" ").map((name) => picture.sections[name] ?? { at: 0, problem: "The server does not tell it." });
  const old = sections.filter((one) => link === "lost" || panels.stale(one, serverNow())), fails = broken.has(place.id);
  place.dataset.stale = String(fails || old.length > 0);
  const since = Math.min(...old.map((one) => one.at)), problems = new Set(old.map((one) => one.problem));
  const told = old.length ? [since ? `As of ${clock(since)}.` : "", ...problems].filter(Boolean).join(" ") : "";
  say(place.querySelector(".stale-note"), fails ? "This can’t be shown; reload the page." : told);
}

const themes = ["", "light", "dark"];

function showTheme() {
  say(byId("theme"), `Colours: ${document.documentElement.dataset.theme ?? "auto"}`);
  redraw();
}

function redraw() {
  recolour();
  if (picture) draw();
}

byId("theme").addEventListener("click", () => {
  const current = document.documentElement.dataset.theme ?? "";
  const next = themes[(themes.indexOf(current) + 1) % themes.length];
  if (next) document.documentElement.dataset.theme = next;
  else delete document.documentElement.dataset.theme;
  try { localStorage.setItem("theme", next); } catch { /* without storage it lasts until reload */ }
  showTheme();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
addEventListener("resize", () => { if (picture && !scheduled) { scheduled = true; requestAnimationFrame(draw); } });
setInterval(tell, TICK);
begin();
showTheme();
