// A page that is kept current: the parts of a fragment change in place, so the focus and what was scrolled stay. A part
// with an open table or with selected text waits; a page that is not seen rests.

// The address of that module holds a hash of its content, so it is read from the page.
const { morph, parse } = await import(document.querySelector('script[src*="/ops."]').src);

const live = document.querySelector("[data-live]");
const button = document.querySelector("[data-pause]");
const every = Number(live?.dataset.every ?? 5) * 1000;
let isPaused = false;
let timer = 0;
let failed = 0;

function isBusy(part) {
  const selection = document.getSelection();
  return part.querySelector("details[open]") !== null
    || (selection !== null && !selection.isCollapsed && part.contains(selection.anchorNode));
}

function replaceParts(html) {
  for (const part of parse(html).querySelectorAll("[data-part]")) {
    const old = live.querySelector(`[data-part="${part.dataset.part}"]`);
    if (old && !isBusy(old)) morph(old, part);
  }
}

async function refresh() {
  try {
    const response = await fetch(live.dataset.live, { headers: { accept: "text/html" } });
    if (response.status === 401) return location.reload();
    if (!response.ok) throw new Error(String(response.status));
    replaceParts(await response.text());
    failed = 0;
  } catch {
    failed += 1;
  }
  plan();
}

function plan() {
  clearTimeout(timer);
  if (!isPaused && document.visibilityState === "visible") timer = setTimeout(refresh, every * Math.min(12, 2 ** failed));
}

function show() {
  button.textContent = isPaused ? button.dataset.off : button.dataset.on;
  button.setAttribute("aria-pressed", String(isPaused));
}

if (live) {
  if (button) {
    show();
    button.classList.remove("unready");
    button.addEventListener("click", () => {
      isPaused = !isPaused;
      show();
      plan();
    });
  }
  document.addEventListener("visibilitychange", () => (document.visibilityState === "visible" ? refresh() : clearTimeout(timer)));
  plan();
}
