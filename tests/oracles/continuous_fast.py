"""The faster oracle: closed forms for all but EGRU's c, which Gauss collocation of order 12 integrates.

Precise enough for central differences: event times to a few units in the last place, states of EGRU to about
1e-14.  The steps of the collocation depend on the gates, but its error is far below that of rounding.
"""

from itertools import pairwise
from math import exp, expm1, log

import numpy as np
from scipy.optimize import brentq

from oracles.continuous_driver import Driver, logistic

# ---------------------------------------------------------------- Gauss-Legendre on [0, 1]

STAGES = 6


def _gauss(n):
    nodes, weights = np.polynomial.legendre.leggauss(n)
    return 0.5 * (nodes + 1), 0.5 * weights


NODES, WEIGHTS = _gauss(STAGES)
# Integral of the Lagrange polynomial of node j from 0 to node i: the collocation matrix.
MATRIX = np.linalg.solve(
    np.vander(NODES, increasing=True).T,
    (NODES[:, None] ** np.arange(1, STAGES + 1) / np.arange(1, STAGES + 1)).T,
).T

QUADRATURE = _gauss(10)


def integrals(main, length, tau):
    """Integral of ``main(times)`` (n_units, n_times) and of its square over [0, length], (2, n_units)."""
    n = int(np.ceil(min(length / tau, 1000.0))) or 1
    nodes, weights = QUADRATURE
    if n > 1:
        nodes, weights = (np.arange(n)[:, None] + nodes).ravel(), np.tile(weights, n)
    values = main(nodes * (length / n))
    weights = weights * (length / n)
    return np.array([values @ weights, values**2 @ weights])


def kernel(t, tau_m, tau):
    """v(t) after a unit current that decays with ``tau``, from v = 0; also for tau = tau_m.  t: array."""
    d = 1 / tau_m - 1 / tau
    if d == 0:
        return t / tau_m * np.exp(-t / tau_m)
    slower = max(tau_m, tau)
    return np.exp(-t / slower) * -np.expm1(-t * abs(d)) / (tau_m * abs(d))


# ---------------------------------------------------------------- LIF


class Lif:
    """v(t) of one unit with its derivative, and its first crossing."""

    def __init__(self, v, i_e, i_i, bias, threshold, tau_m, tau_e, tau_i):
        self.v, self.i_e, self.i_i, self.bias, self.threshold = v, i_e, i_i, bias, threshold
        self.tau_m, self.tau_e, self.tau_i = tau_m, tau_e, tau_i

    def _kernel(self, t, tau):
        d = 1 / self.tau_m - 1 / tau
        if d == 0:
            return t / self.tau_m * exp(-t / self.tau_m)
        return exp(-t / max(self.tau_m, tau)) * -expm1(-t * abs(d)) / (self.tau_m * abs(d))

    def over(self, t):
        """v(t) - threshold."""
        return (
            (self.v - self.bias) * exp(-t / self.tau_m)
            + self.i_e * self._kernel(t, self.tau_e)
            + self.i_i * self._kernel(t, self.tau_i)
            + (self.bias - self.threshold)
        )

    def drive(self, t):
        """tau_m dv/dt."""
        currents = self.i_e * exp(-t / self.tau_e) + self.i_i * exp(-t / self.tau_i)
        return self.bias + currents - (self.over(t) + self.threshold)

    def crossing(self, horizon):
        """When v reaches the threshold first, if it does within the horizon; else infinity.

        (drive e^{t/tau_m})' has the sign of -(i_e/tau_e e^{-t/tau_e} + i_i/tau_i e^{-t/tau_i}), which changes
        at most once; so drive has at most one zero on either side, and v is monotone between those.
        """
        edges = [0.0, horizon]
        e, i = self.i_e / self.tau_e, self.i_i / self.tau_i
        d = 1 / self.tau_e - 1 / self.tau_i
        if e * i < 0 and d != 0:
            turn = log(-e / i) / d
            if 0 < turn < horizon:
                edges.insert(1, turn)
        stops = []
        for a, b in pairwise(edges):
            if self.drive(a) * self.drive(b) < 0:
                stops.append(brentq(self.drive, a, b, xtol=1e-15, rtol=1e-15))
            stops.append(b)
        last = 0.0
        for stop in stops:
            if self.over(stop) >= 0:
                if self.over(last) >= 0:
                    return last
                t = brentq(self.over, last, stop, xtol=1e-15, rtol=1e-15)
                slope = self.drive(t) / self.tau_m
                better = t - self.over(t) / slope if slope > 0 else t
                return better if last <= better <= stop else t
            last = stop
        return np.inf


# ---------------------------------------------------------------- EGRU


def collocate(c, a, b, h, tau_m, tau_s):
    """One step of n units: c (n,), a and b (3, n).  Returns c and a at its end, and c at its nodes."""
    between = b[:, :, None] + (a - b)[:, :, None] * np.exp(-NODES * (h / tau_s))
    rate, goal = logistic(between[0]) / tau_m, np.tanh(between[2])
    system = np.eye(STAGES) + h * MATRIX * rate[:, None, :]
    inner = np.linalg.solve(system, (c[:, None] + h * (rate * goal) @ MATRIX.T)[:, :, None])[:, :, 0]
    end = c + h * ((rate * (goal - inner)) @ WEIGHTS)
    return end, b + (a - b) * np.exp(-h / tau_s), inner


class Egru:
    """The units of an EGRU population, from one state on."""

    def __init__(self, x, par):
        self.c, self.a = x["c"], np.stack([x["a_u"], x["a_r"], x["a_z"]])
        self.b, self.tau_m, self.tau_s = par["bias"], par["tau_m"], par["tau_s"]
        self.threshold = par["threshold"]

    def _longest(self, a):
        """A step in which the collocation is exact to rounding."""
        far = np.abs(a - self.b).max(initial=0.0)
        return 0.5 * min(self.tau_m, self.tau_s / (1.0 + far))

    def _rate(self, c, a):
        return logistic(a[0]) * (np.tanh(a[2]) - c)

    def _one(self, unit, c, a, s):
        u = slice(unit, unit + 1)
        end, a1, _ = collocate(c[u], a[:, u], self.b[:, u], s, self.tau_m, self.tau_s)
        return end[0], self._rate(end, a1)[0]

    def _reach(self, unit, c, a, h, end):
        """When one unit crosses within a step, or infinity.  Before an arrival c has at most one maximum."""
        top, threshold = h, self.threshold[unit]
        if end < threshold:
            top = brentq(lambda s: self._one(unit, c, a, s)[1], 0.0, h, xtol=1e-15, rtol=1e-15)
            if self._one(unit, c, a, top)[0] < threshold:
                return np.inf
        s = brentq(lambda s: self._one(unit, c, a, s)[0] - threshold, 0.0, top, xtol=1e-15, rtol=1e-15)
        value, rate = self._one(unit, c, a, s)
        better = s - (value - threshold) * self.tau_m / rate if rate > 0 else s
        return better if 0 < better <= top else s

    def advance(self, length, search=False, sums=None):
        """To ``length`` from now, or to the first crossing: (time gone, units that cross, c, a)."""
        c, a, gone = self.c, self.a, 0.0
        while gone < length:
            h = self._longest(a)
            last = length - gone <= h * 1.000001
            if last:
                h = length - gone
            end, a1, inner = collocate(c, a, self.b, h, self.tau_m, self.tau_s)
            due = []
            if search:
                peak = (self._rate(c, a) > 0) & (self._rate(end, a1) < 0)
                near = np.flatnonzero((c < self.threshold) & ((end >= self.threshold) | peak))
                reach = np.array([self._reach(k, c, a, h, end[k]) for k in near])
                if reach.size and reach.min() < np.inf:
                    due = near[reach == reach.min()].tolist()
                    h = reach.min()
                    end, a1, inner = collocate(c, a, self.b, h, self.tau_m, self.tau_s)
            if sums is not None:
                sums += h * np.array([inner @ WEIGHTS, inner**2 @ WEIGHTS])
            c, a, gone = end, a1, length if last and not due else gone + h
            if due:
                return gone, due, c, a
        return gone, [], c, a


# ---------------------------------------------------------------- the network


def delta_crossings(x, par, kind, goal, rate):
    """How long from now until |h - sent| reaches the threshold, (n_units,), infinity if it does not."""
    upper, lower = x["sent"] + par["threshold"], x["sent"] - par["threshold"]
    start = x["h"]
    with np.errstate(divide="ignore", invalid="ignore"):
        if kind == "delta_lstm":
            o = logistic(x["m_o"] + par["bias"][3])
            start = x["c"]
            # Beyond o in size: h never gets there.
            upper, lower = (np.arctanh(np.where(np.abs(y / o) < 1, y / o, np.nan)) for y in (upper, lower))
        up = np.where((goal > upper) & (start < upper), np.log1p((upper - start) / (goal - upper)), np.inf)
        down = np.where((goal < lower) & (start > lower), np.log1p((lower - start) / (goal - lower)), np.inf)
    return np.minimum(up, down) / rate


class FastDriver(Driver):
    """A `Driver` by closed forms and collocation."""

    def __init__(self, *args):
        super().__init__(*args)
        self.when = {
            name: np.full(self.units[name].n_units, np.inf)
            for name in self.emitting
            if name not in self.fixed and self.kind(name) != "egru"
        }

    def _predict(self, name):
        touched = np.flatnonzero(self.touched[name])
        self.touched[name][:] = False
        if not touched.size:
            return
        x, par = self.x[name], self.par[name]
        if self.kind(name) != "lif":
            waits = delta_crossings(x, par, self.kind(name), *self.delta_flow(name))
            self.when[name][touched] = self.t + waits[touched]
            return
        bias, threshold = par["bias"][0], par["threshold"]
        highest = np.maximum(x["v"], bias + np.maximum(x["i_e"], 0) + np.maximum(x["i_i"], 0))
        for k in touched:
            wait = np.inf
            if highest[k] >= threshold[k] and self.held[name][k] <= self.t:
                unit = (x["v"][k], x["i_e"][k], x["i_i"][k], bias[k], threshold[k])
                unit = Lif(*map(float, unit), par["tau_m"], par["tau_e"], par["tau_i"])
                wait = unit.crossing(self.end - self.t)
            self.when[name][k] = self.t + wait

    def flow(self, until):
        for name, when in self.when.items():
            self._predict(name)
            until = min(until, when.min())
        gone, due, moved = until - self.t, [], {}
        for name in self.emitting:
            if self.kind(name) == "egru" and name not in self.fixed:
                # Later ones search a shorter time only.
                sums = np.zeros_like(self.sums[name]) if self.taken < len(self.samples) else None
                time, units, c, a = Egru(self.x[name], self.par[name]).advance(gone, True, sums)
                if time < gone:
                    due, moved = [], {}
                if units:
                    due += [(name, k) for k in units]
                gone, moved[name] = time, (c, a, sums)
        if due:
            until = self.t + gone
        for name in self.moving:
            self._advance(name, gone, moved.get(name))
        self.t = until
        return due + [(n, int(k)) for n, when in self.when.items() for k in np.flatnonzero(when <= until)]

    def _advance(self, name, h, moved):
        """States and sums of one population, ``h`` on; ``moved``: (c, a, sums) of an EGRU if known."""
        x, par, kind = self.x[name], self.par[name], self.kind(name)
        wanted = self.taken < len(self.samples)
        if h == 0:
            return
        if kind == "egru":
            if moved is None:
                sums = np.zeros_like(self.sums[name]) if wanted else None
                _, _, c, a = Egru(x, par).advance(h, sums=sums)
            else:
                c, a, sums = moved
            x["c"], (x["a_u"], x["a_r"], x["a_z"]) = c.copy(), a.copy()
            if wanted:
                self.sums[name] += sums
            return
        path, tau, goal = self._path(name)
        if wanted:
            self.sums[name] += integrals(path, h, tau)
        end = path(np.array([h]))[:, 0]
        if kind == "lif":
            x["v"] = end
            x["i_e"], x["i_i"] = x["i_e"] * exp(-h / par["tau_e"]), x["i_i"] * exp(-h / par["tau_i"])
        elif kind == "delta_lstm":
            goal, rate = goal
            x["c"] = x["c"] - (goal - x["c"]) * np.expm1(-rate * h)  # the goal may be far away
            self._refresh(name)
        elif kind == "delta_gru":
            x["h"] = end
        elif kind == "leaky_readout":
            x["v"] = end

    def _path(self, name):
        """The main state as a function of the time from now, and over what time it changes."""
        x, par, kind = {k: v.copy() for k, v in self.x[name].items()}, self.par[name], self.kind(name)
        if kind == "lif":
            bias, tau_m = par["bias"][0], par["tau_m"]
            free = self.held[name] <= self.t

            def path(t):
                v = bias[:, None] + np.outer(x["v"] - bias, np.exp(-t / tau_m))
                v += np.outer(x["i_e"], kernel(t, tau_m, par["tau_e"]))
                v += np.outer(x["i_i"], kernel(t, tau_m, par["tau_i"]))
                return np.where(free[:, None], v, x["v"][:, None])

            return path, min(tau_m, par["tau_e"], par["tau_i"]), None
        if kind == "leaky_readout":
            b, tau = par["bias"][0], par["tau"]
            return lambda t: b[:, None] + np.outer(x["v"] - b, np.exp(-t / tau)), tau, None
        if kind == "delta_readout":
            main = self.main(name)
            return lambda t: np.repeat(main[:, None], t.size, axis=1), np.inf, None
        goal, rate = self.delta_flow(name)
        if kind == "delta_gru":
            path = lambda t: x["h"][:, None] - (goal - x["h"])[:, None] * np.expm1(-np.outer(rate, t))  # noqa: E731
        else:
            o = logistic(x["m_o"] + par["bias"][3])

            def path(t):
                away = (goal - x["c"])[:, None]
                return o[:, None] * np.tanh(x["c"][:, None] - away * np.expm1(-np.outer(rate, t)))

        return path, 1 / rate.max(), (goal, rate)
