/** A look into a row of the list without opening it. */
import { url } from "./api.js";
import { addressOf, tracePlace } from "./address.js";
import { useAsked } from "./hooks.js";
import { Link, Problem, Text, Verdict } from "./parts.js";
import { html } from "./preact.js";
import { duration } from "./time.js";
import { shortText } from "./values.js";

/**
 * @param {{row: any, version: number, go: (address: string) => void, close: () => void}} props a row of traces or spans
 */
export default function Peek({ row, version, go, close }) {
  const spanId = row.span_id ?? row.root_span_id;
  const { data: span, error } = useAsked(url(`spans/${spanId}`, { trace_id: row.trace_id }), version);
  return html`<aside class="peek" aria-label="Peek">
    <header><h2>${row.name || "(no name)"}</h2>
      <button type="button" class="quiet" aria-label="Close the peek" onClick=${close}>✕</button></header>
    ${error && html`<${Problem} error=${error} />`}
    ${!span && !error && html`<p class="loading" role="note">Loading…</p>`}
    ${span && html`<${Contents} span=${span} />`}
    <p><${Link} href=${addressOf(tracePlace(row.trace_id, row.span_id ?? ""))} go=${go}>Open<//></p>
  </aside>`;
}

/** @param {{span: any}} props */
function Contents({ span }) {
  const values = [...Object.entries(span.trace_metadata), ...Object.entries(span.metadata)];
  const tags = [...span.trace_tags, ...span.tags];
  const verdicts = [...Object.entries(span.trace_evaluations), ...Object.entries(span.evaluations)];
  return html`
    <p class="facts"><span>${duration(span.latency_ms)}</span>${span.user_id && html`<span>user <b>${span.user_id}</b></span>`}
      ${span.session_id && html`<span>session <b>${span.session_id}</b></span>`}</p>
    ${span.status_message && html`<p class="status-message">${span.status_message}</p>`}
    ${(verdicts.length > 0 || tags.length > 0) && html`<p class="chips">${verdicts.map(([name, verdict]) => html`<${Verdict} key=${name} name=${name} verdict=${verdict} />`)}
      ${tags.map((tag) => html`<span class="chip" key=${tag}># ${tag}</span>`)}</p>`}
    ${values.length > 0 && html`<dl class="pairs">${values.map(([key, value]) => html`<div key=${key}><dt>${key}</dt><dd><${Text} text=${shortText(value)} /></dd></div>`)}</dl>`}
    ${[["Input", span.input], ["Output", span.output]].map(([name, value]) => value !== null && html`<section key=${name}><h3>${name}</h3><${Text} text=${typeof value === "string" ? value : JSON.stringify(value, null, 2)} /></section>`)}
    ${!values.length && !verdicts.length && !tags.length && span.input === null && span.output === null && html`<p class="faint">Nothing was set on it.</p>`}`;
}
