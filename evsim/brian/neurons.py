"""A Brian2 NeuronGroup as LIF units, or as readouts where it has no threshold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evsim.brian.linear_equations import LinearEquation, linear_equations
from evsim.brian.scope import Scope, one_line
from evsim.brian.statements import statements
from evsim.errors import NetworkError
from evsim.models.lif import LIF, THRESHOLD_ABOVE_RESET
from evsim.models.readout import LeakyReadout
from evsim.population import Population

#: ms in a second.
MS = 1000.0
#: Threshold of units that have none, beyond all that V may reach.
NEVER = 1e100
#: Ports of `LIF` and the time constants that belong to them.
PORTS = {"excitatory": "tau_e", "inhibitory": "tau_i"}
#: Time constants nearer to each other than this (relative) are one.
SAME = 1e-12
#: Distances from reset to threshold, in the unit of V, that need no other unit.
GOOD = 0.01, 1e5
ONE_GROUP_EACH = "make a NeuronGroup for each value"


@dataclass(frozen=True, eq=False)
class Neurons:
    """What a group has become.

    Attributes
    ----------
    population : Population
        Not yet part of a network.
    membrane : str
        Brian2's name of V.
    ports : dict of str to (str, ndarray)
        By each variable to which synapses may add: the port, and by what an increment in SI units becomes a
        weight.
    unit : float
        Unit of V, in SI units: 0.001 for mV.
    dimensions : brian2.Dimension
        Of V.
    initial : dict of str to ndarray, shape (1, n_units)
    lines : list of str
        What was understood.
    """

    population: Population
    membrane: str
    ports: dict[str, tuple[str, NDArray[np.float64]]]
    unit: float
    dimensions: Any
    initial: dict[str, NDArray[np.float64]]
    lines: list[str]


def read_neurons(group: Any, namespace: Mapping[str, Any], now: float) -> Neurons:
    """Read a group.

    Parameters
    ----------
    group : brian2.NeuronGroup
    namespace : mapping of str to object
        Names that the group does not know by itself.
    now : float
        Brian2's time in s.

    Raises
    ------
    NetworkError
        Anything that is not a LIF unit with exponential currents.
    """
    return _Reader(group, namespace).read(now)


class _Reader:
    def __init__(self, group: Any, namespace: Mapping[str, Any]):
        self.group, self.where = group, f"NeuronGroup '{group.name}'"
        self.scope = Scope(group, namespace, self.where)
        self.equations = group.user_equations
        self.texts = {
            name: f"d{name}/dt = {one_line(self.equations[name].expr.code)}"
            for name in self.equations.diff_eq_names
        }
        self.spikes = "spike" in group.events
        self.threshold = one_line(group.events["spike"]) if self.spikes else ""

    def read(self, now: float) -> Neurons:
        self._check_parts()
        linear = self._linear()
        threshold = self._threshold(linear) if self.spikes else None
        membrane = linear[self._membrane(linear, threshold)]
        currents = {name: linear[name] for name in linear if name != membrane.name}
        self._check_chain(membrane, currents)
        text, group = self.texts[membrane.name], self.group
        tau_m = self._tau(membrane)
        gains = {name: self.scope.values(membrane.gains[name], text) for name in currents}
        rests = {name: self.scope.values(one.rest, self.texts[name]) for name, one in currents.items()}
        bias = self.scope.values(membrane.rest, text) + sum(gains[name] * rests[name] for name in currents)
        reset = refractory = 0.0
        top: NDArray[np.float64] | None = None
        if threshold is not None:
            top = self.scope.values(threshold[1], self.threshold)
            reset = self._reset(membrane.name)
            refractory = self._refractory(membrane.name, list(currents))
        unit = self._unit(membrane.name, None if top is None else float(np.min(top - reset)))
        per_unit = _inverse(unit)
        ports, taus = self._ports(currents)
        options: dict[str, Any] = dict(taus)
        state: dict[str, NDArray[np.float64]] = {"v": self._state(membrane.name) * per_unit}
        lines = [f"{text}: tau_m {tau_m:g} ms, bias {_said(bias * per_unit)}"]
        population: Population
        if top is None and not currents:
            population = LeakyReadout(group.N, group.name, tau=tau_m, bias=bias * per_unit)
            links = {membrane.name: ("input", np.asarray(per_unit))}
            lines.append("no threshold: a readout, which sends nothing")
        else:
            if top is None:
                top, reset = np.asarray(NEVER * unit), 0.0
                lines.append("no threshold: one that is never reached")
            if float(np.min(top - reset)) * per_unit < THRESHOLD_ABOVE_RESET:
                raise NetworkError(
                    self.where,
                    f"threshold '{self.threshold}' is less than {THRESHOLD_ABOVE_RESET * unit:g} (SI "
                    f"units) above the reset, {reset:g}",
                    "a unit there sends without end at one instant: lower the reset",
                )
            population = LIF(
                group.N,
                group.name,
                threshold=top * per_unit,
                bias=bias * per_unit,
                tau_m=tau_m,
                reset=reset * per_unit,
                refractory=refractory * MS,
                **options,
            )
            links = {name: (ports[name], gains[name] * per_unit) for name in currents}
            for port in dict.fromkeys(ports.values()):
                here = [name for name in currents if ports[name] == port]
                total = sum((self._state(name) - rests[name]) * gains[name] * per_unit for name in here)
                state[{"excitatory": "i_e", "inhibitory": "i_i"}[port]] = np.asarray(total)
                lines += [
                    f"{self.texts[name]}: on port '{port}', {PORTS[port]} {taus[PORTS[port]]:g} ms, "
                    f"times {_said(gains[name])}"
                    for name in here
                ]
            if self.spikes:
                lines += [
                    f"threshold '{self.threshold}': {_said(top * per_unit)}",
                    f"reset '{one_line(group.event_codes['spike'])}': {reset * per_unit:g}, refractory "
                    f"{refractory * MS:g} ms",
                ]
                state |= self._hold(membrane.name, reset, refractory, now)
        full = {name: np.broadcast_to(value, (1, group.N)).copy() for name, value in state.items()}
        dimensions = group.variables[membrane.name].dim
        return Neurons(population, membrane.name, links, unit, dimensions, full, lines)

    # -- what cannot be taken over at all -----------------------------------------------------------------

    def _check_parts(self) -> None:
        from brian2.groups.neurongroup import Resetter, StateUpdater, Thresholder

        group = self.group
        for name, equation in self.equations.items():
            if "constant over dt" in equation.flags:
                text = f"'{name} = {one_line(equation.expr.code)}'"
                problem = f"{text} is set anew in each step, '(constant over dt)'"
                raise NetworkError(self.where, problem, "leave out that flag: evsim has no steps")
        for part in group.contained_objects:
            if not part.active:
                problem = f"its part '{part.name}' is switched off (active=False)"
                raise NetworkError(self.where, problem, "evsim's units always have all of them")
            if type(part) not in (Thresholder, Resetter, StateUpdater):
                raise at_intervals(part, self.where)
        for event in group.events:
            if event != "spike":
                problem = f"has events '{event}', '{group.events[event]}'"
                raise NetworkError(self.where, problem, "only those of a threshold can be taken over")
        for name, equation in self.equations.items():
            if "linked" in equation.flags:
                problem = f"'{name}' is a linked variable"
                raise NetworkError(self.where, problem, "make it a parameter, or connect by Synapses")
        if not self.equations.diff_eq_names:
            what = f", only a threshold '{self.threshold}'" if self.spikes else ""
            problem = f"has no differential equation{what}"
            raise NetworkError(self.where, problem, "for Poisson processes use a PoissonGroup")
        if self.equations.is_stochastic:
            noisy = next(text for name, text in self.texts.items() if self._is_noisy(name))
            problem = f"'{noisy}' has noise, {', '.join(sorted(self.equations.stochastic_variables))}"
            raise NetworkError(self.where, problem, "use a PoissonInput on a synaptic current")

    def _is_noisy(self, name: str) -> bool:
        dependencies = {dep.equation.varname for dep in self.equations.dependencies.get(name, [])} | {name}
        noise = self.equations.stochastic_variables
        return any(
            self.equations[n].expr is not None and noise & self.equations[n].expr.identifiers
            for n in dependencies
        )

    def _check_chain(self, membrane: LinearEquation, currents: Mapping[str, LinearEquation]) -> None:
        for name, one in currents.items():
            if one.gains:
                problem = f"'{self.texts[name]}' reads '{next(iter(one.gains))}'"
                remedy = f"besides {membrane.name} there may be exponentially decaying currents only"
                raise NetworkError(self.where, problem, remedy)
            if name not in membrane.gains:
                problem = f"'{self.texts[name]}' does not act on {membrane.name}"
                raise NetworkError(self.where, problem, "leave it out")

    # -- equations ----------------------------------------------------------------------------------------

    def _linear(self) -> dict[str, LinearEquation]:
        from brian2.units.fundamentalunits import DimensionMismatchError

        sides = {
            name: self.scope.parse(self.equations[name].expr.code, text) for name, text in self.texts.items()
        }
        try:
            self.group.equations.check_units(self.group, run_namespace=self.scope.namespace)
        except DimensionMismatchError as error:
            raise NetworkError(self.where, one_line(error), "mend the units") from None
        order = [name for name in self.equations if name in sides]
        return linear_equations({name: sides[name] for name in order}, self.texts, self.where)

    def _membrane(self, linear: Mapping[str, LinearEquation], threshold: tuple[str, Any] | None) -> str:
        """V: the variable of the threshold, or else the one that reads others, or the only one."""
        if threshold is not None:
            return threshold[0]
        readers = [name for name, one in linear.items() if one.gains] or list(linear)
        if len(readers) != 1:
            problem = f"has no threshold, and {len(readers)} variables that may be its potential: {readers}"
            raise NetworkError(self.where, problem, "keep one, with the currents that act on it")
        return readers[0]

    def _tau(self, one: LinearEquation) -> float:
        """A time constant in ms."""
        text = self.texts[one.name]
        tau = self.scope.number(one.tau, text, f"the time constant of {one.name}", ONE_GROUP_EACH) * MS
        if tau <= 0:
            problem = f"in '{text}' {one.name} grows by itself, with a time constant of {tau:g} ms"
            raise NetworkError(self.where, problem, "evsim's LIF units leak")
        return tau

    def _ports(self, currents: Mapping[str, LinearEquation]) -> tuple[dict[str, str], dict[str, float]]:
        """The port of each current, and the time constants of the ports in ms."""
        found: dict[str, float] = {}
        ports = {}
        for name, one in currents.items():
            tau = self._tau(one)
            for port in PORTS:
                if math.isclose(found.setdefault(port, tau), tau, rel_tol=SAME):
                    ports[name] = port
                    break
            else:
                said = ", ".join(f"'{self.texts[name]}'" for name in currents)
                problem = f"has currents with more than two time constants: {said}"
                raise NetworkError(self.where, problem, "evsim's LIF units have two")
        return ports, {PORTS[port]: tau for port, tau in found.items()}

    # -- threshold, reset, refractory period --------------------------------------------------------------

    def _threshold(self, linear: Mapping[str, LinearEquation]) -> tuple[str, Any]:
        """The variable that is compared, and the expression of what it must exceed."""
        import sympy

        code = self.threshold
        self.scope.check_units(code, 1)
        condition = self.scope.parse(code)
        parts = [part for part in sympy.And.make_args(condition) if str(part) != "not_refractory"]
        part = parts[0] if len(parts) == 1 else None
        remedy = "write a threshold like 'v > v_th', v_th a constant or a parameter"
        if not isinstance(
            part, (sympy.StrictGreaterThan, sympy.GreaterThan, sympy.StrictLessThan, sympy.LessThan)
        ):
            raise NetworkError(self.where, f"threshold '{code}' is no comparison of one variable", remedy)
        excess = part.gts - part.lts
        moving = [symbol for symbol in excess.free_symbols if symbol.name in linear]
        if len(moving) != 1:
            names = sorted(symbol.name for symbol in moving)
            problem = f"threshold '{code}' compares {' and '.join(names) or 'no variable'}"
            raise NetworkError(self.where, problem, remedy)
        symbol = moving[0]
        slope = sympy.diff(excess, symbol)
        if symbol in slope.free_symbols:
            raise NetworkError(self.where, f"threshold '{code}' is not linear in {symbol.name}", remedy)
        if (self.scope.values(slope, code) <= 0).any():
            problem = f"threshold '{code}' is reached from above"
            raise NetworkError(self.where, problem, remedy)
        limit = sympy.cancel(sympy.expand(symbol - excess / slope))
        return symbol.name, limit

    def _reset(self, membrane: str) -> float:
        code = self.group.event_codes.get("spike") or ""
        found = statements(str(code), self.where)
        remedy = f"write a reset like '{membrane} = v_reset'"
        if not found:
            problem = f"threshold '{self.threshold}' has no reset"
            raise NetworkError(self.where, problem, remedy)
        for one in found:
            if one.variable != membrane or one.operator != "=":
                raise NetworkError(self.where, f"reset '{one.text}' cannot be taken over", remedy)
        last = found[-1]
        self.scope.check_units(last.value, self.group.variables[membrane], last.text)
        value = self.scope.parse(last.value, last.text)
        return self.scope.number(value, last.text, "the reset", ONE_GROUP_EACH)

    def _refractory(self, membrane: str, currents: list[str]) -> float:
        """In s."""
        from brian2 import Quantity, second
        from brian2.parsing.expressions import is_boolean_expression

        given = self.group._refractory
        if given is False:
            return 0.0
        if isinstance(given, str):
            if is_boolean_expression(given, self.scope.resolve(given, given)):
                problem = f"refractory='{given}' is a condition"
                raise NetworkError(self.where, problem, "give a constant time")
            self.scope.check_units(given, second)
            expression = self.scope.parse(given)
            found = self.scope.number(expression, given, "the refractory period", ONE_GROUP_EACH)
        elif isinstance(given, Quantity):
            found = float(given)
        else:
            raise NetworkError(self.where, f"refractory={given!r} is no time", "give a constant time")
        if found > 0 and "unless refractory" not in self.equations[membrane].flags:
            raise NetworkError(
                self.where,
                f"'{self.texts[membrane]}' goes on during the refractory period of {found * MS:g} ms",
                f"mark it '(unless refractory)', or leave out refractory: evsim's LIF units keep {membrane} "
                "at the reset",
            )
        held = [name for name in currents if "unless refractory" in self.equations[name].flags]
        if found > 0 and held:
            raise NetworkError(
                self.where,
                f"'{self.texts[held[0]]}' stands still during the refractory period of {found * MS:g} ms",
                f"leave out its '(unless refractory)': only {membrane} of evsim's LIF units does",
            )
        return found

    # -- the present moment -------------------------------------------------------------------------------

    def _unit(self, membrane: str, gap: float | None) -> float:
        """Unit of V: mV, or 1, or else a power of 1000 that suits the way from reset to threshold."""
        from brian2 import volt

        unit = 1e-3 if self.group.variables[membrane].dim is volt.dim else 1.0
        if gap is None or gap <= 0 or GOOD[0] <= gap / unit < GOOD[1]:
            return unit
        return float(10.0 ** (3 * math.floor(math.log10(gap) / 3)))

    def _state(self, name: str) -> NDArray[np.float64]:
        found = np.asarray(self.group.variables[name].get_value(), np.float64)
        if not np.isfinite(found).all():
            problem = f"{name} is {found[~np.isfinite(found)][0]} at present"
            raise NetworkError(self.where, problem, "give finite values")
        return found

    def _hold(
        self, membrane: str, reset: float, refractory: float, now: float
    ) -> dict[str, NDArray[np.float64]]:
        """What is left of the refractory periods, in ms."""
        if refractory == 0:
            return {}
        left = (self._state("lastspike") + refractory - now) * MS
        hold = np.where(left > 1e-9, left, 0.0)
        odd = np.flatnonzero((hold > 0) & (self._state(membrane) != reset))
        if odd.size:
            problem = f"unit {odd[0]} is refractory, but its {membrane} is not the reset"
            raise NetworkError(self.where, problem, "leave the states of refractory units alone")
        return {"hold": hold}


def at_intervals(part: Any, where: str) -> NetworkError:
    """The error about a part of an object that acts on its own."""
    code = one_line(getattr(part, "code", "") or getattr(part, "abstract_code", ""))
    problem = f"'{part.name}' runs '{code}' at intervals"
    return NetworkError(where, problem, "leave out run_regularly and custom operations")


def _inverse(unit: float) -> float:
    """1 / unit, where that is a power of 10 to the last bit."""
    return float(f"1e{-round(math.log10(unit))}")


def _said(values: NDArray[np.float64]) -> str:
    ends = np.unique(values)[[0, -1]]
    return f"{ends[0]:g}" if ends[0] == ends[1] else f"{ends[0]:g} to {ends[1]:g}"
