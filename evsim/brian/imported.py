"""A network that was read from Brian2: its parts in evsim, and its results in Brian2's units."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evsim.brian.connections import base_name
from evsim.brian.neurons import MS, Neurons
from evsim.brian.sources import ListedEvents, PoissonEvents
from evsim.continuous_log import ContinuousLog
from evsim.errors import LogError, StimulusError
from evsim.network import Network
from evsim.simulation import Simulation
from evsim.timed_events import TimedEvents


@dataclass(eq=False, repr=False)
class Imported:
    """What `from_brian2` gives; ``print`` it to see what was understood.

    Attributes
    ----------
    network : Network
        In continuous time, float64.  Populations have the names of Brian2's groups.
    initial : dict of dict of ndarray, shape (1, n_units)
        The states of that moment, as `Simulation.run` takes them.
    start : float
        Brian2's time of that moment in ms: 0 in evsim.
    seed : int
        Of Poisson processes.
    names : dict of str to list of str
        By the name of a Brian2 object: the populations and projections that it has become.
    units : dict of str to brian2.Quantity
        By population: what 1 in evsim is in Brian2, of V, currents and weights.
    neurons, sources : dict
        By population: how they were read, and where events from outside come from.
    lines : dict of str to list of str
        By the name of a Brian2 object: what was understood.
    log : ContinuousLog or None
        Of the last run.
    """

    network: Network
    initial: dict[str, dict[str, NDArray[np.float64]]]
    start: float
    seed: int
    names: dict[str, list[str]]
    units: dict[str, Any]
    neurons: dict[str, Neurons]
    sources: dict[str, ListedEvents | PoissonEvents]
    lines: dict[str, list[str]]
    log: ContinuousLog | None = None

    def __repr__(self) -> str:
        return f"Imported({self.network!r}, from {self.start:g} ms on; print it to see what was understood)"

    def __str__(self) -> str:
        """What was understood, object by object."""
        text = [repr(self.network)]
        for name, lines in self.lines.items():
            text += [name, *(f"    {line}" for line in lines)]
        return "\n".join(text)

    def stimulus(self, duration: Any, seed: int | None = None) -> dict[str, TimedEvents]:
        """Events from outside, over a time from that moment on.

        Those of a SpikeGeneratorGroup are at the times that were given.  Those of a PoissonGroup or
        PoissonInput are drawn anew: they have the same statistics as in Brian2, and are other events.  A
        source draws from a stream of its own, so that the same seed and duration give the same events.

        Parameters
        ----------
        duration : number or brian2.Quantity
            ms, or a quantity of time.
        seed : int, optional
            By default `seed`.
        """
        length, seed = _ms("duration", duration), self.seed if seed is None else seed
        made = {}
        for name, source in self.sources.items():
            sequence = np.random.SeedSequence([seed, zlib.crc32(name.encode())])
            made[name] = source.events(length, np.random.default_rng(sequence))
        return made

    def run(
        self,
        duration: Any,
        samples: ArrayLike | None = None,
        *,
        stimulus: Mapping[str, Any] | None = None,
        threads: int | None = None,
    ) -> ContinuousLog:
        """Run from that moment on; each call starts there again.

        Parameters
        ----------
        duration : number or brian2.Quantity
            ms, or a quantity of time.
        samples : array of float or brian2.Quantity, optional
            Times from that moment on, in ms or a quantity of time, at which states are recorded.
        stimulus : mapping of str to events, optional
            By default `stimulus` of that duration.
        threads : int, optional
            As of `Simulation`.

        Returns
        -------
        log : ContinuousLog
            Its times are in ms from that moment on; also kept in `log`.
        """
        length = _ms("duration", duration)
        given = self.stimulus(length) if stimulus is None else stimulus
        times = None if samples is None else np.asarray(_ms("samples", samples), np.float64)
        simulation: Any = Simulation(self.network, threads=threads)
        self.log = simulation.run(given, length, samples=times, initial=self.initial, tape=False)
        assert self.log is not None
        return self.log

    def spikes(self, group: Any) -> tuple[NDArray[np.int64], Any]:
        """Events of a group in the last run, as a SpikeMonitor has them: indices, and times with units.

        Parameters
        ----------
        group : str, brian2 group or subgroup
            A name, or the object itself; of a subgroup, its units counted from its own first.

        Returns
        -------
        i : ndarray of int64, shape (n_events,)
        t : brian2.Quantity, shape (n_events,)
            On Brian2's clock.  A SpikeMonitor has the beginning of the step in which a threshold was crossed.
        """
        from brian2 import Quantity, second

        name, first, stop = self._place(group)
        events = self._log[name].events
        if events is None:
            raise LogError(f"population '{name}'", "sends no events", "it has no threshold")
        here = (events.unit >= first) & (events.unit < stop)
        times = (events.time[here] + self.start) / MS
        return events.unit[here].astype(np.int64) - first, Quantity(times, dim=second.dim)

    def samples(self, group: Any) -> Any:
        """V of a group at the samples of the last run, as a quantity of shape (n_units, n_samples)."""
        from brian2 import Quantity

        name, first, stop = self._place(group)
        state = self._log[name].state
        if state is None:
            raise LogError(f"population '{name}'", "has no samples", "give samples= to run()")
        unit = self.neurons[name]
        return Quantity(state[:, 0, first:stop].T * unit.unit, dim=unit.dimensions)

    @property
    def _log(self) -> ContinuousLog:
        if self.log is None:
            raise LogError("imported network", "has not run yet", "call run() first")
        return self.log

    def _place(self, group: Any) -> tuple[str, int, int]:
        """Population, first unit and the one after the last."""
        name = group if isinstance(group, str) else base_name(group)
        n_units = self.network[name].n_units
        return name, int(getattr(group, "start", 0)), int(getattr(group, "stop", n_units))


def _ms(what: str, value: Any) -> Any:
    """A time in ms; quantities are converted."""
    dimensions = getattr(value, "dim", None)
    if dimensions is None:
        return value
    from brian2 import second

    if dimensions is not second.dim:
        raise StimulusError(what, f"is {value}", "give ms, or a quantity of time")
    converted = np.asarray(value, np.float64) * MS
    return float(converted) if converted.ndim == 0 else converted
