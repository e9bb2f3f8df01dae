// uPlot, in the page's colours.

import { byId } from "./dom.js";
import { compact, day, minute } from "./format.js";

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const HEIGHT = 250, SPARK = 34, DASH = [5, 4];
/** Seconds between two times on the axis, which shows minutes. */
const STEPS = [1, 2, 5, 10, 15, 30, 60].map((minutes) => minutes * 60);
const drawn = new Map();

/** Draw again from nothing, in other colours. */
export function recolour() {
  for (const chart of drawn.values()) chart.plot?.destroy();
  drawn.clear();
}

/** Show columns [seconds, …] in the element `id`; `options` makes uPlot's options once. */
function show(id, options, data) {
  const place = byId(id), width = place.clientWidth;
  let chart = drawn.get(id);
  if (!width) return;
  if (!chart) {
    place.replaceChildren();
    chart = { plot: new uPlot(options(width), data, place) };
    drawn.set(id, chart);
  } else {
    if (chart.plot.width !== width) chart.plot.setSize({ width, height: chart.plot.height });
    chart.plot.setData(data);
  }
}

// What the traffic's chart shows: the value to ring by second, and the place of each column's window.
let rings = new Map(), windows = [];

/** Show `points`; the windows after place `closed` are open still, and their lines dashed. */
export function traffic(points, closed, marks, onHover) {
  [rings, windows] = [marks, columns(points)];
  const lines = [points.views, points.users, points.errors];
  const part = (wanted) => lines.map((line) => windows.map((place) => (place !== null && wanted(place) ? line[place] : null)));
  const open = closed + 1 < points.start.length;
  const seconds = windows.map((place, at) => (place === null ? points.end[windows[at - 1]] : points.start[place]));
  const data = [seconds, ...part((place) => place <= closed), ...part((place) => open && place >= closed)];
  const options = (width) => ({
    width,
    height: HEIGHT,
    legend: { show: false },
    cursor: { points: { size: 7 }, y: false, drag: { x: false, y: false } },
    tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
    scales: { y: { range: (_, least, most) => [0, Math.max(5, most * 1.1)] } },
    axes: [axis({ size: 32, values: times, incrs: STEPS }), axis({ size: 46, values: (_, ticks) => ticks.map(compact) })],
    series: [
      {},
      { stroke: colour("views"), fill: colour("views-fill"), width: 2, points: { show: false, filter: alone } },
      { stroke: colour("users"), width: 2, points: { show: false, filter: alone } },
      { stroke: colour("bad"), width: 2, points: { show: false, filter: alone } },
      ...["views", "users", "bad"].map((name) => ({ stroke: colour(name), width: 2, dash: DASH, points: { show: false } })),
    ],
    hooks: { draw: [drawRings], setCursor: [({ cursor: { idx } }) => onHover(idx === null || idx === undefined ? null : windows[idx] ?? windows[idx - 1])] },
  });
  show("traffic-chart", options, data);
}

/** The places of all windows, with null where some are missing between two: no line goes over these. */
const columns = ({ start, end }) => start.flatMap((_, place) => (start[place + 1] > end[place] ? [place, null] : [place]));

/** The columns of a line that have no neighbour: without a dot they would not be seen. */
function alone(plot, series) {
  const line = plot.data[series], has = (at) => (line[at] ?? null) !== null;
  return [...line.keys()].filter((at) => has(at) && !has(at - 1) && !has(at + 1));
}

function times(_, ticks) {
  let before = "";
  return ticks.map((tick) => {
    const date = day(tick * 1000).slice(0, -5), first = date !== before && before !== "";
    before = date;
    return first ? date : minute(tick * 1000);
  });
}

function axis(more) {
  return {
    stroke: colour("soft"),
    grid: { stroke: colour("line"), width: 1 },
    ticks: { show: false },
    font: "12px system-ui, sans-serif",
    ...more,
  };
}

function drawRings(plot) {
  const { ctx } = plot, ratio = devicePixelRatio || 1;
  ctx.save();
  ctx.strokeStyle = colour("warn");
  ctx.lineWidth = 2 * ratio;
  // The last line leaves its dashes behind.
  ctx.setLineDash([]);
  for (const [second, value] of rings) {
    ctx.beginPath();
    ctx.arc(plot.valToPos(second, "x", true), plot.valToPos(value, "y", true), 6 * ratio, 0, 2 * Math.PI);
    ctx.stroke();
  }
  ctx.restore();
}

export function spark(history) {
  const data = [history.map(([second]) => second), history.map(([, value]) => value)];
  const options = (width) => ({
    width,
    height: SPARK,
    legend: { show: false },
    cursor: { show: false },
    padding: [3, 0, 0, 0],
    scales: { y: { range: (_, least, most) => [0, Math.max(1, most)] } },
    axes: [{ show: false }, { show: false }],
    series: [{}, { stroke: colour("views"), fill: colour("views-fill"), width: 1.5, points: { show: false } }],
  });
  show("rate-spark", options, data);
}
