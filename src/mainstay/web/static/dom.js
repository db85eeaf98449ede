// Elements without markup: what comes from outside is only ever set as text, so that none of it becomes a page of ours.

const SVG = "http://www.w3.org/2000/svg";

/** An HTML element. Attributes: strings, booleans, `on*` listeners; `style` is an object, set through the CSSOM. */
export function el(tag, attributes = {}, ...children) {
  return build(document.createElement(tag), attributes, children);
}

/** An SVG element. */
export function svg(tag, attributes = {}, ...children) {
  return build(document.createElementNS(SVG, tag), attributes, children);
}

function build(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [property, text] of Object.entries(value)) node.style.setProperty(property, text);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.flat(Infinity).filter((child) => child !== undefined && child !== null && child !== false));
  return node;
}

export const byId = (id) => document.getElementById(id);

/** Put `children` in the place of what is there. */
export function fill(node, ...children) {
  node.replaceChildren(...children.flat(Infinity).filter((child) => child !== undefined && child !== null && child !== false));
}

/** Children by key: what has not changed stays in place, with its focus and its selection. */
export function keyed(parent, items, keyOf, make) {
  const old = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let place = parent.firstElementChild;
  for (const item of items) {
    const key = String(keyOf(item));
    const state = JSON.stringify(item);
    let child = old.get(key);
    old.delete(key);
    if (!child || child.dataset.state !== state) {
      const fresh = make(item);
      fresh.dataset.key = key;
      fresh.dataset.state = state;
      if (child) {
        const focused = focusPath(child);
        if (place === child) place = fresh;
        child.replaceWith(fresh);
        if (focused) fresh.querySelectorAll("a, button, summary")[focused.index]?.focus();
      }
      child = fresh;
    }
    if (child === place) place = place.nextElementSibling;
    else parent.insertBefore(child, place);
  }
  for (const gone of old.values()) gone.remove();
}

function focusPath(child) {
  if (!child.contains(document.activeElement)) return null;
  const index = [...child.querySelectorAll("a, button, summary")].indexOf(document.activeElement);
  return index < 0 ? null : { index };
}

/** A button that copies a text and says so. */
export function copyButton(text, label = "Copy") {
  const button = el("button", { type: "button", class: "quiet small" }, label);
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Select it and copy by hand";
    }
    setTimeout(() => (button.textContent = label), 1500);
  });
  return button;
}

/** A command line with a button to copy it. */
export function command(text) {
  return el("div", { class: "command" }, el("code", {}, text), copyButton(text));
}
