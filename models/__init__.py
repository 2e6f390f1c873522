"""Unit types: each file states the equations of one, with paper and equation number, and its parameters."""

from evsim.models.delta import DeltaEncoder, DeltaGRU, DeltaLSTM
from evsim.models.egru import EGRU, beta_threshold
from evsim.models.lif import LIF
from evsim.models.readout import DeltaReadout, LeakyReadout, LinearReadout
from evsim.models.source import EventSource

__all__ = [
    "EGRU",
    "LIF",
    "DeltaEncoder",
    "DeltaGRU",
    "DeltaLSTM",
    "DeltaReadout",
    "EventSource",
    "LeakyReadout",
    "LinearReadout",
    "beta_threshold",
]
