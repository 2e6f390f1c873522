"""The same clocked network as Brian2 objects, run by Brian2, and compared with evsim's own run.

Brian2 (Stimberg, Brette & Goodman 2019, eLife 8:e47314) shares nothing with evsim's core: its events are
found by its thresholds and carried by its `Synapses`.  Equal events and equal states say that both mean the
same by a network.  How a network is written down in Brian2:

- One clock, and a schedule of our own.  Populations take turns in evsim's order (senders of delay-free
  projections first, encoders after what they watch); the turn of population ``p`` has the slots
  ``receive_p``, ``gate_p``, ``advance_p``, ``threshold_p``, ``log_p``, ``reset_p`` and ``record_p``.  A
  projection to p acts in ``receive_p``.  With Brian2's own schedule every layer would lag one step behind the
  one before.
- The delay of a projection is a Brian2 delay.  Where the source takes its turn after the target, or is the
  target, the queue is filled from its last turn, one step ago, and the Brian2 delay is one step shorter.
- A Brian2 event carries no value (Brian2's issue 1056).  So a source keeps what it sent in its last turns,
  ``y_1`` (newest) to ``y_K``, shifts them in each step, and a projection reads the slot as old as its events
  are.  This costs K n_units numbers and as many copies a step, sent or not; K is the longest delay in steps
  (plus one for delays to later turns).
- Events of delta units are found in the same way: the threshold is one on a = h - sent, and the reset moves
  ``sent`` by a.  Their accumulators keep what has arrived; the bias is added in ``advance_p``.  An encoder
  reads h as a linked variable, in a turn of its own after that of the units.
- The gates r of the paper's form of EGRU belong to the sender and need all of its input, so its recurrent
  projections make two passes: u and r in ``receive_p``, then r y through z in ``gate_p``.
- Weights of the blocks of a port are variables of one `Synapses` object.  Sparse blocks may have holes in
  different places: there is a synapse wherever one of them has a weight.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from evsim.brian.library import Target, quiet_brian2
from evsim.comparison import Comparison, compare
from evsim.errors import NetworkError, StimulusError
from evsim.events import Events
from evsim.examples import delta_example, egru_example
from evsim.models import (
    EGRU,
    DeltaEncoder,
    DeltaGRU,
    DeltaLSTM,
    DeltaReadout,
    EventSource,
    LeakyReadout,
    LinearReadout,
)
from evsim.network import Network
from evsim.population import Population
from evsim.projection import Projection

#: What a source is given: `Events` of one lane, or floats, (n_steps, n_units) or (n_steps, 1, n_units).
Stimulus = Events | NDArray
#: Slots of the turn of one population, in order.
SLOTS = ("receive", "gate", "advance", "threshold", "log", "reset", "record")


@dataclass(frozen=True)
class Equations:
    """A unit type in Brian2's terms.

    Attributes
    ----------
    advance : str
        What happens in the slot ``advance``.  Units that send put into ``a`` what they would send.
    state : str
        The variable that is compared; empty if there is none.
    variables : tuple of str
        Other variables that last from step to step.
    blocks : str
        Names of the accumulators, one letter each: projections add to ``in_z``, and ``base_z`` is the bias.
    keeps : bool
        Whether accumulators keep what they have received, from 0; else each step starts from the bias.
    threshold, reset : str, optional
        None for units that send nothing.
    """

    advance: str
    state: str = ""
    variables: tuple[str, ...] = ()
    blocks: str = ""
    keeps: bool = False
    threshold: str | None = None
    reset: str | None = None


_CHANGES: dict[str, Any] = {
    "variables": ("sent",),
    "keeps": True,
    "threshold": "(abs(a) >= theta) and (a != 0)",
    "reset": "y_1 = a; sent += a",
}
#: By kernel of a population.
EQUATIONS = {
    "source": Equations("a = stimulus(t, i)", threshold="a != 0", reset="y_1 = a"),
    "egru_evnn": Equations(
        """
        z = 1/(1 + exp(-in_z))
        r = 1/(1 + exp(-in_r))
        g = tanh(in_g + r*in_q)
        a = z*c + (1 - z)*g
        c = a""",
        state="c",
        blocks="zrgq",
        threshold="a > theta",
        reset="y_1 = a; c = a - theta",
    ),
    "egru_paper": Equations(
        """
        u = 1/(1 + exp(-in_u))
        a = u*tanh(in_z) + (1 - u)*c - y_1
        c = a""",
        state="c",
        blocks="urz",
        threshold="a > theta",
        reset="y_1 = a",
    ),
    "readout": Equations("v = k*v + (1 - k)*in_v", state="v", blocks="v"),
    "delta_source": Equations("a = stimulus(t, i) - sent", **_CHANGES),
    "delta_encoder": Equations("a = h - sent", **_CHANGES),
    "delta_gru": Equations(
        """
        r = 1/(1 + exp(-(in_r + base_r)))
        z = 1/(1 + exp(-(in_z + base_z)))
        h = (1 - z)*tanh(in_n + base_n + r*(in_q + base_q)) + z*h
        a = h - sent""",
        state="h",
        blocks="rznq",
        **_CHANGES,
    ),
    "delta_lstm": Equations(
        """
        input = 1/(1 + exp(-(in_i + base_i)))
        forget = 1/(1 + exp(-(in_f + base_f)))
        output = 1/(1 + exp(-(in_o + base_o)))
        c = forget*c + input*tanh(in_g + base_g)
        h = output*tanh(c)
        a = h - sent""",
        state="h",
        blocks="ifgo",
        **(_CHANGES | {"variables": ("c", "sent")}),
    ),
    "delta_readout": Equations("v = in_v + base_v", state="v", blocks="v", keeps=True),
}
#: Unit types that mean what EQUATIONS say; a subclass may mean anything.
UNITS = (
    EventSource,
    EGRU,
    LeakyReadout,
    LinearReadout,
    DeltaGRU,
    DeltaLSTM,
    DeltaEncoder,
    DeltaReadout,
)


# -- the twin ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class BrianRun:
    """What happened in a Brian2 run.

    Attributes
    ----------
    events : dict of Events
        By population (readouts send none), one lane, values float64.
    states : dict of ndarray, shape (n_steps, n_units), float64
        After each step: EGRU c (after the reset), delta units h, readouts v; sources and encoders have none.
    dt : float
        ms.
    seconds, prepare_seconds : float
        Wall time of the steps, and of the code generation before them.
    version : str
        ``"Brian2 2.9.0, numpy"``: version and code generation target.
    """

    events: dict[str, Events]
    states: dict[str, NDArray[np.float64]]
    dt: float
    seconds: float
    prepare_seconds: float
    version: str


class BrianTwin:
    """A network as Brian2 objects; made by `to_brian2`, see the head of this file.

    Attributes
    ----------
    net : brian2.Network
    groups : dict of brian2.NeuronGroup
        By population.
    synapses : dict of brian2.Synapses
        By projection; those without any weight are left out.
    spikes, traces : dict of brian2.SpikeMonitor, brian2.StateMonitor
        By population.
    """

    def __init__(self, brian2: Any, network: Network, stimulus: Mapping[str, NDArray], n_steps: int):
        populations = _order(network)
        rank = {p.name: number for number, p in enumerate(populations)}
        self.n_steps, self.dt = n_steps, network.step
        self.clock = brian2.Clock(dt=self.dt * brian2.ms, name="evsim_clock*")
        self.groups: dict[str, Any] = {}
        self.synapses: dict[str, Any] = {}
        self.spikes: dict[str, Any] = {}
        self.traces: dict[str, Any] = {}
        for p in populations:
            sent = [_age(q, rank) for q in network.projections.values() if q.source is p]
            values = stimulus.get(p.name, np.zeros((n_steps, p.n_units)))
            self.groups[p.name] = self._group(brian2, p, max([1, *sent]), values)
            self._watch(brian2, p)
        projections = list(network.projections.values())
        projections.sort(key=lambda q: (rank[q.source.name], q.delay_steps, q.name))
        for number, projection in enumerate(projections):
            self._connect(brian2, projection, _age(projection, rank), number)
        parts = (self.groups, self.synapses, self.spikes, self.traces)
        self.net = brian2.Network(*(thing for part in parts for thing in part.values()))
        # start and groups hold the objects themselves, which do nothing there
        turns = [f"{slot}_{p.name}" for p in populations for slot in SLOTS]
        self.net.schedule = ["start", "groups", *turns, "end"]
        self.net.store("fresh")

    def _group(self, brian2: Any, population: Population, n_slots: int, stimulus: NDArray) -> Any:
        equations = EQUATIONS[population.kernel]
        parameters = {name: parameter.values for name, parameter in population.parameters.items()}
        lines = [f"{name} : 1" for name in (equations.state, *equations.variables) if name]
        if population.emits:
            lines += ["a : 1"] + [f"y_{age} : 1" for age in range(1, n_slots + 1)]
        for block in equations.blocks:
            lines += [f"in_{block} : 1", f"base_{block} : 1 (constant)"]
        lines += ["theta : 1 (constant)"] if "threshold" in parameters else []
        lines += ["h : 1 (linked)"] if population.watches is not None else []
        lines += ["r = 1/(1 + exp(-in_r)) : 1"] if population.kernel == "egru_paper" else []
        namespace: dict[str, Any] = {}
        if population.kernel == "readout":
            namespace["k"] = population.decay(self.dt)
        if isinstance(population, EventSource):
            namespace["stimulus"] = brian2.TimedArray(stimulus, dt=self.clock.dt)
        group = brian2.NeuronGroup(
            population.n_units,
            "\n".join(lines),
            threshold=equations.threshold,
            reset=equations.reset,
            clock=self.clock,
            namespace=namespace,
            name=f"evsim_{population.name}*",
        )
        for block, base in _bases(population, parameters).items():
            setattr(group, f"base_{block}", base)
            setattr(group, f"in_{block}", 0 if equations.keeps else base)
        if "threshold" in parameters:
            group.theta = parameters["threshold"]
        if population.watches is not None:
            group.h = brian2.linked_var(self.groups[population.watches.name], "h")
        code = [line.strip() for line in equations.advance.splitlines()]
        if population.emits:
            code += [f"y_{age} = y_{age - 1}" for age in range(n_slots, 1, -1)] + ["y_1 = 0"]
            group.thresholder["spike"].when = f"threshold_{population.name}"
            group.resetter["spike"].when = f"reset_{population.name}"
        if not equations.keeps:
            code += [f"in_{block} = base_{block}" for block in equations.blocks]
        group.run_regularly("\n".join(code), clock=self.clock, when=f"advance_{population.name}")
        return group

    def _watch(self, brian2: Any, population: Population) -> None:
        name, group, state = population.name, self.groups[population.name], EQUATIONS[population.kernel].state
        if population.emits:
            options = {"when": f"log_{name}", "name": f"evsim_{name}_events*"}
            self.spikes[name] = brian2.SpikeMonitor(group, variables="a", **options)
        if state:
            options = {"when": f"record_{name}", "name": f"evsim_{name}_state*", "clock": self.clock}
            self.traces[name] = brian2.StateMonitor(group, state, record=True, **options)

    def _connect(self, brian2: Any, projection: Projection, age: int, number: int) -> None:
        rows, columns, weights = _blocks(projection)
        if not rows.size:
            return
        target = projection.target.name
        # events that are one turn old, y_1, are those of Brian2's delay 0
        delay = (age - 1) * self.clock.dt
        passes = _passes(projection, f"y_{age}_pre")
        synapses = brian2.Synapses(
            self.groups[projection.source.name],
            self.groups[target],
            "\n".join(f"w_{block} : 1 (constant)" for block in weights),
            on_pre=passes,
            delay=dict.fromkeys(passes, delay),
            clock=self.clock,
            namespace={},
            name=f"evsim_projection_{number}*",
        )
        synapses.connect(i=rows, j=columns)
        for block, values in weights.items():
            setattr(synapses, f"w_{block}", values)
        for slot in passes:
            pathway = getattr(synapses, slot)
            pathway.when, pathway.order = f"{slot}_{target}", number
        self.synapses[projection.name] = synapses

    def run(self, target: Target = "numpy") -> BrianRun:
        """Run all steps from the initial state; each call starts afresh.

        Parameters
        ----------
        target : {"numpy", "cython"}
            Brian2's code generation target; cython needs a C++ compiler.

        Raises
        ------
        NetworkError
            Another target, or a Brian2 device that is not its runtime.
        """
        with quiet_brian2(target) as brian2:
            start = time.perf_counter()
            self.net.restore("fresh")
            self.net.run(0 * brian2.second, namespace={})  # generates the code
            ready = time.perf_counter()
            self.net.run(self.n_steps * self.clock.dt, namespace={})
            end = time.perf_counter()
            done = int(self.clock.variables["timestep"].get_value()[0])
        if done != self.n_steps:  # Brian2 answers Ctrl+C by stopping early, without an exception
            raise KeyboardInterrupt(f"Brian2 stopped after {done} of {self.n_steps} steps")
        return BrianRun(
            events={name: self._events(monitor) for name, monitor in self.spikes.items()},
            states={name: np.array(getattr(m, m.record_variables[0])).T for name, m in self.traces.items()},
            dt=self.dt,
            seconds=end - ready,
            prepare_seconds=ready - start,
            version=f"Brian2 {brian2.__version__}, {target}",
        )

    def _events(self, monitor: Any) -> Events:
        step = np.rint(np.asarray(monitor.t_) / self.clock.dt_).astype(np.int64)
        unit, value = np.asarray(monitor.i, dtype=np.int64), np.asarray(monitor.a_)
        form: dict[str, Any] = {"n_units": len(monitor.source), "n_steps": self.n_steps, "dtype": np.float64}
        return Events.from_list(step, np.zeros_like(step), unit, value, n_lanes=1, where="Brian2", **form)


def to_brian2(network: Network, stimulus: Mapping[str, Stimulus], n_steps: int) -> BrianTwin:
    """Write a network down as Brian2 objects.

    Parameters
    ----------
    network : Network
        In float64, of the unit types in UNITS.  Weights are copied.
    stimulus : dict of Events or float array
        By source, of one lane and n_steps; arrays have shape (n_steps, n_units) or (n_steps, 1, n_units).
        A source with a threshold takes them as the values of its lines, as in `Simulation.run`.  Sources that
        are not named are given zeros.
    n_steps : int

    Raises
    ------
    NetworkError
        Something in the network that has no twin in Brian2 here.
    StimulusError
        A stimulus that does not fit the network.
    MissingExtraError
        Brian2 is not installed.
    """
    where = "Brian2 twin"
    if isinstance(n_steps, bool) or not isinstance(n_steps, (int, np.integer)) or n_steps < 1:
        raise NetworkError(where, f"n_steps is {n_steps!r}", "give a positive integer")
    if network.dtype != np.float64:
        raise NetworkError(where, f"the network is in {network.dtype}", "make it with dtype='float64'")
    if network.fixed_point is not None:
        problem = f"the network is in {network.fixed_point!r}, Brian2 computes in floating point"
        raise NetworkError(where, problem, "compare the network it was made from")
    if not network.populations:
        raise NetworkError(where, "the network has no populations", "add() some")
    for population in network.populations.values():
        if type(population) not in UNITS:
            name, kind = population.name, type(population).__name__
            known = ", ".join(unit.__name__ for unit in UNITS)
            problem = f"there are no Brian2 equations for {kind}"
            raise NetworkError(f"population '{name}'", problem, f"compare a network of {known}")
    values = {name: _values(network, name, given, int(n_steps)) for name, given in stimulus.items()}
    with quiet_brian2("numpy") as brian2:
        return BrianTwin(brian2, network, values, int(n_steps))


def _values(network: Network, name: str, given: Stimulus, n_steps: int) -> NDArray[np.float64]:
    """The stimulus of one source, shape (n_steps, n_units)."""
    source, where = network.populations.get(name), f"stimulus '{name}'"
    if not isinstance(source, EventSource):
        names = [p.name for p in network.populations.values() if isinstance(p, EventSource)]
        raise StimulusError(where, "there is no EventSource of that name", f"there are {names}")
    array = given.to_dense() if isinstance(given, Events) else np.asarray(given)
    shapes = (n_steps, 1, source.n_units), (n_steps, source.n_units)
    if array.dtype.kind != "f" or array.shape not in shapes:
        found = repr(given) if isinstance(given, Events) else f"{array.dtype} array of shape {array.shape}"
        wanted = f"{source.n_units} units x 1 lane x {n_steps} steps"
        raise StimulusError(where, f"{found} does not fit", f"give {wanted}, as Events or floats")
    if not np.isfinite(array).all():
        raise StimulusError(where, "holds values that are not finite", "give finite values")
    return array.reshape(n_steps, source.n_units).astype(np.float64)


def _order(network: Network) -> list[Population]:
    """Senders of delay-free projections before their targets, watched ones before encoders, ties by name."""
    first = [(p.source.name, p.target.name) for p in network.projections.values() if p.delay_steps == 0]
    first += [(p.watches.name, p.name) for p in network.populations.values() if p.watches is not None]
    waiting, done = sorted(network.populations), []
    while waiting:
        ready = next(name for name in waiting if not any(t == name and s in waiting for s, t in first))
        waiting.remove(ready)
        done.append(network[ready])
    return done


def _age(projection: Projection, rank: Mapping[str, int]) -> int:
    """How many turns of the source old an event is on arrival, its latest turn counting as one."""
    earlier = rank[projection.source.name] < rank[projection.target.name]
    return projection.delay_steps + (1 if earlier else 0)


def _bases(population: Population, values: Mapping[str, NDArray]) -> dict[str, NDArray]:
    """The bias of each accumulator."""
    blocks = EQUATIONS[population.kernel].blocks
    if population.kernel == "egru_evnn":
        (z, r, g), (recurrent_z, recurrent_r, q) = (
            np.split(values[name], 3) for name in ("bias", "recurrent_bias")
        )
        return {"z": z + recurrent_z, "r": r + recurrent_r, "g": g, "q": q}
    return dict(zip(blocks, np.split(values["bias"], len(blocks)), strict=True)) if blocks else {}


def _passes(projection: Projection, y: str) -> dict[str, str]:
    """Code of a projection by slot; ``y`` is the payload, a variable of the source."""
    kernel = projection.target.kernel
    code = {b: f"in_{b}_post += w_{b}*{y}" for b in projection.target.ports[projection.port]}
    if projection.port == "recurrent" and kernel == "egru_evnn":
        code["g"] = f"in_q_post += w_g*{y}"
    if projection.port == "recurrent" and kernel == "egru_paper":
        return {"receive": f"{code['u']}\n{code['r']}", "gate": f"in_z_post += w_z*r_pre*{y}"}
    return {"receive": "\n".join(code.values())}


def _blocks(projection: Projection) -> tuple[NDArray[np.int64], NDArray[np.int64], dict[str, NDArray]]:
    """Source and target unit of each synapse, and its weight in each block (0 where that block has none)."""
    csr, n = projection.to_scipy(), projection.target.n_units
    row = np.repeat(np.arange(csr.shape[0], dtype=np.int64), np.diff(csr.indptr))
    block, column = np.divmod(csr.indices.astype(np.int64), n)
    pairs, place = np.unique(row * n + column, return_inverse=True)
    weights = {}
    for number, name in enumerate(projection.target.ports[projection.port]):
        weights[name] = np.zeros(pairs.size)
        weights[name][place[block == number]] = csr.data[block == number]
    return pairs // n, pairs % n, weights


# -- comparisons -------------------------------------------------------------------------------------------


def crosscheck(
    network: Network, stimulus: Mapping[str, Stimulus], n_steps: int, target: Target = "numpy"
) -> Comparison:
    """Run a network with evsim and with Brian2, and compare; arguments and errors as of `to_brian2`.

    A delta unit or an encoder with threshold 0 sends whatever changed, be it the last bit.  Once nothing
    arrives any more and h stands still but for rounding, the two may differ by events of about 1e-17.
    """
    from evsim.simulation import Simulation

    twin = to_brian2(network, stimulus, n_steps)
    simulation = Simulation(network)
    populations = network.populations.values()
    sources = [p for p in populations if isinstance(p, EventSource)]
    silent = {p.name: Events.empty(p.n_units, 1, n_steps, np.float64) for p in sources}
    start = time.perf_counter()
    log = simulation.run({**silent, **stimulus}, n_steps * network.step)
    seconds = time.perf_counter() - start
    events = {p.name: e for p in populations if (e := log[p.name].events) is not None}
    states = {p.name: log[p.name].state for p in populations if EQUATIONS[p.kernel].state}
    return compare(events, states, twin.run(target), seconds)


def crosscheck_model(
    model: Literal["egru", "delta_gru", "delta_lstm"], target: Target = "numpy", **options: Any
) -> Comparison:
    """`crosscheck` of an `egru_example` or a `delta_example`, whose parameters are the ``options``."""
    if model == "egru":
        network, events = egru_example(**options)
        return crosscheck(network, events, events["cue"].n_steps, target)
    network, lines = delta_example(unit=model, **options)
    return crosscheck(network, lines, len(lines["lines"]), target)
