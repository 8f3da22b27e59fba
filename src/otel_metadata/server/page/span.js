/** The span that is selected: its values and their life, its contents, verdicts and events. */
import { url } from "./api.js";
import { TABS } from "./address.js";
import { Edit } from "./edit.js";
import { keyName } from "./filter_text.js";
import { useAsked } from "./hooks.js";
import { conditionsOf, conditionsOfTag } from "./menu.js";
import { Block, Copy, isBackground, Mark, Notice, Problem, Status, Text } from "./parts.js";
import { html, useState } from "./preact.js";
import { clock, duration, millisecondsAfter } from "./time.js";
import { fieldRows, isValue, moments, shortText, textOf } from "./values.js";

/**
 * @typedef {(event: Event, items: import("./menu.js").Item[]) => void} Offer
 *
 * @param {{traceId: string, span: import("./waterfall.js").OutlineSpan, startNs: bigint, version: number, at: string,
 *   setAt: (time: string) => void, offer: Offer, narrow: (condition: string) => void, areLettersOn: boolean,
 *   compare: () => void, isChoosing: boolean, form: string, tab: string, setTab: (tab: string) => void, close: () => void}} props
 */
export function SpanDetail({ traceId, span: outline, startNs, version, at, setAt, offer, narrow, areLettersOn, compare, isChoosing, form, tab, setTab, close }) {
  const [updates, setUpdates] = useState(0);
  const asOf = `${version} ${updates}`; // an update of one's own is shown also while live updates are paused
  const { data: span, error } = useAsked(url(`spans/${outline.span_id}`, { trace_id: traceId, at }), asOf, true);
  const history = useAsked(url(`spans/${outline.span_id}/history`, { trace_id: traceId }), asOf);
  const after = millisecondsAfter(outline.start_time_ns, startNs);
  const length = millisecondsAfter(outline.end_time_ns, outline.start_time_ns);

  const onKeyDown = (/** @type {KeyboardEvent} */ event) => {
    const step = { ArrowRight: 1, ArrowLeft: TABS.length - 1 }[event.key];
    if (step === undefined) return;
    const next = TABS[(TABS.findIndex(([name]) => name === tab) + step) % TABS.length][0];
    setTab(next);
    document.getElementById(`tab-${next}`)?.focus();
    event.preventDefault();
    event.stopPropagation();
  };

  return html`<aside class="detail" aria-labelledby="span-name">
    <header>
      <h2 id="span-name" tabindex="-1">${outline.name || "(no name)"}</h2>
      <button type="button" class="quiet" aria-label="Close the span" onClick=${close}>✕</button>
    </header>
    <p class="facts">
      <${Status} status=${outline.status_code} />
      <span>${duration(length)}</span>
      ${after > 0 && html`<span>starts after ${duration(after)}</span>`}
      <span>${span?.span_kind || outline.kind.toLowerCase()}</span>
      <code class="id">${outline.span_id}</code><${Copy} text=${outline.span_id} what="the span id" />
      <button type="button" class="quiet" onClick=${compare}><span aria-hidden="true">⇄</span> ${isChoosing ? "Compare with the chosen one" : "Compare"}</button>
    </p>
    ${span?.status_message && html`<p class="status-message">${span.status_message}</p>`}
    ${history.data && html`<${Slider} moments=${moments(history.data.values, outline.start_time_ns)} endNs=${outline.end_time_ns} at=${at} setAt=${setAt} />`}
    ${!at && html`<${Edit} traceId=${traceId} spanId=${outline.span_id} areLettersOn=${areLettersOn} onUpdated=${() => setUpdates(updates + 1)} first=${form} />`}
    <div class="tabs" role="tablist" aria-label="About the span" onKeyDown=${onKeyDown}>
      ${TABS.map(([name, word]) => html`<button type="button" role="tab" key=${name} id=${`tab-${name}`} aria-selected=${tab === name}
        aria-controls="tab-panel" tabindex=${tab === name ? 0 : -1} onClick=${() => setTab(name)}>${word}${numberOf(name, span)}</button>`)}
    </div>
    <div id="tab-panel" role="tabpanel" aria-labelledby=${`tab-${tab}`} tabindex="0">
      ${error && html`<${Problem} error=${error} />`}
      ${!span && !error && html`<p class="loading" role="note">Loading…</p>`}
      ${span && html`<${Panel} ...${{ tab, span, history, startNs, at, offer, narrow }} />`}
    </div>
  </aside>`;
}

/**
 * Goes through the moments at which the span changed.
 * @param {{moments: {time: string, time_ns: string}[], endNs: string, at: string, setAt: (time: string) => void}} props
 */
function Slider({ moments, endNs, at, setAt }) {
  if (moments.length < 2) return null;
  const found = moments.findLastIndex(({ time }) => time <= at);
  const place = at ? Math.max(0, found) : moments.length;
  const { time, time_ns } = moments[Math.min(place, moments.length - 1)];
  const after = millisecondsAfter(time_ns, endNs);
  const text = place === moments.length
    ? "As it is now"
    : `As it was at ${clock(new Date(time), new Date())}${after > 0 ? `, ${duration(after)} after its end` : ""}`;
  const onInput = (/** @type {any} */ event) => setAt(moments[Number(event.target.value)]?.time ?? "");
  return html`<label class="slider"><span>${text}</span>
    <input type="range" min="0" max=${moments.length} step="1" value=${place} aria-valuetext=${text} aria-label="Moment" onInput=${onInput} />
  </label>`;
}

/** How many there are, behind the name of a tab. @param {string} name @param {any} span */
function numberOf(name, span) {
  const counts = /** @type {Record<string, number>} */ (span && {
    evaluations: Object.keys(span.evaluations).length + span.annotations.length,
    events: span.events.length,
  });
  return counts?.[name] ? html` <small>${counts[name]}</small>` : null;
}

/** @param {{tab: string, span: any, history: import("./hooks.js").Asked<any>, startNs: bigint, at: string, offer: Offer, narrow: (condition: string) => void}} props */
function Panel({ tab, span, history, startNs, at, offer, narrow }) {
  if (tab === "io") return html`<${Contents} span=${span} />`;
  if (tab === "evaluations") return html`<${Verdicts} span=${span} />`;
  if (tab === "events") return html`<${Events} span=${span} startNs=${startNs} />`;
  if (tab === "raw") return html`<${Block} value=${span} what="the span as JSON" />`;
  return html`<${Values} ...${{ span, history, at, offer, narrow }} />`;
}

/** @param {{span: any, history: import("./hooks.js").Asked<any>, at: string, offer: Offer, narrow: (condition: string) => void}} props */
function Values({ span, history, at, offer, narrow }) {
  const values = /** @type {import("./values.js").Value[]} */ (history.data?.values ?? []);
  const atNs = at && (values.find((value) => value.time === at)?.time_ns ?? String(BigInt(Date.parse(at)) * 1_000_000n));
  const rows = fieldRows(values, atNs).filter(isValue);
  const ofKey = (/** @type {"attributes" | "resource"} */ first) => (/** @type {Event} */ event, /** @type {string} */ key, /** @type {unknown} */ value) =>
    offer(event, conditionsOf([keyName(first, key)], value, span.trace_id, narrow));
  const attributes = Object.entries(span.attributes).filter(([key]) => !rows.some((row) => row.current.kind === "attribute" && row.current.key === key));
  return html`
    ${history.error && html`<${Notice} title=${`How the values arrived cannot be shown: ${history.error.message}`} isProblem />
      <${Plain} name="Metadata" entries=${Object.entries(span.metadata)} />`}
    ${history.data && !rows.length && html`<${Notice} title=${attributes.length ? "Nothing was set on this span besides its attributes." : "Nothing was set on this span."} />`}
    ${rows.length > 0 && html`<table class="values" role="table">
      <thead role="rowgroup"><tr role="row"><th role="columnheader" scope="col">Name</th><th role="columnheader" scope="col">Value</th>
        <th role="columnheader" scope="col">Arrived</th><th role="columnheader" scope="col">Set by</th></tr></thead>
      <tbody role="rowgroup">${rows.map((row) => html`<${ValueRow} key=${row.id} row=${row} endNs=${span.end_time_ns}
        offer=${(/** @type {Event} */ event) => offer(event, itemsOf(row.current, span.trace_id, narrow))} />`)}</tbody>
    </table>`}
    <${Plain} name="Attributes" entries=${attributes} offer=${ofKey("attributes")} />
    <${Plain} name="Resource" entries=${Object.entries(span.resource)} offer=${ofKey("resource")} />`;
}

/**
 * What a value offers.
 * @param {import("./values.js").Value} value
 * @param {string} traceId
 * @param {(condition: string) => void} narrow
 */
function itemsOf({ kind, field, key, level, value }, traceId, narrow) {
  if (kind === "tag") return conditionsOfTag(level === "trace" ? "trace.tags" : "tags", key, traceId, narrow);
  const isVerdict = kind === "evaluation" || kind === "annotation";
  const label = isVerdict ? /** @type {any} */ (value)?.label ?? null : value;
  return conditionsOf([isVerdict ? `${field}.label` : field], label, traceId, narrow);
}

/**
 * A value, and behind it what it was before.
 * @param {{row: import("./values.js").FieldRow, endNs: string, offer: (event: Event) => void}} props
 */
function ValueRow({ row, endNs, offer }) {
  const { current, earlier } = row;
  const [isOpen, setIsOpen] = useState(false);
  const shown = isOpen ? earlier : earlier.slice(0, 1);
  return html`
    <tr role="row">
      <th role="rowheader" scope="row"><button type="button" class="quiet field-name" title="Find spans by this value" aria-haspopup="menu" onClick=${offer}>${row.name}</button>${row.current.key && row.current.kind !== "metadata" && html` <small>${row.current.kind}</small>`}
        ${row.level === "trace" && html` <small class="level">trace</small>`}</th>
      <td role="cell" class="offers" onClick=${(/** @type {MouseEvent} */ event) => isBackground(event) && offer(event)}><${Text} text=${textOf(current)} /></td>
      <td role="cell"><${Mark} value=${current} endNs=${endNs} /></td>
      <td role="cell" class="author">${current.author ?? html`<span class="faint">unknown</span>`}</td>
    </tr>
    ${shown.map((value, index) => html`<tr role="row" class="was" key=${`${value.time_ns}${value.writer}`}>
      <th role="rowheader" scope="row"><span class="was-word">was</span>${index === 0 && earlier.length > 1 && html` <button type="button" class="quiet" aria-expanded=${isOpen}
        onClick=${() => setIsOpen(!isOpen)}>${isOpen ? "Hide" : `${earlier.length - 1} more`}</button>`}</th>
      <td role="cell"><${Text} text=${textOf(value)} /></td>
      <td role="cell"><${Mark} value=${value} endNs=${endNs} /></td>
      <td role="cell" class="author">${value.author ?? html`<span class="faint">unknown</span>`}</td>
    </tr>`)}
    ${isOpen && earlier.some((value) => value.is_oldest_kept) && html`<tr role="row" class="was"><td role="cell" colspan="4">Older values of this field were dropped.</td></tr>`}`;
}

/** @param {{name: string, entries: [string, unknown][], offer?: (event: Event, key: string, value: unknown) => void}} props */
function Plain({ name, entries, offer }) {
  if (!entries.length) return null;
  return html`<details class="plain" open=${name !== "Resource"}>
    <summary>${name} <small>${entries.length}</small></summary>
    <dl>${entries.map(([key, value]) => html`<div key=${key}><dt>${offer
      ? html`<button type="button" class="quiet field-name" title="Find spans by this value" aria-haspopup="menu" onClick=${(/** @type {Event} */ event) => offer(event, key, value)}>${key}</button>`
      : key}</dt><dd><${Text} text=${shortText(value)} /></dd></div>`)}</dl>
  </details>`;
}

/** @param {{span: any}} props */
function Contents({ span }) {
  if (span.input === null && span.output === null) return html`<${Notice} title="This span has no input and no output." />`;
  return html`${[["Input", span.input], ["Output", span.output]].map(([name, value]) => html`<section key=${name}>
    <h3>${name}</h3>
    ${value === null ? html`<p class="faint">None.</p>` : html`<${Block} value=${value} what=${`the ${name.toLowerCase()}`} />`}
  </section>`)}`;
}

/** @param {{span: any}} props */
function Verdicts({ span }) {
  const rows = [
    ...Object.entries(span.evaluations).map(([name, one]) => ({ name, level: "span", by: one.source, ...one })),
    ...Object.entries(span.trace_evaluations).map(([name, one]) => ({ name, level: "trace", by: one.source, ...one })),
    ...span.annotations.map((/** @type {any} */ one) => ({ level: "span", by: one.annotator ?? "a person", ...one })),
    ...span.trace_annotations.map((/** @type {any} */ one) => ({ level: "trace", by: one.annotator ?? "a person", ...one })),
  ];
  if (!rows.length) return html`<${Notice} title="Nobody has judged or annotated this span yet." />`;
  return html`<ul class="verdict-list">${rows.map((row) => html`<li key=${`${row.level} ${row.name} ${row.by}`}>
    <b>${row.name}</b> ${row.label !== undefined && html`<span class="chip">${row.label}</span>`} ${row.score !== undefined && html`<span class="chip">${row.score}</span>`}
    <small>by ${row.by}${row.level === "trace" ? ", on the trace" : ""}</small>
    ${(row.explanation ?? row.text) && html`<p>${row.explanation ?? row.text}</p>`}
  </li>`)}</ul>`;
}

/** @param {{span: any, startNs: bigint}} props */
function Events({ span, startNs }) {
  if (!span.events.length) return html`<${Notice} title="This span has no events." />`;
  return html`<ol class="events">${span.events.map((/** @type {any} */ event, /** @type {number} */ index) => html`<li key=${index}>
    <b>${event.name}</b> <small>${timeOfEvent(event, startNs)}</small>
    ${Object.keys(event.attributes ?? {}).length > 0 && html`<dl>${Object.entries(event.attributes).map(([key, value]) => html`<div key=${key}><dt>${key}</dt><dd><${Text} text=${shortText(value)} /></dd></div>`)}</dl>`}
  </li>`)}</ol>`;
}

/** @param {any} event @param {bigint} startNs */
function timeOfEvent(event, startNs) {
  const ns = event.time_ns ?? event.timestamp_ns;
  return ns === undefined ? event.time ?? event.timestamp ?? "" : `at +${duration(millisecondsAfter(String(ns), startNs))}`;
}
