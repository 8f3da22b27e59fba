/**
 * The state of the page and its address, one made from the other: what is shown is in the address, so a copied address
 * shows the same.
 *
 * @typedef {{place: "list", rows: "traces" | "spans", filter: string, project: string, window: string,
 *   sort?: "duration", compare?: string}} ListPlace `compare` is what somebody looks for the other side of, as in a `ComparePlace`
 * @typedef {{place: "trace", traceId: string, span: string, tab: string, at: string, find: string, only: boolean,
 *   folded: string[], compare?: string}} TracePlace
 * @typedef {{place: "compare", a: string, b: string, all: boolean}} ComparePlace each `<trace id>` or `<trace id>-<span id>`
 * @typedef {{place: "overview", rows: "traces" | "spans", filter: string, project: string, window: string, by: string,
 *   numbers: string[]}} OverviewPlace
 * @typedef {{place: "changes", filter: string, field: string, project: string, window: string}} ChangesPlace
 * @typedef {{place: "connect"}} ConnectPlace
 * @typedef {{place: "nowhere", path: string}} Nowhere
 * @typedef {ListPlace | TracePlace | ComparePlace | OverviewPlace | ChangesPlace | ConnectPlace | Nowhere} Place
 */

/** Those that begin at a midnight of the reader have no length. */
export const WINDOWS = /** @type {const} */ ([
  ["1h", "Last hour", 3_600_000],
  ["24h", "Last 24 hours", 86_400_000],
  ["today", "Today", 0],
  ["yesterday", "Yesterday", 0],
  ["7d", "Last 7 days", 7 * 86_400_000],
  ["30d", "Last 30 days", 30 * 86_400_000],
  ["all", "All time", Infinity],
]);

export const TABS = /** @type {const} */ ([
  ["values", "Values"],
  ["io", "Input and output"],
  ["evaluations", "Evaluations"],
  ["events", "Events"],
  ["raw", "Raw"],
]);

/** What an address leaves out, because it is so anyway. */
export const DEFAULTS = { window: "7d", tab: "values", by: "project" };

/** Folds in an address; more would make it too long to copy. */
const MOST_FOLDS = 40;

const TRACE = /^\/traces\/([0-9a-f]{32})$/i;
const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z$/;
const SPAN_ID = /^[0-9a-f]{16}$/;
const COMPARED = /^([0-9a-f]{32})(?:-([0-9a-f]{16}))?$/;
const WORD = /^[a-z]+$/;

/**
 * @param {string} path
 * @param {string} search
 * @returns {Place}
 */
export function placeOf(path, search) {
  const given = new URLSearchParams(search);
  const text = (/** @type {string} */ name) => given.get(name) ?? "";
  if (path === "/") {
    return {
      place: "list",
      rows: text("rows") === "spans" ? "spans" : "traces",
      filter: text("filter"),
      project: text("project"),
      window: known(WINDOWS, text("window"), DEFAULTS.window),
      ...(text("sort") === "duration" ? { sort: "duration" } : {}),
      ...chosen(text("compare")),
    };
  }
  if (path === "/compare") return { place: "compare", a: text("a"), b: text("b"), all: text("all") === "1" };
  if (path === "/overview") {
    return {
      place: "overview",
      rows: text("rows") === "spans" ? "spans" : "traces",
      filter: text("filter"),
      project: text("project"),
      window: known(WINDOWS, text("window"), DEFAULTS.window),
      by: text("by") || DEFAULTS.by,
      numbers: text("numbers").split(".").filter((name) => WORD.test(name)),
    };
  }
  if (path === "/changes") {
    return {
      place: "changes",
      filter: text("filter"),
      field: text("field"),
      project: text("project"),
      window: known(WINDOWS, text("window"), DEFAULTS.window),
    };
  }
  if (path === "/connect") return { place: "connect" };
  const trace = TRACE.exec(path);
  if (trace) {
    return {
      place: "trace",
      traceId: trace[1].toLowerCase(),
      span: SPAN_ID.test(text("span")) ? text("span") : "",
      tab: known(TABS, text("tab"), DEFAULTS.tab),
      at: TIME.test(text("at")) ? text("at") : "",
      find: text("find"),
      only: text("only") === "1",
      folded: text("folded").split(".").filter((id) => SPAN_ID.test(id)).slice(0, MOST_FOLDS),
      ...chosen(text("compare")),
    };
  }
  return { place: "nowhere", path };
}

/**
 * @param {Place} place
 * @returns {string}
 */
export function addressOf(place) {
  if (place.place === "nowhere") return place.path;
  if (place.place === "connect") return "/connect";
  const query = new URLSearchParams();
  const add = (/** @type {string} */ name, /** @type {string} */ value) => value && query.set(name, value);
  if (place.place === "list") {
    add("rows", place.rows === "spans" ? "spans" : "");
    add("filter", place.filter);
    add("project", place.project);
    add("window", place.window === DEFAULTS.window ? "" : place.window);
    add("sort", place.sort ?? "");
    add("compare", place.compare ?? "");
    return withQuery("/", query);
  }
  if (place.place === "compare") {
    add("a", place.a);
    add("b", place.b);
    add("all", place.all ? "1" : "");
    return withQuery("/compare", query);
  }
  if (place.place === "overview") {
    add("rows", place.rows === "spans" ? "spans" : "");
    add("filter", place.filter);
    add("project", place.project);
    add("window", place.window === DEFAULTS.window ? "" : place.window);
    add("by", place.by === DEFAULTS.by ? "" : place.by);
    add("numbers", place.numbers.join("."));
    return withQuery("/overview", query);
  }
  if (place.place === "changes") {
    add("filter", place.filter);
    add("field", place.field);
    add("project", place.project);
    add("window", place.window === DEFAULTS.window ? "" : place.window);
    return withQuery("/changes", query);
  }
  add("span", place.span);
  add("tab", place.tab === DEFAULTS.tab ? "" : place.tab);
  add("at", place.at);
  add("find", place.find);
  add("only", place.only ? "1" : "");
  add("folded", place.folded.length <= MOST_FOLDS ? place.folded.join(".") : "");
  add("compare", place.compare ?? "");
  return withQuery(`/traces/${place.traceId}`, query);
}

/** The place of a trace, with nothing selected. @param {string} traceId @param {string} span @returns {TracePlace} */
export function tracePlace(traceId, span = "") {
  return { place: "trace", traceId, span, tab: DEFAULTS.tab, at: "", find: "", only: false, folded: [] };
}

/** The ids of one side of a comparison; null if it is none. @param {string} text */
export function compared(text) {
  const found = COMPARED.exec(text);
  return found && { trace: found[1], span: found[2] ?? "" };
}

/** @param {string} text */
function chosen(text) {
  return compared(text) ? { compare: text } : {};
}

/**
 * The start of a window as RFC 3339.
 * @param {string} window
 * @param {number} now milliseconds since 1970
 */
export function startOfWindow(window, now) {
  if (window === "today" || window === "yesterday") return midnight(now, window === "today" ? 0 : 1).toISOString();
  const length = WINDOWS.find(([name]) => name === window)?.[2] ?? 0;
  return new Date(length === Infinity ? 0 : now - length).toISOString();
}

/** The end of a window as RFC 3339; empty for one that has none. @param {string} window @param {number} now milliseconds since 1970 */
export function endOfWindow(window, now) {
  return window === "yesterday" ? midnight(now, 0).toISOString() : "";
}

/** The midnight some days ago, in the reader's time zone: a day may have 23 hours. @param {number} now @param {number} days */
function midnight(now, days) {
  const time = new Date(now);
  return new Date(time.getFullYear(), time.getMonth(), time.getDate() - days);
}

/** The shortest window that has a time. @param {string} ns @param {number} now milliseconds since 1970 */
export function windowOf(ns, now) {
  const age = now - Number(BigInt(ns) / 1_000_000n);
  return (WINDOWS.find(([, , length]) => age < length) ?? WINDOWS[WINDOWS.length - 1])[0];
}

/** @param {ReadonlyArray<readonly [string, ...unknown[]]>} names @param {string} name @param {string} usual */
function known(names, name, usual) {
  return names.some(([one]) => one === name) ? name : usual;
}

/** @param {string} path @param {URLSearchParams} query */
function withQuery(path, query) {
  const text = query.toString();
  return text ? `${path}?${text}` : path;
}
