/** What to type so that an application sends its spans here. */
import { url } from "./api.js";
import { useAsked, useKeys } from "./hooks.js";
import { Block, Problem } from "./parts.js";
import { html, useState } from "./preact.js";

const WORDS = /** @type {Record<string, string>} */ ({
  otel: "OpenTelemetry", "otel-metadata": "otel-metadata", langfuse: "Langfuse", langwatch: "LangWatch", galileo: "Galileo",
  "splunk-ao": "Splunk", arize: "Arize", phoenix: "Phoenix", logfire: "Logfire", traceloop: "Traceloop",
});

/** Whose lines stand first: anybody may have these. */
const FIRST = ["otel", "otel-metadata"];

/** @param {{go: (address: string) => void, areLettersOn: boolean}} props */
export default function Connect({ go, areLettersOn }) {
  useKeys({ back: () => go("/") }, areLettersOn);
  return html`<main class="list"><h1>Connect</h1><${Lines} /></main>`;
}

/** The lines of one SDK at a time, also where the list is empty. */
export function Lines() {
  const { data, error } = useAsked(url("connect", { url: location.origin }), 0);
  const [chosen, setChosen] = useState(FIRST[0]);
  if (error) return html`<${Problem} error=${error} />`;
  if (!data) return html`<p class="loading" role="note">Loading…</p>`;
  const all = /** @type {{name: string, lines: string[]}[]} */ (data.environments);
  const sorted = [...all].sort((one, other) => placeOf(one.name) - placeOf(other.name));
  const one = sorted.find(({ name }) => name === chosen) ?? sorted[0];
  const needsGrpc = one.name === "arize" || one.name === "phoenix";
  return html`<div class="connect">
    <p>Set these variables where your application starts, and its spans appear here.</p>
    <div class="switch" role="group" aria-label="SDK">
      ${sorted.map(({ name }) => html`<button type="button" key=${name} aria-pressed=${name === one.name} onClick=${() => setChosen(name)}>${WORDS[name] ?? name}</button>`)}
    </div>
    <${Block} value=${one.lines.join("\n")} what=${`the lines for ${WORDS[one.name] ?? one.name}`} />
    ${needsGrpc && !data.has_grpc && html`<p class="is-error">This SDK sends over gRPC, and this server does not listen for it: start it without --no-grpc.</p>`}
    <p class="faint">${location.protocol === "http:" && html`From a shell: <code>${commandOf(one.name, location, data.grpc_port)}</code>${" "}prints the same lines. `}If the server asks for tokens, put one in the place of <code>local</code>.</p>
  </div>`;
}

/** What prints the lines of a server there. @param {string} name @param {{hostname: string, port: string}} at @param {number | null} grpcPort */
export function commandOf(name, { hostname, port }, grpcPort) {
  const host = hostname.replace(/^\[|\]$/g, "");
  return ["otel-metadata serve --env", name, host !== "127.0.0.1" && `--host ${host}`, port !== "4318" && `--port ${port || 80}`, grpcPort && grpcPort !== 4317 && `--grpc-port ${grpcPort}`].filter(Boolean).join(" ");
}

/** @param {string} name */
function placeOf(name) {
  const place = FIRST.indexOf(name);
  return place < 0 ? FIRST.length : place;
}
