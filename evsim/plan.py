"""A plan: a network flattened into contiguous rows of numbers.  Units of measure and strings end here."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evsim.core.biases import Biases
from evsim.core.layout import FIXED, KINDS, POPULATION, PROJECTION, PlanTable
from evsim.errors import NetworkError
from evsim.models import LIF, EventSource
from evsim.network import Network
from evsim.population import Population
from evsim.projection import Projection

#: What the replay needs of each step, by kernel: (n_units) reals each, in this order.
TAPES: dict[str, tuple[str, ...]] = {
    "source": (),
    "egru_evnn": ("z", "r", "g", "q", "a"),
    "egru_paper": ("u", "z", "r", "p", "a"),
    "lif": ("v", "a", "e", "i", "held"),
    "readout": ("v",),
    "delta_source": (),
    "delta_encoder": (),
    "delta_gru": ("r", "z", "n", "q", "h"),
    "delta_lstm": ("i", "f", "g", "o", "c", "h"),
    "delta_readout": ("v",),
}
#: Accumulators, by kernel and port: the block that each block of columns is added to.
ACCUMULATORS: dict[str, dict[str, tuple[int, ...]]] = {
    "source": {},
    "egru_evnn": {"input": (0, 1, 2), "recurrent": (0, 1, 3)},
    "egru_paper": {"input": (0, 1, 2), "recurrent": (0, 1, 2)},
    "lif": {"excitatory": (0,), "inhibitory": (1,)},
    "readout": {"input": (0,)},
    "delta_source": {},
    "delta_encoder": {},
    "delta_gru": {"input": (0, 1, 2), "recurrent": (0, 1, 3)},
    "delta_lstm": {"input": (0, 1, 2, 3), "recurrent": (0, 1, 2, 3)},
    "delta_readout": {"input": (0,)},
}
#: Carried states, by kernel; where accumulators are kept from step to step they come first.
STATES: dict[str, tuple[str, ...]] = {
    "source": (),
    "egru_evnn": ("c",),
    "egru_paper": ("c", "y"),
    "lif": ("v", "i_e", "i_i", "hold"),
    "readout": ("v",),
    "delta_source": ("sent",),
    "delta_encoder": ("sent",),
    "delta_gru": ("m_r", "m_z", "m_n", "m_q", "h", "sent"),
    "delta_lstm": ("m_i", "m_f", "m_g", "m_o", "c", "h", "sent"),
    "delta_readout": ("m",),
}
#: What a log tells of a population: name, name of its type, units, kernel, whether it sends, and its live
#: thresholds or None.
Member = tuple[str, str, int, str, bool, NDArray | None]
#: See `Plan.heavy`.
HEAVY = 2_000_000
#: So many accumulators of one lane can be told apart by the 16-bit columns of sparse weights.
FEW_ACCUMULATORS = 2**16
#: Kernels that take a stimulus: as events, or as lines whose changes they send.
SOURCES = ("source", "delta_source")


class Plan:
    """A network in the form the core runs: populations and projections as rows of integers and addresses.

    The order is canonical: components of populations that reach each other in the order of flow, inside them
    populations after those that reach them at once, ties by name; the projections into a population by
    (source, delay, name).  So the order in which a network was put together does not matter.

    Parameters
    ----------
    network : Network
        Later changes of parameter *values* are seen; populations or projections added later are not.  Narrow
        weights cannot change.

    Attributes
    ----------
    network : Network
    description : dict
        `Network.describe` at the time the plan was made.
    populations, projections : list of Population, Projection
        In canonical order.
    components : list of int
        Of each population: the component it belongs to, counted in order.
    members : list of Member
    sources : list of Population
        Those that need a stimulus.
    source_names : set of str
    parameters : dict of str to ndarray
        Every parameter array by name, and the structure of sparse weights; live, not to be replaced.
    biased : list of (int, Population)
        Populations with biases, and their place among all.
    thresholded : list of (str, int, int)
        Name, place and units of those with thresholds.
    projection_names, weight_names : list of str
    weight_shapes : list of tuple of int
    n_weights : dict of str to int
        Stored weights of each projection.
    sizes : list of (int, int)
        Accumulators and carried reals of one lane of each population.
    n_accumulators : int
        Of all populations.
    dense : list of int
        Projections, by index, whose products can be made ahead of the loop over time; see
        `evsim.dense_products`.
    history : list of int
        Longest outgoing delay of each population, in steps.
    longest : int
        Longest of all.
    heavy : bool
        Whether some recurrent projection is dense, not narrow, and so large (`HEAVY` weights) that several
        threads that share one lane, and wait for each other in every step, are faster than one.
    table : PlanTable
    """

    def __init__(self, network: Network):
        if not network.populations:
            raise NetworkError("network", "has no populations", "add() some first")
        self.network = network
        self.description = network.describe()
        self.dtype = network.dtype
        self.dt = network.step
        self.populations, self.components = _in_order(network)
        self.sources = [p for p in self.populations if p.kernel in SOURCES]
        self.rank = {population.name: rank for rank, population in enumerate(self.populations)}
        self.projections = sorted(
            network.projections.values(),
            key=lambda p: (self.rank[p.target.name], self.rank[p.source.name], p.delay_steps, p.name),
        )
        self.history = [
            max([p.delay_steps for p in self.projections if p.source is population], default=0)
            for population in self.populations
        ]
        self.longest = max(self.history)
        component = dict(zip(self.populations, self.components, strict=True))
        self.heavy = any(
            not p.is_sparse
            and p.narrow is None
            and p.n_weights >= HEAVY
            and component[p.source] == component[p.target]
            for p in self.projections
        )
        self.kernels = [population.kernel for population in self.populations]
        self.source_names = {population.name for population in self.sources}
        self.members: list[Member] = [
            (
                p.name,
                type(p).__name__,
                p.n_units,
                p.kernel,
                p.emits,
                p.parameters["threshold"].values if "threshold" in p.parameters else None,
            )
            for p in self.populations
        ]
        self.biased = [(rank, p) for rank, p in enumerate(self.populations) if "bias" in p.parameters]
        self.thresholded = [
            (p.name, rank, p.n_units)
            for rank, p in enumerate(self.populations)
            if "threshold" in p.parameters
        ]
        self.projection_names = [projection.name for projection in self.projections]
        self.weight_names = [projection.weight.name for projection in self.projections]
        self.weight_shapes = [projection.weight.values.shape for projection in self.projections]
        self.n_weights = {projection.name: projection.n_weights for projection in self.projections}
        self.parameters = _arrays(network)
        self._arrays: list[NDArray] = []
        self._bases, self._biases = self._make_bases()
        self._numbers: dict[str, NDArray[np.float64]] = {}
        self.population_rows = np.zeros(len(self.populations), POPULATION)
        self.projection_rows = np.zeros(len(self.projections), PROJECTION)
        self.population_rows["fixed"] = self._fixed_format()
        for rank, population in enumerate(self.populations):
            self._fill_population(rank, population)
        for index, projection in enumerate(self.projections):
            self._fill_projection(index, projection)
        self.dense = np.nonzero(self.projection_rows["dense"])[0].tolist()
        self.sizes = [(int(row["n_in"]), int(row["n_state"])) for row in self.population_rows]
        self.n_accumulators = sum(n_in for n_in, _ in self.sizes)
        self.table = PlanTable(
            self.population_rows, self.projection_rows, self.dtype == np.float64, self._arrays
        )

    def __repr__(self) -> str:
        return f"Plan({len(self.populations)} populations, {len(self.projections)} projections, {self.dtype})"

    @property
    def schedule(self) -> str:
        """The order of things within one step, to be read by people."""
        lines = ["every step, in every lane:"]
        for rank, population in enumerate(self.populations):
            if self.kernels[rank] == "source":
                lines.append(f"  {population.name}: send the stimulus of this step")
                continue
            if not population.ports:
                line = "the stimulus" if population.watches is None else f"'{population.watches.name}'"
                lines.append(f"  {population.name}: send the changes of {line}")
                continue
            held = population.takes == "changes"
            start = "are kept" if held else "= 0" if isinstance(population, LIF) else "= biases"
            lines.append(f"  {population.name}: accumulators {start}")
            for p in self.projections:
                if p.target is population:
                    when = (
                        "this step"
                        if p.delay_steps == 0
                        else f"{p.delay_steps} step{'s' * (p.delay_steps > 1)} ago"
                    )
                    ahead = ", made ahead for many steps" if self.projections.index(p) in self.dense else ""
                    lines.append(
                        f"    receive events of '{p.source.name}' of {when} on port '{p.port}' "
                        f"({p.name}{ahead})"
                    )
            sends = ", send and log changes" if held else ", threshold, send and log events, reset"
            lines.append("    advance" + (sends if population.emits else ", log"))
        return "\n".join(lines)

    def refresh(self) -> None:
        """Compute what the core is to be given of the present values of parameters.

        That is the numbers of a step of LIF units, which follow from their time constants.  To be called
        before each run and replay.
        """
        for name, numbers in self._numbers.items():
            unit = self.network[name]
            assert isinstance(unit, LIF)
            numbers[:] = *unit.propagator(self.dt), unit.reset, unit.held_steps(self.dt)

    def bases(self) -> list[NDArray | None]:
        """What each population adds to what it receives: the biases, shape (n_in,), or None.

        Those of LIF units, whose biases do not go into the currents, are zero.  The arrays are the plan's:
        the next call writes into them.
        """
        self._biases.add()
        return self._bases

    def _make_bases(self) -> tuple[list[NDArray | None], Biases]:
        """What `bases` gives, and what computes it where it is not a parameter as it is."""
        bases: list[NDArray | None] = []
        sums: list[tuple[NDArray, NDArray, NDArray]] = []
        for kernel, population in zip(self.kernels, self.populations, strict=True):
            n, parameters = population.n_units, population.parameters
            base = parameters["bias"].values if "bias" in parameters else None
            if base is not None and kernel == "egru_evnn":
                bias, recurrent, base = base, parameters["recurrent_bias"].values, np.empty(4 * n, self.dtype)
                sums.append((bias, recurrent, base))
            elif kernel == "lif":
                base = np.zeros(2 * n, self.dtype)
            bases.append(base)
        return bases, Biases(sums, self.dtype == np.float64)

    def _fill_population(self, rank: int, population: Population) -> None:
        row, kernel, n = self.population_rows[rank], population.kernel, population.n_units
        blocks = max((max(port) + 1 for port in ACCUMULATORS[kernel].values()), default=0)
        into = [i for i, p in enumerate(self.projections) if p.target is population]
        row["kind"], row["n"], row["n_in"] = KINDS[kernel], n, blocks * n
        row["n_state"], row["n_tape"] = len(STATES[kernel]) * n, len(TAPES[kernel]) * n
        row["in_first"], row["in_stop"] = (into[0], into[-1] + 1) if into else (0, 0)
        if "threshold" in population.parameters:
            row["threshold"] = self._address(population.parameters["threshold"].values)
        row["decay"], row["component"] = population.decay(self.dt), self.components[rank]
        if isinstance(population, LIF):
            row["bias"] = self._address(population.parameters["bias"].values)
            self._numbers[population.name] = np.zeros(7)
            row["numbers"] = self._address(self._numbers[population.name])
        if population.watches is not None:
            names = STATES[population.watches.kernel]
            row["watched"], row["watched_at"] = self.rank[population.watches.name], names.index("h") * n

    def _fixed_format(self) -> int:
        """The address of the network's FixedFormat; 0 in floating point."""
        fixed_point, row = self.network.fixed_point, np.zeros(1, FIXED)
        if fixed_point is None:
            return 0
        form = fixed_point.activations
        row["scale"], row["step"] = 1 / form.step, form.step
        row["low"], row["high"] = form.low / form.step, form.high / form.step
        for name in ("logistic", "hyperbolic_tangent"):
            table = getattr(fixed_point, name)
            row[f"{name}_reach"] = table.reach
            row[name] = self._address(table.values) + table.reach * table.values.itemsize
        return self._address(row)

    def _fill_projection(self, index: int, projection: Projection) -> None:
        row, n = self.projection_rows[index], projection.target.n_units
        places = ACCUMULATORS[projection.target.kernel][projection.port]
        row["source"], row["target"] = self.rank[projection.source.name], self.rank[projection.target.name]
        row["delay"], row["recurrent"] = projection.delay_steps, projection.port == "recurrent"
        row["n_blocks"], row["block"] = projection.n_blocks, n
        row["dense"] = (
            isinstance(projection.source, EventSource)
            and projection.source.dense
            and not projection.is_sparse
            and projection.narrow is None
            and projection.target.takes != "changes"  # those keep their accumulators
        )
        row["offset"][: len(places)] = [place * n for place in places]
        if projection.narrow is None:
            row["weight"] = self._address(projection.weight.values)
        else:
            row["narrow"], row["weight"] = projection.narrow.bits, self._address(projection.narrow.words)
            if projection.narrow.scale is not None:
                row["scale"] = self._address(projection.narrow.scale)
        if projection.indptr is not None and projection.indices is not None:
            # Rows are cut into blocks: column b * n + i of a row is column i of its block b, and leads to
            # accumulator places[b] * n + i.  The values stay where they are.
            block = projection.indices // n + projection.n_blocks * np.repeat(
                np.arange(projection.shape[0]), np.diff(projection.indptr)
            )
            count = np.bincount(block, minlength=projection.shape[0] * projection.n_blocks)
            row["block_ptr"] = self._address(np.concatenate([[0], np.cumsum(count)]).astype(np.int64))
            column = np.array(places)[projection.indices // n] * n + projection.indices % n
            row["wide"] = (max(places) + 1) * n > FEW_ACCUMULATORS
            row["column"] = self._address(column.astype(np.int32 if row["wide"] else np.uint16))

    def _address(self, array: NDArray) -> int:
        self._arrays.append(array)  # kept alive as long as the plan holds the address
        return array.ctypes.data


def _arrays(network: Network) -> dict[str, NDArray]:
    arrays = {name: parameter.values for name, parameter in network.parameters().items()}
    for p in network.projections.values():
        if p.indptr is not None and p.indices is not None:
            arrays |= {f"{p.name}.indptr": p.indptr, f"{p.name}.indices": p.indices}
    return arrays


def _in_order(network: Network) -> tuple[list[Population], list[int]]:
    """Populations, each after all that reach it without delay, and the component of each.

    Populations that reach each other, or watch each other's states, form a component.  Components come in the
    order in which events flow through them; where that leaves a choice, by name.
    """
    waiting = dict(sorted(network.populations.items()))
    names = list(waiting)
    n = len(names)
    reaches = np.eye(n, dtype=bool)
    for p in network.projections.values():
        reaches[names.index(p.source.name), names.index(p.target.name)] = True
    for name, population in waiting.items():
        if population.watches is not None:
            watched = names.index(population.watches.name), names.index(name)
            reaches[watched] = reaches[watched[::-1]] = True
    for via in range(n):  # Warshall's closure
        reaches |= np.outer(reaches[:, via], reaches[via])
    component = {
        name: int(np.argmax(row & column))
        for name, row, column in zip(names, reaches, reaches.T, strict=True)
    }
    direct = {
        name: {
            p.source.name
            for p in network.projections.values()
            if p.target is population and p.delay_steps == 0
        }
        | ({population.watches.name} if population.watches is not None else set())
        for name, population in waiting.items()
    }
    ordered: list[Population] = []
    members: list[int] = []
    while waiting:
        # The first component that nothing outside it still has to run before, ...
        mine = next(
            component[name]
            for name in waiting
            if all(
                component[other] == component[name] or not reaches[names.index(other), names.index(name)]
                for other in waiting
            )
        )
        # ... and its populations, those first that no other of them reaches at once.
        while inside := [name for name in waiting if component[name] == mine]:
            name = next(name for name in inside if not direct[name] & set(inside))
            ordered.append(waiting.pop(name))
            members.append(mine)
    ranks = {number: rank for rank, number in enumerate(dict.fromkeys(members))}
    return ordered, [ranks[number] for number in members]
