// The parts of an order's page that change are fetched again while the page is looked at. What was opened stays open,
// and what has the focus keeps it.

const GAP_MS = 4000;
const live = document.getElementById("live");
const { morph, parse } = await import(live.dataset.ops);  // by its own address: one module, run once
let tag = live.dataset.tag;

async function look() {
  if (document.hidden) return true;
  const response = await fetch(live.dataset.live, { headers: { "If-None-Match": tag }, redirect: "error" });
  if (response.status === 200) {
    tag = response.headers.get("ETag") ?? "";
    morph(live, parse(await response.text()));
  }
  return response.ok || response.status === 304 || response.status >= 500;
}

async function keepLooking() {
  const goesOn = await look().catch(() => true);
  if (goesOn) setTimeout(keepLooking, GAP_MS);
}

setTimeout(keepLooking, GAP_MS);
