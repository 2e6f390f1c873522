"""The same clocked network in Brian2's terms: a `Description` of it.

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

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evsim.brian.description import Code, Description, Group, Monitor, Synapses, same
from evsim.errors import NetworkError, StimulusError
from evsim.events import Events
from evsim.models import (
    EGRU,
    LIF,
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
    blocks : str or tuple of str
        Names of the accumulators, such as ``zrgq``: projections add to ``in_z``, and ``base_z`` is the bias.
    keeps : bool
        Whether accumulators keep what they have received, from 0; else each step starts from the bias.
    threshold, reset : str, optional
        None for units that send nothing.
    """

    advance: str
    state: str = ""
    variables: tuple[str, ...] = ()
    blocks: str | tuple[str, ...] = ""
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
    "lif": Equations(
        """
        held = int(hold > 0)
        i_e += in_i_e
        i_i += in_i_i
        v = (1 - held)*(v + ((in_v - v)*leak + (i_e*gain_e + i_i*gain_i))) + held*v_reset
        i_e *= keep_e
        i_i *= keep_i
        hold = held*(hold - 1)
        a = 1""",
        state="v",
        variables=("i_e", "i_i", "hold"),
        blocks=("i_e", "i_i", "v"),  # what arrives goes into the first two, the bias is the third
        threshold="v >= theta",
        reset="y_1 = 1; v = v_reset; hold = held_steps",
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
    LIF,
    LeakyReadout,
    LinearReadout,
    DeltaGRU,
    DeltaLSTM,
    DeltaEncoder,
    DeltaReadout,
)

#: How a script of such a network is to be read.
ABOUT = """\
The network is one in steps.  A step is one turn of each group, in the order of the schedule below.  In its
turn a group takes what has arrived ("receive", "gate"), moves on by one step ("advance") and sends what its
threshold lets through.  States are what run_regularly computes; there are no differential equations.

Events carry values, and Brian2's carry none: a sender keeps those of its last turns, y_1 (newest), y_2, ...,
and synapses read the one that is as old as their delay."""
#: What variables are, for those who read the equations.
MEANING = {
    "a": "what would be sent",
    "c": "the state",
    "h": "the state",
    "v": "the state",
    "i_e": "current of the port 'excitatory'",
    "i_i": "current of the port 'inhibitory'",
    "hold": "steps for which v is still held",
    "sent": "what has been sent so far",
}


# -- the description ---------------------------------------------------------------------------------------


def describe_steps(network: Network, stimulus: Mapping[str, Stimulus], n_steps: int) -> Description:
    """Write a network in steps down in Brian2's terms.

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
    populations = _order(network)
    rank = {p.name: number for number, p in enumerate(populations)}
    groups = {}
    for p in populations:
        sent = [_age(q, rank) for q in network.projections.values() if q.source is p]
        given = values.get(p.name, np.zeros((int(n_steps), p.n_units)))
        groups[p.name] = _group(p, max([1, *sent]), given, network.step)
    projections = list(network.projections.values())
    projections.sort(key=lambda q: (rank[q.source.name], q.delay_steps, q.name))
    synapses = {
        projection.name: made
        for number, projection in enumerate(projections)
        if (made := _synapses(projection, _age(projection, rank), number)) is not None
    }
    watched = {p.name: EQUATIONS[p.kernel].state for p in populations}
    return Description(
        dt=network.step,
        n_steps=int(n_steps),
        about=ABOUT,
        groups=groups,
        synapses=synapses,
        spikes={p.name: Monitor(p.name, "a", f"log_{p.name}") for p in populations if p.emits},
        states={name: Monitor(name, state, f"record_{name}") for name, state in watched.items() if state},
        # start and groups hold the objects themselves, which do nothing there
        schedule=("start", "groups", *(f"{slot}_{p.name}" for p in populations for slot in SLOTS), "end"),
    )


def _group(population: Population, n_slots: int, stimulus: NDArray[np.float64], dt: float) -> Group:
    equations, name = EQUATIONS[population.kernel], population.name
    parameters = {name: parameter.values for name, parameter in population.parameters.items()}
    own = [name for name in (equations.state, *equations.variables) if name]
    lines = [_line(name, MEANING.get(name, "")) for name in own]
    if population.emits:
        lines.append(_line("a", MEANING["a"]))
        lines.append(_line("y_1", "what was sent in the last turn, 0 if nothing"))
        lines += [_line(f"y_{age}", f"{age} turns ago") for age in range(2, n_slots + 1)]
    for block in equations.blocks:
        lines.append(_line(f"in_{block}", "what has arrived" if equations.keeps else "bias and what arrives"))
        lines.append(f"base_{block} : 1 (constant)")
    lines += ["theta : 1 (constant)"] if "threshold" in parameters else []
    if population.watches is not None:
        lines.append(f"h : 1 (linked)  # that of {population.watches.name}")
    if population.kernel == "egru_paper":
        lines.append("r = 1/(1 + exp(-in_r)) : 1  # gate of what is sent")
    values: dict[str, Any] = {}
    for block, base in _bases(population, parameters).items():
        values[f"base_{block}"] = base
        values[f"in_{block}"] = 0.0 if equations.keeps else base
    if "threshold" in parameters:
        values["theta"] = parameters["threshold"]
    values |= {state: float(value) for state, value in population.rest.items()}
    code = [line.strip() for line in equations.advance.strip().splitlines()]
    if population.emits:
        code += [f"y_{age} = y_{age - 1}" for age in range(n_slots, 1, -1)] + ["y_1 = 0"]
    if not equations.keeps:
        code += [f"in_{block} = base_{block}" for block in equations.blocks]
    source, watches = isinstance(population, EventSource), population.watches
    return Group(
        name=name,
        title=_title(population),
        n=population.n_units,
        equations="\n".join(lines),
        threshold=equations.threshold,
        reset=equations.reset,
        turn={what: f"{what}_{name}" for what in ("threshold", "reset")} if population.emits else {},
        constants=_constants(population, dt),
        stimulus=stimulus if source else None,
        values={key: value if isinstance(value, float) else same(value) for key, value in values.items()},
        linked={} if watches is None else {"h": (watches.name, "h")},
        regular=Code("\n".join(code), f"advance_{name}"),
        slots=n_slots if population.emits else 0,
    )


def _constants(population: Population, dt: float) -> dict[str, float]:
    """What the equations need of a step of ``dt`` ms."""
    if isinstance(population, LIF):
        held = {"v_reset": population.reset, "held_steps": float(population.held_steps(dt))}
        return population.propagator(dt)._asdict() | held
    return {"k": population.decay(dt)} if isinstance(population, LeakyReadout) else {}


def _line(variable: str, meaning: str) -> str:
    return f"{variable} : 1" + (f"  # {meaning}" if meaning else "")


def _title(population: Population) -> str:
    """Type, size and form."""
    form = f", form {population.form}" if isinstance(population, EGRU) else ""
    if isinstance(population, LIF) and population.refractory:
        form = f", refractory for {population.refractory:g} ms"
    return f"{type(population).__name__}, {population.n_units} units{form}"


def _synapses(projection: Projection, age: int, number: int) -> Synapses | None:
    """None if there is no weight at all."""
    rows, columns, weights = _blocks(projection)
    if not rows.size:
        return None
    target = projection.target.name
    passes = _passes(projection, f"y_{age}_pre")
    return Synapses(
        name=projection.name,
        source=projection.source.name,
        target=target,
        equations="\n".join(f"w_{block} : 1 (constant)" for block in weights),
        i=rows,
        j=columns,
        weights={f"w_{block}": same(values) for block, values in weights.items()},
        on_pre={slot: Code(code, f"{slot}_{target}", number) for slot, code in passes.items()},
        # events that are one turn old, y_1, are those of Brian2's delay 0
        delay=age - 1,
    )


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
    if population.kernel == "lif":
        rest = np.zeros_like(values["bias"])
        return {"i_e": rest, "i_i": rest, "v": values["bias"]}
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
