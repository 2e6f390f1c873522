"""A network as a Brian2 script: text that a reader of Brian2 can run and change without evsim.

It is written from the same `Description` that live objects are made of, so that both do the same.  Arrays of
more than INLINE numbers are kept beside the script in a file of NumPy's.
"""

from __future__ import annotations

import builtins
import io
import keyword
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evsim.brian.continuous import InitialStates, Method
from evsim.brian.describing import Timing, describe
from evsim.brian.description import Description, Generator, Group, Monitor, Synapses
from evsim.errors import NetworkError
from evsim.network import Network
from evsim.provenance import version

#: Arrays of so many numbers are written into the text.
INLINE = 200
#: Longest line of a script.
WIDTH = 88
#: Names that a script uses itself, in the order in which Brian2's are imported.
BRIAN2 = (
    "Network",
    "NeuronGroup",
    "SpikeGeneratorGroup",
    "SpikeMonitor",
    "StateMonitor",
    "Synapses",
    "TimedArray",
    "defaultclock",
    "linked_var",
    "ms",
    "second",
)
OWN = (
    "N_STEPS",
    "Path",
    "argparse",
    "check_slots",
    "data",
    "dt",
    "events",
    "main",
    "network",
    "np",
    "states",
)


@dataclass(frozen=True)
class Script:
    """A Brian2 script.

    Attributes
    ----------
    text : str
        ASCII.
    arrays : dict of ndarray
        What it reads from a file of its own name that ends in ``.npz``; empty if it needs none.
    """

    text: str
    arrays: Mapping[str, NDArray] = field(repr=False)

    def __str__(self) -> str:
        return self.text

    def save(self, path: str | Path, overwrite: bool = False) -> list[Path]:
        """Write the script and, if it has one, its file of arrays.

        Parameters
        ----------
        path : str or Path
            Ends in ``.py``.
        overwrite : bool

        Returns
        -------
        list of Path
            What was written.

        Raises
        ------
        NetworkError
            Another ending, or a file that is there already.
        """
        path = Path(path)
        where = f"script '{path}'"
        if path.suffix != ".py":
            raise NetworkError(where, "does not end in .py", "give another name")
        wanted = [path, *([path.with_suffix(".npz")] if self.arrays else [])]
        for one in wanted:
            if one.exists() and not overwrite:
                raise NetworkError(
                    where, f"{one} is there already", "give another name, or overwrite=True (--force)"
                )
        if not path.parent.is_dir():
            raise NetworkError(where, f"there is no folder {path.parent}", "make it, or give another name")
        path.write_text(self.text, encoding="ascii")
        if self.arrays:
            with io.BytesIO() as memory:
                arrays: dict[str, Any] = dict(self.arrays)
                np.savez_compressed(memory, **arrays)
                wanted[1].write_bytes(memory.getvalue())
        return wanted


def brian2_script(
    network: Network,
    stimulus: Mapping[str, Any] | None = None,
    duration: float | None = None,
    *,
    n_steps: int | None = None,
    dt: float | None = None,
    samples: ArrayLike | None = None,
    initial: InitialStates | None = None,
    method: Method = "rk4",
    slots: int = 4,
    title: str = "",
) -> Script:
    """Write a network down as a Brian2 script.  Brian2 is not needed for that.

    Parameters
    ----------
    network, stimulus, duration, n_steps, dt, initial, method, slots
        As of `to_brian2`.
    samples : array, optional
        In continuous time: if it is not empty, states are recorded at every step.  In steps they always are,
        and it is to be left out.
    title : str
        Of the network, for the head of the script.

    Raises
    ------
    NetworkError, StimulusError
        As of `to_brian2`.
    """
    timing: Timing = {"duration": duration, "n_steps": n_steps, "dt": dt, "samples": samples}
    options: dict[str, Any] = {"initial": initial, "method": method, "slots": slots}
    description = describe("Brian2 script", network, stimulus or {}, timing, **options)
    kind = "in continuous time" if network.continuous else f"in steps of {network.step:g} ms"
    return _Writer(description, title or f"A network {kind}").script()


class _Writer:
    """What of a script is written so far."""

    def __init__(self, description: Description, title: str):
        # names of files may hold anything
        plain = title.encode("ascii", "replace").decode().replace("\\", "/").replace('"', "'")
        self.description, self.title = description, plain
        self.lines: list[str] = []
        self.arrays: dict[str, NDArray] = {}
        self.texts: dict[str, str] = {}
        self.used: set[str] = {"Network", "defaultclock", "ms", "second"}
        self.taken = {*BRIAN2, *OWN, *dir(builtins), *keyword.kwlist, *keyword.softkwlist}
        self.groups = {name: self._name(name) for name in description.groups}
        self.synapses = {name: self._name(name) for name in description.synapses}
        self.spikes = {name: self._name(f"{name}_events") for name in description.spikes}
        self.states = {name: self._name(f"{name}_states") for name in description.states}

    def script(self) -> Script:
        """All of it."""
        self._section("Groups")
        for name, group in self.description.groups.items():
            if isinstance(group, Generator):
                self._generator(self.groups[name], group)
            else:
                self._group(self.groups[name], group)
        if self.synapses:
            self._section("Synapses")
        for number, (name, synapses) in enumerate(self.description.synapses.items()):
            self._connect(self.synapses[name], synapses, number)
        self._monitors()
        self._network()
        self._main()
        return Script("\n".join([*self._head(), *self.lines]) + "\n", self.arrays)

    # -- pieces of text ------------------------------------------------------------------------------------

    def _name(self, wanted: str) -> str:
        """A name of Python's for something, and no other's."""
        plain = re.sub(r"\W+", "_", wanted.replace("->", "_to_")).strip("_")
        plain = plain if plain and not plain[0].isdigit() else f"to_{plain}"
        name, number = plain, 2
        while name in self.taken:
            name, number = f"{plain}_{number}", number + 1
        self.taken.add(name)
        return name

    def _section(self, title: str) -> None:
        self.lines += ["", f"# -- {title} ".ljust(WIDTH, "-"), ""]

    def _call(self, begin: str, *arguments: str) -> None:
        """A call with an argument to a line."""
        self.lines += [f"{begin}(", *(f"    {one}," for one in arguments), ")"]

    def _fit(self, begin: str, *arguments: str) -> None:
        """A call in one line, if it fits."""
        line = f"{begin}({', '.join(arguments)})"
        if len(line) <= WIDTH:
            self.lines.append(line)
        else:
            self._call(begin, *arguments)

    def _text(self, name: str, text: str) -> str:
        """A name for statements or equations of several lines; the same for the same."""
        if text in self.texts:
            return self.texts[text]
        self.texts[text] = wanted = self._name(name)
        self.lines += [f'{wanted} = """', *(text.splitlines()), '"""']
        return wanted

    def _assign(self, target: str, values: Any, unit: str = "") -> None:
        """An array, or a number for all, as a variable of a group or a pathway."""
        array = np.asarray(values)
        if array.ndim > 0 and array.size <= INLINE and not unit:
            self._array(target, array)
        else:
            name = target.removesuffix("[:]").replace(".", "_")
            self.lines.append(f"{target} = {self._values(name, values)}{unit}")

    def _array(self, target: str, array: NDArray) -> None:
        """An array written out."""
        # formatters would give each number a line of its own
        rows = _wrapped(repr(number) for number in array.ravel().tolist())
        shape = "" if array.ndim == 1 else f".reshape{array.shape}"
        kind = ", dtype=int" if not array.size and array.dtype.kind == "i" else ""
        self.lines += ["# fmt: off", f"{target} = np.array([", *rows, f"]{kind}){shape}", "# fmt: on"]

    def _values(self, name: str, values: Any) -> str:
        """An expression for a number or an array; what is large goes into the file."""
        array = np.asarray(values)
        if array.ndim == 0:
            return repr(array.item())
        name = self._name(name)
        if array.size > INLINE:
            self.arrays[name] = _narrow(array)
            return f'data["{name}"]'
        self._array(name, array)
        return name

    # -- parts of a script ---------------------------------------------------------------------------------

    def _head(self) -> list[str]:
        d = self.description
        names = sorted(name for name in BRIAN2 if name in self.used)
        lines = [f'"""{self.title}, for Brian2.', "", *d.about.splitlines(), ""]
        lines += ["Large arrays are in the file of this name that ends in .npz.", ""] if self.arrays else []
        lines += [
            f"Written by evsim {version('evsim')}, which is not needed to run it: pip install brian2",
            '"""',
            "",
            "import argparse",
        ]
        lines += ["from pathlib import Path"] if self.arrays else []
        lines += ["", "import numpy as np", f"from brian2 import {', '.join(names)}"]
        if len(lines[-1]) > WIDTH:
            lines[-1:] = ["from brian2 import (", *(f"    {name}," for name in names), ")"]
        lines += [
            "",
            "# Brian2 chooses its target: numpy, or cython, which compiles first and then is faster.",
            "# To choose yourself, import prefs from brian2, too, and set prefs.codegen.target here;",
            '# to have it write a C++ program, import set_device, and say set_device("cpp_standalone").',
            "",
            f"defaultclock.dt = {d.dt!r} * ms",
            "dt = defaultclock.dt",
            f"N_STEPS = {d.n_steps}  # {d.n_steps * d.dt:.10g} ms",
        ]
        lines += ['data = np.load(Path(__file__).with_suffix(".npz"))'] if self.arrays else []
        return lines

    def _generator(self, name: str, generator: Generator) -> None:
        self.used.add("SpikeGeneratorGroup")
        self.lines.append(f"# {generator.name}: {generator.title}")
        unit = self._values(f"{name}_unit", generator.unit)
        step = self._values(f"{name}_step", generator.step)
        self._call(f"{name} = SpikeGeneratorGroup", str(generator.n), unit, f"({step} + 0.5) * dt")
        self.lines.append("")

    def _group(self, name: str, group: Group) -> None:
        self.used.add("NeuronGroup")
        self.lines.append(f"# {group.name}: {group.title}")
        equations = self._text(f"{name}_equations", group.equations)
        stimulus = None
        if group.stimulus is not None:
            self.used.add("TimedArray")
            rows = self._values(f"{name}_values", group.stimulus)
            stimulus = self._name(f"{name}_stimulus")
            self.lines.append(f"{stimulus} = TimedArray({rows}, dt=dt)  # a row for each step")
        arguments = [str(group.n), equations]
        for what in ("threshold", "reset"):
            if (code := getattr(group, what)) is not None:
                arguments.append(f"{what}={_quoted(code)}")
        if group.refractory is not None:
            arguments.append(f"refractory={group.refractory} * dt")
        if group.method is not None and re.search(r"^d\w+/dt", group.equations, re.MULTILINE):
            arguments.append(f'method="{group.method}"')
        constants = [f'"{key}": {float(value)!r}' for key, value in group.constants.items()]
        constants += [f'"{key}": {float(value)!r} * ms' for key, value in group.times.items()]
        constants += [f'"stimulus": {stimulus}'] if stimulus is not None else []
        arguments += [f"namespace={_dict(constants)}"] if constants else []
        self._call(f"{name} = NeuronGroup", *arguments)
        written: dict[str, Any] = {}
        for key, values in group.values.items():
            equal = [other for other, array in written.items() if np.array_equal(array, values)]
            if equal:  # it begins as another variable does
                self.lines.append(f'{name}.{key} = "{equal[0]}"')
            elif not (np.ndim(values) == 0 and values == 0):  # where Brian2 begins
                self._assign(f"{name}.{key}", values)
                written |= {key: values} if np.ndim(values) else {}
        if group.lastspike is not None:
            self._assign(f"{name}.lastspike", group.lastspike, " * dt")
        for key, (other, variable) in group.linked.items():
            self.used.add("linked_var")
            self.lines.append(f'{name}.{key} = linked_var({self.groups[other]}, "{variable}")')
        for what, runner in (("threshold", "thresholder"), ("reset", "resetter")):
            if what in group.turn:
                self.lines.append(f'{name}.{runner}["spike"].when = "{group.turn[what]}"')
        if group.regular is not None:
            code = self._text(f"{name}_each_step", group.regular.text)
            self.lines.append(f'{name}.run_regularly({code}, when="{group.regular.when}")')
        self.lines.append("")

    def _connect(self, name: str, synapses: Synapses, number: int) -> None:
        self.used.add("Synapses")
        source, target = self.groups[synapses.source], self.groups[synapses.target]
        plain = [*synapses.on_pre] == ["pre"]
        uniform = isinstance(synapses.delay, int)
        arrival = "" if not uniform else f", {synapses.delay} * dt late" if synapses.delay else ""
        self.lines.append(f"# {synapses.source} -> {synapses.target}: {synapses.i.size} synapses{arrival}")
        arguments = [source, target, _quoted(synapses.equations)]
        if plain:
            arguments.append(f"on_pre={_quoted(synapses.on_pre['pre'].text)}")
            arguments += [f"delay={synapses.delay} * dt"] if uniform and synapses.delay else []
        else:
            ways = [f'"{way}": {_quoted(code.text)}' for way, code in synapses.on_pre.items()]
            arguments.append(f"on_pre={_dict(ways)}")
            if uniform and synapses.delay:
                delays = [f'"{way}": {synapses.delay} * dt' for way in synapses.on_pre]
                arguments.append(f"delay={_dict(delays)}")
        self._call(f"{name} = Synapses", *arguments)
        self._fit(f"{name}.connect", *self._pairs(name, synapses))
        for key, values in synapses.weights.items():
            self._assign(f"{name}.{key}", values)
        for way, code in synapses.on_pre.items():
            if code.when != "synapses":
                self.lines.append(f'{name}.{way}.when = "{code.when}"')
            if number:
                self.lines.append(f"{name}.{way}.order = {code.order}")
            if not uniform:
                self._assign(f"{name}.{way}.delay", synapses.delay, " * dt")
        self.lines.append("")

    def _pairs(self, name: str, synapses: Synapses) -> tuple[str, ...]:
        """Arguments of connect()."""
        n, m = (self.description.groups[end].n for end in (synapses.source, synapses.target))
        i, j = synapses.i, synapses.j
        if i.size == n * m and (i * m + j == np.arange(n * m)).all():
            return ()  # all with all, in this order
        if i.size == n == m and (i == np.arange(n)).all() and (i == j).all():
            return ('j="i"',)
        return f"i={self._values(f'{name}_i', i)}", f"j={self._values(f'{name}_j', j)}"

    def _monitors(self) -> None:
        self._section("Monitors")
        for kind, monitors, names in (
            ("SpikeMonitor", self.description.spikes, self.spikes),
            ("StateMonitor", self.description.states, self.states),
        ):
            for name, monitor in monitors.items():
                self.used.add(kind)
                self._fit(f"{names[name]} = {kind}", *self._watching(kind, monitor))
        for title, names in (("events", self.spikes), ("states", self.states)):
            pairs = [f'"{name}": {variable}' for name, variable in names.items()]
            self.lines += [f"{title} = {{", *(f"    {pair}," for pair in pairs), "}"] if pairs else []
            self.lines += [] if pairs else [f"{title} = {{}}"]

    def _watching(self, kind: str, monitor: Monitor) -> list[str]:
        arguments = [self.groups[monitor.group]]
        if kind == "StateMonitor":
            arguments += [f'"{monitor.variable}"', "record=True"]
        elif monitor.variable is not None:
            arguments.append(f'variables="{monitor.variable}"')
        if monitor.when is not None and (kind == "StateMonitor" or monitor.variable is not None):
            arguments.append(f'when="{monitor.when}"')
            arguments += [f"order={monitor.order}"] if monitor.order else []
        return arguments

    def _network(self) -> None:
        self._section("Network")
        parts = [*self.groups.values(), *self.synapses.values(), *self.spikes.values(), *self.states.values()]
        self._call("network = Network", *parts)
        if self.description.schedule:
            self.lines += [
                "# what happens in a step, in this order",
                "network.schedule = [",
                *(f'    "{slot}",' for slot in self.description.schedule),
                "]",
            ]

    def _main(self) -> None:
        kept = {
            name: (group.slots, group.reach)
            for name, group in self.description.groups.items()
            if isinstance(group, Group) and group.slots and group.reach
        }
        if kept:
            self.lines += CHECK.splitlines()
        self.lines += MAIN_RUN.splitlines()
        for name, (slots, reach) in kept.items():
            self.lines.append(f"    check_slots({self.spikes[name]}, {slots}, {reach})")
        self.lines += MAIN_SHOW.splitlines()


#: How a script sees that no unit has sent more than it can keep apart.
CHECK = '''

def check_slots(monitor, slots, reach):
    """Stop if a unit had more events on their way than it keeps the values of.

    They are on their way for `reach` steps.
    """
    steps = np.rint(monitor.t / dt).astype(int)
    for unit in np.unique(monitor.i):
        sent = steps[monitor.i == unit]
        last = np.searchsorted(sent, sent + reach, side="right")
        most = (last - np.arange(sent.size)).max()
        if most > slots:
            raise SystemExit(f"unit {unit} had {most} events on their way, of {slots}")
'''
MAIN_RUN = """

# -- Run -------------------------------------------------------------------------------


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save", metavar="FILE.npz", help="keep events and states")
    parser.add_argument("--plot", metavar="FILE.png", help="draw the events")
    args = parser.parse_args()

    network.run(N_STEPS * dt, namespace={})"""
MAIN_SHOW = '''    for name, monitor in events.items():
        units, count = monitor.source.N, monitor.num_spikes
        rate = count / units / float(N_STEPS * dt / second)
        print(f"{name}: {units} units, {count} spikes, {rate:.2f} Hz")
    if args.save:
        save(args.save)
    if args.plot and events:
        plot(args.plot)


def save(path):
    """Keep when (in steps) which unit sent what, and states (units, steps)."""
    found = {}
    for name, monitor in events.items():
        found[f"{name}_step"] = np.rint(monitor.t / dt).astype(int)
        found[f"{name}_unit"] = np.array(monitor.i)
        for variable in monitor.record_variables - {"i", "t"}:
            found[f"{name}_value"] = np.array(getattr(monitor, variable))
    for name, monitor in states.items():
        variable = monitor.record_variables[0]
        found[f"{name}_{variable}"] = np.array(getattr(monitor, variable))
    np.savez_compressed(path, **found)


def plot(path):
    """Draw the events of all populations."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2.5 * len(events)), layout="constrained")
    panels = figure.subplots(len(events), squeeze=False)[:, 0]
    for ax, (name, monitor) in zip(panels, events.items(), strict=True):
        ax.plot(monitor.t / ms, monitor.i, "|", markersize=3)
        ax.set(ylabel=f"unit of {name}", xlim=(0, N_STEPS * dt / ms))
    panels[-1].set_xlabel("time (ms)")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()'''


def _quoted(code: str) -> str:
    """Code as a string: of one line, or of several between triple quotes."""
    return f'"{code}"' if "\n" not in code else f'"""\n{code}\n"""'


def _dict(entries: list[str]) -> str:
    """A dict as an argument; of more than one entry with a line for each."""
    if len(entries) == 1 and "\n" not in entries[0]:
        return "{" + entries[0] + "}"
    return "\n        ".join(["{", *(f"{entry}," for entry in entries)]) + "\n    }"


def _wrapped(words: Iterable[str]) -> list[str]:
    """Words with a comma behind each, in lines that are full."""
    lines, line = [], "   "
    for word in words:
        if len(line) + len(word) + 2 > WIDTH:
            lines.append(line)
            line = "   "
        line += f" {word},"
    return [*lines, line] if line.strip() else lines


def _narrow(array: NDArray) -> NDArray:
    """Integers in as few bytes as they need."""
    if array.dtype.kind != "i" or not array.size:
        return array
    ends = array.min(), array.max()
    fits = [
        kind
        for kind in (np.int16, np.int32)
        if np.iinfo(kind).min <= ends[0] <= ends[1] <= np.iinfo(kind).max
    ]
    return array.astype(fits[0]) if fits else array
