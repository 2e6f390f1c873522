"""What must hold for any network in continuous time, and what must change no result."""

import tempfile
from pathlib import Path
from unittest.mock import patch

import numpy as np
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

from evsim import continuous_adjoint
from evsim.adjoint import Adjoint
from evsim.eventlog import EventLog
from evsim.models import EGRU, LIF, DeltaGRU, DeltaLSTM, DeltaReadout, EventSource, LeakyReadout
from evsim.network import Network
from evsim.simulation import Simulation
from oracles.continuous_cases import tangle, tangle_stimulus

KINDS = st.lists(st.sampled_from(["egru", "lif", "gru", "lstm"]), min_size=1, max_size=3)
SEEDS = st.integers(0, 2**16)
DURATION = 20.0


def random_weight(rng, n_from, n_to, blocks, scale, sparse, mean=0.0):
    weight = rng.normal(mean, scale, (n_from, blocks * n_to))
    return scipy.sparse.csr_array(weight * (rng.random(weight.shape) < 0.5)) if sparse else weight


def random_delay(rng, weight, n_from, n_to, least=0.0):
    """None, one, or one per pair: with zeros, equal ones, and others."""
    choice = rng.integers(3)
    if choice == 0:
        return least
    if choice == 1:
        return float(rng.choice([least, 0.5, rng.uniform(0.1, 4)]))
    delay = rng.choice([least, 0.5, 2.0], (n_from, n_to))
    delay = np.where(rng.random(delay.shape) < 0.5, delay, rng.uniform(0.0, 30 * rng.random(), delay.shape))
    delay = np.maximum(delay, least)
    if not scipy.sparse.issparse(weight):
        return delay
    rows, columns = weight.nonzero()
    there = np.zeros((n_from, n_to), bool)
    there[rows, columns % n_to] = True
    pairs = np.nonzero(there)
    return scipy.sparse.csr_array((delay[pairs], pairs), shape=(n_from, n_to))


def parts(kinds, seed):
    """Populations and projections of a random network, as functions that add them."""
    rng = np.random.default_rng(seed)
    made, sizes = {}, {}
    blocks = {"egru": 3, "lif": 1, "gru": 3, "lstm": 4}
    for k, kind in enumerate(kinds):
        n, name = int(rng.integers(1, 6)), f"{kind}{k}"
        sizes[name] = n
        if kind == "egru":
            gate = str(rng.choice(["pre", "post", "none"]))
            transmit = str(rng.choice(["value", "unit"]))
            bias = np.repeat([0.5, 0.0, 0.7], n)
            make = (
                EGRU,
                (n, name),
                {"threshold": 0.2, "bias": bias, "gate": gate, "transmit": transmit, "tau_m": 6.0},
            )
        elif kind == "lif":
            refractory = float(rng.choice([0.0, 1.0]))
            make = (
                LIF,
                (n, name),
                {"bias": 0.6, "tau_m": 8.0, "refractory": refractory, "train_threshold": True},
            )
        else:
            make = (DeltaGRU if kind == "gru" else DeltaLSTM, (n, name), {"threshold": 0.08, "tau": 6.0})
        made[name] = make
    made["cue"] = (EventSource, (2, "cue"), {})
    links = []
    for name, n in sizes.items():
        kind = name.rstrip("0123456789")
        scale = {"egru": 1.5, "lif": 1.0, "gru": 1.5, "lstm": 2.0}[kind]
        least = 0.2 if kind == "lstm" else 0.0
        for source, m in (("cue", 2), (name, n)):
            weight = random_weight(
                rng,
                m,
                n,
                blocks[kind],
                scale,
                rng.random() < 0.5,
                2.0 if kind == "lif" and source == "cue" else 0.0,
            )
            links.append((source, name, weight, {"delay": random_delay(rng, weight, m, n, least)}))
        readout = f"read_{name}"
        delta = kind in ("gru", "lstm")
        made[readout] = (
            (DeltaReadout, (2, readout), {}) if delta else (LeakyReadout, (2, readout), {"tau": 5.0})
        )
        weight = random_weight(rng, n, 2, 1, 1.0, rng.random() < 0.5)
        links.append((name, readout, weight, {"delay": random_delay(rng, weight, n, 2)}))
    return made, links


def build(kinds, seed, order=None):
    made, links = parts(kinds, seed)
    net = Network(dt=None, dtype="float64")
    rng = np.random.default_rng(order)
    names = list(made) if order is None else rng.permutation(list(made)).tolist()
    for name in names:
        unit, arguments, options = made[name]
        net.add(unit(*arguments, **options))
    for k in range(len(links)) if order is None else rng.permutation(len(links)):
        source, target, weight, options = links[k]
        net.connect(source, target, weight, **options)
    return net


def external(seed, n_lanes=1, count=8, start=0.0):
    rng = np.random.default_rng(seed + 1)
    k = count * n_lanes
    time = np.round(rng.uniform(start, start + 0.9 * DURATION, k), 1 + 14 * int(rng.integers(2)))
    lane, unit = np.repeat(np.arange(n_lanes), count), rng.integers(0, 2, k)
    time += 1e-3 * np.arange(k)  # no two of one unit at one time
    return time, lane, unit, rng.uniform(0.5, 1.5, k)


def losses_of(log, seed):
    rng = np.random.default_rng(seed + 2)
    found = {}
    for name in log:
        member = log[name]
        if member.state is not None:
            found[name] = rng.normal(size=member.state.shape)
            found[f"{name}.integral"] = rng.normal(size=member.state.shape)
            found[f"{name}.square"] = rng.normal(size=member.state.shape)
        if member.kind in ("EGRU", "LIF"):
            found[f"{name}.time"] = rng.normal(size=member.n_events)
    return found


def bits(gradients):
    found = {name: array.tobytes() for name, array in gradients.items()}
    for part in ("inputs", "initial"):
        for name, arrays in (getattr(gradients, part, None) or {}).items():
            found |= {(part, name, key): array.tobytes() for key, array in arrays.items()}
    return found


SAMPLES = np.array([0.0, 6.0, 13.5, DURATION])


def run(net, stimulus, threads=1, **options):
    simulation = Simulation(net, threads=threads)
    options = {"samples": SAMPLES, "most_events": 20_000} | options
    return simulation, simulation.run({"cue": stimulus}, DURATION, **options)


def replay(simulation, log, seed, threads=1):
    adjoint = Adjoint(simulation.plan, threads=threads)
    return adjoint.replay(log, losses_of(log, seed), inputs=True, initial=True)


def test_the_random_networks_are_not_silent():
    counts = []

    @given(KINDS, SEEDS)
    @settings(max_examples=30, database=None)
    def count(kinds, seed):
        _, log = run(build(kinds, seed), external(seed))
        counts.append(sum(log[name].n_events for name in log if log[name].kind != "EventSource"))

    count()
    assert sum(n >= 5 for n in counts) > 0.6 * len(counts)


@given(SEEDS, st.booleans(), st.sampled_from(["float32", "float64"]))
@settings(max_examples=40)
def test_no_event_is_lost_or_doubled(seed, sparse, dtype):
    """A readout that sums holds, at any time, the payloads of all pairs whose delay is over."""
    rng = np.random.default_rng(seed)
    n, m = int(rng.integers(1, 70)), int(rng.integers(1, 40))
    net = Network(dt=None, dtype=dtype)
    net.add(EventSource(n, "cue"))
    net.add(DeltaReadout(m, "total"))
    weight = random_weight(rng, n, m, 1, 1.0, sparse)
    net.connect("cue", "total", weight, delay=random_delay(rng, weight, n, m))
    k = 40
    time, unit, value = rng.uniform(0, DURATION, k), rng.integers(0, n, k), rng.normal(size=k)
    samples = np.unique(rng.uniform(0, DURATION, 12))
    log = Simulation(net).run({"cue": (time, np.zeros(k, int), unit, value)}, DURATION, samples=samples)
    projection = net.projections["cue->total"]
    delays = projection.delay.values.astype(float)
    full, there = np.zeros((n, m)), np.ones((n, m), bool)
    dense = np.zeros((n, m))
    if sparse:
        rows = np.repeat(np.arange(n), np.diff(projection.indptr))
        there = np.zeros((n, m), bool)
        there[rows, projection.indices] = True
        dense[rows, projection.indices] = projection.weight.values
        full[rows, projection.indices] = delays
    else:
        dense[...] = projection.weight.values
        full[...] = delays
    arrivals = time[:, None] + full[unit]
    for at, state in zip(samples, log["total"].state[:, 0], strict=True):
        expected = (value[:, None] * dense[unit] * (arrivals < at)).sum(axis=0)
        np.testing.assert_allclose(state, expected, rtol=1e-12, atol=1e-12)
    assert log.counters["macs"]["cue->total"] == (there[unit] & (arrivals < DURATION)).sum()


@given(KINDS, SEEDS)
@settings(max_examples=25)
def test_every_event_of_a_unit_arrives_once_at_each_pair(kinds, seed):
    """MACs: pairs whose delay is over at the end; and time never goes backwards."""
    net = build(kinds, seed)
    _, log = run(net, external(seed))
    for name, projection in net.projections.items():
        source = log[projection.source.name].events
        n, m = projection.source.n_units, projection.target.n_units
        full, there = np.zeros((n, m)), np.ones((n, m), bool)
        delays = projection.delay.values
        if projection.indptr is not None:
            pairs = projection.pairs()
            rows = np.repeat(np.arange(n), np.diff(pairs.ptr))
            there = np.zeros((n, m), bool)
            there[rows, pairs.target] = True
            full[rows, pairs.target] = delays
        else:
            full[...] = delays
        arrived = there[source.unit] & (source.time[:, None] + full[source.unit] < DURATION)
        assert log.counters["macs"][name] == arrived.sum() * projection.shape[1] // m, name
    for name in log:
        if log[name].events is not None:
            log[name].events.check()
            assert (np.diff(log[name].time) >= 0).all()


@given(KINDS, SEEDS)
@settings(max_examples=15)
def test_threads_and_order_of_events_change_nothing(kinds, seed):
    net, stimulus = build(kinds, seed), external(seed, n_lanes=3)
    one, log1 = run(net, stimulus)
    order = np.random.default_rng(seed).permutation(len(stimulus[0]))
    two, log2 = run(net, tuple(column[order] for column in stimulus), threads=2)
    assert log1.equal(log2)
    assert log1.counters == log2.counters
    first, second = replay(one, log1, seed), replay(two, log2, seed, threads=2)
    assert bits(first) == bits(second)
    assert first.counters == second.counters


@given(KINDS, SEEDS)
@settings(max_examples=15)
def test_lanes_run_alone_or_together(kinds, seed):
    """Same events and states bit for bit; gradients at inputs and initial states too."""
    net, stimulus = build(kinds, seed), external(seed, n_lanes=3)
    together, log = run(net, stimulus)
    losses = losses_of(log, seed)
    gradient = Adjoint(together.plan).replay(log, losses, inputs=True, initial=True)
    totals = {}
    for lane in range(3):
        mine = stimulus[1] == lane
        alone = tuple(column[mine] for column in stimulus)
        sim, own = run(net, (alone[0], np.zeros(mine.sum(), int), *alone[2:]))
        own_losses = {}
        for name in log:
            member = log[name]
            if member.state is not None:
                for key in ("state", "integral", "square"):
                    assert np.array_equal(getattr(own[name], key)[:, 0], getattr(member, key)[:, lane])
                for key in (name, f"{name}.integral", f"{name}.square"):
                    own_losses[key] = np.ascontiguousarray(losses[key][:, lane : lane + 1])
            if member.events is not None:
                rows = member.lane == lane
                for key in ("time", "unit", "value"):
                    assert np.array_equal(getattr(own[name], key), getattr(member, key)[rows])
                if f"{name}.time" in losses:
                    own_losses[f"{name}.time"] = losses[f"{name}.time"][rows]
        part = Adjoint(sim.plan).replay(own, own_losses, inputs=True, initial=True)
        rows = log["cue"].lane == lane
        for key in ("time", "value"):
            assert np.array_equal(part.inputs["cue"][key], gradient.inputs["cue"][key][rows])
        for name, states in part.initial.items():
            for key, values in states.items():
                assert np.array_equal(values[0], gradient.initial[name][key][lane])
        for name, values in part.items():
            totals[name] = totals.get(name, 0.0) + values
    for name, values in gradient.items():
        scale = max(np.abs(values).max(initial=0), 1e-9)
        assert np.abs(values - totals[name]).max(initial=0) <= 1e-9 * scale, name


@given(KINDS, SEEDS, st.lists(st.floats(0, DURATION), min_size=1, max_size=4))
@settings(max_examples=25)
def test_one_run_is_several_carried_windows(kinds, seed, cuts):
    net, (time, lane, unit, value) = build(kinds, seed), external(seed, n_lanes=2)
    _, whole = run(net, (time, lane, unit, value))
    sim, logs = Simulation(net), []
    for cut in [*sorted(cuts), DURATION]:
        start = sim.time
        mine = (time >= start) & (time < cut)
        columns = tuple(column[mine] for column in (time, lane, unit, value))
        logs.append(sim.run({"cue": columns}, cut - start, n_lanes=2, carry=True, tape=False))
        sim.time = cut  # not start + (cut - start), which may be rounded
    for name in whole:
        events = whole[name].events
        if events is None:
            continue
        found = [
            np.concatenate([getattr(log[name], key) for log in logs]) for key in ("time", "lane", "unit")
        ]
        assert len(found[0]) == len(events)
        order = np.lexsort((found[2], np.round(found[0], 9), found[1]))
        expected = np.lexsort((events.unit, np.round(events.time, 9), events.lane))
        np.testing.assert_array_equal(found[2][order], events.unit[expected])
        np.testing.assert_allclose(found[0][order], events.time[expected], rtol=1e-12, atol=1e-11)


@given(KINDS, SEEDS)
@settings(max_examples=12)
def test_a_log_from_a_file_gives_the_same_gradient(kinds, seed):
    net = build(kinds, seed)
    sim, log = run(net, external(seed, n_lanes=2))
    with tempfile.TemporaryDirectory() as folder:
        opened = EventLog.open(log.save(Path(folder) / "log.h5"))
    assert opened.tape is None
    assert opened.equal(log)
    assert bits(replay(sim, log, seed)) == bits(replay(sim, opened, seed))
    _, tapeless = run(net, external(seed, n_lanes=2), tape=False)
    assert bits(replay(sim, log, seed)) == bits(replay(sim, tapeless, seed))


@given(KINDS, SEEDS, st.sampled_from([1, 3, 20]))
@settings(max_examples=20)
def test_gradients_made_of_rows_are_the_same(kinds, seed, n_lanes):
    """Made of pages by the row, as large ones of which few rows are not zero; and of windows that go on."""
    net, (time, lane, unit, value) = build(kinds, seed), external(seed, n_lanes)
    sim, early = Simulation(net), time < DURATION / 2
    for mine, start in ((early, 0.0), (~early, DURATION / 2)):
        stimulus = tuple(column[mine] for column in (time, lane, unit, value))
        log = sim.run(
            {"cue": stimulus}, DURATION / 2, samples=SAMPLES[:2] + start, n_lanes=n_lanes, carry=True
        )
        expected = replay(sim, log, seed)
        with patch.multiple(continuous_adjoint, LARGE=0, FEW=n_lanes):
            assert bits(replay(sim, log, seed)) == bits(expected)
            assert bits(replay(sim, log, seed, threads=2)) == bits(expected)


@given(KINDS, SEEDS)
@settings(max_examples=20)
def test_weights_in_mapped_files_are_the_same(kinds, seed):
    stimulus, (made, links) = external(seed, n_lanes=3), parts(kinds, seed)
    sim, log = run(build(kinds, seed), stimulus)
    with tempfile.TemporaryDirectory() as folder:
        mapped = []
        for k, (source, target, weight, options) in enumerate(links):
            given = options
            if not scipy.sparse.issparse(weight):
                np.save(f"{folder}/{k}.npy", np.asarray(weight, float))
                weight, given = np.load(f"{folder}/{k}.npy", mmap_mode="c"), {**options, "copy": False}
            mapped.append((source, target, weight, given))
        with patch(f"{__name__}.parts", lambda *_: (made, mapped)):
            net = build(kinds, seed)
        for threads in (1, 2):
            other, found = run(net, stimulus, threads)
            assert all(found[name].equal(log[name]) for name in log)
            assert bits(replay(other, found, seed, threads)) == bits(replay(sim, log, seed))


@given(KINDS, SEEDS, SEEDS)
@settings(max_examples=15)
def test_the_order_of_description_does_not_matter(kinds, seed, order):
    stimulus = external(seed)
    one, log1 = run(build(kinds, seed), stimulus)
    two, log2 = run(build(kinds, seed, order), stimulus)
    for name in log1:
        assert log1[name].equal(log2[name])
    losses = losses_of(log1, seed)
    first, second = (
        Adjoint(sim.plan).replay(log, losses, inputs=True, initial=True)
        for sim, log in ((one, log1), (two, log2))
    )
    assert bits(first) == bits(second)


def test_a_network_of_all_types_with_threads_and_files(tmp_path):
    for seed in range(3):
        net = tangle(seed)
        sim = Simulation(net)
        log = sim.run(tangle_stimulus(seed), 25.0, samples=[10.0, 25.0])
        opened = EventLog.open(log.save(tmp_path / f"{seed}.h5"))
        assert bits(replay(sim, log, seed)) == bits(replay(sim, opened, seed, threads=2))
