import assert from "node:assert/strict";
import { test } from "node:test";

import { keyName, literal, narrowed } from "../../src/otel_metadata/server/page/filter_text.js";

test("a condition joins a filter", () => {
  assert.equal(narrowed(" ", "a = 1"), "a = 1");
  assert.equal(narrowed("b = 2", "a = 1"), "b = 2 AND a = 1");
  assert.equal(narrowed("b = 2 or c = 3", "a = 1"), "(b = 2 or c = 3) AND a = 1");
});

test("a key is always quoted, because any word may be one of the language", () => {
  assert.equal(keyName("metadata", "timestamp"), 'metadata."timestamp"');
  assert.equal(keyName("trace.metadata", 'say "hi"'), 'trace.metadata."say ""hi"""');
  assert.equal(keyName("eval", "Is it true?", "label"), 'eval."Is it true?".label');
});

test("a value is a literal if the language has one for it", () => {
  assert.equal(literal("it's"), "'it''s'");
  assert.equal(literal(true), "TRUE");
  assert.equal(literal(-1.5), "-1.5");
  assert.equal(literal("🐶"), "'🐶'");
  for (const value of [{}, [], null, undefined, Infinity, "x".repeat(1_001), "\0", "\ud83d", 2 ** 53]) assert.equal(literal(value), null);
});
