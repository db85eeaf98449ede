// The files that a run left, each to be saved under its own name.

import { get } from "./api.js";
import { byId, el, fill } from "./dom.js";
import { attempt } from "./frame.js";
import { bytes } from "./format.js";

const SHOWN_MAX = 200;
const MEMORY_BYTES_MAX = 256 * 2 ** 20;
let shown = "";

export async function outputs(run, path) {
  if (!run.output || run.output === shown) return;
  const tree = await get(`${path}/outputs`);
  shown = run.output;
  const rows = tree.entries.slice(0, SHOWN_MAX).map((entry) => el("tr", {}, el("td", {}, link(entry, run.project)), el("td", { class: "number right" }, bytes(entry.size))));
  const total = tree.entries.reduce((sum, entry) => sum + entry.size, 0);
  const rest = tree.entries.length - rows.length;
  const words = `${tree.entries.length} ${tree.entries.length === 1 ? "file" : "files"}, ${bytes(total)}${rest ? `; ${rest} more are not listed here` : ""}`;
  fill(byId("outputs"), el("table", {}, el("caption", { class: "hidden" }, "Output files"), el("tbody", {}, rows)), el("p", { class: "dim" }, words));
  byId("outputs-card").hidden = false;
}

/** Blobs are named by their digest; the browser learns the name of the file by saving what we fetched for it. */
function link(entry, project) {
  const name = entry.path.split("/").at(-1);
  const href = `/v1/blobs/${entry.digest}?project=${encodeURIComponent(project)}`;
  const anchor = el("a", { href, download: name }, entry.path);
  anchor.addEventListener("click", (event) => {
    if (entry.size > MEMORY_BYTES_MAX) return;
    event.preventDefault();
    attempt(async () => save(await (await fetch(href)).blob(), name));
  });
  return anchor;
}

/** Hand bytes to the browser as a file. */
export function save(blob, name) {
  const url = URL.createObjectURL(blob);
  el("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
