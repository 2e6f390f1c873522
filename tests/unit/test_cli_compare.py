"""evsim compare: two logs."""

import json

from oracles import continuous_logs
from oracles.command_line import refused


class TestCompare:
    def test_equal_logs(self, evsim, log, continuous):
        for path in (log, continuous):
            result = evsim("compare", path, path)
            assert (result.code, result.err) == (0, "")
            assert result.out.splitlines()[-1] == "equal within 1e-09 ms and 1e-09"
            assert all(len(line) <= 80 for line in result.out.splitlines())

    def test_tolerances(self, evsim, continuous, tmp_path):
        other = continuous_logs.make_log()
        other["hidden"].time[:] += 1e-6
        other["answer"].state[0, 0, 0] += 1e-3
        other.save(tmp_path / "other.h5")
        result = evsim("compare", continuous, "other.h5")
        assert (result.code, result.err) == (1, "")
        lines = result.out.splitlines()
        counts, errors = (line.split() for line in lines if line.startswith("hidden "))
        assert counts == ["hidden", "20", "20", "0", "20", "0", "0"]
        assert errors[:5] == ["hidden", "3", "1.0e-06", "0.0e+00", "0.0e+00"]
        assert 0 < float(errors[5]) < 1e-2
        (row,) = (line.split() for line in lines if line.startswith("answer "))
        assert row == ["answer", "2", "-", "-", "1.0e-03", "-"]
        found = json.loads(evsim("compare", continuous, "other.h5", "--json").out)
        assert (found["equal"], found["tau_ms"]) == (False, 10.0)
        assert found["populations"]["hidden"]["n_moved"] == 20
        assert evsim("compare", continuous, "other.h5", "--start", "13.2", "--stop", "13.2").code == 0
        assert any(line.startswith("hidden: unit ") and line.endswith("1e-06 ms apart") for line in lines)
        assert lines[-1] == "NOT equal within 1e-09 ms and 1e-09"
        assert evsim("compare", continuous, "other.h5", "--time-tolerance", "2e-6").code == 1
        allowed = ["--time-tolerance", "2e-6", "--tolerance", "2e-3"]
        assert evsim("compare", continuous, "other.h5", *allowed).code == 0

    def test_what_cannot_be_compared(self, evsim, log, continuous, tmp_path):
        refused(evsim("compare", log, continuous), "units", "compare runs of one network")
        refused(evsim("compare", log, "none.h5"), "none.h5")
        refused(evsim("compare", log), "second", "see evsim compare --help")
        refused(evsim("compare", log, log, "--time-tolerance", "-1"), "--time-tolerance")
