"""Time per token of recurrent layers at one lane and one thread: events beside dense layers of PyTorch.

Motivation: counting multiply-accumulates says nothing about time.  What a reader of one text, or a writer,
waits for is the time from one token to the next.

All contestants run in turn in one process, on the same text, each on one thread: a round is a window of the
text for each of them, timed after one call that is not, because the others have used the caches; who comes
first changes from round to round.  The clock is the processor's time of this process, which on one thread is
the wall time of a quiet machine.  States are carried from call to call.

All run over a window at once (``run``), and token by token as in generation (``step``); what takes how many
times as long is told for either by itself.  Dense layers are there in float32, and with weights of 8 bits
(dynamic quantization; what they compute is not compared here).
"""

from __future__ import annotations

import platform
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evsim.core import kernels
from evsim.errors import MissingExtraError, NetworkError, ParameterError, StimulusError
from evsim.network import Network
from evsim.simulation import Simulation
from evsim.sparsity import count_zeros

#: Dense layers, with their gates, and the formats of their weights.
Kind = Literal["gru", "lstm"]
N_GATES = {"gru": 3, "lstm": 4}
Format = Literal["float32", "int8", "bfloat16"]
#: What is timed: called with the first and the last step (exclusive) of a window of the text.
Task = Callable[[int, int], object]
Clock = Callable[[], float]
#: Below so many seconds of wall time the two clocks do not tell how many cores were used.
SHORTEST = 0.02


def measure(
    network: Network | Mapping[str, Network],
    inputs: ArrayLike | Mapping[str, ArrayLike],
    sizes: Sequence[int] | None = None,
    kinds: Sequence[Kind] = ("gru",),
    *,
    peer_inputs: ArrayLike | None = None,
    formats: Sequence[Format] = ("float32", "int8"),
    tokens: int = 200,
    rounds: int = 20,
    clock: Clock = time.process_time,
) -> dict[str, Any]:
    """Time networks and dense layers on the same text.

    Parameters
    ----------
    network : Network, or mapping of name to Network
        On a time grid, each with one source; several are the same layers stored in several ways.
    inputs : array, or mapping of network name to array
        The text: floats (n_steps, n_inputs), or token ids (n_steps,).
    sizes : sequence of int, optional
        Units of the dense layers; by default as many as the populations of the (first) network that send.
    kinds : sequence of {"gru", "lstm"}
        Dense layers to compare with; none without PyTorch.
    peer_inputs : array, shape (n_steps, n_inputs), optional
        What the dense layers read; needed where all networks read token ids.
    formats : sequence of {"float32", "int8", "bfloat16"}
        Of the dense layers' weights.
    tokens : int
        Length of a window.
    rounds : int
    clock : callable
        Seconds.

    Returns
    -------
    dict
        As JSON can hold it.  ``networks``: by name the ``activity`` of each population that sends, weights
        and multiply-accumulates of each projection.  ``times``: by contestant the median, lowest and highest
        number of microseconds per token over the rounds, all of them, how many cores were busy at most,
        whether it is ``run`` or ``step``, the ``network`` or the ``form`` of dense layers; of a network also
        ``ratios``, by dense contestant of the same mode how many times that takes longer, round by round.
        ``left_out``: what could not be measured, in words.  ``machine``: versions, kernels.

    Raises
    ------
    NetworkError
        Continuous time, several sources.
    StimulusError
        Inputs that are too short or do not fit.
    ParameterError
        No tokens or rounds, unknown kinds.
    """
    networks = {"evsim": network} if isinstance(network, Network) else dict(network)
    given = inputs if isinstance(inputs, Mapping) else dict.fromkeys(networks, inputs)
    texts = {name: np.asarray(given[name]) for name in networks}
    _check(networks, texts, kinds, formats, tokens, rounds)
    ways: dict[str, Task] = {}
    kept: dict[str, dict[str, Any]] = {}  # what is known of each contestant
    about = {}
    for name, net in networks.items():
        about[name] = describe(net, texts[name])
        for mode, make in (("run", _run), ("step", _step)):
            ways[f"{name}, {mode}"] = make(Simulation(net, 1), texts[name])
            kept[f"{name}, {mode}"] = {"mode": mode, "network": name, "form": None}
    first = next(iter(networks.values()))
    sizes = [p.n_units for p in _layers(first)] if sizes is None else [int(n) for n in sizes]
    left_out: list[str] = []
    machine = {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "instruction_set": kernels.in_use(),
    }
    dense_macs = {}
    n_steps = min(len(text) for text in texts.values())
    if kinds:
        peer_text = _peer_text(texts, peer_inputs)
        n_steps = min(n_steps, len(peer_text))
        dense_macs = {kind: _dense_macs(kind, peer_text.shape[1], sizes) for kind in kinds}
        try:
            import torch

            machine |= {
                "torch": torch.__version__,
                "torch_instruction_set": torch.backends.cpu.get_cpu_capability(),
            }
            for kind in kinds:
                for form, mode, way in _peers(torch, kind, sizes, formats, peer_text, left_out):
                    ways[f"{form}, {mode}"] = way
                    kept[f"{form}, {mode}"] = {"mode": mode, "network": None, "form": form}
        except ImportError as error:
            left_out.append(str(MissingExtraError("PyTorch", str(error), 'pip install "evsim[torch]"')))
    _check_length(n_steps, tokens)
    times = race(ways, n_steps, tokens, rounds, clock)
    for name, row in times.items():
        row |= kept[name] | {"ratios": {}}
    for row in times.values():
        rivals = {n: r for n, r in times.items() if r["form"] and r["mode"] == row["mode"]}
        if row["network"] is not None:
            row["ratios"] = {n: _summary(_ratio(rival, row)) for n, rival in rivals.items()}
    return {
        "lanes": 1,
        "threads": 1,
        "tokens": tokens,
        "rounds": rounds,
        "sizes": sizes,
        "machine": machine,
        "networks": about,
        "dense_macs_per_token": dense_macs,
        "times": times,
        "left_out": left_out,
    }


def race(
    ways: Mapping[str, Task], n_steps: int, tokens: int, rounds: int, clock: Clock = time.process_time
) -> dict[str, dict[str, Any]]:
    """Time contestants in turn, window by window; see the head of this file.

    Parameters
    ----------
    ways : mapping of str to callable
        Each is called with the first and the last step (exclusive) of a window.
    n_steps : int
        Length of the text; windows start over at its end.
    tokens, rounds, clock
        See `measure`.

    Returns
    -------
    dict of str to dict
        ``times`` of `measure`.
    """
    names = list(ways)
    found: dict[str, list[float]] = {name: [] for name in names}
    cores = dict.fromkeys(names, 0.0)
    n_windows = n_steps // tokens
    with _one_thread():
        for done in range(rounds):
            before, now = ((done + k) % n_windows * tokens for k in (0, 1))
            turn = done % len(names)
            for name in names[turn:] + names[:turn]:
                ways[name](before, before + tokens)
                wall, busy, start = time.perf_counter(), time.process_time(), clock()
                ways[name](now, now + tokens)
                found[name].append((clock() - start) / tokens * 1e6)
                busy, wall = time.process_time() - busy, time.perf_counter() - wall
                if wall > SHORTEST:
                    cores[name] = max(cores[name], busy / wall)
    return {
        name: _summary(values) | {"rounds": values, "cores": cores[name] or None}
        for name, values in found.items()
    }


def describe(network: Network, inputs: NDArray) -> dict[str, Any]:
    """Activity, weights and work of a network on a text.

    Returns
    -------
    dict
        ``activity`` by population that sends: events per unit and step.  ``projections`` by name: places,
        nonzeros, density (the share that is not 0), how weights are stored, and multiply-accumulates per
        token by events and if all was dense.  ``macs_per_token``: of all together.
    """
    log = Simulation(network, 1).run(inputs, tape=False)
    steps, projections = log.counters["lane_steps"], {}
    for name, p in network.projections.items():
        structure = None if p.indptr is None or p.indices is None else (p.indptr, p.indices)
        zeros = count_zeros(name, p.weight.values, p.shape, structure)
        projections[name] = {
            "places": zeros.places,
            "nonzeros": zeros.nonzeros,
            "density": zeros.nonzeros / zeros.places,
            "stored": "sparse" if zeros.sparse else network.narrow or str(network.dtype),
            "macs_per_token": log.counters["macs"][name] / steps,
            "dense_macs_per_token": zeros.places,
        }
    return {
        "activity": {p.name: float(log[p.name].activity) for p in _layers(network)},
        "projections": projections,
        "macs_per_token": sum(p["macs_per_token"] for p in projections.values()),
    }


# -- contestants -------------------------------------------------------------------------------------------


def _run(simulation: Simulation, text: NDArray) -> Task:
    """A window at once."""
    return lambda start, stop: simulation.run(text[start:stop], carry=True, tape=False)


def _step(simulation: Simulation, text: NDArray) -> Task:
    """Token by token, with what each layer sends after each."""

    def go(start: int, stop: int) -> None:
        for token in text[start:stop]:
            simulation.step(token)

    return go


def _peers(
    torch: Any,
    kind: Kind,
    sizes: Sequence[int],
    formats: Sequence[Format],
    text: NDArray,
    left_out: list[str],
) -> list[tuple[str, str, Task]]:
    """Dense layers one above the other: name, mode and what is timed.

    What this PyTorch cannot do is said in ``left_out``.
    """
    module, found = kind.upper(), []
    whole = torch.tensor(text, dtype=torch.float32)[:, None]
    pairs = zip([text.shape[1], *sizes], sizes, strict=False)
    with torch.random.fork_rng(devices=[]):  # whoever draws from torch's generator draws the same as without
        torch.manual_seed(0)
        layers = torch.nn.ModuleList(getattr(torch.nn, module)(*pair) for pair in pairs)
        for form in formats:
            name = f"torch {module} {form}"
            try:
                stored = _in_format(torch, layers, module, form)
                value = whole.to(torch.bfloat16) if form == "bfloat16" else whole
                both = [(name, mode, _dense(torch, stored, value, mode)) for mode in ("run", "step")]
            except (AttributeError, ImportError, RuntimeError, NotImplementedError) as error:
                reason = " ".join(str(error).split())[:120]
                left_out.append(f"{name}: PyTorch {torch.__version__} cannot do it ({reason})")
            else:
                found += both
    return found


def _in_format(torch: Any, layers: Any, module: str, form: Format) -> Any:
    """Copies of dense layers with narrower weights; float32 as they are."""
    if form == "float32":
        return layers
    if form == "bfloat16":
        from copy import deepcopy

        return deepcopy(layers).to(torch.bfloat16)
    with warnings.catch_warnings():  # torch calls its own quantization deprecated; no news here
        warnings.simplefilter("ignore")
        kinds = {getattr(torch.nn, module)}
        return torch.ao.quantization.quantize_dynamic(layers, kinds, dtype=torch.qint8)


def _dense(torch: Any, layers: Any, text: Any, mode: str) -> Task:
    """A window through dense layers, whose states are carried, at once or token by token; it has run once."""
    states: list[Any] = [None] * len(layers)

    def go(start: int, stop: int) -> None:
        with torch.no_grad():
            for value in (text[start:stop],) if mode == "run" else text[start:stop, None]:
                for k, layer in enumerate(layers):
                    value, states[k] = layer(value, states[k])

    go(0, 1)
    return go


class _one_thread:
    """PyTorch on one thread, if it is loaded; afterwards on as many as before."""

    def __enter__(self) -> None:
        import sys

        self.torch = sys.modules.get("torch")
        if self.torch is not None:
            self.before = self.torch.get_num_threads()
            self.torch.set_num_threads(1)

    def __exit__(self, *exception: object) -> None:
        if self.torch is not None:
            self.torch.set_num_threads(self.before)


# -- numbers -----------------------------------------------------------------------------------------------


def _summary(values: Sequence[float] | NDArray) -> dict[str, float]:
    """Median and range."""
    return {
        "median": float(np.median(values)),
        "lowest": float(np.min(values)),
        "highest": float(np.max(values)),
    }


def _ratio(slow: Mapping[str, Any], fast: Mapping[str, Any]) -> NDArray:
    """How many times one takes longer, round by round."""
    return np.asarray(slow["rounds"]) / np.asarray(fast["rounds"])


def _dense_macs(kind: Kind, n_inputs: int, sizes: Sequence[int]) -> int:
    """Multiply-accumulates of the matrices of dense layers for one token."""
    pairs = zip([n_inputs, *sizes], sizes, strict=False)
    return sum(N_GATES[kind] * units * (inputs + units) for inputs, units in pairs)


def _layers(network: Network) -> list[Any]:
    """The populations that send events and are no sources."""
    sources = {p.name for p in Simulation(network, 1).plan.sources}
    return [p for p in network.populations.values() if p.emits and p.name not in sources]


def _peer_text(texts: Mapping[str, NDArray], peer_inputs: ArrayLike | None) -> NDArray:
    """What dense layers read."""
    vectors = [text for text in texts.values() if text.ndim == 2]
    if peer_inputs is None and not vectors:
        raise StimulusError(
            "peer_inputs", "are missing, and the text is token ids", "give the vectors of the tokens"
        )
    found = np.asarray(vectors[0] if peer_inputs is None else peer_inputs, np.float32)
    if found.ndim != 2:
        raise StimulusError("peer_inputs", f"have shape {found.shape}", "give (n_steps, n_inputs)")
    return found


def _check(
    networks: Mapping[str, Network],
    texts: Mapping[str, NDArray],
    kinds: Sequence[str],
    formats: Sequence[str],
    tokens: int,
    rounds: int,
) -> None:
    """Raise at what cannot be measured."""
    if not networks:
        raise NetworkError("token speed", "there is no network", "give one")
    for name, network in networks.items():
        if network.continuous:
            raise NetworkError(f"network '{name}'", "is in continuous time", "give one with dt in ms")
        sources = [p.name for p in Simulation(network, 1).plan.sources]
        if len(sources) != 1:
            raise NetworkError(f"network '{name}'", f"has sources {sources}", "give one with one source")
        if texts[name].ndim not in (1, 2):
            shape = texts[name].shape
            raise StimulusError(f"inputs of '{name}'", f"have shape {shape}", "give one lane: (n_steps, ...)")
    for what, asked, known in (("kind", kinds, get_args(Kind)), ("format", formats, get_args(Format))):
        for one in asked:
            if one not in known:
                raise ParameterError("token speed", f"{what} is {one!r}", f"use one of {list(known)}")
    for what, n in (("tokens", tokens), ("rounds", rounds)):
        if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1:
            raise ParameterError("token speed", f"{what} is {n!r}", "give a positive integer")
    _check_length(min(len(text) for text in texts.values()), tokens)


def _check_length(n_steps: int, tokens: int) -> None:
    if n_steps < tokens:
        raise StimulusError("inputs", f"have {n_steps} steps", f"give {tokens} or more, or smaller windows")
