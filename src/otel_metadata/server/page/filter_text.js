/** Conditions as filters write them. The server alone reads the language; `tests/browser` holds this to its parser. */

/** A filter has at most 4,096 bytes; a longer value is not offered as a condition. */
const LONGEST = 1_000;

/**
 * The name of a key, in double quotes: without them a key such as `timestamp` would be a word of the language.
 * @param {"metadata" | "trace.metadata" | "attributes" | "resource" | "eval" | "trace.eval"} first
 * @param {string} key
 * @param {string} part of an evaluation: `label` or `score`
 */
export function keyName(first, key, part = "") {
  return `${first}."${key.replaceAll('"', '""')}"${part && `.${part}`}`;
}

/**
 * A literal.
 * @param {unknown} value
 * @returns {string | null} null if the language has none for it
 */
export function literal(value) {
  if (typeof value === "string") return value.length <= LONGEST && isPlain(value) ? `'${value.replaceAll("'", "''")}'` : null;
  if (typeof value === "boolean") return value ? "TRUE" : "FALSE";
  // A greater integer was rounded when its JSON was read, and is another one now.
  if (typeof value === "number" && Number.isFinite(value) && Math.abs(value) <= Number.MAX_SAFE_INTEGER) return String(value);
  return null;
}

/** Whether a text has neither NUL nor half a character, which filters refuse. @param {string} text */
function isPlain(text) {
  return !/[\0\p{Surrogate}]/u.test(text);
}

/**
 * A filter with one more condition.
 * @param {string} filter
 * @param {string} condition
 */
export function narrowed(filter, condition) {
  const before = filter.trim();
  if (!before) return condition;
  return /\bor\b/i.test(before) ? `(${before}) AND ${condition}` : `${before} AND ${condition}`;
}
