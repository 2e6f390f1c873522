// The box that has been chosen: numbers about it, and its events to keep.

import { count, short, withStep } from "./axes.js";
import { NAMES } from "./plot.js";
import { address, askFacts, Newest, Refused } from "./requests.js";

const MOST_LINES = 1_000_000;
const $ = (id) => document.getElementById(id);

export class Selection {
  /** @param query  (box) => what the server needs to know about it */
  constructor(query, changed) {
    this.query = query;
    this.changed = changed;
    this.box = null;
    this.requests = new Newest((box, signal) => this.#ask(box, signal), 0);
  }

  choose(box) {
    this.box = box;
    this.#show(null, box ? "counting …" : "");
    if (box) this.requests.want(box);
    else this.requests.drop();
    this.changed();
  }

  async #ask(box, signal) {
    try {
      const facts = await askFacts("statistics", this.query(box), signal);
      if (this.box === box) this.#show(facts, "");
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      if (this.box === box) this.#show(null, error.message);
    }
  }

  #show(facts, message) {
    const any = this.box !== null;
    $("no-selection").hidden = any;
    for (const id of ["zoom-selection", "clear"]) $(id).hidden = !any;
    const many = facts !== null && facts.events > MOST_LINES;
    $("save").hidden = facts === null || many || facts.events === 0;
    if (facts) $("save").href = address("events.csv", this.query(this.box));
    $("statistics").hidden = facts === null;
    $("statistics").replaceChildren(...(facts ? lines(this.box, facts).flatMap(([name, words]) => [
      element("dt", name), element("dd", words),
    ]) : []));
    $("selection-message").textContent = many ? `Up to ${count(MOST_LINES)} events can be saved.` : message;
    $("selection-message").hidden = !(many || message);
  }
}

function lines(box, facts) {
  const digits = (box.stop - box.start) / 1000;
  const moments = (found) => (found ? `${short(found.mean, 3)} ± ${short(found.sd, 2)}` : "–");
  const rows = [
    ["from", `${withStep(box.start, digits)} ms`],
    ["to", `${withStep(box.stop, digits)} ms`],
    ["events", count(facts.events)],
    ["units active", `${count(facts.active)} of ${count(facts.nodes)}`],
    ["mean rate", facts.rate_hz === null ? "–" : `${short(facts.rate_hz, 3)} Hz`],
  ];
  if (facts.alpha !== null) rows.push(["alpha", short(facts.alpha, 3)]);
  for (const name of ["value", "gradient", "time_gradient"]) {
    if (name in facts) rows.push([NAMES[name], moments(facts[name])]);
  }
  if (facts.value) rows.push(["payload range", `${short(facts.value.min, 3)} … ${short(facts.value.max, 3)}`]);
  rows.push(["interval", facts.interval_ms === null ? "–" : `${short(facts.interval_ms, 3)} ms`]);
  rows.push(["CV of intervals", facts.cv === null ? "–" : `${short(facts.cv, 3)} (${count(facts.cv_nodes)} units)`]);
  return rows;
}

function element(name, words) {
  const made = document.createElement(name);
  made.textContent = words;
  return made;
}
