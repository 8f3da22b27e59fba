import assert from "node:assert/strict";
import { test } from "node:test";

import { commands } from "../../src/otel_metadata/server/page/copy.js";

const TRACE_ID = "0123456789abcdef0123456789abcdef";
const SPAN_ID = "0123456789abcdef";

test("a span is named exactly, with its trace", () => {
  const made = commands("http://127.0.0.1:4318", { traceId: TRACE_ID, spanId: SPAN_ID }, false);
  assert.equal(made.curl, `curl 'http://127.0.0.1:4318/api/v1/spans/${SPAN_ID}?trace_id=${TRACE_ID}'`);
  assert.match(made.python, new RegExp(`om.Client\\("serve://127.0.0.1:4318"\\)[^]*get\\("${SPAN_ID}", trace_id="${TRACE_ID}"\\)`));
  assert.equal(made.cli, `otel-metadata show 00-${TRACE_ID}-${SPAN_ID}-01 --store serve://127.0.0.1:4318`);
});

test("a server with TLS and tokens is asked so, and no token is in what is copied", () => {
  const made = commands("https://traces.example", { traceId: TRACE_ID, spanId: "" }, true);
  assert.equal(made.curl, `curl --header "Authorization: Bearer $OTEL_PYTHON_METADATA_SERVE_TOKEN" 'https://traces.example/api/v1/traces/${TRACE_ID}'`);
  assert.match(made.python, /serves:\/\/traces.example/);
  assert.equal(made.cli, `otel-metadata show ${TRACE_ID} --store serves://traces.example`);
});
