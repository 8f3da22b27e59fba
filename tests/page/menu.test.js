import assert from "node:assert/strict";
import { test } from "node:test";

import { conditionsOf, conditionsOfTag } from "../../src/otel_metadata/server/page/menu.js";

const TRACE_ID = "0123456789abcdef0123456789abcdef";

/** @param {import("../../src/otel_metadata/server/page/menu.js").Item[]} items */
function codes(items) {
  return items.map(({ code }) => code);
}

test("a value offers itself, its opposite, and its trace", () => {
  const given = /** @type {string[]} */ ([]);
  const items = conditionsOf(["metadata.plan"], "it's", TRACE_ID, (condition) => given.push(condition));
  assert.deepEqual(codes(items), ["metadata.plan = 'it''s'", "metadata.plan != 'it''s'", `trace_id = '${TRACE_ID}'`]);
  items[1].run();
  assert.deepEqual(given, ["metadata.plan != 'it''s'"]);
});

test("a value that may be in two places is looked for in both", () => {
  const items = conditionsOf(["eval.A.label", "trace.eval.A.label"], "good", TRACE_ID, () => {});
  assert.equal(items[0].code, "(eval.A.label = 'good' OR trace.eval.A.label = 'good')");
});

test("a value without a literal offers its name; a tag is in a list", () => {
  assert.deepEqual(codes(conditionsOf(["metadata.a"], [1], TRACE_ID, () => {})), ["metadata.a IS NOT NULL", `trace_id = '${TRACE_ID}'`]);
  assert.deepEqual(codes(conditionsOfTag("tags", "vip", TRACE_ID, () => {})).slice(0, 2), ["'vip' IN tags", "'vip' NOT IN tags"]);
});
