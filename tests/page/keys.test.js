import assert from "node:assert/strict";
import { test } from "node:test";

import { actionOf, KEYS } from "../../src/otel_metadata/server/page/keys.js";

/** @param {string} key @param {object} more */
function press(key, more = {}) {
  return { key, ctrlKey: false, metaKey: false, altKey: false, isComposing: false, ...more };
}

test("every key of the help does something, and no two do the same", () => {
  for (const [key, action, help] of KEYS) {
    assert.equal(actionOf(press(key), null, true), action);
    assert.ok(help);
  }
  assert.equal(new Set(KEYS.map(([key]) => key)).size, KEYS.length);
  assert.equal(new Set(KEYS.map(([, action]) => action)).size, KEYS.length);
});

test("while somebody types only Escape is a key", () => {
  for (const tagName of ["INPUT", "TEXTAREA", "SELECT"]) {
    assert.equal(actionOf(press("j"), { tagName }, true), null);
    assert.equal(actionOf(press("ArrowDown"), { tagName }, true), null);
    assert.equal(actionOf(press("Escape"), { tagName }, true), "back");
  }
  assert.equal(actionOf(press("j"), { tagName: "DIV", isContentEditable: true }, true), null);
});

test("with another key held, a key belongs to the browser", () => {
  for (const held of ["ctrlKey", "metaKey", "altKey", "isComposing"]) {
    assert.equal(actionOf(press("c", { [held]: true }), null, true), null);
  }
});

test("letters can be switched off, arrows stay", () => {
  assert.equal(actionOf(press("j"), null, false), null);
  assert.equal(actionOf(press("/"), null, false), null);
  assert.equal(actionOf(press("ArrowDown"), null, false), "down");
});

test("a button answers Enter itself", () => {
  assert.equal(actionOf(press("Enter"), { tagName: "BUTTON" }, true), null);
  assert.equal(actionOf(press("Enter"), { tagName: "DIV" }, true), "open");
  assert.equal(actionOf(press("j"), { tagName: "A" }, true), "down");
});

test("the space bar belongs to a button, and to no link", () => {
  assert.equal(actionOf(press(" "), { tagName: "BUTTON" }, true), null);
  assert.equal(actionOf(press(" "), { tagName: "A" }, true), "toggle");
  assert.equal(actionOf(press("Enter"), { tagName: "A" }, true), null);
  assert.equal(actionOf(press(" "), null, false), "toggle"); // it is no letter
});
