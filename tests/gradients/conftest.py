"""Lets tests import what they share: ``from gradients import cases``, ``from oracles import ...``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
