/**
 * Many traces in numbers: the parts of a summary added up.
 *
 * @typedef {{count: number, errors: number, latencies: Map<number, number>}} Bar
 * @typedef {{label: string | null, count: number, scored: number, scoreSum: number}} Label
 * @typedef {{value: string | null, calls: number, inputTokens: number, outputTokens: number, cost: number}} Group
 * @typedef {object} Sums
 * @property {number} counted
 * @property {number} spans
 * @property {Map<string, Bar>} bars by the start of each, in nanoseconds
 * @property {string} widthNs
 * @property {Map<string, Map<string | null, Label>>} verdicts by the name of the evaluation
 * @property {Map<string | null, Group>} groups
 * @property {boolean} isWhole
 * @property {string | null} searchedTo how far back the parts go, in nanoseconds; null for the whole window
 */

/** Buckets of latencies in each doubling, as the server makes them. */
const PER_OCTAVE = 8;

/** @returns {Sums} */
export function noSums() {
  return { counted: 0, spans: 0, bars: new Map(), widthNs: "0", verdicts: new Map(), groups: new Map(), isWhole: true, searchedTo: null };
}

/**
 * The sums with one more part.
 * @param {Sums} sums they are not changed
 * @param {any} part an answer of `/api/v1/summary`
 * @returns {Sums}
 */
export function added(sums, part) {
  const bars = new Map(sums.bars);
  for (const { start_time_ns, count, errors, latencies } of part.bars) {
    const before = bars.get(start_time_ns) ?? { count: 0, errors: 0, latencies: new Map() };
    const merged = new Map(before.latencies);
    for (const [bucket, number] of Object.entries(latencies)) merged.set(Number(bucket), (merged.get(Number(bucket)) ?? 0) + number);
    bars.set(start_time_ns, { count: before.count + count, errors: before.errors + errors, latencies: merged });
  }
  const verdicts = new Map([...sums.verdicts].map(([name, labels]) => [name, new Map(labels)]));
  for (const { name, label, count, scored, score_sum } of part.verdicts) {
    const labels = verdicts.get(name) ?? new Map();
    const before = labels.get(label) ?? { label, count: 0, scored: 0, scoreSum: 0 };
    labels.set(label, { label, count: before.count + count, scored: before.scored + scored, scoreSum: before.scoreSum + score_sum });
    verdicts.set(name, labels);
  }
  const groups = new Map(sums.groups);
  for (const { value, calls, input_tokens, output_tokens, cost } of part.groups) {
    const before = groups.get(value) ?? { value, calls: 0, inputTokens: 0, outputTokens: 0, cost: 0 };
    groups.set(value, {
      value, calls: before.calls + calls, inputTokens: before.inputTokens + input_tokens,
      outputTokens: before.outputTokens + output_tokens, cost: before.cost + cost,
    });
  }
  return {
    counted: sums.counted + part.counted, spans: sums.spans + part.spans, bars, widthNs: part.width_ns, verdicts, groups,
    isWhole: sums.isWhole && part.is_whole, searchedTo: part.next_cursor === null ? null : part.searched_to.start_time_ns,
  };
}

/**
 * Every bar of the window, those without rows too, oldest first.
 * @param {Sums} sums
 * @param {string} startNs
 * @param {number} bars
 * @returns {(Bar & {startNs: string})[]}
 */
export function allBars(sums, startNs, bars) {
  return Array.from({ length: bars }, (_, at) => {
    const start = String(BigInt(startNs) + BigInt(at) * BigInt(sums.widthNs));
    return { startNs: start, ...(sums.bars.get(start) ?? { count: 0, errors: 0, latencies: new Map() }) };
  });
}

/**
 * The latency in milliseconds below which a part of the rows are, to about 5 %; null without rows.
 * @param {Iterable<Map<number, number>>} some latencies by their bucket
 * @param {number} part such as 0.95
 * @returns {number | null}
 */
export function quantile(some, part) {
  const merged = new Map();
  let total = 0;
  for (const latencies of some) {
    for (const [bucket, number] of latencies) {
      merged.set(bucket, (merged.get(bucket) ?? 0) + number);
      total += number;
    }
  }
  let before = 0;
  for (const [bucket, number] of [...merged].sort(([one], [other]) => one - other)) {
    before += number;
    if (before >= part * total) return 2 ** ((bucket + 0.5) / PER_OCTAVE);
  }
  return null;
}

/** A round number at or above another, for the end of an axis. @param {number} value */
export function roundEnd(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  for (const factor of [1, 1.5, 2, 3, 5, 7.5]) {
    if (value <= factor * power * (1 + 1e-9)) return factor * power;
  }
  return 10 * power;
}

/** A number as people read it: whole below a thousand, then with k, M, G. @param {number} value */
export function short(value) {
  for (const [size, unit] of /** @type {const} */ ([[1e9, " G"], [1e6, " M"], [1e3, " k"]])) {
    if (value >= size * 0.9995) return `${Number((value / size).toPrecision(3))}${unit}`;
  }
  return String(Number(value.toPrecision(3)));
}
