// Whether the platform answers. While it does not, a banner says so and what is shown may be old.

import { byId } from "./dom.js";

const AGAIN_MS = 2000;
const listeners = new Set();
let down = false;

/** Called each time the connection comes back. */
export const onReturn = (listener) => listeners.add(listener);

export function lost() {
  if (down) return;
  down = true;
  const banner = byId("banner");
  banner.textContent = "Connection lost: what you see may be old. Trying again…";
  banner.hidden = false;
  setTimeout(look, AGAIN_MS);
}

export function found() {
  if (!down) return;
  down = false;
  byId("banner").hidden = true;
  for (const listener of listeners) listener();
}

async function look() {
  if (!down) return;
  try {
    if ((await fetch("/healthz", { cache: "no-store" })).ok) return found();
  } catch {
    // Still away.
  }
  setTimeout(look, AGAIN_MS);
}
