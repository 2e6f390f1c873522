"""Operation counts equal the formulas, counted again from the events; and what is not counted is not read."""

from itertools import product

import numpy as np
import pytest
import scipy.sparse

from evsim.adjoint import Adjoint
from evsim.models import EGRU, EventSource, LeakyReadout
from evsim.network import Network
from evsim.simulation import Simulation

T, B, K, H, C = 15, 3, 6, 20, 4
FORMS = ("evnn", "paper")
STORAGE = ("dense", "csr")


def weight(shape, storage, rng):
    dense = rng.normal(0, 1.5 / np.sqrt(shape[0]), shape)
    return (
        dense if storage == "dense" else scipy.sparse.csr_array(np.where(rng.random(shape) < 0.3, dense, 0.0))
    )


def network(form, storage, delays=(1,), threshold=0.25, dtype="float64"):
    rng = np.random.default_rng(3)
    net = Network(dtype=dtype)
    net.add(EventSource(K, name="cue"))
    bias = np.concatenate([rng.normal(0, 0.3, 2 * H), rng.normal(0.3, 0.5, H)])
    net.add(EGRU(H, name="hidden", form=form, threshold=threshold, bias=bias))
    net.add(LeakyReadout(C, name="answer"))
    net.connect("cue", "hidden", weight((K, 3 * H), storage, rng), name="in")
    for delay in delays:
        net.connect("hidden", "hidden", weight((H, 3 * H), storage, rng), delay=delay, name=f"rec{delay}")
    net.connect("hidden", "answer", weight((H, C), storage, rng), delay=2, name="out")
    return net


def cue(seed=0, n_steps=T):
    rng = np.random.default_rng(seed)
    return rng.normal(0, 1.5, (n_steps, B, K)) * (rng.random((n_steps, B, K)) < 0.4)


def losses(n_steps=T):
    rng = np.random.default_rng(1)
    return {"answer": rng.normal(size=(n_steps, B, C)), "hidden.y": rng.normal(size=(n_steps, B, H))}


# -- counting again ----------------------------------------------------------------------------------------


def fan_out(projection):
    """Weights of every (row, block) as an array of flags, shape (rows, blocks, columns)."""
    there = np.ones(projection.shape, bool)
    if projection.is_sparse:
        there = np.zeros(projection.shape, bool)
        there[np.repeat(np.arange(projection.shape[0]), np.diff(projection.indptr)), projection.indices] = (
            True
        )
    return there.reshape(projection.shape[0], projection.n_blocks, -1)


class Recount:
    """Events, senders and backward-active units as dense flags."""

    def __init__(self, log, lengths, gradient_width):
        self.lengths = lengths
        self.sent = {name: log[name].events.to_dense() != 0 for name in ("cue", "hidden")}
        a = log["hidden"].tape[:, :, log["hidden"].tape_fields.index("a")]
        alive = np.arange(len(a))[:, None, None] < np.array(lengths)[:, None]
        v = a - log["hidden"].thresholds
        self.active = ((v > 0) | (np.abs(v) < gradient_width)) & alive

    def arriving(self, flags, delay):
        """(lane, unit) pairs set at a step, listed at the step where they arrive: (arrival, lane, unit)."""
        step, lane, unit = np.nonzero(flags)
        keep = step + delay < np.array(self.lengths)[lane]
        return step[keep] + delay, lane[keep], unit[keep]

    def senders(self, recurrent):
        """Units of which events arrive by any recurrent projection, shape (T, B, H)."""
        found = np.zeros_like(self.sent["hidden"])
        for projection in recurrent:
            found[self.arriving(self.sent["hidden"], projection.delay_steps)] = True
        return found

    def through(self, projection, flags, gated_by=None):
        """Weights that one pass along the rows of the flagged units touches."""
        there, total = fan_out(projection), 0
        for t, lane, unit in zip(*self.arriving(flags, projection.delay_steps), strict=True):
            row = there[unit]
            if gated_by is None:
                total += int(row.sum())
            else:  # the paper's form: r only where it is needed
                total += int(row[0].sum() + row[2].sum() + (row[1] & gated_by[t, lane]).sum())
        return total

    def recomputed(self, recurrent):
        """Weights read for reset gates of backward-active units that sent nothing, by projection."""
        totals, senders = {p.name: 0 for p in recurrent}, self.senders(recurrent)
        for through in recurrent:
            for t, lane, unit in zip(*self.arriving(self.active, through.delay_steps), strict=True):
                if senders[t, lane, unit]:
                    continue
                for p in recurrent:
                    if t >= p.delay_steps:
                        sources = np.nonzero(self.sent["hidden"][t - p.delay_steps, lane])[0]
                        totals[p.name] += int(fan_out(p)[sources, 1, unit].sum())
        return totals


@pytest.mark.parametrize("lengths", [(T, T, T), (T, 0, 6)], ids=["full", "ragged"])
@pytest.mark.parametrize("delays", [(1,), (1, 3)], ids=["one", "two"])
@pytest.mark.parametrize(("form", "storage"), list(product(FORMS, STORAGE)))
def test_counts_equal_a_recount(form, storage, delays, lengths):
    eps = 4.0
    net = network(form, storage, delays)
    simulation = Simulation(net, threads=2)
    log = simulation.run(cue() * (np.arange(T)[:, None, None] < np.array(lengths)[:, None]), lengths=lengths)
    gradients = Adjoint(simulation.plan, eps=eps).replay(log, losses())
    recurrent = [p for p in net.projections.values() if p.port == "recurrent"]
    again = Recount(log, lengths, 1 / eps)
    assert again.sent["hidden"].mean() > 0.05
    senders = again.senders(recurrent)
    assert log.counters["lane_steps"] == sum(lengths)
    assert log.counters["events"] == {name: int(flags.sum()) for name, flags in again.sent.items()}
    assert gradients.counters["backward_active"] == {"hidden": int(again.active.sum())}
    assert gradients.counters["beta"]["hidden"] == pytest.approx(
        again.active.sum() / (H * sum(lengths)), rel=1e-12
    )
    for p in net.projections.values():
        gate = senders if form == "paper" and p.port == "recurrent" else None
        sent = again.sent[p.source.name]
        assert log.counters["dense_macs"][p.name] == p.n_weights * sum(lengths)
        assert log.counters["macs"][p.name] == again.through(p, sent, gate), p.name
        assert gradients.counters["macs_weight"][p.name] == again.through(p, sent, gate), p.name
        state = 0 if p.source.name == "cue" else again.through(p, again.active, gate)
        assert gradients.counters["macs_state"][p.name] == state, p.name
    expected = dict.fromkeys(net.projections, 0)
    if form == "paper":
        expected |= again.recomputed(recurrent)
    assert gradients.counters["macs_recompute"] == expected


@pytest.mark.parametrize("form", FORMS)
def test_dense_recurrence_costs_what_the_formulas_say(form):
    """MACs per step of one dense recurrent layer, alpha and beta being the active fractions of its H units:

    evnn: forward 3 a H^2, dL/dy 3 b H^2, weights 3 a H^2; paper: (2 a + a^2) H^2, (2 b + a b) H^2 and
    a (b - a) H^2 for gates again, (2 a + a^2) H^2.  Here summed over steps: A and B active units.
    """
    eps = 3.6
    net = network(form, "dense")
    simulation = Simulation(net)
    log = simulation.run(cue())
    counters = Adjoint(simulation.plan, gamma=eps, eps=eps).replay(log, losses()).counters
    sent = log["hidden"].events.to_dense() != 0
    v = log["hidden"].tape[:, :, 4] - log["hidden"].thresholds
    active = sent | (np.abs(v) * eps < 1)
    # What is sent or active in the last step has no step to arrive in.
    n_sent, n_active = sent[:-1].sum(axis=-1), active[:-1].sum(axis=-1)
    if form == "evnn":
        forward, state, again = 3 * H * n_sent, 3 * H * n_active, 0 * n_sent
    else:
        forward = 2 * H * n_sent + n_sent**2
        state = 2 * H * n_active + n_sent * n_active
        again = n_sent * (n_active - n_sent)
    assert log.counters["macs"]["rec1"] == forward.sum()
    assert counters["macs_weight"]["rec1"] == forward.sum()
    assert counters["macs_state"]["rec1"] == state.sum()
    assert counters["macs_recompute"]["rec1"] == again.sum()
    assert log.counters["dense_macs"]["rec1"] == 3 * H * H * T * B


def test_carried_events_are_counted_where_they_arrive():
    """Windows of a run cost together what the run costs."""
    for form, storage in product(FORMS, STORAGE):
        whole = Simulation(network(form, storage, (1, 3))).run(cue()).counters["macs"]
        simulation = Simulation(network(form, storage, (1, 3)))
        parts = [simulation.run(cue()[a:b], carry=True).counters["macs"] for a, b in ((0, 4), (4, 5), (5, T))]
        assert {name: sum(part[name] for part in parts) for name in whole} == whole


# -- what is not counted is not read -----------------------------------------------------------------------


def thresholds():
    """Threshold 1 is never passed by evnn's state, and seldom by the paper's; those units are then silent."""
    values = np.full(H, 0.25)
    values[::3] = 1.0
    return values


def poison(projection, unit):
    """NaN in all weights of one unit's row."""
    rows = slice(unit, unit + 1)
    if projection.is_sparse:
        rows = slice(projection.indptr[unit], projection.indptr[unit + 1])
    projection.weight.values[rows] = np.nan
    return rows


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("form", "storage"), list(product(FORMS, STORAGE)))
def test_rows_of_silent_units_are_not_read(form, storage, dtype):
    threshold = thresholds()
    rows, first, silent, silent_cue = {}, None, (), ()
    for poisoned in (False, True):
        net = network(form, storage, (1, 3), threshold, dtype)
        if poisoned:
            rows = {
                (p.name, unit): poison(p, unit)
                for p in net.projections.values()
                for unit in (silent if p.source.name == "hidden" else silent_cue)
            }
        simulation = Simulation(net)
        stimulus = cue()
        stimulus[:, :, 2] = 0
        log = simulation.run(stimulus)
        # So narrow that no unit but those that fired is backward-active.
        gradients = Adjoint(simulation.plan, "rectangle", gamma=0.5, eps=1e6).replay(log, losses())
        if first is None:
            first, kept = log, gradients
            silent = np.setdiff1d(np.arange(H), log["hidden"].unit)
            silent_cue = np.setdiff1d(np.arange(K), log["cue"].unit)
            assert len(silent) >= 3
            assert 2 in silent_cue
            assert len(silent) < H
            assert gradients.counters["backward_active"]["hidden"] == log["hidden"].n_events
    assert log["hidden"].events.equal(first["hidden"].events)
    np.testing.assert_array_equal(log["answer"].state, first["answer"].state)
    np.testing.assert_array_equal(log["hidden"].state, first["hidden"].state)
    for name in kept:
        np.testing.assert_array_equal(gradients[name], kept[name], err_msg=name)
    for (name, _), part in rows.items():
        assert not gradients[f"{name}.weight"][part].any()  # exactly zero
        assert not np.signbit(gradients[f"{name}.weight"][part]).any()


@pytest.mark.parametrize(("form", "storage"), list(product(FORMS, STORAGE)))
def test_rows_of_units_that_are_not_backward_active_are_not_read(form, storage):
    """Rows are read after the run only: with the tape at hand, poison what the replay must leave alone."""
    net = network(form, storage, threshold=thresholds())
    simulation = Simulation(net)
    log = simulation.run(cue())
    adjoint = Adjoint(simulation.plan, eps=50.0)
    kept = adjoint.replay(log, losses())
    v = log["hidden"].tape[:, :, 4] - log["hidden"].thresholds
    idle = np.nonzero(~((v > 0) | (np.abs(v) * 50 < 1)).any(axis=(0, 1)))[0]
    assert len(idle) > 0
    for unit in idle:
        for name in ("rec1", "out"):
            poison(net.projections[name], unit)
    for unit in range(K):  # and no gradient at the input was asked for
        poison(net.projections["in"], unit)
    again = adjoint.replay(log, losses())
    for name in kept:
        np.testing.assert_array_equal(again[name], kept[name], err_msg=name)


def test_the_poison_works():
    """A unit that fires does spread its NaN; so the tests above would notice a read."""
    net = network("evnn", "dense")
    unit = Simulation(net).run(cue())["hidden"].unit[0]
    poison(net.projections["rec1"], unit)
    assert np.isnan(Simulation(net).run(cue())["hidden"].state).any()


def test_gradient_rows_of_silent_units_are_exactly_zero():
    for form, storage in product(FORMS, STORAGE):
        net = network(form, storage, threshold=thresholds())
        simulation = Simulation(net)
        log = simulation.run(cue())
        gradients = Adjoint(simulation.plan, "fast_sigmoid", gamma=0.9, eps=1.0).replay(log, losses())
        silent = np.setdiff1d(np.arange(H), log["hidden"].unit)
        assert len(silent) > 0
        projection = net.projections["rec1"]
        for unit in silent:
            rows = slice(unit, unit + 1)
            if storage == "csr":
                rows = slice(projection.indptr[unit], projection.indptr[unit + 1])
            assert not gradients["rec1.weight"][rows].any()
        assert gradients["rec1.weight"].any()
