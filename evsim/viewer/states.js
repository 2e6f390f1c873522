// Recorded states of a few units, below the raster.

import { askArrays, Newest, Refused } from "./requests.js";

const MOST = 8;
const $ = (id) => document.getElementById(id);

export class States {
  constructor(changed) {
    this.changed = changed;
    this.members = [];
    this.units = [];
    this.data = null;
    this.message = "";
    this.asked = "";
    this.requests = new Newest((query, signal) => this.#ask(query, signal));
    for (const id of ["state-population", "state-lane"]) $(id).addEventListener("change", () => this.#read());
    $("state-units").addEventListener("change", () => this.#read());
  }

  /** Populations that have states, and the one whose raster is shown. */
  offer(members, shown, nLanes) {
    this.members = members.filter((member) => member.states);
    $("states").hidden = !this.members.length;
    if (!this.members.length) return;
    $("state-population").replaceChildren(...this.members.map((m) => new Option(m.name)));
    $("state-lane").replaceChildren(...Array.from({ length: Math.min(nLanes, 1000) }, (_, k) => new Option(String(k))));
    const first = this.members.find((m) => m.name === shown) ?? this.members[0];
    $("state-population").value = first.name;
    this.#write(Array.from({ length: Math.min(first.n_units, 3) }, (_, k) => k));
  }

  get population() {
    return this.members.find((m) => m.name === $("state-population").value);
  }

  get lane() {
    return Number($("state-lane").value);
  }

  /** Add a unit that was clicked on, if there are states of it. */
  add(name, lane, unit) {
    if (!this.members.some((m) => m.name === name)) return;
    const elsewhere = this.population?.name !== name || this.lane !== lane;
    $("state-population").value = name;
    $("state-lane").value = String(lane);
    const kept = elsewhere ? [] : this.units.filter((u) => u !== unit);
    this.#write([...kept, unit].slice(-MOST));
    this.changed();
  }

  #write(units) {
    this.units = units;
    $("state-units").value = units.join(" ");
    this.data = null;
    this.message = "reading …";
    this.asked = "";
  }

  #read() {
    const n = this.population?.n_units ?? 0;
    const numbers = ($("state-units").value.match(/\d+/g) ?? []).map(Number);
    this.#write([...new Set(numbers.filter((unit) => unit < n))].slice(0, MOST));
    this.changed();
  }

  /** What the plot draws; null when there is nothing to draw. */
  get traced() {
    if (!this.members.length || !this.units.length) return null;
    const { units, data, message, lane } = this;
    return { population: this.population.name, lane, units, data, message };
  }

  /** Ask for what a view needs, unless it is there. */
  want(view, points) {
    if (!this.traced) return;
    const query = {
      population: this.population.name, lane: this.lane, unit: this.units.join(","),
      start: view.start, stop: view.stop, points,
    };
    const asked = JSON.stringify(query);
    if (asked === this.asked) return;
    this.asked = asked;
    this.requests.want(query);
  }

  async #ask(query, signal) {
    try {
      this.data = await askArrays("state", query, signal);
      this.message = this.data.thinned ? "too many samples to read: some are left out" : "";
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      [this.data, this.message] = [null, error.message];
    }
    this.changed(true);
  }
}
