// What there is to run on, and how much of it is taken.

import { all, get } from "./api.js";
import { byId, command, el, fill, keyed } from "./dom.js";
import { attempt } from "./frame.js";
import { bytes, trim } from "./format.js";
import { afterEvent, first, follow, newest, refresher } from "./live.js";
import { meter } from "./meter.js";
import { badge } from "./phases.js";

async function load() {
  const pages = await attempt(() => Promise.all([all("/v1/nodes"), get("/v1/gpus")]));
  if (!pages) return;
  const [nodes, { items: gpus }] = pages;
  keyed(byId("nodes"), nodes, (node) => `${node.cluster}/${node.name}`, card);
  byId("nodes").setAttribute("aria-busy", "false");
  byId("empty").hidden = Boolean(nodes.length);
  fill(byId("empty"), el("h2", {}, "No nodes yet"), el("p", {}, "A platform that runs on this machine reports it within seconds. Without one, start it:"), command("mainstay up"));
  fill(byId("fleet"), nodes.length ? tiles(nodes, gpus) : []);
}

/** Nothing new is placed on a node that is not ready, or whose cluster is not. */
const takesWork = (node) => node.ready && node.cluster_state === "ready";

function tiles(nodes, gpus) {
  const ready = nodes.filter(takesWork);
  const sum = (part, of) => ready.reduce((total, node) => total + of(node[part]), 0);
  const amount = (of, words) => [words(sum("used", of)), el("small", {}, ` of ${words(sum("capacity", of))} used`)];
  return [
    tile("Nodes ready", [String(ready.length), el("small", {}, ` of ${nodes.length}`)]),
    tile("Cores", amount((each) => each.cpu, (count) => trim(count))),
    tile("Memory", amount((each) => each.memory_bytes, bytes)),
    ...gpus.map((gpu) =>
      tile(`${gpu.model || "GPU"} in ${gpu.cluster}`, [String(gpu.used), el("small", {}, ` of ${gpu.total} used · `, price(gpu.price_per_hour), " an hour")]),
    ),
  ];
}

/** The price book is in one currency, which the list of GPUs does not name: it is that of the bill. */
const price = (amount) => `${Number(amount).toLocaleString("en", { minimumFractionDigits: 2, maximumFractionDigits: 6 })} USD`;

const tile = (label, value) => el("div", { class: "tile" }, el("div", { class: "label" }, label), el("div", { class: "value" }, value));

function card(node) {
  const { capacity, used } = node;
  const meters = [
    meter("CPU", used.cpu, capacity.cpu, (count) => trim(count, 2), "cores"),
    meter("Memory", used.memory_bytes, capacity.memory_bytes, bytes),
  ];
  if (capacity.gpus) meters.push(meter(`GPU ${capacity.gpu_model}`, used.gpus, capacity.gpus, String));
  return el(
    "li",
    { class: `card node${takesWork(node) ? "" : " away"}` },
    el("div", { class: "title" }, el("h2", {}, node.name, el("span", { class: "id" }, node.cluster)), el("span", {}, node.ready ? badge(takesWork(node) ? "ready" : "stopped", takesWork(node) ? "ready" : `cluster ${node.cluster_state}`) : badge("unavailable", "not ready"))),
    meters,
  );
}

const refresh = refresher(load, 1000);
const from = await first(newest);
await refresh();
follow("/v1/events/stream", { query: { after: from }, resume: afterEvent, on: { event: refresh } });
