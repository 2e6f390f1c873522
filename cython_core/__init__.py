"""The compiled core: event queue, fan-out, unit kernels, and the two loops over time."""
