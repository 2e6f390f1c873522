"""Where events enter a network."""

import numpy as np

from evsim.errors import NetworkError
from evsim.population import Initial, Population, Rng


class EventSource(Population):
    """Units that send the stimulus of a run: as it is, or its changes.

    Without a threshold they send whatever events the stimulus holds; a zero is no event.  With one, the
    stimulus is the value of every line at every step, and a line sends how far it has moved from what it has
    sent so far, once that reaches the threshold (`evsim.models.delta`).  What a stimulus may be is written at
    `Simulation.run`.  In continuous time there are sources without a threshold only.

    Parameters
    ----------
    n_units : int
    name : str
    threshold : number, array of shape (n_units,) or callable (generator, shape) -> array, optional
        Change that makes an event; 0 sends whatever changed.
    dense : bool
        For a stimulus in which nearly every unit sends in nearly every step, such as features.  It means what
        it means without: only, in steps, the products with dense weights are made by matrix products ahead of
        the loop over time (`evsim.dense_products` says which, and in what memory).  So results agree with
        those without to rounding only, and are the same again for the same number of lanes and of threads of
        the BLAS that NumPy is linked with (weight gradients also for the same windows).  Logs, counters of
        MACs and gradients know one event for each value that is not zero, as ever.

    Raises
    ------
    NetworkError
        ``dense`` together with ``threshold``, or in continuous time.
    """

    def __init__(self, n_units: int, name: str, threshold: Initial | None = None, dense: bool = False):
        super().__init__(n_units, name)
        if not isinstance(dense, (bool, np.bool_)):
            raise NetworkError(f"population '{name}'", f"dense is {dense!r}", "give True or False")
        if dense and threshold is not None:
            raise NetworkError(
                f"population '{name}'",
                "dense=True with a threshold: few lines change enough to send",
                "leave out one of them",
            )
        self.dense = bool(dense)
        self._threshold = threshold
        self.kernel = "source" if threshold is None else "delta_source"
        self.sends = "any" if threshold is None else "changes"
        self.states = () if threshold is None else ("sent",)

    def settle(self, continuous: bool) -> None:
        """Lines have values at steps only."""
        if continuous and self._threshold is not None:
            raise self._needs(False, "an EventSource with a threshold", "leave out threshold")
        if continuous and self.dense:
            raise self._needs(False, "dense=True", "leave out dense")
        super().settle(continuous)

    def build(self, dtype: np.dtype, rng: Rng) -> None:
        """Make ``threshold``, shape (n_units,), which is not trained, if there is one."""
        if self._threshold is not None:
            self._add("threshold", self._threshold, (self.n_units,), dtype, rng, lower=0.0, trainable=False)

    def describe(self) -> dict:
        """Type and arguments."""
        sends = {} if self._threshold is None else {"sends": "changes"}
        return super().describe() | sends | ({"dense": True} if self.dense else {})
