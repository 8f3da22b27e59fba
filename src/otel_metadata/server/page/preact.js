/** The libraries of the page, in one place: no other module names a file of `vendor/`. */
import { h, render } from "./vendor/preact.js";
import htm from "./vendor/htm.js";

export { render };
export { useEffect, useLayoutEffect, useMemo, useRef, useState } from "./vendor/preact-hooks.js";

export const html = htm.bind(h);
