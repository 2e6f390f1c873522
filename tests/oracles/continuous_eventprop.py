"""The gradient of event times of LIF units in closed form.

Wunderlich & Pehle, "Event-based backpropagation can compute exact gradients for spiking neural networks",
Scientific Reports 11 (2021), in their variables: with reversed time ',

    tau_m l_v' = -l_v,   tau_e l_i' = -l_i + l_v,   dL/dv = -tau_m l_v,   dL/di_e = -tau_e l_i,

and at an event of unit n, where everything on the right is just after it,

    l_v,n(-) = l_v,n + ((threshold_n - reset) l_v,n + sum_j w_nj (l_v - l_i)_j + dL/dt) / (tau_m dv_n/dt(-)).
"""

import numpy as np


def eventprop(network, stimulus, duration, result, time_loss, final=None):
    """Gradients of sum_e time_loss_e t_e, plus a linear loss on the state at the end.

    The network has one LIF population without refractory period, with excitatory synapses only, tau_m !=
    tau_e and no delays, and any sources; it starts at rest at t = 0.

    Parameters
    ----------
    network : Description
    stimulus : dict of str to (time, unit, value)
    duration : float
    result : Result
        Of that run; gives the times and order of the events.
    time_loss : array (n_events,)
        dL/dt_e, in the order of ``result``.
    final : dict of str to array (n_units,), optional
        dL/dv and dL/di_e at the end.

    Returns
    -------
    dict of str to array
        As ``network.parameters`` (weights, threshold, bias), and for each source ``"<source>.value"`` and
        ``"<source>.time"``, in the order of its stimulus.
    """
    (name,) = (key for key, units in network.populations.items() if units.kind == "lif")
    units, par = network.populations[name], network.of(name)
    tau_m, tau_e, reset = par["tau_m"], par["tau_e"], units.options["reset"]
    n = units.n_units
    incoming = {}  # source -> [(projection, dense weights (n_source, n))]
    for key, wires in network.projections.items():
        weight, delay, _ = network.weights(key)
        if wires.target == name:
            if wires.port != "excitatory" or delay.any():
                raise ValueError(f"{key}: only excitatory projections without delay")
            incoming.setdefault(wires.source, []).append((key, weight[:, 0]))
    gradients = {f"{name}.{key}": np.zeros(n) for key in ("threshold", "bias")}
    dense = {key: np.zeros_like(w) for rows in incoming.values() for key, w in rows}
    happenings = []
    for source, (time, unit, value) in stimulus.items():
        for key in ("value", "time"):
            gradients[f"{source}.{key}"] = np.zeros(len(time))
        happenings += [
            (time[k], 0, source, k, int(unit[k]), value[k]) for k in range(len(time)) if time[k] < duration
        ]
    happenings += [(result.time[e], 1, name, e, int(result.unit[e]), 1.0) for e in range(len(result))]
    happenings.sort(key=lambda happening: (happening[0], happening[1], happening[2], happening[4]))

    final = final or {}
    l_v = -np.broadcast_to(np.asarray(final.get("v", 0.0), float), (n,)) / tau_m
    l_i = -np.broadcast_to(np.asarray(final.get("i_e", 0.0), float), (n,)) / tau_e
    later = duration
    for time, is_event, source, index, unit, value in reversed(happenings):
        s = later - time
        later = time
        slow, fast = np.exp(-s / tau_m), np.exp(-s / tau_e)
        gradients[f"{name}.bias"] -= l_v * tau_m * (1 - slow)
        l_i = l_i * fast + l_v * tau_m / (tau_m - tau_e) * (slow - fast)
        l_v = l_v * slow
        total = np.zeros(n)
        for key, weight in incoming.get(source, ()):
            dense[key][unit] += -tau_e * l_i * value
            total += weight[unit]
        if not is_event:
            gradients[f"{source}.value"][index] = -tau_e * float(l_i @ total)
            # A current that comes later has decayed less (l_i) and has charged v less (l_v).
            gradients[f"{source}.time"][index] = value * float(total @ (l_v - l_i))
            continue
        slope = tau_m * result.slope[index]
        lift = (par["threshold"][unit] - reset) * l_v[unit] + float(total @ (l_v - l_i)) + time_loss[index]
        new = l_v[unit] + lift / slope
        gradients[f"{name}.threshold"][unit] += tau_m * new
        l_v = l_v.copy()
        l_v[unit] = new
    gradients[f"{name}.bias"] -= l_v * tau_m * (1 - np.exp(-later / tau_m))
    for key, full in dense.items():
        wires = network.projections[key]
        gradients[f"{key}.weight"] = full if wires.indptr is None else full[wires.rows(), wires.indices]
    return gradients
