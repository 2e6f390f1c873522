"""NEST as a contestant of cuba.py: runs in an environment of its own and answers requests.

The neuron is `iaf_psc_exp_ps`, whose spikes have exact times off the grid; with ``C_m`` equal to tau_m a
weight in pA is the mV of the equations.  Events are recorded by a `spike_recorder`.  NEST delivers nothing
sooner than the smallest delay, which is at least its resolution: both are given.  Every run is of a new
network; only ``nest.Run`` is timed.
"""

from __future__ import annotations

from typing import Any

import nest
import numpy as np
from processes import peak, seconds, serve


class Peer:
    """The network of a file."""

    def load(
        self, path: str, resolution: float, delay: float, model: str = "iaf_psc_exp_ps"
    ) -> dict[str, str]:
        """Remember what to build.

        Parameters
        ----------
        path : str
            An .npz, see cuba.py.
        resolution, delay : float
            ms.
        model : str
            Of the neuron.
        """
        nest.verbosity = nest.VerbosityLevel.ERROR
        with np.load(path) as file:
            self.case = dict(file)
        self.resolution, self.delay, self.model = resolution, delay, model
        return {
            "versions": f"NEST {nest.__version__}, {model}, resolution {resolution:g} ms, delay {delay:g} ms"
        }

    def run(self, duration: float) -> float:
        """Build the network and run it for ``duration`` ms; seconds of the run alone."""
        case = self.case
        nest.ResetKernel()
        nest.resolution, nest.local_num_threads = self.resolution, 1
        n = len(case["v"])
        cells = nest.Create(
            self.model,
            n,
            {
                "C_m": float(case["tau_m"]),
                "tau_m": float(case["tau_m"]),
                "tau_syn_ex": float(case["tau_e"]),
                "tau_syn_in": float(case["tau_i"]),
                "E_L": float(case["bias"]),
                "V_th": float(case["threshold"]),
                "V_reset": float(case["reset"]),
                "t_ref": float(case["refractory"]),
            },
        )
        cells.V_m = case["v"]
        ids = np.array(cells.tolist())
        senders = np.repeat(np.arange(n), np.diff(case["indptr"]))
        nest.Connect(
            ids[senders],
            ids[case["indices"]],
            "one_to_one",
            {
                "synapse_model": "static_synapse",
                "weight": case["weight"][senders],
                "delay": np.full(len(senders), self.delay),
            },
        )
        self.recorder = nest.Create("spike_recorder")
        nest.Connect(cells, self.recorder)
        nest.Prepare()
        taken = seconds(lambda: nest.Run(duration))
        nest.Cleanup()
        self.first = ids[0]
        return taken

    def events(self, path: str) -> int:
        """Write time and unit of the events of the last run; their number."""
        found: dict[str, Any] = self.recorder.get("events")
        np.savez(path, time=found["times"], unit=np.asarray(found["senders"]) - self.first)
        return len(found["times"])


if __name__ == "__main__":
    peer = Peer()
    serve(load=peer.load, run=peer.run, events=peer.events, peak=peak)
