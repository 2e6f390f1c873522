"""Operations by projection: counted again from the events, and closed forms of what the papers count."""

import io
import json
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from rich.console import Console

from evsim.adjoint import Adjoint
from evsim.errors import NetworkError, ParameterError
from evsim.models import EGRU, EventSource, LeakyReadout
from evsim.network import Network
from evsim.operations import dense_operations, operations, operations_table, total, unit_events
from evsim.optimizer import Adam
from evsim.protocols.delayed_copy import DelayedCopy
from evsim.pruning import prune
from evsim.simulation import Simulation
from evsim.training import Tally, Trainer
from oracles import pruning_cases
from oracles.pruning_cases import refused
from oracles.random_networks import recipes

K, H, T, B = 6, 20, 40, 3


def network(form="evnn", dtype="float64", **weights):
    """cue -> hidden, hidden -> hidden: weights by the source's name, or random ones."""
    rng = np.random.default_rng(3)
    net = Network(dtype=dtype)
    net.add(EventSource(K, "cue"))
    net.add(EGRU(H, "hidden", form=form, threshold=0.1, bias=rng.normal(0.2, 0.5, 3 * H)))
    for name, rows in (("cue", K), ("hidden", H)):
        net.connect(name, "hidden", weights.get(name, rng.normal(0, 1.5 / np.sqrt(rows), (rows, 3 * H))))
    return net


def cue(rate=0.4, n_steps=T):
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1.5, (n_steps, B, K))
    return np.where(rng.random(x.shape) < rate, x, 0)


def tally_of(log, gradients=None):
    """What a trainer sums up, of one run."""
    steps = log.counters["lane_steps"]
    tally = Tally(
        lane_steps=steps,
        events=dict(log.counters["events"]),
        unit_steps={name: log[name].n_units * steps for name in log.counters["events"]},
        macs={"forward": log.counters["macs"]},
    )
    if gradients is not None:
        tally.backward_active = dict(gradients.counters["backward_active"])
        tally.macs |= {kind: gradients.counters[f"macs_{kind}"] for kind in ("state", "weight")}
    return tally


def run(net, x):
    simulation = Simulation(net, threads=1)
    return simulation, simulation.run(x)


def by_name(rows):
    return {row.projection: row for row in rows}


# -- counted again ------------------------------------------------------------------------------------------


@given(recipes())
@settings(max_examples=60, deadline=None)
def test_random_networks_counted_again_from_the_events(recipe):
    net = recipe.build()
    _, log = run(net, recipe.stimulus())
    steps, lanes = recipe.n_steps, recipe.n_lanes
    for row in operations(net, tally_of(log)):
        p = net.projections[row.projection]
        active = log[row.source].events.to_dense() != 0
        there = p.to_dense() != 0
        touched = 0
        for step in range(steps - p.delay_steps):
            for lane in range(lanes):
                for unit in np.flatnonzero(active[step, lane]):
                    touched += int(there[unit].sum())
        share = active.mean()
        if p.target.kernel == "egru_paper" and p.port == "recurrent":
            others = (log[row.target].events.to_dense() != 0).mean()
            share = share * (2 + others) / 3
            assert row.macs * steps * lanes <= touched  # the reset gate of fewer targets
        else:
            assert row.macs * steps * lanes == pytest.approx(touched, rel=1e-12)
        assert (row.places, row.dense_macs) == (there.size, there.size)
        assert row.nonzeros == row.by_weights == there.sum()
        assert row.activity == pytest.approx(active.mean(), rel=1e-12)
        assert row.by_activity == pytest.approx(share * there.size, rel=1e-12, abs=1e-12)
        assert row.predicted == pytest.approx(share * there.sum(), rel=1e-12, abs=1e-12)


def test_the_deviation_is_the_covariance_of_activity_and_kept_weights():
    """sum_k a_k n_k = K (mean a mean n + cov(a, n)), over the rows k."""
    net = prune(network(), 0.8, scope="global")
    _, log = run(net, cue())
    found = by_name(operations(net, tally_of(log), sent=unit_events(log)))["cue->hidden"]
    a = (log["cue"].events.to_dense() != 0).mean(axis=(0, 1))
    n = (net.projections["cue->hidden"].to_dense() != 0).sum(axis=1)
    assert np.ptp(n) > 0
    covariance = np.mean(a * n) - a.mean() * n.mean()
    assert found.macs == pytest.approx(K * (a.mean() * n.mean() + covariance), rel=1e-12)
    assert found.deviation == pytest.approx(covariance / (a.mean() * n.mean()), rel=1e-9)
    assert found.correlation == pytest.approx(covariance / (a.std() * n.std()), rel=1e-9)


@pytest.mark.parametrize(("busy", "sign"), [([0, 1], 1), ([4, 5], -1)])
def test_rows_that_keep_more_weights_and_are_active_more(busy, sign):
    weights = np.ones((K, 3 * H))
    weights[2:] *= np.random.default_rng(1).random((K - 2, 3 * H)) < 0.2
    weights[2:, 0] = 1
    net = prune(network(cue=weights), 0.5, "cue->hidden")
    x = np.zeros((T, 1, K))
    x[:, :, busy] = 1
    _, log = run(net, x)
    row = by_name(operations(net, tally_of(log), sent=unit_events(log)))["cue->hidden"]
    assert row.activity == pytest.approx(2 / K)
    assert sign * row.deviation > 0.2
    assert sign * row.correlation > 0.2


def test_without_spread_there_is_no_correlation():
    net = network()
    _, log = run(net, cue())
    assert [row.correlation for row in operations(net, tally_of(log), sent=unit_events(log))] == [None, None]
    assert [row.correlation for row in operations(net, tally_of(log), sent={})] == [None, None]


# -- closed forms -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["evnn", "paper"])
def test_passes_of_a_dense_layer_are_predicted_by_the_formulas(form):
    """evnn: 3 a H^2, 3 b H^2, 3 a H^2; paper: (2 a + a^2) H^2, (2 b + a b) H^2, (2 a + a^2) H^2."""
    net, rng = network(form), np.random.default_rng(5)
    simulation, log = run(net, cue())
    losses = {"hidden.y": rng.normal(size=(T, B, H))}
    gradients = Adjoint(simulation.plan, eps=3.6).replay(log, losses)
    tally = tally_of(log, gradients)
    a, b = log["hidden"].activity, gradients.counters["beta"]["hidden"]
    assert 0.05 < a < b < 0.95
    one, other = (3 * a, 3 * b) if form == "evnn" else (2 * a + a**2, 2 * b + a * b)
    for kind, wanted in (("forward", one), ("state", other), ("weight", one)):
        rows = by_name(operations(net, tally, kind=kind))
        row = rows["hidden->hidden"]
        assert row.activity == pytest.approx(b if kind == "state" else a, rel=1e-12)
        assert row.predicted == row.by_activity == pytest.approx(wanted * H**2, rel=1e-12)
        assert row.dense_macs == row.by_weights == 3 * H * H
        assert row.macs == tally.macs[kind]["hidden->hidden"] / (T * B)
        # a source of events is asked for no gradient
        assert rows["cue->hidden"].dense_macs == (0 if kind == "state" else 3 * K * H)
    assert rows["cue->hidden"].deviation == pytest.approx(0, abs=1e-12)  # all rows are as long, and no delay


def test_dense_networks_of_the_papers():
    """MACs per token, from sizes: EvNN's language model, and AWD-LSTM."""
    gru = dense_operations([750, 1350, 1350, 750])
    assert total(gru).macs == 3 * (750 * 1350 + 1350**2 + 2 * 1350**2 + 1350 * 750 + 750**2) == 24_165_000
    lstm = total(dense_operations([400, 1150, 1150, 400], "LSTM"))
    assert lstm.macs == lstm.dense_macs == lstm.places == 20_190_000
    assert (lstm.factor, lstm.density, lstm.activity) == (1, 1, 1)
    assert [row.projection for row in gru[:3]] == ["input->layer1", "layer1->layer1", "layer1->layer2"]
    refused(lambda: dense_operations([3], "GRU"), ParameterError, "1 sizes")
    refused(lambda: dense_operations([3, 4], "RNN"), ParameterError, "RNN", "LSTM")


def test_the_total_sums_each_population_once():
    rows = dense_operations([5, 7, 2])
    whole = total(rows)
    assert (whole.n_source, whole.n_target) == (5 + 7 + 2, 7 + 2)
    assert whole.places == 3 * (5 * 7 + 7 * 7 + 7 * 2 + 2 * 2)
    refused(lambda: total([]), ParameterError, "no projections")


# -- tables instead of products -----------------------------------------------------------------------------


def tokens(n_words=30):
    net = Network(dtype="float64")
    net.add(EventSource(n_words, "tokens"))
    net.add(EGRU(H, "hidden", threshold=0.1))
    net.connect("tokens", "hidden", "glorot")
    net.connect("hidden", "hidden", "orthogonal")
    return net


def test_one_row_of_a_table_per_token():
    """The events of a source of tokens are a look-up already; of an active source the product is one."""
    net = tokens()
    _, log = run(net, np.random.default_rng(0).integers(0, 30, (T, B)))
    plain, looked = (by_name(operations(net, tally_of(log), names)) for names in ((), "tokens->*"))
    assert plain["tokens->hidden"].macs == 3 * H
    assert plain["tokens->hidden"].dense_macs == 30 * 3 * H
    row = looked["tokens->hidden"]
    assert (row.macs, row.dense_macs, row.predicted, row.places) == (3 * H, 3 * H, 3 * H, 0)
    assert row.looked_up
    assert looked["hidden->hidden"] == plain["hidden->hidden"]
    net = network()
    _, log = run(net, cue(rate=1.0))
    plain, looked = (by_name(operations(net, tally_of(log), names)) for names in ((), ["cue->hidden"]))
    assert plain["cue->hidden"].macs == 3 * K * H
    row = looked["cue->hidden"]
    assert (row.macs, row.dense_macs, row.by_activity, row.by_weights) == (3 * H, 3 * H, 3 * H, 3 * H)
    whole = total(looked.values())
    assert (whole.places, whole.dense_macs) == (3 * H * H, 3 * H * H + 3 * H)


def test_a_token_source_that_is_silent_now_and_then_reads_no_row():
    net, words = tokens(), np.zeros((T, 1), int)
    words[::2] = -1
    _, log = run(net, words)
    row = operations(net, tally_of(log), "tokens->*")[0]
    assert row.macs == row.dense_macs == 3 * H / 2


# -- of a trainer, and errors -------------------------------------------------------------------------------


def test_of_a_trainer_that_learned():
    protocol = DelayedCopy(n_symbols=4, delay=4, batch_size=4, seed=0)
    net = Network(seed=1)
    net.add(EventSource(protocol.n_inputs, "cue"))
    net.add(EGRU(16, "hidden", threshold=0.05))
    net.add(LeakyReadout(protocol.n_outputs, "answer", tau=3.0))
    for source, target in (("cue", "hidden"), ("hidden", "hidden"), ("hidden", "answer")):
        net.connect(source, target)
    small = prune(net, 0.5)
    trainer = Trainer(small, "answer", Adam(small.parameters(), lr=1e-3))
    tally = trainer.learn(islice(protocol, 2))
    for kind in ("forward", "state", "weight"):
        rows = operations(small, tally, kind=kind)
        whole = total(rows)
        assert whole.macs == pytest.approx(sum(tally.macs[kind].values()) / tally.lane_steps, rel=1e-12)
        assert whole.sparse
        assert json.loads(json.dumps([row.summary() for row in [*rows, whole]]))
    # the tally's own dense count knows stored weights only
    assert sum(tally.dense_macs.values()) < tally.lane_steps * total(operations(small, tally)).dense_macs


def test_what_is_refused():
    net = network()
    _, log = run(net, cue())
    tally = tally_of(log)
    refused(lambda: operations(net, Tally()), ParameterError, "no steps")
    refused(lambda: operations(net, tally, kind="state"), ParameterError, "'state'", "Trainer.learn")
    refused(lambda: operations(net, tally, kind="back"), ParameterError, "'back'")
    refused(lambda: operations(net, tally, "x->*"), NetworkError, "x->*", "cue->hidden")
    refused(lambda: operations(tokens(), tally), NetworkError, "tokens->hidden", "cue->hidden")
    refused(lambda: operations(net, tally, sent={"cue": [1, 2]}), ParameterError, "(2,)", f"({K},)")
    masked = network()
    weight = masked.projections["hidden->hidden"].weight
    weight.assign(np.where(np.arange(3 * H) % 5 == 0, weight.values, 0))
    refused(lambda: operations(masked, tally), NetworkError, "hidden->hidden", "80 %", "sparsified")
    tally.macs["weight"] = dict.fromkeys(tally.macs["forward"], 10**6)
    refused(lambda: operations(net, tally, "cue->*", kind="weight"), ParameterError, "cue->hidden", "weight")


def test_a_network_that_does_nothing():
    net = pruning_cases.network(hidden=0.0)
    _, log = run(net, np.zeros((5, 1, pruning_cases.K)))
    rows = by_name(operations(net, tally_of(log), sent=unit_events(log)))
    row = rows["hidden->hidden"]
    assert (row.macs, row.nonzeros, row.factor, row.deviation, row.correlation) == (0, 0, None, None, None)
    assert row.dense_macs == 3 * pruning_cases.H**2


def test_the_table_fits_the_terminal():
    net = tokens()
    _, log = run(net, np.zeros((T, 1), int))
    console = Console(width=80, file=io.StringIO())
    console.print(operations_table(operations(net, tally_of(log), "tokens->*")))
    text = console.file.getvalue()
    assert [line.split()[0] for line in text.splitlines() if line.strip()][-4:] == [
        "tokens->hidden",
        "(tabulated)",
        "hidden->hidden",
        "total",
    ]
    assert max(map(len, text.splitlines())) <= 80
