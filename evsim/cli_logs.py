"""Commands of ``evsim`` about event logs on disk."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from rich.console import Console

Log = Annotated[Path, typer.Argument(help="Event log (HDF5) of a run.", show_default=False)]


def inspect(
    file: Log,
    check: Annotated[
        bool, typer.Option("--check", help="Read all of the file, and say what is wrong with it.")
    ] = False,
    bin_ms: Annotated[
        float, typer.Option("--bin", help="Bins of time for chi in continuous time, in ms.", min=1e-6)
    ] = 5.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what is in an event log: populations, activity, work.

    silent: units that sent nothing; alpha: events per unit and step; rates of a unit: on average, lowest and
    highest; chi: how much units send together, 1 if all do the same, near 0 if each by itself (Golomb's
    measure, per step or bin of time); CV: how irregular a unit's intervals are, 0 for a clock, 1 for a
    Poisson process.  MACs are multiply-accumulates, counted by event and as a dense network of that size
    would need them.

    --check reads everything, holds it against its checksums, and prints a line for each damage; the exit code
    is 1 if there is any.
    """
    from rich.console import Console

    from evsim.inspection import describe
    from evsim.log_file import LogFile
    from evsim.provenance import to_json
    from evsim.tables import counter_table, population_table, statistics_notes, statistics_table

    if check:
        _check(file, as_json)
    with LogFile(file) as opened:
        facts = describe(opened, bin_ms)
    if as_json:
        print(json.dumps(json.loads(to_json(facts)), indent=2))
        return
    console = Console(highlight=False, markup=False)
    clock = "in continuous time" if facts["dt_ms"] is None else f"in steps of {facts['dt_ms']:g} ms"
    lanes = f"{facts['lanes']} lane{'s' * (facts['lanes'] > 1)}"
    console.print(f"{file}: {facts['duration_ms']:,.10g} ms {clock}, {lanes}", soft_wrap=True)
    if not facts["complete"]:
        console.print("not complete: it is still being written, or what wrote it was stopped", soft_wrap=True)
    console.print("\n", population_table(facts["populations"]), "\n", sep="", end="")
    console.print(statistics_table(facts["populations"]), "\n", sep="", end="")
    for note in statistics_notes(facts["populations"]):
        console.print(note, soft_wrap=True)
    counters = facts["counters"]
    if counters.get("macs"):
        console.print("\n", counter_table(counters), "\n", sep="", end="")
    if facts["dt_ms"] is None:
        _print_facts(console, {key: n for key, n in counters.items() if key not in ("macs", "events")})
    _print_facts(console, {"bytes": f"{facts['bytes']:,}"} | facts["provenance"])


def _check(file: Path, as_json: bool) -> None:
    """Validate a log, and stop with exit code 1 if it is damaged, else 0."""
    from evsim.errors import LogError
    from evsim.log_file import LogFile

    n_events, complete = 0, False
    try:
        with LogFile(file) as opened:
            damage = opened.check()
            complete = opened.complete
            n_events = sum(population.n_events for population in opened.populations.values())
    except LogError as error:
        if not file.is_file():
            raise
        damage = [f"{error.problem}" + (f"; {error.remedy}" if error.remedy else "")]
    if as_json:
        print(json.dumps({"sound": not damage, "complete": complete, "damage": damage}, indent=2))
    elif damage:
        for line in damage:
            print(f"{file}: {line}")
    else:
        unfinished = "" if complete else "; it is not complete, but what is on file is whole"
        print(f"{file}: sound, {n_events:,} events read{unfinished}")
    sys.exit(1 if damage else 0)


def _print_facts(console: Console, facts: dict[str, Any]) -> None:
    """A line for each entry that is not None."""
    for key, value in facts.items():
        if isinstance(value, dict):
            value = ", ".join(f"{name}={entry}" for name, entry in value.items())
        if value is not None:
            console.print(f"{key:16} {value}", soft_wrap=True)


def raster(
    file: Log,
    out: Annotated[Path, typer.Option("-o", "--out", help="Picture to write: .png, .svg or .pdf.")] = Path(
        "raster.png"
    ),
    start: Annotated[
        float | None, typer.Option(help="Begin at this time in ms.  [default: all]", show_default=False)
    ] = None,
    stop: Annotated[
        float | None, typer.Option(help="End before this time in ms.  [default: all]", show_default=False)
    ] = None,
    units: Annotated[
        str | None,
        typer.Option(help="Units to draw, as in 0:100,205.  [default: all]", show_default=False),
    ] = None,
    lanes: Annotated[
        str, typer.Option("--lanes", "--lane", help="Lanes to draw, as in 0,2:4, or all.")
    ] = "0",
    population: Annotated[
        list[str] | None,
        typer.Option(
            help="Population to draw; may be repeated.  [default: all that send]", show_default=False
        ),
    ] = None,
    colour: Annotated[
        Literal["auto", "value", "gradient", "time_gradient", "none"],
        typer.Option(
            help="Colour by payload or gradient; auto: marks by payload, densities by activity or rate."
        ),
    ] = "auto",
    rate: Annotated[bool, typer.Option(help="Whether to draw the activity or rate below.")] = True,
    width: Annotated[float, typer.Option(help="Width in inches.", min=2, max=50)] = 8.0,
    dpi: Annotated[int, typer.Option(help="Pixels per inch.", min=40, max=1200)] = 160,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing picture.")] = False,
) -> None:
    """Draw the events of an event log, and the activity below.

    Up to 100,000 events are drawn one by one, more as a density; files of any size are read in pieces.  Of a
    run in continuous time, the rate is drawn in place of the activity.
    """
    from evsim.errors import LogError
    from evsim.log_file import LogFile
    from evsim.raster import figure

    if out.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise LogError(f"picture '{out}'", f"has the suffix '{out.suffix}'", "use .png, .svg or .pdf")
    if out.exists() and not force:
        raise LogError(f"picture '{out}'", "exists already", "give another -o, or --force")
    which = {"lanes": _numbers(lanes, "--lanes"), "units": _numbers(units, "--units")}
    with LogFile(file) as opened:
        members: Any = {name: opened[name] for name in population} if population else opened
        made = figure(
            members,
            start=start,
            stop=stop,
            colour=None if colour == "none" else colour,
            rate=rate,
            width=width,
            dpi=dpi,
            **which,
        )
    try:
        made.savefig(out)
    except OSError as error:
        raise LogError(
            f"picture '{out}'", f"cannot be written: {error.strerror}", "give another -o"
        ) from error
    print(out)


def _numbers(words: str | None, option: str) -> Any:
    """``0:3,7`` as [0, 1, 2, 7]; "all" and None as they are."""
    if words is None or words == "all":
        return words
    chosen: list[int] = []
    for word in words.split(","):
        first, colon, last = word.partition(":")
        try:
            begin = int(first)
            end = int(last) if colon else begin + 1
        except ValueError:
            problem = f"'{words}' is not of the form 0:100,205"
            raise typer.BadParameter(problem, param_hint=f"'{option}'") from None
        if not begin < end:
            raise typer.BadParameter(f"'{word}' is an empty range", param_hint=f"'{option}'")
        if end - begin > 10**7:
            raise typer.BadParameter(f"'{word}' is too long a range", param_hint=f"'{option}'")
        chosen += range(begin, end)
    return chosen


def view(
    file: Log,
    port: Annotated[
        int | None,
        typer.Option(
            help="Port on this machine.  [default: any that is free]", min=1, max=65535, show_default=False
        ),
    ] = None,
    population: Annotated[
        str | None,
        typer.Option(
            help="Population to show first.  [default: the one with most events]", show_default=False
        ),
    ] = None,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Print the address and open nothing.")
    ] = False,
) -> None:
    """Zoom into an event log in the browser, of any size.

    The page is served to this machine only, until Ctrl-C; its address has a secret part, which is new each
    time.  A log that is still being written is followed.
    """
    from evsim.viewer.server import Server
    from evsim.viewer.session import Session

    with Session(file, population) as session, Server(session, port or 0) as server:
        print(server.address, flush=True)
        if not no_browser:
            server.open_browser()
        print("Ctrl-C stops", file=sys.stderr, flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print(file=sys.stderr)


def compare(
    first: Log,
    second: Annotated[Path, typer.Argument(help="Another one.", show_default=False)],
    time_tolerance: Annotated[
        float, typer.Option(help="Largest difference allowed of times of events, in ms.", min=0)
    ] = 1e-9,
    tolerance: Annotated[
        float, typer.Option(help="Largest difference allowed of payloads and states.", min=0)
    ] = 1e-9,
    start: Annotated[
        float | None, typer.Option(help="Begin at this time in ms.  [default: all]", show_default=False)
    ] = None,
    stop: Annotated[
        float | None, typer.Option(help="End before this time in ms.  [default: all]", show_default=False)
    ] = None,
    tau: Annotated[
        float, typer.Option(help="Time constant of van Rossum's distance, in ms.", min=1e-6)
    ] = 10.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare the events and states of two event logs of any size.

    Each event of a unit in one log is paired with one in the other: those within the time tolerance are
    equal; others are moved if they are the nearest to each other and no more than tau apart, or else alone.
    times within: the largest difference within pairs.  distance: van Rossum's, of a unit, on average over
    units and lanes.  The exit code is 1 if the logs are not equal within the tolerances.
    """
    from dataclasses import asdict

    from rich.console import Console

    from evsim.log_comparison import compare_logs
    from evsim.log_file import LogFile
    from evsim.tables import distance_table, matching_table

    with LogFile(first) as mine, LogFile(second) as theirs:
        found = compare_logs(
            mine, theirs, time_tolerance, value_tolerance=tolerance, tau=tau, start=start, stop=stop
        )
    good = found.ok(tolerance)
    if as_json:
        populations = {name: asdict(population) for name, population in found.populations.items()}
        print(json.dumps({"equal": good, "tau_ms": tau, "populations": populations}, indent=2))
        sys.exit(0 if good else 1)
    console = Console(highlight=False, markup=False)
    if any(population.n_alone is not None for population in found.populations.values()):
        console.print(matching_table(found), "\n", sep="", end="")
    console.print(distance_table(found), "\n", sep="", end="")
    for difference in found.first_differences():
        console.print(difference, soft_wrap=True)
    verdict = "equal" if good else "NOT equal"
    console.print(f"{verdict} within {time_tolerance:g} ms and {tolerance:g}", soft_wrap=True)
    sys.exit(0 if good else 1)


def repair(
    file: Log,
    out: Annotated[
        Path, typer.Option("-o", "--out", help="Where to write the whole file.", show_default=False)
    ],
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Make a whole event log of one whose writer was killed.

    evsim reads what such a file has as it is; other readers of SONATA refuse it.  All that is on file is
    copied, window by window, and each part held against its checksum: a damaged file is not copied (see
    evsim inspect --check).  The file itself stays as it was.
    """
    from evsim.log_file import LogFile

    with LogFile(file) as opened:
        opened.copy(out, overwrite=force)
        n_events = sum(population.n_events for population in opened.populations.values())
        print(f"{out}: {opened.start:g} to {opened.stop:g} ms, {n_events:,} events")


#: In the order of the list of all commands.
COMMANDS = (inspect, raster, view, compare, repair)
