"use strict";

const KEYS = { ArrowLeft: "left", ArrowRight: "right", t: "tie", s: "skip", u: "undo", " ": "play" };
const SAID = { left: "left is better", right: "right is better", tie: "equally good", skip: "skipped" };
const REST = 0.7; // seconds between the end of the clips and their beginning

const byId = (id) => document.getElementById(id);
const sides = ["left", "right"].map((side) => ({
  side,
  figure: byId(side),
  canvas: byId(side).querySelector("canvas"),
  caption: byId(side).querySelector(".length"),
  pictures: [],
  length: 0,
  every: 1,
}));

let state = null;
let shown = null; // number of the pair on the page
let busy = false; // an answer is being saved, or a pair is being fetched
let playing = !matchMedia("(prefers-reduced-motion: reduce)").matches;
let time = 0; // steps since the clips began
let before = null; // when the last picture was drawn

async function ask(path, body) {
  const options = body === undefined ? {} : {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  };
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("The program does not answer. Every answer so far is saved; start tesserl pairs label again.");
  }
  const document = await response.json();
  if (!response.ok) throw new Error(document.error);
  return document;
}

async function picture(base64) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  return createImageBitmap(new Blob([bytes], { type: "image/png" }));
}

async function show() {
  byId("bar").max = state.total;
  byId("bar").value = state.judged;
  byId("count").textContent = `${state.judged} of ${state.total} judged`;
  byId("done").hidden = state.next !== null;
  byId("task").hidden = state.next === null;
  if (state.next === null) {
    shown = null;
    byId("done").focus();
    return;
  }
  const pair = await ask(`api/pairs/${state.next}`);
  const pictures = await Promise.all(sides.map((each) => Promise.all(pair[each.side].frames.map(picture))));
  for (const [i, each] of sides.entries()) {
    each.pictures = pictures[i];
    each.length = pair[each.side].length;
    each.every = pair[each.side].every;
    each.canvas.width = each.pictures[0].width;
    each.canvas.height = each.pictures[0].height;
    each.figure.classList.remove("chosen");
  }
  shown = pair.pair;
  byId("position").max = longest() - 1;
  time = 0;
  draw();
}

function longest() {
  return Math.max(...sides.map((each) => each.length));
}

function draw() {
  const step = Math.min(Math.floor(time), longest() - 1);
  for (const each of sides) {
    const own = Math.min(step, each.length - 1);
    each.canvas.getContext("2d").drawImage(each.pictures[Math.floor(own / each.every)], 0, 0);
    const ended = step >= each.length ? ", ended" : "";
    each.caption.textContent = `${each.length} steps${ended}`;
  }
  byId("position").value = step;
  byId("step").textContent = `step ${step + 1} of ${longest()}`;
}

function tick(now) {
  const passed = before === null ? 0 : (now - before) / 1000;
  before = now;
  if (playing && shown !== null) {
    const rate = state.fps * Number(byId("speed").value);
    time += passed * rate;
    if (time >= longest() + REST * rate) time = 0;
    draw();
  }
  requestAnimationFrame(tick);
}

function setPlaying(value) {
  playing = value;
  byId("play").firstChild.textContent = playing ? "Pause " : "Play ";
}

function enable() {
  for (const button of document.querySelectorAll("[data-answer]")) button.disabled = busy || shown === null;
  byId("undo").disabled = busy || state === null || state.judged === 0;
  document.body.dataset.pair = busy || shown === null ? "" : String(shown);
}

async function act(work) {
  if (busy) return;
  busy = true;
  enable();
  try {
    await work();
    byId("error").hidden = true;
  } catch (error) {
    byId("error").textContent = error.message;
    byId("error").hidden = false;
  } finally {
    busy = false;
    enable();
  }
}

function answer(choice) {
  if (shown === null) return;
  act(async () => {
    sides.filter((each) => each.side === choice).forEach((each) => each.figure.classList.add("chosen"));
    state = { ...state, ...(await ask("api/answer", { pair: shown, answer: choice })) };
    byId("said").textContent = `Saved: ${SAID[choice]}.`;
    await show();
  });
}

function undo() {
  if (state === null || state.judged === 0) return;
  act(async () => {
    state = { ...state, ...(await ask("api/undo", {})) };
    byId("said").textContent = "Taken back: judge this pair again.";
    await show();
  });
}

document.addEventListener("keydown", (event) => {
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const wanted = KEYS[key];
  if (wanted === undefined || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("input, select") || (wanted === "play" && event.target.matches("button"))) return;
  event.preventDefault();
  if (wanted === "play") setPlaying(!playing);
  else if (wanted === "undo") undo();
  else answer(wanted);
});
for (const button of document.querySelectorAll("[data-answer]")) {
  button.addEventListener("click", () => answer(button.dataset.answer));
}
byId("undo").addEventListener("click", undo);
byId("play").addEventListener("click", () => setPlaying(!playing));
byId("position").addEventListener("input", () => {
  setPlaying(false);
  time = Number(byId("position").value);
  draw();
});
// keys belong to the answers again once the mouse has moved the slider, or a speed is chosen
byId("position").addEventListener("pointerup", () => byId("position").blur());
byId("speed").addEventListener("change", () => byId("speed").blur());

setPlaying(playing);
enable();
act(async () => {
  state = await ask("api/state");
  byId("question").textContent = state.question;
  document.title = `${state.question} · Label pairs`;
  await show();
});
requestAnimationFrame(tick);
