/** The API under `/api/v1`, as the page calls it. */

/** A request that the server refused. */
export class Refusal extends Error {
  /** @param {number} status @param {{title?: string, position?: number, expected?: string}} problem */
  constructor(status, problem) {
    super(problem.title || `The server answered with status ${status}.`);
    this.name = "Refusal";
    this.status = status;
    this.position = problem.position;
    this.expected = problem.expected;
  }
}

/** What the page says then. */
export const NO_ANSWER = "The server does not answer. What you see is the last it sent; the page keeps trying.";

/** The server did not answer. */
export class Unreachable extends Error {
  constructor() {
    super(NO_ANSWER);
    this.name = "Unreachable";
  }
}

/**
 * @param {string} path below `/api/v1/`
 * @param {Record<string, string | number | null | undefined>} query what is empty is left out
 */
export function url(path, query = {}) {
  const given = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value !== "" && value !== null && value !== undefined) given.set(name, String(value));
  }
  const text = given.toString();
  return `/api/v1/${path}${text ? `?${text}` : ""}`;
}

/**
 * Ask for JSON.
 * @param {string} address
 * @param {{signal?: AbortSignal, method?: string, body?: unknown}} options a body alone makes it a POST
 * @returns {Promise<any>}
 * @throws {Refusal | Unreachable | DOMException} a DOMException if the signal ended it
 */
export async function ask(address, { signal, body, method = body === undefined ? "GET" : "POST" } = {}) {
  const headers = /** @type {Record<string, string>} */ ({ Accept: "application/json" });
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const text = body === undefined ? undefined : JSON.stringify(body);
  let response;
  try {
    response = await fetch(address, { method, headers, body: text, signal });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Unreachable();
  }
  if (response.ok) return response.status === 204 ? null : response.json();
  let problem = {};
  try {
    problem = await response.json();
  } catch {
    // A proxy in between answers with a page of its own; the status is all there is to say.
  }
  throw new Refusal(response.status, problem);
}

/** Whether a call was ended because nobody needs its answer any more. @param {unknown} error */
export function isEnded(error) {
  return error instanceof DOMException && error.name === "AbortError";
}
