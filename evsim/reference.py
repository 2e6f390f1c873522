"""The semantics of evsim in plain NumPy: dense, float64, step by step, forwards and backwards.

This file is the oracle of the tests and shares nothing with the code that it judges: no plan, no event lists,
no core.  Nothing is skipped because it is zero; everything is an array of shape (lane, unit).  The equations
are those of Subramoney et al., ICLR 2023 (arXiv 2206.06178), in the two forms written above `EGRU`, those at
the head of `evsim.models.lif`, and those at the head of `evsim.models.delta`, where targets look at held
copies instead of adding up changes.
`backpropagate` is their reverse-mode derivative, with a pseudo-derivative for H', and with the choice of what
delta units send held fixed.  The steps of the unit types are in `evsim.reference_units`, each with its
vector-Jacobian product below it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evsim.errors import GradientError, StimulusError
from evsim.events import Events
from evsim.models import EGRU, EventSource
from evsim.network import Network
from evsim.population import Population
from evsim.projection import Projection
from evsim.reference_units import step, step_vjp

#: H'(v) for v = a - threshold.
PSEUDO_DERIVATIVES: dict[str, Callable[[NDArray, float, float], NDArray]] = {
    "triangle": lambda v, gamma, eps: gamma * np.maximum(0.0, 1.0 - eps * np.abs(v)),
    "rectangle": lambda v, gamma, eps: gamma * (np.abs(v) < 1.0 / eps),
    "fast_sigmoid": lambda v, gamma, eps: gamma / (1.0 + eps * np.abs(v)) ** 2,
}


@dataclass
class Run:
    """All that happened in a run; ``run["hidden"]["y"]`` has shape (n_steps, n_lanes, n_units).

    Attributes
    ----------
    network : Network
    n_steps, n_lanes : int
    lengths : ndarray of int64, shape (n_lanes,)
        Steps that each lane runs; afterwards it sends nothing and its state stays.
    initial : dict of dict of ndarray
        ``"y"`` (history, n_lanes, n_units), last row the step before the first; states by the names of
        `Population.states`, (n_lanes, n_units).
    traces : dict of dict of ndarray
        By population: what it sent, ``y``, if it sends; its states after each step; of EGRU and LIF ``a``
        (before the reset) and ``o``; gates: EGRU z, r, g, q = y' Rg + bRg (EvNN's form) or u, r, z (the
        paper's), delta units theirs, of DeltaGRU with q = M_q; readouts ``v``.
    macs : dict of int
        Multiply-accumulates by projection that an event-driven run needs.
    weights : dict of ndarray
        Dense weights by projection, copies.
    """

    network: Network
    n_steps: int
    n_lanes: int
    lengths: NDArray[np.int64]
    initial: dict[str, dict[str, NDArray]]
    traces: dict[str, dict[str, NDArray]]
    macs: dict[str, int]
    weights: dict[str, NDArray]

    def __getitem__(self, name: str) -> dict[str, NDArray]:
        return self.traces[name]

    def before(self, name: str, state: str, t: int) -> NDArray:
        """A state at the start of step t."""
        return self.traces[name][state][t - 1] if t else self.initial[name][state]

    def sent(self, name: str, t: int) -> NDArray:
        """What a population sent in step t; a negative t lies before the run."""
        return self.traces[name]["y"][t] if t >= 0 else self.initial[name]["y"][t]

    def into(self, population: Population, port: str) -> list[Projection]:
        """The projections that end in a port."""
        return [p for p in self.network.projections.values() if p.target is population and p.port == port]

    def arriving(self, projection: Projection, t: int) -> NDArray:
        """What arrives through a projection at step t, shape (n_lanes, rows)."""
        return self.sent(projection.source.name, t - projection.delay_steps)

    def drive(self, population: Population, port: str, t: int) -> NDArray:
        """The sum of y W over all projections that end in a port, shape (n_lanes, columns of the port)."""
        total = np.zeros((self.n_lanes, len(population.ports[port]) * population.n_units))
        for p in self.into(population, port):
            total += self.arriving(p, t) @ self.weights[p.name]
        return total

    def arrived(self, projection: Projection, t: int) -> NDArray:
        """The sum of all that arrived through a projection in steps 0 to t, shape (n_lanes, rows).

        Of lines that send their changes it is the held copy at the last step heard of, less that at rest.
        """
        source, last = projection.source, t - projection.delay_steps
        y = self.initial[source.name]["y"]
        total = y[len(y) - projection.delay_steps : len(y) + min(last + 1, 0)].sum(axis=0)
        if last < 0:
            return total
        if "sent" in source.states:
            return total + self[source.name]["sent"][last] - self.initial[source.name]["sent"]
        return total + self[source.name]["y"][: last + 1].sum(axis=0)

    def held(self, population: Population, port: str, t: int) -> NDArray:
        """The sum of arrived W over all projections that end in a port, shape (n_lanes, columns of it)."""
        total = np.zeros((self.n_lanes, len(population.ports[port]) * population.n_units))
        for p in self.into(population, port):
            total += self.arrived(p, t) @ self.weights[p.name]
        return total

    @property
    def alive(self) -> NDArray[np.bool_]:
        """Whether a lane still runs, shape (n_steps, n_lanes, 1)."""
        return (np.arange(self.n_steps)[:, None] < self.lengths)[:, :, None]


def order(network: Network) -> list[Population]:
    """Populations in the order of a step: senders of delay-free projections before targets, ties by name.

    What is watched comes before its encoder.
    """
    instant = [(p.source, p.target) for p in network.projections.values() if p.delay_steps == 0]
    instant += [(p.watches, p) for p in network.populations.values() if p.watches is not None]
    waiting, done = sorted(network.populations.values(), key=lambda population: population.name), []
    while waiting:
        ready = next(p for p in waiting if not any(last is p and first in waiting for first, last in instant))
        waiting.remove(ready)
        done.append(ready)
    return done


def history(network: Network, population: Population) -> int:
    """Steps for which what a population sent must be remembered: its largest delay, at least 1."""
    return max([1] + [p.delay_steps for p in network.projections.values() if p.source is population])


# -- forwards ----------------------------------------------------------------------------------------------


def simulate(
    network: Network,
    stimulus: Mapping[str, Events | ArrayLike],
    n_steps: int,
    n_lanes: int,
    initial: Mapping[str, Mapping[str, ArrayLike]] | None = None,
    lengths: ArrayLike | None = None,
) -> Run:
    """Run a network.

    Parameters
    ----------
    stimulus : dict of Events or array, shape (n_steps, n_lanes, n_units)
        By source: what it sends; of one with a threshold the values of its lines.  Of sources that are not
        named it is zero.
    initial : dict of dict of array, optional
        As `Run.initial`; whatever is not given is zero, of V of LIF units the reset.
    lengths : array of integers, shape (n_lanes,), optional
        Steps that each lane runs; by default n_steps.

    Raises
    ------
    StimulusError
        A stimulus for an unknown source, or of another window.
    """
    stop = np.full(n_lanes, n_steps, np.int64) if lengths is None else np.asarray(lengths, np.int64)
    populations = order(network)
    sources = [p for p in populations if isinstance(p, EventSource)]
    inputs = {p.name: np.zeros((n_steps, n_lanes, p.n_units)) for p in sources}
    for name, given_input in stimulus.items():
        dense = given_input.to_dense() if isinstance(given_input, Events) else given_input
        if name not in inputs or inputs[name].shape != np.shape(dense):
            problem = f"shape {np.shape(dense)} does not fit {n_steps} steps of {n_lanes} lanes"
            raise StimulusError(f"stimulus '{name}'", problem, f"sources are {sources}")
        inputs[name] = np.asarray(dense, np.float64)
    weights = {name: p.to_dense().astype(np.float64) for name, p in network.projections.items()}
    given = {p.name: (initial or {}).get(p.name, {}) for p in populations}
    start = {p.name: _initial(p, history(network, p), n_lanes, given[p.name]) for p in populations}
    traces = {p.name: {k: np.zeros((n_steps, n_lanes, p.n_units)) for k in _fields(p)} for p in populations}
    run = Run(network, n_steps, n_lanes, stop, start, traces, dict.fromkeys(weights, 0), weights)
    for t in range(n_steps):
        for population in populations:
            for key, new in step(run, population, inputs, t).items():
                held = run.before(population.name, key, t) if key in population.states else 0.0
                run[population.name][key][t] = np.where(run.alive[t], new, held)
    for name, projection in network.projections.items():
        run.macs[name] = _count(run, projection)
    return run


def _initial(unit: Population, depth: int, n_lanes: int, given: Mapping) -> dict[str, NDArray]:
    start = {state: np.full((n_lanes, unit.n_units), unit.rest.get(state, 0.0)) for state in unit.states}
    if unit.emits:
        start |= {"y": np.zeros((depth, n_lanes, unit.n_units))}
    return {k: np.array(given.get(k, zero), np.float64).reshape(zero.shape) for k, zero in start.items()}


def _fields(unit: Population) -> tuple[str, ...]:
    """Names of the recorded arrays."""
    gates = {"egru_evnn": "zrgqao", "egru_paper": "urzao", "delta_gru": "rznq", "delta_lstm": "ifgo"}
    gates |= {"lif": "ao"}
    own = (*gates.get(unit.kernel, ""), *unit.states)
    return (*own, "y") if unit.emits else own if "v" in own else (*own, "v")


def _count(run: Run, projection: Projection) -> int:
    """Stored weights that the events of a run meet.

    In the recurrent port of the paper's form r is needed only for units whose own events arrive, so an event
    meets the r block only in the columns of such units.
    """
    unit, stored = projection.target, np.zeros(projection.shape, int)
    stored[_stored(projection)] = 1
    columns = np.ones((run.n_steps, run.n_lanes, projection.shape[1]), int)
    if isinstance(unit, EGRU) and unit.form == "paper" and projection.port == "recurrent":
        needed = np.any([_arrived(run, p) for p in run.into(unit, "recurrent")], axis=0)
        columns[:, :, unit.n_units : 2 * unit.n_units] = needed
    return int(((_arrived(run, projection).astype(int) @ stored) * columns).sum())


def _arrived(run: Run, projection: Projection) -> NDArray[np.bool_]:
    """Whether an event arrived, shape (n_steps, n_lanes, rows); nothing does after the end of a lane."""
    arrived = np.zeros((run.n_steps, run.n_lanes, projection.shape[0]), bool)
    for t in range(run.n_steps):
        arrived[t] = run.arriving(projection, t) != 0
    return arrived & run.alive


def _stored(projection: Projection) -> tuple[NDArray, NDArray]:
    """Row and column of each stored weight (stored zeros too), in their order."""
    if projection.indptr is None or projection.indices is None:
        rows, columns = np.indices(projection.shape).reshape(2, -1)
        return rows, columns
    return np.repeat(np.arange(projection.shape[0]), np.diff(projection.indptr)), projection.indices


# -- backwards ---------------------------------------------------------------------------------------------


def backpropagate(
    run: Run,
    losses: Mapping[str, ArrayLike],
    pseudo_derivative: str = "triangle",
    gamma: float = 0.7,
    eps: float = 1.0,
) -> dict:
    """Gradients of a loss with respect to everything a run depends on.

    Parameters
    ----------
    losses : dict of array, shape (n_steps, n_lanes, n_units)
        Partial derivatives of the loss: ``"hidden"`` by the state (EGRU c, LIF and readout v, delta unit h),
        ``"hidden.y"`` by what was sent, ``"hidden.o"`` by whether it was sent.  Steps after the end of a lane
        do not count.
    pseudo_derivative : {"triangle", "rectangle", "fast_sigmoid"}
    gamma, eps : float
        Its height, and the inverse of its half width.

    Returns
    -------
    dict
        A gradient by the name of each parameter (of the stored values, if CSR) but thresholds of changes;
        ``"inputs"``: by source, shape (n_steps, n_lanes, n_units); ``"initial"``: like `Run.initial`;
        ``"backward_active"``: by population with thresholds the units of B_t, bool, shape (n_steps, n_lanes,
        n_units): those that sent something or whose H' is not zero.

    Raises
    ------
    GradientError
        A loss on something the network does not have, or of another shape.
    """
    back = Backward(run, losses, lambda v: PSEUDO_DERIVATIVES[pseudo_derivative](v, gamma, eps))
    populations = order(run.network)
    for t in reversed(range(run.n_steps)):
        for population in reversed(populations):
            step_vjp(back, population, t)
    return back.result()


class Backward:
    """What flows backwards.

    ``dsent[name]``: at what was sent, first rows before the run; ``dheld[name]``: at the held copies, first
    row before the run; ``dstate[name][state]``: at a state after the present step, or at the m of the start;
    ``dline[name]``: at the lines of a source.
    """

    def __init__(self, run: Run, losses: Mapping[str, ArrayLike], slope: Callable[[NDArray], NDArray]):
        self.run, self.slope = run, slope
        populations, lanes = run.network.populations, run.n_lanes
        sizes = {p.name: (lanes, p.n_units) for p in populations.values()}
        self.losses: dict[str, NDArray] = {}
        for p in populations.values():
            for kind in p.losses:
                self.losses[f"{p.name}.{kind}".rstrip(".")] = np.zeros((run.n_steps, *sizes[p.name]))
        for key, loss in losses.items():
            if key not in self.losses or self.losses[key].shape != np.shape(loss):
                known = {known: array.shape for known, array in self.losses.items()}
                raise GradientError(f"loss '{key}'", f"shape {np.shape(loss)}", f"give some of {known}")
            self.losses[key] = np.where(run.alive, loss, 0.0)
        self.depth = {p.name: history(run.network, p) for p in populations.values() if p.emits}
        self.dsent = {name: np.zeros((d + run.n_steps, *sizes[name])) for name, d in self.depth.items()}
        self.dstate = {p.name: {s: np.zeros(sizes[p.name]) for s in p.states} for p in populations.values()}
        holding = [name for name, states in self.dstate.items() if "sent" in states]
        self.dheld = {name: np.zeros((1 + run.n_steps, *sizes[name])) for name in holding}
        self.dline = {name: np.zeros((run.n_steps, *sizes[name])) for name in holding}
        self.dweight = {name: np.zeros(weight.shape) for name, weight in run.weights.items()}
        own = [q for p in populations.values() for q in p.parameters.values()]
        not_differentiated = {f"{name}.threshold" for name in holding}
        self.dparameter = {q.name: np.zeros(q.values.shape) for q in own if q.name not in not_differentiated}
        thresholded = [p.name for p in populations.values() if "threshold" in p.parameters]
        self.active = {name: run[name]["y"] != 0 for name in thresholded}

    def send(self, name: str, t: int, dy: NDArray) -> None:
        """Add to the gradient of what a population sent in step t."""
        self.dsent[name][self.depth[name] + t] += dy

    def receive(self, population: Population, port: str, t: int, d: NDArray) -> None:
        """The vjp of `Run.drive`."""
        for p in self.run.into(population, port):
            self.dweight[p.name] += self.run.arriving(p, t).T @ d
            self.send(p.source.name, t - p.delay_steps, d @ self.run.weights[p.name].T)

    def hold(self, population: Population, port: str, t: int, d: NDArray) -> None:
        """The vjp of `Run.held`."""
        for p in self.run.into(population, port):
            self.dweight[p.name] += self.run.arrived(p, t).T @ d
            darrived = d @ self.run.weights[p.name].T
            name, depth, last = p.source.name, self.depth[p.source.name], t - p.delay_steps
            self.dsent[name][depth - p.delay_steps : depth + min(last + 1, 0)] += darrived
            if last >= 0 and name in self.dheld:
                self.dheld[name][1 + last] += darrived
                self.dheld[name][0] -= darrived
            elif last >= 0:
                self.dsent[name][depth : depth + last + 1] += darrived

    def result(self) -> dict:
        """Everything, by name."""
        gradients: dict = dict(self.dparameter)
        for name, p in self.run.network.projections.items():
            gradients[p.weight.name] = self.dweight[name][_stored(p)].reshape(p.weight.values.shape)
        initial = {name: dict(states) for name, states in self.dstate.items()}
        inputs = {}
        for name, dsent in self.dsent.items():
            initial[name]["y"], during = np.split(dsent, [self.depth[name]])
            if name in self.dheld:
                initial[name]["sent"], during = self.dheld[name][0], self.dline[name]
            if isinstance(self.run.network[name], EventSource):
                inputs[name] = during
        return gradients | {"inputs": inputs, "initial": initial, "backward_active": self.active}
