/** Two spans or two traces side by side: what differs. */
import { addressOf, compared, tracePlace } from "./address.js";
import { url } from "./api.js";
import { change, parted, rootOf, rowsOf, spanFacts, traceFacts } from "./difference.js";
import { useAsked } from "./hooks.js";
import { Link, Notice, Problem } from "./parts.js";
import { html, useMemo } from "./preact.js";
import { clockOf, duration } from "./time.js";
import { shortText } from "./values.js";

/** Characters of a value that are shown on each side of where two texts part. */
const AROUND = 120;
const LONGEST = 600;

/**
 * @typedef {import("./address.js").ComparePlace} ComparePlace
 * @param {{place: ComparePlace, go: (address: string, replace?: boolean) => void, version: number}} props
 */
export default function Compare({ place, go, version }) {
  const sides = [place.a, place.b].map(compared);
  const asked = [useAsked(addressIn(sides[0]), version), useAsked(addressIn(sides[1]), version)];
  const [a, b] = asked.map(({ data }) => data);
  const isSpans = Boolean(sides[0]?.span);
  // The outline of a trace has no values of its spans.
  const roots = [useAsked(addressOfRoot(a, isSpans), version), useAsked(addressOfRoot(b, isSpans), version)];
  const [rootA, rootB] = roots.map(({ data }) => data);
  const isThere = a && b && (isSpans || (rootA && rootB));
  const rows = useMemo(() => (!isThere ? [] : isSpans ? rowsOf(spanFacts(a), spanFacts(b)) : rowsOf(traceFacts(a, rootA), traceFacts(b, rootB))), [a, b, rootA, rootB]);
  const differing = rows.filter((row) => !row.isSame);
  const shown = place.all ? rows : differing;
  const to = (/** @type {Partial<ComparePlace>} */ part) => addressOf({ ...place, ...part });

  if (!sides[0] || !sides[1] || isSpans !== Boolean(sides[1].span)) {
    return html`<main class="list"><${Notice} title="Choose two traces, or two spans: ⇄ on a row of the list, or Compare in a trace.">
      <p><${Link} href="/" go=${go}>Show all traces<//></p>
    <//></main>`;
  }
  const error = [...asked, ...roots].find((one) => one.error)?.error;
  return html`<main class="list compare">
    <p class="crumbs"><${Link} href="/" go=${go}>Traces<//> <span aria-hidden="true">›</span></p>
    <h1>${isSpans ? "Two spans" : "Two traces"}</h1>
    ${error && html`<${Problem} error=${error} />`}
    ${!error && !isThere && html`<p class="loading" role="note">Loading…</p>`}
    ${isThere && html`
      <div class="bar">
        <button type="button" onClick=${() => go(to({ a: place.b, b: place.a }), true)}>Swap A and B</button>
        <label class="check"><input type="checkbox" checked=${place.all} onChange=${() => go(to({ all: !place.all }), true)} /> Also what is the same</label>
        <span class="faint" role="status">${differing.length === 1 ? "1 fact differs" : `${differing.length} facts differ`}, ${rows.length - differing.length} are the same</span>
      </div>
      <table class="values differences" role="table">
        <thead role="rowgroup"><tr role="row"><th role="columnheader" scope="col">Name</th>
          ${sides.map((side, index) => html`<th role="columnheader" scope="col" key=${index}><${Side} letter=${"AB"[index]} side=${side} data=${[a, b][index]} go=${go} /></th>`)}
          <th role="columnheader" scope="col">B is</th></tr></thead>
        ${groupsOf(shown).map(([group, some]) => html`<tbody role="rowgroup" key=${group}>
          <tr role="row" class="group"><th role="rowheader" scope="rowgroup" colspan="4">${group}</th></tr>
          ${some.map((row) => html`<tr role="row" key=${row.name} class=${row.isSame ? "is-same" : ""}>
            <th role="rowheader" scope="row">${row.name}</th>
            <td role="cell"><${Cell} row=${row} side="a" /></td>
            <td role="cell"><${Cell} row=${row} side="b" /></td>
            <td role="cell" class="by">${change(row)}</td>
          </tr>`)}
        </tbody>`)}
      </table>
      ${!shown.length && html`<${Notice} title="Nothing differs." />`}`}
  </main>`;
}

/** One of the two, and a way to choose another. @param {{letter: string, side: any, data: any, go: (address: string) => void}} props */
function Side({ letter, side, data, go }) {
  const { trace, span } = side;
  const first = span ? data : data.spans[0];
  return html`<span class="letter">${letter}</span> <${Link} href=${addressOf(tracePlace(trace, span))} go=${go}>${(span ? data.name : data.name ?? first.name) || "(no name)"}<//>
    <br /><small>${clockOf(first.start_time_ns)} · <code>${(span || trace).slice(0, 8)}</code></small>`;
}

/** @param {{row: import("./difference.js").Row, side: "a" | "b"}} props */
function Cell({ row, side }) {
  const value = row[side];
  if (value === undefined) return html`<span class="faint">${row.group === "Spans" ? "none" : "not set"}</span>`;
  if (row.isTime) return html`<code class="value">${duration(/** @type {number} */ (value))}</code>`;
  const [text, other] = [value, side === "a" ? row.b : row.a].map((one) => (typeof one === "string" ? one : one === undefined ? "" : shortText(one)));
  if (row.isSame || !other || typeof value === "number") return html`<code class="value">${text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text}</code>`;
  const { before, a: own, after } = parted(text, other);
  if (!before && !after) return html`<code class="value">${own.length > LONGEST ? `${own.slice(0, LONGEST)}…` : own}</code>`;
  return html`<code class="value">${before.length > AROUND ? `…${before.slice(-AROUND)}` : before}${own && html`<mark>${own.length > LONGEST ? `${own.slice(0, LONGEST)}…` : own}</mark>`}${after.length > AROUND ? `${after.slice(0, AROUND)}…` : after}</code>`;
}

/** @param {import("./difference.js").Row[]} rows @returns {[string, import("./difference.js").Row[]][]} */
function groupsOf(rows) {
  return [...Map.groupBy(rows, (row) => row.group)];
}

/** @param {any} trace @param {boolean} isSpans */
function addressOfRoot(trace, isSpans) {
  return !trace || isSpans ? null : url(`spans/${rootOf(trace).span_id}`, { trace_id: trace.trace_id });
}

/** @param {{trace: string, span: string} | null} side */
function addressIn(side) {
  if (!side) return null;
  return side.span ? url(`spans/${side.span}`, { trace_id: side.trace }) : url(`traces/${side.trace}`);
}
