"""Readers, encoders and the small embedded data sets of evsim."""
