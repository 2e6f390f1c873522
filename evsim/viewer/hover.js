// What is said about the place under the pointer.

import { count, short, withStep } from "./axes.js";
import { NAMES } from "./plot.js";

/** An event in words, a line for each thing to know. */
export function eventWords(event, info, population) {
  const resolution = info.dt ?? 1e-6;
  const step = info.dt === null ? "" : ` (step ${count(event.time / info.dt)})`;
  const lines = [`${withStep(event.time, resolution)} ms${step}`, `lane ${event.lane}, unit ${event.unit}`];
  for (const name of population.colours) {
    if (name in event) lines.push(`${NAMES[name]} ${short(event[name], 5)}`);
  }
  return lines.join("\n");
}

/** A cell in words. */
export function cellWords(cell, info, population, colour) {
  const n = population.n_units;
  const resolution = info.dt ?? (cell.stop - cell.start) / 10;
  const several = info.n_lanes > 1;
  const name = (node) => (several ? `${Math.floor(node / n)}:${node % n}` : `${node % n}`);
  const [from, to] = [name(cell.first), name(cell.last)];
  const events = `${count(cell.events)} event${cell.events === 1 ? "" : "s"}`;
  const lines = [
    `${withStep(cell.start, resolution)} to ${withStep(cell.stop, resolution)} ms`,
    `${several ? "lane:unit" : "unit"} ${from}${from === to ? "" : ` to ${to}`}`,
    `${events}, ${short(cell.activity, 3)} ${info.dt === null ? "Hz" : "% active"}`,
  ];
  if (cell.mean !== null) lines.push(`mean ${NAMES[colour]} ${short(cell.mean, 4)}`);
  return lines.join("\n");
}

/** Show words beside a place in the plot, or nothing. */
export function tip(element, words, place, plot) {
  element.hidden = !words;
  if (!words) return;
  element.textContent = words;
  const { offsetWidth, offsetHeight } = element;
  const left = place.x + 16 + offsetWidth > plot.clientWidth ? place.x - 16 - offsetWidth : place.x + 16;
  const top = Math.min(Math.max(place.y + 14, 0), plot.clientHeight - offsetHeight);
  element.style.transform = `translate(${Math.round(left)}px, ${Math.round(top)}px)`;
}
