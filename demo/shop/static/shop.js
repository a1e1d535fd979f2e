// Reads an open page again every two seconds, and shows what changed. Without it the browser reloads the page.
"use strict";

const live = document.getElementById("live");

async function readAgain() {
  if (!("open" in live.dataset)) return;
  try {
    if (document.visibilityState === "visible") show(await (await fetch(location.href)).text());
  } catch {
    // The shop does not answer: try again.
  }
  setTimeout(readAgain, 2000);
}

function show(html) {
  const next = new DOMParser().parseFromString(html, "text/html").getElementById("live");
  if (!next) return;
  const details = live.querySelector("details"), focused = document.activeElement?.id;
  if (details?.open) next.querySelector("details")?.setAttribute("open", "");
  live.toggleAttribute("data-open", "open" in next.dataset);
  if (next.innerHTML === live.innerHTML) return;
  live.replaceChildren(...next.childNodes);
  if (focused) document.getElementById(focused)?.focus();
}

setTimeout(readAgain, 2000);
