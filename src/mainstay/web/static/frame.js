// What every page has: messages, sign-out, and times that go on by themselves.

import { send } from "./api.js";
import { byId, el, fill } from "./dom.js";
import { age, dateTime, duration } from "./format.js";

/** Show a refusal with its hint; the next one takes its place. */
export function show(problem) {
  if (problem.code === "lost") return;
  const parts = [el("p", {}, el("strong", {}, problem.title ? `${problem.title}: ` : ""), problem.message)];
  if (problem.hint) parts.push(el("p", { class: "hint" }, `hint: ${problem.hint}`));
  const close = el("button", { type: "button", class: "quiet small", onclick: clear }, "Dismiss");
  fill(byId("messages"), el("div", { class: "message", role: "alert" }, el("div", {}, parts), close));
  console.info(problem);
}

export function clear() {
  fill(byId("messages"));
}

/** Run `work`; a refusal becomes a message, a success takes the last message away. */
export async function attempt(work) {
  try {
    const result = await work();
    clear();
    return result;
  } catch (problem) {
    show(problem);
    return undefined;
  }
}

/** A time that is told as an age ("4 min ago") and goes on; `until` stops it. */
export function agoTime(instant) {
  return el("time", { datetime: instant, title: dateTime(instant), "data-age": instant }, age(Date.now() - Date.parse(instant)));
}

/** How long something took, or takes so far. */
export function tookTime(from, until) {
  const text = duration((until ? Date.parse(until) : Date.now()) - new Date(from));
  return el("span", until ? {} : { "data-took": new Date(from).toISOString() }, text);
}

/** How long the attempts of a run ran together, the one that runs included. */
export function ranTime(run) {
  const before = 1000 * run.ran_seconds;
  return run.running_since ? tookTime(Date.parse(run.running_since) - before) : el("span", {}, duration(before));
}

/** For how long a run or a pod has been stopping; nothing if it is not, or nobody knows. */
export function stoppingFor({ stopping_since: since }) {
  return since && el("span", { class: "id" }, "stopping for ", agoTime(since));
}

setInterval(() => {
  for (const node of document.querySelectorAll("[data-age]")) node.textContent = age(Date.now() - Date.parse(node.dataset.age));
  for (const node of document.querySelectorAll("[data-took]")) node.textContent = duration(Date.now() - Date.parse(node.dataset.took));
}, 1000);

byId("sign-out")?.addEventListener("click", () =>
  attempt(async () => {
    const { go_to } = await send("POST", "/sign-out");
    location.assign(go_to);
  }),
);
