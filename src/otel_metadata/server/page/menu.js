/** A small menu at what was clicked: conditions about a value, ways to copy. */
import { literal } from "./filter_text.js";
import { html, useLayoutEffect, useRef, useState } from "./preact.js";

/**
 * @typedef {{word: string, code?: string, run: () => void}} Item
 * @typedef {(anchor: Element, title: string, items: Item[]) => void} OpenMenu
 */

/**
 * One menu for a whole place: a value is then a plain button, however many there are.
 * @returns {[menu: any, open: OpenMenu]}
 */
export function useMenu() {
  const [menu, setMenu] = useState(/** @type {{box: DOMRect, title: string, items: Item[]} | null} */ (null));
  const element = useRef(/** @type {HTMLElement | null} */ (null));

  useLayoutEffect(() => {
    const popover = element.current;
    if (!menu || !popover) return;
    popover.showPopover(); // Escape, a click elsewhere, and the way of the focus back are the browser's
    const { left, top, bottom } = menu.box;
    const fits = bottom + 4 + popover.offsetHeight <= window.innerHeight;
    popover.style.left = `${Math.max(8, Math.min(left, window.innerWidth - popover.offsetWidth - 8))}px`;
    popover.style.top = `${fits ? bottom + 4 : Math.max(8, top - 4 - popover.offsetHeight)}px`;
    popover.querySelector("button")?.focus();
  }, [menu]);

  const onKeyDown = (/** @type {KeyboardEvent} */ event) => {
    const buttons = [.../** @type {HTMLElement} */ (element.current).querySelectorAll("button")];
    const at = buttons.indexOf(/** @type {HTMLButtonElement} */ (document.activeElement));
    const to = { ArrowDown: at + 1, ArrowUp: at + buttons.length - 1, Home: 0, End: buttons.length - 1 }[event.key];
    if (event.key === "Tab") element.current?.hidePopover();
    if (to === undefined) return;
    buttons[to % buttons.length].focus();
    event.preventDefault();
  };
  const choose = (/** @type {Item} */ item) => {
    element.current?.hidePopover();
    item.run();
  };
  const open = (/** @type {Element} */ anchor, /** @type {string} */ title, /** @type {Item[]} */ items) =>
    setMenu({ box: anchor.getBoundingClientRect(), title, items });
  return [
    menu && html`<div class="menu" popover="auto" role="menu" aria-label=${menu.title} ref=${element} onKeyDown=${onKeyDown}
      onToggle=${(/** @type {ToggleEvent} */ event) => event.newState === "closed" && setMenu(null)}>
      ${menu.items.map((item) => html`<button type="button" role="menuitem" key=${item.word} onClick=${() => choose(item)}>
        <span>${item.word}</span>${item.code && html` <code>${item.code}</code>`}</button>`)}
    </div>`,
    open,
  ];
}

/**
 * What a value offers: only with it, only without it, only its trace.
 * @param {string[]} names of the value as filters write them; of several, one has to have it
 * @param {unknown} value
 * @param {string} traceId
 * @param {(condition: string) => void} narrow
 * @returns {Item[]}
 */
export function conditionsOf(names, value, traceId, narrow) {
  const text = literal(value);
  const either = (/** @type {string} */ rest) => {
    const parts = names.map((name) => `${name} ${rest}`);
    return parts.length > 1 ? `(${parts.join(" OR ")})` : parts[0];
  };
  const item = (/** @type {string} */ word, /** @type {string} */ condition) => ({ word, code: condition, run: () => narrow(condition) });
  return [
    ...(text === null ? [item("With this name", either("IS NOT NULL"))] : [item("With this value", either(`= ${text}`)), item("With another value", either(`!= ${text}`))]),
    item("Only this trace", `trace_id = '${traceId}'`),
  ];
}

/** The same for a tag, which has no value. @param {string} name `tags` or `trace.tags` @param {string} tag @param {string} traceId @param {(condition: string) => void} narrow */
export function conditionsOfTag(name, tag, traceId, narrow) {
  const text = literal(tag);
  return [["With this tag", `${text} IN ${name}`], ["Without this tag", `${text} NOT IN ${name}`], ["Only this trace", `trace_id = '${traceId}'`]]
    .map(([word, condition]) => ({ word, code: condition, run: () => narrow(condition) }));
}
