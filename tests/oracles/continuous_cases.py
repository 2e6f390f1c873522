"""Small networks in continuous time that tests share, and how a run compares with the oracles."""

from dataclasses import dataclass

import numpy as np
import scipy.sparse

from evsim.models import EGRU, LIF, DeltaGRU, DeltaLSTM, DeltaReadout, EventSource, LeakyReadout
from evsim.network import Network
from oracles.continuous import from_network, one_lane

N_CUES, N_ANSWERS = 3, 2
EGRU_VARIANTS = [(gate, transmit) for gate in ("pre", "post", "none") for transmit in ("value", "unit")]


def thinned(rng, weight, n_blocks, density, empty_row=True):
    """Random entries of dense weights, as a sparse array; the first row has none."""
    keep = rng.random(weight.shape) < density
    if empty_row:
        keep[0] = False
    array = scipy.sparse.csr_array(np.where(keep, weight, 0.0))
    assert array.shape[1] % n_blocks == 0
    return array


@dataclass(frozen=True)
class Case:
    """A source, a recurrent population "hid" and a readout "out".

    ``delay`` of the recurrent projection: None, "one", or "pair" (one each, some zero, some equal; for sparse
    weights of the pairs that there are).
    """

    kind: str
    delay: str | None = None
    sparse: bool = False
    n: int = 6
    gate: str = "pre"
    transmit: str = "value"
    duration: float = 40.0
    n_external: int = 12
    n_lanes: int = 1
    seed: int = 0
    train: bool = True
    scale: float = 1.0

    def __str__(self):
        variant = f"-{self.gate}-{self.transmit}" if self.kind == "egru" else ""
        storage = "sparse" if self.sparse else "dense"
        return f"{self.kind}{variant}-delay {self.delay}-{storage}-{self.n}"

    @property
    def is_delta(self):
        return self.kind.startswith("delta")

    @property
    def timed(self):
        """Whether delays have gradients: an arrival at an LSTM can cause an event at the same instant."""
        return self.kind != "delta_lstm"

    @property
    def blocks(self):
        return {"egru": 3, "lif": 1, "delta_gru": 3, "delta_lstm": 4}[self.kind]

    def units(self, rng):
        """The recurrent population."""
        n, trained = self.n, {"train_time_constants": self.train}
        if self.kind == "egru":
            means = ((0.4, 0.3), (0.0, 0.6), (0.8, 0.25))
            return EGRU(
                n,
                "hid",
                threshold=rng.uniform(0.12, 0.3, n),
                bias=np.concatenate([rng.normal(mean, spread, n) for mean, spread in means]),
                gate=self.gate,
                transmit=self.transmit,
                tau_m=10.0,
                tau_s=6.0,
                **trained,
            )
        if self.kind == "lif":
            return LIF(
                n,
                "hid",
                threshold=rng.uniform(0.6, 1.2, n),
                bias=rng.normal(0.3, 0.3, n),
                tau_m=10.0,
                tau_e=5.0,
                tau_i=7.0,
                refractory=1.5,
                reset=-0.1,
                train_threshold=True,
                **trained,
            )
        unit = DeltaGRU if self.kind == "delta_gru" else DeltaLSTM
        threshold = rng.uniform(0.05, 0.12, n)
        return unit(n, "hid", threshold=threshold, bias=rng.normal(0, 0.5, 4 * n), tau=6.0, **trained)

    def network(self, dtype="float64"):
        rng, n, b = np.random.default_rng(self.seed), self.n, self.blocks
        net = Network(dt=None, seed=self.seed, dtype=dtype)
        net.add(EventSource(N_CUES, "cue"))
        net.add(self.units(rng))
        fan = np.sqrt(6 / n)  # as strong for any number of units
        weight = {
            "egru": rng.normal(0, 1.6 if self.transmit == "value" else 0.6, (n, b * n)),
            "lif": rng.normal(0.2, 1.0, (n, b * n)),
        }.get(self.kind, rng.normal(0, 2.0, (n, b * n)))
        # An LSTM's gates should not be shut for good.
        weight *= fan * self.scale * (0.6 if self.kind == "delta_lstm" else 1.0)
        external = rng.normal(0, 1.2, (N_CUES, b * n)) + (2.0 if self.kind == "lif" else 0.0)
        if self.sparse:
            weight = thinned(rng, 1.4 * weight, b, 0.5)
            external = thinned(rng, external, b, 0.7, empty_row=False)
        net.connect("cue", "hid", external, delay=0.3, train_delay=self.timed)
        net.connect("hid", "hid", weight, **self._delays(rng, weight))
        if self.kind == "lif":
            inhibition = -0.3 * rng.uniform(0, 1, (n, n)) * fan
            net.connect("hid", "hid", inhibition, name="inh", port="inhibitory", delay=0.4, train_delay=True)
        out = (
            DeltaReadout(N_ANSWERS, "out", bias=0.2)
            if self.is_delta
            else LeakyReadout(N_ANSWERS, "out", tau=8.0, bias=[0.1, -0.2], train_time_constants=self.train)
        )
        net.add(out)
        net.connect("hid", "out", rng.normal(0, 1, (n, N_ANSWERS)))
        return net

    def _delays(self, rng, weight):
        n = self.n
        none = self.kind == "delta_lstm"  # which may not be without
        if self.delay is None:
            return {"delay": 0.7} if none else {}
        if self.delay == "one":
            return {"delay": 1.1, "train_delay": self.timed}
        # Multiples of powers of two, so that equal ones stay so; none is the refractory time, at the end of
        # which an arrival has two derivatives.
        delay = rng.choice([0.5 if none else 0.0, 0.75, 1.25, 2.25], (n, n))
        delay = np.where(rng.random((n, n)) < 0.5, delay, rng.uniform(0.2, 3.0, (n, n)))
        if not scipy.sparse.issparse(weight):
            return {"delay": delay, "train_delay": self.timed}
        there = np.zeros((n, n), bool)
        rows, columns = weight.nonzero()
        there[rows, columns % n] = True
        pairs = np.nonzero(there)
        delay = scipy.sparse.csr_array((delay[pairs], pairs), shape=(n, n))
        return {"delay": delay, "train_delay": self.timed}

    def stimulus(self):
        """Columns of the source, in any order; each lane has its own."""
        rng = np.random.default_rng(self.seed + 1000)
        k = self.n_external * self.n_lanes
        lane = np.repeat(np.arange(self.n_lanes), self.n_external)
        time = rng.uniform(0, 0.85 * self.duration, k)
        return {"cue": (time, lane, rng.integers(0, N_CUES, k), rng.uniform(0.5, 1.5, k))}

    def samples(self):
        d = self.duration
        return np.array([d / 3, d / 2, 0.83 * d, d])

    def initial(self, net):
        """States of "hid" that are not those at rest, for each lane."""
        rng = np.random.default_rng(self.seed + 2000)
        shape = self.n_lanes, self.n
        found = {
            state: rng.uniform(-0.1, 0.1, shape)
            for state in net["hid"].states
            if state not in ("h", "sent", "hold")
        }
        if self.kind == "egru":
            bias = net["hid"].parameters["bias"].values.reshape(3, self.n)
            found |= {key: found[key] + bias[k] for k, key in enumerate(("a_u", "a_r", "a_z"))}
        return {"hid": found}


def tangle(seed=0, n=3, dtype="float64", train=False):
    """All types of units in one network, with delays of all kinds; DeltaGRU and DeltaLSTM in a cycle."""
    rng = np.random.default_rng(seed)
    net = Network(dt=None, seed=seed, dtype=dtype)
    net.add(EventSource(2, "cue"))
    net.add(EventSource(1, "extra"))
    trained = {"train_time_constants": train}
    net.add(
        EGRU(
            n,
            "gated",
            threshold=0.12,
            bias=np.repeat([0.5, 0.2, 0.4], n),
            tau_m=8.0,
            gate="post",
            **trained,
        )
    )
    net.add(LIF(n, "leaky", bias=0.7, tau_m=7.0, tau_e=5.0, tau_i=6.0, train_threshold=True, **trained))
    net.add(DeltaGRU(n, "delta", threshold=0.06, tau=8.0, **trained))
    net.add(DeltaLSTM(n, "memory", threshold=0.05, tau=8.0, **trained))
    net.add(LeakyReadout(2, "answer", tau=6.0, bias=0.1, **trained))
    net.add(DeltaReadout(2, "total"))
    net.connect("cue", "gated", rng.normal(0, 1, (2, 3 * n)))
    net.connect("cue", "leaky", rng.uniform(1, 3, (2, n)), delay=[[0.5] * n, [0.25] * n], train_delay=True)
    net.connect("extra", "leaky", rng.uniform(1, 3, (1, n)))
    net.connect("gated", "gated", rng.normal(0, 1, (n, 3 * n)), delay=0.5, train_delay=True)
    net.connect("gated", "leaky", rng.uniform(1, 3, (n, n)), delay=1.0)
    net.connect("leaky", "gated", rng.normal(0, 0.4, (n, 3 * n)), port="recurrent", delay=0.75)
    net.connect("leaky", "leaky", -rng.uniform(0, 1, (n, n)), port="inhibitory")
    net.connect("cue", "delta", rng.normal(0, 1, (2, 3 * n)))
    net.connect("delta", "memory", rng.normal(0, 2, (n, 4 * n)))
    net.connect("memory", "delta", rng.normal(0, 2, (n, 3 * n)), port="recurrent", delay=0.8)
    net.connect("gated", "answer", rng.normal(0, 1, (n, 2)))
    net.connect("leaky", "answer", rng.normal(0, 1, (n, 2)), delay=rng.uniform(0, 2, (n, 2)))
    net.connect("delta", "total", rng.normal(0, 1, (n, 2)))
    net.connect("memory", "total", rng.normal(0, 1, (n, 2)), delay=0.3)
    return net


def tangle_stimulus(seed=0, duration=25.0, count=8):
    rng = np.random.default_rng(seed + 1000)
    return {
        name: (
            rng.uniform(0, 0.9 * duration, count),
            np.zeros(count, int),
            rng.integers(0, units, count),
            rng.uniform(0.5, 1.5, count),
        )
        for name, units in (("cue", 2), ("extra", 1))
    }


def oracle(run, net, stimulus, duration, lane=0, initial=None, description=None, **options):
    """One lane by an oracle."""
    states = {
        name: {state: np.atleast_2d(values)[lane] for state, values in of.items()}
        for name, of in (initial or {}).items()
    }
    network = from_network(net) if description is None else description
    return run(network, one_lane(stimulus, lane), duration, initial=states, **options)


def relative(got, expected):
    """Largest difference, relative to the larger of 1 and the largest expected value."""
    scale = max(1.0, float(np.abs(expected).max(initial=0)))
    return float(np.abs(got - expected).max(initial=0)) / scale


def differences(log, result, lane=0):
    """How far a run is from an oracle: {"time", "value", "state", "integral", "square"}.

    Times are relative to themselves.  The events must be the same.
    """
    worst = dict.fromkeys(("time", "value", "state", "integral", "square"), 0.0)
    for name in log:
        member = log[name]
        if member.state is not None:
            for key in ("state", "integral", "square"):
                expected = getattr(result, key)[name]
                worst[key] = max(worst[key], relative(getattr(member, key)[:, lane], expected))
        if member.events is None or member.kind == "EventSource":
            continue
        mine = member.lane == lane
        time, unit, value = result.of(name)
        # Events nearer to each other than rounding may come in either order.
        assert len(time) == mine.sum(), f"{name}: {mine.sum()} events, {len(time)} expected"
        assert np.array_equal(member.unit[mine], unit), name
        if len(time):
            worst["time"] = max(
                worst["time"], float((np.abs(member.time[mine] - time) / np.maximum(time, 0.01)).max())
            )
            worst["value"] = max(worst["value"], relative(member.value[mine], value))
    return worst
