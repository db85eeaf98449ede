// Stacked bars by day. Amounts are exact integers until they become heights.

import { el, fill, svg } from "./dom.js";
import { moneyParts } from "./format.js";

const HEIGHT = 210;
const BOTTOM = 22;
const TOP = 10;

/** `names` from the bottom of each bar to its top; `amountOf(day, name)` in millionths. */
export function drawDays(place, { days, names, amountOf, currency }) {
  const width = place.clientWidth;
  if (!width) return;
  const sums = days.map((day) => names.reduce((sum, name) => sum + Number(amountOf(day, name)), 0));
  const top = niceTop(Math.max(...sums, 1));
  const left = 12 + 7 * Math.max(...[0, 0.5, 1].map((share) => label(top * share, currency).length));
  const y = (amount) => TOP + (1 - amount / top) * (HEIGHT - TOP - BOTTOM);
  const step = (width - left) / days.length;
  const bar = Math.max(3, Math.min(44, step * 0.68));
  const everyLabel = Math.ceil(58 / step);
  const grid = [0, 0.5, 1].map((share) =>
    svg("g", {}, svg("line", { class: "axis", x1: left, x2: width, y1: y(top * share), y2: y(top * share) }), svg("text", { x: left - 8, y: y(top * share) + 4, "text-anchor": "end" }, label(top * share, currency))),
  );
  const columns = days.map((day, place_) => {
    const x = left + step * place_ + (step - bar) / 2;
    const text = names.filter((name) => amountOf(day, name)).map((name) => `${name}: ${label(Number(amountOf(day, name)), currency)}`);
    return svg("g", {}, svg("title", {}, `${day}\n${text.join("\n") || "nothing"}`), svg("rect", { x: left + step * place_, y: TOP, width: step, height: HEIGHT - TOP - BOTTOM, fill: "transparent" }), stack(names, (name) => Number(amountOf(day, name)), x, bar, y));
  });
  const ticks = days.map((day, place_) => (days.length - 1 - place_) % everyLabel === 0 && svg("text", { x: Math.min(left + step * (place_ + 0.5), width - 20), y: HEIGHT - 4, "text-anchor": "middle" }, short(day)));
  const picture = svg(
    "svg",
    { viewBox: `0 0 ${width} ${HEIGHT}`, height: HEIGHT, role: "img", "aria-labelledby": "chart-name chart-words" },
    svg("title", { id: "chart-name" }, "Cost by day"),
    svg("desc", { id: "chart-words" }, days.map((day, place_) => `${day}: ${label(sums[place_], currency)}`).join("; ")),
    grid,
    columns,
    ticks,
  );
  const legend = names.map((name, number) => el("li", {}, svg("svg", { viewBox: "0 0 12 12", "aria-hidden": "true" }, svg("rect", { class: `series-${number}`, width: 12, height: 12, rx: 3 })), name));
  fill(place, picture, el("ul", { class: "legend" }, legend));
}

/** A gap of one pixel between the parts keeps them apart where their colours are not told apart. */
function stack(names, amountOf, x, width, y) {
  let below = 0;
  return names.map((name, number) => {
    const amount = amountOf(name);
    if (!amount) return null;
    const from = y(below);
    below += amount;
    const height = Math.max(1, from - y(below) - 1);
    return svg("rect", { class: `series-${number}`, x, y: from - height, width, height, rx: Math.min(2, height / 2) });
  });
}

function niceTop(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map((factor) => factor * power).find((candidate) => candidate >= value);
}

/** As few digits as tell the amount: cents, or the first two that are not zero. */
function label(amount, currency) {
  const value = amount / 1e6;
  const digits = value === 0 || value >= 1 ? (value >= 100 || value === 0 ? 0 : 2) : Math.min(6, 1 - Math.floor(Math.log10(value)));
  const sign = moneyParts("0", currency).main.replace(/[\d.]+$/, "");
  return `${sign}${value.toLocaleString("en", { minimumFractionDigits: digits === 2 ? 2 : 0, maximumFractionDigits: digits })}`;
}

const short = (day) => new Date(day).toLocaleDateString(undefined, { month: "short", day: "numeric", timeZone: "UTC" });
