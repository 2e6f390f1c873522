// Colours of the page's pictures, for light and dark surroundings; those of evsim's static rasters in the light.

const LIGHT = {
  paper: "#ffffff", ink: "#1f2933", grey: "#5b6770", pale: "#c9d1d8", faint: "#eef1f4", accent: "#1f5fa8",
  band: "rgba(31, 95, 168, 0.2)", choice: "#c2410c", choiceFill: "rgba(194, 65, 12, 0.05)",
  density: ["#ffffff", "#d3e3f3", "#86b6dc", "#3a7fbd", "#134a8a", "#071f45"],
  oneSign: ["#2b1055", "#7a1f7c", "#c43b62", "#ee7748", "#f5b54a"],
  bothSigns: ["#0b4f9e", "#5f8fc4", "#b9b9bd", "#d0745a", "#a8161e"],
  lines: ["#1f5fa8", "#c43b62", "#2e7d5b", "#b7791f", "#6b46a8", "#0f8b9d", "#8a4b2a", "#5b6770"],
};

const DARK = {
  paper: "#10161c", ink: "#e3e8ed", grey: "#9aa7b2", pale: "#3a4651", faint: "#1b242c", accent: "#6fb1ee",
  band: "rgba(111, 177, 238, 0.22)", choice: "#fb923c", choiceFill: "rgba(251, 146, 60, 0.06)",
  density: ["#10161c", "#163350", "#1d5c94", "#3c93d0", "#9bd0f2", "#f4fbff"],
  oneSign: ["#7b5fd0", "#b457b6", "#e2607f", "#f79566", "#fbd47f"],
  bothSigns: ["#4ea3ff", "#4a7fb5", "#6c737b", "#c9745c", "#ff6f61"],
  lines: ["#6fb1ee", "#f27a9a", "#5fc79a", "#e6b45c", "#b59bf0", "#4cc8da", "#d19a78", "#9aa7b2"],
};

const dark = matchMedia("(prefers-color-scheme: dark)");

export function palette() {
  return dark.matches ? DARK : LIGHT;
}

export function whenPaletteChanges(call) {
  dark.addEventListener("change", call);
}

/** 256 colours between stops, as pixels in memory (little-endian RGBA, opaque). */
export function ramp(stops) {
  const rgb = stops.map((s) => [1, 3, 5].map((k) => parseInt(s.slice(k, k + 2), 16)));
  const table = new Uint32Array(256);
  for (let i = 0; i < 256; i++) {
    const at = (i / 255) * (rgb.length - 1);
    const k = Math.min(Math.floor(at), rgb.length - 2);
    const [r, g, b] = rgb[k].map((low, c) => Math.round(low + (rgb[k + 1][c] - low) * (at - k)));
    table[i] = ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;
  }
  return table;
}

export function css(pixel) {
  return `rgb(${pixel & 255}, ${(pixel >> 8) & 255}, ${(pixel >> 16) & 255})`;
}
