// The service worker of the order pages: without a network, or with a server that answers 5xx, a reload shows the shell,
// which says "Payment processing" from what the browser remembers, instead of the browser's error page.
// It keeps files only: what an order's state is always comes from the network.
"use strict";

const VERSION = __VERSION__;
const FILES = __ASSETS__;
const SHELL = "/o/shell";
const CACHE = "nodrop-" + VERSION;
const PAGE = /^\/o\/[0-9A-Za-z_-]{16,64}(\/return)?$/;
const PATIENCE_MS = 8000; // a network that swallows everything must not leave the reader without a page

self.addEventListener("install", (event) => {
  event.waitUntil(keepFiles().then(() => self.skipWaiting()));
});

self.addEventListener("activate", (event) => {
  event.waitUntil(dropOldCaches().then(() => self.clients.claim()));
});

self.addEventListener("fetch", (event) => {
  const { request } = event;
  const url = new URL(request.url);
  if (request.method !== "GET" || url.origin !== self.location.origin) {
    return;
  }
  if (request.mode === "navigate" && PAGE.test(url.pathname)) {
    event.respondWith(pageOrShell(request));
  } else if (FILES.includes(url.pathname)) {
    event.respondWith(caches.match(url.pathname).then((kept) => kept || fetch(request)));
  }
});

// During a deploy a process of the release before answers as well, with files of its own. They are not kept under the names of
// this release: it fails, and the next visit installs it again.
async function keepFiles() {
  const names = [SHELL, ...FILES];
  const [shell, ...files] = await Promise.all(names.map((name) => fetch(name)));
  const html = await shell.clone().text();
  if (!FILES.every((name, at) => html.includes(name) && isOwn(files[at]))) {
    throw new Error("another release");
  }
  const cache = await caches.open(CACHE);
  await Promise.all([shell, ...files].map((response, at) => cache.put(names[at], response)));
}

// Only a file under its own name may be kept for ever.
function isOwn(file) {
  return file.ok && /immutable/.test(file.headers.get("cache-control"));
}

async function dropOldCaches() {
  const names = await caches.keys();
  const old = names.filter((name) => name.startsWith("nodrop-") && name !== CACHE);
  await Promise.all(old.map((name) => caches.delete(name)));
}

async function pageOrShell(request) {
  let late;
  const patience = new Promise((resolve) => {
    late = setTimeout(resolve, PATIENCE_MS);
  });
  try {
    const response = await Promise.race([fetch(request), patience]);
    if (response && response.status < 500) {
      return response;
    }
  } catch {
    // no network: the shell
  } finally {
    clearTimeout(late);
  }
  return (await caches.match(SHELL)) || Response.error();
}
