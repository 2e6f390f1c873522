"""evsim crosscheck: which subject is compared, and how."""

import contextlib
import sys

import pytest

from evsim.brian import checking, library, report
from evsim.brian.result import Criterion, Crosscheck
from evsim.models import EGRU, LIF, DeltaGRU, DeltaLSTM
from oracles.command_line import refused


class TestCrosscheck:
    @pytest.fixture
    def asked(self, monkeypatch):
        """What would have been compared; ``asked["good"]`` is the answer to give."""
        asked = {"good": True}

        def check(subject, **options):
            asked.update(options, subject=subject)
            criterion = Criterion("What is asked", "0.2", "0.1 or less", 0.2, 0.1, asked["good"])
            return Crosscheck(subject, options["plant"], [criterion])

        def write_report(result, folder, arguments):
            (folder / "report.html").write_text(" ".join(arguments))

        monkeypatch.setattr(checking, "check", check)
        monkeypatch.setattr(report, "write_report", write_report)
        monkeypatch.setattr(library, "quiet_brian2", contextlib.nullcontext)
        return asked

    @pytest.mark.parametrize(("good", "code"), [(True, 0), (False, 1)])
    def test_exit_code_is_the_answer(self, evsim, asked, tmp_path, good, code):
        asked["good"] = good
        result = evsim("crosscheck", "egru", "--tolerance", "1e-9", "--out", "out", "--target", "cython")
        assert (result.code, result.err) == (code, "")
        assert ("NOT all tolerances hold" in result.out) is not good
        assert (asked["tolerance"], asked["target"], asked["plant"]) == (1e-9, "cython", None)
        words = (tmp_path / "out" / "report.html").read_text()
        assert words == "crosscheck egru --tolerance 1e-9 --out out --target cython"

    @pytest.mark.parametrize(
        ("words", "kind"),
        [
            (["egru", "--form", "paper"], EGRU),
            (["lif"], LIF),
            (["delta_gru"], DeltaGRU),
            (["delta_lstm"], DeltaLSTM),
        ],
    )
    def test_all_models_take_the_same_options(self, evsim, asked, words, kind):
        options = ["--units", 3, "--steps", 40, "--layers", 2, "--delay", 4, "--seed", 5, "--out", "out"]
        assert evsim("crosscheck", *words, *options).code == 0
        subject = asked["subject"]
        network = subject.network
        assert (subject.n_steps, network.seed, network["hidden_2"].n_units) == (40, 5, 3)
        assert type(network["hidden_2"]) is kind
        assert network.projections["hidden_2->hidden_2"].delay_steps == 4

    @pytest.mark.parametrize("words", [["lif"], ["egru", "--gate", "post"]])
    def test_continuous(self, evsim, asked, words):
        assert evsim("crosscheck", *words, "--continuous", "--out", "out").code == 0
        assert asked["dts"] == [0.1, 0.05, 0.025, 0.0125, 0.00625]
        assert asked["subject"].network.continuous
        assert asked["subject"].duration == 50.0
        options = [
            "--units",
            3,
            "--duration",
            40,
            "--layers",
            2,
            "--delay",
            0.5,
            "--seed",
            5,
            "--out",
            "other",
        ]
        options += ["--dt", 0.4, "--halvings", 1]
        assert evsim("crosscheck", *words, "--continuous", *options).code == 0
        subject = asked["subject"]
        assert (asked["dts"], subject.duration, subject.network.seed) == ([0.4, 0.2], 40.0, 5)
        assert subject.network["hidden_2"].n_units == 3
        assert subject.network.projections["hidden_2->hidden_2"].delay.values == 0.5

    def test_protocols_and_planted_errors(self, evsim, asked):
        words = ["crosscheck", "credit", "--units", 4, "--plant", "hidden.threshold[1]+1e-3", "--out", "out"]
        assert evsim(*words).code == 0
        assert asked["subject"].network["hidden"].n_units == 4
        assert str(asked["plant"]) == "hidden.threshold[1]+0.001"

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["incremental_learning"], ["defines no subject", "cuba", "yin_yang"]),
            (["credit", "--continuous"], ["--continuous", "'credit' has its own kind of time"]),
            (["credit", "--layers", "2"], ["'credit'", "'layers'"]),
            (["credit", "--dt", "0.1"], ["--dt", "in steps"]),
            (["egru", "--plant", "nonsense"], ["'nonsense'", "NAME[INDEX]+SIZE"]),
            (["none.py:net"], ["none.py", "no such file"]),
            (["none.py"], ["none.py:NAME"]),
        ],
    )
    def test_what_is_refused(self, evsim, asked, words, said):
        refused(evsim("crosscheck", *words, "--out", "out"), *said)
        assert "subject" not in asked

    def test_without_brian2(self, evsim, monkeypatch, tmp_path):
        monkeypatch.setitem(sys.modules, "brian2", None)
        for model in (["egru"], ["delta_gru"], ["lif"], ["credit"], ["egru", "--continuous"]):
            refused(evsim("crosscheck", *model, "--out", "out"), "Brian2", 'pip install "evsim[brian2]"')
        assert not (tmp_path / "out").exists()
