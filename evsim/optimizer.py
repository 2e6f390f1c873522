"""Optimisers: steps on named parameters, in place, clipped into each parameter's range."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from evsim.core import kernels
from evsim.errors import GradientError, ParameterError
from evsim.parameter import Parameter


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
    """

    #: Names of the arrays kept per parameter.
    slots: tuple[str, ...] = ()

    def __init__(self, parameters: Mapping[str, Parameter], lr: float, clip: float | None = None):
        if not (np.isfinite(lr) and lr >= 0):
            raise ParameterError("optimizer", f"lr is {lr!r}", "give a number, 0 or more")
        if clip is not None and not clip > 0:
            raise ParameterError("optimizer", f"clip is {clip!r}", "give a positive norm, or None")
        self.parameters = {name: p for name, p in parameters.items() if p.trainable}
        self.lr, self.clip, self.n_steps = float(lr), clip, 0
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
        missing = [name for name in self.parameters if name not in gradients]
        if missing:
            raise GradientError(
                f"parameter '{missing[0]}'",
                "has no gradient",
                f"give one for each of {list(self.parameters)}",
            )
        for name, parameter in self.parameters.items():
            if np.shape(gradients[name]) != parameter.values.shape:
                raise GradientError(
                    f"gradient of '{name}'",
                    f"has shape {np.shape(gradients[name])}",
                    f"give {parameter.values.shape}",
                )
        norm = global_norm(gradients[name] for name in self.parameters)
        if not np.isfinite(norm):
            wrong = next((n for n in self.parameters if not np.isfinite(gradients[n]).all()), "all together")
            raise GradientError(
                f"gradient of '{wrong}'", "is not finite", "use a smaller learning rate, or clip="
            )
        scale = 1.0 if self.clip is None or norm <= self.clip else self.clip / norm
        self.n_steps += 1
        for name, parameter in self.parameters.items():
            gradient = (
                gradients[name] if scale == 1.0 else gradients[name] * parameter.values.dtype.type(scale)
            )
            self._move(parameter, gradient, {slot: arrays[name] for slot, arrays in self._kept.items()})
            if parameter.lower > -np.inf or parameter.upper < np.inf:
                np.clip(parameter.values, parameter.lower, parameter.upper, out=parameter.values)
        return norm

    @abstractmethod
    def _move(self, parameter: Parameter, gradient: NDArray, kept: dict[str, NDArray]) -> None:
        """Write the new values of one parameter."""

    def state(self) -> dict[str, NDArray]:
        """All that a later step depends on besides the parameters, as arrays by name."""
        arrays = {
            f"{slot}/{name}": array for slot, kept in self._kept.items() for name, array in kept.items()
        }
        return arrays | {"n_steps": np.array(self.n_steps), "lr": np.array(self.lr)}

    def load(self, state: Mapping[str, NDArray]) -> None:
        """Take over what `state` of an equal optimiser gave."""
        mine = self.state()
        if set(state) != set(mine) or any(state[name].shape != mine[name].shape for name in mine):
            raise ParameterError(
                "optimizer",
                "that state is of another optimiser or network",
                f"it needs {sorted(mine)[:3]} ...",
            )
        self.n_steps, self.lr = int(state["n_steps"]), float(state["lr"])
        for slot, kept in self._kept.items():
            for name, array in kept.items():
                array[...] = state[f"{slot}/{name}"]


class SGD(Optimizer):
    """Stochastic gradient descent with momentum: ``m = momentum m + g;  p -= lr m``."""

    slots = ("momentum",)

    def __init__(
        self, parameters: Mapping[str, Parameter], lr: float, momentum: float = 0.0, clip: float | None = None
    ):
        super().__init__(parameters, lr, clip)
        self.momentum = momentum

    def _move(self, parameter: Parameter, gradient: NDArray, kept: dict[str, NDArray]) -> None:
        velocity = kept["momentum"]
        velocity *= self.momentum
        velocity += gradient
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
        self.betas, self.eps, self.weight_decay = betas, eps, weight_decay

    def _move(self, parameter: Parameter, gradient: NDArray, kept: dict[str, NDArray]) -> None:
        first, second = self.betas
        decay = self.lr * self.weight_decay if parameter.name.endswith(".weight") else 0.0
        kernels.adam_step(
            np.ascontiguousarray(gradient, parameter.values.dtype),
            kept["mean"],
            kept["square"],
            parameter.values,
            first,
            second,
            np.sqrt(1 - second**self.n_steps),
            self.lr / (1 - first**self.n_steps),
            self.eps,
            1 - decay,
        )


def global_norm(gradients: Iterable[NDArray]) -> float:
    """Euclidean norm of all entries of all arrays together."""
    return math.sqrt(sum(kernels.sum_of_squares(_floats(gradient)) for gradient in gradients))


def _floats(array: NDArray) -> NDArray:
    """As it is if the core can read it, else as float64."""
    readable = array.dtype in (np.float32, np.float64) and array.flags.c_contiguous
    return array if readable else np.ascontiguousarray(array, np.float64)
