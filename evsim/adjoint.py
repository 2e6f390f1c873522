"""Adjoint event replay: the log of a run walked backwards against its plan gives the gradient of a loss."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evsim.core.backward import Backward
from evsim.core.dense import first_beyond
from evsim.core.forward import Forward
from evsim.errors import GradientError
from evsim.eventlog import EventLog, PopulationLog
from evsim.events import Events
from evsim.plan import ACCUMULATORS, SOURCES, STATES, TAPES, Plan
from evsim.threads import usable_threads

#: dH/dv at v = a - threshold, by name, in the order of the core.
PSEUDO_DERIVATIVES = ("triangle", "rectangle", "fast_sigmoid")


@dataclass(eq=False)
class Gradients(Mapping[str, NDArray]):
    """Gradients by parameter name, and what it took to get them.

    Attributes
    ----------
    parameters : dict of str to ndarray
        In the shapes of `Network.parameters`.
    inputs : dict of str to ndarray, shape (n_steps, n_lanes, n_units)
        Gradient at each source's input, dense; filled by ``replay(..., inputs=True)``.
    initial : dict of str to dict of str to ndarray
        Gradient at the states before the window, shape (n_lanes, n_units), and for populations with delayed
        projections at the events in flight, ``"y"``, shape (history, n_lanes, n_units), the step just before
        the window last; filled by ``replay(..., initial=True)``.
    counters : dict
        ``backward_active`` and ``beta`` per population; ``macs_state`` (dL/dy), ``macs_weight`` and
        ``macs_recompute`` (reset gates of the paper's form that the run did not need) per projection.
    """

    parameters: dict[str, NDArray]
    inputs: dict[str, NDArray] = field(default_factory=dict)
    initial: dict[str, dict[str, NDArray]] = field(default_factory=dict)
    counters: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> NDArray:
        return self.parameters[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.parameters)

    def __len__(self) -> int:
        return len(self.parameters)


class Adjoint:
    """Replays logs of a plan backwards.

    Events are discontinuous in the state; their derivative is replaced by a pseudo-derivative of
    v = a - threshold::

        triangle       gamma max(0, 1 - eps |v|)        (EvNN: gamma = 0.7, eps = 1)
        rectangle      gamma [eps |v| < 1]
        fast_sigmoid   gamma / (1 + eps |v|)^2          (Zenke & Ganguli 2018)

    A unit is backward-active where it fired or where this is not zero; only there is dL/dy computed.  A
    triangle or rectangle with a large ``eps`` keeps the backward pass sparse, the fast sigmoid makes it
    dense.

    Delta units need none of this: their gradient is exact with the choice of what was sent held fixed, and
    they are backward-active where they sent.

    Parameters
    ----------
    plan : Plan
    pseudo_derivative : {"triangle", "rectangle", "fast_sigmoid"}
    gamma : float
        Height; 0 differentiates the network with its events held fixed.
    eps : float
        Inverse half-width.
    threads : int, optional
        As of a `Simulation`.  Results do not depend on it.
    """

    def __init__(
        self,
        plan: Plan,
        pseudo_derivative: str = "triangle",
        gamma: float = 0.7,
        eps: float = 1.0,
        threads: int | None = None,
    ):
        if pseudo_derivative not in PSEUDO_DERIVATIVES:
            raise GradientError(
                "adjoint",
                f"unknown pseudo-derivative {pseudo_derivative!r}",
                f"use one of {PSEUDO_DERIVATIVES}",
            )
        if not (np.isfinite(gamma) and gamma >= 0 and np.isfinite(eps) and eps > 0):
            raise GradientError("adjoint", f"gamma = {gamma}, eps = {eps}", "give gamma >= 0 and eps > 0")
        if plan.network.fixed_point is not None:
            raise GradientError(
                "adjoint",
                f"the network is in {plan.network.fixed_point!r}, which has no gradient",
                "train the network it was made from, and quantize that",
            )
        self.plan = plan
        self.pseudo_derivative, self.gamma, self.eps = pseudo_derivative, float(gamma), float(eps)
        self.threads = usable_threads(threads)
        self._teams = plan.heavy and threads is not None

    def replay(
        self, log: EventLog, losses: Mapping[str, ArrayLike], *, inputs: bool = False, initial: bool = False
    ) -> Gradients:
        """Gradient of a loss whose derivatives at the populations are given.

        Parameters
        ----------
        log : EventLog
            Of a run of this plan, with the parameters as they are now.  A log without tape is run again
            from its events first, and must send the same ones.
        losses : mapping of str to array, shape (n_steps, n_lanes, n_units)
            ``"answer"``: at the state of a population after each step (readout: v; delta units: h; EGRU: c
            after reset);
            ``"hidden.y"``: at its event values (of delta units also one number per event of the log, shape
            (n_events,)); ``"hidden.o"``: at its events as 0 or 1.
        inputs : bool
            Also give the gradient at the sources' inputs (dense products, but at the events only for a source
            that sends changes, where it is the gradient at the stimulus).
        initial : bool
            Also give the gradient at the states and events in flight before the window (dense products).

        Raises
        ------
        GradientError
            Unknown names, wrong shapes, values that are not finite, a log of another plan.
        """
        self._check(log)
        parts = self._losses(log, losses)
        tapes = self._tapes(log)
        work = _Work(self.plan, log)
        core = Backward(
            self.plan.table,
            log.lengths,
            log.n_steps,
            0,
            PSEUDO_DERIVATIVES.index(self.pseudo_derivative),
            self.gamma,
            self.eps,
        )
        for rank, population in enumerate(self.plan.populations):
            work.give(core, rank, tapes[rank], parts.get(population.name, {}), inputs or initial)
        macs_state, macs_recompute = core.go(self.threads, self._teams and log.n_lanes < self.threads)
        gradients = Gradients(work.parameters(), counters=work.counters())
        projections = self.plan.projections
        dweights = [np.empty(p.weight.values.shape, self.plan.dtype) for p in projections]
        macs_weight = core.weights(dweights, True, self.threads)
        gradients.parameters |= {p.weight.name: d for p, d in zip(projections, dweights, strict=True)}
        names = [p.name for p in projections]
        for key, macs in (
            ("macs_state", macs_state.sum(axis=0).tolist()),
            ("macs_weight", macs_weight),
            ("macs_recompute", macs_recompute.sum(axis=0).tolist()),
        ):
            gradients.counters[key] = dict(zip(names, macs, strict=True))
        if inputs:
            gradients.inputs = {p.name: work.input_gradient(p.name, log.n_steps) for p in self.plan.sources}
        if initial:
            gradients.initial = {
                p.name: work.initial_gradient(rank, tapes) for rank, p in enumerate(self.plan.populations)
            }
        return gradients

    def _check(self, log: EventLog) -> None:
        mine = self.plan.description
        if log.network is not mine:
            for part in ("dt_ms", "dtype", "populations", "projections", "fixed_point"):
                if log.network.get(part) != mine.get(part):
                    raise GradientError(
                        "log",
                        f"its {part} are not those of the plan",
                        "replay a log on the plan that recorded it",
                    )
        plan = self.plan
        for kernel, history, population in zip(plan.kernels, plan.history, plan.populations, strict=True):
            member = log.populations.get(population.name)
            whole = member is not None and member.initial.keys() >= set(STATES[kernel])
            if population.emits and member is not None:
                carried = member.carried
                whole &= member.events is not None and carried is not None and carried.n_steps == history
            if not whole:
                raise GradientError(
                    f"log of '{population.name}'",
                    "it lacks events, those before the window, or initial states",
                    "replay a log that Simulation.run made",
                )

    def _losses(self, log: EventLog, losses: Mapping[str, ArrayLike]) -> dict[str, dict[str, NDArray]]:
        """Loss gradients by population and kind (state, y, o)."""
        parts: dict[str, dict[str, NDArray]] = {}
        for key, given in losses.items():
            name, _, kind = key.partition(".")
            if name not in self.plan.rank or kind not in ("", "y", "o"):
                raise GradientError(
                    f"loss '{key}'",
                    "no such place",
                    f"use a name among {list(self.plan.rank)}, or name.y, name.o of those that send",
                )
            population = self.plan.network[name]
            if kind not in population.losses:
                raise GradientError(
                    f"loss '{key}'",
                    f"{population!r} has none",
                    "readouts have a state, delta units a state and .y, EGRU a state, .y and .o",
                )
            try:
                array = np.ascontiguousarray(given, self.plan.dtype)
            except (TypeError, ValueError):
                raise GradientError(
                    f"loss '{key}'", f"{type(given).__name__} is not an array of numbers", "give floats"
                ) from None
            shape = (log.n_steps, log.n_lanes, population.n_units)
            sent = log[name].events if kind == "y" and population.sends == "changes" else None
            if array.shape != shape and (sent is None or array.shape != (len(sent),)):
                per_event = "" if sent is None else f", or {(len(sent),)}: one for each event"
                raise GradientError(
                    f"loss '{key}'",
                    f"gradient has shape {array.shape}",
                    f"give {shape}: steps, lanes, units{per_event}",
                )
            wrong = first_beyond(array)
            if wrong >= 0:
                where = tuple(int(i) for i in np.unravel_index(wrong, array.shape))
                raise GradientError(
                    f"loss '{key}'", f"gradient is {array[where]} at {where}", "give finite values"
                )
            if sent is not None and array.shape == shape:
                array = array.reshape(-1, population.n_units)[sent.bucket, sent.unit]
            parts.setdefault(name, {})[kind or "state"] = array
        if not parts:
            raise GradientError("losses", "none given", "give at least one, such as {'answer': dloss}")
        return parts

    def _tapes(self, log: EventLog) -> list[NDArray | None]:
        """The tape of every population: the log's, or made again from its events."""
        members = [log[p.name] for p in self.plan.populations]
        whole = all(
            not TAPES[kernel] or (member.tape is not None and member.tape_fields == TAPES[kernel])
            for member, kernel in zip(members, self.plan.kernels, strict=True)
        )
        return [m.tape for m in members] if whole else self._run_again(log, members)

    def _run_again(self, log: EventLog, members: list[PopulationLog]) -> list[NDArray | None]:
        core = Forward(self.plan.table, log.lengths, log.n_steps)
        bases: list[NDArray | None] = self.plan.bases()
        tapes: list[NDArray | None] = []
        for rank, member in enumerate(members):
            tape = None
            given = self.plan.kernels[rank] in SOURCES
            if member.events is not None and member.carried is not None:
                events = member.carried.then(member.events) if given else member.carried
                core.give_events(rank, member.carried.n_steps, events.ptr, events.unit, events.value, given)
            if not given:
                fields = len(TAPES[self.plan.kernels[rank]])
                if fields:
                    tape = np.zeros((log.n_steps, log.n_lanes, fields, member.n_units), self.plan.dtype)
                core.give_arrays(rank, bases[rank], stacked_states(self.plan, rank, member), tape)
            tapes.append(tape)
        core.go(self.threads, self._teams and log.n_lanes < self.threads)
        for rank, member in enumerate(members):
            if member.events is not None and self.plan.kernels[rank] not in SOURCES:
                again = Events(member.n_units, log.n_lanes, log.n_steps, *core.collect(rank))
                if not again.equal(member.events):
                    raise GradientError(
                        f"log of '{member.name}'",
                        "its events do not follow from the present parameters",
                        "replay before the parameters change",
                    )
        return tapes


def stacked_states(plan: Plan, rank: int, member: PopulationLog) -> NDArray:
    """The initial states of a population as the core holds them: shape (n_lanes, n_state)."""
    states = [member.initial[name] for name in STATES[plan.kernels[rank]]]
    return np.concatenate(states, axis=1, dtype=plan.dtype)


class _Work:
    """The arrays of one replay: filled by the core, then read out by parameter name."""

    def __init__(self, plan: Plan, log: EventLog):
        self.plan, self.log = plan, log
        n_steps, n_lanes, sizes = log.n_steps, log.n_lanes, plan.sizes
        self.lane_steps = int(log.lengths.sum())
        # Lanes that end early leave the rest of D unwritten.
        make = np.empty if self.lane_steps == n_steps * n_lanes else np.zeros
        self.D = [make((n_steps, n_lanes, n_in), plan.dtype) for n_in, _ in sizes]
        self.carry = [np.zeros((n_lanes, n_state), plan.dtype) for _, n_state in sizes]
        # What a bias adds stays in held accumulators, so its gradient is theirs before the window.
        self.dbias = [
            carry[:, :n_in] if p.takes == "changes" else np.zeros((n_lanes, n_in), plan.dtype)
            for p, carry, (n_in, _) in zip(plan.populations, self.carry, sizes, strict=True)
        ]
        self.dthreshold = [
            np.zeros((n_lanes, p.n_units), plan.dtype) if "o" in p.losses else None for p in plan.populations
        ]
        self.active = np.zeros((len(sizes), n_lanes), np.int64)
        self.dline: dict[str, NDArray] = {}
        self.events = [self._all_events(log[p.name]) for p in plan.populations]

    def give(
        self, core: Backward, rank: int, tape: NDArray | None, losses: dict[str, NDArray], sources: bool
    ) -> None:
        """Hand the arrays of one population to the core."""
        population, events = self.plan.populations[rank], self.events[rank]
        if events is not None:
            core.give_events(rank, self.plan.history[rank], events.ptr, events.unit, events.value)
        if population.kernel == "source":
            return
        if (
            population.kernel == "delta_source" and sources
        ):  # its stimulus and what it had sent get a gradient
            self.dline[population.name] = np.zeros(
                (self.log.n_steps, self.log.n_lanes, population.n_units), self.plan.dtype
            )
            core.give_line(rank, self.dline[population.name])
        core.give_arrays(
            rank,
            tape,
            stacked_states(self.plan, rank, self.log[population.name]),
            losses.get("state"),
            losses.get("y"),
            losses.get("o"),
            self.D[rank],
            self.carry[rank],
            None if population.takes == "changes" else self.dbias[rank],
            self.dthreshold[rank],
            self.active[rank],
        )
        if population.kernel == "egru_paper" and events is not None:
            core.give_senders(rank, *self._senders(rank, events))
            for index, projection in enumerate(self.plan.projections):
                if projection.target is population and projection.port == "recurrent":
                    core.give_products(index, np.zeros(max(len(events), 1), self.plan.dtype))

    def parameters(self) -> dict[str, NDArray]:
        """Gradients of biases and thresholds: sums over lanes, in order of lane."""
        found = {}
        for rank, population in enumerate(self.plan.populations):
            if "bias" not in population.parameters:
                continue
            total, n = self.dbias[rank].sum(axis=0), population.n_units
            found[f"{population.name}.bias"] = total[: population.parameters["bias"].values.size]
            if "recurrent_bias" in population.parameters:
                found[f"{population.name}.recurrent_bias"] = np.concatenate([total[: 2 * n], total[3 * n :]])
            by_lane = self.dthreshold[rank]
            if by_lane is not None:
                found[f"{population.name}.threshold"] = by_lane.sum(axis=0)
        return found

    def counters(self) -> dict[str, Any]:
        """Backward-active units and their share of all, per population with thresholds.

        Those of delta units are the ones that sent an event, for a source only if ``inputs`` or ``initial``
        gradients were asked for.
        """
        active, beta = {}, {}
        lane_steps = max(self.lane_steps, 1)
        for p, count in zip(self.plan.populations, self.active.sum(axis=1).tolist(), strict=True):
            if "threshold" in p.parameters:
                active[p.name], beta[p.name] = count, count / (lane_steps * p.n_units)
        return {"backward_active": active, "beta": beta}

    def input_gradient(self, name: str, n_steps: int) -> NDArray:
        """dL/dx of a source, dense: D times the transposed weights of each of its projections."""
        if name in self.dline:
            return self.dline[name]
        population = self.plan.network[name]
        gradient = np.zeros((n_steps, self.log.n_lanes, population.n_units), self.plan.dtype)
        for index, projection in enumerate(self.plan.projections):
            if projection.source is population:
                delay = projection.delay_steps
                gradient[: max(n_steps - delay, 0)] += self._transposed(index, slice(delay, None))
        return gradient

    def initial_gradient(self, rank: int, tapes: list[NDArray | None]) -> dict[str, NDArray]:
        """dL/d(states before the window), and dL/dy of the events before it."""
        population, history = self.plan.populations[rank], self.plan.history[rank]
        n, names = population.n_units, STATES[self.plan.kernels[rank]]
        found = {name: self.carry[rank][:, i * n : (i + 1) * n].copy() for i, name in enumerate(names)}
        if not population.emits:
            return found
        dy = np.zeros((max(history, "y" in found), self.log.n_lanes, n), self.plan.dtype)
        if "y" in found and self.log.n_steps:
            dy[-1] -= found["y"]  # carry holds dL/da of the first step, which the last output was taken from
        for index, projection in enumerate(self.plan.projections):
            if projection.source is population:
                for ago in range(1, projection.delay_steps + 1):
                    arrival = projection.delay_steps - ago
                    if arrival < self.log.n_steps:
                        dy[-ago] += self._transposed(index, slice(arrival, arrival + 1), tapes)[0]
        return found | {"y": dy}

    def _transposed(self, index: int, steps: slice, tapes: list[NDArray | None] | None = None) -> NDArray:
        """D of a projection's target at some steps times the projection's weights, transposed."""
        projection = self.plan.projections[index]
        target, n = projection.target, projection.target.n_units
        places = ACCUMULATORS[target.kernel][projection.port]
        D = self.D[self.plan.rank[target.name]][steps]
        blocks = [D[..., place * n : (place + 1) * n] for place in places]
        weight = projection.to_scipy() if projection.is_sparse else projection.weight.values
        if target.kernel == "egru_paper" and projection.port == "recurrent":
            gate = self._reset_gate(target.name, steps, tapes)
            by_block = [_product(block, weight[:, k * n : (k + 1) * n]) for k, block in enumerate(blocks)]
            return by_block[0] + by_block[1] + gate * by_block[2]
        return _product(np.concatenate(blocks, axis=-1), weight)

    def _reset_gate(self, name: str, steps: slice, tapes: list[NDArray | None] | None) -> NDArray:
        """r of all units of a population in the paper's form, from the tape's input part and the events."""
        rank = self.plan.rank[name]
        events, tape = self.events[rank], tapes[rank] if tapes is not None else None
        assert events is not None
        assert tape is not None
        total = tape[steps, :, 3].copy()
        n, history = total.shape[-1], self.plan.history[rank]
        for projection in self.plan.projections:
            if projection.target.name == name and projection.port == "recurrent":
                weight = projection.to_scipy() if projection.is_sparse else projection.weight.values
                first = history + (steps.start or 0) - projection.delay_steps
                arriving = events.window(first, first + len(total)).to_dense()
                total += _product(arriving, weight[:, n : 2 * n].T)
        return 0.5 + 0.5 * np.tanh(0.5 * total)  # the logistic function, without overflow

    def _all_events(self, member: PopulationLog) -> Events | None:
        if member.events is None or member.carried is None:
            return None
        return member.carried.then(member.events)

    def _senders(self, rank: int, events: Events) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Units whose events arrive at each (step, lane) of the window through any recurrent projection."""
        population, lanes, history = self.plan.populations[rank], self.log.n_lanes, self.plan.history[rank]
        cells = self.log.n_steps * lanes
        keys = [np.zeros(0, np.int64)]
        for projection in self.plan.projections:
            if projection.target is population and projection.port == "recurrent":
                arrival = events.bucket + (projection.delay_steps - history) * lanes
                inside = (arrival >= 0) & (arrival < cells)
                keys.append(arrival[inside] * population.n_units + events.unit[inside])
        key = np.unique(np.concatenate(keys)) if len(keys) > 2 else keys[-1]
        ptr = np.zeros(cells + 1, np.int64)
        np.cumsum(np.bincount(key // population.n_units, minlength=cells), out=ptr[1:])
        return ptr, (key % population.n_units).astype(np.int32)


def _product(left: NDArray, weight: Any) -> NDArray:
    """``left @ weight.T`` over the last axis, dense or sparse."""
    flat = left.reshape(-1, left.shape[-1])
    return np.asarray((weight @ flat.T).T).reshape(*left.shape[:-1], weight.shape[0])
