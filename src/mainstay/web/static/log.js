// A log as it grows. What a job writes is hostile: it is only ever the text of a text node. What is kept is bounded.

import { get } from "./api.js";
import { byId, el, fill } from "./dom.js";
import { show } from "./frame.js";
import { bytes } from "./format.js";
import { afterPiece, follow } from "./live.js";
import { save } from "./outputs.js";
import { FINAL } from "./phases.js";

export const LINES_MAX = 5000;
const LINES_PER_BLOCK = 250;
const LINE_LENGTH_MAX = 4000;

/** Show and follow the log of a run, beginning with the newest attempt of rank 0. */
export function openLog(path, run) {
  const view = new View(byId("log"));
  let rank = 0;
  let attempt = 0;
  let stream = null;
  let paused = false;
  let waiting = [];

  const start = () => {
    stream?.close();
    view.clear();
    waiting = [];
    state("waits for the first line");
    stream = follow(`${path}/logs/stream`, { query: { rank, attempt: attempt || "" }, resume: afterPiece, on: { log: take, end }, onRefused });
  };
  const take = (piece) => {
    if (paused) {
      waiting.push(piece);
      if (waiting.length > LINES_MAX) waiting.shift();
      state(`paused; ${bytes(waiting.reduce((sum, each) => sum + each.text.length, 0))} have come since`);
      return;
    }
    put(piece);
    state("follows");
  };
  const put = (piece) => {
    if (piece.dropped) view.say(`${bytes(piece.dropped)} before this are gone: the log was rotated`);
    view.add(piece.text);
  };
  const end = (last) => {
    stream.close();
    if (paused) waiting.push({ text: "", last });
    else finish(last);
  };
  const finish = (last) => {
    const more = last.next_attempt && !attempt;
    view.flush();
    view.say(last.next_attempt ? `end of attempt ${last.attempt}; attempt ${last.next_attempt} follows` : `end of the log: ${last.phase}`);
    state("ended");
    if (more) {
      stream = follow(`${path}/logs/stream`, { query: { rank, attempt: last.next_attempt }, resume: afterPiece, on: { log: take, end }, onRefused });
    }
  };
  // A stream that is refused says no reason; the plain route does.
  const onRefused = () => get(`${path}/logs`, { rank, attempt: attempt || "", limit: 1 }).catch(show);
  const state = (text) => {
    if (byId("log-state").textContent !== text) byId("log-state").textContent = text;
  };

  byId("rank").addEventListener("change", (event) => {
    rank = Number(event.target.value);
    start();
  });
  byId("attempt").addEventListener("change", (event) => {
    attempt = Number(event.target.value);
    start();
  });
  byId("wrap").addEventListener("change", (event) => byId("log").classList.toggle("wrap", event.target.checked));
  byId("pause").addEventListener("click", () => {
    paused = !paused;
    byId("pause").setAttribute("aria-pressed", String(paused));
    byId("pause").textContent = paused ? "Go on" : "Pause";
    state(paused ? "paused" : "follows");
    if (paused) return;
    for (const piece of waiting.splice(0)) piece.last ? finish(piece.last) : put(piece);
  });
  byId("download").addEventListener("click", async () => {
    byId("download").disabled = true;
    try {
      save(await whole(path, { rank, attempt: attempt || "" }), `${run.id}-${rank}.log`);
    } catch (problem) {
      show(problem);
    }
    byId("download").disabled = false;
  });
  start();
  return { update: (now) => choices(now, () => ({ rank, attempt })) };
}

/** Offer the ranks and attempts that there are; with one of each there is nothing to choose. */
function choices(run, chosen) {
  const count = Math.max(run.nodes, ...run.pods.map((pod) => pod.rank + 1));
  const ranks = [...Array(count).keys()].map((each) => [String(each), String(each)]);
  const attempts = [["0", "newest"], ...[...Array(run.attempt).keys()].map((each) => [String(each + 1), String(each + 1)])];
  offer("rank", ranks, chosen().rank, count > 1);
  offer("attempt", attempts, chosen().attempt, run.attempt > 1);
}

function offer(name, options, chosen, useful) {
  byId(`${name}-field`).hidden = !useful;
  if (byId(name).options.length === options.length) return;
  fill(byId(name), options.map(([value, text]) => el("option", { value, selected: value === String(chosen) }, text)));
}

/** All that is kept of a log, piece by piece. */
async function whole(path, query) {
  const parts = [];
  for (let { attempt } = query, offset = 0; ; ) {
    const piece = await get(`${path}/logs`, { ...query, attempt, offset: offset || "", limit: 2 ** 20 });
    parts.push(piece.text);
    if (piece.ended || piece.next_offset <= offset) return new Blob(parts, { type: "text/plain" });
    ({ attempt, next_offset: offset } = piece);
  }
}

/** Lines in blocks of text, at most LINES_MAX of them; painted once per frame however much arrives. */
class View {
  constructor(box) {
    this.box = box;
    this.clear();
    box.addEventListener("scroll", () => (this.atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 40));
  }

  clear() {
    fill(this.box);
    this.lines = [];
    this.rest = "";
    this.tail = null;
    this.count = 0;
    this.cut = 0;
    this.atEnd = true;
    byId("log-note").textContent = "";
  }

  /** Text goes on where the last piece ended, in the middle of a line too. */
  add(text) {
    const parts = (this.rest + text).split("\n");
    this.rest = parts.pop();
    // A line without end must not grow without end: what is beyond the length that is shown is only counted.
    if (this.rest.length > 64 * LINE_LENGTH_MAX) {
      parts.push(this.rest);
      this.rest = "";
    }
    for (const part of parts) this.lines.push(shorten(part));
    if (this.lines.length > LINES_MAX) this.cut += this.lines.splice(0, this.lines.length - LINES_MAX).length;
    this.paint();
  }

  /** A word of ours, apart from what the job says. */
  say(text) {
    this.flush();
    this.box.append(el("span", { class: "said" }, `— ${text} —\n`));
    this.block = null;
    this.follow();
  }

  paint() {
    this.frame ??= requestAnimationFrame(() => this.flush());
  }

  flush() {
    cancelAnimationFrame(this.frame);
    this.frame = null;
    this.tail?.remove();
    for (const line of this.lines.splice(0)) this.line(line);
    this.tail = this.rest ? el("span", { class: "tail" }, shorten(this.rest)) : null;
    if (this.tail) this.box.append(this.tail);
    this.trim();
    this.follow();
  }

  line(text) {
    if (!this.block?.isConnected || this.block.lines >= LINES_PER_BLOCK) {
      this.block = el("span", { class: "block" }, document.createTextNode(""));
      this.block.lines = 0;
      this.box.append(this.block);
    }
    this.block.firstChild.appendData(`${text}\n`);
    this.block.lines += 1;
    this.count += 1;
  }

  /** Whole blocks go from the front. */
  trim() {
    while (this.count > LINES_MAX) {
      const first = this.box.firstElementChild;
      this.count -= first.lines ?? 0;
      this.cut += first.lines ?? 0;
      first.remove();
    }
    if (this.cut) byId("log-note").textContent = `${this.cut.toLocaleString()} earlier lines are not shown here`;
  }

  follow() {
    if (this.atEnd) this.box.scrollTop = this.box.scrollHeight;
  }
}

function shorten(line) {
  if (line.length <= LINE_LENGTH_MAX) return line;
  return `${line.slice(0, LINE_LENGTH_MAX)} … ${(line.length - LINE_LENGTH_MAX).toLocaleString()} more characters`;
}
