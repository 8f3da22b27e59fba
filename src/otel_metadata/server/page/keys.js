/** Which key does what. Keys are off while somebody types, and can be switched off altogether (WCAG 2.1.4). */

/** @type {ReadonlyArray<readonly [key: string, action: string, help: string]>} */
export const KEYS = [
  ["/", "filter", "Go to the filter, or to the search in a trace"],
  ["j", "down", "Next row"],
  ["k", "up", "Previous row"],
  ["Enter", "open", "Open the row, or show its values"],
  [" ", "toggle", "Look into the row of the list; fold the row of a trace"],
  ["Escape", "back", "Close what is open, or leave the field"],
  ["h", "fold", "Fold the row, or go to its parent"],
  ["l", "unfold", "Unfold the row, or go to its first child"],
  ["n", "next-match", "Next match"],
  ["N", "previous-match", "Previous match"],
  ["e", "next-error", "Next error"],
  ["E", "previous-error", "Previous error"],
  ["a", "annotate", "Add a note to the span"],
  ["s", "score", "Give the span a verdict"],
  ["c", "copy", "Copy as JSON, curl, Python, command, id or address"],
  ["p", "pause", "Pause or resume live updates"],
  ["t", "theme", "Light, dark, or as the system"],
  ["?", "help", "Show the keys"],
];

const NAMED_KEYS = /** @type {Record<string, string>} */ ({
  ArrowDown: "down",
  ArrowUp: "up",
  ArrowLeft: "fold",
  ArrowRight: "unfold",
  Home: "first",
  End: "last",
  PageDown: "page-down",
  PageUp: "page-up",
});

/** Actions of single characters; these can be switched off. */
const ACTIONS = new Map(KEYS.map(([key, action]) => [key, action]));

const TYPING = new Set(["INPUT", "TEXTAREA", "SELECT"]);

/**
 * What a key means, or null.
 * @param {{key: string, ctrlKey: boolean, metaKey: boolean, altKey: boolean, isComposing: boolean}} event
 * @param {{tagName: string, isContentEditable?: boolean} | null} focus what has the focus
 * @param {boolean} areLettersOn
 * @returns {string | null}
 */
export function actionOf(event, focus, areLettersOn) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return null;
  const isTyping = focus !== null && (TYPING.has(focus.tagName) || focus.isContentEditable === true);
  if (isTyping) return event.key === "Escape" ? "back" : null;
  if (event.key.length === 1 && event.key !== " " && !areLettersOn) return null;
  // A button answers Enter and the space bar itself, a link Enter alone.
  const isButton = focus !== null && ["BUTTON", "SUMMARY"].includes(focus.tagName);
  if (isButton && (event.key === "Enter" || event.key === " ")) return null;
  if (focus?.tagName === "A" && event.key === "Enter") return null;
  return ACTIONS.get(event.key) ?? NAMED_KEYS[event.key] ?? null;
}
