// Questions to the server. Addresses are relative, so the secret part of the page's own address is in them.

const TYPES = {
  uint8: Uint8Array, uint16: Uint16Array, uint32: Uint32Array, int32: Int32Array,
  float32: Float32Array, float64: Float64Array,
};

/** An answer that says, in words, why there is none. */
export class Refused extends Error {}

export function address(route, query) {
  return `${route}?${new URLSearchParams(query)}`;
}

async function ask(route, query, signal) {
  let response;
  try {
    response = await fetch(query ? address(route, query) : route, { signal, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("evsim view no longer answers: was it stopped?");
  }
  if (response.ok) return response;
  const text = await response.text();
  let words = text;
  try {
    words = JSON.parse(text).error;
  } catch { /* plain text */ }
  throw new Refused(words);
}

export async function askFacts(route, query, signal) {
  return (await ask(route, query, signal)).json();
}

/** Facts and named arrays, as packing.py puts them together; each array also has its shape. */
export async function askArrays(route, query, signal) {
  const buffer = await (await ask(route, query, signal)).arrayBuffer();
  const length = new DataView(buffer).getUint32(0, true);
  const facts = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  let offset = 4 + length;
  const arrays = {};
  for (const [name, type, shape] of facts.arrays) {
    offset += (8 - (offset % 8)) % 8;
    const size = shape.reduce((a, b) => a * b, 1);
    arrays[name] = new TYPES[type](buffer, offset, size);
    offset += arrays[name].byteLength;
  }
  return { ...facts, ...arrays };
}

/**
 * One request at a time, for the newest wish. A request that is overtaken by another wish is dropped, unless
 * it is about to be answered: otherwise nothing would be seen while the mouse moves. A wish with `refine`,
 * which may take long, is dropped at once.
 */
export class Newest {
  constructor(run, patience = 120) {
    this.run = run;
    this.patience = patience;
    this.wish = null;
    this.running = null;
  }

  want(wish) {
    this.wish = wish;
    if (this.running === null) this.#start();
    else this.#expire();
  }

  drop() {
    this.wish = null;
    this.running?.abort();
  }

  #expire() {
    const running = this.running;
    const left = running.patience - (performance.now() - running.began);
    setTimeout(() => {
      if (this.running === running && this.wish !== null) running.abort();
    }, Math.max(left, 0));
  }

  async #start() {
    while (this.wish !== null) {
      const wish = this.wish;
      this.wish = null;
      const running = new AbortController();
      running.began = performance.now();
      running.patience = wish.refine ? 0 : this.patience;
      this.running = running;
      try {
        await this.run(wish, running.signal);
      } catch (error) {
        if (error.name !== "AbortError") throw error;
      } finally {
        this.running = null;
      }
    }
  }
}
