// The state of an order in a web page until it is definite: by server-sent events, else by polling. No network error,
// foreign answer or blocked storage is ever a state.

const STORE = "nodrop.orders";
const KEPT_MAX = 20;
const KEPT_MS = 90 * 86400000; // as a page's token
const PAUSES_MS = [2000, 3000, 5000, 8000, 13000, 20000];
const FRESH_MS = 20000; // a stream beats every 15 s
const FETCH_MS = 15000;
const LEASE_MS = 9000;
const SILENT_MS = 60000; // the tab that speaks may be frozen
const STREAMS_MAX = 3; // of a browser's six connections to a server
const STATUSES = ["created", "processing", "paid", "closed", "review", "refunded", "disputed"];
const ADDRESS = /^(.*)\/o\/([0-9A-Za-z_-]{16,64})(?:\/return)?\/?$/;
const SERVER = new URL("../..", import.meta.url).href.slice(0, -1); // …/sdk/1.0.0/order-status.js
const TAB = Math.random().toString(36).slice(2);

const hasPage = typeof document === "object"; // a shop's server may import this file
const isVisible = () => document.visibilityState === "visible";
const watches = new Map(); // by token

// Storage, channels and locks throw where site data is blocked.
function attempt(act) {
  try {
    return act();
  } catch {
    return null;
  }
}

// -- what the browser remembers ----------------------------------------------------------------------------------------

const read = (name) => attempt(() => JSON.parse(localStorage.getItem(name)));
const write = (name, value) => attempt(() => localStorage.setItem(name, JSON.stringify(value)));

/** The orders of this origin that are not definite yet: state by token. */
export function rememberedOrders() {
  const kept = Object.entries(read(STORE) || {}).filter(
    ([token, known]) => ADDRESS.test(`/o/${token}`) && known && STATUSES.includes(known.status) && Date.now() - known.at < KEPT_MS,
  );
  return Object.fromEntries(kept.sort((a, b) => b[1].at - a[1].at).slice(0, KEPT_MAX));
}

function remember(token, known) {
  const orders = rememberedOrders();
  delete orders[token];
  write(STORE, known ? { [token]: known, ...orders } : orders);
}

// -- one order ---------------------------------------------------------------------------------------------------------

class Watch {
  constructor(url, token, known) {
    this.url = url;
    this.token = token;
    this.known = { status: "processing", version: 0, definite: false, at: Date.now(), ...known, url, token };
    this.net = ""; // or "offline", "unreachable", "gone"
    this.listeners = new Set();
    this.isFront = false; // shown by this page, not only remembered
    this.isOver = Boolean(this.known.definite);
    this.speaks = false; // this tab asks, others listen to it
    this.asksChannel = false;
    this.tries = 0;
    this.pauseMs = 0; // that the server has asked for
    this.heardAt = 0;
    this.after = "";
  }

  get state() {
    return { ...this.known, net: this.net };
  }

  // A state from the network or another tab, unless it is older than the known one.
  take(received, isFromNetwork) {
    if (!received || !STATUSES.includes(received.status) || !(received.version >= this.known.version)) {
      return;
    }
    const { url, token, notify } = this.known; // as the page wrote it
    const wasOver = this.isOver;
    this.known = { ...received, url, token, notify, at: Date.now() };
    this.isOver = Boolean(received.definite);
    this.net = "";
    remember(token, this.isOver ? null : this.known);
    if (isFromNetwork) {
      attempt(() => channel.postMessage(this.known));
    }
    if (this.isOver) {
      this.rest(); // before anything is shown: what shows it may throw
      if (!wasOver && isFromNetwork && notify) {
        attempt(() => inform(this.known));
      }
    } else if (wasOver) {
      this.claim();
    }
    this.tell();
  }

  tell() {
    for (const show of [...this.listeners, emit]) {
      try {
        show(this.state);
      } catch (error) {
        setTimeout(() => { throw error; });
      }
    }
  }

  say(net) {
    if (this.net !== net) {
      this.net = net;
      this.tell();
    }
  }

  // One request; its outcome is told, never thrown.
  async ask(asksChannel) {
    const abort = new AbortController();
    const limit = setTimeout(() => abort.abort(), FETCH_MS);
    this.pauseMs = 0;
    try {
      const response = await fetch(`${this.url}/o/${this.token}/${asksChannel ? "refresh" : "status"}`, {
        method: asksChannel ? "POST" : "GET",
        headers: { accept: "application/json" },
        cache: "no-store",
        signal: abort.signal,
      });
      this.pauseMs = Math.min(Number(response.headers.get("retry-after")) || 0, 30) * 1000;
      this.judge(response, await response.json(), asksChannel);
    } catch {
      this.say(navigator.onLine ? "unreachable" : "offline");
    }
    clearTimeout(limit);
  }

  judge(response, body, asksChannel) {
    if (response.ok && STATUSES.includes(body.status)) {
      this.asksChannel = this.asksChannel && !asksChannel;
      this.say("");
      this.take(body, true);
    } else if (response.status === 404 && /\/problems\/not_found$/.test(body.type)) {
      this.isOver = true; // ours, not a router's during a deploy
      this.rest();
      remember(this.token, null);
      this.say("gone");
    } else if (response.status !== 429) {
      this.say("unreachable");
    }
  }

  // -- turns

  again(isNow) {
    clearTimeout(this.timer);
    if ((this.speaks || isVisible()) && !this.isOver) {
      const pause = this.speaks ? Math.max(PAUSES_MS[this.tries] || 30000, this.pauseMs) : SILENT_MS;
      this.timer = setTimeout(() => this.turn(), isNow && this.speaks ? 0 : pause * (0.75 + Math.random() / 2));
    }
  }

  async turn() {
    const silence = Math.abs(Date.now() - this.heardAt); // the clock may be set
    const isOpen = this.source && this.source.readyState === 1;
    if (isOpen && silence < FRESH_MS && !this.asksChannel) {
      this.tries = 0;
    } else {
      this.tries += 1;
      if (isOpen && silence > 2 * FRESH_MS) {
        this.deafen();
      }
      this.listen();
      await this.ask(this.asksChannel && !this.pauseMs);
    }
    this.again();
  }

  wake() {
    this.tries = this.pauseMs = this.heardAt = 0;
    this.asksChannel = this.isFront && isVisible();
    this.claim();
    this.again(true);
  }

  // -- the stream: in front alone

  listen() {
    if (this.isFront && this.speaks && !this.isOver && !this.source && isVisible() && self.EventSource) {
      takePlace(0, () => new Promise((leave) => this.open(leave)));
    }
  }

  open(leave) {
    if (this.source || !this.speaks || !isVisible()) {
      leave();
      return;
    }
    let errors = 0;
    const hear = () => {
      errors = 0;
      this.heardAt = Date.now();
      this.say("");
    };
    const source = new EventSource(`${this.url}/o/${this.token}/events${this.after}`);
    this.source = source;
    this.leave = leave;
    source.addEventListener("beat", hear);
    source.onmessage = (event) => {
      hear();
      this.take(attempt(() => JSON.parse(event.data)), true);
    };
    source.onerror = () => {
      errors += 1; // the browser tries once by itself; then the pauses grow
      if (source.readyState === 2 || errors > 1) {
        this.deafen();
        this.after = `?last_event_id=${this.known.version}`; // a new EventSource has no such header
      }
      this.again();
    };
  }

  deafen() {
    if (this.source) {
      this.source.close();
      this.source = null;
      this.leave();
    }
  }

  // -- one tab speaks: the one that came to the front last

  claim(steal = this.isFront && isVisible()) {
    if (this.speaks || this.isOver) {
      return;
    }
    this.yield();
    if (!channel) {
      this.speak(); // it would not hear the others
    } else if (navigator.locks) {
      this.queue(steal);
    } else {
      this.lease(steal);
    }
  }

  queue(steal) {
    const waiting = new AbortController();
    let release = () => {};
    this.yield = () => {
      waiting.abort();
      release();
    };
    const hold = () => waiting.signal.aborted || new Promise((resolve) => {
      release = resolve;
      this.speak();
    });
    navigator.locks.request(`nodrop.${this.token}`, steal ? { steal } : { signal: waiting.signal }, hold).catch((error) => {
      if (!waiting.signal.aborted && error.name === "AbortError") {
        this.hush();
        this.claim(false); // stolen by the tab in front
      } else if (!waiting.signal.aborted) {
        this.speak(); // locks are blocked with the site's data
      }
    });
    this.again();
  }

  lease(steal) {
    const name = `nodrop.lease.${this.token}`;
    const isFree = (held) => !held || held.tab === TAB || Math.abs(Date.now() - held.at) > LEASE_MS;
    const renew = (isMine) => {
      if (isMine || isFree(read(name))) {
        write(name, { tab: TAB, at: Date.now() });
        this.speak();
      } else {
        this.hush();
      }
    };
    const timer = setInterval(renew, LEASE_MS / 3);
    this.yield = () => {
      clearInterval(timer);
      if (this.speaks) {
        attempt(() => localStorage.removeItem(name));
      }
    };
    renew(steal);
  }

  yield() {} // replaced while it waits or speaks

  speak() {
    if (!this.speaks) {
      this.speaks = true;
      this.listen();
      this.again(this.asksChannel || !this.known.version);
    }
  }

  hush() {
    this.speaks = false;
    clearTimeout(this.timer);
    this.deafen();
  }

  rest() {
    this.yield();
    this.hush();
  }
}

function takePlace(number, use) {
  const name = `nodrop.stream.${number}`;
  if (number < STREAMS_MAX) {
    const request = attempt(() => navigator.locks.request(name, { ifAvailable: true }, (lock) => (lock ? use() : void takePlace(number + 1, use))));
    request ? request.catch(use) : use();
  }
}

const emit = (state) => document.dispatchEvent(new CustomEvent("nodrop-order", { detail: state }));

function inform(known) {
  if (Notification.permission === "granted" && !isVisible()) {
    const title = textsOf(navigator.language)[known.phase || known.status];
    const options = { body: `${known.subject} · ${known.amount_shown || known.amount_text}`, tag: `nodrop.${known.token}` };
    try {
      new Notification(title, options);
    } catch {
      navigator.serviceWorker.ready.then((worker) => worker.showNotification(title, options)); // on phones
    }
  }
}

// -- all orders --------------------------------------------------------------------------------------------------------

let channel = null;

function openChannel() {
  channel = attempt(() => new BroadcastChannel("nodrop"));
  if (channel) {
    channel.onmessage = ({ data }) => {
      const watch = data && watches.get(data.token);
      watch && watch.take(data, false);
    };
  }
}

function watchOf(url, token, known) {
  let watch = watches.get(token);
  if (!watch) {
    watch = new Watch(url, token, known);
    watches.set(token, watch);
  }
  return watch;
}

// Orders that another page, or this one before a crash, has left open.
function resume() {
  for (const [token, known] of Object.entries(rememberedOrders())) {
    watchOf(known.url || SERVER, token, known).claim();
  }
}

const wakeAll = () => watches.forEach((watch) => watch.wake());

if (hasPage) {
  openChannel();
  setTimeout(resume);
  addEventListener("online", wakeAll);
  addEventListener("offline", () => watches.forEach((watch) => watch.isOver || watch.say("offline")));
  document.addEventListener("visibilitychange", () => (isVisible() ? wakeAll() : watches.forEach((watch) => watch.deafen())));
  addEventListener("pagehide", () => {
    watches.forEach((watch) => watch.rest()); // a lock would keep the page out of the back/forward cache
    attempt(() => channel.close());
  });
  addEventListener("pageshow", (event) => {
    if (event.persisted) {
      openChannel();
      wakeAll();
    }
  });
}

/** Call `onChange(state)` now and with every change, until the order is definite. See order-status.d.ts. */
export function watchOrder({ url = SERVER, token, known, notify = false, onChange = () => {} }) {
  const [, base, name] = ADDRESS.exec(token ? `${url.replace(/\/$/, "")}/o/${token}` : url.replace(/[?#].*/, "")) || [];
  if (!name) {
    throw new TypeError("watchOrder: `url` and `token` name no order");
  }
  const before = rememberedOrders()[name];
  const watch = watchOf(base, name, before);
  watch.isFront = true;
  watch.known.notify = notify;
  watch.take(known, false);
  watch.listeners.add(onChange);
  if (!watch.isOver) {
    remember(name, watch.known);
    watch.asksChannel = Boolean(before); // the buyer comes back to it
    watch.net = navigator.onLine ? "" : "offline";
  }
  watch.tell();
  watch.claim();
  return {
    refresh: () => watch.ask(true).then(() => watch.state),
    stop() {
      watch.listeners.delete(onChange);
      watch.isFront = watch.listeners.size > 0;
      watch.isFront || watch.deafen();
    },
  };
}

// -- what is shown -----------------------------------------------------------------------------------------------------

/** The texts of <nodrop-order> by language; a page may add its own. */
export const texts = {
  en: {
    created: "Preparing payment",
    waiting: "Waiting for your payment",
    processing: "Payment processing",
    paid: "Paid",
    closed: "Closed",
    going_back: "Your money is going back to you",
    review: "Payment received, being checked",
    refunded: "Refunded",
    disputed: "Payment disputed",
    gone: "This address is not valid any more. Please ask the shop.",
    offline: "You are offline; your payment is safe. We keep checking.",
    unreachable: "The result cannot be read right now; your payment is safe. We keep checking.",
    safe: "If you have paid, your payment is safe. The result shows here by itself.",
    check: "Check now",
  },
  zh: {
    created: "正在准备支付",
    waiting: "等待您付款",
    processing: "支付处理中",
    paid: "已支付",
    closed: "已关闭",
    going_back: "款项正在退还给您",
    review: "已收到付款，正在核对",
    refunded: "已退款",
    disputed: "付款有争议",
    gone: "链接无效或已过期，请联系商家。",
    offline: "您已离线，您的款项是安全的。我们会继续查询。",
    unreachable: "暂时无法读取结果，您的款项是安全的。我们会继续查询。",
    safe: "如果您已付款，您的款项是安全的。结果会自动显示在这里。",
    check: "立即查询",
  },
};

const textsOf = (lang) => texts[lang] || texts[(lang || "").slice(0, 2).toLowerCase()] || texts.en;

// A text is only set when it differs, so that a screen reader does not read it again.
function put(element, text = "") {
  if (element.textContent !== text) {
    element.textContent = text;
  }
}

/** <nodrop-order url="https://pay.example.com/o/TOKEN">: attributes `url`, `token`, `lang`, `notify`. */
export class NodropOrder extends (hasPage ? HTMLElement : Object) {
  connectedCallback() {
    this.words = textsOf(this.lang || document.documentElement.lang || navigator.language);
    this.build();
    this.order = watchOrder({
      url: this.getAttribute("url") || SERVER,
      token: this.getAttribute("token"),
      notify: this.hasAttribute("notify"),
      onChange: (state) => this.draw(state),
    });
  }

  disconnectedCallback() {
    this.order.stop();
  }

  build() {
    if (!this.button) {
      const add = (name, className) => Object.assign(document.createElement(name), { className });
      const state = add("div", "nodrop-state");
      this.heading = add("strong", "nodrop-title");
      this.amount = add("span", "nodrop-amount");
      this.note = add("p", "nodrop-note");
      this.button = add("button", "nodrop-check");
      this.button.type = "button";
      this.button.onclick = () => this.check();
      this.heading.tabIndex = -1;
      state.setAttribute("role", "status");
      state.append(this.heading, " ", this.amount, this.note);
      put(this.button, this.words.check);
      this.prepend(state, this.button);
    }
  }

  // Never `disabled`: the button would lose the focus.
  async check() {
    const isOff = (value) => this.button.setAttribute("aria-disabled", value);
    if (this.button.getAttribute("aria-disabled") !== "true") {
      isOff(true);
      const { retry_after_s: rest } = await this.order.refresh();
      setTimeout(isOff, (rest || 3) * 1000, false);
    }
  }

  draw(state) {
    const { words, button } = this;
    const isGone = state.net === "gone";
    const hadFocus = document.activeElement === button;
    this.setAttribute("status", state.phase || state.status);
    put(this.heading, isGone ? words.gone : words[state.phase] || words[state.status]);
    put(this.amount, state.amount_shown || state.amount_text); // a server of before has no amount_shown
    put(this.note, state.definite || isGone ? "" : words[state.net || "safe"]);
    button.hidden = isGone || (state.definite && state.status !== "closed"); // money may come late
    if (hadFocus && button.hidden) {
      this.heading.focus();
    }
    this.dispatchEvent(new CustomEvent("change", { detail: state, bubbles: true }));
  }
}

if (hasPage && !customElements.get("nodrop-order")) {
  customElements.define("nodrop-order", NodropOrder);
}
