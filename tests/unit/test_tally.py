"""Tallies of training: sums of losses, events and operations, and targets that ask nothing."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest

from evsim.adjoint import Adjoint
from evsim.loss import cross_entropy, mean_squared_error
from evsim.optimizer import SGD, Adam
from evsim.simulation import Simulation
from evsim.training import Tally, Trainer, fit
from oracles.small_trainers import (
    B,
    C,
    H,
    K,
    T,
    bits,
    delta_network,
    line_trials,
    make,
    mean_nll,
    network,
    trials,
    values,
)


def sums(tally):
    """What is counted in a tally, not measured and not rounded."""
    return {key: deepcopy(value) for key, value in vars(tally).items() if key not in ("seconds", "loss")}


class TestTallySum:
    @pytest.mark.parametrize("learn", [True, False])
    @pytest.mark.parametrize("make_network", [network, delta_network])
    def test_is_the_tally_of_both_lists_of_trials(self, learn, make_network):
        """Also of the one that was empty."""
        net = make_network()
        trainer = Trainer(net, "answer", SGD(net.parameters(), lr=0.0))
        tell = trainer.learn if learn else trainer.evaluate
        all_of_them = list(line_trials(0) if make_network is delta_network else trials(0, carry="never"))
        total = Tally()
        for part in ([], all_of_them[:2], [], all_of_them[2:]):
            total += tell(part)
        whole = tell(all_of_them)
        assert total.trials == whole.trials == 5
        assert total.loss == pytest.approx(whole.loss, rel=1e-12)
        assert sums(total) == sums(whole)
        assert set(total.seconds) == set(whole.seconds)

    def test_adds_the_seconds(self):
        total = Tally(seconds={"forward": 1.0})
        total += Tally(seconds={"forward": 2.0, "backward": 0.5})
        assert total.seconds == {"forward": 3.0, "backward": 0.5}

    def test_leaves_what_is_added_alone(self):
        """A sum that starts empty must not share dicts with its first part."""
        part = make().learn(trials(0, 2))
        before = sums(part)
        total = Tally()
        total += part
        total += part
        assert sums(part) == before
        assert total.macs["state"] == {name: 2 * macs for name, macs in part.macs["state"].items()}

    def test_counts_trials(self):
        trainer, ticks = make(), []
        assert trainer.learn(trials(0, 4), lambda: ticks.append(1)).trials == len(ticks) == 4
        assert trainer.evaluate(trials(0, 3)).trials == 3
        assert Tally().trials == 0


class TestTally:
    @pytest.mark.parametrize("learn", [True, False])
    def test_sums_are_those_of_the_logs(self, learn):
        net = network()
        trainer = Trainer(net, "answer", SGD(net.parameters(), lr=0.0), gamma=0.4)
        tally = trainer.learn(trials(0)) if learn else trainer.evaluate(trials(0))
        simulation, adjoint = Simulation(net), Adjoint(Simulation(net).plan, gamma=0.4)
        nll, right, targets = 0.0, 0, 0
        events, macs, dense = {}, {"forward": {}, "state": {}, "weight": {}}, {}
        active = {"one": 0, "two": 0}
        for trial in trials(0):
            log = simulation.run(trial.stimulus, carry=trial.carry)
            state = log["answer"].state
            mean, number = mean_nll(state, trial.target)
            nll, targets = nll + mean * number, targets + number
            asked = trial.target >= 0
            right += np.count_nonzero((state.argmax(-1) == trial.target) & asked)
            backward = adjoint.replay(log, {"answer": cross_entropy(state, trial.target)[1]}).counters
            for name in ("cue", "one", "two"):
                events[name] = events.get(name, 0) + len(log[name].unit)
            for name in active:
                active[name] += backward["backward_active"][name]
            for name, p in net.projections.items():
                for kind, found in (
                    ("forward", log.counters["macs"]),
                    ("state", backward["macs_state"]),
                    ("weight", backward["macs_weight"]),
                ):
                    macs[kind][name] = macs[kind].get(name, 0) + found[name]
                dense[name] = (
                    dense.get(name, 0)
                    + p.source.n_units * 3 ** (name != "two->answer") * p.target.n_units * T * B
                )
        assert tally.loss == pytest.approx(nll, rel=1e-5)
        assert (tally.correct, tally.targets) == (right, targets) == (right, 5 * 2 * B)
        assert tally.mean_loss == pytest.approx(nll / targets, rel=1e-5)
        assert tally.accuracy == right / targets
        assert tally.lane_steps == 5 * T * B
        assert tally.events == events
        assert tally.unit_steps == {"cue": K * 5 * T * B, "one": H * 5 * T * B, "two": 5 * 5 * T * B}
        assert tally.macs == (macs if learn else {"forward": macs["forward"]})
        assert tally.dense_macs == dense
        assert tally.backward_active == (active if learn else {})
        assert tally.activity(["one", "two"]) == (events["one"] + events["two"]) / ((H + 5) * 5 * T * B)
        assert tally.backward_activity() == (sum(active.values()) / ((H + 5) * 5 * T * B) if learn else 0)
        assert set(tally.seconds) == ({"forward", "backward", "other"} if learn else {"forward"})
        assert all(seconds > 0 for seconds in tally.seconds.values())
        assert tally.summary()["mean_loss"] == tally.mean_loss

    def test_lengths(self):
        lengths = np.array([T, 2, 4, 1])
        trial = replace(next(trials(0)), lengths=lengths)
        tally = make().evaluate([trial])
        assert tally.lane_steps == lengths.sum()
        assert tally.unit_steps["one"] == H * lengths.sum()

    def test_of_nothing(self):
        tally = make().learn([])
        assert (tally.mean_loss, tally.accuracy, tally.backward_activity()) == (0, None, 0)
        assert Tally().activity([]) == 0


class TestTargets:
    def test_minus_one_is_ignored(self):
        """The loss is that of the steps asked for, whatever the others hold."""
        trainer, trial = make(), next(trials(0))
        log = Simulation(trainer.network).run(trial.stimulus)
        mean, number = mean_nll(log["answer"].state[-2:], trial.target[-2:])
        tally = trainer.evaluate([trial])
        assert tally.targets == number == 2 * B
        assert tally.mean_loss == pytest.approx(mean, rel=1e-5)

    def test_trials_that_ask_nothing_teach_nothing(self):
        trainer = make(SGD)
        before = bits(values(trainer))
        silent = [replace(trial, target=np.full((T, B), -1)) for trial in trials(0)]
        tally = trainer.learn(silent)
        assert (tally.targets, tally.loss, tally.correct) == (0, 0, 0)
        assert bits(values(trainer)) == before

    @pytest.mark.parametrize("kind", ["float", "int"])
    def test_mean_squared_error(self, kind):
        rng, trial = np.random.default_rng(0), next(trials(0))
        target = rng.integers(0, 3, (T, B, C)) if kind == "int" else rng.normal(size=(T, B, C))
        if kind == "float":
            target[rng.random(target.shape) < 0.3] = np.nan
        trainer = make(Adam, loss=mean_squared_error)
        trial = replace(trial, target=target)
        state = Simulation(trainer.network).run(trial.stimulus)["answer"].state
        there = [at for at in np.ndindex(target.shape) if not np.isnan(target[at])]
        squares = sum((float(state[at]) - target[at]) ** 2 for at in there)
        first = trainer.evaluate([trial])
        assert first.targets == len(there)
        assert first.loss == pytest.approx(squares, rel=1e-5)
        assert (first.correct, first.accuracy) == (None, None)
        history = fit(trainer, lambda epoch: [trial], epochs=40)
        assert history.epochs[-1]["loss"] < 0.7 * first.mean_loss
