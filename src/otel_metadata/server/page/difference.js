/**
 * What differs between two spans or traces: their facts beside each other, and where two texts part.
 *
 * @typedef {{group: string, name: string, value: unknown, isTime?: boolean}} Fact a time is in milliseconds
 * @typedef {{group: string, name: string, a: unknown, b: unknown, isTime: boolean, isSame: boolean}} Row
 *   undefined for what one side does not have
 */
import { duration, millisecondsAfter } from "./time.js";
import { isError } from "./waterfall.js";

/** The facts of a span as the API has it. @param {any} span @returns {Fact[]} */
export function spanFacts(span) {
  return [
    ...facts("Span", {
      name: span.name, kind: span.span_kind ?? span.kind, status: span.status_code, "status message": span.status_message,
      user: span.user_id, session: span.session_id, project: span.project,
    }),
    { group: "Span", name: "duration", value: span.latency_ms, isTime: true },
    ...facts("Contents", { input: span.input, output: span.output }),
    ...facts("Metadata", span.metadata),
    ...facts("Metadata of the trace", span.trace_metadata),
    ...tags([...span.tags, ...span.trace_tags]),
    ...verdicts(span.evaluations, span.annotations),
    ...verdicts(span.trace_evaluations, span.trace_annotations, " of the trace"),
    ...facts("Events", counted(span.events.map((/** @type {any} */ event) => event.name))),
    ...facts("Attributes", span.attributes),
    ...facts("Resource", span.resource),
  ];
}

/** The span that a trace begins with, from its outline. @param {any} trace */
export function rootOf(trace) {
  return trace.spans.find((/** @type {any} */ span) => span.parent_id === null) ?? trace.spans[0];
}

/** The facts of a trace, from its outline, and of its root, where most of them are set. @param {any} trace @param {any} whole the root as the API has it @returns {Fact[]} */
export function traceFacts(trace, whole) {
  const root = rootOf(trace);
  const ends = trace.spans.map((/** @type {any} */ span) => millisecondsAfter(span.end_time_ns, trace.spans[0].start_time_ns));
  /** @type {Map<string, {count: number, ms: number}>} */
  const byName = new Map();
  for (const span of trace.spans) {
    const sum = byName.get(span.name) ?? { count: 0, ms: 0 };
    byName.set(span.name, { count: sum.count + 1, ms: sum.ms + millisecondsAfter(span.end_time_ns, span.start_time_ns) });
  }
  return [
    ...facts("Trace", { name: trace.name ?? root.name, status: root.status_code, user: trace.user_id ?? whole.user_id, session: trace.session_id ?? whole.session_id, project: whole.project }),
    { group: "Trace", name: "duration", value: Math.max(...ends), isTime: true },
    ...facts("Trace", { spans: trace.spans.length, errors: trace.spans.filter((/** @type {any} */ span) => isError(span.status_code)).length }),
    ...facts("Contents", { input: trace.input ?? whole.input, output: trace.output ?? whole.output }),
    ...facts("Metadata", trace.metadata),
    ...facts("Metadata of the root", whole.metadata),
    ...tags([...trace.tags, ...whole.tags]),
    ...verdicts(trace.evaluations, trace.annotations),
    ...verdicts(whole.evaluations, whole.annotations, " of the root"),
    ...[...byName].flatMap(([name, { count, ms }]) => [
      { group: "Spans", name: `${name}: how many`, value: count },
      { group: "Spans", name: `${name}: time`, value: ms, isTime: true },
    ]),
  ];
}

/**
 * The facts of both, each once, in the order of the first.
 * @param {Fact[]} ofA
 * @param {Fact[]} ofB
 * @returns {Row[]}
 */
export function rowsOf(ofA, ofB) {
  const groups = [...new Set([...ofA, ...ofB].map((fact) => fact.group))];
  const id = (/** @type {Fact} */ { group, name }) => JSON.stringify([group, name]);
  const [a, b] = [ofA, ofB].map((some) => new Map(some.map((fact) => [id(fact), fact])));
  return [...new Map([...a, ...b])].map(([key, { group, name, isTime }]) => {
    const [one, other] = [a.get(key)?.value, b.get(key)?.value];
    return { group, name, a: one, b: other, isTime: Boolean(isTime), isSame: canonical(one) === canonical(other) };
  }).sort((one, other) => groups.indexOf(one.group) - groups.indexOf(other.group));
}

/**
 * How much more the second number is, in words; empty if they are no numbers.
 * @param {Row} row
 */
export function change({ a, b, isTime, isSame }) {
  if (isSame || typeof a !== "number" || typeof b !== "number") return "";
  const by = b - a;
  const amount = isTime ? duration(Math.abs(by)) : Number(Math.abs(by).toPrecision(3)).toLocaleString("en", { maximumSignificantDigits: 3 });
  const share = a > 0 && b > 0 ? (b >= 2 * a ? `, ${times(b / a)} as much` : `, ${by < 0 ? "−" : "+"}${percent(Math.abs(by) / a)}`) : "";
  return `${by < 0 ? "−" : "+"}${amount}${share}`;
}

/**
 * What two texts begin and end with alike, and what lies between, in whole characters.
 * @param {string} a
 * @param {string} b
 */
export function parted(a, b) {
  const [one, other] = [[...a], [...b]];
  const most = Math.min(one.length, other.length);
  let before = 0;
  while (before < most && one[before] === other[before]) before++;
  let after = 0;
  while (after < most - before && one[one.length - 1 - after] === other[other.length - 1 - after]) after++;
  const middle = (/** @type {string[]} */ text) => text.slice(before, text.length - after).join("");
  return { before: one.slice(0, before).join(""), a: middle(one), b: middle(other), after: one.slice(one.length - after).join("") };
}

/** @param {number} factor */
function times(factor) {
  return `${Number(factor.toPrecision(2)).toLocaleString("en")} times`;
}

/** @param {number} share */
function percent(share) {
  return `${Number((share * 100).toPrecision(2)).toLocaleString("en")} %`;
}

/** @param {string} group @param {Record<string, unknown>} values null and what is missing are left out, but not in metadata @returns {Fact[]} */
function facts(group, values) {
  const keepsNull = group !== "Span" && group !== "Trace" && group !== "Contents";
  return Object.entries(values).filter(([, value]) => value !== undefined && (keepsNull || value !== null))
    .map(([name, value]) => ({ group, name, value }));
}

/** @param {string[]} names @returns {Fact[]} */
function tags(names) {
  return [...new Set(names)].map((name) => ({ group: "Tags", name, value: "set" }));
}

/** @param {Record<string, any>} evaluations @param {any[]} annotations @param {string} suffix @returns {Fact[]} */
function verdicts(evaluations, annotations, suffix = "") {
  const parts = (/** @type {string} */ name, /** @type {any} */ verdict) =>
    ["label", "score", "explanation", "text"].filter((part) => verdict[part] !== undefined && verdict[part] !== null)
      .map((part) => ({ group: "Verdicts", name: `${name}${suffix}: ${part}`, value: verdict[part] }));
  return [
    ...Object.entries(evaluations).flatMap(([name, verdict]) => parts(name, verdict)),
    ...annotations.flatMap((note) => parts(`${note.name}${suffix} by ${note.annotator ?? "a person"}`, note)),
  ];
}

/** @param {string[]} names */
function counted(names) {
  const counts = /** @type {Record<string, number>} */ ({});
  for (const name of names) counts[name] = (counts[name] ?? 0) + 1;
  return counts;
}

/** A value as text that is the same for the same value, whatever the order of its keys. @param {unknown} value @returns {string} */
function canonical(value) {
  if (Array.isArray(value)) return `[${value.map(canonical).join()}]`;
  if (value === null || typeof value !== "object") return JSON.stringify(value) ?? "undefined";
  return `{${Object.entries(value).sort(([one], [other]) => (one < other ? -1 : 1)).map(([key, one]) => `${JSON.stringify(key)}:${canonical(one)}`).join()}}`;
}
