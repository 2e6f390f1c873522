"""The parameters that Brian2's objects hold, read back and held against those of the network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evsim.models import EGRU, LIF, EventSource, LeakyReadout
from evsim.network import Network
from evsim.population import Population
from evsim.projection import Projection
from evsim.timed_events import TimedEvents

#: Blocks of the bias in the order of evsim; that of the recurrent candidate of EGRU's first form is last.
BLOCKS = {
    "egru_evnn": "zrgq",
    "egru_paper": "urz",
    "egru_continuous": "urz",
    "lif": "v",
    "delta_gru": "rznq",
    "delta_lstm": "ifgo",
    "readout": "v",
    "delta_readout": "v",
}
#: Factors between a weight here and there (payloads) cost that much, relative.
ROUNDING = 1e-14


@dataclass(frozen=True)
class Entry:
    """One parameter: how many values were read back, and the largest difference.

    Attributes
    ----------
    name : str
        As in `Network.parameters`; "hidden.reset", "hidden.decay" and "hidden.factor_e" (of one step of a
        readout, and of LIF) and "a->b.delay" besides.
    n_values : int
    difference : float
        Largest |difference|.
    index : tuple of int or None
        Where that is, as in `Network.parameters` (of sparse weights source unit and column); None if all are
        equal to rounding.
    value, peer_value : float or None
        What the network and Brian2 have there.
    """

    name: str
    n_values: int
    difference: float
    index: tuple[int, ...] | None = None
    value: float | None = None
    peer_value: float | None = None

    def __str__(self) -> str:
        if self.index is None:
            return f"{self.name}: {self.n_values} values, all equal"
        place = ",".join(map(str, self.index))
        return f"{self.name}[{place}] is {self.value:.12g}, in Brian2 {self.peer_value:.12g}"


def audit(network: Network, twin: Any, stimulus: Mapping[str, TimedEvents] | None = None) -> list[Entry]:
    """Read all parameters back.

    Parameters
    ----------
    network : Network
        What Brian2's objects should hold.
    twin
        What `to_brian2` or `to_brian2_continuous` made.
    stimulus : dict of TimedEvents, optional
        In continuous time, by source; weights from sources that are not named are not read.
    """
    found = []
    units = {name: _brian_units(events, twin.dt) for name, events in (stimulus or {}).items()}
    for name, population in network.populations.items():
        group = twin.groups[name]
        for parameter, mine, theirs in _of_population(network, population, group):
            found.append(_entry(f"{name}.{parameter}", mine, theirs))
    for projection in network.projections.values():
        if projection.name in twin.synapses:
            found += list(_of_projection(network, projection, twin, units))
    return found


def _entry(name: str, mine: NDArray, theirs: NDArray, places: NDArray | None = None) -> Entry:
    """``places``: shape (n_values, n_index), where each value is; by default its number."""
    mine, theirs = np.ravel(mine).astype(float), np.ravel(theirs).astype(float)
    distance = np.abs(mine - theirs)
    distance[distance <= ROUNDING * np.maximum(1.0, np.abs(mine))] = 0.0
    if not distance.any():
        return Entry(name, len(mine), 0.0)
    worst = int(np.nan_to_num(distance, nan=np.inf).argmax())
    place = (worst,) if places is None else tuple(int(i) for i in places[worst])
    return Entry(name, len(mine), float(distance[worst]), place, float(mine[worst]), float(theirs[worst]))


def _of_population(
    network: Network, population: Population, group: Any
) -> Iterator[tuple[str, NDArray, NDArray]]:
    values = {name: p.values.astype(float) for name, p in population.parameters.items()}
    if isinstance(population, EventSource) and network.continuous:
        return
    if "threshold" in values:
        yield "threshold", values["threshold"], np.asarray(group.theta)
    if "bias" in values:
        prefix = "b" if network.continuous else "base"
        names = [f"{prefix}_{block}" for block in BLOCKS[population.kernel]]
        theirs = np.concatenate([np.asarray(getattr(group, name)) for name in names])
        mine = values["bias"]
        if population.kernel == "egru_evnn":  # z and r have one bias there, the sum of the two here
            n = population.n_units
            mine = np.concatenate(
                [
                    mine[: 2 * n] + values["recurrent_bias"][: 2 * n],
                    mine[2 * n :],
                    values["recurrent_bias"][2 * n :],
                ]
            )
        yield "bias", mine, theirs
    for name in values:
        if name.startswith("tau") and network.continuous:
            yield name, values[name], np.array([float(group.namespace[name] / _ms())])
    if isinstance(population, LIF):
        yield "reset", np.array([population.reset]), np.array([float(group.namespace["v_reset"])])
    if isinstance(population, LIF) and not network.continuous:
        for tau, name in (("tau_e", "keep_e"), ("tau_i", "keep_i"), ("tau_m", "leak")):
            factor = np.exp(-network.step / values[tau])
            mine = 1 - factor if name == "leak" else factor
            yield tau.replace("tau", "factor"), mine, np.array([float(group.namespace[name])])
    if isinstance(population, LeakyReadout) and not network.continuous:
        yield "decay", np.array([population.decay(network.step)]), np.array([float(group.namespace["k"])])


def _ms() -> Any:
    import brian2

    return brian2.ms


def _brian_units(events: TimedEvents, dt: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Of each Brian2 unit of a source: the unit it stands for, and the value it sends.

    There is one for each value that a unit sends, and more where it sends it several times in one step.
    """
    step = np.maximum(np.ceil(events.time / dt - 1e-9).astype(np.int64) - 1, 0)
    rows = np.stack([step, events.unit, events.value], axis=1)
    each, count = np.unique(rows, axis=0, return_counts=True)
    pairs: dict[tuple[int, float], int] = {}
    for (_, unit, value), times in zip(each, count, strict=True):
        pairs[int(unit), float(value)] = max(pairs.get((int(unit), float(value)), 0), int(times))
    found = sorted((unit, again, value) for (unit, value), n in pairs.items() for again in range(n))
    unit, _, value = np.array(found, float).reshape(-1, 3).T
    return unit.astype(np.int64), value


def _of_projection(
    network: Network, projection: Projection, twin: Any, units: Mapping[str, tuple[NDArray, NDArray]]
) -> Iterator[Entry]:
    synapses, name = twin.synapses[projection.name], projection.name
    row, column = np.asarray(synapses.i), np.asarray(synapses.j)
    payload = np.ones(1 + int(row.max(initial=0)))
    if network.continuous:
        if isinstance(projection.source, EventSource):
            if projection.source.name not in units:
                return
            unit, payload = units[projection.source.name]
            row_here = unit[row]
        else:
            row_here = row
            if isinstance(projection.source, EGRU) and projection.source.transmit == "value":
                payload = np.asarray(projection.source.parameters["threshold"].values, float)
    else:
        row_here = row
    dense = projection.to_scipy().tocsr()
    blocks = projection.target.ports[projection.port]
    n = projection.target.n_units
    mine, theirs, places = [], [], []
    for number, block in enumerate(blocks):
        at = np.stack([row_here, column + number * n], axis=1)
        mine.append(np.asarray(dense[at[:, 0], at[:, 1]]).ravel())
        theirs.append(np.asarray(getattr(synapses, f"w_{block}")) / payload[row])
        places.append(at)
    yield _entry(f"{name}.weight", np.concatenate(mine), np.concatenate(theirs), np.concatenate(places))
    count = sum(part.size for part in mine)
    given = network.continuous and isinstance(
        projection.source, EventSource
    )  # only units that send are there
    if not given and count < projection.n_weights:
        yield Entry(f"{name}.weights", projection.n_weights, float(projection.n_weights - count))
    if network.continuous:
        assert projection.delay is not None
        pairs = projection.pairs()
        delay = np.broadcast_to(projection.delay.values.ravel().astype(float), (len(pairs.target),))
        source = np.repeat(np.arange(projection.source.n_units), np.diff(pairs.ptr))
        at = np.searchsorted(source * n + pairs.target, row_here.astype(np.int64) * n + column)
        wanted = delay[at]
        there = np.asarray(synapses.pre.delay_) * 1000
        there = np.broadcast_to(there, wanted.shape)
        # in Brian2 a delay is a whole number of steps
        steps = np.rint(wanted / twin.dt) * twin.dt
        yield _entry(f"{name}.delay", steps, there, np.stack([row_here, column], axis=1))
