/** What several places need: asking and asking again, live updates, keys. */
import { ask, isEnded, Refusal, url } from "./api.js";
import { askFirst } from "./early.js";
import { actionOf } from "./keys.js";
import { useEffect, useLayoutEffect, useRef, useState } from "./preact.js";

/**
 * @template T
 * @typedef {object} Asked
 * @property {T | null} data the last answer; it stays when a later call fails
 * @property {Error | null} error of the last call
 * @property {boolean} isLoading whether there is no answer for this address yet
 */

/**
 * Ask for an address, and again whenever `version` changes. A repetition waits for the call that runs, so that a store
 * that changes all the time is still shown.
 * @param {string | null} address null for nothing
 * @param {number | string} version
 * @param {boolean} keeps whether the answer for the address before is shown until the next one comes
 * @returns {Asked<any>}
 */
export function useAsked(address, version, keeps = false) {
  const [answer, setAnswer] = useState(/** @type {{address: string | null, data: any, error: Error | null}} */ ({
    address: null, data: null, error: null,
  }));
  const running = useRef(/** @type {{address: string, isStale: boolean, ending: AbortController} | null} */ (null));

  /** @param {string} wanted */
  async function call(wanted) {
    const own = { address: wanted, isStale: false, ending: new AbortController() };
    running.current = own;
    let data = null;
    let error = null;
    try {
      data = await askFirst(wanted, own.ending.signal);
    } catch (caught) {
      if (isEnded(caught)) return;
      error = /** @type {Error} */ (caught);
    }
    if (running.current !== own) return;
    running.current = null;
    setAnswer((before) => ({ address: wanted, data: error && (keeps || before.address === wanted) ? before.data : data, error }));
    if (own.isStale) call(wanted);
  }

  // Before the frame is painted, so that the server answers meanwhile.
  useLayoutEffect(() => {
    if (running.current?.address === address) {
      running.current.isStale = true;
      return;
    }
    running.current?.ending.abort();
    running.current = null;
    if (address !== null) call(address);
  }, [address, version]);
  useEffect(() => () => running.current?.ending.abort(), []);

  const isOwn = answer.address === address;
  return { data: isOwn || keeps ? answer.data : null, error: isOwn ? answer.error : null, isLoading: address !== null && !isOwn };
}

const RETRY_MS = 3_000;

/**
 * Listen to changes of the store, unless paused or hidden.
 * @param {boolean} isPaused
 * @returns {{version: number, isLost: boolean, isRefused: boolean}} the version changes with the store
 */
export function useChanges(isPaused) {
  const [version, setVersion] = useState(0);
  const [isLost, setIsLost] = useState(false);
  const [isRefused, setIsRefused] = useState(false);
  const hasListened = useRef(false);
  useEffect(() => {
    let source = /** @type {EventSource | null} */ (null);
    let retry = 0;
    let wasStopped = hasListened.current;

    function stop() {
      clearTimeout(retry);
      source?.close();
      source = null;
    }

    function start() {
      stop();
      if (document.hidden) {
        wasStopped = true;
        return;
      }
      const own = (source = new EventSource(url("events")));
      hasListened.current = true;
      source.addEventListener("ready", () => {
        setIsLost(false);
        setIsRefused(false);
        if (wasStopped) setVersion((before) => before + 1); // something may have happened since
        wasStopped = false;
      });
      source.addEventListener("changed", () => {
        setIsLost(false);
        wasStopped = false;
        setVersion((before) => before + 1);
      });
      source.addEventListener("error", async () => {
        wasStopped = true;
        if (own.readyState !== EventSource.CLOSED) {
          setIsLost(true);
          return;
        }
        // The browser gives up after an answer that is no stream, and does not tell what it was.
        const refused = await ask(url("info")).then(() => false, (error) => error instanceof Refusal && (error.status === 401 || error.status === 403));
        if (own !== source) return;
        setIsLost(!refused);
        setIsRefused(refused);
        clearTimeout(retry);
        retry = window.setTimeout(start, RETRY_MS);
      });
    }

    if (isPaused) {
      setIsLost(false);
      return undefined;
    }
    const onVisibility = () => (document.hidden ? ((wasStopped = true), stop()) : start());
    document.addEventListener("visibilitychange", onVisibility);
    start();
    return () => {
      document.removeEventListener("visibilitychange", onVisibility);
      stop();
    };
  }, [isPaused]);
  return { version, isLost, isRefused };
}

const RATE_SECONDS = 10;
const RATE_MS = 2_000;

/**
 * How many spans a second have started in the last seconds, in all projects; asked after a change, and until it is 0.
 * @param {number} version
 * @param {boolean} isOn
 */
export function useRate(version, isOn) {
  const [rate, setRate] = useState(0);
  const [round, setRound] = useState(0);
  const askedAt = useRef(0);
  useEffect(() => {
    if (!isOn || (version === 0 && round === 0)) return undefined;
    const timer = setTimeout(async () => {
      askedAt.current = Date.now();
      const start_time = new Date(Date.now() - RATE_SECONDS * 1_000).toISOString();
      const counted = await ask(url("count", { start_time })).then((answer) => answer.counted, () => 0);
      setRate(counted / RATE_SECONDS);
      if (counted) setRound((before) => before + 1);
    }, Math.max(0, askedAt.current + RATE_MS - Date.now()));
    return () => clearTimeout(timer);
  }, [version, round, isOn]);
  return isOn ? rate : 0;
}

/**
 * Answer keys while the component is there.
 * @param {Record<string, (event: KeyboardEvent) => void>} actions by the names of `keys.js`
 * @param {boolean} areLettersOn
 */
export function useKeys(actions, areLettersOn) {
  const current = useRef(actions);
  current.current = actions;
  // As soon as the rows are there: a key must not be lost between them and the next frame.
  useLayoutEffect(() => {
    function onKey(/** @type {KeyboardEvent} */ event) {
      if (event.defaultPrevented || document.querySelector("dialog[open], [popover]:popover-open")) return;
      const focus = document.activeElement;
      const name = actionOf(event, focus instanceof HTMLElement ? focus : null, areLettersOn);
      const action = name === null ? undefined : current.current[name];
      if (!action) return;
      event.preventDefault();
      action(event);
    }
    document.addEventListener("keydown", onKey);
    return () => document.removeEventListener("keydown", onKey);
  }, [areLettersOn]);
}
