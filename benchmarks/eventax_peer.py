"""eventax as a contestant of continuous.py: runs in an environment of its own and answers requests.

How eventax 0.1.0 is used:

- one `EvNN` of its `EGRU`, float32, with its defaults: Euler with a constant step, Newton with tolerances
  of 1e-2, and for gradients the checkpointed adjoint (``adjoint="checkpoint"``) or its `EventPropAdjoint`
  (``"eventprop"``);
- all-to-all, also from the inputs, which needs an explicit mask (without one, more than one input fails);
- its EGRU sends 1 per event whatever the threshold is, lets the reset gate of the receiving unit act on
  what arrives, input included, and starts with all states at 0;
- forward is ``record``; the gradient is that of the sum of c at the horizon, from ``state_at_t``, with
  respect to all weights and biases. Both are compiled ahead; compile time is told apart.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from eventax.adjoint import EventPropAdjoint
from eventax.evnn import EvNN
from eventax.neuron_models import EGRU
from processes import peak, seconds, serve

NAMES = ("W_u", "W_r", "W_z", "b_u", "b_r", "b_z")


class Peer:
    """The network of a file, and its compiled programs."""

    def load(self, path: str, step: float, max_events: int, adjoint: str = "checkpoint") -> dict[str, Any]:
        """Build the network.

        Parameters
        ----------
        path : str
            An .npz, beside an .npy of the same name: see continuous.py.
        step : float
            Of Euler, ms.
        max_events : int
            At least inputs + events + 2; it limits eventax's loop.
        adjoint : {"checkpoint", "eventprop"}
        """
        with np.load(path) as file:
            case = dict(file)
        k, n = case["input"].shape[0], case["bias"].shape[0] // 3
        net = EvNN(
            EGRU,
            n_neurons=n,
            max_solver_time=float(case["horizon"]),
            in_size=k,
            key=jax.random.PRNGKey(0),
            wmask=jnp.ones((n + k, n)),
            input_neurons=jnp.ones(n),
            output_neurons=jnp.ones(n),
            max_event_steps=max_events,
            solver_stepsize=step,
            adjoint=EventPropAdjoint() if adjoint == "eventprop" else diffrax.RecursiveCheckpointAdjoint(),
            tsyn=float(case["tau_s"]),
            tmem=float(case["tau_m"]),
            thresh=float(case["threshold"]),
        )
        recurrent, lines = Path(path).with_suffix(".npy"), case["input"].reshape(k, 3, n)
        values = [jnp.asarray(_weights(recurrent, lines, gate)) for gate in range(3)]
        values += [jnp.asarray(bias) for bias in case["bias"].reshape(3, n)]
        self.net = eqx.tree_at(lambda net: [getattr(net.neuron_model, name) for name in NAMES], net, values)
        self.spikes = jnp.asarray(_by_line(case["time"], case["line"], k))
        self.horizon = jnp.asarray([float(case["horizon"])], jnp.float32)
        return {
            "versions": f"JAX {jax.__version__}, diffrax {diffrax.__version__}",
            "devices": len(jax.devices()),
        }

    def compile(self, mode: str) -> float:
        """Seconds that the compilation of ``mode`` took: "forward" or "gradient"."""

        def loss(net: EvNN, spikes: jax.Array, horizon: jax.Array) -> jax.Array:
            return net.state_at_t(spikes, horizon)[:, 0, 0].sum()

        def compile_forward() -> None:
            run = eqx.filter_jit(lambda net, spikes: net.record(spikes))
            self.forward_program = run.lower(self.net, self.spikes).compile()

        def compile_gradient() -> None:
            run = eqx.filter_jit(eqx.filter_value_and_grad(loss))
            self.gradient_program = run.lower(self.net, self.spikes, self.horizon).compile()

        return seconds(compile_forward if mode == "forward" else compile_gradient)

    def forward(self) -> float:
        """Seconds of one run."""
        return self._time(lambda: self.forward_program(self.net, self.spikes))

    def gradient(self) -> float:
        """Seconds of one loss and its gradient."""
        return self._time(lambda: self.gradient_program(self.net, self.spikes, self.horizon))

    def _time(self, call: Callable[[], Any]) -> float:
        def run() -> None:
            self.last = None  # so that there is never a second one
            self.last = jax.block_until_ready(call())

        return seconds(run)

    def events(self, path: str) -> int:
        """Write time and unit of the events of the last forward run; their number."""
        times, units, _ = (np.asarray(a) for a in self.last)
        found = np.isfinite(times)
        np.savez(path, time=times[found].astype(float), unit=units[found].astype(int))
        return int(found.sum())

    def gradients(self, path: str) -> float:
        """Write the last gradient, laid out as the file of the network; the loss."""
        loss, gradient = self.last
        n = self.net.n_neurons
        values = [np.asarray(getattr(gradient.neuron_model, name)) for name in NAMES]
        weights = np.stack(values[:3], 1).reshape(-1, 3 * n)
        np.savez(path, recurrent=weights[:n], input=weights[n:], bias=np.concatenate(values[3:]))
        return float(loss)


def _weights(recurrent: Path, lines: np.ndarray, gate: int) -> np.ndarray:
    """Of one gate: from units, then from lines.

    The file is mapped anew for each stretch of rows, so that what has been read does not stay in memory.
    """
    k, _, n = lines.shape
    weights = np.empty((n + k, n), np.float32)
    for first in range(0, n, 256):
        rows = np.load(recurrent, mmap_mode="r")[first : first + 256].reshape(-1, 3, n)
        weights[first : first + len(rows)] = rows[:, gate]
    weights[n:] = lines[:, gate]
    return weights


def _by_line(time: np.ndarray, line: np.ndarray, n_lines: int) -> np.ndarray:
    """Input events as eventax takes them: (lines, most events of a line), filled with infinity."""
    counts = np.bincount(line, minlength=n_lines)
    table = np.full((n_lines, max(1, counts.max())), np.inf, np.float32)
    for k in range(n_lines):
        table[k, : counts[k]] = time[line == k]
    return table


if __name__ == "__main__":
    peer = Peer()
    serve(
        load=peer.load,
        compile=peer.compile,
        forward=peer.forward,
        gradient=peer.gradient,
        events=peer.events,
        gradients=peer.gradients,
        peak=peak,
    )
