"""Networks of a dozen units, what they are to learn, and what tests of training compare of them."""

import numpy as np

from evsim.models import EGRU, DeltaEncoder, DeltaGRU, DeltaLSTM, DeltaReadout, EventSource, LeakyReadout
from evsim.network import Network
from evsim.optimizer import SGD, Adam
from evsim.protocol import Trial
from evsim.training import Trainer

K, H, C, T, B = 3, 12, 2, 6, 4


def network(units=H, dtype="float32"):
    """cue -> one -> two -> answer, the first recurrent with a delay of two steps."""
    net = Network(seed=2, dtype=dtype)
    net.add(EventSource(K, name="cue"))
    net.add(EGRU(units, name="one", threshold=0.1))
    net.add(EGRU(5, name="two", threshold=0.05))
    net.add(LeakyReadout(C, name="answer", tau=3.0))
    net.connect("cue", "one", weight=lambda rng, shape: rng.normal(0, 1.5, shape))
    net.connect("one", "one", delay=2.0)
    net.connect("one", "two", weight=lambda rng, shape: rng.normal(0, 1.0, shape))
    net.connect("two", "answer", weight=lambda rng, shape: rng.normal(0, 1.0, shape))
    return net


def make(optimizer=Adam, units=H, dtype="float32", **options):
    net = network(units, dtype)
    return Trainer(net, "answer", optimizer(net.parameters(), lr=0.02), threads=1, **options)


def make_sgd(parameters, lr):
    return SGD(parameters, lr, momentum=0.9, clip=1.0)


def trials(stream, number=5, carry="within"):
    """Say which of two symbols was shown four steps ago; windows of one stream carry the state on."""
    rng = np.random.default_rng([7, stream])
    for index in range(number):
        symbol = rng.integers(0, C, B)
        stimulus = np.full((T, B), -1)
        stimulus[0], stimulus[-2:] = symbol, C
        target = np.full((T, B), -1)
        target[-2:] = symbol
        yield Trial(stimulus, target, carry={"within": index > 0, "never": False, "always": True}[carry])


def values(trainer):
    return {name: p.values.copy() for name, p in trainer.network.parameters().items()}


def bits(arrays):
    return {name: (array.dtype, array.shape, array.tobytes()) for name, array in arrays.items()}


def without_times(epochs):
    return [{key: value for key, value in entry.items() if key != "seconds"} for entry in epochs]


def mean_nll(state, target):
    """-log softmax, by definition, in float64; mean over the targets that are not -1."""
    state, target = np.asarray(state, np.float64), np.asarray(target)
    odds = np.exp(state) / np.exp(state).sum(axis=-1, keepdims=True)
    steps = [(t, b) for t, b in np.ndindex(target.shape) if target[t, b] >= 0]
    return -sum(np.log(odds[t, b, target[t, b]]) for t, b in steps) / max(len(steps), 1), len(steps)


class Capture:
    """Takes gradients instead of steps."""

    def __init__(self):
        self.gradients = []

    def step(self, gradients):
        self.gradients.append({name: gradients[name].copy() for name in gradients})


def delta_network(dtype="float32"):
    """line -> one (LSTM) -> two (GRU) -> answer, by way of an encoder that the costs do not look at."""
    net = Network(seed=4, dtype=dtype)
    line = net.add(EventSource(K, name="line", threshold=0.1))
    one = net.add(DeltaLSTM(H, "one", threshold=0.05))
    two = net.add(DeltaGRU(5, "two", threshold=0.1))
    encoder = net.add(DeltaEncoder(two, "finer", threshold=0.01))
    net.connect(line, one, weight=lambda rng, shape: rng.normal(0, 1.0, shape))
    net.connect(one, one, weight="orthogonal")
    net.connect(one, two, weight=lambda rng, shape: rng.normal(0, 1.0, shape))
    net.connect(two, two, weight="orthogonal")
    net.connect(encoder, net.add(DeltaReadout(C, "answer")), weight="glorot")
    return net


def line_trials(stream, number=5):
    """Say in every step which of two noisy lines is the higher one on the whole."""
    rng = np.random.default_rng([8, stream])
    for _ in range(number):
        symbol = rng.integers(0, C, B)
        lines = rng.normal(0, 0.7, (T, B, K))
        lines[:, np.arange(B), symbol] += 1
        yield Trial(lines.astype(np.float32), np.broadcast_to(symbol, (T, B)))
