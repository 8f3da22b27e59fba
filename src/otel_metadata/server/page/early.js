/** Asks for what is shown first while the modules that show it are on their way. */
import { ask, url } from "./api.js";
import { endOfWindow, placeOf, startOfWindow } from "./address.js";

const ROWS = 100;
/** To sort, more have to be there. */
const SORTED_ROWS = 1_000;

/** The first list is of this moment, whenever its modules come. */
let now = Date.now();

/** @param {import("./address.js").ListPlace} place */
export function questionOf({ rows, filter, project, window, sort }) {
  const at = now || Date.now();
  return {
    filter, project, start_time: startOfWindow(window, at), end_time: endOfWindow(window, at),
    limit: sort ? SORTED_ROWS : ROWS, timeout_millis: 1_000,
    with_metadata: rows === "traces" ? "true" : "",
  };
}

/** @param {import("./address.js").TracePlace} place */
export function addressOfTrace({ traceId, at }) {
  return url(`traces/${traceId}`, { at });
}

/** @param {import("./address.js").Place} place */
function firstAddress(place) {
  if (place.place === "list") return url(place.rows, questionOf(place));
  return place.place === "trace" ? addressOfTrace(place) : null;
}

const address = firstAddress(placeOf(location.pathname, location.search));
let answer = address === null ? null : ask(address);
answer?.catch(() => {}); // whoever takes it says so

/**
 * Ask for an address; the first one has been asked for already.
 * @param {string} wanted
 * @param {AbortSignal} signal
 * @returns {Promise<any>}
 */
export function askFirst(wanted, signal) {
  const taken = answer;
  answer = null;
  now = 0;
  return taken && wanted === address ? taken : ask(wanted, { signal });
}
