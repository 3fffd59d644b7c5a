// The pages' one script: live updates, countdowns, and a question before something is ended.
// Everything can be read without it.
"use strict";

// Fetching a fragment anew is coalesced: the first at once, later ones not closer together than this.
const COALESCE_MS = 100;

const connection = document.getElementById("connection");

function say(text) {
  if (connection && connection.textContent !== text) connection.textContent = text;
}

// Puts new content in place without closing what the reader opened, opening what they closed, or losing the focus.
function replace(region, html) {
  const open = new Map();
  for (const element of region.querySelectorAll("details[id]")) open.set(element.id, element.open);
  const focused = region.contains(document.activeElement) ? document.activeElement : null;
  const path = focused ? place(region, focused) : null;
  const parsed = new DOMParser().parseFromString(html, "text/html");
  region.replaceChildren(...parsed.body.childNodes);
  for (const [id, was] of open) {
    const element = document.getElementById(id);
    if (element) element.open = was;
  }
  if (path) {
    const element = region.querySelector(path);
    if (element) element.focus({ preventScroll: true });
  }
  countDown();
}

// How to find an element again in content that looks much the same.
function place(region, element) {
  const details = element.closest("details[id]");
  if (details && element.tagName === "SUMMARY") return `#${CSS.escape(details.id)} > summary`;
  if (element.tagName === "A") return `a[href="${CSS.escape(element.getAttribute("href"))}"]`;
  if (element.form) return `form[action="${CSS.escape(element.form.getAttribute("action"))}"] button`;
  return null;
}

function follow(region) {
  const address = region.dataset.fragment;
  let last = 0;
  let timer = 0;
  let busy = false;
  let again = false;
  let source = null;
  let done = false;

  async function refresh() {
    if (busy) {
      again = true;
      return;
    }
    busy = true;
    last = Date.now();
    try {
      const answer = await fetch(address, { headers: { accept: "text/html" } });
      if (answer.ok) replace(region, await answer.text());
    } catch {
      // The stream notices when the server is gone, and says so.
    }
    busy = false;
    if (again) {
      again = false;
      nudge();
    }
  }

  function nudge() {
    if (timer) return;
    const wait = Math.max(0, last + COALESCE_MS - Date.now());
    timer = setTimeout(() => {
      timer = 0;
      refresh();
    }, wait);
  }

  function connect() {
    if (source || done) return;
    source = new EventSource(region.dataset.stream);
    source.onopen = () => say("live");
    source.onerror = () => {
      // The browser connects again by itself, unless it was refused.
      say("connecting…");
      if (source.readyState === EventSource.CLOSED) {
        source = null;
        setTimeout(connect, 2000);
      }
    };
    for (const name of ["run", "step", "log", "change"]) source.addEventListener(name, nudge);
    source.addEventListener("done", () => {
      done = true;
      source.close();
      source = null;
      say("");
      nudge();
    });
  }

  function pause() {
    if (source) source.close();
    source = null;
  }

  // A tab that nobody looks at holds no connection.
  document.addEventListener("visibilitychange", () => (document.hidden ? pause() : connect()));
  addEventListener("pagehide", pause);
  connect();
}

function spoken(millis) {
  const seconds = Math.max(0, Math.ceil(millis / 1000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86400)} d ${Math.floor((seconds % 86400) / 3600)} h`;
}

function countDown() {
  for (const element of document.querySelectorAll("time[data-until]")) {
    const left = Number(element.dataset.until) - Date.now();
    const text = left > 0 ? `in ${spoken(left)}` : "now";
    if (element.textContent !== text) element.textContent = text;
  }
}

document.addEventListener("submit", (event) => {
  const question = event.target.dataset.confirm;
  if (question && !confirm(question)) event.preventDefault();
});

for (const region of document.querySelectorAll("[data-stream]")) follow(region);
countDown();
setInterval(countDown, 1000);
