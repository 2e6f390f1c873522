"""Who may import whom: a file imports only from levels below its own, so the packages have no cycles."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = {"evsim": "evsim", "models": "evsim.models", "protocols": "evsim.protocols", "data": "evsim.data"}

# Bottom first. ``evsim.data.*`` stands for the package and everything in it.
LEVELS = (
    ("evsim.errors",),
    ("evsim.core.*",),
    ("evsim.memory",),
    (
        "evsim.events",
        "evsim.gradients",
        "evsim.interchange",
        "evsim.parameter",
        "evsim.propagator",
        "evsim.provenance",
        "evsim.snapshot",
        "evsim.states",
        "evsim.threads",
        "evsim.timed_events",
        "evsim.data.*",
    ),
    ("evsim.event_table", "evsim.hdf5"),
    (
        "evsim.edits",
        "evsim.event_rows",
        "evsim.word_recipe",
        "evsim.hdf5_reader",
        "evsim.log_format",
        "evsim.log",
        "evsim.loss",
        "evsim.optimizer",
        "evsim.population",
        "evsim.projection",
    ),
    ("evsim.density", "evsim.tied_embedding", "evsim.network", "evsim.journal", "evsim.models.*"),
    ("evsim.selection", "evsim.sparsity"),
    (
        "evsim.fixed_point",
        "evsim.narrow_weights",
        "evsim.plan",
        "evsim.pruning",
        "evsim.continuous_plan",
        "evsim.raster",
        "evsim.comparison",
        "evsim.state_comparison",
        "evsim.interval_comparison",
        "evsim.inspection",
        "evsim.continuous_comparison",
        "evsim.log_comparison",
        "evsim.examples",
    ),
    ("evsim.continuous_log", "evsim.continuous_run", "evsim.dense_products", "evsim.gains"),
    ("evsim.eventlog", "evsim.reference_units", "evsim.torch_weights"),
    ("evsim.file_population", "evsim.log_columns", "evsim.log_gradients"),
    ("evsim.growing_log",),
    ("evsim.log_writer",),
    ("evsim.file_checks",),
    ("evsim.log_file",),
    ("evsim.recorded",),
    ("evsim.continuous_simulation", "evsim.continuous_adjoint"),  # never each other
    ("evsim.stimulus",),
    ("evsim.simulation", "evsim.adjoint", "evsim.reference"),  # nor these
    ("evsim.protocol", "evsim.checkpoint", "evsim.random_stack", "evsim.token_speed"),
    ("evsim.brian.*", "evsim.second_process"),
    ("evsim.calibration", "evsim.training", "evsim.progress", "evsim.pruned_checkpoint", "evsim.tables"),
    ("evsim.continuous_training", "evsim.operations", "evsim.dense_stack", "evsim.event_stack"),
    (
        "evsim.composition",
        "evsim.energy",
        "evsim.sparsity_figures",
        "evsim.word_training",
        "evsim.generation",
        "evsim.word_speed",
        "evsim.speed_table",
    ),
    ("evsim.word_report",),
    ("evsim.protocols.*",),
    ("evsim.viewer.*", "evsim.trained_words"),
    ("evsim.cli_logs", "evsim.cli_brian", "evsim.cli_bench", "evsim.cli_export", "evsim.cli_prune"),
    ("evsim.cli",),
    ("evsim", "evsim.__main__"),
)


#: What a log hands over to, inside its methods, when it is asked to go to disk or come from there.
UPWARDS = {
    (log, "evsim." + end)
    for log in ("evsim.continuous_log", "evsim.eventlog")
    for end in ("log_writer", "log_file")
}


def same_level_allowed(importer, imported):
    """The few imports within one level, or upwards."""
    if (importer, imported) in UPWARDS:
        return True
    if (importer, imported) in (
        ("evsim.projection", "evsim.population"),
        ("evsim.protocols.incremental_learning", "evsim.protocols.keyword_spotting"),
    ):
        return True
    if any(
        within(package, importer) and within(package, imported)
        for package in ("evsim.brian", "evsim.data", "evsim.viewer")
    ):
        return True
    return importer in FOLDERS.values() and within(importer, imported)  # an __init__ gathers its own package


def within(package, module):
    return module == package or module.startswith(package + ".")


def level(module):
    """Index of the level of a module, found by its name or by the pattern of its package."""
    patterns = {module, module + ".*", module.rpartition(".")[0] + ".*"}
    for index, names in enumerate(LEVELS):
        if patterns.intersection(names):
            return index
    pytest.fail(f"{module} has no level: decide what it may import and add it to LEVELS in this file")


def module_name(path):
    folder, *inner = path.relative_to(ROOT).with_suffix("").parts
    return ".".join([FOLDERS[folder], *inner]).removesuffix(".__init__")


def run_nodes(tree):
    """All nodes but those below ``if TYPE_CHECKING:``, which is never run and so makes no cycle."""
    for node in ast.iter_child_nodes(tree):
        if not (isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")):
            yield node
            yield from run_nodes(node)


def evsim_imports(path):
    """The import statements of a file that name this package, those inside functions too."""
    for node in run_nodes(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom):
            names = ["evsim" if node.level else node.module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        if any(within("evsim", name) for name in names):
            yield node


def absolute(node):
    """Whether an import has the form ``from evsim.x import Y``."""
    return isinstance(node, ast.ImportFrom) and node.level == 0 and node.module != "evsim"


SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
by_file = pytest.mark.parametrize("path", SOURCES, ids=[str(path.relative_to(ROOT)) for path in SOURCES])


@by_file
def test_imports_only_from_below(path):
    importer = module_name(path)
    own_level = level(importer)
    for node in filter(absolute, evsim_imports(path)):
        imported = node.module
        allowed = level(imported) < own_level or same_level_allowed(importer, imported)
        assert allowed, f"line {node.lineno}: {importer} (level {own_level}) imports {imported}"


@by_file
def test_imports_are_absolute_and_name_a_module(path):
    for node in evsim_imports(path):
        assert absolute(node), f"line {node.lineno}: write `from evsim.x import Y`, not `{ast.unparse(node)}`"


@pytest.mark.parametrize("ending", ["pyx", "pxd"])
def test_core_imports_only_itself_and_the_errors(ending):
    statement = re.compile(r"^\s*(?:from|c?import)\s+(evsim[\w.]*)", re.M)
    for path in sorted((ROOT / "cython_core").glob(f"*.{ending}")):
        imported = statement.findall(path.read_text(encoding="utf-8"))
        outside = [name for name in imported if level(name) > level("evsim.core")]
        assert not outside, f"{path.name} imports {outside}: the core knows nothing above it"


def test_the_table_names_each_module_once():
    names = [name for names in LEVELS for name in names]
    assert len(names) == len(set(names))
