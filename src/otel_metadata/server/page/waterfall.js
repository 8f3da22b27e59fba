/**
 * The tree of a trace as flat arrays, and which of its rows are shown.
 *
 * Rows are numbered in the order of the unfolded tree, so a row's descendants are the `size - 1` rows behind it. A fold
 * then skips them in one step, and folding costs as much as there are rows to show, not as much as the trace has.
 *
 * @typedef {object} OutlineSpan
 * @property {string} span_id
 * @property {string | null} parent_id
 * @property {string} name
 * @property {string} kind
 * @property {string} start_time
 * @property {string} start_time_ns
 * @property {string} end_time_ns
 * @property {string | number} status_code
 *
 * @typedef {object} Tree
 * @property {OutlineSpan[]} spans by row
 * @property {Map<string, number>} rowOf by span id
 * @property {Int32Array} parent row of the parent, or -1
 * @property {Int32Array} depth from 0
 * @property {Int32Array} size rows of the subtree, with the row itself
 * @property {Int32Array} errors failed spans of the subtree, with the row itself
 * @property {Uint8Array} isOrphan 1 if the span names a parent that the trace does not have
 * @property {Float64Array} start milliseconds after the start of the trace
 * @property {Float64Array} end
 * @property {number} total milliseconds from the first start to the last end
 * @property {bigint} startNs
 */

/** @param {string | number} status */
export function isError(status) {
  return status === "ERROR" || (typeof status === "number" && status >= 400);
}

/**
 * Make the tree. Siblings keep the order in which they come: the server sends the oldest start first.
 * A span whose parent is missing, or that is its own ancestor, is a root.
 * @param {OutlineSpan[]} given
 * @returns {Tree}
 */
export function treeOf(given) {
  const count = given.length;
  /** @type {Map<string, number>} */
  const indexOf = new Map();
  for (let index = 0; index < count; index++) {
    if (!indexOf.has(given[index].span_id)) indexOf.set(given[index].span_id, index);
  }
  // Children as linked lists: `first[i]`, then `next[j]`. Built backwards, so that they come out in order.
  const first = new Int32Array(count).fill(-1);
  const next = new Int32Array(count).fill(-1);
  const parentIndex = new Int32Array(count).fill(-1);
  let firstRoot = -1;
  for (let index = count - 1; index >= 0; index--) {
    const parent = indexOf.get(given[index].parent_id ?? "") ?? -1;
    parentIndex[index] = parent === index ? -1 : parent;
    if (parentIndex[index] < 0) {
      next[index] = firstRoot;
      firstRoot = index;
    } else {
      next[index] = first[parent];
      first[parent] = index;
    }
  }
  const tree = emptyTree(count);
  const isPlaced = new Uint8Array(count);
  let row = 0;

  /** @param {number} root @param {boolean} withSiblings */
  function place(root, withSiblings) {
    const stack = [root];
    const depths = [0];
    const parents = [-1];
    while (stack.length) {
      const index = /** @type {number} */ (stack.pop());
      const depth = /** @type {number} */ (depths.pop());
      const parent = /** @type {number} */ (parents.pop());
      const sibling = next[index];
      if (sibling >= 0 && (depth > 0 || withSiblings)) {
        stack.push(sibling);
        depths.push(depth);
        parents.push(parent);
      }
      if (isPlaced[index]) continue; // a circle has come back to where it began
      isPlaced[index] = 1;
      tree.spans[row] = given[index];
      tree.rowOf.set(given[index].span_id, row);
      tree.depth[row] = depth;
      tree.parent[row] = parent;
      tree.isOrphan[row] = parent < 0 && given[index].parent_id ? 1 : 0;
      if (first[index] >= 0) {
        stack.push(first[index]);
        depths.push(depth + 1);
        parents.push(row);
      }
      row++;
    }
  }

  if (firstRoot >= 0) place(firstRoot, true);
  for (let index = 0; index < count && row < count; index++) {
    if (!isPlaced[index]) place(index, false); // part of a circle: no root leads to it
  }
  measure(tree);
  return tree;
}

/** @param {number} count @returns {Tree} */
function emptyTree(count) {
  return {
    spans: new Array(count),
    rowOf: new Map(),
    parent: new Int32Array(count),
    depth: new Int32Array(count),
    size: new Int32Array(count).fill(1),
    errors: new Int32Array(count),
    isOrphan: new Uint8Array(count),
    start: new Float64Array(count),
    end: new Float64Array(count),
    total: 0,
    startNs: 0n,
  };
}

/** Fill in sizes, errors and times. @param {Tree} tree */
function measure(tree) {
  const count = tree.spans.length;
  if (!count) return;
  const starts = tree.spans.map((span) => BigInt(span.start_time_ns));
  let startNs = starts[0];
  for (const start of starts) if (start < startNs) startNs = start;
  tree.startNs = startNs;
  for (let row = count - 1; row >= 0; row--) {
    const span = tree.spans[row];
    tree.start[row] = Number(starts[row] - startNs) / 1e6;
    tree.end[row] = Number(BigInt(span.end_time_ns) - startNs) / 1e6;
    if (tree.end[row] > tree.total) tree.total = tree.end[row];
    if (isError(span.status_code)) tree.errors[row]++;
    const parent = tree.parent[row];
    if (parent >= 0) {
      tree.size[parent] += tree.size[row];
      tree.errors[parent] += tree.errors[row];
    }
  }
}

/**
 * The rows to show, in order.
 * @param {Tree} tree
 * @param {ReadonlySet<string>} folded span ids whose descendants are hidden
 * @param {Uint8Array | null} kept if given, only rows with a 1 are shown: see `withAncestors`
 * @returns {number[]}
 */
export function shownRows(tree, folded, kept = null) {
  const isFolded = new Uint8Array(folded.size ? tree.spans.length : 0);
  for (const id of folded) {
    const row = tree.rowOf.get(id);
    if (row !== undefined) isFolded[row] = 1;
  }
  const rows = [];
  for (let row = 0; row < tree.spans.length; ) {
    if (kept && !kept[row]) {
      row += tree.size[row]; // an ancestor of a kept row is kept, so none is in here
      continue;
    }
    rows.push(row);
    row += isFolded[row] ? tree.size[row] : 1;
  }
  return rows;
}

/**
 * Mark some rows and all their ancestors.
 * @param {Tree} tree
 * @param {Iterable<number>} rows
 */
export function withAncestors(tree, rows) {
  const kept = new Uint8Array(tree.spans.length);
  for (const row of rows) {
    for (let at = row; at >= 0 && !kept[at]; at = tree.parent[at]) kept[at] = 1;
  }
  return kept;
}

/**
 * Rows whose name, kind, id or status has a text, whatever its case.
 * @param {Tree} tree
 * @param {string} text
 * @returns {number[]}
 */
export function matches(tree, text) {
  const wanted = text.trim().toLowerCase();
  const rows = /** @type {number[]} */ ([]);
  if (!wanted) return rows;
  for (let row = 0; row < tree.spans.length; row++) {
    const { name, kind, span_id, status_code } = tree.spans[row];
    if (`${name}\n${kind}\n${span_id}\n${status_code}`.toLowerCase().includes(wanted)) rows.push(row);
  }
  return rows;
}

/** Rows of failed spans. @param {Tree} tree @returns {number[]} */
export function errorRows(tree) {
  const rows = [];
  for (let row = 0; row < tree.spans.length; row++) if (isError(tree.spans[row].status_code)) rows.push(row);
  return rows;
}

/**
 * The one of some rows that comes next, round the end.
 * @param {number[]} rows in order
 * @param {number} from a row
 * @param {1 | -1} direction
 * @returns {number | undefined}
 */
export function nextOf(rows, from, direction) {
  if (direction > 0) return rows.find((row) => row > from) ?? rows[0];
  return rows.findLast((row) => row < from) ?? rows[rows.length - 1];
}

/**
 * The folds without those that hide a row.
 * @param {Tree} tree
 * @param {ReadonlySet<string>} folded
 * @param {number} row
 * @returns {ReadonlySet<string>} the same set if none hides it
 */
export function unfoldedFor(tree, folded, row) {
  /** @type {Set<string> | null} */
  let changed = null;
  for (let at = tree.parent[row]; at >= 0; at = tree.parent[at]) {
    const id = tree.spans[at].span_id;
    if (folded.has(id)) (changed ??= new Set(folded)).delete(id);
  }
  return changed ?? folded;
}

/**
 * Which part of a long list is in view, as [from, to).
 * @param {number} top pixels scrolled
 * @param {number} height pixels of the view
 * @param {number} rowHeight
 * @param {number} count rows of the list
 * @param {number} more rows on either side
 */
export function inView(top, height, rowHeight, count, more = 8) {
  const from = Math.max(0, Math.min(count, Math.floor(top / rowHeight) - more));
  const to = Math.max(from, Math.min(count, Math.ceil((top + height) / rowHeight) + more));
  return { from, to };
}
