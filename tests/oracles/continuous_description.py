"""A network in continuous time as plain arrays, which can be copied and perturbed.

Nothing of evsim is imported: `from_network` reads what a `Network` shows (populations, parameters, weights,
delays).  Arrays are float64 and keep evsim's names and layouts, so that a finite difference of
``parameters["hidden.threshold"]`` compares with the gradient of that name.
"""

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Kind:
    """A type of units.

    ``parameters``: name -> (default, how many per unit; 0: one number for all).  ``ports``: port -> the state
    that each block of weights adds to.
    """

    states: tuple
    main: str
    parameters: dict
    ports: dict
    options: dict
    emits: bool


def _delta(blocks, states, main, port_blocks):
    return Kind(
        (*(f"m_{b}" for b in blocks), *states),
        main,
        {"bias": (0.0, 4), "threshold": (0.1, 1), "tau": (20.0, 0)},
        {port: tuple(f"m_{b}" for b in names) for port, names in port_blocks.items()},
        {},
        True,
    )


_EGRU_BLOCKS = ("a_u", "a_r", "a_z")

KINDS = {
    "source": Kind((), "", {}, {}, {}, True),
    "egru": Kind(
        ("c", *_EGRU_BLOCKS),
        "c",
        {"bias": (0.0, 3), "threshold": (0.3, 1), "tau_m": (20.0, 0), "tau_s": (5.0, 0)},
        {"input": _EGRU_BLOCKS, "recurrent": _EGRU_BLOCKS},
        {"gate": "pre", "transmit": "value"},
        True,
    ),
    "lif": Kind(
        ("v", "i_e", "i_i"),
        "v",
        {
            "bias": (0.0, 1),
            "threshold": (1.0, 1),
            "tau_m": (20.0, 0),
            "tau_e": (5.0, 0),
            "tau_i": (10.0, 0),
        },
        {"excitatory": ("i_e",), "inhibitory": ("i_i",)},
        {"reset": 0.0, "refractory": 0.0},
        True,
    ),
    "delta_gru": _delta("rznq", ("h", "sent"), "h", {"input": "rzn", "recurrent": "rzq"}),
    "delta_lstm": _delta("ifgo", ("c", "h", "sent"), "h", {"input": "ifgo", "recurrent": "ifgo"}),
    "leaky_readout": Kind(("v",), "v", {"bias": (0.0, 1), "tau": (10.0, 0)}, {"input": ("v",)}, {}, False),
    "delta_readout": Kind(("m",), "v", {"bias": (0.0, 1)}, {"input": ("m",)}, {}, False),
}

_CLASSES = {
    "EventSource": "source",
    "EGRU": "egru",
    "LIF": "lif",
    "DeltaGRU": "delta_gru",
    "DeltaLSTM": "delta_lstm",
    "LeakyReadout": "leaky_readout",
    "DeltaReadout": "delta_readout",
}


@dataclass
class Units:
    """A population: ``options`` are what is not differentiated (gate, transmit, reset, refractory)."""

    name: str
    kind: str
    n_units: int
    options: dict = field(default_factory=dict)

    @property
    def traits(self):
        return KINDS[self.kind]


@dataclass
class Wires:
    """A projection; ``indptr`` and ``indices`` (CSR over rows and block * n_target + unit) or None: dense."""

    name: str
    source: str
    target: str
    port: str
    n_blocks: int
    n_targets: int
    indptr: np.ndarray | None = None
    indices: np.ndarray | None = None

    def rows(self):
        """Source unit of each stored weight."""
        return np.repeat(np.arange(len(self.indptr) - 1), np.diff(self.indptr))

    def pairs(self):
        """(source units, target units) that have weights, in the order of their delays."""
        return np.unique(np.stack([self.rows(), self.indices % self.n_targets]), axis=1)


@dataclass
class Description:
    """A network.

    Attributes
    ----------
    populations : dict of str to Units
    projections : dict of str to Wires
    parameters : dict of str to float64 array
        ``"hidden.bias"``, ``"cue->hidden.weight"`` (dense: (n_source, n_blocks * n_target); CSR: (nnz,)),
        ``"cue->hidden.delay"`` ((1,), (n_source, n_target), or (n_pairs,) with CSR weights).
    """

    populations: dict = field(default_factory=dict)
    projections: dict = field(default_factory=dict)
    parameters: dict = field(default_factory=dict)

    def add(self, name, kind, n_units, **values):
        """Add a population; ``values`` are parameters (broadcast) and options, the rest by default."""
        traits = KINDS[kind]
        unknown = set(values) - set(traits.parameters) - set(traits.options)
        if unknown:
            raise TypeError(f"{kind} has no {sorted(unknown)}")
        for key, (default, per_unit) in traits.parameters.items():
            shape = (max(1, per_unit * n_units),)
            given = np.asarray(values.get(key, default), float)
            self.parameters[f"{name}.{key}"] = np.broadcast_to(given, shape).copy()
        options = {key: values.get(key, default) for key, default in traits.options.items()}
        self.populations[name] = Units(name, kind, n_units, options)
        return self

    def connect(self, source, target, weight, port=None, delay=0.0):
        """Connect by weights, dense (n_source, n_blocks * n_target) or SciPy sparse, and delays in ms."""
        here, there = self.populations[source], self.populations[target]
        if port is None:
            recurrent = source == target and "recurrent" in there.traits.ports
            port = "recurrent" if recurrent else next(iter(there.traits.ports))
        name = f"{source}->{target}" + (f".{port}" if f"{source}->{target}" in self.projections else "")
        n_blocks = len(there.traits.ports[port])
        wires = Wires(name, source, target, port, n_blocks, there.n_units)
        shape = (here.n_units, n_blocks * there.n_units)
        if hasattr(weight, "tocsr"):
            csr = weight.tocsr().astype(float)
            csr.sort_indices()
            wires.indptr, wires.indices, weight = csr.indptr, csr.indices, csr.data
        else:
            weight = np.broadcast_to(np.asarray(weight, float), shape)
        self.parameters[f"{name}.weight"] = weight.copy()
        self.parameters[f"{name}.delay"] = np.atleast_1d(np.asarray(delay, float)).copy()
        self.projections[name] = wires
        return self

    def copy(self):
        """The same with parameters of its own."""
        own = {name: values.copy() for name, values in self.parameters.items()}
        return Description(dict(self.populations), dict(self.projections), own)

    def of(self, population):
        """Parameters of a population: bias (blocks, n_units), threshold (n_units,), constants as floats."""
        units = self.populations[population]
        found = {}
        for key, (_, per_unit) in units.traits.parameters.items():
            values = self.parameters[f"{population}.{key}"]
            found[key] = values.reshape(-1, units.n_units) if per_unit else float(values[0])
            if key == "threshold":
                found[key] = found[key][0]
        return found

    def weights(self, projection):
        """Weights (n_source, n_blocks, n_target); delays, and whether there are any: (n_source, n_target)."""
        wires = self.projections[projection]
        n_sources = self.populations[wires.source].n_units
        stored = self.parameters[f"{projection}.weight"]
        delay = self.parameters[f"{projection}.delay"]
        exists = np.ones((n_sources, wires.n_targets), bool)
        if wires.indptr is not None:
            dense = np.zeros((n_sources, wires.n_blocks * wires.n_targets))
            dense[wires.rows(), wires.indices] = stored
            stored = dense
            pairs = wires.pairs()
            exists[:] = False
            exists[pairs[0], pairs[1]] = True
            if delay.size != 1:
                full = np.zeros(exists.shape)
                full[pairs[0], pairs[1]] = delay
                delay = full
        if delay.size == 1:
            delay = np.full(exists.shape, delay.ravel()[0])
        return stored.reshape(n_sources, wires.n_blocks, wires.n_targets), delay, exists


def from_network(net):
    """The description of an evsim `Network` with ``dt=None``, as it is now (arrays are copied)."""
    found = Description()
    for name, population in net.populations.items():
        kind = _CLASSES[type(population).__name__]
        traits = KINDS[kind]
        options = {key: getattr(population, key) for key in traits.options}
        values = {
            key: population.parameters[key].values
            if key in population.parameters
            else getattr(population, key)
            for key in traits.parameters
        }
        found.add(name, kind, population.n_units, **values, **options)
    for name, projection in net.projections.items():
        target = projection.target
        wires = Wires(
            name,
            projection.source.name,
            target.name,
            projection.port,
            projection.shape[1] // target.n_units,
            target.n_units,
            None if projection.indptr is None else np.array(projection.indptr),
            None if projection.indices is None else np.array(projection.indices),
        )
        delay = getattr(projection, "delay", None)
        found.projections[name] = wires
        found.parameters[f"{name}.weight"] = projection.weight.values.astype(float)
        found.parameters[f"{name}.delay"] = np.zeros(1) if delay is None else delay.values.astype(float)
    return found
