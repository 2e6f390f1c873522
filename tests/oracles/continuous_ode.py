"""The plain oracle: all states of the network as one system of equations, given to SciPy's DOP853.

Nothing of the closed forms is used: currents, what the gates see, states, and the integrals of the main
states are all integrated.  A crossing is bracketed on the steps of the solver, found with brentq on its dense
output, and corrected by Newton steps with the system integrated to that very time.
"""

import numpy as np
from scipy.integrate import DOP853
from scipy.optimize import brentq

from oracles.continuous_driver import Driver

RTOL, ATOL = 1e-12, 1e-13


def sigma(x):
    return 1 / (1 + np.exp(-x))


class OdeDriver(Driver):
    """A `Driver` by an ODE solver."""

    def __init__(self, *args):
        super().__init__(*args)
        self.places, at = {}, 0
        for name in self.moving:
            for key in self._dynamic(name):
                n = self.units[name].n_units
                self.places[name, key] = slice(at, at + n)
                at += n
        self.size = at
        constants = [p[key] for p in self.par.values() for key in p if key.startswith("tau")]
        self.longest = min(constants, default=np.inf) / 4

    def _dynamic(self, name):
        """What is integrated; the rest stays as it is between the events of a unit."""
        states = {"delta_gru": ("h",), "delta_lstm": ("c",), "delta_readout": ()}
        own = states.get(self.kind(name), self._traits(name).states)
        return (*own, "integral", "square")

    def _pack(self):
        y = np.zeros(self.size)
        for (name, key), place in self.places.items():
            if key in self.x[name]:
                y[place] = self.x[name][key]
        return y

    def _rates(self, t, y):
        """dy/dt."""
        f = np.zeros(self.size)
        for name in self.moving:
            state = {key: y[self.places[name, key]] for key in self._dynamic(name)}
            rates, main = self._population(name, state)
            for key, rate in rates.items():
                f[self.places[name, key]] = rate
            f[self.places[name, "integral"]] = main
            f[self.places[name, "square"]] = main**2
        return f

    def _population(self, name, s):
        """Rates by state, and the main state, from the integrated states ``s``."""
        kind, par, x = self.kind(name), self.par[name], self.x[name]
        b = par.get("bias")
        if kind == "egru":
            tau = par["tau_s"]
            rates = {key: (b[row] - s[key]) / tau for row, key in enumerate(("a_u", "a_r", "a_z"))}
            rates["c"] = sigma(s["a_u"]) * (np.tanh(s["a_z"]) - s["c"]) / par["tau_m"]
            return rates, s["c"]
        if kind == "lif":
            free = self.held[name] <= self.t
            rates = {key: -s[key] / par[f"tau_{key[-1]}"] for key in ("i_e", "i_i")}
            rates["v"] = free * (b[0] - s["v"] + s["i_e"] + s["i_i"]) / par["tau_m"]
            return rates, s["v"]
        if kind == "leaky_readout":
            return {"v": (b[0] - s["v"]) / par["tau"]}, s["v"]
        if kind == "delta_readout":
            return {}, x["m"] + b[0]
        if kind == "delta_gru":
            r, z = sigma(x["m_r"] + b[0]), sigma(x["m_z"] + b[1])
            n = np.tanh(x["m_n"] + b[2] + r * (x["m_q"] + b[3]))
            return {"h": (1 - z) * (n - s["h"]) / par["tau"]}, s["h"]
        i, f, o = (sigma(x[f"m_{key}"] + b[row]) for key, row in (("i", 0), ("f", 1), ("o", 3)))
        g = np.tanh(x["m_g"] + b[2])
        return {"c": (-(1 - f) * s["c"] + i * g) / par["tau"]}, o * np.tanh(s["c"])

    def _guards(self, y):
        """Distance above the threshold of each unit that may cross on its own, and its slope."""
        distance, slope = [], []
        for name in self.emitting:
            if name in self.fixed:
                continue
            s = {key: y[self.places[name, key]] for key in self._dynamic(name)}
            rates, main = self._population(name, s)
            threshold, x = self.par[name]["threshold"], self.x[name]
            if self.kind(name) == "delta_lstm":
                o = sigma(x["m_o"] + self.par[name]["bias"][3])
                rates["h"] = o * (1 - np.tanh(s["c"]) ** 2) * rates["c"]
            if self.kind(name) in ("delta_gru", "delta_lstm"):
                for sign in (1, -1):
                    distance.append(sign * (main - x["sent"]) - threshold)
                    slope.append(sign * rates["h"])
            else:
                key = self._traits(name).main
                held = self.held[name] > self.t
                distance.append(np.where(held, -np.inf, main - threshold))
                slope.append(rates[key])
        return np.concatenate([*distance, []]), np.concatenate([*slope, []])

    def _owners(self):
        """(population, unit) of each guard."""
        owners = []
        for name in self.emitting:
            if name not in self.fixed:
                twice = 2 if self.kind(name) in ("delta_gru", "delta_lstm") else 1
                owners += [(name, k) for k in range(self.units[name].n_units)] * twice
        return owners

    def _integrate(self, y, a, b):
        """y at b, from y at a."""
        if b <= a:
            return y
        solver = self._solver(y, a, b)
        while solver.status == "running":
            solver.step()
        return solver.y

    def _solver(self, y, a, b):
        return DOP853(self._rates, a, y, b, rtol=RTOL, atol=ATOL, max_step=self.longest)

    def flow(self, until):
        y = self._pack()
        time, due = until, []
        if until > self.t:
            time, due, y = self._search(y, until)
        for name in self.moving:
            for key in self._dynamic(name):
                part = y[self.places[name, key]]
                if key in self.x[name]:
                    self.x[name][key] = part.copy()
                else:
                    self.sums[name][int(key == "square")] += part
            self._refresh(name)
        self.t = time
        return due

    def _search(self, y, until):
        """Time, who crosses, and y: at the first crossing before ``until``, or there.

        Within a step, a guard that rises first and falls then may have crossed twice: its top is looked at.
        """
        solver = self._solver(y, self.t, until)
        before = self._guards(y)
        while solver.status == "running":
            t, y = solver.t, solver.y
            if solver.step():
                raise RuntimeError("the solver failed")
            after = self._guards(solver.y)
            below = before[0] < 0
            ends_over = below & (after[0] >= 0)
            turns = below & (after[0] < 0) & (before[1] > 0) & (after[1] < 0)
            hits = []
            for k in np.flatnonzero(ends_over | turns):
                hits += self._hit(solver, int(k), t, y, turns[k])
            if hits:
                time = min(time for time, _ in hits)
                owners = self._owners()
                due = [owners[k] for at, k in hits if at == time]
                return time, due, self._integrate(y, t, time)
            before = after
        return until, [], solver.y

    def _hit(self, solver, k, t, y, turns):
        """[(time, guard)] of the crossing of guard k within the last step, from (t, y), if there is one."""
        dense, top = solver.dense_output(), solver.t
        if turns:
            top = brentq(lambda s: self._guards(dense(s))[1][k], t, top, xtol=1e-15, rtol=1e-15)
            if self._guards(dense(top))[0][k] < 0:
                return []
        time = brentq(lambda s: self._guards(dense(s))[0][k], t, top, xtol=1e-15, rtol=1e-15)
        for _ in range(2):
            over, slope = self._guards(self._integrate(y, t, time))
            better = time - over[k] / slope[k]
            if slope[k] <= 0 or not t < better <= top:
                break
            time = better
        return [(time, k)]
