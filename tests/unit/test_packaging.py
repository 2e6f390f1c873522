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
        assert compiled == {path.stem for path in CORE.glob("*.pyx")} | {"_cyutility"}

    def test_wheel_can_be_imported(self, built, tmp_path):
        with zipfile.ZipFile(next(built.glob("*.whl"))) as archive:
            archive.extractall(tmp_path)
        modules = ["evsim.core." + path.stem for path in CORE.glob("*.pyx")]
        program = f"import evsim, {', '.join(modules)}; print(evsim.__file__)"
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        command = [sys.executable, "-P", "-c", program]
        done = subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert Path(done.stdout.strip()).is_relative_to(tmp_path)

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
