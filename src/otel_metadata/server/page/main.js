/** The frame of the page: which place is shown, the header, live updates, the theme and the keys. */
import { addressOf, placeOf } from "./address.js";
import { NO_ANSWER } from "./api.js";
import { useChanges, useKeys, useRate } from "./hooks.js";
import { KEYS } from "./keys.js";
import { List } from "./list.js";
import { lazy, Link, Notice, styled } from "./parts.js";
import { html, render, useEffect, useRef, useState } from "./preact.js";
import { thousands } from "./time.js";

const THEMES = /** @type {const} */ ([["", "System", "◐"], ["light", "Light", "☀"], ["dark", "Dark", "☾"]]);

/** Places in the header, by their path. */
const NAV = /** @type {const} */ ([["/", "Traces"], ["/overview", "Overview"], ["/changes", "Came late"], ["/connect", "Connect"]]);

const Compare = lazy(styled(() => import("./compare.js"), "compare.css"));
const Overview = lazy(styled(() => import("./overview.js"), "overview.css"));
// Its modules come beside the others, so that a list does not wait for them.
const Trace = lazy(() => import("./trace.js"));
const Changes = lazy(() => import("./changes.js"));
const Connect = lazy(() => import("./connect.js"));

function Page() {
  const [place, setPlace] = useState(() => placeOf(location.pathname, location.search));
  const [isPaused, setIsPaused] = useState(false);
  const [theme, setTheme] = useState(() => setting("theme"));
  const [areLettersOn, setAreLettersOn] = useState(() => setting("letters") !== "off");
  const [announcement, announce] = useState("");
  const help = useRef(/** @type {HTMLDialogElement | null} */ (null));
  const { version, isLost, isRefused } = useChanges(isPaused);
  const rate = useRate(version, !isPaused && !isLost && !isRefused);
  const [state, glyph, word] = isLost ? ["lost", "✕", "Connection lost"] : isPaused ? ["paused", "‖", "Paused"] : isRefused ? ["refused", "○", "Not live"] : ["live", "●", "Live"];

  useEffect(() => {
    const onPop = () => setPlace(placeOf(location.pathname, location.search));
    window.addEventListener("popstate", onPop);
    return () => window.removeEventListener("popstate", onPop);
  }, []);
  useEffect(() => {
    if (theme) document.documentElement.dataset.theme = theme;
    else delete document.documentElement.dataset.theme;
    saveSetting("theme", theme);
  }, [theme]);
  useEffect(() => saveSetting("letters", areLettersOn ? "" : "off"), [areLettersOn]);
  useEffect(() => {
    document.title = `${titleOf(place)} · otel-metadata`;
  }, [place]);

  const go = (/** @type {string} */ address, replace = false) => {
    const to = new URL(address, location.href);
    if (replace) history.replaceState(null, "", to);
    else if (to.href !== location.href) history.pushState(null, "", to);
    setPlace(placeOf(to.pathname, to.search));
    if (!replace && to.pathname !== pathOf(place)) window.scrollTo({ top: 0 });
  };
  const nextTheme = () => setTheme(THEMES[(THEMES.findIndex(([name]) => name === theme) + 1) % THEMES.length][0]);
  const [, themeWord, themeGlyph] = THEMES.find(([name]) => name === theme) ?? THEMES[0];
  useKeys({
    theme: nextTheme,
    pause: () => setIsPaused(!isPaused),
    help: () => help.current?.showModal(),
  }, areLettersOn);

  const shared = { go, version, areLettersOn, announce };
  return html`
    <a class="skip" href="#content">Skip to the content</a>
    <header class="top">
      <${Link} href="/" go=${go} class="brand"><img src=${icon()} alt="" width="20" height="20" /> <span class="narrow-hidden">otel-metadata</span><//>
      <nav aria-label="Places">${NAV.map(([path, word]) => html`<${Link} key=${path} href=${path} go=${go} aria-current=${path === pathOf(place) ? "page" : undefined}>${word}<//>`)}</nav>
      <div class="top-tools">
        <button type="button" class=${`quiet live is-${state}`} aria-pressed=${isPaused} aria-label=${isPaused ? "Resume live updates" : "Pause live updates"}
          onClick=${() => setIsPaused(!isPaused)}><span aria-hidden="true">${glyph}</span> <span class="narrow-hidden">${word}</span>${rate > 0 && html` <span class="rate" title="Spans a second that started in the last 10 seconds">${rateText(rate)}/s</span>`}</button>
        <button type="button" class="quiet" aria-label=${`Theme: ${themeWord}`} onClick=${nextTheme}><span aria-hidden="true">${themeGlyph}</span><span class="wide-only"> ${themeWord}</span></button>
        <button type="button" class="quiet" aria-label="Keys" onClick=${() => help.current?.showModal()}>?</button>
      </div>
    </header>
    ${isLost && html`<p class="lost" role="alert">${NO_ANSWER}</p>`}
    <div id="content" tabindex="-1">
      ${place.place === "list" && html`<${List} place=${place} ...${shared} />`}
      ${place.place === "trace" && html`<${Trace} place=${place} ...${shared} />`}
      ${place.place === "compare" && html`<${Compare} place=${place} ...${shared} />`}
      ${place.place === "overview" && html`<${Overview} place=${place} ...${shared} />`}
      ${place.place === "changes" && html`<${Changes} place=${place} ...${shared} />`}
      ${place.place === "connect" && html`<${Connect} ...${shared} />`}
      ${place.place === "nowhere" && html`<main class="list"><${Notice} title=${`Nothing is at ${place.path}.`} isProblem><p><${Link} href="/" go=${go}>Show all traces<//></p><//></main>`}
    </div>
    <div class="visually-hidden" role="status" aria-live="polite">${announcement}</div>
    <dialog ref=${help} class="help" aria-labelledby="keys-title">
      <h2 id="keys-title">Keys</h2>
      <dl>${KEYS.map(([key, , text]) => html`<div key=${key}><dt><kbd>${key === " " ? "Space" : key}</kbd></dt><dd>${text}</dd></div>`)}</dl>
      <p><label class="check"><input type="checkbox" checked=${areLettersOn} onChange=${() => setAreLettersOn(!areLettersOn)} /> Use keys of one character</label></p>
      <button type="button" onClick=${() => help.current?.close()}>Close</button>
    </dialog>`;
}

/** @param {import("./address.js").Place} place */
function pathOf(place) {
  return addressOf(place).split("?")[0];
}

/** @param {import("./address.js").Place} place */
function titleOf(place) {
  if (place.place === "trace") return `Trace ${place.traceId.slice(0, 8)}`;
  if (place.place === "nowhere") return "Not found";
  if (place.place === "connect") return "Connect";
  if (place.place === "compare") return "Compare";
  if (place.place === "overview") return "Overview";
  const what = place.place === "changes" ? "Came late" : place.rows === "spans" ? "Spans" : "Traces";
  return place.filter ? `${what}: ${place.filter}` : what;
}

/** @param {number} rate */
function rateText(rate) {
  return rate >= 10 ? thousands(Math.round(rate)) : rate.toFixed(1);
}

function icon() {
  return document.querySelector('link[rel="icon"]')?.getAttribute("href") ?? "";
}

/** What the reader has chosen in this browser; a browser may refuse to keep anything. @param {string} name */
function setting(name) {
  try {
    return localStorage.getItem(`otel-metadata.${name}`) ?? "";
  } catch {
    return "";
  }
}

/** @param {string} name @param {string} value */
function saveSetting(name, value) {
  try {
    localStorage.setItem(`otel-metadata.${name}`, value);
  } catch {
    // Then the choice lasts as long as the page.
  }
}

render(html`<${Page} />`, /** @type {HTMLElement} */ (document.getElementById("page")));
