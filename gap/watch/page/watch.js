"use strict";
// Asks for what has changed every few seconds and puts it in, so that scroll, focus and opened parts stay as they are.
const every = 1000 * Number(document.body.dataset.every), title = document.body.dataset.title;
const said = document.getElementById("said"), lost = document.getElementById("lost");
let failures = 0, timer = 0;

// Makes `old` like `fresh`, keeping nodes; children with an id are known by it, others by their place.
function morph(old, fresh) {
  if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName) { old.replaceWith(fresh); return; }
  if (old.nodeType !== Node.ELEMENT_NODE) { if (old.data !== fresh.data) old.data = fresh.data; return; }
  for (const {name, value} of [...fresh.attributes])
    if (name !== "open" && old.getAttribute(name) !== value) old.setAttribute(name, value);
  for (const {name} of [...old.attributes])
    if (name !== "open" && !fresh.hasAttribute(name)) old.removeAttribute(name);
  if (old.dataset && old.dataset.lazy && fresh.dataset.lazy) return;
  morphChildren(old, fresh);
}

function morphChildren(old, fresh) {
  const known = new Map([...old.children].filter(child => child.id).map(child => [child.id, child]));
  let place = old.firstChild;
  for (const child of [...fresh.childNodes]) {
    const own = child.id ? known.get(child.id) : place && !place.id ? place : null;
    if (own && own.nodeName === child.nodeName) {
      if (own !== place) old.insertBefore(own, place); else place = place.nextSibling;
      morph(own, child);
    } else {
      old.insertBefore(child, place);
    }
  }
  while (place) { const next = place.nextSibling; place.remove(); place = next; }
}

function states() {
  return new Map([...document.querySelectorAll("[data-place]")].map(item => [item.dataset.place, item.dataset.state]));
}

async function fill(details, again) {
  const body = details.querySelector(".body[data-lazy]");
  if (!body || !details.open || (body.childNodes.length && !again)) return;
  try {
    const answer = await fetch("/runs/" + body.dataset.lazy, {cache: "no-store"});
    if (!answer.ok) return;
    const fresh = document.createElement("div");
    fresh.innerHTML = await answer.text();
    morphChildren(body, fresh);
  } catch { /* the next look says whether the connection is cut */ }
}

function put(changed) {
  const before = states(), focused = document.activeElement.id;
  for (const [name, {version, html}] of Object.entries(changed)) {
    const section = document.getElementById(name), fresh = document.createElement("section");
    fresh.innerHTML = html;
    morphChildren(section, fresh);
    section.dataset.version = version;
    for (const details of section.querySelectorAll("details[open]")) fill(details, true);
  }
  if (focused && document.activeElement.id !== focused) document.getElementById(focused)?.focus({preventScroll: true});
  const news = [...states()].filter(([place, state]) => before.get(place) !== state).map(([place, state]) => place + ": " + state);
  if (news.length) said.textContent = news.slice(0, 5).join("; ") + (news.length > 5 ? "; and " + (news.length - 5) + " more" : "");
}

async function look() {
  clearTimeout(timer);
  try {
    const query = new URLSearchParams([...document.querySelectorAll("main > section")].map(part => [part.id, part.dataset.version]));
    const answer = await fetch("/changes?" + query, {cache: "no-store"});
    if (!answer.ok) throw new Error(answer.status);
    const {summary, at, changed} = await answer.json();
    put(changed);
    document.getElementById("summary").textContent = summary;
    document.getElementById("updated").textContent = "at " + new Date(1000 * at).toLocaleTimeString();
    document.title = summary + ": " + title;
    failures = 0;
  } catch { failures += 1; }
  lost.hidden = failures < 3;
  const pause = document.hidden ? 30000 : every;
  timer = setTimeout(look, Math.max(pause, Math.min(30000, every * failures)));
}

document.addEventListener("toggle", event => { if (event.target.matches("details")) fill(event.target, false); }, true);
document.addEventListener("visibilitychange", () => { if (!document.hidden) look(); });
look();
