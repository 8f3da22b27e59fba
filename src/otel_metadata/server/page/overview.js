/** Many traces in numbers: how many, how long, how many errors; verdicts by label; tokens and cost. */
import { addressOf, DEFAULTS, endOfWindow, startOfWindow, WINDOWS } from "./address.js";
import { ask, isEnded, Refusal, url } from "./api.js";
import { FilterBox } from "./filter.js";
import { keyName, literal, narrowed } from "./filter_text.js";
import { useAsked, useKeys } from "./hooks.js";
import { isAboutFilter, Link, Notice, Problem, WrongFilter } from "./parts.js";
import { html, useEffect, useMemo, useRef, useState } from "./preact.js";
import { added, allBars, noSums, quantile, roundEnd, short } from "./sums.js";
import { clockOf, duration } from "./time.js";

const BARS = 48;
const ROWS_OF_A_PART = 300;
const PART_MILLIS = 200;
/** Parts that are read without being asked for: some seconds. */
const MOST_PARTS = 20;
/** What was read in fewer parts is read again by itself, at most so often. */
const LIVE_PARTS = 8;
const LIVE_MS = 4_000;
const MOST_LABELS = 8;
const MOST_GROUPS = 12;
const HEIGHT = 110;

const BY = /** @type {const} */ ([["project", "Project"], ["model", "Model"], ["name", "Name"], ["user_id", "User"], ["session_id", "Session"]]);

/**
 * @typedef {import("./address.js").OverviewPlace} OverviewPlace
 * @typedef {import("./sums.js").Sums} Sums
 * @typedef {ReturnType<typeof allBars>[number]} ShownBar
 *
 * @param {{place: OverviewPlace, go: (address: string, replace?: boolean) => void, version: number, areLettersOn: boolean}} props
 */
export default function Overview({ place, go, version, areLettersOn }) {
  const { rows, filter, project, by } = place;
  const window = place.window === "all" ? DEFAULTS.window : place.window;
  const [readAt, setReadAt] = useState(version);
  const question = useMemo(() => {
    const now = Date.now();
    return {
      rows, filter, project, by, start_time: startOfWindow(window, now), end_time: endOfWindow(window, now) || new Date(now + 1).toISOString(),
      bars: BARS, limit: ROWS_OF_A_PART, timeout_millis: PART_MILLIS,
    };
  }, [rows, filter, project, by, window, readAt]);
  const { sums, error, isReading, parts, readOn } = useSummary(question);
  const keys = useAsked(url("names", { kind: "metadata", limit: 200 }), 0);
  const input = useRef(/** @type {HTMLInputElement | null} */ (null));
  const isStale = version !== readAt;
  useEffect(() => {
    if (!isStale || isReading || parts > LIVE_PARTS) return undefined;
    const timer = setTimeout(() => setReadAt(version), LIVE_MS);
    return () => clearTimeout(timer);
  }, [isStale, isReading, parts]);

  const change = (/** @type {Partial<OverviewPlace>} */ part, replace = false) => go(addressOf({ ...place, ...part }), replace);
  /** Rows of the list that also satisfy a condition. */
  const listed = (/** @type {string} */ condition, kind = rows) =>
    addressOf({ ...EMPTY_LIST, rows: kind, project, window, filter: narrowed(filter, condition) });
  useKeys({ filter: () => input.current?.focus(), back: () => input.current?.blur() }, areLettersOn);

  const isOpen = (/** @type {string} */ name) => place.numbers.includes(name);
  const toggle = (/** @type {string} */ name) =>
    change({ numbers: isOpen(name) ? place.numbers.filter((one) => one !== name) : [...place.numbers, name] }, true);
  const startNs = String(BigInt(Date.parse(question.start_time)) * 1_000_000n);
  const bars = sums ? allBars(sums, startNs, BARS) : [];
  const shared = { bars, isOpen, toggle, go, listed, widthNs: sums?.widthNs ?? "0" };
  return html`<main class="list overview">
    <h1 class="visually-hidden">Overview</h1>
    <form class="bar" onSubmit=${(/** @type {Event} */ event) => event.preventDefault()}>
      <div class="switch" role="group" aria-label="Rows">
        ${/** @type {const} */ ([["traces", "Traces"], ["spans", "Spans"]]).map(([name, word]) => html`<button type="button" key=${name}
          aria-pressed=${rows === name} onClick=${() => change({ rows: name })}>${word}</button>`)}
      </div>
      <${FilterBox} value=${filter} run=${(/** @type {string} */ text) => change({ filter: text })} inputRef=${input} />
      <label><span class="visually-hidden">Time</span>
        <select value=${window} onChange=${(/** @type {any} */ event) => change({ window: event.target.value })}>
          ${WINDOWS.filter(([name]) => name !== "all").map(([name, word]) => html`<option key=${name} value=${name}>${word}</option>`)}
        </select>
      </label>
      ${project && html`<button type="button" class="chip is-removable" onClick=${() => change({ project: "" })}
        aria-label=${`Project ${project}: show all projects`}>project ${project} ✕</button>`}
    </form>
    ${error && (isAboutFilter(error) ? html`<${WrongFilter} />` : html`<${Problem} error=${error} />`)}
    ${!sums && !error && html`<p class="loading" role="note">Adding up…</p>`}
    ${sums && html`<${Reach} ...${{ sums, rows, isReading, isStale: isStale && !isReading && parts > LIVE_PARTS, readOn, reread: () => setReadAt(version) }} />`}
    ${sums && !sums.counted && !isReading && html`<${Notice} title=${`No ${rows} in this time${filter || project ? " match" : ""}.`} />`}
    ${sums && sums.counted > 0 && html`
      <${Facts} sums=${sums} rows=${rows} />
      <div class="charts">
        <${Counts} ...${shared} rows=${rows} />
        <${Latencies} ...${shared} />
        <${Rates} ...${shared} />
        ${sums.verdicts.size > 0 && html`<${Verdicts} ...${shared} sums=${sums} />`}
        <${Usage} ...${shared} sums=${sums} by=${by} keys=${keys.data?.names ?? []} setBy=${(/** @type {string} */ next) => change({ by: next })} />
      </div>`}
  </main>`;
}

const EMPTY_LIST = /** @type {import("./address.js").ListPlace} */ ({ place: "list", rows: "traces", filter: "", project: "", window: "7d" });

/**
 * Read part after part, newest first, and add them up.
 * @param {Record<string, string | number>} question
 */
function useSummary(question) {
  const [state, setState] = useState(/** @type {{sums: Sums | null, error: Error | null, isReading: boolean, parts: number, cursor: string | null}} */ (NOTHING));
  const ending = useRef(/** @type {AbortController | null} */ (null));

  /** @param {Sums} sums @param {string | null} cursor @param {number} parts @param {boolean} isShown whether each part is */
  async function read(sums, cursor, parts, isShown) {
    ending.current?.abort();
    const own = (ending.current = new AbortController());
    const most = parts + MOST_PARTS;
    setState((before) => ({ ...before, isReading: true, error: null }));
    try {
      do {
        const part = await ask(url("summary", { ...question, cursor }), { signal: own.signal });
        sums = added(sums, part);
        cursor = part.next_cursor;
        parts++;
        if (isShown || cursor === null || parts === most) setState({ sums, error: null, isReading: cursor !== null && parts < most, parts, cursor });
      } while (cursor !== null && parts < most);
    } catch (error) {
      if (!isEnded(error)) setState((before) => ({ ...before, error: /** @type {Error} */ (error), isReading: false, sums: error instanceof Refusal ? null : before.sums }));
    }
  }

  const asked = useRef("");
  useEffect(() => {
    // What is read again stays until it has been read: charts that shrink and grow tell nothing.
    const { start_time, end_time, ...lasting } = question;
    const isSame = asked.current === JSON.stringify(lasting);
    asked.current = JSON.stringify(lasting);
    if (!isSame) setState(NOTHING);
    read(noSums(), null, 0, !isSame);
    return () => ending.current?.abort();
  }, [question]);
  return { ...state, readOn: state.cursor !== null && !state.isReading ? () => read(/** @type {Sums} */ (state.sums), state.cursor, state.parts, true) : null };
}

const NOTHING = { sums: null, error: null, isReading: false, parts: 0, cursor: null };

/** How much of the window the numbers are about. @param {any} props */
function Reach({ sums, rows, isReading, isStale, readOn, reread }) {
  return html`<p class="reach" role="status">
    ${sums.searchedTo !== null && html`<span>The numbers are about the newest ${sums.counted.toLocaleString("en")} ${rows}, back to ${clockOf(sums.searchedTo)}.</span>`}
    ${!sums.isWhole && html` <span>Some traces have more spans than could be read: their tokens and verdicts are counted in part.</span>`}
    ${isReading && html` <span class="faint">Adding up…</span>`}
    ${readOn && html` <button type="button" onClick=${readOn}>Read further back</button>`}
    ${isStale && html` <button type="button" onClick=${reread}>The store has changed: add up again</button>`}
  </p>`;
}

/** @param {{sums: Sums, rows: string}} props */
function Facts({ sums, rows }) {
  const bars = [...sums.bars.values()];
  const errors = bars.reduce((sum, bar) => sum + bar.errors, 0);
  const latencies = bars.map((bar) => bar.latencies);
  const groups = [...sums.groups.values()];
  const sum = (/** @type {"inputTokens" | "outputTokens" | "cost"} */ name) => groups.reduce((total, group) => total + group[name], 0);
  const facts = [
    [rows === "spans" ? "spans" : "traces", sums.counted.toLocaleString("en")],
    ["with an error", `${errors.toLocaleString("en")} (${percent(errors, sums.counted)})`],
    ["half take less than", duration(quantile(latencies, 0.5) ?? 0)],
    ["95 % take less than", duration(quantile(latencies, 0.95) ?? 0)],
    ["tokens in", short(sum("inputTokens"))],
    ["tokens out", short(sum("outputTokens"))],
    ["cost", money(sum("cost"))],
  ];
  return html`<dl class="tiles">${facts.map(([word, value]) => html`<div key=${word}><dt>${word}</dt><dd>${value}</dd></div>`)}</dl>`;
}

/**
 * A chart, and its numbers one click away.
 * @param {{name: string, title: string, isOpen: (name: string) => boolean, toggle: (name: string) => void, head: string[], rows: any[][], children?: any, isWide?: boolean}} props
 */
function Chart({ name, title, isOpen, toggle, head, rows, children, isWide = false }) {
  return html`<section class=${`chart${isWide ? " is-wide" : ""}`} aria-labelledby=${`chart-${name}`}>
    <header><h2 id=${`chart-${name}`}>${title}</h2>
      <button type="button" class="quiet" aria-expanded=${isOpen(name)} aria-controls=${`numbers-${name}`} onClick=${() => toggle(name)}>${isOpen(name) ? "Hide numbers" : "Numbers"}<span class="visually-hidden"> of ${title}</span></button></header>
    ${children}
    <div id=${`numbers-${name}`} class="numbers" hidden=${!isOpen(name)} tabindex="0" role="region" aria-label=${`Numbers of ${title}`}>
      ${isOpen(name) && html`<table><thead><tr>${head.map((word) => html`<th key=${word} scope="col">${word}</th>`)}</tr></thead>
        <tbody>${rows.map((row, index) => html`<tr key=${index}>${row.map((cell, at) => (at ? html`<td key=${at}>${cell}</td>` : html`<th key=${at} scope="row">${cell}</th>`))}</tr>`)}</tbody></table>`}
    </div>
  </section>`;
}

/**
 * An area over time: what is drawn, an axis, and a link for each bar.
 * @param {{bars: ShownBar[], most: string, label: string, titles: string[], children?: any, listed: (condition: string) => string, widthNs: string, go: (address: string) => void}} props
 */
function OverTime({ bars, most, label, titles, children, listed, widthNs, go }) {
  const ends = bars.map(({ startNs }) => String(BigInt(startNs) + BigInt(widthNs)));
  const open = (/** @type {number} */ at) =>
    go(listed(`start_time >= '${timeText(bars[at].startNs)}' AND start_time < '${timeText(ends[at])}'`));
  return html`<div class="plot">
    <span class="most">${most}</span>
    <svg viewBox=${`0 0 ${bars.length * 10} ${HEIGHT}`} preserveAspectRatio="none" role="img" aria-label=${label}>
      <line x1="0" x2=${bars.length * 10} y1=${HEIGHT - 0.5} y2=${HEIGHT - 0.5} class="axis-line" />
      <line x1="0" x2=${bars.length * 10} y1="0.5" y2="0.5" class="axis-line is-top" />
      ${children}
      ${bars.map((bar, at) => html`<rect key=${bar.startNs} class="bar-ground" x=${at * 10} y="0" width="10" height=${HEIGHT} onClick=${bar.count ? () => open(at) : undefined}><title>${titles[at]}</title></rect>`)}
    </svg>
    <p class="times"><span>${clockOf(bars[0].startNs)}</span><span>${clockOf(ends[bars.length - 1])}</span></p>
  </div>`;
}

/** @param {any} props */
function Counts({ bars, rows, ...shared }) {
  const most = roundEnd(Math.max(...bars.map((/** @type {ShownBar} */ bar) => bar.count)));
  const titles = bars.map((/** @type {ShownBar} */ bar) => `From ${clockOf(bar.startNs)}: ${bar.count} ${rows}, ${bar.errors} with an error`);
  const bar = (/** @type {number} */ at, /** @type {number} */ count, /** @type {string} */ name) => count > 0 && html`<rect class=${name}
    x=${at * 10 + 1} width="8" y=${HEIGHT - Math.max(2, (count / most) * HEIGHT)} height=${Math.max(2, (count / most) * HEIGHT)} />`;
  return html`<${Chart} name="count" title=${rows === "spans" ? "Spans" : "Traces"} ...${shared} head=${["From", rows, "with an error"]}
    rows=${filled(bars).map((one) => [clockOf(one.startNs), one.count, one.errors])}>
    <p class="legend"><span class="key is-count">all</span> <span class="key is-failed">with an error</span></p>
    <${OverTime} ...${{ bars, titles, ...shared }} most=${short(most)} label=${`At most ${short(most)} ${rows} in each of ${bars.length} parts of the time`}>
      ${bars.map((/** @type {ShownBar} */ one, /** @type {number} */ at) => html`<g key=${one.startNs}>${bar(at, one.count, "is-count")}${bar(at, one.errors, "is-failed")}</g>`)}
    <//>
  <//>`;
}

/** @param {any} props */
function Latencies({ bars, ...shared }) {
  const found = bars.map((/** @type {ShownBar} */ bar) => [quantile([bar.latencies], 0.5), quantile([bar.latencies], 0.95)]);
  const most = roundMillis(Math.max(...found.map((/** @type {number[]} */ [, high]) => high ?? 0)));
  const titles = bars.map((/** @type {ShownBar} */ bar, /** @type {number} */ at) => `From ${clockOf(bar.startNs)}: ${bar.count ? `half below ${duration(found[at][0])}, 95 % below ${duration(found[at][1])}` : "none"}`);
  return html`<${Chart} name="latency" title="Latency" ...${shared} head=${["From", "half below", "95 % below", "of"]}
    rows=${filled(bars).map((bar) => [clockOf(bar.startNs), ...[0.5, 0.95].map((part) => duration(quantile([bar.latencies], part) ?? 0)), bar.count])}>
    <p class="legend"><span class="key is-half">half take less</span> <span class="key is-most">95 % take less</span></p>
    <${OverTime} ...${{ bars, titles, ...shared }} most=${duration(most)} label=${`Latency, half and 95 % of the rows, up to ${duration(most)}`}>
      ${[["is-most", 1], ["is-half", 0]].map(([name, which]) => html`<${Line} key=${name} name=${name} values=${found.map((/** @type {any} */ pair) => (pair[which] === null ? null : pair[which] / most))} />`)}
    <//>
  <//>`;
}

/** @param {any} props */
function Rates({ bars, ...shared }) {
  const rates = bars.map((/** @type {ShownBar} */ bar) => (bar.count ? bar.errors / bar.count : null));
  const most = Math.min(1, roundEnd(Math.max(0.01, ...rates)));
  const titles = bars.map((/** @type {ShownBar} */ bar) => `From ${clockOf(bar.startNs)}: ${bar.count ? `${percent(bar.errors, bar.count)}, ${bar.errors} of ${bar.count}` : "none"}`);
  return html`<${Chart} name="errors" title="Error rate" ...${shared} head=${["From", "error rate", "errors", "of"]}
    rows=${filled(bars).map((bar) => [clockOf(bar.startNs), percent(bar.errors, bar.count), bar.errors, bar.count])}>
    <p class="legend"><span class="key is-failed">part with an error</span></p>
    <${OverTime} ...${{ bars, titles, ...shared }} most=${percent(most, 1)} label=${`Error rate, up to ${percent(most, 1)}`}>
      <${Line} name="is-failed" values=${rates.map((/** @type {number | null} */ rate) => (rate === null ? null : rate / most))} />
    <//>
  <//>`;
}

/** A line with a dot at each value; it ends where there is none. @param {{name: string, values: (number | null)[]}} props */
function Line({ name, values }) {
  const y = (/** @type {number} */ value) => HEIGHT - Math.min(1, value) * (HEIGHT - 6) - 3;
  let path = "";
  values.forEach((value, at) => {
    if (value === null) return;
    path += `${values[at - 1] === null || at === 0 ? "M" : "L"}${at * 10 + 5} ${y(value)}`;
  });
  // A line of no length has round ends, and so is a dot also where the picture is stretched.
  const dots = values.map((value, at) => (value === null ? "" : `M${at * 10 + 5} ${y(value)}h0`)).join("");
  return html`<path class=${`line ${name}`} d=${path} /><path class=${`dots ${name}`} d=${dots} />`;
}

/** @param {any} props */
function Verdicts({ sums, listed, go, isOpen, toggle }) {
  const names = [.../** @type {Sums} */ (sums).verdicts].map(([name, labels]) => ({ name, labels: [...labels.values()].sort((one, other) => other.count - one.count) }))
    .sort((one, other) => total(other.labels) - total(one.labels));
  const address = (/** @type {string} */ name, /** @type {string | null} */ label) => {
    const value = literal(label);
    return label === null || value === null ? null : listed(`${keyName("eval", name, "label")} = ${value}`, "spans");
  };
  return html`<${Chart} name="verdicts" title="Verdicts" ...${{ isOpen, toggle }} head=${["Evaluation", "label", "how many", "part", "mean score"]}
    rows=${names.flatMap(({ name, labels }) => labels.map((one) => [name, one.label ?? "no label", one.count, percent(one.count, total(labels)), one.scored ? (one.scoreSum / one.scored).toFixed(2) : "–"]))}>
    ${names.map(({ name, labels }) => html`<div class="stack" key=${name}>
      <h3 title=${name}>${name}</h3>
      <svg viewBox="0 0 1000 12" preserveAspectRatio="none" role="img" aria-label=${`${name}: ${labels.map((one) => `${one.label ?? "no label"} ${one.count}`).join(", ")}`}>
        ${parts(labels.map((one) => one.count)).map(([from, length], at) => html`<rect key=${at} class=${`colour-${at % MOST_LABELS}`} x=${from} y="0" width=${length} height="12"><title>${`${labels[at].label ?? "no label"}: ${labels[at].count}`}</title></rect>`)}
      </svg>
      <p class="legend">${labels.slice(0, MOST_LABELS).map((one, at) => {
        const shown = html`<span class="cut">${one.label ?? "no label"}</span> <b>${one.count}</b> ${percent(one.count, total(labels))}`;
        const href = address(name, one.label);
        return html`<span class=${`key colour-${at}`} key=${one.label} title=${one.label}>${href ? html`<${Link} href=${href} go=${go}>${shown}<//>` : shown}</span> `;
      })}${labels.length > MOST_LABELS && html`<span class="faint">and ${labels.length - MOST_LABELS} more</span>`}</p>
    </div>`)}
  <//>`;
}

/** @param {any} props */
function Usage({ sums, by, keys, setBy, listed, go, isOpen, toggle }) {
  const groups = [.../** @type {Sums} */ (sums).groups.values()];
  const hasCost = groups.some((group) => group.cost > 0);
  const size = (/** @type {import("./sums.js").Group} */ group) => (hasCost ? group.cost : group.inputTokens + group.outputTokens);
  groups.sort((one, other) => size(other) - size(one));
  const most = Math.max(0, ...groups.map(size));
  const key = by.startsWith("metadata.") ? by.slice(9) : "";
  const name = (/** @type {string | null} */ value) => value ?? (key ? `without ${key}` : "without");
  const address = (/** @type {string | null} */ value) => {
    const text = literal(value);
    return value === null || value === "…" || text === null ? null : listed(`${key ? keyName("metadata", key) : by} = ${text}`, by === "model" ? "spans" : "traces");
  };
  const options = [...keys];
  if (key && !options.includes(key)) options.unshift(key);
  return html`<${Chart} name="usage" title="Tokens and cost" isWide ...${{ isOpen, toggle }} head=${[BY.find(([one]) => one === by)?.[1] ?? key, "calls", "tokens in", "tokens out", "cost"]}
    rows=${groups.map((group) => [name(group.value), group.calls, ...[group.inputTokens, group.outputTokens].map((one) => one.toLocaleString("en")), money(group.cost)])}>
    <label class="by">by <select value=${by} onChange=${(/** @type {any} */ event) => setBy(event.target.value)}>
      <optgroup label="Span or trace">${BY.map(([value, word]) => html`<option key=${value} value=${value}>${word}</option>`)}</optgroup>
      ${options.length > 0 && html`<optgroup label="Metadata">${options.map((/** @type {string} */ one) => html`<option key=${one} value=${`metadata.${one}`}>${one}</option>`)}</optgroup>`}
    </select></label>
    ${groups.length
      ? html`<ol class="amounts">${groups.slice(0, MOST_GROUPS).map((group) => {
        const href = address(group.value);
        return html`<li key=${group.value}>
          <span class="what" title=${name(group.value)}>${href ? html`<${Link} href=${href} go=${go}>${name(group.value)}<//>` : name(group.value)}</span>
          <span class="length" aria-hidden="true"><span style=${{ width: `${most ? Math.max(0.5, (size(group) / most) * 100) : 0}%` }}></span></span>
          <span class="amount">${hasCost && html`<b>${money(group.cost)}</b> `}${short(group.inputTokens)} in, ${short(group.outputTokens)} out</span>
        </li>`;
      })}</ol>${groups.length > MOST_GROUPS && html`<p class="faint">and ${groups.length - MOST_GROUPS} more, under Numbers</p>`}`
      : html`<p class="faint">No call of a model says how many tokens it used, or what it cost.</p>`}
  <//>`;
}

/** @param {ShownBar[]} bars */
function filled(bars) {
  return bars.filter((bar) => bar.count > 0).reverse();
}

/** Where each part of a row of 1,000 begins, and how long it is. @param {number[]} counts @returns {[number, number][]} */
function parts(counts) {
  const all = counts.reduce((sum, count) => sum + count, 0);
  let from = 0;
  return counts.map((count) => {
    const length = (count / all) * 1_000;
    from += length;
    return [from - length, Math.max(0, length - 2)];
  });
}

/** @param {{count: number}[]} some */
function total(some) {
  return some.reduce((sum, one) => sum + one.count, 0);
}

/** @param {number} part @param {number} whole */
function percent(part, whole) {
  return whole ? `${Number(((part / whole) * 100).toPrecision(part / whole >= 0.1 ? 3 : 2))} %` : "–";
}

/** A cost in whatever currency the spans have it. @param {number} cost */
function money(cost) {
  return cost >= 100 ? short(cost) : cost >= 0.01 ? cost.toFixed(2) : String(Number(cost.toPrecision(2)));
}

/** A round duration at or above one. @param {number} milliseconds */
function roundMillis(milliseconds) {
  return milliseconds > 60_000 ? Math.ceil(milliseconds / 30_000) * 30_000 : roundEnd(milliseconds);
}

/** A time as filters write it. @param {string} ns */
function timeText(ns) {
  const second = BigInt(ns) / 1_000_000_000n;
  const rest = String(BigInt(ns) % 1_000_000_000n).padStart(9, "0");
  return `${new Date(Number(second) * 1_000).toISOString().slice(0, 19)}.${rest}Z`;
}
