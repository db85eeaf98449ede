// What keeps a page current: event streams that resume, and refreshes that do not pile up.

import { get, withQuery, system } from "./api.js";
import * as connection from "./connection.js";
import { show } from "./frame.js";

const RETRY_MS_MAX = 15000;
const KNOWN_END = `mainstay-newest-${system}`;

/**
 * Follow server-sent events until `close()`. Each reconnection resumes after the last id. A hidden page lets go of its
 * stream: a browser has six connections for all its pages of one site.
 */
export function follow(path, { query = {}, resume, from, on, onRefused = () => {} }) {
  let source = null;
  let last = from;
  let retry = 500;
  let timer = 0;
  let closed = false;

  const open = () => {
    if (closed || source || document.hidden) return;
    source = new EventSource(withQuery(path, { ...query, [resume]: last || "" }));
    source.onopen = () => {
      retry = 500;
      connection.found();
    };
    source.onerror = () => {
      drop();
      timer = setTimeout(again, retry);
      retry = Math.min(retry * 2, RETRY_MS_MAX);
    };
    for (const [name, handle] of Object.entries(on)) {
      source.addEventListener(name, (message) => {
        if (message.lastEventId) last = message.lastEventId;
        handle(JSON.parse(message.data));
      });
    }
  };
  // Streams cannot say why they failed, so a plain request asks: it finds a lost session or a lost connection.
  const again = async () => {
    try {
      await get("/v1/server");
      if (!closed) await onRefused();
    } catch {
      // The banner is up.
    }
    open();
    if (!source && !closed && !document.hidden) timer = setTimeout(again, retry);
  };
  const drop = () => {
    source?.close();
    source = null;
    clearTimeout(timer);
  };
  const turn = () => (document.hidden ? drop() : open());
  document.addEventListener("visibilitychange", turn);
  connection.onReturn(open);
  open();
  return {
    close() {
      closed = true;
      drop();
      document.removeEventListener("visibilitychange", turn);
    },
  };
}

/** The number of the newest event. The log is listed from its beginning, so its end is found by widening steps, then by halving. */
export async function newest() {
  const beyond = async (seq) => (await get("/v1/events", { cursor: seq || "", limit: 1 })).items[0]?.seq;
  let low = Number(sessionStorage.getItem(KNOWN_END) ?? 0);
  if (low && (await beyond(low - 1)) !== low) low = 0;
  let step = 512;
  while (await beyond(low + step)) {
    low += step;
    step *= 4;
  }
  let high = low + step;
  while (high - low > 512) {
    const middle = Math.floor((low + high) / 2);
    if (await beyond(middle)) low = middle;
    else high = middle;
  }
  for (let page = { next: String(low || "") }, first = true; first || page.next; first = false) {
    page = await get("/v1/events", { cursor: page.next, limit: 1000 });
    low = page.items.at(-1)?.seq ?? low;
  }
  sessionStorage.setItem(KNOWN_END, String(low));
  return low;
}

/** What a page cannot begin without. Refused: the page stays as it is; without an answer: it begins anew once there is one. */
export async function first(work) {
  try {
    return await work();
  } catch (problem) {
    show(problem);
    if (problem.code === "lost") connection.onReturn(() => location.reload());
    return new Promise(() => {});
  }
}

/** Call `work` now and after each `poke()`, one at a time and not more often than `gap`. */
export function refresher(work, gap = 400) {
  let running = false;
  let wanted = false;
  const poke = async () => {
    if (running) {
      wanted = true;
      return;
    }
    running = true;
    wanted = false;
    await work().catch(show);
    setTimeout(() => {
      running = false;
      if (wanted) poke();
    }, gap);
  };
  connection.onReturn(poke);
  document.addEventListener("visibilitychange", () => document.hidden || poke());
  return poke;
}
