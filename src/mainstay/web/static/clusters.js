// The clusters of the fleet: whether they take work, why not, and what there is on them.

import { all, may, send } from "./api.js";
import { byId, command, el, fill, keyed } from "./dom.js";
import { attempt } from "./frame.js";
import { bytes, trim } from "./format.js";
import { refresher } from "./live.js";
import { meter } from "./meter.js";
import { badge } from "./phases.js";

const LOOK_MS = 3000;
const SYMBOLS = { ready: "ready", draining: "stopped", connecting: "starting", unreachable: "unknown", refused: "unavailable" };

async function load() {
  const clusters = await attempt(() => all("/v1/clusters"));
  if (!clusters) return;
  keyed(byId("clusters"), clusters, (cluster) => cluster.name, card);
  byId("clusters").setAttribute("aria-busy", "false");
  byId("empty").hidden = Boolean(clusters.length);
  fill(byId("empty"), el("h2", {}, "No clusters yet"), el("p", {}, "Add one with a kubeconfig; it takes work within seconds:"), command("mainstay cluster add NAME --kubeconfig FILE"));
}

function card(cluster) {
  const { capacity, used } = cluster;
  const meters = [
    meter("CPU", used.cpu, capacity.cpu, (count) => trim(count, 2), "cores"),
    meter("Memory", used.memory_bytes, capacity.memory_bytes, bytes),
  ];
  if (capacity.gpus) meters.push(meter(`GPU ${capacity.gpu_model}`, used.gpus, capacity.gpus, String));
  const kind = { true: "agent connected", false: "agent not connected" }[cluster.agent_heard] ?? cluster.kind;
  const facts = [kind, `${cluster.nodes_ready} of ${cluster.nodes} nodes ready`, cluster.server].filter(Boolean);
  return el(
    "li",
    { class: `card node${cluster.state === "ready" ? "" : " away"}`, "aria-label": `Cluster ${cluster.name}` },
    el("div", { class: "title" }, el("h2", {}, cluster.name), badge(SYMBOLS[cluster.state], cluster.state)),
    el("p", { class: "dim" }, facts.join(" · ")),
    cluster.state !== "ready" && el("p", { class: "reason" }, cluster.reason.sentence),
    meters,
    may("manage") && acts(cluster),
  );
}

function acts(cluster) {
  const [verb, word] = cluster.state === "draining" ? ["resume", "Take work again"] : ["drain", "Drain"];
  return el("p", {}, el("button", { type: "button", class: "quiet small", onclick: () => act(cluster.name, verb) }, word));
}

async function act(name, verb) {
  await attempt(() => send("POST", `/v1/clusters/${encodeURIComponent(name)}/${verb}`));
  refresh();
}

const refresh = refresher(load);
await refresh();
setInterval(() => document.hidden || refresh(), LOOK_MS);
