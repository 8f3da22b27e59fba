import assert from "node:assert/strict";
import { test } from "node:test";

/** @type {string[]} */
const asked = [];
let now = Date.UTC(2026, 10, 30);
Date.now = () => now;
Object.assign(globalThis, {
  location: { pathname: "/", search: "?filter=name+%3D+%27a%27&window=1h" },
  fetch: async (/** @type {string} */ address) => (asked.push(address), new Response(JSON.stringify({ number: asked.length }))),
});
const { askFirst, questionOf } = await import("../../src/otel_metadata/server/page/early.js");
const { placeOf } = await import("../../src/otel_metadata/server/page/address.js");
const { url } = await import("../../src/otel_metadata/server/page/api.js");

test("the first question is asked once, however late the list comes, and the same one again is another", async () => {
  const place = /** @type {import("../../src/otel_metadata/server/page/address.js").ListPlace} */ (placeOf(location.pathname, location.search));
  assert.equal(asked.length, 1);
  now += 500; // the modules of the list come later
  const address = url("traces", questionOf(place));
  assert.equal(address, asked[0]);
  const { signal } = new AbortController();
  assert.deepEqual(await askFirst(address, signal), { number: 1 });
  assert.deepEqual(await askFirst(address, signal), { number: 2 });
  assert.equal(asked.length, 2);
  assert.notEqual(url("traces", questionOf(place)), address);
});
