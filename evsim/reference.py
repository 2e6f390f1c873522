"""The semantics of evsim in plain NumPy: dense, float64, step by step, forwards and backwards.

This file is the oracle of the tests and shares nothing with the code that it judges: no plan, no event lists,
no core.  Nothing is skipped because it is zero; everything is an array of shape (lane, unit).  The equations
are those of Subramoney et al., ICLR 2023 (arXiv 2206.06178), in the two forms written above `EGRU`;
`backpropagate` is their reverse-mode derivative, with a pseudo-derivative for H'.  Each ``_*_vjp`` stands
below the step that it differentiates; ``dX`` is the gradient of the loss with respect to ``X``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evsim.errors import GradientError, StimulusError
from evsim.events import Events
from evsim.models import EGRU, EventSource, LeakyReadout
from evsim.network import Network
from evsim.population import Population
from evsim.projection import Projection

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
        ``"y"`` (history, n_lanes, n_units), last row the step before the first; ``"c"`` or ``"v"``
        (n_lanes, n_units).
    traces : dict of dict of ndarray
        By population: sources ``y``; EGRU ``a`` (before the reset), ``o``, ``y``, ``c`` (after it) and gates:
        z, r, g, q = y' Rg + bRg (EvNN's form) or u, r, z (the paper's); readouts ``v``.
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

    @property
    def alive(self) -> NDArray[np.bool_]:
        """Whether a lane still runs, shape (n_steps, n_lanes, 1)."""
        return (np.arange(self.n_steps)[:, None] < self.lengths)[:, :, None]


def order(network: Network) -> list[Population]:
    """Populations in the order of a step: senders of delay-free projections before targets, ties by name."""
    instant = [p for p in network.projections.values() if p.delay_steps == 0]
    waiting, done = sorted(network.populations.values(), key=lambda population: population.name), []
    while waiting:
        ready = next(p for p in waiting if not any(i.target is p and i.source in waiting for i in instant))
        waiting.remove(ready)
        done.append(ready)
    return done


def history(network: Network, population: Population) -> int:
    """Steps for which what a population sent must be remembered: its largest delay, at least 1."""
    return max([1] + [p.delay_steps for p in network.projections.values() if p.source is population])


# -- forwards ----------------------------------------------------------------------------------------------


def simulate(
    network: Network,
    stimulus: Mapping[str, Events],
    n_steps: int,
    n_lanes: int,
    initial: Mapping[str, Mapping[str, ArrayLike]] | None = None,
    lengths: ArrayLike | None = None,
) -> Run:
    """Run a network.

    Parameters
    ----------
    stimulus : dict of Events
        By source, each of n_steps and n_lanes; sources that are not named stay silent.
    initial : dict of dict of array, optional
        As `Run.initial`; whatever is not given is zero.
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
    for name, events in stimulus.items():
        if name not in inputs or inputs[name].shape != (events.n_steps, events.n_lanes, events.n_units):
            raise StimulusError(f"stimulus '{name}'", f"{events!r} does not fit", f"sources are {sources}")
        inputs[name] = events.to_dense().astype(np.float64)
    weights = {name: p.to_dense().astype(np.float64) for name, p in network.projections.items()}
    given = {p.name: (initial or {}).get(p.name, {}) for p in populations}
    start = {p.name: _initial(p, history(network, p), n_lanes, given[p.name]) for p in populations}
    traces = {p.name: {k: np.zeros((n_steps, n_lanes, p.n_units)) for k in _fields(p)} for p in populations}
    run = Run(network, n_steps, n_lanes, stop, start, traces, dict.fromkeys(weights, 0), weights)
    for t in range(n_steps):
        for population in populations:
            for key, new in _step(run, population, inputs, t).items():
                held = run.before(population.name, key, t) if key in population.states else 0.0
                run[population.name][key][t] = np.where(run.alive[t], new, held)
    for name, projection in network.projections.items():
        run.macs[name] = _count(run, projection)
    return run


def _initial(unit: Population, depth: int, n_lanes: int, given: Mapping) -> dict[str, NDArray]:
    start = {state: np.zeros((n_lanes, unit.n_units)) for state in unit.states}
    if unit.emits:
        start |= {"y": np.zeros((depth, n_lanes, unit.n_units))}
    return {k: np.array(given.get(k, zero), np.float64).reshape(zero.shape) for k, zero in start.items()}


def _fields(population: Population) -> str:
    """Names of the recorded arrays, one letter each."""
    if isinstance(population, EGRU):
        return "zrgqaoyc" if population.form == "evnn" else "urzaoyc"
    return "y" if isinstance(population, EventSource) else "v"


def _step(run: Run, population: Population, inputs: Mapping[str, NDArray], t: int) -> dict[str, NDArray]:
    if isinstance(population, EventSource):
        return {"y": inputs[population.name][t]}
    if isinstance(population, EGRU):
        return (_evnn if population.form == "evnn" else _paper)(run, population, t)
    if isinstance(population, LeakyReadout):
        return _readout(run, population, t)
    raise TypeError(f"no reference for {population!r}")


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


def _values(population: Population, parameter: str) -> NDArray:
    return population.parameters[parameter].values.astype(np.float64)


def _logistic(x: NDArray) -> NDArray:
    return 0.5 * (1.0 + np.tanh(0.5 * x))  # does not overflow


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
        Partial derivatives of the loss: ``"hidden"`` by the state (EGRU c, readout v), ``"hidden.y"`` by what
        was sent, ``"hidden.o"`` by whether it was sent.  Steps after the end of a lane do not count.
    pseudo_derivative : {"triangle", "rectangle", "fast_sigmoid"}
    gamma, eps : float
        Its height, and the inverse of its half width.

    Returns
    -------
    dict
        A gradient by the name of each parameter (of the stored values, if CSR); ``"inputs"``: by source,
        shape (n_steps, n_lanes, n_units); ``"initial"``: like `Run.initial`; ``"backward_active"``: by EGRU
        population the units of B_t, bool, shape (n_steps, n_lanes, n_units): those that sent something or
        whose H' is not zero.

    Raises
    ------
    GradientError
        A loss on something the network does not have, or of another shape.
    """
    back = _Backward(run, losses, lambda v: PSEUDO_DERIVATIVES[pseudo_derivative](v, gamma, eps))
    populations = order(run.network)
    for t in reversed(range(run.n_steps)):
        for population in reversed(populations):
            if isinstance(population, EGRU):
                (_evnn_vjp if population.form == "evnn" else _paper_vjp)(back, population, t)
            elif isinstance(population, LeakyReadout):
                _readout_vjp(back, population, t)
    return back.result()


class _Backward:
    """What flows backwards: ``dsent`` (first rows: before the run), ``dstate`` (after the present step)."""

    def __init__(self, run: Run, losses: Mapping[str, ArrayLike], slope: Callable[[NDArray], NDArray]):
        self.run, self.slope = run, slope
        populations, lanes = run.network.populations, run.n_lanes
        self.losses: dict[str, NDArray] = {}
        for p in populations.values():
            keys = [p.name] if p.states else []
            for key in keys + ([f"{p.name}.y", f"{p.name}.o"] if isinstance(p, EGRU) else []):
                self.losses[key] = np.zeros((run.n_steps, lanes, p.n_units))
        for key, loss in losses.items():
            if key not in self.losses or self.losses[key].shape != np.shape(loss):
                known = {known: array.shape for known, array in self.losses.items()}
                raise GradientError(f"loss '{key}'", f"shape {np.shape(loss)}", f"give some of {known}")
            self.losses[key] = np.where(run.alive, loss, 0.0)
        self.depth = {p.name: history(run.network, p) for p in populations.values() if p.emits}
        past_and_run = {name: (d + run.n_steps, lanes) for name, d in self.depth.items()}
        self.dsent = {k: np.zeros((*shape, populations[k].n_units)) for k, shape in past_and_run.items()}
        self.dstate = {p.name: np.zeros((lanes, p.n_units)) for p in populations.values() if p.states}
        self.dweight = {name: np.zeros(weight.shape) for name, weight in run.weights.items()}
        own = [q for p in populations.values() for q in p.parameters.values()]
        self.dparameter = {q.name: np.zeros(q.values.shape) for q in own}
        self.active = {k: run[k]["o"] > 0 for k, p in populations.items() if isinstance(p, EGRU)}

    def send(self, name: str, t: int, dy: NDArray) -> None:
        """Add to the gradient of what a population sent in step t."""
        self.dsent[name][self.depth[name] + t] += dy

    def receive(self, population: Population, port: str, t: int, d: NDArray) -> None:
        """The vjp of `Run.drive`."""
        for p in self.run.into(population, port):
            self.dweight[p.name] += self.run.arriving(p, t).T @ d
            self.send(p.source.name, t - p.delay_steps, d @ self.run.weights[p.name].T)

    def fire(self, unit: EGRU, t: int) -> NDArray:
        """da from what follows of a: o = H(a - threshold), y = o a, and c = a - o threshold or c = a."""
        name, theta = unit.name, _values(unit, "threshold")
        a, o = self.run[name]["a"][t], self.run[name]["o"][t]
        resets = float(unit.form == "evnn")
        dc = self.dstate[name] + self.losses[name][t]
        dy = self.dsent[name][self.depth[name] + t] + self.losses[f"{name}.y"][t]
        do = self.losses[f"{name}.o"][t] + a * dy - resets * theta * dc
        slope = self.slope(a - theta)
        self.active[name][t] = ((slope > 0) | (o > 0)) & self.run.alive[t]
        self.dparameter[f"{name}.threshold"] -= (slope * do + resets * o * dc).sum(axis=0)
        return dc + o * dy + slope * do

    def result(self) -> dict:
        """Everything, by name."""
        gradients: dict = dict(self.dparameter)
        for name, p in self.run.network.projections.items():
            gradients[p.weight.name] = self.dweight[name][_stored(p)].reshape(p.weight.values.shape)
        initial: dict[str, dict[str, NDArray]] = {name: {} for name in self.run.network.populations}
        for name, dstate in self.dstate.items():
            initial[name][self.run.network[name].states[0]] = dstate
        inputs = {}
        for name, dsent in self.dsent.items():
            initial[name]["y"], during = np.split(dsent, [self.depth[name]])
            if isinstance(self.run.network[name], EventSource):
                inputs[name] = during
        return gradients | {"inputs": inputs, "initial": initial, "backward_active": self.active}


# -- unit types: one step, and its vjp ---------------------------------------------------------------------


def _evnn(run: Run, unit: EGRU, t: int) -> dict[str, NDArray]:
    theta, c = _values(unit, "threshold"), run.before(unit.name, "c", t)
    xz, xr, xg = np.split(run.drive(unit, "input", t) + _values(unit, "bias"), 3, axis=1)
    qz, qr, q = np.split(run.drive(unit, "recurrent", t) + _values(unit, "recurrent_bias"), 3, axis=1)
    z = _logistic(xz + qz)
    r = _logistic(xr + qr)
    g = np.tanh(xg + r * q)
    a = z * c + (1 - z) * g
    o = (a > theta).astype(np.float64)
    return {"z": z, "r": r, "g": g, "q": q, "a": a, "o": o, "y": o * a, "c": a - o * theta}


def _evnn_vjp(back: _Backward, unit: EGRU, t: int) -> None:
    z, r, g, q = (back.run[unit.name][k][t] for k in "zrgq")
    c = back.run.before(unit.name, "c", t)
    da = back.fire(unit, t)
    dz = z * (1 - z) * (c - g) * da  # of the arguments of s, s and tanh
    dg = (1 - g**2) * (1 - z) * da
    dr = r * (1 - r) * q * dg
    dx = np.concatenate([dz, dr, dg], axis=1)
    dq = np.concatenate([dz, dr, r * dg], axis=1)
    back.dstate[unit.name] = z * da
    back.dparameter[f"{unit.name}.bias"] += dx.sum(axis=0)
    back.dparameter[f"{unit.name}.recurrent_bias"] += dq.sum(axis=0)
    back.receive(unit, "input", t, dx)
    back.receive(unit, "recurrent", t, dq)


def _recurrent(run: Run, unit: EGRU, t: int) -> list[tuple]:
    """(projection, y', Ru, Rr, Rz) of each projection into the recurrent port."""
    ends = run.into(unit, "recurrent")
    return [(p, run.arriving(p, t), *np.split(run.weights[p.name], 3, axis=1)) for p in ends]


def _paper(run: Run, unit: EGRU, t: int) -> dict[str, NDArray]:
    theta, c = _values(unit, "threshold"), run.before(unit.name, "c", t)
    pu, pr, pz = np.split(run.drive(unit, "input", t) + _values(unit, "bias"), 3, axis=1)
    for _, y, Ru, Rr, _ in _recurrent(run, unit, t):
        pu = pu + y @ Ru
        pr = pr + y @ Rr
    u, r = _logistic(pu), _logistic(pr)
    for _, y, _, _, Rz in _recurrent(run, unit, t):
        pz = pz + (r * y) @ Rz
    z = np.tanh(pz)
    a = u * z + (1 - u) * c - run.sent(unit.name, t - 1)
    o = (a > theta).astype(np.float64)
    return {"u": u, "r": r, "z": z, "a": a, "o": o, "y": o * a, "c": a}


def _paper_vjp(back: _Backward, unit: EGRU, t: int) -> None:
    u, r, z = (back.run[unit.name][k][t] for k in "urz")
    c = back.run.before(unit.name, "c", t)
    da = back.fire(unit, t)
    du = u * (1 - u) * (z - c) * da  # of the arguments of s, s and tanh
    dz = (1 - z**2) * u * da
    dr = np.zeros_like(r)
    for _, y, _, _, Rz in _recurrent(back.run, unit, t):
        dr += r * (1 - r) * y * (dz @ Rz.T)
    for p, y, Ru, Rr, Rz in _recurrent(back.run, unit, t):
        back.dweight[p.name] += np.concatenate([y.T @ du, y.T @ dr, (r * y).T @ dz], axis=1)
        back.send(unit.name, t - p.delay_steps, du @ Ru.T + dr @ Rr.T + r * (dz @ Rz.T))
    back.send(unit.name, t - 1, -da)
    dx = np.concatenate([du, dr, dz], axis=1)
    back.dstate[unit.name] = (1 - u) * da
    back.dparameter[f"{unit.name}.bias"] += dx.sum(axis=0)
    back.receive(unit, "input", t, dx)


def _readout(run: Run, unit: LeakyReadout, t: int) -> dict[str, NDArray]:
    k = unit.decay(run.network.dt)
    drive = run.drive(unit, "input", t) + _values(unit, "bias")
    return {"v": k * run.before(unit.name, "v", t) + (1 - k) * drive}


def _readout_vjp(back: _Backward, unit: LeakyReadout, t: int) -> None:
    k = unit.decay(back.run.network.dt)
    dv = back.dstate[unit.name] + back.losses[unit.name][t]
    back.dstate[unit.name] = k * dv
    back.dparameter[f"{unit.name}.bias"] += (1 - k) * dv.sum(axis=0)
    back.receive(unit, "input", t, (1 - k) * dv)
