"""evsim raster: pictures of logs."""

import pytest

from oracles.command_line import refused


class TestRaster:
    @pytest.mark.parametrize(
        ("name", "start"),
        [("a.png", b"\x89PNG"), ("a b.svg", b"<?xml"), ("a.pdf", b"%PDF"), ("A.PNG", b"\x89PNG")],
    )
    def test_formats(self, evsim, log, tmp_path, name, start):
        assert evsim("raster", log, "-o", name) == (0, f"{name}\n", "")
        assert (tmp_path / name).read_bytes().startswith(start)

    def test_a_run_in_continuous_time(self, evsim, continuous, tmp_path):
        assert evsim("raster", continuous, "-o", "a.png", "--lane", 1) == (0, "a.png\n", "")
        assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
        refused(evsim("raster", continuous, "--lane", 2), "lane 2", "0..1")

    def test_what_is_drawn_can_be_chosen(self, evsim, log, tmp_path, monkeypatch):
        from evsim import raster

        asked = {}
        true = raster.figure
        monkeypatch.setattr(
            raster, "figure", lambda members, **o: asked.update(o, of=members) or true(members, **o)
        )
        window = ["--start", "5", "--stop", "20.5", "--units", "1:3,0", "--lanes", "1,0", "--no-rate"]
        look = ["--colour", "none", "--width", "4", "--dpi", "80", "--population", "hidden"]
        assert evsim("raster", log, *window, *look).code == 0
        assert list(asked.pop("of")) == ["hidden"]
        assert asked == {
            "start": 5.0,
            "stop": 20.5,
            "units": [1, 2, 0],
            "lanes": [1, 0],
            "rate": False,
            "colour": None,
            "width": 4.0,
            "dpi": 80,
        }
        assert evsim("raster", log, "--force", "--lanes", "all").code == 0
        assert (asked["lanes"], asked["units"], asked["colour"], asked["rate"]) == ("all", None, "auto", True)

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (["--units", "1:x"], ["--units", "'1:x'", "0:100"]),
            (["--units", "3:3"], ["--units", "'3:3'", "empty"]),
            (["--lanes", ""], ["--lanes", "''"]),
            (["--units", "0:20000000"], ["too long"]),
            (["--units", "5:7"], ["there is no unit 5", "0..2"]),
            (["--units", "1,1"], ["repeat"]),
            (["--start", "50"], ["from 50.0 to None ms", "start < stop within 0 to 40"]),
            (["--population", "none"], ["'none'"]),
            (["--population", "answer"], ["sends no events"]),
            (["--colour", "gradient"], ["no gradient", "replay"]),
            (["--colour", "red"], ["--colour", "'red'"]),
            (["--dpi", "1"], ["--dpi"]),
        ],
    )
    def test_what_cannot_be_drawn(self, evsim, log, tmp_path, options, words):
        refused(evsim("raster", log, *options), *words)
        assert list(tmp_path.iterdir()) == []

    def test_wrong_suffix(self, evsim, log, tmp_path):
        for name in ("a.jpg", "a", ".png"):
            refused(evsim("raster", log, "-o", name), f"'{name}'", ".svg")
        assert list(tmp_path.iterdir()) == []

    def test_what_is_there_is_not_overwritten(self, evsim, log, tmp_path):
        (tmp_path / "raster.png").write_text("mine")
        refused(evsim("raster", log), "raster.png", "--force")
        assert (tmp_path / "raster.png").read_text() == "mine"
        assert evsim("raster", log, "--force", "--lane", 1).code == 0
        assert (tmp_path / "raster.png").read_bytes().startswith(b"\x89PNG")

    def test_no_place_to_write_to(self, evsim, log, tmp_path):
        refused(evsim("raster", log, "-o", "none/a.png"), "none/a.png")
        (tmp_path / "a.png").mkdir()
        refused(evsim("raster", log, "-o", "a.png", "--force"), "a.png")

    @pytest.mark.parametrize("lane", [2, -1])
    def test_no_such_lane(self, evsim, log, lane):
        refused(evsim("raster", log, "--lane", lane), f"lane {lane}", "0..1")
