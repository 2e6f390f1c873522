"""A network: named populations and the projections between them.  It describes; it does not run."""

from __future__ import annotations

import copy
import math
import re
import zlib
from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from evsim.errors import NetworkError
from evsim.parameter import Parameter
from evsim.population import Population, Rng
from evsim.projection import Delay, Projection, Weight

if TYPE_CHECKING:
    from evsim.fixed_point import FixedPoint

P = TypeVar("P", bound=Population)

#: Shortest delay that keeps a cycle from being one without delay, in continuous time, in ms.
SHORTEST_DELAY = 1e-3


class Network:
    """Named populations and projections, on one time grid or in continuous time.

    Parameters
    ----------
    dt : float or None
        Length of a step in ms.  None for continuous time: events happen when states reach thresholds.
    seed : int
        Seed of the initial weights.  Each population and projection draws from a stream of its own, chosen by
        its name, so that the order in which they are added does not matter.
    dtype : {"float32", "float64"}
        Float type of parameters, states and event values.

    Attributes
    ----------
    dt : float or None
    populations, projections : dict of str to Population, Projection
        In the order of addition.
    fixed_point : FixedPoint or None
        The formats it runs in, if `quantize` made it.
    narrow : str or None
        The format of its dense weights, if `evsim.narrow` made it.
    """

    def __init__(self, dt: float | None = 1.0, seed: int = 0, dtype: str = "float32"):
        if dt is not None and not (isinstance(dt, (int, float)) and math.isfinite(dt) and dt > 0):
            raise NetworkError(
                "network", f"dt is {dt!r}", "give a positive number of ms, or None for continuous time"
            )
        if not _is_float(dtype):
            raise NetworkError("network", f"dtype is {dtype!r}", "use 'float32' or 'float64'")
        if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
            raise NetworkError("network", f"seed is {seed!r}", "give a non-negative integer")
        self.dt = None if dt is None else float(dt)
        self.seed = int(seed)
        self.dtype = np.dtype(dtype)
        self.populations: dict[str, Population] = {}
        self.projections: dict[str, Projection] = {}
        self.fixed_point: FixedPoint | None = None
        self.narrow: str | None = None

    def __repr__(self) -> str:
        parts = ", ".join(f"{p.name}:{type(p).__name__}({p.n_units})" for p in self.populations.values())
        time = "continuous time" if self.dt is None else f"dt={self.dt:g} ms"
        return f"Network({parts}; {len(self.projections)} projections; {time}, {self.dtype})"

    def __getitem__(self, name: str) -> Population:
        try:
            return self.populations[name]
        except KeyError:
            raise NetworkError(
                "network", f"has no population '{name}'", f"it has {list(self.populations)}"
            ) from None

    @property
    def continuous(self) -> bool:
        """Whether it is in continuous time."""
        return self.dt is None

    @property
    def step(self) -> float:
        """Length of a step in ms.

        Raises
        ------
        NetworkError
            It is in continuous time, and has none.
        """
        if self.dt is None:
            raise NetworkError(
                "network", "is in continuous time, where this does not exist", "use a network with dt in ms"
            )
        return self.dt

    def add(self, population: P) -> P:
        """Add a population, make its parameters, and return it.

        Raises
        ------
        NetworkError
            A name that is taken, units that do not exist in this kind of time.
        ParameterError
            Values of parameters out of their range.
        """
        if not isinstance(population, Population):
            raise NetworkError(
                "network", f"cannot add {population!r}", "add a Population, such as EGRU(128, name='hidden')"
            )
        self._check_open()
        if population.name in self.populations:
            raise NetworkError(
                "network", f"already has a population '{population.name}'", "give another name"
            )
        if population.parameters:
            raise NetworkError(
                f"population '{population.name}'", "is part of another network", "make a new one"
            )
        if population.watches is not None:
            self._member(population.watches)
        population.settle(self.continuous)
        try:
            population.build(self.dtype, self._rng(population.name))
        except Exception:
            population.parameters.clear()  # so that it can be mended and added again
            raise
        self.populations[population.name] = population
        return population

    def connect(
        self,
        source: Population | str,
        target: Population | str,
        weight: Weight = "glorot",
        delay: Delay | None = None,
        port: str | None = None,
        density: float = 1.0,
        name: str | None = None,
        train_delay: bool = False,
        copy: bool = True,
    ) -> Projection:
        """Connect two populations.

        Parameters
        ----------
        source, target : Population or str
        weight : str, number, array, sparse array or callable
            See `Projection.make_weight`.
        delay : float, optional
            ms, a multiple of dt.  By default 0, and dt for a population's projection to itself, also by
            way of an encoder that watches it.  In continuous time any number of ms, or one for each pair of
            units (see `Projection.make_delay`), by default 0.
        port : str, optional
            Where the projection ends; by default the target's choice (``EGRU``: ``recurrent`` from itself,
            ``input`` from others; ``LIF``: ``excitatory``).
        density : float
            Fraction of weights kept with a named initialiser.
        name : str, optional
            By default ``"source->target"``.
        train_delay : bool
            Whether optimisers move the delay, in continuous time.
        copy : bool
            False: the array ``weight`` itself becomes the weights, which saves the memory of a copy.
            Whoever changes it changes the network, and training changes it.  The core reads rows fastest
            that start at a cache line, as those of copies do.  ``np.load(path, mmap_mode="c")`` leaves dense
            weights in their file: in continuous time a row takes memory once its unit has sent.

        Raises
        ------
        NetworkError
            Unknown names, a delay off the grid, a cycle without delay (in continuous time one that goes
            through a `DeltaLSTM`, whose events could cause each other at one instant), weights that cannot
            be used without a copy.
        ParameterError
            Weights or delays of another shape, not finite or out of range.
        """
        self._check_open()
        source, target = self._member(source), self._member(target)
        name = f"{source.name}->{target.name}" if name is None else name
        where = f"projection '{name}'"
        if name in self.projections or name in self.populations:
            raise NetworkError(where, "that name is taken", "give name= another")
        if not re.fullmatch(r"[A-Za-z0-9_>-]+", name):
            raise NetworkError(
                where, "the name holds other signs than letters, digits and _ > -", "give name= another"
            )
        if not source.emits:
            raise NetworkError(where, f"{source!r} sends no events", "connect from one that does")
        port = target.default_port(source) if port is None else port
        if port not in target.ports:
            raise NetworkError(
                where, f"{target!r} has no port '{port}'", f"it has {list(target.ports) or 'none'}"
            )
        if source.sends not in ("any", target.takes):
            raise NetworkError(
                where,
                f"{source!r} sends {source.sends}, {target!r} takes {target.takes}",
                "connect delta units, encoders and readouts with each other, and the others with each other",
            )
        target.check_projection(where, source, port)
        delay_steps = self._delay_steps(where, source, target, delay, train_delay)
        projection = Projection(source, target, port=port, delay_steps=delay_steps, name=name)
        rng = self._rng(name)
        projection.make_weight(weight, density, copy, self.dtype, rng)
        if self.continuous:
            projection.make_delay(0.0 if delay is None else delay, train_delay, self.dtype, rng)
            self._keep_delays(projection)
        self.projections[name] = projection
        return projection

    def parameters(self) -> dict[str, Parameter]:
        """Every parameter by name, ``"hidden.bias"`` or ``"cue->hidden.weight"``; live, not copies.

        Delays, ``"cue->hidden.delay"``, are parameters in continuous time only.
        """
        own = [p for population in self.populations.values() for p in population.parameters.values()]
        for projection in self.projections.values():
            own += [p for p in (projection.weight, projection.delay) if p is not None]
        return {p.name: p for p in own}

    def copy(self, dtype: str | None = None) -> Network:
        """A network with the same names, structure and values that shares no array with this one.

        Parameters
        ----------
        dtype : {"float32", "float64"}, optional
            Its float type; by default that of this network, which one in fixed point or with narrow weights
            keeps.
        """
        twin = Network(self.dt, self.seed, str(self.dtype) if dtype is None else dtype)
        if self.fixed_point is not None and twin.dtype != self.dtype:
            raise NetworkError("network", f"in fixed point cannot become {dtype}", "leave out dtype")
        if self.narrow is not None and twin.dtype != self.dtype:
            raise NetworkError(
                "network", f"with {self.narrow} weights cannot become {dtype}", "leave out dtype"
            )
        for name, population in self.populations.items():
            own = twin.populations[name] = copy.copy(population)
            own.parameters = {key: p.copy(twin.dtype) for key, p in population.parameters.items()}
            if population.watches is not None:
                own.watches = twin.populations[population.watches.name]
        for name, projection in self.projections.items():
            ends = twin[projection.source.name], twin[projection.target.name]
            twin.projections[name] = projection.copy(*ends, twin.dtype)
        twin.fixed_point, twin.narrow = self.fixed_point, self.narrow
        return twin

    def describe(self) -> dict:
        """The whole network but the parameters' values, as JSON can hold it."""
        return {
            "dt_ms": self.dt,
            "seed": self.seed,
            "dtype": str(self.dtype),
            "fixed_point": None if self.fixed_point is None else self.fixed_point.describe(),
            "narrow": self.narrow,
            "populations": {name: p.describe() for name, p in self.populations.items()},
            "projections": {name: p.describe() for name, p in self.projections.items()},
        }

    def _rng(self, name: str) -> Rng:
        """What gives the generator of a member, which depends on the seed and its name."""

        @cache
        def rng() -> np.random.Generator:
            sequence = np.random.SeedSequence([self.seed, zlib.crc32(name.encode())])
            return np.random.Generator(np.random.Philox(sequence))

        return rng

    def _check_open(self) -> None:
        """Raise NetworkError if nothing can be added."""
        if self.fixed_point is not None:
            raise NetworkError(
                "network",
                f"is in {self.fixed_point!r}, nothing can be added",
                "change the network it was made from, and quantize that again",
            )
        if self.narrow is not None:
            raise NetworkError(
                "network",
                f"has {self.narrow} weights, nothing can be added",
                "change the network it was made from, and narrow that again",
            )

    def _member(self, population: Population | str) -> Population:
        member = self[population] if isinstance(population, str) else population
        if self.populations.get(getattr(member, "name", "")) is not member:
            raise NetworkError("network", f"{member!r} is not part of it", "add() it first")
        return member

    def _delay_steps(
        self, where: str, source: Population, target: Population, delay: Delay | None, train_delay: bool
    ) -> int:
        """How many steps the events of a projection take; 0 in continuous time."""
        if self.dt is None:
            if train_delay and target.cascades:
                raise NetworkError(
                    where,
                    f"{target!r} can send at the instant of an arrival, and has no gradient at its time",
                    "leave out train_delay",
                )
            return 0
        if train_delay:
            raise NetworkError(
                where, f"train_delay={train_delay!r} is for continuous time only", "leave it out"
            )
        if delay is None:
            delay = self.dt if target in (source, source.watches) else 0.0
        steps = _steps(where, delay, self.dt)
        instant = (p for p in self.projections.values() if p.delay_steps == 0)
        if steps == 0 and self._reaches(target, source, instant):
            raise NetworkError(
                where,
                "closes a cycle without delay",
                f"give delay={self.dt:g} or more to one projection of the cycle",
            )
        return steps

    def _keep_delays(self, new: Projection) -> None:
        """See to it that, with a new projection, no cycle through units that cascade can lose its delay.

        Delays in such cycles get a lower bound: those that are long enough now.  One at least in each cycle
        is, and stays so.
        """
        projections = [*self.projections.values(), new]
        instant = [p for p in projections if _shortest(p) < SHORTEST_DELAY]
        cascading = [population for population in self.populations.values() if population.cascades]

        def through(projection: Projection, among: list[Projection]) -> Population | None:
            """The first such units in a cycle of some projections and the given one."""
            ends = projection.target, projection.source
            reached = (u for u in cascading if self._reaches(ends[0], u, among))
            return next((unit for unit in reached if self._reaches(unit, ends[1], among)), None)

        if new in instant and (unit := through(new, instant)):
            raise NetworkError(
                f"projection '{new.name}'",
                f"closes a cycle without delay through {unit!r}, in which events could cause each other at "
                "one instant, without end",
                f"give delay={SHORTEST_DELAY:g} ms or more to one projection of the cycle",
            )
        for projection in projections:
            if projection not in instant and (unit := through(projection, projections)):
                assert projection.delay is not None  # in continuous time they have one
                projection.delay.lower = SHORTEST_DELAY
                projection.delay.reason = f"a cycle through '{unit.name}' must not lose its delay"

    def _reaches(self, start: Population, goal: Population, among: Iterable[Projection]) -> bool:
        """Whether ``start`` is ``goal``, or leads to it by such projections (and encoders that watch)."""
        todo, seen, links = [start], set(), list(among)
        while todo:
            here = todo.pop()
            if here is goal:
                return True
            if here.name not in seen:
                seen.add(here.name)
                todo += [p.target for p in links if p.source is here]
                todo += [p for p in self.populations.values() if p.watches is here]
        return False


def _steps(where: str, delay: Delay, dt: float) -> int:
    """A delay in steps."""
    if isinstance(delay, (list, tuple, np.ndarray)) or callable(delay) or hasattr(delay, "tocsr"):
        raise NetworkError(
            where,
            "delays that differ from pair to pair are for continuous time only",
            "give a number of ms, or make a Network with dt=None",
        )
    if not (isinstance(delay, (int, float, np.number)) and math.isfinite(delay) and delay >= 0):
        raise NetworkError(where, f"delay is {delay!r} ms", "give a number of ms, 0 or more")
    steps = round(delay / dt)
    if not math.isclose(steps * dt, delay, rel_tol=1e-9, abs_tol=1e-12):
        near = max(steps, 1) * dt
        raise NetworkError(
            where,
            f"delay {delay:g} ms is not a multiple of dt = {dt:g} ms",
            f"use delay={near:g} or another dt",
        )
    return steps


def _shortest(projection: Projection) -> float:
    """The shortest delay of a projection in continuous time, in ms; infinite if it connects no units."""
    return math.inf if projection.delay is None else float(projection.delay.values.min(initial=math.inf))


def _is_float(dtype: object) -> bool:
    """Whether ``dtype`` names one of the two float types."""
    try:
        return dtype is not None and np.dtype(dtype) in (np.float32, np.float64)  # type: ignore[call-overload]
    except TypeError:
        return False
