"""The network in torch (float64), differentiated by autograd: an oracle for every hand-written gradient.

Written from the equations of Subramoney et al., ICLR 2023, as `EGRU` states them, from the differential
equations of `LIF`, whose steps are matrix exponentials here, and from those of delta networks in their own
form, which adds what arrives to what has arrived; it takes names, structure and values from a `Network` and
nothing else from evsim.  Weights have axes (source unit, gate, unit).
"""

from graphlib import TopologicalSorter

import numpy as np
import torch


class Heaviside(torch.autograd.Function):
    """H(v) with H(0) = 0, and a pseudo-derivative."""

    @staticmethod
    def forward(ctx, v, shape, gamma, eps):
        ctx.save_for_backward(v)
        ctx.options = shape, gamma, eps
        return torch.where(v > 0, 1.0, 0.0).to(v)

    @staticmethod
    def backward(ctx, gradient):
        (v,) = ctx.saved_tensors
        shape, gamma, eps = ctx.options
        distance = eps * v.abs()
        slope = {
            "triangle": torch.relu(1 - distance),
            "rectangle": (v.abs() < 1 / eps).to(v),
            "fast_sigmoid": (1 + distance).pow(-2),
        }[shape]
        return gradient * gamma * slope, None, None, None


class Reached(Heaviside):
    """The same with H(0) = 1."""

    @staticmethod
    def forward(ctx, v, shape, gamma, eps):
        ctx.save_for_backward(v)
        ctx.options = shape, gamma, eps
        return torch.where(v >= 0, 1.0, 0.0).to(v)


class TorchNetwork:
    """One run of a network, in torch.

    Parameters
    ----------
    network : Network
    stimulus : dict of array, shape (steps, lanes, units)
        By source, all of them.
    initial : dict of dict of array
        ``initial["hidden"]["y"]`` (history, lanes, units), and the states, such as ``["c"]`` (lanes, units).
    lengths : sequence of int, optional
        Steps that each lane runs.
    """

    def __init__(self, network, stimulus, initial, lengths=None, shape="triangle", gamma=0.7, eps=1.0):
        self.network, self.surrogate = network, (shape, gamma, eps)
        self.parameters = {name: self._leaf(p.values) for name, p in network.parameters().items()}
        self.inputs = {name: self._leaf(array) for name, array in stimulus.items()}
        self.initial = {pop: {k: self._leaf(a) for k, a in states.items()} for pop, states in initial.items()}
        self.n_steps, self.n_lanes = next(iter(stimulus.values())).shape[:2]
        self.lengths = torch.tensor([self.n_steps] * self.n_lanes if lengths is None else list(lengths))
        self.weights = {name: self._weight(p) for name, p in network.projections.items()}
        self.values = {}  # (population, quantity) -> one tensor (lanes, units) a step
        self.past = {}  # population -> what it sent, from before the run on
        # What is added to that on its way to the targets.
        senders = [p for p in network.populations.values() if p.emits]
        shape = self.n_steps, self.n_lanes
        self.transit = {p.name: self._leaf(np.zeros((*shape, p.n_units))) for p in senders}
        self._run()

    @staticmethod
    def _leaf(array):
        return torch.tensor(np.asarray(array, np.float64), dtype=torch.float64, requires_grad=True)

    def _weight(self, projection):
        stored = self.parameters[projection.weight.name]
        if projection.is_sparse:
            crow, column = torch.from_numpy(projection.indptr), torch.from_numpy(projection.indices).long()
            row = torch.arange(len(crow) - 1).repeat_interleave(crow.diff())
            stored = torch.zeros(projection.shape, dtype=torch.float64).index_put((row, column), stored)
        return stored.reshape(projection.shape[0], -1, projection.target.n_units)

    def _run(self):
        sorter = TopologicalSorter({name: set() for name in self.network.populations})
        for p in self.network.projections.values():
            if p.delay_steps == 0:
                sorter.add(p.target.name, p.source.name)
        for name, population in self.network.populations.items():
            if population.watches is not None:
                sorter.add(name, population.watches.name)
        schedule = list(sorter.static_order())
        self.state = {}
        for name, population in self.network.populations.items():
            self.state[name] = {key: self.initial[name][key] for key in population.states}
            if population.emits:
                self.past[name] = list(self.initial[name]["y"])
        self.before = {name: len(rows) for name, rows in self.past.items()}
        units = {
            "EventSource": self._source,
            "EGRU": self._egru,
            "LIF": self._lif,
            "LeakyReadout": self._readout,
            "LinearReadout": self._readout,
            "DeltaGRU": self._delta_gru,
            "DeltaLSTM": self._delta_lstm,
            "DeltaEncoder": self._encoder,
            "DeltaReadout": self._delta_readout,
        }
        for t in range(self.n_steps):
            runs = (t < self.lengths)[:, None]
            for name in schedule:
                old = self.state[name]
                new = units[type(self.network[name]).__name__](name, old, t)
                for quantity, value in new.items():
                    new[quantity] = torch.where(runs, value, old.get(quantity, torch.zeros_like(value)))
                    self.values.setdefault((name, quantity), []).append(new[quantity])
                self.state[name] = {key: new[key] for key in old}
                if "y" in new:
                    self.past[name].append(new["y"])

    def _incoming(self, name, port, t):
        for p in self.network.projections.values():
            if p.target.name == name and p.port == port:
                source, sent = p.source.name, t - p.delay_steps
                y = self.past[source][self.before[source] + sent]
                yield y + self.transit[source][sent] if sent >= 0 else y, self.weights[p.name]

    def _sum(self, name, port, t):
        """(lanes, gates, units)."""
        unit = self.network[name]
        total = torch.zeros(self.n_lanes, len(unit.ports[port]), unit.n_units, dtype=torch.float64)
        for y, weight in self._incoming(name, port, t):
            total = total + torch.einsum("bi,igj->bgj", y, weight)
        return total

    def _bias(self, name, key):
        return self.parameters[f"{name}.{key}"].reshape(-1, self.network[name].n_units)

    def _source(self, name, state, t):
        line = self.inputs[name][t]
        return self._changes(name, line, state) if state else {"y": line}

    def _egru(self, name, state, t):
        c = state["c"]
        theta = self.parameters[f"{name}.threshold"]
        x = self._sum(name, "input", t) + self._bias(name, "bias")
        if self.network[name].form == "evnn":
            h = self._sum(name, "recurrent", t) + self._bias(name, "recurrent_bias")
            keep, reset = torch.sigmoid(x[:, :2] + h[:, :2]).unbind(1)
            a = keep * c + (1 - keep) * torch.tanh(x[:, 2] + reset * h[:, 2])
            fired = Heaviside.apply(a - theta, *self.surrogate)
            return {"a": a, "o": fired, "y": fired * a, "c": a - fired * theta}
        take, reset = torch.sigmoid(x[:, :2] + self._sum(name, "recurrent", t)[:, :2]).unbind(1)
        candidate = x[:, 2]
        for y, weight in self._incoming(name, "recurrent", t):
            candidate = candidate + (reset * y) @ weight[:, 2]
        last = self.past[name][self.before[name] + t - 1]
        a = take * torch.tanh(candidate) + (1 - take) * c - last
        fired = Heaviside.apply(a - theta, *self.surrogate)
        return {"a": a, "o": fired, "y": fired * a, "c": a}

    def _lif(self, name, state, t):
        unit, dt = self.network[name], self.network.dt
        tau_m, tau_e, tau_i = (self.parameters[f"{name}.{tau}"][0] for tau in ("tau_m", "tau_e", "tau_i"))
        e = state["i_e"] + self._sum(name, "excitatory", t)[:, 0]
        i = state["i_i"] + self._sum(name, "inhibitory", t)[:, 0]
        # of V less its bias, and the currents
        rates = torch.zeros(3, 3, dtype=torch.float64)
        rates[0] = torch.stack([-1 / tau_m, 1 / tau_m, 1 / tau_m])
        rates[1, 1], rates[2, 2] = -1 / tau_e, -1 / tau_i
        bias = self.parameters[f"{name}.bias"]
        v, later_e, later_i = torch.einsum(
            "kl,lbj->kbj", torch.matrix_exp(rates * dt), torch.stack([state["v"] - bias, e, i])
        )
        free = state["hold"] == 0
        a = torch.where(free, v + bias, torch.full_like(v, unit.reset))
        fired = Reached.apply(a - self.parameters[f"{name}.threshold"], *self.surrogate) * free
        steps = np.ceil(unit.refractory / dt - 1e-6)
        hold = torch.where(fired > 0, steps, (state["hold"] - 1).clamp(min=0)).detach()
        new = {"v": a + fired * (unit.reset - a), "i_e": later_e, "i_i": later_i, "hold": hold}
        return {"a": a, "o": fired, "y": fired} | new

    def _readout(self, name, state, t):
        v, tau = state["v"], self.network[name].tau
        k = float(np.exp(-self.network.dt / tau)) if tau else 0.0
        return {"v": k * v + (1 - k) * (self._sum(name, "input", t)[:, 0] + self._bias(name, "bias")[0])}

    def _changes(self, name, line, state):
        theta = self.parameters[f"{name}.threshold"].detach()
        change = line - state["sent"]
        moved = ((change.abs() >= theta) & (change != 0)).detach()
        y = torch.where(moved, change, torch.zeros_like(change))
        return {"y": y, "sent": state["sent"] + y}

    def _encoder(self, name, state, t):
        return self._changes(name, self.state[self.network[name].watches.name]["h"], state)

    def _delta_gru(self, name, state, t):
        r, z, n = self._sum(name, "input", t).unbind(1)
        more_r, more_z, q = self._sum(name, "recurrent", t).unbind(1)
        new = {"m_r": state["m_r"] + r + more_r, "m_z": state["m_z"] + z + more_z}
        new |= {"m_n": state["m_n"] + n, "m_q": state["m_q"] + q}
        r, z, n, q = (m + bias for m, bias in zip(new.values(), self._bias(name, "bias"), strict=True))
        n = torch.tanh(n + torch.sigmoid(r) * q)
        new["h"] = n + torch.sigmoid(z) * (state["h"] - n)
        return new | self._changes(name, new["h"], state)

    def _delta_lstm(self, name, state, t):
        arriving = self._sum(name, "input", t) + self._sum(name, "recurrent", t)
        new = {f"m_{gate}": state[f"m_{gate}"] + arriving[:, k] for k, gate in enumerate("ifgo")}
        i, f, g, o = (m + bias for m, bias in zip(new.values(), self._bias(name, "bias"), strict=True))
        new["c"] = torch.sigmoid(f) * state["c"] + torch.sigmoid(i) * torch.tanh(g)
        new["h"] = torch.sigmoid(o) * torch.tanh(new["c"])
        return new | self._changes(name, new["h"], state)

    def _delta_readout(self, name, state, t):
        m = state["m"] + self._sum(name, "input", t)[:, 0]
        return {"m": m, "v": m + self._bias(name, "bias")[0]}

    def trace(self, name, quantity):
        """A quantity over the run, ndarray (steps, lanes, units)."""
        return torch.stack(self.values[name, quantity]).detach().numpy()

    def gradients(self, losses):
        """Gradients by parameter name, with ``"inputs"`` and ``"initial"``; also sets those of ``transit``.

        Parameters
        ----------
        losses : dict of array, shape (steps, lanes, units)
            ``"hidden"`` weighs the state, ``"hidden.y"`` and ``"hidden.o"`` what was sent and whether it was.
        """
        runs = (torch.arange(self.n_steps)[:, None] < self.lengths)[:, :, None]
        loss = torch.zeros((), dtype=torch.float64)
        for key, factor in losses.items():
            name, _, quantity = key.partition(".")
            own = quantity or next(key for key in "vhc" if (name, key) in self.values)
            value = torch.stack(self.values[name, own])
            if quantity == "y":
                value = value + self.transit[name]
            loss = loss + (value * torch.from_numpy(np.asarray(factor, np.float64)) * runs).sum()
        leaves = [*self.parameters.values(), *self.inputs.values(), *self.transit.values()]
        leaves += [a for states in self.initial.values() for a in states.values()]
        for leaf in leaves:
            leaf.grad = torch.zeros_like(leaf)
        loss.backward()

        def collect(named):
            return {name: leaf.grad.numpy() for name, leaf in named.items()}

        held = [name for name, p in self.network.populations.items() if "sent" in p.states]
        parameters = collect(self.parameters)
        for name in held:  # not differentiated
            del parameters[f"{name}.threshold"]
        initial = {name: collect(states) for name, states in self.initial.items()}
        return parameters | {"inputs": collect(self.inputs), "initial": initial}
