// The tree of queues: what each has as its own, what it uses, borrows and lends, and how many wait.

import { all } from "./api.js";
import { byId, command, el, fill, keyed } from "./dom.js";
import { attempt } from "./frame.js";
import { memory, trim } from "./format.js";
import { afterEvent, first, follow, newest, refresher } from "./live.js";
import { badge } from "./phases.js";

const NAMES = { cpu: "CPU", memory: "Memory", gpu: "GPU", pods: "Pods" };
const WORDS = { cores: (count) => trim(count, 2), bytes: memory };
const LEGEND = [
  ["own", "used of its own"],
  ["lent", "its own, used by others"],
  ["borrowed", "borrowed from others"],
];

async function load() {
  const queues = await attempt(() => all("/v1/queues"));
  if (!queues) return;
  keyed(byId("queues"), withDepth(queues), (queue) => queue.name, row);
  byId("queues").setAttribute("aria-busy", "false");
  fill(byId("totals"), tiles(queues));
  const quotas = queues.some((queue) => queue.quotas.length);
  byId("legend").hidden = !quotas;
  fill(byId("legend"), LEGEND.map(([kind, words]) => el("li", {}, el("span", { class: `swatch part-${kind}` }), words)), el("li", {}, el("span", { class: "swatch part-mark" }), "its quota"));
  byId("hint").hidden = quotas;
  fill(byId("hint"), el("h2", {}, "No quotas yet"), el("p", {}, "Everybody takes turns for all that there is. To share by quota:"), command("mainstay queue set research --quota gpu=H100:8"));
}

/** Each beneath its parent, by name. */
function withDepth(queues) {
  const below = (parent, depth) =>
    queues
      .filter((queue) => queue.parent === parent)
      .sort((one, other) => one.name.localeCompare(other.name))
      .flatMap((queue) => [{ ...queue, depth }, ...below(queue.name, depth + 1)]);
  return below("", 0);
}

/** Cohorts count all below them, so that only what has no parent is added up. */
function tiles(queues) {
  const roots = queues.filter((queue) => !queue.parent);
  const sum = (part) => roots.reduce((total, queue) => total + queue[part], 0);
  const tile = (label, value) => el("div", { class: "tile" }, el("div", { class: "label" }, label), el("div", { class: "value" }, String(value)));
  return [tile("Queues", queues.filter((queue) => !queue.cohort).length), tile("Runs that wait", sum("waiting")), tile("Runs with a place", sum("running"))];
}

/** Parts of the fleet; nothing for whoever may not see them. */
function parts(queue) {
  if (queue.fair_share === null) return null;
  const percent = (part) => `${trim(part * 100, 1)} %`;
  const words = [
    `holds ${percent(queue.held_share)} of the fleet`,
    queue.lately > 0 && `has used ${percent(queue.lately)} lately`,
    `fair is ${percent(queue.fair_share)}, or ${percent(queue.demand_capped_share)} by what everybody asks for`,
  ];
  return el("p", { class: "reason" }, words.filter(Boolean).join(" · "));
}

function row(queue) {
  const facts = [queue.cohort && "cohort", queue.weight !== 1 && `weight ${trim(queue.weight, 3)}`, queue.share > 0 && `share ${trim(queue.share, 3)}`, queue.set_by && `set by ${queue.set_by}`].filter(Boolean);
  return el(
    "li",
    { class: "card queue", "aria-label": `${queue.cohort ? "Cohort" : "Queue"} ${queue.name}`, style: { "--depth": String(Math.min(queue.depth, 6)) } },
    el(
      "div",
      { class: "title" },
      el("h2", {}, queue.name, el("span", { class: "id" }, facts.join(" · "))),
      el("span", { class: "steps" }, queue.waiting > 0 && badge("queued", `${queue.waiting} waiting`), queue.running > 0 && badge("running", `${queue.running} running`)),
    ),
    parts(queue),
    queue.warnings.map((warning) => el("p", { class: "reason" }, warning)),
    queue.quotas.map(bar),
  );
}

/** As long as what it could have now: its own, and above the mark what it borrows or may still borrow. */
function bar(quota) {
  const words = WORDS[quota.unit] ?? String;
  const borrowed = quota.borrowed ?? 0;
  const lent = quota.lent ?? 0;
  const end = Math.max(quota.nominal, quota.used + quota.available) || 1;
  const name = quota.flavor === "default" ? NAMES[quota.resource] : `${NAMES[quota.resource]} ${quota.flavor}`;
  const unit = quota.unit === "cores" ? " cores" : "";
  const text = [
    `${words(quota.used)}${unit} used`,
    `quota ${words(quota.nominal)}`,
    borrowed && `${words(borrowed)} borrowed`,
    quota.borrowing_limit !== null && `borrows at most ${words(quota.borrowing_limit)}`,
    lent && `${words(lent)} lent`,
    `${words(quota.available)} more to be had now`,
  ].filter(Boolean);
  const part = (kind, from, size) => size > 0 && el("span", { class: `part part-${kind}`, style: { left: `${(from / end) * 100}%`, width: `${(size / end) * 100}%` } });
  return el(
    "div",
    { class: "meter" },
    el("div", { class: "words" }, el("span", {}, name), el("span", {}, text.join(" · "))),
    el(
      "div",
      { class: "track parts", role: "meter", "aria-label": `${name} of the queue`, "aria-valuemin": 0, "aria-valuemax": end, "aria-valuenow": quota.used, "aria-valuetext": text.join(", ") },
      part("own", 0, quota.used - borrowed),
      part("lent", quota.nominal - lent, lent),
      part("borrowed", quota.nominal, borrowed),
      quota.nominal < end && el("span", { class: "part part-mark", style: { left: `${(quota.nominal / end) * 100}%` } }),
    ),
  );
}

const refresh = refresher(load, 1000);
const from = await first(newest);
await refresh();
follow("/v1/events/stream", { query: { after: from }, resume: afterEvent, on: { event: refresh } });
