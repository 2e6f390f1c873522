"""A real browser, and a page of the viewer in it."""

import os
import shutil
import threading

import pytest

from evsim.viewer.server import Server
from evsim.viewer.session import Session

#: Nothing of a browser that would ask the network.
QUIET = (
    *("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-default-apps", "--disable-sync", "--metrics-recording-only"),
)


def chromium():
    """Path of Chromium; CHROMIUM in the environment names another one."""
    names = (os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome")
    return next((found for name in names if name and (found := shutil.which(name))), None)


@pytest.fixture(scope="session")
def browser():
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason='needs playwright: pip install "evsim[browser]"'
    )
    path = chromium()
    if path is None:
        pytest.fail("there is no Chromium to test the viewer with: apt install chromium, or set CHROMIUM")
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=list(QUIET))
        yield launched
        launched.close()


class Viewed:
    """The viewer of a log, and a page that shows it."""

    def __init__(self, browser, path, fragment="", **options):
        self.session = Session(path)
        self.server = Server(self.session)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()
        options = {"viewport": {"width": 1280, "height": 800}} | options
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.troubles, self.asked = [], []
        self.page.on("pageerror", lambda error: self.troubles.append(str(error)))
        self.page.on("console", lambda m: self.troubles.append(m.text) if m.type == "error" else None)
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(self.server.address + fragment)
        self.settle()

    def close(self):
        self.context.close()
        self.stop()
        self.session.close()

    def stop(self):
        """Stop the server only."""
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def wait(self, script, expected=True, seconds=15):
        """Wait until a script gives what is expected; the page itself may not evaluate strings."""
        found = None
        for _ in range(int(seconds / 0.02)):
            found = self.page.evaluate(script)
            if found == expected if not callable(expected) else expected(found):
                return found
            self.page.wait_for_timeout(20)
        raise AssertionError(f"after {seconds} s, {script} is {found!r}")

    def settle(self):
        """Wait until what is shown was drawn from an answer to the present window."""
        self.wait("document.getElementById('overlay').dataset.state", "drawn")

    @property
    def view(self):
        """start, stop, low, high"""
        return [float(x) for x in self.page.get_attribute("#overlay", "data-view").split(",")]

    @property
    def raster(self):
        """left, top, width, height of the raster in the plot, in CSS pixels"""
        return [float(x) for x in self.page.get_attribute("#overlay", "data-raster").split(",")]

    @property
    def offset(self):
        """left, top of the plot in the page"""
        return self.page.evaluate("(r => [r.left, r.top])(plot.getBoundingClientRect())")

    def text(self, selector):
        return (
            self.page.inner_text(selector)
            .replace("\u202f", "")
            .replace("\u2212", "-")
            .replace("\u00d710", "e")
        )

    def wheel(self, x, y, turns, key=None):
        self.page.mouse.move(x, y)
        if key:
            self.page.keyboard.down(key)
        self.page.mouse.wheel(0, turns)
        if key:
            self.page.keyboard.up(key)
        self.page.wait_for_timeout(30)
        self.settle()

    def drag(self, start, stop):
        self.page.mouse.move(*start)
        self.page.mouse.down()
        self.page.mouse.move(*stop, steps=5)
        self.page.mouse.up()
        self.page.wait_for_timeout(30)
        self.settle()

    def pixels(self):
        """Colours of the raster and how often they occur, from the canvas."""
        return self.page.evaluate("""() => {
            const canvas = document.getElementById('picture');
            const place = document.getElementById('overlay').dataset.raster.split(',');
            const [left, top, width, height] = place.map(Number);
            const data = canvas.getContext('2d').getImageData(left + 1, top + 1, width - 2, height - 2).data;
            const found = {};
            for (let i = 0; i < data.length; i += 4) {
              const key = `${data[i]},${data[i + 1]},${data[i + 2]}`;
              found[key] = (found[key] ?? 0) + 1;
            }
            return found;
        }""")


@pytest.fixture
def show(browser):
    """Open logs in the viewer; meanwhile there may be no complaints, nor requests to other machines."""
    opened = []

    def open_log(path, *words, **options):
        opened.append(Viewed(browser, path, *words, **options))
        return opened[-1]

    yield open_log
    for viewed in opened:
        viewed.close()
        assert viewed.troubles == []
        assert all(url.startswith(viewed.server.address) for url in viewed.asked)
