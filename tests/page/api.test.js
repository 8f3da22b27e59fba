import assert from "node:assert/strict";
import { createServer } from "node:http";
import { after, before, test } from "node:test";

import { ask, isEnded, Refusal, Unreachable, url } from "../../src/otel_metadata/server/page/api.js";

/** @type {import("node:http").Server} */
let server;
let base = "";

before(async () => {
  server = createServer((request, response) => {
    const chunks = /** @type {Buffer[]} */ ([]);
    request.on("data", (chunk) => chunks.push(chunk));
    request.on("end", () => {
      if (request.url === "/echo") {
        response.end(JSON.stringify({ method: request.method, type: request.headers["content-type"] ?? "", body: `${Buffer.concat(chunks)}` }));
      } else if (request.url === "/refused") {
        response.writeHead(400, { "Content-Type": "application/problem+json" });
        response.end(JSON.stringify({ title: "Filter: found x; expected y.", status: 400, position: 3 }));
      } else if (request.url === "/proxy") {
        response.writeHead(502);
        response.end("<html>bad gateway</html>");
      } // any other is never answered
    });
  });
  await new Promise((ready) => server.listen(0, "127.0.0.1", () => ready(null)));
  const address = server.address();
  base = `http://127.0.0.1:${typeof address === "object" && address ? address.port : 0}`;
});

after(() => {
  server.closeAllConnections();
  server.close();
});

test("an address has what is given and leaves out what is empty", () => {
  assert.equal(url("traces", { filter: "a = 'b&c'", project: "", limit: 0, cursor: null }), "/api/v1/traces?filter=a+%3D+%27b%26c%27&limit=0");
  assert.equal(url("events"), "/api/v1/events");
});

test("a body makes a POST", async () => {
  assert.deepEqual(await ask(`${base}/echo`), { method: "GET", type: "", body: "" });
  assert.deepEqual(await ask(`${base}/echo`, { body: { a: 1 } }), { method: "POST", type: "application/json", body: '{"a":1}' });
});

test("a refusal says what the server said", async () => {
  await assert.rejects(ask(`${base}/refused`), (error) =>
    error instanceof Refusal && error.status === 400 && error.position === 3 && error.message === "Filter: found x; expected y.");
});

test("a refusal that is no problem document is told by its status", async () => {
  await assert.rejects(ask(`${base}/proxy`), { name: "Refusal", message: "The server answered with status 502." });
});

test("a server that is gone and a call that nobody needs any more are two things", async () => {
  const closed = createServer().listen(0, "127.0.0.1");
  await new Promise((ready) => closed.on("listening", () => ready(null)));
  const address = closed.address();
  const port = typeof address === "object" && address ? address.port : 0;
  await new Promise((done) => closed.close(() => done(null)));
  await assert.rejects(ask(`http://127.0.0.1:${port}/`), Unreachable);

  const ending = new AbortController();
  const call = ask(`${base}/never`, { signal: ending.signal });
  ending.abort();
  await assert.rejects(call, isEnded);
});
