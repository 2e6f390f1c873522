// Numbers on axes, and in words.

/** Round numbers, about `count` of them, from low to high. */
export function ticks(low, high, count, least = 0) {
  const span = high - low;
  if (!(span > 0)) return { step: 1, values: [low] };
  const raw = Math.max(span / Math.max(count, 1), least);
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw * (1 - 1e-9));
  const values = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) values.push(k * step);
  return { step, values };
}

/** The next of a few round numbers times a power of ten. */
export function roundUp(value) {
  if (!(value > 0)) return 0;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10].find((m) => m * power >= value * (1 - 1e-9)) * power;
}

/** Unit of time in which a span is read most easily. */
export function timeUnit(span) {
  if (span >= 5000) return { name: "s", ms: 1000 };
  if (span >= 0.05) return { name: "ms", ms: 1 };
  return { name: "µs", ms: 0.001 };
}

/** A number with as many decimals as steps of that size need. */
export function withStep(value, step) {
  const decimals = Math.min(Math.max(-Math.floor(Math.log10(step) + 1e-9), 0), 9);
  const text = (Math.abs(value) < step * 1e-6 ? 0 : value).toFixed(decimals);
  const [whole, rest] = text.split(".");
  return grouped(whole) + (rest ? `.${rest}` : "");
}

/** A number with four significant digits. */
export function short(value, digits = 4) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (value === 0) return "0";
  if (size < 1e-3 || size >= 1e6) {
    const [mantissa, exponent] = value.toExponential(digits - 1).split("e");
    return `${minus(Number(mantissa).toString())}×10${superscript(Number(exponent))}`;
  }
  const [whole, rest] = Number(value.toPrecision(digits)).toString().split(".");
  return grouped(whole) + (rest ? `.${rest}` : "");
}

/** A whole number with separators. */
export function count(value) {
  return grouped(String(Math.round(value)));
}

/** Time in ms, to as many digits as tell neighbours apart, in the unit that suits it. */
export function time(ms, resolution) {
  return `${withStep(ms, resolution)} ms`;
}

function grouped(whole) {
  return minus(whole.replace(/\B(?=(\d{3})+$)/g, "\u202f"));
}

function minus(text) {
  return text.replace("-", "−");
}

function superscript(exponent) {
  return [...String(exponent)].map((c) => (c === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[Number(c)])).join("");
}
