"""The other way: a Brian2 script's objects as a network in continuous time.

What can be read is the common ground of both: leaky integrate-and-fire neurons with currents that decay
exponentially, thresholds, resets, refractory periods, delays, and events from outside.  Equations may be
spelt in any way: they are brought into one form with SymPy (`evsim.brian.linear_equations`).  All else is
refused by an error that names the object and the equation or statement.

Brian2 steps, and evsim does not, so that times mean slightly different things:

- Brian2 finds that a threshold was crossed at the end of a step, and gives the event the time of the step's
  beginning.  evsim has the time of the crossing, which lies between the two.
- Brian2 rounds delays and refractory periods to steps, and lets an event of a SpikeGeneratorGroup arrive a
  step after its time.  evsim takes them as they were given.

As the step falls, Brian2's event times tend to evsim's in proportion to it.  The integration method, the
order of objects within a step and their clocks make no difference beyond that, and are not looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evsim.brian.connections import Connections, base_name, read_poisson_input, read_synapses
from evsim.brian.imported import Imported
from evsim.brian.library import quiet_brian2
from evsim.brian.neurons import MS, Neurons, at_intervals, read_neurons
from evsim.brian.scope import Scope
from evsim.brian.sources import ListedEvents, PoissonEvents
from evsim.errors import NetworkError
from evsim.models.source import EventSource
from evsim.network import Network

#: The order in which objects are read: what others refer to comes first.
ORDER = ("NeuronGroup", "SpikeGeneratorGroup", "PoissonGroup", "Synapses", "PoissonInput")
READABLE = f"only {', '.join(ORDER)} and monitors can be taken over"


def from_brian2(
    objects: Any = None,
    *,
    seed: int = 0,
    namespace: Mapping[str, Any] | None = None,
    level: int = 0,
) -> Imported:
    """Read the objects of a Brian2 script, with their present states, into a network in continuous time.

    Nothing in Brian2 changes.  What is read, and what time means, is written at the head of this file and in
    docs/from_brian2.md.

    Parameters
    ----------
    objects : brian2.Network or iterable of Brian2 objects, optional
        By default all that ``run`` would simulate if it stood there: those that the caller's frame can see.
    seed : int
        Of the events of Poisson sources; see `Imported.stimulus`.
    namespace : mapping of str to object, optional
        Values of names in equations and statements that objects have no namespace for, as of
        ``Network.run``; by default those of the caller's frame.
    level : int
        How much further up the stack the caller is, as in Brian2.

    Returns
    -------
    imported : Imported

    Raises
    ------
    NetworkError
        Something that evsim's LIF units cannot do, or that means something else there.
    MissingExtraError
        Brian2 is not installed.
    """
    with quiet_brian2("numpy") as brian2:
        from brian2.core.namespace import get_local_namespace

        if objects is None:
            objects = brian2.collect(level=level + 1)
        if namespace is None:
            namespace = get_local_namespace(level=level + 1)
        return _Reading(brian2, objects, namespace, seed).result


class _Reading:
    """Reads objects one by one; ``result`` is what has become of them."""

    def __init__(self, brian2: Any, objects: Any, namespace: Mapping[str, Any], seed: int):
        self.brian2, self.namespace = brian2, namespace
        self.network = Network(dt=None, seed=seed, dtype="float64")
        self.neurons: dict[str, Neurons] = {}
        self.sources: dict[str, ListedEvents | PoissonEvents] = {}
        self.names: dict[str, list[str]] = {}
        self.lines: dict[str, list[str]] = {}
        members = self._members(objects)
        self.now = self._time(objects, members)
        for one in members:
            getattr(self, f"_read_{type(one).__name__}")(one)
        self.result = Imported(
            network=self.network,
            initial={name: one.initial for name, one in self.neurons.items()},
            start=self.now * MS,
            seed=self.network.seed,
            names=self.names,
            units={name: brian2.Quantity(one.unit, dim=one.dimensions) for name, one in self.neurons.items()},
            neurons=self.neurons,
            sources=self.sources,
            lines=self.lines,
        )

    def _members(self, objects: Any) -> list[Any]:
        """What is to be read, in order."""
        brian2 = self.brian2
        if isinstance(objects, brian2.Network):
            objects = objects.objects
        elif isinstance(objects, brian2.BrianObject) or not isinstance(objects, Iterable):
            raise NetworkError(
                "from_brian2",
                f"objects are {objects!r}",
                "give a brian2.Network, or a list of Brian2 objects, or nothing for those of this frame",
            )
        passive = (brian2.EventMonitor, brian2.StateMonitor, brian2.PopulationRateMonitor, brian2.Subgroup)
        members = {}
        for one in objects:
            kind, name = type(one).__name__, getattr(one, "name", repr(one))
            if isinstance(one, passive):
                continue
            where = f"{kind} '{name}'"
            if kind not in ORDER or type(one) is not getattr(brian2, kind):
                raise NetworkError(where, "has no counterpart in evsim", READABLE)
            if not one.active:
                raise NetworkError(where, "is switched off (active=False)", "leave it out of the network")
            members[name] = one
        if not any(type(one) is brian2.NeuronGroup for one in members.values()):
            problem = f"there is no NeuronGroup among {sorted(members) or 'no objects'}"
            raise NetworkError("from_brian2", problem, "give a brian2.Network, or a list of its objects")
        return sorted(members.values(), key=lambda one: (ORDER.index(type(one).__name__), one.name))

    def _time(self, objects: Any, members: list[Any]) -> float:
        """The time in s at which a run would begin."""
        if isinstance(objects, self.brian2.Network):
            return float(objects.t_)
        runs = {one._network for one in members} - {None}  # clocks tell nothing: networks may share them
        if not runs:
            return 0.0
        if runs != {self.brian2.magic_network.id}:
            problem = "the objects have been run as parts of a Network"
            raise NetworkError("from_brian2", problem, "give that Network, which knows the time")
        return float(self.brian2.magic_network.t_)

    # -- objects by their type ----------------------------------------------------------------------------

    def _read_NeuronGroup(self, group: Any) -> None:
        made = read_neurons(group, self.namespace, self.now)
        self.network.add(made.population)
        self.neurons[group.name] = made
        kind = f"{group.N} {type(made.population).__name__} units"
        unit = self.brian2.Quantity(made.unit, dim=made.dimensions)
        self._note(group, [group.name], [f"{kind}, in units of {unit}", *made.lines])

    def _read_SpikeGeneratorGroup(self, group: Any) -> None:
        times = np.asarray(group.variables["spike_time"].get_value(), np.float64)
        units = np.asarray(group.variables["neuron_index"].get_value(), np.int64)
        period = float(group.variables["period"].get_value().item()) * MS
        period = period if np.isfinite(period) else 0.0
        since = times * MS - self.now * MS
        self._add_source(group.name, ListedEvents(int(group.N), since, units, period, group.name))
        said = f", again every {period:g} ms" if period else ""
        self._note(group, [group.name], [f"{len(times)} events of {group.N} units{said}"])

    def _read_PoissonGroup(self, group: Any) -> None:
        where = f"PoissonGroup '{group.name}'"
        self._check_intervals(group, where)
        if isinstance(group._rates, str):
            scope = Scope(group, self.namespace, where)
            scope.check_units(group._rates, self.brian2.Hz)
            rates = scope.values(scope.parse(group._rates), group._rates)
        else:
            rates = np.asarray(group.variables["rates"].get_value(), np.float64)
        wrong = rates[~(np.isfinite(rates) & (rates >= 0))]
        if wrong.size:
            raise NetworkError(where, f"has a rate of {wrong.ravel()[0]} Hz", "give finite rates, 0 or more")
        full = np.broadcast_to(rates, (int(group.N),)).copy()
        self._add_source(group.name, PoissonEvents(full, group.name))
        ends = f"{full.min():g} to {full.max():g}" if full.min() < full.max() else f"{full.min():g}"
        self._note(group, [group.name], [f"{group.N} Poisson processes, {ends} Hz, drawn anew"])

    def _read_Synapses(self, synapses: Any) -> None:
        emitting = {name: True for name, one in self.neurons.items() if one.population.emits}
        emitting |= dict.fromkeys(self.sources, False)
        made = read_synapses(synapses, self.namespace, self.neurons, emitting)
        names = self._connect(made.connections)
        for connections, left in made.in_flight:
            if connections.source not in self.sources:
                units = np.arange(len(left))
                self._add_source(
                    connections.source, ListedEvents(len(left), left, units, 0.0, connections.source)
                )
                names.append(connections.source)
            names += self._connect([connections])
        ends = f"{base_name(synapses.source)} to {base_name(synapses.target)}"
        self._note(synapses, names, [ends, *made.lines])

    def _read_PoissonInput(self, poisson: Any) -> None:
        connections, rate, line = read_poisson_input(poisson, self.namespace, self.neurons)
        rates: NDArray[np.float64] = np.full(len(connections.i), rate)
        self._add_source(poisson.name, PoissonEvents(rates, poisson.name))
        names = [poisson.name, *self._connect([connections])]
        self._note(poisson, names, [f"{line}, drawn anew"])

    def _check_intervals(self, group: Any, where: str) -> None:
        for part in group.contained_objects:
            if type(part).__name__ != "Thresholder":
                raise at_intervals(part, where)

    def _add_source(self, name: str, source: ListedEvents | PoissonEvents) -> None:
        self.network.add(EventSource(source.n_units, name))
        self.sources[name] = source

    def _connect(self, connections: list[Connections]) -> list[str]:
        return [name for one in connections for name in one.add_to(self.network)]

    def _note(self, one: Any, names: list[str], lines: list[str]) -> None:
        self.names[one.name] = names
        self.lines[one.name] = [f"{type(one).__name__}: {lines[0]}", *lines[1:]]
