"""Adjoint replay in continuous time against central differences of an oracle, and EventProp in closed form.

Every parameter array is moved along a random direction, and in two elements of its own.  A difference over a
change of the raster means nothing: where those at two steps disagree, it is left out, and counted.
"""

import numpy as np
import pytest

from evsim.adjoint import Adjoint
from evsim.simulation import Simulation
from oracles.continuous import from_network, simulate_fast
from oracles.continuous_cases import EGRU_VARIANTS, Case

STEP = 1e-4
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

    def __init__(self, net, stimulus, duration, samples, kind, initial=None, fixed=()):
        self.net, self.duration, self.samples = net, duration, samples
        self.rng = np.random.default_rng(99)
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
        for name in self.fixed:
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

    def check(self, limit=1e-6, elements=1, skip=()):
        """Largest relative error of a parameter; how many were looked at, and left out."""
        errors, count, left_out = {}, 0, 0
        for name, array in self.arrays.items():
            if name in skip or not array.size:
                continue
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
                if not doubt <= 1e-4 * (1 + abs(value)):  # nan, or a change that the raster does not show
                    left_out += 1
                    continue
                mine.append(float((gradient * direction).sum()))
                theirs.append(value)
            if mine:
                size = max(np.linalg.norm(theirs), 1e-3 * np.linalg.norm(gradient), 1e-4)
                errors[name] = float(np.linalg.norm(np.subtract(mine, theirs)) / size)
        print("WORST", max(errors.values()), max(errors, key=errors.get), count, left_out)
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


CASES = [
    *(
        (Case("egru", DELAYS[k % 3], k % 2 == 0, 4, gate, transmit, duration=30.0, seed=0), KINDS[k])
        for k, (gate, transmit) in enumerate(EGRU_VARIANTS)
    ),
    (Case("egru", "pair", False, 4, "pre", "value", duration=30.0, seed=6), "mix"),
    (Case("egru", "pair", True, 4, "post", "unit", duration=30.0, seed=0), "mix"),
    *(
        (Case("lif", delay, sparse, 4, duration=25.0, seed=seed), kind)
        for delay, sparse, seed, kind in (
            (None, False, 0, "time"),
            ("one", True, 1, "mix"),
            ("pair", False, 2, "terminal"),
            ("pair", True, 3, "mix"),
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
    experiment = of_case(case, kind)
    assert experiment.counters["grazing"] == 0
    experiment.check(skip=("cue time",) if case.is_delta else ())
