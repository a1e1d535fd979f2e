// What every page of the console has: times in the reader's zone, spans that go on, and buttons that copy.

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
  for (const button of root.querySelectorAll("button[data-copy]")) button.hidden = false;
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
