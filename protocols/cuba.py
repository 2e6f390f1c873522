"""The classic network of current-based integrate-and-fire units that keeps itself going ("CUBA").

T. P. Vogels & L. F. Abbott, "Signal propagation and logic gating in networks of integrate-and-fire neurons",
Journal of Neuroscience 25, 2005; as benchmark 2 of R. Brette et al., "Simulation of networks of spiking
neurons: a review of tools and strategies", Journal of Computational Neuroscience 23, 2007, with the values of
Brian2's example of that name: four units in five excite, the others inhibit, any two are connected with a
probability of 2 %, there are no delays and there is no input.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray

from evsim.continuous_log import ContinuousLog
from evsim.errors import ProtocolError
from evsim.models.lif import LIF
from evsim.network import Network
from evsim.protocol import RunFolder
from evsim.simulation import Simulation

if TYPE_CHECKING:
    import scipy.sparse
    from matplotlib.axes import Axes

    from evsim.brian.subject import Subject

#: Units of the original, and the share of them that excites.
UNITS, EXCITATORY = 4000, 0.8
#: Probability of a connection at that size; networks of other sizes have as many connections per unit.
PROBABILITY = 0.02
#: mV: threshold, reset and what V goes to without input.
THRESHOLD, RESET, REST = -50.0, -60.0, -49.0
#: mV that an event adds to the current of a target: excitatory 60 * 0.27 / 10, inhibitory -20 * 4.5 / 10.
WEIGHTS = {"excitatory": 1.62, "inhibitory": -9.0}
#: ms: of V, of the two currents, and for how long V stays at the reset.
TAU_M, TAU_E, TAU_I, REFRACTORY = 20.0, 5.0, 10.0, 5.0
#: Bins of the population rate in ms.
BIN = 2.0
#: Colours of excitatory and inhibitory units, and of ink.
COLOURS, INK = {"excitatory": "#1f5fa8", "inhibitory": "#a8161e"}, "#1f2933"


def build(units: int = UNITS, seed: int = 0) -> Network:
    """Two populations, "excitatory" and "inhibitory", connected at random with each other and themselves."""
    network = Network(dt=None, seed=seed)
    excitatory = round(EXCITATORY * units)
    sizes = {"excitatory": excitatory, "inhibitory": units - excitatory}
    for name, size in sizes.items():
        network.add(LIF(size, name, THRESHOLD, REST, TAU_M, TAU_E, TAU_I, reset=RESET, refractory=REFRACTORY))
    probability = min(PROBABILITY * UNITS / units, 1.0)
    for source, weight in WEIGHTS.items():
        for target in sizes:

            def connections(
                rng: np.random.Generator, shape: tuple[int, ...], weight: float = weight
            ) -> scipy.sparse.csr_array:
                return random_pairs(rng, shape[0], shape[1], probability) * weight

            network.connect(source, target, weight=connections, port=source)
    return network


def subject(seed: int = 0, units: int = UNITS, duration: float = 5000.0) -> Subject:
    """The network from random potentials, for `evsim crosscheck cuba`."""
    from evsim.brian.subject import Subject

    network = build(units, seed)
    about = "Vogels & Abbott (2005), benchmark 2 of Brette et al. (2007): keeps itself going, without input."
    return Subject("cuba", network, {}, duration, start(network, seed), chaotic=True, about=about)


def random_pairs(
    rng: np.random.Generator, n_source: int, n_target: int, probability: float
) -> scipy.sparse.csr_array:
    """Ones where two units are connected: each pair with that probability, whatever the others do."""
    from scipy.sparse import csr_array

    pairs, expected = n_source * n_target, n_source * n_target * probability
    # From one connected pair to the next it is a geometric number of pairs.
    chosen = np.zeros(0, np.int64)
    while not chosen.size or chosen[-1] < pairs:
        steps = rng.geometric(probability, int(expected + 5 * expected**0.5) + 1)
        chosen = np.concatenate([chosen, np.cumsum(steps) + (chosen[-1] if chosen.size else -1)])
    chosen = chosen[: np.searchsorted(chosen, pairs)]
    rows, columns = np.divmod(chosen, n_target)
    ptr = np.searchsorted(rows, np.arange(n_source + 1))
    return csr_array((np.ones(chosen.size), columns, ptr), shape=(n_source, n_target))


def start(network: Network, seed: int) -> dict[str, dict[str, NDArray]]:
    """V anywhere between reset and threshold, currents 0; as `Simulation.run` takes it."""
    rng = np.random.default_rng([seed, 2005])
    return {
        name: {"v": rng.uniform(RESET, THRESHOLD, (1, population.n_units))}
        for name, population in network.populations.items()
    }


def run(
    folder: RunFolder,
    units: Annotated[int, "units; with more or fewer each still has about 80 connections"] = UNITS,
    duration: Annotated[float, "ms"] = 1000.0,
    seed: Annotated[int, "seed of connections and initial states"] = 0,
) -> dict[str, Any]:
    """Run the classic network of 4,000 current-based units, CUBA.

    Event times are exact, not put on a grid.  No event comes from outside: the network goes on by itself,
    irregularly.
    """
    if units < 10:
        raise ProtocolError("cuba", f"units is {units}", "give 10 or more")
    if not 0 < duration < np.inf:
        raise ProtocolError("cuba", f"duration is {duration}", "give a number of ms above 0")
    if seed < 0:
        raise ProtocolError("cuba", f"seed is {seed}", "give 0 or more")
    began = time.perf_counter()
    network = build(units, seed)
    simulation: Any = Simulation(network, threads=1)
    built = time.perf_counter() - began
    initial = start(network, seed)
    processor, wall = time.process_time(), time.perf_counter()
    log: ContinuousLog = simulation.run({}, duration, initial=initial, tape=False)
    processor, wall = time.process_time() - processor, time.perf_counter() - wall
    log.provenance |= {"protocol": "cuba", "settings": folder.settings}
    log.save(folder / "events.h5", overwrite=True)
    events, deliveries = sum(log[name].n_events for name in log), count_deliveries(network, log)
    summary = {
        "units": units,
        "connections": sum(p.n_weights for p in network.projections.values()),
        "duration": duration,
        "populations": {name: describe(log, name) for name in log},
        "events": events,
        "deliveries": deliveries,
        "seconds": {"building": built, "running": wall, "processor": processor},
        "events_per_second": events / processor,
        "deliveries_per_second": deliveries / processor,
        "counters": log.counters,
    }
    folder.write_json("summary.json", summary)
    _draw(folder, log)
    _print(folder, summary)
    return summary


def count_deliveries(network: Network, log: ContinuousLog) -> int:
    """Connections over which events went."""
    total = 0
    for projection in network.projections.values():
        sent = np.bincount(log[projection.source.name].unit, minlength=projection.source.n_units)
        total += int(sent @ np.diff(projection.pairs().ptr))
    return total


def intervals(log: ContinuousLog, name: str) -> list[NDArray[np.float64]]:
    """Times in ms between the events of each unit of lane 0 that sent two or more."""
    population = log[name]
    mine = population.lane == 0
    unit, when = population.unit[mine], population.time[mine]
    order = np.argsort(unit, kind="stable")  # events are in order of time
    ends = np.cumsum(np.bincount(unit, minlength=population.n_units))
    each = np.split(when[order], ends[:-1])
    return [np.diff(times) for times in each if len(times) > 1]


def describe(log: ContinuousLog, name: str) -> dict[str, Any]:
    """Size, events, rate and the variation of the intervals between events of one population.

    The coefficient of variation is the standard deviation by the mean of the intervals of a unit; here the
    mean over the units with three intervals or more.
    """
    population = log[name]
    variation = [float(np.std(gaps) / np.mean(gaps)) for gaps in intervals(log, name) if len(gaps) >= 3]
    sent = np.bincount(population.unit, minlength=population.n_units)
    return {
        "units": population.n_units,
        "events": population.n_events,
        "rate_hz": population.rate,
        "silent_units": int((sent == 0).sum()),
        "cv": float(np.mean(variation)) if variation else None,
        "units_in_cv": len(variation),
    }


def _print(folder: RunFolder, summary: dict[str, Any]) -> None:
    from evsim.tables import plain_table

    table = plain_table(
        "population", "units", "silent", "events", "rate [Hz]", "CV of intervals", words=("population",)
    )
    for name, row in summary["populations"].items():
        cv = "-" if row["cv"] is None else f"{row['cv']:.2f}"
        counts = (row["units"], row["silent_units"], row["events"])
        table.add_row(name, *(f"{count:,}" for count in counts), f"{row['rate_hz']:.2f}", cv)
    folder.console.print(table)
    seconds = summary["seconds"]
    folder.console.print(
        f"{summary['connections']:,} connections, {summary['deliveries']:,} deliveries in "
        f"{summary['duration']:g} ms\n"
        f"building {seconds['building']:.2f} s, running {seconds['running']:.2f} s, one thread; per second "
        f"of processor time {summary['events_per_second']:,.0f} events, "
        f"{summary['deliveries_per_second']:,.0f} deliveries\n"
        f"results in {folder.path}: events.h5, cuba.png, summary.json",
        soft_wrap=True,
    )


def _draw(folder: RunFolder, log: ContinuousLog) -> None:
    """Events of all units, and the rate of each population below."""
    from matplotlib.figure import Figure

    picture = Figure(figsize=(9.0, 5.4), layout="constrained", dpi=160)
    top, bottom = picture.subplots(2, 1, sharex=True, height_ratios=(3.0, 1.0))
    first, edges = 0, np.arange(log.start, log.stop + BIN, BIN)
    for name, colour in COLOURS.items():
        population = log[name]
        size = min(max(20000 / max(sum(log[n].n_events for n in log), 1), 0.3), 4.0)
        top.scatter(
            population.time, first + population.unit, s=size, color=colour, linewidths=0, rasterized=True
        )
        first += population.n_units
        count, _ = np.histogram(population.time, edges)
        rate = count / (population.n_units * log.n_lanes * 1e-3 * np.diff(edges))
        bottom.stairs(rate, edges, color=colour, linewidth=0.9, label=f"{name}, {population.rate:.1f} Hz")
    top.set(ylabel="unit", ylim=(0, first), xlim=(log.start, log.stop))
    bottom.set(xlabel="time [ms]", ylabel=f"rate [Hz]\nin {BIN:g} ms", ylim=(0, None))
    bottom.legend(loc="upper right", fontsize=8, ncols=2, frameon=False)
    _tidy(top, bottom)
    picture.savefig(folder / "cuba.png")


def _tidy(*all_axes: Axes) -> None:
    for ax in all_axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=8, colors="#5b6770", labelcolor=INK)
