"""The same network in continuous time in Brian2's terms: a `Description` of it.

Brian2 (Stimberg, Brette & Goodman 2019, eLife 8:e47314) steps: states move by dt, then thresholds are tested,
what was sent arrives, and senders are reset.  So an event happens at the end of the step in which the state
crosses the threshold, up to dt late, and Brian2's event times tend to the exact ones in proportion to dt:
`evsim.brian.order_of_convergence` measures that.  How a network is written down in Brian2:

- Brian2's own schedule and integrators: ``exact`` for what is linear (LIF, delta units between arrivals,
  leaky readouts), for the state c of EGRU a method of choice, by default ``rk4``.
- An event of step k is taken to be at (k + 1) dt.  External events arrive at the end of the step in which
  they fall.  Delays become whole numbers of steps, each by itself, and refractory periods too.
- A Brian2 event carries no value (Brian2's issue 1056).  Most payloads are constants of the unit that sends
  and go into the weights: thresholds of EGRU, 1.  An external source has a Brian2 unit for each value that
  a unit of its sends (and, where steps are so long that it sends twice in one, a second), with its weights
  scaled.
- What does change from event to event - the change h - sent of delta units, the reset gate r of an EGRU that
  is the sender - is kept by the sender in ``slots``, one event after the other.  A synapse counts its
  arrivals, which come in the order in which they were sent, and so knows the slot to read.  That is right as
  long as no unit has more events on their way than there are slots, which is checked after the run.
- The gate r of a target is read when an event arrives.  Of events that arrive in one step, those of one
  source come before those of the next.  Those of one projection see the same r where Brian2 runs them by
  NumPy; where they are compiled, each sees what the one before has left.  The difference vanishes with dt.
- An event that is caused at the instant of another (of a `DeltaLSTM`, by its output gate) is a step late.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evsim.brian.description import Code, Description, Generator, Group, Monitor, Synapses, Values, same
from evsim.errors import NetworkError, StimulusError
from evsim.models import EGRU, LIF, DeltaGRU, DeltaLSTM, DeltaReadout, EventSource, LeakyReadout
from evsim.network import Network
from evsim.population import Population
from evsim.projection import Projection
from evsim.timed_events import TimedEvents

#: Events of one source: `TimedEvents` of one lane, or (time, lane, unit, value).
Stimulus = TimedEvents | tuple[ArrayLike, ArrayLike, ArrayLike, ArrayLike]
#: {population: {state: array that broadcasts to (1, n_units)}}.
InitialStates = Mapping[str, Mapping[str, ArrayLike]]
#: Brian2's integrators of the state of EGRU.
Method = Literal["rk4", "rk2", "exponential_euler", "euler"]
METHODS = ("rk4", "rk2", "exponential_euler", "euler")
#: Time constants nearer to each other than this (relative) leave ``exact`` a difference of equal numbers.
NEAR = 1e-3
#: More slots for payloads than this are refused.
MOST_SLOTS = 64


@dataclass(frozen=True)
class Equations:
    """A unit type in Brian2's terms.

    Attributes
    ----------
    text : str
        Differential equations and subexpressions; ``b_x`` are biases, ``theta`` the threshold.
    state : str
        What is compared.
    biases : tuple of str
        Names of the blocks of the bias.
    prefix : str
        Of the variables to which the blocks of a port are added.
    threshold, reset : str, optional
        None for readouts.
    """

    text: str
    state: str
    biases: tuple[str, ...]
    prefix: str = ""
    threshold: str | None = None
    reset: str | None = None


_SENDS_CHANGES: dict[str, Any] = {
    "prefix": "m_",
    "threshold": "abs(h - sent) >= theta",
    # not sent = h: the output gate of an LSTM may have changed by what arrived in this step
    "reset": "sent += change",
}
#: By kernel of a population.
EQUATIONS = {
    "egru_continuous": Equations(
        """
        da_u/dt = (b_u - a_u)/tau_s : 1
        da_r/dt = (b_r - a_r)/tau_s : 1
        da_z/dt = (b_z - a_z)/tau_s : 1
        u = 1/(1 + exp(-a_u)) : 1
        r = 1/(1 + exp(-a_r)) : 1
        z = tanh(a_z) : 1
        dc/dt = u*(z - c)/tau_m : 1""",
        state="c",
        biases=("u", "r", "z"),
        prefix="a_",
        threshold="c >= theta",
        reset="c = 0",
    ),
    "lif": Equations(
        """
        dv/dt = (i_e + i_i + b_v - v)/tau_m : 1 (unless refractory)
        di_e/dt = -i_e/tau_e : 1
        di_i/dt = -i_i/tau_i : 1""",
        state="v",
        biases=("v",),
        threshold="v >= theta",
        reset="v = v_reset",
    ),
    "delta_gru": Equations(
        """
        r = 1/(1 + exp(-(m_r + b_r))) : 1
        z = 1/(1 + exp(-(m_z + b_z))) : 1
        candidate = tanh(m_n + b_n + r*(m_q + b_q)) : 1
        dh/dt = (1 - z)*(candidate - h)/tau : 1
        m_r : 1
        m_z : 1
        m_n : 1
        m_q : 1""",
        state="h",
        biases=("r", "z", "n", "q"),
        **_SENDS_CHANGES,
    ),
    "delta_lstm": Equations(
        """
        input = 1/(1 + exp(-(m_i + b_i))) : 1
        forget = 1/(1 + exp(-(m_f + b_f))) : 1
        output = 1/(1 + exp(-(m_o + b_o))) : 1
        dc/dt = (input*tanh(m_g + b_g) - (1 - forget)*c)/tau : 1
        h = output*tanh(c) : 1
        m_i : 1
        m_f : 1
        m_g : 1
        m_o : 1""",
        state="h",
        biases=("i", "f", "g", "o"),
        **_SENDS_CHANGES,
    ),
    "readout": Equations("dv/dt = (b_v - v)/tau : 1", state="v", biases=("v",)),
    "delta_readout": Equations("m : 1\nv = m + b_v : 1", state="v", biases=("v",)),
}
#: Unit types that mean what EQUATIONS say; a subclass may mean anything.
UNITS = (EventSource, EGRU, LIF, DeltaGRU, DeltaLSTM, LeakyReadout, DeltaReadout)
#: What senders may have to keep of an event, and where it comes from.
_KEPT = {"change": "(h - sent)", "gate": "r"}
#: How a script of such a network is to be read.
ABOUT = """\
The network is one in continuous time.  Brian2 steps: an event happens at the end of the step in which
a state crosses its threshold, up to one step late; the shorter the step, the nearer are its times to the
exact ones.  External events arrive at the end of the step in which they fall."""
#: What is said besides, where payloads differ from event to event.
ABOUT_KEPT = """

Some events carry values that differ from one to the next, and Brian2's carry none: a sender puts the
values of its last events aside, one slot after the other, and a synapse, which counts its arrivals, knows
the slot to read."""


# -- the description ---------------------------------------------------------------------------------------


def describe_continuous(
    network: Network,
    stimulus: Mapping[str, Stimulus],
    duration: float,
    dt: float,
    *,
    sampled: bool = False,
    initial: InitialStates | None = None,
    method: Method = "rk4",
    slots: int = 4,
) -> Description:
    """Write a network in continuous time down in Brian2's terms.

    Parameters
    ----------
    network : Network
        With ``dt=None``, of the unit types in UNITS.  Weights are copied.
    stimulus : dict of TimedEvents or (time, lane, unit, value)
        By source, of lane 0, times in [0, duration).  Sources that are not named are silent.
    duration : float
        ms, from 0.
    dt : float
        Brian2's step in ms.  Delays and refractory periods become whole numbers of steps.
    sampled : bool
        Whether states are recorded, at the start of each step.
    initial : dict of dict of array, optional
        States at the start, by population and name; otherwise at rest.
    method : {"rk4", "rk2", "exponential_euler", "euler"}
        Brian2's integrator of the state c of EGRU.
    slots : int
        How many events of a unit, whose payloads differ, may be on their way at one time.

    Raises
    ------
    NetworkError
        Something in the network that has no twin in Brian2 here.
    StimulusError
        A stimulus that does not fit the network.
    """
    where, initial = "Brian2 twin", initial or {}
    if not network.continuous:
        raise NetworkError(where, f"the network has dt = {network.dt} ms", "use evsim.brian.to_brian2")
    if not network.populations:
        raise NetworkError(where, "the network has no populations", "add() some")
    for what, number in (("duration", duration), ("dt", dt)):
        if not (isinstance(number, (int, float, np.number)) and math.isfinite(number) and number > 0):
            raise NetworkError(where, f"{what} is {number!r}", "give a positive number of ms")
    if method not in METHODS:
        raise NetworkError(where, f"method is {method!r}", f"use one of {', '.join(METHODS)}")
    if not (isinstance(slots, (int, np.integer)) and 1 <= slots <= MOST_SLOTS):
        raise NetworkError(where, f"slots is {slots!r}", f"give an integer from 1 to {MOST_SLOTS}")
    for population in network.populations.values():
        if type(population) not in UNITS:
            name, kind = population.name, type(population).__name__
            known = ", ".join(unit.__name__ for unit in UNITS)
            problem = f"there are no Brian2 equations for {kind}"
            raise NetworkError(f"population '{name}'", problem, f"compare a network of {known}")
    for name in initial:
        if name not in network.populations or isinstance(network[name], EventSource):
            raise NetworkError(where, f"initial states of '{name}'", "give those of populations with states")
    duration, dt = float(duration), float(dt)
    events = timed_stimulus(network, stimulus, duration)
    groups: dict[str, Group | Generator] = {}
    units: dict[str, NDArray[np.int64]] = {}
    reach = _reach(network, dt)
    for name in sorted(network.populations):
        population = network[name]
        if isinstance(population, EventSource):
            groups[name], units[name] = _generator(population, events[name], dt)
        else:
            kept = {_kept(p) for p in network.projections.values() if p.source is population} - {""}
            begin, options = initial.get(name, {}), (int(slots), reach.get(name, 0))
            groups[name] = _group(population, sorted(kept), begin, method, dt, *options)
            units[name] = np.arange(population.n_units)
    # of events that arrive in one step, those of the source that comes first
    projections = sorted(network.projections.values(), key=lambda p: (p.source.name, p.name))
    synapses = {}
    for number, projection in enumerate(projections):
        name = projection.source.name
        made = _synapses(projection, units[name], groups[name].payload, int(slots), dt, number)
        if made is not None:
            synapses[projection.name] = made
    own = [network[name] for name in groups if not isinstance(network[name], EventSource)]
    carried = {p.name: "change" if _sends_changes(p) else None for p in own if p.emits}
    return Description(
        dt=dt,
        n_steps=math.ceil(duration / dt - 1e-9),
        about=ABOUT + (ABOUT_KEPT if reach else ""),
        groups=groups,
        synapses=synapses,
        spikes={name: Monitor(name, what, "after_thresholds", 1) for name, what in carried.items()},
        states={p.name: Monitor(p.name, EQUATIONS[p.kernel].state) for p in own if sampled},
    )


def _reach(network: Network, dt: float) -> dict[str, int]:
    """The longest delay, in steps, of a projection that reads what events keep, by its source."""
    found: dict[str, int] = {}
    for projection in network.projections.values():
        if _kept(projection) and projection.delay is not None and projection.pairs().target.size:
            longest = int(np.rint(projection.delay.values.astype(np.float64).max() / dt))
            name = projection.source.name
            found[name] = max(found.get(name, 0), longest)
    return found


def _generator(source: EventSource, events: TimedEvents, dt: float) -> tuple[Generator, NDArray[np.int64]]:
    """The events of a source; which unit of the source each unit of the group is."""
    # an event in (k dt, (k + 1) dt] arrives at the end of step k
    step = np.maximum(np.ceil(events.time / dt - 1e-9).astype(np.int64) - 1, 0)
    # in one step a Brian2 unit sends once: count how often before a unit has sent this value in this step
    order = np.lexsort((events.value, events.unit, step))
    columns = np.stack([step, events.unit, events.value], axis=1)[order]
    place = np.arange(len(order))
    again = np.r_[False, (columns[1:] == columns[:-1]).all(axis=1)][: len(order)]
    before = np.empty(len(order))
    before[order] = place - np.maximum.accumulate(np.where(again, 0, place))
    columns = np.stack([events.unit, before, events.value], axis=1)
    own, index = np.unique(columns, axis=0, return_inverse=True)
    title = f"EventSource, {source.n_units} units: one here for each value that one of them sends"
    size = max(1, len(own))
    payload = own[:, 2] if len(own) else np.zeros(1)
    unit = own[:, 0].astype(np.int64)
    return Generator(source.name, title, size, index.ravel().astype(np.int64), step, payload), unit


def _group(
    population: Population,
    kept: Sequence[str],
    initial: Mapping[str, ArrayLike],
    method: Method,
    dt: float,
    slots: int,
    reach: int,
) -> Group:
    equations, values = EQUATIONS[population.kernel], _values(population)
    text = [line.strip() for line in equations.text.strip().splitlines()]
    text += [f"b_{block} : 1 (constant)  # bias" for block in equations.biases]
    text += ["theta : 1 (constant)  # threshold"] if population.emits else []
    if _sends_changes(population):
        text += ["sent : 1  # sum of all that was sent", "change : 1  # what would be sent"]
    text += [f"{what}_{slot} : 1" for what in kept for slot in range(slots)]
    text += ["n_sent : integer"] if kept else []
    reset = [line for line in (equations.reset, "n_sent += 1" if kept else None) if line]
    constants, refractory = {}, None
    if isinstance(population, LIF):
        constants["v_reset"] = population.reset
        # the step of the event counts: Brian2 holds v from the step after it
        steps = round(population.refractory / dt)
        refractory = steps + 1 if steps or "hold" in initial else None
    begin: dict[str, Any] = dict(
        zip(
            (f"b_{block}" for block in equations.biases),
            np.split(values["bias"], len(equations.biases)),
            strict=True,
        )
    )
    if population.emits:
        begin["theta"] = values["threshold"]
    states, lastspike = _states(population, initial, values, dt)
    code = _keep(population, kept, slots)
    return Group(
        name=population.name,
        title=_title(population),
        n=population.n_units,
        equations="\n".join(text),
        threshold=equations.threshold,
        reset="\n".join(reset) or None,
        refractory=refractory,
        method=_integrator(population, values, method),
        constants=constants,
        times={name: value for name, value in values.items() if name.startswith("tau")},
        values={name: same(np.asarray(value)) for name, value in (begin | states).items()},
        lastspike=lastspike,
        regular=Code(code, "after_thresholds") if code else None,
        payload=None if _sends_changes(population) else _payloads(population),
        slots=slots if kept else 0,
        reach=reach,
    )


def _title(population: Population) -> str:
    """Type, size and variant."""
    kind = f"{type(population).__name__}, {population.n_units} units"
    if isinstance(population, EGRU):
        kind += f", reset gate {population.gate}, events worth "
        kind += "their threshold" if population.transmit == "value" else "1"
    if isinstance(population, LIF) and population.refractory:
        kind += f", refractory for {population.refractory:g} ms"
    return kind


def _keep(population: Population, kept: Sequence[str], slots: int) -> str:
    """What is done between thresholds and arrivals: senders put aside what their events carry."""
    lines = ["change = h - sent"] if _sends_changes(population) else []
    if kept:
        lines.append(f"fires = int({EQUATIONS[population.kernel].threshold})")
    for slot in range(slots if kept else 0):
        lines.append(f"here = fires*int(n_sent % {slots} == {slot})")
        lines += [f"{what}_{slot} = {what}_{slot}*(1 - here) + {_KEPT[what]}*here" for what in kept]
    return "\n".join(lines)


def _states(
    population: Population, initial: Mapping[str, ArrayLike], values: Mapping[str, Any], dt: float
) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.int64] | None]:
    """States at rest, or those that are given; and the step of the last event, where that matters."""
    found: dict[str, Any] = {}
    lastspike = None
    if isinstance(population, EGRU):
        found = dict(zip(("a_u", "a_r", "a_z"), np.split(values["bias"], 3), strict=True))
    elif isinstance(population, LIF):
        found = {"v": np.full(population.n_units, population.reset)}
    elif isinstance(population, LeakyReadout):
        found = {"v": values["bias"]}
    for state, given in initial.items():
        if state not in population.states:
            problem, remedy = f"there is no state '{state}'", f"it has {list(population.states)}"
            raise NetworkError(f"population '{population.name}'", problem, remedy)
        full = np.broadcast_to(np.asarray(given, np.float64), (1, population.n_units))[0]
        if isinstance(population, LIF) and state == "hold":
            # as if the last event had been as long ago
            lastspike = (np.rint((full - population.refractory) / dt) - 1).astype(np.int64)
        elif (population.kernel, state) != ("delta_lstm", "h"):  # which follows from c and m_o
            found[state] = full
    return found, lastspike


def _synapses(
    projection: Projection,
    unit: NDArray[np.int64],
    payload: NDArray[np.float64] | None,
    slots: int,
    dt: float,
    number: int,
) -> Synapses | None:
    """None without weights or events; ``unit``: which unit of the source each Brian2 unit of its group is."""
    pairs = projection.pairs()
    count = np.diff(pairs.ptr)[unit]
    if not count.sum():
        return None
    row = np.repeat(np.arange(len(unit)), count)
    pair = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
    pair += np.repeat(pairs.ptr[unit], count)
    blocks = projection.target.ports[projection.port]
    text = [f"w_{block} : 1 (constant)" for block in blocks]
    text += ["arrived : integer"] if _kept(projection) and slots > 1 else []
    stored = np.append(projection.weight.values.ravel().astype(np.float64), 0.0)  # [-1]: no weight
    weights: dict[str, Values] = {}
    for block, where in zip(blocks, pairs.where.T, strict=True):
        worth = 1.0 if payload is None else payload[row]
        weights[f"w_{block}"] = same(stored[where[pair]] * worth)
    assert projection.delay is not None  # in continuous time they have one
    delay = projection.delay.values.ravel().astype(np.float64)
    steps = np.rint((delay[pair] if delay.size > 1 else np.full(len(pair), delay[0])) / dt).astype(np.int64)
    return Synapses(
        name=projection.name,
        source=projection.source.name,
        target=projection.target.name,
        equations="\n".join(text),
        i=row,
        j=pairs.target[pair].astype(np.int64),
        weights=weights,
        on_pre={"pre": Code(_on_arrival(projection, slots), "synapses", number)},
        delay=int(steps[0]) if (steps == steps[0]).all() else steps,
    )


# -- what a network means ----------------------------------------------------------------------------------


def _values(population: Population) -> dict[str, Any]:
    """Parameters: arrays of float64, and time constants as floats."""
    found: dict[str, Any] = {}
    for name, parameter in population.parameters.items():
        values = parameter.values.astype(np.float64)
        found[name] = float(values[0]) if name.startswith("tau") else values
    return found


def _sends_changes(population: Population) -> bool:
    return isinstance(population, (DeltaGRU, DeltaLSTM))


def _payloads(population: Population) -> NDArray[np.float64]:
    """What the events of each unit are worth, where that is a constant."""
    if isinstance(population, EGRU) and population.transmit == "value":
        return _values(population)["threshold"]
    return np.ones(population.n_units)


def _kept(projection: Projection) -> str:
    """What its source has to keep of an event until it arrives: a name in _KEPT, or nothing."""
    target = projection.target
    if _sends_changes(projection.source):
        return "change"
    gated = isinstance(target, EGRU) and target.gate == "pre" and projection.port == "recurrent"
    return "gate" if gated else ""


def _integrator(population: Population, values: Mapping[str, Any], method: Method) -> str:
    """The name of Brian2's integrator."""
    if isinstance(population, EGRU):
        return method
    if isinstance(population, LIF):
        near = (math.isclose(values["tau_m"], values[tau], rel_tol=NEAR) for tau in ("tau_e", "tau_i"))
        return "rk4" if any(near) else "exact"
    return "exact"


def _on_arrival(projection: Projection, slots: int) -> str:
    """Code of a synapse; payloads that are constants are in its weights."""
    target, kept = projection.target, _kept(projection)
    prefix = EQUATIONS[target.kernel].prefix
    states = {b: f"{prefix}{b}" for b in target.ports[projection.port]}
    if isinstance(target, DeltaReadout):
        states = {"v": "m"}
    factors = dict.fromkeys(states, "*kept" if kept == "change" else "")
    if isinstance(target, EGRU) and projection.port == "recurrent":
        factors["z"] += {"pre": "*kept", "post": "*r_post", "none": ""}[target.gate]
    # z first: an arrival is gated by the r before it
    lines = [f"{states[b]}_post += w_{b}{factors[b]}" for b in sorted(states, reverse=True)]
    if not kept:
        return "\n".join(lines)
    if slots == 1:
        return "\n".join([f"kept = {kept}_0_pre", *lines])
    read = [f"{kept}_{slot}_pre*int(arrived % {slots} == {slot})" for slot in range(slots)]
    return "\n".join([f"kept = {read[0]}", *(f"kept += {one}" for one in read[1:]), *lines, "arrived += 1"])


def sample_times(samples: ArrayLike | None, duration: float) -> NDArray[np.float64]:
    times = np.zeros(0) if samples is None else np.asarray(samples, np.float64)
    inside = times.ndim == 1 and np.isfinite(times).all() and (np.diff(times) > 0).all()
    if not inside or (times.size and not 0 <= times[0] <= times[-1] <= duration):
        remedy = f"give increasing times from 0 to {duration:g} ms, in one dimension"
        raise StimulusError("samples", "are not times of the run", remedy)
    return times


def timed_stimulus(
    network: Network, stimulus: Mapping[str, Stimulus], duration: float
) -> dict[str, TimedEvents]:
    """The events of all sources, of one lane, in [0, duration)."""
    sources = {p.name: p for p in network.populations.values() if isinstance(p, EventSource)}
    found = {}
    for name, source in sources.items():
        found[name] = TimedEvents.empty(source.n_units, 1, 0.0, duration)
    for name, given in stimulus.items():
        where = f"stimulus '{name}'"
        if name not in sources:
            raise StimulusError(where, "there is no EventSource of that name", f"there are {[*sources]}")
        if isinstance(given, TimedEvents):
            given = given.time, given.lane, given.unit, given.value
        window = {"start": 0.0, "stop": duration}
        found[name] = TimedEvents.from_list(
            *given, n_units=sources[name].n_units, n_lanes=1, where=where, **window
        )
    return found
