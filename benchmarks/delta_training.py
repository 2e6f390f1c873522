"""A whole training step of a delta LSTM at batch 1 beside torch.nn.LSTM: same words, same run, one thread.

Motivation: batch-1 training of a dense LSTM is bound by streaming its weights, forwards and twice backwards;
sparse BPTT reads and writes only the rows of lines that sent an event.

For each threshold the delta network is first trained for some epochs, so that its sparsity is that of a
network which knows its task.  Then both take training steps on the same words, one word at a time: in turn,
some steps in a row (``--block``); the first ones after the other's turn, with code and data out of caches,
take up to four times as long, which training by itself does not see: there the median is that of long turns.
A step is forward, cross-entropy at every frame, backward, and Adam; "LSTM alone" is forward and backward
without loss and Adam (ours with the readout and the log).  The last column is the time of their LSTM alone
over that of our whole step, which does more.

    python benchmarks/delta_training.py [--data FOLDER] [--units 128] [--thresholds 0.1 0.2 0.3]
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import numpy as np
import torch

from evsim import Adam, Adjoint, Network, Simulation, Trainer, cross_entropy
from evsim.core import kernels
from evsim.models import DeltaLSTM, DeltaReadout, EventSource
from evsim.protocols.keyword_spotting import KeywordSpotting, open_recordings


def network(task: KeywordSpotting, units: int, threshold: float) -> Network:
    """mel -> DeltaLSTM -> word; the readout sees what the layer has sent."""
    net = Network(dt=task.hop)
    mel = net.add(EventSource(task.n_inputs, "mel", threshold=threshold))
    layer = net.add(
        DeltaLSTM(units, "layer", threshold=threshold, bias=np.repeat([0.0, 1.0, 0.0, 0.0], units))
    )
    word = net.add(DeltaReadout(task.n_outputs, "word"))
    net.connect(mel, layer)
    net.connect(layer, layer, weight="orthogonal")
    net.connect(layer, word)
    return net


def compare(
    task: KeywordSpotting, units: int, threshold: float, epochs: int, words: int, block: int
) -> dict[str, float]:
    """Medians over words of milliseconds per training step, and of the ratios; ``block`` steps in a row."""
    net = network(task, units, threshold)
    trainer = Trainer(net, "word", Adam(net.parameters(), lr=3e-3, clip=1.0), threads=1)
    for epoch in range(epochs):
        trainer.learn(task.trials(epoch))
    simulation, adam = Simulation(net, threads=1), Adam(net.parameters(), lr=1e-4)
    adjoint = Adjoint(simulation.plan, threads=1)
    body, head = torch.nn.LSTM(task.n_inputs, units), torch.nn.Linear(units, task.n_outputs)
    torch_adam = torch.optim.Adam([*body.parameters(), *head.parameters()], lr=1e-4)
    numbers = np.random.default_rng(0).permutation(task.part("train"))[:words]
    trials = [task.trial(np.array([number])) for number in numbers]
    pairs = [(np.asarray(trial.stimulus), np.asarray(trial.target)) for trial in trials]
    found: dict[str, list[float]] = {}
    for first in range(0, words, block):
        turn = pairs[first : first + block]
        tensors = [(torch.from_numpy(frames), torch.from_numpy(target)) for frames, target in turn]
        ours = [_our_step(simulation, adjoint, adam, frames, target) for frames, target in turn]
        theirs = [_torch_step(body, head, torch_adam, frames, target) for frames, target in tensors]
        alone = [_torch_alone(body, frames) for frames, _ in tensors]
        for mine, whole, lstm in zip(ours, theirs, alone, strict=True):
            seconds, without = sum(mine.seconds), mine.seconds[0] + mine.seconds[2]
            entry = {
                "saved": mine.saved,
                "evsim": 1e3 * seconds,
                "torch": 1e3 * whole,
                "ratio": whole / seconds,
                "evsim alone": 1e3 * without,
                "torch alone": 1e3 * lstm,
                "ratio alone": lstm / without,
                "whole to alone": lstm / seconds,
                "frames": mine.frames,
            }
            for name, value in entry.items():
                found.setdefault(name, []).append(value)
    middle = {name: float(np.median(values[words // 10 :])) for name, values in found.items()}
    low, high = np.quantile(found["ratio"][words // 10 :], [0.1, 0.9])
    return middle | {"low": float(low), "high": float(high)}


class Step(NamedTuple):
    """What one of our steps took."""

    seconds: tuple[float, float, float, float]  # forward, loss, backward, optimiser
    saved: float  # share of the dense MACs of the LSTM
    frames: int


def _our_step(simulation, adjoint, adam, frames, target):
    start = time.perf_counter()
    log = simulation.run(frames)
    forward = time.perf_counter()
    _, gradient = cross_entropy(log["word"].state, target)
    loss = time.perf_counter()
    gradients = adjoint.replay(log, {"word": gradient})
    backward = time.perf_counter()
    adam.step(gradients)
    seconds = forward - start, loss - forward, backward - loss, time.perf_counter() - backward
    lstm = [name for name in log.counters["macs"] if name != "layer->word"]
    macs = [log.counters["macs"], *(gradients.counters[f"macs_{kind}"] for kind in ("state", "weight"))]
    dense = log.counters["dense_macs"]
    whole = 2 * sum(dense[name] for name in lstm) + dense["layer->layer"]  # nothing goes back to the stimulus
    return Step(seconds, 1 - sum(passed[name] for passed in macs for name in lstm) / whole, len(frames))


def _torch_step(body, head, adam, frames, target):
    """Seconds of a whole step."""
    start = time.perf_counter()
    adam.zero_grad()
    logits = head(body(frames)[0])
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten()).backward()
    adam.step()
    return time.perf_counter() - start


def _torch_alone(body, frames):
    """Seconds of the LSTM's forward and backward alone."""
    grow = torch.ones(len(frames), 1, body.hidden_size)
    body.zero_grad()
    start = time.perf_counter()
    body(frames)[0].backward(grow)
    return time.perf_counter() - start


def main() -> None:
    """Print one line per threshold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data", type=Path, help="as `evsim run keyword_spotting` takes it; else synthetic words"
    )
    parser.add_argument("--units", type=int, default=128)
    parser.add_argument("--thresholds", type=float, nargs="+", default=[0.0, 0.1, 0.2, 0.3])
    parser.add_argument("--epochs", type=int, default=4, help="of training before the measurement")
    parser.add_argument("--words", type=int, default=200, help="training steps measured")
    parser.add_argument("--block", type=int, default=20, help="steps in a row")
    options = parser.parse_args()
    torch.set_num_threads(1)
    task = KeywordSpotting(open_recordings(options.data))
    print(f"evsim kernels: {kernels.in_use()}; torch {torch.__version__}; one thread, one word at a time")
    print(f"{task.recordings!r}, {options.units} units; medians over {options.words} words")
    print("             MACs      whole step, ms              10-90 %     LSTM alone, ms       torch alone /")
    print("threshold   saved   evsim  torch   ratio                      evsim  torch   ratio  evsim whole")
    for threshold in options.thresholds:
        r = compare(task, options.units, threshold, options.epochs, options.words, options.block)
        whole = f"{r['evsim']:7.2f} {r['torch']:6.2f} {r['ratio']:6.1f}x    {r['low']:6.1f}-{r['high']:.1f}"
        alone = f"{r['evsim alone']:6.2f} {r['torch alone']:6.2f} {r['ratio alone']:6.1f}x"
        both = f"{r['whole to alone']:6.2f}x"
        print(f"{threshold:9g}  {r['saved']:5.1%} {whole}     {alone}  {both}", flush=True)
    print(f"median word: {r['frames']:.0f} frames")


if __name__ == "__main__":
    main()
