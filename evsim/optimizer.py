"""Optimisers: steps on named parameters, in place, clipped into each parameter's range."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from evsim.core.adam import Moments, sum_of_squares
from evsim.errors import GradientError, ParameterError
from evsim.parameter import Parameter

#: What names of masks begin with in `Optimizer.state`.
MASK = "mask/"


class Pruning(Protocol):
    """What takes weights away between steps, such as `evsim.pruning.Pruner`."""

    def update(self, optimizer: Optimizer) -> None:
        """Called after each step: the place to call `Optimizer.keep`."""

    def finished(self, n_steps: int) -> bool:
        """Whether nothing more is taken away after so many steps."""


class _Mask:
    """A mask in the bits of the values it is for: clearing bits is four times as fast as choosing by bool.

    Attributes
    ----------
    kept : ndarray of bool
    """

    def __init__(self, kept: NDArray[np.bool_], dtype: np.dtype):
        self.kept, self._integer = kept, np.dtype(f"i{dtype.itemsize}")
        self._bits = -kept.astype(self._integer)  # all ones, or none
        self._gradient = np.empty(kept.shape, dtype)

    def clear(self, values: NDArray) -> None:
        """Make values 0 that are not kept."""
        bits = values.view(self._integer)
        np.bitwise_and(bits, self._bits, out=bits)

    def of(self, gradient: NDArray) -> NDArray:
        """A gradient with zeros where values are not kept, in an array that the next call reuses."""
        np.copyto(self._gradient, gradient)
        self.clear(self._gradient)
        return self._gradient


class Optimizer(ABC):
    """Moves the trainable ones among ``parameters`` against their gradients.

    Parameters
    ----------
    parameters : mapping of str to Parameter
        As `Network.parameters` gives them.
    lr : float
        Learning rate; may be changed between steps.
    clip : float, optional
        Largest Euclidean norm of all gradients together; larger ones are scaled down to it.

    Attributes
    ----------
    n_steps : int
        Steps taken.
    pruning : Pruning or None
        Called after each step.
    """

    #: Names of the arrays kept per parameter.
    slots: tuple[str, ...] = ()

    def __init__(self, parameters: Mapping[str, Parameter], lr: float, clip: float | None = None):
        if not (np.isfinite(lr) and lr >= 0):
            raise ParameterError("optimizer", f"lr is {lr!r}", "give a number, 0 or more")
        if clip is not None and not clip > 0:
            raise ParameterError("optimizer", f"clip is {clip!r}", "give a positive norm, or None")
        self.parameters = {name: p for name, p in parameters.items() if p.trainable}
        for name, parameter in self.parameters.items():
            if parameter.read_only:
                raise ParameterError(
                    "optimizer",
                    f"parameter '{name}' is read-only, as dense weights of a narrowed network are",
                    "train the network it was made from, and narrow that",
                )
        self.lr, self.clip, self.n_steps = float(lr), clip, 0
        self._masked: dict[str, _Mask] = {}
        self._limited = [p for p in self.parameters.values() if p.lower > -math.inf or p.upper < math.inf]
        self.pruning: Pruning | None = None
        self._kept = {
            slot: {name: np.zeros_like(p.values) for name, p in self.parameters.items()}
            for slot in self.slots
        }

    def step(self, gradients: Mapping[str, NDArray]) -> float:
        """Take one step; returns the norm of the gradients before clipping.

        Raises
        ------
        GradientError
            A gradient that is missing or not finite; then no parameter was moved.
        """
        given, masked = [], self._masked
        for name, parameter in self.parameters.items():
            gradient, values = gradients.get(name), parameter.values
            if gradient is None:
                raise GradientError(
                    f"parameter '{name}'", "has no gradient", f"give one for each of {list(self.parameters)}"
                )
            if gradient.shape != values.shape:
                raise GradientError(
                    f"gradient of '{name}'", f"has shape {gradient.shape}", f"give {values.shape}"
                )
            given.append(masked[name].of(gradient) if name in masked else _floats(gradient, values.dtype))
        norm = global_norm(given)
        if not math.isfinite(norm):
            wrong = next((n for n in self.parameters if not np.isfinite(gradients[n]).all()), "all together")
            raise GradientError(
                f"gradient of '{wrong}'", "is not finite", "use a smaller learning rate, or clip="
            )
        self.n_steps += 1
        self._move(given, self.clip / norm if self.clip is not None and norm > self.clip else 1.0)
        for parameter in self._limited:
            np.clip(parameter.values, parameter.lower, parameter.upper, out=parameter.values)
        for name, held in masked.items():  # also where someone has written into them since
            held.clear(self.parameters[name].values)
        if self.pruning is not None:
            self.pruning.update(self)
        return norm

    @property
    def n_pruned(self) -> int:
        """How many values the masks hold at 0."""
        return sum(mask.size - int(np.count_nonzero(mask)) for mask in self.masks.values())

    @property
    def masks(self) -> dict[str, NDArray[np.bool_]]:
        """By parameter name, in its shape: values stay 0 where it is False.  Set by `keep`."""
        return {name: mask.kept for name, mask in self._masked.items()}

    def keep(self, masks: Mapping[str, ArrayLike]) -> None:
        """Hold values at 0 where a mask is False, from now on; they and all that is kept of them become 0.

        Their gradients count no more, also not for ``clip``.  A mask takes the place of an earlier one of
        that parameter.

        Parameters
        ----------
        masks : mapping of str to array of bool
            By name of a parameter that is trained, in its shape; as `evsim.magnitude_mask` makes them.

        Raises
        ------
        ParameterError
            Another name, shape or type, a range without 0; then nothing was changed.
        """
        found = {}
        for name, given in masks.items():
            where, mask = f"mask of '{name}'", np.array(given)
            parameter = self.parameters.get(name)
            if parameter is None:
                raise ParameterError(
                    where, "is of no parameter that is trained", f"give some of {list(self.parameters)}"
                )
            if mask.dtype != bool or mask.shape != parameter.values.shape:
                raise ParameterError(
                    where,
                    f"has shape {mask.shape} of {mask.dtype}",
                    f"give {parameter.values.shape} of bool",
                )
            if not parameter.lower <= 0 <= parameter.upper:
                raise ParameterError(
                    where,
                    f"0 is outside the range [{parameter.lower:g}, {parameter.upper:g}]",
                    "mask other parameters",
                )
            found[name] = mask
        for name, mask in found.items():
            values = self.parameters[name].values
            held = self._masked[name] = _Mask(mask, values.dtype)
            for array in (values, *(kept[name] for kept in self._kept.values())):
                held.clear(array)

    @abstractmethod
    def _move(self, gradients: list[NDArray], scale: float) -> None:
        """Write the new values of all parameters, given the gradient of each, to be scaled.

        Gradients are C-contiguous and of the float type of their parameter.
        """

    def state(self) -> dict[str, NDArray]:
        """All that a later step depends on besides the parameters, as arrays by name."""
        arrays = {
            f"{slot}/{name}": array for slot, kept in self._kept.items() for name, array in kept.items()
        }
        arrays |= {MASK + name: mask.astype(np.uint8) for name, mask in self.masks.items()}
        return arrays | {"n_steps": np.array(self.n_steps), "lr": np.array(self.lr)}

    def load(self, state: Mapping[str, NDArray]) -> None:
        """Take over what `state` of an equal optimiser gave."""
        mine = {name: array.shape for name, array in self.state().items() if not name.startswith(MASK)}
        masked = [name.removeprefix(MASK) for name in state if name.startswith(MASK)]
        mine |= {MASK + name: p.values.shape for name, p in self.parameters.items() if name in masked}
        if {name: array.shape for name, array in state.items()} != mine:
            raise ParameterError(
                "optimizer",
                "that state is of another optimiser or network",
                f"it needs {sorted(mine)[:3]} ...",
            )
        self.n_steps, self.lr = int(state["n_steps"]), float(state["lr"])
        for slot, kept in self._kept.items():
            for name, array in kept.items():
                array[...] = state[f"{slot}/{name}"]
        self._masked = {
            name: _Mask(state[MASK + name] != 0, self.parameters[name].values.dtype) for name in masked
        }


class SGD(Optimizer):
    """Stochastic gradient descent with momentum: ``m = momentum m + g;  p -= lr m``."""

    slots = ("momentum",)

    def __init__(
        self, parameters: Mapping[str, Parameter], lr: float, momentum: float = 0.0, clip: float | None = None
    ):
        super().__init__(parameters, lr, clip)
        self.momentum = momentum

    def _move(self, gradients: list[NDArray], scale: float) -> None:
        for (name, parameter), gradient in zip(self.parameters.items(), gradients, strict=True):
            velocity = self._kept["momentum"][name]
            velocity *= self.momentum
            velocity += gradient if scale == 1 else gradient * gradient.dtype.type(scale)
            parameter.values -= self.lr * velocity


class Adam(Optimizer):
    """Adam (Kingma & Ba 2015) with decoupled weight decay (Loshchilov & Hutter 2019)::

        mean = b1 mean + (1 - b1) g,  square = b2 square + (1 - b2) g^2
        p = (1 - lr decay) p - lr / (1 - b1^t) mean / (sqrt(square) / sqrt(1 - b2^t) + eps)

    Parameters
    ----------
    parameters, lr, clip
        See `Optimizer`.
    betas : tuple of float
        Decay of the running mean and square of the gradient.
    eps : float
    weight_decay : float
        Weights, but no biases or thresholds, shrink by ``lr * weight_decay`` of their size each step.
    """

    slots = ("mean", "square")

    def __init__(
        self,
        parameters: Mapping[str, Parameter],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        clip: float | None = None,
    ):
        super().__init__(parameters, lr, clip)
        if not all(0 <= beta < 1 for beta in betas):
            raise ParameterError("optimizer", f"betas are {betas}", "give two numbers in [0, 1)")
        if not (math.isfinite(weight_decay) and weight_decay >= 0):
            raise ParameterError("optimizer", f"weight_decay is {weight_decay}", "give 0 or more")
        self.betas, self.eps, self.weight_decay = betas, eps, weight_decay
        self._decays = [name.endswith(".weight") for name in self.parameters]
        self._moments = Moments(
            [parameter.values for parameter in self.parameters.values()],
            *(list(self._kept[slot].values()) for slot in self.slots),
        )

    def _move(self, gradients: list[NDArray], scale: float) -> None:
        first, second = self.betas
        shrunk = 1 - self.lr * self.weight_decay
        self._moments.step(
            gradients,
            [shrunk if decays else 1.0 for decays in self._decays],
            scale,
            first,
            second,
            math.sqrt(1 - second**self.n_steps),
            self.lr / (1 - first**self.n_steps),
            self.eps,
        )


def global_norm(gradients: list[NDArray]) -> float:
    """Euclidean norm of all entries of all arrays together, which are C-contiguous, of float32 or float64."""
    return math.sqrt(sum_of_squares(gradients))


def _floats(array: NDArray, dtype: DTypeLike) -> NDArray:
    """As it is if the core can read it as such floats, else a copy that it can."""
    if array.dtype == dtype and array.flags.c_contiguous:
        return array
    return np.ascontiguousarray(array, dtype)
