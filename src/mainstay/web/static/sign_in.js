// A link of `mainstay login --page` ends in #CODE, which the browser keeps to itself until this sends it.

import { byId, el, fill } from "./dom.js";

function begin() {
  const code = location.hash.slice(1);
  if (!code) return;
  history.replaceState(null, "", location.pathname);
  signIn(code);
}

async function signIn(code) {
  byId("progress").hidden = false;
  byId("how").hidden = true;
  try {
    const response = await fetch("/sign-in", { method: "POST", body: code });
    if (response.ok) {
      location.replace("/");
      return;
    }
    const problem = await response.json();
    refuse(problem.detail, problem.hint);
  } catch {
    refuse("the platform does not answer", "open the link again once it does: the code has not been used");
  }
}

function refuse(detail, hint) {
  byId("progress").hidden = true;
  byId("how").hidden = false;
  const message = [el("p", {}, detail), hint && el("p", { class: "hint" }, `hint: ${hint}`)];
  fill(byId("messages"), el("div", { class: "message", role: "alert" }, el("div", {}, message)));
}

// Who opens a link while this page is open only changes what is behind the `#`.
addEventListener("hashchange", begin);
begin();
