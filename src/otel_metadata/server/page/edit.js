/** Forms that set metadata, give a verdict or add a note; the receipt says what was stored. */
import { ask, url } from "./api.js";
import { useKeys } from "./hooks.js";
import { html, useLayoutEffect, useRef, useState } from "./preact.js";
import { clockOf } from "./time.js";

/**
 * @typedef {{name: string, word: string, hint?: string, isLong?: boolean, isNumber?: boolean, isRequired?: boolean}} Input
 * @typedef {{name: string, word: string, inputs: Input[], path: (given: Record<string, string>) => string, method: string,
 *   body: (given: Record<string, string>) => unknown}} Form
 */

/** @type {Form[]} */
const FORMS = [
  {
    name: "metadata",
    word: "Set metadata",
    inputs: [
      { name: "key", word: "Key", isRequired: true },
      { name: "value", word: "Value", hint: "Text, or JSON such as 3, true or [1, 2]. Put text that looks like JSON in double quotes." },
    ],
    method: "PATCH",
    path: () => "",
    body: ({ key, value }) => ({ metadata: { [key]: jsonOrText(value) } }),
  },
  {
    name: "verdict",
    word: "Give a verdict",
    inputs: [
      { name: "name", word: "Name", isRequired: true },
      { name: "label", word: "Label" },
      { name: "score", word: "Score", isNumber: true },
      { name: "explanation", word: "Explanation", isLong: true },
    ],
    method: "PUT",
    path: ({ name }) => `/evaluations/${encodeURIComponent(name)}`,
    body: ({ label, score, explanation }) => ({ ...given({ label, explanation }), ...(score ? { score: Number(score) } : {}), source: "human" }),
  },
  {
    name: "note",
    word: "Add a note",
    inputs: [
      { name: "name", word: "Name", isRequired: true },
      { name: "label", word: "Label" },
      { name: "text", word: "Text", isLong: true },
    ],
    method: "PUT",
    path: ({ name }) => `/annotations/${encodeURIComponent(name)}`,
    body: ({ label, text }) => given({ label, text }),
  },
];

/** @param {{traceId: string, spanId: string, areLettersOn: boolean, onUpdated: () => void, first: string}} props `first` is the form that is open at first */
export function Edit({ traceId, spanId, areLettersOn, onUpdated, first }) {
  const [open, setOpen] = useState(first);
  const [receipt, setReceipt] = useState("");
  const [problem, setProblem] = useState("");
  const element = useRef(/** @type {HTMLFormElement | null} */ (null));
  const form = FORMS.find(({ name }) => name === open);

  const show = (/** @type {string} */ name) => {
    setProblem("");
    setReceipt("");
    setOpen(name === open ? "" : name);
  };
  // At once: what is typed next belongs into the form, and would be keys of the page.
  useLayoutEffect(() => {
    /** @type {HTMLElement | null | undefined} */ (element.current?.querySelector("input"))?.focus();
  }, [open]);
  useKeys({ annotate: () => setOpen("note"), score: () => setOpen("verdict") }, areLettersOn);

  const send = async (/** @type {SubmitEvent} */ event) => {
    event.preventDefault();
    if (!form || !element.current) return;
    const values = /** @type {Record<string, string>} */ (Object.fromEntries(new FormData(element.current)));
    try {
      const address = url(`spans/${spanId}${form.path(values)}`, { trace_id: traceId });
      setReceipt(receiptText(await ask(address, { method: form.method, body: form.body(values) })));
      setProblem("");
      setOpen("");
      onUpdated();
    } catch (error) {
      setProblem(/** @type {Error} */ (error).message); // what was written stays
    }
  };
  const onKeyDown = (/** @type {KeyboardEvent} */ event) => {
    if (event.key !== "Escape") return;
    event.preventDefault();
    setOpen("");
  };

  return html`<section class="edit" aria-label="Change the span" onKeyDown=${onKeyDown}>
    <p class="edit-buttons">${FORMS.map(({ name, word }) => html`<button type="button" key=${name} aria-expanded=${open === name} onClick=${() => show(name)}>${word}</button>`)}</p>
    ${form && html`<form ref=${element} key=${form.name} onSubmit=${send}>
      ${form.inputs.map(({ name, word, hint, isLong, isNumber, isRequired }) => html`<label key=${name}><span>${word}</span>
        ${isLong
          ? html`<textarea name=${name} rows="2"></textarea>`
          : html`<input type="text" name=${name} required=${isRequired} inputmode=${isNumber ? "decimal" : undefined}
            pattern=${isNumber ? "-?\\d*\\.?\\d+" : undefined} title=${isNumber ? "A number, such as 0.8" : undefined} autocomplete="off" />`}
        ${hint && html`<small>${hint}</small>`}</label>`)}
      ${problem && html`<p class="is-error" role="alert">${problem}</p>`}
      <button type="submit" class="main">Store</button>
    </form>`}
    <p class="receipt" role="status">${receipt}</p>
  </section>`;
}

/** @param {any} receipt */
function receiptText({ status, fields, time_ns, author, notes }) {
  const names = fields.map((/** @type {any} */ { kind, key }) => [kind, key].filter(Boolean).join(" ")).join(", ");
  const state = status === "pending" ? "Kept until the span is stored" : "Stored";
  return [`${state}: ${names}, at ${clockOf(time_ns)}, as ${author}.`, ...notes].join(" ");
}

/** @param {string} text @returns {unknown} */
function jsonOrText(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** What was filled in. @param {Record<string, string>} values */
function given(values) {
  return Object.fromEntries(Object.entries(values).filter(([, text]) => text !== ""));
}
