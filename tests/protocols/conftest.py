"""Spoken words for the tests of the speech protocols; other tests here ask for none of it, and get none."""

from collections import Counter

import numpy as np
import pytest
from scipy.io import wavfile

from evsim.data.formants import synthetic_words
from evsim.data.speech import load_recordings
from evsim.eventlog import EventLog
from evsim.protocols import incremental_learning, keyword_spotting
from evsim.protocols.keyword_spotting import KeywordSpotting
from oracles.spoken_words import BANDS, N_WORDS


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Digits by two voices, named as in the Free Spoken Digit Dataset; 20 train, 10 valid, 50 test."""
    folder = tmp_path_factory.mktemp("digits")
    words = synthetic_words(seed=0, n_words=N_WORDS, n_speakers=2, n_each=8)
    index = Counter()
    for wave, label, speaker in zip(words.waves, words.label, words.speaker, strict=True):
        name = f"{label}_{speaker}"
        wavfile.write(
            folder / f"{name}_{index[name]}.wav", words.rate, np.round(wave * 32767).astype(np.int16)
        )
        index[name] += 1
    return folder


@pytest.fixture(scope="module")
def recordings(data):
    return load_recordings(data)


@pytest.fixture(scope="module")
def task(recordings):
    return KeywordSpotting(recordings, lanes=7, bands=BANDS, hop=20.0, seed=3)


class NoPicture:
    def savefig(self, path, **options):
        path.touch()


@pytest.fixture(scope="module")
def nothing_slow():
    """Neither PyTorch's time, which a test of its own measures, nor rasters, which have their own tests."""
    with pytest.MonkeyPatch.context() as patch:
        for protocol in (keyword_spotting, incremental_learning):
            patch.setattr(protocol, "torch_step_seconds", lambda *args, **options: None)
        patch.setattr(EventLog, "figure", lambda log: NoPicture())
        yield
