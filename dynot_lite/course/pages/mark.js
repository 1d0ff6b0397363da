"use strict";
// Marks are sent as soon as they change; what could not be sent is said in red, and sent again.
const page = document.body.dataset, get = (id) => document.getElementById(id);
const form = get("mark");
let timer = null, dirty = false, sending = null, again = false, confirmed = false;

const number = (text) => Number(String(text).trim().replace(",", ".").replace("½", ".5"));
const ticks = () => [...form.elements].filter((one) => one.name === "item");
const ticked = () => ticks().filter((one) => one.checked);
const sum = () => ticked().reduce((all, one) => all + number(one.dataset.points), 0);
const say = (text, bad) => { get("saved").textContent = text; get("saved").classList.toggle("bad", Boolean(bad)); };
const round = (value) => String(Math.round(value * 1000) / 1000);

function valid() {
  const text = form.points.value.trim(), value = number(text);
  const good = text === "" || (value >= 0 && value <= number(form.points.dataset.most));
  form.points.setAttribute("aria-invalid", String(!good));
  return good;
}

async function send() {
  clearTimeout(timer);
  if (sending) { again = true; return sending; }
  if (!valid()) { say(`Not saved: points are a number from 0 to ${form.points.dataset.most}.`, true); return; }
  dirty = false;
  const body = JSON.stringify({ points: form.points.value, items: ticked().map((one) => one.value), comment: form.comment.value, confirmed });
  sending = (async () => {
    try {
      const reply = await fetch(page.url, { method: "POST", headers: { "Content-Type": "application/json" }, body, keepalive: body.length < 60000 });
      const found = await reply.json();
      if (!reply.ok) { dirty = true; say(`Not saved: ${found.problem}`, true); return; }
      say(found.saved);
      if (get("changed") && !found.changed) get("changed").hidden = true;
      const mine = document.querySelector(".all [aria-current]");
      mine.className = found.kind; mine.lastElementChild.textContent = found.points;
    } catch { dirty = true; say("Not saved: the program that stores marks does not answer. It is tried again.", true); timer = setTimeout(send, 3000); }
  })();
  await sending;
  sending = null;
  if (again) { again = false; await send(); }
}

function change(wait) { dirty = true; clearTimeout(timer); timer = setTimeout(send, wait); }

async function go(url) {
  if (!url) return;
  if (dirty || sending) await send();
  if (dirty) return;  // what is not stored is not left
  location.assign(url);
}

function toggle(id) { const one = get(id); one.open = !one.open; if (one.open) one.scrollIntoView({ block: "nearest" }); }

function all(found) {
  ticks().forEach((one) => { one.checked = found; });
  form.points.value = found ? form.points.dataset.most : "0";
  before = sum();
  change(0);
}

function unmark() { ticks().forEach((one) => { one.checked = false; }); before = 0; form.points.value = ""; change(0); }

function source() {
  const raw = get("raw").hidden;
  get("raw").hidden = !raw; get("rendered").hidden = raw; get("source").textContent = raw ? "Rendered" : "Source";
}

let before = form ? sum() : 0;
if (form) {
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("change", (event) => {
    if (event.target.name !== "item") return;
    const shift = form.points.value.trim() === "" ? 0 : number(form.points.value) - before;  // the adjustment by hand stays
    before = sum();
    form.points.value = round(Math.min(number(form.points.dataset.most), Math.max(0, before + (Number.isFinite(shift) ? shift : 0))));
    change(0);
  });
  form.points.addEventListener("input", () => { if (valid()) change(500); });
  form.points.addEventListener("blur", () => { if (!valid()) say(`Not saved: points are a number from 0 to ${form.points.dataset.most}.`, true); });
  form.comment.addEventListener("input", () => change(600));
  get("all").addEventListener("click", () => all(true));
  get("none").addEventListener("click", () => all(false));
  get("unmark").addEventListener("click", unmark);
  get("source").addEventListener("click", source);
  if (get("confirm")) get("confirm").addEventListener("click", () => { confirmed = true; send(); });
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[href]");
    if (link && !event.ctrlKey && !event.metaKey && !event.shiftKey) { event.preventDefault(); go(link.getAttribute("href")); }
  });
  const keys = {
    j: () => go(page.next), ArrowRight: () => go(page.next), k: () => go(page.previous), ArrowLeft: () => go(page.previous),
    n: () => go(page.waiting), i: () => go(page.index), s: source, q: () => toggle("question"), m: () => toggle("solution"),
    a: () => all(true), 0: () => all(false), u: unmark, c: () => form.comment.focus(), p: () => form.points.select(),
    y: () => get("confirm") && get("confirm").click(), "?": () => { const help = document.querySelector("aside details"); help.open = !help.open; },
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target === form.comment || event.target === form.points;
    if (typing) { if (event.key === "Escape" || (event.key === "Enter" && event.target === form.points)) { event.preventDefault(); event.target.blur(); send(); } return; }
    if (/^[1-9]$/.test(event.key) && ticks()[event.key - 1]) { event.preventDefault(); ticks()[event.key - 1].click(); }
    else if (keys[event.key]) { event.preventDefault(); keys[event.key](); }
  });
  window.addEventListener("beforeunload", (event) => { if (dirty) { send(); event.preventDefault(); } });
}
if (get("finish")) get("finish").addEventListener("click", async (event) => {
  try { await fetch(event.target.dataset.url, { method: "POST" }); } catch { /* it has ended */ }
  document.querySelector("main").textContent = "All marks are stored. You can close this page; grade again to have them in points and feedback.";
});
