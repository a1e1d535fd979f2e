// Runs before the page's own reload (a <meta> behind it) is read, and puts that away: the module does better. Where this
// file is blocked the <meta> works; where only the module does not start, this reloads.
"use strict";

document.write("<template>");
setTimeout(() => {
  if (!("live" in document.documentElement.dataset)) {
    location.reload();
  }
}, 20000);
