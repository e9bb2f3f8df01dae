// Figures and times as people read them.

const WHOLE = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const FINE = new Intl.NumberFormat("en", { maximumFractionDigits: 1, minimumFractionDigits: 1 });
const SHORT = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const CENTS = new Intl.NumberFormat("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 });
const CLOCK = new Intl.DateTimeFormat("en-GB", { timeZone: "UTC", timeStyle: "medium" });
const MINUTE = new Intl.DateTimeFormat("en-GB", { timeZone: "UTC", hour: "2-digit", minute: "2-digit" });
const DAY = new Intl.DateTimeFormat("en-GB", { timeZone: "UTC", day: "numeric", month: "short", year: "numeric" });
const UNITS = [["y", 31557600], ["d", 86400], ["h", 3600], ["min", 60]];

export const NONE = "–";
export const number = (value) => (value === null || value === undefined ? NONE : WHOLE.format(value));
export const money = (cents) => CENTS.format(cents / 100);
export const compact = (value) => (value < 10000 ? WHOLE.format(value) : SHORT.format(value));
export const rate = (value) => (value > 0 && value < 100 ? FINE.format(value) : WHOLE.format(value));
export const clock = (ms) => CLOCK.format(ms);
export const minute = (ms) => MINUTE.format(ms);
export const day = (ms) => DAY.format(ms);

/** A percentage; small ones keep two digits. */
export function percent(part, whole) {
  if (!whole) return NONE;
  const value = (100 * part) / whole;
  return `${value === 0 ? "0" : value < 10 ? value.toFixed(2) : value.toFixed(1)} %`;
}

/** Seconds as one number and its unit. */
export function span(seconds) {
  if (seconds === null || seconds === undefined || Number.isNaN(seconds)) return NONE;
  const unit = UNITS.find(([, length]) => seconds >= length);
  if (unit) return `${Math.floor(seconds / unit[1])} ${unit[0]}`;
  return seconds < 10 ? `${Math.max(0, seconds).toFixed(1)} s` : `${Math.round(seconds)} s`;
}

/** An instant with its day where that is not today. */
export function moment(ms, now) {
  return day(ms) === day(now) ? minute(ms) : `${day(ms)}, ${minute(ms)}`;
}
