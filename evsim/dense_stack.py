"""Dense recurrent layers of PyTorch, one above the other: what event-driven ones are compared with.

PyTorch computes the forward pass and the gradients, nothing else: parameters are `evsim.parameter.Parameter`
objects on the same memory, so that our optimisers move them, as they move those of a network.  It is an
optional extra and is loaded when the first stack is made.

The matrices are those of ``torch.nn.GRU`` and ``torch.nn.LSTM``, gates r, z, n or i, f, g, o (of one layer
each, so that masks fit in between)::

    r, z = s(W_ir x + b_ir + W_hr h + b_hr), s(W_iz x + ...)          GRU
    n    = tanh(W_in x + b_in + r (W_hn h + b_hn)),  h' = (1 - z) n + z h

    i, f, o = s(W_i x + b_i + W_h h + b_h)                            LSTM
    g    = tanh(...),  c' = f c + i g,  h' = o tanh(c')
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evsim.errors import GradientError, MissingExtraError, NetworkError, ParameterError, StimulusError
from evsim.parameter import Parameter
from evsim.projection import INITIALISERS
from evsim.threads import usable_threads
from evsim.training import Tally

#: Kinds of layers, with the number of their gates and the names of their states.
Kind = Literal["gru", "lstm"]
N_GATES = {"gru": 3, "lstm": 4}
STATES = {"gru": ("h",), "lstm": ("h", "c")}
#: Arrays of a layer, by the order in which torch takes them, and what initialises those that are matrices.
ARRAYS = ("input.weight", "recurrent.weight", "input.bias", "recurrent.bias")
INITIAL = {"input.weight": "glorot", "recurrent.weight": "orthogonal"}


class StackMasks(Protocol):
    """What is left out in a window, and by what the rest is multiplied; see `DenseStack.forward`."""

    layers: Any
    recurrent: Any


class DenseStack:
    """Layers of ``torch.nn.GRU`` or ``torch.nn.LSTM``; states of the last one, or of all, come out.

    Parameters
    ----------
    kind : {"gru", "lstm"}
    sizes : sequence of int
        Units of each layer.
    n_inputs : int
    seed : int
        Of the initial weights: gate by gate "glorot" for those of the input and "orthogonal" for recurrent
        ones (see `evsim.projection`), biases 0, but 1 for the forget gate of an LSTM (Gers et al. 2000).
    threads : int, optional
        Of PyTorch, while this computes; by default as many as this process may use.  Results are equal bit by
        bit for the same number.
    dtype : {"float32", "float64"}
    all_layers : bool
        Whether the sum of all layers' states h comes out, instead of those of the last one; of wider layers
        those of as many units as the last one has.

    Raises
    ------
    MissingExtraError
        PyTorch is not installed.
    NetworkError
        Another kind, sizes that are no positive integers; a sum of states of different sizes.
    """

    #: A network of ours has parameters in a checkpoint's form; there is none in here.
    network = None

    def __init__(
        self,
        kind: Kind,
        sizes: Sequence[int],
        n_inputs: int,
        seed: int = 0,
        threads: int | None = None,
        dtype: str = "float32",
        all_layers: bool = False,
    ):
        if kind not in get_args(Kind):
            raise NetworkError("DenseStack", f"kind is {kind!r}", "use 'gru' or 'lstm'")
        for n in (n_inputs, *sizes):
            if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1:
                raise NetworkError("DenseStack", f"a layer or input has {n!r} units", "give 1 or more")
        if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
            raise NetworkError("DenseStack", f"seed is {seed!r}", "give a non-negative integer")
        if not sizes:
            raise NetworkError("DenseStack", "has no layers", "give a size for each, such as [400, 400]")
        if dtype not in ("float32", "float64"):
            raise NetworkError("DenseStack", f"dtype is {dtype!r}", "use 'float32' or 'float64'")
        if all_layers and min(sizes) < sizes[-1]:
            problem = f"a layer of {list(sizes)} units is narrower than the last"
            raise NetworkError("DenseStack", problem, "make the last one narrowest, or use all_layers=False")
        self._torch = _torch()
        self.kind, self.sizes, self.n_inputs = kind, [int(n) for n in sizes], int(n_inputs)
        self.threads, self.dtype, self.all_layers = usable_threads(threads), np.dtype(dtype), bool(all_layers)
        self._function = getattr(self._torch, kind)  # what torch.nn.GRU calls
        self._parameters: dict[str, Parameter] = {}
        self._tensors: list[list[Any]] = []  # of each layer, as in ARRAYS
        for k, (inputs, units) in enumerate(self._shapes, start=1):
            self._tensors.append([self._make(k, part, inputs, units, seed) for part in ARRAYS])
        self._carried: dict[str, Any] = {}
        self._window: tuple[Any, Any] | None = None
        self._lane_steps = 0

    def __repr__(self) -> str:
        return f"DenseStack({self.kind!r}, {self.sizes}, n_inputs={self.n_inputs}, threads={self.threads})"

    @property
    def n_units(self) -> int:
        """Units of the last layer."""
        return self.sizes[-1]

    @property
    def n_layers(self) -> int:
        """Number of layers."""
        return len(self.sizes)

    @property
    def n_lanes(self) -> int:
        """Lanes of the carried states; 0 at rest."""
        return next((len(state) for state in self._carried.values()), 0)

    def parameters(self) -> dict[str, Parameter]:
        """Every parameter by name, live.

        ``"layer1.input.weight"`` (3 or 4 x units, inputs), ``"layer1.recurrent.weight"`` (3 or 4 x units,
        units), ``"layer1.input.bias"`` and ``"layer1.recurrent.bias"`` (3 or 4 x units,), ``"layer2...``: as
        ``weight_ih_l0`` and so on of torch, a row for each gate and unit that receives.
        """
        return dict(self._parameters)

    @property
    def recurrent_shapes(self) -> list[tuple[int, int]]:
        """Of masks of each layer's recurrent weights: a row for each unit that sends."""
        return [(units, N_GATES[self.kind] * units) for units in self.sizes]

    def count(self, tally: Tally, backward: bool = False) -> None:
        """Add the lane-steps of the last window; a dense network has no events to count."""
        if not backward:
            tally.lane_steps += self._lane_steps

    def macs_per_token(self) -> int:
        """Multiply-accumulates of all weight matrices for one step of one lane, forward."""
        return sum(N_GATES[self.kind] * units * (inputs + units) for inputs, units in self._shapes)

    # -- states --------------------------------------------------------------------------------------------

    def reset(self) -> None:
        """Forget the states: the next window starts from zeros, with any number of lanes."""
        self._carried = {}

    def states(self) -> dict[str, NDArray]:
        """A copy of the carried states for `restore`, ``"layer1.h"`` (lanes, units); empty at rest."""
        return {name: state.numpy().copy() for name, state in self._carried.items()}

    def restore(self, states: Mapping[str, ArrayLike]) -> None:
        """Take up states that `states` of a stack like this one returned.

        Raises
        ------
        StimulusError
            They are of other layers.
        """
        found = {name: np.asarray(state, self.dtype) for name, state in states.items()}
        sizes = {
            f"layer{k}.{name}": n for k, n in enumerate(self.sizes, start=1) for name in STATES[self.kind]
        }
        lanes = {array.shape[:1] for array in found.values()}
        fit = found.keys() == sizes.keys() and len(lanes) == 1
        if found and not (fit and all(a.shape[1:] == (sizes[name],) for name, a in found.items())):
            shapes = {name: array.shape for name, array in found.items()}
            raise StimulusError(
                "states", f"are {shapes}", f"give those of a stack with layers {self.sizes} of {self.kind}"
            )
        self._carried = {name: self._torch.tensor(array) for name, array in found.items()}

    # -- windows -------------------------------------------------------------------------------------------

    def forward(self, x: ArrayLike, masks: StackMasks | None = None, carry: bool = False) -> NDArray:
        """Run a window and keep what `backward` needs.

        Parameters
        ----------
        x : array, shape (n_steps, n_lanes, n_inputs)
            Not needed again: it may be written over.
        masks : optional
            ``masks.layers``: for each pair of successive layers an array (n_lanes, units of the lower one),
            by which the values between them are multiplied in all steps.  ``masks.recurrent``: for each layer
            an array (units, 3 or 4 x units), a row for each unit that *sends*, by which recurrent weights are
            multiplied in this window (DropConnect, Merity et al. 2018); gradients are of the weights
            themselves.  None for all or one of them: nothing is left out.
        carry : bool
            Go on from the states after the last window, instead of from zeros; their gradient ends there.

        Returns
        -------
        ndarray, shape (n_steps, n_lanes, n_units)
            h of the last layer, or the sum of all; a copy.

        Raises
        ------
        StimulusError
            Another shape or number of lanes, values that are not finite.
        ParameterError
            Masks of another number or shape.
        """
        x = self._input(x, carry)
        with self._limited():
            between, recurrent = self._masks(masks, x.shape[1])
            first = self._torch.tensor(x, requires_grad=True)
            y, carried = self._run(first, carry, between, recurrent)
            self._window, self._carried = (first, y), carried
            return y.detach().numpy().copy()  # whoever writes into it must not write into the tape

    def backward(self, dy: ArrayLike) -> tuple[NDArray, dict[str, NDArray]]:
        """Gradients of the last `forward`, once for each.

        Parameters
        ----------
        dy : array, shape (n_steps, n_lanes, n_units)
            Derivatives of the loss by what `forward` returned.

        Returns
        -------
        dx : ndarray, shape (n_steps, n_lanes, n_inputs)
        gradients : dict of str to ndarray
            By parameter name, in its shape.

        Raises
        ------
        GradientError
            There is no window to go back through, or it has another shape.
        """
        if self._window is None:
            raise GradientError("DenseStack", "has no window to go back through", "call forward() first")
        x, y = self._window
        given = np.asarray(dy, self.dtype)
        if given.shape != tuple(y.shape):
            raise GradientError("dy", f"has shape {given.shape}", f"give {tuple(y.shape)}")
        self._window = None
        leaves = [x, *(tensor for layer in self._tensors for tensor in layer)]
        with self._limited():
            found = self._torch.autograd.grad(y, leaves, self._torch.tensor(given))
        dx, *gradients = (tensor.contiguous().numpy() for tensor in found)
        return dx, dict(zip(self._parameters, gradients, strict=True))

    def read(self, x: ArrayLike, carry: bool = False) -> NDArray:
        """What `forward` returns without masks; nothing is kept but the states.

        The window of the last `forward` stays as it was.
        """
        x = self._input(x, carry)
        with self._limited(), self._torch.no_grad():
            y, self._carried = self._run(self._torch.tensor(x), carry, {}, {})
            return y.numpy()

    # -- pieces --------------------------------------------------------------------------------------------

    @property
    def _shapes(self) -> list[tuple[int, int]]:
        """Inputs and units of each layer."""
        return list(zip([self.n_inputs, *self.sizes], self.sizes, strict=False))

    def _make(self, layer: int, part: str, inputs: int, units: int, seed: int) -> Any:
        """A tensor with initial values, and the parameter that has its memory.

        Torch allocates, as everywhere in this file: results of its libraries can depend on how memory is
        aligned, and that of NumPy is aligned now in one way, now in another.
        """
        name, n_gates = f"layer{layer}.{part}", N_GATES[self.kind]
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, zlib.crc32(name.encode())])))
        if part in INITIAL:
            draw = INITIALISERS[INITIAL[part]]
            rows = inputs if part.startswith("input") else units
            values = np.concatenate([draw(rng, rows, units).T for _ in range(n_gates)])
        else:
            values = np.zeros(n_gates * units)
            if self.kind == "lstm" and part == "input.bias":
                values[units : 2 * units] = 1.0
        tensor = self._torch.zeros(values.shape, dtype=getattr(self._torch, self.dtype.name))
        self._parameters[name] = Parameter(name, tensor.numpy())
        self._parameters[name].assign(values)
        return tensor.requires_grad_()

    def _run(
        self, x: Any, carry: bool, between: Mapping[int, Any], recurrent: Mapping[int, Any]
    ) -> tuple[Any, dict[str, Any]]:
        """All layers over a window; what comes out, and the states of all, cut off."""
        carried: dict[str, Any] = {}
        self._lane_steps = x.shape[0] * x.shape[1]
        value, out = x, None
        for k, (wi, wh, bi, bh) in enumerate(self._tensors):
            names = [f"layer{k + 1}.{name}" for name in STATES[self.kind]]
            if carry and self._carried:
                start = [self._carried[name][None] for name in names]
            else:
                start = [value.new_zeros(1, value.shape[1], self.sizes[k]) for _ in names]
            if k in recurrent:  # not a leaf, which torch's fused loop takes as it takes any other
                wh = wh * recurrent[k]
            hx = start if self.kind == "lstm" else start[0]
            value, *end = self._function(
                value, hx, [wi, wh, bi, bh], True, 1, 0.0, value.requires_grad, False, False
            )
            carried |= {name: state.detach()[0].clone() for name, state in zip(names, end, strict=True)}
            read = value[..., : self.n_units]
            out = read + out if self.all_layers and out is not None else read
            if k in between:
                value = value * between[k]
        return out, carried

    def _input(self, x: ArrayLike, carry: bool) -> NDArray:
        """The input of a window, checked."""
        given = np.asarray(x, self.dtype)
        if given.ndim != 3 or given.shape[2] != self.n_inputs or 0 in given.shape:
            raise StimulusError(
                "DenseStack", f"input has shape {given.shape}", f"give (steps, lanes, {self.n_inputs})"
            )
        if not np.isfinite(given).all():
            raise StimulusError("DenseStack", "input has values that are not finite", "give finite ones")
        if carry and self.n_lanes not in (0, given.shape[1]):
            raise StimulusError(
                "DenseStack",
                f"input has {given.shape[1]} lanes, the carried state has {self.n_lanes}",
                "reset(), or keep the lanes",
            )
        return given

    def _masks(self, masks: StackMasks | None, n_lanes: int) -> tuple[dict[int, Any], dict[int, Any]]:
        """Those between layers and of recurrent weights, as torch needs them, by layer; none where off."""
        if masks is None:
            return {}, {}
        sizes = self.sizes
        between = [(n_lanes, n) for n in sizes[:-1]]
        recurrent = [(n, N_GATES[self.kind] * n) for n in sizes]
        layers = self._checked("masks.layers", masks.layers, between)
        weights = self._checked("masks.recurrent", masks.recurrent, recurrent)
        return layers, {k: mask.t() for k, mask in weights.items()}

    def _checked(self, where: str, masks: Any, shapes: list[tuple[int, int]]) -> dict[int, Any]:
        """Masks that are there as tensors of their own, by layer."""
        if masks is None or len(masks) == 0:
            return {}
        if len(masks) != len(shapes):
            raise ParameterError(where, f"has {len(masks)} entries", f"give {len(shapes)}, or None")
        found = {}
        for k, (mask, shape) in enumerate(zip(masks, shapes, strict=True)):
            if mask is None:
                continue
            array = np.asarray(mask, self.dtype)
            if array.shape != shape:
                raise ParameterError(f"{where}[{k}]", f"has shape {array.shape}", f"give {shape}")
            found[k] = self._torch.tensor(array)
        return found

    @contextmanager
    def _limited(self) -> Iterator[None]:
        """Torch with this stack's number of threads, then with its own again."""
        before = self._torch.get_num_threads()
        self._torch.set_num_threads(self.threads)
        try:
            yield
        finally:
            self._torch.set_num_threads(before)


def _torch() -> Any:
    """PyTorch.

    Raises
    ------
    MissingExtraError
        It cannot be imported.
    """
    try:
        # Its threads would otherwise spin where they wait for each other, which is ten times as slow as one
        # thread where anything else uses the cores.  This is read when the library is loaded.
        with _environment("OMP_WAIT_POLICY", "passive"):
            import torch
    except ImportError as error:
        remedy = 'pip install "evsim[torch]"'
        raise MissingExtraError("PyTorch", f"cannot be imported ({error})", remedy) from error
    return torch


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """A variable of the environment as it is, or has this value for a while."""
    missing = name not in os.environ
    os.environ.setdefault(name, value)
    try:
        yield
    finally:
        if missing:
            del os.environ[name]
