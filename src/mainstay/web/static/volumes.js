// Volumes that outlive runs: where each lies, how large it is, and what uses it.

import { all, may, send, withQuery } from "./api.js";
import { byId, command, el, fill, keyed } from "./dom.js";
import { attempt } from "./frame.js";
import { bytes, memory } from "./format.js";
import { refresher } from "./live.js";
import { badge } from "./phases.js";

const LOOK_MS = 3000;
const SHOWN_MAX = 3;
const STATES = { ready: ["ready", "ready"], unbound: ["pending", "no storage yet"], removing: ["stopped", "being removed"] };

async function load() {
  const volumes = await attempt(() => all("/v1/volumes"));
  if (!volumes) return;
  const largest = Math.max(...volumes.map((volume) => volume.size_bytes), 1);
  keyed(byId("volumes").tBodies[0], volumes.map((volume) => ({ ...volume, part: volume.size_bytes / largest })), (volume) => `${volume.cluster}/${volume.project}/${volume.name}`, row);
  byId("volumes").setAttribute("aria-busy", "false");
  byId("volumes").hidden = !volumes.length;
  byId("empty").hidden = Boolean(volumes.length);
  fill(byId("empty"), el("h2", {}, "No volumes yet"), el("p", {}, "A job makes one when it names it with a size, and it stays when the job has ended:"), command("volumes: [{path: ckpt, name: bert-ckpt, size: 100GB}]"));
  fill(byId("totals"), volumes.length ? tiles(volumes) : []);
}

function tiles(volumes) {
  const used = volumes.filter((volume) => volume.used_by.length).length;
  const tile = (label, ...value) => el("div", { class: "tile" }, el("div", { class: "label" }, label), el("div", { class: "value" }, value));
  return [
    tile("Volumes", String(volumes.length)),
    tile("Size together", bytes(volumes.reduce((total, volume) => total + volume.size_bytes, 0))),
    tile("In use", String(used), el("small", {}, ` of ${volumes.length}`)),
  ];
}

function row(volume) {
  const cell = (label, attributes, ...content) => el("td", { "data-label": label, ...attributes }, ...content);
  const size = volume.size_bytes ? [memory(volume.size_bytes), el("span", { class: "track" }, el("span", { class: "level", style: { width: `${volume.part * 100}%` } }))] : "–";
  return el(
    "tr",
    {},
    cell("Volume", { class: "wide" }, el("span", { class: "name" }, volume.name), el("span", { class: "id" }, volume.project)),
    cell("State", {}, badge(...STATES[volume.state])),
    cell("Lies", {}, volume.cluster, volume.place && el("span", { class: "id" }, volume.place)),
    cell("Size", { class: "number" }, size),
    cell("Access", {}, volume.access.join(", ") || "–", volume.storage_class && el("span", { class: "id" }, volume.storage_class)),
    cell("Used by", {}, users(volume)),
    cell("", { class: "act" }, may("volumes") && volume.state !== "removing" && !volume.used_by.length && el("button", { type: "button", class: "quiet small", "aria-label": `Remove ${volume.name}`, onclick: () => confirmRemoval(volume) }, "Remove")),
  );
}

function users({ used_by: runs }) {
  const links = runs.slice(0, SHOWN_MAX).map((run) => el("a", { href: `/runs/${encodeURIComponent(run)}`, class: "id" }, run));
  const more = runs.length - links.length;
  return runs.length ? [links, more > 0 && el("span", { class: "id" }, `and ${more} more`)] : "–";
}

let removed = null;

function confirmRemoval(volume) {
  removed = volume;
  byId("confirm-text").textContent = `${volume.name} in cluster ${volume.cluster} goes with all that is in it. Nobody can bring that back.`;
  byId("confirm").returnValue = "no";
  byId("confirm").showModal();
}

byId("confirm").addEventListener("close", async () => {
  if (byId("confirm").returnValue !== "remove") return;
  const { name, project, cluster } = removed;
  await attempt(() => send("DELETE", withQuery(`/v1/volumes/${encodeURIComponent(name)}`, { project, cluster })));
  refresh();
});

const refresh = refresher(load);
await refresh();
setInterval(() => document.hidden || refresh(), LOOK_MS);
