/** Small parts that several places show. */
import { ask, Refusal, Unreachable, url } from "./api.js";
import { html, useEffect, useState } from "./preact.js";
import { clockOf, thousands } from "./time.js";
import { lateness, routeOf } from "./values.js";
import { isError } from "./waterfall.js";

const COPIED_MS = 1_500;

/** Characters of a value in a row. */
const CUT = 400;

const LONGEST_BLOCK = 20_000;

/**
 * A link that changes the place without loading the page again; with a key held, or the middle button, the browser's.
 * @param {{href: string, go: (address: string) => void, children?: any, [name: string]: any}} props
 */
export function Link({ href, go, children, ...rest }) {
  const onClick = (/** @type {MouseEvent} */ event) => {
    if (event.button !== 0 || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    go(href);
  };
  return html`<a href=${href} onClick=${onClick} ...${rest}>${children}</a>`;
}

/** @param {{status: string | number}} props */
export function Status({ status }) {
  if (isError(status)) return html`<span class="status is-error"><span aria-hidden="true">✕</span> ${status === "ERROR" ? "Error" : status}</span>`;
  if (status === "UNSET") return html`<span class="status visually-hidden">Unset</span>`;
  return html`<span class="status is-ok"><span aria-hidden="true">✓</span> ${status === "OK" ? "OK" : status}</span>`;
}

/** One sentence in place of what is not there. @param {{title: string, children?: any, isProblem?: boolean}} props */
export function Notice({ title, children = null, isProblem = false }) {
  return html`<div class=${`state${isProblem ? " is-problem" : ""}`} role=${isProblem ? "alert" : "note"}>
    <p>${title}</p>${children}
  </div>`;
}

/** That somebody has chosen one side of a comparison, and looks for the other. @param {{chosen: string, kind: string, cancel: () => void, children?: any}} props */
export function Choosing({ chosen, kind, cancel, children = null }) {
  return html`<p class="choosing" role="status"><span>Compare the ${kind} <code>${chosen.slice(-16)}</code> with another ${kind}: choose it here.</span>
    ${children} <button type="button" onClick=${cancel}>Cancel</button></p>`;
}

/** What went wrong; a server that wants a token is given one here. @param {{error: Error, children?: any}} props */
export function Problem({ error, children = null }) {
  if (error instanceof Refusal && error.status === 401) return html`<${SignIn} />`;
  if (error instanceof Refusal && error.status === 403 && error.expected === "read") return html`<${SignIn} refused=${error.message} />`;
  return html`<${Notice} title=${error.message} isProblem>${children}<//>`;
}

/** @param {{refused?: string}} props why the token of this session does not do */
function SignIn({ refused = "" }) {
  const [token, setToken] = useState("");
  const [problem, setProblem] = useState("");
  const send = async (/** @type {Event} */ event) => {
    event.preventDefault();
    try {
      await ask(url("session"), { body: { token: token.trim() } });
      location.reload(); // everything is asked again, now with the cookie
    } catch (error) {
      setProblem(/** @type {Error} */ (error).message);
    }
  };
  const signOut = () => ask(url("session"), { method: "DELETE" }).then(() => location.reload(), (error) => setProblem(error.message));
  return html`<form class="sign-in" onSubmit=${send}>
    <h1>${refused ? "This token may not read" : "Sign in"}</h1>
    <p>${refused ? `${refused} Sign in with another token, or sign out: that ends the sessions of this token in every browser.` : html`This server wants a token. <code>otel-metadata token create</code> makes one.`}</p>
    <label>Token <input type="password" autocomplete="current-password" value=${token} required
      onInput=${(/** @type {any} */ event) => setToken(event.target.value)} /></label>
    ${problem && html`<p class="is-error" role="alert">${problem}</p>`}
    <div class="bar"><button type="submit" class="main">Sign in</button>${refused && html`<button type="button" onClick=${signOut}>Sign out</button>`}</div>
  </form>`;
}

/** @param {{text: string, what: string}} props */
export function Copy({ text, what }) {
  const [isCopied, setIsCopied] = useState(false);
  const copy = async () => {
    if (!(await copied(text))) return;
    setIsCopied(true);
    setTimeout(() => setIsCopied(false), COPIED_MS);
  };
  return html`<button type="button" class="quiet copy" onClick=${copy} aria-label=${`Copy ${what}`}>
    ${isCopied ? "Copied" : "Copy"}
  </button>`;
}

/** Whether a text could be copied; away from loopback a browser gives no clipboard without TLS. @param {string} text */
export async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}

/** A label and score of a verdict. @param {{name: string, verdict: any, onClick?: (event: Event) => void}} props */
export function Verdict({ name, verdict, onClick }) {
  const parts = [verdict.label, verdict.score].filter((part) => part !== undefined && part !== null);
  const text = html`<b>${name}</b> ${parts.join(" · ") || "explained"}`;
  return onClick
    ? html`<button type="button" class="verdict" title=${[name, ...parts].join(" ")} aria-haspopup="menu" onClick=${onClick}>${text}</button>`
    : html`<span class="verdict" title=${[name, ...parts].join(" ")}>${text}</span>`;
}

/** JSON or text as it is, with its lines; cut if it is so long that a browser would take seconds. @param {{value: unknown, what: string}} props */
export function Block({ value, what }) {
  const [isWhole, setIsWhole] = useState(false);
  const text = typeof value === "string" ? value : JSON.stringify(value, null, 2);
  const isCut = text.length > LONGEST_BLOCK && !isWhole;
  return html`<div class="block">
    <${Copy} text=${text} what=${what} />
    <pre tabindex="0" aria-label=${what}>${isCut ? text.slice(0, LONGEST_BLOCK) : text}</pre>
    ${isCut && html`<p class="faint">These are the first ${thousands(LONGEST_BLOCK)} of ${thousands(text.length)} characters.
      <button type="button" class="quiet" onClick=${() => setIsWhole(true)}>Show all</button></p>`}
  </div>`;
}

/** How a value arrived: a glyph, a word, and for a late one how late. @param {{value: import("./values.js").Value, endNs: string}} props */
export function Mark({ value, endNs }) {
  const { glyph, word, meaning } = routeOf(value);
  const late = lateness(value, endNs);
  return html`<span class=${`mark is-${value.route ?? "unknown"}`} title=${`${meaning} ${value.time}`}><span aria-hidden="true">${glyph}</span> ${word}${late && html` <b>${late}</b>`}</span>
    <time class="set-at" dateTime=${value.time}>${clockOf(value.time_ns)}</time>`;
}

/** A text, cut if it is long. @param {{text: string}} props */
export function Text({ text }) {
  const [isWhole, setIsWhole] = useState(false);
  if (text.length <= CUT) return html`<code class="value">${text}</code>`;
  return html`<code class="value">${isWhole ? text : `${text.slice(0, CUT)}…`}</code>
    <button type="button" class="quiet" onClick=${() => setIsWhole(!isWhole)}>${isWhole ? "Show less" : `Show all ${thousands(text.length)} characters`}</button>`;
}

/** Whether a click hit the row itself, not a link or button in it, and selected no text. @param {MouseEvent} event */
export function isBackground(event) {
  const target = /** @type {Element} */ (event.target);
  return !target.closest("a, button") && !String(window.getSelection());
}

/** The box says what is wrong with a filter, and where. @param {Error} error */
export function isAboutFilter(error) {
  return error instanceof Refusal && error.position !== undefined;
}

/** In place of what a wrong filter would have found. */
export function WrongFilter() {
  return html`<${Notice} title="Nothing is searched until the filter is right." />`;
}

/**
 * What loads a module loads a stylesheet too, so that nothing is shown without its style.
 * @param {() => Promise<any>} load
 * @param {string} name
 */
export function styled(load, name) {
  return async () => {
    const sheet = document.createElement("link");
    sheet.rel = "stylesheet";
    sheet.href = new URL(`./${name}`, import.meta.url).href;
    const [module] = await Promise.all([load(), new Promise((done, fail) => {
      sheet.onload = done;
      sheet.onerror = fail;
      document.head.append(sheet);
    })]);
    return module;
  };
}

/**
 * A component that is loaded when it is first shown: what few visits need is no part of the first one.
 * @param {() => Promise<any>} load
 * @param {string} name of the component in its module
 * @param {any} meanwhile
 */
export function lazy(load, name = "default", meanwhile = html`<p class="loading" role="note">Loading…</p>`) {
  let loaded = /** @type {any} */ (null);
  return function Lazy(/** @type {any} */ props) {
    const [, redraw] = useState(0);
    const [error, setError] = useState(/** @type {Error | null} */ (null));
    useEffect(() => {
      if (!loaded) load().then((found) => (loaded = found[name], redraw(1)), () => setError(new Unreachable()));
    }, []);
    if (error) return html`<${Problem} error=${error} />`;
    return loaded ? html`<${loaded} ...${props} />` : meanwhile;
  };
}
