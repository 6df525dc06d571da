// Finds what a person would point at: steps of a role and words of its accessible name, each within the one
// before. Answers {element, names}: the best match of the last step, and the names there are in its role.
const SELECTORS = {
  button: "button, input[type=submit], input[type=button], input[type=reset], [role=button], [role=menuitem], summary",
  link: "a[href], [role=link]",
  item: "button, a[href], input[type=submit], [role=menuitem], [role=button], [role=link], summary",
  field: "input:not([type=hidden]):not([type=submit]):not([type=button]):not([type=reset]), select, textarea, [role=textbox]",
  file: "input[type=file]",
  heading: "h1, h2, h3, h4, h5, h6, [role=heading]",
  row: "tr, [role=row]",
  dialog: "dialog[open], [role=dialog], [role=alertdialog]",
  progress: "progress, [role=progressbar]",
  table: "table, [role=table]",
  image: "img, svg[role=img], [role=img]",
  region: "section, nav, main, aside, [role=region], [role=status], [role=alert]",
};

const tidy = (text) => text.replace(/\s+/g, " ").trim();

// An element without a box of its own (display: contents) is seen where its parent is.
function visible(element) {
  if (element.closest("[inert], [aria-hidden=true]")) return false;
  let at = element;
  while (at && getComputedStyle(at).display === "contents") at = at.parentElement;
  return Boolean(at) && at.checkVisibility({ visibilityProperty: true });
}

// What is read out of a part of the page, without the control that a label wraps.
function words(node, without) {
  if (node.nodeType === Node.TEXT_NODE) return node.data;
  if (node.nodeType !== Node.ELEMENT_NODE || node === without) return "";
  if (node.getAttribute("aria-hidden") === "true" || !visible(node)) return "";
  const label = node.getAttribute("aria-label");
  if (label) return ` ${label} `;
  if (node.matches("input, select, textarea, progress, script, style")) return " ";
  if (node.matches("img")) return ` ${node.alt} `;
  if (node.matches("svg")) return ` ${node.querySelector("title")?.textContent ?? ""} `;
  const text = [...node.childNodes].map((child) => words(child, without)).join("");
  return getComputedStyle(node).display === "inline" ? text : ` ${text} `;
}

function nameOf(element) {
  const ids = element.getAttribute("aria-labelledby");
  if (ids) {
    const parts = ids.split(/\s+/).map((id) => document.getElementById(id)?.textContent ?? "");
    return tidy(parts.join(" "));
  }
  const label = element.getAttribute("aria-label");
  if (label) return tidy(label);
  if (element.matches("input[type=submit], input[type=button], input[type=reset]")) return tidy(element.value);
  if (element.labels && element.labels.length > 0 && !element.matches("button")) {
    return tidy([...element.labels].map((one) => words(one, element)).join(" "));
  }
  if (element.matches("img")) return tidy(element.alt);
  if (element.matches("table")) return tidy(element.caption?.textContent ?? "");
  if (!element.matches("input, select, textarea, progress")) {
    const text = tidy([...element.childNodes].map((child) => words(child, null)).join(""));
    if (text) return text;
  }
  return tidy(element.getAttribute("title") ?? "");
}

// 0 is the name itself, 1 begins with it, 2 has its words somewhere; undefined is another name.
function rank(name, wanted) {
  if (wanted === "") return 0;
  const [low, want] = [name.toLowerCase(), tidy(wanted).toLowerCase()];
  if (low === want) return 0;
  const plain = want.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  const place = low.search(new RegExp(`(?<![\\p{L}\\p{N}])${plain}(?![\\p{L}\\p{N}])`, "u"));
  if (place < 0) return undefined;
  return place === 0 ? 1 : 2;
}

// What lies under a modal dialog cannot be reached.
function reachable() {
  const modal = [...document.querySelectorAll("dialog:modal")];
  return modal.length > 0 ? modal[modal.length - 1] : document.documentElement;
}

function find(steps) {
  let scope = reachable();
  let names = [];
  for (const { role, name } of steps) {
    const all = scope.matches(SELECTORS[role]) && role === "dialog" ? [scope] : [];
    all.push(...scope.querySelectorAll(SELECTORS[role]));
    const seen = all.filter((one) => visible(one) || one.matches("input[type=file]"));
    const named = seen.map((element) => ({ element, name: nameOf(element) }));
    names = named.map((one) => one.name);
    const fitting = named.map((one) => ({ ...one, rank: rank(one.name, name) }));
    const best = fitting.filter((one) => one.rank !== undefined).sort((a, b) => a.rank - b.rank)[0];
    if (!best) return { element: null, names: names.slice(0, 60) };
    scope = best.element;
  }
  return { element: scope, names: names.slice(0, 60) };
}
