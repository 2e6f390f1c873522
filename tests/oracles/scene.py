"""A small network in use, on which tests of bad input try whether anything was lost."""

import numpy as np

from evsim.adjoint import Adjoint
from evsim.models import EGRU, DeltaEncoder, DeltaGRU, DeltaReadout, EventSource, LeakyReadout
from evsim.network import Network
from evsim.optimizer import Adam
from evsim.plan import Plan
from evsim.simulation import Simulation

T, B, K, H, C = 6, 2, 4, 7, 3


def make_network(cue="cue", hidden=H):
    net = Network(dt=0.5, seed=1)
    net.add(EventSource(K, name=cue))
    net.add(EGRU(hidden, name="hidden", threshold=0.1, bias=lambda rng, shape: rng.normal(0.3, 0.5, shape)))
    net.add(LeakyReadout(C, name="answer", tau=3))
    net.connect(cue, "hidden")
    net.connect("hidden", "hidden", delay=1.0)
    net.connect("hidden", "answer")
    return net


def make_delta_network():
    """A network of changes, and beside it units that take values."""
    net = Network(dt=0.5, seed=1)
    net.add(EventSource(K, "lines", threshold=0.2))
    net.add(DeltaGRU(H, "hidden", threshold=0.1))
    net.add(DeltaEncoder(net["hidden"], "again", threshold=0.05))
    net.add(DeltaReadout(C, "answer"))
    net.add(EGRU(2, "spikes"))
    net.add(LeakyReadout(2, "leaky"))
    net.connect("lines", "hidden")
    net.connect("hidden", "hidden")
    net.connect("again", "answer")
    return net


class DeltaScene:
    """The part of a `Scene` that sends changes."""

    def __init__(self, lines):
        self.lines, self.net = lines, make_delta_network()
        self.simulation = Simulation(self.net, threads=1)
        self.log = self.simulation.run(lines)

    def run(self, stimulus, **options):
        return self.simulation.run(stimulus, carry=True, **options)

    def replay(self, losses):
        return Adjoint(self.simulation.plan, threads=1).replay(self.log, losses)

    def finish(self):
        log = self.run(self.lines[::-1])
        gradients = self.replay(
            {"answer": np.ones((T, B, C)), "hidden.y": np.ones(len(self.log["hidden"].events))}
        )
        found = {
            f"delta {name}": log[name].events.to_dense().tobytes() for name in ("lines", "hidden", "again")
        }
        found |= {f"delta {name} gradient": value.tobytes() for name, value in gradients.items()}
        found |= {f"delta {name}": p.values.tobytes() for name, p in self.net.parameters().items()}
        return found | {"delta description": str(self.net.describe()).encode()}


class Scene:
    """A network in use: a run behind it and more to come, a log to replay, an optimiser on its way."""

    def __init__(self):
        self.net = make_network()
        self.plan = Plan(self.net)
        self.simulation = Simulation(self.plan, threads=1)
        self.adjoint = Adjoint(self.plan, threads=1)
        self.optimizer = Adam(self.net.parameters(), lr=0.01)
        rng = np.random.default_rng(0)
        self.cue = rng.normal(0, 1, (T, B, K)) * (rng.random((T, B, K)) < 0.6)
        self.loss = rng.normal(size=(T, B, C)).astype("float32")
        self.log = self.simulation.run(self.cue)
        self.tapeless = Simulation(self.plan, threads=1).run(self.cue, tape=False)
        self.gradients = self.adjoint.replay(self.log, {"answer": self.loss})
        self.optimizer.step(self.gradients)
        self.log = self.simulation.run(self.cue, carry=True)
        self.delta = DeltaScene(np.cumsum(self.cue, axis=0))

    def run(self, stimulus, *args, **options):
        return self.simulation.run(stimulus, *args, carry=True, **options)

    def replay(self, losses, log=None):
        return self.adjoint.replay(self.log if log is None else log, losses)

    def with_gradient(self, name, values):
        return dict(self.gradients) | {name: values}

    def finish(self):
        """Everything that can still be done with the scene, as bytes."""
        found = {}
        log = self.simulation.run(self.cue[::-1], carry=True)
        after = self.simulation.step(self.cue[0])
        gradients = self.adjoint.replay(self.log, {"answer": self.loss})
        self.optimizer.step(gradients)
        self.net.add(EGRU(3, name="late"))
        self.net.connect("hidden", "late", "orthogonal", density=0.5)
        self.net.connect("late", "late")
        for name in log:
            found[f"{name} state"] = log[name].state.tobytes() if log[name].tape is not None else b""
            if log[name].events is not None:
                found[f"{name} events"] = log[name].events.to_dense().tobytes()
        found |= {f"{name} after": value.tobytes() for name, value in after.items()}
        found |= {f"{name} gradient": value.tobytes() for name, value in gradients.items()}
        found |= {f"{name} kept": value.tobytes() for name, value in self.optimizer.state().items()}
        found |= {name: parameter.values.tobytes() for name, parameter in self.net.parameters().items()}
        found["description"] = str(self.net.describe()).encode()
        found["steps"] = str(self.simulation.time_step).encode()
        return found | self.delta.finish()
