"""The viewer's page in a real browser: what it shows, and what mouse and keys do."""

import csv
import time

import numpy as np
import pytest

from evsim.log_file import LogFile
from evsim.viewer import session as sessions
from evsim.viewer import tiles
from oracles import viewed_logs

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return viewed_logs.clocked(dt=1.0).save(tmp_path_factory.mktemp("small") / "small.h5")


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    log = viewed_logs.clocked(n_events=300_000, n_lanes=2, n_units=200, n_steps=4000, dt=1.0)
    return log.save(tmp_path_factory.mktemp("dense") / "dense.h5")


@pytest.fixture(scope="module")
def continuous(tmp_path_factory):
    return viewed_logs.continuous().save(tmp_path_factory.mktemp("continuous") / "continuous.h5")


class TestPictures:
    def test_first_picture(self, show, small):
        viewed = show(small)
        assert viewed.view == [0, 400, 0, 50]
        assert viewed.text("#file") == "small.h5"
        assert "400 ms in steps of 1 ms · 3 lanes" in viewed.text("#facts")
        table = LogFile(small)["hidden"].table(lanes=0)
        label = viewed.page.get_attribute("#overlay", "aria-label").replace("\u202f", "")
        assert label == f"Raster of hidden: 0.0 to 400.0 ms, units 0 to 49, {len(table)} events"

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_marks_are_where_the_events_are(self, show, small, scheme):
        viewed = show(small, color_scheme=scheme)
        left, top, width, height = viewed.raster
        table = LogFile(small)["hidden"].table(lanes=0)
        x = left + (table.time + 0.5) / 400 * width
        y = top + height - (table.unit + 0.5) / 50 * height
        points = [[float(a), float(b)] for a, b in zip(x, y, strict=True)]
        found = viewed.page.evaluate(
            """points => points.map(([x, y]) => {
                const context = document.getElementById('picture').getContext('2d');
                return context.getImageData(Math.round(x), Math.round(y), 1, 1).data.slice(0, 3).join();
            })""",
            points,
        )
        ink, paper = ("31,41,51", "255,255,255") if scheme == "light" else ("227,232,237", "16,22,28")
        assert found.count(ink) >= 0.99 * len(points)
        assert set(viewed.pixels()) >= {ink, paper}

    def test_many_events_are_a_density(self, show, dense):
        viewed = show(dense)
        assert viewed.text("#status").startswith("exact counts")
        assert len(viewed.pixels()) > 8

    def test_colours(self, show, small):
        viewed = show(small)
        before = viewed.pixels()
        for colour in ("value", "gradient"):
            viewed.page.select_option("#colour", colour)
            viewed.settle()
            found = viewed.pixels()
            assert len(found) > 50 > len(before)

    def test_lanes(self, show, small):
        viewed = show(small)
        viewed.page.select_option("#lane", "-1")
        viewed.settle()
        assert viewed.view == [0, 400, 0, 150]
        assert viewed.text("#status").startswith("each event is a mark")
        viewed.page.select_option("#lane", "2")
        viewed.settle()
        assert viewed.view == [0, 400, 100, 150]

    def test_pyramids_become_finer(self, show, dense, monkeypatch):
        monkeypatch.setattr(sessions, "MOST_ROWS", 10_000)
        monkeypatch.setattr(tiles, "MOST_ROWS", 10_000)
        viewed = show(dense, "#colour=value")
        viewed.wait(
            "document.getElementById('status').textContent", lambda words: words.startswith("exact counts ·")
        )
        found = viewed.pixels()
        assert len(found) > 30

    def test_states_are_traced(self, show, small):
        viewed = show(small)
        assert viewed.page.input_value("#state-units") == "0 1"
        asked = [url for url in viewed.asked if "/state?" in url]
        assert "population=answer" in asked[-1]
        viewed.page.fill("#state-units", "1")
        viewed.page.press("#state-units", "Enter")
        viewed.page.wait_for_timeout(300)
        asked = [url for url in viewed.asked if "/state?" in url]
        assert "unit=1&" in asked[-1]
        viewed.page.fill("#state-units", "")
        viewed.page.press("#state-units", "Tab")
        tall = viewed.raster[3]
        viewed.page.wait_for_timeout(100)
        assert viewed.raster[3] >= tall

    def test_sharp_on_fine_screens(self, show, small):
        viewed = show(small, device_scale_factor=2)
        size = viewed.page.evaluate("(c => [c.width / c.clientWidth, c.height / c.clientHeight])(picture)")
        assert size == [2, 2]


class TestMoving:
    def test_wheel(self, show, small):
        viewed = show(small)
        viewed.wheel(500, 300, -300)
        start, stop, low, high = viewed.view
        assert stop - start < 300
        assert high - low < 35
        viewed.wheel(500, 300, -200, "Shift")
        assert viewed.view[2:] == pytest.approx([low, high])
        assert viewed.view[1] - viewed.view[0] < stop - start
        before = viewed.view
        viewed.wheel(500, 300, -200, "Alt")
        assert viewed.view[:2] == pytest.approx(before[:2])
        assert viewed.view[3] - viewed.view[2] < high - low
        viewed.page.mouse.dblclick(500, 300)
        viewed.settle()
        assert viewed.view == [0, 400, 0, 50]

    def test_the_place_under_the_pointer_stays(self, show, small):
        viewed = show(small)
        left, _, width, _ = viewed.raster
        share = (600 - left - viewed.offset[0]) / width
        place = share * 400
        viewed.wheel(600, 300, -400)
        start, stop, _, _ = viewed.view
        assert start + share * (stop - start) == pytest.approx(place, abs=0.5)

    def test_drag(self, show, small):
        viewed = show(small)
        viewed.wheel(500, 300, -400)
        before = viewed.view
        viewed.drag((500, 300), (420, 320))
        after = viewed.view
        assert after[0] > before[0]
        assert after[2] > before[2]
        assert after[1] - after[0] == pytest.approx(before[1] - before[0])
        viewed.drag((300, 300), (1200, 300))
        assert viewed.view[0] == 0

    def test_keys(self, show, small):
        viewed = show(small)
        viewed.page.focus("#overlay")
        for key, check in {
            "+": lambda v: v == pytest.approx([100, 300, 12.5, 37.5]),
            "ArrowRight": lambda v: v == pytest.approx([120, 320, 12.5, 37.5]),
            "ArrowUp": lambda v: v == pytest.approx([120, 320, 15, 40]),
            "End": lambda v: v == pytest.approx([200, 400, 15, 40]),
            "Home": lambda v: v == pytest.approx([0, 200, 15, 40]),
            "PageDown": lambda v: v == pytest.approx([200, 400, 15, 40]),
            "-": lambda v: v == pytest.approx([0, 400, 2.5, 50]) or v == pytest.approx([0, 400, 0, 50]),
            "0": lambda v: v == [0, 400, 0, 50],
        }.items():
            viewed.page.keyboard.press(key)
            viewed.page.wait_for_timeout(30)
            viewed.settle()
            assert check(viewed.view), (key, viewed.view)

    def test_buttons(self, show, small):
        viewed = show(small)
        viewed.page.click("#closer")
        viewed.settle()
        assert viewed.view == pytest.approx([100, 300, 12.5, 37.5])
        viewed.page.click("#whole")
        viewed.settle()
        assert viewed.view == [0, 400, 0, 50]

    def test_an_address_shows_the_same_again(self, show, small):
        viewed = show(small)
        viewed.page.select_option("#lane", "1")
        viewed.page.select_option("#colour", "value")
        viewed.wheel(500, 300, -400)
        view = viewed.view
        viewed.page.wait_for_timeout(500)
        viewed.page.reload()
        viewed.settle()
        assert viewed.view == pytest.approx(view)
        assert viewed.page.input_value("#lane") == "1"
        assert viewed.page.input_value("#colour") == "value"

    def test_deep_zoom_into_continuous_time(self, show, continuous):
        viewed = show(continuous)
        table = LogFile(continuous)["hidden"].table(lanes=0)
        for _ in range(12):
            viewed.wheel(500, 300, -500, "Shift")
        start, stop, _, _ = viewed.view
        assert stop - start < 0.01
        inside = ((table.time >= start) & (table.time <= stop)).sum()
        label = viewed.page.get_attribute("#overlay", "aria-label")
        assert label.endswith(f", {inside} events")


class TestPointer:
    def test_an_event_tells_what_it_is(self, show, small):
        viewed = show(small)
        table = LogFile(small)["hidden"].table(lanes=0)
        left, top, width, height = viewed.raster
        offset = viewed.offset
        for k in range(0, len(table), 97):
            x = offset[0] + left + (table.time[k] + 0.5) / 400 * width
            y = offset[1] + top + height - (table.unit[k] + 0.5) / 50 * height
            viewed.page.mouse.move(x, y)
            words = viewed.text("#tip").splitlines()
            assert words[:2] == [
                f"{table.time[k]:.0f} ms (step {table.time[k]:.0f})",
                f"lane 0, unit {table.unit[k]}",
            ]
            assert float(words[2].removeprefix("payload ")) == pytest.approx(table.value[k], rel=1e-4)
            assert words[3].startswith("dL/d(payload) ")

    def test_a_cell_tells_what_it_holds(self, show, dense):
        viewed = show(dense, "#lane=0&colour=value")
        viewed.page.mouse.move(500, 250)
        words = viewed.text("#tip")
        assert " events, " in words
        assert "% active" in words
        viewed.wait("document.getElementById('tip').textContent", lambda words: "(step " in words)

    def test_it_goes_when_the_pointer_leaves(self, show, small):
        viewed = show(small)
        viewed.page.mouse.move(500, 250)
        assert viewed.page.is_visible("#tip")
        viewed.page.mouse.move(5, 5)
        assert not viewed.page.is_visible("#tip")


class TestSelection:
    def test_box_to_statistics_and_table(self, show, small, tmp_path):
        viewed = show(small)
        viewed.page.keyboard.press("s")
        viewed.drag((300, 200), (600, 350))
        viewed.wait("!document.getElementById('statistics').hidden")
        lines = dict(zip(*[iter(viewed.text("#statistics").splitlines())] * 2, strict=True))
        with viewed.page.expect_download() as download:
            viewed.page.click("#save")
        path = tmp_path / "events.csv"
        download.value.save_as(path)
        assert download.value.suggested_filename == "small-hidden.csv"
        rows = list(csv.DictReader(path.read_text().splitlines()))
        start, stop = (float(lines[name].removesuffix(" ms")) for name in ("from", "to"))
        units = np.array([int(row["unit"]) for row in rows])
        table = LogFile(small)["hidden"].table(start, stop, lanes=0)
        inside = table.where((table.unit >= units.min()) & (table.unit <= units.max()))
        assert len(rows) == len(inside) == int(lines["events"]) > 20
        np.testing.assert_array_equal([float(row["time_ms"]) for row in rows], inside.time)
        assert lines["units active"].split()[0] == str(len(np.unique(units)))
        assert float(lines["alpha"]) == pytest.approx(
            len(rows) / ((stop - start) * int(lines["units active"].split()[2])), rel=0.01
        )
        viewed.page.click("#zoom-selection")
        viewed.settle()
        assert viewed.view[:2] == pytest.approx([start, stop])
        viewed.page.keyboard.press("Escape")
        assert not viewed.page.is_visible("#statistics")

    def test_by_keyboard_and_with_shift(self, show, small):
        viewed = show(small)
        viewed.page.keyboard.press("v")
        viewed.wait("!document.getElementById('statistics').hidden")
        table = LogFile(small)["hidden"].table(lanes=0)
        assert f"events\n{len(table)}\n" in viewed.text("#statistics")
        viewed.page.keyboard.press("Escape")
        viewed.page.keyboard.down("Shift")
        viewed.drag((300, 200), (400, 250))
        viewed.page.keyboard.up("Shift")
        viewed.wait("!document.getElementById('statistics').hidden")
        assert viewed.view == [0, 400, 0, 50]

    def test_a_box_of_steps_holds_the_marks_in_it(self, show, small):
        """Marks are drawn in the middle of their step; the box is drawn about them."""
        viewed = show(small, "#view=100,110,0,50")
        left, _, width, _ = viewed.raster
        offset = viewed.offset[0]
        x = [
            offset + left + width * (t - 100) / 10 for t in (103.3, 105.7)
        ]  # middles of 104 and 105 lie in it
        viewed.page.keyboard.press("s")
        viewed.drag((x[0], 150), (x[1], 200))
        viewed.wait("!document.getElementById('statistics').hidden")
        lines = dict(zip(*[iter(viewed.text("#statistics").splitlines())] * 2, strict=True))
        assert (float(lines["from"].split()[0]), float(lines["to"].split()[0])) == (103, 106)


class TestTroubles:
    def test_a_run_that_goes_on(self, show, tmp_path):
        with viewed_logs.writing(tmp_path / "live.h5") as process:
            viewed = show(tmp_path / "live.h5")
            assert viewed.text("#live") == "still being written"
            assert viewed.page.get_attribute("#follow", "aria-pressed") == "true"
            assert viewed.view[:2] == [0, 200]
            viewed_logs.write_on(process)
            viewed.wait("overlay.dataset.view.split(',').slice(0, 2).join()", "0,400")
            viewed.settle()
            viewed.wheel(500, 300, -400, "Shift")  # keeps the end in view
            assert viewed.view[1] == 400
            viewed_logs.write_on(process)
            viewed.wait("overlay.dataset.view.split(',')[1]", "600")
            viewed.page.keyboard.press("Home")
            assert viewed.page.get_attribute("#follow", "aria-pressed") == "false"
            viewed_logs.write_on(process)
            viewed.wait(
                "document.getElementById('facts').textContent", lambda words: words.startswith("800 ms")
            )
            assert viewed.view[0] == 0
            viewed.page.keyboard.press("f")
            viewed.wait("overlay.dataset.view.split(',')[1]", "800")
            process.stdin.close()
            viewed.wait("document.getElementById('live').hidden", seconds=20)
            viewed.settle()

    def test_a_run_that_was_killed(self, show, tmp_path):
        with viewed_logs.writing(tmp_path / "live.h5") as process:
            viewed = show(tmp_path / "live.h5")
            process.kill()
        viewed.wait("document.getElementById('live').textContent", lambda words: "was killed" in words)
        viewed.wheel(500, 300, -400)
        assert viewed.text("#status").startswith("each event is a mark")

    def test_a_file_that_goes(self, show, tmp_path):
        path = viewed_logs.clocked().save(tmp_path / "log.h5")
        viewed = show(path)
        path.unlink()
        viewed.wait("document.getElementById('note').textContent", lambda words: "deleted or moved" in words)
        viewed.wheel(500, 300, -400)

    def test_damage(self, show, tmp_path):
        path = viewed_logs.clocked(n_events=200_000, n_steps=6000, dt=1.0).save(tmp_path / "log.h5")
        with LogFile(path) as file:
            nodes = file["hidden"].nodes(slice(150_000, 150_100)).tobytes()
        data = bytearray(path.read_bytes())
        data[data.index(nodes)] ^= 1
        path.write_bytes(data)
        viewed = show(path, "#view=0,1000,0,50")  # which is whole
        viewed.page.keyboard.press("0")
        viewed.wait("document.getElementById('note').textContent", lambda words: "checksum" in words)
        viewed.page.keyboard.press("Home")
        viewed.troubles = [words for words in viewed.troubles if "422" not in words]

    def test_a_server_that_stops(self, show, small):
        viewed = show(small)
        viewed.context.set_offline(True)  # a request fails as it does when nobody listens
        viewed.wait("document.getElementById('note').textContent", lambda words: "no longer answers" in words)
        viewed.troubles = [words for words in viewed.troubles if "ERR_" not in words]

    def test_only_the_newest_window_is_waited_for(self, show, dense, monkeypatch):
        viewed = show(dense)
        slow = sessions.tile

        def slowly(*arguments):
            for _ in range(40):
                arguments[-1]()
                time.sleep(0.01)
            return slow(*arguments)

        monkeypatch.setattr(sessions, "tile", slowly)
        viewed.page.mouse.move(500, 300)
        began = time.monotonic()
        for _ in range(20):
            viewed.page.mouse.wheel(0, -40)
            viewed.page.wait_for_timeout(50)
        viewed.settle()
        assert time.monotonic() - began < 20 * 0.4
