/** The filter box. The server alone knows the language: what is wrong and where, and what can follow. */
import { ask, isEnded, url } from "./api.js";
import { html, useEffect, useLayoutEffect, useRef, useState } from "./preact.js";

/**
 * @typedef {{text: string, kind: string, start: number, end: number}} Completion
 * @typedef {{message: string, position: number}} FilterProblem
 *
 * @param {{value: string, run: (filter: string) => void, inputRef: {current: HTMLInputElement | null}}} props
 */
export function FilterBox({ value, run, inputRef }) {
  const [text, setText] = useState(value);
  const [problem, setProblem] = useState(/** @type {FilterProblem | null} */ (null));
  const [completions, setCompletions] = useState(/** @type {Completion[]} */ ([]));
  const completed = useRef(""); // the text that these are for
  const [chosen, setChosen] = useState(0);
  const [isOpen, setIsOpen] = useState(false);
  const [isWriting, setIsWriting] = useState(false);
  const ending = useRef(/** @type {AbortController | null} */ (null));

  // Before the frame: what is typed after it must not be undone.
  useLayoutEffect(() => setText(value), [value]);
  useEffect(() => {
    check(value, value.length, false);
    return () => ending.current?.abort();
  }, [value]);

  /** @param {string} written @param {number} position @param {boolean} withList @returns {Promise<Completion[]>} */
  async function check(written, position, withList) {
    ending.current?.abort();
    ending.current = new AbortController();
    if (!written.trim() && !withList) {
      setProblem(null);
      return [];
    }
    try {
      // Positions count characters as Python does; a browser counts units of UTF-16.
      const answer = await ask(url("filter"), {
        body: { text: written, position: characters(written.slice(0, position)) },
        signal: ending.current.signal,
      });
      setProblem(written.trim() ? answer.problem : null);
      setCompletions(answer.completions);
      completed.current = written;
      setChosen(0);
      setIsOpen(withList && answer.completions.length > 0);
      return answer.completions;
    } catch (error) {
      if (!isEnded(error)) setIsOpen(false); // without the server one can still write, and Enter says what is wrong
      return [];
    }
  }

  const onInput = (/** @type {any} */ event) => {
    setIsWriting(true);
    setText(event.target.value);
    check(event.target.value, event.target.selectionStart, true);
  };

  /** @param {Completion} completion */
  function accept(completion) {
    const before = units(text, completion.start);
    const after = text.slice(units(text, completion.end).length);
    const gap = after.startsWith(" ") ? "" : " ";
    const written = `${before}${completion.text}${gap}${after}`;
    const position = before.length + completion.text.length + 1;
    setText(written);
    // At once: the next key may come before the next frame.
    if (inputRef.current) inputRef.current.value = written;
    inputRef.current?.setSelectionRange(position, position);
    check(written, position, true);
  }

  const onKeyDown = (/** @type {KeyboardEvent} */ event) => {
    if (event.isComposing) return;
    if (event.key === "Enter") {
      setIsWriting(false);
      setIsOpen(false);
      ending.current?.abort();
      check(text, text.length, false);
      run(text.trim());
    } else if (event.key === "Escape" && isOpen) {
      setIsOpen(false);
      event.stopPropagation();
    } else if (event.key === "Tab" && !event.shiftKey && isOpen) {
      // What was typed since the answer changes what fits, and where.
      if (completed.current === text) accept(completions[chosen]);
      else check(text, inputRef.current?.selectionStart ?? text.length, true).then(([first]) => first && accept(first));
    } else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      if (isOpen) {
        setChosen((chosen + (event.key === "ArrowDown" ? 1 : completions.length - 1)) % completions.length);
      } else {
        check(text, inputRef.current?.selectionStart ?? text.length, true);
      }
    } else {
      return;
    }
    event.preventDefault();
  };

  // What is not finished is not wrong yet.
  const isUnfinished = isWriting && problem !== null && problem.position >= characters(text.trimEnd());
  const wrong = problem && text.trim() && !isOpen && !isUnfinished ? problem : null;
  return html`<div class="filter">
    <label for="filter" class="visually-hidden">Filter</label>
    <input id="filter" ref=${inputRef} type="text" role="combobox" autocomplete="off" autocapitalize="off" spellcheck=${false}
      placeholder="Filter, such as status_code = 'ERROR' AND metadata.region = 'us'"
      aria-expanded=${isOpen} aria-controls="completions" aria-autocomplete="list"
      aria-activedescendant=${isOpen ? `completion-${chosen}` : undefined}
      aria-invalid=${wrong !== null} aria-describedby=${wrong ? "filter-problem" : undefined}
      value=${text} onInput=${onInput} onKeyDown=${onKeyDown} onBlur=${() => (setIsOpen(false), setIsWriting(false))} />
    ${text && html`<button type="button" class="quiet clear" aria-label="Clear the filter" onClick=${() => run("")}>✕</button>`}
    <ul id="completions" role="listbox" aria-label="Completions" hidden=${!isOpen}>
      ${isOpen && completions.map((completion, index) => html`<li key=${completion.text} id=${`completion-${index}`} role="option"
        aria-selected=${index === chosen} ref=${index === chosen ? intoView : undefined}
        onMouseDown=${(/** @type {Event} */ event) => (event.preventDefault(), accept(completion))}>
        <code>${completion.text}</code><small>${completion.kind}</small>
      </li>`)}
    </ul>
    ${wrong && html`<p id="filter-problem" class="filter-problem"><${Pointer} text=${text} position=${wrong.position} />${sentence(wrong.message)}</p>`}
  </div>`;
}

/** The text with a mark where it is wrong. @param {{text: string, position: number}} props */
function Pointer({ text, position }) {
  const before = units(text, position);
  const rest = text.slice(before.length);
  const length = /^(\w+|.)/su.exec(rest)?.[0].length ?? 0;
  return html`<code>${before.slice(-40)}<mark>${rest.slice(0, length) || "\u00a0"}</mark>${rest.slice(length, length + 40)}</code> `;
}

/** @param {HTMLElement | null} element */
function intoView(element) {
  element?.scrollIntoView({ block: "nearest" });
}

/** @param {string} text */
function characters(text) {
  return [...text].length;
}

/** The first characters of a text, as units of UTF-16. @param {string} text @param {number} count */
function units(text, count) {
  return [...text].slice(0, count).join("");
}

/** @param {string} text */
function sentence(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
