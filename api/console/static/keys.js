// The console by keyboard: ? lists the keys, / goes to the search, g and a letter to a page, j and k along a list, Enter
// follows as everywhere, Esc leaves. A page adds keys by `data-press`. Nothing is caught with Ctrl, Alt or Meta, in a
// field, or while a dialog is open, so no key of a browser or of a reader of screens is lost, and Tab goes on as
// everywhere.

const GO_MS = 2000;
const ROWS = "main tbody tr, main .story > li";
const TARGET = "a[href], summary";
const FIELDS = "input, select, textarea, [contenteditable]";

const keys = document.getElementById("keys");
let goSince = -Infinity;

const targets = () => [...document.querySelectorAll(ROWS)].map((row) => row.querySelector(TARGET)).filter((each) => each?.checkVisibility());
const currentRow = () => document.activeElement?.closest(ROWS) ?? null;

function move(step) {
  const links = targets();
  const at = links.indexOf(currentRow()?.querySelector(TARGET));
  const next = at < 0 ? (step > 0 ? 0 : links.length - 1) : Math.min(links.length - 1, Math.max(0, at + step));
  links[next]?.focus();
}

function search() {
  const field = document.querySelector("main input[type=search]") ?? document.getElementById("find");
  field?.focus();
  field?.select();
}

// What somebody has begun to write is not left by a key.
const hasBegun = () => [...document.querySelectorAll("main input, main textarea")].some((field) => field.value !== field.defaultValue);

function leave() {
  if (currentRow()) return document.getElementById("main").focus({ preventScroll: true });
  const up = document.querySelector(".crumbs li:last-child a");
  if (up && !hasBegun()) up.click();
}

function go(letter) {
  const link = document.querySelector(`a[data-go="${CSS.escape(letter)}"]`);
  link?.click();
}

// A key of this page is for the row that has the focus; without a list, for the page.
function press(key) {
  const row = currentRow();
  const place = row ?? (document.querySelector("main tr[data-row]") ? null : document.querySelector("main"));
  const found = place?.querySelector(`[data-press="${CSS.escape(key)}"]`);
  if (found instanceof HTMLFormElement) found.requestSubmit();
  else if (found) found.click();
  else if (key === "r" && row?.dataset.resolve) location.assign(row.dataset.resolve);
  else return false;
  return true;
}

const KEYS = { j: () => move(1), k: () => move(-1), "/": search, "?": () => keys.showModal(), Escape: leave };

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.isComposing) return;
  if (keys.open) {
    if (event.key === "?") keys.close();
    return;
  }
  if (event.target.closest(FIELDS) || document.querySelector(":popover-open")) return;
  const isGoing = event.timeStamp - goSince < GO_MS;
  goSince = event.key === "g" ? event.timeStamp : -Infinity;
  if (event.key === "g") return;
  if (isGoing && /^[a-z]$/.test(event.key)) return go(event.key);
  if (Object.hasOwn(KEYS, event.key)) KEYS[event.key]();
  else if (!/^[a-z]$/.test(event.key) || !press(event.key)) return;
  event.preventDefault();
});

for (const button of document.querySelectorAll("[data-keys]")) {
  button.classList.remove("unready");
  button.addEventListener("click", () => keys.showModal());
}
keys.querySelector("[data-close]").addEventListener("click", () => keys.close());
keys.addEventListener("click", (event) => { if (event.target === keys) keys.close(); });
