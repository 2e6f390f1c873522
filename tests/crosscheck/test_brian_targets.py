"""Brian2 does the same whether NumPy, Cython or a C++ program computes it, and is left as it was.

Compilers may order sums in their own way, so states and payloads agree within rounding; which unit sends in
which step is the same.
"""

import sys

import numpy as np
import pytest
import scipy.sparse

from evsim.brian import to_brian2
from evsim.brian.library import quiet_brian2
from evsim.errors import MissingExtraError, NetworkError
from evsim.examples import continuous_example, delta_example, egru_example, lif_example
from evsim.models import LIF, EventSource
from evsim.network import Network


def tiny(delay=1.0):
    """Few kinds of things, so that there is little to compile."""
    net = Network(dt=None, seed=1, dtype="float64")
    net.add(LIF(6, "hidden", bias=np.linspace(1.1, 2.0, 6), tau_m=10.0, refractory=2.0))
    weight = scipy.sparse.csr_array(np.eye(6, k=1) * 0.8)
    net.connect("hidden", "hidden", weight=weight, delay=delay)
    return net


def alike(first, second):
    """Whether two runs are the same but for rounding."""
    for name, events in first.events.items():
        others = second.events[name]
        assert len(events) > 5
        for column in ("unit", "step" if hasattr(events, "step") else "time"):
            np.testing.assert_array_equal(getattr(events, column), getattr(others, column))
        np.testing.assert_allclose(events.value, others.value, rtol=0, atol=1e-12)
    for name, state in first.states.items():
        np.testing.assert_allclose(state, second.states[name], rtol=0, atol=1e-12)


@pytest.fixture
def compiler(brian2, request):
    """Programs this small need no optimisation.

    Modules of Cython are optimised as ever: Brian2 keeps them, and knows them by their code alone.
    """
    before = brian2.prefs["codegen.cpp.extra_compile_args_gcc"]
    if "cython" not in request.node.name:
        brian2.prefs["codegen.cpp.extra_compile_args_gcc"] = ["-w", "-O0", "-std=c++11"]
    yield
    brian2.prefs["codegen.cpp.extra_compile_args_gcc"] = before


# -- the same runs -----------------------------------------------------------------------------------------


@pytest.mark.peer
def test_a_standalone_run_between_two_others(compiler, brian2, tmp_path, monkeypatch):
    """It leaves no program, no device and no preference behind, and the objects as they are."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.chdir(tmp_path)
    twin = to_brian2(tiny(), duration=30.0, dt=0.1, samples=np.linspace(0, 30, 7))
    before = twin.run()
    devices = sys.modules["brian2.devices.device"]
    known = dict(brian2.all_devices), list(devices.previous_devices), brian2.defaultclock.dt
    target, arrays = brian2.prefs["codegen.target"], len(brian2.all_devices["cpp_standalone"].arrays)
    found = twin.run("standalone")
    assert found.version.endswith(", standalone")
    alike(before, found)
    assert brian2.get_device() is brian2.all_devices["runtime"]
    assert known == (dict(brian2.all_devices), list(devices.previous_devices), brian2.defaultclock.dt)
    assert brian2.prefs["codegen.target"] == target
    assert len(brian2.all_devices["cpp_standalone"].arrays) == arrays
    assert [path.name for path in tmp_path.iterdir()] == ["temporary"]
    # Brian2's own notes on what was printed, which it removes when the process ends
    assert not [path for path in (tmp_path / "temporary").iterdir() if path.is_dir()]
    alike(before, twin.run())


@pytest.mark.peer
@pytest.mark.slow
@pytest.mark.parametrize(("form", "target"), [("evnn", "standalone"), ("paper", "cython")])
def test_egru_in_steps(compiler, target, form):
    net, stimulus = egru_example(n_units=8, n_inputs=5, n_steps=80, form=form, delay=2, density=0.7)
    twin = to_brian2(net, stimulus, n_steps=80)
    alike(twin.run(), twin.run(target))


@pytest.mark.peer
@pytest.mark.slow
@pytest.mark.parametrize(("unit", "target"), [("delta_gru", "cython"), ("delta_lstm", "standalone")])
def test_delta_units_in_steps(compiler, target, unit):
    net, stimulus = delta_example(n_units=8, n_inputs=5, n_steps=80, unit=unit, delay=2)
    twin = to_brian2(net, stimulus)
    alike(twin.run(), twin.run(target))


@pytest.mark.peer
@pytest.mark.slow
def test_lif_in_steps(compiler):
    twin = to_brian2(*lif_example(n_units=8, n_inputs=5, n_steps=80, delay=2))
    alike(twin.run(), twin.run("standalone"))


@pytest.mark.peer
@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "target"),
    [("egru", "standalone"), ("lif", "cython"), ("delta_gru", "standalone"), ("delta_lstm", "cython")],
)
def test_continuous_time(compiler, target, model):
    net, stimulus = continuous_example(model, n_units=6, duration=30.0, delay=1.0)
    options = {"dt": 0.05, "samples": np.linspace(0, 30, 7), "slots": 8}
    twin = to_brian2(net, stimulus, 30.0, **options)
    alike(twin.run(), twin.run(target))


@pytest.mark.peer
@pytest.mark.slow
def test_standalone_runs_one_after_the_other(compiler):
    """Each is a program of its own: the first says nothing about the second."""
    for delay in (1.0, 3.0):
        twin = to_brian2(tiny(delay), duration=30.0, dt=0.1)
        alike(twin.run(), twin.run("standalone"))


@pytest.mark.peer
def test_what_becomes_of_the_network_later_does_not_count(brian2):
    net, stimulus = egru_example(n_units=3, n_inputs=2, n_steps=30)
    before = to_brian2(net, stimulus).run()
    twin = to_brian2(net, stimulus)
    for parameter in net.parameters().values():
        parameter.values[...] *= 0.5
    alike(before, twin.run())


# -- what goes wrong ---------------------------------------------------------------------------------------


@pytest.mark.peer
@pytest.mark.parametrize("tools", [(), ("g++",)])
def test_there_is_no_compiler(brian2, tmp_path, monkeypatch, tools):
    for tool in tools:
        (tmp_path / tool).touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    twin = to_brian2(tiny(), duration=5.0, dt=0.1)
    missing = "make" if tools else r"g\+\+"
    with pytest.raises(MissingExtraError, match=rf"there is no {missing}; install it.*target='numpy'"):
        twin.run("standalone")
    twin.run()


@pytest.mark.peer
def test_a_compiler_that_fails_is_quoted(brian2, tmp_path, monkeypatch):
    broken = tmp_path / "c++"
    broken.write_text("#!/bin/sh\necho 'fatal error: no space for code' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    twin = to_brian2(tiny(), duration=5.0, dt=0.1)
    with pytest.raises(NetworkError, match="does not compile: fatal error: no space for code"):
        twin.run("standalone")
    assert brian2.get_device() is brian2.all_devices["runtime"]
    twin.run()


@pytest.mark.peer
def test_cython_without_a_compiler(brian2, tmp_path, monkeypatch):
    """With an empty cache, in which nothing is found that was compiled before."""
    cache = brian2.prefs["codegen.runtime.cython.cache_dir"]
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    monkeypatch.setenv("CXX", str(tmp_path / "none"))
    monkeypatch.setenv("CC", str(tmp_path / "none"))
    brian2.prefs["codegen.runtime.cython.cache_dir"] = str(tmp_path / "cache")
    try:
        twin = to_brian2(tiny(), duration=5.0, dt=0.1)
        with pytest.raises(MissingExtraError, match=r"there is no .*none; install it"):
            twin.run("cython")
    finally:
        brian2.prefs["codegen.runtime.cython.cache_dir"] = cache
    twin.run()


@pytest.mark.peer
def test_the_default_cache_of_cython_is_kept(brian2):
    with quiet_brian2("cython") as inside:
        assert inside.prefs["codegen.runtime.cython.cache_dir"] is None


# -- one function for both kinds of time -------------------------------------------------------------------


@pytest.mark.peer
def test_steps_are_told_in_three_ways(brian2):
    net, stimulus = egru_example(n_units=3, n_inputs=2, n_steps=12)
    for twin in (
        to_brian2(net, stimulus),
        to_brian2(net, stimulus, 12.0),
        to_brian2(net, stimulus, n_steps=12),
    ):
        assert twin.n_steps == 12
        assert twin.run().states["answer"].shape == (12, 3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dt": 0.1}, "there is no duration"),
        ({"duration": 5.0}, "give dt, Brian2's step"),
        ({"n_steps": 5, "dt": 0.1}, "n_steps is 5 in continuous time"),
    ],
)
def test_what_is_missing_in_continuous_time(options, words):
    with pytest.raises(NetworkError, match=words):
        to_brian2(tiny(), {}, **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "neither duration nor n_steps"),
        ({"duration": 5.5}, "duration 5.5 ms is not a multiple of dt = 1 ms"),
        ({"duration": 5.0, "n_steps": 5}, "both duration and n_steps"),
        ({"n_steps": 5, "dt": 0.5}, "leave it out: the network has dt = 1 ms"),
        ({"n_steps": 5, "samples": [1.0]}, "states are those after each step"),
        ({"n_steps": 5, "initial": {}}, "starts from rest"),
    ],
)
def test_what_is_refused_in_steps(options, words):
    net = Network(dtype="float64")
    net.add(EventSource(2, "cue"))
    with pytest.raises(NetworkError, match=words):
        to_brian2(net, **options)
