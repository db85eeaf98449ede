// Money, exactly: six places, the last four small. Lines shown like this add up to the total that is shown.

import { el } from "./dom.js";
import { moneyParts } from "./format.js";

export function money(amount, currency) {
  const { main, rest } = moneyParts(amount, currency);
  return el("span", { class: "money" }, main, el("span", { class: "rest" }, rest));
}
