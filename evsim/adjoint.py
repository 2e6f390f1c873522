"""Adjoint event replay: the log of a run walked backwards against its plan gives the gradient of a loss."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evsim.continuous_adjoint import ContinuousAdjoint
from evsim.continuous_plan import ContinuousPlan
from evsim.core.backward import Backward
from evsim.core.forward import Forward
from evsim.core.memory import empty, zeros
from evsim.dense_products import DenseProducts
from evsim.errors import GradientError
from evsim.eventlog import EventLog
from evsim.events import Events
from evsim.gradients import Gradients
from evsim.models import LIF
from evsim.plan import ACCUMULATORS, SOURCES, STATES, TAPES, Plan
from evsim.propagator import Propagator, lif_propagator_vjp
from evsim.recorded import Losses, Piece, Recorded, RecordedFile, pieces
from evsim.states import States
from evsim.threads import usable_threads

if TYPE_CHECKING:
    from evsim.log_file import LogFile

#: dH/dv at v = a - threshold, by name, in the order of the core.
PSEUDO_DERIVATIVES = ("triangle", "rectangle", "fast_sigmoid")


class Adjoint:
    """Replays logs of a plan backwards; of one in continuous time this makes a `ContinuousAdjoint`.

    Events are discontinuous in the state; their derivative is replaced by a pseudo-derivative of
    v = a - threshold::

        triangle       gamma max(0, 1 - eps |v|)        (EvNN: gamma = 0.7, eps = 1)
        rectangle      gamma [eps |v| < 1]
        fast_sigmoid   gamma / (1 + eps |v|)^2          (Zenke & Ganguli 2018)

    A unit is backward-active where it fired or where this is not zero; only there is dL/dy computed.  A
    triangle or rectangle with a large ``eps`` keeps the backward pass sparse, the fast sigmoid makes it
    dense.

    For LIF units v is V - threshold before the reset, in the unit of V, and the derivative is 0 while V is
    held.

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

    def __new__(cls, plan: Any, *args: Any, **options: Any) -> Any:
        """In continuous time, a `ContinuousAdjoint`."""
        if isinstance(plan, ContinuousPlan):
            return ContinuousAdjoint(plan, *args, **options)
        return super().__new__(cls)

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
        if plan.network.narrow is not None:
            raise GradientError(
                "adjoint",
                f"the network has {plan.network.narrow} weights, which have no gradient",
                "train the network it was made from, and narrow that",
            )
        self.plan = plan
        self.pseudo_derivative, self.gamma, self.eps = pseudo_derivative, float(gamma), float(eps)
        self._pseudo_kind = PSEUDO_DERIVATIVES.index(pseudo_derivative)
        self.threads = usable_threads(threads)
        self._teams = plan.heavy and threads is not None

    def replay(
        self,
        log: EventLog | LogFile,
        losses: Losses,
        *,
        inputs: bool = False,
        initial: bool = False,
        events: bool = False,
    ) -> Gradients:
        """Gradient of a loss whose derivatives at the populations are given.

        Parameters
        ----------
        log : EventLog or LogFile
            Of a run of this plan, with the parameters as they are now.  A log without tape is run again
            first, from checkpoint to checkpoint if it has any, and must send the same events.  Of a file
            with checkpoints (`LogWriter`) only one stretch is in memory at a time.
        losses : mapping of str to array, shape (n_steps, n_lanes, n_units), or a function
            ``"answer"``: at the state of a population after each step (readout: v; delta units: h; EGRU: c
            and LIF: v after reset);
            ``"hidden.y"``: at its event values (of delta units also one number per event of the log, shape
            (n_events,)); ``"hidden.o"``: at its events as 0 or 1.  A function is given stretches of the run
            (`EventLog`), the last one first, and returns such a mapping of each.
        inputs : bool
            Also give the gradient at the sources' inputs (dense products, but at the events only for a source
            that sends changes, where it is the gradient at the stimulus).
        initial : bool
            Also give the gradient at the states and events in flight before the window (dense products).
        events : bool
            Also give ``events[name]["value"]``, shape (n_events,), for every population that sends: the
            gradient at the number that each event of the log carries to all its targets, and to a loss at
            ``.y``.  The sender has sent it and is left as it is, reset included; all that follows at the
            targets follows by the rules of this replay.  With ``gamma=0``, and for delta units, that is what
            a small change of the payload on its way does to the loss, as long as the same units send at the
            same steps (`Simulation.run(..., edits=...)` makes such changes).  It is 0 where nothing arrives
            within the window.  The work is that of the events' weight rows.

        Raises
        ------
        GradientError
            Unknown names, wrong shapes, values that are not finite, a log of another plan.
        """
        record: Recorded | RecordedFile
        if isinstance(log, EventLog):
            record = Recorded(self.plan, log, losses)
        else:
            record = RecordedFile(self.plan, log, losses)
        self.plan.refresh()
        core = Backward(self.plan.table, record.n_lanes, self._pseudo_kind, self.gamma, self.eps)
        work = _Work(self.plan, core, record, inputs, events)
        tapes = record.tapes()
        taped = tapes is not None
        if tapes is None and record.starts() == [0]:
            tapes = self._run_again(work, Piece(0, record.n_steps, 0, record.lengths))
            taped = True
        teams = self._teams and record.n_lanes < self.threads
        for piece in pieces(record, self.plan, taped):
            if tapes is None:
                work.turn_to(piece, self._run_again(work, piece), False)
            elif piece.n_steps == record.n_steps:
                work.turn_to(piece, tapes, False)
            else:
                steps = slice(piece.start, piece.start + piece.n_steps)
                work.turn_to(piece, [t if t is None else t[steps] for t in tapes], piece.start > 0)
            for rank in range(len(self.plan.populations)):
                work.give(rank, inputs or initial)
            for index, gain in record.gains.items():
                core.give_gains(index, gain)
            core.go(self.threads, teams)
            work.give_weights(self.threads)
            if inputs:
                work.add_input_gradients()
        gradients = Gradients(work.parameters(), work.inputs, counters=work.counters())
        if events:
            gradients.events = {name: {"value": found} for name, found in work.event_gradients()}
        if initial:
            gradients.initial = {
                p.name: work.initial_gradient(rank) for rank, p in enumerate(self.plan.populations)
            }
        return gradients

    def _run_again(self, work: _Work, piece: Piece) -> list[NDArray | None]:
        core = Forward(self.plan.table, piece.lengths, piece.n_steps)
        bases: list[NDArray | None] = self.plan.bases()
        tapes: list[NDArray | None] = []
        dense = DenseProducts(self.plan, piece.lengths, piece.n_steps, work.log.gains)
        for index, gain in work.log.gains.items():
            core.give_gains(index, gain)
        for rank, kernel in enumerate(self.plan.kernels):
            tape, given, history = None, kernel in SOURCES, self.plan.history[rank]
            events = work.log.events(rank, piece)
            if events is not None:
                known = events if given else events.window(0, history)
                core.give_events(rank, history, known.ptr, known.unit, known.value, given)
                dense.give_events(rank, known)
            if not given:
                if TAPES[kernel]:
                    shape = piece.n_steps, len(piece.lengths), len(TAPES[kernel]), -1
                    tape = zeros((*shape[:3], self.plan.populations[rank].n_units), self.plan.dtype)
                core.give_arrays(rank, bases[rank], work.log.states(rank, piece).copy(), tape)
            tapes.append(tape)
        teams = self._teams and len(piece.lengths) < self.threads
        macs = dense.go(core, bases, self.threads, teams)
        work.macs_rerun = [before + more for before, more in zip(work.macs_rerun, macs, strict=True)]
        for rank, population in enumerate(self.plan.populations):
            events, history = work.log.events(rank, piece), self.plan.history[rank]
            if events is not None and population.kernel not in SOURCES:
                again = Events(population.n_units, events.n_lanes, piece.n_steps, *core.collect(rank))
                if not again.equal(events.window(history, history + piece.n_steps)):
                    raise GradientError(
                        f"log of '{population.name}'",
                        "its events do not follow from the present parameters",
                        "replay before the parameters change",
                    )
        return tapes


class _Work:
    """One replay in the making: its core, and the arrays that are its own."""

    def __init__(self, plan: Plan, core: Backward, log: Recorded | RecordedFile, inputs: bool, sent: bool):
        self.plan, self.core, self.log = plan, core, log
        self.dweights = [empty(shape, plan.dtype) for shape in plan.weight_shapes]
        self.fresh = True  # nothing has been written into them
        # MACs that the core did not count, by index of the projection: of dense products, of running again.
        self.macs_weight: dict[int, int] = {}
        self.macs_rerun = [0] * len(plan.projections)
        self.inputs: dict[str, NDArray] = {}
        if inputs:
            shape = log.n_steps, log.n_lanes
            self.inputs = {p.name: np.zeros((*shape, p.n_units), plan.dtype) for p in plan.sources}
        # dL/d(payload) by piece, the last one first, of populations that send.
        self.dsent: dict[int, list[NDArray]] = {}
        if sent:
            self.dsent = {rank: [] for rank, p in enumerate(plan.populations) if p.emits}
        self.piece: Piece

    # -- a piece -------------------------------------------------------------------------------------------

    def turn_to(self, piece: Piece, tapes: list[NDArray | None], continued: bool) -> None:
        """Begin a piece; ``continued`` tapes are parts of longer ones, which begin before it."""
        self.piece, self.tapes = piece, tapes
        self.events = [self.log.events(rank, piece) for rank in range(len(self.plan.populations))]
        self.losses = self.log.losses(piece)
        self.core.turn_to(piece.lengths, piece.n_steps, piece.n_done, continued)

    def give(self, rank: int, sources: bool) -> None:
        """Hand what is known of one population to the core.

        Of ``sources`` that send changes, the stimulus and what had been sent get a gradient, too.
        """
        name, _, n_units, kernel, _, _ = self.plan.members[rank]
        events, piece, core = self.events[rank], self.piece, self.core
        if events is not None:
            core.give_events(rank, self.plan.history[rank], events.ptr, events.unit, events.value)
            if rank in self.dsent:
                self._give_sent(rank, events)
        if kernel == "source":
            return
        if kernel == "delta_source" and sources:
            line = self.inputs.get(name)
            steps = slice(piece.start, piece.start + piece.n_steps)
            shape = piece.n_steps, self.log.n_lanes, n_units
            core.give_line(rank, np.zeros(shape, self.plan.dtype) if line is None else line[steps])
        losses = self.losses.get(name, {})
        core.give_arrays(
            rank,
            self.tapes[rank],
            self.log.states(rank, piece),
            losses.get("state"),
            losses.get("y"),
            losses.get("o"),
        )
        if kernel == "egru_paper" and events is not None:
            core.give_senders(rank, *self._senders(rank, events))
            for index, projection in enumerate(self.plan.projections):
                if projection.target.name == name and projection.port == "recurrent":
                    core.give_products(index, np.zeros(max(len(events), 1), self.plan.dtype))

    def _give_sent(self, rank: int, events: Events) -> None:
        """Hand the core room for the gradients at a population's events, and keep those to be replayed."""
        piece, n_lanes, history = self.piece, self.log.n_lanes, self.plan.history[rank]
        steps = np.array([0, piece.stop - piece.start, piece.n_steps]) + history
        first, stop, end = events.ptr[steps * n_lanes].tolist()
        room = np.zeros(end - first, self.plan.dtype)
        self.core.give_sent(rank, room)
        self.dsent[rank].append(room[: stop - first])

    def give_weights(self, threads: int) -> None:
        """The weight gradients of a piece: of dense projections by matrix products, of others by events."""
        if self.plan.dense:
            dense = DenseProducts(self.plan, self.piece.lengths, self.piece.n_steps, self.log.gains)
            for rank, events in enumerate(self.events):
                dense.give_events(rank, events)
            D = [self.core.D(rank) for rank in range(len(self.plan.populations))]
            n_open = self.piece.stop - self.piece.start
            for index, macs in dense.add_gradients(D, n_open, self.dweights, self.fresh).items():
                self.macs_weight[index] = self.macs_weight.get(index, 0) + macs
        self.core.weights(self.dweights, self.fresh, threads, not self.plan.dense)
        self.fresh = False

    def add_input_gradients(self) -> None:
        """Those of a piece; sources that send changes have theirs from the core."""
        for population in self.plan.sources:
            if population.kernel == "source":
                self._add_input_gradient(population.name)

    # -- the whole -----------------------------------------------------------------------------------------

    def parameters(self) -> dict[str, NDArray]:
        """Gradients by name; those of biases and thresholds are sums over lanes, in order of lane."""
        found, core = {}, self.core
        for rank, population in self.plan.biased:
            own, n = population.parameters, population.n_units
            total, bias = core.dbias(rank), own["bias"]
            found[bias.name] = total[: bias.values.size]
            if "recurrent_bias" in own:
                found[own["recurrent_bias"].name] = np.concatenate([total[: 2 * n], total[3 * n :]])
            if "o" in population.losses:
                found[own["threshold"].name] = core.dthreshold(rank)
            if isinstance(population, LIF):
                numbers = core.dnumbers(rank).reshape(-1, 5, n)
                sums = Propagator(*numbers.sum(axis=2, dtype=np.float64).sum(axis=0).tolist())
                by_tau = lif_propagator_vjp(self.plan.dt, *population.time_constants(), sums)
                for name, gradient in zip(("tau_m", "tau_e", "tau_i"), by_tau, strict=True):
                    found[f"{population.name}.{name}"] = np.array([gradient], self.plan.dtype)
        for name, dweight in zip(self.plan.weight_names, self.dweights, strict=True):
            found[name] = dweight
        return found

    def event_gradients(self) -> Iterator[tuple[str, NDArray]]:
        """By name, the gradient at what each event carries, in order of the log."""
        for rank, parts in self.dsent.items():
            found = parts[0] if len(parts) == 1 else np.concatenate(parts[::-1])
            parts.clear()
            yield self.plan.populations[rank].name, found

    def counters(self) -> dict[str, Any]:
        """MACs, and backward-active units and their share of all, per population with thresholds.

        Those of delta units are the ones that sent an event, for a source only if ``inputs``, ``initial`` or
        ``events`` gradients were asked for.
        """
        core, plan, lane_steps = self.core, self.plan, max(sum(self.log.lengths.tolist()), 1)
        active, beta = {}, {}
        for name, rank, n_units in plan.thresholded:
            count = core.active(rank)
            active[name], beta[name] = count, count / (lane_steps * n_units)
        names = plan.projection_names
        state, recompute, weight = core.macs(names)
        for index, macs in self.macs_weight.items():
            weight[names[index]] += macs
        return {
            "backward_active": active,
            "beta": beta,
            "macs_state": state,
            "macs_weight": weight,
            "macs_recompute": recompute,
            "macs_rerun": dict(zip(names, self.macs_rerun, strict=True)),
        }

    def _add_input_gradient(self, name: str) -> None:
        """dL/dx of a source, dense: D of the piece times the transposed weights of its projections."""
        piece = self.piece
        for index, projection in enumerate(self.plan.projections):
            if projection.source.name == name:
                delay = projection.delay_steps
                first = max(piece.start - delay, 0)  # of the steps whose events arrive in this piece
                if first + delay < piece.stop:
                    arrivals = slice(first + delay - piece.start, piece.stop - piece.start)
                    self.inputs[name][first : piece.stop - delay] += self._transposed(index, arrivals)

    def initial_gradient(self, rank: int) -> dict[str, NDArray]:
        """dL/d(states before the window), and dL/dy of the events before it; after the first piece."""
        population, history = self.plan.populations[rank], self.plan.history[rank]
        n, names = population.n_units, STATES[self.plan.kernels[rank]]
        states = States(self.core.carry(rank), names) if names else {}
        found = {name: gradient.copy() for name, gradient in states.items()}
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
                        dy[-ago] += self._transposed(index, slice(arrival, arrival + 1))[0]
        return found | {"y": dy}

    def _transposed(self, index: int, steps: slice) -> NDArray:
        """D of a projection's target at some steps of the piece times its weights, transposed, and gains."""
        projection = self.plan.projections[index]
        target, n = projection.target, projection.target.n_units
        places = ACCUMULATORS[target.kernel][projection.port]
        D = self.core.D(self.plan.rank[target.name])[steps]
        blocks = [D[..., place * n : (place + 1) * n] for place in places]
        weight = projection.to_scipy() if projection.is_sparse else projection.weight.values
        if target.kernel == "egru_paper" and projection.port == "recurrent":
            gate = self._reset_gate(target.name, steps)
            by_block = [_product(block, weight[:, k * n : (k + 1) * n]) for k, block in enumerate(blocks)]
            return by_block[0] + by_block[1] + gate * by_block[2]
        found = _product(np.concatenate(blocks, axis=-1), weight)
        return found * self.log.gains[index] if index in self.log.gains else found

    def _reset_gate(self, name: str, steps: slice) -> NDArray:
        """r of all units of a population in the paper's form, from the tape's input part and the events."""
        rank = self.plan.rank[name]
        events, tape = self.events[rank], self.tapes[rank]
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

    def _senders(self, rank: int, events: Events) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Units whose events arrive at each (step, lane) of the window through any recurrent projection."""
        population, lanes, history = self.plan.populations[rank], self.log.n_lanes, self.plan.history[rank]
        cells = self.piece.n_steps * lanes
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
