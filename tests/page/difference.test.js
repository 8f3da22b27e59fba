import assert from "node:assert/strict";
import { test } from "node:test";

import { change, parted, rowsOf, spanFacts, traceFacts } from "../../src/otel_metadata/server/page/difference.js";

const SPAN = {
  name: "chat", kind: "CLIENT", span_kind: "LLM", status_code: "UNSET", status_message: null, user_id: "u-7", session_id: null,
  project: "shop", latency_ms: 1_200, input: [{ role: "user" }], output: "Sunny.", metadata: { step: 1, nothing: null, deep: { b: 1, a: 2 } },
  trace_metadata: {}, tags: ["vip"], trace_tags: [], evaluations: { Correctness: { source: "llm", label: "correct", score: 0.9 } },
  annotations: [], trace_evaluations: {}, trace_annotations: [], events: [{ name: "first token" }, { name: "first token" }],
  attributes: { "gen_ai.request.model": "gpt-5" }, resource: { "service.name": "shop" },
};

/** @param {any} a @param {any} b */
function differing(a, b) {
  return rowsOf(spanFacts(a), spanFacts(b)).filter((row) => !row.isSame).map(({ group, name, a, b }) => [group, name, a, b]);
}

test("only what differs is told, whatever the order of keys", () => {
  assert.deepEqual(differing(SPAN, { ...SPAN, metadata: { deep: { a: 2, b: 1 }, nothing: null, step: 1 } }), []);
  const other = {
    ...SPAN, latency_ms: 2_400, status_code: "ERROR", tags: [], events: SPAN.events.slice(1), annotations: [{ name: "tone", annotator: "ada", label: "curt" }],
    metadata: { step: 2, deep: { b: 1, a: 3 } }, evaluations: { Correctness: { source: "llm", label: "correct", score: 0.3 } },
  };
  assert.deepEqual(differing(SPAN, other), [
    ["Span", "status", "UNSET", "ERROR"],
    ["Span", "duration", 1_200, 2_400],
    ["Metadata", "step", 1, 2],
    ["Metadata", "nothing", null, undefined],
    ["Metadata", "deep", { b: 1, a: 2 }, { b: 1, a: 3 }],
    ["Tags", "vip", "set", undefined],
    ["Verdicts", "Correctness: score", 0.9, 0.3],
    ["Verdicts", "tone by ada: label", undefined, "curt"],
    ["Events", "first token", 2, 1],
  ]);
});

test("a key of metadata that is named as something else is its own", () => {
  const rows = differing({ ...SPAN, metadata: { name: "a", __proto__: 1 } }, { ...SPAN, metadata: { name: "b" } });
  assert.deepEqual(rows, [["Metadata", "name", "a", "b"]]);
});

test("traces differ by their spans", () => {
  const span = (/** @type {string} */ name, /** @type {number} */ start, /** @type {number} */ end, parent_id = /** @type {string | null} */ ("1")) =>
    ({ name, parent_id, start_time_ns: `${start}000000`, end_time_ns: `${end}000000`, status_code: "UNSET" });
  const base = { name: null, user_id: null, session_id: null, metadata: {}, tags: [], input: null, output: null, evaluations: {}, annotations: [] };
  const a = { ...base, spans: [span("answer", 10, 40, null), span("chat", 12, 20)] };
  const b = { ...base, spans: [span("answer", 10, 60, null), span("chat", 12, 20), { ...span("chat", 20, 59), status_code: "ERROR" }] };
  const root = { ...SPAN, trace_metadata: {} };
  assert.deepEqual(rowsOf(traceFacts(a, root), traceFacts(b, root)).filter((row) => !row.isSame).map(({ name, a, b }) => [name, a, b]), [
    ["duration", 30, 50], ["spans", 2, 3], ["errors", 0, 1], ["answer: time", 30, 50], ["chat: how many", 1, 2], ["chat: time", 8, 47],
  ]);
});

test("traces differ by what their roots have", () => {
  const span = { name: "answer", parent_id: null, start_time_ns: "10000000", end_time_ns: "40000000", status_code: "UNSET" };
  const trace = { name: null, user_id: null, session_id: null, metadata: {}, tags: [], input: null, output: null, evaluations: {}, annotations: [], spans: [span] };
  const other = { ...SPAN, user_id: "u-8", output: "Rain.", metadata: { ...SPAN.metadata, step: 2 }, tags: [], evaluations: { Correctness: { label: "incorrect", score: 0.9 } } };
  const rows = rowsOf(traceFacts(trace, SPAN), traceFacts(trace, other)).filter((row) => !row.isSame);
  assert.deepEqual(rows.map(({ group, name, a, b }) => [group, name, a, b]), [
    ["Trace", "user", "u-7", "u-8"],
    ["Contents", "output", "Sunny.", "Rain."],
    ["Metadata of the root", "step", 1, 2],
    ["Tags", "vip", "set", undefined],
    ["Verdicts", "Correctness of the root: label", "correct", "incorrect"],
  ]);
  const named = { ...trace, user_id: "u-1" };
  assert.deepEqual(rowsOf(traceFacts(named, SPAN), traceFacts(named, { ...SPAN, user_id: "u-8" })).filter((row) => !row.isSame), []);
});

test("a difference of numbers is said in words", () => {
  const of = (/** @type {unknown} */ a, /** @type {unknown} */ b, isTime = false) => change({ group: "", name: "", a, b, isTime, isSame: a === b });
  assert.equal(of(1_200, 1_500, true), "+300 ms, +25 %");
  assert.equal(of(1_200, 300, true), "−900 ms, −75 %");
  assert.equal(of(2, 9), "+7, 4.5 times as much");
  assert.equal(of(0, 9), "+9");
  assert.equal(of("a", 9), "");
  assert.equal(of(9, 9), "");
});

test("texts part at whole characters", () => {
  assert.deepEqual(parted("say yes, please", "say no, please"), { before: "say ", a: "yes", b: "no", after: ", please" });
  assert.deepEqual(parted("aaa", "aa"), { before: "aa", a: "a", b: "", after: "" });
  assert.deepEqual(parted("x😀y", "x😁y"), { before: "x", a: "😀", b: "😁", after: "y" });
});
