// Keyboard shortcuts and live tail. Every page works without this file.
"use strict";

const PLACES = { o: "/", j: "/jobs", s: "/secrets", d: "/destinations", h: "/hosts", i: "/integrity", e: "/search", t: "/tail" };
const GO_MILLISECONDS = 1500;
let goSince = 0;

const isTyping = (element) => element instanceof HTMLElement && (element.matches("input, select, textarea") || element.isContentEditable);

function rows() {
  return [...document.querySelectorAll("main tbody tr")].map((row) => row.querySelector("a")).filter((link) => link && link.offsetParent);
}

function move(by) {
  const links = rows();
  if (links.length === 0) return;
  const row = document.activeElement && document.activeElement.closest("tr");
  const at = links.findIndex((link) => link.closest("tr") === row);
  const next = at < 0 ? (by > 0 ? 0 : links.length - 1) : Math.min(Math.max(at + by, 0), links.length - 1);
  links[next].focus();
  links[next].scrollIntoView({ block: "nearest" });
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  if (isTyping(event.target)) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const go = Date.now() - goSince < GO_MILLISECONDS;
  goSince = 0;
  if (go && PLACES[event.key]) {
    window.location.assign(PLACES[event.key]);
  } else if (event.key === "g") {
    goSince = Date.now();
  } else if (event.key === "j" || event.key === "k") {
    move(event.key === "j" ? 1 : -1);
  } else if (event.key === "n") {
    const next = document.querySelector("a[rel=next]");
    if (next) next.click();
  } else if (event.key === "/") {
    const search = document.querySelector("input[name=where]");
    if (search) { search.focus(); search.select(); } else { window.location.assign("/search"); }
  } else if (event.key === "?") {
    const help = document.getElementById("keys");
    if (help.open) help.close(); else help.showModal();
  } else {
    return;
  }
  event.preventDefault();
});

const MAX_LIVE_ROWS = 500;

function cell(text, label, name) {
  const made = document.createElement("td");
  made.dataset.label = label;
  if (name) made.className = name;
  made.textContent = text;
  return made;
}

function show(body, event) {
  const row = document.createElement("tr");
  row.className = "fresh";
  const time = cell("", "Time", "fit");
  const link = document.createElement("a");
  link.href = event.link;
  link.textContent = event.time;
  time.append(link);
  const kind = cell("", "Kind", "fit");
  const badge = document.createElement("span");
  badge.className = "badge";
  badge.textContent = event.kind;
  kind.append(badge);
  row.append(time, kind, cell(event.job, "Job"), cell(event.process, "Process", "proc mono"), cell(event.what, "What", "what"));
  body.prepend(row);
  while (body.rows.length > MAX_LIVE_ROWS) body.lastElementChild.remove();
}

function tail(place) {
  const state = document.getElementById("live");
  const pause = document.getElementById("pause");
  const body = place.querySelector("tbody");
  let waiting = [];
  let paused = false;
  const say = (words, name) => { state.textContent = words; state.className = "live " + name; };
  const source = new EventSource(place.dataset.tail);
  source.addEventListener("open", () => say("Live", "on"));
  source.addEventListener("error", () => say(source.readyState === EventSource.CLOSED ? "Ended: reload the page to start again" : "Connecting again …", "off"));
  source.addEventListener("end", (message) => { say(message.data, "off"); source.close(); });
  source.addEventListener("message", (message) => {
    const event = JSON.parse(message.data);
    document.getElementById("quiet").hidden = true;
    if (!paused) return show(body, event);
    waiting.push(event);
    waiting = waiting.slice(-MAX_LIVE_ROWS);
    pause.textContent = "Continue (" + waiting.length + " new)";
  });
  pause.hidden = false;
  pause.addEventListener("click", () => {
    paused = !paused;
    pause.textContent = paused ? "Continue" : "Pause";
    if (!paused) { waiting.forEach((event) => show(body, event)); waiting = []; }
  });
}

const live = document.querySelector("[data-tail]");
if (live) tail(live);
