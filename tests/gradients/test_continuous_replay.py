"""Adjoint replay in continuous time against central differences of an oracle, and EventProp in closed form.

Parameter arrays, picked at random for each network, are moved along a random direction.  A difference over a
change of the raster means nothing: where those at two steps disagree, it is left out, and counted.
"""

import numpy as np
import pytest
import scipy.sparse

from evsim.adjoint import Adjoint
from evsim.models import LIF, EventSource
from evsim.network import Network
from evsim.simulation import Simulation
from oracles.continuous import eventprop, from_network, one_lane, simulate_fast
from oracles.continuous_cases import EGRU_VARIANTS, Case, tangle, tangle_stimulus

STEP = 2e-5
KINDS = ("state", "terminal", "integral", "square", "time", "mix")
DELAYS = (None, "one", "pair")


def make_losses(log, kind, rng):
    """Gradients of a random linear function of what a log holds; "terminal" is of the last sample only."""
    losses = {}
    for name in log:
        member = log[name]
        if member.state is None:
            continue
        shape = member.state.shape
        if kind in ("state", "mix"):
            losses[name] = rng.normal(size=shape)
        if kind == "terminal":
            losses[name] = rng.normal(size=shape) * (np.arange(shape[0]) == shape[0] - 1)[:, None, None]
        for other in ("integral", "square"):
            if kind in (other, "mix"):
                losses[f"{name}.{other}"] = 0.1 * rng.normal(size=shape)
        if kind in ("time", "mix") and member.kind in ("EGRU", "LIF"):
            losses[f"{name}.time"] = 0.1 * rng.normal(size=member.n_events)
    return losses


class Experiment:
    """A run, its replay, and the same loss as a function of arrays, by the oracle."""

    def __init__(self, net, stimulus, duration, samples, kind, initial=None, fixed=(), picks=0):
        self.net, self.duration, self.samples = net, duration, samples
        self.rng = np.random.default_rng(99 + picks)
        simulation = Simulation(net, tolerance=1e-12)
        self.log = simulation.run(stimulus, duration, samples=samples, initial=initial)
        self.losses = make_losses(self.log, kind, self.rng)
        replayed = Adjoint(simulation.plan).replay(self.log, self.losses, inputs=True, initial=True)
        self.counters = replayed.counters
        self.network = from_network(net)
        self.arrays = {name: self.network.parameters[name] for name in replayed}
        self.gradients = dict(replayed)
        self.stimulus, self.initial = {}, {}
        for source, events in ((name, self.log[name].events) for name in stimulus):
            columns = events.time.copy(), events.unit, events.value.copy()
            self.stimulus[source] = columns
            self.arrays |= {f"{source} time": columns[0], f"{source} value": columns[2]}
            for what in ("time", "value"):
                self.gradients[f"{source} {what}"] = replayed.inputs[source][what]
        for name, states in (initial or {}).items():
            self.initial[name] = {state: np.array(values[0]) for state, values in states.items()}
            for state, values in self.initial[name].items():
                self.arrays[f"{name} {state}"] = values
                self.gradients[f"{name} {state}"] = replayed.initial[name][state][0]
        # Of delta units payloads are differentiated, with times that stay as they are.
        self.fixed = {name for name in fixed if self.log[name].events is not None}
        self.emissions = None
        if self.fixed:
            self.emissions = self._run().emissions
        for name in self.fixed:  # it has to do with the times only
            self.arrays.pop(f"{name}.threshold", None)
        self.base = self._run().raster

    def _run(self):
        extra = {} if self.emissions is None else {"fixed_times": self.emissions, "fixed": self.fixed}
        return simulate_fast(self.network, self.stimulus, self.duration, self.samples, self.initial, **extra)

    def loss(self):
        """The number, or nan where the raster is another one."""
        result = self._run()
        if sorted(result.raster) != sorted(self.base):
            return np.nan
        total = 0.0
        for key, gradient in self.losses.items():
            name, _, kind = key.partition(".")
            if kind == "time":
                total += gradient @ result.of(name)[0]
            else:
                values = getattr(result, kind or "state")[name]
                total += (gradient[:, 0] * values).sum()
        return total

    def derivative(self, array, direction):
        """(by differences of order 4, whether those of order 2 at two steps agree)."""
        before, values = array.copy(), []
        for factor in (1, -1, 2, -2):
            array[...] = before + factor * STEP * direction
            values.append(self.loss())
            array[...] = before
        near, far = (values[0] - values[1]) / (2 * STEP), (values[2] - values[3]) / (4 * STEP)
        return (4 * near - far) / 3, abs(near - far)

    def check(self, most, limit=1e-6, elements=0, skip=()):
        """Compare ``most`` arrays, and ``elements`` of each alone; few may be left out."""
        errors, count, left_out = {}, 0, 0
        names = [name for name, array in self.arrays.items() if name not in skip and array.size]
        for name in self.rng.permutation(names)[:most].tolist():
            array = self.arrays[name]
            gradient = self.gradients[name]
            directions = [self.rng.choice([-1.0, 1.0], array.shape)]
            if array.size > 1:
                flat = np.abs(gradient).ravel()
                picks = [int(flat.argmax()), *self.rng.integers(0, array.size, elements).tolist()][:elements]
                directions += [np.eye(1, array.size, k).reshape(array.shape) for k in picks]
            mine, theirs = [], []
            for direction in directions:
                if name.endswith(".delay"):
                    direction = direction * (array > 4 * STEP)  # there are none below 0
                count += 1
                value, doubt = self.derivative(array, direction)
                if not doubt <= 3e-6 * (1 + abs(value)):  # nan, or a change that the raster does not show
                    left_out += 1
                    continue
                mine.append(float((gradient * direction).sum()))
                theirs.append(value)
            if mine:
                # Differences are known to some 1e-8: losses of the reference to 1e-13, steps are 2e-5.
                size = max(np.linalg.norm(theirs), 1e-3 * np.linalg.norm(gradient), 1e-8 / limit)
                errors[name] = float(np.linalg.norm(np.subtract(mine, theirs)) / size)
        assert max(errors.values()) < limit, {k: e for k, e in errors.items() if not e < limit}
        assert left_out <= 0.15 * count, (left_out, count)


def of_case(case, kind, **options):
    net = case.network()
    fixed = ("hid",) if case.is_delta else ()
    experiment = Experiment(
        net, case.stimulus(), case.duration, case.samples(), kind, case.initial(net), fixed, **options
    )
    assert 10 <= experiment.log["hid"].n_events <= 300
    return experiment


# Seeds without a crossing that almost grazes, over which differences are not accurate.
CASES = [
    *(
        (Case("egru", DELAYS[k % 3], k % 2 == 0, 4, gate, transmit, duration=30.0, seed=seed), KINDS[k])
        for k, ((gate, transmit), seed) in enumerate(zip(EGRU_VARIANTS, (11, 12, 11, 9, 9, 12), strict=True))
    ),
    (Case("egru", "pair", False, 4, "pre", "value", duration=30.0, seed=6), "mix"),
    (Case("egru", "pair", True, 4, "post", "unit", duration=30.0, seed=12), "mix"),
    *(
        (Case("lif", delay, sparse, 4, duration=25.0, seed=seed), kind)
        for delay, sparse, seed, kind in (
            (None, False, 8, "time"),
            ("one", True, 12, "mix"),
            ("pair", False, 12, "terminal"),
            ("pair", True, 12, "mix"),
        )
    ),
    *(
        (Case(unit, delay, sparse, 4, duration=25.0, seed=0), kind)
        for unit in ("delta_gru", "delta_lstm")
        for delay, sparse, kind in ((None, False, "state"), ("one", True, "square"), ("pair", False, "mix"))
    ),
]


@pytest.mark.parametrize(("case", "kind"), CASES, ids=lambda value: str(value))
def test_gradients_equal_central_differences(case, kind):
    """Sparse and dense weights, delays of all kinds, biases, thresholds, time constants, states, inputs."""
    experiment = of_case(case, kind, picks=CASES.index((case, kind)))
    assert experiment.counters["grazing"] == 0
    experiment.check(10, skip=("cue time",) if case.is_delta else ())


# -- by differences of the engine's own runs, which are compared with the oracles elsewhere ----------------


def own_differences(net, evaluate, gradients, rng, limit=1e-6, elements=2, skip=(), step=2e-5):
    """Each parameter along a random direction, and in some elements; ``evaluate``: (number, raster)."""
    base, errors, count, left_out = evaluate()[1], {}, 0, 0
    for name, gradient in gradients.items():
        if name in skip or not gradient.size:
            continue
        array = net.parameters()[name].values
        before, mine, theirs = array.copy(), [], []
        directions = [rng.choice([-1.0, 1.0], array.shape)]
        for k in rng.integers(0, array.size, elements).tolist():
            directions.append(np.eye(1, array.size, k).reshape(array.shape))
        for direction in directions:
            if name.endswith(".delay"):
                direction = direction * (array > 4 * step)
            count += 1
            values = []
            for factor in (1, -1, 2, -2):
                array[...] = before + factor * step * direction
                value, raster = evaluate()
                values.append(value if raster == base else np.nan)
            array[...] = before
            near, far = (values[0] - values[1]) / (2 * step), (values[2] - values[3]) / (4 * step)
            if not abs(near - far) <= 1e-5 * (1 + abs(near)):
                left_out += 1
                continue
            mine.append(float((gradient * direction).sum()))
            theirs.append((4 * near - far) / 3)
        if mine:
            size = max(np.linalg.norm(theirs), 1e-3 * np.linalg.norm(gradient), 1e-3)
            errors[name] = float(np.linalg.norm(np.subtract(mine, theirs)) / size)
    assert max(errors.values()) < limit, {k: e for k, e in errors.items() if not e < limit}
    assert left_out <= 0.25 * count, (left_out, count)


def total(log, losses):
    """The linear function that the losses are the gradient of, and the raster."""
    value = 0.0
    for key, gradient in losses.items():
        name, _, kind = key.partition(".")
        found = getattr(log[name], kind or "state")
        value += (gradient * found).sum() if found.shape == gradient.shape else np.nan
    events = [log[name].events for name in log]
    return value, [(sent.unit.tolist(), sent.lane.tolist()) for sent in events if sent is not None]


LARGE = [
    Case("egru", "pair", False, 16, "pre", "value", 60.0, 16, seed=41),
    Case("egru", "pair", True, 16, "post", "unit", 50.0, 16, seed=42),
    Case("egru", "one", True, 16, "none", "value", 50.0, 16, n_lanes=2, seed=43),
    Case("lif", "pair", True, 20, duration=50.0, n_external=30, seed=41),
    Case("lif", "pair", False, 12, duration=40.0, n_external=20, n_lanes=2, seed=42),
]


@pytest.mark.parametrize("case", LARGE, ids=lambda c: f"{c}-{c.seed}")
def test_gradients_of_larger_networks(case):
    """Up to 300 events, several lanes."""
    net, stimulus = case.network(), case.stimulus()
    initial = case.initial(net)
    simulation = Simulation(net, tolerance=1e-13)

    def run():
        return simulation.run(stimulus, case.duration, samples=case.samples(), initial=initial, tape=tape)

    tape = True
    log = run()
    assert 40 <= log["hid"].n_events <= 600
    losses = make_losses(log, "mix", np.random.default_rng(7))
    gradients = Adjoint(simulation.plan).replay(log, losses)
    assert gradients.counters["macs"] == log.counters["macs"]
    tape = False
    # Among so many events some arrive just before or after a release, which is a kink: small steps.
    step = 4e-7 if case.kind == "lif" else 4e-6
    own_differences(net, lambda: total(run(), losses), gradients, np.random.default_rng(8), step=step)


@pytest.mark.parametrize("refractory", [0.0, 1.5])
def test_arrivals_at_the_end_of_a_refractory_time(refractory):
    """A delay that equals it, to the last bit: release and arrival move together."""
    rng, n = np.random.default_rng(0), 4
    net = Network(dt=None, dtype="float64")
    net.add(EventSource(2, "cue"))
    unit = LIF(
        n, "hid", bias=rng.normal(0.5, 0.2, n), tau_m=10.0, refractory=refractory, train_threshold=True
    )
    net.add(unit)
    net.connect("cue", "hid", rng.uniform(1, 4, (2, n)))
    net.connect("hid", "hid", rng.uniform(0, 1, (n, n)), delay=1.5)
    time = np.sort(rng.uniform(0, 30, 10))
    stimulus = {"cue": (time, np.zeros(10, int), rng.integers(0, 2, 10), np.ones(10))}
    simulation = Simulation(net)

    def run():
        return simulation.run(stimulus, 40.0, samples=[20.0, 40.0])

    log = run()
    assert log["hid"].n_events >= 10
    losses = make_losses(log, "mix", np.random.default_rng(7))
    gradients = Adjoint(simulation.plan).replay(log, losses)
    own_differences(net, lambda: total(run(), losses), gradients, np.random.default_rng(8), step=1e-6)


@pytest.mark.parametrize("kind", ["egru", "lif"])
def test_gradients_of_a_carried_window(kind):
    """States and events in flight from before are as they are; those that arrive count for the weights."""
    case = Case(kind, "pair", False, 6, duration=40.0, seed=12)
    net, (time, lane, unit, value) = case.network(), case.stimulus()["cue"]
    cut, samples = 20.0, [25.0, 40.0]
    first, second = (tuple(c[mine] for c in (time, lane, unit, value)) for mine in (time < cut, time >= cut))
    before = Simulation(net, tolerance=1e-13)
    before.run({"cue": first}, cut, initial=case.initial(net))
    assert len(before._in_flight[0]) > 0
    states, flying = [x.copy() for x in before._states], before._in_flight

    def run():
        before.time, before._states, before._in_flight = cut, [x.copy() for x in states], flying
        return before.run({"cue": second}, 40.0 - cut, samples=samples, carry=True)

    log = run()
    losses = make_losses(log, "mix", np.random.default_rng(7))
    gradients = Adjoint(before.plan).replay(log, losses)
    # Arrivals from before come when they come, though the gradient of a delay counts them.
    skip = [name for name in gradients if name.endswith(".delay")]
    own_differences(net, lambda: total(run(), losses), gradients, np.random.default_rng(8), skip=skip)


def test_gradients_of_a_network_of_all_types():
    """Units whose events move, and delta units, of which the times are held."""
    network, stimulus = tangle(0, train=True), tangle_stimulus(0)
    experiment = Experiment(network, stimulus, 25.0, [10.0, 25.0], "mix", fixed=("delta", "memory"))
    assert all(experiment.log[name].n_events for name in ("gated", "leaky", "delta", "memory"))
    experiment.check(14)


# -- closed form --------------------------------------------------------------------------------------------


def lif_network(seed, n=5, sparse=False):
    rng = np.random.default_rng(seed)
    net = Network(dt=None, dtype="float64")
    net.add(EventSource(3, "cue"))
    net.add(
        LIF(
            n,
            "hid",
            threshold=rng.uniform(0.8, 1.1, n),
            bias=rng.normal(0.2, 0.2, n),
            tau_m=12.0,
            tau_e=5.0,
            reset=-0.1,
            train_threshold=True,
        )
    )
    net.connect("cue", "hid", rng.uniform(2, 5, (3, n)))
    recurrent = rng.normal(0.2, 0.8, (n, n))
    if sparse:
        recurrent = scipy.sparse.csr_array(recurrent * (rng.random((n, n)) < 0.5))
    net.connect("hid", "hid", recurrent)
    time = np.sort(rng.uniform(0, 50, 20))
    return net, {"cue": (time, np.zeros(20, int), rng.integers(0, 3, 20), rng.uniform(0.5, 1.5, 20))}


@pytest.mark.parametrize(("seed", "sparse"), [(1, True), (2, False), (3, True)])
def test_eventprop(seed, sparse):
    """Losses on event times and on the state at the end, against Wunderlich & Pehle's equations."""
    net, stimulus = lif_network(seed, sparse=sparse)
    simulation = Simulation(net)
    log = simulation.run(stimulus, 60.0, samples=[60.0])
    network, lane = from_network(net), one_lane(stimulus, 0)
    result = simulate_fast(network, lane, 60.0)
    time, _, _ = result.of("hid")
    assert 10 <= len(time) == log["hid"].n_events
    rng = np.random.default_rng(seed)
    by_time, final = rng.normal(size=len(time)), rng.normal(size=(1, 1, 5))
    order = np.argsort(np.lexsort((result.unit, result.time)))  # the oracle's order of events
    expected = eventprop(network, lane, 60.0, result, by_time[order], {"v": final[0, 0]})
    losses = {"hid.time": by_time, "hid": final}
    got = Adjoint(simulation.plan).replay(log, losses, inputs=True)
    assert got.counters["grazing"] == 0
    found = dict(got) | {f"cue.{key}": values for key, values in got.inputs["cue"].items()}
    for name, values in expected.items():
        error = np.abs(found[name] - values).max() / np.abs(values).max()
        assert error < 1e-9, (name, error)
