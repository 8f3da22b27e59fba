import assert from "node:assert/strict";
import { test } from "node:test";

import { clock, dateOf, duration, marks, millisecondsAfter, thousands } from "../../src/otel_metadata/server/page/time.js";

test("a duration has three digits, then two units", () => {
  /** @type {[number, string][]} */
  const cases = [
    [0, "0 ms"], [0.000001, "1 ns"], [0.0009995, "1 µs"], [0.0123, "12.3 µs"], [0.99996, "1 ms"], [1, "1 ms"],
    [1.234, "1.23 ms"], [12.34, "12.3 ms"], [99.96, "100 ms"], [123.4, "123 ms"], [999.6, "1 s"], [1_234, "1.23 s"],
    [59_940, "59.9 s"], [59_996, "1 min"], [60_000, "1 min"], [134_000, "2 min 14 s"], [3_599_600, "1 h"],
    [8_040_000, "2 h 14 min"], [86_399_999, "1 d"], [90_000_000, "1 d 1 h"], [8_640_000_000, "100 d"], [-1_500, "−1.5 s"],
  ];
  for (const [milliseconds, text] of cases) assert.equal(duration(milliseconds), text);
});

test("nanoseconds keep their last digit", () => {
  assert.equal(millisecondsAfter("1790000000000000001", "1790000000000000000"), 1e-6);
  assert.equal(millisecondsAfter(5n, "10"), -5e-6);
});

test("a clock leaves out the date of today and the year of this one", () => {
  const now = new Date(2026, 10, 30, 15, 0, 0);
  assert.equal(clock(new Date(2026, 10, 30, 9, 5, 7), now), "09:05:07");
  assert.equal(clock(new Date(2026, 10, 29, 9, 5, 7), now), "29 Nov 09:05:07");
  assert.equal(clock(new Date(2025, 0, 2, 9, 5, 7), now), "2 Jan 2025 09:05:07");
  assert.equal(dateOf("1790000000123999999").getTime(), 1_790_000_000_123);
});

test("marks are round, begin with 0 and are not too many", () => {
  assert.deepEqual(marks(10, 5), [0, 2, 4, 6, 8, 10]);
  assert.deepEqual(marks(0.003, 3), [0, 0.001, 0.002, 0.003]);
  assert.deepEqual(marks(200_000, 4), [0, 60_000, 120_000, 180_000]);
  assert.deepEqual(marks(0, 5), [0]);
  for (let total = 1e-6; total < 1e12; total *= 1.37) {
    const found = marks(total, 6);
    assert.ok(found.length >= 2 && found.length <= 7, `${total}: ${found}`);
  }
});

test("a count has commas", () => {
  assert.deepEqual([0, 999, 1_000, 12_345, 1_234_567].map(thousands), ["0", "999", "1,000", "12,345", "1,234,567"]);
});
