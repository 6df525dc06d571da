// The list of tasks and the page of one: live numbers, and the upload's preview, check and progress.
// All of it works without this file but for those.

const page = document.querySelector("[data-page]");
const { locale, texts } = JSON.parse(page.dataset.texts);
const numbers = new Intl.NumberFormat(locale);
const fill = (name, with_) => texts[name].replace(/\{(\w+)\}/g, (_, slot) => with_[slot] ?? "");

/* Live numbers: one stream for the account. */

const link = document.querySelector("[data-link]");
const toggle = document.querySelector("[data-live]");
const VERDICTS = ["deliverable", "undeliverable", "risky", "unknown"];
const fetched = new Map(); // when a row was asked for last
const paces = new Map(); // counts of the last seconds, by task
let stream = null;
let again = 0; // the timer of the next try
let lost = false;

function say(text) {
  if (link.textContent !== text) link.textContent = text;
}

function span(seconds) {
  const n = (name, count) => fill(name, { n: Math.floor(count) });
  if (seconds < 60) return texts.under_a_minute;
  if (seconds < 3600) return n("minutes", seconds / 60);
  if (seconds < 86400) return `${n("hours", seconds / 3600)} ${n("minutes", (seconds / 60) % 60)}`;
  return `${n("days", seconds / 86400)} ${n("hours", (seconds / 3600) % 24)}`;
}

/** Addresses a second over the last ten seconds. */
function rate(id, done) {
  const now = performance.now();
  const seen = (paces.get(id) ?? []).filter(([at]) => now - at < 10000);
  seen.push([now, done]);
  paces.set(id, seen);
  const [at, from] = seen[0];
  return now - at < 2000 ? null : Math.round(((done - from) * 1000) / (now - at));
}

function write(root, name, text) {
  const place = root.querySelector(`[data-f="${name}"]`);
  if (place && place.textContent !== text) place.textContent = text;
}

function update(root, task) {
  const { counts } = task;
  const all = Math.max(counts.unique, 1);
  const bar = root.querySelector("progress[data-f]");
  if (bar) bar.value = counts.unique ? counts.processed : 1;
  write(root, "done", numbers.format(counts.processed));
  const pace = task.status === "running" ? rate(task.id, counts.processed) : null;
  if (pace !== null) write(root, "rate", fill("rate", { n: numbers.format(pace) }));
  if (task.eta_seconds !== null) write(root, "left", fill("left", { time: span(task.eta_seconds) }));
  let before = 0;
  for (const verdict of VERDICTS) {
    const part = root.querySelector(`[data-bar="${verdict}"]`);
    part?.setAttribute("x", `${(before * 100) / all}%`);
    part?.setAttribute("width", `${(counts[verdict] * 100) / all}%`);
    before += counts[verdict];
    write(root, verdict, numbers.format(counts[verdict]));
  }
}

/** Puts the row as the server writes it now in the place of the one that is there. */
async function replace(row) {
  const id = row.dataset.task;
  fetched.set(id, performance.now());
  const now = await written(id);
  if (!now || !row.isConnected) return;
  const held = [...row.querySelectorAll("a, button")].indexOf(document.activeElement);
  row.replaceWith(now);
  if (held >= 0) [...now.querySelectorAll("a, button")][held]?.focus();
}

/** The page of a task is loaded again when the task's state changes, unless somebody is at work in it. */
function reload() {
  const busy = document.activeElement?.closest("input, select, textarea, dialog") || document.querySelector("dialog[open]");
  if (!busy) location.reload();
}

/* Tasks that came after this page: they go to the top of its list, unless somebody is at work in it. */

const LONGEST = 50; // rows; beyond, new tasks are only told of
const offer = document.querySelector("[data-new]");
const list = document.querySelector("[data-tasks]");
const rowsOf = () => [...document.querySelectorAll("tr[data-task]")];
const last = rowsOf()[0]?.dataset.task ?? ""; // ids follow the time: one behind this is newer than the page
const newest = page.dataset.first === "true" && page.dataset.filtered !== "true";
const fresh = new Set(); // told of, and not in the list yet
const coming = new Set(); // on their way into it

const free = () => list && !list.matches(":hover") && !list.contains(document.activeElement) && !document.querySelector("dialog[open]");

function tell() {
  offer.hidden = fresh.size === 0;
  if (!offer.hidden) offer.textContent = fresh.size === 1 ? texts.new_task : fill("new_tasks", { n: numbers.format(fresh.size) });
}

/** The row as the server writes it now. */
async function written(id) {
  const answer = await fetch(`/tasks/${id}/row`).catch(() => null);
  if (!answer?.ok || answer.redirected) return null;
  const made = document.createElement("template");
  made.innerHTML = await answer.text();
  return made.content.querySelector("tr");
}

/** Puts a new task's row where it belongs; `asked`: whatever somebody does in the list. */
async function enter(id, asked) {
  if (coming.has(id)) return null;
  coming.add(id);
  const row = await written(id);
  coming.delete(id);
  if (!row) return null;
  if (!asked && !free()) {
    fresh.add(id);
    tell();
    return null;
  }
  fresh.delete(id);
  if (document.getElementById(row.id)) return null;
  const below = rowsOf().find((other) => other.dataset.task < id);
  if (below) below.before(row);
  else list.tBodies[0].append(row);
  return row;
}

function arrived(id) {
  if (!newest || !offer || id <= last || fresh.has(id) || coming.has(id)) return;
  if (free() && rowsOf().length < LONGEST) return enter(id, false);
  fresh.add(id);
  tell();
}

offer?.addEventListener("click", async () => {
  if (!list || rowsOf().length + fresh.size > LONGEST) return location.reload();
  const rows = await Promise.all([...fresh].map((id) => enter(id, true)));
  tell();
  rows.find(Boolean)?.querySelector("a").focus();
});

const told = new Set(); // tasks that this connection has told of
let settled = 0; // the timer of the look at what it has not

function heard(task) {
  told.add(task.id);
  const root = document.querySelector(`[data-task="${task.id}"]`);
  if (!root) return arrived(task.id);
  update(root, task);
  const changed = root.dataset.status !== task.status || root.dataset.pause !== (task.pause_reason ?? "");
  if (changed && "whole" in root.dataset) return reload();
  // What waits is told by the server alone, from time to time.
  const old = performance.now() - (fetched.get(task.id) ?? 0) > 20000;
  if (changed || (old && root.matches("tr"))) replace(root);
}

function open() {
  clearTimeout(again);
  stream?.close();
  const mine = (stream = new EventSource("/v1/events"));
  const on = (name, what) => mine.addEventListener(name, (event) => what(JSON.parse(event.data)));
  on("task", heard);
  on("gone", ({ id }) => {
    document.getElementById(`row-${id}`)?.remove();
    if (fresh.delete(id)) tell();
  });
  on("balance", ({ balance }) => {
    const place = document.querySelector("[data-balance]");
    if (place) place.textContent = numbers.format(balance);
  });
  mine.onopen = () => {
    if (lost) say(texts.live_again);
    lost = false;
    // It begins with all that is under way: what is shown so and is not told of ended before.
    told.clear();
    clearTimeout(settled);
    settled = setTimeout(refresh, 1500);
  };
  mine.onerror = () => {
    if (stream !== mine) return;
    lost = true;
    say(texts.lost);
    // Where the browser has given up, we have not.
    if (mine.readyState === EventSource.CLOSED) again = setTimeout(open, 5000);
  };
}

function close() {
  clearTimeout(again);
  clearTimeout(settled);
  stream?.close();
  stream = null;
}

const wanted = () => localStorage.getItem("listmill-live") !== "off";

function follow() {
  toggle.setAttribute("aria-checked", String(wanted()));
  if (!wanted() || document.hidden) return close();
  if (stream) return;
  open();
}

/** What ended while nobody listened is not told again. */
function refresh() {
  for (const root of document.querySelectorAll("[data-task]")) {
    if (told.has(root.dataset.task) || !["queued", "running", "paused"].includes(root.dataset.status)) continue;
    if ("whole" in root.dataset) compare(root);
    else if (root.matches("tr")) replace(root);
  }
}

/** The page of a task that stands otherwise by now is loaded again. */
async function compare(root) {
  const now = await written(root.dataset.task);
  if (now && (now.dataset.status !== root.dataset.status || now.dataset.pause !== root.dataset.pause)) reload();
}

if (toggle) {
  toggle.addEventListener("click", () => {
    localStorage.setItem("listmill-live", wanted() ? "off" : "on");
    follow();
    if (!wanted()) say("");
  });
  document.addEventListener("visibilitychange", () => {
    follow();
  });
  addEventListener("pagehide", close);
  addEventListener("pageshow", follow);
  follow();
}

/* The upload. */

const HEAD = 64 << 10; // bytes of a file that are looked at
const AT_ONCE = 20 << 20; // files up to this are counted as soon as they are chosen

/** The delimiter that cuts the first line into most cells. */
function delimiter(text) {
  const line = text.split(/\r?\n/, 1)[0];
  const count = (sign) => line.split(sign).length;
  return [",", ";", "\t", "|"].reduce((best, sign) => (count(sign) > count(best) ? sign : best));
}

/** The first rows of a CSV. */
function rows(text, sign, most) {
  const all = [];
  let row = [];
  let cell = "";
  let quoted = false;
  for (let at = 0; at < text.length && all.length < most; at++) {
    const c = text[at];
    if (quoted) {
      if (c !== '"') cell += c;
      else if (text[at + 1] === '"') cell += text[++at];
      else quoted = false;
    } else if (c === '"' && cell === "") quoted = true;
    else if (c === sign) row.push(cell), (cell = "");
    else if (c === "\n") {
      row.push(cell.replace(/\r$/, ""));
      if (row.some((value) => value.trim())) all.push(row);
      row = [];
      cell = "";
    } else cell += c;
  }
  if (all.length < most && (cell || row.length)) all.push([...row, cell]);
  return all;
}

function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  if (text !== null) made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

/** A table of the first rows; the column with the addresses is chosen by its radio button. */
async function preview(file, form) {
  const place = form.querySelector("[data-preview]");
  const { column, sheet } = form.elements;
  column.value = "";
  sheet.value = "";
  place.replaceChildren();
  place.hidden = !file;
  if (!file) return;
  if (/\.(xls[xm]?|ods)$/i.test(file.name)) {
    // It is packed: what is in it, the server says with the count.
    place.append(element("p", texts.book_preview, { class: "hint" }));
    return;
  }
  if (!/\.(csv|tsv|tab|txt)$/i.test(file.name)) {
    place.append(element("p", texts.no_preview, { class: "hint" }));
    return;
  }
  const text = (await file.slice(0, HEAD).text()).replace(/^\uFEFF/, "");
  const sign = /\.(tsv|tab)$/i.test(file.name) ? "\t" : delimiter(text);
  const first = rows(text, sign, 6);
  const width = Math.min(Math.max(0, ...first.map((row) => row.length)), 50);
  const box = element("div", null, { class: "scroll", tabindex: "0", role: "region", "aria-label": texts.shown_rows });
  const table = element("table", null, { class: "table" });
  table.append(element("caption", texts.shown_rows, { class: "hint" }));
  const head = element("tr", null);
  for (let no = 1; no <= width; no++) {
    const label = element("label", null);
    const radio = element("input", null, { type: "radio", name: "picked", value: String(no), form: "none" });
    radio.addEventListener("change", () => (column.value = String(no)));
    label.append(radio, fill("column_no", { n: no }));
    const cell = element("th", null, { scope: "col" });
    cell.append(label);
    head.append(cell);
  }
  const thead = element("thead", null);
  thead.append(head);
  const body = element("tbody", null);
  for (const row of first) {
    const line = element("tr", null);
    for (let no = 0; no < width; no++) line.append(element("td", (row[no] ?? "").slice(0, 200)));
    body.append(line);
  }
  table.append(thead, body);
  box.append(table);
  if (width > 1) place.append(box);
  else place.append(element("pre", first.map((row) => row[0]).join("\n")));
}

/** Another sheet or column of a workbook is counted anew; the keyboard stays where it was. */
function choices(form, answer) {
  const again = () => send(form, true);
  answer.querySelector("select[data-sheet]")?.addEventListener("change", ({ target }) => {
    form.elements.sheet.value = target.value;
    form.elements.column.value = "";
    form.chosen = "select[data-sheet]";
    again();
  });
  for (const pick of answer.querySelectorAll("[data-pick]")) {
    pick.addEventListener("change", () => {
      form.elements.column.value = pick.value;
      form.chosen = `[data-pick][value="${pick.value}"]`;
      again();
    });
  }
  if (form.chosen) answer.querySelector(form.chosen)?.focus();
  form.chosen = null;
}

/** Sends the form; `dry` only counts. */
function send(form, dry) {
  const answer = form.querySelector("[data-answer]");
  const sending = form.querySelector("[data-sending]");
  const bar = sending.querySelector("progress");
  const label = sending.querySelector("label");
  const request = new XMLHttpRequest();
  const buttons = form.querySelectorAll("button");
  form.sending?.abort();
  form.sending = request;
  const fail = (text) => answer.replaceChildren(element("p", text, { class: "error", role: "alert" }));
  const done = () => {
    if (form.sending !== request) return;
    sending.hidden = true;
    if (!dry) buttons.forEach((button) => (button.disabled = false));
  };
  request.open("POST", dry ? "/tasks/check" : "/tasks");
  request.setRequestHeader("x-listmill", "script");
  request.upload.onprogress = ({ loaded, total }) => {
    bar.max = total || 1;
    bar.value = loaded;
  };
  request.upload.onload = () => (label.textContent = texts.received);
  request.onerror = () => (fail(texts.failed_send), done());
  request.onabort = done;
  request.onload = () => {
    const json = request.getResponseHeader("content-type")?.startsWith("application/json");
    if (request.status === 200 && json) return location.assign(JSON.parse(request.responseText).to);
    // A piece of our own page; a whole page (logged out, say) is none.
    if (request.responseText.includes("<html")) fail(texts.failed_send);
    else answer.innerHTML = request.responseText;
    if (dry) choices(form, answer);
    done();
  };
  label.textContent = texts.uploading;
  bar.value = 0;
  sending.hidden = false;
  if (!dry) buttons.forEach((button) => (button.disabled = true));
  request.send(new FormData(form));
}

function prepare(form) {
  const { file } = form.elements;
  const chosen = () => {
    form.querySelector("[data-answer]").replaceChildren();
    preview(file.files[0], form);
    if (file.files[0] && file.files[0].size <= AT_ONCE) send(form, true);
  };
  file.addEventListener("change", chosen);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send(form, event.submitter?.hasAttribute("data-check") ?? false);
  });
  form.addEventListener("dragover", (event) => event.preventDefault());
  form.addEventListener("drop", (event) => {
    if (!event.dataTransfer?.files.length) return;
    event.preventDefault();
    file.files = event.dataTransfer.files;
    chosen();
  });
}

const form = document.querySelector("form[data-upload]");
if (form) prepare(form);
