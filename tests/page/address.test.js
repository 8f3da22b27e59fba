import assert from "node:assert/strict";
import { test } from "node:test";

import {
  addressOf, endOfWindow, placeOf, startOfWindow, tracePlace, windowOf,
} from "../../src/otel_metadata/server/page/address.js";

const TRACE_ID = "0123456789abcdef0123456789abcdef";
const SPAN_ID = "0123456789abcdef";

/** @param {string} address */
function at(address) {
  const { pathname, search } = new URL(address, "http://page.test");
  return placeOf(pathname, search);
}

test("a place comes back from its address", () => {
  /** @type {import("../../src/otel_metadata/server/page/address.js").Place[]} */
  const places = [
    { place: "list", rows: "traces", filter: "", project: "", window: "7d" },
    { place: "list", rows: "spans", filter: "metadata.\"a&b\" = 'é + 100 %'", project: "a/b", window: "all" },
    tracePlace(TRACE_ID),
    { ...tracePlace(TRACE_ID, SPAN_ID), tab: "raw", at: "2026-11-30T10:00:00.123456789Z", find: "a=b&c", only: true, folded: [SPAN_ID, SPAN_ID.replace("0", "f")] },
    { place: "changes", filter: "name = 'a'", field: "metadata.\"a b\"", project: "shop", window: "all" },
    { place: "connect" },
    { place: "list", rows: "spans", filter: "", project: "", window: "yesterday", sort: "duration", compare: `${TRACE_ID}-${SPAN_ID}` },
    { ...tracePlace(TRACE_ID, SPAN_ID), compare: TRACE_ID },
    { place: "compare", a: TRACE_ID, b: `${TRACE_ID}-${SPAN_ID}`, all: true },
    { place: "overview", rows: "spans", filter: "a = 1", project: "p", window: "24h", by: "metadata.a b", numbers: ["latency", "usage"] },
    { place: "nowhere", path: "/elsewhere" },
  ];
  for (const place of places) assert.deepEqual(at(addressOf(place)), place);
});

test("what is usual is not in the address", () => {
  assert.equal(addressOf(at("/?window=7d&rows=traces&filter=")), "/");
  assert.equal(addressOf(tracePlace(TRACE_ID)), `/traces/${TRACE_ID}`);
});

test("what an address says wrongly is as usual", () => {
  assert.deepEqual(at("/?rows=x&window=9y&what=1"), at("/"));
  assert.deepEqual(at(`/traces/${TRACE_ID.toUpperCase()}?span=zz&tab=no&at=yesterday&folded=x.${SPAN_ID}..`), {
    ...tracePlace(TRACE_ID), folded: [SPAN_ID],
  });
  assert.equal(at("/traces/12").place, "nowhere");
});

test("an address does not grow without end", () => {
  const folded = Array.from({ length: 1_000 }, (_, index) => String(index).padStart(16, "0"));
  assert.ok(addressOf({ ...tracePlace(TRACE_ID), folded }).length < 100);
});

test("a window begins at a time, and all time in 1970", () => {
  assert.equal(startOfWindow("1h", Date.UTC(2026, 10, 30, 12)), "2026-11-30T11:00:00.000Z");
  const noon = new Date(2026, 10, 30, 12).getTime();
  assert.equal(startOfWindow("today", noon), new Date(2026, 10, 30).toISOString());
  assert.equal(startOfWindow("yesterday", noon), new Date(2026, 10, 29).toISOString());
  assert.equal(endOfWindow("yesterday", noon), new Date(2026, 10, 30).toISOString());
  assert.equal(endOfWindow("today", noon), "");
  assert.equal(startOfWindow("all", Date.UTC(2026, 10, 30, 12)), "1970-01-01T00:00:00.000Z");
});

test("the window of a time is the shortest that has it", () => {
  const now = Date.UTC(2026, 10, 30, 12);
  const before = (/** @type {number} */ ms) => windowOf(`${now - ms}000000`, now);
  assert.deepEqual([1_000, 3_600_000, 86_399_999, 20 * 86_400_000, 40 * 86_400_000].map(before), ["1h", "24h", "24h", "30d", "all"]);
});
