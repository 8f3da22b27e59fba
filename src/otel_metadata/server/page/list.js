/** The list of traces or spans. */
import { ask, isEnded, url } from "./api.js";
import { addressOf, compared, tracePlace, WINDOWS } from "./address.js";
import { questionOf } from "./early.js";
import { FilterBox } from "./filter.js";
import { keyName, narrowed } from "./filter_text.js";
import { useAsked, useKeys } from "./hooks.js";
import { conditionsOf, useMenu } from "./menu.js";
import { Choosing, copied, isAboutFilter, isBackground, lazy, Link, Notice, Problem, Status, Verdict, WrongFilter } from "./parts.js";
import { html, useEffect, useMemo, useRef, useState } from "./preact.js";
import { clockOf, duration, thousands } from "./time.js";

const BARS = 90;
const BARS_HEIGHT = 36;
/** Chips of metadata in a row; those of a trace share it with more columns. */
const CHIPS = { spans: 4, traces: 3 };
const LONGEST_CHIP = 40;

/** The place of 30 days among the windows. */
const MONTH = WINDOWS.findIndex(([name]) => name === "30d");

const Lines = lazy(() => import("./connect.js"), "Lines");
const Peek = lazy(() => import("./peek.js"));

/**
 * @typedef {import("./address.js").ListPlace} ListPlace
 * @typedef {(address: string, replace?: boolean) => void} Go
 *
 * @param {{place: ListPlace, go: Go, version: number, areLettersOn: boolean, announce: (text: string) => void}} props
 */
export function List({ place, go, version, areLettersOn, announce }) {
  const { rows: kind, filter, project, window, sort } = place;
  const question = useMemo(() => questionOf(place), [kind, filter, project, window, sort]);
  const { data, error, isLoading } = useAsked(url(kind, question), version);
  // After the list, which somebody waits for; all time has no start to count from.
  const bars = useAsked(data && window !== "all" ? url("histogram", { filter, project, start_time: question.start_time, end_time: question.end_time, bars: BARS, timeout_millis: 1_000 }) : null, version, true);
  const older = useOlder(kind, question, data);
  const fresh = /** @type {any[]} */ (data?.[kind] ?? []);
  const { shown, held, showHeld } = useHeld(fresh, question);
  const rows = useMemo(() => {
    const found = withoutTwice([...shown, ...older.rows]);
    return sort ? found.sort((one, other) => other.latency_ms - one.latency_ms) : found;
  }, [shown, older.rows, sort]);
  // By its key: rows that come in above do not change what is selected.
  const [selectedKey, setSelectedKey] = useState("");
  const selected = rows.findIndex((row) => keyOf(row) === selectedKey);
  const [isPeeking, setIsPeeking] = useState(false);
  const [menu, openMenu] = useMenu();
  const input = useRef(/** @type {HTMLInputElement | null} */ (null));
  const longest = rows.reduce((most, row) => Math.max(most, row.latency_ms), 0);

  useEffect(() => setSelectedKey(""), [question]);
  useEffect(() => {
    if (data) announce(rows.length ? `${rows.length} ${kind}.` : `No ${kind}.`);
  }, [question, data !== null]);

  /** @param {number} index */
  function select(index) {
    if (!rows.length) return;
    const to = Math.max(0, Math.min(rows.length - 1, index));
    setSelectedKey(keyOf(rows[to]));
    const row = document.getElementById(`row-${to}`);
    row?.querySelector("a")?.focus();
    row?.scrollIntoView({ block: "nearest" });
  }

  useKeys({
    filter: () => input.current?.focus(),
    down: () => select(selected + 1),
    up: () => select(selected < 0 ? 0 : selected - 1),
    first: () => select(0),
    last: () => select(rows.length - 1),
    open: () => rows[selected] && go(addressOfRow(rows[selected])),
    toggle: () => (rows[selected] ? setIsPeeking(!isPeeking) : undefined),
    copy: async () => {
      const row = rows[selected];
      if (!row) return;
      const { copyItems } = await import("./copy.js");
      const anchor = document.getElementById(`row-${selected}`)?.querySelector("a") ?? document.body;
      openMenu(anchor, "Copy", copyItems({ traceId: row.trace_id, spanId: row.span_id ?? "" }, copied, announce));
    },
    back: () => {
      if (document.activeElement === input.current) input.current?.blur();
      else if (isPeeking) setIsPeeking(false);
      else setSelectedKey("");
    },
  }, areLettersOn);

  const change = (/** @type {Partial<ListPlace>} */ part) => go(addressOf({ ...place, ...part }));
  const narrow = (/** @type {string} */ condition) => change({ filter: narrowed(filter, condition) });
  const offer = (/** @type {Event} */ event, /** @type {any} */ row, /** @type {string[]} */ names, /** @type {unknown} */ value) =>
    openMenu(/** @type {Element} */ (event.currentTarget), "Filter by this value", conditionsOf(names, value, row.trace_id, narrow));
  return html`<main class="list">
    <h1 class="visually-hidden">${kind === "spans" ? "Spans" : "Traces"}</h1>
    <form class="bar" onSubmit=${(/** @type {Event} */ event) => event.preventDefault()}>
      <div class="switch" role="group" aria-label="Rows">
        ${[["traces", "Traces"], ["spans", "Spans"]].map(([name, word]) => html`<button type="button" key=${name}
          aria-pressed=${kind === name} onClick=${() => change({ rows: name === "spans" ? "spans" : "traces" })}>${word}</button>`)}
      </div>
      <${FilterBox} value=${filter} run=${(/** @type {string} */ text) => change({ filter: text })} inputRef=${input} />
      <label><span class="visually-hidden">Time</span>
        <select value=${window} onChange=${(/** @type {any} */ event) => change({ window: event.target.value })}>
          ${WINDOWS.map(([name, word]) => html`<option key=${name} value=${name}>${word}</option>`)}
        </select>
      </label>
      ${project && html`<button type="button" class="chip is-removable" onClick=${() => change({ project: "" })}
        aria-label=${`Project ${project}: show all projects`}><span class="cut" title=${project}>project ${project}</span> ✕</button>`}
    </form>
    ${window !== "all" && html`<div class="bars-room">${bars.data && !bars.error && !(error && isAboutFilter(error)) && html`<${Bars} histogram=${bars.data} />`}</div>`}
    ${place.compare && html`<${Choosing} chosen=${place.compare} kind=${comparedKind(place.compare)} cancel=${() => change({ compare: undefined })}>
      ${comparedKind(place.compare) !== kind.slice(0, -1) && html`<button type="button" onClick=${() => change({ rows: kind === "spans" ? "traces" : "spans" })}>Show ${comparedKind(place.compare)}s</button>`}
    <//>`}
    ${held > 0 && html`<p class="held"><button type="button" onClick=${showHeld}>${held} new</button></p>`}
    ${error && (isAboutFilter(error)
      ? html`<${WrongFilter} />`
      : html`<${Problem} error=${error} />`)}
    ${isLoading && html`<p class="loading" role="note">Loading…</p>`}
    ${data && !rows.length && html`<${Nothing} place=${place} change=${change} version=${version} isPartial=${data.searched_to !== null} />`}
    ${rows.length > 0 && html`<${Rows} ...${{ kind, rows, longest, selected, go, offer, change, compare: place.compare ?? "", sort }} />`}
    ${data && html`<${Older} ...${{ older, data, rows, sort }} />`}
    ${isPeeking && rows[selected] && html`<${Peek} key=${selectedKey} row=${rows[selected]} ...${{ version, go }} close=${() => setIsPeeking(false)} />`}
    ${menu}
  </main>`;
}

/**
 * @typedef {(event: Event, row: any, names: string[], value: unknown) => void} Offer what a value offers
 *
 * @param {{kind: string, rows: any[], longest: number, selected: number, go: Go, offer: Offer, change: (part: Partial<ListPlace>) => void, compare: string, sort: ListPlace["sort"]}} props
 */
function Rows({ kind, rows, longest, selected, go, offer, change, compare, sort }) {
  const isSpans = kind === "spans";
  const canCompare = !compare || comparedKind(compare) === kind.slice(0, -1);
  const choose = (/** @type {any} */ row) => {
    const own = idOf(row);
    if (!compare || compare === own) change({ compare: compare ? undefined : own });
    else go(addressOf({ place: "compare", a: compare, b: own, all: false }));
  };
  return html`<table class="rows" role="table">
    <thead role="rowgroup"><tr role="row">
      <th role="columnheader" scope="col">Started</th>
      <th role="columnheader" scope="col">Name</th>
      <th role="columnheader" scope="col" aria-sort=${sort ? "descending" : undefined}><button type="button" class="quiet sort" title=${sort ? "Newest first" : "Longest first"}
        onClick=${() => change({ sort: sort ? undefined : "duration" })}>Duration <span aria-hidden="true">${sort ? "▼" : "⇅"}</span></button></th>
      <th role="columnheader" scope="col">Status</th>
      ${!isSpans && html`<th role="columnheader" scope="col">Spans</th>`}
      <th role="columnheader" scope="col">Metadata</th>
      <th role="columnheader" scope="col">Verdicts</th>
      <th role="columnheader" scope="col">Project</th>
    </tr></thead>
    <tbody role="rowgroup">
      ${rows.map((row, index) => html`<tr role="row" key=${keyOf(row)} id=${`row-${index}`} class=${index === selected ? "is-selected" : ""}
        onClick=${(/** @type {MouseEvent} */ event) => isBackground(event) && go(addressOfRow(row))}>
        <td role="cell" class="when"><time dateTime=${row.start_time} title=${row.start_time}>${clockOf(row.start_time_ns)}</time></td>
        <td role="cell" class="name"><${Link} href=${addressOfRow(row)} go=${go} title=${row.name}>${row.name || "(no name)"}<//>${canCompare && html`<button type="button" class=${`quiet compare-row${compare ? " is-choosing" : ""}`}
          aria-label=${`Compare ${row.name}`} title="Compare with another row" onClick=${() => choose(row)}>⇄${compare === idOf(row) ? " Chosen" : compare ? " Compare" : ""}</button>`}</td>
        <td role="cell" class="long"><span class="length" aria-hidden="true"><span style=${{ width: `${share(row.latency_ms, longest)}%` }}></span></span>${duration(row.latency_ms)}</td>
        <td role="cell" class="how"><${Status} status=${row.status_code} /></td>
        ${!isSpans && html`<td role="cell" class="count">${row.spans}<span class="narrow-only">${row.spans === 1 ? " span" : " spans"}</span>${row.errors > 0 && html` <span class="is-error">✕ ${row.errors} ${row.errors === 1 ? "error" : "errors"}</span>`}
            ${row.late_values > 0 && html` <span class="late" title="Values that were set after the span was stored">○ ${row.late_values} late</span>`}</td>`}
        <td role="cell">${chipsOf(row, isSpans, offer)}</td>
        <td role="cell" class="verdicts">${Object.entries(row.evaluations).map(([name, verdict]) => html`<${Verdict} key=${name} name=${name} verdict=${verdict}
          onClick=${(/** @type {Event} */ event) => offer(event, row, verdictNames(name, isSpans), verdict.label ?? null)} />`)}</td>
        <td role="cell" class="project">${row.project && html`<button type="button" class="quiet" aria-label=${`Only project ${row.project}`} title=${row.project} onClick=${() => change({ project: row.project })}><span class="cut">${row.project}</span></button>`}</td>
      </tr>`)}
    </tbody>
  </table>`;
}

/** Spans over time, errors in red; each bar tells its numbers. @param {{histogram: any}} props */
function Bars({ histogram }) {
  const bars = /** @type {any[]} */ (histogram.bars);
  const most = bars.reduce((so, bar) => Math.max(so, bar.spans), 0);
  if (!most) return null;
  const spans = bars.reduce((sum, bar) => sum + bar.spans, 0);
  const errors = bars.reduce((sum, bar) => sum + bar.errors, 0);
  const height = (/** @type {number} */ count) => (count ? Math.max(2, (count / most) * BARS_HEIGHT) : 0);
  return html`<svg class="bars" role="img" viewBox=${`0 0 ${bars.length * 10} ${BARS_HEIGHT}`} preserveAspectRatio="none"
    aria-label=${`${spans} spans, ${errors} errors${histogram.searched_to ? ", of a part of this time" : ""}; at most ${most} spans in ${duration(Number(histogram.width_ns) / 1e6)}`}>
    ${bars.map((bar, index) => html`<g key=${bar.start_time_ns}>
      <title>${`From ${clockOf(bar.start_time_ns)}: ${bar.spans} spans, ${bar.errors} errors`}</title>
      <rect x=${index * 10} y="0" width="10" height=${BARS_HEIGHT} class="bar-ground" />
      <rect x=${index * 10 + 1} y=${BARS_HEIGHT - height(bar.spans)} width="8" height=${height(bar.spans)} />
      ${bar.errors > 0 && html`<rect class="is-error-bar" x=${index * 10 + 1} y=${BARS_HEIGHT - height(bar.errors)} width="8" height=${height(bar.errors)} />`}
    </g>`)}
  </svg>`;
}

/** The first metadata, each a button: of a span, or of a trace and its root. @param {any} row @param {boolean} isSpan @param {Offer} offer */
function chipsOf(row, isSpan, offer) {
  /** @type {["metadata" | "trace.metadata", string, unknown][]} */
  const entries = Object.entries(row.metadata).map(([key, value]) => ["metadata", key, value]);
  if (!isSpan) for (const [key, value] of Object.entries(row.trace_metadata)) entries.push(["trace.metadata", key, value]);
  if (!entries.length) return null;
  const most = isSpan ? CHIPS.spans : CHIPS.traces;
  const more = entries.length - most;
  return html`<div class="chips">${entries.slice(0, most).map(([level, key, value]) => {
    const text = typeof value === "string" ? value : JSON.stringify(value);
    return html`<button type="button" class="chip" key=${`${level} ${key}`} aria-haspopup="menu" onClick=${(/** @type {Event} */ event) => offer(event, row, [keyName(level, key)], value)}>
      <b class="cut">${key}</b> ${text.length > LONGEST_CHIP ? `${text.slice(0, LONGEST_CHIP)}…` : text}</button>`;
  })}${more > 0 && html`<span class="more">and ${more} more</span>`}</div>`;
}

/** @param {{place: ListPlace, change: (part: Partial<ListPlace>) => void, version: number, isPartial: boolean}} props */
function Nothing({ place, change, version, isPartial }) {
  const { filter, project, window, rows } = place;
  const isNarrow = filter || project;
  const all = useAsked(isNarrow || isPartial ? null : url("count", { start_time: new Date(0).toISOString(), limit: 1 }), version);
  if (isPartial) return html`<${Notice} title="Nothing found yet; older ${rows} have not been searched." />`;
  if (all.data?.counted === 0) return html`<${Notice} title="Nothing is stored yet."><${Lines} /><//>`;
  const title = isNarrow ? `No ${rows} in this time match ${filter ? "the filter" : `the project ${project}`}.` : `No ${rows} started in this time.`;
  const wider = WINDOWS[WINDOWS.findIndex(([name]) => name === window) < MONTH ? MONTH : WINDOWS.length - 1];
  return html`<${Notice} title=${title}>
    <p class="ways">
      ${window !== "all" && html`<button type="button" onClick=${() => change({ window: wider[0] })}>${wider[0] === "all" ? "Search all time" : "Widen to 30 days"}</button>`}
      ${isNarrow && html`<button type="button" onClick=${() => change({ filter: "", project: "" })}>Show all ${rows}</button>`}
    </p>
  <//>`;
}

/** @param {{older: ReturnType<typeof useOlder>, data: any, rows: any[], sort: ListPlace["sort"]}} props */
function Older({ older, data, rows, sort }) {
  const end = older.end ?? data;
  if (older.error) return html`<${Notice} title=${older.error.message} isProblem />`;
  if (!end.next_cursor) return rows.length ? html`<p class="end">That is all in this time.</p>` : null;
  const searched = end.searched_to ? ` (searched to ${clockOf(end.searched_to.start_time_ns)})` : "";
  return html`<p class="end">${sort && html`The longest of the newest ${thousands(rows.length)}. `}<button type="button" disabled=${older.isLoading} onClick=${() => older.load(end.next_cursor)}>
    ${older.isLoading ? "Loading…" : `Show older${searched}`}
  </button></p>`;
}

/**
 * Pages behind the first.
 * @param {string} kind
 * @param {Record<string, string | number>} question
 * @param {any} first
 */
function useOlder(kind, question, first) {
  const [state, setState] = useState(/** @type {{rows: any[], end: any, error: Error | null, isLoading: boolean}} */ (NO_OLDER));
  const ending = useRef(/** @type {AbortController | null} */ (null));
  useEffect(() => {
    setState(NO_OLDER);
    return () => ending.current?.abort();
  }, [question]);

  /** @param {string} cursor */
  async function load(cursor) {
    ending.current?.abort();
    const own = (ending.current = new AbortController());
    setState((before) => ({ ...before, isLoading: true, error: null }));
    try {
      const page = await ask(url(kind, { ...question, cursor }), { signal: own.signal });
      setState((before) => ({
        // A live list may push rows from its first page; those seen already are kept here.
        rows: [...(before.end ? before.rows : first[kind]), ...page[kind]], end: page, error: null, isLoading: false,
      }));
    } catch (error) {
      if (!isEnded(error)) setState((before) => ({ ...before, error: /** @type {Error} */ (error), isLoading: false }));
    }
  }
  return { ...state, load };
}

const NO_OLDER = { rows: [], end: null, error: null, isLoading: false };

/**
 * Rows that appear while somebody reads further down wait behind a button; rows that are there are updated in place.
 * @param {any[]} fresh
 * @param {object} question
 */
function useHeld(fresh, question) {
  const seen = useRef({ question, ids: /** @type {Set<string> | null} */ (null) });
  const [, redraw] = useState(0);
  if (seen.current.question !== question) seen.current = { question, ids: null };
  const { ids } = seen.current;
  // Where nothing was shown before, to ask for the position would make the browser lay the page out twice.
  const held = ids && document.documentElement.scrollTop > 40 ? fresh.filter((row) => !ids.has(keyOf(row))) : [];
  if (!held.length && fresh.length) seen.current.ids = new Set(fresh.map(keyOf));
  const showHeld = () => {
    seen.current.ids = null;
    window.scrollTo({ top: 0 });
    redraw((before) => before + 1);
  };
  return { shown: held.length ? fresh.filter((row) => ids?.has(keyOf(row))) : fresh, held: held.length, showHeld };
}

/** A row of a trace has its own verdicts and those of its root. @param {string} name @param {boolean} isSpan */
function verdictNames(name, isSpan) {
  return [keyName("eval", name, "label"), ...(isSpan ? [] : [keyName("trace.eval", name, "label")])];
}

/** @param {any[]} rows */
function withoutTwice(rows) {
  const seen = new Set();
  return rows.filter((row) => !seen.has(keyOf(row)) && seen.add(keyOf(row)));
}

/** @param {any} row */
function keyOf(row) {
  return `${row.trace_id}${row.span_id ?? ""}`;
}

/** A row as one side of a comparison. @param {any} row */
function idOf(row) {
  return row.span_id ? `${row.trace_id}-${row.span_id}` : row.trace_id;
}

/** @param {string} compare */
function comparedKind(compare) {
  return compared(compare)?.span ? "span" : "trace";
}

/** @param {any} row */
function addressOfRow(row) {
  return addressOf(tracePlace(row.trace_id, row.span_id ?? ""));
}

/** @param {number} part @param {number} whole */
function share(part, whole) {
  return whole > 0 ? Math.max(1, (part / whole) * 100) : 0;
}
