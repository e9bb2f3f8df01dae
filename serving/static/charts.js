// uPlot, in the page's colours.

import { byId } from "./dom.js";
import { compact, day, minute } from "./format.js";

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const HEIGHT = 250, SPARK = 34, DASH = [5, 4];
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

/** Show `points`; the windows after place `closed` are open still, and their lines dashed. */
export function traffic(points, closed, marks, onHover) {
  const lines = [points.views, points.users, points.errors];
  const part = (wanted) => lines.map((line) => line.map((value, place) => (wanted(place) ? value : null)));
  const open = closed + 1 < points.start.length;
  const data = [points.start, ...part((place) => place <= closed), ...part((place) => open && place >= closed)];
  const options = (width) => ({
    width,
    height: HEIGHT,
    legend: { show: false },
    cursor: { points: { size: 7 }, y: false, drag: { x: false, y: false } },
    tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
    scales: { y: { range: (_, least, most) => [0, Math.max(5, most * 1.1)] } },
    axes: [axis({ size: 32, values: times }), axis({ size: 46, values: (_, ticks) => ticks.map(compact) })],
    series: [
      {},
      { stroke: colour("views"), fill: colour("views-fill"), width: 2, points: { show: false } },
      { stroke: colour("users"), width: 2, points: { show: false } },
      { stroke: colour("bad"), width: 2, points: { show: false } },
      ...["views", "users", "bad"].map((name) => ({ stroke: colour(name), width: 2, dash: DASH, points: { show: false } })),
    ],
    hooks: { draw: [drawMarks], setCursor: [(plot) => onHover(plot.cursor.idx)] },
  });
  const known = drawn.get("traffic-chart");
  if (known) known.plot.marks = marks;
  show("traffic-chart", options, data);
  if (!known && drawn.has("traffic-chart")) {
    const { plot } = drawn.get("traffic-chart");
    plot.marks = marks;
    plot.redraw(false);
  }
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

/** Ring the windows that `plot.marks`, a map from second to value, names. */
function drawMarks(plot) {
  const { ctx } = plot, ratio = devicePixelRatio || 1;
  ctx.save();
  ctx.strokeStyle = colour("warn");
  ctx.lineWidth = 2 * ratio;
  // The last line leaves its dashes behind.
  ctx.setLineDash([]);
  for (const [second, value] of plot.marks || []) {
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
