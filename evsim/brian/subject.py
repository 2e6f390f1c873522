"""What is run here and in Brian2, found by name: a model, a protocol, or something in a Python file."""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np

from evsim.errors import NetworkError, ProtocolError
from evsim.events import Events
from evsim.examples import continuous_example, delta_example, egru_example, lif_example
from evsim.models import EventSource
from evsim.network import Network
from evsim.timed_events import TimedEvents

#: Random networks that come with evsim.
MODELS = ("egru", "lif", "delta_gru", "delta_lstm")
#: What random stimuli look like: ms from one event of a unit to the next, on average.
INTERVAL = 20.0
#: How long a network without a stimulus of its own runs.
STEPS, DURATION = 500, 50.0


@dataclass(frozen=True)
class Subject:
    """A network with all that is needed to run it.

    Attributes
    ----------
    name : str
    network : Network
        In float64.
    stimulus : dict
        By source, of one lane; as `Simulation.run` and `evsim.brian.to_brian2` take it.
    duration : float
        ms.
    initial : dict of dict of array, optional
        States at the start by population and name, in continuous time; otherwise at rest.
    chaotic : bool
        Whether runs that differ by rounding soon have other events, so that only statistics can agree.
    about : str
        What else a reader should know, in plain words.
    """

    name: str
    network: Network
    stimulus: Mapping[str, Any]
    duration: float
    initial: Mapping[str, Mapping[str, Any]] | None = None
    chaotic: bool = False
    about: str = ""

    @property
    def n_steps(self) -> int:
        """Steps of a network in steps."""
        return max(1, round(self.duration / self.network.step))

    def timed(self) -> dict[str, TimedEvents]:
        """The events of all sources of a network in continuous time; none for those that are not named."""
        found = {}
        for name, source in self.network.populations.items():
            if isinstance(source, EventSource):
                given = self.stimulus.get(
                    name, (np.zeros(0), np.zeros(0, int), np.zeros(0, int), np.zeros(0))
                )
                if isinstance(given, TimedEvents):
                    given = given.time, given.lane, given.unit, given.value
                size: dict[str, Any] = {
                    "n_units": source.n_units,
                    "n_lanes": 1,
                    "where": f"stimulus '{name}'",
                }
                found[name] = TimedEvents.from_list(*given, start=0.0, stop=self.duration, **size)
        return found


def find_subject(what: str | Path, *, seed: int = 0, continuous: bool = False, **options: Any) -> Subject:
    """The subject of a name.

    Parameters
    ----------
    what : str or Path
        A model (``egru``, ``lif``, ``delta_gru``, ``delta_lstm``), a protocol that defines a function
        ``subject`` (``cuba``, ``yin_yang:egru`` where it has variants), or ``path/file.py:name``: a
        `Network`, a `Subject`, or a function that returns one of these or (network, stimulus, duration).  A
        network alone is given random events.
    seed : int
        Of weights and stimulus.
    continuous : bool
        Of the models: in continuous time.
    **options
        Sizes; those of `egru_example` and its like for models, and of the
        function for others.

    Raises
    ------
    ProtocolError
        There is none of that name, or it cannot be run in Brian2.
    NetworkError
        A network whose numbers are not floating point.
    """
    name = str(what)
    if name in MODELS:
        return _of_model(name, seed, continuous, options)
    path, colon, inner = name.rpartition(":")
    if colon and path.endswith(".py"):
        return _of_file(Path(path), inner, seed, options)
    if name.endswith(".py"):
        raise ProtocolError(f"'{name}'", "does not say what in the file is meant", f"give {name}:NAME")
    return _of_protocol(name, seed, options)


def _of_model(model: str, seed: int, continuous: bool, options: dict[str, Any]) -> Subject:
    given: Mapping[str, Any]
    if continuous:
        network, given = continuous_example(model, seed=seed, **options)  # type: ignore[arg-type]
        duration = given["cue"].duration
        return Subject(model, network, given, duration, about="A random network; see evsim.examples.")
    if model == "egru":
        network, given = egru_example(seed=seed, **options)
        n_steps = given["cue"].n_steps
    elif model == "lif":
        network, given = lif_example(seed=seed, **options)
        n_steps = given["cue"].n_steps
    else:
        network, given = delta_example(unit=model, seed=seed, **options)  # type: ignore[arg-type]
        n_steps = len(given["lines"])
    about = "A random network; see evsim.examples."
    return Subject(model, network, given, n_steps * network.step, about=about)


def _of_protocol(name: str, seed: int, options: dict[str, Any]) -> Subject:
    """That of the function ``subject`` of a protocol, ``name`` or ``name:variant``."""
    hooks = protocols_with_subjects()
    plain, _, variant = name.partition(":")
    if plain not in hooks:
        from evsim.protocol import names

        what = f"{'protocol' if plain in names() else 'subject'} '{plain}'"
        problem = "defines no subject to compare" if plain in names() else "there is none of that name"
        known = f"{', '.join(MODELS)}, {', '.join(hooks)}"
        raise ProtocolError(what, problem, f"use one of {known}, or FILE.py:NAME")
    chosen = {"variant": variant} if variant else {}
    made = _call(f"protocol '{plain}'", hooks[plain], seed, chosen | options)
    return _prepared(_as_subject(name, made, seed))


def protocols_with_subjects() -> dict[str, Callable[..., Subject]]:
    """By name: the function ``subject`` of each protocol that has one."""
    from evsim.protocol import names

    modules = {name: importlib.import_module(f"evsim.protocols.{name}") for name in names()}
    return {name: module.subject for name, module in modules.items() if hasattr(module, "subject")}


def _of_file(path: Path, name: str, seed: int, options: dict[str, Any]) -> Subject:
    from evsim.protocol import import_file

    module, where = import_file(path), f"'{path}:{name}'"
    made = getattr(module, name, None)
    if made is None:
        kinds = (Network, Subject)
        found = [key for key, value in vars(module).items() if isinstance(value, kinds)]
        found += [key for key, value in vars(module).items() if inspect.isfunction(value)]
        has = ", ".join(key for key in found if not key.startswith("_")) or "no network or function"
        raise ProtocolError(where, f"there is no '{name}' in the file", f"it has {has}")
    if callable(made) and not isinstance(made, (Network, Subject)):
        made = _call(where, made, seed, options)
    elif isinstance(made, Subject) or options.keys() - {"duration", "n_steps"}:
        for option in options:
            raise ProtocolError(where, f"takes no '{option}'", "leave it out, or give a function with it")
    return _prepared(_as_subject(f"{path.name}:{name}", made, seed, **_length(made, options)))


def _length(made: Any, options: dict[str, Any]) -> dict[str, Any]:
    return options if isinstance(made, Network) else {}


def _call(where: str, function: Callable[..., Any], seed: int, options: dict[str, Any]) -> Any:
    """Call a function with those of seed and options that it takes; options it does not take are refused."""
    takes = inspect.signature(function).parameters
    for name, value in options.items():
        if name not in takes:
            own = [f"'{p}'" for p in takes if p != "seed"]
            remedy = f"it has {', '.join(own)}" if own else "leave it out"
            raise ProtocolError(where, f"has no '{name}' to be {value!r}", remedy)
    hints = get_type_hints(function, localns={"Subject": Subject}) if "variant" in options else {}
    known = get_args(hints.get("variant"))
    if known and options["variant"] not in known:
        raise ProtocolError(where, f"there is no variant '{options['variant']}'", f"use {' or '.join(known)}")
    return function(**({"seed": seed} if "seed" in takes else {}), **options)


def _as_subject(
    name: str, made: Any, seed: int, *, duration: float | None = None, n_steps: int | None = None
) -> Subject:
    if isinstance(made, Subject):
        return replace(made, name=name)
    if isinstance(made, tuple) and len(made) == 3 and isinstance(made[0], Network):
        return Subject(name, made[0], made[1], float(made[2]))
    if not isinstance(made, Network):
        remedy = "give a Network, a Subject, or a function returning one or (network, stimulus, duration)"
        raise ProtocolError(f"'{name}'", f"is of type {type(made).__name__}", remedy)
    if duration is None:
        duration = DURATION if made.continuous else (n_steps or STEPS) * made.step
    sources = [p.name for p in made.populations.values() if isinstance(p, EventSource)]
    about = f"Random events for {', '.join(sources)}, by the seed {seed}." if sources else "No events given."
    return Subject(name, made, random_stimulus(made, duration, seed), duration, about=about)


def _prepared(subject: Subject) -> Subject:
    """The subject in float64."""
    network = subject.network
    if network.fixed_point is not None or network.narrow is not None:
        kind = "in fixed point" if network.fixed_point is not None else f"of {network.narrow} weights"
        problem = f"is {kind}, Brian2 computes in floating point"
        raise NetworkError(f"network of '{subject.name}'", problem, "compare the one it was made from")
    if not (math.isfinite(subject.duration) and subject.duration > 0):
        problem = f"its duration is {subject.duration!r}"
        raise ProtocolError(f"'{subject.name}'", problem, "give a positive number of ms")
    if network.dtype == np.float64:
        return subject
    about = f"{subject.about} Made in {network.dtype}, compared in float64.".strip()
    return replace(subject, network=network.copy("float64"), about=about)


def random_stimulus(network: Network, duration: float, seed: int = 0) -> dict[str, Any]:
    """Events for all sources of a network: every 20 ms on average, values gamma-distributed with mean 1.

    A source with a threshold is given lines to encode: random walks drawn back to 0, of standard deviation 1.
    To delta units in continuous time an event is the change from one normal value of its line to the next.

    Parameters
    ----------
    duration : float
        ms.
    seed : int
        Each source has a stream of its own, by its place in the order of names.
    """
    found: dict[str, Any] = {}
    sources = sorted(p.name for p in network.populations.values() if isinstance(p, EventSource))
    for number, name in enumerate(sources):
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, number])))
        n_units = network[name].n_units
        if network.continuous:
            changes = any(
                q.target.takes == "changes" for q in network.projections.values() if q.source.name == name
            )
            found[name] = _random_times(rng, n_units, duration, changes)
            continue
        n_steps = max(1, round(duration / network.step))
        if "threshold" in network[name].parameters:
            walk = rng.normal(size=(n_steps, n_units))
            for step in range(1, n_steps):
                walk[step] = 0.95 * walk[step - 1] + np.sqrt(1 - 0.95**2) * walk[step]
            found[name] = walk
            continue
        sent = rng.random((n_steps, 1, n_units)) < min(1.0, network.step / INTERVAL)
        value = rng.gamma(2.0, 0.5, (n_steps, 1, n_units))
        found[name] = Events.from_dense(np.where(sent, value, 0.0), dtype=np.float64)
    return found


def _random_times(rng: np.random.Generator, n_units: int, duration: float, changes: bool) -> TimedEvents:
    count = rng.poisson(duration / INTERVAL * n_units)
    time, unit = np.sort(rng.uniform(0.0, duration, count)), rng.integers(0, n_units, count)
    value = rng.gamma(2.0, 0.5, count)
    if changes:
        value = rng.normal(size=count)
        for one in range(n_units):
            value[unit == one] = np.diff(value[unit == one], prepend=0.0)
    size: dict[str, Any] = {"n_units": n_units, "n_lanes": 1, "start": 0.0, "stop": duration}
    return TimedEvents.from_list(time, np.zeros_like(unit), unit, value, **size)
