// What there is to run on, and how much of it is taken.

import { all, get, may, send } from "./api.js";
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

/** Nothing new is placed on a node that is not ready or is kept out, or whose cluster is not ready. */
const takesWork = (node) => node.state === "ready" && node.cluster_state === "ready";
const SYMBOLS = { ready: "ready", tainted: "stopped", cordoned: "stopped", draining: "switching", quarantined: "unavailable", "not ready": "unavailable" };

function tiles(nodes, gpus) {
  const ready = nodes.filter(takesWork);
  const sum = (part, of) => ready.reduce((total, node) => total + of(node[part]), 0);
  const amount = (of, words) => [words(sum("used", of)), el("small", {}, ` of ${words(sum("capacity", of))} used`)];
  return [
    tile("Nodes ready", [String(ready.length), el("small", {}, ` of ${nodes.length}`)]),
    tile("Cores", amount((each) => each.cpu, (count) => trim(count))),
    tile("Memory", amount((each) => each.memory_bytes, bytes)),
    ...gpus.map((gpu) =>
      tile(`${gpu.model || "GPU"}${size(gpu)} in ${gpu.cluster}`, [String(gpu.used), el("small", {}, ` of ${gpu.total} used · `, price(gpu.price_per_hour), " an hour")]),
    ),
  ];
}

/** The price book is in one currency, which the list of GPUs does not name: it is that of the bill. */
const price = (amount) => `${Number(amount).toLocaleString("en", { minimumFractionDigits: 2, maximumFractionDigits: 6 })} USD`;

const tile = (label, value) => el("div", { class: "tile" }, el("div", { class: "label" }, label), el("div", { class: "value" }, value));

/** Of each GPU, where it is known: " · 79.6 GiB". */
const size = (device) => (device.memory_bytes ? ` · ${bytes(device.memory_bytes)}` : "");

function card(node) {
  const { capacity, used } = node;
  const meters = [
    meter("CPU", used.cpu, capacity.cpu, (count) => trim(count, 2), "cores"),
    meter("Memory", used.memory_bytes, capacity.memory_bytes, bytes),
  ];
  for (const device of node.devices) meters.push(meter(`GPU ${device.model}${size(device)}`, device.used, device.total, String));
  if (node.pods_max !== null) meters.push(meter("Pods", node.pods_used, node.pods_max, String));
  const waitsForCluster = node.state === "ready" && node.cluster_state !== "ready";
  const mark = waitsForCluster ? badge("stopped", `cluster ${node.cluster_state}`) : badge(SYMBOLS[node.state], node.state);
  return el(
    "li",
    { class: `card node${takesWork(node) ? "" : " away"}`, "aria-label": `Node ${node.name}` },
    el("div", { class: "title" }, el("h2", {}, node.name, el("span", { class: "id" }, node.spot ? `${node.cluster} · spot` : node.cluster)), el("span", {}, mark)),
    node.reason && el("p", { class: "reason" }, node.reason.sentence, node.until && ` · until ${new Date(node.until).toLocaleString()}`),
    node.complaints.map((complaint) => el("p", { class: "reason" }, complaint)),
    meters,
    may("manage") && acts(node),
  );
}

function acts(node) {
  const verbs =
    node.state === "quarantined" ? [["release", "Release"]]
    : node.state === "draining" ? [["uncordon", "Stop draining"]]
    : node.reason?.code === "NodeCordoned" ? [["drain", "Drain"], ["uncordon", "Uncordon"]]
    : [["cordon", "Cordon"], ["drain", "Drain"]];
  return el("p", {}, verbs.map(([verb, word]) => el("button", { type: "button", class: "quiet small", onclick: () => (verb === "drain" ? confirmDrain(node) : act(node, verb)) }, word)));
}

let draining = null;

function confirmDrain(node) {
  draining = node;
  byId("confirm-text").textContent = `What runs on ${node.name} is stopped with its grace and starts elsewhere. Nothing new is placed on it.`;
  byId("confirm").returnValue = "no";
  byId("confirm").showModal();
}

byId("confirm").addEventListener("close", () => byId("confirm").returnValue === "drain" && act(draining, "drain"));

async function act(node, verb) {
  await attempt(() => send("POST", `/v1/nodes/${encodeURIComponent(node.cluster)}/${encodeURIComponent(node.name)}/${verb}`));
  refresh();
}

const refresh = refresher(load, 1000);
const from = await first(newest);
await refresh();
follow("/v1/events/stream", { query: { after: from }, resume: afterEvent, on: { event: refresh } });
