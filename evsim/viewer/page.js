// The page of `evsim view`: what is shown, and when the server is asked for more of it.

import { count, short, time as timeWords, withStep } from "./axes.js";
import { palette, whenPaletteChanges } from "./colours.js";
import { cellWords, eventWords, tip } from "./hover.js";
import { NAMES, Plot } from "./plot.js";
import { listen } from "./pointer.js";
import { Lanes, makePicture, mostMarks } from "./raster.js";
import { askArrays, askFacts, Newest, Refused } from "./requests.js";
import { Selection } from "./selection.js";
import { States } from "./states.js";
import { clamp, holds, same, zoomed } from "./view.js";

/** CSS pixels of a cell, ms until a settled picture is refined, ms between looks at the file, pixels of reach. */
const CELL = 2;
const REFINE_AFTER = 250;
const LOOK_EVERY = { growing: 500, complete: 3000 };
const REACH = 12;

const $ = (id) => document.getElementById(id);
const plot = new Plot($("picture"), $("overlay"));
const tiles = new Newest(loadTile);
const nearest = new Newest(loadNearest, 0);
const selection = new Selection(boxQuery, () => drawOverlay());
const states = new States((loaded) => (loaded ? drawSoon() : show()));

let info = null;
let population = null;
let lane = -1;
let view = null;
let picture = null; // of the window that was last answered
let backdrop = null; // of the whole file, to be seen where there is no picture yet
let scale = null;
let following = false;
let selecting = false;
let drawnBox = null;
let place = null;
let serial = 0; // of what is shown; answers to older questions are dropped
let refining = 0;
let frameAsked = false;
let trouble = "";
let drawnSize = "";
let settled = false; // the picture holds all that the view needs

// -- what is shown -------------------------------------------------------------------------------------------

function bounds() {
  const n = population.n_units;
  const [low, high] = lane < 0 ? [0, n * info.n_lanes] : [lane * n, (lane + 1) * n];
  const stop = Math.max(info.stop, info.start + (info.dt ?? 1e-3));
  const leastMs = info.dt === null ? Math.max(1e-6, 1e-11 * stop) : 4 * info.dt;
  return { start: info.start, stop, low, high, leastMs, leastNodes: 4 };
}

function whole() {
  return clamp({ start: -Infinity, stop: Infinity, low: -Infinity, high: Infinity, ...bounds() }, bounds());
}

function setView(wanted, byHand = true) {
  const next = clamp(wanted, bounds());
  if (byHand && following && next.stop < bounds().stop - 0.02 * (next.stop - next.start)) follow(false);
  if (view && same(view, next)) return;
  view = next;
  show();
}

/** Draw what there is of the view, and ask for the rest. */
function show() {
  if (!view) return;
  $("overlay").dataset.state = "waiting";
  $("overlay").dataset.view = [view.start, view.stop, view.low, view.high].join();
  if (place) place = { x: place.x, y: place.y }; // the pointer rests, and something else comes under it
  drawSoon();
  remember();
  clearTimeout(refining);
  if (isComplete(picture)) settled = true;
  else tiles.want({ refine: false });
}

/** Whether marks of a larger window hold all that the view needs. */
function isComplete(found) {
  if (found?.kind !== "marks" || found.serial !== serial) return false;
  const { window, tile } = found;
  const grown = view.stop > tile.stop || (tile.stop < info.stop && window.stop >= tile.stop);
  return !grown && holds(window, view);
}

/** The population, lane or colour has changed: nothing that was loaded fits any more. */
function startAnew() {
  serial++;
  picture = backdrop = null;
  if (!$("hold").checked) scale = null;
  show();
}

// -- questions -----------------------------------------------------------------------------------------------

function tileQuery(refine) {
  const { raster } = plot.frames;
  return {
    population: population.name, lane, colour: $("colour").value, refine: refine ? 1 : 0,
    start: view.start, stop: view.stop, low: Math.floor(view.low), high: Math.ceil(view.high),
    columns: Math.max(Math.ceil(raster.width / CELL), 1), rows: Math.max(Math.ceil(raster.height / CELL), 1),
    marks: mostMarks(raster, info.dt),
  };
}

async function loadTile({ refine }, signal) {
  if (!plot.frames) draw();
  const asked = serial;
  const began = performance.now();
  const query = tileQuery(refine);
  const asking = view;
  try {
    const tile = await askArrays("tile", query, signal);
    if (asked !== serial) return;
    const window = { start: query.start, stop: query.stop, low: query.low, high: query.high };
    const lanes = new Lanes(info.dt, population.n_units, info.lane_stops);
    picture = Object.assign(makePicture(tile, window, lanes), { serial });
    if (holds(window, bounds())) backdrop = picture;
    if (!$("hold").checked || scale?.name !== tile.colour) scale = picture.scale();
    trouble = "";
    status(tile, refine, performance.now() - began);
    settled = same(asking, view);
    draw();
    if (tiles.wish === null) refineSoon(tile, refine);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    if (asked !== serial) return;
    trouble = error.message;
    showNote();
    refining = setTimeout(() => tiles.want({ refine: false }), 2000); // it may pass, such as a file being replaced
  }
}

/** Ask again once counting ahead has come further, or for all rows when it will not help. */
function refineSoon(tile, refined) {
  clearTimeout(refining);
  if (tile.progress !== null && (tile.coarse || !tile.exact || tile.colour !== $("colour").value)) {
    refining = setTimeout(() => tiles.want({ refine: false }), REFINE_AFTER);
  } else if ((tile.coarse || !tile.exact) && !refined) {
    refining = setTimeout(() => tiles.want({ refine: true }), REFINE_AFTER);
  }
}

function status(tile, refined, ms) {
  let words = tile.kind === "marks" ? "each event is a mark" : tile.exact ? "exact counts" : "estimated counts";
  if (tile.progress !== null && (tile.coarse || tile.colour !== $("colour").value)) {
    words += `; counting the whole file, ${Math.floor(100 * tile.progress)} %`;
  } else if (tile.coarse && !refined) {
    words += " in large cells; counting smaller ones";
  }
  $("status").textContent = `${words} · ${Math.round(ms)} ms`;
}

/** For those who test and measure: the picture of the present view is on the screen. */
function markDrawn() {
  $("overlay").dataset.state = "drawn";
  performance.clearMarks("drawn");
  performance.mark("drawn", { detail: { coarse: picture.tile.coarse || !picture.tile.exact } });
}

function boxQuery(box) {
  return { population: population.name, lane, start: box.start, stop: box.stop, low: box.low, high: box.high };
}

async function loadNearest(asked, signal) {
  await new Promise((resolve) => setTimeout(resolve, 80)); // until the pointer rests
  if (signal.aborted) return;
  const { raster } = plot.frames;
  try {
    const { event } = await askFacts("nearest", {
      population: population.name, lane, time: asked.time, node: asked.node,
      reach: REACH / raster.perMs, nodes: REACH / raster.perNode,
      low: Math.floor(view.low), high: Math.ceil(view.high),
    }, signal);
    if (place === asked && event) {
      asked.event = event;
      drawOverlay();
    }
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
  }
}

// -- drawing -------------------------------------------------------------------------------------------------

function drawSoon() {
  if (frameAsked) return;
  frameAsked = true;
  requestAnimationFrame(() => {
    frameAsked = false;
    draw();
  });
}

function draw() {
  if (!view) return;
  const lanes = info.n_lanes > 1 ? `${count(info.n_lanes)} lanes × ` : "";
  const about = `${population.kind} · ${lanes}${count(population.n_units)} units`;
  plot.draw({
    view, population, lane, picture, backdrop, scale, about, traced: states.traced,
    nLanes: info.n_lanes, laneStops: info.lane_stops, dt: info.dt,
  });
  if (place && !("time" in place)) place = plot.place(place.x, place.y);
  states.want(view, Math.ceil(plot.frames.raster.width));
  describe();
  drawOverlay();
  const { left, top, width, height } = plot.frames.raster;
  $("overlay").dataset.raster = [left, top, width, height].join();
  if (settled) markDrawn();
  settled = false;
}

function describe() {
  const digits = (view.stop - view.start) / 1000;
  const n = population.n_units;
  const first = Math.floor(view.low) % n;
  const last = (Math.ceil(view.high) - 1) % n;
  const nLanes = (view.high - view.low) / n;
  const rows = nLanes > 1 ? `${Math.round(nLanes)} lanes` : `units ${first} to ${last}`;
  const events = picture ? `, ${count(picture.eventsIn(view))} events` : "";
  const times = `${withStep(view.start, digits)} to ${withStep(view.stop, digits)} ms`;
  $("overlay").setAttribute("aria-label", `Raster of ${population.name}: ${times}, ${rows}${events}`);
}

function drawOverlay() {
  if (!plot.frames || !view) return;
  const { raster } = plot.frames;
  const pointer = place && { x: place.x };
  let words = "";
  if (place) {
    words = `${timeWords(place.time, 1 / raster.perMs)}`;
    if (place.inRaster) words = under(place, pointer);
  }
  plot.drawOverlay({ pointer, box: selection.box, drawn: drawnBox });
  tip($("tip"), words, place, $("overlay"));
}

/** What is under the pointer: an event, or a cell. */
function under(at, pointer) {
  const { raster } = plot.frames;
  const n = population.n_units;
  const half = (info.dt ?? 0) / 2;
  const shown = (event) => {
    pointer.mark = { x: raster.x(event.time + half), y: raster.y(event.lane * n + event.unit + 0.5) };
    return eventWords(event, info, population);
  };
  if (picture?.kind === "cells") {
    askNearest(at);
    const cell = picture.at(at.time, at.node);
    const words = cell ? [cellWords(cell, info, population, picture.tile.colour)] : [];
    if (at.event) words.push(`an event nearby\n${shown(at.event)}`);
    if (words.length) return words.join("\n\n");
  } else if (picture) {
    if (at.event) return shown(at.event);
    const k = picture.near(at.x, at.y, raster, REACH);
    if (k !== null) {
      const { tile } = picture;
      const event = { time: tile.time[k], lane: Math.floor(tile.node[k] / n), unit: tile.node[k] % n };
      for (const name of population.colours) if (tile[name]) event[name] = tile[name][k];
      if (population.colours.some((name) => !tile[name])) askNearest(at);
      return shown(event);
    }
  }
  const node = Math.floor(at.node);
  return [timeWords(at.time, 1 / raster.perMs), `lane ${Math.floor(node / n)}, unit ${node % n}`].join("\n");
}

function askNearest(at) {
  if (at.asked) return;
  at.asked = true;
  nearest.want(at);
}

// -- the file ------------------------------------------------------------------------------------------------

async function look() {
  try {
    const before = info;
    info = await askFacts("info");
    population = info.populations.find((member) => member.name === population.name);
    trouble = "";
    if (info.stop !== before.stop) grown(before);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    trouble = error.message;
  }
  showFacts();
  showNote();
  lookAgain();
}

function lookAgain() {
  const wait = info.complete ? LOOK_EVERY.complete : LOOK_EVERY.growing;
  setTimeout(() => (document.hidden ? lookAgain() : look()), wait);
}

/** More has been written. */
function grown(before) {
  const all = view.start <= before.start && view.stop >= before.stop;
  if (following && all) setView({ ...view, stop: info.stop }, false);
  else if (following) goToEnd();
  else if (view.stop >= before.stop) show();
}

function follow(on) {
  following = on;
  $("follow").setAttribute("aria-pressed", String(on));
  if (on && view.stop < info.stop) goToEnd();
}

function goToEnd() {
  setView({ ...view, start: info.stop - (view.stop - view.start), stop: info.stop }, false);
}

function showFacts() {
  const span = info.stop - info.start;
  const length = span >= 10000 ? `${short(span / 1000)} s` : `${short(span)} ms`;
  const clock = info.continuous ? "in continuous time" : `in steps of ${short(info.dt)} ms`;
  const events = info.populations.reduce((sum, member) => sum + member.n_events, 0);
  $("file").textContent = info.file;
  document.title = `${info.file} – evsim view`;
  const lanes = `${count(info.n_lanes)} lane${info.n_lanes > 1 ? "s" : ""}`;
  $("facts").textContent = `${length} ${clock} · ${lanes} · ${count(events)} events`;
  $("live").hidden = info.complete;
  const quiet = Math.round(info.quiet_s);
  $("live").textContent = quiet > 5
    ? `not finished: nothing new for ${count(quiet)} s, the run is slow or was killed`
    : "still being written";
  $("follow").hidden = info.complete;
}

function showNote() {
  const words = trouble || info?.note || "";
  $("note").hidden = !words;
  if ($("note").textContent !== words) $("note").textContent = words;
}

// -- controls ------------------------------------------------------------------------------------------------

function fill(select, options, chosen) {
  select.replaceChildren(...options.map(([value, words]) => new Option(words, value)));
  select.value = options.some(([value]) => value === chosen) ? chosen : options[0][0];
}

function choosePopulation(name, chosenLane = "0", colour = "density") {
  population = info.populations.find((member) => member.name === name);
  const lanes = Array.from({ length: Math.min(info.n_lanes, 1000) }, (_, k) => [String(k), String(k)]);
  fill($("lane"), info.n_lanes > 1 ? [...lanes, ["-1", "all"]] : lanes, chosenLane);
  lane = Number($("lane").value);
  fill($("colour"), [["density", "density"], ...population.colours.map((c) => [c, NAMES[c]])], colour);
  states.offer(info.populations, name, info.n_lanes);
  selection.choose(null);
}

function setSelecting(on) {
  selecting = on;
  $("select").setAttribute("aria-pressed", String(on));
  $("overlay").classList.toggle("selecting", on);
}

function selectView() {
  choose({ start: view.start, stop: view.stop, low: Math.floor(view.low), high: Math.ceil(view.high) });
}

/** Select a box; of whole steps, those whose middle, where they are drawn, is in it. */
function choose(box) {
  const { dt } = info;
  if (dt === null) return selection.choose(box);
  const first = Math.round(box.start / dt);
  const last = Math.max(Math.round(box.stop / dt), first + 1);
  return selection.choose({ ...box, start: first * dt, stop: last * dt });
}

/** Zoom about a place; while following a run, about its end. */
function zoom(time, node, factor, axes) {
  setView(zoomed(view, following ? view.stop : time, node, factor, axes));
}

function zoomBy(factor) {
  zoom((view.start + view.stop) / 2, (view.low + view.high) / 2, factor);
}

function goTo(start) {
  const span = view.stop - view.start;
  setView({ ...view, start, stop: start + span });
}

const KEYS = {
  0: () => setView(whole()),
  Home: () => goTo(info.start),
  End: () => (info.complete ? goTo(info.stop - (view.stop - view.start)) : follow(true)),
  s: () => setSelecting(!selecting),
  v: selectView,
  f: () => info.complete || follow(!following),
  Escape: () => {
    setSelecting(false);
    selection.choose(null);
  },
};

function connect() {
  $("population").addEventListener("change", (event) => {
    choosePopulation(event.target.value);
    view = whole();
    startAnew();
  });
  $("lane").addEventListener("change", (event) => {
    lane = Number(event.target.value);
    const all = bounds();
    view = clamp({ ...view, low: all.low, high: all.high }, all);
    selection.choose(null);
    startAnew();
  });
  $("colour").addEventListener("change", startAnew);
  $("hold").addEventListener("change", () => {
    if ($("hold").checked || !picture) return;
    scale = picture.scale();
    drawSoon();
  });
  $("closer").addEventListener("click", () => zoomBy(0.5));
  $("wider").addEventListener("click", () => zoomBy(2));
  $("whole").addEventListener("click", () => setView(whole()));
  $("select").addEventListener("click", () => setSelecting(!selecting));
  $("follow").addEventListener("click", () => follow(!following));
  $("select-view").addEventListener("click", selectView);
  $("zoom-selection").addEventListener("click", () => setView(selection.box));
  $("clear").addEventListener("click", () => selection.choose(null));
  $("controls").addEventListener("submit", (event) => event.preventDefault());
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !(event.key in KEYS)) return;
    if (event.target.matches("input, select") && event.key !== "Escape") return;
    event.preventDefault();
    KEYS[event.key]();
  });
  listen($("overlay"), plot, {
    current: () => view,
    view: setView,
    zoom,
    whole: () => setView(whole()),
    selecting: () => selecting,
    place: (found) => {
      place = found;
      drawOverlay();
    },
    box: (box, done) => {
      drawnBox = done ? null : box;
      if (done) choose(box);
      drawOverlay();
    },
    click: (at) => {
      const node = Math.floor(at.node);
      const n = population.n_units;
      if (at.inRaster) states.add(population.name, Math.floor(node / n), node % n);
    },
  });
  new ResizeObserver(() => {
    const size = `${$("plot").clientWidth} ${$("plot").clientHeight} ${window.devicePixelRatio}`;
    if (size === drawnSize) return;
    drawnSize = size;
    show();
  }).observe($("plot"));
  whenPaletteChanges(drawSoon);
}

// -- addresses that show the same again ----------------------------------------------------------------------

let remembering = 0;

function remember() {
  clearTimeout(remembering);
  remembering = setTimeout(() => {
    const all = whole();
    const facts = { population: population.name, lane, colour: $("colour").value };
    if (!same(view, all)) facts.view = [view.start, view.stop, view.low, view.high].join(",");
    history.replaceState(null, "", `#${new URLSearchParams(facts)}`);
  }, 300);
}

function recall() {
  const facts = new URLSearchParams(location.hash.slice(1));
  const name = facts.get("population");
  const known = info.populations.some((member) => member.name === name && member.sends);
  const sending = info.populations.filter((member) => member.sends);
  fill($("population"), sending.map((member) => [member.name, member.name]), known ? name : info.population);
  choosePopulation($("population").value, facts.get("lane") ?? "0", facts.get("colour") ?? "density");
  const [start, stop, low, high] = (facts.get("view") ?? "").split(",").map(Number);
  const there = [start, stop, low, high].every(Number.isFinite) && start < stop && low < high;
  view = there ? clamp({ start, stop, low, high }, bounds()) : whole();
}

async function begin() {
  try {
    info = await askFacts("info");
  } catch (error) {
    trouble = error.message;
    showNote();
    return;
  }
  document.documentElement.style.backgroundColor = palette().paper;
  recall();
  showFacts();
  showNote();
  follow(!info.complete);
  connect(); // which shows it, once the plot has a size
  lookAgain();
}

begin();
