"""A plan in continuous time: a network as the rows of numbers that the event-driven core reads."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from evsim.core.continuous import FANS, FLOWS, UNITS, Table
from evsim.core.memory import zeros
from evsim.errors import NetworkError
from evsim.memory import is_mapped
from evsim.network import Network
from evsim.population import Population
from evsim.projection import Projection

#: Of each kernel: how many states a loss may look at, how many it keeps, and which one is sampled.
SLOTS = {
    "source": (0, 0, 0),
    "egru_continuous": (4, 6, 0),
    "lif": (4, 4, 0),
    "delta_gru": (6, 6, 4),
    "delta_lstm": (7, 7, 5),
    "readout": (1, 1, 0),
    "delta_readout": (1, 1, 0),
}
#: State that each block of a port is added to.
PORTS: dict[str, dict[str, tuple[int, ...]]] = {
    "egru_continuous": {"input": (1, 2, 3), "recurrent": (1, 2, 3)},
    "lif": {"excitatory": (1,), "inhibitory": (2,)},
    "delta_gru": {"input": (0, 1, 2), "recurrent": (0, 1, 3)},
    "delta_lstm": {"input": (0, 1, 2, 3), "recurrent": (0, 1, 2, 3)},
    "readout": {"input": (0,)},
    "delta_readout": {"input": (0,)},
}
#: Time constants, by kernel, in the order of the core.
TIME_CONSTANTS: dict[str, tuple[str, ...]] = {
    "source": (),
    "egru_continuous": ("tau_m", "tau_s"),
    "lif": ("tau_m", "tau_e", "tau_i"),
    "delta_gru": ("tau",),
    "delta_lstm": ("tau",),
    "readout": ("tau",),
    "delta_readout": (),
}
#: Orders p of the series of EGRU's c (egru_series.h), and the error of a step as a multiple of q^(p + 1), and
#: of 1.5 tau_s / tau_m where that is below 1: the largest among 4000 random states, inputs and biases for
#: each of the ratios 1/4, 1 and 4 (of 3, 5 and 7 rounded up).
SERIES = {3: 0.45, 4: 0.35, 5: 0.3, 6: 0.26, 7: 0.28, 9: 0.2, 14: 0.12}
#: Snapshots are so many of the shortest time constants apart.
SNAPSHOT_TIME_CONSTANTS = 2.0
#: Crossings further ahead than so many of a unit's shortest time constants are not located yet, but bounded:
#: what arrives meanwhile would make that useless, and a bound costs a tenth.
SOON_TIME_CONSTANTS = 0.02
N_CONSTANTS = 11


class ContinuousPlan:
    """A network in continuous time in the form the core runs.

    The order is canonical: populations by name, but those that can send at the instant of an arrival after
    all that reach them at once; projections by (source, target, name).

    Parameters
    ----------
    network : Network
        With ``dt=None``.  Later changes of parameter *values* are seen; populations or projections added
        later are not.

    Attributes
    ----------
    network : Network
    description : dict
        `Network.describe` at the time the plan was made.
    populations, projections : list of Population, Projection
        In canonical order.
    rank : dict of str to int
        Place of each population by name.
    sources : list of Population
        Those that need a stimulus.
    parameters : dict of str to ndarray
        Every parameter array by name, and the structure of sparse weights; live, not to be replaced.
    every : float
        ms from one snapshot of a recorded run to the next.
    table : Table
    """

    def __init__(self, network: Network):
        if not network.continuous:
            raise NetworkError("network", f"has steps of {network.step:g} ms", "use Plan, or dt=None")
        if not network.populations:
            raise NetworkError("network", "has no populations", "add() some first")
        self.network = network
        self.description = network.describe()
        self.populations = _in_order(network)
        self.rank = {population.name: rank for rank, population in enumerate(self.populations)}
        self.projections = sorted(
            network.projections.values(),
            key=lambda p: (self.rank[p.source.name], self.rank[p.target.name], p.name),
        )
        self.sources = [p for p in self.populations if p.kernel == "source"]
        self.parameters = {name: parameter.values for name, parameter in network.parameters().items()}
        for p in self.projections:
            if p.indptr is not None and p.indices is not None:
                self.parameters |= {f"{p.name}.indptr": p.indptr, f"{p.name}.indices": p.indices}
        self._arrays: dict[object, NDArray] = {}
        self._delays: dict[str, NDArray] = {}
        self._taken: tuple[object, ...] = ()  # what `refresh` has found, checked and taken over
        self.unit_rows = np.zeros(len(self.populations), UNITS)
        self.fan_rows = np.zeros(len(self.projections), FANS)
        for rank, population in enumerate(self.populations):
            self._fill_units(rank, population)
        for index, projection in enumerate(self.projections):
            self._fill_fan(index, projection)
        self.table = Table(self.unit_rows, self.fan_rows, self._arrays)
        self.every = 0.0
        self.refresh(1e-12)

    def __repr__(self) -> str:
        return f"ContinuousPlan({len(self.populations)} populations, {len(self.projections)} projections)"

    @property
    def delays(self) -> dict[str, NDArray[np.float64]]:
        """The delays in use, flat, by name of projection; other arrays once they have changed."""
        return dict(self._delays)

    @property
    def schedule(self) -> str:
        """The order of things at one instant, to be read by people."""
        lines = [
            "at every instant at which something happens, in every lane:",
            "  samples: all states as they are just before",
            "  external events, by population and unit",
        ]
        lines += [f"    from '{p.name}'" for p in self.sources]
        lines += [
            "  arrivals of delayed events, by sender",
            "  crossings of thresholds, by population and unit",
        ]
        for population in self.populations:
            if population.emits and population.kernel != "source":
                lines.append(f"    of '{population.name}': log the event, reset, then what arrives at once")
                lines += [
                    f"      at '{p.target.name}' on port '{p.port}' ({p.name})"
                    for p in self.projections
                    if p.source is population and p.delay is not None and not p.delay.values.all()
                ]
        return "\n".join(lines)

    def refresh(self, tolerance: float) -> None:
        """Take over the present values of parameters that the core has copies of: all but weights.

        ``tolerance`` is the error of EGRU's c in one step of its integration.
        """
        for index, projection in enumerate(self.projections):
            self._fill_delays(index, projection)
        now = tolerance, *self._present()
        if now == self._taken:
            return
        self._taken, shortest = (), [np.inf]
        for rank, population in enumerate(self.populations):
            parameters, kernel = population.parameters, population.kernel
            names = TIME_CONSTANTS[kernel]
            taus = [float(parameters[name].values[0]) for name in names]
            blocks = [parameters[name].values for name in ("bias", "threshold") if name in parameters]
            for parameter in parameters.values():
                parameter.check(parameter.values)
            shortest += taus
            constants = self._arrays["constants", rank]
            constants[: len(taus)] = taus
            self.unit_rows[rank]["soon"] = SOON_TIME_CONSTANTS * min(taus, default=1.0)
            if kernel == "egru_continuous":
                trained = any(parameters[name].trainable for name in names)
                ratio = min(1.5 * taus[1] / taus[0], 1.0)
                series = [min((tolerance / (e * ratio)) ** (1 / (p + 1)), 0.5) for p, e in SERIES.items()]
                unit = getattr(population, "transmit", "value") == "unit"
                constants[2:] = trained, unit, *series
            elif kernel == "lif":
                constants[3:5] = getattr(population, "reset", 0.0), getattr(population, "refractory", 0.0)
            par, n = self._arrays["par", rank], population.n_units
            if blocks:
                values = np.concatenate(blocks, dtype=np.float64).reshape(-1, n)
                par[: len(values), :n] = values
                if kernel == "egru_continuous":  # limits of u and z, for bounds
                    par[4, :n] = 1 / (1 + np.exp(-values[0]))
                    par[5, :n] = np.tanh(values[2])
        self.every = SNAPSHOT_TIME_CONSTANTS * min(shortest) if np.isfinite(min(shortest)) else 1e3
        self._taken = now

    def _present(self) -> Iterator[object]:
        """What `refresh` takes over of the units, to be compared."""
        for population in self.populations:
            yield getattr(population, "reset", None)
            yield getattr(population, "refractory", None)
            for parameter in population.parameters.values():
                yield parameter.values.tobytes()
                yield parameter.trainable

    def _fill_units(self, rank: int, population: Population) -> None:
        row, kernel, n = self.unit_rows[rank], population.kernel, population.n_units
        stride = -(-n // 8) * 8
        row["kind"], row["n"], row["stride"] = FLOWS[kernel], n, stride
        row["n_state"], row["n_slot"], row["main"] = SLOTS[kernel]
        own = [p for p in population.parameters if p in ("bias", "threshold")]
        n_par = sum(population.parameters[name].values.size for name in own) // n
        row["n_par"] = n_par + 2 * (kernel == "egru_continuous")
        row["own_gate"] = any(p.source is population and _gated(p) for p in self.projections)
        out = [i for i, p in enumerate(self.projections) if p.source is population]
        row["out_first"], row["out_stop"] = (out[0], out[-1] + 1) if out else (0, 0)
        row["first"] = sum(p.n_units for p in self.populations[:rank])
        shape = max(int(row["n_par"]), 1), stride
        row["par"] = self._keep(("par", rank), zeros(shape, np.dtype(np.float64)))
        row["constants"] = self._keep(("constants", rank), np.zeros(N_CONSTANTS))

    def _fill_fan(self, index: int, projection: Projection) -> None:
        row, target = self.fan_rows[index], projection.target
        row["source"], row["target"] = self.rank[projection.source.name], self.rank[target.name]
        row["n_blocks"], row["wide"] = projection.n_blocks, self.network.dtype == np.float64
        row["gated"] = _gated(projection)
        row["post"] = projection.port == "recurrent" and getattr(target, "gate", "") == "post"
        row["slot"][: projection.n_blocks] = PORTS[target.kernel][projection.port]
        row["weight"] = self._keep(("weight", index), projection.weight.values)
        if is_mapped(projection.weight.values):
            row["taken"] = self._keep(("taken", index), np.zeros(projection.source.n_units, np.bool_))

    def _fill_delays(self, index: int, projection: Projection) -> None:
        """The pairs of a projection in the order of its delays, if those have changed."""
        row = self.fan_rows[index]
        assert projection.delay is not None  # in continuous time
        if _same(projection.delay.values.ravel(), self._delays.get(projection.name)):
            return
        projection.delay.check(projection.delay.values)
        now = projection.delay.values.astype(np.float64).ravel()
        self._delays[projection.name] = now
        one = now.size == 1
        row["delay"] = self._keep(("delay", index), now)
        if one and not projection.is_sparse:
            return
        pairs = projection.pairs()
        ptr, target, where = pairs.ptr, pairs.target, pairs.where
        if not one:
            source = np.repeat(np.arange(projection.source.n_units), np.diff(ptr))
            order = np.lexsort((target, now, source))
            target, where = target[order], where[order]
            row["delay"] = self._keep(("delay", index), now[order])
            row["pair"] = self._keep(("pair", index), order.astype(np.int64))
        row["ptr"] = self._keep(("ptr", index), np.ascontiguousarray(ptr, np.int64))
        row["unit"] = self._keep(("unit", index), np.ascontiguousarray(target, np.int32))
        if not (one and projection.n_blocks == 1):
            row["where"] = self._keep(("where", index), np.ascontiguousarray(where, np.int64))

    def _keep(self, key: object, array: NDArray) -> int:
        self._arrays[key] = array  # alive as long as the plan holds the address
        return array.ctypes.data


def _same(now: NDArray, before: NDArray | None) -> bool:
    """Whether values are those of before; NaN never is."""
    return before is not None and now.size == before.size and bool((now == before).all())


def _in_order(network: Network) -> list[Population]:
    """Populations by name; those that cascade behind their senders without delay.

    So a unit that several events reach at one instant has received all of them before it sends.
    """
    depth = dict.fromkeys(sorted(network.populations), 0)
    for _ in depth:
        for p in network.projections.values():
            at_once = p.delay is None or not p.delay.values.all()
            if p.target.cascades and at_once:
                depth[p.target.name] = max(depth[p.target.name], depth[p.source.name] + 1)
    return [network.populations[name] for name in sorted(depth, key=lambda name: (depth[name], name))]


def _gated(projection: Projection) -> bool:
    """Whether the sender's reset gate acts on what is sent."""
    return projection.port == "recurrent" and getattr(projection.target, "gate", "") == "pre"
