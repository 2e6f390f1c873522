"""The network in torch (float64), differentiated by autograd: an oracle for every hand-written gradient.

Written from the equations of Subramoney et al., ICLR 2023, as `EGRU` states them; it takes names, structure
and values from a `Network` and nothing else from evsim.  Weights have axes (source unit, gate, unit).
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


class TorchNetwork:
    """One run of a network, in torch.

    Parameters
    ----------
    network : Network
    stimulus : dict of array, shape (steps, lanes, units)
        By source, all of them.
    initial : dict of dict of array
        ``initial["hidden"]["c"]`` (lanes, units), ``["y"]`` (history, lanes, units), or ``["v"]``.
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
        schedule = list(sorter.static_order())
        state = {}
        for name, population in self.network.populations.items():
            for key in population.states:
                state[name] = self.initial[name][key]
            if population.emits:
                self.past[name] = list(self.initial[name]["y"])
        self.before = {name: len(rows) for name, rows in self.past.items()}
        for t in range(self.n_steps):
            runs = (t < self.lengths)[:, None]
            for name in schedule:
                kind = type(self.network[name]).__name__
                if kind == "EventSource":
                    self.past[name].append(torch.where(runs, self.inputs[name][t], 0.0))
                    continue
                new = (self._egru if kind == "EGRU" else self._readout)(name, state[name], t)
                key = self.network[name].states[0]
                state[name] = new[key] = torch.where(runs, new[key], state[name])
                if "y" in new:
                    new["y"], new["o"] = torch.where(runs, new["y"], 0.0), torch.where(runs, new["o"], 0.0)
                    self.past[name].append(new["y"])
                for quantity, value in new.items():
                    self.values.setdefault((name, quantity), []).append(value)

    def _incoming(self, name, port, t):
        for p in self.network.projections.values():
            if p.target.name == name and p.port == port:
                source = p.source.name
                yield self.past[source][self.before[source] + t - p.delay_steps], self.weights[p.name]

    def _sum(self, name, port, t):
        """(lanes, gates, units)."""
        unit = self.network[name]
        total = torch.zeros(self.n_lanes, len(unit.ports[port]), unit.n_units, dtype=torch.float64)
        for y, weight in self._incoming(name, port, t):
            total = total + torch.einsum("bi,igj->bgj", y, weight)
        return total

    def _bias(self, name, key):
        return self.parameters[f"{name}.{key}"].reshape(-1, self.network[name].n_units)

    def _egru(self, name, c, t):
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

    def _readout(self, name, v, t):
        tau = self.network[name].tau
        k = float(np.exp(-self.network.dt / tau)) if tau else 0.0
        return {"v": k * v + (1 - k) * (self._sum(name, "input", t)[:, 0] + self._bias(name, "bias")[0])}

    def trace(self, name, quantity):
        """A quantity over the run, ndarray (steps, lanes, units)."""
        return torch.stack(self.values[name, quantity]).detach().numpy()

    def gradients(self, losses):
        """Gradients by parameter name, with ``"inputs"`` and ``"initial"``.

        Parameters
        ----------
        losses : dict of array, shape (steps, lanes, units)
            ``"hidden"`` weighs the state, ``"hidden.y"`` and ``"hidden.o"`` what was sent and whether it was.
        """
        runs = (torch.arange(self.n_steps)[:, None] < self.lengths)[:, :, None]
        loss = torch.zeros((), dtype=torch.float64)
        for key, factor in losses.items():
            name, _, quantity = key.partition(".")
            value = torch.stack(self.values[name, quantity or self.network[name].states[0]])
            loss = loss + (value * torch.from_numpy(np.asarray(factor, np.float64)) * runs).sum()
        leaves = [*self.parameters.values(), *self.inputs.values()]
        leaves += [a for states in self.initial.values() for a in states.values()]
        for leaf in leaves:
            leaf.grad = torch.zeros_like(leaf)
        loss.backward()

        def collect(named):
            return {name: leaf.grad.numpy() for name, leaf in named.items()}

        initial = {name: collect(states) for name, states in self.initial.items()}
        return collect(self.parameters) | {"inputs": collect(self.inputs), "initial": initial}
