/** Times, durations and counts as people read them. Nanoseconds come as text, because a number of JavaScript cannot hold them. */

const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const DAY_MS = 86_400_000;

/**
 * Milliseconds between two times, exact to the nanosecond for spans of up to 104 days.
 * @param {string | bigint} ns
 * @param {string | bigint} startNs
 */
export function millisecondsAfter(ns, startNs) {
  return Number(BigInt(ns) - BigInt(startNs)) / 1e6;
}

/** @param {string} ns */
export function dateOf(ns) {
  return new Date(Number(BigInt(ns) / 1_000_000n));
}

/**
 * A duration with three digits below a minute, and with its two largest units above.
 * @param {number} milliseconds
 * @returns {string}
 */
export function duration(milliseconds) {
  if (milliseconds < 0) return `−${duration(-milliseconds)}`;
  if (milliseconds === 0) return "0 ms";
  for (const [size, unit] of /** @type {const} */ ([[1e-6, "ns"], [1e-3, "µs"], [1, "ms"], [1_000, "s"]])) {
    const text = threeDigits(milliseconds / size);
    // Rounded first, so that 999.96 ms is 1 s and 59.996 s is 1 min.
    if (Number(text) < (unit === "s" ? 60 : 1_000)) return `${text} ${unit}`;
  }
  const seconds = Math.round(milliseconds / 1_000);
  if (seconds < 3_600) return twoUnits(seconds, 60, "min", "s");
  const minutes = Math.round(seconds / 60);
  if (minutes < 1_440) return twoUnits(minutes, 60, "h", "min");
  return twoUnits(Math.round(minutes / 60), 24, "d", "h");
}

/** A whole number with commas; a browser needs 20 ms before it writes its first one. @param {number} count */
export function thousands(count) {
  return String(count).replace(/\B(?=(\d{3})+$)/g, ",");
}

/** @param {number} value */
function threeDigits(value) {
  const digits = value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
  return String(Number(value.toFixed(digits)));
}

/** @param {number} amount @param {number} per @param {string} large @param {string} small */
function twoUnits(amount, per, large, small) {
  const rest = amount % per;
  return `${Math.floor(amount / per)} ${large}${rest ? ` ${rest} ${small}` : ""}`;
}

/**
 * A time in the reader's time zone; the date only if it is not today's, the year only if it is not this year's.
 * @param {Date} time
 * @param {Date} now
 */
export function clock(time, now) {
  const isToday = time.toDateString() === now.toDateString();
  const ofDay = `${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}`;
  return isToday ? ofDay : `${day(time, now)} ${ofDay}`;
}

/** The same of nanoseconds, seen now. @param {string} ns */
export function clockOf(ns) {
  return clock(dateOf(ns), new Date());
}

/** @param {Date} time @param {Date} now */
function day(time, now) {
  const date = `${time.getDate()} ${MONTHS[time.getMonth()]}`;
  return time.getFullYear() === now.getFullYear() ? date : `${date} ${time.getFullYear()}`;
}

/** @param {number} value */
function two(value) {
  return String(value).padStart(2, "0");
}

/**
 * Round marks on a time axis, first 0.
 * @param {number} total milliseconds of the axis
 * @param {number} most how many marks fit
 * @returns {number[]}
 */
export function marks(total, most) {
  if (!(total > 0) || most < 1) return [0];
  const step = roundUp(total / most);
  const found = [];
  for (let index = 0; index * step <= total; index++) found.push(index * step);
  return found;
}

/** The next greater 1, 2 or 5 of a power of ten; above a second, of the units of a clock. @param {number} value */
function roundUp(value) {
  for (const whole of [1_000, 2_000, 5_000, 10_000, 15_000, 30_000, 60_000, 120_000, 300_000, 600_000, 900_000,
    1_800_000, 3_600_000, 7_200_000, 10_800_000, 21_600_000, 43_200_000, DAY_MS]) {
    if (value > 500 && value <= whole) return whole;
  }
  const unit = value > DAY_MS ? DAY_MS : 1;
  const power = 10 ** Math.floor(Math.log10(value / unit));
  for (const factor of [1, 2, 5, 10]) {
    const step = factor * power * unit;
    if (value <= step * (1 + 1e-9)) return step;
  }
  return 10 * power * unit;
}
