"""The same network in continuous time as Brian2 objects, run by Brian2 at falling steps, and compared.

Brian2 (Stimberg, Brette & Goodman 2019, eLife 8:e47314) steps: states move by dt, then thresholds are tested,
what was sent arrives, and senders are reset.  So an event happens at the end of the step in which the state
crosses the threshold, up to dt late, and Brian2's event times tend to the exact ones in proportion to dt:
`order_of_convergence` measures that.  How a network is written down in Brian2:

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
- The gate r of a target is read when an event arrives, and events that arrive in one step are taken one by
  one, in the order of their sources.
- An event that is caused at the instant of another (of a `DeltaLSTM`, by its output gate) is a step late.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evsim.brian.library import Target, quiet_brian2
from evsim.continuous_comparison import ContinuousComparison, Convergence, TimedRun, compare_timed
from evsim.errors import NetworkError, StimulusError
from evsim.examples import continuous_example
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
#: Steps in ms, each half of the one before.
STEPS = (0.1, 0.05, 0.025, 0.0125, 0.00625)
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


# -- the twin ----------------------------------------------------------------------------------------------


class ContinuousTwin:
    """A network in continuous time as Brian2 objects; made by `to_brian2_continuous`.

    Attributes
    ----------
    net : brian2.Network
    groups : dict of brian2.NeuronGroup or brian2.SpikeGeneratorGroup
        By population.
    synapses : dict of brian2.Synapses
        By projection; those without any weight, or without events, are left out.
    spikes, traces : dict of brian2.SpikeMonitor, brian2.StateMonitor
        By population.
    n_steps : int
    dt : float
        ms.
    slots : int
        Events that a unit may have on their way at one time.
    """

    def __init__(
        self,
        brian2: Any,
        network: Network,
        stimulus: Mapping[str, TimedEvents],
        duration: float,
        dt: float,
        samples: NDArray[np.float64],
        initial: InitialStates,
        method: Method,
        slots: int,
    ):
        self.dt, self.duration, self.samples, self.slots = dt, duration, samples, slots
        self.n_steps = math.ceil(duration / dt - 1e-9)
        self.clock = brian2.Clock(dt=dt * brian2.ms, name="evsim_clock*")
        self.groups: dict[str, Any] = {}
        self.synapses: dict[str, Any] = {}
        self.spikes: dict[str, Any] = {}
        self.traces: dict[str, Any] = {}
        #: By population: what each of its Brian2 units sends, if that is a constant.
        self.payloads: dict[str, NDArray[np.float64]] = {}
        #: By population: the longest delay, in steps, of a projection that reads what its events keep
        self.longest: dict[str, int] = {}
        units: dict[str, NDArray[np.int64]] = {}
        populations = [network[name] for name in sorted(network.populations)]
        for population in populations:
            name = population.name
            if isinstance(population, EventSource):
                made = self._source(brian2, population, stimulus[name])
                self.groups[name], units[name], self.payloads[name] = made
            else:
                kept = {_kept(p) for p in network.projections.values() if p.source is population} - {""}
                begin = initial.get(name, {})
                self.groups[name] = self._group(brian2, population, sorted(kept), method, "hold" in begin)
                self._begin(population, begin)
                units[name], self.payloads[name] = np.arange(population.n_units), _payloads(population)
                self._watch(brian2, population)
        # of events that arrive in one step, those of the source that comes first
        projections = sorted(network.projections.values(), key=lambda p: (p.source.name, p.name))
        for number, projection in enumerate(projections):
            self._connect(brian2, projection, units[projection.source.name], number)
        parts = (self.groups, self.synapses, self.spikes, self.traces)
        self.net = brian2.Network(*(thing for part in parts for thing in part.values()))
        self.net.store("fresh")

    def _source(self, brian2: Any, source: EventSource, events: TimedEvents) -> tuple[Any, NDArray, NDArray]:
        """The group of a source; which unit of the source each of its units is, and the value it sends."""
        # an event in (k dt, (k + 1) dt] arrives at the end of step k
        step = np.maximum(np.ceil(events.time / self.dt - 1e-9).astype(np.int64) - 1, 0)
        # in one step a Brian2 unit sends once: count how often before a unit has sent this value in this step
        order = np.lexsort((events.value, events.unit, step))
        columns = np.stack([step, events.unit, events.value], axis=1)[order]
        place = np.arange(len(order))
        again = np.r_[False, (columns[1:] == columns[:-1]).all(axis=1)][: len(order)]
        before = np.empty(len(order))
        before[order] = place - np.maximum.accumulate(np.where(again, 0, place))
        columns = np.stack([events.unit, before, events.value], axis=1)
        own, index = np.unique(columns, axis=0, return_inverse=True)
        group = brian2.SpikeGeneratorGroup(
            max(1, len(own)),
            index.ravel(),
            (step + 0.5) * self.clock.dt,
            clock=self.clock,
            name=f"evsim_{source.name}*",
        )
        return group, own[:, 0].astype(np.int64), own[:, 2]

    def _group(
        self, brian2: Any, population: Population, kept: Sequence[str], method: Method, held: bool
    ) -> Any:
        equations, values = EQUATIONS[population.kernel], _values(population)
        text = [line.strip() for line in equations.text.strip().splitlines()]
        text += [f"b_{block} : 1 (constant)" for block in equations.biases]
        text += ["theta : 1 (constant)"] if population.emits else []
        text += ["sent : 1", "change : 1"] if _sends_changes(population) else []
        text += [f"{what}_{slot} : 1" for what in kept for slot in range(self.slots)]
        text += ["n_sent : integer"] if kept else []
        reset = [line for line in (equations.reset, "n_sent += 1" if kept else None) if line]
        constants = {name: value * brian2.ms for name, value in values.items() if name.startswith("tau")}
        options: dict[str, Any] = {}
        if isinstance(population, LIF):
            constants["v_reset"] = population.reset
            # the step of the event counts: Brian2 holds v from the step after it
            steps = round(population.refractory / self.dt)
            options["refractory"] = (steps + 1) * self.clock.dt if steps or held else False
        group = brian2.NeuronGroup(
            population.n_units,
            "\n".join(text),
            threshold=equations.threshold,
            reset="\n".join(reset) or None,
            method=_integrator(population, values, method),
            clock=self.clock,
            namespace=constants,
            name=f"evsim_{population.name}*",
            **options,
        )
        for block, bias in zip(
            equations.biases, np.split(values["bias"], len(equations.biases)), strict=True
        ):
            setattr(group, f"b_{block}", bias)
        if population.emits:
            group.theta = values["threshold"]
        if code := self._keep(population, kept):
            group.run_regularly(code, clock=self.clock, when="after_thresholds")
        return group

    def _keep(self, population: Population, kept: Sequence[str]) -> str:
        """What is done between thresholds and arrivals: senders put aside what their events carry."""
        lines = ["change = h - sent"] if _sends_changes(population) else []
        if kept:
            lines.append(f"fires = int({EQUATIONS[population.kernel].threshold})")
        for slot in range(self.slots if kept else 0):
            lines.append(f"here = fires*int(n_sent % {self.slots} == {slot})")
            lines += [f"{what}_{slot} = {what}_{slot}*(1 - here) + {_KEPT[what]}*here" for what in kept]
        return "\n".join(lines)

    def _begin(self, population: Population, initial: Mapping[str, ArrayLike]) -> None:
        """States at rest, or those that are given."""
        name, group, values = population.name, self.groups[population.name], _values(population)
        if isinstance(population, EGRU):
            group.a_u, group.a_r, group.a_z = np.split(values["bias"], 3)
        elif isinstance(population, LIF):
            group.v = population.reset
        elif isinstance(population, LeakyReadout):
            group.v = values["bias"]
        for state, given in initial.items():
            if state not in population.states:
                problem, remedy = f"there is no state '{state}'", f"it has {list(population.states)}"
                raise NetworkError(f"population '{name}'", problem, remedy)
            full = np.broadcast_to(np.asarray(given, np.float64), (1, population.n_units))[0]
            if isinstance(population, LIF) and state == "hold":
                # as if the last event had been as long ago
                group.lastspike = (np.rint((full - population.refractory) / self.dt) - 1) * self.clock.dt
            elif (population.kernel, state) != ("delta_lstm", "h"):  # which follows from c and m_o
                setattr(group, state, full)

    def _watch(self, brian2: Any, population: Population) -> None:
        name, group, state = population.name, self.groups[population.name], EQUATIONS[population.kernel].state
        if population.emits:
            variables = "change" if _sends_changes(population) else None
            options = {"when": "after_thresholds", "order": 1, "name": f"evsim_{name}_events*"}
            self.spikes[name] = brian2.SpikeMonitor(group, variables=variables, **options)
        if len(self.samples):
            options = {"name": f"evsim_{name}_state*", "clock": self.clock}
            self.traces[name] = brian2.StateMonitor(group, state, record=True, **options)

    def _connect(self, brian2: Any, projection: Projection, unit: NDArray, number: int) -> None:
        """Synapses; ``unit``: which unit of the source each Brian2 unit of its group is."""
        pairs, payload = projection.pairs(), self.payloads[projection.source.name]
        count = np.diff(pairs.ptr)[unit]
        if not count.sum():
            return
        row = np.repeat(np.arange(len(unit)), count)
        pair = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
        pair += np.repeat(pairs.ptr[unit], count)
        blocks = projection.target.ports[projection.port]
        code, kept = _on_arrival(projection, self.slots), _kept(projection)
        text = [f"w_{block} : 1 (constant)" for block in blocks]
        text += ["arrived : integer"] if kept and self.slots > 1 else []
        synapses = brian2.Synapses(
            self.groups[projection.source.name],
            self.groups[projection.target.name],
            "\n".join(text),
            on_pre=code,
            clock=self.clock,
            namespace={},
            name=f"evsim_projection_{number}*",
        )
        synapses.connect(i=row, j=pairs.target[pair])
        stored = np.append(projection.weight.values.ravel().astype(np.float64), 0.0)  # [-1]: no weight
        for block, where in zip(blocks, pairs.where.T, strict=True):
            setattr(synapses, f"w_{block}", stored[where[pair]] * payload[row])
        assert projection.delay is not None  # in continuous time they have one
        delay = projection.delay.values.ravel().astype(np.float64)
        steps = np.rint((delay[pair] if delay.size > 1 else np.full(len(pair), delay[0])) / self.dt)
        synapses.pre.delay = steps * self.clock.dt
        synapses.pre.order = number
        self.synapses[projection.name] = synapses
        if kept:
            name = projection.source.name
            self.longest[name] = max(self.longest.get(name, 0), int(steps.max()))

    def run(self, target: Target = "numpy") -> TimedRun:
        """Run all steps from the initial state; each call starts afresh.

        Parameters
        ----------
        target : {"numpy", "cython"}
            Brian2's code generation target; cython needs a C++ compiler.

        Raises
        ------
        NetworkError
            Another target, a Brian2 device that is not its runtime, or too few slots: some unit had more
            events on their way than could be told apart.
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
        if (needed := self.slots_needed()) > self.slots:
            problem = f"some unit has {needed} events on their way at one time, there are {self.slots} slots"
            raise NetworkError("Brian2 twin", problem, f"give slots={needed}")
        return TimedRun(
            events={name: self._events(name, monitor) for name, monitor in self.spikes.items()},
            states={name: self._sampled(name, monitor) for name, monitor in self.traces.items()},
            samples=self.samples,
            duration=self.duration,
            dt=self.dt,
            seconds=end - ready,
            prepare_seconds=ready - start,
            version=f"Brian2 {brian2.__version__}, {target}",
        )

    def slots_needed(self) -> int:
        """How many slots the events of the last run need."""
        needed = 1
        for name, longest in self.longest.items():
            unit, step = np.asarray(self.spikes[name].i), self._steps(self.spikes[name])
            for one in np.unique(unit):
                sent = step[unit == one]
                # an event is on its way up to and including the step in which it arrives
                reach = np.searchsorted(sent, sent + longest, side="right")
                needed = max(needed, int((reach - np.arange(len(sent))).max()))
        return needed

    def _steps(self, monitor: Any) -> NDArray[np.int64]:
        return np.rint(np.asarray(monitor.t_) / self.clock.dt_).astype(np.int64)

    def _events(self, name: str, monitor: Any) -> TimedEvents:
        when, unit = (self._steps(monitor) + 1) * self.dt, np.asarray(monitor.i, dtype=np.int64)
        group = self.groups[name]
        value = np.asarray(monitor.change_) if "change" in group.variables else self.payloads[name][unit]
        # an event of the last step is at the end of it
        window: dict[str, Any] = {"start": 0.0, "stop": (self.n_steps + 1) * self.dt}
        size: dict[str, Any] = {"n_units": len(group), "n_lanes": 1}
        return TimedEvents.from_list(when, np.zeros_like(unit), unit, value, where="Brian2", **size, **window)

    def _sampled(self, name: str, monitor: Any) -> NDArray[np.float64]:
        """States at the grid points nearest to the samples."""
        state = monitor.record_variables[0]
        last = np.asarray(getattr(self.groups[name], f"{state}_"))
        traces = np.column_stack([np.asarray(getattr(monitor, f"{state}_")), last])
        return traces[:, np.rint(self.samples / self.dt).astype(int).clip(max=self.n_steps)].T


#: What senders may have to keep of an event, and where it comes from.
_KEPT = {"change": "(h - sent)", "gate": "r"}


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
    """What the events of each unit are worth, if that is a constant, else 1."""
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
    choice = " + ".join(f"{kept}_{slot}_pre*int(arrived % {slots} == {slot})" for slot in range(slots))
    return "\n".join([f"kept = {choice}", *lines, "arrived += 1"])


def to_brian2_continuous(
    network: Network,
    stimulus: Mapping[str, Stimulus],
    duration: float,
    dt: float,
    *,
    samples: ArrayLike | None = None,
    initial: InitialStates | None = None,
    method: Method = "rk4",
    slots: int = 4,
) -> ContinuousTwin:
    """Write a network in continuous time down as Brian2 objects.

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
    samples : array, shape (n_samples,), optional
        Increasing times in [0, duration], in ms; states are those at the nearest ends of steps.
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
    MissingExtraError
        Brian2 is not installed.
    """
    where = "Brian2 twin"
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
    for name in initial or {}:
        if name not in network.populations or isinstance(network[name], EventSource):
            raise NetworkError(where, f"initial states of '{name}'", "give those of populations with states")
    times = _sample_times(samples, float(duration))
    events = _stimulus(network, stimulus, float(duration))
    with quiet_brian2("numpy") as brian2:
        options = (times, initial or {}, method, int(slots))
        return ContinuousTwin(brian2, network, events, float(duration), float(dt), *options)


def _sample_times(samples: ArrayLike | None, duration: float) -> NDArray[np.float64]:
    times = np.zeros(0) if samples is None else np.asarray(samples, np.float64)
    inside = times.ndim == 1 and np.isfinite(times).all() and (np.diff(times) > 0).all()
    if not inside or (times.size and not 0 <= times[0] <= times[-1] <= duration):
        remedy = f"give increasing times from 0 to {duration:g} ms, in one dimension"
        raise StimulusError("samples", "are not times of the run", remedy)
    return times


def _stimulus(network: Network, stimulus: Mapping[str, Stimulus], duration: float) -> dict[str, TimedEvents]:
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


# -- comparisons -------------------------------------------------------------------------------------------


def run_brian2(
    network: Network,
    stimulus: Mapping[str, Stimulus],
    duration: float,
    dt: float,
    *,
    target: Target = "numpy",
    slots: int = 1,
    **options: Any,
) -> TimedRun:
    """Run a network in Brian2, with as many slots as it turns out to need.

    Parameters
    ----------
    network, stimulus, duration, dt, slots, **options
        As of `to_brian2_continuous`; ``slots`` is where to begin.
    target : {"numpy", "cython"}
    """
    while True:
        twin = to_brian2_continuous(network, stimulus, duration, dt, slots=slots, **options)
        try:
            return twin.run(target)
        except NetworkError:
            # Payloads that were mixed up may have led to other events than there are.
            needed = twin.slots_needed()
            if not slots < needed <= MOST_SLOTS:
                raise
            slots = needed


def run_evsim(
    network: Network,
    stimulus: Mapping[str, Stimulus],
    duration: float,
    *,
    samples: ArrayLike | None = None,
    initial: InitialStates | None = None,
) -> TimedRun:
    """Run a network with evsim: the exact side of a comparison.  Arguments as of `to_brian2_continuous`."""
    from evsim.continuous_simulation import ContinuousSimulation

    simulation = ContinuousSimulation(network)
    events = _stimulus(network, stimulus, float(duration))
    times = _sample_times(samples, float(duration))
    begin = time.perf_counter()
    log = simulation.run(events, duration, samples=times, initial=initial)
    seconds = time.perf_counter() - begin
    own = [log[p.name] for p in network.populations.values() if not isinstance(p, EventSource)]
    return TimedRun(
        events={one.name: one.events for one in own if one.events is not None},
        states={one.name: one.state[:, 0] for one in own if one.state is not None},
        samples=times,
        duration=float(duration),
        seconds=seconds,
    )


def crosscheck_continuous(
    network: Network,
    stimulus: Mapping[str, Stimulus],
    duration: float,
    dt: float,
    *,
    run: TimedRun | None = None,
    samples: ArrayLike | None = None,
    initial: InitialStates | None = None,
    **options: Any,
) -> ContinuousComparison:
    """Run a network with evsim and, at one step, with Brian2, and compare.

    Parameters
    ----------
    network, stimulus, duration, dt, samples, initial
        As of `to_brian2_continuous`.
    run : TimedRun, optional
        What to compare Brian2 with, instead of evsim's run, with the same samples.
    **options
        Further ones of `run_brian2`: ``method``, ``target``, ``slots``.
    """
    convergence = order_of_convergence(
        network, stimulus, duration, [dt], run=run, samples=samples, initial=initial, **options
    )
    return convergence.comparisons[0]


def order_of_convergence(
    network: Network,
    stimulus: Mapping[str, Stimulus],
    duration: float,
    dts: Sequence[float] = STEPS,
    *,
    run: TimedRun | None = None,
    samples: ArrayLike | None = None,
    initial: InitialStates | None = None,
    **options: Any,
) -> Convergence:
    """Run a network with evsim and, at falling steps, with Brian2, and compare; the order should be 1.

    Parameters
    ----------
    dts : sequence of float
        Brian2's steps in ms.  Where an example is nearly chaotic, only small ones tell.
    network, stimulus, duration, run, samples, initial, **options
        As of `crosscheck_continuous`.
    """
    if run is None:
        run = run_evsim(network, stimulus, duration, samples=samples, initial=initial)
    options |= {"samples": run.samples, "initial": initial}
    falling = sorted(dts, reverse=True)
    peers = [run_brian2(network, stimulus, duration, dt, **options) for dt in falling]
    return Convergence([compare_timed(run, peer) for peer in peers])


def crosscheck_continuous_model(
    model: Literal["egru", "lif", "delta_gru", "delta_lstm"],
    dts: Sequence[float] = STEPS,
    target: Target = "numpy",
    **options: Any,
) -> Convergence:
    """`order_of_convergence` of a `continuous_example`, whose parameters are the ``options``."""
    network, stimulus = continuous_example(model, **options)
    duration = stimulus["cue"].duration
    samples = np.linspace(0.0, duration, 21)
    return order_of_convergence(network, stimulus, duration, dts, samples=samples, target=target)
