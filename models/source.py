"""Where events enter a network."""

import numpy as np

from evsim.population import Population


class EventSource(Population):
    """Units that send whatever events the stimulus of a run holds for them.

    A zero is no event.  What a stimulus may be is written at `Simulation.run`.

    Parameters
    ----------
    n_units : int
    name : str
    """

    kernel = "source"

    def build(self, dtype: np.dtype, rng: np.random.Generator) -> None:
        """Nothing to make: a source has no parameters."""
