// While a worker reads a statement, its part of the page is fetched again. A form in it that somebody has begun stays.

const place = document.getElementById("requests");
const PAUSE_MS = 2000;

async function again() {
  const response = await fetch(place.dataset.address, { headers: { accept: "text/html" } });
  if (response.status === 401) return location.reload();
  if (response.ok && !place.contains(document.activeElement)) {
    place.innerHTML = await response.text();
  }
  if (place.querySelector("section[data-open]")) setTimeout(again, PAUSE_MS);
}

if (place?.dataset.open !== undefined) setTimeout(again, PAUSE_MS);
