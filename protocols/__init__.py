"""Experiments, one a file; ``evsim list`` names them, ``evsim run NAME`` runs them."""

from evsim.protocols.character_model import CharacterModel
from evsim.protocols.credit import MarkedCue
from evsim.protocols.delayed_copy import DelayedCopy
from evsim.protocols.keyword_spotting import KeywordSpotting
from evsim.protocols.yin_yang import YinYang

__all__ = ["CharacterModel", "DelayedCopy", "KeywordSpotting", "MarkedCue", "YinYang"]
