// One run: what it is, why it is where it is, what it did when, what it says and what it costs.

import { all, get, may, send } from "./api.js";
import { byId, command, el, fill } from "./dom.js";
import { agoTime, attempt, ranTime, show, stoppingFor, tookTime } from "./frame.js";
import { asked, bytes, clock, commandLine, nodes } from "./format.js";
import { afterEvent, first, follow, refresher } from "./live.js";
import { openLog } from "./log.js";
import { money } from "./money.js";
import { outputs } from "./outputs.js";
import { badge, endState, FINAL, WAITING } from "./phases.js";
import { drawTimeline } from "./timeline.js";

const reference = byId("content").dataset.reference;
const path = `/v1/workloads/${encodeURIComponent(reference)}`;
const events = [];
let run = null;
let log = null;

async function load() {
  const found = await attempt(() => get(path));
  if (!found) return;
  run = found;
  byId("run").hidden = false;
  byId("run").setAttribute("aria-busy", "false");
  header();
  pods();
  specification();
  commands();
  picture();
  log ??= openLog(path, run);
  log.update(run);
  await Promise.all([explanation(), cost(), outputs(run, path)].map((work) => work.catch(show)));
}

function header() {
  document.title = `${run.name} · ${run.state} · mainstay`;
  byId("name").textContent = run.name;
  if (byId("phase").dataset.phase !== run.state) {
    fill(byId("phase"), badge(run.state));
    byId("phase").dataset.phase = run.state;
  }
  byId("reason").textContent = run.reason.code === "PodRunning" ? [whereItRuns(), run.reason.numbers.detail].filter(Boolean).join(": ") : sentence(run.reason.sentence);
  const meta = [
    el("span", { class: "mono" }, run.id),
    `${run.kind} in project ${run.project}`,
    el("span", {}, `submitted by ${run.submitted_by} `, agoTime(run.submitted_at), " ago"),
  ];
  if (run.started_at) meta.push(el("span", {}, run.running_since ? "has run for " : "ran for ", ranTime(run)));
  if (run.attempt > 1) meta.push(`attempt ${run.attempt}`);
  if (run.stopping_since) meta.push(stoppingFor(run));
  fill(byId("meta"), meta.flatMap((part, place) => (place ? [" · ", part] : [part])));
  const stoppable = !FINAL.has(run.phase) && may("stop");
  byId("stop").hidden = !stoppable;
  byId("stop").disabled = run.stop_requested;
  byId("stop").textContent = run.stop_requested ? "Stopping…" : "Stop this run";
}

/** "Runs" says less than the badge: say where. */
function whereItRuns() {
  const live = run.pods.filter((pod) => !pod.ended_at);
  const places = [...new Set(live.map((pod) => pod.node))];
  if (!places.length) return "Runs";
  const where = places.length > 3 ? `${places.slice(0, 3).join(", ")} and ${places.length - 3} more nodes` : places.join(", ");
  return `Runs on ${where}${live.length > 1 ? `, ${live.length} pods` : ""}`;
}

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1);

async function explanation() {
  const waits = WAITING.has(run.phase);
  if (!waits) {
    byId("explain").hidden = true;
    return;
  }
  const answer = await get(`${path}/explain`);
  byId("reason").textContent = sentence(answer.reason.sentence);
  const parts = [];
  if (answer.position) parts.push(el("p", {}, answer.position === 1 ? "It is the next in line." : `Its place in line: ${answer.position}.`));
  if (answer.turn) parts.push(el("p", {}, sentence(answer.turn), "."));
  for (const held of [answer.holding, ...(answer.more_holdings ?? [])]) if (held) parts.push(...holders(held));
  if (answer.expected && answer.position) parts.push(el("p", {}, sentence(answer.expected.sentence), "."));
  if (answer.preemption) parts.push(el("p", {}, sentence(answer.preemption), "."));
  if (answer.would_start_if.length) {
    const change = (each) => el("li", {}, `${each.change.replace("_", " ")}: `, el("strong", {}, each.after || "any"), ` instead of ${each.before || "any"}`);
    parts.push(el("p", {}, "It would start now with one of these changes:"), el("ul", {}, answer.would_start_if.map(change)));
  }
  fill(byId("explanation"), parts);
  byId("explain").hidden = !parts.length;
}

/** Who holds what is short: queues, and one's own runs by their pages. */
function holders(holding) {
  const parts = [el("p", {}, sentence(holding.sentence), ".")];
  const link = (each) => el("a", { href: `/runs/${encodeURIComponent(each.id)}` }, each.id);
  const more = holding.own_more ? `, and ${holding.own_more} more` : "";
  if (holding.own.length) parts.push(el("p", {}, "Of yours: ", ...holding.own.flatMap((each, at) => [at ? ", " : "", link(each)]), more, "."));
  return parts;
}

function pods() {
  if (!run.pods.length) {
    fill(byId("pods"), el("p", { class: "dim" }, "None yet: pods appear once the run is placed."));
    return;
  }
  const cell = (label, ...content) => el("td", { "data-label": label }, ...content);
  const rows = run.pods.map((pod) =>
    el(
      "tr",
      {},
      el("td", { class: "wide", "data-label": "Pod" }, el("span", { class: "mono" }, pod.pod), el("span", { class: "id" }, setOf(pod))),
      cell("State", badge(pod.state === "ended" ? endState(pod) : pod.state, endWords(pod)), stoppingFor(pod)),
      cell("Node", pod.node, el("span", { class: "id" }, pod.cluster)),
      cell("Took", pod.started_at ? tookTime(pod.started_at, pod.ended_at) : "–"),
      el("td", { class: "wide", "data-label": "Detail" }, pod.detail || (pod.address && el("span", { class: "mono" }, pod.address)) || "–"),
    ),
  );
  const heads = ["Pod", "State", "Node", "Took", "Detail"].map((name) => el("th", { scope: "col" }, name));
  fill(byId("pods"), el("table", { class: "list plain" }, el("thead", {}, el("tr", {}, heads)), el("tbody", {}, rows)));
}

/** The pod set of a rank: those of the first set come first. Of a job without sets, nothing. */
function setOf(pod) {
  let end = 0;
  return run.sets?.find((one) => pod.rank < (end += one.nodes))?.name ?? "";
}

function endWords(pod) {
  if (pod.state !== "ended") return pod.state === "nothing" ? "created" : pod.ready && pod.address ? "ready" : pod.state;
  return pod.exit_code === null ? pod.end.replaceAll("_", " ") : `exit code ${pod.exit_code}`;
}

function specification() {
  const facts = [
    [run.sets?.length ? "Pod sets" : "Per pod", asked(run)],
    ["Nodes", nodes(run)],
    ["Queue", run.queue],
    ["Priority", String(run.priority)],
    ["Submitted", clock(run.submitted_at)],
  ];
  if (run.topology) facts.push(["Topology", run.topology]);
  if (run.spread) facts.push(["Spread", run.spread]);
  if (run.node_labels?.length) facts.push(["Node labels", run.node_labels.join(", ")]);
  if (run.node_preferences?.length) facts.push(["Prefers nodes", run.node_preferences.join(", ")]);
  if (run.tolerations?.length) facts.push(["Tolerates", run.tolerations.join(", ")]);
  if ((run.spot ?? "auto") !== "auto") facts.push(["Spot", run.spot]);
  for (const [name, value] of Object.entries(run.env)) facts.push([el("code", {}, name), el("code", {}, value)]);
  for (const use of run.secrets ?? []) facts.push(["Secret", use.env ? `${use.name} as ${use.env}` : use.name]);
  for (const volume of run.volumes ?? []) facts.push([el("code", {}, volume.path), volumeWords(volume)]);
  for (const device of run.devices ?? []) facts.push(["Device", device]);
  fill(byId("spec"), el("pre", { class: "argv", tabindex: "0", "aria-label": "Command" }, commandLine(run.run)), el("dl", { class: "facts" }, facts.map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)])));
}

function volumeWords(volume) {
  const copies = [volume.source && `from ${volume.source}`, volume.target && `to ${volume.target}`].filter(Boolean);
  return [volume.name ? `volume ${volume.name}` : "scratch", ...copies].join(" ");
}

function commands() {
  const lines = [`mainstay logs -f ${run.id}`, `mainstay show ${run.id}`];
  if (!FINAL.has(run.phase)) lines.push(`mainstay stop ${run.id}`);
  if (run.phase === "succeeded" && run.output && run.kind === "job") lines.push(`mainstay deploy ${run.id}`);
  const key = lines.join("\n");
  if (byId("next").dataset.lines === key) return;
  byId("next").dataset.lines = key;
  fill(byId("next"), lines.map(command));
}

async function cost() {
  if (!run.pods.length) return;
  // Usage is recorded some seconds after the end; until an hour later the bill is asked up to now.
  const settled = run.finished_at && Date.now() - Date.parse(run.finished_at) > 3600_000;
  const until = settled ? new Date(Date.parse(run.finished_at) + 60_000).toISOString() : undefined;
  const bill = await get("/v1/cost", { group_by: "workload", since: run.submitted_at, until });
  const line = bill.lines.find((each) => each.group === run.id);
  if (!line) return;
  const used = [`${line.cpu_core_hours.toFixed(3)} core hours`, `${line.memory_gib_hours.toFixed(3)} GiB hours`];
  if (line.gpu_hours) used.push(`${line.gpu_hours.toFixed(3)} GPU hours`);
  const charged = !Number(line.accruing)
    ? ["charged in full"]
    : Number(line.charged)
      ? [money(line.charged, line.currency), " charged, ", money(line.accruing, line.currency), " accruing"]
      : ["accruing; charged from time to time"];
  fill(byId("cost"), el("p", { class: "sum" }, money(line.total, line.currency)), el("p", { class: "dim" }, charged), el("p", { class: "dim" }, used.join(" · ")), el("a", { href: "/cost" }, "All costs"));
}

function picture() {
  drawTimeline(byId("timeline"), run, events);
}

function takeEvent(event) {
  if (events.length && event.seq <= events.at(-1).seq) return;
  events.push(event);
  refresh();
}

byId("stop").addEventListener("click", () => {
  byId("confirm-text").textContent = `${run.name} gets its time to finish what it does, then it is ended. Its log and its cost stay.`;
  byId("confirm").returnValue = "no";
  byId("confirm").showModal();
});
byId("confirm").addEventListener("close", async () => {
  if (byId("confirm").returnValue !== "stop") return;
  byId("stop").disabled = true;
  await attempt(() => send("POST", `${path}/stop`));
  refresh();
});
new ResizeObserver(() => run && picture()).observe(byId("timeline"));

const refresh = refresher(load);
// Events first, then the run: whatever happens in between is in the run already, and comes again as an event.
events.push(...(await first(() => all("/v1/events", { workload: reference }))));
await refresh();
if (run) {
  follow("/v1/events/stream", { query: { workload: run.id, after: events.at(-1)?.seq ?? "" }, resume: afterEvent, on: { event: takeEvent } });
  // Bars and costs of what runs grow without an event.
  setInterval(() => document.hidden || FINAL.has(run.phase) || picture(), 1000);
  setInterval(() => document.hidden || FINAL.has(run.phase) || cost().catch(show), 10_000);
}
