"""Word-level language models: event-based layers and their dense twins by one recipe, and pruning."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import numpy as np
from numpy.typing import NDArray

from evsim.checkpoint import Checkpoint
from evsim.composition import Case
from evsim.data.text import Corpus, load_corpus
from evsim.dense_stack import DenseStack, Kind
from evsim.errors import MissingExtraError, ProtocolError
from evsim.event_stack import EventStack, Reads, build_stack
from evsim.events import Events
from evsim.generation import generate_lines
from evsim.network import Network
from evsim.operations import dense_operations, operations
from evsim.optimizer import Adam
from evsim.progress import epochs_shown
from evsim.protocol import RunFolder, check_counts, check_data, check_unchanged
from evsim.pruning import CubicSchedule, Pruner, Scope
from evsim.second_process import SecondProcess
from evsim.sparsity import sparsified
from evsim.threads import blas_threads, usable_threads
from evsim.tied_embedding import TiedEmbedding
from evsim.training import History, Tally, fit
from evsim.word_recipe import Recipe, reading_windows, training_windows
from evsim.word_report import report
from evsim.word_speed import SPOKEN, reading_speed
from evsim.word_training import Stack, WordTrainer, perplexity

if TYPE_CHECKING:
    from evsim.brian.subject import Subject

#: Lanes and steps in which the validation text is read; the test text is read in one lane.
CHECK_LANES, CHECK_STEPS = 8, 128
#: Shares of a vocabulary, in order of frequency, at which clusters of the softmax begin, from so many words
#: on.
CUTS, LARGE_VOCABULARY = (0.03, 0.12, 0.3, 0.6), 5000
#: Patterns of the weights that are pruned: all that lead to recurrent layers.
PRUNED = "*->layer*"


def run(
    folder: RunFolder,
    corpus: Annotated[
        Path | None,
        "folder with train, valid and test files, or a text file; without it, Python's own help texts",
    ] = None,
    units: Annotated[int, "units per layer, but for the last"] = 256,
    embedding: Annotated[int, "length of a word's vector, and units of the last layer"] = 128,
    layers: Annotated[int, "recurrent layers"] = 3,
    epochs: Annotated[int, "passes over the training text"] = Recipe.epochs,
    prune: Annotated[
        str, "shares of recurrent and input weights to take away, one after the other; none: do not"
    ] = "0.8,0.9,0.95",
    prune_scope: Annotated[
        Scope, "within what weights are compared: each projection, each gate of it, or all together"
    ] = "projection",
    tune: Annotated[int, "epochs of pruning and fine-tuning for each of these"] = 5,
    twins: Annotated[str, "dense networks to train alike in PyTorch: gru, lstm, or none"] = "gru",
    threshold: Annotated[float, "event threshold, 0 to 1; at 0 every positive state is an event"] = 0.0,
    train_threshold: Annotated[bool, "whether thresholds are trained"] = False,
    activity_cost: Annotated[
        float, "nats added to the loss, times the mean square distance of units' activity from the target"
    ] = 50.0,
    activity_target: Annotated[float, "events per word that a unit is to send"] = 0.1,
    reads: Annotated[
        Reads, "what words are predicted from: states of all layers, of the last one, or its events"
    ] = "states",
    gamma: Annotated[float, "height of the triangular pseudo-derivative"] = 1.0,
    eps: Annotated[float, "inverse half-width of that triangle: more makes the backward pass sparser"] = 3.6,
    lr: Annotated[float, "largest learning rate of AdamW"] = Recipe.lr,
    tune_lr: Annotated[float, "the same in fine-tuning"] = 0.6 * Recipe.lr,
    weight_decay: Annotated[float, "decay of weights; makes units more silent, too"] = Recipe.weight_decay,
    dropout_words: Annotated[float, "share of words without a vector in a window"] = Recipe.dropout_words,
    dropout_embedding: Annotated[float, "share of the vectors' entries dropped"] = Recipe.dropout_embedding,
    dropout_layers: Annotated[float, "share dropped between layers"] = Recipe.dropout_layers,
    dropout_output: Annotated[float, "share dropped before the softmax"] = Recipe.dropout_output,
    dropconnect: Annotated[float, "share of recurrent weights dropped"] = Recipe.dropconnect,
    lanes: Annotated[int, "streams of text learned from at once"] = Recipe.lanes,
    window: Annotated[int, "steps of truncated backpropagation, on average"] = Recipe.window,
    rests: Annotated[float, "share of windows that begin at rest"] = Recipe.rests,
    generate: Annotated[int, "words to write after training, from the sparsest network"] = 0,
    prompt: Annotated[str, "what they are to follow"] = "<eos>",
    temperature: Annotated[float, "of their choice: below 1 is more sure"] = 1.0,
    text_seed: Annotated[int, "seed of their choice"] = 0,
    side_by_side: Annotated[bool, "train dense twins at the same time, in a second process"] = False,
    threads: Annotated[
        int | None, "threads of a training; by default all cores, of two side by side half of them"
    ] = None,
    speed: Annotated[
        bool, "measure the time of a word in one lane, beside PyTorch if there are twins"
    ] = True,
    seed: Annotated[int, "seed of weights, masks and windows"] = 0,
) -> dict[str, Any]:
    """Train event-based language models beside their dense twins.

    An EGRU network is trained, then pruned in stages; a dense GRU or LSTM of the same size is trained by
    the same recipe: the same windows, masks and optimiser.  All are tested on text that was not learned
    from, reading in one lane, and compared in perplexity, operations, energy and time.  A run that was
    stopped goes on with --resume where its last epoch ended, and one that is done can write text: --resume
    FOLDER --generate 200.
    """
    counts = {"units": units, "embedding": embedding, "layers": layers, "tune": tune}
    check_counts("language_model", **counts)
    if not (np.isfinite(tune_lr) and tune_lr >= 0):
        raise ProtocolError("language_model", f"tune_lr is {tune_lr}", "give 0 or more")
    if generate < 0 or text_seed < 0 or not temperature > 0:
        given = f"generate {generate}, temperature {temperature}, text_seed {text_seed}"
        raise ProtocolError("language_model", given, "give more")
    shares, kinds = _shares(prune), _kinds(twins)
    _check_unchanged(folder, shares)
    recipe = Recipe(
        lanes=lanes,
        window=window,
        rests=rests,
        epochs=epochs,
        lr=lr,
        weight_decay=weight_decay,
        dropout_words=dropout_words,
        dropout_embedding=dropout_embedding,
        dropout_layers=dropout_layers,
        dropout_output=dropout_output,
        dropconnect=dropconnect,
        activity_cost=activity_cost,
        activity_target=activity_target,
        seed=seed,
    )
    text = load_corpus(corpus, "word").by_frequency()
    if folder.resume:
        check_data("language_model", folder, f"corpus '{text.name}'", text.checksum)
    folder.console.print(_describe(text), soft_wrap=True)
    sizes = [units] * (layers - 1) + [embedding]
    if reads == "states" and layers > 1 and units < embedding:
        raise ProtocolError(
            "language_model",
            f"units {units}, embedding {embedding}: layers are narrower than the last one",
            "give no fewer units than the embedding has, or --reads state",
        )
    n_threads = usable_threads(threads)
    if side_by_side and kinds and threads is None:
        n_threads = max(n_threads // 2, 1)
    experiment = _Experiment(folder, text, sizes, embedding, seed, reads, n_threads)
    network = build_stack(embedding, sizes, threshold, train_threshold=train_threshold, seed=seed)
    if generate and not text.encode(prompt).size:
        raise ProtocolError("language_model", "prompt has no word", "give one or more, such as '<eos>'")
    options: dict[str, Any] = {"gamma": gamma, "eps": eps, "reads": reads}
    words = experiment.embedding()
    stack = EventStack(network, activity_cost, activity_target, threads=n_threads, **options)
    if generate and experiment.is_done():
        file = experiment.take_up(words, network, shares)
        folder.console.print(f"from {file}")
        small = EventStack(sparsified(network), **options)
        return write(folder, words, small, text, generate, prompt, temperature, text_seed)
    if kinds and find_spec("torch") is None:
        raise MissingExtraError("PyTorch", "is not installed", 'pip install "evsim[torch]", or --twins none')
    experiment.check_text(recipe)
    if not folder.resume:
        experiment.clear()
        check_data("language_model", folder, f"corpus '{text.name}'", text.checksum)
    beside = experiment.train_beside(kinds, recipe) if side_by_side and kinds else None
    results = []
    with blas_threads(n_threads):
        results.append(experiment.train("EGRU", words, stack, recipe))
        for number, (before, share) in enumerate(pairwise([0.0, *shares]), 1):
            tuning = replace(recipe, epochs=tune, lr=tune_lr, warm_up=0.1, seed=seed + number)
            results.append(experiment.prune(words, stack, tuning, before, share, prune_scope))
            results[-1]["epochs_before"] = epochs + (number - 1) * tune
        if beside is not None and not beside.join():
            folder.console.print(f"the other process was stopped, see {beside.log}; it goes on here")
        for kind in kinds:
            results.append(experiment.train(kind.upper(), *experiment.twin(kind), recipe))
    small = EventStack(sparsified(network), **options)
    summary = {
        "corpus": repr(text),
        "recipe": asdict(recipe),
        "trained_with": experiment.settings(),
        "sizes": sizes,
        "results": results,
        "speed": None,
    }
    if speed:
        summary["speed"] = reading_speed(small.network, words, text.valid[: 5 * SPOKEN], kinds)
    folder.write_json("summary.json", summary)
    report(folder, summary, experiment.cases)
    experiment.log(small, words)
    if generate:
        write(folder, words, small, text, generate, prompt, temperature, text_seed)
    return summary


class _Experiment:
    """What all models of a run have in common."""

    def __init__(
        self,
        folder: RunFolder,
        text: Corpus,
        sizes: list[int],
        n_units: int,
        seed: int,
        reads: Reads,
        threads: int,
    ):
        self.folder, self.text, self.sizes, self.seed = folder, text, sizes, seed
        self.n_units, self.reads, self.threads = n_units, reads, threads
        self.resume = folder.resume  # or another process has begun
        self.cases: list[Case] = []  # of all models, for the table of operations

    def settings(self) -> dict[str, Any]:
        """Options of the run that training depends on."""
        return {key: value for key, value in self.folder.settings.items() if key not in FREE}

    def is_done(self) -> bool:
        """Whether a run that is resumed has ended before, with the settings it has now."""
        try:
            summary = json.loads((self.folder / "summary.json").read_text())
        except (OSError, ValueError):
            return False
        return self.folder.resume and summary.get("trained_with") == self.settings()

    def clear(self) -> None:
        """Remove results of another run, from which this one would go on once it is stopped and resumed."""
        found = ["summary.json", "checkpoint.h5", "gru.h5", "lstm.h5", "twins.log"]
        for path in [self.folder / name for name in found] + list(self.folder.path.glob("pruned_*.h5")):
            path.unlink(missing_ok=True)

    def check_text(self, recipe: Recipe) -> None:
        """Refuse a text that is too short, before anything is trained or removed."""
        self._n_windows(recipe)
        for part in ("valid", "test"):
            n = len(getattr(self.text, part))
            if n == 1 or (part == "valid" and n == 0):
                raise ProtocolError(
                    "language_model", f"the {part} part of the text has {n} words", "give a longer text"
                )

    def embedding(self) -> TiedEmbedding:
        """A new one; equal ones for all models."""
        return TiedEmbedding(self.text.n_tokens, self.n_units, cuts(self.text.n_tokens), seed=self.seed)

    def twin(self, kind: Kind) -> tuple[TiedEmbedding, DenseStack]:
        """A dense model of the sizes of the event-based one, before it has learned anything."""
        stack = DenseStack(
            kind, self.sizes, self.n_units, self.seed, self.threads, all_layers=self.reads == "states"
        )
        return self.embedding(), stack

    def train_beside(self, kinds: list[Kind], recipe: Recipe) -> SecondProcess:
        """Begin to train dense twins, or go on, in a second process; `train` then finds them trained."""
        settings = (self.text, self.sizes, self.n_units, self.seed, self.reads, self.threads)
        given = (self.folder.path, self.resume, settings, kinds, recipe)
        log = self.folder / "twins.log"
        self.folder.console.print(f"{', '.join(kinds)} are trained at the same time, see {log}")
        other = SecondProcess(_train_twins, *given, log=log)
        self.resume = True
        return other

    def train(self, name: str, words: TiedEmbedding, stack: Stack, recipe: Recipe) -> dict[str, Any]:
        """Train a model from the start, or go on; its result."""
        trainer, history = self.fit(name, words, stack, recipe)
        return self._result(name, trainer, history, 0.0)

    def fit(
        self, name: str, words: TiedEmbedding, stack: Stack, recipe: Recipe
    ) -> tuple[WordTrainer, History]:
        """As `train`, without the result."""
        trainer = WordTrainer(words, stack, recipe, _adam(words, stack, recipe))
        file = _file(0.0) if isinstance(stack, EventStack) else f"{name.lower()}.h5"
        return trainer, self._fit(name, trainer, file)

    def prune(
        self,
        words: TiedEmbedding,
        stack: EventStack,
        recipe: Recipe,
        before: float,
        share: float,
        scope: Scope,
    ) -> dict[str, Any]:
        """Prune a model gradually in the first half of some epochs, fine-tune it in the second."""
        name, optimizer = f"EGRU, {100 * share:g}% pruned", _adam(words, stack, recipe)
        last = max(self._n_windows(recipe) * recipe.epochs // 2, 2)
        schedule = CubicSchedule(1, last, share, initial=before, every=max(last // 40, 1))
        Pruner(stack.network, schedule, PRUNED, scope).attach(optimizer)
        trainer = WordTrainer(words, stack, recipe, optimizer)
        return self._result(name, trainer, self._fit(name, trainer, _file(share)), share)

    def _n_windows(self, recipe: Recipe) -> int:
        return sum(1 for _ in training_windows(self.text.train, recipe, 0))

    def _fit(self, name: str, trainer: WordTrainer, file: str) -> History:
        recipe, path = trainer.recipe, self.folder / file

        def now() -> str:
            return f"{name}, {_say(trainer.running)}"

        def after(entry: dict[str, Any]) -> str:
            held_out = f"{name}: perplexity {np.exp(entry['validation']):.1f} on held-out text"
            return f"{held_out}, {_say(trainer.running)}, {entry['seconds']:.0f} s"

        n_windows = self._n_windows(recipe)
        with epochs_shown(self.folder, recipe.epochs, n_windows, after, now) as (tick, told):
            return fit(
                trainer,
                lambda epoch: training_windows(self.text.train, recipe, epoch),
                epochs=recipe.epochs,
                validation=lambda: self.check(self.text.valid, CHECK_LANES),
                checkpoint=path,
                resume=self.resume and path.exists(),
                on_trial=tick,
                on_epoch=told,
            )

    @staticmethod
    def check(words: NDArray[np.int32], lanes: int) -> Any:
        """Text that is not learned from."""
        return reading_windows(words, max(1, min(lanes, (words.size - 1) // CHECK_STEPS)), CHECK_STEPS)

    def _result(self, name: str, trainer: WordTrainer, history: History, share: float) -> dict[str, Any]:
        """Perplexities, activity and operations of a trained model; of a pruned one without its zeros."""
        words, stack = trainer.embedding, trainer.stack
        if share and isinstance(stack, EventStack):
            small = sparsified(stack.network, trainer.optimizer.masks)
            stack = EventStack(small, reads=stack.reads, threads=self.threads)
        reader = WordTrainer(words, stack, trainer.recipe, trainer.optimizer)
        valid = reader.evaluate(self.check(self.text.valid, 1))
        test = reader.evaluate(self.check(self.text.test, 1)) if self.text.test.size else valid
        layers: list[str] = stack.layers if isinstance(stack, EventStack) else []
        if isinstance(stack, EventStack):
            work = operations(stack.network, test)
        else:
            work = dense_operations([self.n_units, *self.sizes], name)
        self.cases.append(Case(name, work, perplexity(test)))
        if isinstance(stack, EventStack):
            self.cases.append(Case(f"{name}, looked up", operations(stack.network, test, "words->*")))
        return {
            "name": name,
            "weight_sparsity": share,
            "valid_perplexity": perplexity(valid),
            "test_perplexity": perplexity(test) if self.text.test.size else None,
            "activity": {layer: test.activity([layer]) for layer in layers},
            "alpha": test.activity(layers) if layers else 1.0,
            "operations": [row.summary() for row in work],
            "parameters": {
                "embedding": sum(p.values.size for p in words.parameters().values()),
                "layers": sum(p.values.size for p in stack.parameters().values()),
            },
            "epochs_before": 0,
            "best_epoch": history.best_epoch,
            "epochs": history.epochs,
            "training": history.training.summary(),
            "reading": test.summary(),
        }

    def take_up(self, words: TiedEmbedding, network: Network, shares: list[float]) -> str:
        """Put the weights of the last network that was trained in the folder into these; the file's name."""
        files = [_file(share) for share in reversed(shares)] + [_file(0.0)]
        file = next((one for one in files if (self.folder / one).exists()), files[-1])
        found = Checkpoint.open(self.folder / file)
        found.restore(words.parameters() | network.parameters(), best=True)
        return file

    def log(self, stack: EventStack, words: TiedEmbedding) -> None:
        """Log and draw the network reading the start of the held-out text."""
        stack.reset()
        log = stack.simulation.run({"words": words.look_up(self.text.valid[:LOGGED])[:, None]})
        log.provenance |= {"protocol": "language_model", "settings": self.folder.settings}
        log.save(self.folder / "events.h5", overwrite=True)
        log.figure().savefig(self.folder / "raster.png", dpi=150)


#: Words that the network is logged reading.
LOGGED = 200
#: Options that have no part in training once it has begun.
FREE = ("generate", "prompt", "temperature", "text_seed", "side_by_side", "threads", "speed")


def _train_twins(
    path: Path, resume: bool, settings: tuple[Any, ...], kinds: list[Kind], recipe: Recipe
) -> None:
    """Train dense twins in a process of their own."""
    experiment = _Experiment(RunFolder(path, force=True, resume=resume), *settings)
    with blas_threads(experiment.threads):
        for kind in kinds:
            experiment.fit(kind.upper(), *experiment.twin(kind), recipe)


def cuts(n_words: int) -> tuple[int, ...]:
    """Where clusters of the softmax begin; none for a small vocabulary."""
    return tuple(int(share * n_words) for share in CUTS) if n_words >= LARGE_VOCABULARY else ()


def write(
    folder: RunFolder,
    words: TiedEmbedding,
    stack: EventStack,
    text: Corpus,
    number: int,
    prompt: str,
    temperature: float,
    seed: int,
) -> dict[str, Any]:
    """Print text as it is made, with the activity and the time of each line; the text."""
    start = text.encode(prompt)
    folder.console.print(f"\nafter '{prompt}':", soft_wrap=True)
    parts = []
    for line in generate_lines(words, stack, start, number, temperature, seed):
        parts.append(text.decode(line.words))
        said = text.decode(line.words).replace("\n", " ")
        about = (
            f"alpha {line.activity:.3f}, {line.microseconds:.0f} us a word in the layers, "
            f"{line.microseconds_softmax:.0f} to choose it"
        )
        folder.console.print(f"{said:<84} {about}", soft_wrap=True)
    return {"prompt": prompt, "text": " ".join(parts)}


def subject(seed: int = 0, units: int = 64) -> Subject:
    """100 words through an untrained network, for `evsim crosscheck language_model`."""
    from evsim.brian.subject import Subject

    text = load_corpus(None, "word").by_frequency()
    words = TiedEmbedding(text.n_tokens, units, seed=seed)
    # As drawn, vectors are so short that next to nothing would happen.
    x = 10 * words.look_up(text.train[:100]).astype(np.float64)[:, None]
    network = build_stack(units, [units, units], seed=seed, dtype="float64")
    about = "The first 100 words of the training text, before training."
    return Subject("language_model", network, {"words": Events.from_dense(x, np.float64)}, 100.0, about=about)


def _file(share: float) -> str:
    """The checkpoint of the network of which so much was pruned."""
    return f"pruned_{100 * share:g}.h5" if share else "checkpoint.h5"


def _adam(words: TiedEmbedding, stack: Stack, recipe: Recipe) -> Adam:
    return Adam(
        words.parameters() | stack.parameters(),
        recipe.lr,
        recipe.betas,
        weight_decay=recipe.weight_decay,
        clip=recipe.clip,
    )


def _check_unchanged(folder: RunFolder, shares: list[float]) -> None:
    """A run that is resumed may be extended, not changed: what is trained would not be what is reported."""
    earlier, pruned = folder.earlier, _shares(folder.earlier.get("prune", "none"))
    if shares[: len(pruned)] != pruned:
        raise ProtocolError(
            "language_model",
            f"prune is '{folder.settings['prune']}', this run has '{earlier['prune']}'",
            "append further shares to these, or start another run",
        )
    free = (*FREE, "corpus", "twins", "prune") + (() if pruned else ("tune", "tune_lr", "prune_scope"))
    check_unchanged("language_model", folder, free)


def _shares(given: str) -> list[float]:
    """What to prune, in increasing order."""
    try:
        shares = [] if given.strip() in ("", "none") else [float(part) for part in given.split(",")]
    except ValueError:
        shares = [-1.0]
    if any(not 0 < share < 1 for share in shares) or shares != sorted(set(shares)):
        raise ProtocolError(
            "language_model",
            f"prune is '{given}'",
            "give increasing shares below 1, such as 0.8,0.9, or none",
        )
    return shares


def _kinds(given: str) -> list[Kind]:
    kinds = [] if given.strip() in ("", "none") else [part.strip() for part in given.split(",")]
    if any(kind not in ("gru", "lstm") for kind in kinds) or len(set(kinds)) < len(kinds):
        raise ProtocolError("language_model", f"twins is '{given}'", "give gru, lstm, gru,lstm or none")
    return [cast(Kind, kind) for kind in kinds]


def _describe(text: Corpus) -> str:
    sizes = f"{text.train.size:,} to learn from, {text.valid.size:,} held out"
    test = f", {text.test.size:,} for the test" * bool(text.test.size)
    return f"{text.name}: words: {sizes}{test}; {text.n_tokens:,} different ones"


def _say(tally: Tally) -> str:
    """Of the present pass: perplexity with dropout, activity, speed."""
    seconds = max(sum(tally.seconds.values()), 1e-9)
    said = f"{perplexity(tally):.1f} in training, {tally.lane_steps / seconds:,.0f} words/s"
    layers = [name for name in tally.events if name != "words"]
    if layers:
        said += f", alpha {tally.activity(layers):.3f}, beta {tally.backward_activity():.3f}"
    return said
