"""evsim inspect: what is in a log."""

import json
import re

import h5py
import numpy as np
import pytest

from evsim.checkpoint import Checkpoint
from evsim.eventlog import EventLog
from oracles import continuous_logs
from oracles.command_line import make_log, refused


class TestInspect:
    def test_says_what_is_there(self, evsim, log):
        result = evsim("inspect", log)
        assert (result.code, result.err) == (0, "")
        lines = result.out.splitlines()
        assert lines[0] == f"{log}: 40 ms in steps of 1 ms, 2 lanes"
        assert all(len(line) <= 80 for line in lines[1:] if not line.startswith("platform"))
        truth = make_log()
        counts = np.bincount(truth["hidden"].unit, minlength=6)
        first, second = (
            [line.split() for line in lines if line.startswith(f"{name} ")] for name in ("hidden", "answer")
        )
        events = truth["hidden"].n_events
        assert first[0] == ["hidden", "EGRU", "6", f"{events:,}", f"{events / 480:.4f}", "events"]
        assert second == [["answer", "LeakyReadout", "2", "-", "-", "state", "v"]]
        rates = [1000 * n / 80 for n in (counts.mean(), counts.min(), counts.max())]
        dense = truth["hidden"].events.to_dense() != 0
        chi = np.mean(
            [np.sqrt(x.mean(axis=1).var() / x.var(axis=0).mean()) for x in np.swapaxes(dense, 0, 1)]
        )
        statistics = [*(f"{rate:,.1f}" for rate in rates), f"{100 * (counts == 0).mean():.1f}", f"{chi:.3f}"]
        assert first[1][:6] == ["hidden", *statistics]
        most, least = np.argsort(-counts, kind="stable")[:2], np.argsort(counts, kind="stable")[:2]
        assert first[1][7:] == [str(unit) for unit in (*most, *least)]
        weights = {"cue->hidden": 3 * 18, "hidden->hidden": 6 * 18, "hidden->answer": 6 * 2}
        for name, macs in truth.counters["macs"].items():
            row = next(line.split() for line in lines if line.startswith(name))
            assert row[1:3] == [f"{macs:,}", f"{weights[name] * 80:,}"]
        assert any(line.split()[:1] == ["seed"] for line in lines)

    def test_json(self, evsim, log):
        result = evsim("inspect", log, "--json")
        assert (result.code, result.err) == (0, "")

        def no_constants(word):
            raise AssertionError(f"{word} is not JSON")

        facts = json.loads(result.out, parse_constant=no_constants)
        assert (facts["duration_ms"], facts["dt_ms"], facts["lanes"]) == (40, 1, 2)
        assert [row["population"] for row in facts["populations"]] == ["cue", "hidden", "answer"]
        assert facts["counters"] == EventLog.open(log).counters

    def test_a_run_in_continuous_time(self, evsim, continuous):
        result = evsim("inspect", continuous)
        assert (result.code, result.err) == (0, "")
        lines = result.out.splitlines()
        assert lines[0] == f"{continuous}: 7.5 ms in continuous time, 2 lanes"
        assert all(len(line) <= 80 for line in lines[1:] if not line.startswith("platform"))
        truth = continuous_logs.make_log()
        first, second = (
            [line.split() for line in lines if line.startswith(f"{name} ")] for name in ("hidden", "answer")
        )
        assert first[0][:5] == ["hidden", "EGRU", "3", "20", "events,"]
        assert first[1][:2] == ["hidden", f"{truth['hidden'].rate:,.1f}"]
        assert second == [["answer", "LeakyReadout", "2", "-", "state", "v"]]
        assert "chi: in bins of 1 ms" in evsim("inspect", continuous, "--bin", 1).out.splitlines()
        assert ["cue->hidden", f"{2**40:,}"] in [line.split() for line in lines]
        assert ["crossings", "20"] in [line.split() for line in lines]
        facts = json.loads(evsim("inspect", continuous, "--json").out)
        assert (facts["duration_ms"], facts["dt_ms"], facts["lanes"]) == (7.5, None, 2)
        assert (facts["start_ms"], facts["samples"]) == (12.5, 4)
        for row, expected in zip(facts["populations"], json.loads(json.dumps(truth.summary())), strict=True):
            assert {key: row[key] for key in expected} == expected

    def test_check(self, evsim, log, continuous, tmp_path):
        for path in (log, continuous):
            result = evsim("inspect", path, "--check")
            assert (result.code, result.err) == (0, "")
            assert re.fullmatch(r".*: sound, \d+ events read\n", result.out)
        assert json.loads(evsim("inspect", log, "--check", "--json").out) == {
            "sound": True,
            "complete": True,
            "damage": [],
        }
        (tmp_path / "broken.h5").write_bytes(log.read_bytes())
        with h5py.File(tmp_path / "broken.h5", "r+") as file:
            file["spikes/cue/node_ids"][3] += 1
            file["spikes/hidden/value"][0] = 77.0
        result = evsim("inspect", "broken.h5", "--check")
        assert (result.code, result.err) == (1, "")
        lines = result.out.splitlines()
        assert len(lines) >= 2
        assert all(line.startswith("broken.h5: ") for line in lines)
        assert any("cue" in line for line in lines)
        assert any("hidden" in line for line in lines)
        assert json.loads(evsim("inspect", "broken.h5", "--check", "--json").out)["sound"] is False
        (tmp_path / "text.h5").write_text("text")
        result = evsim("inspect", "text.h5", "--check")
        assert (result.code, result.err) == (1, "")
        assert result.out.startswith("text.h5: ")
        refused(evsim("inspect", "none.h5", "--check"), "none.h5")

    @pytest.mark.parametrize("command", ["inspect", "raster"])
    def test_files_that_are_no_logs(self, evsim, log, tmp_path, command):
        whole = log.read_bytes()
        (tmp_path / "text").write_text("text")
        (tmp_path / "empty").touch()
        (tmp_path / "folder").mkdir()
        (tmp_path / "short").write_bytes(whole[: len(whole) // 2])
        Checkpoint({}).save(tmp_path / "checkpoint.h5")
        h5py.File(tmp_path / "other.h5", "w").close()
        for name in (
            "text",
            "empty",
            "folder",
            "short",
            "checkpoint.h5",
            "other.h5",
            "none.h5",
            "none/none.h5",
        ):
            refused(evsim(command, name), f"'{name}'")
        assert not (tmp_path / "raster.png").exists()
