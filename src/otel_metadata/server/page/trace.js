/** One trace: its waterfall, and the span that is selected. */
import { addressOf, compared, placeOf, windowOf } from "./address.js";
import { addressOfTrace } from "./early.js";
import { keyName, literal } from "./filter_text.js";
import { useAsked, useKeys } from "./hooks.js";
import { conditionsOf, conditionsOfTag, useMenu } from "./menu.js";
import { Choosing, copied, Copy, lazy, Link, Notice, Problem, Status, Verdict } from "./parts.js";
import { html, useEffect, useLayoutEffect, useMemo, useRef, useState } from "./preact.js";
import { SpanDetail } from "./span.js";
import { clock, clockOf, duration, marks, thousands } from "./time.js";
import { shortText } from "./values.js";
import {
  errorRows, inView, isError, matches, nextOf, shownRows, treeOf, unfoldedFor, withAncestors,
} from "./waterfall.js";

const ROW = 28;
const INDENT = 14;
const DEEPEST_INDENT = 16;

/** A trace with more spans is not read again by itself when the store changes. */
const MOST_LIVE_SPANS = 5_000;

const FIND_MS = 250;

const Minimap = lazy(() => import("./minimap.js"), "Minimap", html`<div class="minimap"></div>`);

/**
 * @typedef {import("./address.js").TracePlace} TracePlace
 * @typedef {import("./waterfall.js").Tree} Tree
 *
 * @param {{place: TracePlace, go: (address: string, replace?: boolean) => void, version: number, areLettersOn: boolean,
 *   announce: (text: string) => void}} props
 */
export default function Trace({ place, go, version, areLettersOn, announce }) {
  const [readAt, setReadAt] = useState(version);
  const { data, error } = useAsked(addressOfTrace(place), readAt, true);
  const trace = data?.trace_id === place.traceId ? data : null;
  const isStale = readAt !== version;
  const isLarge = (trace?.spans.length ?? 0) > MOST_LIVE_SPANS;
  useEffect(() => {
    if (!isLarge) setReadAt(version);
  }, [version, isLarge]);

  if (error && !trace) {
    return html`<main class="trace"><${Problem} error=${error}>
      <p><${Link} href="/" go=${go}>Show all traces<//></p>
    <//></main>`;
  }
  if (!trace) return html`<main class="trace"><p class="loading" role="note">Loading the trace…</p></main>`;
  return html`<${TraceView} key=${place.traceId} ...${{ trace, place, go, version, areLettersOn, announce, error }}
    reload=${isStale && isLarge ? () => setReadAt(version) : null} />`;
}

/** @param {any} props */
function TraceView({ trace, place, go, version, areLettersOn, announce, error, reload }) {
  const tree = useMemo(() => treeOf(trace.spans), [trace]);
  const errors = useMemo(() => errorRows(tree), [tree]);
  const [folded, setFolded] = useState(/** @type {ReadonlySet<string>} */ (new Set(place.folded)));
  const [find, setFind] = useState(place.find);
  const found = useMemo(() => matches(tree, find), [tree, find]);
  const isOnly = place.only && find.trim() !== "";
  const kept = useMemo(() => (isOnly ? withAncestors(tree, found) : null), [tree, found, isOnly]);
  const rows = useMemo(() => shownRows(tree, folded, kept), [tree, folded, kept]);
  const selected = tree.rowOf.get(place.span) ?? -1;
  const finder = useRef(/** @type {HTMLInputElement | null} */ (null));
  const scroller = useRef(/** @type {HTMLElement | null} */ (null));
  const [menu, openMenu] = useMenu();

  // On top of the address, not of the place of this drawing: a timer or a second key may come before the next one.
  const change = (/** @type {Partial<TracePlace>} */ part) =>
    go(addressOf(/** @type {TracePlace} */ ({ ...placeOf(location.pathname, location.search), ...part })), true);
  useEffect(() => {
    const timer = setTimeout(() => find !== place.find && change({ find }), FIND_MS);
    return () => clearTimeout(timer);
  }, [find]);

  /** To the spans with a condition, in a window that has this trace. @param {string} condition */
  const narrow = (condition) => go(addressOf({
    place: "list", rows: "spans", filter: condition, project: "", window: windowOf(tree.spans[0].start_time_ns, Date.now()),
  }));
  const offer = (/** @type {Event} */ event, /** @type {import("./menu.js").Item[]} */ items) =>
    openMenu(/** @type {Element} */ (event.currentTarget), "Find spans by this value", items);
  const openCopy = async (/** @type {Element | null} */ anchor) => {
    const { copyItems } = await import("./copy.js");
    openMenu(anchor ?? document.querySelector(".copy-as") ?? document.body, "Copy", copyItems({ traceId: place.traceId, spanId: place.span }, copied, announce));
  };

  /** @param {ReadonlySet<string>} next @param {Partial<TracePlace>} more */
  function fold(next, more = {}) {
    setFolded(next);
    change({ folded: [...next], ...more });
  }

  /** Select a row, and open what hides it. @param {number | undefined} row */
  function select(row) {
    if (row === undefined || row < 0) return;
    const opened = unfoldedFor(tree, folded, row);
    if (opened !== folded) setFolded(opened);
    change({ span: tree.spans[row].span_id, folded: [...opened] });
  }

  /** @param {number} row */
  function toggle(row) {
    if (tree.size[row] < 2) return;
    const id = tree.spans[row].span_id;
    const next = new Set(folded);
    if (!next.delete(id)) next.add(id);
    // A selected row that the fold hides gives way to the folded one.
    const hidesSelected = next.has(id) && selected > row && selected < row + tree.size[row];
    fold(next, hidesSelected ? { span: id } : {});
  }

  useLayoutEffect(() => {
    const at = rows.indexOf(selected);
    const view = scroller.current;
    if (at < 0 || !view) return;
    const room = view.clientHeight - HEAD;
    if (at * ROW < view.scrollTop) view.scrollTop = at * ROW;
    else if ((at + 1) * ROW > view.scrollTop + room) view.scrollTop = (at + 1) * ROW - room;
  }, [selected, rows]);

  const [form, setForm] = useState("");
  const openForm = (/** @type {string} */ name) => {
    setForm(name);
    select(0);
  };
  // The form is loaded, and asks then; another span, or none, has none that is open.
  useEffect(() => {
    if (selected !== 0) setForm("");
  }, [selected]);
  const at = rows.indexOf(selected);
  const move = (/** @type {number} */ index) => select(rows[Math.max(0, Math.min(rows.length - 1, index))]);
  const page = () => Math.max(1, Math.floor(((scroller.current?.clientHeight ?? ROW) - HEAD) / ROW) - 1);
  const stepTo = (/** @type {number[]} */ some, /** @type {1 | -1} */ direction, /** @type {string} */ what) => {
    const row = nextOf(some, selected, direction);
    select(row);
    announce(row === undefined ? `No ${what}.` : `${what} ${some.indexOf(row) + 1} of ${some.length}: ${tree.spans[row].name}`);
  };
  useKeys({
    filter: () => finder.current?.focus(),
    down: () => move(at + 1),
    up: () => move(at < 0 ? 0 : at - 1),
    "page-down": () => move(at + page()),
    "page-up": () => move(at - page()),
    first: () => move(0),
    last: () => move(rows.length - 1),
    toggle: () => selected >= 0 && toggle(selected),
    open: () => selected >= 0 && document.getElementById("span-name")?.focus(),
    fold: () => {
      if (selected < 0) return;
      if (tree.size[selected] > 1 && !folded.has(tree.spans[selected].span_id)) toggle(selected);
      else select(tree.parent[selected]);
    },
    unfold: () => {
      if (selected < 0 || tree.size[selected] < 2) return;
      if (folded.has(tree.spans[selected].span_id)) toggle(selected);
      else move(at + 1);
    },
    "next-match": () => stepTo(found, 1, "match"),
    "previous-match": () => stepTo(found, -1, "match"),
    "next-error": () => stepTo(errors, 1, "error"),
    "previous-error": () => stepTo(errors, -1, "error"),
    copy: () => openCopy(document.activeElement?.closest(".waterfall") ? document.querySelector("[aria-selected=true] .tree-label") : null),
    // The span's own form has these keys; without a span they are about the first.
    ...(selected < 0 ? { annotate: () => openForm("note"), score: () => openForm("verdict") } : {}),
    back: () => {
      if (document.activeElement === finder.current) scroller.current?.focus();
      else if (place.span) change({ span: "" });
      else go("/");
    },
  }, areLettersOn);

  const own = `${place.traceId}-${place.span}`;
  /** Look for the other side in the list, among those of the same name. */
  const compare = (/** @type {"traces" | "spans"} */ kind, /** @type {string} */ name, /** @type {string | undefined} */ chosen) => {
    const value = literal(name);
    go(addressOf({ place: "list", rows: kind, filter: value ? `name = ${value}` : "", project: "", window: "7d", compare: chosen }));
  };
  const chooseSpan = () => {
    if (place.compare && compared(place.compare)?.span && place.compare !== own) go(addressOf({ place: "compare", a: place.compare, b: own, all: false }));
    else change({ compare: own });
  };
  const foldable = () => new Set(tree.spans.filter((_, row) => tree.size[row] > 1).map((span) => span.span_id));
  return html`<main class=${`trace${selected >= 0 ? " has-span" : ""}`}>
    <${Head} ...${{ trace, tree, go, offer, narrow, openCopy, compareTrace: () => compare("traces", trace.name || tree.spans[0].name, place.traceId) }} />
    <div class="notices">
    ${place.compare && html`<${Choosing} chosen=${place.compare} kind=${compared(place.compare)?.span ? "span" : "trace"} cancel=${() => change({ compare: undefined })}>
      ${selected >= 0 && html`<button type="button" onClick=${() => compare("spans", tree.spans[selected].name, place.compare)}>Choose it in the list</button>`}
    <//>`}
    ${place.at && html`<p class="past" role="note">The trace as it was at ${clock(new Date(place.at), new Date())}.
      <button type="button" onClick=${() => change({ at: "" })}>Show it as it is now</button></p>`}
    ${error && html`<${Problem} error=${error} />`}
    ${reload && html`<p class="held"><button type="button" onClick=${reload}>The store has changed: read the trace again</button></p>`}
    </div>
    <section class="tree-side" aria-label="Spans" style=${{ "--rows": rows.length }}>
      <div class="bar">
        <label class="find"><span class="visually-hidden">Search in this trace</span>
          <input type="search" ref=${finder} value=${find} placeholder="Search in this trace: name, kind, id" spellcheck=${false}
            onInput=${(/** @type {any} */ event) => setFind(event.target.value)}
            onKeyDown=${(/** @type {KeyboardEvent} */ event) => event.key === "Enter" && stepTo(found, event.shiftKey ? -1 : 1, "match")} />
        </label>
        ${find.trim() && html`<span class="found" role="status">${found.length === 1 ? "1 match" : `${found.length} matches`}</span>
          <label class="check"><input type="checkbox" checked=${place.only} onChange=${() => change({ only: !place.only })} /> Matches only</label>`}
        ${errors.length > 0 && html`<button type="button" class="quiet is-error" onClick=${() => stepTo(errors, 1, "error")}>✕ Next error (${errors.length})</button>`}
        <button type="button" class="quiet" onClick=${() => fold(folded.size ? new Set() : foldable())}>${folded.size ? "Unfold all" : "Fold all"}</button>
      </div>
      ${rows.length
        ? html`<${Waterfall} ...${{ tree, rows, folded, selected, select, toggle, scroller, found, find }} />`
        : html`<${Notice} title="No span of this trace has that text in its name, kind or id." />`}
    </section>
    ${selected >= 0
      ? html`<${SpanDetail} key=${place.span} ...${{ offer, narrow }} traceId=${place.traceId} span=${tree.spans[selected]} startNs=${tree.startNs}
          version=${version} at=${place.at} setAt=${(/** @type {string} */ time) => change({ at: time })} areLettersOn=${areLettersOn} compare=${chooseSpan} form=${form} isChoosing=${Boolean(place.compare) && place.compare !== own}
          tab=${place.tab} setTab=${(/** @type {string} */ tab) => change({ tab })} close=${() => change({ span: "" })} />`
      : html`<aside class="detail is-empty"><${Notice} title="Select a span to see its values, who set them, and when.">
        <p><button type="button" onClick=${() => select(0)}>Show the first</button></p><//></aside>`}
    ${menu}
  </main>`;
}

/** Pixels of the row above the spans. */
const HEAD = 28;

/**
 * @param {{trace: any, tree: Tree, go: (address: string) => void, narrow: (condition: string) => void,
 *   offer: (event: Event, items: import("./menu.js").Item[]) => void, openCopy: (anchor: Element | null) => void, compareTrace: () => void}} props
 */
function Head({ trace, tree, go, narrow, offer, openCopy, compareTrace }) {
  const chip = (/** @type {string} */ key, /** @type {import("./menu.js").Item[]} */ items, /** @type {any} */ text) =>
    html`<button type="button" class="chip" key=${key} aria-haspopup="menu" onClick=${(/** @type {Event} */ event) => offer(event, items)}>${text}</button>`;
  const valueLink = (/** @type {string} */ name, /** @type {string} */ value) => html`<button type="button" class="quiet of-trace" aria-haspopup="menu"
    onClick=${(/** @type {Event} */ event) => offer(event, conditionsOf([name], value, trace.trace_id, narrow))}><span class="cut" title=${value}>${value}</span></button>`;
  const root = tree.spans[0];
  const errors = tree.errors.reduce((sum, count, row) => sum + (tree.parent[row] < 0 ? count : 0), 0);
  const metadata = Object.entries(trace.metadata);
  return html`<header class="trace-head">
    <p class="crumbs"><${Link} href="/" go=${go}>Traces<//> <span aria-hidden="true">›</span></p>
    <h1 title=${trace.name || root.name}>${trace.name || root.name}</h1>
    <p class="facts">
      <${Status} status=${root.status_code} />
      <span>${duration(tree.total)}</span>
      <span>${tree.spans.length === 1 ? "1 span" : `${thousands(tree.spans.length)} spans`}</span>
      ${errors > 0 && html`<span class="is-error">${errors === 1 ? "1 error" : `${errors} errors`}</span>`}
      <time dateTime=${root.start_time} title=${root.start_time}>${clockOf(root.start_time_ns)}</time>
      ${trace.user_id && html`<span>user ${valueLink("user_id", trace.user_id)}</span>`}
      ${trace.session_id && html`<span>session ${valueLink("session_id", trace.session_id)}</span>`}
      <code class="id">${trace.trace_id}</code><${Copy} text=${trace.trace_id} what="the trace id" />
      <button type="button" class="quiet copy-as" aria-haspopup="menu" onClick=${(/** @type {Event} */ event) => openCopy(/** @type {Element} */ (event.currentTarget))}>Copy as…</button>
      <button type="button" class="quiet" onClick=${compareTrace} aria-label="Compare the trace">⇄ Compare</button>
    </p>
    ${(metadata.length > 0 || trace.tags.length > 0 || Object.keys(trace.evaluations).length > 0) && html`<p class="chips">
      ${metadata.map(([key, value]) => chip(key, conditionsOf([keyName("trace.metadata", key)], value, trace.trace_id, narrow), html`<b>${key}</b> ${shortText(value)}`))}
      ${trace.tags.map((/** @type {string} */ tag) => chip(`#${tag}`, conditionsOfTag("trace.tags", tag, trace.trace_id, narrow), `# ${tag}`))}
      ${Object.entries(trace.evaluations).map(([name, verdict]) => html`<${Verdict} key=${`=${name}`} name=${name} verdict=${verdict}
        onClick=${(/** @type {Event} */ event) => offer(event, conditionsOf([keyName("trace.eval", name, "label")], verdict.label ?? null, trace.trace_id, narrow))} />`)}
    </p>`}
  </header>`;
}

/**
 * The rows in view of the tree, as a treegrid; the focus stays on the grid, and names the selected row.
 * @param {{tree: Tree, rows: number[], folded: ReadonlySet<string>, selected: number, select: (row: number) => void,
 *   toggle: (row: number) => void, scroller: {current: HTMLElement | null}, found: number[], find: string}} props
 */
function Waterfall({ tree, rows, folded, selected, select, toggle, scroller, found, find }) {
  const [top, setTop] = useState(0);
  const [height, setHeight] = useState(600);
  const [width, setWidth] = useState(800);
  const inner = useRef(/** @type {HTMLElement | null} */ (null));
  const isFound = useMemo(() => new Set(found), [found]);

  useLayoutEffect(() => {
    const view = scroller.current;
    if (!view) return undefined;
    const measure = () => {
      setHeight(view.clientHeight);
      setWidth(view.querySelector(".axis")?.clientWidth ?? view.clientWidth);
    };
    const observer = new ResizeObserver(measure);
    observer.observe(view);
    measure();
    return () => observer.disconnect();
  }, []);

  const { from, to } = inView(top, height, ROW, rows.length);
  const id = (/** @type {number} */ row) => `span-${tree.spans[row].span_id}`;
  const at = rows.indexOf(selected);
  const percent = (/** @type {number} */ milliseconds) => (tree.total > 0 ? (milliseconds / tree.total) * 100 : 0);
  const scrollTo = (/** @type {number} */ row) => scroller.current?.scrollTo({ top: row * ROW - (height - HEAD) / 2 });
  return html`${rows.length * ROW > height && html`<${Minimap} tree=${tree} rows=${rows} from=${top / ROW} shown=${(height - HEAD) / ROW} scrollTo=${scrollTo} />`}
  <div class="waterfall" role="treegrid" tabindex="0" ref=${scroller} aria-label="Waterfall"
    aria-rowcount=${rows.length + 1} aria-activedescendant=${at >= from && at < to ? id(selected) : undefined}
    onScroll=${(/** @type {any} */ event) => setTop(event.currentTarget.scrollTop)}>
    <div role="row" class="tree-row is-head" aria-rowindex="1">
      <div role="columnheader" class="tree-name">Name</div>
      <div role="columnheader" class="axis" aria-label="Time">
        ${marks(tree.total, Math.max(1, Math.floor(width / 110))).map((mark) => html`<span key=${mark} style=${{ left: `${percent(mark)}%` }}>${duration(mark)}</span>`)}
      </div>
    </div>
    <div role="rowgroup" class="tree-rows" ref=${inner} style=${{ height: `${rows.length * ROW}px` }}>
      ${rows.slice(from, to).map((row, index) => {
        const span = tree.spans[row];
        const isFolded = folded.has(span.span_id);
        const hasChildren = tree.size[row] > 1;
        const hidden = isFolded ? tree.size[row] - 1 : 0;
        const hiddenErrors = isFolded ? tree.errors[row] - (isError(span.status_code) ? 1 : 0) : 0;
        const length = tree.end[row] - tree.start[row];
        const left = percent(tree.start[row]);
        const barWidth = Math.max(0, percent(length));
        return html`<div role="row" key=${row} id=${id(row)} aria-level=${tree.depth[row] + 1} aria-rowindex=${from + index + 2}
          aria-expanded=${hasChildren ? !isFolded : undefined} aria-selected=${row === selected}
          class=${`tree-row${isError(span.status_code) ? " is-error-row" : ""}${find.trim() && isFound.has(row) ? " is-found" : ""}`}
          style=${{ transform: `translateY(${(from + index) * ROW}px)` }} onClick=${() => select(row)}>
          <div role="gridcell" class="tree-name" style=${{ paddingLeft: `${Math.min(tree.depth[row], DEEPEST_INDENT) * INDENT + 4}px` }} title=${span.name}>
            ${hasChildren
              ? html`<span class="twisty" aria-hidden="true" onClick=${(/** @type {Event} */ event) => (event.stopPropagation(), toggle(row))}>${isFolded ? "▸" : "▾"}</span>`
              : html`<span class="twisty" aria-hidden="true"></span>`}
            ${isError(span.status_code) && html`<span class="is-error" aria-label="Error">✕ </span>`}
            <span class="tree-label">${span.name || "(no name)"}</span>
            ${tree.isOrphan[row] === 1 && html`<span class="tree-note" title="Its parent is not stored">parent missing</span>`}
            ${hidden > 0 && html`<span class="tree-note">+${thousands(hidden)}${hiddenErrors > 0 && html` <span class="is-error">✕ ${hiddenErrors}</span>`}</span>`}
          </div>
          <div role="gridcell" class="tree-time">
            <span class=${`tree-bar kind-${span.kind.toLowerCase()}`} style=${{ left: `${left}%`, width: `${barWidth}%` }}></span>
            <span class=${`tree-long${left + barWidth / 2 > 50 && left > 18 ? " is-before" : ""}`}
              style=${left + barWidth / 2 > 50 && left > 18 ? { right: `${100 - left}%` } : { left: `${Math.min(left + barWidth, 100)}%` }}>${duration(length)}</span>
          </div>
        </div>`;
      })}
    </div>
  </div>`;
}
