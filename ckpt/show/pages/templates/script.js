"use strict";
// Search, sort, filter, fold and compare; without it, pages can still be read.

// The theme: the system's, until the button says otherwise.
const root = document.documentElement;
const remembered = {
  get theme() { try { return localStorage.getItem("theme"); } catch { return null; } },
  set theme(name) { try { localStorage.setItem("theme", name); } catch { /* private window */ } },
};
if (["light", "dark"].includes(remembered.theme)) root.dataset.theme = remembered.theme;
root.dataset.script = "on"; // before the first row: rows that are far down wait for `spread`

function themes() {
  const button = document.querySelector(".theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const show = () => { button.textContent = isDark() ? "Light theme" : "Dark theme"; };
  button.addEventListener("click", () => {
    remembered.theme = root.dataset.theme = isDark() ? "light" : "dark";
    show();
  });
  system.addEventListener("change", show);
  button.hidden = false;
  show();
}

const thousands = (number) => number.toLocaleString("en-US");
const words = (text) => text.toLowerCase().split(/\s+/).filter(Boolean);

// Laying out a row costs more than all else: the first ones come at once, the others when idle.
const FIRST = 100;
const idle = window.requestIdleCallback ?? ((run) => setTimeout(run, 50));
const waiting = new Set();

function spread(table) {
  let near = 0;
  for (const row of table.tBodies[0].rows) {
    if (!row.hidden) row.classList.toggle("far", near++ >= FIRST);
  }
  if (!waiting.has(table)) later(table);
}
function later(table) {
  const far = [...table.querySelectorAll("tr.far:not([hidden])")];
  waiting.delete(table);
  if (!far.length) return;
  waiting.add(table);
  idle(() => {
    for (const row of far.slice(0, 2 * FIRST)) row.classList.remove("far");
    later(table);
  });
}

// A row of a table is shown if it has every word and the labels chosen.
function searched(table) {
  const inputs = [...document.querySelectorAll(`[data-rows="${table.id}"]`)];
  if (!inputs.length) return;
  const rows = [...table.tBodies[0].rows];
  const texts = new Map();
  function textOf(row) {
    if (!texts.has(row)) texts.set(row, row.textContent.toLowerCase());
    return texts.get(row);
  }
  const said = inputs[0].closest(".tools").querySelector("output");
  const matches = (row, input) => input.dataset.match
    ? !input.value || row.dataset[input.dataset.match].split(" ").includes(input.value)
    : words(input.value).every((word) => textOf(row).includes(word));
  function search() {
    let count = 0;
    for (const row of rows) {
      row.hidden = !inputs.every((input) => matches(row, input));
      count += !row.hidden;
    }
    said.textContent = `${thousands(count)} of ${thousands(rows.length)}`;
    spread(table);
  }
  for (const input of inputs) input.addEventListener("input", search);
  search();
}

function sorted(table) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, at) => {
    const button = head.querySelector("button");
    button.disabled = false;
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") === "descending"
        || (head.getAttribute("aria-sort") === "none" && !head.classList.contains("number"));
      for (const other of heads) other.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const numbers = head.classList.contains("number");
      const value = (row) => row.cells[at].dataset.value;
      const order = (a, b) => numbers ? a - b : a < b ? -1 : a > b ? 1 : 0;
      const rows = [...table.tBodies[0].rows].map((row) => [value(row), row]);
      rows.sort(([one], [other]) => {
        if (!one || !other) return !one - !other; // without a value: last in any order
        return up ? order(one, other) : order(other, one);
      });
      table.tBodies[0].append(...rows.map(([, row]) => row));
      spread(table);
    });
  });
}

// Lists that fold show the entries that match, and what is around them.
function filtered(input) {
  const target = document.getElementById(input.dataset.filter);
  const said = input.closest(".tools").querySelector("output");
  // A number also finds the line of many modules, `layers.{0..11}`.
  const pattern = (word) => new RegExp(
    word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&").replace(/\d+/g, "(?:$&|\\{[^}]*\\})"), "i");
  input.addEventListener("input", () => {
    const patterns = words(input.value).map(pattern);
    let count = 0;
    const entries = [...target.querySelectorAll("[data-text]")];
    for (const entry of entries) {
      entry.hidden = !patterns.every((found) => found.test(entry.dataset.text));
      count += !entry.hidden;
    }
    for (const fold of target.querySelectorAll("details")) {
      const empty = !fold.querySelector("[data-text]:not([hidden])");
      (fold.parentElement.tagName === "LI" ? fold.parentElement : fold).hidden = empty;
      if (patterns.length && !empty) fold.open = true;
    }
    said.textContent = patterns.length ? `${thousands(count)} of ${thousands(entries.length)}` : "";
  });
}

function unfolding(button) {
  const folds = [...document.getElementById(button.dataset.unfold).querySelectorAll("details")];
  const closed = () => folds.some((fold) => !fold.open);
  const label = () => { button.textContent = closed() ? "Expand all" : "Collapse all"; };
  button.addEventListener("click", () => {
    const open = closed();
    for (const fold of folds) fold.open = open;
    label();
  });
  label();
}

// Comparing two versions, as `ckpt diff` does. An entry is [key, dtype, shape, digest].
const text = JSON.stringify;

function compare(before, after) {
  const old = new Map(before.entries.map((entry) => [entry[0], entry]));
  const now = new Map(after.entries.map((entry) => [entry[0], entry]));
  const common = [...old.values()].filter((e) => now.has(e[0])).map((e) => [e, now.get(e[0])]);
  const removed = [...old.values()].filter((e) => !now.has(e[0]));
  const added = [...now.values()].filter((e) => !old.has(e[0]));
  const renamed = alike(removed.filter((e) => e[3]), added.filter((e) => e[3]));
  const gone = new Set(renamed.map(([a]) => a[0]));
  const come = new Set(renamed.map(([, b]) => b[0]));
  const kept = common.filter(([a, b]) => a[1] === b[1] && text(a[2]) === text(b[2]));
  const read = ([a, b]) => a[3] && b[3];
  const changed = kept.filter((pair) => read(pair) && pair[0][3] !== pair[1][3]);
  const keys = new Set(common.map(([a]) => a[0]));
  return {
    removed: removed.filter((e) => !gone.has(e[0])),
    added: added.filter((e) => !come.has(e[0])),
    renamed,
    reshaped: common.filter(([a, b]) => text(a[2]) !== text(b[2])),
    retyped: common.filter(([a, b]) => a[1] !== b[1]),
    changed,
    swapped: swaps(changed),
    same: kept.filter((pair) => read(pair) && pair[0][3] === pair[1][3]),
    unread: kept.filter((pair) => !read(pair)),
    tied: newTies(before.ties, after.ties, keys),
    untied: newTies(after.ties, before.ties, keys),
    files: differing(before.files, after.files),
    records: differing(facts(before, after), facts(after, before)),
  };
}

function alike(ones, others) {
  const partner = new Map(), taken = new Set();
  for (const sameEnd of [true, false]) {
    const kind = ([key, dtype, shape, digest]) =>
      text([digest, dtype, shape, sameEnd ? key.slice(key.lastIndexOf(".") + 1) : null]);
    const waiting = new Map();
    for (const other of others) {
      if (taken.has(other[0])) continue;
      if (!waiting.has(kind(other))) waiting.set(kind(other), []);
      waiting.get(kind(other)).push(other);
    }
    for (const one of ones) {
      if (partner.has(one[0]) || !waiting.get(kind(one))?.length) continue;
      const found = waiting.get(kind(one)).shift();
      partner.set(one[0], found);
      taken.add(found[0]);
    }
  }
  return ones.filter((e) => partner.has(e[0])).map((e) => [e, partner.get(e[0])]);
}

function swaps(changed) {
  const waiting = new Map(), found = [];
  for (const [a, b] of changed) {
    const others = waiting.get(text([b[3], a[3], a[1], a[2]]));
    const mine = text([a[3], b[3], a[1], a[2]]);
    if (others?.length) found.push([others.shift(), a[0]]);
    else waiting.set(mine, [...(waiting.get(mine) ?? []), a[0]]);
  }
  return found;
}

function newTies(before, after, keys) {
  const old = new Map(before);
  const end = (key) => old.get(key) ?? key;
  return after.filter(([key, other]) => keys.has(key) && keys.has(other) && end(key) !== end(other));
}

const facts = (mine, other) => [...mine.made, ...(mine.inside === other.inside ? mine.held : [])];

function differing(before, after) {
  const old = new Map(before), now = new Map(after);
  return [...new Set([...old.keys(), ...now.keys()])]
    .map((name) => [name, old.get(name) ?? null, now.get(name) ?? null])
    .filter(([, a, b]) => text(a) !== text(b));
}

// The page of comparisons. The versions' data are scripts: files have no other way to each other.
const loading = new Map(), found = new Map();
function ckptVersion(data) {
  found.get(data.label)?.(data);
}
function version(label) {
  if (!loading.has(label)) {
    loading.set(label, new Promise((resolve, reject) => {
      found.set(label, resolve);
      const script = document.createElement("script");
      script.src = `${label}.js`;
      script.onerror = () => reject(new Error(`${label}.js cannot be read`));
      document.head.append(script);
    }));
  }
  return loading.get(label);
}

// Controls, and what is invisible, are escaped.
const shown = (value) => String(value).replace(/[\p{C}\p{Zl}\p{Zp}\p{DI}]/gu,
  (char) => `\\u{${char.codePointAt(0).toString(16)}}`);

function element(name, content, style) {
  const made = document.createElement(name);
  if (style) made.className = style;
  if (Array.isArray(content)) made.append(...content);
  else if (content !== undefined) made.textContent = shown(content);
  return made;
}

function comparing() {
  const tools = document.getElementById("compare");
  if (!tools) return;
  const [before, after] = ["before", "after"].map((id) => document.getElementById(id));
  const place = document.getElementById("compared");
  const labels = [...before.options].map((option) => option.value);
  async function show() {
    const [from, to] = [before.value, after.value];
    history.replaceState(null, "", `#${from}..${to}`);
    try {
      const sides = await Promise.all([version(from), version(to)]);
      if (before.value === from && after.value === to) place.replaceChildren(...report(...sides));
    } catch (error) {
      place.replaceChildren(element("p", error.message, "verdict bad"));
    }
  }
  function choose() {
    const [, from, to] = location.hash.match(/^#(v\d+)\.\.(v\d+)$/) ?? [];
    const known = labels.includes(from) && labels.includes(to);
    [before.value, after.value] = known ? [from, to] : [labels[1] ?? labels[0], labels[0]];
    show();
  }
  document.getElementById("swap").addEventListener("click", () => {
    [before.value, after.value] = [after.value, before.value];
    show();
  });
  for (const select of [before, after]) select.addEventListener("change", show);
  addEventListener("hashchange", choose);
  tools.hidden = false;
  choose();
}

const shape = (dimensions) => dimensions.join(" ") || "()";
const NAMES = [
  ["removed", "removed", (e) => [e[0], `${shape(e[2])}  ${e[1]}`]],
  ["added", "added", (e) => [e[0], `${shape(e[2])}  ${e[1]}`]],
  ["renamed", "renamed", ([a, b]) => [b[0], `was ${a[0]}`]],
  ["reshaped", "reshaped", ([a, b]) => [a[0], `${shape(a[2])}  ->  ${shape(b[2])}`]],
  ["retyped", "re-typed", ([a, b]) => [a[0], `${a[1]}  ->  ${b[1]}`]],
  ["changed", "changed", ([a]) => [a[0], `${shape(a[2])}  ${a[1]}`]],
  ["unread", "not compared", ([a]) => [a[0], ""]],
  ["swapped", "swapped", ([a, b]) => [a, `with ${b}`]],
  ["tied", "tied", ([a, b]) => [a, `with ${b}`]],
  ["untied", "untied", ([a, b]) => [a, `from ${b}`]],
];
const MOST = 2000; // keys of a kind

function report(before, after) {
  const found = compare(before, after);
  const differs = NAMES.slice(0, 6).some(([name]) => found[name].length) || found.files.length;
  const count = (list, word) => list.length ? [`${thousands(list.length)} ${word}`] : [];
  const counts = [...NAMES.slice(0, 7).flatMap(([name, word]) => count(found[name], word)),
    ...count(found.files, "side files"), ...count(found.same, "the same")];
  const word = differs ? "differs" : found.unread.length ? "not compared" : "no difference";
  const mood = differs || found.unread.length ? "notable" : "good";
  const verdict = element("p", `${word}: ${counts.join(", ")}`, `verdict ${mood}`);
  const parts = [verdict];
  const metrics = differing(before.metrics, after.metrics).map(([name, a, b]) =>
    [name, rounded(a), rounded(b), a === null || b === null ? "" : (b > a ? "+" : "") + rounded(b - a)]);
  if (metrics.length) parts.push(tabled("metric", metrics, before, after, "change"));
  for (const [name, said, row] of NAMES) {
    if (found[name].length) parts.push(listed(said, found[name].slice(0, MOST).map(row), found[name].length));
  }
  const records = found.records.filter(([name]) => !name.startsWith("metrics."));
  for (const [head, rows] of [["record", records], ["side file", found.files]]) {
    if (rows.length) parts.push(tabled(head, rows, before, after));
  }
  const command = element("pre", [element("code", `ckpt diff ${before.ref} ${after.ref} --values`)]);
  command.tabIndex = 0;
  const more = "In a terminal, also with how far values are apart, and with likely renames:";
  return [...parts, element("p", more), command];
}

function listed(word, rows, total) {
  const list = element("ul", rows.map(([key, how]) => element("li",
    [element("code", key), " ", element("span", how, "quiet")])));
  const summary = element("summary", [`${word} `, element("span", `${thousands(total)}`, "quiet")]);
  const more = total > rows.length ? [element("p", `and ${thousands(total - rows.length)} more`, "quiet")] : [];
  const fold = element("details", [summary, list, ...more]);
  fold.open = rows.length <= 40;
  return element("div", [fold], "groups");
}

const rounded = (value) => value === null ? "" : String(Number(value.toPrecision(6)));

function tabled(head, rows, before, after, ...more) {
  const cell = (value) => element("td", value === null ? "" : typeof value === "string" ? value : text(value), "code");
  const heads = [head, before.label, after.label, ...more].map((name) => {
    const made = element("th", name);
    made.scope = "col";
    return made;
  });
  const body = rows.map(([name, ...values]) =>
    element("tr", [element("td", name, "code"), ...values.map(cell)]));
  const table = element("table", [element("thead", [element("tr", heads)]), element("tbody", body)]);
  const region = element("div", [table], "scroll");
  region.tabIndex = 0;
  region.setAttribute("role", "region");
  region.setAttribute("aria-label", `Differing: ${head}`);
  return region;
}

document.addEventListener("DOMContentLoaded", () => {
  themes();
  for (const tools of document.querySelectorAll(".tools:not(#compare)")) tools.hidden = false;
  for (const table of document.querySelectorAll("table.rows")) { searched(table); sorted(table); }
  for (const input of document.querySelectorAll("[data-filter]")) filtered(input);
  for (const button of document.querySelectorAll("[data-unfold]")) unfolding(button);
  comparing();
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.target.matches("input, select, textarea")) return;
    const search = document.querySelector('input[type="search"]');
    if (search) { event.preventDefault(); search.focus(); }
  });
});
