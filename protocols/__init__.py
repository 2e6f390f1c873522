"""Experiments, one a file; ``evsim list`` names them, ``evsim run NAME`` runs them."""

from evsim.protocols.credit import MarkedCue
from evsim.protocols.delayed_copy import DelayedCopy
from evsim.protocols.keyword_spotting import KeywordSpotting
from evsim.protocols.language_model import LanguageModel
from evsim.protocols.yin_yang import YinYang

__all__ = ["DelayedCopy", "KeywordSpotting", "LanguageModel", "MarkedCue", "YinYang"]
