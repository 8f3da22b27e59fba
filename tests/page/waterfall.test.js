import assert from "node:assert/strict";
import { test } from "node:test";

import {
  errorRows, inView, isError, matches, nextOf, shownRows, treeOf, unfoldedFor, withAncestors,
} from "../../src/otel_metadata/server/page/waterfall.js";

const START_NS = 1_790_000_000_000_000_000n;

/**
 * @param {string} id
 * @param {string | null} parent
 * @param {number} start milliseconds
 * @param {number} end
 * @param {string | number} status
 */
function span(id, parent, start = 0, end = 1, status = "UNSET") {
  return {
    span_id: id,
    parent_id: parent,
    name: `name ${id}`,
    kind: "INTERNAL",
    start_time: "",
    start_time_ns: String(START_NS + BigInt(Math.round(start * 1e6))),
    end_time_ns: String(START_NS + BigInt(Math.round(end * 1e6))),
    status_code: status,
  };
}

/** Each span has up to `width` children. @param {number} count @param {number} width */
function wide(count, width) {
  return Array.from({ length: count }, (_, index) =>
    span(`${index}`, index ? `${Math.floor((index - 1) / width)}` : null, index / 1e3, index / 1e3 + 1));
}

/** @param {import("../../src/otel_metadata/server/page/waterfall.js").Tree} tree @param {Iterable<number>} rows */
function ids(tree, rows) {
  return Array.from(rows, (row) => tree.spans[row].span_id).join(" ");
}

const FAMILY = [
  span("root", null, 0, 10), span("a", "root", 1, 4), span("a1", "a", 2, 3, "ERROR"), span("b", "root", 5, 9),
  span("b1", "b", 6, 7), span("b2", "b", 7, 12, 503),
];

test("rows are in the order of the tree, with depth, size, errors and times", () => {
  const tree = treeOf(FAMILY);
  assert.equal(ids(tree, tree.spans.keys()), "root a a1 b b1 b2");
  assert.deepEqual([...tree.depth], [0, 1, 2, 1, 2, 2]);
  assert.deepEqual([...tree.size], [6, 2, 1, 3, 1, 1]);
  assert.deepEqual([...tree.errors], [2, 1, 1, 1, 0, 1]);
  assert.deepEqual([...tree.parent], [-1, 0, 1, 0, 3, 3]);
  assert.deepEqual([...tree.start], [0, 1, 2, 5, 6, 7]);
  assert.equal(tree.total, 12, "a child may end after its root");
});

test("a child that starts before its parent moves the start of the trace", () => {
  const tree = treeOf([span("child", "root", -2, 1), span("root", null, 0, 3)]);
  assert.equal(ids(tree, [0, 1]), "root child");
  assert.deepEqual([...tree.start], [2, 0]);
  assert.equal(tree.total, 5);
});

test("a span without its parent is a root and says so", () => {
  const tree = treeOf([span("x", "gone"), span("y", "x"), span("root", null)]);
  assert.equal(ids(tree, [0, 1, 2]), "x y root");
  assert.deepEqual([...tree.isOrphan], [1, 0, 0]);
  assert.deepEqual([...tree.depth], [0, 1, 0]);
});

test("every span has one row, also if parents go in a circle", () => {
  for (const circle of [
    [span("self", "self")],
    [span("x", "y"), span("y", "x")],
    [span("root", null), span("x", "z"), span("y", "x"), span("z", "y"), span("leaf", "y"), span("other", "self"), span("self", "self")],
  ]) {
    const tree = treeOf(circle);
    assert.deepEqual(tree.spans.map((one) => one.span_id).sort(), circle.map((one) => one.span_id).sort());
    assert.deepEqual(shownRows(tree, new Set()), [...circle.keys()]);
    for (const row of circle.keys()) {
      assert.ok(tree.parent[row] < row, "a parent is above its children");
      assert.ok(row + tree.size[row] <= circle.length);
    }
  }
});

test("two spans with one id both have a row", () => {
  const tree = treeOf([span("a", null), span("a", null), span("b", "a")]);
  assert.equal(tree.spans.length, 3);
  assert.equal(shownRows(tree, new Set()).length, 3);
});

test("nothing makes an empty tree", () => {
  const tree = treeOf([]);
  assert.deepEqual(shownRows(tree, new Set(["gone"])), []);
  assert.equal(tree.total, 0);
});

test("a fold hides its descendants, and a fold inside it counts again after it opens", () => {
  const tree = treeOf(FAMILY);
  assert.equal(ids(tree, shownRows(tree, new Set(["b"]))), "root a a1 b");
  assert.equal(ids(tree, shownRows(tree, new Set(["a", "b"]))), "root a b");
  assert.equal(ids(tree, shownRows(tree, new Set(["root", "a"]))), "root");
  assert.equal(ids(tree, shownRows(tree, new Set(["a", "not there"]))), "root a b b1 b2");
});

test("a row can be shown by opening the folds above it, and only those", () => {
  const tree = treeOf(FAMILY);
  const folded = new Set(["root", "a", "b"]);
  const opened = unfoldedFor(tree, folded, /** @type {number} */ (tree.rowOf.get("a1")));
  assert.deepEqual([...opened], ["b"]);
  assert.equal(unfoldedFor(tree, opened, 0), opened);
});

test("matches only: a match and its ancestors", () => {
  const tree = treeOf(FAMILY);
  const found = matches(tree, " NAME b1");
  assert.equal(ids(tree, found), "b1");
  assert.equal(ids(tree, shownRows(tree, new Set(), withAncestors(tree, found))), "root b b1");
  assert.equal(ids(tree, shownRows(tree, new Set(["b"]), withAncestors(tree, found))), "root b");
  assert.deepEqual(matches(tree, "  "), []);
  assert.deepEqual(shownRows(tree, new Set(), withAncestors(tree, [])), []);
});

test("the next error comes after the last again", () => {
  const tree = treeOf(FAMILY);
  const rows = errorRows(tree);
  assert.equal(ids(tree, rows), "a1 b2");
  assert.equal(nextOf(rows, 0, 1), 2);
  assert.equal(nextOf(rows, 2, 1), 5);
  assert.equal(nextOf(rows, 5, 1), 2);
  assert.equal(nextOf(rows, 2, -1), 5);
  assert.equal(nextOf(rows, -1, 1), 2);
  assert.equal(nextOf([], 0, 1), undefined);
});

test("an error is a status of that name or a number from 400", () => {
  assert.deepEqual(["ERROR", 400, 503, "OK", "UNSET", 200].map(isError), [true, true, true, false, false, false]);
});

test("the view has the rows in sight and some more, never beyond the ends", () => {
  assert.deepEqual(inView(0, 280, 28, 1_000, 5), { from: 0, to: 15 });
  assert.deepEqual(inView(2_800, 280, 28, 1_000, 5), { from: 95, to: 115 });
  assert.deepEqual(inView(28_000, 280, 28, 1_000, 5), { from: 995, to: 1_000 });
  assert.deepEqual(inView(500, 280, 28, 3, 5), { from: 3, to: 3 });
});

for (const [count, width] of [[10_000, 4], [100_000, 4], [100_000, 100_000], [100_000, 1]]) {
  test(`${count} spans, each with up to ${width} children`, () => {
    const tree = treeOf(wide(count, width));
    assert.equal(tree.size[0], count);
    assert.equal(shownRows(tree, new Set()).length, count);
    assert.deepEqual(shownRows(tree, new Set(["0"])), [0]);
  });
}

test("folding looks at the rows that it shows and at no others", () => {
  const tree = treeOf(wide(100_000, 10));
  const children = Array.from({ length: 10 }, (_, index) => `${index + 1}`);
  let looks = 0;
  const size = new Proxy(tree.size, {
    get(target, name) {
      if (typeof name === "string" && /^\d+$/.test(name)) looks++;
      return Reflect.get(target, name);
    },
  });
  assert.equal(shownRows({ ...tree, size }, new Set(children)).length, 11);
  assert.equal(looks, children.length);
});
