// Figures as people read them. Each function takes what the API sends and answers with a string.

const GIB = 2 ** 30;

/** "4 s", "12 min", "3 h 5 min", "2 d 4 h". */
export function duration(milliseconds) {
  const seconds = Math.max(0, Math.floor(milliseconds / 1000));
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return minutes < 10 && seconds % 60 ? `${minutes} min ${seconds % 60} s` : `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  return hours % 24 ? `${Math.floor(hours / 24)} d ${hours % 24} h` : `${Math.floor(hours / 24)} d`;
}

/** One unit only: "4 s", "12 min", "3 h", "2 d". */
export function age(milliseconds) {
  const seconds = Math.max(0, Math.floor(milliseconds / 1000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 2 * 86400) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

export const since = (instant, until) => (until ? Date.parse(until) : Date.now()) - Date.parse(instant);

export function bytes(count) {
  if (count >= 1024 * GIB) return `${trim(count / (1024 * GIB))} TiB`;
  if (count >= GIB) return `${trim(count / GIB)} GiB`;
  if (count >= 2 ** 20) return `${trim(count / 2 ** 20)} MiB`;
  if (count >= 1024) return `${trim(count / 1024)} KiB`;
  return `${count} B`;
}

export const trim = (value, digits = 1) => String(Number(value.toFixed(digits)));
export const cores = (count) => `${trim(count, 3)} ${count === 1 ? "CPU" : "CPUs"}`;

const MEMORY_UNITS = [["TiB", 1024 * GIB], ["TB", 1e12], ["GiB", GIB], ["GB", 1e9], ["MiB", 2 ** 20], ["MB", 1e6]];

/** In the unit it was most likely written in: "1 GB", "16 GiB", "512 MiB". */
export function memory(count) {
  const whole = MEMORY_UNITS.find(([, size]) => count && count % size === 0);
  return whole ? `${count / whole[1]} ${whole[0]}` : bytes(count);
}

/** What the pods of a run get: of several pod sets each by its name. */
export function asked(run) {
  if (run.choices?.length) return run.choices.map(resources).join(" or ");
  if (!run.sets?.length) return resources(run.resources);
  return run.sets.map((one) => `${one.nodes} × ${one.name}: ${resources(one.resources)}`).join("; ");
}

/** How many nodes a run has, or asks for: `4`, of an elastic one `2–8`, and once it has its places `6 of 2–8`. */
export function nodes(run) {
  if (!run.nodes_max) return String(run.nodes);
  const range = `${run.nodes_min}–${run.nodes_max}`;
  return run.ranks ? `${run.ranks} of ${range}` : range;
}

/** What one pod gets: "2 CPUs · 4 GiB · 1 × H100". */
export function resources(amount) {
  const parts = [cores(amount.cpu), memory(amount.memory_bytes)];
  if (amount.gpus) {
    const of = amount.gpu_memory_bytes ? ` of ${memory(amount.gpu_memory_bytes)}` : "";
    parts.push(`${amount.gpu_part || amount.gpus} × ${amount.gpu_model || "GPU"}${of}`);
  }
  return parts.map((part) => part.replaceAll(" ", "\u00a0")).join(" · ");
}

export function dateTime(instant) {
  return new Date(instant).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
}

export function clock(instant) {
  return new Date(instant).toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
}

const SIGNS = { USD: "$", EUR: "€", GBP: "£" };

/** A decimal string of six places: what is worth reading, and the digits that make sums come out exactly. */
export function moneyParts(amount, currency) {
  const sign = SIGNS[currency] ?? `${currency} `;
  const negative = amount.startsWith("-");
  const [units, fraction = ""] = amount.replace("-", "").split(".");
  const grouped = units.replace(/\B(?=(\d{3})+$)/g, ",");
  return { main: `${negative ? "−" : ""}${sign}${grouped}.${fraction.padEnd(6, "0").slice(0, 2)}`, rest: fraction.padEnd(6, "0").slice(2) };
}

/** Exact: decimal strings to millionths. */
export function micros(amount) {
  const [units, fraction = ""] = amount.replace("-", "").split(".");
  const value = BigInt(units) * 1000000n + BigInt(fraction.padEnd(6, "0").slice(0, 6));
  return amount.startsWith("-") ? -value : value;
}

/** An argument vector as a shell would read it. */
export function commandLine(argv) {
  if (argv.length === 3 && /\/?(ba)?sh$/.test(argv[0]) && argv[1] === "-c") return argv[2];
  return argv.map((word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`)).join(" ");
}
