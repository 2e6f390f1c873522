"""The validation matrix: many networks, each run by evsim and by Brian2, and what came of it in one table.

``make validate`` runs all of it and writes ``docs/validation.md``; the tests run it in small.  A cell of the
matrix is a random network (`evsim.examples`) of one unit type, in one kind of time, with one delay, one
density of weights and one number of layers:

- in steps, events must be the same and their values and all states equal within 1e-12;
- in continuous time Brian2 runs at falling steps, and the difference of event times must fall with order 1.0
  +- 0.1.  A unit that all but touches its threshold sends or not, or much earlier or later, for the smallest
  of reasons.  So the order is that of the median over all events, which such units do not move, that of the
  mean is told beside it; and if at the finest step an event is still without its partner, the step is halved
  again, up to five times, until all have theirs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import product
from multiprocessing import get_context
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evsim.brian.comparisons import STEPS, crosscheck_continuous_model, crosscheck_model
from evsim.continuous_comparison import ContinuousComparison, Convergence

#: Largest difference of values and states, in steps.
TOLERANCE = 1e-12
#: Largest distance of the order from 1, in continuous time.
ORDER_TOLERANCE = 0.1
#: How often the finest step is halved again for an event without partner.
MORE_HALVINGS = 5
#: Unit types in steps: title, model of `crosscheck_model`, and its options.
CLOCKED: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("EGRU, form evnn", "egru", {"form": "evnn"}),
    ("EGRU, form paper", "egru", {"form": "paper"}),
    ("DeltaGRU", "delta_gru", {}),
    ("DeltaLSTM", "delta_lstm", {}),
    ("LIF", "lif", {}),
)
#: Unit types in continuous time: title, model of `crosscheck_continuous_model`, and its options.
CONTINUOUS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    *(
        (f"EGRU, gate {gate}, transmit {transmit}", "egru", {"gate": gate, "transmit": transmit})
        for gate in ("pre", "post", "none")
        for transmit in ("value", "unit")
    ),
    ("DeltaGRU", "delta_gru", {}),
    ("DeltaLSTM", "delta_lstm", {}),
    ("LIF", "lif", {}),
)
#: Recurrent delays in steps of 1 ms.
DELAYS = (1, 5, 20)
#: Recurrent delays in ms; ``spread``: each synapse has its own, between 0.5 and 5 ms.
TIMED_DELAYS = ("shortest", "2.5", "spread")


@dataclass(frozen=True)
class Size:
    """How large the networks of the matrix are.

    Attributes
    ----------
    units, timed_units : int
        Per layer, in steps and in continuous time.
    steps : int
    duration : float
        ms, in continuous time.
    delays : tuple of int
        In steps.
    timed_delays : tuple of str
    layers, timed_layers : tuple of int
    densities : tuple of float
        Fractions of weights that are kept.
    dts : tuple of float
        Brian2's steps in ms.
    """

    units: int = 200
    steps: int = 2000
    timed_units: int = 32
    duration: float = 50.0
    delays: tuple[int, ...] = DELAYS
    timed_delays: tuple[str, ...] = TIMED_DELAYS
    layers: tuple[int, ...] = (1, 2, 3)
    timed_layers: tuple[int, ...] = (1, 2)
    densities: tuple[float, ...] = (1.0, 0.1)
    timed_densities: tuple[float, ...] = (1.0, 0.3)
    dts: tuple[float, ...] = STEPS


@dataclass(frozen=True)
class Cell:
    """One network of the matrix.

    Attributes
    ----------
    title : str
        The unit type.
    model : str
        Of `crosscheck_model` or `crosscheck_continuous_model`.
    continuous : bool
    delay : str
    density : float
    layers : int
    options : dict
        What else the model takes.
    dts : tuple of float
        Brian2's steps in ms; none in steps.
    """

    title: str
    model: str
    continuous: bool
    delay: str
    density: float
    layers: int
    options: dict[str, Any] = field(hash=False)
    dts: tuple[float, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What came of a cell.

    Attributes
    ----------
    cell : Cell
    n_events : int
        Of evsim, of all populations that send.
    n_different : int
        Events of one side that the other has not; in continuous time at the finest step.
    state_error : float
        Largest |difference| of states and values; in continuous time the mean one, at the finest step.
    order, mean_order : float
        Of convergence of event times, by the median and the mean of their differences; nan in steps.
    time_error : float
        Median |difference| of event times at the finest step, in ms; nan in steps.
    finest : float
        Brian2's finest step in ms; nan in steps.
    seconds, peer_seconds : float
        Wall time of evsim and of Brian2 (its finest step).
    ok : bool
    """

    cell: Cell
    n_events: int
    n_different: int
    state_error: float
    order: float
    mean_order: float
    time_error: float
    finest: float
    seconds: float
    peer_seconds: float
    ok: bool


def cells(size: Size) -> list[Cell]:
    """All cells of the matrix, those in steps first."""
    found = []
    for (title, model, options), layers, density, delay in product(
        CLOCKED, size.layers, size.densities, size.delays
    ):
        more = options | {"n_units": size.units, "n_steps": size.steps}
        found.append(Cell(title, model, False, str(delay), density, layers, more))
    for (title, model, options), layers, density, wanted in product(
        CONTINUOUS, size.timed_layers, size.timed_densities, size.timed_delays
    ):
        more = options | {"n_units": size.timed_units, "duration": size.duration}
        found.append(Cell(title, model, True, wanted, density, layers, more, size.dts))
    return found


def run(cell: Cell) -> Outcome:
    """Run a cell in both simulators."""
    options = cell.options | {"layers": cell.layers, "density": cell.density}
    return _run_timed(cell, options) if cell.continuous else _run_steps(cell, options)


def _run_steps(cell: Cell, options: dict[str, Any]) -> Outcome:
    found: Any = crosscheck_model(cell.model, delay=int(cell.delay), **options)  # type: ignore[arg-type]
    different = 0
    for name, events in found.events.items():
        peer = found.peer.events[name]
        own, other = (e.step * e.n_units + e.unit for e in (events, peer))
        different += np.setxor1d(own, other).size
    errors = [error for p in found.populations.values() for error in (p.value_error, p.state_error)]
    return Outcome(
        cell,
        n_events=sum(map(len, found.events.values())),
        n_different=int(different),
        state_error=max(error for error in errors if error is not None),
        order=float("nan"),
        mean_order=float("nan"),
        time_error=float("nan"),
        finest=float("nan"),
        seconds=found.seconds,
        peer_seconds=found.peer.seconds,
        ok=found.ok(TOLERANCE),
    )


def _spread(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray:
    return rng.uniform(0.5, 5.0, shape)


def _run_timed(cell: Cell, options: dict[str, Any]) -> Outcome:
    delays: dict[str, Any] = {"shortest": None, "spread": _spread}
    model: Any = cell.model
    options |= {"delay": delays[cell.delay] if cell.delay in delays else float(cell.delay)}
    comparisons = crosscheck_continuous_model(model, cell.dts, **options).comparisons
    for _ in range(MORE_HALVINGS):
        if not comparisons[-1].n_unmatched:
            break
        comparisons += crosscheck_continuous_model(model, [comparisons[-1].dt / 2], **options).comparisons
    found = Convergence(comparisons[-len(cell.dts) :])
    finest, order = comparisons[-1], _median_order(found)
    return Outcome(
        cell,
        n_events=finest.n_events,
        n_different=finest.n_unmatched,
        state_error=finest.mean_state_error,
        order=order,
        mean_order=found.order,
        time_error=_median(finest),
        finest=finest.dt,
        seconds=finest.run.seconds,
        peer_seconds=finest.peer.seconds,
        ok=finest.n_unmatched == 0 and abs(order - 1) <= ORDER_TOLERANCE,
    )


def _median(comparison: ContinuousComparison) -> float:
    """Median |difference| of event times in ms; nan without events."""
    errors = np.abs(comparison.errors)
    return float(np.median(errors)) if errors.size else float("nan")


def _median_order(convergence: Convergence) -> float:
    """Slope of log(median |difference| of event times) against log(dt), by least squares."""
    points = np.array([(c.dt, _median(c)) for c in convergence.comparisons])
    if not (points > 0).all():  # nan: no events
        return float("nan")
    dt, error = np.log(points).T
    return float(np.polyfit(dt, error, 1)[0])


def matrix(wanted: Sequence[Cell], processes: int = 1) -> Iterator[Outcome]:
    """Run cells, in as many processes, and yield the outcomes in the order of the cells."""
    if processes == 1:
        yield from map(run, wanted)
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        yield from pool.map(run, wanted)
