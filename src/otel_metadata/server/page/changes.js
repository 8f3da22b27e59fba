/** What came late, newest first: who set it, when, and what it replaced. */
import { url } from "./api.js";
import { addressOf, endOfWindow, startOfWindow, tracePlace, WINDOWS } from "./address.js";
import { FilterBox } from "./filter.js";
import { literal, narrowed } from "./filter_text.js";
import { useAsked, useKeys } from "./hooks.js";
import { isAboutFilter, Link, Mark, Notice, Problem, Text, WrongFilter } from "./parts.js";
import { html, useEffect, useMemo, useRef, useState } from "./preact.js";
import { clockOf, thousands } from "./time.js";
import { routeOf, textOf } from "./values.js";

/** The server answers with no more. */
const MOST = 1_000;

/**
 * @typedef {import("./address.js").ChangesPlace} ChangesPlace
 * @typedef {{trace_id: string, span_id: string, name: string, end_time_ns: string, value: import("./values.js").Value,
 *   replaced: import("./values.js").Value | null}} LateValue
 *
 * @param {{place: ChangesPlace, go: (address: string) => void, version: number, areLettersOn: boolean,
 *   announce: (text: string) => void}} props
 */
export default function Changes({ place, go, version, areLettersOn, announce }) {
  const { filter, field, project, window } = place;
  const question = useMemo(() => ({
    filter, field, project, start_time: startOfWindow(window, Date.now()), timeout_millis: 1_000,
  }), [filter, field, project, window]);
  // The ends of the answers; each goes on behind the one before.
  const [end, setEnd] = useState("");
  useEffect(() => setEnd(""), [question]);
  const { data, error, isLoading } = useAsked(url("late-values", { ...question, end_time: end || endOfWindow(window, Date.now()) }), version);
  const values = /** @type {LateValue[]} */ (data?.values ?? []);
  const input = useRef(/** @type {HTMLInputElement | null} */ (null));
  const change = (/** @type {Partial<ChangesPlace>} */ part) => go(addressOf({ ...place, ...part }));
  useEffect(() => {
    if (data) announce(values.length === 1 ? "1 value." : `${values.length} values.`);
  }, [question, data !== null]);

  const step = (/** @type {number} */ by) => {
    const links = /** @type {HTMLElement[]} */ ([...document.querySelectorAll(".rows .name a")]);
    const at = links.findIndex((link) => link === document.activeElement);
    links[Math.max(0, Math.min(links.length - 1, at + by))]?.focus();
  };
  useKeys({
    filter: () => input.current?.focus(),
    down: () => step(1),
    up: () => step(-1),
    back: () => (document.activeElement === input.current ? input.current?.blur() : go("/")),
  }, areLettersOn);

  return html`<main class="list">
    <h1>What came late</h1>
    <form class="bar" onSubmit=${(/** @type {Event} */ event) => event.preventDefault()}>
      <${FilterBox} value=${filter} run=${(/** @type {string} */ text) => change({ filter: text })} inputRef=${input} />
      <label><span class="visually-hidden">Time of the spans</span>
        <select value=${window} onChange=${(/** @type {any} */ event) => change({ window: event.target.value })}>
          ${WINDOWS.map(([name, word]) => html`<option key=${name} value=${name}>${word}</option>`)}
        </select>
      </label>
      ${field && html`<button type="button" class="chip is-removable" onClick=${() => change({ field: "" })}
        aria-label=${`Field ${field}: show all fields`}>${field} ✕</button>`}
      ${project && html`<button type="button" class="chip is-removable" onClick=${() => change({ project: "" })}
        aria-label=${`Project ${project}: show all projects`}><span class="cut" title=${project}>project ${project}</span> ✕</button>`}
    </form>
    ${error && (isAboutFilter(error) ? html`<${WrongFilter} />` : html`<${Problem} error=${error} />`)}
    ${isLoading && html`<p class="loading" role="note">Loading…</p>`}
    ${data && !values.length && html`<${Notice} title=${filter || field ? "No late value matches." : "No value came late on the spans of this time."}>
      ${window !== "all" && html`<p><button type="button" onClick=${() => change({ window: "all" })}>Look at the spans of all time</button></p>`}<//>`}
    ${values.length > 0 && html`<${Rows} ...${{ values, go, change, filter }} />`}
    ${data?.searched_to
      ? html`<p class="end"><button type="button" onClick=${() => setEnd(data.searched_to.start_time)}>Show those of spans before ${clockOf(data.searched_to.start_time_ns)}</button></p>`
      : values.length > 0 && html`<p class="end">${values.length === MOST ? `These are the newest ${thousands(MOST)} values.` : "That is all on the spans of this time."}</p>`}
    ${end && html`<p class="end"><button type="button" onClick=${() => setEnd("")}>Back to the newest spans</button></p>`}
  </main>`;
}

/** @param {{values: LateValue[], go: (address: string) => void, change: (part: Partial<ChangesPlace>) => void, filter: string}} props */
function Rows({ values, go, change, filter }) {
  return html`<table class="rows changes" role="table">
    <thead role="rowgroup"><tr role="row">
      <th role="columnheader" scope="col">Set</th>
      <th role="columnheader" scope="col">Field</th>
      <th role="columnheader" scope="col">Value</th>
      <th role="columnheader" scope="col">Set by</th>
      <th role="columnheader" scope="col">On</th>
    </tr></thead>
    <tbody role="rowgroup">
      ${values.map(({ trace_id, span_id, name, end_time_ns, value, replaced }) => html`<tr role="row" key=${`${trace_id}${span_id}${value.field}${value.time_ns}${value.writer}`}>
        <td role="cell" class="when"><${Mark} value=${value} endNs=${end_time_ns} /></td>
        <td role="cell" class="field"><button type="button" class="quiet" title="Only this field" onClick=${() => change({ field: value.field })}>${value.field}</button></td>
        <td role="cell" class="what"><${Text} text=${textOf(value)} />
          ${replaced && html`<p class="was">was <${Text} text=${textOf(replaced)} /> ${routeOf(replaced).glyph} ${routeOf(replaced).word}${replaced.author && `, by ${replaced.author}`}</p>`}
          ${value.superseded_by && html`<p class="was">replaced ${clockOf(value.superseded_by.time_ns)}</p>`}</td>
        <td role="cell" class="author">${value.author
          ? html`<button type="button" class="quiet" title="Only spans on which they set this field last"
              onClick=${() => change({ filter: narrowed(filter, `author.${value.field} = ${literal(value.author)}`), field: value.field })}>${value.author}</button>`
          : html`<span class="faint">unknown</span>`}</td>
        <td role="cell" class="name"><${Link} href=${addressOf(tracePlace(trace_id, span_id))} go=${go}>${name || "(no name)"}<//>${!span_id && html` <small class="level">trace</small>`}</td>
      </tr>`)}
    </tbody>
  </table>`;
}
