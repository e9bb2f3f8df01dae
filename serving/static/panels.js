// One function a panel: from the picture's sections to what stands on the page.

import * as charts from "./charts.js";
import { byId, empty, list, make, row, say } from "./dom.js";
import { NONE, clock, compact, minute, moment, money, number, percent, rate, span } from "./format.js";
import { look } from "./lookup.js";

// Without a closed window for so many windows, the figures are of a traffic that has ended.
const RECENT = 5, QUIET = 5;
// The dashboard's promise: an event is on the screen in less.
const PROMISED_SECONDS = 5;
const OLD_SECONDS = 15;
// How far an event of page_views may trail the newest one.
const DISORDER_MS = 10000;
const sum = (values) => values.reduce((total, value) => total + value, 0);

/** Whether a section is no longer renewed. */
export const stale = (section, now) => !section || Boolean(section.problem) || (now - section.at) / 1000 > OLD_SECONDS;

/** Whether it is known of all events how many arrived, and how many of them are in the views. */
function counted({ accounts, events }, now) {
  if (stale(accounts, now) || stale(events, now)) return false;
  const known = Object.values(accounts.data), read = new Set(known.map((one) => one.reads));
  return known.every((one) => one.pending !== null) && Object.entries(events.data).every(([name, one]) => !one.total || read.has(name));
}

/** Add up `name` of all accounts; of those over the same events the most counts. */
function total(accounts, name) {
  const most = new Map();
  for (const one of Object.values(accounts)) most.set(one.reads, Math.max(most.get(one.reads) ?? 0, one[name]));
  return sum([...most.values()]);
}

function tile(id, value, note, mood = "", old = false) {
  const place = byId(`tile-${id}`);
  say(place.querySelector(".value"), value);
  say(place.querySelector(".note"), note);
  place.dataset.mood = mood;
  place.dataset.old = String(old);
}

export function events({ events: section }) {
  if (!section.data) return;
  const streams = Object.entries(section.data);
  const all = sum(streams.map(([, one]) => one.total));
  const busiest = streams.filter(([, one]) => one.rate > 0).map(([name, one]) => `${name} ${rate(one.rate)}`);
  tile("rate", rate(sum(streams.map(([, one]) => one.rate))),
    streams.length > 1 && busiest.length ? busiest.join(" · ") : `${number(all)} in all`);
  charts.spark(joined(streams.map(([, one]) => one.history)));
}

/** Add up histories of [seconds, value]; those of one moment belong together. */
function joined(histories) {
  const values = new Map();
  for (const [at, value] of histories.flat()) values.set(at, (values.get(at) || 0) + value);
  return [...values].sort(([one], [other]) => one - other);
}

export function traffic(sections, now) {
  const section = sections.traffic;
  if (!section.data) return;
  const { points, anomalies } = section.data;
  const none = points === null ? "No data yet: view site_traffic_per_minute does not run." : points.start.length ? "" : "No traffic yet.";
  empty("traffic", none);
  if (none) {
    tile("users", NONE, "no data yet");
    tile("errors", NONE, "no data yet");
    return;
  }
  const known = settled(sections), until = known === null ? now : Math.max(known, complete);
  closed = points.end.findLastIndex((end) => end * 1000 <= until);
  if (known !== null && closed >= 0) complete = Math.max(complete, points.end[closed] * 1000);
  now_tiles(points, now);
  const marks = marked(points, anomalies);
  // The chart calls back for as long as the page is open: with what it shows by then.
  traffic_points = points;
  marked_windows = marks.size;
  charts.traffic(points, closed, marks, legend);
  legend(hovered);
  say(byId("traffic-note"), anomaly_note(anomalies, now));
  byId("traffic-chart").setAttribute("aria-label", description(points, anomalies, now));
  newest_rows(points, now);
}

// The place of the newest window that is complete; what comes after it still grows. `complete` is
// its end: what was complete once is not taken back.
let closed = -1, complete = 0;

/** The instant, epoch ms, up to which all page views are in the views; null where that is not known. */
function settled({ accounts, events, jobs }) {
  const pages = accounts.data?.page_views, asked = Math.min(accounts.at, events.at);
  if (pages?.pending === 0) return asked - DISORDER_MS;
  const job = jobs.data?.find((one) => one.accounts?.includes("page_views") && one.version === (pages?.version ?? one.version));
  if (job?.watermark) return job.watermark;
  return pages?.oldest_pending ? asked - 1000 * pages.oldest_pending - DISORDER_MS : null;
}

function now_tiles(points, now) {
  if (closed < 0) {
    tile("users", NONE, "the first window is open");
    tile("errors", NONE, "the first window is open");
    return;
  }
  const start = points.start[closed], end = points.end[closed], seconds = now / 1000 - end;
  const old = seconds > QUIET * (end - start);
  const before = old ? `, ${span(seconds)} ago` : points.end[closed - 1] === start ? `; ${number(points.users[closed - 1])} the window before` : "";
  tile("users", number(points.users[closed]), `at ${moment(start * 1000, now)}${before}`, "", old);
  const count = Math.min(RECENT, closed + 1), last = (of) => sum(of.slice(closed + 1 - count, closed + 1));
  const errors = last(points.errors), views = last(points.views);
  const mood = errors > views / 20 ? "bad" : errors > views / 100 ? "warn" : "";
  tile("errors", percent(errors, views), `${number(errors)} of ${number(views)} in the last ${count} windows`, mood, old);
}

/** The window that stands for now: the newest closed one, or the first while it is open. */
const current = () => Math.max(0, closed);

function marked(points, anomalies) {
  const places = new Map(points.start.map((second, place) => [second, place]));
  const marks = (anomalies || []).map((one) => Date.parse(one.window_start) / 1000).filter((second) => places.has(second));
  return new Map(marks.map((second) => [second, points.views[places.get(second)]]));
}

function anomaly_note(anomalies, now) {
  if (anomalies === null) return "Anomalies: no data yet, their view does not run.";
  if (!anomalies.length) return "No anomalies in this time.";
  const [first] = anomalies;
  const usual = first.baseline === undefined ? "" : `, usual are ${compact(first.baseline)}`;
  return `${number(first.found)} anomal${first.found > 1 ? "ies" : "y"} in this time; the newest at ${moment(Date.parse(first.window_start), now)}: ${number(first.views)} views of ${first.page_id}${usual}${first.severity ? ` (${first.severity})` : ""}.`;
}

function description(points, anomalies, now) {
  const last = current();
  return `Views, users and errors of the last ${points.start.length} windows. Newest, ${moment(points.start[last] * 1000, now)}: ${number(points.views[last])} views, ${number(points.users[last])} users, ${number(points.errors[last])} errors; ${number(anomalies?.[0]?.found ?? 0)} anomalies.`;
}

let traffic_points = null, hovered = null, marked_windows = 0;
const open = (place) => (place > closed ? ", open" : "");

function legend(place) {
  hovered = place;
  const points = traffic_points, at = Math.min(place ?? current(), points.start.length - 1);
  const items = [["views", "Views", points.views[at]], ["users", "Users", points.users[at]], ["bad", "Errors", points.errors[at]]];
  if (marked_windows) items.push(["anomaly", "Anomaly", null]);
  list(byId("traffic-legend"), [["when", `${minute(points.start[at] * 1000)}${open(at)}`, null], ...items],
    () => make("span", ""),
    (element, [kind, label, value]) => {
      element.dataset.kind = kind;
      say(element, value === null ? label : `${label} ${number(value)}`);
    });
}

function newest_rows(points, now) {
  const last = points.start.length - 1;
  const places = Array.from({ length: Math.min(10, last + 1) }, (_, back) => last - back);
  list(byId("traffic-rows"), places, () => row(byId("traffic-rows")), (line, at) => {
    const cells = [`${moment(points.start[at] * 1000, now)}${open(at)}`, ...[points.views, points.users, points.errors].map((of) => number(of[at]))];
    cells.forEach((text, place) => say(line.children[place], text));
  });
}

export function top({ traffic: section }, now) {
  if (!section.data) return;
  const found = section.data.top_pages;
  empty("top", found === null ? "No data yet: view page_views_per_minute does not run." : found.pages.length ? "" : "No pages yet.");
  const pages = found?.pages ?? [], most = pages[0]?.views || 1;
  say(byId("top-span"), pages.length ? `${moment(Date.parse(found.from), now)} to ${minute(Date.parse(found.to))}` : "");
  list(byId("top-list"), pages, bar, (line, page) => {
    const [button, value] = line.children;
    button.dataset.page = page.page_id;
    button.title = page.page_id;
    say(button.lastElementChild, page.page_id);
    button.firstElementChild.style.width = `${(100 * page.views) / most}%`;
    say(value, number(page.views));
  });
}

function bar() {
  const button = make("button", "bar", make("span", "fill"), make("span", "name"));
  button.type = "button";
  button.addEventListener("click", () => look(button.dataset.page));
  return make("li", "", button, make("span", "num"));
}

export function fraud({ traffic: section }, now) {
  if (!section.data) return;
  const alerts = section.data.alerts;
  empty("fraud", alerts === null ? "No data yet: view fraud_alerts does not run." : alerts.length ? "" : "No alerts.");
  list(byId("fraud-list"), alerts ?? [], () => make("li", "", make("span", "score"), make("div", "", make("p", ""), make("p", "soft"))), (line, one) => {
    const [score, texts] = line.children;
    say(score, one.score === undefined ? "!" : Number(one.score).toFixed(1));
    const amount = one.amount_cents === undefined ? "" : `${money(one.amount_cents)} by `;
    say(texts.children[0], `${amount}${one.user_id ?? "unknown"}`);
    say(texts.children[1], [moment(Date.parse(one.event_time), now), one.reasons, one.transaction_id].filter(Boolean).join(" · "));
  });
}

export function pixel(sections, now, picture, extraSeconds) {
  const section = sections.accounts;
  if (!section.data) return;
  const streams = Object.values(section.data);
  const waited = streams.filter((one) => one.median !== null);
  const since = (picture.at - section.at) / 1000 + extraSeconds;
  const pending = total(section.data, "pending");
  const oldest = Math.max(...streams.map((one) => one.oldest_pending ?? 0), 0);
  const longest = Math.max(...waited.map((one) => one.longest + since), oldest);
  const mood = longest > PROMISED_SECONDS ? "warn" : "", going = `${number(pending)} on their way`;
  if (waited.length) {
    const median = Math.max(...waited.map((one) => one.median)) + since;
    const stuck = oldest > PROMISED_SECONDS ? `, ${going} for ${span(oldest)}` : "";
    tile("pixel", span(median), `median of a minute, longest ${span(longest)}${stuck}`, mood);
  } else {
    tile("pixel", NONE, pending ? `${going}${oldest ? `, ${span(oldest)} so far` : ""}` : counted(sections, now) ? "no new events for a minute" : "", mood);
  }
  const late = total(section.data, "late"), dead = total(section.data, "dead");
  tile("apart", number(late + dead), `${number(late)} late, ${number(dead)} dead`, dead ? "warn" : "");
}

export function views(sections, now) {
  const { views: section, lags, accounts, replays } = sections;
  if (!section.data) return;
  empty("views", section.data.length ? "" : "No views yet: start a job with kappa submit.");
  const newest = Math.max(0, ...section.data.map((one) => one.newest ?? 0));
  const pending = total(accounts.data ?? {}, "pending");
  const there = pending ? `ago, ${number(pending)} events on their way` : counted(sections, now) ? "ago, every event is in the views" : "ago";
  tile("fresh", newest ? span((now - newest) / 1000) : NONE, newest ? there : "no rows yet");
  const states = new Map((replays.data ?? []).flatMap((one) => one.open ? one.versions : []).map((one) => [`${one.view}.v${one.version}`, one.state]));
  const shown = [...section.data].sort((one, other) => internal(one) - internal(other) || one.name.localeCompare(other.name));
  list(byId("views-rows"), shown, view_row, (line, one) => {
    const [name, version, stored, age, lag] = line.children;
    say(name.children[0], one.name);
    say(name.children[1], one.doc);
    say(version.children[0], one.version ? `v${one.version}` : "");
    const others = (one.versions ?? []).filter((number) => number !== one.version);
    say(version.children[1], others.map((number) => `v${number} ${states.get(`${one.name}.v${number}`) ?? "stored"}`).join(", "));
    say(stored, number(one.rows));
    say(age, one.newest ? `${span((now - one.newest) / 1000)} ago` : NONE);
    const behind = lags.data?.views?.[one.version ? `${one.name}.v${one.version}` : one.name];
    say(lag, behind === undefined ? NONE : number(behind));
  });
}

const internal = (view) => Number(view.name.endsWith("_accounting") || view.version === null);

function view_row() {
  const line = row(byId("views-rows"));
  line.children[0].append(make("span", "name"), make("span", "doc soft"));
  line.children[1].append(make("span", "badge"), make("span", "soft"));
  return line;
}

export function jobs({ jobs: section, lags, accounts }, now) {
  if (!section.data) return;
  empty("jobs", section.data.length ? "" : "No jobs run: start one with kappa submit.");
  list(byId("jobs-rows"), section.data, job_row, (line, job) => {
    const lag = lags.data?.jobs?.[job.name];
    const streams = Object.keys(lag?.streams ?? {});
    // An account is of one version: the one that its view shows.
    const known = (job.accounts ?? streams).map((stream) => accounts.data?.[stream]).filter((one) => one && one.version === job.version);
    const count = (name) => (known.length && known.every((one) => one[name] !== null) ? number(sum(known.map((one) => one[name]))) : NONE);
    const newest = Math.max(...streams.map((stream) => lags.data?.newest?.[stream] ?? 0), 0);
    const [name, state, ...figures] = line.children;
    say(name.children[0], job.name);
    say(name.children[1], job.failure || (streams.length ? `reads ${streams.join(", ")}` : ""));
    const badge = state.firstElementChild;
    say(badge, job.state.toLowerCase());
    badge.dataset.mood = job.state === "RUNNING" ? "good" : job.state === "FAILED" ? "bad" : "warn";
    const failed = job.checkpoints_failed ? ` (${number(job.checkpoints_failed)} failed lately)` : "";
    const delay = job.watermark && newest ? Math.max(0, (newest - job.watermark) / 1000) : null;
    const texts = [
      job.checkpoint ? `${span((now - job.checkpoint) / 1000)} ago${failed}` : `${NONE}${failed}`,
      number(lag?.lag), span(delay), count("aggregated"), count("late"), count("dead"), count("pending"),
    ];
    texts.forEach((text, place) => say(figures[place], text));
    figures[2].title = delay === null ? "Known again after the next events." : `Watermark ${moment(job.watermark, now)}, newest event ${moment(newest, now)}`;
  });
}

function job_row() {
  const line = row(byId("jobs-rows"));
  line.children[0].append(make("span", "name"), make("span", "doc soft"));
  line.children[1].append(make("span", "badge"));
  return line;
}

const NEXT = {
  building: "Goes on with kappa replay build, ends with kappa replay abort.",
  built: "Next: kappa replay verify, then kappa replay promote.",
  promoted: "Back with kappa replay rollback; for good with kappa replay retire.",
  rolled_back: "Forward with kappa replay promote; for good with kappa replay retire.",
};

export function replays({ replays: section }, now) {
  if (!section.data) return;
  empty("replays", section.data.length ? "" : "No replays yet: kappa replay run rebuilds a view beside the live one.");
  list(byId("replays-list"), section.data, replay_card, (card, one) => {
    const [head, progress, text, versions, steps, next] = card.children;
    const from = [...new Set(Object.values(one.from_versions))].map((version) => `v${version}`).join(", ");
    say(head.children[0], `${one.job} ${from} → v${one.to_version}`);
    say(head.children[1], one.state.replace("_", " "));
    head.children[1].dataset.mood = { promoted: "good", rolled_back: "warn", aborted: "warn" }[one.state] ?? "";
    progress.hidden = one.state !== "building";
    progress.max = Math.max(1, one.events);
    progress.value = one.read;
    progress.setAttribute("aria-label", `Replay ${one.id}, events read`);
    say(text, one.state === "building" ? progress_text(one, now) : `${number(one.events)} events, ${span((now - one.changed) / 1000)} ago`);
    say(versions, one.open ? one.versions.filter((v) => !v.view.endsWith("_accounting")).map((v) => `${v.view} v${v.version} ${v.state}`).join(" · ") : "");
    list(steps, one.open ? one.journal : [], () => make("li", ""), (line, entry) => say(line, `${clock(entry.at)} ${entry.step} ${entry.state}`));
    say(next, one.open ? NEXT[one.state] ?? "" : "");
  });
}

// What each replay had read of late, as pairs of epoch ms and events: its pace follows.
const readings = new Map();
const PACE_MS = 30000, LEAST_MS = 5000;

function progress_text(one, now) {
  const seen = readings.get(one.id) ?? [];
  readings.set(one.id, seen);
  seen.push([now, one.read]);
  while (seen[0][0] < now - PACE_MS) seen.shift();
  const [since, read] = seen[0], pace = (1000 * (one.read - read)) / (now - since);
  const known = now - since >= LEAST_MS && pace > 0 && one.read < one.events;
  const left = known ? `; ${rate(pace)} a second, ${span((one.events - one.read) / pace)} left` : "";
  return `${number(one.read)} of ${number(one.events)} events read, ${percent(one.read, one.events)}${left}`;
}

function replay_card() {
  const head = make("p", "head", make("strong", ""), make("span", "badge"));
  return make("article", "replay", head, make("progress", ""), make("p", ""), make("p", "soft"), make("ol", "steps soft"), make("p", "next"));
}
