"""Delta networks in integers: what `evsim.fixed_point` means, written again without a single float.

A number of n fraction bits is an integer, in units of 2^-n.  Arrays are int64, scalars Python's integers,
the two functions are computed in sixty decimal digits.  One lane at a time, every weight at every step.
"""

from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from functools import cache

import numpy as np


def to_integer(value, integer, fraction):
    """The multiple of 2^-fraction nearest to a number, halves to even, within the range of the format."""
    numerator, denominator = float(value).as_integer_ratio()
    below, rest = divmod(numerator * 2**fraction, denominator)
    if 2 * rest > denominator or (2 * rest == denominator and below % 2):
        below += 1
    return cut(below, integer + fraction)


def cut(number, bits):
    """Within the range of two's complement."""
    return min(max(number, -(2 ** (bits - 1))), 2 ** (bits - 1) - 1)


def to_integers(values, integer, fraction):
    return np.array([to_integer(v, integer, fraction) for v in np.ravel(values)], np.int64).reshape(
        np.shape(values)
    )


def shift(number, bits, width):
    """``number / 2^bits`` in ``width`` bits, halves to even; numbers or arrays."""
    if bits > 0:
        rest, half = number & (2**bits - 1), 2 ** (bits - 1)
        number = number >> bits
        number = number + ((rest > half) | ((rest == half) & (number & 1 == 1)))
    else:
        number = number << -bits
    return np.clip(number, -(2 ** (width - 1)), 2 ** (width - 1) - 1)


@cache
def gate(function, number, inputs, outputs):
    """``"s"`` or ``"tanh"`` of a number of the format ``inputs``, in the format ``outputs``."""
    with localcontext(prec=60):
        x = Decimal(number) / 2 ** inputs[1]
        y = 1 / (1 + (-x).exp()) if function == "s" else 1 - 2 / ((2 * x).exp() + 1)
        return cut(int((y * 2 ** outputs[1]).to_integral_value(ROUND_HALF_EVEN)), sum(outputs))


class IntegerLane:
    """One lane of a network of floats, in integers.

    Parameters
    ----------
    network : Network
    activations, weights, tables : (integer bits, fraction bits)

    Attributes
    ----------
    events : dict of list of (step, unit, payload)
    states : dict of dict of int64 array
    history : dict of list of dict
        States after each step.
    """

    def __init__(self, network, activations, weights, tables):
        self.network, self.a, self.w, self.t = network, activations, weights, tables
        self.bits = sum(activations)
        self.products = activations[1] + weights[1]  # fraction bits of M
        self.step = 0
        self.events = {name: [] for name in network.populations}
        self.history = {name: [] for name in network.populations}
        self.states, self.parameters, self.payloads = {}, {}, {}
        for name, population in network.populations.items():
            self.states[name] = {key: np.zeros(population.n_units, np.int64) for key in population.states}
            self.payloads[name] = []
            own = population.parameters
            self.parameters[name] = {
                key: to_integers(
                    own[key].values, activations[0], self.products if key == "bias" else activations[1]
                )
                for key in own
            }
        self.weights = {
            name: to_integers(projection.to_dense(), *weights)
            for name, projection in network.projections.items()
        }

    def run(self, stimulus):
        """Go on with lines of floats, by source: (n_steps, n_units)."""
        lines = {name: to_integers(values, *self.a) for name, values in stimulus.items()}
        for t in range(len(next(iter(lines.values())))):
            done = set()
            while len(done) < len(self.network.populations):
                for name in self.network.populations:
                    if name not in done and self._needed(name) <= done:
                        self._advance(name, lines[name][t] if name in lines else None)
                        done.add(name)
            self.step += 1
        return self

    def _needed(self, name):
        """What has to come before it in a step."""
        watched = self.network[name].watches
        needed = {
            p.source.name
            for p in self.network.projections.values()
            if p.target.name == name and p.delay_steps == 0
        }
        return needed | ({watched.name} if watched else set())

    def _advance(self, name, line):
        population, state = self.network[name], self.states[name]
        for projection in self.network.projections.values():
            at = self.step - projection.delay_steps
            if projection.target is population and at >= 0:
                total = self.payloads[projection.source.name][at] @ self.weights[projection.name]
                blocks = total.reshape(projection.n_blocks, population.n_units)
                for block, part in zip(population.ports[projection.port], blocks, strict=True):
                    state[self._accumulator(population, block)] += part
        kind = type(population).__name__
        if kind == "DeltaGRU":
            line = self._gru(state, *self._whole(name, "rznq"))
        elif kind == "DeltaLSTM":
            line = self._lstm(state, *self._whole(name, "ifgo"))
        elif kind == "DeltaEncoder":
            line = self.states[population.watches.name]["h"]
        elif kind == "DeltaReadout":
            state["v"] = state["m"] + self.parameters[name]["bias"]
        if population.emits:
            self._send(name, line)
        self.history[name].append({key: values.copy() for key, values in state.items()})

    @staticmethod
    def _accumulator(population, block):
        return f"m_{block}" if f"m_{block}" in population.states else "m"

    def _whole(self, name, blocks):
        """M of each block, with its bias."""
        biases = self.parameters[name]["bias"].reshape(len(blocks), -1)
        return [self.states[name][f"m_{b}"] + bias for b, bias in zip(blocks, biases, strict=True)]

    def _activation(self, number, fraction):
        return shift(number, fraction - self.a[1], self.bits)

    def _gate(self, function, number, fraction):
        numbers = self._activation(number, fraction)
        return np.array([gate(function, int(x), self.a, self.t) for x in numbers], np.int64)

    def _gru(self, state, m_r, m_z, m_n, m_q):
        a, t, finest = self.a[1], self.t[1], max(self.products, self.a[1] + self.t[1])
        r, z = self._gate("s", m_r, self.products), self._gate("s", m_z, self.products)
        q = self._activation(m_q, self.products)
        inner = (m_n << (finest - self.products)) + (r * q << (finest - a - t))
        n = self._gate("tanh", inner, finest)
        common = max(a, t) + t
        total = (((1 << t) - z) * n << (common - 2 * t)) + (z * state["h"] << (common - a - t))
        state["h"] = self._activation(total, common)
        return state["h"]

    def _lstm(self, state, m_i, m_f, m_g, m_o):
        a, t = self.a[1], self.t[1]
        i, f, o = (self._gate("s", m, self.products) for m in (m_i, m_f, m_o))
        g = self._gate("tanh", m_g, self.products)
        common = max(a, t) + t
        total = (f * state["c"] << (common - a - t)) + (i * g << (common - 2 * t))
        state["c"] = self._activation(total, common)
        state["h"] = self._activation(o * self._gate("tanh", state["c"], a), 2 * t)
        return state["h"]

    def _send(self, name, line):
        threshold, sent = self.parameters[name]["threshold"], self.states[name]["sent"]
        payload = np.zeros_like(sent)
        for unit in range(len(line)):
            d = cut(int(line[unit]) - int(sent[unit]), self.bits)
            if d != 0 and abs(d) >= threshold[unit]:
                self.events[name].append((self.step, unit, d))
                payload[unit] = d
                sent[unit] += d
        self.payloads[name].append(payload)
