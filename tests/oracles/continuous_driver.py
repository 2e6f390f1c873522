"""What happens at an event, in continuous time: the part that both oracles share.

A run is a sequence of instants.  At each: samples (of the state before), external events, arrivals of delayed
events, crossings; ties by name of the population, then unit.  Between instants a subclass moves the whole
network (`Driver.flow`).  One lane; times in ms.
"""

import heapq
from dataclasses import dataclass

import numpy as np

EXTERNAL, ARRIVAL = 1, 2

#: More events than this are taken for a mistake.
MOST = 100_000


def logistic(x):
    return 0.5 * (1.0 + np.tanh(0.5 * x))


@dataclass
class Result:
    """What a run gives.

    Attributes
    ----------
    time, unit, value, slope : array (n_events,)
        Of all events of units, in the order in which they happened.  ``slope``: at which c, v or |h - sent|
        crosses the threshold, per ms; nan where there was no crossing (fixed times, jumps).
    population : list of str, one per event
    state, integral, square : dict of str to array (n_samples, n_units)
        By population: the main state just before each sample, its integral and that of its square since the
        sample before (the first: since the start).
    sampled : dict of str to dict of str to array (n_samples, n_units)
        All states, just before each sample.
    final : dict of str to dict of str to array (n_units,)
        All states at the end, before the events of that instant.
    """

    time: np.ndarray
    population: list
    unit: np.ndarray
    value: np.ndarray
    slope: np.ndarray
    samples: np.ndarray
    state: dict
    integral: dict
    square: dict
    sampled: dict
    final: dict

    @property
    def raster(self):
        """(population, unit) of the events in order: what must not change under a finite difference."""
        return tuple(zip(self.population, self.unit.tolist(), strict=True))

    @property
    def emissions(self):
        """[(population, unit, time)], as ``fixed_times`` takes them."""
        return list(zip(self.population, self.unit.tolist(), self.time.tolist(), strict=True))

    def __len__(self):
        return len(self.time)

    def of(self, population):
        """(time, unit, value) of the events of one population, sorted by (time, unit) as a log has them."""
        mine = np.flatnonzero([name == population for name in self.population])
        mine = mine[np.lexsort((self.unit[mine], self.time[mine]))]
        return self.time[mine], self.unit[mine], self.value[mine]


class Driver:
    """One run; see `continuous.simulate` for the arguments.

    States are ``x[population][state]``, float64 (n_units,).  A subclass gives `flow`.
    """

    def __init__(self, network, stimulus, duration, samples, initial, fixed_times, fixed, start):
        self.net = network
        self.start, self.t, self.end = start, start, start + duration
        self.samples = np.asarray(samples, float).reshape(-1)
        self.names = sorted(network.populations)
        self.units = network.populations
        self.par = {name: network.of(name) for name in self.names}
        self.emitting = [n for n in self.names if self.kind(n) not in ("source",) and self._traits(n).emits]
        self.moving = [n for n in self.names if self.kind(n) != "source"]
        self.events = []
        self.queue, self.count = [], 0
        self.fixed_times = None if fixed_times is None else sorted(fixed_times, key=lambda e: e[2])
        self.fixed = set() if fixed_times is None else set(self.emitting if fixed is None else fixed)
        self.next_fixed = 0
        self._rest(initial or {})
        self._wire()
        for source, (time, unit, value) in (stimulus or {}).items():
            for t, k, v in zip(*np.broadcast_arrays(np.atleast_1d(time), unit, value), strict=True):
                if start <= t < self.end:
                    self._push(float(t), EXTERNAL, source, int(k), float(v))
        self.touched = {name: np.ones(self.units[name].n_units, bool) for name in self.moving}
        self.sums = {name: np.zeros((2, self.units[name].n_units)) for name in self.moving}

    def kind(self, name):
        return self.units[name].kind

    def _traits(self, name):
        return self.units[name].traits

    # ------------------------------------------------------------------ setting up

    def _rest(self, initial):
        self.x, self.held = {}, {}
        for name in self.moving:
            n, par, kind = self.units[name].n_units, self.par[name], self.kind(name)
            x = {key: np.zeros(n) for key in self._traits(name).states}
            if kind == "egru":
                x["a_u"], x["a_r"], x["a_z"] = par["bias"].copy()
            elif kind == "lif":
                x["v"] = np.full(n, float(self.units[name].options["reset"]))
            elif kind == "leaky_readout":
                x["v"] = par["bias"][0].copy()
            given = dict(initial.get(name, {}))
            # Until when v is held, in absolute time.
            self.held[name] = self.start + np.broadcast_to(np.asarray(given.pop("hold", 0.0), float), (n,))
            for key, values in given.items():
                x[key] = np.broadcast_to(np.asarray(values, float), (n,)).copy()
            self.x[name] = x
            self._refresh(name)

    def _wire(self):
        """For each source unit: [(projection, delay, targets, weights (n_blocks, n_targets))]."""
        self.out = {name: [[] for _ in range(self.units[name].n_units)] for name in self.names}
        for key in sorted(self.net.projections):
            wires = self.net.projections[key]
            weight, delay, exists = self.net.weights(key)
            if delay.min() < 0:
                raise ValueError(f"{key}: delay {delay.min()} is negative (a difference around zero?)")
            for row in range(len(weight)):
                for d in np.unique(delay[row][exists[row]]):
                    to = np.flatnonzero(exists[row] & (delay[row] == d))
                    self.out[wires.source][row].append((wires, float(d), to, weight[row][:, to]))

    def _push(self, time, order, name, unit, content):
        self.count += 1
        heapq.heappush(self.queue, (time, order, name, unit, self.count, content))

    # ------------------------------------------------------------------ states

    def _refresh(self, name):
        """The h of an LSTM follows from c and o."""
        if self.kind(name) == "delta_lstm":
            x = self.x[name]
            x["h"] = logistic(x["m_o"] + self.par[name]["bias"][3]) * np.tanh(x["c"])

    def main(self, name):
        """Main state, (n_units,)."""
        x = self.x[name]
        if self.kind(name) == "delta_readout":
            return x["m"] + self.par[name]["bias"][0]
        return x[self._traits(name).main]

    def distance(self, name):
        """How far each unit is above its threshold."""
        x, threshold = self.x[name], self.par[name]["threshold"]
        if self.kind(name) == "egru":
            return x["c"] - threshold
        if self.kind(name) == "lif":
            return np.where(self.held[name] > self.t, -np.inf, x["v"] - threshold)
        return np.abs(x["h"] - x["sent"]) - threshold

    def delta_flow(self, name):
        """What the main state of delta units tends to, and its rate: of h (GRU) or c (LSTM)."""
        x, par = self.x[name], self.par[name]
        b, tau = par["bias"], par["tau"]
        if self.kind(name) == "delta_gru":
            r, open_ = logistic(x["m_r"] + b[0]), 1 / (1 + np.exp(x["m_z"] + b[1]))
            return np.tanh(x["m_n"] + b[2] + r * (x["m_q"] + b[3])), open_ / tau
        # 1 - f would lose digits where f is almost 1.
        i, open_ = logistic(x["m_i"] + b[0]), 1 / (1 + np.exp(x["m_f"] + b[1]))
        return i * np.tanh(x["m_g"] + b[2]) / open_, open_ / tau

    def slope(self, name, unit):
        """d distance / dt of one unit."""
        x, par = self.x[name], self.par[name]
        if self.kind(name) == "egru":
            u, z = logistic(x["a_u"][unit]), np.tanh(x["a_z"][unit])
            return u * (z - x["c"][unit]) / par["tau_m"]
        if self.kind(name) == "lif":
            return (par["bias"][0, unit] - x["v"][unit] + x["i_e"][unit] + x["i_i"][unit]) / par["tau_m"]
        goal, rate = self.delta_flow(name)
        sign = np.sign(x["h"][unit] - x["sent"][unit])
        if self.kind(name) == "delta_gru":
            return sign * rate[unit] * (goal[unit] - x["h"][unit])
        c = x["c"][unit]
        o = logistic(x["m_o"][unit] + par["bias"][3, unit])
        return sign * o * (1 - np.tanh(c) ** 2) * rate[unit] * (goal[unit] - c)

    # ------------------------------------------------------------------ what happens

    def _send(self, name, unit, value, rho):
        """An event leaves: what has no delay arrives now, the rest is queued.  ``rho``: sender's gate."""
        for wires, delay, to, weight in self.out[name][unit]:
            if delay == 0:
                self._arrive(wires, to, weight, value, rho)
            else:
                self._push(self.t + delay, ARRIVAL, name, unit, (wires, to, weight, value, rho))

    def _arrive(self, wires, to, weight, value, rho):
        name = wires.target
        x, states = self.x[name], self._traits(name).ports[wires.port]
        change = weight * value
        if self.kind(name) == "egru" and wires.port == "recurrent":
            gate = self.units[name].options["gate"]
            # "post": r of the target before this arrival, which may change r itself.
            factor = {"pre": rho, "none": 1.0, "post": logistic(x["a_r"][to])}[gate]
            change = np.stack([change[0], change[1], change[2] * factor])
        for state, row in zip(states, change, strict=True):
            x[state][to] += row
        self._refresh(name)
        self.touched[name][to] = True

    def _fire(self, name, unit, crossing):
        x, kind = self.x[name], self.kind(name)
        slope = self.slope(name, unit) if crossing else np.nan
        rho = 1.0
        if kind == "egru":
            rho = logistic(x["a_r"][unit])
            value = 1.0
            if self.units[name].options["transmit"] == "value":
                value = x["c"][unit] if name in self.fixed else self.par[name]["threshold"][unit]
            x["c"][unit] = 0.0
        elif kind == "lif":
            value = 1.0
            x["v"][unit] = self.units[name].options["reset"]
            self.held[name][unit] = self.t + self.units[name].options["refractory"]
        else:
            value = x["h"][unit] - x["sent"][unit]
            x["sent"][unit] = x["h"][unit]
        self.touched[name][unit] = True
        self.events.append((self.t, name, unit, float(value), float(slope)))
        if len(self.events) > MOST:
            raise RuntimeError(f"more than {MOST} events before {self.t} ms")
        self._send(name, unit, float(value), float(rho))

    def _cross(self, due):
        """Fire ``due`` [(name, unit)], and whatever that pushes over its threshold, in order."""
        waiting = dict.fromkeys(due, True)
        while True:
            for name in self.emitting:
                if name not in self.fixed:
                    for unit in np.flatnonzero(self.distance(name) >= 0):
                        waiting.setdefault((name, int(unit)), False)
            if not waiting:
                return
            name, unit = min(waiting)
            crossing = waiting.pop((name, unit))
            # An LSTM that reached its threshold may have been moved away by an arrival of the same instant.
            if self.distance(name)[unit] > -1e-9:
                self._fire(name, unit, crossing)

    def _sample(self, index):
        for name in self.moving:
            self.state[name][index] = self.main(name)
            self.integral[name][index], self.square[name][index] = self.sums[name]
            self.sums[name][:] = 0.0
            for key, values in self._states(name).items():
                self.sampled[name][key][index] = values

    def _states(self, name):
        found = dict(self.x[name])
        if self.kind(name) == "lif":
            found["hold"] = np.maximum(self.held[name] - self.t, 0.0)
        return found

    def _next(self):
        """The next instant that is known in advance."""
        times = [self.end]
        times += [self.queue[0][0]] if self.queue else []
        times += [self.samples[self.taken]] if self.taken < len(self.samples) else []
        if self.fixed_times and self.next_fixed < len(self.fixed_times):
            times.append(self.fixed_times[self.next_fixed][2])
        for name in self.moving:
            if self.kind(name) == "lif":
                times += self.held[name][self.held[name] > self.t].tolist()
        return min(times)

    def flow(self, until):
        """Move to ``until`` or to the first crossing before it: returns [(population, unit)] that reach it.

        Sets ``t``, ``x`` and adds to ``sums`` (the integral of the main state, and of its square).
        """
        raise NotImplementedError

    def run(self):
        """Run; returns a `Result`."""
        shape = {name: (len(self.samples), self.units[name].n_units) for name in self.moving}
        self.state, self.integral, self.square = (
            {name: np.zeros(shape[name]) for name in self.moving} for _ in range(3)
        )
        self.sampled = {
            name: {key: np.zeros(shape[name]) for key in self._states(name)} for name in self.moving
        }
        self.taken = 0
        due = []
        while True:
            while self.taken < len(self.samples) and self.samples[self.taken] <= self.t:
                self._sample(self.taken)
                self.taken += 1
            if self.t >= self.end:
                break
            while self.queue and self.queue[0][0] <= self.t:
                _, order, name, unit, _, content = heapq.heappop(self.queue)
                if order == EXTERNAL:
                    self._send(name, unit, content, 1.0)
                else:
                    self._arrive(*content)
            for name in self.moving:
                self.touched[name] |= self.held[name] == self.t
            while self.fixed_times and self.next_fixed < len(self.fixed_times):
                name, unit, time = self.fixed_times[self.next_fixed]
                if time > self.t:
                    break
                if name in self.fixed:
                    self._fire(name, unit, False)
                self.next_fixed += 1
            self._cross(due)
            due = self.flow(self._next())
        return self._result()

    def _result(self):
        columns = list(zip(*self.events, strict=True)) or [[]] * 5
        return Result(
            np.array(columns[0], float),
            list(columns[1]),
            np.array(columns[2], int),
            np.array(columns[3], float),
            np.array(columns[4], float),
            self.samples,
            self.state,
            self.integral,
            self.square,
            self.sampled,
            {name: self._states(name) for name in self.moving},
        )
