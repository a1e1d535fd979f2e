// An order's page: what it shows of its own order and of the browser's other ones. All watching is done by the module
// that shops embed as well.
import { rememberedOrders, watchOrder } from "__MODULE__";

const TEXTS = __TEXTS__;
const TOKEN = /^\/o\/([0-9A-Za-z_-]{16,64})(?:\/return)?$/;
const DEFINITE = ["paid", "closed", "refunded", "disputed"];

const byId = (id) => document.getElementById(id);
const page = byId("order");
const token = page.dataset.token || (TOKEN.exec(location.pathname) || [])[1] || "";
const isShell = !page.dataset.token || page.dataset.version === "0";
const lang = isShell ? read("localStorage", "nodrop.lang") || language() : document.documentElement.lang;
const texts = TEXTS[lang] || TEXTS.en;
const button = byId("refresh").querySelector("button");

let order = null;
let shown = { version: Number(page.dataset.version), phase: page.dataset.phase };
const first = shown;

// -- what the browser keeps for the page; it may refuse even to be asked --------------------------------------------------

function read(kind, name) {
  try {
    return JSON.parse(window[kind].getItem(name));
  } catch {
    return null;
  }
}

function write(kind, name, value) {
  try {
    window[kind].setItem(name, JSON.stringify(value));
  } catch {
    // full or blocked: the page works without
  }
}

function language() {
  const wanted = (navigator.languages || []).map((each) => each.slice(0, 2).toLowerCase());
  return wanted.find((each) => each in TEXTS) || "en";
}

// -- this order --------------------------------------------------------------------------------------------------------

// A text is only set when it differs, so that a screen reader does not read it again.
function put(element, text) {
  if (element.textContent !== text) {
    element.textContent = text;
  }
}

function titleOf(state) {
  return texts[state.phase] || texts[state.status];
}

// In the reader's way; a server of before has not sent it.
function amountOf(state) {
  return state.amount_shown || state.amount_text;
}

// The server may have rendered a doubt that the state does not have: within that version the page begins no wait. And while
// the page's address is that of a return, nobody may have noted it: the network or the database was gone. Then it comes again.
function withDoubt(state) {
  if (state.phase !== "waiting") {
    return state;
  }
  if (location.pathname.endsWith("/return")) {
    return { ...state, phase: "processing" };
  }
  return state.version === first.version ? { ...state, phase: first.phase } : state;
}

function show(received) {
  const state = withDoubt(received);
  const hadFocus = document.activeElement === button;
  put(byId("net"), texts[state.net] || "");
  page.dataset.status = state.status;
  page.dataset.phase = state.phase || state.status;
  page.dataset.version = state.version;
  document.title = titleOf(state);
  put(byId("title"), titleOf(state));
  put(byId("note"), texts[`${state.phase}_note`] || texts[`${state.status}_note`]);
  if (!byId("amount").textContent.trim() && state.subject) {
    put(byId("subject").firstElementChild, state.subject);
    put(byId("amount"), amountOf(state)); // the shell has none; the server's is in the reader's way
  }
  showTime(state.paid_at);
  byId("refresh").hidden = Boolean(state.definite) && state.status !== "closed"; // money may come after the close
  if (hadFocus && byId("refresh").hidden) {
    byId("title").tabIndex = -1;
    byId("title").focus();
  }
  if (state.definite) {
    write("sessionStorage", `nodrop.${token}`, state); // for a reload of this tab without a network
  }
  if (drawnVersion === 0) {
    begin(state);
  } else if (state.version > drawnVersion) {
    renew();
  }
  shown = state;
}

// The reader's own time, without the date on the day of `now`. Null where the browser's locale is none ("en-US@posix").
function localTime(at, now) {
  try {
    const locale = (navigator.language || "").startsWith(lang) ? navigator.language : lang;
    const when = new Date(at);
    const isToday = now && when.toDateString() === now.toDateString();
    return when.toLocaleString(locale, { dateStyle: isToday ? undefined : "medium", timeStyle: "short" });
  } catch {
    return null; // refused by Intl
  }
}

function showTime(at) {
  if (at) {
    put(byId("when"), localTime(at) || `${at.slice(0, 16).replace("T", " ")} UTC`);
  }
}

// Money that goes back: since when.
function showReturnTimes() {
  document.querySelectorAll("#going-back time").forEach((time) => put(time, localTime(time.dateTime) || time.textContent));
}

// The state that the server rendered.
function rendered() {
  const time = byId("when").querySelector("time");
  return {
    status: page.dataset.status,
    phase: page.dataset.phase,
    version: Number(page.dataset.version),
    subject: byId("subject").textContent.trim(),
    amount_text: byId("amount").textContent.trim(),
    paid_at: time ? time.dateTime : null,
    definite: DEFINITE.includes(page.dataset.status),
  };
}

// -- the button: never `disabled`, or it would lose the focus ----------------------------------------------------------

function rest(seconds) {
  const left = Math.ceil(seconds || 0);
  button.setAttribute("aria-disabled", left > 0);
  put(button, left > 0 ? texts.check_in.replace("{s}", left) : texts.check);
  if (left > 0) {
    setTimeout(rest, 1000, left - 1);
  }
}

async function check(event) {
  event.preventDefault();
  if (button.getAttribute("aria-disabled") !== "true") {
    button.setAttribute("aria-disabled", "true");
    put(button, texts.checking);
    const state = await order.refresh();
    rest(state.net ? 3 : state.retry_after_s);
  }
}

// -- paying from the page: its section comes anew from the server --------------------------------------------------------

let drawnVersion = isShell ? 0 : first.version; // of the section: an older one, which may come late, is dropped

// `takesSame`: also of the same version, for the buyer has chosen another way, or a link has ended.
async function renew(from = location.href, request = {}, takesSame = false) {
  try {
    const response = await fetch(from, { ...request, headers: { accept: "text/html" }, cache: "no-store" });
    const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
    const main = fresh.getElementById("order");
    if (!response.ok || !main || main.dataset.token !== token) {
      return false; // not this page: a router's own, the shell, or one that could not be read
    }
    const version = Number(main.dataset.version);
    if (version < drawnVersion || (version === drawnVersion && !takesSame)) {
      return true;
    }
    drawnVersion = version;
    const address = new URL(response.url); // it names the way that was chosen
    address.searchParams.delete("error");
    history.replaceState(null, "", address);
    document.querySelectorAll("#pay, [data-fresh][id]").forEach((old) => replace(old, fresh.getElementById(old.id)));
    readClock(main);
    showReturnTimes();
    countDown();
    return true;
  } catch {
    return false; // the network is gone; what is shown stays
  }
}

// The shell gets its section once the network is back. At the address of a return this is the return, made again.
let isBeginning = false;

async function begin(state) {
  if (order && !state.net && !isBeginning) {
    isBeginning = true;
    await renew();
    isBeginning = false;
  }
}

// The focus goes on to the same control, or to what can be done now.
function replace(old, fresh) {
  const focused = old.contains(document.activeElement) ? document.activeElement : null;
  if (fresh) {
    old.replaceWith(document.adoptNode(fresh));
  } else {
    old.textContent = "";
  }
  if (focused) {
    const next = (focused.id && byId(focused.id)) || (fresh && fresh.querySelector("a, button, input, summary"));
    byId("title").tabIndex = -1;
    (next || byId("title")).focus();
  }
}

async function sendPay(event) {
  const form = event.target;
  if (!form.closest("#pay") || !/\/pay(?:\?|$)/.test(form.action)) {
    return;
  }
  event.preventDefault();
  if (form.getAttribute("aria-busy") === "true") {
    return;
  }
  form.setAttribute("aria-busy", "true");
  const body = new URLSearchParams(new FormData(form));
  const { name, value } = form.querySelector("button"); // the only one; older browsers do not say which was pressed
  body.set(name, value);
  const isRenewed = await renew(form.action, { method: "POST", body }, true);
  form.removeAttribute("aria-busy");
  put(byId("net"), isRenewed ? "" : texts[navigator.onLine ? "unreachable" : "offline"]);
}

// Inside WeChat its own sheet opens over the page. What it returns is no evidence: it is a return, and the channel is asked.
function callWeChat(event) {
  const call = event.target.closest("#pay-call");
  if (!call) {
    return;
  }
  const back = () => location.assign(`/o/${token}/return${location.search}`);
  const invoke = () => WeixinJSBridge.invoke("getBrandWCPayRequest", JSON.parse(call.dataset.call), back);
  if (typeof WeixinJSBridge === "undefined") {
    document.addEventListener("WeixinJSBridgeReady", invoke, { once: true });
  } else {
    invoke();
  }
}

// The reader's clock may be wrong by a day, so what is left is counted by the server's, as the page has it. A difference of
// less than a minute may be the time that the page took to come.
const CLOCK_MS = 60000;
let aheadMs = 0;

function readClock(main) {
  const difference = Date.now() - Date.parse(main.dataset.now);
  aheadMs = Math.abs(difference) > CLOCK_MS ? difference : 0;
}

// A section that is over when it comes must not lead to the next one at once.
const RENEW_PAUSE_MS = 30000;
let mayRenew = true;

// <time data-countdown datetime> says until when; what is left is put behind it, and at its end the section is renewed.
function countDown() {
  let isRunning = false;
  let isOver = false;
  for (const time of document.querySelectorAll("time[data-countdown]")) {
    const now = Date.now() - aheadMs;
    time.dataset.countdown = time.dataset.countdown || localTime(time.dateTime, new Date(now)) || time.textContent;
    const left = Math.ceil((Date.parse(time.dateTime) - now) / 1000);
    if (left > 0) {
      isRunning = true;
      put(time, `${time.dataset.countdown} (${clock(left)})`);
    } else {
      isOver = true;
      put(time, time.dataset.countdown);
    }
  }
  clearTimeout(countDown.timer);
  countDown.timer = isRunning ? setTimeout(countDown, 1000) : 0;
  if (isOver && mayRenew) {
    mayRenew = false;
    setTimeout(mayRenewAgain, RENEW_PAUSE_MS);
    renew(location.href, {}, true);
  }
}

function mayRenewAgain() {
  mayRenew = true;
  countDown();
}

// 3661 → "1:01:01", 61 → "1:01"
function clock(seconds) {
  const parts = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
  const shownParts = parts[0] ? parts : parts.slice(1);
  return shownParts.map((part, index) => (index ? String(part).padStart(2, "0") : part)).join(":");
}

// -- other orders of this browser ----------------------------------------------------------------------------------------

const rows = new Map();

function showOther(state) {
  if (state.token === token || (!rows.has(state.token) && !state.subject)) {
    return;
  }
  if (!rows.has(state.token)) {
    const row = document.createElement("li");
    const link = Object.assign(document.createElement("a"), { href: `/o/${state.token}` });
    link.append(document.createElement("bdi"), document.createElement("span"));
    link.lastElementChild.className = "state";
    row.append(link);
    byId("others").lastElementChild.append(row);
    byId("others").hidden = false;
    rows.set(state.token, row);
  }
  const row = rows.get(state.token);
  row.dataset.status = state.status;
  put(row.querySelector("bdi"), `${state.subject} · ${amountOf(state)}`);
  put(row.querySelector("span"), titleOf(state));
}

// -- start -------------------------------------------------------------------------------------------------------------

function translateShell() {
  document.documentElement.lang = lang;
  put(button, texts.check);
  put(byId("others").firstElementChild, texts.others);
  byId("language").hidden = true;
}

function start() {
  document.documentElement.dataset.live = "";
  if (isShell) {
    translateShell();
  } else {
    write("localStorage", "nodrop.lang", lang);
  }
  document.addEventListener("nodrop-order", (event) => showOther(event.detail));
  Object.entries(rememberedOrders()).forEach(([name, known]) => showOther({ ...known, token: name }));
  if (!token) {
    return;
  }
  const seen = read("sessionStorage", `nodrop.${token}`);
  const known = rendered();
  byId("refresh").addEventListener("submit", check);
  document.addEventListener("submit", sendPay);
  document.addEventListener("click", callWeChat);
  rest(Number(page.dataset.retryAfter));
  readClock(page);
  showReturnTimes();
  countDown();
  order = watchOrder({ token, known: seen && seen.version > known.version ? seen : known, onChange: show });
  if ("serviceWorker" in navigator) {
    navigator.serviceWorker.register("/o/sw.js", { scope: "/o/" }).catch(() => {});
  }
}

start();
