import assert from "node:assert/strict";
import { test } from "node:test";

import { fieldRows, isValue, lateness, moments, routeOf, textOf } from "../../src/otel_metadata/server/page/values.js";

/**
 * @param {string} key
 * @param {unknown} value
 * @param {number} time
 * @param {object} more
 * @returns {import("../../src/otel_metadata/server/page/values.js").Value}
 */
function value(key, value, time, more = {}) {
  return {
    field: `metadata.${key}`, level: "span", kind: "metadata", key, value, time: "", time_ns: String(time), writer: "1",
    author: null, route: "late", superseded_by: null, is_oldest_kept: false, ...more,
  };
}

const BY_LATER = { superseded_by: { time: "", time_ns: "3", writer: "1" } };

test("a field is one row with what it was before, newest first", () => {
  const history = [value("thumbs", "down", 3), value("model", "m-1", 2, { route: "live" }),
    value("thumbs", "up", 2, BY_LATER), value("thumbs", "so so", 1, BY_LATER)];
  const rows = fieldRows(history);
  assert.deepEqual(rows.map((row) => [row.name, row.current.value, row.earlier.map((one) => one.value)]), [
    ["model", "m-1", []], ["thumbs", "down", ["up", "so so"]],
  ]);
});

test("the current value is the one that nothing has superseded, wherever it is in the order", () => {
  const [row] = fieldRows([value("a", 2, 2, BY_LATER), value("a", 1, 1)]);
  assert.equal(row.current.value, 1);
});

test("at a moment a field has the value that it had then, and a later field is not there yet", () => {
  const history = [value("thumbs", "down", 3), value("late", 1, 3), value("thumbs", "up", 2, BY_LATER), value("model", "m-1", 1)];
  const at = (/** @type {string} */ ns) => fieldRows(history, ns).map((row) => [row.name, row.current.value, row.earlier.length]);
  assert.deepEqual(at("2"), [["model", "m-1", 0], ["thumbs", "up", 0]]);
  assert.deepEqual(at("3"), [["late", 1, 0], ["model", "m-1", 0], ["thumbs", "down", 1]]);
  assert.deepEqual(at("0"), []);
});

test("the moments of a span are the different times of its values, from its start on", () => {
  const history = [value("a", 1, 30), value("b", 1, 30), value("a", 0, 20), value("plan", "x", 9, { level: "trace" })];
  assert.deepEqual(moments(history, "10").map(({ time_ns }) => time_ns), ["20", "30"]);
  assert.deepEqual(moments([], "10"), []);
});

test("a key of the trace and the same key of the span are two rows", () => {
  const rows = fieldRows([value("a", 1, 1, { level: "trace" }), value("a", 2, 1)]);
  assert.deepEqual(rows.map((row) => row.level), ["span", "trace"]);
});

test("what people set comes first; input and output have another tab", () => {
  const rows = fieldRows([value("http.route", 1, 1, { kind: "attribute" }), value("", "hi", 1, { kind: "input" }),
    value("vip", true, 1, { kind: "tag" }), value("Z", {}, 1, { kind: "evaluation" }), value("a", 1, 1)]);
  assert.deepEqual(rows.filter(isValue).map((row) => row.current.kind), ["metadata", "tag", "evaluation", "attribute"]);
});

test("a mark is a glyph and a word", () => {
  assert.deepEqual(["live", "in_flight", "late", "import", "log", null].map((route) => {
    const { glyph, word } = routeOf(value("a", 1, 1, { route }));
    return `${glyph} ${word}`;
  }), ["● live", "◐ in flight", "○ late", "↧ import", "≡ log", "· unknown"]);
});

test("only a late value says how late it was", () => {
  assert.equal(lateness(value("a", 1, 8_040_000_000_000), "0"), "+2 h 14 min");
  assert.equal(lateness(value("a", 1, 8_040_000_000_000, { route: "live" }), "0"), "");
  assert.equal(lateness(value("a", 1, 5), "10"), "");
});

test("a verdict is told in a few words, and a text keeps its quotation marks", () => {
  assert.equal(textOf(value("C", { source: "code", label: "good", score: 0 }, 1, { kind: "evaluation" })), "good · 0");
  assert.equal(textOf(value("a", "1", 1)), '"1"');
  assert.equal(textOf(value("a", 1, 1)), "1");
  assert.equal(textOf(value("a", { b: null }, 1)), '{"b":null}');
});
