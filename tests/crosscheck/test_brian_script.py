"""An exported script, run by Python where there is no evsim, sends the same events as the live twin."""

import subprocess
import sys

import numpy as np
import pytest
import scipy.sparse
import typer

from evsim.brian import to_brian2
from evsim.brian.script import INLINE, brian2_script
from evsim.cli import app
from evsim.errors import NetworkError
from evsim.examples import continuous_example, delta_example, egru_example, lif_example
from evsim.models import EGRU, LIF, DeltaGRU, EventSource, LeakyReadout
from evsim.network import Network

#: Runs a script as Python would, but for an import of evsim, which fails.
WITHOUT_EVSIM = """
import runpy, sys, warnings
sys.modules["evsim"] = None
warnings.filterwarnings("ignore", category=DeprecationWarning)  # pyparsing, on how Brian2 calls it
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run(path, *arguments, ok=True):
    """The output of a script, and what it saved.  A file as users of Brian2 may have it chooses numpy."""
    (path.parent / "brian_preferences").write_text("codegen.target = 'numpy'\n", encoding="ascii")
    command = [sys.executable, "-I", "-c", WITHOUT_EVSIM, path.name, "--save", "out.npz", *arguments]
    done = subprocess.run(command, cwd=path.parent, capture_output=True, text=True, timeout=300)
    assert (done.returncode == 0) == ok, done.stderr
    if not ok:
        return done.stderr
    return done.stdout, np.load(path.parent / "out.npz")


def written(script, folder):
    """The file of a script, after a look at its style."""
    path = script.save(folder / "script.py")[0]
    assert "evsim" not in [
        line.split()[1] for line in script.text.splitlines() if line[:5] in ("import", "from ")
    ]
    for arguments in (["check"], ["format", "--check"], ["format", "--check", "--isolated"]):
        command = [sys.executable, "-m", "ruff", *arguments, "--no-cache", "--line-length"]
        command.append("88" if "--isolated" in arguments else "110")
        done = subprocess.run([*command, str(path)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return path


def agree(run_of_twin, saved, dt):
    """Whether all that was saved is what the live twin did."""
    for name, events in run_of_twin.events.items():
        assert len(events) > 5
        steps = events.step if hasattr(events, "step") else np.rint(events.time / dt).astype(int) - 1
        order = np.lexsort((saved[f"{name}_unit"], saved[f"{name}_step"]))
        np.testing.assert_array_equal(saved[f"{name}_step"][order], steps)
        np.testing.assert_array_equal(saved[f"{name}_unit"][order], events.unit)
        if f"{name}_value" in saved:
            np.testing.assert_array_equal(saved[f"{name}_value"][order], events.value)


# -- scripts that are run ----------------------------------------------------------------------------------


@pytest.mark.peer
def test_egru_in_steps(brian2, tmp_path):
    net, stimulus = egru_example(n_units=7, n_inputs=4, n_steps=60, form="paper", delay=3, density=0.6)
    path = written(brian2_script(net, stimulus), tmp_path)
    twin = to_brian2(net, stimulus).run()
    printed, saved = run(path, "--plot", "raster.png")
    agree(twin, saved, 1.0)
    for name, variable in (("hidden_1", "c"), ("answer", "v")):
        np.testing.assert_array_equal(saved[f"{name}_{variable}"].T, twin.states[name])
    count = len(twin.events["hidden_1"])
    assert f"hidden_1: 7 units, {count} spikes, {count / 7 / 0.06:.2f} Hz" in printed
    assert (tmp_path / "raster.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.peer
def test_lif_in_continuous_time(brian2, tmp_path):
    """Sparse weights, delays by pair, states at the start, and arrays too large for the text."""
    rng = np.random.default_rng(2)
    net = Network(dt=None, seed=2, dtype="float64")
    net.add(EventSource(3, "lambda"))  # no name for Python
    net.add(LIF(20, "data", bias=rng.uniform(0.9, 1.8, 20), tau_m=10.0, refractory=2.0))
    weight = scipy.sparse.csr_array(np.where(rng.random((20, 20)) < 0.6, 0.05, 0.0))
    net.connect("lambda", "data", weight=0.5)
    net.connect("data", "data", weight=weight, delay=rng.uniform(0, 3, weight.nnz))
    net.connect("data", "data", weight=-0.01, port="inhibitory", name="in")
    stimulus = {"lambda": (np.arange(1.0, 28.0, 3.0), np.zeros(9, int), np.arange(9) % 3, np.ones(9))}
    initial = {"data": {"v": rng.uniform(0, 1, 20), "hold": np.where(np.arange(20) < 4, 1.5, 0.0)}}
    script = brian2_script(net, stimulus, 30.0, dt=0.05, initial=initial)
    assert min(array.size for array in script.arrays.values()) > INLINE
    path = written(script, tmp_path)
    twin = to_brian2(net, stimulus, 30.0, dt=0.05, initial=initial).run()
    agree(twin, run(path)[1], 0.05)


@pytest.mark.peer
@pytest.mark.parametrize("slots", [8, pytest.param(1, marks=pytest.mark.slow)])
def test_delta_units_in_continuous_time(brian2, tmp_path, slots):
    net, stimulus = continuous_example("delta_gru", n_units=4, duration=30.0, delay=9.0 / slots)
    options = {"dt": 0.05, "samples": [30.0]}
    path = written(brian2_script(net, stimulus, 30.0, slots=slots, **options), tmp_path)
    if slots == 1:
        assert "events on their way, of 1" in run(path, ok=False)
        return
    twin = to_brian2(net, stimulus, 30.0, slots=slots, **options).run()
    _, saved = run(path)
    agree(twin, saved, 0.05)
    # the state before the last step, in both
    assert saved["hidden_1_h"].shape == (4, 600)


@pytest.mark.peer
@pytest.mark.slow
@pytest.mark.parametrize("unit", ["delta_gru", "delta_lstm"])
def test_delta_units_in_steps(brian2, tmp_path, unit):
    """With an encoder, whose h is that of another group."""
    net, stimulus = delta_example(n_units=5, n_inputs=3, n_steps=50, unit=unit, layers=2)
    path = written(brian2_script(net, stimulus), tmp_path)
    twin = to_brian2(net, stimulus).run()
    _, saved = run(path)
    agree(twin, saved, 1.0)
    np.testing.assert_array_equal(saved["hidden_2_h"].T, twin.states["hidden_2"])


@pytest.mark.peer
@pytest.mark.slow
def test_lif_in_steps(brian2, tmp_path):
    net, stimulus = lif_example(n_units=5, n_inputs=4, n_steps=80)
    path = written(brian2_script(net, stimulus), tmp_path)
    agree(to_brian2(net, stimulus).run(), run(path)[1], 0.5)


@pytest.mark.peer
@pytest.mark.slow
@pytest.mark.parametrize("gate", ["pre", "post"])
def test_egru_in_continuous_time(brian2, tmp_path, gate):
    net, stimulus = continuous_example("egru", n_units=5, duration=30.0, delay=0.5, gate=gate)
    path = written(brian2_script(net, stimulus, 30.0, dt=0.05), tmp_path)
    agree(to_brian2(net, stimulus, 30.0, dt=0.05).run(), run(path)[1], 0.05)


# -- the text; no Brian2 needed ----------------------------------------------------------------------------


def test_names_are_names_of_python_and_differ(tmp_path):
    net = Network(dt=None, dtype="float64")
    for name in ("np", "ms", "class", "dt", "main", "events", "a_to_b", "a", "b"):
        net.add(LIF(2, name, bias=2.0))
    net.connect("a", "b")
    net.connect("class", "np", name="1->2")
    script = brian2_script(net, {}, 5.0, dt=0.1)
    compile(script.text, "script", "exec")
    defined = [line.partition(" = ")[0] for line in script.text.splitlines() if line.endswith("(")]
    assert len(set(defined)) == len(defined)
    written(script, tmp_path)


def test_a_title_may_hold_anything(tmp_path):
    net, stimulus = egru_example(n_units=2, n_inputs=2, n_steps=3)
    script = brian2_script(net, stimulus, title='A "net" in C:\\own.py \u2026')
    assert compile(script.text, "script", "exec").co_consts[0].startswith("A 'net' in C:/own.py ?, for")
    written(script, tmp_path)


def test_equal_numbers_are_one_and_zeros_none():
    net = Network(dt=None, dtype="float64")
    net.add(EGRU(300, "hidden", threshold=0.25, bias=0.5))
    net.connect("hidden", "hidden", weight=0.125)
    script = brian2_script(net, {}, 5.0, dt=0.1)
    assert script.arrays == {}
    assert "hidden.theta = 0.25" in script.text
    assert "hidden_to_hidden.connect()" in script.text
    assert "hidden_to_hidden.w_u = 0.03125" in script.text  # an event is worth the threshold
    assert "c = " not in script.text.partition("reset")[0]


def test_what_is_refused(tmp_path):
    net, stimulus = egru_example(n_units=2, n_inputs=2, n_steps=3)
    script = brian2_script(net, stimulus)
    with pytest.raises(NetworkError, match=r"does not end in \.py"):
        script.save(tmp_path / "script.txt")
    with pytest.raises(NetworkError, match="there is no folder"):
        script.save(tmp_path / "none" / "script.py")
    script.save(tmp_path / "script.py")
    with pytest.raises(NetworkError, match="is there already"):
        script.save(tmp_path / "script.py")
    script.save(tmp_path / "script.py", overwrite=True)
    with pytest.raises(NetworkError, match="starts from rest"):
        brian2_script(net, stimulus, initial={"hidden_1": {"c": 0.1}})
    timed = Network(dt=None, dtype="float64")
    timed.add(DeltaGRU(2, "hidden"))
    timed.add(LeakyReadout(2, "answer"))
    with pytest.raises(NetworkError, match="give dt, Brian2's step"):
        brian2_script(timed, {}, 3.0)
    with pytest.raises(NetworkError, match="give duration"):
        brian2_script(timed, {}, dt=0.1)
    with pytest.raises(NetworkError, match="Brian2 script: n_steps is 5 in continuous time"):
        brian2_script(timed, {}, dt=0.1, n_steps=5)
    with pytest.raises(NetworkError, match="Brian2 script: dt means something in continuous time only"):
        brian2_script(net, stimulus, dt=0.1)
    with pytest.raises(NetworkError, match=r"Brian2 script: .* not a multiple of dt"):
        brian2_script(net, stimulus, 0.75 * net.step)


# -- the command -------------------------------------------------------------------------------------------


def command(*arguments):
    """`evsim export brian2` in this process."""
    app(["export", "brian2", *map(str, arguments)], standalone_mode=False)


def test_the_command_writes_what_the_function_does(tmp_path, capsys):
    command("egru", "-o", tmp_path / "a.py", "--duration", 20, "--seed", 3)
    net, stimulus = egru_example(n_steps=20, seed=3)
    script = brian2_script(net, stimulus, title="The network 'egru'")
    assert (tmp_path / "a.py").read_text() == script.text
    stored = np.load(tmp_path / "a.npz")
    assert set(stored) == set(script.arrays)
    assert all(np.array_equal(stored[name], array) for name, array in script.arrays.items())
    assert capsys.readouterr().out.split() == [str(tmp_path / "a.py"), str(tmp_path / "a.npz")]


def test_a_duration_is_in_ms_whatever_the_step(tmp_path):
    command("lif", "-o", tmp_path / "lif.py", "--duration", 20)
    assert "defaultclock.dt = 0.5 * ms" in (tmp_path / "lif.py").read_text()
    assert "N_STEPS = 40  # 20 ms" in (tmp_path / "lif.py").read_text()
    command("lif", "--continuous", "-o", tmp_path / "timed.py", "--duration", 20)
    assert "N_STEPS = 200  # 20 ms" in (tmp_path / "timed.py").read_text()


def test_the_command_cuts_a_stimulus(tmp_path):
    (tmp_path / "own.py").write_text(
        "from evsim.examples import continuous_example, egru_example\n"
        "def timed(seed=0):\n"
        "    return *continuous_example('lif', n_units=3, duration=20.0), 20.0\n"
        "def steps(seed=0):\n"
        "    return *egru_example(n_units=3, n_steps=20), 20.0\n",
    )
    command(f"{tmp_path}/own.py:timed", "-o", tmp_path / "t.py", "--duration", 8, "--dt", 0.5)
    assert "N_STEPS = 16  # 8 ms" in (tmp_path / "t.py").read_text()
    command(f"{tmp_path}/own.py:steps", "-o", tmp_path / "s.py", "--duration", 8)
    assert "N_STEPS = 8  # 8 ms" in (tmp_path / "s.py").read_text()


def test_a_script_of_the_classic_network_reads_well(tmp_path):
    command("cuba", "-o", tmp_path / "cuba.py", "--duration", 10)
    text = (tmp_path / "cuba.py").read_text(encoding="ascii")
    for line in (
        "dv/dt = (i_e + i_i + b_v - v)/tau_m : 1 (unless refractory)",
        '    threshold="v >= theta",',
        '    reset="v = v_reset",',
        "    refractory=51 * dt,",
        "excitatory.theta = -50.0",
        '    on_pre="i_e_post += w_i_e",',
        "inhibitory_to_excitatory.w_i_i = -9.0",
        "excitatory_events = SpikeMonitor(excitatory)",
    ):
        assert line in text.splitlines(), line
    assert len(text.splitlines()) < 250


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["egru", "--duration", 1e18], "above 0 to 1e+06"),
        (["egru", "--duration", "nan"], "above 0 to 1e+06"),
        (["delayed_copy", "--duration", 1000], "the stimulus of 'delayed_copy' ends at 60 ms"),
    ],
)
def test_the_command_refuses_times_without_a_stimulus(tmp_path, words, said):
    with pytest.raises(typer.BadParameter) as refused:
        command(*words, "-o", tmp_path / "a.py")
    assert said in str(refused.value)
    assert not (tmp_path / "a.py").exists()


def test_a_network_in_continuous_time_may_run_on_after_its_stimulus(tmp_path):
    command("cuba", "-o", tmp_path / "long.py", "--duration", 2000)
    assert "# 2000 ms" in (tmp_path / "long.py").read_text()
