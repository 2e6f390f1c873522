"""Recognise spoken words with delta networks, and with the dense LSTM or GRU that they come from."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from evsim.checkpoint import Checkpoint
from evsim.data.features import Normaliser, log_mel
from evsim.data.speech import Recordings, load_recordings
from evsim.errors import ProtocolError
from evsim.fixed_point import FixedPoint, quantize
from evsim.models.delta import DeltaEncoder, DeltaGRU, DeltaLSTM
from evsim.models.readout import DeltaReadout
from evsim.models.source import EventSource
from evsim.narrow_weights import FORMATS, narrow
from evsim.network import Network
from evsim.optimizer import Adam
from evsim.population import Population
from evsim.progress import epochs_shown
from evsim.protocol import Protocol, RunFolder, Trial, check_counts
from evsim.raster import figure
from evsim.simulation import Simulation
from evsim.threads import usable_threads
from evsim.training import Tally, Trainer, fit

if TYPE_CHECKING:
    from evsim.brian.subject import Subject

#: Words looked at together when nothing is learned.
CHECK_LANES = 64
#: The three passes of a training step, by their keys in `Tally.macs`.
PASSES = {"forward": "forward", "state": "to input", "weight": "weights"}


class KeywordSpotting(Protocol):
    """Log-mel frames of spoken words, one word a lane; every frame is asked which word it belongs to.

    Parameters
    ----------
    recordings : Recordings
    lanes : int
        Words learned from at once.
    bands : int
        Mel bands, normalised by the training words.
    hop : float
        Time from frame to frame in ms; a frame is twice as long, and at least 32 ms.
    seed : int
        Of the order of the words.
    """

    def __init__(
        self, recordings: Recordings, lanes: int = 32, bands: int = 16, hop: float = 10.0, seed: int = 0
    ):
        check_counts("KeywordSpotting", lanes=lanes, bands=bands)
        if seed < 0:
            raise ProtocolError("KeywordSpotting", f"seed is {seed}", "give 0 or more")
        self.recordings, self.lanes, self.hop, self.seed = recordings, lanes, hop, seed
        self.n_inputs, self.n_outputs = bands, len(recordings.words)
        frame = max(2 * hop, 32.0) / 1000
        heard = [
            log_mel(wave, recordings.rate, bands, frame=frame, hop=hop / 1000) for wave in recordings.waves
        ]
        normaliser = Normaliser.fit(heard[i] for i in self.part("train"))
        self.features = [normaliser.apply(frames) for frames in heard]

    def __len__(self) -> int:
        return -(-self.part("train").size // self.lanes)

    def part(self, name: str) -> NDArray[np.int64]:
        """Numbers of the recordings of a part, in their order."""
        return np.flatnonzero(self.recordings.part == name)

    def trials(self, stream: int) -> Iterator[Trial]:
        """One pass over the training words, in an order that depends on seed and stream."""
        order = np.random.default_rng([self.seed, stream]).permutation(self.part("train"))
        for first in range(0, order.size, self.lanes):
            yield self.trial(order[first : first + self.lanes])

    def check(self, part: str = "valid") -> Iterator[Trial]:
        """One pass over words that are not learned from."""
        order = self.part(part)
        for first in range(0, order.size, CHECK_LANES):
            yield self.trial(order[first : first + CHECK_LANES])

    def trial(self, numbers: NDArray[np.int64]) -> Trial:
        """Some recordings, a lane for each."""
        lengths = np.array([len(self.features[i]) for i in numbers])
        frames = np.zeros((lengths.max(), lengths.size, self.n_inputs), np.float32)
        target = np.full(frames.shape[:2], -1)
        for lane, (number, length) in enumerate(zip(numbers, lengths, strict=True)):
            frames[:length, lane] = self.features[number]
            target[:length, lane] = self.recordings.label[number]
        return Trial(frames, target, lengths=lengths)


def run(
    folder: RunFolder,
    data: Annotated[
        Path | None,
        "folder of the Free Spoken Digit Dataset, or with a folder of WAV files for each word; without it, "
        "synthetic words",
    ] = None,
    held_out: Annotated[
        str | None, "speakers to test with, separated by commas; else as the data says"
    ] = None,
    cell: Annotated[Literal["lstm", "gru"], "unit type"] = "lstm",
    units: Annotated[int, "units per layer"] = 64,
    layers: Annotated[int, "layers"] = 2,
    thresholds: Annotated[
        str, "thresholds of inputs and units to train with, separated by commas; 0 is the dense network"
    ] = "0,0.05,0.1,0.2,0.3",
    seeds: Annotated[int, "networks trained for each threshold, from other initial weights"] = 1,
    seed: Annotated[int, "seed of the first"] = 0,
    epochs: Annotated[int, "passes over the training words"] = 20,
    lanes: Annotated[int, "words learned from at once"] = 32,
    lr: Annotated[float, "learning rate of AdamW, falling to 2 % along a cosine"] = 3e-3,
    weight_decay: Annotated[float, "decoupled weight decay"] = 0.01,
    change_cost: Annotated[float, "nats added to the loss times the mean size of the events"] = 0.0,
    bands: Annotated[int, "mel bands"] = 16,
    hop: Annotated[float, "ms from frame to frame"] = 10.0,
    fixed_point: Annotated[
        str, "formats of activations, weights and tables in which the trained networks are tested too"
    ] = "Q8.8,Q2.6,Q2.4",
) -> dict[str, Any]:
    """Name spoken words: delta networks beside the dense network.

    All are trained with one recipe.  For each threshold: accuracy, events, operations (MACs) of the three
    passes of a training step, and its wall time.  The dense network is the one with threshold 0; what the
    thresholds do to it when they are applied only after training is shown beside, and what is left of each
    network with weights of 16 and 8 bits, and in fixed point.
    """
    check_counts(
        "keyword_spotting", units=units, layers=layers, seeds=seeds, epochs=epochs, lanes=lanes, bands=bands
    )
    thetas, formats = _numbers("thresholds", thresholds), _formats(fixed_point)
    task = KeywordSpotting(open_recordings(data, held_out), lanes, bands, hop, seed)
    for part in ("valid", "test"):
        if not task.part(part).size:
            problem = f"{task.recordings!r} has no {part} recordings"
            remedy = "add some: see evsim.data.speech.load_recordings for how a folder is split"
            raise ProtocolError("keyword_spotting", problem, remedy)
    folder.console.print(_describe(task), soft_wrap=True)
    recipe = {
        "data": f"{task.recordings!r}, {_digest(task.recordings)}",
        "held_out": held_out,
        "cell": cell,
        "units": units,
        "layers": layers,
        "seed": seed,
        "epochs": epochs,
        "lanes": lanes,
        "lr": lr,
        "weight_decay": weight_decay,
        "change_cost": change_cost,
        "bands": bands,
        "hop": hop,
    }
    results = _Results(folder, recipe)
    _rounded(build(task, cell, units, layers, 0.0, seed), formats)  # found out before anything is learned
    jobs = [(theta, number) for number in range(seed, seed + seeds) for theta in thetas]
    for theta, number in jobs:
        if results.find(theta, number) is None:
            folder.console.print(f"threshold {theta:g}, seed {number}")
            network = build(task, cell, units, layers, theta, number)
            resume = folder.resume and results.current == [theta, number]
            if not resume:
                results.clear()
            optimizer = Adam(network.parameters(), lr=lr, weight_decay=weight_decay, clip=1.0)
            trainer = Trainer(network, "word", optimizer, change_cost=change_cost)
            results.add(_train(folder, results, task, trainer, theta, number, epochs, lr, resume))
    chosen = [results.find(theta, number) for theta, number in jobs]
    rows = summarise([r for r in chosen if r is not None], thetas)
    peer = torch_step_seconds(task, cell, units, layers, lanes)
    network = build(task, cell, units, layers, 0.0, seed)
    numbers = range(seed, seed + seeds)
    for row in rows:
        theta = row["theta"]
        if 0.0 in thetas:
            after = [_after_training(folder, task, network, theta, number) for number in numbers]
            row["after_training"] = float(np.mean(after))
        tests = [_narrowed(folder, task, network, theta, number) for number in numbers]
        row["narrow"] = {key: float(np.mean([test[key] for test in tests])) for key in tests[0]}
        tests = [_in_fixed_point(folder, task, network, theta, number, formats) for number in numbers]
        row["fixed_point"] = {key: float(np.mean([test[key] for test in tests])) for key in tests[0]}
    summary = {
        "data": _describe(task),
        "rows": rows,
        "torch_seconds_per_step": peer,
        "formats": formats.describe(),
    }
    folder.write_json("summary.json", summary)
    _print(folder, summary, lanes)
    _draw(folder, rows, peer, cell)
    _log(folder, task, network, thetas[len(thetas) // 2], seed)
    return summary


def build(task: KeywordSpotting, cell: str, units: int, layers: int, theta: float, seed: int) -> Network:
    """mel (send-on-delta) -> delta layers, each recurrent -> h of the last as it is -> word."""
    network = Network(dt=task.hop, seed=seed)
    below: Population = network.add(EventSource(task.n_inputs, "mel", threshold=theta))
    for number in range(1, layers + 1):
        name, layer = f"layer{number}", DeltaGRU if cell == "gru" else DeltaLSTM
        # The forget gates start open (Jozefowicz, Zaremba & Sutskever 2015).
        bias = 0.0 if cell == "gru" else np.repeat([0.0, 1.0, 0.0, 0.0], units)
        population = network.add(layer(units, name, threshold=theta, bias=bias))
        network.connect(below, population, weight="glorot")
        network.connect(population, population, weight="orthogonal")
        below = population
    output = network.add(DeltaEncoder(below, "output", threshold=0.0))
    network.connect(output, network.add(DeltaReadout(task.n_outputs, "word")), weight="glorot")
    return network


def subject(seed: int = 0, variant: Literal["gru", "lstm"] = "gru", units: int = 64) -> Subject:
    """One word before training, for `evsim crosscheck keyword_spotting` and ``keyword_spotting:lstm``."""
    from evsim.brian.subject import Subject

    task = KeywordSpotting(open_recordings(None), seed=seed)
    frames = np.asarray(task.trial(task.part("train")[:1]).stimulus)
    network = build(task, variant, units, 1, 0.1, seed)
    return Subject("keyword_spotting", network, {"mel": frames}, len(frames) * task.hop)


def set_thresholds(network: Network, theta: float) -> None:
    """Let the inputs and all layers send at another threshold."""
    for name, parameter in network.parameters().items():
        if name.endswith(".threshold") and name != "output.threshold":
            parameter.assign(theta)


def accuracy(simulation: Simulation, trials: Iterator[Trial]) -> float:
    """Fraction of words whose class has the largest log-probability, summed over the frames."""
    right = asked = 0
    for trial in trials:
        log = simulation.run(trial.stimulus, lengths=trial.lengths, tape=False)
        logits = log["word"].state.astype(np.float64)
        logits -= logits.max(axis=-1, keepdims=True)
        chance = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        target = np.asarray(trial.target)
        chance[target < 0] = 0.0
        right += int((chance.sum(axis=0).argmax(axis=-1) == target[0]).sum())
        asked += target.shape[1]
    return right / max(asked, 1)


def silence(simulation: Simulation, trials: Iterator[Trial]) -> float:
    """Fraction of units and steps of the layers without an event."""
    events = places = 0
    for trial in trials:
        log = simulation.run(trial.stimulus, lengths=trial.lengths, tape=False)
        for name in log.names:
            if name.startswith("layer"):
                events += log[name].n_events
                places += log[name].n_units * log[name].lane_steps
    return 1 - events / max(places, 1)


def work(network: Network, tally: Tally) -> dict[str, dict[str, float]]:
    """MACs per frame of each pass, by event and dense; nothing goes back to the stimulus in either."""
    sources = [name for name, p in network.projections.items() if p.source.name == "mel"]
    passes = {}
    for kind, macs in tally.macs.items():
        dense = sum(n for name, n in tally.dense_macs.items() if kind != "state" or name not in sources)
        passes[kind] = {"event": sum(macs.values()) / tally.lane_steps, "dense": dense / tally.lane_steps}
    return passes


def _train(
    folder: RunFolder,
    results: _Results,
    task: KeywordSpotting,
    trainer: Trainer,
    theta: float,
    seed: int,
    epochs: int,
    lr: float,
    resume: bool,
) -> dict[str, Any]:
    """Train one network and say what came of it."""

    def on_epoch(entry: dict[str, Any]) -> None:
        # Not earlier: until the first epoch is kept, checkpoint.h5 may be that of the network before.
        results.begin(theta, seed)
        report(entry)

    with epochs_shown(folder, epochs, len(task)) as (tick, report):
        history = fit(
            trainer,
            task.trials,
            epochs=epochs,
            validation=lambda: task.check("valid"),
            schedule=lambda epoch: lr * max(0.02, (1 + math.cos(math.pi * epoch / epochs)) / 2),
            checkpoint=folder / "checkpoint.h5",
            resume=resume,
            on_trial=tick,
            on_epoch=on_epoch,
        )
    shutil.copyfile(folder / "checkpoint.h5", _network_file(folder, theta, seed))
    tally, simulation = history.training, Simulation(trainer.simulation.plan)
    return {
        "theta": theta,
        "seed": seed,
        "accuracy": {part: accuracy(simulation, task.check(part)) for part in ("valid", "test")},
        "best_epoch": history.best_epoch,
        "activity": {n: tally.events[n] / tally.unit_steps[n] for n in tally.events if n != "output"},
        "work": work(trainer.network, tally),
        "seconds_per_step": sum(tally.seconds.values()) / tally.trials,
    }


def _digest(recordings: Recordings) -> str:
    """Of all waves with their labels and parts: another folder of that name is other data."""
    found = hashlib.sha1()
    for wave in recordings.waves:
        found.update(wave.tobytes())
    for column in (recordings.label, recordings.part, recordings.speaker):
        found.update(repr(column.tolist()).encode())
    return found.hexdigest()[:12]


class _Results:
    """What is done so far, kept in results.json so that a run can be resumed; all trained with one recipe."""

    def __init__(self, folder: RunFolder, recipe: dict[str, Any]):
        self.folder, self.recipe = folder, recipe
        self.done: list[dict[str, Any]] = []
        self.current: list[float] | None = None
        path = folder / "results.json"
        if folder.resume and path.exists():
            try:
                kept = json.loads(path.read_text())
                before, self.done, self.current = kept["recipe"], kept["done"], kept["current"]
            except (ValueError, KeyError, TypeError) as error:
                problem = "does not hold the results of a run"
                raise ProtocolError(f"'{path}'", problem, "give another --out") from error
            for name, value in recipe.items():
                if before.get(name) != value:
                    problem = f"{name} is {value}, and was {before.get(name)} for what the folder holds"
                    remedy = "only thresholds and seeds can be added to a run; give another --out"
                    raise ProtocolError("keyword_spotting", problem, remedy)

    def find(self, theta: float, seed: int) -> dict[str, Any] | None:
        return next((r for r in self.done if (r["theta"], r["seed"]) == (theta, seed)), None)

    def clear(self) -> None:
        """Before another network takes the place of the one that is being trained."""
        self.current = None
        self._write()

    def begin(self, theta: float, seed: int) -> None:
        if self.current != [theta, seed]:
            self.current = [theta, seed]
            self._write()

    def add(self, result: dict[str, Any]) -> None:
        self.done.append(result)
        self.current = None
        self._write()

    def _write(self) -> None:
        kept = {"recipe": self.recipe, "done": self.done, "current": self.current}
        self.folder.write_json("results.json", kept)


def summarise(results: list[dict[str, Any]], thetas: list[float]) -> list[dict[str, Any]]:
    """A row per threshold: means over seeds, and the spread of the accuracy."""
    rows = []
    for theta in thetas:
        mine = [r for r in results if r["theta"] == theta]
        test = [r["accuracy"]["test"] for r in mine]
        layers = [name for name in mine[0]["activity"] if name != "mel"]
        work = {
            kind: {side: float(np.mean([r["work"][kind][side] for r in mine])) for side in ("event", "dense")}
            for kind in mine[0]["work"]
        }
        rows.append(
            {
                "theta": theta,
                "accuracy": float(np.mean(test)),
                "accuracy_by_seed": test,
                "validation": float(np.mean([r["accuracy"]["valid"] for r in mine])),
                "sparsity_input": 1 - float(np.mean([r["activity"]["mel"] for r in mine])),
                "sparsity_hidden": 1 - float(np.mean([r["activity"][n] for r in mine for n in layers])),
                "work": work,
                "saved": 1 - _total(work, "event") / _total(work, "dense"),
                "seconds_per_step": float(np.mean([r["seconds_per_step"] for r in mine])),
            }
        )
    return rows


def _total(work: dict[str, dict[str, float]], side: str) -> float:
    return sum(macs[side] for macs in work.values())


def _numbers(name: str, given: str) -> list[float]:
    try:
        found = [float(part) for part in given.split(",")]
    except ValueError:
        found = [math.nan]
    if not all(math.isfinite(number) and number >= 0 for number in found) or len(set(found)) < len(found):
        raise ProtocolError("keyword_spotting", f"{name} are {given!r}", "give numbers such as 0,0.1,0.2")
    return found


def _formats(given: str) -> FixedPoint:
    names = given.split(",")
    if len(names) != 3:
        remedy = "give three, such as Q8.8,Q2.6,Q2.4"
        raise ProtocolError("keyword_spotting", f"fixed_point is {given!r}", remedy)
    return FixedPoint(*names)


def open_recordings(data: Path | None, held_out: str | None = None) -> Recordings:
    """The recordings of a folder, or synthetic ones; named speakers are held out for the test."""
    recordings = load_recordings(data)
    if held_out is None:
        return recordings
    return recordings.hold_out([name.strip() for name in held_out.split(",")])


def _describe(task: KeywordSpotting) -> str:
    frames = np.mean([len(f) for f in task.features])
    return f"{task.recordings!r}, {frames:.0f} frames of {task.n_inputs} mel bands each"


def _network_file(folder: RunFolder, theta: float, seed: int) -> Path:
    return folder / f"network-theta{theta!r}-seed{seed}.h5"


def _load(folder: RunFolder, network: Network, theta: float, seed: int) -> None:
    """Give the network the best parameters of a finished training."""
    parameters = network.parameters()
    kept = Checkpoint.open(_network_file(folder, theta, seed)).check(parameters, best=True)
    for name, parameter in parameters.items():
        parameter.assign(kept[name])


def _after_training(
    folder: RunFolder, task: KeywordSpotting, network: Network, theta: float, seed: int
) -> float:
    """Accuracy of the dense network with a threshold that it was not trained with."""
    _load(folder, network, 0.0, seed)
    set_thresholds(network, theta)
    return accuracy(Simulation(network), task.check("test"))


def _narrowed(
    folder: RunFolder, task: KeywordSpotting, network: Network, theta: float, seed: int
) -> dict[str, float]:
    """Accuracy on the test words with narrow weights."""
    _load(folder, network, theta, seed)
    return {kind: accuracy(Simulation(narrow(network, kind)), task.check("test")) for kind in FORMATS}


def _in_fixed_point(
    folder: RunFolder, task: KeywordSpotting, network: Network, theta: float, seed: int, formats: FixedPoint
) -> dict[str, float]:
    """Accuracy and sparsity on the test words, in float and in fixed point, and the weights that were cut."""
    _load(folder, network, theta, seed)
    report = formats.report(network)
    found = {"cut": sum(row["cut"] for row in report) / sum(row["values"] for row in report)}
    for name, tested in (("float", network), ("fixed", _rounded(network, formats))):
        simulation = Simulation(tested)
        found[f"accuracy_{name}"] = accuracy(simulation, task.check("test"))
        found[f"sparsity_{name}"] = silence(simulation, task.check("test"))
    return found


def _rounded(network: Network, formats: FixedPoint) -> Network:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # weights that are cut are part of the result
        return quantize(network, formats)


def torch_step_seconds(task: KeywordSpotting, cell: str, units: int, layers: int, lanes: int) -> float | None:
    """Wall time of a training step of torch.nn.LSTM or GRU on such words; None without PyTorch.

    With as many threads as evsim has.  It sees all words of a batch as long as the longest.
    """
    try:
        import torch
    except ImportError:
        return None
    torch.set_num_threads(usable_threads(None))
    kind = torch.nn.GRU if cell == "gru" else torch.nn.LSTM
    body, head = kind(task.n_inputs, units, layers), torch.nn.Linear(units, task.n_outputs)
    parameters = [*body.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3)
    order = np.random.default_rng(task.seed).permutation(task.part("train"))  # in files words are in order
    took = []
    for first in range(0, min(order.size, 50 * lanes), lanes):
        trial = task.trial(order[first : first + lanes])
        frames, target = (
            torch.from_numpy(np.asarray(trial.stimulus)),
            torch.from_numpy(np.asarray(trial.target)),
        )
        start = time.perf_counter()
        optimizer.zero_grad()
        logits = head(body(frames)[0])
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=-1).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        took.append(time.perf_counter() - start)
    return float(np.mean(took[len(took) // 4 :]))


def _print(folder: RunFolder, summary: dict[str, Any], lanes: int) -> None:
    from evsim.tables import plain_table

    table = plain_table(
        "thres-\nhold",
        "accu-\nracy",
        "set\nafter",
        "silent\ninputs",
        "silent\nunits",
        *(f"MACs saved\n{kind}" for kind in PASSES.values()),
        "ms per\nstep",
    )
    for row in summary["rows"]:
        after = f"{row['after_training']:.1%}" if "after_training" in row else "-"
        table.add_row(
            f"{row['theta']:g}",
            f"{row['accuracy']:.1%}",
            after,
            f"{row['sparsity_input']:.1%}",
            f"{row['sparsity_hidden']:.1%}",
            *(f"{1 - row['work'][kind]['event'] / row['work'][kind]['dense']:.1%}" for kind in PASSES),
            f"{1000 * row['seconds_per_step']:.1f}",
        )
    folder.console.print(table)
    folder.console.print(
        "accuracy: on the test words, of the network trained with that threshold;\n"
        "set after: of the dense network (threshold 0), given it after training;\n"
        "the rest: in the last epoch of training"
    )
    small = plain_table("thres-\nhold", "accuracy\nfloat32", *(f"\n{kind}" for kind in FORMATS))
    for row in summary["rows"]:
        tests = (row["accuracy"], *(row["narrow"][kind] for kind in FORMATS))
        small.add_row(f"{row['theta']:g}", *(f"{test:.1%}" for test in tests))
    folder.console.print("\nWith narrow weights, on the test words")
    folder.console.print(small)
    fixed = plain_table(
        "thres-\nhold", "accuracy\nfloat", "\nfixed", "silent units\nfloat", "\nfixed", "weights\ncut"
    )
    for row in summary["rows"]:
        test = row["fixed_point"]
        keys = ("accuracy_float", "accuracy_fixed", "sparsity_float", "sparsity_fixed", "cut")
        fixed.add_row(f"{row['theta']:g}", *(f"{test[key]:.1%}" for key in keys))
    names = ", ".join(f"{key} {name}" for key, name in summary["formats"].items())
    folder.console.print(f"\nIn fixed point, on the test words: {names}")
    folder.console.print(fixed)
    peer = summary["torch_seconds_per_step"]
    if peer is not None:
        folder.console.print(
            f"a training step of {lanes} words with PyTorch's dense layers, measured afterwards: "
            f"{1000 * peer:.1f} ms",
            soft_wrap=True,
        )
    folder.console.print(
        f"results in {folder.path}: keyword_spotting.png, summary.json, events.h5, raster.png", soft_wrap=True
    )


def _draw(folder: RunFolder, rows: list[dict[str, Any]], peer: float | None, cell: str) -> None:
    """Accuracy, operations and time against the threshold."""
    from matplotlib.figure import Figure

    picture = Figure(figsize=(10, 3.2), layout="constrained")
    left, middle, right = picture.subplots(1, 3)
    theta = [row["theta"] for row in rows]
    left.plot(theta, [100 * row["accuracy"] for row in rows], "o-", label="trained with it")
    for row in rows:
        seeds = row["accuracy_by_seed"]
        left.plot([row["theta"]] * len(seeds), [100 * a for a in seeds], ".", color="C0", alpha=0.4)
    if all("after_training" in row for row in rows):
        after = [100 * row["after_training"] for row in rows]
        left.plot(theta, after, "s--", label="set after dense training")
    left.set(ylabel="accuracy on the test words (%)")
    left.legend()
    for (kind, name), marker in zip(PASSES.items(), "osd", strict=True):
        share = [100 * row["work"][kind]["event"] / row["work"][kind]["dense"] for row in rows]
        middle.plot(theta, share, marker + "-", label=name)
    middle.set(ylabel="MACs (% of dense)", ylim=(0, 105))
    middle.legend()
    seconds = [1000 * row["seconds_per_step"] for row in rows]
    right.plot(theta, seconds, "o-", label=f"evsim, delta {cell.upper()}")
    if peer is not None:
        right.axhline(1000 * peer, color="k", ls=":", label=f"torch.nn.{cell.upper()}, afterwards")
    right.set(ylabel="training step (ms)", ylim=(0, None))
    right.legend()
    for axes in (left, middle, right):
        axes.set_xlabel("threshold")
    picture.savefig(folder / "keyword_spotting.png", dpi=150)


def _log(folder: RunFolder, task: KeywordSpotting, network: Network, theta: float, seed: int) -> None:
    """Log one network hearing the longest test word, and draw what its lines and layers send."""
    _load(folder, network, theta, seed)
    log = Simulation(network).run(max((task.features[i] for i in task.part("test")), key=len))
    log.provenance |= {"protocol": "keyword_spotting", "settings": folder.settings}
    log.save(folder / "events.h5", overwrite=True, states=True)
    sent = {name: log[name].events for name in log if name != "output"}
    figure({name: e for name, e in sent.items() if e is not None}, log.dt).savefig(
        folder / "raster.png", dpi=150
    )
