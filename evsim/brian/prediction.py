"""Each step of Brian2 in continuous time, predicted from where it stood before: where do the two part?

Event times of a simulator that steps are off by up to a step, and an error of a thousandth in one weight
hides below that.  It does not hide here: Brian2's states at the start of each of its steps are where evsim
begins anew, each unit alone, and after one step both must be at the same place, to rounding, whatever
happened before.  So chaos does not matter, errors do not travel from unit to unit, and the first unit that is
not where it should be is the one that computes something else.

For each step k that begins in Brian2's states x_k::

    F   = evsim's own engine, from x_k over dt, thresholds out of reach, nothing arriving
    e   = F is at its threshold or beyond (what Brian2 must have found too)
    x'  = F + weights of all that arrives at the end of the step, units with an event at their reset

The residual is x_{k+1} - x'.  What arrives is what Brian2's units sent, the weights are those of the network.
Steps of units whose events differ, or that Brian2 has within `NEAR` of a threshold, tell about that only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from evsim.errors import NetworkError
from evsim.models import EGRU, LIF, DeltaGRU, DeltaLSTM, EventSource
from evsim.network import Network
from evsim.population import Population
from evsim.projection import Projection
from evsim.timed_events import TimedEvents

#: States by kernel: the names in Brian2, which are those of evsim.
STATES = {
    "egru_continuous": ("c", "a_u", "a_r", "a_z"),
    "lif": ("v", "i_e", "i_i"),
    "delta_gru": ("h", "sent", "m_r", "m_z", "m_n", "m_q"),
    "delta_lstm": ("c", "sent", "m_i", "m_f", "m_g", "m_o"),
    "readout": ("v",),
    "delta_readout": ("m",),
}
#: This near to a threshold, relative, rounding decides whether there is an event.
NEAR = 1e-9
#: Numbers held at a time: states of a batch of steps.
BATCH = 2**22


@dataclass(frozen=True)
class Finding:
    """A unit that is not where it should be.

    Attributes
    ----------
    population : str
    unit, step : int
    time : float
        End of the step, in ms.
    state : str
        Which state, or "event" where one side only has an event.
    found, expected : float
        Brian2's value and the predicted one; for events the state and the threshold.
    """

    population: str
    unit: int
    step: int
    time: float
    state: str
    found: float
    expected: float

    @property
    def difference(self) -> float:
        """Brian2's value minus the predicted one."""
        return self.found - self.expected

    def __str__(self) -> str:
        where = f"'{self.population}', unit {self.unit}, at {self.time:.6g} ms"
        if self.state == "event":
            side = "no event, though" if self.found >= self.expected else "an event, though"
            is_at = f"its state is {self.found:.12g} and its threshold {self.expected:.12g}"
            return f"{where}: Brian2 has {side} {is_at}"
        return f"{where}: {self.state} is {self.found:.12g}, expected {self.expected:.12g}"


@dataclass(frozen=True, eq=False)
class Prediction:
    """What became of predicting Brian2's steps.

    Attributes
    ----------
    dt, duration : float
        Brian2's step, and how much of the run was predicted, in ms.
    n_predicted : int
        Steps of units.
    residual : dict of float
        Largest |residual| by population, divided by the largest |state| of that name, or 1 if that is less.
    n_events : int
        Events of Brian2 in them.
    n_wrong_events : int
        Steps of units in which one side only has an event.
    findings : list of Finding
        The first of each unit beyond the tolerance, in order of time, the most distant first.
    tolerance : float
    """

    dt: float
    duration: float
    n_predicted: int
    residual: dict[str, float]
    n_events: int
    n_wrong_events: int
    findings: list[Finding] = field(repr=False)
    tolerance: float

    @property
    def largest(self) -> float:
        """The largest residual of all populations."""
        return max(self.residual.values(), default=0.0)

    @property
    def ok(self) -> bool:
        """Whether every unit was where it should be."""
        return not self.findings and self.largest <= self.tolerance

    @property
    def first(self) -> Finding | None:
        """The earliest finding; of several in one step the one that is furthest off."""
        return self.findings[0] if self.findings else None


class Watched:
    """All states of Brian2's units in each step of a run, recorded beside what a twin records anyway.

    Parameters
    ----------
    brian2 : module
    twin
        What `to_brian2_continuous` makes.
    network : Network
    """

    def __init__(self, brian2: Any, twin: Any, network: Network):
        self.twin, self.monitors = twin, {}
        for name, population in network.populations.items():
            states = STATES.get(population.kernel)
            if states:
                options = {"clock": twin.clock, "name": f"evsim_{name}_all*"}
                monitor = brian2.StateMonitor(twin.groups[name], states, record=True, **options)
                twin.net.add(monitor)
                self.monitors[name] = monitor
        twin.net.store("fresh")

    def states(self) -> dict[str, dict[str, NDArray[np.float64]]]:
        """By population and name, shape (n_steps + 1, n_units): at the start of each step, and at the end."""
        found: dict[str, dict[str, NDArray[np.float64]]] = {}
        for name, monitor in self.monitors.items():
            found[name] = {}
            for state in monitor.record_variables:
                last = np.asarray(getattr(self.twin.groups[name], f"{state}_"))[None]
                found[name][state] = np.concatenate([np.asarray(getattr(monitor, f"{state}_")).T, last])
        return found


def predict(
    network: Network,
    states: Mapping[str, Mapping[str, NDArray[np.float64]]],
    events: Mapping[str, TimedEvents],
    stimulus: Mapping[str, TimedEvents],
    dt: float,
    *,
    initial: Mapping[str, Mapping[str, Any]] | None = None,
    together: bool = True,
    tolerance: float = 1e-9,
) -> Prediction:
    """Predict each step of a Brian2 run from its states; see the head of this file.

    Parameters
    ----------
    network : Network
        In continuous time, in float64: what Brian2 should have computed.
    states : dict of dict of ndarray, shape (n_steps + 1, n_units)
        Brian2's, by population and name: at the start of each step, and at the end of the last.
    events : dict of TimedEvents
        Brian2's, of all populations that send on their own.  Those of step k are at (k + 1) dt.
    stimulus : dict of TimedEvents
        By source.
    dt : float
        Brian2's step in ms.
    initial : dict, optional
        As of `to_brian2_continuous`; of these only ``hold`` of LIF is read.
    together : bool
        Where arrivals are gated by the r of the target: whether those of one projection in one step all see
        the r before them, as with Brian2's target "numpy", or each what the one before has left.
    tolerance : float
        Residuals beyond it, relative to the largest |state| of that name or 1, become findings.
    """
    n_steps = min((len(x) - 1 for one in states.values() for x in one.values()), default=0)
    sent: dict[str, Sent] = {}
    flows: dict[str, dict[str, NDArray[np.float64]]] = {}
    fired: dict[str, NDArray[np.bool_]] = {}
    for name, population in network.populations.items():
        if isinstance(population, EventSource):
            first = np.maximum(np.ceil(stimulus[name].time / dt - 1e-9).astype(np.int64) - 1, 0)
            sent[name] = Sent(first, stimulus[name].unit.astype(np.int64), stimulus[name].value, {})
            continue
        own = {state: x[:n_steps] for state, x in states[name].items()}
        fired[name] = np.zeros((n_steps, population.n_units), bool)
        if population.emits:
            when = np.rint(events[name].time / dt).astype(np.int64) - 1
            inside = when < n_steps
            fired[name][when[inside], events[name].unit[inside]] = True
        held = _held(population, fired[name], dt, (initial or {}).get(name, {}))
        flows[name] = _flow(network, population, own, held, dt)
        if population.emits:
            sent[name] = _sent(population, fired[name], flows[name])
    residuals: dict[str, float] = {}
    findings: list[tuple[Finding, float]] = []
    wrong = 0
    for name, population in network.populations.items():
        if isinstance(population, EventSource):
            continue
        expected = _arrivals(network, population, flows[name], sent, n_steps, dt, together)
        odd = _decisions(population, flows[name], fired[name])
        wrong += int(odd.sum())
        findings += list(_events_that_differ(population, flows[name], odd, dt))
        _reset(population, expected, flows[name], fired[name])
        residuals[name] = 0.0
        for state, there in expected.items():
            here = states[name][state][1 : n_steps + 1]
            scale = max(1.0, float(np.abs(here).max(initial=0.0)))
            distance = np.where(odd, 0.0, np.abs(here - there) / scale)
            residuals[name] = max(residuals[name], float(distance.max(initial=0.0)))
            far = ~(distance <= tolerance)  # NaN is far
            for unit in np.flatnonzero(far.any(axis=0)).tolist():
                step = int(far[:, unit].argmax())
                values = float(here[step, unit]), float(there[step, unit])
                found = Finding(name, unit, step, (step + 1) * dt, state, *values)
                findings.append((found, float(distance[step, unit])))
    findings.sort(key=lambda one: (one[0].step, -one[1]))
    own_units = [p.n_units for p in network.populations.values() if p.name in fired]
    return Prediction(
        dt=dt,
        duration=n_steps * dt,
        n_predicted=n_steps * sum(own_units),
        residual=residuals,
        n_events=sum(int(one.sum()) for one in fired.values()),
        n_wrong_events=wrong,
        findings=[found for found, _ in findings],
        tolerance=tolerance,
    )


@dataclass(frozen=True)
class Sent:
    """Events of one population, and the gates r of those units at that time, where they have some."""

    step: NDArray[np.int64]
    unit: NDArray[np.int64]
    value: NDArray[np.float64]
    gate: dict[str, NDArray[np.float64]]


# -- one step of one population ----------------------------------------------------------------------------


def _held(
    population: Population, fired: NDArray[np.bool_], dt: float, initial: Mapping[str, Any]
) -> NDArray[np.bool_]:
    """Whether V is held at the reset in each step."""
    held = np.zeros(fired.shape, bool)
    if isinstance(population, LIF):
        for later in range(1, round(population.refractory / dt) + 1):
            held[later:] |= fired[:-later]
        hold = np.broadcast_to(np.asarray(initial.get("hold", 0.0), float), (1, population.n_units))[0]
        held |= np.arange(len(held))[:, None] < np.rint(hold / dt)
    return held


def _flow(
    network: Network,
    population: Population,
    states: Mapping[str, NDArray[np.float64]],
    held: NDArray[np.bool_],
    dt: float,
) -> dict[str, NDArray[np.float64]]:
    """States after dt, by evsim's engine, a lane for each step; nothing arrives, no threshold is in reach."""
    from evsim.continuous_simulation import ContinuousSimulation

    alone = network.copy()
    alone.projections.clear()
    alone.populations = {population.name: alone[population.name]}
    own = alone[population.name]
    if population.emits:
        highest = own.parameters["threshold"].upper
        own.parameters["threshold"].assign(highest if np.isfinite(highest) else 1e9)
    simulation = ContinuousSimulation(alone)
    names = own.states
    n_steps = len(held)
    found: dict[str, list[NDArray[np.float64]]] = {state: [] for state in states}
    for begin in range(0, n_steps, max(1, BATCH // (len(names) * own.n_units))):
        part = slice(begin, begin + max(1, BATCH // (len(names) * own.n_units)))
        given = {state: x[part] for state, x in states.items()}
        if isinstance(own, LIF):
            given["hold"] = np.where(held[part], 2 * dt, 0.0)
        if isinstance(own, DeltaLSTM):
            given["h"] = _lstm_output(own, given)
        lanes = len(held[part])
        log = simulation.run({}, dt, initial={own.name: given}, n_lanes=lanes)
        assert log.tape is not None
        final = log.tape.final[0][:, :, : own.n_units]
        for state in states:
            found[state].append(final[:, names.index(state)])
    return {state: np.concatenate(parts) if parts else np.zeros(held.shape) for state, parts in found.items()}


def _logistic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-x))


def _lstm_output(population: Population, states: Mapping[str, NDArray]) -> NDArray[np.float64]:
    bias = population.parameters["bias"].values[3 * population.n_units :]
    return _logistic(states["m_o"] + bias) * np.tanh(states["c"])


def _level(population: Population, flow: Mapping[str, NDArray]) -> NDArray[np.float64]:
    """What is held against the threshold."""
    if isinstance(population, DeltaLSTM):
        return np.abs(_lstm_output(population, flow) - flow["sent"])
    if isinstance(population, DeltaGRU):
        return np.abs(flow["h"] - flow["sent"])
    return flow["v"] if isinstance(population, LIF) else flow["c"]


def _sent(population: Population, fired: NDArray[np.bool_], flow: Mapping[str, NDArray]) -> Sent:
    step, unit = np.nonzero(fired)
    gate = {}
    if isinstance(population, EGRU):
        theta = population.parameters["threshold"].values
        value = theta[unit] if population.transmit == "value" else np.ones(len(unit))
        gate = {"r": _logistic(flow["a_r"][step, unit])}
    elif isinstance(population, LIF):
        value = np.ones(len(unit))
    else:
        h = _lstm_output(population, flow) if isinstance(population, DeltaLSTM) else flow["h"]
        value = (h - flow["sent"])[step, unit]
    return Sent(step, unit, value.astype(np.float64), gate)


def _decisions(
    population: Population, flow: Mapping[str, NDArray], fired: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Where Brian2 has an event and should not, or the other way round."""
    if not population.emits:
        return np.zeros(fired.shape, bool)
    theta, level = population.parameters["threshold"].values, _level(population, flow)
    clear = np.abs(level - theta) > NEAR * np.maximum(1.0, np.abs(theta))
    return clear & ((level >= theta) != fired)


def _events_that_differ(
    population: Population, flow: Mapping[str, NDArray], odd: NDArray[np.bool_], dt: float
) -> Iterator[tuple[Finding, float]]:
    if not odd.any():
        return
    theta, level = population.parameters["threshold"].values, _level(population, flow)
    for unit in np.flatnonzero(odd.any(axis=0)).tolist():
        step = int(odd[:, unit].argmax())
        values = float(level[step, unit]), float(theta[unit])
        found = Finding(population.name, unit, step, (step + 1) * dt, "event", *values)
        yield found, abs(values[0] - values[1])


def _reset(
    population: Population,
    expected: dict[str, NDArray[np.float64]],
    flow: Mapping[str, NDArray[np.float64]],
    fired: NDArray[np.bool_],
) -> None:
    if isinstance(population, LIF):
        expected["v"][fired] = population.reset
    elif isinstance(population, EGRU):
        expected["c"][fired] = 0.0
    elif isinstance(population, (DeltaGRU, DeltaLSTM)):
        h = _lstm_output(population, flow) if isinstance(population, DeltaLSTM) else flow["h"]
        expected["sent"][fired] = (flow["sent"] + (h - flow["sent"]))[fired]


# -- what arrives ------------------------------------------------------------------------------------------


def _arrivals(
    network: Network,
    population: Population,
    flow: Mapping[str, NDArray[np.float64]],
    sent: Mapping[str, Sent],
    n_steps: int,
    dt: float,
    together: bool,
) -> dict[str, NDArray[np.float64]]:
    """States after the flow and all that arrives at the end of the step."""
    after = {state: x.copy() for state, x in flow.items()}
    incoming = [q for q in network.projections.values() if q.target is population]
    # Brian2 takes the arrivals of one step in this order
    incoming.sort(key=lambda q: (q.source.name, q.name))
    if isinstance(population, EGRU) and population.gate == "post":
        _by_target_gate(incoming, after, sent, n_steps, dt, together)
        return after
    for projection in incoming:
        own = sent[projection.source.name]
        gated = isinstance(population, EGRU) and projection.port == "recurrent" and population.gate == "pre"
        for delay, weights in _by_delay(projection, dt):
            inside = own.step + delay < n_steps
            step, unit = own.step[inside] + delay, own.unit[inside]
            for block, weight in weights.items():
                value = own.value[inside]
                if gated and block == "z":
                    value = value * own.gate["r"][inside]
                shape = n_steps, projection.source.n_units
                arriving = scipy.sparse.csr_array((value, (step, unit)), shape=shape) @ weight
                total = arriving.tocoo()
                np.add.at(after[_state(population, block)], (total.row, total.col), total.data)
    return after


def _by_target_gate(
    incoming: list[Projection],
    after: dict[str, NDArray[np.float64]],
    sent: Mapping[str, Sent],
    n_steps: int,
    dt: float,
    together: bool,
) -> None:
    """The same where the target's gate r counts, which arrivals change for those after them."""
    queue = []
    for number, projection in enumerate(incoming):
        own = sent[projection.source.name]
        for delay, weights in _by_delay(projection, dt):
            dense = {block: weight.toarray() for block, weight in weights.items()}
            for step, unit, value in zip(own.step + delay, own.unit, own.value, strict=True):
                if step < n_steps:
                    row = {block: weight[unit] * value for block, weight in dense.items()}
                    queue.append((int(step), number, int(unit), row))
    before, rho = (-1, -1), np.zeros(0)
    for step, number, _, row in sorted(queue, key=lambda one: one[:3]):
        if not together or (step, number) != before:
            before, rho = (step, number), _logistic(after["a_r"][step])
        recurrent = incoming[number].port == "recurrent"
        after["a_z"][step] += row["z"] * (rho if recurrent else 1.0)
        after["a_u"][step] += row["u"]
        after["a_r"][step] += row["r"]


def _state(population: Population, block: str) -> str:
    """The state to which the weights of a block are added."""
    names = STATES[population.kernel]
    if population.kernel == "delta_readout":
        return "m"
    return next(name for name in (block, f"a_{block}", f"m_{block}") if name in names)


def _by_delay(projection: Projection, dt: float) -> Iterator[tuple[int, dict[str, scipy.sparse.csr_array]]]:
    """The weights of each block, by delay in steps: pairs with that delay, shape (n_source, n_target)."""
    source, target = projection.source.n_units, projection.target.n_units
    if projection.delay is None:
        raise NetworkError(f"projection '{projection.name}'", "is in steps", "predict continuous time only")
    pairs = projection.pairs()
    row = np.repeat(np.arange(source), np.diff(pairs.ptr))
    stored = np.append(projection.weight.values.ravel(), 0.0)  # [-1]: no weight
    delay = np.broadcast_to(projection.delay.values.ravel(), (len(row),))
    steps = np.rint(delay / dt).astype(np.int64)
    for delay_steps in np.unique(steps):
        mine = steps == delay_steps
        yield (
            int(delay_steps),
            {
                block: scipy.sparse.csr_array(
                    (stored[where[mine]], (row[mine], pairs.target[mine])), shape=(source, target)
                )
                for block, where in zip(projection.target.ports[projection.port], pairs.where.T, strict=True)
            },
        )
