// A window over time and nodes, moved and zoomed within bounds.

/** Bounds: { start, stop, low, high, leastMs, leastNodes }. */
export function clamp(view, bounds) {
  const [start, stop] = within(view.start, view.stop, bounds.start, bounds.stop, bounds.leastMs);
  const [low, high] = within(view.low, view.high, bounds.low, bounds.high, bounds.leastNodes);
  return { start, stop, low, high };
}

function within(from, to, least, most, narrowest) {
  const whole = most - least;
  const span = Math.min(Math.max(to - from, Math.min(narrowest, whole)), whole);
  const middle = (from + to) / 2;
  const start = Math.min(Math.max(middle - span / 2, least), most - span);
  return [start, start + span];
}

/** The part of the view that keeps a place where it is; a factor below 1 shows less. */
export function zoomed(view, time, node, factor, { times = true, nodes = true } = {}) {
  const made = { ...view };
  if (times) Object.assign(made, {
    start: time - (time - view.start) * factor, stop: time + (view.stop - time) * factor,
  });
  if (nodes) Object.assign(made, {
    low: node - (node - view.low) * factor, high: node + (view.high - node) * factor,
  });
  return made;
}

export function moved(view, ms, nodes) {
  return { start: view.start + ms, stop: view.stop + ms, low: view.low + nodes, high: view.high + nodes };
}

/** Whether all of b lies in a. */
export function holds(a, b) {
  return a.start <= b.start && a.stop >= b.stop && a.low <= b.low && a.high >= b.high;
}

export function same(a, b) {
  return a.start === b.start && a.stop === b.stop && a.low === b.low && a.high === b.high;
}
