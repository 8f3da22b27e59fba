/** A span or a trace, as other programs ask for it. */
import { ask, url } from "./api.js";

/**
 * @typedef {{traceId: string, spanId: string}} Target an empty span id for the trace
 *
 * @param {string} origin of the page
 * @param {Target} target
 * @param {boolean} needsToken
 */
export function commands(origin, { traceId, spanId }, needsToken) {
  const address = `${origin}${spanId ? url(`spans/${spanId}`, { trace_id: traceId }) : url(`traces/${traceId}`)}`;
  const server = origin.replace(/^http/, "serve");
  const header = needsToken ? ' --header "Authorization: Bearer $OTEL_PYTHON_METADATA_SERVE_TOKEN"' : "";
  return {
    curl: `curl${header} '${address}'`,
    python: [
      "import otel_metadata as om",
      "",
      `with om.Client("${server}") as client:`,
      spanId ? `    span = client.spans.get("${spanId}", trace_id="${traceId}")` : `    spans = client.traces.get("${traceId}")`,
      "",
    ].join("\n"),
    cli: `otel-metadata show ${spanId ? `00-${traceId}-${spanId}-01` : traceId} --store ${server}`,
  };
}

/**
 * What the menu offers.
 * @param {Target} target
 * @param {(text: string) => Promise<boolean>} copy
 * @param {(text: string) => void} announce
 * @returns {import("./menu.js").Item[]}
 */
export function copyItems(target, copy, announce) {
  const { traceId, spanId } = target;
  const put = (/** @type {string} */ what, /** @type {() => string | Promise<string>} */ text) => async () => {
    try {
      announce((await copy(await text())) ? `Copied ${what}.` : "The browser does not let the page copy.");
    } catch (error) {
      announce(/** @type {Error} */ (error).message);
    }
  };
  const command = (/** @type {"curl" | "python" | "cli"} */ name) => async () =>
    commands(location.origin, target, (await ask(url("info"))).needs_token)[name];
  const json = async () => JSON.stringify(await ask(spanId ? url(`spans/${spanId}`, { trace_id: traceId }) : url(`traces/${traceId}`)), null, 2);
  return [
    { word: "Id", run: put("the id", () => spanId || traceId) },
    { word: "Address of this page", run: put("the address", () => location.href) },
    { word: "JSON", run: put("the JSON", json) },
    { word: "curl", run: put("the curl command", command("curl")) },
    { word: "Python", run: put("the Python code", command("python")) },
    { word: "Command line", run: put("the command", command("cli")) },
  ];
}
