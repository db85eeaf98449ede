// What a run did when, as a picture: a lane of its phases and a lane for each pod, over one axis of time.

import { el, fill, svg } from "./dom.js";
import { clock, dateTime, duration } from "./format.js";
import { tookTime } from "./frame.js";
import { endState, FINAL } from "./phases.js";

const LANE = 26;
const BAR = 16;
const TOP = 6;
const AXIS = 26;
const PODS_MAX = 40;
const CLASS = { pending: "wait", queued: "wait", provisioning: "start", pulling: "start", starting: "start", running: "run", unknown: "unknown" };
const MARKS = { succeeded: "good", stopped: "idle" };
const LEGEND = [["wait", "waits"], ["start", "starts"], ["run", "runs"], ["unknown", "out of sight"]];

export function drawTimeline(place, run, events) {
  const now = run.finished_at ? Date.parse(run.finished_at) : Date.now();
  const lanes = [phaseLane(run, events, now), ...podLanes(run, now)];
  const from = Date.parse(run.submitted_at);
  const to = Math.max(now, from + 1000, ...lanes.flatMap((lane) => lane.spans.map((span) => span.to)));
  const width = place.clientWidth;
  if (!width) return;
  const room = width < 520 ? 92 : 136;
  const x = (at) => room + ((at - from) / (to - from)) * (width - room - 12);
  const height = TOP + lanes.length * LANE + AXIS;
  const picture = svg(
    "svg",
    { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-labelledby": "timeline-name timeline-words" },
    svg("title", { id: "timeline-name" }, `Timeline of ${run.name}`),
    svg("desc", { id: "timeline-words" }, words(lanes, run)),
    axis(from, to, x, height, width - room),
    lanes.map((lane, row) => drawLane(lane, TOP + row * LANE, x, room)),
    !run.finished_at && svg("line", { class: "now", x1: x(now), x2: x(now), y1: TOP, y2: height - AXIS }),
  );
  const rows = facts(lanes);
  const key = JSON.stringify([rows.map((row) => row.slice(0, 5)), run.phase]);
  if (place.dataset.key === key) {
    // Only time has passed: the table keeps its place, its focus and what is selected in it.
    place.querySelector("svg").replaceWith(picture);
    return;
  }
  place.dataset.key = key;
  const opened = Boolean(place.querySelector("details")?.open);
  fill(place, picture, legend(lanes), table(rows, opened));
}

/** The fold of the events of the run: each change of phase begins a span, going back to wait begins an attempt. */
function phaseLane(run, events, now) {
  const steps = events.filter((event) => event.phase_after && event.phase_after !== event.phase_before);
  const spans = [];
  const marks = [];
  let attempt = 1;
  let current = { phase: "pending", from: Date.parse(run.submitted_at), attempt };
  for (const step of steps) {
    const at = Date.parse(step.at);
    if (step.phase_before === "") {
      current = { phase: step.phase_after, from: at, attempt };
      continue;
    }
    spans.push({ ...current, to: at });
    if (!["pending", "queued"].includes(step.phase_before) && ["pending", "queued"].includes(step.phase_after)) {
      const yielded = ["WaitsAfterPreemption", "WaitsAfterMove"].includes(step.reason.code);
      const what = yielded ? "ended" : "failed";
      marks.push({ at, kind: yielded ? "idle" : "bad", text: `attempt ${attempt} ${what}: ${step.reason.sentence}` });
      attempt += 1;
    }
    current = { phase: step.phase_after, from: at, attempt };
    if (FINAL.has(step.phase_after)) {
      marks.push({ at, kind: MARKS[step.phase_after] ?? "bad", text: `${step.phase_after}: ${step.reason.sentence}` });
    }
  }
  if (!FINAL.has(current.phase)) spans.push({ ...current, to: Math.max(now, current.from), open: true });
  return { name: "Phase", spans: spans.filter((span) => span.to > span.from || spans.length === 1), marks };
}

function podLanes(run, now) {
  return run.pods.slice(-PODS_MAX).map((pod) => {
    const created = Date.parse(pod.created_at);
    const started = pod.started_at && Date.parse(pod.started_at);
    const ended = pod.ended_at && Date.parse(pod.ended_at);
    const spans = [{ phase: "starting", from: created, to: started || ended || now, attempt: pod.attempt, open: !started && !ended }];
    if (started) spans.push({ phase: pod.state === "unknown" ? "unknown" : "running", from: started, to: ended || now, attempt: pod.attempt, open: !ended });
    const how = pod.exit_code === null ? pod.end.replaceAll("_", " ") : `exit code ${pod.exit_code}`;
    const marks = ended ? [{ at: ended, kind: MARKS[endState(pod)] ?? "bad", text: `ended: ${how}` }] : [];
    return { name: `${laneName(run, pod)} · ${pod.node}`, long: `Pod ${pod.pod} on ${pod.node}`, spans, marks };
  });
}

function laneName(run, pod) {
  const several = run.nodes > 1 || run.nodes_max > 1;
  if (run.attempt > 1) return several ? `${pod.attempt}.${pod.rank}` : `attempt ${pod.attempt}`;
  return several ? `rank ${pod.rank}` : "pod";
}

function drawLane(lane, y, x, room) {
  const label = svg("text", { class: "lane-name", x: 0, y: y + BAR - 3 }, shorten(lane.name, room), svg("title", {}, lane.long ?? lane.name));
  const bars = lane.spans.map((span) => {
    const left = x(span.from);
    const width = Math.max(2, x(span.to) - left);
    const text = `${span.phase}: ${duration(span.to - span.from)}${span.open ? " so far" : ""}, from ${clock(span.from)}`;
    const after = lane.marks.some((mark) => mark.at === span.from) ? 13 : 7;
    const inside = width > 8 * span.phase.length + after + 9 && svg("text", { class: "in-bar", x: left + after, y: y + BAR - 4, "aria-hidden": "true" }, span.phase);
    return svg("g", {}, svg("title", {}, text), svg("rect", { class: `span-${CLASS[span.phase] ?? "unknown"}`, x: left, y, width, height: BAR, rx: Math.min(4, width / 2) }), inside);
  });
  const marks = lane.marks.map((mark) => svg("g", {}, svg("title", {}, mark.text), markShape(mark.kind, x(mark.at), y + BAR / 2)));
  return svg("g", {}, label, bars, marks);
}

/** A circle for good, a diamond for bad, a square for neither: told apart without colour. */
function markShape(kind, x, y) {
  if (kind === "good") return svg("circle", { class: "mark mark-good", cx: x, cy: y, r: 7 });
  if (kind === "bad") return svg("path", { class: "mark mark-bad", d: `M${x} ${y - 8.5}l8.5 8.5-8.5 8.5-8.5-8.5z` });
  return svg("rect", { class: "mark mark-idle", x: x - 6, y: y - 6, width: 12, height: 12 });
}

const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 43200, 86400, 172800, 604800].map((seconds) => seconds * 1000);

function axis(from, to, x, height, width) {
  const most = Math.max(2, Math.floor(width / 92));
  const step = STEPS.find((each) => (to - from) / each <= most) ?? STEPS.at(-1);
  const offset = new Date(from).getTimezoneOffset() * 60_000;
  const ticks = [];
  for (let at = Math.ceil((from - offset) / step) * step + offset; at <= to; at += step) ticks.push(at);
  const day = step >= 86400_000;
  return ticks.map((at) =>
    svg(
      "g",
      { "aria-hidden": "true" },
      svg("line", { class: "axis", x1: x(at), x2: x(at), y1: TOP - 4, y2: height - AXIS + 4 }),
      svg("text", { x: x(at), y: height - 6, "text-anchor": "middle" }, day ? new Date(at).toLocaleDateString(undefined, { month: "short", day: "numeric" }) : step >= 60_000 ? clock(at).slice(0, 5) : clock(at)),
    ),
  );
}

function legend(lanes) {
  const used = new Set(lanes.flatMap((lane) => lane.spans.map((span) => CLASS[span.phase])));
  const marks = new Set(lanes.flatMap((lane) => lane.marks.map((mark) => mark.kind)));
  const item = (shape, text) => el("li", {}, svg("svg", { viewBox: "0 0 16 16", "aria-hidden": "true" }, shape), text);
  return el(
    "ul",
    { class: "legend" },
    LEGEND.filter(([name]) => used.has(name)).map(([name, text]) => item(svg("rect", { class: `span-${name}`, y: 2, width: 16, height: 12, rx: 3 }), text)),
    [["good", "ended well"], ["bad", "failed"], ["idle", "stopped"]].filter(([kind]) => marks.has(kind)).map(([kind, text]) => item(markShape(kind, 8, 8), text)),
  );
}

/** The same in words: of what, which state, which attempt, from when, until when (null: still). */
function facts(lanes) {
  return lanes.flatMap((lane) => lane.spans.map((span) => [lane.long ?? "Run", span.phase, span.attempt, span.from, span.open ? null : span.to]));
}

function words(lanes, run) {
  const spans = lanes[0].spans.map((span) => `${span.phase} for ${duration(span.to - span.from)}`);
  return `${spans.join(", then ")}; now ${run.phase}. ${run.pods.length} pods.`;
}

function table(spans, open) {
  const rows = spans.map(([who, phase, attempt, from, to]) =>
    el("tr", {}, el("td", {}, who), el("td", {}, phase), el("td", {}, String(attempt)), el("td", { title: dateTime(from) }, clock(from)), el("td", {}, to ? duration(to - from) : tookTime(from))),
  );
  const heads = ["Of", "State", "Attempt", "From", "For"].map((name) => el("th", { scope: "col" }, name));
  return el("details", { open }, el("summary", {}, "The same as a table"), el("table", {}, el("thead", {}, el("tr", {}, heads)), el("tbody", {}, rows)));
}

function shorten(name, room) {
  const most = Math.floor(room / 7.2);
  return name.length > most ? `${name.slice(0, most - 1)}…` : name;
}
