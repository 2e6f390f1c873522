"""Weights in a mapped file, and gradients of few rows: the numbers of weights in memory, and less memory."""

import platform
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from evsim import continuous_adjoint, memory
from evsim.adjoint import Adjoint
from evsim.errors import ParameterError
from evsim.memory import ends, is_mapped, zeros_by_page
from evsim.models import EGRU, EventSource
from evsim.network import Network
from evsim.simulation import Simulation


def network(weight, copy=False, delay=0.0):
    """All to all; the first 20th of the units send, the others stay below the threshold."""
    n, net = len(weight), Network(dt=None, dtype="float32")
    cue = net.add(EventSource(2, "cue"))
    bias = np.repeat([0.0, 0.0, -2.0], n)
    bias[2 * n : 2 * n + n // 20] = 2.0
    cells = net.add(EGRU(n, "cells", threshold=0.3, bias=bias, tau_m=8.0))
    net.connect(cue, cells, weight=0.1)
    net.connect(cells, cells, weight=weight, copy=copy, delay=delay)
    return net


def run(net, n_lanes=1, threads=1, tape=True):
    simulation, lane = Simulation(net, threads=threads), np.arange(n_lanes).repeat(2)
    stimulus = {"cue": (1.0 + 0.1 * np.arange(2 * n_lanes), lane, lane % 2, 1.0 + lane)}
    return simulation, simulation.run(stimulus, 20.0, samples=[10.0, 20.0], tape=tape)


def replay(simulation, log, threads=1):
    loss = np.ones((2, log.n_lanes, log["cells"].n_units))
    return Adjoint(simulation.plan, threads=threads).replay(log, {"cells": loss})


@pytest.fixture
def saved(tmp_path):
    """A file of weights, of so many units."""

    def save(n):
        weight = np.random.default_rng(n).normal(-0.05, 0.1, (n, 3 * n)).astype(np.float32)
        np.save(tmp_path / "weight.npy", weight)
        return tmp_path / "weight.npy", weight

    return save


def check_equal(nets, **options):
    """Events, states and gradients of networks are the same bits; the last gradient and its log."""
    runs = [run(net, **options) for net in nets]
    threads = options.get("threads", 1)
    found = [replay(simulation, log, threads) for simulation, log in runs]
    first = runs[0][1]["cells"]
    assert first.n_events > 0
    for (_, log), gradients in zip(runs[1:], found[1:], strict=True):
        assert log["cells"].equal(first)
        for name, array in gradients.items():
            np.testing.assert_array_equal(array, found[0][name], err_msg=name)
    return found[-1], runs[-1][1]


@pytest.mark.parametrize("delay", [0.0, 1.5, "pair"])
@pytest.mark.parametrize(("n_lanes", "threads"), [(1, 1), (5, 2), (20, 2)])
def test_mapped_weights_give_the_bits_of_those_in_memory(saved, delay, n_lanes, threads):
    path, weight = saved(120)
    if delay == "pair":
        delay = np.random.default_rng(0).choice([0.0, 1.5, 4.0], (120, 120))
    mapped = np.load(path, mmap_mode="c")
    nets = network(weight, copy=True, delay=delay), network(mapped, delay=delay)
    assert np.shares_memory(nets[1].projections["cells->cells"].weight.values, mapped)
    check_equal(nets, n_lanes=n_lanes, threads=threads)
    np.testing.assert_array_equal(np.load(path), weight)


def test_a_fresh_plan_replays_what_another_ran(saved):
    path, weight = saved(120)
    expected = replay(*run(network(weight, copy=True)))
    net = network(np.load(path, mmap_mode="c"))
    _, log = run(net, tape=False)
    gradients = replay(Simulation(net), log)
    for name, array in expected.items():
        np.testing.assert_array_equal(gradients[name], array, err_msg=name)


def test_what_was_written_into_the_mapping_counts(saved):
    """Before it is connected, after that, and after rows of it have been used; never in the file."""
    path, weight = saved(120)
    mapped = np.load(path, mmap_mode="c")
    changed = weight.copy()
    for array in (mapped, changed):
        array[2] *= 3
    net = network(mapped)
    for array in (mapped, changed):
        array[3, 7:90] = 0.7
    check_equal([network(changed), net])
    for array in (mapped, changed):
        array[:5] -= 0.3
    run(net)
    for array in (mapped, changed):
        array[:3] += 0.2
    check_equal([network(changed), net])
    net.parameters()["cells->cells.weight"].assign(changed * 2)
    check_equal([network(changed * 2), net])
    np.testing.assert_array_equal(np.load(path), weight)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("written", [False, True])
def test_values_that_are_not_finite_are_found_in_a_file_too(saved, value, written):
    path, weight = saved(120)
    wrong = np.load(path, mmap_mode="c") if written else np.load(path, mmap_mode="r+")
    weight[117, 300] = wrong[117, 300] = value
    if not written:
        wrong.flush()
        wrong = np.load(path, mmap_mode="c")
    errors = []
    for given in (weight, wrong):
        with pytest.raises(ParameterError) as caught:
            network(given)
        errors.append(str(caught.value))
    assert errors[0] == errors[1]
    assert "(117, 300)" in errors[0]


@pytest.mark.parametrize("piece", [4, 4096, 100_000, 8 << 20])
def test_ends_are_found_piece_by_piece_and_nothing_written_is_lost(saved, monkeypatch, piece):
    path, weight = saved(300)
    mapped = np.load(path, mmap_mode="c")
    rng = np.random.default_rng(piece)
    for array in (mapped, mapped[40:, :3], mapped[17:200]):
        for _ in range(3):
            at = int(rng.integers(17, 300)), int(rng.integers(900))
            weight[at] = mapped[at] = rng.normal(0, 2)
            monkeypatch.setattr(memory, "PIECE", piece if piece > 4 or array.size < 1000 else 4096)
            assert is_mapped(array)
            assert ends(array) == (array.min(), array.max())
            np.testing.assert_array_equal(mapped, weight)
    mapped[299, 899] = np.nan
    assert np.isnan(ends(mapped)).all()
    assert not np.isnan(ends(mapped[:299])).any()


def test_which_arrays_are_mapped(saved):
    path, weight = saved(30)
    mapped = np.load(path, mmap_mode="c")
    for array in (mapped, mapped[3:], np.asarray(mapped), np.asarray(mapped[3:])[2:].T, mapped.view("i4")):
        assert is_mapped(array)
    others = (np.load(path, mmap_mode="r"), np.load(path, mmap_mode="r+"), mapped.copy(), mapped + 1, weight)
    for array in (*others, np.frombuffer(b"abcd", np.uint8)):
        assert not is_mapped(array)


def test_zeros_by_page():
    array = zeros_by_page((3, 5, 70_000), np.float32)
    assert (array.shape, array.dtype) == ((3, 5, 70_000), np.float32)
    assert array.flags.carray
    assert not array.any()
    array[...] = 1
    again = zeros_by_page((3, 5, 70_000), np.float32)
    assert not again.any()
    with pytest.raises(MemoryError, match=r"\(1, 4611686018427387904\)"):
        zeros_by_page((1, 1 << 62), np.uint8)


@pytest.mark.parametrize("n_lanes", [1, 3, 20])
def test_rows_of_a_large_gradient_that_sent_nothing_are_zero(saved, monkeypatch, n_lanes):
    """As large as it takes for rows to be taken into memory one by one, and with that left out."""
    _, weight = saved(600)
    net, made = network(weight), []
    monkeypatch.setattr(continuous_adjoint, "zeros_by_page", lambda *a: made.append(a) or zeros_by_page(*a))
    simulation, log = run(net, n_lanes)
    found = replay(simulation, log)
    assert len(made) == (1 if n_lanes == 1 else 2)
    monkeypatch.setattr(continuous_adjoint, "LARGE", 1 << 60)
    expected = replay(simulation, log)
    sent = np.isin(np.arange(600), log["cells"].unit)
    assert 0 < sent.sum() < 100
    gradient = found["cells->cells.weight"]
    assert not gradient[~sent].any()
    assert gradient[sent].any(axis=1).all()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


MEMORY = """
import sys
import numpy as np
from test_mapped_weights import network, replay, run

def held():
    status = open("/proc/self/status").read()
    return [1024 * int(status.split(name)[1].split()[0]) for name in ("RssAnon:", "RssFile:", "VmHWM:")]

replay(*run(network(np.ones((20, 60), np.float32))))
before = held()
kept = replay(*run(network(np.load(sys.argv[1], mmap_mode="c"))))
print(*(now - then for now, then in zip(held(), before, strict=True)))
"""


def is_older_than(major, minor):
    """Whether this is another system than Linux, or an older one."""
    numbers = re.match(r"(\d+)\.(\d+)", platform.release())
    return sys.platform != "linux" or tuple(map(int, numbers.groups())) < (major, minor)


@pytest.mark.skipif(is_older_than(5, 14), reason="what is asked for came with Linux 5.14")
def test_memory_grows_with_the_units_that_send(saved):
    """5 % of the weights and as much of the gradient; at the peak of the check 10 MB of 48 besides."""
    path, weight = saved(2000)
    command = [sys.executable, "-c", MEMORY, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent)
    own, of_files, peak = map(int, done.stdout.split())
    assert own + of_files < 0.5 * weight.nbytes
    assert peak < 0.7 * weight.nbytes
