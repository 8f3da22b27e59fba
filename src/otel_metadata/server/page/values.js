/**
 * The life of values: for each field what it is now, how it came, and what it was before.
 *
 * @typedef {object} Value
 * @property {string} field
 * @property {"span" | "trace"} level
 * @property {string} kind
 * @property {string} key
 * @property {unknown} value
 * @property {string} time
 * @property {string} time_ns
 * @property {string} writer
 * @property {string | null} author
 * @property {string | null} route
 * @property {{time: string, time_ns: string, writer: string} | null} superseded_by
 * @property {boolean} is_oldest_kept
 *
 * @typedef {object} FieldRow
 * @property {string} id
 * @property {string} name
 * @property {"span" | "trace"} level
 * @property {Value} current
 * @property {Value[]} earlier newest first
 */
import { duration, millisecondsAfter } from "./time.js";

/** Each mark is a glyph and a word: a shape alone, or a colour alone, does not reach everybody. */
export const ROUTES = /** @type {Record<string, {glyph: string, word: string, meaning: string}>} */ ({
  live: { glyph: "●", word: "live", meaning: "Set while the span ran." },
  in_flight: { glyph: "◐", word: "in flight", meaning: "Set after the span ended and before it was stored." },
  late: { glyph: "○", word: "late", meaning: "Set after the span was stored." },
  import: { glyph: "↧", word: "import", meaning: "Read from a file." },
  log: { glyph: "≡", word: "log", meaning: "Taken from a table of spans." },
});

const UNKNOWN = { glyph: "·", word: "unknown", meaning: "Stored before the store kept how values arrive." };

/** Contents have a tab of their own. */
const CONTENTS = new Set(["input", "output"]);

const ORDER = ["metadata", "tag", "evaluation", "annotation", "name", "status", "status_message", "user_id", "session_id"];

/** @param {Value} value */
export function routeOf(value) {
  return ROUTES[value.route ?? ""] ?? UNKNOWN;
}

/**
 * How long after the end of its span a value was set, such as "+2 h 14 min"; empty for one that was set before.
 * @param {Value} value
 * @param {string} endNs
 */
export function lateness(value, endNs) {
  const after = millisecondsAfter(value.time_ns, endNs);
  return value.route === "late" && after > 0 ? `+${duration(after)}` : "";
}

/**
 * One row for each field, those that people set first.
 * @param {Value[]} history newest first
 * @param {string} at if given, the nanoseconds of the moment that is shown
 * @returns {FieldRow[]}
 */
export function fieldRows(history, at = "") {
  const isThere = (/** @type {string} */ ns) => at === "" || BigInt(ns) <= BigInt(at);
  /** @type {Map<string, Value[]>} */
  const byField = new Map();
  for (const value of history) {
    if (!isThere(value.time_ns)) continue;
    const id = JSON.stringify([value.level, value.kind, value.key]);
    const found = byField.get(id);
    if (found) found.push(value);
    else byField.set(id, [value]);
  }
  const rows = [];
  for (const [id, values] of byField) {
    const current = values.find((value) => value.superseded_by === null || !isThere(value.superseded_by.time_ns)) ?? values[0];
    const earlier = values.filter((value) => value !== current);
    rows.push({ id, name: nameOf(current), level: current.level, current, earlier });
  }
  return rows.sort((one, other) => rank(one) - rank(other) || compare(one.name, other.name));
}

/**
 * The moments at which a span changed, oldest first: those that are worth a look back.
 * @param {Value[]} history
 * @param {string} startNs of the span, before which there is nothing to show
 * @returns {{time: string, time_ns: string}[]}
 */
export function moments(history, startNs) {
  const byNs = new Map(history.filter((value) => BigInt(value.time_ns) >= BigInt(startNs)).map((value) => [value.time_ns, value.time]));
  const sorted = [...byNs].sort(([one], [other]) => (BigInt(one) < BigInt(other) ? -1 : 1));
  return sorted.map(([time_ns, time]) => ({ time, time_ns }));
}

/** Whether a row belongs to the values, not to input and output. @param {FieldRow} row */
export function isValue(row) {
  return !CONTENTS.has(row.current.kind);
}

/**
 * The name of a field without what its group says already.
 * @param {Value} value
 */
export function nameOf(value) {
  if (value.kind === "annotation") return noteName(value);
  return value.key || { status: "status", status_message: "status message", user_id: "user", session_id: "session" }[value.kind]
    || value.kind;
}

/** The key of a note has its annotator too: `["quality","ada"]`. @param {Value} value */
function noteName({ key }) {
  try {
    const parts = JSON.parse(key);
    return Array.isArray(parts) ? String(parts[0]) : key;
  } catch {
    return key;
  }
}

/** Text of a value on one line. @param {unknown} value @returns {string} */
export function shortText(value) {
  if (typeof value === "string") return JSON.stringify(value);
  if (value === null || value === undefined) return "null";
  if (typeof value !== "object") return String(value);
  return JSON.stringify(value);
}

/** A verdict or note in a few words: label, score, text. @param {any} value @returns {string} */
export function verdictText(value) {
  if (value === null || typeof value !== "object") return shortText(value);
  const parts = [value.label, value.score, value.text ?? value.explanation].filter((part) => part !== null && part !== undefined);
  return parts.length ? parts.join(" · ") : shortText(value);
}

/** The text to show for a value of a field. @param {Value} value */
export function textOf(value) {
  if (value.kind === "evaluation" || value.kind === "annotation") return verdictText(value.value);
  if (value.kind === "tag") return value.value === null || value.value === false ? "removed" : "set";
  return shortText(value.value);
}

/** @param {FieldRow} row */
function rank(row) {
  const place = ORDER.indexOf(row.current.kind);
  return (place < 0 ? ORDER.length : place) * 2 + (row.level === "trace" ? 1 : 0);
}

/** @param {string} one @param {string} other */
function compare(one, other) {
  return one < other ? -1 : one > other ? 1 : 0;
}
