"""dL/d(payload) and dL/d(time) of events, by differences of an oracle that changes one on its way."""

import numpy as np
import pytest

from evsim.adjoint import Adjoint
from evsim.errors import GradientError
from evsim.simulation import Simulation
from oracles.continuous import from_network
from oracles.continuous_cases import EGRU_VARIANTS, Case, tangle, tangle_stimulus
from oracles.continuous_fast import FastDriver

STEP = 1e-4


class TransitDriver(FastDriver):
    """All targets of the k-th event of a unit receive ``more`` payload, ``later`` by so many ms."""

    def __init__(self, *args, change=None):
        self.change, self.sent = change, {}
        super().__init__(*args)

    def _send(self, name, unit, value, rho):
        k = self.sent[name, unit] = self.sent.get((name, unit), -1) + 1
        if self.change is None or self.change[0] != (name, unit, k):
            super()._send(name, unit, value, rho)
            return
        _, more, later = self.change
        wires, self.out[name][unit] = (
            self.out[name][unit],
            [(to, delay + later, *rest) for to, delay, *rest in self.out[name][unit]],
        )
        super()._send(name, unit, value + more, rho)
        self.out[name][unit] = wires


def make_losses(log, rng):
    losses = {}
    for name in log:
        if log[name].state is not None:
            losses[name] = rng.normal(size=log[name].state.shape)
        if log[name].kind in ("EGRU", "LIF"):
            losses[f"{name}.time"] = 0.1 * rng.normal(size=log[name].n_events)
    return losses


def check(net, stimulus, duration, samples, initial, fixed=(), timed=True, most=2):
    simulation = Simulation(net, tolerance=1e-12)
    log = simulation.run(stimulus, duration, samples=samples, initial=initial)
    losses = make_losses(log, np.random.default_rng(3))
    replayed = Adjoint(simulation.plan).replay(log, losses, events=True)
    assert set(replayed.events) == {name for name in log if log[name].events is not None}
    assert replayed.counters["grazing"] == 0
    given = {
        name: (log[name].events.time, log[name].events.unit, log[name].events.value) for name in stimulus
    }
    states = {name: {k: np.array(v[0]) for k, v in of.items()} for name, of in (initial or {}).items()}
    network, fixed = from_network(net), set(fixed)
    times = {}

    def run(change=None):
        driver = TransitDriver(
            network, given, duration, samples, states, *times.get("fixed", (None, None)), 0.0, change=change
        )
        result = driver.run()
        total = 0.0
        for key, gradient in losses.items():
            name, _, kind = key.partition(".")
            if kind == "time":
                moments = result.of(name)[0]
                total += gradient @ moments if moments.shape == gradient.shape else np.nan
            else:
                total += (gradient[:, 0] * result.state[name]).sum()
        return total, sorted(result.raster), result

    if fixed:
        times["fixed"] = run()[2].emissions, fixed
    base, raster, _ = run()

    def difference(stencil, name, unit, k, more, later):
        total = 0.0
        for factor, weight in stencil:
            now = base
            if factor:
                now, seen, _ = run(((name, unit, k), factor * more, factor * later))
                total += 0.0 if seen == raster else np.nan
            total += weight * now / STEP
        return total

    central = ((1, 2 / 3), (-1, -2 / 3), (2, -1 / 12), (-2, 1 / 12))
    # An event without delay cannot arrive any earlier.
    forwards = ((0, -11 / 6), (1, 3), (2, -3 / 2), (3, 1 / 3))
    rng, tried, compared = np.random.default_rng(4), 0, 0
    for name, found in replayed.events.items():
        events = log[name].events
        assert found["value"].shape == found["time"].shape == (len(events),)
        scale = {what: max(np.abs(gradient).max(initial=0.0), 1e-3) for what, gradient in found.items()}
        for row in rng.permutation(len(events))[:most].tolist():
            unit = int(events.unit[row])
            k = int((events.unit[:row] == unit).sum())
            numeric = {"value": difference(central, name, unit, k, STEP, 0.0)}
            if timed:
                numeric["time"] = difference(forwards, name, unit, k, 0.0, STEP)
                numeric["time"] += losses[f"{name}.time"][row] if f"{name}.time" in losses else 0.0
            for what, expected in numeric.items():
                tried += 1
                if not np.isnan(expected):
                    compared += 1
                    limit = 1e-6 if what == "value" else 1e-5
                    assert abs(found[what][row] - expected) < limit * scale[what], (
                        name,
                        row,
                        what,
                        found[what][row],
                        expected,
                    )
    assert compared >= 0.8 * tried, (compared, tried)


CASES = [
    *(
        Case("egru", delay, k % 2 == 0, 4, gate, transmit, duration=30.0, seed=seed)
        for k, ((gate, transmit), delay, seed) in enumerate(
            zip(EGRU_VARIANTS, (None, "one", "pair") * 2, (11, 12, 11, 9, 9, 12), strict=True)
        )
    ),
    Case("lif", None, False, 4, duration=25.0, seed=8),
    Case("lif", "pair", True, 4, duration=25.0, seed=12),
    Case("delta_gru", "one", True, 4, duration=25.0, seed=0),
    Case("delta_gru", None, False, 4, duration=25.0, seed=0),
    Case("delta_lstm", "pair", False, 4, duration=25.0, seed=0),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equal_to_differences_over_one_event(case):
    fixed = ("hid",) if case.is_delta else ()
    check(
        case.network(),
        case.stimulus(),
        case.duration,
        case.samples(),
        case.initial(case.network()),
        fixed,
        timed=case.timed,
    )


def test_all_types_in_one_network():
    check(
        tangle(0, train=True),
        tangle_stimulus(0),
        25.0,
        [10.0, 25.0],
        None,
        ("delta", "memory"),
        timed=False,
        most=1,
    )


def several_lanes():
    case = Case("egru", "pair", False, 6, duration=40.0, n_lanes=3, seed=12)
    net = case.network()
    simulation = Simulation(net)
    stimulus, initial = case.stimulus(), case.initial(net)

    def run(**options):
        return simulation.run(stimulus, case.duration, samples=case.samples(), initial=initial, **options)

    return run, simulation.plan


def test_sources_have_their_input_gradients():
    run, plan = several_lanes()
    log = run()
    losses = make_losses(log, np.random.default_rng(1))
    replayed = Adjoint(plan).replay(log, losses, inputs=True, events=True)
    for name, found in replayed.inputs.items():
        for what, gradient in found.items():
            np.testing.assert_array_equal(replayed.events[name][what], gradient)
    plain = Adjoint(plan).replay(log, losses)
    assert not plain.events
    for name, gradient in plain.items():
        np.testing.assert_array_equal(replayed[name], gradient)


def test_without_tape_and_with_more_threads():
    run, plan = several_lanes()
    log, bare = run(), run(tape=False)
    losses = make_losses(log, np.random.default_rng(1))
    one = Adjoint(plan, threads=1).replay(log, losses, events=True)
    for other, exact in ((log, True), (bare, False)):
        more = Adjoint(plan, threads=3).replay(other, losses, events=True)
        for name, found in one.events.items():
            for what, gradient in found.items():
                if exact:
                    np.testing.assert_array_equal(more.events[name][what], gradient)
                np.testing.assert_allclose(more.events[name][what], gradient, rtol=1e-6, atol=1e-8)


def test_mark():
    run, plan = several_lanes()
    log, other = run(), run()
    gradients = Adjoint(plan).replay(log, make_losses(log, np.random.default_rng(1)), events=True)
    assert gradients.mark(log) is log
    for name, found in gradients.events.items():
        assert log[name].gradient is found["value"]
        assert log[name].time_gradient is found["time"]
        assert not log[name].equal(other[name])
    gradients.mark(other)
    assert all(log[name].equal(other[name]) for name in gradients.events)
    with pytest.raises(GradientError, match="events=True"):
        Adjoint(plan).replay(log, make_losses(log, np.random.default_rng(1))).mark(log)
