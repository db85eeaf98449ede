// The list of runs: filters and place stand in the address, so that they can be sent to somebody and gone back to.

import { get, withQuery } from "./api.js";
import { byId, command, el, fill, keyed } from "./dom.js";
import { agoTime, attempt, ranTime, stoppingFor } from "./frame.js";
import { asked, nodes } from "./format.js";
import { afterEvent, first, follow, newest, refresher } from "./live.js";
import { badge } from "./phases.js";

const PER_PAGE = 50;
const FIELDS = ["all", "project", "name"];
const form = byId("filters");
const table = byId("runs");

const query = () => Object.fromEntries(new URLSearchParams(location.search));

async function load() {
  const wanted = query();
  const page = await attempt(() => get("/v1/workloads", { ...wanted, limit: PER_PAGE }));
  if (!page || JSON.stringify(wanted) !== JSON.stringify(query())) return;
  keyed(table.tBodies[0], page.items, (run) => run.id, row);
  table.hidden = !page.items.length;
  table.setAttribute("aria-busy", "false");
  byId("empty").hidden = Boolean(page.items.length);
  if (!page.items.length) fill(byId("empty"), ...nothing(wanted));
  pager(page.next, wanted);
}

function row(run) {
  const cell = (label, attributes, ...content) => el("td", { "data-label": label, ...attributes }, ...content);
  return el(
    "tr",
    {},
    cell("Run", { class: "wide" }, el("a", { href: `/runs/${encodeURIComponent(run.id)}`, class: "name" }, run.name), el("span", { class: "id" }, run.id)),
    cell("State", { class: "wide state" }, badge(run.state), stoppingFor(run), (run.reason.code !== "PodRunning" || run.reason.numbers.detail) && el("span", { class: "why" }, run.reason.brief)),
    cell("Kind", {}, run.kind),
    cell("Nodes", { class: "number" }, nodes(run)),
    cell("Resources", {}, asked(run)),
    cell("Age", { class: "number" }, agoTime(run.submitted_at)),
    cell("Duration", { class: "number" }, run.started_at ? ranTime(run) : "–"),
    cell("By", {}, run.submitted_by, run.project !== "default" && el("span", { class: "id" }, run.project)),
  );
}

function nothing(wanted) {
  if (wanted.project || wanted.name || wanted.cursor) return [el("h2", {}, "No such runs"), el("p", {}, el("a", { href: "/runs" }, "Show all unfinished runs"))];
  if (wanted.all) return [el("h2", {}, "No runs yet"), el("p", {}, "Type this on the command line, and it shows up here:"), command("mainstay run -- python -c 'print(6 * 7)'")];
  return [
    el("h2", {}, "Nothing waits and nothing runs"),
    el("p", {}, "Start something:"),
    command("mainstay run -- python -c 'print(6 * 7)'"),
    el("p", {}, el("a", { href: "/runs?all=true" }, "Show finished runs")),
  ];
}

function pager(next, wanted) {
  const links = [];
  if (wanted.cursor) links.push(el("a", { href: withQuery("/runs", { ...wanted, cursor: "" }) }, "← Newest"));
  if (next) links.push(el("a", { href: withQuery("/runs", { ...wanted, cursor: next }) }, "Older →"));
  const key = links.map((link) => link.href).join(" ");
  if (byId("pager").dataset.links === key) return;
  byId("pager").dataset.links = key;
  byId("pager").hidden = !links.length;
  fill(byId("pager"), links);
}

function showFilters() {
  const wanted = query();
  for (const input of form.elements) {
    if (input.type === "radio") input.checked = input.value === (wanted[input.name] ?? "");
    else if (input.name) input.value = wanted[input.name] ?? "";
  }
}

function filter(event) {
  event.preventDefault();
  const given = new FormData(form);
  const url = withQuery("/runs", Object.fromEntries(FIELDS.map((name) => [name, (given.get(name) ?? "").trim()])));
  if (url !== location.pathname + location.search) history.pushState(null, "", url);
  refresh();
}

const refresh = refresher(load);
form.addEventListener("submit", filter);
form.addEventListener("change", filter);
addEventListener("popstate", () => {
  showFilters();
  refresh();
});
showFilters();
const from = await first(newest);
await refresh();
follow("/v1/events/stream", { query: { after: from }, resume: afterEvent, on: { event: (event) => event.workload && refresh() } });
