// Draws the raster, the activity below it and traced states, on one axis of time.

import { count, short, ticks, timeUnit, withStep } from "./axes.js";
import { css, palette, ramp } from "./colours.js";
import { holds } from "./view.js";

const MARGIN = { left: 74, right: 98, top: 30, bottom: 42 };
const GAP = 16;
const FONT = "12px system-ui, sans-serif";
const SMALL = "11px system-ui, sans-serif";

export const NAMES = {
  density: "density", value: "payload", gradient: "dL/d(payload)", time_gradient: "dL/d(time) [1/ms]",
};

/** The pixels of a panel and the data they stand for. */
class Frame {
  constructor(left, top, width, height, view, ratio) {
    Object.assign(this, { left, top, width, height, view, ratio });
    this.perMs = width / (view.stop - view.start);
    this.perNode = height / (view.high - view.low);
  }

  x(time) {
    return this.left + (time - this.view.start) * this.perMs;
  }

  y(node) {
    return this.top + this.height - (node - this.view.low) * this.perNode;
  }

  time(x) {
    return this.view.start + (x - this.left) / this.perMs;
  }

  node(y) {
    return this.view.low + (this.top + this.height - y) / this.perNode;
  }

  /** On whole pixels of the screen, so that edges are sharp. */
  snap(value) {
    return Math.round(value * this.ratio) / this.ratio;
  }

  holds(x, y) {
    return x >= this.left && x <= this.left + this.width && y >= this.top && y <= this.top + this.height;
  }
}

export class Plot {
  constructor(canvas, overlay) {
    this.canvas = canvas;
    this.overlay = overlay;
    this.frames = null;
  }

  /** Panels for a view; the canvases take the size that the page gives them. */
  #layout(model) {
    const ratio = window.devicePixelRatio || 1;
    const { clientWidth: width, clientHeight: height } = this.canvas;
    for (const canvas of [this.canvas, this.overlay]) {
      const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
      if (canvas.width !== w || canvas.height !== h) Object.assign(canvas, { width: w, height: h });
    }
    const inner = Math.max(width - MARGIN.left - MARGIN.right, 50);
    const rate = Math.min(Math.max(height * 0.15, 50), 110);
    const state = model.traced ? Math.min(Math.max(height * 0.2, 60), 150) : 0;
    const tall = Math.max(height - MARGIN.top - MARGIN.bottom - rate - GAP - (state ? state + GAP : 0), 60);
    const frame = (top, high) => new Frame(MARGIN.left, top, inner, high, model.view, ratio);
    const frames = { raster: frame(MARGIN.top, tall), rate: frame(MARGIN.top + tall + GAP, rate) };
    if (state) frames.state = frame(MARGIN.top + tall + rate + 2 * GAP, state);
    frames.last = frames.state ?? frames.rate;
    return frames;
  }

  /** What is at a point of the canvas; null beside all panels. */
  place(x, y) {
    const { raster, last } = this.frames;
    if (x < raster.left || x > raster.left + raster.width || y < raster.top || y > last.top + last.height) return null;
    return { x, y, time: raster.time(x), node: raster.node(y), inRaster: raster.holds(x, y) };
  }

  draw(model) {
    const colours = palette();
    this.frames = this.#layout(model);
    const { raster, rate, state, last } = this.frames;
    const context = this.canvas.getContext("2d");
    context.setTransform(raster.ratio, 0, 0, raster.ratio, 0, 0);
    context.fillStyle = colours.paper;
    context.fillRect(0, 0, this.canvas.clientWidth, this.canvas.clientHeight);
    clipped(context, raster, () => {
      const { backdrop, picture } = model;
      if (backdrop && backdrop !== picture && !(picture && holds(picture.box, model.view))) {
        backdrop.draw(context, raster, backdrop.scale(), colours);
      }
      picture?.draw(context, raster, model.scale, colours);
      lanes(context, raster, model, colours);
    });
    border(context, raster, colours);
    units(context, raster, model, colours);
    title(context, raster, model, colours);
    if (model.scale) colourBar(context, raster, model, colours);
    const trace = model.picture?.trace(model.view, raster);
    activityTrace(context, rate, trace, model, colours);
    if (state) stateTraces(context, state, model, colours);
    timeAxis(context, last, model.view, colours);
    for (const frame of [raster, rate]) if (frame !== last) timeMarks(context, frame, colours);
  }

  /** What follows the pointer: a line through all panels, and boxes. */
  drawOverlay({ pointer, box, drawn }) {
    if (!this.frames) return;
    const colours = palette();
    const { raster, last } = this.frames;
    const context = this.overlay.getContext("2d");
    context.setTransform(raster.ratio, 0, 0, raster.ratio, 0, 0);
    context.clearRect(0, 0, this.overlay.clientWidth, this.overlay.clientHeight);
    for (const shape of [box, drawn]) {
      if (!shape) continue;
      clipped(context, raster, () => {
        const [left, top] = [raster.x(shape.start), raster.y(shape.high)];
        const [width, height] = [raster.x(shape.stop) - left, raster.y(shape.low) - top];
        context.fillStyle = colours.choiceFill;
        context.fillRect(left, top, width, height);
        context.strokeStyle = colours.choice;
        context.lineWidth = 1.5;
        context.setLineDash(shape === drawn ? [5, 4] : []);
        context.strokeRect(left, top, width, height);
        context.setLineDash([]);
      });
    }
    if (pointer) {
      context.strokeStyle = colours.grey;
      context.globalAlpha = 0.6;
      context.lineWidth = 1;
      const x = raster.snap(pointer.x) + 0.5 / raster.ratio;
      context.beginPath();
      context.moveTo(x, raster.top);
      context.lineTo(x, last.top + last.height);
      context.stroke();
      context.globalAlpha = 1;
      if (pointer.mark) {
        context.strokeStyle = colours.choice;
        context.lineWidth = 1.5;
        context.beginPath();
        context.arc(pointer.mark.x, pointer.mark.y, 7, 0, 2 * Math.PI);
        context.stroke();
      }
    }
  }
}

function clipped(context, frame, draw) {
  context.save();
  context.beginPath();
  context.rect(frame.left, frame.top, frame.width, frame.height);
  context.clip();
  draw();
  context.restore();
}

function line(context, x0, y0, x1, y1) {
  context.beginPath();
  context.moveTo(x0, y0);
  context.lineTo(x1, y1);
  context.stroke();
}

function border(context, frame, colours) {
  context.strokeStyle = colours.grey;
  context.lineWidth = 1;
  const [x, y] = [frame.snap(frame.left) - 0.5, frame.snap(frame.top + frame.height) + 0.5];
  line(context, x, frame.top, x, y);
  line(context, x, y, frame.left + frame.width, y);
}

function text(context, words, x, y, { colour, font = FONT, align = "left", baseline = "middle" }) {
  Object.assign(context, { fillStyle: colour, font, textAlign: align, textBaseline: baseline });
  context.fillText(words, x, y);
}

function upright(context, words, x, y, options) {
  context.save();
  context.translate(x, y);
  context.rotate(-Math.PI / 2);
  text(context, words, 0, 0, { align: "center", ...options });
  context.restore();
}

// -- axes of the raster --------------------------------------------------------------------------------------

function lanes(context, frame, { view, population, lane, laneStops }, colours) {
  const n = population.n_units;
  for (let k = Math.floor(view.low / n); laneStops && k * n < view.high; k++) {
    const [x, y] = [frame.x(laneStops[k]), frame.y((k + 1) * n)];
    context.fillStyle = colours.faint;
    context.fillRect(x, y, Math.max(frame.left + frame.width - x, 0), frame.y(k * n) - y);
  }
  if (lane >= 0 || n * frame.perNode < 6) return;
  context.strokeStyle = colours.pale;
  context.lineWidth = 1;
  for (let k = Math.max(Math.ceil(view.low / n), 1); k * n < view.high; k++) {
    const y = frame.snap(frame.y(k * n)) + 0.5;
    line(context, frame.left, y, frame.left + frame.width, y);
  }
}

function units(context, frame, { view, population, lane, nLanes }, colours) {
  const n = population.n_units;
  const tick = (node, words) => {
    const y = frame.snap(frame.y(node));
    context.strokeStyle = colours.grey;
    line(context, frame.left - 5, y, frame.left - 1, y);
    text(context, words, frame.left - 8, y, { colour: colours.ink, align: "right" });
  };
  const wanted = Math.max(Math.min(frame.height / 45, 12), 2);
  const middle = frame.top + frame.height / 2;
  const label = (words) => upright(context, words, 14, middle, { colour: colours.ink });
  if (lane >= 0 || nLanes === 1) {
    const offset = Math.max(lane, 0) * n;
    for (const unit of ticks(view.low - offset - 0.5, view.high - offset - 0.5, wanted, 1).values) {
      if (unit >= 0 && unit < n) tick(offset + unit + 0.5, withStep(unit, 1));
    }
    label("unit");
  } else if (view.high - view.low > 2.5 * n) {
    const { values } = ticks(view.low / n - 0.5, view.high / n - 0.5, wanted, 1);
    for (const k of values) if (k >= 0 && k < nLanes) tick((k + 0.5) * n, withStep(k, 1));
    label(`lane (${count(n)} units each)`);
  } else {
    const { step } = ticks(view.low, view.high, wanted, 1);
    for (let k = Math.floor(view.low / n); k * n < view.high; k++) {
      for (let unit = 0; unit < n; unit += step) {
        const node = k * n + unit + 0.5;
        if (node >= view.low && node <= view.high) tick(node, `${k}:${unit}`);
      }
    }
    label("lane : unit");
  }
}

function title(context, frame, { view, population, picture, about }, colours) {
  const y = frame.top - 15;
  text(context, population.name, frame.left, y, { colour: colours.ink, font: "600 14px system-ui, sans-serif" });
  const width = context.measureText(population.name).width;
  text(context, about, frame.left + width + 12, y, { colour: colours.grey });
  if (picture) {
    const events = picture.eventsIn(view);
    const roughly = picture.kind === "cells" ? "about " : "";
    const words = `${roughly}${count(events)} event${events === 1 ? "" : "s"} in view`;
    text(context, words, frame.left + frame.width, y, { colour: colours.grey, align: "right" });
  }
}

function colourBar(context, frame, { scale, dt, picture }, colours) {
  const plain = scale.name === "density";
  if (plain && scale.top === null) return;
  const height = Math.min(frame.height, 220);
  const [x, y, width] = [frame.left + frame.width + 16, frame.top, 12];
  const table = ramp(plain ? colours.density : scale.both ? colours.bothSigns : colours.oneSign);
  for (let k = 0; k < height; k++) {
    context.fillStyle = css(table[Math.round((255 * (height - 1 - k)) / (height - 1))]);
    context.fillRect(x, y + k, width, 1.5);
  }
  context.strokeStyle = colours.pale;
  context.strokeRect(x - 0.5, y - 0.5, width + 1, height + 1);
  const [low, high] = plain ? [0, scale.top] : [scale.low, scale.high];
  for (const value of ticks(low, high, 4).values) {
    const at = y + height - ((value - low) / (high - low)) * height;
    context.strokeStyle = colours.grey;
    line(context, x + width, at, x + width + 3, at);
    text(context, short(value, 3), x + width + 6, at, { colour: colours.ink, font: SMALL });
  }
  const activityName = dt === null ? "rate of a unit [Hz]" : "active units [%]";
  const name = plain ? activityName : `${picture?.kind === "cells" ? "mean " : ""}${NAMES[scale.name]}`;
  upright(context, name, x + 74, y + height / 2, { colour: colours.ink, font: SMALL });
}

// -- panels below --------------------------------------------------------------------------------------------

function activityTrace(context, frame, trace, { dt }, colours) {
  const label = dt === null ? ["rate", "[Hz]"] : ["active", "[%]"];
  let top = 1;
  if (trace) {
    const { start, width, values } = trace;
    const from = Math.max(Math.floor((frame.view.start - start) / width), 0);
    const to = Math.min(Math.ceil((frame.view.stop - start) / width), values.length);
    const seen = values.subarray(from, Math.max(to, from));
    top = 1.08 * seen.reduce((a, b) => Math.max(a, b), 0) || 1;
    const y = (value) => frame.top + frame.height * (1 - value / top);
    clipped(context, frame, () => {
      const stairs = new Path2D();
      for (let k = from; k < to; k++) {
        stairs.lineTo(frame.x(start + k * width), y(values[k]));
        stairs.lineTo(frame.x(start + (k + 1) * width), y(values[k]));
      }
      context.strokeStyle = colours.accent;
      context.lineWidth = 1;
      context.stroke(stairs);
      stairs.lineTo(frame.x(start + to * width), y(0));
      stairs.lineTo(frame.x(start + from * width), y(0));
      context.fillStyle = colours.band;
      context.fill(stairs);
      if (seen.length > 1) {
        const mean = seen.reduce((a, b) => a + b, 0) / seen.length;
        context.setLineDash([4, 3]);
        context.strokeStyle = colours.ink;
        line(context, frame.left, y(mean), frame.left + frame.width, y(mean));
        context.setLineDash([]);
      }
    });
    if (seen.length > 1) {
      const mean = seen.reduce((a, b) => a + b, 0) / seen.length;
      const words = `mean ${short(mean, 3)}`;
      text(context, words, frame.left + frame.width + 6, y(mean), { colour: colours.grey, font: SMALL });
    }
  }
  border(context, frame, colours);
  valueAxis(context, frame, 0, top, label, colours);
}

function stateTraces(context, frame, { traced }, colours) {
  const { units: chosen, population, lane, data, message } = traced;
  let [low, high] = [Infinity, -Infinity];
  if (data) {
    const n = data.times.length;
    for (let i = 0; i < data.low.length; i++) {
      const time = data.times[i % n];
      if (time < frame.view.start || time > frame.view.stop) continue;
      if (data.low[i] < low) low = data.low[i];
      if (data.high[i] > high) high = data.high[i];
    }
  }
  if (!(high > low)) [low, high] = Number.isFinite(low) ? [low - 0.5, low + 0.5] : [0, 1];
  const pad = 0.05 * (high - low);
  [low, high] = [low - pad, high + pad];
  if (data) {
    const n = data.times.length;
    const y = (value) => frame.top + frame.height * (1 - (value - low) / (high - low));
    clipped(context, frame, () => {
      data.units.forEach((unit, u) => {
        const colour = colours.lines[chosen.indexOf(unit) % colours.lines.length] ?? colours.ink;
        const [lows, highs] = [data.low, data.high].map((all) => all.subarray(u * n, (u + 1) * n));
        stateTrace(context, frame, data.times, lows, highs, y, colour);
      });
    });
    chosen.slice(0, 8).forEach((unit, u) => {
      const at = frame.top + 8 + 14 * u;
      if (at > frame.top + frame.height) return;
      context.fillStyle = colours.lines[u % colours.lines.length];
      context.fillRect(frame.left + frame.width + 8, at - 1, 12, 2);
      text(context, String(unit), frame.left + frame.width + 25, at, { colour: colours.ink, font: SMALL });
    });
  }
  if (message) {
    context.strokeStyle = colours.paper;
    context.lineWidth = 4;
    context.font = FONT;
    context.textAlign = "left";
    context.strokeText(message, frame.left + 10, frame.top + 12);
    text(context, message, frame.left + 10, frame.top + 12, { colour: colours.ink });
  }
  border(context, frame, colours);
  valueAxis(context, frame, low, high, [`${population}.${data?.state ?? "state"}`, `lane ${lane}`], colours);
}

/** A line through samples, or a bar for the range of each stretch of them: zigzags are slow to stroke. */
function stateTrace(context, frame, times, lows, highs, y, colour) {
  const n = times.length;
  if (lows.every((low, k) => low === highs[k])) {
    context.strokeStyle = colour;
    context.lineWidth = 1.2;
    context.beginPath();
    for (let k = 0; k < n; k++) context.lineTo(frame.x(times[k]), y(lows[k]));
    context.stroke();
    return;
  }
  context.fillStyle = colour;
  for (let k = 0; k < n; k++) {
    const before = Math.max(k - 1, 0); // bars reach as far as those next to them
    const [bottom, top] = [y(Math.min(lows[k], highs[before])), y(Math.max(highs[k], lows[before]))];
    const left = frame.snap(frame.x(times[k]));
    const width = k + 1 < n ? frame.snap(frame.x(times[k + 1])) - left : 1;
    context.fillRect(left, frame.snap(top - 0.6), Math.max(width, 1 / frame.ratio), frame.snap(bottom - top + 1.2));
  }
}

function valueAxis(context, frame, low, high, label, colours) {
  const { step, values } = ticks(low, high, Math.max(frame.height / 32, 2));
  for (const value of values) {
    const y = frame.snap(frame.top + frame.height * (1 - (value - low) / (high - low)));
    context.strokeStyle = colours.grey;
    line(context, frame.left - 5, y, frame.left - 1, y);
    const words = Math.abs(value) >= 1e5 || step < 1e-4 ? short(value, 2) : withStep(value, step);
    text(context, words, frame.left - 8, y, { colour: colours.ink, align: "right", font: SMALL });
  }
  label.forEach((words, k) => {
    upright(context, words, 10 + 14 * k, frame.top + frame.height / 2, { colour: colours.ink, font: SMALL });
  });
}

function timeTicks(frame) {
  const unit = timeUnit(frame.view.stop - frame.view.start);
  const found = ticks(frame.view.start / unit.ms, frame.view.stop / unit.ms, frame.width / 110);
  return { unit, ...found };
}

function timeMarks(context, frame, colours) {
  const { unit, values } = timeTicks(frame);
  const y = frame.top + frame.height;
  context.strokeStyle = colours.grey;
  for (const value of values) {
    const x = frame.snap(frame.x(value * unit.ms));
    line(context, x, y + 1, x, y + 4);
  }
}

function timeAxis(context, frame, view, colours) {
  const { unit, step, values } = timeTicks(frame);
  const y = frame.top + frame.height;
  context.strokeStyle = colours.grey;
  for (const value of values) {
    const x = frame.snap(frame.x(value * unit.ms));
    line(context, x, y + 1, x, y + 5);
    text(context, withStep(value, step), x, y + 9, { colour: colours.ink, align: "center", baseline: "top" });
  }
  text(context, `time [${unit.name}]`, frame.left + frame.width / 2, y + 26, {
    colour: colours.ink, align: "center", baseline: "top",
  });
}
