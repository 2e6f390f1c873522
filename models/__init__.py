"""Unit types: each file states the equations of one, with paper and equation number, and its parameters."""

from evsim.models.egru import EGRU, beta_threshold
from evsim.models.readout import LeakyReadout, LinearReadout
from evsim.models.source import EventSource

__all__ = ["EGRU", "EventSource", "LeakyReadout", "LinearReadout", "beta_threshold"]
