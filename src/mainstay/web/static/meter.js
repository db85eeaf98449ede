// How much of something is used: a bar, and the same in words.

import { el } from "./dom.js";

/** `words` turns an amount into text. */
export function meter(name, used, total, words, unit = "") {
  const share = total ? used / total : 0;
  const level = el("span", { class: `level${share >= 0.995 ? " full" : ""}`, style: { width: `${Math.min(100, share * 100)}%` } });
  const text = `${words(used)} of ${words(total)}${unit && ` ${unit}`}`;
  return el(
    "div",
    { class: "meter" },
    el("div", { class: "words" }, el("span", {}, name), el("span", {}, `${text} · ${Math.round(share * 100)} %`)),
    el("div", { class: "track", role: "meter", "aria-label": name, "aria-valuemin": 0, "aria-valuemax": total, "aria-valuenow": used, "aria-valuetext": text }, level),
  );
}
