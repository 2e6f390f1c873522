"""What a replay in steps needs of the record of a run, stretch by stretch: a log in memory, or on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evsim.core.dense import first_beyond
from evsim.errors import GradientError
from evsim.eventlog import EventLog, PopulationLog
from evsim.events import Events
from evsim.gains import gains_by_index
from evsim.plan import STATES, TAPES, Member, Plan
from evsim.states import States

if TYPE_CHECKING:
    from evsim.log_file import LogFile

#: A replay takes so many steps at a time that their gradients at the accumulators are about so large.
PIECE_BYTES = 8 << 20

#: Gradients at what a run did: of all of it, or a function that gives those of any stretch of it.
Losses = Mapping[str, ArrayLike] | Callable[[EventLog], Mapping[str, ArrayLike]]


@dataclass
class Piece:
    """Steps ``start`` to ``start + n_steps`` of a record.

    The last ``n_done`` of them have been replayed before; they are at hand because delayed events of this
    piece arrive in them.
    """

    start: int
    n_steps: int
    n_done: int
    lengths: NDArray[np.int64]

    @property
    def stop(self) -> int:
        """Where the steps to replay end."""
        return self.start + self.n_steps - self.n_done


class Recorded:
    """A log in memory.

    Parameters
    ----------
    plan : Plan
    log : EventLog
    losses : Losses

    Attributes
    ----------
    n_steps, n_lanes : int
    lengths : ndarray of int64, shape (n_lanes,)
    gains : dict of int to ndarray, shape (n_lanes, n_units)
        By index of the projection; of a file always empty.

    Raises
    ------
    GradientError
        The log is of another plan, or lacks something; losses that do not fit.
    """

    def __init__(self, plan: Plan, log: EventLog, losses: Losses):
        self.plan, self.log = plan, log
        self.n_steps, self.n_lanes, self.lengths = log.n_steps, log.n_lanes, log.lengths
        check_description(plan, log)
        self.gains = gains_by_index(plan, log.gains, log.n_lanes)
        found = log.populations
        self._members = [
            checked_member(member, history, found.get(member[0]))
            for member, history in zip(plan.members, plan.history, strict=True)
        ]
        self._events = [
            None if member.events is None or member.carried is None else member.carried.then(member.events)
            for member in self._members
        ]
        self._losses = loss_parts(plan, log, losses(log) if callable(losses) else losses)

    def tapes(self) -> list[NDArray | None] | None:
        """The tape of every population; None if any was not recorded."""
        for member, kernel in zip(self._members, self.plan.kernels, strict=True):
            if TAPES[kernel] and (member.tape is None or member.tape_fields != TAPES[kernel]):
                return None
        return [member.tape for member in self._members]

    def starts(self) -> list[int]:
        """Steps, from the first, before which all states are known."""
        every = self.log.checkpoint
        return [0] if every is None else list(range(0, max(self.n_steps, 1), every))

    def events(self, rank: int, piece: Piece) -> Events | None:
        """What a population sent in a piece and in the steps before it that its delays reach back to."""
        events = self._events[rank]
        if events is None or piece.n_steps == self.n_steps:
            return events
        return events.window(piece.start, piece.start + piece.n_steps + self.plan.history[rank])

    def states(self, rank: int, piece: Piece) -> NDArray:
        """The states before a piece as the core holds them, (n_lanes, n_state); not to be written into."""
        member = self._members[rank]
        if piece.start and member.checkpoints is not None and self.log.checkpoint is not None:
            return member.checkpoints[piece.start // self.log.checkpoint]
        return states_of(self.plan, rank, member.initial)

    def losses(self, piece: Piece) -> dict[str, dict[str, NDArray]]:
        """Gradients at a piece, by population and kind (state, y, o)."""
        if piece.n_steps == self.n_steps:
            return self._losses
        steps = slice(piece.start, piece.start + piece.n_steps)
        found = {name: {kind: loss[steps] for kind, loss in of.items()} for name, of in self._losses.items()}
        for name, of in found.items():
            sent = self.log[name].events
            if "y" in of and sent is not None and self.plan.network[name].sends == "changes":
                rows = sent.ptr[[steps.start * sent.n_lanes, steps.stop * sent.n_lanes]]
                of["y"] = self._losses[name]["y"][slice(*rows)]  # one number per event
        return found


class RecordedFile:
    """A log on disk: the same, read piece by piece.

    Losses are given by a function of a stretch of the run, or by arrays of all steps, which may be on disk
    too: they are sliced by steps.
    """

    def __init__(self, plan: Plan, file: LogFile, losses: Losses):
        if file.continuous:
            raise GradientError(
                f"log '{file.path}'", "is of a run in continuous time", "replay(file.window(), ...)"
            )
        self.plan, self.file = plan, file
        self.n_steps, self.n_lanes, self.lengths = file.n_steps, file.n_lanes, file.lengths
        check_description(plan, file)
        self.gains: dict[int, NDArray] = {}
        first = file.steps(0, 0)
        for member, history in zip(plan.members, plan.history, strict=True):
            checked_member(member, history, first.populations.get(member[0]))
        self._given = losses

    def tapes(self) -> None:
        """Files hold no tapes."""
        return None

    def starts(self) -> list[int]:
        """Steps, from the first, before which all states are known."""
        return [0, *self.file.checkpoints[self.file.checkpoints > 0].tolist()]

    def events(self, rank: int, piece: Piece) -> Events | None:
        """See `Recorded.events`."""
        population = self.file[self.plan.populations[rank].name]
        if not population.sends:
            return None
        first = piece.start - self.plan.history[rank]
        return population.events_of_steps(first, piece.start + piece.n_steps)

    def states(self, rank: int, piece: Piece) -> NDArray:
        """See `Recorded.states`; where they are not known, a tape is, and they are not looked at."""
        population = self.file[self.plan.populations[rank].name]
        return states_of(
            self.plan, rank, population.states_before(piece.start) or population.states_before(0)
        )

    def losses(self, piece: Piece) -> dict[str, dict[str, NDArray]]:
        """See `Recorded.losses`; those of steps that have been replayed are zero, and not looked at."""
        window = self.file.steps(piece.start, piece.stop)
        if callable(self._given):
            given = self._given(window)
        else:
            given = {name: self._part(name, whole, piece) for name, whole in self._given.items()}
        parts = loss_parts(self.plan, window, given)
        if piece.n_done:
            for name, of in parts.items():
                for kind, loss in of.items():
                    rows = piece.n_done if loss.ndim == 3 else self._n_sent(name, piece)
                    of[kind] = np.concatenate([loss, np.zeros((rows, *loss.shape[1:]), loss.dtype)])
        return parts

    def _n_sent(self, name: str, piece: Piece) -> int:
        """Events of a population in the steps of a piece that have been replayed."""
        ptr = self.file[name].row_ptr
        return int(ptr[piece.start + piece.n_steps] - ptr[piece.stop])

    def _part(self, name: str, whole: Any, piece: Piece) -> Any:
        """The steps of a piece of an array of all steps."""
        if len(whole) != self.n_steps:
            raise GradientError(
                f"loss '{name}'", f"has {len(whole)} steps", f"give {self.n_steps}, or a function of a window"
            )
        return whole[piece.start : piece.stop]


def pieces(record: Recorded | RecordedFile, plan: Plan, taped: bool) -> Iterator[Piece]:
    """The stretches to replay, last one first: between known states, or until their D is large."""
    history, n_steps = plan.longest, record.n_steps
    starts = record.starts()
    if len(starts) > 1:
        starts = [start for start in starts if start < n_steps] or [0]
    step_bytes = record.n_lanes * plan.dtype.itemsize * plan.n_accumulators
    every = max(PIECE_BYTES // max(step_bytes, 1), history, 1)
    if taped and len(starts) == 1:
        starts = list(range(0, n_steps, every)) if n_steps > 2 * every else [0]
    elif isinstance(record, RecordedFile):
        starts = _apart(starts, every)
    stop = n_steps
    for start in reversed(starts):
        end = min(stop + history, n_steps)
        lengths = record.lengths
        if end - start < n_steps:
            lengths = np.clip(lengths - start, 0, end - start)
        yield Piece(start, end - start, end - stop, lengths)
        stop = start


def _apart(starts: list[int], every: int) -> list[int]:
    """Those of increasing numbers that leave at least ``every`` between them, as far as they reach."""
    kept = starts[:1]
    for start in starts[1:]:
        if start - kept[-1] >= every:
            kept.append(start)
    return kept


def states_of(plan: Plan, rank: int, by_name: Mapping[str, NDArray]) -> NDArray:
    """States as the core holds them."""
    if isinstance(by_name, States) and by_name.array.dtype == plan.dtype:
        return by_name.array
    return np.concatenate([by_name[name] for name in STATES[plan.kernels[rank]]], axis=1, dtype=plan.dtype)


def all_of(names: tuple[str, ...], states: Mapping[str, NDArray]) -> bool:
    """Whether there are states of all these names."""
    return states.names == names if isinstance(states, States) else states.keys() >= set(names)


# -- checks ----------------------------------------------------------------------------------------------


def check_description(plan: Plan, log: EventLog | LogFile) -> None:
    """Raise GradientError unless a log is of this plan, and its events follow from its states."""
    mine = plan.description
    edits = log.counters.get("edits")
    if edits and any(edits.values()):
        raise GradientError(
            "log",
            "some of its events were edited on their way, and do not follow from the states",
            "replay a log that was run without edits",
        )
    gains = log.counters.get("gains")
    if gains and any(gains.values()) and not (isinstance(log, EventLog) and log.gains):
        raise GradientError(
            "log",
            "was run with gains of projections, which files do not keep",
            "replay the log that Simulation.run returned",
        )
    if log.network is not mine:
        for part in ("dt_ms", "dtype", "populations", "projections", "fixed_point", "narrow"):
            if log.network.get(part) != mine.get(part):
                raise GradientError(
                    "log",
                    f"its {part} are not those of the plan",
                    "replay a log on the plan that recorded it",
                )


def checked_member(wanted: Member, history: int, member: PopulationLog | None) -> PopulationLog:
    """The log of a population of the plan, with all that a replay needs; else a GradientError."""
    name, _, _, kernel, emits, _ = wanted
    if member is not None and all_of(STATES[kernel], member.initial):
        carried = member.carried
        if not emits or (member.events is not None and carried is not None and carried.n_steps == history):
            return member
    raise GradientError(
        f"log of '{name}'",
        "it lacks events, those before the window, or initial states",
        "replay a log that Simulation.run made",
    )


def loss_parts(plan: Plan, log: EventLog, losses: Mapping[str, ArrayLike]) -> dict[str, dict[str, NDArray]]:
    """Loss gradients by population and kind (state, y, o), checked.

    Raises
    ------
    GradientError
        Unknown names, wrong shapes, values that are not finite.
    """
    parts: dict[str, dict[str, NDArray]] = {}
    for key, given in losses.items():
        name, _, kind = key.partition(".")
        if name not in plan.rank or kind not in ("", "y", "o"):
            raise GradientError(
                f"loss '{key}'",
                "no such place",
                f"use a name among {list(plan.rank)}, or name.y, name.o of those that send",
            )
        population = plan.network[name]
        if kind not in population.losses:
            raise GradientError(
                f"loss '{key}'",
                f"{population!r} has none",
                "readouts have a state, delta units a state and .y, EGRU and LIF a state, .y and .o",
            )
        try:
            array = np.ascontiguousarray(given, plan.dtype)
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
