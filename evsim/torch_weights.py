"""Weights of ``torch.nn.GRU`` and ``torch.nn.LSTM`` for delta units, and back.

PyTorch itself is not needed: a state dict is a mapping from names to arrays.  The order of gates is the same
on both sides, LSTM (i, f, g, o) and GRU (r, z, n), and torch's matrices are ours transposed.  torch has two
biases for each gate, one beside each matrix.  They are added up where only their sum counts, which is
everywhere but in the candidate of the GRU: there ``bias_ih`` belongs to our block n and ``bias_hh`` to q.

With thresholds 0, delays of 0 between layers and of one step within them, both compute the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evsim.errors import ParameterError
from evsim.models import DeltaGRU, DeltaLSTM
from evsim.network import Network
from evsim.parameter import Parameter
from evsim.population import Population
from evsim.projection import Projection

#: Gates by unit type, with the torch module that has as many.
GATES = {DeltaGRU: (3, "GRU"), DeltaLSTM: (4, "LSTM")}


def load_rnn(
    network: Network,
    state: Mapping[str, Any],
    populations: Sequence[str],
    prefix: str = "",
) -> None:
    """Assign the weights and biases of a torch module to delta populations.

    Layer k goes to ``populations[k]``: ``weight_ih_l{k}`` to the one projection that ends in its port
    ``input``, ``weight_hh_l{k}`` to the one that ends in ``recurrent``, and the biases to its bias; a module
    made with ``bias=False`` has none, and the bias becomes 0.  Thresholds stay as they are.

    Parameters
    ----------
    network : Network
    state : mapping of str to array
        ``module.state_dict()``, or any arrays by those names.  What is not of this module is ignored.
    populations : sequence of str
        Names of a DeltaGRU or DeltaLSTM for each layer, first layer first.
    prefix : str
        What the names start with, such as ``"rnn."``.

    Raises
    ------
    ParameterError
        A name is missing, a shape does not fit, a weight is not finite, the module is bidirectional or has
        projections (``proj_size``), or the projection to be filled is not dense, not there or not the only
        one.  Then nothing was assigned.
    NetworkError
        An unknown population.
    """
    names = [populations] if isinstance(populations, str) else list(populations)
    _check_layers(state, prefix, names)
    new: list[tuple[Parameter, NDArray]] = []
    for k, name in enumerate(names):
        unit = network[name]
        n, (n_gates, _) = unit.n_units, _kind(unit)
        for part, port in (("ih", "input"), ("hh", "recurrent")):
            projection = _projection(network, unit, port)
            key, shape = f"{prefix}weight_{part}_l{k}", (n_gates * n, projection.shape[0])
            new.append((projection.weight, _read(state, key, shape, unit).T))
        ih, hh = f"{prefix}bias_ih_l{k}", f"{prefix}bias_hh_l{k}"
        if ih not in state and hh not in state:
            new.append((unit.parameters["bias"], np.zeros(4 * n)))
            continue
        from_input, from_self = (_read(state, key, (n_gates * n,), unit) for key in (ih, hh))
        bias = from_input + from_self
        if isinstance(unit, DeltaGRU):
            bias = np.concatenate([bias[: 2 * n], from_input[2 * n :], from_self[2 * n :]])
        new.append((unit.parameters["bias"], bias))
    narrow = []
    for parameter, values in new:
        with np.errstate(over="ignore"):  # the check finds what the network's float type cannot hold
            narrow.append(np.asarray(values, parameter.values.dtype))
        parameter.check(narrow[-1])
    for (parameter, _), values in zip(new, narrow, strict=True):
        parameter.assign(values)


def to_rnn(network: Network, populations: Sequence[str], prefix: str = "") -> dict[str, NDArray]:
    """The weights of delta populations under the names and in the shapes of a torch module.

    Parameters
    ----------
    network : Network
    populations : sequence of str
        As for `load_rnn`, all of one type.
    prefix : str

    Returns
    -------
    dict of str to ndarray
        Copies, for ``module.load_state_dict`` after ``torch.from_numpy`` of each.  Biases of which only the
        sum is known are in ``bias_ih``, and 0 in ``bias_hh``.

    Raises
    ------
    ParameterError
        A projection is not dense, not there or not the only one; populations of two types.
    NetworkError
        An unknown population.
    """
    names = [populations] if isinstance(populations, str) else list(populations)
    kinds = {_kind(network[name])[1] for name in names}
    if len(kinds) != 1:
        problem = f"populations {names} are as of {sorted(kinds)}"
        raise ParameterError("torch weights", problem, "give populations of one type")
    state = {}
    for k, name in enumerate(names):
        unit, n = network[name], network[name].n_units
        for part, port in (("ih", "input"), ("hh", "recurrent")):
            weight = _projection(network, unit, port).weight.values
            state[f"{prefix}weight_{part}_l{k}"] = np.ascontiguousarray(weight.T)
        bias = unit.parameters["bias"].values
        from_self = np.zeros_like(bias)
        if isinstance(unit, DeltaGRU):
            bias, q = bias[: 3 * n], bias[3 * n :]
            from_self = np.concatenate([np.zeros_like(bias[: 2 * n]), q])
        state[f"{prefix}bias_ih_l{k}"], state[f"{prefix}bias_hh_l{k}"] = bias.copy(), from_self
    return state


def _check_layers(state: Mapping[str, Any], prefix: str, populations: list[str]) -> None:
    """Raise ParameterError unless the module has one direction, no projections and no layers left over."""
    where = "torch weights"
    if not populations or len(set(populations)) < len(populations):
        raise ParameterError(where, f"populations are {populations}", "give one for each layer")
    for key in state:
        found = re.fullmatch(r"(?:weight|bias)_(ih|hh|hr)_l(\d+)(_reverse)?", key.removeprefix(prefix))
        if found is None or not key.startswith(prefix):
            continue
        if found[3]:
            raise ParameterError(where, f"'{key}' is of a bidirectional module", "use one of one direction")
        if found[1] == "hr":
            raise ParameterError(where, f"'{key}' is of a module with proj_size", "use one without")
        if int(found[2]) >= len(populations):
            problem = f"'{key}' is of layer {found[2]}, there are populations for {len(populations)}"
            raise ParameterError(where, problem, "give one population for each layer")


def _kind(unit: Population) -> tuple[int, str]:
    for kind, found in GATES.items():
        if isinstance(unit, kind):
            return found
    raise ParameterError("torch weights", f"{unit!r} has no such weights", "give DeltaGRU or DeltaLSTM")


def _projection(network: Network, unit: Population, port: str) -> Projection:
    """The only projection that ends in a port; its weights are dense."""
    found = [p for p in network.projections.values() if p.target is unit and p.port == port]
    if len(found) != 1:
        names = [p.name for p in found] or "none"
        raise ParameterError(
            f"population '{unit.name}'", f"projections to port '{port}' are {names}", "there must be one"
        )
    if found[0].is_sparse:
        raise ParameterError(f"projection '{found[0].name}'", "its weights are sparse", "connect densely")
    return found[0]


def _read(state: Mapping[str, Any], key: str, shape: tuple[int, ...], unit: Population) -> NDArray:
    """An array of a state dict in float64."""
    n_gates, module = _kind(unit)
    if key not in state:
        raise ParameterError("torch weights", f"'{key}' is missing", f"there is {_some(state)}; see prefix=")
    try:
        values = np.asarray(state[key], np.float64)
    except (TypeError, ValueError, RuntimeError):
        problem = f"'{key}' is no array of numbers that NumPy can read"
        raise ParameterError("torch weights", problem, "give arrays, or state_dict() on the CPU") from None
    if values.shape != shape:
        problem = f"'{key}' has shape {values.shape}, {unit!r} takes {shape}"
        rows = values.shape[0] if values.ndim else 0
        others = [name for n, name in GATES.values() if n != n_gates and rows == n * unit.n_units]
        hint = f"it looks like torch.nn.{others[0]}" if others else f"give torch.nn.{module} of that size"
        raise ParameterError("torch weights", problem, hint)
    return values


def _some(state: Mapping[str, Any]) -> str:
    """A few names, for errors."""
    names = [repr(name) for name in state]
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "") if names else "nothing"
