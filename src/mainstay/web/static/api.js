// The public API, asked with the cookie of this page: nothing here can do what a token could not.

import * as connection from "./connection.js";

const meta = (name) => document.querySelector(`meta[name="${name}"]`)?.content ?? "";

export const system = meta("system");
/** Whether a write is worth offering; the server decides in any case. */
export const may = (permission) => meta("permissions").split(" ").includes(permission);

/** A refusal of the server (RFC 9457), or of the connection. */
export class Problem extends Error {
  constructor({ detail, title, hint = "", status = 0, code = "" }) {
    super(detail || title || "something went wrong");
    Object.assign(this, { title, hint, status, code });
  }
}

/** GET, as JSON. Without an answer the banner is up and the caller gets a Problem of status 0. */
export async function get(path, query = {}) {
  return answer(await request(withQuery(path, query), { headers: { Accept: "application/json" } }));
}

/** A write, done once however often it is sent. */
export async function send(method, path, body) {
  const headers = { "X-Mainstay-Form-Token": meta("form-token"), "Idempotency-Key": crypto.randomUUID() };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  return answer(await request(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) }));
}

export function withQuery(path, query) {
  const given = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== "" && value !== undefined));
  return given.size ? `${path}?${given}` : path;
}

async function request(url, options) {
  try {
    const response = await fetch(url, { cache: "no-store", ...options });
    connection.found();
    return response;
  } catch (error) {
    connection.lost();
    throw new Problem({ detail: "the platform does not answer", hint: "it is asked again by itself", code: "lost" });
  }
}

async function answer(response) {
  if (response.status === 401) {
    location.assign("/sign-in");
    return new Promise(() => {});
  }
  if (response.status === 204) return null;
  if (response.ok) return response.json();
  let problem = {};
  try {
    problem = await response.json();
  } catch {
    // A proxy on the way answers in its own words.
  }
  throw new Problem({ title: response.statusText, status: response.status, ...problem });
}

/** Every page of a list, up to `most` items. */
export async function all(path, query = {}, most = 5000) {
  const items = [];
  let cursor = query.cursor ?? "";
  do {
    const page = await get(path, { ...query, cursor, limit: 1000 });
    items.push(...page.items);
    cursor = page.next;
  } while (cursor && items.length < most);
  return items;
}
