"""Memory does not grow with the number of runs, whether they succeed or fail."""

import gc
import os
from pathlib import Path

import numpy as np
import pytest

from evsim.adjoint import Adjoint
from evsim.errors import GradientError, StimulusError
from evsim.models import EGRU, DeltaEncoder, DeltaGRU, DeltaReadout, EventSource, LeakyReadout
from evsim.network import Network
from evsim.simulation import Simulation

STATM = Path("/proc/self/statm")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not STATM.exists(), reason="no /proc to read the size of a process from"),
]

T, K, H, C = 4, 3, 9, 2
#: Growth in bytes that is put down to Python and the C library.
MOST = 300_000


def spikes():
    net = Network(seed=1)
    net.add(EventSource(K, "cue"))
    net.add(EGRU(H, "hidden", threshold=0.05))
    net.add(LeakyReadout(C, "answer"))
    net.connect("cue", "hidden")
    net.connect("hidden", "hidden", delay=2.0)
    net.connect("hidden", "answer", density=0.5)
    return net


def changes():
    net = Network(seed=1)
    net.add(EventSource(K, "cue", threshold=0.1))
    net.add(DeltaGRU(H, "hidden", threshold=0.05))
    net.add(DeltaEncoder(net["hidden"], "again", threshold=0.05))
    net.add(DeltaReadout(C, "answer"))
    net.connect("cue", "hidden")
    net.connect("hidden", "hidden")
    net.connect("again", "answer")
    return net


CUE = np.random.default_rng(0).normal(size=(T, 1, K))
LOSS = np.ones((T, 1, C))
NOT_FINITE = np.where(CUE.max() == CUE, np.nan, CUE)


class Scene:
    """What is done again and again."""

    def __init__(self, net):
        self.simulation = Simulation(net, threads=1)
        self.adjoint = Adjoint(self.simulation.plan, threads=1)
        self.log = self.simulation.run(CUE)

    def run_and_replay(self):
        log = self.simulation.run(CUE, carry=True)
        self.adjoint.replay(log, {"answer": LOSS}, inputs=True, initial=True)

    def step(self):
        self.simulation.step(CUE[0])

    def bad_stimulus(self):
        for cue in (NOT_FINITE, CUE[:, :, :2], {"nobody": CUE}):
            with pytest.raises(StimulusError):
                self.simulation.run(cue)
        with pytest.raises(StimulusError):
            self.simulation.step(NOT_FINITE.max(axis=0))

    def bad_loss(self):
        for loss in (LOSS[:-1], LOSS * np.nan):
            with pytest.raises(GradientError):
                self.adjoint.replay(self.log, {"answer": loss})

    def build(self):
        """Tables and queues of a plan are made and given back."""
        Scene(self.simulation.plan.network)


def size() -> int:
    """Bytes of memory that this process has in use."""
    gc.collect()
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("make", [spikes, changes])
@pytest.mark.parametrize(
    ("what", "times"),
    [
        ("run_and_replay", 10_000),
        ("step", 3000),
        ("bad_stimulus", 3000),
        ("bad_loss", 10_000),
        ("build", 1000),
    ],
)
def test_memory_does_not_grow(make, what, times):
    again = getattr(Scene(make()), what)
    for _ in range(times // 5):
        again()
    before = size()
    for _ in range(times):
        again()
    grown = size() - before
    assert grown < MOST, f"{grown / times:.0f} bytes each time"
