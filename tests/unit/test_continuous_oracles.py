"""The oracles of continuous time: against formulas worked out by hand, and against each other."""

from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse

from oracles.continuous import (
    Description,
    central_differences,
    eventprop,
    from_network,
    one_lane,
    simulate,
    simulate_fast,
)

both = pytest.mark.parametrize("run", [simulate, simulate_fast], ids=["ode", "fast"])

EGRU_VARIANTS = [(gate, transmit) for gate in ("pre", "post", "none") for transmit in ("value", "unit")]


def s(x):
    return 1 / (1 + np.exp(-x))


def drive(rng, n=3, count=12, until=40.0):
    """External events of ``n`` lanes of a source."""
    return {"cue": (rng.uniform(0, until, count), rng.integers(0, n, count), rng.uniform(0.5, 1.5, count))}


def recurrent(kind, rng, n=5, **options):
    """Source, one recurrent population, readouts; heterogeneous delays where they are told."""
    net = Description().add("cue", "source", 3)
    if kind == "lif":
        net.add("hidden", kind, n, bias=rng.normal(0.3, 0.2, n), refractory=1.5, reset=-0.1, **options)
        net.connect("cue", "hidden", rng.uniform(2, 6, (3, n)))
        net.connect(
            "hidden", "hidden", rng.uniform(0, 2, (n, n)), "excitatory", delay=rng.uniform(0, 5, (n, n))
        )
        net.connect("hidden", "hidden", -rng.uniform(0, 1, (n, n)), "inhibitory")
    elif kind == "egru":
        bias = np.concatenate([rng.normal(m, d, n) for m, d in ((0.5, 0.3), (0, 0.6), (0.9, 0.25))])
        threshold = rng.uniform(0.1, 0.2, n)
        net.add("hidden", kind, n, threshold=threshold, bias=bias, tau_m=8.0, tau_s=6.0, **options)
        net.connect("cue", "hidden", rng.normal(0, 1, (3, 3 * n)))
        net.connect("hidden", "hidden", rng.normal(0, 0.4, (n, 3 * n)), delay=rng.choice([0.0, 2.0], (n, n)))
    else:
        net.add("hidden", kind, n, threshold=0.04, bias=rng.normal(0, 0.3, 4 * n), tau=10.0)
        blocks = 3 if kind == "delta_gru" else 4
        net.connect("cue", "hidden", rng.normal(0, 1, (3, blocks * n)))
        delay = 0.0 if kind == "delta_gru" else rng.uniform(0.5, 2, (n, n))
        net.connect("hidden", "hidden", rng.normal(0, 0.6, (n, blocks * n)), delay=delay)
    net.add("answer", "leaky_readout", 2, bias=0.1).connect("hidden", "answer", rng.normal(size=(n, 2)))
    net.add("held", "delta_readout", 2).connect("hidden", "held", rng.normal(size=(n, 2)), delay=1.0)
    return net


def assert_same(one, other):
    """Two results of the same run."""
    assert len(one) > 5
    assert one.raster == other.raster
    np.testing.assert_allclose(one.time, other.time, rtol=1e-9)
    np.testing.assert_allclose(one.value, other.value, rtol=1e-8, atol=1e-10)
    for quantity in ("state", "integral", "square"):
        for name, values in getattr(one, quantity).items():
            np.testing.assert_allclose(values, getattr(other, quantity)[name], rtol=1e-8, atol=1e-9)
    for name, states in one.final.items():
        for key, values in states.items():
            np.testing.assert_allclose(values, other.final[name][key], rtol=1e-8, atol=1e-9)


# ---------------------------------------------------------------- one against the other


@pytest.mark.parametrize("kind", ["lif", "egru", "delta_gru", "delta_lstm"])
def test_oracles_agree(kind):
    rng = np.random.default_rng(4)
    net, stimulus = recurrent(kind, rng), drive(rng)
    arguments = net, stimulus, 35.0, [0.0, 7.0, 20.0, 35.0]
    assert_same(simulate(*arguments), simulate_fast(*arguments))


@pytest.mark.parametrize(("gate", "transmit"), EGRU_VARIANTS)
def test_oracles_agree_on_each_variant(gate, transmit):
    rng = np.random.default_rng(5)
    net, stimulus = recurrent("egru", rng, n=4, gate=gate, transmit=transmit), drive(rng)
    arguments = net, stimulus, 40.0, [40.0]
    assert_same(simulate(*arguments), simulate_fast(*arguments))


def test_oracles_agree_on_populations_of_all_types():
    rng = np.random.default_rng(6)
    net = Description().add("cue", "source", 2)
    net.add("gated", "egru", 3, threshold=0.12, bias=0.5, tau_m=8.0, gate="post")
    net.add("leaky", "lif", 3, bias=0.9, tau_m=7.0, tau_e=7.0, tau_i=7.0)
    net.add("delta", "delta_gru", 2, threshold=0.05, tau=8.0)
    net.add("memory", "delta_lstm", 2, threshold=0.05, tau=8.0)
    net.connect("cue", "gated", rng.normal(0, 1, (2, 9))).connect("cue", "leaky", rng.uniform(1, 3, (2, 3)))
    net.connect("gated", "leaky", rng.uniform(1, 4, (3, 3)), delay=1.0)
    net.connect("leaky", "gated", rng.normal(0, 0.5, (3, 9)), "recurrent", delay=rng.uniform(0, 3, (3, 3)))
    net.connect("leaky", "delta", rng.normal(0, 0.5, (3, 6)))
    net.connect("delta", "memory", rng.normal(0, 3, (2, 8))).connect("cue", "delta", rng.normal(0, 1, (2, 6)))
    stimulus = drive(rng, n=2)
    initial = {"gated": {"c": -0.1, "a_r": [0.1, 0.2, 0.3]}, "leaky": {"v": 0.5, "i_i": -0.3, "hold": 2.5}}
    arguments = net, stimulus, 22.0, [11.0, 22.0], initial
    one, other = simulate(*arguments), simulate_fast(*arguments)
    assert_same(one, other)
    assert set(one.population) == {"gated", "leaky", "delta", "memory"}
    # Payloads of delta units that move memory's output gate: some of its events happen at that instant.
    assert np.isnan(one.slope).any()
    # In time constants that are all the same, nothing is lost to cancellation.
    net.parameters["leaky.tau_e"] *= 1 + 1e-12
    assert_same(other, simulate_fast(*arguments))


# ---------------------------------------------------------------- one unit, by hand


@both
def test_lif_crossing(run):
    """With tau_m = 2 tau_e, v = w (x - x^2) for x = e^{-t/tau_m}; so x at the crossing solves a quadratic."""
    w, tau_m = 9.0, 12.0
    net = Description().add("cue", "source", 1).add("hidden", "lif", 1, tau_m=tau_m, tau_e=tau_m / 2)
    net.connect("cue", "hidden", w)
    result = run(net, {"cue": (3.0, 0, [1.0])}, 60.0, [3.0, 60.0])
    first = 3.0 - tau_m * np.log((1 + np.sqrt(1 - 4 / w)) / 2)
    assert result.time[0] == pytest.approx(first, rel=1e-12)
    x = np.exp(-(first - 3) / tau_m)
    assert result.slope[0] == pytest.approx(w * (2 * x**2 - x) / tau_m, rel=1e-10)
    # From v = 0 on, with what is left of the current: the same formula again.
    left = w * x**2
    second = first - tau_m * np.log((1 + np.sqrt(1 - 4 / left)) / 2)
    np.testing.assert_allclose(result.time[1], second, rtol=1e-12)
    np.testing.assert_array_equal(result.state["hidden"][0], 0.0)
    assert result.final["hidden"]["i_e"][0] == pytest.approx(w * np.exp(-57 / (tau_m / 2)), rel=1e-10)


@both
def test_lif_period_with_refractory_time(run):
    bias, reset, refractory, tau_m = 1.6, -0.5, 4.0, 10.0
    net = Description().add("hidden", "lif", 1, bias=bias, reset=reset, refractory=refractory, tau_m=tau_m)
    samples = [8.0, 12.0, 16.0, 20.0, 24.0, 28.0, 80.0]
    result = run(net, {}, 80.0, samples)
    rise = tau_m * np.log((bias - reset) / (bias - 1))
    expected = rise + (rise + refractory) * np.arange(20)
    np.testing.assert_allclose(result.time, expected[expected < 80], rtol=1e-12)
    assert (result.value == 1).all()
    since = np.array(samples) % (rise + refractory)
    v = np.where(since < rise, bias + (reset - bias) * np.exp(-since / tau_m), reset)
    np.testing.assert_allclose(result.state["hidden"][:, 0], v, rtol=1e-10)
    # v over one rise, then nothing but the reset.
    whole = bias * rise + (reset - bias) * tau_m * (1 - np.exp(-rise / tau_m)) + reset * refractory
    one = run(net, {}, rise + refractory, [rise + refractory])
    assert one.integral["hidden"][0, 0] == pytest.approx(whole, rel=1e-10)


@both
def test_currents_flow_while_a_unit_is_held(run):
    """It is released with what is left of a current that came meanwhile."""
    net = Description().add("cue", "source", 2).add("hidden", "lif", 2, tau_m=10.0, tau_e=5.0, tau_i=20.0)
    net.connect("cue", "hidden", np.eye(2), "excitatory").connect("cue", "hidden", -np.eye(2), "inhibitory")
    stimulus = {"cue": ([1.0, 2.0], [0, 1], [2.0, 3.0])}
    result = run(net, stimulus, 9.0, initial={"hidden": {"hold": [4.0, 0.0]}})
    e, i = 2 * np.exp(-3 / 5), -2 * np.exp(-3 / 20)
    x = np.exp(-5 / 10)
    v = e * (x - x**2) + i * 2 * (np.exp(-5 / 20) - x)
    assert result.final["hidden"]["v"][0] == pytest.approx(v, rel=1e-10)
    assert len(result) == 0


@both
@pytest.mark.parametrize(("gate", "transmit"), EGRU_VARIANTS)
def test_egru_unit_and_what_it_sends(run, gate, transmit):
    """At rest c rises as 1 - e^{-ut/tau_m}; its first event reaches another unit through both ports."""
    a_u, a_r, a_z, threshold, tau_m, tau_s, delay = 0.4, -0.3, 0.9, 0.25, 9.0, 4.0, 1.5
    net = Description().add(
        "hidden",
        "egru",
        2,
        bias=[a_u, -5.0, a_r, 1.1, a_z, -3.0],
        threshold=threshold,
        tau_m=tau_m,
        tau_s=tau_s,
        gate=gate,
        transmit=transmit,
    )
    weight = np.zeros((2, 6))
    weight[0, [1, 3, 5]] = 0.5, 0.7, 0.8
    net.connect("hidden", "hidden", weight, delay=delay)
    net.connect("hidden", "hidden", 2 * weight, "input", delay=delay)
    u, z = s(a_u), np.tanh(a_z)
    period = tau_m / u * np.log(z / (z - threshold))
    later = 0.5
    result = run(net, {}, 3 * period, [period, period + delay, period + delay + later])
    times, units, values = result.of("hidden")
    np.testing.assert_allclose(times[units == 0], period * np.arange(1, 1 + (units == 0).sum()), rtol=1e-12)
    payload = threshold if transmit == "value" else 1.0
    np.testing.assert_allclose(values, payload, rtol=1e-12)
    assert result.slope[0] == pytest.approx(u * (z - threshold) / tau_m, rel=1e-10)
    # The sample at the very time of an arrival is before it.
    sampled = result.sampled["hidden"]
    np.testing.assert_allclose(sampled["a_z"][1], [a_z, -3.0], rtol=1e-12)
    gone = np.exp(-later / tau_s)
    # The port "input" is not gated; it comes second, by name, so "post" sees r from before both.
    rho = {"pre": s(a_r), "post": s(1.1), "none": 1.0}[gate]
    assert sampled["a_u"][2, 1] == pytest.approx(-5 + 1.5 * payload * gone, rel=1e-10)
    assert sampled["a_r"][2, 1] == pytest.approx(1.1 + 2.1 * payload * gone, rel=1e-10)
    assert sampled["a_z"][2, 1] == pytest.approx(-3 + (0.8 * rho + 1.6) * payload * gone, rel=1e-10)


@both
def test_egru_turns_round_below_its_threshold(run):
    """Input that decays: c rises, meets tanh(a_z) and falls; with more of it, c crosses before."""
    net = Description().add("cue", "source", 1).add("hidden", "egru", 1, bias=0.0, threshold=0.2, tau_s=5.0)
    net.connect("cue", "hidden", [[0.0, 0.0, 1.0]])
    assert len(run(net, {"cue": (1.0, 0, [1.0])}, 100.0)) == 0
    result = run(net, {"cue": (1.0, 0, [9.0])}, 100.0)
    assert len(result) == 1
    assert result.slope[0] > 0


@both
def test_delta_gru_event_times(run):
    bias = np.array([[0.3], [-0.4], [0.8], [0.5]])
    threshold, tau = 0.1, 15.0
    net = Description().add("hidden", "delta_gru", 1, bias=bias.ravel(), threshold=threshold, tau=tau)
    r, z = s(0.3), s(-0.4)
    n = np.tanh(0.8 + r * 0.5)
    k = np.arange(1, int(n / threshold) + 1)
    result = run(net, {}, 1000.0, [5.0])
    np.testing.assert_allclose(result.time, tau / (1 - z) * np.log(n / (n - threshold * k)), rtol=1e-10)
    np.testing.assert_allclose(result.value, threshold, rtol=1e-10)
    assert result.state["hidden"][0, 0] == pytest.approx(n * (1 - np.exp(-5 * (1 - z) / tau)), rel=1e-11)
    assert result.final["hidden"]["sent"][0] == pytest.approx(threshold * len(k), rel=1e-10)
    # Downwards.
    result = run(net, {}, 1000.0, initial={"hidden": {"m_n": -9.0}})
    n = np.tanh(0.8 - 9 + r * 0.5)
    np.testing.assert_allclose(result.time[0], tau / (1 - z) * np.log(n / (n + threshold)), rtol=1e-10)
    np.testing.assert_allclose(result.value, -threshold, rtol=1e-10)


@both
def test_delta_lstm_event_times_and_jumps(run):
    b_i, b_f, b_g, b_o, threshold, tau = 0.4, 0.2, 0.7, 0.1, 0.08, 12.0
    net = Description().add("cue", "source", 1)
    net.add("hidden", "delta_lstm", 1, bias=[b_i, b_f, b_g, b_o], threshold=threshold, tau=tau)
    net.connect("cue", "hidden", [[0.0, 0.0, 0.0, 1.0]])
    f, o = s(b_f), s(b_o)
    top = s(b_i) * np.tanh(b_g) / (1 - f)
    c = np.arctanh(threshold * np.arange(1, 3) / o)
    times = -tau / (1 - f) * np.log(1 - c / top)
    jump = times[1] + 0.5
    result = run(net, {"cue": (jump, 0, [4.0])}, jump + 1e-9)
    np.testing.assert_allclose(result.time, [*times, jump], rtol=1e-10)
    # The output gate opens, and h jumps past its threshold: a graded payload at the same instant.
    h = s(b_o + 4) * np.tanh(top * (1 - np.exp(-(1 - f) / tau * jump)))
    np.testing.assert_allclose(result.value, [threshold, threshold, h - 2 * threshold], rtol=1e-9)
    np.testing.assert_array_equal(np.isnan(result.slope), [False, False, True])


@both
def test_readouts_and_delays(run):
    """Two sources of events, delays of their own; the sums and their integrals by hand."""
    tau, bias = 6.0, 0.3
    net = Description().add("cue", "source", 2).add("answer", "leaky_readout", 2, tau=tau, bias=bias)
    net.add("held", "delta_readout", 2, bias=bias)
    weight, delay = np.array([[1.0, 2.0], [-1.0, 0.5]]), np.array([[0.0, 3.0], [1.0, 50.0]])
    net.connect("cue", "answer", weight, delay=delay).connect("cue", "held", weight, delay=delay)
    stimulus = {"cue": ([5.0, 2.0], [1, 0], [2.0, 3.0])}
    result = run(net, stimulus, 10.0, [2.0, 4.0, 10.0])
    t = np.array([2.0, 4.0, 10.0])
    arrivals = [(2.0, 0, 3.0), (6.0, 0, -2.0), (5.0, 1, 6.0)]
    v, m = np.full((3, 2), bias), np.full((3, 2), bias)
    for time, unit, change in arrivals:
        v[:, unit] += np.where(t > time, change * np.exp(-(t - time) / tau), 0.0)
        m[:, unit] += np.where(t > time, change, 0.0)
    np.testing.assert_allclose(result.state["answer"], v, rtol=1e-11)
    np.testing.assert_allclose(result.state["held"], m, rtol=1e-13)
    np.testing.assert_allclose(result.integral["held"][:, 0], [0.6, 6.6, 2 * 3.3 + 4 * 1.3], rtol=1e-11)
    np.testing.assert_allclose(result.square["held"][:, 1], [0.18, 0.18, 0.09 + 5 * 6.3**2], rtol=1e-11)
    x = np.exp(-2 / tau)
    np.testing.assert_allclose(result.integral["answer"][1, 0], bias * 2 + 3 * tau * (1 - x), rtol=1e-11)
    np.testing.assert_allclose(
        result.square["answer"][1, 0],
        bias**2 * 2 + 2 * bias * 3 * tau * (1 - x) + 9 * tau / 2 * (1 - x**2),
        rtol=1e-11,
    )


@both
def test_order_of_an_instant_and_the_window(run):
    """Samples see the state before; what happens at the end belongs to the next window; ties by name."""
    net = Description().add("cue", "source", 1)
    for name in ("b", "a"):
        net.add(name, "lif", 2, bias=2.0, tau_m=10.0)
    net.add("answer", "leaky_readout", 1).connect("cue", "answer", 1.0)
    period = 10 * np.log(2)
    result = run(net, {"cue": ([5.0, 1.5 * period], 0, 1.0)}, 1.5 * period, [5.0])
    assert result.raster == (("a", 0), ("a", 1), ("b", 0), ("b", 1))
    assert result.state["answer"][0, 0] == 0
    np.testing.assert_allclose(result.final["answer"]["v"], np.exp(-(1.5 * period - 5) / 10), rtol=1e-11)
    shifted = run(net, {"cue": (105.0, 0, 1.0)}, 1.5 * period, [105.0], start=100.0)
    np.testing.assert_allclose(shifted.time, result.time + 100, rtol=1e-12)


# ---------------------------------------------------------------- fixed times, arrays, differences


@both
@pytest.mark.parametrize("kind", ["delta_gru", "delta_lstm"])
def test_fixed_times_repeat_a_run(run, kind):
    rng = np.random.default_rng(8)
    net, stimulus = recurrent(kind, rng, n=4), drive(rng)
    samples = [10.0, 30.0]
    free = run(net, stimulus, 30.0, samples)
    again = run(net, stimulus, 30.0, samples, fixed_times=free.emissions)
    assert again.raster == free.raster
    np.testing.assert_array_equal(again.time, free.time)
    np.testing.assert_allclose(again.value, free.value, rtol=1e-8)
    np.testing.assert_allclose(again.state["answer"], free.state["answer"], rtol=1e-9, atol=1e-10)
    # Another weight: other payloads at the same times.
    net.parameters["hidden->hidden.weight"] *= 1.01
    moved = run(net, stimulus, 30.0, samples, fixed_times=free.emissions)
    np.testing.assert_array_equal(moved.time, free.time)
    assert not np.allclose(moved.value, free.value, rtol=1e-6)


def test_sparse_weights_and_delays():
    """Stored values of both blocks, one delay for each pair of units, in the order of rows."""
    rng = np.random.default_rng(9)
    dense = np.where(rng.random((4, 6)) < 0.5, rng.normal(size=(4, 6)), 0.0)
    pattern = scipy.sparse.csr_array(dense)
    pairs = [(i, j) for i in range(4) for j in range(2) if dense[i, j::2].any()]
    delay = rng.uniform(0, 3, len(pairs))
    full = np.zeros((4, 2))
    for (i, j), d in zip(pairs, delay, strict=True):
        full[i, j] = d
    results = []
    for weight, delays in ((pattern, delay), (dense, full)):
        net = Description().add("cue", "source", 4).add("hidden", "egru", 2, threshold=0.1, bias=0.5)
        net.connect("cue", "hidden", weight, delay=delays)
        results.append(simulate_fast(net, drive(np.random.default_rng(1), n=4), 60.0, [60.0]))
    assert_same(*results)


def test_reads_a_network():
    """What it needs of evsim's objects is what is written here."""

    def parameter(values):
        return SimpleNamespace(values=np.asarray(values, np.float32))

    class EventSource(SimpleNamespace):
        pass

    class LIF(SimpleNamespace):
        pass

    cue = EventSource(name="cue", n_units=2, parameters={})
    taus = {"tau_m": 10, "tau_e": 5, "tau_i": 5}
    hidden = LIF(
        name="hidden",
        n_units=2,
        reset=-0.5,
        refractory=2.0,
        parameters={key: parameter([value]) for key, value in taus.items()}
        | {"bias": parameter([0.1, 0.2]), "threshold": parameter([1.0, 2.0])},
    )
    wires = SimpleNamespace(
        source=cue,
        target=hidden,
        port="inhibitory",
        shape=(2, 2),
        weight=parameter([3.0, 4.0, 5.0]),
        indptr=np.array([0, 2, 3]),
        indices=np.array([0, 1, 1]),
        delay=parameter([0.5, 1.5, 2.5]),
    )
    found = from_network(
        SimpleNamespace(populations={"cue": cue, "hidden": hidden}, projections={"cue->hidden": wires})
    )
    assert found.populations["hidden"].options == {"reset": -0.5, "refractory": 2.0}
    assert found.of("hidden")["tau_m"] == 10
    np.testing.assert_array_equal(found.of("hidden")["threshold"], [1, 2])
    weight, delay, exists = found.weights("cue->hidden")
    np.testing.assert_array_equal(weight[:, 0], [[3, 4], [0, 5]])
    np.testing.assert_array_equal(delay, [[0.5, 1.5], [0, 2.5]])
    np.testing.assert_array_equal(exists, [[True, True], [False, True]])
    copied = found.copy()
    copied.parameters["hidden.bias"][:] = 7
    assert found.parameters["hidden.bias"][0] == np.float32(0.1)


def test_one_lane():
    stimulus = {"cue": ([1.0, 2.0, 3.0], [0, 1, 0], [4, 5, 6], [0.1, 0.2, 0.3])}
    time, unit, value = one_lane(stimulus, 0)["cue"]
    assert (time.tolist(), unit.tolist(), value.tolist()) == ([1, 3], [4, 6], [0.1, 0.3])


@pytest.mark.parametrize("order", [2, 4])
def test_central_differences(order):
    arrays = {"x": np.array([[1.0, 2.0]]), "y": np.array([0.0, 3.0])}
    before = {name: array.copy() for name, array in arrays.items()}

    def f(a):
        return a["x"][0, 0] ** 3 + np.sin(a["x"][0, 1]) + 5 * a["y"][1], a["y"][0] > 0

    gradients, changed = central_differences(f, arrays, 1e-3, order=order)
    precision = {2: 1e-6, 4: 1e-11}[order]
    np.testing.assert_allclose(gradients["x"], [[3.0, np.cos(2.0)]], atol=2 * precision)
    np.testing.assert_array_equal(changed["y"], [True, False])
    assert not changed["x"].any()
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, before[name])
    gradients, _ = central_differences(f, arrays, 1e-3, {"y": [1]})
    np.testing.assert_allclose(gradients["y"], [np.nan, 5.0])
    assert np.isnan(gradients["x"]).all()


def test_eventprop_equals_differences():
    rng = np.random.default_rng(11)
    n, until = 3, 25.0
    net = Description().add("cue", "source", 3)
    net.add("hidden", "lif", n, threshold=rng.uniform(0.6, 1.2, n), bias=0.2, reset=-0.2, tau_m=10.0)
    net.connect("cue", "hidden", rng.normal(1, 1.5, (3, n)))
    kept = rng.random((n, n)) < 0.7
    net.connect("hidden", "hidden", scipy.sparse.csr_array(rng.normal(0.2, 1, (n, n)) * kept), "excitatory")
    (time, unit, value) = drive(rng, until=until)["cue"]
    stimulus = {"cue": (time, unit, value)}
    base = simulate_fast(net, stimulus, until)
    assert 8 < len(base) < 100
    assert base.slope.min() > 1e-3
    loss, end = rng.normal(size=len(base)), {key: rng.normal(size=n) for key in ("v", "i_e")}
    gradients = eventprop(net, stimulus, until, base, loss, end)

    def f(_):
        result = simulate_fast(net, stimulus, until)
        if result.raster != base.raster:
            return np.nan, result.raster
        return loss @ result.time + sum(end[key] @ result.final["hidden"][key] for key in end), result.raster

    arrays = {key: net.parameters[key] for key in gradients if key in net.parameters}
    arrays |= {"cue.time": time, "cue.value": value}
    assert set(arrays) == set(gradients)
    found, changed = central_differences(f, arrays, 1e-4, order=4)
    for name in arrays:
        assert changed[name].mean() < 0.2
        good = ~changed[name]
        np.testing.assert_allclose(
            gradients[name][good], found[name][good], rtol=1e-8, atol=1e-9 * abs(gradients[name]).max()
        )
