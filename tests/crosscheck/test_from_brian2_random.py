"""Random networks, written for Brian2 in any spelling: read back with the numbers they were made of."""

import numpy as np
import pytest
import scipy.sparse

from evsim import Network
from evsim.brian import from_brian2, to_brian2_continuous
from evsim.models import LIF, EventSource
from evsim.simulation import Simulation

SEEDS = range(8)

#: Membranes of one meaning: tau_m dv/dt = -v + drive + gain x + y.
MEMBRANES = [
    "dv/dt = (drive + gain*x + y - v)/tau_m",
    "dv/dt = -(v - drive)/tau_m + (gain*x + y)*(1/tau_m)",
    "dv/dt = (total - v)/tau_m",
    "dv/dt = leak*(total - v)/(leak*tau_m)",
    "dv/dt = drive/tau_m - v/(2*tau_m) - 0.5*v/tau_m + x*gain*tau_m**-1 + y/tau_m",
]
#: Thresholds and resets.
THRESHOLDS = ["v > v_th", "v_th <= v", "v - v_th > 0*unit", "2*v >= 2*v_th", "v > v_th and not_refractory"]
RESETS = ["v = v_r", "v = v_r*1.0 # back", "v = 0*v + v_r", "v = v_r/2 + 0.5*v_r"]
#: Code of synapses that adds k w to x.
CODES = ["x += k*w", "x_post += w*k", "x = x + k*w", "x -= -(k*w)", "x += k*w/2\nx += 0.5*w*k"]


@pytest.fixture(autouse=True)
def quiet(brian2):
    before = brian2.prefs.codegen.target
    brian2.prefs.codegen.target = "numpy"
    yield
    brian2.prefs.codegen.target = before


@pytest.mark.peer
@pytest.mark.parametrize("seed", SEEDS)
def test_spellings(brian2, seed):
    """Parameters, states, weights and delays are those that the script was made of."""
    rng = np.random.default_rng(seed)
    ms = brian2.ms
    unit, name = [(brian2.mV, "volt"), (brian2.nA, "amp"), (brian2.Quantity(1.0), "1")][seed % 3]
    n, held = int(rng.integers(2, 6)), bool(rng.random() < 0.5)
    tau_m, tau_x, tau_y = rng.uniform(2, 30, 3)
    drive, level, k = rng.uniform(-30, 30, n), rng.uniform(-50, 0), rng.uniform(0.5, 2)
    top, gain = level + rng.uniform(1, 20, n), rng.uniform(0.2, 3, n)
    v, x, y = rng.uniform(-60, 0, (3, n))
    flag = " (unless refractory)" if held else ""
    equations = f"""
    {MEMBRANES[rng.integers(len(MEMBRANES))]} : {name}{flag}
    dx/dt = -x/tau_x : {name}
    dy/dt = -y/tau_y : {name}
    total = drive + gain*x + y : {name}
    drive : {name}
    gain : 1 (constant)
    v_th : {name}
    """
    options = {"refractory": "2*hold"} if held else {}
    threshold = THRESHOLDS[rng.integers(len(THRESHOLDS) - (not held))]
    reset = RESETS[rng.integers(len(RESETS))]
    group = brian2.NeuronGroup(n, equations, threshold=threshold, reset=reset, name="N", **options)
    for variable, value in (("drive", drive), ("v_th", top), ("v", v), ("x", x), ("y", y)):
        setattr(group, variable, value * unit)
    group.gain = gain
    synapses = brian2.Synapses(group, group, f"w : {name}", on_pre=CODES[seed % len(CODES)], name="S")
    i, j = rng.integers(n, size=(2, 12))
    synapses.connect(i=i, j=j)
    weight, delay = rng.normal(size=12), rng.choice([0.5, 1.25], 12)
    synapses.w, synapses.delay = weight * unit, delay * ms
    values = {"tau_m": tau_m * ms, "tau_x": tau_x * ms, "tau_y": tau_y * ms, "v_r": level * unit}
    values |= {"hold": 1.7 * ms, "unit": unit, "leak": 3.0 * brian2.nsiemens, "k": k}
    imported = from_brian2([group, synapses], namespace=values)
    factor = float(unit) / float(imported.units["N"])
    lif, begin = imported.network["N"], imported.initial["N"]
    found = {key: parameter.values for key, parameter in lif.parameters.items()}
    found |= {"reset": lif.reset, "refractory": lif.refractory} | {key: s[0] for key, s in begin.items()}
    expected = {"bias": drive * factor, "threshold": top * factor, "reset": level * factor}
    expected |= {"refractory": 3.4 if held else 0.0, "tau_m": tau_m, "tau_e": tau_x, "tau_i": tau_y}
    expected |= {"v": v * factor, "i_e": gain * x * factor, "i_i": y * factor}
    expected |= {"hold": 0.0} if held else {}
    assert set(found) == set(expected)
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, rtol=1e-12, atol=1e-12, err_msg=key)
    pairs = {}
    for source, target, w, d in zip(i, j, weight, delay, strict=True):
        pairs[source, target, d] = pairs.get((source, target, d), 0.0) + w * k * gain[target] * factor
    read = {}
    for projection in imported.network.projections.values():
        assert projection.port == "excitatory"
        matrix, delays = (
            projection.to_scipy().tocoo(),
            np.broadcast_to(projection.delay.values, projection.n_weights),
        )
        for source, target, w, d in zip(*matrix.coords, matrix.data, delays, strict=True):
            read[source, target, d] = w
    assert set(read) == set(pairs)
    for key, value in pairs.items():
        assert read[key] == pytest.approx(value, rel=1e-12, abs=1e-12)


@pytest.mark.peer
@pytest.mark.parametrize("seed", SEEDS)
def test_there_and_back(brian2, seed):
    """What evsim writes for Brian2 is read back as a network with the same events."""
    rng = np.random.default_rng(seed)
    net = Network(dt=None, dtype="float64", seed=seed)
    for name in ("a", "b"):
        taus = dict(zip(("tau_m", "tau_e", "tau_i"), rng.uniform(3, 25, 3), strict=True))
        net.add(LIF(7, name, threshold=rng.uniform(0.5, 2, 7), bias=rng.uniform(1, 4, 7), reset=-0.3, **taus))
    net.add(EventSource(2, "cue"))
    net.connect("cue", "a", weight=0.5)
    for source in "ab":
        for target in "ab":
            weight = np.where(rng.random((7, 7)) < 0.5, rng.normal(0, 0.4, (7, 7)), 0)
            port = str(rng.choice(["excitatory", "inhibitory"]))
            delay = rng.integers(0, 30, (7, 7)) * 0.1 if source == "a" else 1.5
            weight = scipy.sparse.csr_array(weight) if source == target else weight
            net.connect(source, target, weight=weight, delay=delay, port=port)
    initial = {"a": {"v": rng.uniform(-0.3, 0.4, (1, 7)), "i_i": 0.2}}
    exact = Simulation(net).run({}, 60.0, initial=initial)
    imported = from_brian2(to_brian2_continuous(net, {}, 60.0, 0.1, initial=initial).net)
    log = imported.run(60.0)
    groups = {name.split("_")[1]: name for name in imported.neurons}
    assert set(groups) == {"a", "b"}
    for name, twin in groups.items():
        mine, theirs = exact[name].events, log[twin].events
        assert len(mine) > 15
        np.testing.assert_array_equal(mine.unit, theirs.unit)
        np.testing.assert_allclose(mine.time, theirs.time, rtol=0, atol=1e-9)
