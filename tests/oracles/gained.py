"""The NumPy reference where payloads are multiplied by gains on their way through some projections."""

from dataclasses import dataclass, field

from evsim import reference


@dataclass
class Gained(reference.Run):
    """A run with ``gain`` by projection, shape (n_lanes, rows)."""

    gain: dict = field(default_factory=dict)

    def arriving(self, projection, t):
        return super().arriving(projection, t) * self.gain.get(projection.name, 1.0)

    def arrived(self, projection, t):
        return super().arrived(projection, t) * self.gain.get(projection.name, 1.0)


class Backward(reference.Backward):
    """Its reverse: what comes back through a projection is multiplied by the same."""

    def receive(self, population, port, t, d):
        for p in self.run.into(population, port):
            self.dweight[p.name] += self.run.arriving(p, t).T @ d
            back = d @ self.run.weights[p.name].T * self.run.gain.get(p.name, 1.0)
            self.send(p.source.name, t - p.delay_steps, back)

    def hold(self, population, port, t, d):
        for p in self.run.into(population, port):
            self.dweight[p.name] += self.run.arrived(p, t).T @ d
            darrived = d @ self.run.weights[p.name].T * self.run.gain.get(p.name, 1.0)
            name, depth, last = p.source.name, self.depth[p.source.name], t - p.delay_steps
            self.dsent[name][depth - p.delay_steps : depth + min(last + 1, 0)] += darrived
            if last >= 0 and name in self.dheld:
                self.dheld[name][1 + last] += darrived
                self.dheld[name][0] -= darrived
            elif last >= 0:
                self.dsent[name][depth : depth + last + 1] += darrived


def simulate(network, stimulus, n_steps, n_lanes, initial=None, lengths=None, *, gain):
    """As `evsim.reference.simulate`."""
    plain = reference.Run
    reference.Run = lambda *columns: Gained(*columns, gain)
    try:
        return reference.simulate(network, stimulus, n_steps, n_lanes, initial, lengths)
    finally:
        reference.Run = plain


def backpropagate(run, losses, **surrogate):
    """As `evsim.reference.backpropagate`."""
    plain = reference.Backward
    reference.Backward = Backward
    try:
        return reference.backpropagate(run, losses, **surrogate)
    finally:
        reference.Backward = plain


def some_gains(network, n_lanes, rng, share=0.7):
    """Gains of some projections, a third of them 0, of all but those that cannot have any."""
    found = {}
    for name, p in network.projections.items():
        own = p.target.kernel == "egru_paper" and p.port == "recurrent"
        if not own and rng.random() < share:
            shape = n_lanes, p.source.n_units
            found[name] = rng.normal(1, 0.5, shape) * (rng.random(shape) < 2 / 3)
    return found
