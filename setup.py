"""The compiled part of the build: cython_core/ becomes evsim.core, and a wheel compiles some Python as well.

Everything static is in setup.cfg.
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

SOURCES = Path("cython_core")
BUILD = Path("build")
DEBUG = os.environ.get("EVSIM_DEBUG", "0") not in ("", "0")

# What all typed memoryviews need is compiled once, into this module, and not again into each kernel.
SHARED = "evsim.core._cyutility"

# Hand-written C linked into a module. Never <module>.c: that is the name of what Cython generates.
LINKED_C = {"kernels": sorted(path.name for path in SOURCES.glob("*_*.c"))}

# What a step of training goes through outside the core. At batch 1 that takes a small network as long as its
# arithmetic, and a third less if compiled, as it is. Only wheels hold it compiled, beside its source: in an
# editable install the sources count, as they are edited.
STEP = [
    "adjoint",
    "dense_products",
    "eventlog",
    "events",
    "gains",
    "gradients",
    "log",
    "loss",
    "optimizer",
    "plan",
    "recorded",
    "simulation",
    "states",
    "stimulus",
    "training",
]
AS_PYTHON = {"language_level": 3, "annotation_typing": False}

DIRECTIVES = {
    "language_level": 3,
    "boundscheck": DEBUG,
    "wraparound": False,
    "initializedcheck": DEBUG,
    "nonecheck": DEBUG,
    "cdivision": True,
}

# No fused multiply-add behind our back and no -march: the same bits on every instruction set.  Nobody reads
# floating-point exceptions or errno here; knowing that lets the compiler vectorise choices, and changes no
# result.  Vectors are no arguments from one file to another, so how they would be passed does not matter
# (psabi).  An optimisation level in CFLAGS wins over ours.
OPTIMISE = [] if "-O" in os.environ.get("CFLAGS", "") else ["-O1"] if DEBUG else ["-O3"]
FLAGS = [
    *OPTIMISE,
    "-g" if DEBUG else "-g0",
    "-ffp-contract=off",
    "-fno-trapping-math",
    "-fno-math-errno",
    "-Wno-psabi",
]

REMEDY = "apt install build-essential python3-dev"
NOTHING = "int main(void) { return 0; }"
PYTHON_H = "#include <Python.h>\n" + NOTHING
OPENMP = "#include <omp.h>\nint main(void) { return omp_get_max_threads() < 1; }"


def extensions():
    """One extension for each .pyx and one for what they share; any new .h, .c or .pxd rebuilds them all.

    The slow ones come first: they are compiled side by side.
    """
    watched = [*SOURCES.glob("*.h"), *SOURCES.glob("*.c"), *SOURCES.glob("*.pxd"), Path("setup.py")]
    by_size = sorted(
        SOURCES.glob("*.pyx"), key=lambda p: (p.stem in LINKED_C, p.stat().st_size), reverse=True
    )
    kernels = [
        Extension(
            f"evsim.core.{source.stem}",
            [str(source), *(str(SOURCES / name) for name in LINKED_C.get(source.stem, []))],
            include_dirs=[str(SOURCES), numpy.get_include()],
            define_macros=[("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION")],
            depends=sorted(map(str, watched)),
        )
        for source in by_size
    ]
    return [*kernels, Extension(SHARED, [])]


def step():
    """One extension for each module of Python that a wheel holds compiled."""
    return [Extension(f"evsim.{name}", [f"evsim/{name}.py"], depends=["setup.py"]) for name in STEP]


def is_python(extension):
    return extension.sources[:1] and extension.sources[0].startswith("evsim/")


def compile_side_by_side(compile_c, n_jobs, sources, **options):
    """The files of one module; setuptools would take them one after the other."""
    with ThreadPoolExecutor(n_jobs) as pool:
        made = pool.map(lambda source: compile_c([source], **options), sources)
        return [path for paths in made for path in paths]


class BuildCore(build_ext):
    """Ask the compiler what it can do, translate the .pyx files, compile on all cores."""

    def finalize_options(self):
        in_tree = self.inplace or self.editable_mode  # known by now, but not when other commands first ask
        self.distribution.ext_modules = extensions() + (step() if not (in_tree or DEBUG) else [])
        super().finalize_options()
        cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
        self.parallel = self.parallel or len(cores)

    def run(self):
        self.into_tree = bool(self.inplace)  # setuptools clears ``inplace`` while it builds
        super().run()

    def build_extensions(self):
        if not self.compiles(NOTHING):
            raise SystemExit(f"evsim: no working C compiler ({self.compiler.compiler_so[0]}): {REMEDY}")
        if not self.compiles(PYTHON_H):
            raise SystemExit(f"evsim: Python.h is missing for {sys.executable}: {REMEDY}")
        openmp = ["-fopenmp"] if self.compiles(OPENMP, "-fopenmp") else []
        if not openmp:
            print("evsim: this compiler has no OpenMP, the core will use one thread", file=sys.stderr)
        for extension in self.extensions:
            # No kernel runs in the shared module, which is the largest, or in what was Python.
            quick = ["-O2"] if OPTIMISE and (extension.name == SHARED or is_python(extension)) else []
            extension.extra_compile_args = [*FLAGS, *openmp, *quick]
            extension.extra_link_args = openmp

        self.translate()
        recipe = json.dumps([DIRECTIVES, *self.compiler.compiler_so, *FLAGS, *openmp])
        record = BUILD / f"recipe-{sysconfig.get_config_var('SOABI')}.json"
        self.keep_finished_modules(record.exists() and record.read_text() == recipe)
        self.compiler.compile = partial(compile_side_by_side, self.compiler.compile, self.parallel)
        super().build_extensions()
        if self.into_tree:
            record.write_text(recipe)

    def compiles(self, program, *flags):
        """Whether a C program of a few lines compiles and links; quiet either way."""
        with tempfile.TemporaryDirectory() as folder:
            source, result = Path(folder, "program.c"), Path(folder, "program")
            source.write_text(program)
            include = [f"-I{path}" for path in self.compiler.include_dirs]
            command = [*self.compiler.compiler_so, *include, str(source), "-o", str(result), *flags]
            try:
                return subprocess.run(command, capture_output=True, check=False).returncode == 0
            except OSError:
                return False

    def translate(self):
        """Turn each .pyx into C under build/; it compares times only, so debug has a folder of its own."""
        from Cython.Build import cythonize

        # setup.cfg installs cython_core/ as evsim.core, but Cython finds ``evsim.core.layout`` by walking
        # folders. One link shows it the installed name.
        link = BUILD / "pxd/evsim/core"
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to("../../../cython_core", target_is_directory=True)

        folder, python = (
            BUILD / ("cython-debug" if DEBUG else "cython"),
            list(filter(is_python, self.extensions)),
        )
        core = [extension for extension in self.extensions if not is_python(extension)]
        generated = cythonize(
            [Extension(e.name, e.sources[:1] or ["_cyutility.c"]) for e in core],
            build_dir=str(folder),
            include_path=[str(BUILD / "pxd")],
            compiler_directives=DIRECTIVES,
            shared_utility_qualified_name=SHARED,
            nthreads=self.parallel,
        )
        if python:
            generated += cythonize(
                [Extension(e.name, e.sources) for e in python],
                build_dir=str(folder),
                compiler_directives=AS_PYTHON,
                nthreads=self.parallel,
            )
        for extension, new in zip([*core, *python], generated, strict=True):
            extension.sources = [*new.sources, *extension.sources[1:]]

    def keep_finished_modules(self, same_recipe):
        """Let a build in the tree start from the modules beside the sources, if made by the same recipe."""
        build_py = self.get_finalized_command("build_py")
        for extension in self.extensions:
            target = Path(self.get_ext_fullpath(extension.name))
            finished = Path(build_py.get_package_dir(extension.name.rpartition(".")[0]), target.name)
            target.unlink(missing_ok=True)
            if self.into_tree and same_recipe and finished.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(finished, target)  # with its time: it is compiled if older than its sources


if __name__ == "__main__":
    setup(ext_modules=extensions(), cmdclass={"build_ext": BuildCore})
