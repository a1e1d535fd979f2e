// The parts of an order's page that change are fetched again while the page is looked at. What was opened stays open.

const GAP_MS = 4000;
const live = document.getElementById("live");
const { copyButtons, localTimes } = await import(live.dataset.ops);  // by its own address: one module, run once
let tag = live.dataset.tag;

function show(html) {
  const open = new Set([...live.querySelectorAll("details[open]")].map((one) => one.dataset.key));
  const focused = document.activeElement?.closest?.("details")?.dataset.key;
  live.innerHTML = html;
  for (const one of live.querySelectorAll("details")) {
    if (open.has(one.dataset.key)) one.open = true;
    if (focused !== undefined && one.dataset.key === focused) one.querySelector("summary").focus();
  }
  localTimes(live);
  copyButtons(live);
}

async function look() {
  if (document.hidden) return true;
  const response = await fetch(live.dataset.live, { headers: { "If-None-Match": tag }, redirect: "error" });
  if (response.status === 200) {
    tag = response.headers.get("ETag") ?? "";
    show(await response.text());
  }
  return response.ok || response.status === 304 || response.status >= 500;
}

async function keepLooking() {
  const goesOn = await look().catch(() => true);
  if (goesOn) setTimeout(keepLooking, GAP_MS);
}

setTimeout(keepLooking, GAP_MS);
