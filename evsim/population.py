"""A population: units of one type that share their parameters' shapes and their place in a network."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evsim.errors import NetworkError, ParameterError
from evsim.parameter import Parameter

#: Shortest time constant in continuous time, in ms.
SHORTEST_TIME_CONSTANT = 1e-3

#: What an array of a parameter may be made from: a number, an array, or a function of (generator, shape).
Initial = float | ArrayLike | Callable[["np.random.Generator", tuple[int, ...]], ArrayLike]
#: Gives the generator of what one object draws, always the same one.  It is made when it is first wanted:
#: a network whose values are all given does without NumPy's random numbers, which take 5 MB.
Rng = Callable[[], "np.random.Generator"]


class Population(ABC):
    """A named group of ``n_units`` units of one type.

    A population only describes; it has no running state.  Its parameter arrays exist once it was added to a
    network, which gives the float type and the random numbers, and says whether time is continuous
    (`settle`).

    Attributes
    ----------
    continuous : bool
        Whether it is in a network in continuous time; kernel, ports, states and losses may depend on it.
    kernel : str
        Which kernel of the core runs it (``evsim.plan`` says what each keeps).
    ports : mapping of str to tuple of str
        The places where projections may end, each with the names of its blocks of columns: a projection to
        port ``p`` has ``len(ports[p]) * n_units`` columns, block by block.
    emits : bool
        Whether its units send events.
    states : tuple of str
        State variables that are carried from step to step, or from event to event, each of shape
        (lanes, n_units).
    rest : mapping of str to float
        Those that are not zero at rest, in steps.
    sends, takes : {"values", "changes", "any"}
        What its events mean, and what those it receives must mean: a value that holds for one step, or a
        change that is added to what was sent before.
    losses : tuple of str
        What a loss may look at: ``""`` its state, ``"y"`` its event values, ``"o"`` whether it sent; in
        continuous time (``continuous_losses``) ``"time"`` its event times, ``"integral"`` and ``"square"``
        those of its state.
    watches : Population or None
        A population whose state it reads within the same step.
    cascades : bool
        Whether, in continuous time, what arrives can make it send at the same instant.
    only_continuous : mapping of str to object
        Arguments that mean something in continuous time only, with what they are by default.
    """

    continuous: bool = False
    kernel: str = ""
    ports: Mapping[str, tuple[str, ...]] = {}
    emits: ClassVar[bool] = True
    states: tuple[str, ...] = ()
    rest: Mapping[str, float] = {}
    sends: str = "values"
    takes: str = "values"
    losses: tuple[str, ...] = ()
    continuous_losses: ClassVar[tuple[str, ...]] = ()
    watches: Population | None = None
    cascades: ClassVar[bool] = False
    only_continuous: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, n_units: int, name: str):
        if isinstance(n_units, bool) or not isinstance(n_units, (int, np.integer)) or n_units < 1:
            raise NetworkError(f"population '{name}'", f"n_units is {n_units!r}", "give a positive integer")
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise NetworkError(
                f"population {name!r}",
                "the name is not a word",
                "use letters, digits and underscores: it names files' groups",
            )
        self.n_units = int(n_units)
        self.name = name
        self.parameters: dict[str, Parameter] = {}
        self._given: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.n_units}, name={self.name!r})"

    def settle(self, continuous: bool) -> None:
        """Take on the form of clocked or of continuous time; called by the network, before `build`.

        Raises
        ------
        NetworkError
            It has no such form.
        """
        if not continuous:
            for argument, default in self.only_continuous.items():
                value = self._given[argument]
                if not isinstance(value, (str, int, float)) or value != default:
                    raise self._needs(True, f"{argument}={value!r}", f"leave out {argument}")
        self.continuous = continuous
        self.losses = self.continuous_losses if continuous else type(self).losses

    @abstractmethod
    def build(self, dtype: np.dtype, rng: Rng) -> None:
        """Make the parameter arrays; called once, by the network."""

    def default_port(self, source: Population) -> str:
        """The port a projection from ``source`` ends in unless it says otherwise."""
        return next(iter(self.ports), "")

    def check_projection(self, where: str, source: Population, port: str) -> None:  # noqa: B027 (optional hook)
        """Raise NetworkError if a projection from ``source`` to ``port`` means nothing to this unit type."""

    def decay(self, dt: float) -> float:
        """The factor by which a leaky state shrinks in ``dt`` ms; 0 for units without one."""
        return 0.0

    def describe(self) -> dict:
        """Type and arguments, as JSON can hold them (parameter values not included)."""
        return {"type": type(self).__name__, "n_units": self.n_units}

    def _needs(self, continuous: bool, what: str, remedy: str) -> NetworkError:
        """The error that ``what`` of this population belongs to the other kind of time than the network."""
        kind, network = ("continuous time", "dt=None") if continuous else ("steps", "dt in ms")
        remedy = f"{remedy}, or make a Network with {network}"
        return NetworkError(f"population '{self.name}'", f"{what} is for {kind} only", remedy)

    def _add(
        self,
        name: str,
        initial: Initial,
        shape: tuple[int, ...],
        dtype: np.dtype,
        rng: Rng,
        **options: Any,
    ) -> None:
        where = f"{self.name}.{name}"
        values = initial(rng(), shape) if callable(initial) else initial
        array = np.asarray(values, dtype=dtype)
        if array.shape not in ((), shape):
            raise ParameterError(
                f"parameter '{where}'", f"values have shape {array.shape}", f"give a number or shape {shape}"
            )
        full: NDArray = np.ascontiguousarray(np.broadcast_to(array, shape)).copy()
        self.parameters[name] = Parameter(where, full, **options)

    def _add_time_constant(
        self, name: str, initial: Initial, dtype: np.dtype, rng: Rng, trainable: bool
    ) -> None:
        """Make a time constant in ms, shape (1,), that all units share."""
        lower, reason = SHORTEST_TIME_CONSTANT, "a time constant in ms"
        self._add(name, initial, (1,), dtype, rng, lower=lower, reason=reason, trainable=trainable)
