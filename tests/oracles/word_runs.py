"""Tiny runs of the word-level language model: their text, their options, what is compared of them."""

import json

import numpy as np

from evsim.checkpoint import Checkpoint

UNITS, VECTOR = 14, 12
#: A run without twins, long enough for two epochs of each stage.
TINY = {
    "units": UNITS,
    "embedding": VECTOR,
    "layers": 2,
    "epochs": 2,
    "tune": 2,
    "prune": "0.6,0.8",
    "twins": "none",
    "reads": "state",
    "lanes": 4,
    "window": 20,
    "lr": 0.02,
    "tune-lr": 0.01,
}


def sentences(seed, n_words):
    """Sentences of a small grammar, so that there is something to be learned."""
    rng = np.random.default_rng(seed)
    nouns, verbs, places = (
        ["cat", "dog", "fox", "owl"],
        ["sat", "ran", "saw", "slept"],
        ["mat", "log", "hill"],
    )
    words, lines = 0, []
    while words < n_words:
        line = f"the {rng.choice(nouns)} {rng.choice(verbs)} on a {rng.choice(places)}"
        if rng.random() < 0.4:
            line += f" and the {rng.choice(nouns)} {rng.choice(verbs)} too"
        lines.append(f" {line} \n")
        words += len(line.split()) + 1
    return "".join(lines)


def write_corpus(folder, pattern):
    for seed, (part, n_words) in enumerate({"train": 2500, "valid": 400, "test": 500}.items()):
        (folder / pattern.format(part)).write_text(sentences(seed, n_words))
    return folder


def words_of(corpus, **changes):
    options = TINY | {"corpus": corpus} | changes
    pairs = [(f"--{key}", str(value)) for key, value in options.items() if not isinstance(value, bool)]
    flags = [f"--{'' if value else 'no-'}{key}" for key, value in options.items() if isinstance(value, bool)]
    return ["run", "language_model", *(word for pair in pairs for word in pair), *flags]


def read(path):
    return json.loads(path.read_text())


def without_seconds(item):
    """What does not depend on how fast a machine is."""
    if isinstance(item, dict):
        return {
            key: without_seconds(value)
            for key, value in item.items()
            if "seconds" not in key and key != "speed"
        }
    return [without_seconds(part) for part in item] if isinstance(item, list) else item


def contents(path):
    """All of a checkpoint that does not depend on the time of day, to the bit."""
    found = Checkpoint.open(path)
    arrays = [found.parameters, found.best, found.optimizer, found.structure]
    kept = [{name: (a.dtype, a.shape, a.tobytes()) for name, a in part.items()} for part in arrays]
    return kept, without_seconds(found.progress)
