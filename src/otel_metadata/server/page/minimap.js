/** All rows of a waterfall at once, small: where the errors are, and which part is in view. */
import { html, useEffect, useRef, useState } from "./preact.js";
import { isError } from "./waterfall.js";

const HEIGHT = 56;

/** More bars than this look the same, and take time to draw; every error is drawn. */
const MOST_BARS = 4_000;

/**
 * What it tells is in the waterfall too, which the keyboard and assistive technology reach.
 * @param {{tree: import("./waterfall.js").Tree, rows: number[], from: number, shown: number, scrollTo: (row: number) => void}} props
 */
export function Minimap({ tree, rows, from, shown, scrollTo }) {
  const canvas = useRef(/** @type {HTMLCanvasElement | null} */ (null));
  const look = useLook(canvas);

  useEffect(() => {
    const element = canvas.current;
    const context = element?.getContext("2d");
    if (!element || !context || !element.clientWidth) return;
    const scale = window.devicePixelRatio || 1;
    element.width = Math.round(element.clientWidth * scale);
    element.height = Math.round(HEIGHT * scale);
    const style = getComputedStyle(element);
    const step = Math.max(1, Math.ceil(rows.length / MOST_BARS));
    // Whole pixels, so that a thin bar keeps its colour.
    const draw = (/** @type {number} */ index, /** @type {number} */ least) => {
      const row = rows[index];
      const total = tree.total || 1;
      const left = Math.floor((tree.start[row] / total) * element.width);
      const width = Math.round(((tree.end[row] - tree.start[row]) / total) * element.width);
      const top = Math.floor((index / rows.length) * element.height);
      const height = Math.round((element.height / rows.length) * 0.8);
      context.fillRect(left, top, Math.max(width, least * scale), Math.max(height, (least / 2) * scale));
    };
    context.fillStyle = style.color;
    for (let index = 0; index < rows.length; index += step) draw(index, 2);
    context.fillStyle = style.outlineColor;
    for (let index = 0; index < rows.length; index++) if (isError(tree.spans[rows[index]].status_code)) draw(index, 4);
  }, [tree, rows, look]);

  const onPointer = (/** @type {PointerEvent} */ event) => {
    if (!(event.buttons & 1)) return;
    const box = /** @type {HTMLElement} */ (event.currentTarget).getBoundingClientRect();
    scrollTo(((event.clientY - box.top) / box.height) * rows.length);
  };
  const percent = (/** @type {number} */ count) => `${Math.min(100, (count / rows.length) * 100)}%`;
  return html`<div class="minimap" aria-hidden="true" onPointerDown=${onPointer} onPointerMove=${onPointer}>
    <canvas ref=${canvas}></canvas>
    <div class="minimap-view" style=${{ top: percent(from), height: percent(shown) }}></div>
  </div>`;
}

/** Changes with the width and the theme, for which a canvas has to be drawn again. @param {{current: HTMLElement | null}} element */
function useLook(element) {
  const [look, setLook] = useState(0);
  useEffect(() => {
    const again = () => setLook((before) => before + 1);
    const size = new ResizeObserver(again);
    if (element.current) size.observe(element.current);
    const theme = new MutationObserver(again);
    theme.observe(document.documentElement, { attributeFilter: ["data-theme"] });
    const system = matchMedia("(prefers-color-scheme: dark)");
    system.addEventListener("change", again);
    return () => {
      size.disconnect();
      theme.disconnect();
      system.removeEventListener("change", again);
    };
  }, []);
  return look;
}
