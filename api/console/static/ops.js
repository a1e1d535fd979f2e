// What every page of the console has: times in the reader's zone, buttons that copy, and parts that change in place.

const drift = Date.now() - Date.parse(document.body.dataset.now);
// Swedish is written as ISO 8601 has it, in any zone: 2026-11-27 14:05:09. No reader takes the month for the day.
const zoned = new Intl.DateTimeFormat("sv-SE", { dateStyle: "short", timeStyle: "medium" });
const clock = new Intl.DateTimeFormat("sv-SE", { timeStyle: "medium" });

export function localTimes(root = document) {
  for (const time of root.querySelectorAll("time:not([data-ago]):not([data-until]):not([data-utc])")) {
    const at = new Date(time.dateTime);
    const isToday = at.toDateString() === new Date(Date.now() - drift).toDateString();
    time.title = time.dateTime.replace("T", " ").replace("Z", " UTC");
    time.textContent = (isToday ? clock : zoned).format(at);
    time.dataset.utc = "";
  }
}

export function copyButtons(root = document) {
  if (!navigator.clipboard) return;
  for (const button of root.querySelectorAll("button[data-copy]")) button.classList.remove("unready");
}

// Give `old` the content of `fresh` node by node: what is the same stays the same element, so the focus, a selection,
// what was scrolled and what was opened stay too. An open <details> is the reader's, never the server's. Space between
// elements counts for nothing.
export function morph(old, fresh) {
  const rest = [...old.childNodes].filter(isSeen);
  const coming = [...fresh.childNodes].filter(isSeen);
  while (coming.length) {
    const node = coming.shift();
    const at = isAlike(rest[0], node) ? 0 : rest.findIndex((each) => keyOf(each) && isAlike(each, node));
    if (at >= 0) {
      for (const gone of rest.splice(0, at)) gone.remove();
      update(rest.shift(), node);
    } else if (rest.length && !(keyOf(rest[0]) && coming.some((each) => isAlike(rest[0], each)))) {
      rest.shift().replaceWith(node);
    } else {
      const place = rest[0] ?? null;
      old.insertBefore(node, place);
      old.insertBefore(document.createTextNode(" "), place);
    }
  }
  for (const gone of rest) gone.remove();
}

const isSeen = (node) => node.nodeType === Node.ELEMENT_NODE || node.nodeValue.trim() !== "";
const keyOf = (node) => node.id || node.dataset?.key || "";

function isAlike(one, other) {
  return one !== undefined && one.nodeName === other.nodeName && keyOf(one) === keyOf(other);
}

function update(was, node) {
  if (was.nodeType !== Node.ELEMENT_NODE) {
    if (was.nodeValue !== node.nodeValue) was.nodeValue = node.nodeValue;
    return;
  }
  copyAttributes(was, node);
  morph(was, node);
}

function copyAttributes(was, node) {
  const kept = was.nodeName === "DETAILS" ? "open" : null;
  for (const { name } of [...was.attributes]) if (name !== kept && !node.hasAttribute(name)) was.removeAttribute(name);
  for (const { name, value } of node.attributes) if (name !== kept && was.getAttribute(name) !== value) was.setAttribute(name, value);
}

// The nodes of a fragment, as they are to be seen.
export function parse(html) {
  const fresh = new DOMParser().parseFromString(html, "text/html");
  localTimes(fresh);
  copyButtons(fresh);
  return fresh.body;
}

addEventListener("click", async (event) => {
  const button = event.target.closest?.("button[data-copy]");
  if (!button) return;
  await navigator.clipboard.writeText(button.dataset.copy);
  const text = button.textContent;
  button.textContent = "✓";
  setTimeout(() => { button.textContent = text; }, 1500);
});

// A form is sent once: a second click on a slow page is no second act.
addEventListener("submit", (event) => {
  if (event.target.dataset.sent !== undefined) return event.preventDefault();
  event.target.dataset.sent = "";
});
addEventListener("pageshow", () => {
  for (const form of document.querySelectorAll("form[data-sent]")) delete form.dataset.sent;
});

localTimes();
copyButtons();

// What waits for people is counted beside the navigation of every page, and in the title where that is about it. A page
// that a form has led to comes without counts, and gets them at once.
const COUNT_MS = 30_000;
const places = document.getElementById("places");
let nextCount = 0;

function showCounts(counts) {
  for (const old of places.querySelectorAll(".count")) if (!counts.some((each) => each.isEqualNode(old))) old.remove();
  for (const each of counts) {
    const link = places.querySelector(`a[data-go="${each.dataset.count}"]`);
    if (!link.querySelector(".count")) link.append(each);
  }
  const here = places.querySelector('[aria-current="page"] .count')?.firstChild.data ?? "";
  document.title = `${here && `(${here}) `}${document.title.replace(/^\(\d+\+?\) /, "")}`;
}

async function count() {
  const response = await fetch(places.dataset.address, { headers: { accept: "text/html" }, redirect: "error" }).catch(() => null);
  if (response?.ok) showCounts([...parse(await response.text()).querySelectorAll(".count")]);
  if (response?.status !== 401) planCount(COUNT_MS);
}

function planCount(inMs) {
  clearTimeout(nextCount);
  if (document.visibilityState === "visible") nextCount = setTimeout(count, inMs);
}

if (places) {
  document.addEventListener("visibilitychange", () => planCount(0));
  planCount(places.dataset.counted === undefined ? 0 : COUNT_MS);
}
