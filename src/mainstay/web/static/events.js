// The event log as it grows, newest first. What is shown is bounded; the log itself never loses a line.

import { get, withQuery } from "./api.js";
import { byId, command, el, fill } from "./dom.js";
import { attempt } from "./frame.js";
import { clock, dateTime } from "./format.js";
import { afterEvent, follow } from "./live.js";
import { badge } from "./phases.js";

const FIRST = 200;
const SHOWN_MAX = 1000;
const USAGE = "Metered";
const form = byId("filters");
const body = byId("events").tBodies[0];
let stream = null;
let waiting = [];

const query = () => Object.fromEntries(new URLSearchParams(location.search));

async function open() {
  stream?.close();
  const { workload = "" } = query();
  const page = await attempt(() => get("/v1/events", { workload, newest: true, limit: SHOWN_MAX }));
  if (!page) return;
  const past = page.items;
  const shown = past.filter(wanted).slice(-FIRST);
  fill(body, shown.map((event) => row(event)).reverse());
  byId("more").hidden = shown.length < FIRST;
  byId("more").textContent = "Earlier ones: mainstay events";
  state();
  stream = follow("/v1/events/stream", { query: { workload, after: past.at(-1)?.seq ?? "" }, resume: afterEvent, on: { event: take } });
}

const wanted = (event) => event.reason.code !== USAGE || "usage" in query();

/** Events come in storms: they are painted once per frame. */
function take(event) {
  if (!wanted(event)) return;
  if (!waiting.length) requestAnimationFrame(paint);
  waiting.push(event);
}

function paint() {
  const rows = waiting.splice(0).slice(-SHOWN_MAX).map((event) => row(event, "fresh"));
  body.prepend(...rows.reverse());
  while (body.rows.length > SHOWN_MAX) body.lastElementChild.remove();
  state();
}

function state() {
  byId("events").hidden = !body.rows.length;
  byId("events").setAttribute("aria-busy", "false");
  byId("empty").hidden = Boolean(body.rows.length);
  fill(byId("empty"), el("h2", {}, "Nothing has happened yet"), el("p", {}, "Everything that changes is written here. Make something happen:"), command("mainstay run -- python -c 'print(6 * 7)'"));
}

function row(event, freshness = "") {
  const steps = event.phase_after && el("span", { class: "steps" }, event.phase_before && event.phase_before !== event.phase_after && [badge(event.phase_before), el("span", { "aria-label": "to" }, "→")], badge(event.phase_after));
  const name = event.workload ? el("a", { href: `/runs/${encodeURIComponent(event.workload)}`, class: "mono" }, event.object) : el("span", { class: "mono" }, event.object);
  return el(
    "tr",
    { class: freshness, "data-seq": event.seq },
    el("td", { "data-label": "When" }, el("time", { datetime: event.at, title: dateTime(event.at) }, when(event.at))),
    el("td", { class: "wide", "data-label": "What" }, name, el("span", { class: "id" }, event.kind === "allocation" ? "pod" : event.kind)),
    el("td", { class: "wide", "data-label": "Why" }, steps, el("span", { class: steps ? "why" : "" }, event.reason.sentence)),
    el("td", { "data-label": "By" }, event.actor),
    el("td", { class: "number right", "data-label": "No." }, String(event.seq)),
  );
}

function when(at) {
  const today = new Date(at).toDateString() === new Date().toDateString();
  return today ? clock(at) : `${new Date(at).toLocaleDateString(undefined, { month: "short", day: "numeric" })}, ${clock(at)}`;
}

function showFilters() {
  form.elements.workload.value = query().workload ?? "";
  form.elements.usage.checked = "usage" in query();
}

function filter(event) {
  event.preventDefault();
  const workload = form.elements.workload.value.trim();
  const url = withQuery("/events", { workload, usage: form.elements.usage.checked ? "1" : "" });
  if (url === location.pathname + location.search) return;
  history.pushState(null, "", url);
  open();
}

form.addEventListener("submit", filter);
form.addEventListener("change", filter);
addEventListener("popstate", () => {
  showFilters();
  open();
});
showFilters();
await open();
