"""What is built holds all that is needed and puts one name, evsim, into the user's environment."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# The folders of the repository and the package that each becomes.
PACKAGES = {
    "evsim": "evsim",
    "cython_core": "evsim.core",
    "models": "evsim.models",
    "protocols": "evsim.protocols",
    "data": "evsim.data",
}
NOT_COPIED = (".*", "build", "dist", "runs", "*.egg-info", "*.so", "__pycache__")
CORE = ROOT / "cython_core"


def written_files(folder, *endings):
    """The files of a folder that a person wrote, as paths relative to the repository."""
    files = (path.relative_to(ROOT) for path in (ROOT / folder).rglob("*") if path.is_file())
    made = re.compile(r"/\.|__pycache__|\.so$")
    return sorted(
        path for path in files if not made.search(str(path)) and (not endings or path.suffix in endings)
    )


def python_files():
    """All of the repository but what is made or installed in it."""
    folders = [path for path in ROOT.iterdir() if path.is_dir() and not re.match(r"\.|build$", path.name)]
    return [*ROOT.glob("*.py"), *(path for folder in folders for path in folder.rglob("*.py"))]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with the sdist of this repository, and the wheel that was built from that sdist alone."""
    folder = tmp_path_factory.mktemp("packaging")
    shutil.copytree(ROOT, folder / "source", ignore=shutil.ignore_patterns(*NOT_COPIED))
    options = ["--no-isolation", "-o", folder / "dist"]
    command = [sys.executable, "-P", "-m", "build", *options, folder / "source"]
    environment = {**os.environ, "CFLAGS": "-O0"}  # quick: what counts here is which files there are
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "dist"


@pytest.fixture(scope="module")
def wheel(built):
    with zipfile.ZipFile(next(built.glob("*.whl"))) as archive:
        yield archive


@pytest.fixture(scope="module")
def unpacked(built, tmp_path_factory):
    """A folder from which the wheel can be imported."""
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(next(built.glob("*.whl"))) as archive:
        archive.extractall(folder)
    return folder


def run_in(folder, *arguments):
    """Python with the wheel in a folder in the place of this repository."""
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    command = [sys.executable, "-P", *arguments]
    return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)


def step_modules():
    """What `setup.py` compiles of Python, in wheels."""
    text = (ROOT / "setup.py").read_text(encoding="utf-8")
    return set(ast.literal_eval(re.search(r"^STEP = (\[.*?\])", text, flags=re.M | re.S)[1]))


TRAINING = """
import evsim, hashlib, numpy as np
from evsim.models import EGRU, DeltaLSTM, DeltaReadout, EventSource, LeakyReadout

rng = np.random.default_rng(0)
for unit, readout, threshold in ((EGRU, LeakyReadout, None), (DeltaLSTM, DeltaReadout, 0.1)):
    net = evsim.Network(dt=1.0, seed=0)
    source = net.add(EventSource(5, "source", threshold=threshold))
    hidden, answer = net.add(unit(12, "hidden")), net.add(readout(3, "answer"))
    for link in ((source, hidden), (hidden, hidden), (hidden, answer)):
        net.connect(*link)
    simulation, adam = evsim.Simulation(net), evsim.Adam(net.parameters(), lr=0.01, clip=0.1)
    adjoint = evsim.Adjoint(simulation.plan)
    for _ in range(4):
        log = simulation.run(rng.random((9, 2, 5), np.float32), carry=True)
        loss, gradient = evsim.cross_entropy(log["answer"].state, np.ones((9, 2), int))
        gradients = adjoint.replay(log, {"answer": gradient})
        print(loss, adam.step(gradients), log.counters, gradients.counters)
    for name, parameter in net.parameters().items():
        print(name, hashlib.sha256(parameter.values.tobytes()).hexdigest())
"""


@pytest.fixture(scope="module")
def sdist_names(built):
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        return {name.partition("/")[2] for name in archive.getnames()}


@pytest.mark.slow
class TestArchives:
    def test_wheel_installs_one_top_level_name(self, wheel):
        top_level = next(name for name in wheel.namelist() if name.endswith(".dist-info/top_level.txt"))
        assert wheel.read(top_level).decode().split() == ["evsim"]
        assert {name.split("/")[0].partition("-")[0] for name in wheel.namelist()} == {"evsim"}

    def test_wheel_states_licence_and_python(self, wheel):
        metadata = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        lines = wheel.read(metadata).decode().splitlines()
        assert "License-Expression: Apache-2.0" in lines
        assert "Requires-Python: >=3.11" in lines

    @pytest.mark.parametrize("folder", list(PACKAGES))
    def test_wheel_holds_every_file_of_the_package(self, wheel, folder):
        inside = PACKAGES[folder].replace(".", "/")
        expected = {
            f"{inside}/{path.relative_to(folder)}"
            for path in written_files(folder)
            if path.suffix not in (".pyx", ".c")
        }
        missing = sorted(expected - set(wheel.namelist()))
        assert not missing, "not in the wheel, see [options.package_data] in setup.cfg"

    def test_wheel_holds_every_compiled_module(self, wheel):
        compiled = {Path(name).name.partition(".")[0] for name in wheel.namelist() if name.endswith(".so")}
        core = {path.stem for path in CORE.glob("*.pyx")} | {"_cyutility"}
        assert compiled == core | step_modules()

    def test_wheel_can_be_imported(self, unpacked):
        modules = ["evsim.core." + path.stem for path in CORE.glob("*.pyx")]
        done = run_in(unpacked, "-c", f"import evsim, {', '.join(modules)}; print(evsim.__file__)")
        assert done.returncode == 0, done.stderr
        assert Path(done.stdout.strip()).is_relative_to(unpacked)

    def test_modules_of_a_step_are_compiled_in_a_wheel_only(self, unpacked):
        program = f"import {', '.join(f'evsim.{name} as {name}' for name in sorted(step_modules()))}\n"
        program += f"print(*[m.__file__ for m in ({', '.join(sorted(step_modules()))})])"
        files = run_in(unpacked, "-c", program).stdout.split()
        assert len(files) == len(step_modules())
        assert all(file.endswith(".so") for file in files)
        assert not [*(ROOT / "evsim").glob("*.so")]

    def test_what_a_wheel_compiled_does_the_same(self, unpacked):
        """The same bits after some steps of training, and the same refusals."""
        trained = run_in(unpacked, "-c", TRAINING)
        assert trained.returncode == 0, trained.stderr
        here = subprocess.run([sys.executable, "-c", TRAINING], capture_output=True, text=True, check=True)
        assert trained.stdout == here.stdout
        options = "-q", "-n", "0", "-p", "no:cacheprovider", "-m", "not peer and not slow"
        files = [
            f"tests/unit/test_{name}.py" for name in ("bad_input", "eventlog", "events", "loss", "optimizer")
        ]
        done = run_in(unpacked, "-m", "pytest", *options, *(str(ROOT / file) for file in files))
        assert done.returncode == 0, done.stdout + done.stderr

    @pytest.mark.parametrize("folder", [*PACKAGES, "tests"])
    def test_sdist_holds_every_source(self, sdist_names, folder):
        missing = sorted({str(path) for path in written_files(folder)} - sdist_names)
        assert not missing, "not in the sdist, see MANIFEST.in"

    def test_sdist_holds_nothing_compiled(self, sdist_names):
        assert not [name for name in sdist_names if name.endswith((".so", ".o", ".pyc"))]


class TestSources:
    def test_no_file_imports_a_folder_name(self):
        """``import models`` works in the repository only, and makes a second copy of every class there."""
        folders = set(PACKAGES) - {"evsim"}
        found = []
        for path in python_files():
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = []
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom) and node.level == 0:
                    names = [node.module]
                found += [f"{path.name}:{node.lineno}: {n}" for n in names if n.split(".")[0] in folders]
        for path in [*CORE.glob("*.pyx"), *CORE.glob("*.pxd")]:
            for name in re.findall(r"^\s*(?:from|c?import)\s+(\w+)", path.read_text(encoding="utf-8"), re.M):
                found += [f"{path.name}: {name}"] if name in folders else []
        assert not found, f"use the installed names {', '.join(PACKAGES.values())}"

    def test_every_compiled_module_has_a_stub(self):
        missing = [path.name for path in CORE.glob("*.pyx") if not path.with_suffix(".pyi").exists()]
        assert not missing, "type checkers see nothing of a .pyx without a .pyi"

    def test_no_c_file_is_called_like_a_module(self):
        clashing = [path.name for path in CORE.glob("*.pyx") if path.with_suffix(".c").exists()]
        assert not clashing, "Cython writes <module>.c itself"

    @pytest.mark.parametrize("folder", list(PACKAGES))
    def test_no_file_hides_a_module_of_python(self, folder):
        """A script run by path puts its folder first on the path: protocols/copy.py would break NumPy."""
        stems = {path.stem for path in written_files(folder, ".py", ".pyx")}
        assert not {stem for stem in stems if not stem.startswith("__")} & sys.stdlib_module_names

    @pytest.mark.parametrize("folder", list(PACKAGES))
    def test_every_package_is_marked_as_typed(self, folder):
        assert (ROOT / folder / "py.typed").exists()
