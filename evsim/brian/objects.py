"""Brian2 objects of a description, and runs of them: by NumPy, by Cython, or as a C++ program ("standalone").

A standalone run makes its objects anew for each run, on a device of its own, in a temporary folder.  Cython's
modules go where Brian2 puts them, into its cache.  Compilers are called with Brian2's own options, among them
``-ffast-math``: sums may be taken in another order than NumPy's.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evsim.brian.description import Description, Generator, Group, Monitor, Synapses
from evsim.brian.library import Target, compiler, need_compiler, quiet_brian2
from evsim.errors import NetworkError
from evsim.threads import usable_threads


@dataclass(frozen=True, eq=False)
class Record:
    """What the monitors of a run hold.

    Attributes
    ----------
    steps, units : dict of ndarray of int64, shape (n_events,)
        Of all events, by population.
    values : dict of ndarray of float64, shape (n_events,)
        What is recorded of the events, of those populations that have it.
    traces : dict of ndarray of float64, shape (n_units, n_steps)
        States when they are recorded.
    last : dict of ndarray of float64, shape (n_units,)
        States at the end.
    seconds, prepare_seconds : float
        Wall time of the steps (standalone: of the program, which also reads and writes arrays), and of
        generating and compiling code before them.
    version : str
        ``"Brian2 2.9.0, numpy"``.
    """

    steps: dict[str, NDArray[np.int64]]
    units: dict[str, NDArray[np.int64]]
    values: dict[str, NDArray[np.float64]]
    traces: dict[str, NDArray[np.float64]]
    last: dict[str, NDArray[np.float64]]
    seconds: float
    prepare_seconds: float
    version: str


class Objects:
    """Brian2 objects of a description, on Brian2's present device.

    Parameters
    ----------
    brian2 : module
        From `quiet_brian2`.
    description : Description

    Attributes
    ----------
    net : brian2.Network
    clock : brian2.Clock
    groups : dict of brian2.NeuronGroup or brian2.SpikeGeneratorGroup
        By population.
    synapses : dict of brian2.Synapses
        By projection.
    spikes, traces : dict of brian2.SpikeMonitor, brian2.StateMonitor
        By population.
    """

    def __init__(self, brian2: Any, description: Description):
        self.description = description
        self.clock = brian2.Clock(dt=description.dt * brian2.ms, name="evsim_clock*")
        self.groups: dict[str, Any] = {}
        for name, group in description.groups.items():
            if isinstance(group, Generator):
                self.groups[name] = self._generator(brian2, group)
            else:
                self.groups[name] = self._group(brian2, group)
        self.synapses = {name: self._connect(brian2, s) for name, s in description.synapses.items()}
        self.spikes = {name: self._spikes(brian2, m) for name, m in description.spikes.items()}
        self.traces = {name: self._trace(brian2, m) for name, m in description.states.items()}
        parts = (self.groups, self.synapses, self.spikes, self.traces)
        self.net = brian2.Network(*(thing for part in parts for thing in part.values()))
        if description.schedule:
            self.net.schedule = list(description.schedule)
        if brian2.get_device() is brian2.all_devices["runtime"]:
            self.net.store("fresh")
            for (
                thing
            ) in self.net.objects:  # as the first run would: Brian2 warns of objects without a network
                thing._network = self.net.id

    def _generator(self, brian2: Any, generator: Generator) -> Any:
        return brian2.SpikeGeneratorGroup(
            generator.n,
            generator.unit,
            (generator.step + 0.5) * self.clock.dt,
            clock=self.clock,
            name=f"evsim_{generator.name}*",
        )

    def _group(self, brian2: Any, group: Group) -> Any:
        namespace: dict[str, Any] = dict(group.constants)
        namespace |= {name: value * brian2.ms for name, value in group.times.items()}
        if group.stimulus is not None:
            namespace["stimulus"] = brian2.TimedArray(group.stimulus, dt=self.clock.dt)
        options: dict[str, Any] = {} if group.method is None else {"method": group.method}
        if group.refractory is not None:
            options["refractory"] = group.refractory * self.clock.dt
        made = brian2.NeuronGroup(
            group.n,
            group.equations,
            threshold=group.threshold,
            reset=group.reset,
            clock=self.clock,
            namespace=namespace,
            name=f"evsim_{group.name}*",
            **options,
        )
        for name, values in group.values.items():
            setattr(made, name, values)
        if group.lastspike is not None:
            made.lastspike = group.lastspike * self.clock.dt
        for name, (other, variable) in group.linked.items():
            setattr(made, name, brian2.linked_var(self.groups[other], variable))
        for what, runner in (("threshold", made.thresholder), ("reset", made.resetter)):
            if what in group.turn:
                runner["spike"].when = group.turn[what]
        if group.regular is not None:
            code = group.regular
            made.run_regularly(code.text, clock=self.clock, when=code.when, order=code.order)
        return made

    def _connect(self, brian2: Any, synapses: Synapses) -> Any:
        fixed = isinstance(synapses.delay, int)
        options = {"delay": dict.fromkeys(synapses.on_pre, synapses.delay * self.clock.dt)} if fixed else {}
        number = [*self.description.synapses].index(synapses.name)
        made = brian2.Synapses(
            self.groups[synapses.source],
            self.groups[synapses.target],
            synapses.equations,
            on_pre={way: code.text for way, code in synapses.on_pre.items()},
            clock=self.clock,
            namespace={},
            name=f"evsim_projection_{number}*",
            **options,
        )
        made.connect(i=synapses.i, j=synapses.j)
        for name, values in synapses.weights.items():
            setattr(made, name, values)
        for way, code in synapses.on_pre.items():
            pathway = getattr(made, way)
            pathway.when, pathway.order = code.when, code.order
            if not fixed:
                pathway.delay = synapses.delay * self.clock.dt
        return made

    def _spikes(self, brian2: Any, monitor: Monitor) -> Any:
        options = {} if monitor.when is None else {"when": monitor.when, "order": monitor.order}
        name, group = f"evsim_{monitor.group}_events*", self.groups[monitor.group]
        return brian2.SpikeMonitor(group, variables=monitor.variable, name=name, **options)

    def _trace(self, brian2: Any, monitor: Monitor) -> Any:
        options = {} if monitor.when is None else {"when": monitor.when, "order": monitor.order}
        name, group = f"evsim_{monitor.group}_state*", self.groups[monitor.group]
        return brian2.StateMonitor(
            group, monitor.variable, record=True, clock=self.clock, name=name, **options
        )

    def run(self, target: Target) -> Record:
        """Run all steps from the start; each call starts afresh.

        Parameters
        ----------
        target : {"numpy", "cython"}

        Raises
        ------
        NetworkError
            Another target, a Brian2 device that is not its runtime, code that does not compile.
        MissingExtraError
            The target needs a compiler, and there is none.
        """
        description = self.description
        with quiet_brian2(target) as brian2:
            start = time.perf_counter()
            self.net.restore("fresh")
            try:
                self.net.run(0 * brian2.second, namespace={})  # generates the code
            except Exception as error:
                if target == "cython":
                    raise _not_compiled(error) from error
                raise
            ready = time.perf_counter()
            self.net.run(description.n_steps * self.clock.dt, namespace={})
            end = time.perf_counter()
            done = int(self.clock.variables["timestep"].get_value()[0])
            if done != description.n_steps:  # Brian2 answers Ctrl+C by stopping early, without an exception
                raise KeyboardInterrupt(f"Brian2 stopped after {done} of {description.n_steps} steps")
            return self._record(end - ready, ready - start, f"Brian2 {brian2.__version__}, {target}")

    def _record(self, seconds: float, prepare_seconds: float, version: str) -> Record:
        """What the monitors hold."""
        clock, description = self.clock, self.description
        spikes, traces = self.spikes, self.traces
        asked = {name: m.variable for name, m in description.spikes.items() if m.variable is not None}
        states = {name: m.variable or "" for name, m in description.states.items()}
        return Record(
            steps={n: np.rint(np.array(m.t_) / clock.dt_).astype(np.int64) for n, m in spikes.items()},
            units={n: np.array(m.i, dtype=np.int64) for n, m in spikes.items()},
            values={n: np.array(getattr(spikes[n], f"{variable}_")) for n, variable in asked.items()},
            traces={n: np.array(getattr(traces[n], f"{state}_")) for n, state in states.items()},
            last={n: np.array(getattr(self.groups[n], f"{state}_")) for n, state in states.items()},
            seconds=seconds,
            prepare_seconds=prepare_seconds,
            version=version,
        )


def _not_compiled(error: Exception) -> Exception:
    """What is to be said of an exception while Cython was at work."""
    need_compiler()
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    said = (str(cause).strip() or repr(cause)).splitlines()[-1]
    return NetworkError("Brian2 twin", f"Cython's build failed: {said}", "use target='numpy'")


def run_standalone(description: Description) -> Record:
    """Write, compile and run a C++ program, in a folder that is removed.

    Raises
    ------
    NetworkError
        A Brian2 device that is not its runtime, a program that does not compile or fails.
    MissingExtraError
        There is no compiler.
    """
    start = time.perf_counter()
    with (
        tempfile.TemporaryDirectory(prefix="evsim-brian2-", ignore_cleanup_errors=True) as folder,
        quiet_brian2("standalone") as brian2,
    ):
        device = brian2.get_device()
        objects = Objects(brian2, description)
        objects.net.run(description.n_steps * objects.clock.dt, namespace={})
        device.build(directory=folder, compile=False, run=False, direct_call=False)
        make = brian2.prefs["devices.cpp_standalone.make_cmd_unix"]
        command = [make, f"-j{usable_threads(None)}"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace")
        if done.returncode:
            lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
            said = next((line for line in lines if "error" in line.lower()), " ".join(lines[-1:]))
            remedy = f"see that {compiler()} compiles C++, or use target='numpy'"
            raise NetworkError("Brian2 twin", f"its C++ program does not compile: {said}", remedy)
        ready = time.perf_counter()
        try:
            device.run(folder, "results", with_output=False)
        except RuntimeError as error:
            problem, remedy = f"its C++ program failed: {error}", "use target='numpy'"
            raise NetworkError("Brian2 twin", problem, remedy) from error
        seconds = device.timers["run_binary"]  # what the program says itself is processor time
        return objects._record(seconds, ready - start, f"Brian2 {brian2.__version__}, standalone")
