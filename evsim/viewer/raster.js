// What the server says about a window, made ready to be drawn: cells or marks, and their scale of colours.

import { roundUp } from "./axes.js";
import { css, ramp } from "./colours.js";

/** Share of cells, and of values at either end, that may lie beyond a scale of colours. */
const BEYOND = 0.002;
/** Smallest and largest size of a mark on the screen, in CSS pixels. */
const MARK = { least: 3, widest: 8, tallest: 14 };

/** Share of a picture that marks may cover together, and how many there may be at most. */
const COVER = 0.3;
const MOST_MARKS = 20000;

/** How many marks a frame can hold before they feign more activity than there is. */
export function mostMarks(frame, dt) {
  const step = dt === null ? 0 : frame.perMs * dt;
  if (step >= MARK.least && frame.perNode >= MARK.least) return MOST_MARKS; // none hides another
  const size = Math.max(step, MARK.least) * markHeight(frame);
  return Math.floor(Math.min((COVER * frame.width * frame.height) / size, MOST_MARKS));
}

function markHeight(frame) {
  return Math.min(Math.max(0.8 * frame.perNode, MARK.least), MARK.tallest);
}

/** Events per unit and step in percent, or events per unit and second, that a count in an extent stands for. */
export function activity(count, nodes, ms, dt) {
  if (!(nodes > 0 && ms > 0)) return 0;
  return dt === null ? (1000 * count) / (nodes * ms) : (100 * count * dt) / (nodes * ms);
}

export function makePicture(tile, window, lanes) {
  return tile.kind === "cells" ? new Cells(tile, window, lanes) : new Marks(tile, window, lanes);
}

/** Steps and lanes: how many of some nodes there are at a time, as lanes may end before the file does. */
export class Lanes {
  /** @param stops  when each lane ends, in ms; null if all end with the file */
  constructor(dt, nUnits, stops) {
    Object.assign(this, { dt, nUnits, stops });
  }

  present(low, high, time) {
    if (this.stops === null) return high - low;
    let found = 0;
    for (let k = Math.floor(low / this.nUnits); k * this.nUnits < high; k++) {
      if (time < this.stops[k]) found += Math.min((k + 1) * this.nUnits, high) - Math.max(k * this.nUnits, low);
    }
    return found;
  }
}

/** Events counted in cells. */
class Cells {
  constructor(tile, window, lanes) {
    this.kind = "cells";
    this.tile = tile;
    this.window = window;
    this.lanes = lanes;
    this.dt = lanes.dt;
    [this.columns, this.rows] = tile.arrays.find(([name]) => name === "counts")[2];
    this.box = {
      start: tile.start, stop: tile.start + this.columns * tile.width,
      low: tile.first, high: tile.first + this.rows * tile.height,
    };
    this.activity = this.#activity();
    this.events = tile.counts.reduce((a, b) => a + b, 0);
    this.canvas = document.createElement("canvas");
    this.canvas.width = this.columns;
    this.canvas.height = this.rows;
    this.painted = null;
  }

  /** ms that a column, and nodes that a row covers: those at the end of the file are cut. */
  columnExtent(c) {
    const start = this.tile.start + c * this.tile.width;
    return Math.max(Math.min(start + this.tile.width, this.tile.stop) - start, 0);
  }

  rowExtent(r) {
    const first = this.tile.first + r * this.tile.height;
    return Math.min(first + this.tile.height, this.tile.high) - Math.max(first, this.tile.low);
  }

  #activity() {
    const { counts } = this.tile;
    const values = new Float32Array(counts.length);
    const extents = Array.from({ length: this.rows }, (_, r) => this.rowExtent(r));
    for (let c = 0, i = 0; c < this.columns; c++) {
      const ms = this.columnExtent(c);
      for (let r = 0; r < this.rows; r++, i++) {
        if (counts[i]) values[i] = activity(counts[i], extents[r], ms, this.dt);
      }
    }
    return values;
  }

  scale() {
    const top = roundUp(upperQuantile(this.activity, BEYOND));
    const density = { top: this.dt === null ? top || 1 : Math.min(top || 1, 100) };
    if (this.tile.colour === "density") return { name: "density", ...density };
    const { means, counts } = this.tile;
    const stride = Math.max(Math.floor(counts.length / 40000), 1);
    const sample = [];
    for (let i = 0; i < counts.length; i += stride) if (counts[i]) sample.push(means[i]);
    return { name: this.tile.colour, ...density, ...limits(Float32Array.from(sample)) };
  }

  #paint(scale, colours) {
    const key = JSON.stringify([scale, colours.paper]);
    if (this.painted === key) return;
    this.painted = key;
    const image = new ImageData(this.columns, this.rows);
    const pixels = new Uint32Array(image.data.buffer);
    const { counts, means } = this.tile;
    const plain = scale.name === "density" || !means;
    const table = ramp(plain ? colours.density : scale.both ? colours.bothSigns : colours.oneSign);
    const paper = ramp(colours.density)[0];
    const perTop = 1 / scale.top;
    for (let c = 0, i = 0; c < this.columns; c++) {
      for (let r = 0, p = (this.rows - 1) * this.columns + c; r < this.rows; r++, i++, p -= this.columns) {
        if (!counts[i]) {
          pixels[p] = paper;
          continue;
        }
        const share = Math.min(this.activity[i] * perTop, 1);
        if (plain) {
          pixels[p] = table[28 + Math.round(227 * share)]; // one event differs from none
        } else {
          const opaque = Math.round(255 * (0.35 + 0.65 * Math.sqrt(share)));
          pixels[p] = ((table[place(means[i], scale)] & 0xffffff) | (opaque << 24)) >>> 0;
        }
      }
    }
    this.canvas.getContext("2d").putImageData(image, 0, 0);
  }

  /** Events of the cells; those at the edges may reach beyond the view. */
  eventsIn() {
    return this.events;
  }

  draw(context, frame, scale, colours) {
    this.#paint(scale, colours);
    const { start, stop, low, high } = this.box;
    const [left, right, top, bottom] = [frame.x(start), frame.x(stop), frame.y(high), frame.y(low)];
    context.fillStyle = colours.paper;
    context.fillRect(left, top, right - left, bottom - top);
    context.imageSmoothingEnabled = false;
    context.drawImage(this.canvas, left, top, right - left, bottom - top);
  }

  /** Activity of the nodes in view over time, as steps: edges of equal width. */
  trace(view) {
    const { tile } = this;
    const from = Math.max(Math.floor((view.low - tile.first) / tile.height), 0);
    const to = Math.min(Math.ceil((view.high - tile.first) / tile.height), this.rows);
    const low = Math.max(tile.first + from * tile.height, tile.low);
    const high = Math.min(tile.first + to * tile.height, tile.high);
    const values = new Float32Array(this.columns);
    for (let c = 0; c < this.columns; c++) {
      let sum = 0;
      for (let r = from; r < to; r++) sum += tile.counts[c * this.rows + r];
      const nodes = this.lanes.present(low, high, tile.start + (c + 0.5) * tile.width);
      values[c] = activity(sum, nodes, this.columnExtent(c), this.dt);
    }
    return { start: tile.start, width: tile.width, values };
  }

  /** The cell at a place. */
  at(time, node) {
    const c = Math.floor((time - this.tile.start) / this.tile.width);
    const r = Math.floor((node - this.tile.first) / this.tile.height);
    if (c < 0 || c >= this.columns || r < 0 || r >= this.rows) return null;
    const i = c * this.rows + r;
    const start = this.tile.start + c * this.tile.width;
    const first = Math.max(this.tile.first + r * this.tile.height, this.tile.low);
    return {
      start, stop: start + this.columnExtent(c), first, last: first + this.rowExtent(r) - 1,
      events: this.tile.counts[i], activity: this.activity[i],
      mean: this.tile.means && this.tile.counts[i] ? this.tile.means[i] : null,
    };
  }
}

/** Events one by one. */
class Marks {
  constructor(tile, window, lanes) {
    this.kind = "marks";
    this.tile = tile;
    this.window = window;
    this.lanes = lanes;
    this.dt = lanes.dt;
    this.box = window;
    this.events = tile.time.length;
    this.shift = (this.dt ?? 0) / 2; // a step is drawn in its middle
    this.ordered = null;
  }

  eventsIn(view) {
    const { time, node } = this.tile;
    let found = 0;
    for (let k = 0; k < time.length; k++) {
      const inTime = time[k] + this.shift >= view.start && time[k] + this.shift <= view.stop;
      if (inTime && node[k] + 1 > view.low && node[k] < view.high) found++;
    }
    return found;
  }

  scale() {
    const values = this.tile[this.tile.colour];
    if (this.tile.colour === "density" || !values) return { name: "density", top: null };
    return { name: this.tile.colour, top: null, ...limits(values) };
  }

  /** Order in which marks are drawn, the largest values last, and their colours. */
  #order(scale) {
    const key = JSON.stringify(scale);
    if (this.ordered?.key === key) return this.ordered;
    const values = this.tile[scale.name];
    const places = new Uint8Array(values.length);
    for (let k = 0; k < values.length; k++) places[k] = place(values[k], scale);
    const far = (p) => (scale.both ? Math.abs(p - 127.5) : p);
    const before = (a, b) => far(places[a]) - far(places[b]) || places[a] - places[b];
    const order = Uint32Array.from(places.keys()).sort(before);
    this.ordered = { key, order, places };
    return this.ordered;
  }

  draw(context, frame, scale, colours) {
    const { time, node } = this.tile;
    const { box } = this;
    context.fillStyle = colours.paper;
    const [left, top] = [frame.x(box.start), frame.y(box.high)];
    context.fillRect(left, top, frame.x(box.stop) - left, frame.y(box.low) - top);
    const width = Math.min(Math.max(this.dt === null ? 0 : frame.perMs * this.dt * 0.9, MARK.least), MARK.widest);
    const height = markHeight(frame);
    const mark = (k) => {
      const x = frame.x(time[k] + this.shift) - width / 2;
      const y = frame.y(node[k] + 0.5) - height / 2;
      context.fillRect(frame.snap(x), frame.snap(y), frame.snap(width), frame.snap(height));
    };
    if (scale.name === "density" || !this.tile[scale.name]) {
      context.fillStyle = colours.ink;
      for (let k = 0; k < time.length; k++) mark(k);
      return;
    }
    const table = ramp(scale.both ? colours.bothSigns : colours.oneSign);
    const { order, places } = this.#order(scale);
    let last = -1;
    for (const k of order) {
      if (places[k] !== last) {
        last = places[k];
        context.fillStyle = css(table[last]);
      }
      mark(k);
    }
  }

  trace(view, frame) {
    const least = 5 / frame.perMs;
    const step = this.dt ?? 0;
    const width = step ? Math.max(Math.ceil(least / step), 1) * step : roundUp(least);
    const [start, stop] = [Math.max(this.box.start, view.start), Math.min(this.box.stop, view.stop)];
    const first = Math.floor(start / width + 1e-9);
    const values = new Float32Array(Math.max(Math.ceil(stop / width - 1e-9) - first, 1));
    const { time, node } = this.tile;
    const low = Math.max(Math.floor(view.low), this.box.low);
    const high = Math.min(Math.ceil(view.high), this.box.high);
    for (let k = 0; k < time.length; k++) {
      if (node[k] < low || node[k] >= high) continue;
      const bin = Math.floor((time[k] + this.shift) / width) - first;
      if (bin >= 0 && bin < values.length) values[bin]++;
    }
    for (let b = 0; b < values.length; b++) {
      const from = Math.max((first + b) * width, this.box.start);
      const ms = Math.min((first + b + 1) * width, this.box.stop) - from;
      values[b] = activity(values[b], this.lanes.present(low, high, from + ms / 2), ms, this.dt);
    }
    return { start: first * width, width, values };
  }

  /** The event nearest to a place on the screen, within a few pixels. */
  near(x, y, frame, reach) {
    const { time, node } = this.tile;
    let best = null;
    let least = reach;
    for (let k = 0; k < time.length; k++) {
      const far = Math.hypot(frame.x(time[k] + this.shift) - x, frame.y(node[k] + 0.5) - y);
      if (far <= least) [best, least] = [k, far];
    }
    return best;
  }
}

/** Where a value lies on a scale, 0 to 255. */
export function place(value, scale) {
  const share = (value - scale.low) / (scale.high - scale.low);
  return Math.round(255 * Math.min(Math.max(share, 0), 1)) || 0;
}

/** Range of colours for values, cut where few of them lie far out; about zero when both signs occur. */
function limits(values) {
  const sorted = values.filter(Number.isFinite).sort();
  if (!sorted.length) return { low: 0, high: 1, both: false };
  let [low, high] = [sorted[0], sorted[sorted.length - 1]];
  const inner = [0.005, 0.995].map((q) => sorted[Math.round(q * (sorted.length - 1))]);
  const spread = inner[1] - inner[0];
  if (spread > 0 && inner[0] - low > 0.5 * spread) low = inner[0];
  if (spread > 0 && high - inner[1] > 0.5 * spread) high = inner[1];
  if (low < 0 && high > 0) {
    const sizes = sorted.map(Math.abs).sort();
    const size = roundUp(sizes[Math.round(0.99 * (sizes.length - 1))]);
    return { low: -size, high: size, both: true };
  }
  const unit = roundUp((high - low) / 20) || Math.abs(high) || 1;
  const [first, last] = [Math.floor(low / unit), Math.ceil(high / unit)];
  return { low: first * unit, high: Math.max(last, first + 1) * unit, both: false };
}

/** The value that a share of all values lies above, to 1/2000 of the largest; of no values, 0. */
function upperQuantile(values, share) {
  let most = 0;
  for (const value of values) if (value > most) most = value;
  if (!most) return 0;
  const bins = new Uint32Array(2001);
  for (const value of values) bins[Math.round((2000 * value) / most)]++;
  let left = share * values.length;
  for (let b = 2000; b > 0; b--) {
    left -= bins[b];
    if (left < 0) return (b / 2000) * most;
  }
  return most;
}
