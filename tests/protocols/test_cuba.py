"""The classic current-based network: who is connected, its rate against a clocked loop, what is counted."""

import json
from collections import defaultdict

import numpy as np
import pytest

from evsim.continuous_log import ContinuousLog, ContinuousPopulationLog
from evsim.errors import ProtocolError
from evsim.eventlog import EventLog
from evsim.protocol import RunFolder
from evsim.protocols import cuba
from evsim.protocols.cuba import build, count_deliveries, describe, intervals, random_pairs, start
from evsim.simulation import Simulation
from evsim.timed_events import TimedEvents


class TestRandomPairs:
    @pytest.mark.parametrize("probability", [0.02, 0.3, 0.9])
    def test_as_many_as_expected_everywhere(self, probability):
        found = random_pairs(np.random.default_rng(0), 300, 200, probability)
        assert found.shape == (300, 200)
        assert set(found.data) == {1.0}
        assert found.has_canonical_format
        dense = found.toarray()
        for part in (dense, dense[:150], dense[:, :100], dense[:100, 150:], np.diag(dense)):
            spread = np.sqrt(probability * (1 - probability) / part.size)
            assert abs(part.mean() - probability) < 5 * spread
        assert abs(dense.sum(axis=1).std() / np.sqrt(200 * probability * (1 - probability)) - 1) < 0.25

    def test_all(self):
        assert (random_pairs(np.random.default_rng(0), 4, 3, 1.0).toarray() == 1).all()

    def test_generators_differ(self):
        one, other = (random_pairs(np.random.default_rng(seed), 30, 30, 0.2).toarray() for seed in (0, 1))
        assert (one != other).any()


class TestNetwork:
    def test_values(self):
        network = build(4000)
        assert {name: p.n_units for name, p in network.populations.items()} == {
            "excitatory": 3200,
            "inhibitory": 800,
        }
        for population in network.populations.values():
            values = {name: set(p.values.tolist()) for name, p in population.parameters.items()}
            assert values == {
                "bias": {-49.0},
                "threshold": {-50.0},
                "tau_m": {20.0},
                "tau_e": {5.0},
                "tau_i": {10.0},
            }
            assert (population.reset, population.refractory) == (-60.0, 5.0)
        weights = {name: set(p.weight.values.tolist()) for name, p in network.projections.items()}
        excites, inhibits = {float(np.float32(1.62))}, {-9.0}
        assert weights == {
            "excitatory->excitatory": excites,
            "excitatory->inhibitory": excites,
            "inhibitory->excitatory": inhibits,
            "inhibitory->inhibitory": inhibits,
        }
        assert {p.port for p in network.projections.values() if p.source.name == "inhibitory"} == {
            "inhibitory"
        }
        number = sum(p.n_weights for p in network.projections.values())
        assert number == pytest.approx(0.02 * 4000**2, rel=0.01)

    @pytest.mark.parametrize("units", [500, 2000, 8000])
    def test_units_of_any_size_have_as_many_connections(self, units):
        number = sum(p.n_weights for p in build(units).projections.values())
        assert number / units == pytest.approx(80, rel=0.03)

    def test_few_units_are_all_connected(self):
        assert sum(p.n_weights for p in build(40).projections.values()) == 40**2

    def test_start(self):
        network = build(400)
        states = start(network, 0)
        for name in network.populations:
            v = states[name]["v"]
            assert v.shape == (1, network[name].n_units)
            assert ((v >= -60) & (v < -50)).all()
            assert v.std() == pytest.approx(10 / np.sqrt(12), rel=0.2)
        assert (start(network, 1)["excitatory"]["v"] != states["excitatory"]["v"]).any()


def clocked(network, v, duration, dt=0.05):
    """Events of each population by a loop over steps, whose currents and potentials decay exactly."""
    n = {name: p.n_units for name, p in network.populations.items()}
    v = {name: value[0].copy() for name, value in v.items()}
    currents = {name: {"excitatory": np.zeros(k), "inhibitory": np.zeros(k)} for name, k in n.items()}
    weights = {name: p.to_dense() for name, p in network.projections.items()}
    held = {name: np.zeros(k) for name, k in n.items()}
    count = defaultdict(int)
    taus, m = {"excitatory": 5.0, "inhibitory": 10.0}, np.exp(-dt / 20.0)
    for step in range(round(duration / dt)):
        sent = {}
        for name in n:
            moved = -49.0 + (v[name] + 49.0) * m
            for kind, tau in taus.items():
                current = currents[name][kind]
                moved += current * tau / (20.0 - tau) * (m - np.exp(-dt / tau))
                currents[name][kind] = current * np.exp(-dt / tau)
            v[name] = np.where(held[name] > step * dt, -60.0, moved)
            sent[name] = v[name] >= -50.0
            v[name][sent[name]] = -60.0
            held[name][sent[name]] = step * dt + 5.0
            count[name] += int(sent[name].sum())
        for projection, weight in weights.items():
            source, target = projection.split("->")
            currents[target][source] += weight[sent[source]].sum(axis=0)
    return count


def test_as_many_events_as_in_a_clocked_loop():
    network = build(1000, seed=1)
    initial = start(network, 1)
    log = Simulation(network).run({}, 200.0, initial=initial, tape=False)
    count = clocked(network, {name: states["v"] for name, states in initial.items()}, 200.0)
    for name in network.populations:
        assert count[name] > 100
        assert log[name].n_events == pytest.approx(count[name], rel=0.12)


def log_of(times, n_units=4, duration=100.0):
    """A log of one population that sends at such times: {unit: times}."""
    rows = [(when, unit) for unit, sent in times.items() for when in sent]
    time, unit = zip(*rows, strict=True)
    window = {"n_units": n_units, "n_lanes": 1, "start": 0.0, "stop": duration}
    events = TimedEvents.from_list(time, [0] * len(time), unit, [1.0] * len(time), **window)
    population = ContinuousPopulationLog("excitatory", "LIF", n_units, events)
    return ContinuousLog({"excitatory": population}, start=0.0, duration=duration, n_lanes=1)


class TestNumbers:
    times: dict[int, list[float]] = {0: [1, 2, 4, 8], 1: [50.0], 3: [10, 20, 30, 40, 55]}  # noqa: RUF012

    def test_intervals(self):
        found = [gaps.tolist() for gaps in intervals(log_of(self.times), "excitatory")]
        assert found == [[1, 2, 4], [10, 10, 10, 15]]

    def test_description(self):
        row = describe(log_of(self.times), "excitatory")
        cv = [np.std([1, 2, 4]) / np.mean([1, 2, 4]), np.std([10, 10, 10, 15]) / np.mean([10, 10, 10, 15])]
        assert row["cv"] == pytest.approx(np.mean(cv))
        assert (row["units_in_cv"], row["events"], row["silent_units"]) == (2, 10, 1)
        assert row["rate_hz"] == pytest.approx(10 / 4 / 0.1)

    def test_few_events_have_no_cv(self):
        assert describe(log_of({0: [1.0, 2.0]}), "excitatory")["cv"] is None

    def test_deliveries(self):
        network = build(200)
        log = Simulation(network).run({}, 50.0, initial=start(network, 0), tape=False)
        total = 0
        for projection in network.projections.values():
            fans = (projection.to_dense() != 0).sum(axis=1)
            total += sum(fans[unit] for unit in log[projection.source.name].unit)
        assert count_deliveries(network, log) == total > 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("cuba")
    cuba.run(RunFolder(path, quiet=True), units=300, duration=60.0, seed=2)
    return path


class TestRun:
    def test_files(self, folder):
        assert sorted(path.name for path in folder.iterdir()) == ["cuba.png", "events.h5", "summary.json"]
        assert (folder / "cuba.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")

    def test_summary_and_log(self, folder):
        summary, log = json.loads((folder / "summary.json").read_text()), EventLog.open(folder / "events.h5")
        network = build(300, seed=2)
        again = Simulation(network).run({}, 60.0, initial=start(network, 2), tape=False)
        for name in ("excitatory", "inhibitory"):
            assert log[name].events.equal(again[name].events)
            assert summary["populations"][name] == pytest.approx(describe(again, name))
        assert summary["events"] == sum(again[name].n_events for name in again)
        assert summary["deliveries"] == count_deliveries(network, again)
        assert summary["connections"] == sum(p.n_weights for p in network.projections.values())

    def test_prints(self, tmp_path, capsys):
        cuba.run(RunFolder(tmp_path), units=100, duration=5.0)
        out = capsys.readouterr().out
        assert "excitatory" in out
        assert "deliveries in 5 ms" in out

    @pytest.mark.parametrize(
        ("setting", "value"),
        [("units", 9), ("duration", 0.0), ("duration", -1.0), ("duration", float("nan")), ("seed", -1)],
    )
    def test_settings_that_cannot_work(self, tmp_path, setting, value):
        with pytest.raises(ProtocolError, match=f"{setting} is"):
            cuba.run(RunFolder(tmp_path, quiet=True), **{setting: value})
