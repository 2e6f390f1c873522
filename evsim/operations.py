"""How many multiplications a network does per token, and which kind of sparsity saved the others.

A multiply-accumulate (MAC) is one stored weight in the row of a unit that is active.  Two things make them
few: units that are silent, and weights that were pruned.  Were they independent, the factors would multiply
(Mukherji et al., arXiv 2311.07625).  `operations` puts what was counted in a run beside that product;
`evsim.composition` does so for several networks.

The dense network, by which all is measured, has a weight in every place and reads all of them in every step.
Three passes are counted, as by Subramoney et al. (arXiv 2206.06178): forward; the gradient dL/dy at what
units sent, for which the rows of backward-active units are read; and the gradient at the weights, of which
the rows of units that sent are written.  The gradient at a stimulus is not among them.  What is done once
for each unit is not counted here; see `evsim.energy`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from rich.table import Table

from evsim.errors import NetworkError, ParameterError
from evsim.eventlog import EventLog
from evsim.network import Network
from evsim.projection import Projection
from evsim.sparsity import LEAST
from evsim.tables import plain_table
from evsim.training import Tally

#: What is counted: the forward run, dL/dy, and the gradient at weights.
Pass = Literal["forward", "state", "weight"]
#: Gates, which are the blocks of columns, of layers that `dense_operations` knows.
GATES = {"GRU": 3, "LSTM": 4}


@dataclass(frozen=True)
class Operations:
    """The work of one projection, or of several together, in one pass.

    Attributes
    ----------
    projection, source, target : str
        Names; of a total, ``source`` and ``target`` are empty.
    unit : str
        Type of the target's units, such as ``"EGRU"``.
    n_source, n_target : int
        Units.
    places, nonzeros : int
        Weights of the dense network, and those that are not 0.
    sparse : bool
        Whether zeros are left out where weights are stored, so that the column of each is stored too.
    looked_up : bool
        Whether one row of a table is added to the target instead, whatever the source sends.
    activity : float
        Share of the source's units that are active, a mean over units and steps: alpha, of dL/dy beta.  Of a
        total the mean over places.
    macs : float
        Per token, measured.
    dense_macs : float
        Per token, of the dense network.
    by_activity, by_weights : float
        Per token, if only units were silent and no weight were 0; if only weights were 0 and no unit silent.
    predicted : float
        Per token, if both are independent: activity x density x places.  (In the paper's form of EGRU the
        reset gate, one block of three, is read only for targets that send too.)
    correlation : float or None
        Pearson's, over the source's units, of the events each sent and the weights it kept; None where that
        was not asked for, or one of them is the same for all.
    """

    projection: str
    source: str
    target: str
    unit: str
    n_source: int
    n_target: int
    places: int
    nonzeros: int
    sparse: bool
    looked_up: bool
    activity: float
    macs: float
    dense_macs: float
    by_activity: float
    by_weights: float
    predicted: float
    correlation: float | None = None

    @property
    def density(self) -> float:
        """Share of weights that are not 0; 1 where there are none to count, as of a table."""
        return self.nonzeros / self.places if self.places else 1.0

    @property
    def factor(self) -> float | None:
        """How many times as many MACs the dense network does; None if there were none."""
        return ratio(self.dense_macs, self.macs)

    @property
    def deviation(self) -> float | None:
        """Measured MACs over predicted ones, minus 1: above 0 if units with more weights are active more.

        It is the covariance over rows of activity and kept weights, by the product of their means.  Events
        whose delay carries them beyond the end of a run count as sent, and touch no weight.
        """
        quotient = ratio(self.macs, self.predicted)
        return None if quotient is None else quotient - 1

    def summary(self) -> dict[str, Any]:
        """All of it, as JSON can hold it."""
        derived = {"density": self.density, "factor": self.factor, "deviation": self.deviation}
        return asdict(self) | derived


def operations(
    network: Network,
    tally: Tally,
    looked_up: str | Sequence[str] = (),
    *,
    kind: Pass = "forward",
    sent: Mapping[str, ArrayLike] | None = None,
) -> list[Operations]:
    """The work of each projection of a network on the data that were tallied.

    Parameters
    ----------
    network : Network
        The one that ran.  Zeros that it stores were multiplied too: count a pruned network as
        `evsim.sparsified`.
    tally : Tally
        Of `Trainer.evaluate`, or `Trainer.learn` for passes backwards.
    looked_up : str or sequence of str
        Names or patterns of projections whose product is looked up: for each token one row of a table, as
        long as the projection has columns, is added instead, in the dense network too.  The events of a
        source of tokens are that already; of an embedding E, whose every unit is active in every step,
        W E[word] can be tabulated once training is over.
    kind : {"forward", "state", "weight"}
    sent : mapping of str to array of int, shape (n_units,), optional
        Events of each unit by population (`unit_events`), for the correlation.

    Returns
    -------
    list of Operations
        In the order of the network.

    Raises
    ------
    ParameterError
        An empty tally, or one without that pass; another pass; a product that cannot be looked up backwards.
    NetworkError
        Names that fit nothing; a tally of another network; stored zeros.
    """
    if kind not in get_args(Pass):
        raise ParameterError("operations", f"unknown pass {kind!r}", f"use one of {get_args(Pass)}")
    if tally.lane_steps <= 0:
        raise ParameterError("operations", "the tally holds no steps", "evaluate a network in steps first")
    if kind not in tally.macs:
        raise ParameterError(
            "operations", f"nothing was counted of the pass '{kind}'", "give the tally of Trainer.learn"
        )
    counted = tally.macs[kind]
    if set(counted) != set(network.projections):
        raise NetworkError(
            "operations",
            f"the tally is of projections {sorted(counted)}, the network has {sorted(network.projections)}",
            "give the network that ran",
        )
    chosen = _chosen(network, [looked_up] if isinstance(looked_up, str) else looked_up)
    rows = []
    for name, projection in network.projections.items():
        macs = counted[name] / tally.lane_steps
        if name in chosen:
            rows.append(_looked_up(projection, macs, kind))
            continue
        kept = _kept(projection)
        activity = _activity(tally, projection.source.name, kind, counted[name])
        share = activity * _reset_share(projection, tally)
        places, nonzeros = projection.shape[0] * projection.shape[1], int(kept.sum())
        # nobody asks for dL/dy of a source of tokens
        needed = kind != "state" or macs > 0 or projection.source.name in tally.backward_active
        density = nonzeros / places
        rows.append(
            Operations(
                **_ends(projection),
                places=places,
                nonzeros=nonzeros,
                sparse=projection.is_sparse,
                looked_up=False,
                activity=activity,
                macs=macs,
                dense_macs=float(places * needed),
                by_activity=share * places,
                by_weights=float(nonzeros * needed),
                predicted=share * density * places,
                correlation=None if sent is None else _correlation(sent.get(projection.source.name), kept),
            )
        )
    return rows


def dense_operations(sizes: Sequence[int], unit: str = "GRU") -> list[Operations]:
    """The work of a dense recurrent network, forward, from its sizes alone.

    Parameters
    ----------
    sizes : sequence of int
        Units of the input and of each layer.  Every layer has weights from below and from itself.
    unit : {"GRU", "LSTM"}

    Raises
    ------
    ParameterError
        Fewer than two sizes, or another type.
    """
    if unit not in GATES or len(sizes) < 2:
        raise ParameterError(
            "dense operations",
            f"{len(sizes)} sizes of {unit!r}",
            f"give those of the input and of each layer, and one of {list(GATES)}",
        )
    names = ["input", *(f"layer{k}" for k in range(1, len(sizes)))]
    rows = []
    for k in range(1, len(sizes)):
        for source in (k - 1, k):
            places = sizes[source] * sizes[k] * GATES[unit]
            name = f"{names[source]}->{names[k]}"
            ends = (name, names[source], names[k], unit, sizes[source], sizes[k])
            work = [float(places)] * 5
            rows.append(Operations(*ends, places, places, False, False, 1.0, *work))
    return rows


def unit_events(log: EventLog) -> dict[str, NDArray[np.int64]]:
    """Events of each unit, over steps and lanes, by population that sends; `evsim.training.add` sums them."""
    return {
        name: np.bincount(p.events.unit, minlength=p.n_units)
        for name, p in log.populations.items()
        if p.events is not None
    }


def total(rows: Iterable[Operations], name: str = "total") -> Operations:
    """Several projections together.

    Tables that are looked up add to MACs, but have no places: they are no weights of the network.

    Raises
    ------
    ParameterError
        There are none.
    """
    given = list(rows)
    if not given:
        raise ParameterError("total", "no projections to add up", "give some")
    weights = [row for row in given if not row.looked_up]
    places = sum(row.places for row in weights)
    return Operations(
        name,
        source="",
        target="",
        unit="",
        n_source=sum({row.source: row.n_source for row in given}.values()),
        n_target=sum({row.target: row.n_target for row in given}.values()),
        places=places,
        nonzeros=sum(row.nonzeros for row in weights),
        sparse=any(row.sparse for row in weights),
        looked_up=not weights,
        activity=sum(row.activity * row.places for row in weights) / places if places else 1.0,
        macs=sum(row.macs for row in given),
        dense_macs=sum(row.dense_macs for row in given),
        by_activity=sum(row.by_activity for row in given),
        by_weights=sum(row.by_weights for row in given),
        predicted=sum(row.predicted for row in given),
    )


def operations_table(rows: Sequence[Operations]) -> Table:
    """What `operations` returns, with the total, for the terminal."""
    table = plain_table(
        "projection",
        "zeros\n[%]",
        "activity",
        "MACs\nper token",
        "predicted",
        "off\n[%]",
        "dense",
        "fewer",
        words=("projection",),
    )
    for row in [*rows, total(rows)]:
        table.add_row(
            row.projection + ("\n(tabulated)" if row.looked_up and row.source else ""),
            f"{100 * (1 - row.density):.1f}",
            f"{row.activity:.3f}",
            f"{row.macs:,.0f}",
            f"{row.predicted:,.0f}",
            number(None if row.deviation is None else 100 * row.deviation, "+.1f"),
            f"{row.dense_macs:,.0f}",
            number(row.factor, ".1f", " x"),
        )
    return table


# -- pieces ------------------------------------------------------------------------------------------------


def _ends(projection: Projection) -> dict[str, Any]:
    source, target = projection.source, projection.target
    names = {"projection": projection.name, "source": source.name, "target": target.name}
    sizes = {"n_source": source.n_units, "n_target": target.n_units}
    return {**names, **sizes, "unit": type(target).__name__}


def _chosen(network: Network, patterns: Sequence[str]) -> set[str]:
    """The projections that are looked up."""
    fitting = {one: {name for name in network.projections if fnmatchcase(name, one)} for one in patterns}
    idle = [one for one, names in fitting.items() if not names]
    if idle:
        raise NetworkError(
            "operations", f"no projection is called {idle}", f"there are {list(network.projections)}"
        )
    return set().union(*fitting.values())


def _looked_up(projection: Projection, macs: float, kind: Pass) -> Operations:
    """One row of a table per token; a source of tokens reads no more than that anyway."""
    columns = projection.shape[1]
    if macs > columns and kind != "forward":
        raise ParameterError(
            "operations",
            f"'{projection.name}' cannot be looked up in the pass '{kind}': its weights and input change",
            "leave it out of looked_up",
        )
    cost = min(macs, float(columns))
    facts: dict[str, Any] = {"places": 0, "nonzeros": 0, "sparse": False, "looked_up": True, "activity": 1.0}
    for name in ("macs", "dense_macs", "by_activity", "by_weights", "predicted"):
        facts[name] = cost
    return Operations(**_ends(projection), **facts)


def _kept(projection: Projection) -> NDArray[np.int64]:
    """Weights of each row that are not 0; raises if the run multiplied by many zeros."""
    if projection.indptr is not None:
        row = np.repeat(np.arange(projection.shape[0]), np.diff(projection.indptr))
        return np.bincount(row[projection.weight.values != 0], minlength=projection.shape[0])
    kept = np.count_nonzero(projection.weight.values, axis=1).astype(np.int64)
    zeros = 1 - kept.sum() / max(projection.weight.values.size, 1)
    if LEAST <= zeros < 1:  # all are 0 where they were made so, and nothing was pruned
        raise NetworkError(
            f"projection '{projection.name}'",
            f"stores its zeros, {100 * zeros:.0f} % of the weights, and multiplied by them",
            "run evsim.sparsified(network)",
        )
    return kept


def _activity(tally: Tally, source: str, kind: Pass, macs: int) -> float:
    """Mean activity of a population in a pass; what is not counted by events is dense."""
    active = tally.backward_active if kind == "state" else tally.events
    if source in active:
        return active[source] / max(tally.unit_steps[source], 1)
    return 1.0 if macs else 0.0


def _reset_share(projection: Projection, tally: Tally) -> float:
    """In the paper's form of EGRU, the share of an active row that is read, less than 1."""
    if projection.target.kernel != "egru_paper" or projection.port != "recurrent":
        return 1.0
    name, blocks = projection.target.name, projection.n_blocks
    return (blocks - 1 + tally.events[name] / max(tally.unit_steps[name], 1)) / blocks


def _correlation(sent: ArrayLike | None, kept: NDArray) -> float | None:
    if sent is None:
        return None
    events = np.asarray(sent, float)
    if events.shape != kept.shape:
        raise ParameterError("operations", f"events have shape {events.shape}", f"give {kept.shape}")
    if np.ptp(events) == 0 or np.ptp(kept) == 0:
        return None
    return float(np.corrcoef(events, kept)[0, 1])


def ratio(above: float, below: float) -> float | None:
    """A quotient; None where there is nothing to divide by."""
    return above / below if below else None


def number(value: float | None, form: str, unit: str = "") -> str:
    """A number in a table, or a dash."""
    return "-" if value is None else f"{value:{form}}{unit}"
