// Mouse, pen and keys over the plot, turned into views, boxes and places.

import { moved } from "./view.js";

/** How far a press may wander and still be a click, in CSS pixels. */
const STILL = 4;

/**
 * @param surface  canvas that takes the events
 * @param plot     has `frames` once it has been drawn
 * @param on       what to do: current() gives the view; view(view), zoom(time, node, factor, axes), whole(),
 *                 place(place or null), box(box or null, done), click(place); selecting() says what a drag means
 */
export function listen(surface, plot, on) {
  let press = null;

  const placeOf = (event) => {
    const { left, top } = surface.getBoundingClientRect();
    return plot.place(event.clientX - left, event.clientY - top);
  };

  surface.addEventListener("wheel", (event) => {
    event.preventDefault();
    if (!plot.frames) return;
    const place = placeOf(event);
    if (!place) return;
    const turned = event.deltaY || event.deltaX; // with shift, browsers turn the wheel sideways
    const lines = event.deltaMode === 1 ? 33 : 1;
    const factor = Math.exp(Math.min(Math.max(turned * lines * (event.ctrlKey ? 0.01 : 0.002), -1), 1));
    const axes = { times: !event.altKey, nodes: !event.shiftKey && place.inRaster };
    on.zoom(place.time, place.node, factor, axes);
  }, { passive: false });

  surface.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || !plot.frames) return;
    const place = placeOf(event);
    if (!place) return;
    surface.focus({ preventScroll: true });
    surface.setPointerCapture(event.pointerId);
    const boxing = place.inRaster && (on.selecting() || event.shiftKey);
    press = { place, view: on.current(), boxing, moved: false };
  });

  surface.addEventListener("pointermove", (event) => {
    if (!plot.frames) return;
    if (!press) {
      on.place(placeOf(event));
      return;
    }
    const { raster } = plot.frames;
    const { left, top } = surface.getBoundingClientRect();
    const [x, y] = [event.clientX - left, event.clientY - top];
    const [dx, dy] = [x - press.place.x, y - press.place.y];
    if (!press.moved && Math.hypot(dx, dy) < STILL) return;
    press.moved = true;
    if (press.boxing) {
      on.box(boxOf(press.place, x, y, raster), false);
    } else {
      const nodes = press.place.inRaster ? dy / raster.perNode : 0;
      on.view(moved(press.view, -dx / raster.perMs, nodes));
    }
  });

  const release = (event) => {
    if (!press) return;
    const { left, top } = surface.getBoundingClientRect();
    const done = press;
    press = null;
    if (event.type === "pointercancel") on.box(null, false);
    else if (!done.moved) on.click(done.place);
    else if (done.boxing) {
      const [x, y] = [event.clientX - left, event.clientY - top];
      on.box(boxOf(done.place, x, y, plot.frames.raster), true);
    }
  };
  surface.addEventListener("pointerup", release);
  surface.addEventListener("pointercancel", release);
  surface.addEventListener("pointerleave", () => {
    if (!press) on.place(null);
  });
  surface.addEventListener("dblclick", () => on.whole());

  surface.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey) return;
    const view = on.current();
    const [ms, nodes] = [view.stop - view.start, view.high - view.low];
    const far = event.shiftKey ? 0.5 : 0.1;
    const centre = [(view.start + view.stop) / 2, (view.low + view.high) / 2];
    const zoom = (factor) => on.zoom(...centre, factor, { times: !event.altKey, nodes: !event.shiftKey });
    const actions = {
      ArrowLeft: () => on.view(moved(view, -far * ms, 0)),
      ArrowRight: () => on.view(moved(view, far * ms, 0)),
      ArrowUp: () => on.view(moved(view, 0, far * nodes)),
      ArrowDown: () => on.view(moved(view, 0, -far * nodes)),
      PageUp: () => on.view(moved(view, -ms, 0)),
      PageDown: () => on.view(moved(view, ms, 0)),
      "+": () => zoom(0.5), "=": () => zoom(0.5), "*": () => zoom(0.5),
      "-": () => zoom(2), _: () => zoom(2),
    };
    if (!(event.key in actions)) return;
    event.preventDefault();
    actions[event.key]();
  });
}

function boxOf(place, x, y, raster) {
  const within = (value, low, size) => Math.min(Math.max(value, low), low + size);
  const [time, node] = [
    raster.time(within(x, raster.left, raster.width)), raster.node(within(y, raster.top, raster.height)),
  ];
  return {
    start: Math.min(time, place.time), stop: Math.max(time, place.time),
    low: Math.floor(Math.min(node, place.node)), high: Math.ceil(Math.max(node, place.node)),
  };
}
