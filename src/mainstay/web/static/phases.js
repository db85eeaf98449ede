// Phases as people see them: a symbol and a word, so that colour is never alone.

import { el, svg } from "./dom.js";

const RING = "M8 1.75a6.25 6.25 0 1 1 0 12.5a6.25 6.25 0 0 1 0-12.5z";
const SYMBOLS = {
  pending: [RING],
  queued: [RING, "M8 4.6V8l2.3 1.6"],
  provisioning: [RING, "M8 5v6M5 8h6"],
  pulling: ["M8 2v8M4.8 7.2 8 10.4l3.2-3.2M3 13.5h10"],
  starting: [RING, "M8 4.4a3.6 3.6 0 0 1 0 7.2z"],
  running: ["M4.2 2.6v10.8L13 8z"],
  unknown: [RING, "M6.3 6.4a1.8 1.8 0 1 1 2.5 1.7c-.6.3-.8.6-.8 1.2M8 11.4v.1"],
  succeeded: [RING, "M5.2 8.2l2 2 3.6-4"],
  failed: [RING, "M5.7 5.7l4.6 4.6M10.3 5.7l-4.6 4.6"],
  stopped: ["M3.6 3.6h8.8v8.8H3.6z"],
  preempted: [RING, "M8 11V5M5.6 7.2 8 4.8l2.4 2.4"],
};
const ALIASES = { ready: "running", switching: "starting", unavailable: "failed", ended: "stopped", stopping: "stopped", nothing: "pending" };
const NO_FAILURE = new Set(["stopped", "never_started"]); // one that never started was let go of
export const endState = (pod) => (pod.end === "exited" && pod.exit_code === 0 ? "succeeded" : NO_FAILURE.has(pod.end) ? "stopped" : "failed");
export const FINAL = new Set(["succeeded", "failed", "stopped", "preempted"]);
export const WAITING = new Set(["pending", "queued"]);

/** A symbol and a word. `word` may say more than the name of the state. */
export function badge(state, word = state) {
  const name = ALIASES[state] ?? state;
  const paths = (SYMBOLS[name] ?? SYMBOLS.unknown).map((d) => svg("path", { d }));
  const symbol = svg("svg", { viewBox: "0 0 16 16", class: "symbol", "aria-hidden": "true" }, paths);
  return el("span", { class: `badge is-${name}`, "data-phase": state }, symbol, word);
}
