"""Brian2 Synapses and PoissonInputs as projections."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evsim.brian.neurons import MS, Neurons, at_intervals
from evsim.brian.scope import Scope, one_line
from evsim.brian.statements import Statement, statements
from evsim.errors import NetworkError
from evsim.network import Network


@dataclass(frozen=True, eq=False)
class Connections:
    """Pairs of units, each with a weight and a delay; a pair may occur more than once.

    Attributes
    ----------
    name, source, target, port : str
        Of the projection, and its ends.
    i, j : ndarray of int64, shape (n,)
        Units of source and target.
    weight, delay : ndarray of float64, shape (n,)
        In the unit of the target's V; ms.
    """

    name: str
    source: str
    target: str
    port: str
    i: NDArray[np.int64]
    j: NDArray[np.int64]
    weight: NDArray[np.float64]
    delay: NDArray[np.float64]

    def add_to(self, network: Network) -> list[str]:
        """Make projections of it, more than one where pairs have several delays; their names."""
        from scipy.sparse import csr_array

        shape = network[self.source].n_units, network[self.target].n_units
        i, j, weight, delay = _merged(self.i, self.j, self.weight, self.delay)
        again = _rank(i, j)
        names = []
        for number in range(int(again.max(initial=-1)) + 1):
            here = again == number
            name = self.name if number == 0 else f"{self.name}-{number + 1}"
            ptr = np.searchsorted(i[here], np.arange(shape[0] + 1))
            delays = delay[here]
            same = (delays == delays[0]).all()
            network.connect(
                self.source,
                self.target,
                weight=csr_array((weight[here], j[here], ptr), shape=shape),
                delay=float(delays[0]) if same else delays,
                port=self.port,
                name=name,
            )
            names.append(name)
        return names


def _merged(i: NDArray, j: NDArray, weight: NDArray, delay: NDArray) -> tuple[NDArray, ...]:
    """In order of (i, j, delay); synapses that agree in all three add up to one."""
    order = np.lexsort((delay, j, i))
    i, j, weight, delay = i[order], j[order], weight[order], delay[order]
    new = np.ones(len(i), bool)
    new[1:] = (np.diff(i) != 0) | (np.diff(j) != 0) | (np.diff(delay) != 0)
    first = np.flatnonzero(new)
    total = np.add.reduceat(weight, first) if len(first) else weight
    return i[first], j[first], total, delay[first]


def _rank(i: NDArray, j: NDArray) -> NDArray[np.int64]:
    """How many of the same pair come before each, in sorted pairs."""
    place = np.arange(len(i))
    new = np.ones(len(i), bool)
    new[1:] = (np.diff(i) != 0) | (np.diff(j) != 0)
    return place - np.maximum.accumulate(np.where(new, place, 0)) if len(i) else place


@dataclass(frozen=True, eq=False)
class ReadSynapses:
    """What a Synapses object has become.

    Attributes
    ----------
    connections : list of Connections
    in_flight : list of (Connections, ndarray)
        Of each source of events that are on their way, one unit for each event: what it is connected to, and
        the times of arrival in ms from now.  Connections with the same source come one after the other.
    lines : list of str
    """

    connections: list[Connections]
    in_flight: list[tuple[Connections, NDArray[np.float64]]]
    lines: list[str]


def read_synapses(
    synapses: Any, namespace: Mapping[str, Any], neurons: Mapping[str, Neurons], emitting: Mapping[str, bool]
) -> ReadSynapses:
    """Read a Synapses object.

    Parameters
    ----------
    synapses : brian2.Synapses
    namespace : mapping of str to object
        Names that it does not know by itself.
    neurons : mapping of str to Neurons
        By Brian2's name.
    emitting : mapping of str to bool
        Names of all that may send events; whether by a threshold of its own.

    Raises
    ------
    NetworkError
        Synapses that do something else than add constants to exponential currents of their targets.
    """
    where = f"Synapses '{synapses.name}'"
    scope = Scope(synapses, namespace, where)
    source, target = base_name(synapses.source), base_name(synapses.target)
    _check_model(synapses, where)
    for end, known in ((source, emitting), (target, neurons)):
        if end not in known:
            problem = f"'{end}' is not among the objects, or has no place there"
            raise NetworkError(where, problem, "connect groups that are part of the network")
    i = np.asarray(synapses.variables["_synaptic_pre"].get_value(), np.int64)
    j = np.asarray(synapses.variables["_synaptic_post"].get_value(), np.int64)
    aim, found, flying, lines = neurons[target], [], [], []
    for pathway in synapses._pathways:
        if pathway.prepost != "pre":
            problem = f"on_post '{one_line(pathway.code)}' acts at events of its target"
            raise NetworkError(where, problem, "evsim's weights do not change in a run")
        if pathway.event != "spike":
            problem = f"'{one_line(pathway.code)}' is run by events '{pathway.event}'"
            raise NetworkError(where, problem, "only those of a threshold can be taken over")
        delay = np.asarray(pathway._delays.get_value(), np.float64) * MS
        delay = np.broadcast_to(delay if len(delay) == len(i) else delay[:1], i.shape)
        single = len(synapses._pathways) == 1
        name = synapses.name if single else f"{synapses.name}_{pathway.objname}"
        by_port = _weights(pathway.code, synapses, scope, aim, j)
        for port, (weight, said) in by_port.items():
            own = name if len(by_port) == 1 else f"{name}_{port}"
            if len(i):
                found.append(Connections(own, source, target, port, i, j, weight, delay))
            lines += [f"'{text}': {len(i)} synapses, {how}" for text, how in said]
        lines.append(f"delay {_range(delay)} ms" if len(i) else "no synapses")
        index, left = _in_flight(pathway, emitting[source])
        for port, (weight, _) in by_port.items() if len(index) else ():
            begin = f"{name}_in_flight"
            own = f"{begin}->{target}" if len(by_port) == 1 else f"{begin}->{target}_{port}"
            unit = np.arange(len(index))
            one = Connections(own, begin, target, port, unit, j[index], weight[index], np.zeros(len(index)))
            flying.append((one, left))
        if len(index):
            lines.append(f"{len(index)} events on their way")
    return ReadSynapses(found, flying, lines)


def _check_model(synapses: Any, where: str) -> None:
    from brian2.groups.group import CodeRunner

    for name, updater in synapses.summed_updaters.items():
        problem = f"'{name} = {one_line(updater.expression.code)}' is a summed variable"
        raise NetworkError(where, problem, "synapses can add to currents of their targets at events only")
    driven = list(synapses.event_driven.values()) if synapses.event_driven is not None else []
    for one in [*synapses.equations.values(), *driven]:
        if one.type == "differential equation":
            problem = f"'d{one.varname}/dt = {one_line(one.expr.code)}' changes with time"
            raise NetworkError(where, problem, "evsim's weights do not change in a run")
    usual = ("SynapticPathway", "StateUpdater")
    for part in synapses.contained_objects:
        if not part.active:
            problem = f"its part '{part.name}' is switched off (active=False)"
            raise NetworkError(where, problem, "leave it out")
        if isinstance(part, CodeRunner) and type(part).__name__ not in usual:
            raise at_intervals(part, where)


def _weights(
    code: str, synapses: Any, scope: Scope, aim: Neurons, j: NDArray
) -> dict[str, tuple[NDArray[np.float64], list[tuple[str, str]]]]:
    """By port: the weight of each synapse, and by what statements."""
    found: dict[str, tuple[NDArray[np.float64], list[tuple[str, str]]]] = {}
    for one in statements(code, scope.where):
        variable = _target_variable(one, synapses, scope, aim)
        scope.check_units(one.value, synapses.variables[one.variable], one.text)
        value = scope.parse(one.value, one.text)
        if one.operator == "=":
            value = _without(value, one, variable, scope)
        port, factor = aim.ports[variable]
        factor = factor[j] if factor.ndim else factor
        step = scope.values(value, one.text) * factor * (-1.0 if one.operator == "-=" else 1.0)
        step = np.broadcast_to(step, j.shape)
        total, said = found.get(port, (np.zeros(len(j)), []))
        said.append((one.text, f"weights {_range(step)} on port '{port}'"))
        found[port] = total + step, said
    return found


def _target_variable(one: Statement, synapses: Any, scope: Scope, aim: Neurons) -> str:
    """The variable of the target that a statement adds to."""
    where = scope.where
    name = one.variable
    if name in synapses.equations.names or name not in synapses.variables:
        problem = f"'{one.text}' changes the synapses' own '{name}'"
        raise NetworkError(where, problem, "evsim's weights do not change in a run")
    variable = name.removesuffix("_post")
    if name.endswith("_pre"):
        problem = f"'{one.text}' acts on the source"
        raise NetworkError(where, problem, "synapses can add to currents of their targets only")
    if one.operator not in ("+=", "-=", "="):
        problem = f"'{one.text}' is no sum"
        raise NetworkError(where, problem, "write 'variable += value'")
    if variable == aim.membrane and variable not in aim.ports:
        raise NetworkError(
            where,
            f"'{one.text}' makes {variable} itself jump",
            f"evsim's LIF units have no such port: add to an exponentially decaying current that acts on "
            f"{variable}, with a short time constant if need be",
        )
    if variable not in aim.ports:
        problem = f"'{one.text}' changes '{variable}', which is no exponentially decaying current"
        raise NetworkError(
            where, problem, f"add to one of {list(aim.ports) or 'them, of which there are none'}"
        )
    return variable


def _without(value: Any, one: Statement, variable: str, scope: Scope) -> Any:
    """What ``variable = value`` adds to it."""
    import sympy

    own = [symbol for symbol in value.free_symbols if symbol.name in (variable, f"{variable}_post")]
    change = sympy.expand(value - own[0]) if own else value
    if not own or own[0] in change.free_symbols:
        problem = f"'{one.text}' sets {variable}, instead of adding to it"
        raise NetworkError(scope.where, problem, f"write '{variable} += value'")
    return change


def _in_flight(pathway: Any, by_threshold: bool) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Synapses of the events on their way, and the ms that are left."""
    state = pathway.queue._full_state()
    dt = float(pathway.source.clock.dt_) * MS
    if len(state) == 2:  # the queue in C++: where the present is, and lists of synapses by time
        offset, queue = state
        ahead = [np.asarray(queue[(offset + k) % len(queue)], np.int64) for k in range(len(queue))]
        steps = np.repeat(np.arange(len(ahead)), [len(part) for part in ahead])
        index = np.concatenate([np.zeros(0, np.int64), *ahead])
    else:  # the one in Python: rows of (steps, synapse)
        rows = np.asarray(state[1], np.int64).reshape(-1, 2)
        steps, index = rows[:, 0], rows[:, 1]
    # a threshold is crossed within the step before the one of which its event bears the time
    return index, (steps + by_threshold) * dt


def read_poisson_input(
    poisson: Any, namespace: Mapping[str, Any], neurons: Mapping[str, Neurons]
) -> tuple[Connections, float, str]:
    """Read a PoissonInput.

    Returns
    -------
    connections : Connections
        From a source of the same name, with a unit for each unit of the target.
    rate : float
        Of each of them in Hz: N processes at once are one that is N times as fast.
    line : str

    Raises
    ------
    NetworkError
        A weight that moves, a target that is no exponential current.
    """
    group, where = poisson._group, f"PoissonInput '{poisson.name}'"
    target, begin = base_name(group), int(getattr(group, "start", 0))
    text = f"{poisson.target_var} += {poisson.weight}"
    if target not in neurons:
        problem = f"'{target}' is not among the objects"
        raise NetworkError(where, problem, "give it a group that is part of the network")
    aim, variable = neurons[target], poisson.target_var
    if variable not in aim.ports:
        problem = f"'{text}' acts on '{variable}', which is no exponentially decaying current"
        raise NetworkError(
            where, problem, f"add to one of {list(aim.ports) or 'them, of which there are none'}"
        )
    j = np.arange(begin, begin + len(group))
    if isinstance(poisson.weight, str):
        scope = Scope(group, namespace, where)
        scope.check_units(poisson.weight, group.variables[variable], text)
        weight = scope.values(scope.parse(poisson.weight, text), text)
    else:
        weight = np.asarray(poisson.weight, np.float64)
    port, factor = aim.ports[variable]
    weight = np.broadcast_to(weight * (factor[j] if factor.ndim else factor), j.shape)
    rate = float(poisson.N) * float(poisson.rate)
    if not (np.isfinite(rate) and rate >= 0):
        raise NetworkError(where, f"its rate is {poisson.rate}", "give a finite one, 0 or more")
    own, unit = f"{poisson.name}->{target}", np.arange(len(j))
    made = Connections(own, poisson.name, target, port, unit, j, weight, np.zeros(len(j)))
    return made, rate, f"'{text}': {rate:g} Hz for each unit, weights {_range(weight)} on port '{port}'"


def base_name(group: Any) -> str:
    """Name of a group, or of the one that it is a part of."""
    from brian2 import Subgroup

    return str(group.source.name if isinstance(group, Subgroup) else group.name)


def _range(values: NDArray[np.float64]) -> str:
    if not len(values):
        return "none"
    low, high = float(values.min()), float(values.max())
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"
