// Endpoints: what answers, what is about to, and how to ask it; below them the models that could be served.

import { all, get, may, send } from "./api.js";
import { byId, command, copyButton, el, fill, keyed } from "./dom.js";
import { agoTime, attempt } from "./frame.js";
import { afterEvent, first, follow, newest, refresher } from "./live.js";
import { badge } from "./phases.js";

const SAMPLE_MAX = 256;
const ZERO = { BOOL: false, BYTES: "" };
const WORDS = { starting: "its first version is starting", ready: "answers", switching: "answers, and a new version is on its way", unavailable: "nothing answers just now" };
let removing = "";

async function load() {
  const pages = await attempt(() => Promise.all([all("/v1/endpoints"), all("/v1/models")]));
  if (!pages) return;
  const [endpoints, models] = pages;
  keyed(byId("endpoints"), endpoints, (each) => each.name, card);
  byId("endpoints").setAttribute("aria-busy", "false");
  keyed(byId("models"), models, (each) => `${each.model}/${each.version}`, modelRow);
  byId("models-card").hidden = !models.length;
  byId("empty").hidden = Boolean(endpoints.length);
  fill(byId("empty"), el("h2", {}, "No endpoints yet"), el("p", {}, "A run that wrote a model can be served under an address that stays:"), command("mainstay deploy RUN"));
}

function card(endpoint) {
  const facts = [["Model", `${endpoint.model}${endpoint.serving_version ? `, version ${endpoint.serving_version}` : ""}`]];
  if (endpoint.serving) facts.push(["Served by", runLink(endpoint.serving)]);
  if (endpoint.candidate) facts.push(["Candidate", el("span", {}, `version ${endpoint.candidate_version}, `, runLink(endpoint.candidate))]);
  facts.push(["Address", el("code", {}, endpoint.url)]);
  return el(
    "section",
    { class: "card endpoint", id: endpoint.name, "aria-label": `Endpoint ${endpoint.name}` },
    el("h2", {}, endpoint.name, badge(endpoint.state)),
    may("deploy") && el("button", { type: "button", class: "quiet small act", onclick: () => confirmRemoval(endpoint) }, "Remove"),
    el("p", { class: "dim" }, `${WORDS[endpoint.state]} · project ${endpoint.project} · changed `, agoTime(endpoint.updated_at), " ago"),
    el("dl", { class: "facts across" }, facts.map(([name, value]) => el("div", { class: name === "Address" ? "broad" : "" }, el("dt", {}, name), el("dd", {}, value)))),
    howTo(endpoint),
  );
}

const runLink = (id) => el("a", { href: `/runs/${encodeURIComponent(id)}`, class: "mono" }, id);

/** The line that asks the model. Its inputs are known once somebody opens this and the model answers. */
function howTo(endpoint) {
  const place = el("div", {});
  const details = el("details", {}, el("summary", {}, "How to call it"), place);
  details.addEventListener("toggle", async () => {
    if (!details.open || place.childElementCount) return;
    const inputs = endpoint.serving && endpoint.state !== "unavailable" ? await signature(endpoint) : null;
    const line = curl(endpoint, inputs ?? [{ name: "INPUT", shape: [1, 4], datatype: "FP32" }]);
    const words = inputs
      ? "The inputs are those that the model states; put your own values in the place of the zeros."
      : "The model does not answer yet: the input is only an example of the form.";
    fill(
      place,
      el("pre", { class: "snippet", tabindex: "0", "aria-label": "Command line" }, line),
      el("p", {}, copyButton(line), el("span", { class: "dim" }, `${words} It speaks the Open Inference Protocol, version 2.`)),
    );
  });
  return details;
}

async function signature(endpoint) {
  try {
    return (await get(`/endpoints/${encodeURIComponent(endpoint.name)}/v2/models/${encodeURIComponent(endpoint.model)}`)).inputs;
  } catch {
    return null;
  }
}

function curl(endpoint, inputs) {
  const filled = inputs.map((input) => {
    const shape = input.shape.map((length) => (length < 0 ? 1 : length));
    const count = Math.min(SAMPLE_MAX, shape.reduce((product, length) => product * length, 1));
    return { name: input.name, shape, datatype: input.datatype, data: Array(count).fill(ZERO[input.datatype] ?? 0) };
  });
  const body = JSON.stringify({ inputs: filled }).replaceAll("'", "'\\''");
  return [
    'curl -H "Authorization: Bearer $MAINSTAY_TOKEN" \\',
    '     -H "Content-Type: application/json" \\',
    `     -d '${body}' \\`,
    `     ${endpoint.url}/v2/models/${encodeURIComponent(endpoint.model)}/infer`,
  ].join("\n");
}

function modelRow(version) {
  const cell = (label, ...content) => el("td", { "data-label": label }, ...content);
  return el(
    "tr",
    {},
    el("td", { class: "wide name", "data-label": "Model" }, version.model),
    cell("Version", String(version.version)),
    cell("Made by", runLink(version.workload)),
    cell("Project", version.project),
    cell("Registered", agoTime(version.registered_at), " ago"),
  );
}

function confirmRemoval(endpoint) {
  removing = endpoint.name;
  byId("confirm-text").textContent = `${endpoint.name} stops answering at ${endpoint.url}, and what serves it is stopped. The model and its versions stay.`;
  byId("confirm").returnValue = "no";
  byId("confirm").showModal();
}

byId("confirm").addEventListener("close", async () => {
  if (byId("confirm").returnValue !== "remove") return;
  await attempt(() => send("DELETE", `/v1/endpoints/${encodeURIComponent(removing)}`));
  refresh();
});

const refresh = refresher(load);
const from = await first(newest);
await refresh();
if (location.hash) byId(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView({ block: "center" });
follow("/v1/events/stream", { query: { after: from }, resume: afterEvent, on: { event: (event) => ["endpoint", "model"].includes(event.kind) && refresh() } });
