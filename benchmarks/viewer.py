"""`evsim view` in a real browser: how soon is there a picture, and how soon after a turn of the wheel?

Motivation: people look at rasters by zooming and moving, and stop when it stutters.  The first picture of
10^8 events is to be there within 2 s of opening the address, and the picture of a new window within 150 ms
of the turn of the wheel that asked for it.

A log of 8 lanes of 1,000 EGRU units, with waves, bursts and units that differ, is written first (0.7 GB under
build/ for 10^8 events) unless a file is given.  `evsim view` runs in a process of its own; headless Chromium
opens the page anew a few times, then turns the wheel and drags at random places, from the whole file down to
single events and back.  Times are of the wall, so other jobs count: it is printed how much of a core they
leave to a thread.  They are the browser's: from its event (or the start of the navigation) to the frame
after the one in which the picture was drawn.  The first picture is asked of a server just started, whose
counting has just begun; that the file's pages are in memory is likely, and not ensured.

    python benchmarks/viewer.py [--events 1e8] [--turns 200]
    python benchmarks/viewer.py my_log.h5

Needs playwright (pip install "evsim[browser]") and Chromium (apt install chromium).
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

BUILD = Path(__file__).resolve().parents[1] / "build"
UNITS, LANES = 1000, 8
#: Aims in ms: first picture, and redrawing.
AIM_FIRST, AIM_REDRAW = 2000.0, 150.0
ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")

#: Notes in `waits` how long each picture took from the first event that it had not been asked for.
MEASURE = """() => {
  window.waits = [];
  let began = null;
  window.forget = () => { began = null; };
  const overlay = document.getElementById('overlay');
  const note = (event) => {
    if (event.type === 'pointermove' && event.buttons === 0) return;
    began ??= event.timeStamp;
  };
  for (const type of ['wheel', 'pointermove']) overlay.addEventListener(type, note, true);
  new PerformanceObserver((list) => {
    const mark = list.getEntriesByName('drawn').at(-1);
    if (!mark || began === null || mark.startTime < began) return;
    const asked = began;
    began = null;
    requestAnimationFrame(() => setTimeout(() => {
      window.waits.push([performance.now() - asked, mark.detail.coarse]);
    }, 0));
  }).observe({ type: 'mark' });
}"""

#: When the first picture was drawn, and the frame after it.
FIRST = """() => new Promise((resolve) => {
  const look = () => performance.getEntriesByName('drawn').length
    ? requestAnimationFrame(() => setTimeout(() => resolve(performance.now()), 0))
    : setTimeout(look, 5);
  look();
})"""


def windows(n_events: int) -> Iterator[Any]:
    """Logs of a run of so many events, window after window; the same few of them again and again."""
    from evsim.eventlog import EventLog, PopulationLog
    from evsim.events import Events

    rng = np.random.default_rng(0)
    share = rng.gamma(0.7, 1.0, UNITS)
    share[300:360] *= 6
    share /= share.mean()
    n_steps, unit = 2000, np.arange(UNITS)
    made = []
    for k in range(16):
        step = np.arange(n_steps)
        rate = 0.0125 * (1 + 0.5 * np.sin(2 * np.pi * k / 16) + 1.5 * (step % 500 < 20))
        wave = 400 + 200 * ((step / n_steps + k) / 4 % 1)
        near = 0.3 * np.exp(-(((unit - wave[:, None]) / 8.0) ** 2))
        chance = (rate[:, None] * share + near).astype(np.float32)
        active = rng.random((n_steps, LANES, UNITS), np.float32) < chance[:, None]
        value = np.zeros(active.shape, np.float32)
        value[active] = 0.1 + rng.gamma(2.0, 0.3, int(active.sum()))
        made.append(Events.from_dense(value))
    written = k = 0
    while written < n_events:
        events, start = made[k % len(made)], k * n_steps
        hidden = PopulationLog("hidden", "EGRU", UNITS, 1.0, start, events)
        answer = PopulationLog("answer", "LeakyReadout", 2, 1.0, start)
        phase = (start + np.arange(n_steps))[:, None, None] / (
            300.0 + 40 * np.arange(2 * LANES).reshape(LANES, 2)
        )
        answer.tape, answer.tape_fields = np.sin(phase).astype(np.float32)[:, :, None], ("v",)
        yield EventLog(
            {"hidden": hidden, "answer": answer},
            dt=1.0,
            start_step=start,
            n_steps=n_steps,
            n_lanes=LANES,
            lengths=np.full(LANES, n_steps),
        )
        written, k = written + len(events), k + 1


def log_of(n_events: int) -> Path:
    """A log of so many events under build/."""
    from evsim.log_writer import LogWriter

    path = BUILD / f"viewer-{n_events:.0e}.h5"
    if not path.exists():
        print(f"writing {path} ...", flush=True)
        unfinished = path.with_suffix(".part")
        with LogWriter(unfinished, overwrite=True) as writer:
            for log in windows(n_events):
                writer.append(log)
        unfinished.rename(path)
    return path


class Viewer:
    """`evsim view` in a process of its own."""

    def __init__(self, path: Path):
        began = time.perf_counter()
        command = [sys.executable, "-m", "evsim", "view", str(path), "--no-browser"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()
        self.ready_ms = 1e3 * (time.perf_counter() - began)
        if not self.address:
            raise SystemExit(f"evsim view {path} did not start")

    def peak_mb(self) -> float:
        """Most memory so far, as far as the system says."""
        status = Path(f"/proc/{self.process.pid}/status")
        found = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        return int(found[0].split()[1]) / 1024

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()


def first_pictures(browser: Any, path: Path, repeats: int, viewport: dict) -> list[tuple[float, float]]:
    """ms from starting the command to its address, and from the navigation to the picture; servers anew."""
    found = []
    for _ in range(repeats):
        viewer = Viewer(path)
        page = browser.new_page(viewport=viewport)
        page.goto(viewer.address, wait_until="commit")
        found.append((viewer.ready_ms, page.evaluate(FIRST)))
        page.close()
        viewer.close()
    return found


def redraws(page: Any, n_turns: int, rng: np.random.Generator, drag: bool) -> list[tuple[float, bool]]:
    """ms of each redraw, and whether its cells were large at first; zooming in and out, or moving."""
    page.evaluate("window.waits = []")
    seen, inwards = 0, True
    whole = page.evaluate("fetch('info').then((answer) => answer.json()).then((facts) => facts.stop)")
    for _ in range(n_turns):
        x, y = rng.uniform(150, 850), rng.uniform(130, 400)
        before = page.get_attribute("#overlay", "data-view")
        page.evaluate("window.forget()")  # a turn at the end of the range changes nothing
        page.mouse.move(x, y)
        if drag:
            page.mouse.down()
            page.mouse.move(x + rng.uniform(-120, 120), y + rng.uniform(-40, 40))
            page.mouse.up()
        else:
            start, stop, *_ = (float(v) for v in before.split(","))
            inwards = stop - start > 200 if inwards else stop - start > 0.9 * whole
            page.mouse.wheel(0, -300 if inwards else 300)
        page.wait_for_timeout(20)
        while page.get_attribute("#overlay", "data-view") != before:
            if len(page.evaluate("window.waits")) > seen:
                break
            page.wait_for_timeout(10)
        page.wait_for_timeout(float(rng.uniform(0, 300)))
        seen = len(page.evaluate("window.waits"))
    return [tuple(wait) for wait in page.evaluate("window.waits")]


def line(name: str, times: list[float], aim: float | None) -> str:
    """A line of the table."""
    ordered = sorted(times)
    high = ordered[min(int(0.95 * len(ordered)), len(ordered) - 1)]
    cells = " ".join(f"{number:8.0f}" for number in (statistics.median(ordered), high, ordered[-1]))
    verdict = "" if aim is None else f" {aim:8.0f} {'yes' if high <= aim else 'NO'}"
    return f"{name:34} {len(times):5} {cells}{verdict}"


def core_share() -> float:
    """The share of a core that a thread which never rests gets, beside what else runs here."""
    begin, used = time.perf_counter(), time.process_time()
    while time.perf_counter() - begin < 2.0:
        pass
    return (time.process_time() - used) / (time.perf_counter() - begin)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", nargs="?", type=Path, help="log to look at; by default one is written")
    parser.add_argument("--events", type=float, default=1e8)
    parser.add_argument("--turns", type=int, default=200, help="turns of the wheel, and drags")
    parser.add_argument("--repeats", type=int, default=5, help="first pictures")
    options = parser.parse_args()
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("there is no Chromium: apt install chromium, or set CHROMIUM")
    from playwright.sync_api import sync_playwright

    from evsim.log_file import LogFile

    path = options.file or log_of(int(options.events))
    with LogFile(path) as file:
        print(f"{file}\n{path.stat().st_size / 1e6:,.0f} MB")
    print(f"{os.cpu_count()} cores; a busy thread gets {100 * core_share():.0f} % of one\n")
    viewport = {"width": 1280, "height": 800}
    rng = np.random.default_rng(1)
    rows = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(ARGUMENTS))
        firsts = first_pictures(browser, path, options.repeats, viewport)
        rows.append(("first picture, from the address", [first for _, first in firsts], AIM_FIRST))
        rows.append(("first picture, from the command", [a + b for a, b in firsts], None))
        viewer = Viewer(path)
        page = browser.new_page(viewport=viewport)
        page.goto(viewer.address)
        page.evaluate(FIRST)
        page.evaluate(MEASURE)
        large = {}
        for name, drag in (("zoom, while the file is counted", False), ("zoom", False), ("move", True)):
            n = options.turns // 4 if "counted" in name else options.turns
            if drag:
                page.keyboard.press("0")
                for _ in range(6):
                    page.mouse.move(500, 250)
                    page.mouse.wheel(0, -300)
                    page.wait_for_timeout(400)
            found = redraws(page, n, rng, drag)
            rows.append((name, [ms for ms, _ in found], AIM_REDRAW))
            large[name] = sum(coarse for _, coarse in found) / len(found)
        peak = viewer.peak_mb()
        viewer.close()
        browser.close()
    print(f"{'ms':34} {'n':>5} {'median':>8} {'95 %':>8} {'most':>8} {'aim':>8}")
    for row in rows:
        print(line(*row))
    shares = ", ".join(f"{name} {100 * share:.0f} %" for name, share in large.items())
    print(f"\nin larger cells at first, refined afterwards: {shares}; server's peak memory {peak:.0f} MB")


if __name__ == "__main__":
    main()
