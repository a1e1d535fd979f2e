// The inbox by keyboard: j and k move the focus along the cases, Enter follows the link, a takes the case, r resolves it,
// ? shows the keys. Nothing is caught with Ctrl, Alt or Meta, nor in a field, so no key of a browser or of a reader of
// screens is lost, and Tab goes on as everywhere.

const links = [...document.querySelectorAll("tr[data-case] a[data-open]")];
const isTyping = (target) => target.closest("input, select, textarea, [contenteditable]") !== null;

function current() {
  const row = document.activeElement?.closest("[data-case]");
  return row ?? (links.length ? null : document.querySelector("[data-case]"));
}

function move(step) {
  const at = links.indexOf(current()?.querySelector("a[data-open]"));
  const next = at < 0 ? (step > 0 ? 0 : links.length - 1) : Math.min(links.length - 1, Math.max(0, at + step));
  links[next]?.focus();
}

function assign() {
  const form = (links.length ? current() : document)?.querySelector("form[data-assign]");
  form?.requestSubmit();
}

function resolve() {
  const row = current();
  const link = document.querySelector("a[data-resolve]");
  if (link) location.assign(link.href);
  else if (row && links.length) location.assign(`/ops/cases/${encodeURIComponent(row.dataset.case)}/resolve`);
}

function help() {
  const keys = document.getElementById("keys");
  keys.open = !keys.open;
  if (keys.open) keys.querySelector("summary").focus();
}

const KEYS = { j: () => move(1), k: () => move(-1), a: assign, r: resolve, "?": help };

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.isComposing || isTyping(event.target)) return;
  const act = Object.hasOwn(KEYS, event.key) ? KEYS[event.key] : null;
  if (!act) return;
  event.preventDefault();
  act();
});
