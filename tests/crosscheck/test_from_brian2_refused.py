"""What `from_brian2` refuses: the error names the object, the equation or statement, and the remedy."""

import numpy as np
import pytest

from evsim.brian import from_brian2
from evsim.errors import NetworkError

EQUATIONS = """
dv/dt = (ge + gi - v)/tau : volt (unless refractory)
dge/dt = -ge/tau_e : volt
dgi/dt = -gi/tau_i : volt
k : 1
w_in : volt
"""


@pytest.fixture(autouse=True)
def quiet(brian2):
    before = brian2.prefs.codegen.target
    brian2.prefs.codegen.target = "numpy"
    yield
    brian2.prefs.codegen.target = before


def values(b2):
    ms, mV = b2.ms, b2.mV
    names = {"tau": 20 * ms, "tau_e": 5 * ms, "tau_i": 10 * ms, "v_th": 10 * mV, "v_r": 0 * mV, "w0": 1 * mV}
    names["drive"] = b2.TimedArray([1, 2] * mV, dt=10 * ms)
    return names


def neurons(b2, equations=EQUATIONS, n=3, **change):
    options = {"threshold": "v > v_th", "reset": "v = v_r", "refractory": 2 * b2.ms, "name": "N"}
    return b2.NeuronGroup(n, equations, **(options | change))


def refused(b2, objects, *words):
    with pytest.raises(NetworkError) as caught:
        from_brian2(objects, namespace=values(b2))
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value), str(caught.value)


V, G = "dv/dt = (ge - v)/tau : volt (unless refractory)", "dge/dt = -ge/tau_e : volt"

#: Equations, and what the error says.
DYNAMICS = {
    "quadratic": ("dv/dt = -v*v/(tau*volt) : volt", ["dv/dt = -v*v/(tau*volt)", "not linear in v"]),
    "exponential": (
        "dv/dt = (w0*exp((v - v_th)/w0) - v)/tau : volt",
        ["dv/dt = (w0*exp((v - v_th)/w0) - v)/tau", "not linear"],
    ),
    "rectified": ("dv/dt = (abs(v) - 2*v)/tau : volt", ["not linear in v"]),
    "stepwise": ("dv/dt = (int(v > w0)*w0 - v)/tau : volt", ["not linear"]),
    "conductance": (
        f"dv/dt = (ge*(50*mV - v)/mV - v)/tau : volt (unless refractory)\n{G}",
        ["dv/dt = (ge*(50*mV - v)/mV - v)/tau", "not linear"],
    ),
    "no leak": (
        "dv/dt = w0/tau : volt (unless refractory)",
        ["dv/dt = w0/tau", "v does not decay by itself"],
    ),
    "growing": ("dv/dt = v/tau : volt (unless refractory)", ["dv/dt = v/tau", "grows by itself"]),
    "noise": (
        "dv/dt = -v/tau + w0*xi*tau**-0.5 : volt (unless refractory)",
        ["dv/dt = -v/tau + w0*xi*tau**-0.5", "noise, xi", "PoissonInput"],
    ),
    "random subexpression": (
        "dv/dt = (I - v)/tau : volt (unless refractory)\nI = w0*k : volt\nk = rand() : 1 (constant over dt)",
        ["k = rand()", "constant over dt"],
    ),
    "time": ("dv/dt = (w0*sin(t/tau) - v)/tau : volt (unless refractory)", ["sin(t/tau)", "depends on time"]),
    "timed array": ("dv/dt = (drive(t) - v)/tau : volt (unless refractory)", ["drive(t) - v", "TimedArray"]),
    "random": (
        "dv/dt = (I - v)/tau : volt (unless refractory)\nI = w0*rand() : volt (constant over dt)",
        ["I = w0*rand()", "constant over dt", "no steps"],
    ),
    "alpha current": (
        f"{V}\ndge/dt = (x - ge)/tau_e : volt\ndx/dt = -x/tau_e : volt",
        ["dge/dt = (x - ge)/tau_e", "reads 'x'", "exponentially decaying currents only"],
    ),
    "adaptation": (
        "dv/dt = (-a - v)/tau : volt (unless refractory)\nda/dt = (0.1*v - a)/tau_i : volt",
        ["da/dt = (0.1*v - a)/tau_i", "reads 'v'"],
    ),
    "three time constants": (
        "dv/dt = (a + b + c - v)/tau : volt (unless refractory)\n"
        "da/dt = -a/tau_e : volt\ndb/dt = -b/tau_i : volt\ndc/dt = -c/(3*ms) : volt",
        ["more than two time constants", "dc/dt = -c/(3*ms)"],
    ),
    "idle variable": (f"dv/dt = -v/tau : volt (unless refractory)\n{G}", ["does not act on v", "dge/dt"]),
    "frozen current": (
        f"{V}\n{G} (unless refractory)",
        ["dge/dt = -ge/tau_e", "stands still during the refractory period of 2 ms"],
    ),
    "v moves while refractory": (
        f"dv/dt = (ge - v)/tau : volt\n{G}",
        ["dv/dt = (ge - v)/tau", "goes on during the refractory period of 2 ms", "(unless refractory)"],
    ),
    "linked": (
        "dv/dt = (x - v)/tau : volt (unless refractory)\nx : volt (linked)",
        ["'x' is a linked variable"],
    ),
    "undefined": ("dv/dt = (nowhere - v)/tau : volt (unless refractory)", ["'nowhere'", "give namespace="]),
    "two lines": (
        "dv/dt = (w0*exp(v/w0)\n         - v)/tau : volt",
        ["'dv/dt = (w0*exp(v/w0) - v)/tau' is not linear in v"],
    ),
    "dimensions": (
        "dv/dt = (ge - v)/tau : volt (unless refractory)\ndge/dt = -ge/tau_e : 1",
        ["inconsistent units", "mend the units"],
    ),
}


@pytest.mark.peer
@pytest.mark.parametrize("case", DYNAMICS)
def test_dynamics(brian2, case):
    equations, words = DYNAMICS[case]
    refused(brian2, [neurons(brian2, equations)], "NeuronGroup 'N'", *words)


#: Arguments of the group, and what the error says.
EVENTS = {
    "adaptive": ({"threshold": "v > ge"}, ["threshold 'v > ge'", "compares ge and v"]),
    "from above": ({"threshold": "v < v_th"}, ["threshold 'v < v_th'", "reached from above"]),
    "another variable": ({"threshold": "k > 1"}, ["threshold 'k > 1'", "compares no variable"]),
    "two": (
        {"threshold": "v > v_th and ge > w0"},
        ["'v > v_th and ge > w0'", "no comparison of one variable"],
    ),
    "nonlinear": ({"threshold": "v**2 > v_th**2"}, ["'v**2 > v_th**2'", "not linear"]),
    "random": ({"threshold": "v > v_th*rand()"}, ["v > v_th*rand()", "random"]),
    "in time": ({"threshold": "v > v_th*(t/second)"}, ["depends on time"]),
    "units": ({"threshold": "v > 10"}, ["'v > 10'", "mend the units"]),
    "of a current": ({"threshold": "ge > w0"}, ["dv/dt = (ge + gi - v)/tau", "reads 'ge'"]),
    "no reset": ({"reset": None}, ["threshold 'v > v_th' has no reset", "v = v_reset"]),
    "empty reset": ({"reset": ""}, ["has no reset"]),
    "subtracted": ({"reset": "v -= v_th"}, ["reset 'v -= v_th'"]),
    "more is reset": ({"reset": "v = v_r; ge = 0*mV"}, ["reset 'ge = 0 * mV'"]),
    "to a variable": ({"reset": "v = ge"}, ["'v = ge' reads 'ge'", "changes with time"]),
    "to a number": ({"reset": "v = 1"}, ["'v = 1'", "mend the units"]),
    "to random": ({"reset": "v = v_r*rand()"}, ["random"]),
    "too high": ({"reset": "v = v_th"}, ["threshold 'v > v_th'", "lower the reset"]),
    "above": ({"reset": "v = 2*v_th"}, ["lower the reset"]),
    "condition": ({"refractory": "v > v_r"}, ["refractory='v > v_r' is a condition"]),
    "refractory random": ({"refractory": "(1 + rand())*ms"}, ["random"]),
    "refractory units": ({"refractory": "w0"}, ["'w0' is in units of", "mend the units"]),
    "events": ({"events": {"crossing": "v > w0"}}, ["events 'crossing', 'v > w0'"]),
}


@pytest.mark.peer
@pytest.mark.parametrize("case", EVENTS)
def test_thresholds_resets_and_refractory_periods(brian2, case):
    change, words = EVENTS[case]
    refused(brian2, [neurons(brian2, **change)], "NeuronGroup 'N'", *words)


#: By what differs between units: arguments and what the error says.
DIFFERENT = {
    "tau": ({"equations": "dv/dt = -v/(tau*k) : volt (unless refractory)\nk : 1"}, ["time constant of v"]),
    "tau_e": ({"equations": f"{V}\ndge/dt = -ge/(tau*k) : volt\nk : 1"}, ["time constant of ge"]),
    "reset": ({"reset": "v = -k*w0"}, ["'v = -k * w0' the reset differs", "0.001"]),
    "refractory": ({"refractory": "k*ms"}, ["'k*ms' the refractory period differs"]),
}


@pytest.mark.peer
@pytest.mark.parametrize("case", DIFFERENT)
def test_what_may_not_differ_between_units(brian2, case):
    change, words = DIFFERENT[case]
    group = neurons(brian2, **change)
    group.k = [1, 2, 3]
    refused(brian2, [group], "differs between units", "make a NeuronGroup for each value", *words)
    group.k = 1
    from_brian2([group], namespace=values(brian2))


@pytest.mark.peer
def test_other_parts_of_groups(brian2):
    group = neurons(brian2)
    group.run_regularly("v = 0*mV", dt=1 * brian2.ms)
    refused(brian2, [group], "'v = 0*mV' at intervals", "run_regularly")
    coin = brian2.NeuronGroup(2, "rate : Hz", threshold="rand() < rate*dt", name="coin")
    refused(brian2, [coin], "'coin'", "no differential equation", "'rand() < rate*dt'", "PoissonGroup")
    nothing = brian2.NeuronGroup(1, "da/dt = -a/tau : 1\ndb/dt = -b/tau : 1", name="nothing")
    refused(brian2, [nothing], "no threshold, and 2 variables", "['a', 'b']")
    bad = neurons(brian2, name="bad")
    bad.ge = np.nan * brian2.volt
    refused(brian2, [bad], "ge is nan at present")
    bad.ge, bad.k = 0 * brian2.volt, np.inf
    bad = neurons(brian2, "dv/dt = (k*w0 - v)/tau : volt (unless refractory)\nk : 1", name="worse")
    bad.k = [1, np.inf, 1]
    refused(brian2, [bad], "has a value inf")


@pytest.mark.peer
def test_objects_of_other_kinds(brian2):
    group = neurons(brian2)

    @brian2.network_operation
    def act():
        pass

    refused(brian2, [group, act], "NetworkOperation", "no counterpart", "only NeuronGroup")
    group.state_updater.active = False
    refused(brian2, [group], "'N_stateupdater' is switched off")
    group.active = False
    refused(brian2, [group], "NeuronGroup 'N'", "active=False")
    other = neurons(brian2, name="other")
    away = brian2.Synapses(group, other, on_pre="ge += w0", name="away")
    away.connect()
    refused(brian2, [other, away], "Synapses 'away'", "'N' is not among the objects")


#: Model and code of synapses, and what the error says.
SYNAPSES = {
    "delta": ({"on_pre": "v += w0"}, ["'v += w0' makes v itself jump", "exponentially decaying current"]),
    "delta, post": ({"on_pre": "v_post += w0"}, ["'v_post += w0' makes v itself jump"]),
    "multiplied": ({"on_pre": "ge *= 2"}, ["'ge *= 2' is no sum"]),
    "set": ({"on_pre": "ge = w0"}, ["'ge = w0' sets ge"]),
    "scaled": ({"on_pre": "ge = 2*ge + w0"}, ["sets ge"]),
    "clipped": ({"on_pre": "ge = clip(ge + w0, 0*mV, w0)"}, ["sets ge"]),
    "saturating": (
        {"on_pre": "ge += 0.1*(w0 - ge)"},
        ["'ge += 0.1 * (w0 - ge)' reads 'ge'", "changes with time"],
    ),
    "by the voltage": ({"on_pre": "ge += w0*(v_post/mV)"}, ["reads 'v_post'", "changes with time"]),
    "of the source": ({"on_pre": "ge_pre += w0"}, ["'ge_pre += w0' acts on the source"]),
    "a parameter": ({"on_pre": "w_in += w0"}, ["changes 'w_in'", "add to one of ['ge', 'gi']"]),
    "random": ({"on_pre": "ge += w0*(rand() < 0.5)"}, ["random"]),
    "in time": ({"on_pre": "ge += w0*t/second"}, ["depends on time"]),
    "plastic": (
        {"model": "w : volt", "on_pre": "ge += w\nw += 0.1*w0"},
        ["'w += 0.1 * w0' changes the synapses' own 'w'"],
    ),
    "STDP": (
        {
            "model": "w : volt\ndapre/dt = -apre/tau : 1 (event-driven)",
            "on_pre": "ge += w\napre += 1",
            "on_post": "w += apre*w0",
        },
        ["dapre/dt = -apre/tau", "weights do not change"],
    ),
    "on_post": ({"model": "w : volt", "on_pre": "ge += w", "on_post": "w += w0"}, ["on_post 'w += w0'"]),
    "clocked": (
        {"model": "dx/dt = -x/tau : 1 (clock-driven)", "on_pre": "x += 1"},
        ["dx/dt = -x/tau", "changes with time"],
    ),
    "summed": ({"model": "w_in_post = w0*x : volt (summed)\nx : 1"}, ["w_in_post = w0*x", "summed"]),
    "units": ({"on_pre": "ge += 1"}, ["'ge += 1' is in units of", "mend the units"]),
    "undefined": ({"on_pre": "ge += nowhere"}, ["'nowhere'", "give namespace="]),
    "each step": ({"model": "w = w0*rand() : volt (constant over dt)", "on_pre": "ge += w"}, ["rand()"]),
    "call": ({"on_pre": "ge += drive(t)"}, ["TimedArray"]),
}


@pytest.mark.peer
@pytest.mark.parametrize("case", SYNAPSES)
def test_synapses(brian2, case):
    change, words = SYNAPSES[case]
    group = neurons(brian2)
    synapses = brian2.Synapses(group, group, name="S", **change)
    synapses.connect()
    refused(brian2, [group, synapses], "Synapses 'S'", *words)


#: Examples of Brian2's documentation beyond the subset, in our words: equations, synapses, what is said.
EXAMPLES = {
    "COBAHH": (
        "dv/dt = (gl*(El - v) + ge*(0*mV - v) - g_na*m**3*(v - El))/Cm : volt\n"
        "dm/dt = (1 - m)/tau : 1\ndge/dt = -ge/tau_e : siemens",
        "",
        "not linear",
    ),
    "Brunel_2000": ("dv/dt = -v/tau : volt (unless refractory)", "v += w0", "'v += w0' makes v itself jump"),
    "Brunel_Hakim_1999": ("dv/dt = (-v + w0 + w0*sqrt(tau)*xi)/tau : volt", "v += -w0", "noise, xi"),
    "Diesmann_et_al_1999": (
        "dv/dt = (-(v - El) + x)*(1./tau) : volt (unless refractory)\ndx/dt = (-x + y)*(1./tau_e) : volt\n"
        "dy/dt = -y*(1./tau_e) + 25.27*mV/ms + (39.24*mV/ms**0.5)*xi : volt",
        "y += w0",
        "noise, xi",
    ),
    "Sturzl_et_al_2000": (
        "dv/dt = (x - v)/tau : volt (unless refractory)\ndx/dt = (y - x)/tau_e : volt\n"
        "dy/dt = -y/tau_e : volt",
        "y += w0",
        "'dx/dt = (y - x)/tau_e' reads 'y'",
    ),
    "Rossant_et_al_2011bis": (
        "dv/dt = (ge + gi - (v - El))/tau : volt\ndge/dt = -ge/tau_e : volt\ndgi/dt = -gi/tau_i : volt",
        "",
        "goes on during the refractory period",
    ),
    "adaptive_threshold": (
        "dv/dt = -v/tau : volt (unless refractory)\ndv_th/dt = (10*mV - v_th)/tau_i : volt",
        "v += w0",
        "threshold 'v > v_th' compares v and v_th",
    ),
    "cuba_openmp": (
        "dv/dt = (ge + gi - (v - El))/tau : volt (unless refractory)\n"
        "dge/dt = -ge/tau_e : volt (unless refractory)\ndgi/dt = -gi/tau_i : volt (unless refractory)",
        "ge += w0",
        "'dge/dt = -ge/tau_e' stands still during the refractory period",
    ),
    "phase_locking": (
        "dv/dt = (-v + w0*sin(2*pi*10*Hz*t) + w0)/tau : volt (unless refractory)",
        "",
        "depends on time, by its 't'",
    ),
    "tutorial 2": (
        "dv/dt = (I - v)/own : volt (unless refractory)\nI : volt\nown : second",
        "v_post += 0.2*mV",
        "the time constant of v differs between units",
    ),
}


@pytest.mark.peer
@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_of_the_documentation(brian2, name):
    equations, code, words = EXAMPLES[name]
    constants = {"El": -65 * brian2.mV, "gl": 10 * brian2.nsiemens, "g_na": 1 * brian2.usiemens}
    group = neurons(brian2, equations, namespace=constants | {"Cm": 0.2 * brian2.nF})
    if name == "tutorial 2":
        group.own = [10, 100, 100] * brian2.ms
    objects = [group]
    if code:
        synapses = brian2.Synapses(group, group, on_pre=code, name="S")
        synapses.connect(i=[0], j=[1])
        objects.append(synapses)
    refused(brian2, objects, words)


@pytest.mark.peer
def test_sources(brian2):
    Hz, mV = brian2.Hz, brian2.mV
    group = neurons(brian2)
    modulated = brian2.PoissonGroup(2, "(1 + sin(t/tau))*10*Hz", name="modulated")
    refused(brian2, [group, modulated], "PoissonGroup 'modulated'", "depends on time")
    negative = brian2.PoissonGroup(2, -3 * Hz, name="negative")
    refused(brian2, [group, negative], "PoissonGroup 'negative'", "rate of -3.0 Hz")
    wrong = brian2.PoissonGroup(2, "10*ms", name="wrong")
    refused(brian2, [group, wrong], "PoissonGroup 'wrong'", "mend the units")
    for target, words in (("v", ["acts on 'v'", "['ge', 'gi']"]), ("w_in", ["acts on 'w_in'"])):
        poisson = brian2.PoissonInput(group, target, N=10, rate=5 * Hz, weight=1 * mV)
        refused(brian2, [group, poisson], "PoissonInput", f"{target} += 1. mV", *words)
    moving = brian2.PoissonInput(group, "ge", N=10, rate=5 * Hz, weight="0.1*v")
    refused(brian2, [group, moving], "ge += 0.1*v", "changes with time")
    alone = brian2.PoissonInput(neurons(brian2, name="M"), "ge", N=10, rate=5 * Hz, weight=1 * mV)
    refused(brian2, [group, alone], "'M' is not among the objects")


@pytest.mark.peer
def test_refractory_units_must_be_at_the_reset(brian2):
    group = neurons(brian2, "dv/dt = (15*mV - v)/tau : volt (unless refractory)", refractory=9 * brian2.ms)
    network = brian2.Network(group)
    network.run(25 * brian2.ms, namespace=values(brian2))
    from_brian2(network, namespace=values(brian2))
    group.v = 1 * brian2.mV
    refused(brian2, network, "unit 0 is refractory", "leave the states")


@pytest.mark.peer
def test_standalone_devices_are_refused(brian2):
    group = neurons(brian2)
    brian2.set_device("cpp_standalone", build_on_run=False)
    try:
        refused(brian2, [group], "standalone device", "set_device('runtime')")
    finally:
        brian2.set_device("runtime")
