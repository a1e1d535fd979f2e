// An order's page: it reads a stream, else it polls, and it remembers orders that are not definite yet.
//
// States come by server-sent events; when those are blocked or silent the page polls, slower and slower.
// Orders that are not definite are kept in localStorage and polled on every page of this site, across reloads. A version
// lower than the known one is old and is dropped. A network error never makes an order unpaid.
"use strict";

(() => {
  const TEXTS = __TEXTS__;
  const STORE = "nodrop.orders";
  const KEPT_MAX = 20;
  const KEPT_MS = 90 * 24 * 3600 * 1000; // as long as a page's token lives
  const DELAYS_MS = [2000, 3000, 5000, 8000, 13000, 20000, 30000];
  const FRESH_MS = 20000; // the stream's heart beats every 15 s
  const FETCH_MS = 15000;
  const STATUSES = ["created", "processing", "paid", "closed", "review", "refunded", "disputed"];
  const TOKEN = /^\/o\/([0-9A-Za-z_-]{16,64})(?:\/return)?$/;

  const byId = (id) => document.getElementById(id);
  const page = byId("order");
  const token = page.dataset.token || (TOKEN.exec(location.pathname) || [])[1] || "";
  const isShell = !page.dataset.token || page.dataset.version === "0";
  const lang = isShell ? (read(localStorage, "nodrop.lang") || language()) : document.documentElement.lang;
  const texts = TEXTS[lang] || TEXTS.en;

  // -- what the browser remembers ---------------------------------------------------------------------------------------

  function read(storage, name) {
    try {
      return JSON.parse(storage.getItem(name));
    } catch {
      return null; // blocked, or not ours
    }
  }

  function write(storage, name, value) {
    try {
      storage.setItem(name, JSON.stringify(value));
    } catch {
      // full or blocked: the page works without
    }
  }

  function loadOrders() {
    const stored = read(localStorage, STORE);
    const kept = {};
    for (const [name, entry] of Object.entries(stored && typeof stored === "object" ? stored : {})) {
      if (entry && STATUSES.includes(entry.status) && Date.now() - entry.at < KEPT_MS) {
        kept[name] = entry;
      }
    }
    return kept;
  }

  function remember(name, entry) {
    const orders = loadOrders();
    delete orders[name];
    if (entry) {
      orders[name] = entry;
    }
    const newest = Object.entries(orders).sort((a, b) => b[1].at - a[1].at).slice(0, KEPT_MAX);
    write(localStorage, STORE, Object.fromEntries(newest));
  }

  // -- one order that is polled -------------------------------------------------------------------------------------------

  class Watch {
    constructor(name, known, show) {
      this.token = name;
      this.known = known; // {label, status, version, at, amount_text, subject, paid_at, definite}
      this.show = show;
      this.tries = 0;
      this.timer = 0;
      this.heardAt = -Infinity;
    }

    // A state from whichever way it came. Returns whether it was news or a confirmation.
    take(received) {
      this.heardAt = performance.now();
      if (!STATUSES.includes(received.status) || received.version < this.known.version) {
        return false;
      }
      this.known = { ...this.known, ...received, at: Date.now() };
      this.known.label = this.known.label || `${received.subject} · ${received.amount_text}`;
      this.keep();
      this.show(this.known);
      if (this.known.definite) {
        this.stop();
      }
      return true;
    }

    keep() {
      const { label, status, version, at, amount_text, subject, paid_at, definite } = this.known;
      const entry = { label, status, version, at, amount_text, subject, paid_at, definite };
      remember(this.token, definite ? null : entry);
      if (this.token === token && definite) {
        write(sessionStorage, `nodrop.${this.token}`, entry); // for a reload of this tab without a network
      }
    }

    again(at_once) {
      clearTimeout(this.timer);
      if (!this.known.definite) {
        const delay = DELAYS_MS[Math.min(this.tries, DELAYS_MS.length - 1)];
        this.timer = setTimeout(() => this.tick(), at_once ? 0 : delay);
      }
    }

    async tick() {
      if (performance.now() - this.heardAt < FRESH_MS && stream.isOpen(this.token)) {
        this.tries = 0;
      } else {
        this.tries += 1;
        await this.ask(`/o/${this.token}/status`, "GET");
        stream.reopen(this.token);
      }
      this.again(false);
    }

    // One request; its outcome is shown, never thrown. Returns the seconds until a refresh is allowed.
    async ask(url, method) {
      try {
        const headers = { accept: "application/json" };
        const signal = AbortSignal.timeout ? AbortSignal.timeout(FETCH_MS) : undefined;
        const response = await fetch(url, { method, headers, signal, cache: "no-store" });
        if (response.ok) {
          const received = await response.json();
          this.take(received);
          net.say("");
          return received.retry_after_s;
        }
        if (response.status === 404) {
          this.forget();
        } else if (response.status >= 500) {
          net.say(texts.unreachable);
        }
        return Number(response.headers.get("retry-after")) || 3;
      } catch {
        net.say(navigator.onLine ? texts.unreachable : texts.offline);
        return 3;
      }
    }

    // The token has expired: there is nothing more to learn here.
    forget() {
      this.stop();
      remember(this.token, null);
    }

    stop() {
      clearTimeout(this.timer);
      stream.close(this.token);
    }
  }

  // -- the stream of this page's order -----------------------------------------------------------------------------------

  const stream = {
    source: null,

    open() {
      if (!window.EventSource || this.source !== null || watch.known.definite) {
        return;
      }
      this.source = new EventSource(`/o/${token}/events`);
      this.source.onmessage = (event) => {
        net.say("");
        watch.take(JSON.parse(event.data));
      };
      this.source.addEventListener("beat", () => {
        net.say("");
        watch.heardAt = performance.now();
      });
    },

    isOpen(name) {
      return name === token && this.source !== null && this.source.readyState === EventSource.OPEN;
    },

    // Ended for good, or open and silent for longer than two beats: begin anew.
    reopen(name) {
      if (name !== token || this.source === null || watch.known.definite) {
        return;
      }
      const isSilent = performance.now() - watch.heardAt > 2 * FRESH_MS;
      if (this.source.readyState === EventSource.CLOSED || (this.isOpen(name) && isSilent)) {
        this.close(name);
        this.open();
      }
    },

    close(name) {
      if (name === token && this.source !== null) {
        this.source.close();
        this.source = null;
      }
    },
  };

  // -- what is shown ---------------------------------------------------------------------------------------------------

  // A text is only set when it differs, so that a screen reader does not read it again.
  function put(element, text) {
    if (element.textContent !== text) {
      element.textContent = text;
    }
  }

  const net = {
    say(text) {
      put(byId("net"), text);
    },
  };

  function showOrder(known) {
    page.dataset.status = known.status;
    page.dataset.version = known.version;
    document.title = texts[known.status];
    put(byId("title"), texts[known.status]);
    put(byId("note"), texts[`${known.status}_note`]);
    if (known.subject) {
      put(byId("subject").firstElementChild, known.subject);
      put(byId("amount"), known.amount_text);
    }
    showTime(known.paid_at);
    byId("refresh").hidden = Boolean(known.definite) && known.status !== "closed"; // money may come after the close
  }

  function showTime(at) {
    if (at && !Number.isNaN(Date.parse(at))) {
      const format = { dateStyle: "medium", timeStyle: "short" };
      const locale = (navigator.language || "").startsWith(lang) ? navigator.language : lang;
      put(byId("when"), new Date(at).toLocaleString(locale, format));
    }
  }

  function language() {
    return (navigator.language || "en").toLowerCase().startsWith("zh") ? "zh" : "en";
  }

  function translateShell() {
    document.documentElement.lang = lang;
    put(byId("refresh").firstElementChild, texts.check);
    put(byId("others").firstElementChild, texts.others);
    byId("language").hidden = true;
  }

  // -- the button --------------------------------------------------------------------------------------------------------

  const button = byId("refresh").firstElementChild;

  function coolDown(seconds) {
    const left = Math.ceil(seconds);
    button.disabled = left > 0;
    put(button, left > 0 ? texts.check_in.replace("{s}", left) : texts.check);
    if (left > 0) {
      setTimeout(() => coolDown(left - 1), 1000);
    }
  }

  async function refresh(event) {
    event.preventDefault();
    button.disabled = true;
    put(button, texts.checking);
    coolDown(await watch.ask(`/o/${token}/refresh`, "POST"));
  }

  // -- other orders of this browser ----------------------------------------------------------------------------------------

  function watchOthers() {
    for (const [name, known] of Object.entries(loadOrders())) {
      if (name !== token) {
        const row = document.createElement("li");
        row.append(document.createElement("bdi"), document.createElement("span"));
        row.lastElementChild.className = "state";
        const show = (now) => {
          row.dataset.status = now.status;
          put(row.firstElementChild, now.label || "");
          put(row.lastElementChild, texts[now.status]);
        };
        byId("others").lastElementChild.append(row);
        byId("others").hidden = false;
        show(known);
        others.push(new Watch(name, known, show));
      }
    }
    others.forEach((other) => other.again(true));
  }

  // -- start -------------------------------------------------------------------------------------------------------------

  function rendered() {
    const text = (id) => byId(id).textContent.trim();
    const time = byId("when").querySelector("time");
    return {
      status: page.dataset.status,
      version: Number(page.dataset.version),
      subject: text("subject"),
      amount_text: text("amount"),
      label: text("subject") ? `${text("subject")} · ${text("amount")}` : "",
      paid_at: time ? time.dateTime : null,
      definite: ["paid", "closed", "refunded", "disputed"].includes(page.dataset.status),
      at: Date.now(),
    };
  }

  // The newest of what the server rendered, what is remembered, and what this tab has seen to be definite.
  function newest() {
    const found = [rendered(), loadOrders()[token], read(sessionStorage, `nodrop.${token}`)];
    return found.filter(Boolean).reduce((best, next) => (next.version > best.version ? next : best));
  }

  const others = [];
  const watch = new Watch(token, newest(), showOrder);

  function askAllNow() {
    for (const each of [watch, ...others]) {
      each.tries = 0;
      each.heardAt = -Infinity;
      each.again(true);
    }
  }

  function start() {
    if (isShell) {
      translateShell();
    } else {
      write(localStorage, "nodrop.lang", lang);
    }
    showOrder(watch.known);
    watchOthers();
    if (!token) {
      return;
    }
    if (watch.known.version > 0) {
      watch.keep();
    }
    byId("refresh").addEventListener("submit", refresh);
    coolDown(Number(page.dataset.retryAfter) || 0);
    stream.open();
    watch.again(isShell);
    if (!navigator.onLine) {
      net.say(texts.offline);
    }
    window.addEventListener("online", askAllNow);
    window.addEventListener("offline", () => net.say(texts.offline));
    window.addEventListener("pageshow", (event) => event.persisted && askAllNow());
    document.addEventListener("visibilitychange", () => {
      if (document.visibilityState === "visible") {
        stream.open();
        askAllNow();
      } else {
        stream.close(token); // a browser has six connections to a server, for all its tabs together
      }
    });
    if ("serviceWorker" in navigator) {
      navigator.serviceWorker.register("/o/sw.js", { scope: "/o/" }).catch(() => {});
    }
  }

  start();
})();
