// What keeps a page current: event streams that resume, and refreshes that do not pile up.

import { get, withQuery } from "./api.js";
import * as connection from "./connection.js";
import { show } from "./frame.js";

const RETRY_MS_MAX = 15000;

/** From where a stream of events goes on, and a log: what the last id that was seen says of the next address. */
export const afterEvent = (id) => ({ after: id });
export const afterPiece = (id) => {
  const [attempt, offset] = id.split(":");
  return { attempt, offset };
};

/**
 * Follow server-sent events until `close()`. Each reconnection asks for what `resume` makes of the last id. A hidden page
 * lets go of its stream: a browser has six connections for all its pages of one site.
 */
export function follow(path, { query = {}, resume, on, onRefused = () => {} }) {
  let source = null;
  let last = "";
  let retry = 500;
  let timer = 0;
  let closed = false;

  const open = () => {
    if (closed || source || document.hidden) return;
    source = new EventSource(withQuery(path, last ? { ...query, ...resume(last) } : query));
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

/** The number of the newest event; 0 while there is none. */
export async function newest() {
  return (await get("/v1/events", { newest: true, limit: 1 })).items[0]?.seq ?? 0;
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
