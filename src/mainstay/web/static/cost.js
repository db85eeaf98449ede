// The bill: a picture of it by day, and its lines, which add up to the total exactly.

import { get, withQuery } from "./api.js";
import { drawDays } from "./chart.js";
import { byId, command, el, fill, keyed } from "./dom.js";
import { attempt, show } from "./frame.js";
import { micros } from "./format.js";
import { refresher } from "./live.js";
import { money } from "./money.js";

const DAY_MS = 86_400_000;
const EVERY_MS = 15_000;
const AT_ONCE = 4;
const SERIES_MAX = 6;
const TITLES = { workload: "Run", project: "Project", day: "Day" };
const form = byId("filters");
const past = new Map();
let picture = null;

/** Group and number of days, as they stand in the address. */
function chosen() {
  const given = new URLSearchParams(location.search);
  const by = given.get("by") in TITLES ? given.get("by") : "workload";
  const days = ["7", "14", "30"].includes(given.get("days")) ? Number(given.get("days")) : 14;
  return { by, days };
}

async function load() {
  const { by, days } = chosen();
  const first = Math.floor(Date.now() / DAY_MS) * DAY_MS - (days - 1) * DAY_MS;
  const since = new Date(first).toISOString();
  const bills = await attempt(() => Promise.all([get("/v1/cost", { group_by: by, since }), get("/v1/cost", { group_by: "day", since })]));
  if (!bills || JSON.stringify(chosen()) !== JSON.stringify({ by, days })) return;
  const [bill, byDay] = bills;
  showLines(bill, by);
  const parts = await attempt(() => dayParts(byDay.lines, by));
  if (!parts) return;
  picture = { days: [...Array(days).keys()].map((day) => new Date(first + day * DAY_MS).toISOString().slice(0, 10)), ...series(parts), currency: bill.currency };
  draw();
}

function showLines(bill, by) {
  const sum = bill.lines.reduce((total, line) => total + micros(line.total), 0n);
  if (sum !== micros(bill.total)) show(new Error("the lines of this bill do not add up to its total"));
  fill(byId("total"), money(bill.total, bill.currency));
  byId("period").textContent = `${new Date(bill.since).toLocaleDateString(undefined, { dateStyle: "medium", timeZone: "UTC" })} until now; days are in UTC`;
  byId("group-title").textContent = TITLES[by];
  byId("lines").setAttribute("aria-busy", "false");
  byId("lines").hidden = !bill.lines.length;
  byId("empty").hidden = Boolean(bill.lines.length);
  fill(byId("empty"), el("h2", {}, "Nothing was used in this time"), el("p", {}, "The first run shows up here while it runs:"), command("mainstay run -- python -c 'print(6 * 7)'"));
  const lines = by === "day" ? [...bill.lines].reverse() : [...bill.lines].sort((one, other) => (micros(other.total) > micros(one.total) ? 1 : -1));
  keyed(byId("lines").tBodies[0], lines, (line) => line.group, (line) => row(line, by));
  fill(byId("lines").tFoot, footer(bill));
}

const amounts = (line) => [
  ["Core hours", hours(line.cpu_core_hours)],
  ["GiB hours", hours(line.memory_gib_hours)],
  ["GPU hours", line.gpu_hours ? hours(line.gpu_hours) : "–"],
];

const hours = (amount) => amount.toLocaleString("en", { minimumFractionDigits: 3, maximumFractionDigits: 3 });

function row(line, by) {
  const name = by === "workload" ? [el("a", { href: `/runs/${encodeURIComponent(line.group)}`, class: "name" }, line.name), el("span", { class: "id" }, line.group)] : [line.group];
  return el("tr", {}, el("td", { class: "wide" }, name), numbers([...amounts(line), ...["charged", "accruing", "total"].map((part) => [part[0].toUpperCase() + part.slice(1), money(line[part], line.currency)])]));
}

function footer(bill) {
  const total = (part) => bill.lines.reduce((sum, line) => sum + line[part], 0);
  const exact = (part) => money(decimal(bill.lines.reduce((sum, line) => sum + micros(line[part]), 0n)), bill.currency);
  const used = amounts({ cpu_core_hours: total("cpu_core_hours"), memory_gib_hours: total("memory_gib_hours"), gpu_hours: total("gpu_hours") });
  return el("tr", {}, el("th", { scope: "row" }, "Total"), numbers([...used, ["Charged", exact("charged")], ["Accruing", exact("accruing")], ["Total", money(bill.total, bill.currency)]]));
}

const numbers = (cells) => cells.map(([label, content]) => el("td", { class: "number right", "data-label": label }, content));

function decimal(value) {
  const digits = String(value < 0n ? -value : value).padStart(7, "0");
  return `${value < 0n ? "-" : ""}${digits.slice(0, -6)}.${digits.slice(-6)}`;
}

/** What each day with a cost is made of. By day it is what is charged and what accrues; else the bill of that day. */
async function dayParts(dayLines, by) {
  if (by === "day") {
    return new Map(dayLines.map((line) => [line.group, [["charged", micros(line.charged)], ["accruing", micros(line.accruing)]].filter(([, amount]) => amount)]));
  }
  const wanted = dayLines.filter((line) => micros(line.total)).map((line) => line.group);
  const found = new Map();
  const worker = async () => {
    for (let day = wanted.shift(); day; day = wanted.shift()) found.set(day, await partsOf(day, by));
  };
  await Promise.all([...Array(AT_ONCE)].map(worker));
  return found;
}

/** Days that are over by more than one are asked for once. */
async function partsOf(day, by) {
  const key = `${by} ${day}`;
  const start = Date.parse(day);
  const end = start + DAY_MS;
  if (past.has(key)) return past.get(key);
  const until = end < Date.now() ? new Date(end).toISOString() : undefined;
  const bill = await get("/v1/cost", { group_by: by, since: new Date(start).toISOString(), until });
  // Runs of one name are one colour: a picture of thirty runs would show none of them.
  const parts = bill.lines.map((line) => [line.name || line.group, micros(line.total)]).filter(([, amount]) => amount);
  if (end + DAY_MS < Date.now()) past.set(key, parts);
  return parts;
}

/** The largest groups by name, the rest as one: a picture shows few things at once. */
function series(parts) {
  const totals = new Map();
  for (const groups of parts.values()) for (const [group, amount] of groups) totals.set(group, (totals.get(group) ?? 0n) + amount);
  const largest = [...totals].sort(([, one], [, other]) => (other > one ? 1 : -1)).slice(0, SERIES_MAX).map(([group]) => group);
  const names = totals.size > SERIES_MAX ? [...largest, "all others"] : largest;
  const amountOf = (day, name) => {
    const groups = parts.get(day) ?? [];
    const those = name === "all others" && !largest.includes(name) ? groups.filter(([group]) => !largest.includes(group)) : groups.filter(([group]) => group === name);
    return those.reduce((sum, [, amount]) => sum + amount, 0n);
  };
  return { names, amountOf };
}

function draw() {
  if (picture) drawDays(byId("chart"), picture);
}

function showChoice() {
  const { by, days } = chosen();
  form.elements.by.value = by;
  form.elements.days.value = String(days);
}

const refresh = refresher(load);
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("change", () => {
  history.pushState(null, "", withQuery("/cost", Object.fromEntries(new FormData(form))));
  refresh();
});
addEventListener("popstate", () => {
  showChoice();
  refresh();
});
new ResizeObserver(draw).observe(byId("chart"));
showChoice();
await refresh();
setInterval(() => document.hidden || refresh(), EVERY_MS);
