import assert from "node:assert/strict";
import { test } from "node:test";

import { added, allBars, noSums, quantile, roundEnd, short } from "../../src/otel_metadata/server/page/sums.js";

const PART = {
  counted: 3, spans: 9, width_ns: "1000", is_whole: true, next_cursor: "c", searched_to: { start_time_ns: "2100" },
  bars: [{ start_time_ns: "2000", count: 3, errors: 1, latencies: { 0: 2, 80: 1 } }],
  verdicts: [{ name: "Tone", label: "curt", count: 2, scored: 1, score_sum: 0.5 }],
  groups: [{ value: "team", calls: 2, input_tokens: 10, output_tokens: 5, cost: 0.25 }, { value: null, calls: 1, input_tokens: 1, output_tokens: 0, cost: 0 }],
};

test("parts add up, and the sums before stay as they were", () => {
  const first = added(noSums(), PART);
  const both = added(first, { ...PART, next_cursor: null, searched_to: null, is_whole: false });
  assert.equal(first.counted, 3);
  assert.equal(first.searchedTo, "2100");
  assert.deepEqual([both.counted, both.spans, both.isWhole, both.searchedTo], [6, 18, false, null]);
  assert.deepEqual(both.bars.get("2000"), { count: 6, errors: 2, latencies: new Map([[0, 4], [80, 2]]) });
  assert.deepEqual(first.bars.get("2000")?.count, 3);
  assert.deepEqual(both.verdicts.get("Tone")?.get("curt"), { label: "curt", count: 4, scored: 2, scoreSum: 1 });
  assert.deepEqual(both.groups.get("team"), { value: "team", calls: 4, inputTokens: 20, outputTokens: 10, cost: 0.5 });
  assert.equal(both.groups.get(null)?.calls, 2);
});

test("bars without rows are there too", () => {
  const bars = allBars(added(noSums(), PART), "1000", 3);
  assert.deepEqual(bars.map(({ startNs, count }) => [startNs, count]), [["1000", 0], ["2000", 3], ["3000", 0]]);
});

test("a quantile is in the bucket that has it", () => {
  const latencies = new Map([[0, 90], [80, 10]]); // 1 ms, and 1 s
  assert.ok(Math.abs((quantile([latencies], 0.5) ?? 0) - 1.04) < 0.01);
  assert.ok(Math.abs((quantile([latencies], 0.95) ?? 0) / 1_024 - 1.04) < 0.01);
  assert.ok(Math.abs((quantile([latencies, new Map([[0, 1_000]])], 0.95) ?? 0) - 1.04) < 0.01);
  assert.equal(quantile([], 0.5), null);
});

test("numbers are short, and axes end at round ones", () => {
  assert.deepEqual([0, 7, 999, 999.9, 1_234, 56_789, 1e6, 2.5e9, 0.0123].map(short), ["0", "7", "999", "1 k", "1.23 k", "56.8 k", "1 M", "2.5 G", "0.0123"]);
  assert.deepEqual([0, 0.9, 1, 1.2, 17, 74, 76, 501].map(roundEnd), [1, 1, 1, 1.5, 20, 75, 100, 750]);
});
