"""A cross-check on paper: ``report.html``, ``report.json``, the logs of both sides, and pictures."""

from __future__ import annotations

import base64
import io
import math
from importlib import resources
from typing import TYPE_CHECKING, Any

from evsim.brian.figures import figures, worst_unit
from evsim.brian.prediction import Finding
from evsim.brian.result import Crosscheck
from evsim.errors import MissingExtraError
from evsim.provenance import provenance, version

if TYPE_CHECKING:
    from evsim.protocol import RunFolder
    from evsim.state_comparison import Parting

#: Of ``report.json``; one more when an entry is renamed or taken out.
SCHEMA = 1


def write_report(result: Crosscheck, folder: RunFolder, arguments: list[str] | None = None) -> None:
    """Write everything that is kept of a cross-check into a run folder.

    Files: ``report.html`` (one page, nothing else is needed to read it), ``report.json``, ``evsim.h5`` and
    ``brian2.h5`` (event logs; ``evsim compare`` holds them against each other), ``events.svg``,
    ``events.png`` and so on.

    Parameters
    ----------
    result : Crosscheck
    folder : RunFolder
    arguments : list of str, optional
        The command line.
    """
    numbers = report_numbers(result) | {"provenance": _provenance(result, arguments)}
    states: dict[str, Any] = {} if result.subject.network.continuous else {"states": True}
    result.log.save(folder / "evsim.h5", overwrite=True, **states)
    result.peer_log.save(folder / "brian2.h5", overwrite=True, **states)
    pictures = []
    for name, (figure, caption) in figures(result).items():
        drawn = io.BytesIO()
        about = {"Creator": None, "Date": None, "Format": None, "Type": None}
        figure.savefig(drawn, format="svg", dpi=150, metadata=about)
        (folder / f"{name}.svg").write_bytes(drawn.getvalue())
        figure.savefig(folder / f"{name}.png", dpi=150)
        data = base64.b64encode(drawn.getvalue()).decode()
        pictures.append({"name": name, "data": f"data:image/svg+xml;base64,{data}", "caption": caption})
    folder.write_json("report.json", numbers)
    page = _page(result, numbers, pictures)
    (folder / "report.html").write_text(page, encoding="utf-8")


# -- numbers -----------------------------------------------------------------------------------------------


def report_numbers(result: Crosscheck) -> dict[str, Any]:
    """All numbers of a cross-check, as JSON can hold them: what is not a number is None.

    docs/crosscheck.md says what each entry is.
    """
    subject, network = result.subject, result.subject.network
    found: dict[str, Any] = {
        "schema": SCHEMA,
        "ok": result.ok,
        "reasons": result.reasons,
        "subject": {
            "name": subject.name,
            "about": subject.about,
            "time": "continuous" if network.continuous else "steps",
            "dt_ms": network.dt,
            "duration_ms": subject.duration,
            "chaotic": subject.chaotic,
            "seed": network.seed,
            "network": network.describe(),
        },
        "planted": None if result.planted is None else str(result.planted),
        "criteria": [
            {
                "name": c.name,
                "measured": c.measured,
                "allowed": c.allowed,
                "value": _number(c.value),
                "limit": c.limit,
                "ok": c.ok,
            }
            for c in result.criteria
        ],
        "located": _located(result.located),
        "parted_ms": result.parted,
        "populations": [_population(result, name) for name in network.populations],
        "parameters": [
            {
                "name": e.name,
                "values": e.n_values,
                "difference": _number(e.difference),
                "index": None if e.index is None else list(e.index),
                "evsim": _number(e.value),
                "brian2": _number(e.peer_value),
            }
            for e in result.entries
        ],
        "convergence": _convergence(result),
        "prediction": _prediction(result),
        "seconds": result.seconds,
        "brian2": result.version,
    }
    return found


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _located(found: Parting | Finding | None) -> dict[str, Any] | None:
    if found is None:
        return None
    mine, theirs = (
        (found.expected, found.found) if isinstance(found, Finding) else (found.value, found.peer_value)
    )
    what = found.state if isinstance(found, Finding) else found.what
    return {
        "population": found.population,
        "unit": found.unit,
        "time_ms": found.time,
        "what": what,
        "evsim": _number(mine),
        "brian2": _number(theirs),
        "text": str(found),
    }


def _population(result: Crosscheck, name: str) -> dict[str, Any]:
    """The row of one population in all tables."""
    population = result.subject.network[name]
    row: dict[str, Any] = {"population": name, "type": type(population).__name__, "units": population.n_units}
    statistics, states = result.statistics.get(name), result.states.get(name)
    row["events"] = None
    if statistics is not None:
        row |= {
            "events": list(statistics.n_events),
            "rates_hz": list(statistics.rates),
            "rate_difference": _number(statistics.rate_difference),
            "intervals": list(statistics.n_intervals),
            "mean_interval_ms": [_number(float(x.mean())) if len(x) else None for x in statistics.intervals],
            "ks_distance": _number(statistics.distance),
            "ks_p": _number(statistics.p_value),
        }
        own = result.own.get(name)
        if own:
            row["own_runs"] = {
                "events": own.counts,
                "ks_distances": own.distances,
                "brian2_ks_distance": own.peer_distance,
                "brian2_rate_difference": own.rate_difference,
            }
    if result.comparison is not None and name in result.comparison.populations:
        found = result.comparison.populations[name]
        row["first_event_difference"] = None if found.first is None else str(found.first)
        row["value_error"] = _number(found.value_error) if found.n_events is not None else None
    elif result.convergence is not None:
        one = result.convergence.comparisons[-1].populations.get(name)
        if one is not None and one.n_events is not None:
            errors = abs(one.errors)
            row["unmatched"] = one.n_unmatched
            row["time_error_ms"] = _number(float(errors.max())) if errors.size else None
            row["value_error"] = _number(one.value_error)
    if states is not None:
        row["state"] = {
            "largest": _number(states.largest),
            "rms": _number(states.rms),
            "mean": _number(states.mean),
            "worst_unit": states.unit,
            "worst_time_ms": states.time,
        }
    if result.prediction is not None and name in result.prediction.residual:
        row["one_step"] = _number(result.prediction.residual[name])
    return row


def _convergence(result: Crosscheck) -> dict[str, Any] | None:
    if result.convergence is None:
        return None
    rows = [
        {
            "dt_ms": c.dt,
            "events": [c.n_events, c.n_peer_events],
            "unmatched": c.n_unmatched,
            "mean_error_ms": _number(c.mean_error),
            "max_error_ms": _number(c.max_error),
            "mean_state_error": _number(c.mean_state_error),
            "seconds": c.peer.seconds,
        }
        for c in result.convergence.comparisons
    ]
    return {"order": _number(result.convergence.order), "steps": rows}


def _prediction(result: Crosscheck) -> dict[str, Any] | None:
    found = result.prediction
    if found is None:
        return None
    return {
        "dt_ms": found.dt,
        "duration_ms": found.duration,
        "unit_steps": found.n_predicted,
        "largest": _number(found.largest),
        "tolerance": found.tolerance,
        "events": found.n_events,
        "wrong_events": found.n_wrong_events,
        "units_found": len({(one.population, one.unit) for one in found.findings}),
    }


def _provenance(result: Crosscheck, arguments: list[str] | None) -> dict[str, Any]:
    return provenance(arguments) | {"brian2": version("brian2"), "scipy": version("scipy")}


# -- the page ----------------------------------------------------------------------------------------------


def _page(result: Crosscheck, numbers: dict[str, Any], pictures: list[dict[str, str]]) -> str:
    try:
        import jinja2
    except ImportError as error:
        raise MissingExtraError("jinja2", "cannot be imported", 'pip install "evsim[brian2]"') from error
    source = resources.files("evsim.brian").joinpath("report.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"short": short, "many": many, "tight": tight}
    network = result.subject.network
    worst = worst_unit(result)
    return environment.from_string(source).render(
        result=result,
        numbers=numbers,
        pictures=pictures,
        network=network,
        projections=[_projection_row(p) for p in network.projections.values()],
        located=None if result.located is None else str(result.located),
        wrong=[str(entry) for entry in result.entries if entry.difference],
        worst=worst,
        around=_around(result),
        headline=headline(result),
    )


def headline(result: Crosscheck) -> str:
    """What it means that all tolerances hold, in a sentence."""
    total = sum(found.n_events[0] for found in result.statistics.values())
    if result.comparison is not None:
        error = max((found.largest for found in result.states.values()), default=0.0)
        return f"All {total:,} events are the same, step by step; states differ by {error:.1g} at most."
    assert result.prediction is not None
    one = f"each of Brian2's {result.prediction.n_predicted:,} unit steps that were looked at is as evsim"
    one += f" predicts it, within {result.prediction.largest:.1g}"
    if result.subject.chaotic:
        return f"Rates and intervals agree over {total:,} events, and {one}."
    assert result.convergence is not None
    order = result.convergence.order
    tend = f"Brian2's times tend to evsim's with order {order:.2f}"
    return f"All {total:,} events have their partner, {tend}, and {one}."


def short(value: Any) -> str:
    """A number with three digits; a dash for none."""
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else f"{value:,}"


def many(value: Any) -> str:
    """A number with twelve digits; a dash for none."""
    return "-" if value is None else f"{value:.12g}"


def tight(text: str) -> str:
    """Text in which no number is broken at the sign of its exponent."""
    return text.replace("e-", "e\N{NON-BREAKING HYPHEN}")


def _projection_row(projection: Any) -> dict[str, Any]:
    delays = projection.delay
    if delays is None:
        delay = f"{projection.delay_steps} steps"
    else:
        low, high = float(delays.values.min()), float(delays.values.max())
        delay = f"{low:g} ms" if low == high else f"{low:g} to {high:g} ms"
    return {
        "name": projection.name,
        "port": projection.port,
        "weights": projection.n_weights,
        "kind": "sparse" if projection.is_sparse else "dense",
        "delay": delay,
    }


def _around(result: Crosscheck) -> list[dict[str, float]]:
    """States of both sides around the moment where the difference shows first."""
    found, traces = result.located, result.traces
    if found is None or found.population not in traces.mine:
        return []
    here = int(abs(traces.times - found.time).argmin())
    rows = range(max(0, here - 3), min(len(traces.times), here + 4))
    mine, theirs = traces.mine[found.population], traces.theirs[found.population]
    return [
        {
            "time": float(traces.times[k]),
            "evsim": float(mine[k, found.unit]),
            "brian2": float(theirs[k, found.unit]),
        }
        for k in rows
    ]
