"""Unit types of the reference: one step of each in plain NumPy, and below it its vector-Jacobian product.

`evsim.reference` says what a run is and what flows backwards; ``dX`` is the gradient of the loss with respect
to ``X``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from evsim.models import EGRU, LIF, DeltaEncoder, DeltaGRU, DeltaLSTM, DeltaReadout, EventSource, LeakyReadout
from evsim.population import Population

if TYPE_CHECKING:
    from evsim.reference import Backward, Run


def step(run: Run, unit: Population, inputs: Mapping[str, NDArray], t: int) -> dict[str, NDArray]:
    """Everything that is recorded of step t.  ``inputs`` holds the stimulus of all steps, by source."""
    match unit:
        case EGRU():
            return (_evnn if unit.form == "evnn" else _paper)(run, unit, t)
        case LIF():
            return _lif(run, unit, t)
        case DeltaGRU():
            return _delta_gru(run, unit, t)
        case DeltaLSTM():
            return _delta_lstm(run, unit, t)
        case DeltaEncoder():
            return _changes(run, unit, run[_watched(unit)]["h"][t], t)
        case LeakyReadout():
            return _readout(run, unit, t)
        case DeltaReadout():
            return _delta_readout(run, unit, t)
        case EventSource():
            line = inputs[unit.name][t]
            return _changes(run, unit, line, t) if "sent" in unit.states else {"y": line}
    raise TypeError(f"no reference for {unit!r}")


def step_vjp(back: Backward, unit: Population, t: int) -> None:
    """Take the gradients at what `step` gave, and add to those at what it was made from."""
    match unit:
        case EGRU():
            (_evnn_vjp if unit.form == "evnn" else _paper_vjp)(back, unit, t)
        case LIF():
            _lif_vjp(back, unit, t)
        case DeltaGRU():
            _delta_gru_vjp(back, unit, t)
        case DeltaLSTM():
            _delta_lstm_vjp(back, unit, t)
        case DeltaEncoder():
            back.dstate[_watched(unit)]["h"] += _changes_vjp(back, unit, t)
        case LeakyReadout():
            _readout_vjp(back, unit, t)
        case DeltaReadout():
            _delta_readout_vjp(back, unit, t)
        case EventSource() if "sent" in unit.states:
            back.dline[unit.name][t] = _changes_vjp(back, unit, t)


def _watched(unit: DeltaEncoder) -> str:
    assert unit.watches is not None
    return unit.watches.name


def _values(population: Population, parameter: str) -> NDArray:
    return population.parameters[parameter].values.astype(np.float64)


def _logistic(x: NDArray) -> NDArray:
    return 0.5 * (1.0 + np.tanh(0.5 * x))  # does not overflow


# -- EGRU --------------------------------------------------------------------------------------------------


def _evnn(run: Run, unit: EGRU, t: int) -> dict[str, NDArray]:
    theta, c = _values(unit, "threshold"), run.before(unit.name, "c", t)
    xz, xr, xg = np.split(run.drive(unit, "input", t) + _values(unit, "bias"), 3, axis=1)
    qz, qr, q = np.split(run.drive(unit, "recurrent", t) + _values(unit, "recurrent_bias"), 3, axis=1)
    z = _logistic(xz + qz)
    r = _logistic(xr + qr)
    g = np.tanh(xg + r * q)
    a = z * c + (1 - z) * g
    o = (a > theta).astype(np.float64)
    return {"z": z, "r": r, "g": g, "q": q, "a": a, "o": o, "y": o * a, "c": a - o * theta}


def _evnn_vjp(back: Backward, unit: EGRU, t: int) -> None:
    z, r, g, q = (back.run[unit.name][k][t] for k in "zrgq")
    c = back.run.before(unit.name, "c", t)
    da = _fire(back, unit, t)
    dz = z * (1 - z) * (c - g) * da  # of the arguments of s, s and tanh
    dg = (1 - g**2) * (1 - z) * da
    dr = r * (1 - r) * q * dg
    dx = np.concatenate([dz, dr, dg], axis=1)
    dq = np.concatenate([dz, dr, r * dg], axis=1)
    back.dstate[unit.name]["c"] = z * da
    back.dparameter[f"{unit.name}.bias"] += dx.sum(axis=0)
    back.dparameter[f"{unit.name}.recurrent_bias"] += dq.sum(axis=0)
    back.receive(unit, "input", t, dx)
    back.receive(unit, "recurrent", t, dq)


def _recurrent(run: Run, unit: EGRU, t: int) -> list[tuple]:
    """(projection, y', Ru, Rr, Rz) of each projection into the recurrent port."""
    ends = run.into(unit, "recurrent")
    return [(p, run.arriving(p, t), *np.split(run.weights[p.name], 3, axis=1)) for p in ends]


def _paper(run: Run, unit: EGRU, t: int) -> dict[str, NDArray]:
    theta, c = _values(unit, "threshold"), run.before(unit.name, "c", t)
    pu, pr, pz = np.split(run.drive(unit, "input", t) + _values(unit, "bias"), 3, axis=1)
    for _, y, Ru, Rr, _ in _recurrent(run, unit, t):
        pu = pu + y @ Ru
        pr = pr + y @ Rr
    u, r = _logistic(pu), _logistic(pr)
    for _, y, _, _, Rz in _recurrent(run, unit, t):
        pz = pz + (r * y) @ Rz
    z = np.tanh(pz)
    a = u * z + (1 - u) * c - run.sent(unit.name, t - 1)
    o = (a > theta).astype(np.float64)
    return {"u": u, "r": r, "z": z, "a": a, "o": o, "y": o * a, "c": a}


def _paper_vjp(back: Backward, unit: EGRU, t: int) -> None:
    u, r, z = (back.run[unit.name][k][t] for k in "urz")
    c = back.run.before(unit.name, "c", t)
    da = _fire(back, unit, t)
    du = u * (1 - u) * (z - c) * da  # of the arguments of s, s and tanh
    dz = (1 - z**2) * u * da
    dr = np.zeros_like(r)
    for _, y, _, _, Rz in _recurrent(back.run, unit, t):
        dr += r * (1 - r) * y * (dz @ Rz.T)
    for p, y, Ru, Rr, Rz in _recurrent(back.run, unit, t):
        back.dweight[p.name] += np.concatenate([y.T @ du, y.T @ dr, (r * y).T @ dz], axis=1)
        back.send(unit.name, t - p.delay_steps, du @ Ru.T + dr @ Rr.T + r * (dz @ Rz.T))
    back.send(unit.name, t - 1, -da)
    dx = np.concatenate([du, dr, dz], axis=1)
    back.dstate[unit.name]["c"] = (1 - u) * da
    back.dparameter[f"{unit.name}.bias"] += dx.sum(axis=0)
    back.receive(unit, "input", t, dx)


def _fire(back: Backward, unit: EGRU, t: int) -> NDArray:
    """da from what follows of a: o = H(a - threshold), y = o a, and c = a - o threshold or c = a."""
    name, theta = unit.name, _values(unit, "threshold")
    a, o = back.run[name]["a"][t], back.run[name]["o"][t]
    resets = float(unit.form == "evnn")
    dc = back.dstate[name]["c"] + back.losses[name][t]
    dy = back.dsent[name][back.depth[name] + t] + back.losses[f"{name}.y"][t]
    do = back.losses[f"{name}.o"][t] + a * dy - resets * theta * dc
    slope = back.slope(a - theta)
    back.active[name][t] = ((slope > 0) | (o > 0)) & back.run.alive[t]
    back.dparameter[f"{name}.threshold"] -= (slope * do + resets * o * dc).sum(axis=0)
    return dc + o * dy + slope * do


# -- LIF ---------------------------------------------------------------------------------------------------


def _system(unit: LIF, dt: float) -> tuple[NDArray, NDArray]:
    """The equations as (V, I_e, I_i, 1)' = A (V, I_e, I_i, 1) for a bias of 1: A dt, and dA / d tau dt."""
    tau_m, tau_e, tau_i = (_values(unit, name)[0] for name in ("tau_m", "tau_e", "tau_i"))
    A, by_tau = np.zeros((4, 4)), np.zeros((3, 4, 4))
    A[0], A[1, 1], A[2, 2] = np.array([-1, 1, 1, 1]) / tau_m, -1 / tau_e, -1 / tau_i
    by_tau[0, 0], by_tau[1, 1, 1], by_tau[2, 2, 2] = -A[0] / tau_m, 1 / tau_e**2, 1 / tau_i**2
    return A * dt, by_tau * dt


def _held(run: Run, unit: LIF, t: int) -> NDArray[np.bool_]:
    return run.before(unit.name, "hold", t) > 0


def _arrived_currents(run: Run, unit: LIF, t: int) -> tuple[NDArray, NDArray]:
    """Both currents of step t, with what arrived."""
    ports = (("i_e", "excitatory"), ("i_i", "inhibitory"))
    e, i = (run.before(unit.name, name, t) + run.drive(unit, port, t) for name, port in ports)
    return e, i


def _lif(run: Run, unit: LIF, t: int) -> dict[str, NDArray]:
    A, _ = _system(unit, run.network.step)
    v, hold, held = run.before(unit.name, "v", t), run.before(unit.name, "hold", t), _held(run, unit, t)
    state = np.stack([v, *_arrived_currents(run, unit, t), _values(unit, "bias") + 0 * v])
    moved = np.tensordot(scipy.linalg.expm(A), state, 1)
    a = np.where(held, unit.reset, moved[0])
    o = (a >= _values(unit, "threshold")).astype(np.float64)
    # a refractory period of 0.3 ms is three steps of 0.1 ms, whatever floats make of it
    steps = np.ceil(round(unit.refractory / run.network.step, 6))
    hold = np.where(o > 0, steps, np.maximum(hold - 1, 0))
    v = np.where(o > 0, unit.reset, a)
    return {"a": a, "o": o, "y": o, "v": v, "i_e": moved[1], "i_i": moved[2], "hold": hold}


def _lif_vjp(back: Backward, unit: LIF, t: int) -> None:
    name, run, dstate = unit.name, back.run, back.dstate[unit.name]
    A, by_tau = _system(unit, run.network.step)
    a, o, held = run[name]["a"][t], run[name]["o"][t], _held(run, unit, t)
    dv = dstate["v"] + back.losses[name][t]
    dy = back.dsent[name][back.depth[name] + t] + back.losses[f"{name}.y"][t] + back.losses[f"{name}.o"][t]
    slope = np.where(held, 0.0, back.slope(a - _values(unit, "threshold")))
    dfire = slope * (dy + (unit.reset - a) * dv)  # v = a + o (reset - a)
    back.active[name][t] = ((slope > 0) | (o > 0)) & run.alive[t]
    back.dparameter[f"{name}.threshold"] -= dfire.sum(axis=0)
    da = np.where(held, 0.0, (1 - o) * dv + dfire)
    dmoved = np.stack([da, dstate["i_e"], dstate["i_i"], np.zeros_like(da)])
    v = run.before(name, "v", t)
    state = np.stack([v, *_arrived_currents(run, unit, t), _values(unit, "bias") + 0 * v])
    for tau, dA in zip(("tau_m", "tau_e", "tau_i"), by_tau, strict=True):
        by_step = scipy.linalg.expm_frechet(A, dA, compute_expm=False)
        back.dparameter[f"{name}.{tau}"] += (dmoved * np.tensordot(by_step, state, 1)).sum()
    dv, de, di, dbias = np.tensordot(scipy.linalg.expm(A).T, dmoved, 1)
    dstate |= {"v": dv, "i_e": de, "i_i": di, "hold": np.zeros_like(dv)}
    back.dparameter[f"{name}.bias"] += dbias.sum(axis=0)
    back.receive(unit, "excitatory", t, de)
    back.receive(unit, "inhibitory", t, di)


# -- changes: sources, delta units, encoders ---------------------------------------------------------------


def _changes(run: Run, unit: Population, line: NDArray, t: int) -> dict[str, NDArray]:
    sent = run.before(unit.name, "sent", t)
    d = line - sent
    y = np.where((np.abs(d) >= _values(unit, "threshold")) & (d != 0), d, 0.0)
    return {"y": y, "sent": sent + y}


def _changes_vjp(back: Backward, unit: Population, t: int) -> NDArray:
    """The gradient at the line: sent is the line where an event was sent, else what it was before."""
    name = unit.name
    fired, dheld = back.run[name]["y"][t] != 0, back.dheld[name]
    dy = back.dsent[name][back.depth[name] + t] + (back.losses[f"{name}.y"][t] if "y" in unit.losses else 0.0)
    dheld[t] += np.where(fired, -dy, dheld[t + 1])
    return np.where(fired, dheld[t + 1] + dy, 0.0)


def _delta_gru(run: Run, unit: DeltaGRU, t: int) -> dict[str, NDArray]:
    rest, h = run.initial[unit.name], run.before(unit.name, "h", t)
    xr, xz, xn = np.split(run.held(unit, "input", t), 3, axis=1)
    hr, hz, hq = np.split(run.held(unit, "recurrent", t), 3, axis=1)
    m_r, m_z, m_n, m_q = rest["m_r"] + xr + hr, rest["m_z"] + xz + hz, rest["m_n"] + xn, rest["m_q"] + hq
    br, bz, bn, bq = np.split(_values(unit, "bias"), 4)
    r, z, q = _logistic(m_r + br), _logistic(m_z + bz), m_q + bq
    n = np.tanh(m_n + bn + r * q)
    h = (1 - z) * n + z * h
    new = {"r": r, "z": z, "n": n, "q": q, "h": h, "m_r": m_r, "m_z": m_z, "m_n": m_n, "m_q": m_q}
    return new | _changes(run, unit, h, t)


def _delta_gru_vjp(back: Backward, unit: DeltaGRU, t: int) -> None:
    r, z, n, q = (back.run[unit.name][k][t] for k in "rznq")
    h, dstate = back.run.before(unit.name, "h", t), back.dstate[unit.name]
    dh = dstate["h"] + back.losses[unit.name][t] + _changes_vjp(back, unit, t)
    dn = (1 - n**2) * (1 - z) * dh
    dz = z * (1 - z) * (h - n) * dh
    dr = r * (1 - r) * q * dn
    dstate["h"] = z * dh
    _memories_vjp(back, unit, {"m_r": dr, "m_z": dz, "m_n": dn, "m_q": r * dn})
    back.hold(unit, "input", t, np.concatenate([dr, dz, dn], axis=1))
    back.hold(unit, "recurrent", t, np.concatenate([dr, dz, r * dn], axis=1))


def _delta_lstm(run: Run, unit: DeltaLSTM, t: int) -> dict[str, NDArray]:
    rest, c = run.initial[unit.name], run.before(unit.name, "c", t)
    arrived = np.split(run.held(unit, "input", t) + run.held(unit, "recurrent", t), 4, axis=1)
    m_i, m_f, m_g, m_o = (rest[f"m_{k}"] + x for k, x in zip("ifgo", arrived, strict=True))
    bi, bf, bg, bo = np.split(_values(unit, "bias"), 4)
    i, f, g, o = _logistic(m_i + bi), _logistic(m_f + bf), np.tanh(m_g + bg), _logistic(m_o + bo)
    c = f * c + i * g
    h = o * np.tanh(c)
    new = {"i": i, "f": f, "g": g, "o": o, "c": c, "h": h, "m_i": m_i, "m_f": m_f, "m_g": m_g, "m_o": m_o}
    return new | _changes(run, unit, h, t)


def _delta_lstm_vjp(back: Backward, unit: DeltaLSTM, t: int) -> None:
    i, f, g, o, tanh_c = (*(back.run[unit.name][k][t] for k in "ifgo"), np.tanh(back.run[unit.name]["c"][t]))
    c, dstate = back.run.before(unit.name, "c", t), back.dstate[unit.name]
    dh = dstate["h"] + back.losses[unit.name][t] + _changes_vjp(back, unit, t)
    dc = dstate["c"] + (1 - tanh_c**2) * o * dh
    di = i * (1 - i) * g * dc
    df = f * (1 - f) * c * dc
    dg = (1 - g**2) * i * dc
    do = o * (1 - o) * tanh_c * dh
    dstate["c"], dstate["h"] = f * dc, np.zeros_like(dh)
    _memories_vjp(back, unit, {"m_i": di, "m_f": df, "m_g": dg, "m_o": do})
    for port in unit.ports:
        back.hold(unit, port, t, np.concatenate([di, df, dg, do], axis=1))


def _memories_vjp(back: Backward, unit: Population, dm: Mapping[str, NDArray]) -> None:
    """m + bias, where m is what has arrived on top of the m at rest."""
    for state, d in dm.items():
        back.dstate[unit.name][state] += d
    back.dparameter[f"{unit.name}.bias"] += np.concatenate([*dm.values()], axis=1).sum(axis=0)


# -- readouts ----------------------------------------------------------------------------------------------


def _readout(run: Run, unit: LeakyReadout, t: int) -> dict[str, NDArray]:
    k = unit.decay(run.network.step)
    drive = run.drive(unit, "input", t) + _values(unit, "bias")
    return {"v": k * run.before(unit.name, "v", t) + (1 - k) * drive}


def _readout_vjp(back: Backward, unit: LeakyReadout, t: int) -> None:
    k = unit.decay(back.run.network.step)
    dv = back.dstate[unit.name]["v"] + back.losses[unit.name][t]
    back.dstate[unit.name]["v"] = k * dv
    back.dparameter[f"{unit.name}.bias"] += (1 - k) * dv.sum(axis=0)
    back.receive(unit, "input", t, (1 - k) * dv)


def _delta_readout(run: Run, unit: DeltaReadout, t: int) -> dict[str, NDArray]:
    m = run.initial[unit.name]["m"] + run.held(unit, "input", t)
    return {"m": m, "v": m + _values(unit, "bias")}


def _delta_readout_vjp(back: Backward, unit: DeltaReadout, t: int) -> None:
    dv = back.losses[unit.name][t]
    _memories_vjp(back, unit, {"m": dv})
    back.hold(unit, "input", t, dv)
