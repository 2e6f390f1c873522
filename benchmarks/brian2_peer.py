"""Brian2 as a contestant of cuba.py: runs in an environment of its own and answers requests.

It writes and compiles a C++ program (standalone mode, one thread, its own compiler flags), which is then
run again and again.  Times are those that Brian2 itself reports: of the loop over time steps alone, by the
processor's clock.
"""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path

import brian2 as b2
import numpy as np
from processes import serve

EQUATIONS = """
dv/dt = (i_e + i_i - (v - rest)) / tau_m : volt (unless refractory)
di_e/dt = -i_e / tau_e : volt
di_i/dt = -i_i / tau_i : volt
"""


class Peer:
    """The program of a file's network."""

    def load(self, path: str, dt: float, duration: float, folder: str) -> dict[str, str | float]:
        """Write and compile the program.

        Parameters
        ----------
        path : str
            An .npz, see cuba.py.
        dt, duration : float
            ms.
        folder : str
            Where the program goes.
        """
        with np.load(path) as file:
            case = dict(file)
        start = time.perf_counter()
        self.folder = Path(folder)
        b2.set_device("cpp_standalone", directory=folder, build_on_run=False)
        b2.defaultclock.dt = dt * b2.ms
        constants = {name: float(case[name]) * b2.ms for name in ("tau_m", "tau_e", "tau_i")}
        constants |= {name: float(case[name]) * b2.mV for name in ("threshold", "reset")}
        group = b2.NeuronGroup(
            len(case["v"]),
            EQUATIONS,
            threshold="v > threshold",
            reset="v = reset",
            refractory=float(case["refractory"]) * b2.ms,
            method="exact",
            namespace=constants | {"rest": float(case["bias"]) * b2.mV},
        )
        group.v = case["v"] * b2.mV
        senders = np.repeat(np.arange(len(case["v"])), np.diff(case["indptr"]))
        weights, parts = case["weight"][senders], []
        for target, here in (("i_e", weights > 0), ("i_i", weights < 0)):
            values = np.unique(weights[here])
            assert len(values) == 1, "one weight for all of a kind, as in Brian2's example"
            synapses = b2.Synapses(
                group, group, on_pre=f"{target} += w", namespace={"w": float(values[0]) * b2.mV}
            )
            synapses.connect(i=senders[here], j=case["indices"][here])
            parts.append(synapses)
        self.monitor = b2.SpikeMonitor(group)
        self.network = b2.Network(group, *parts, self.monitor)
        self.network.run(duration * b2.ms)
        b2.device.build(directory=folder, run=False)
        return {
            "versions": f"Brian2 {b2.__version__}, C++ standalone, dt {dt:g} ms",
            "build": time.perf_counter() - start,
        }

    def run(self, duration: float) -> float:
        """Run the program; seconds of its loop.  The duration is that of `load`."""
        b2.device.run(self.folder, with_output=False, run_args=[])
        return float(b2.device._last_run_time)

    def events(self, path: str) -> int:
        """Write time (ms) and unit of the events of the last run; their number."""
        np.savez(path, time=np.array(self.monitor.t / b2.ms), unit=np.array(self.monitor.i))
        return len(self.monitor.i)


def peak() -> int:
    """Bytes: the largest resident memory of the programs run."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    peer = Peer()
    serve(load=peer.load, run=peer.run, events=peer.events, peak=peak)
