"""Brian2 scripts of the subset that `from_brian2` reads: the models of Brian2's documentation, in our words.

Each is a function of (brian2, step in ms) that makes objects and gives a Network and the values of the names
in its equations.  What they model is told by Brian2's documentation (examples, tutorials and user's guide of
version 2.9) under the name in the docstring.
"""

import numpy as np


def if_curve(b2, dt):
    """Example IF_curve_LIF: unconnected neurons, each with a drive of its own."""
    ms, mV = b2.ms, b2.mV
    n = 60
    equations = """
    dv/dt = (v0 - v)/tau : volt (unless refractory)
    v0 : volt
    """
    options = {"threshold": "v > 10*mV", "reset": "v = 0*mV", "refractory": 5 * ms, "dt": dt * ms}
    group = b2.NeuronGroup(n, equations, method="exact", name="group", **options)
    group.v0 = np.linspace(0, 20, n) * mV
    return b2.Network(group), {"tau": 10 * ms}


def first_tutorial(b2, dt):
    """Tutorial 1: a constant drive without units, two spellings, with and without a refractory period."""
    ms = b2.ms
    options = {"threshold": "v>0.8", "reset": "v = 0", "method": "exact", "dt": dt * ms}
    plain = b2.NeuronGroup(1, "dv/dt = (1-v)/tau : 1", name="plain", **options)
    equations = "dv/dt = 1/tau - v*rate : 1 (unless refractory)"
    held = b2.NeuronGroup(2, equations, refractory="hold", name="held", **options)
    held.v = [0.0, 0.4]
    values = {"tau": 10 * ms, "rate": 100 * b2.Hz, "hold": 4.6 * ms}
    return b2.Network(plain, held), values


def integrated_form(b2, dt):
    """User's guide, "Converting from integrated form to ODEs": two equal time constants."""
    ms = b2.ms
    equations = """
    dV/dt = (V_rest - V + g)/tau : 1
    dg/dt = -g/tau : 1
    """
    options = {"threshold": "V >= V_rest + 1", "reset": "V = V_rest", "method": "rk4", "dt": dt * ms}
    group = b2.NeuronGroup(4, equations, name="G", **options)
    group.V = -2.0
    times = [0.4, 1.1, 2.9, 3.3, 7.1, 7.2, 12.8, 14.0]
    given = b2.SpikeGeneratorGroup(2, [0, 1] * 4, times * ms, period=16 * ms, dt=dt * ms, name="given")
    first = b2.Synapses(given, group, "w : 1", on_pre="g += w", dt=dt * ms, name="first")
    first.connect()
    first.w = "1.8 + 0.5*i + 0.21*j"
    loop = b2.Synapses(group, group, "w : 1", on_pre="g_post += w", dt=dt * ms, name="loop")
    loop.connect("i != j")
    loop.w = "0.1 - 0.25*int(j > 1)"
    return b2.Network(group, given, first, loop), {"tau": 8 * ms, "V_rest": -2.0}


def leaky_current(b2, dt):
    """Library models of Brian 1: a leaky membrane with a current in amperes, here one that synapses feed."""
    ms, mV, nA = b2.ms, b2.mV, b2.nA
    equations = """
    dvm/dt = (gl*(El - vm) + I + drive*(1 + k))/C : volt (unless refractory)
    dI/dt = (rest - I)/tau_s : amp
    k : 1 (constant)
    drive = 1.3*nA : amp
    """
    options = {"threshold": "El + 10*mV < vm", "reset": "vm = El - 1*mV", "refractory": 2 * ms}
    group = b2.NeuronGroup(5, equations, method="exact", dt=dt * ms, name="group", **options)
    group.vm = np.linspace(-70, -65, 5) * mV
    group.k = np.linspace(0, 0.5, 5)
    group.I = 0.1 * nA
    loop = b2.Synapses(group, group, on_pre="I = I - 0.5*w", delay=1.3 * ms, dt=dt * ms, name="loop")
    loop.connect("i != j")
    values = {"gl": 100 * b2.nsiemens, "C": 1 * b2.nF, "El": -70 * mV, "tau_s": 3 * ms}
    return b2.Network(group, loop), values | {"rest": 0.05 * nA, "w": 0.3 * nA}


def chain(b2, dt):
    """As example Diesmann_et_al_1999, a volley that travels through groups, but of exponential currents.

    Delays differ from synapse to synapse, some pairs have three, and there is inhibition by another pathway.
    """
    ms, mV = b2.ms, b2.mV
    equations = """
    dV/dt = (-(V - Vr) + x + y)*(1./taum) : volt (unless refractory)
    dx/dt = -x*(1./taux) : volt
    dy/dt = -y*(1./tauy) : volt
    """
    options = {"threshold": "V > Vt", "reset": "V = Vr", "refractory": 3 * ms, "method": "exact"}
    group = b2.NeuronGroup(30, equations, dt=dt * ms, name="P", **options)
    group.V = np.linspace(-70, -62, 30) * mV
    rng = np.random.default_rng(3)
    times = rng.uniform(2.0, 4.0, 8)
    volley = b2.SpikeGeneratorGroup(8, np.arange(8), times * ms, dt=dt * ms, name="volley")
    begin = b2.Synapses(volley, group[:10], on_pre="x += weight", dt=dt * ms, name="begin")
    begin.connect()
    onward = b2.Synapses(
        group[:20],
        group[10:],
        "w : 1",
        on_pre={"fast": "x += w*weight", "slow": "y -= 0.1*weight; x += 0.05*weight"},
        dt=dt * ms,
        name="onward",
    )
    onward.connect("j >= (i//10)*10 and j < (i//10)*10 + 10", n=2)
    onward.connect(i=[0, 1, 2], j=[3, 3, 3])
    onward.w = rng.uniform(0.4, 0.8, len(onward))
    onward.fast.delay = rng.uniform(0.5, 2.0, len(onward)) * ms
    onward.slow.delay = 2 * ms
    values = {"Vr": -70 * mV, "Vt": -55 * mV, "taum": 10 * ms, "taux": 2 * ms, "tauy": 6 * ms}
    return b2.Network(group, volley, begin, onward), values | {"weight": 16 * mV}


def cuba(b2, dt, units=400, seed=11):
    """Example CUBA, of any size; its connections do not depend on how Brian2 draws random numbers."""
    ms, mV = b2.ms, b2.mV
    equations = """
    dv/dt  = (ge+gi-(v-El))/taum : volt (unless refractory)
    dge/dt = -ge/taue : volt
    dgi/dt = -gi/taui : volt
    """
    options = {"threshold": "v>Vt", "reset": "v = Vr", "refractory": 5 * ms, "method": "exact"}
    group = b2.NeuronGroup(units, equations, dt=dt * ms, name="P", **options)
    rng = np.random.default_rng(seed)
    group.v = rng.uniform(-60, -50, units) * mV
    pairs = rng.random((units, units)) < 80 / units
    first = units * 4 // 5
    parts = []
    for name, code, here in (("Ce", "ge += we", slice(0, first)), ("Ci", "gi += wi", slice(first, units))):
        source, target = np.nonzero(pairs[here])
        one = b2.Synapses(group[here], group, on_pre=code, dt=dt * ms, name=name)
        one.connect(i=source, j=target)
        parts.append(one)
    values = {"taum": 20 * ms, "taue": 5 * ms, "taui": 10 * ms, "Vt": -50 * mV, "Vr": -60 * mV}
    values |= {"El": -49 * mV, "we": (60 * 0.27 / 10) * mV, "wi": (-20 * 4.5 / 10) * mV}
    return b2.Network(group, *parts), values


def coincidences(b2, dt):
    """Example Rossant_et_al_2011bis, with "(unless refractory)": Poisson inputs to subgroups."""
    ms, mV, Hz = b2.ms, b2.mV, b2.Hz
    equations = """
    dv/dt  = (ge+gi-(v-El))/taum : volt (unless refractory)
    dge/dt = -ge/taue : volt
    dgi/dt = -gi/taui : volt
    """
    options = {"threshold": "v>theta", "reset": "v = El", "refractory": 5 * ms, "method": "exact"}
    group = b2.NeuronGroup(40, equations, dt=dt * ms, name="group", **options)
    group.v = -65 * mV
    taum, taue, taui, El = 5 * ms, 3 * ms, 10 * ms, -65 * mV
    we = 0.5 * mV / (taum / taue) ** (taum / (taue - taum))
    wi = -4000 * we * taue / (1000 * taui)
    inputs = [
        b2.PoissonInput(group[:20], "ge", N=4000, rate=1 * Hz, weight=we),
        b2.PoissonInput(group[:20], "gi", N=1000, rate=1 * Hz, weight=wi),
        b2.PoissonInput(group[20:], "ge", N=4000, rate=1 * Hz - 15 / 4000 * 40 * Hz, weight=we),
        b2.PoissonInput(group[20:], "gi", N=1000, rate=1 * Hz, weight="wi"),
        b2.PoissonInput(group[20:], "ge", N=1, rate=40 * Hz, weight=15 * we),
    ]
    values = {"taum": taum, "taue": taue, "taui": taui, "El": El, "theta": -55 * mV, "wi": wi}
    return b2.Network(group, *inputs), values


#: Those that are not random, by name; and for how many ms they run.
DETERMINED = {
    "if_curve": (if_curve, 60.0),
    "first_tutorial": (first_tutorial, 100.0),
    "integrated_form": (integrated_form, 60.0),
    "leaky_current": (leaky_current, 50.0),
    "chain": (chain, 20.0),
}
