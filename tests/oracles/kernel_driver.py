"""A C program that runs every kernel of every path on numbers of its own and prints hashes of what came out.

It needs neither Python nor the C library's functions of mathematics, so it runs where evsim is not installed:
under an emulator of another processor, or made by another compiler.  Equal lines mean equal bits.  The calls
are written from ``kernel_list.h`` by the types of the arguments.

    python tests/oracles/kernel_driver.py > driver.c
    cc $FLAGS -c cython_core/kernel_*.c
    cc -O1 -ffp-contract=off -Icython_core driver.c kernel_*.o -o driver -lm && ./driver
"""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CORE = ROOT / "cython_core"

#: Locals for one argument, by its type.  Numbers that a kernel writes to start positive: some are squares.
LOCALS = {
    "int64_t": "const int64_t {a} = n;",
    "int32_t": "const int32_t {a} = kind;",
    "double": "const double {a} = uniform(0.1, 0.9);",
    "const double *": "const double *{a} = numbers;",
    "const FixedFormat *": "const FixedFormat *{a} = &fixed;",
    "const SparseRows *": "const SparseRows *{a} = sparse(n, kind & 1);",
    "EventList *": "EventList *{a} = NAME(lists)(n);",
    "const Asking *": "const Asking *{a} = asking(n);",
    "const int32_t *": "const int32_t *{a} = indices(room);",
    "int32_t *": "int32_t *{a} = indices(room);",
    "const uint32_t *": "const uint32_t *{a} = words(room);",
    "const REAL *": "const REAL *{a} = NAME(numbers)(room, -2, 2);",
    "const REAL *const *": "const REAL *const *{a} = NAME(vectors)(n);",
    "REAL *const *": "REAL *const *{a} = (REAL *const *)NAME(vectors)(n);",
    "REAL *": "REAL *{a} = NAME(numbers)(room, 0.05, 1.95);",
}
#: What a kernel leaves in these is a result: what hashes it, and how much of it.
RESULTS = {
    "REAL *": ("NAME(mix)", "room"),
    "REAL *const *": ("NAME(mix_vectors)", "n"),
    "int32_t *": ("mix_indices", "room"),
    "EventList *": ("NAME(mix_lists)", "n"),
}
#: These are made once.
KEPT = {"const double *", "const FixedFormat *", "const SparseRows *", "const Asking *"}
#: Arguments that stand for a choice: what they choose is tried in turn.
CHOICES = {"int32_t", "const SparseRows *"}

START = """\
#include "kernel_table.h"

#include <stdio.h>
#include <stdlib.h>

#define MOST 67
static const int64_t sizes[] = {1, 5, 16, 37, MOST, 230, 1100}; /* the last two for lists of events only */
static uint64_t seed, hash;

static double uniform(double low, double high)
{
    seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
    return low + (high - low) * ((double)(seed >> 40) / 16777216);
}

static void mix(const void *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        hash = (hash ^ ((const unsigned char *)bytes)[i]) * 1099511628211ULL;
}

static int32_t *indices(int64_t room)
{
    int32_t *made = malloc(room * sizeof *made);
    for (int64_t i = 0; i < room; i++)
        made[i] = (int32_t)i;
    return made;
}

/* Weights in bfloat16 between 0.5 and 2, or in int8. */
static uint32_t *words(int64_t room)
{
    uint32_t *made = malloc(room * sizeof *made);
    for (int64_t i = 0; i < room; i++)
        made[i] = ((uint32_t)uniform(0, 16777216) * 257 & 0x80ff80ffu) | 0x3f003f00u;
    return made;
}

/* Rows 0 to n of n columns each, from empty to full. */
static const SparseRows *sparse(int64_t n, int wide)
{
    static int64_t ptr[MOST + 2];
    static uint16_t narrow_column[(MOST + 1) * MOST];
    static int32_t wide_column[(MOST + 1) * MOST];
    static SparseRows made;
    for (int64_t row = 0; row <= n; row++) {
        const int64_t length = row * 5 % (n + 1);
        ptr[row + 1] = ptr[row] + length;
        for (int64_t i = 0; i < length; i++)
            narrow_column[ptr[row] + i] = wide_column[ptr[row] + i] = (int32_t)(i * n / length);
    }
    made = (SparseRows){ptr, wide ? (const void *)wide_column : narrow_column, wide, 1, 1};
    return &made;
}

/* Of n rows, some that no lane asks for, and some that all do. */
static const Asking *asking(int64_t n)
{
    static uint8_t count[MOST], lane[MOST * DOT_LANES];
    static Asking made;
    const int64_t lanes = n < DOT_LANES ? n : DOT_LANES;
    for (int64_t row = 0; row < n; row++) {
        count[row] = (uint8_t)(row * 7 % (lanes + 1));
        for (int64_t k = 0; k < count[row]; k++)
            lane[row * lanes + k] = (uint8_t)(lanes - 1 - k);
    }
    made = (Asking){lanes, count, lane};
    return &made;
}

static void mix_indices(const int32_t *x, int64_t room) { mix(x, room * sizeof *x); }

/* A step of LIF units: leak, keep_e, keep_i, gain_e, gain_i, reset, and steps held. */
static const double numbers[7] = {0.2, 0.7, 0.9, 0.3, 0.4, -0.1, 2};

static double table[2049];
static FixedFormat fixed = {256, 1.0 / 256, -2048, 2047, 1024, 1024, table + 1024, table + 1024};
"""

#: The flows of continuous time are not run here, and not compiled.
NO_FLOWS = """
#ifdef EVSIM_X86
const FlowTable evsim_flows_avx512, evsim_flows_avx2;
#endif
const FlowTable evsim_flows_baseline;
"""

FOR_ONE_TYPE = """
static REAL *NAME(numbers)(int64_t room, double low, double high)
{
    REAL *made = malloc(room * sizeof *made);
    for (int64_t i = 0; i < room; i++)
        made[i] = (REAL)uniform(low, high);
    return made;
}

/* n vectors of 2 n numbers, of which a kernel may skip the first n, behind the pointers to them. */
static const REAL *const *NAME(vectors)(int64_t n)
{
    REAL **made = malloc(n * sizeof *made + 2 * n * n * sizeof **made);
    REAL *values = (REAL *)(made + n);
    for (int64_t k = 0; k < n; k++)
        made[k] = values + 2 * k * n;
    for (int64_t i = 0; i < 2 * n * n; i++)
        values[i] = (REAL)uniform(-2, 2);
    return (const REAL *const *)made;
}

static void NAME(mix)(const REAL *x, int64_t room)
{
    for (int64_t i = 0; i < room; i++) /* processors differ in the bits of a NaN */
        x[i] == x[i] ? mix(x + i, sizeof *x) : mix("nan", 3);
}

static void NAME(mix_vectors)(REAL *const *x, int64_t n)
{
    for (int64_t k = 0; k < n; k++)
        NAME(mix)(x[k], 2 * n);
}

/* n lists of some of n units, each with a target of 2 n numbers, of which a kernel may skip the first n. */
static EventList *NAME(lists)(int64_t n)
{
    EventList *made = malloc(n * sizeof *made);
    for (int64_t l = 0; l < n; l++) {
        made[l].unit = indices(n) + l / 2;
        made[l].value = NAME(numbers)(n, -2, 2);
        made[l].n = n - l / 3 > l / 2 ? n - l / 3 - l / 2 : 0;
        made[l].target = NAME(numbers)(2 * n, -2, 2);
    }
    return made;
}

static void NAME(mix_lists)(const EventList *lists, int64_t n)
{
    for (int64_t l = 0; l < n; l++)
        NAME(mix)(lists[l].target, 2 * n);
}
"""

MAIN = """
int main(void)
{
    for (int i = 0; i < 2049; i++)
        table[i] = uniform(-1, 1);
    const KernelTable *path;
    for (int place = 0; (path = evsim_kernel_path(place)); place++) {
        run_f32(path->name, &path->f32);
        run_f64(path->name, &path->f64);
    }
    return 0;
}
"""

CALL = """\
    hash = 14695981039346656037ULL;
    for (int s = 0; s < {n_sizes}; s++)
        for (int32_t kind = 0; kind < {kinds}; kind++) {{
            const int64_t n = sizes[s], room = {room};
            seed = {number} + s;
            {locals}
            {result}kernels->{name}({arguments});
            {mixed}
            {freed}
        }}
    printf("%s {name} {type} %016llx\\n", name, (unsigned long long)hash);
"""


def kernels() -> list[tuple[str, str, list[str]]]:
    """Name, type of the result and types of the arguments of all kernels."""
    text = re.sub(r"/\*.*?\*/", "", (CORE / "kernel_list.h").read_text(), flags=re.S)
    found = re.findall(r"KERNEL\((\w+),\s*(\w+),\s*\(([^()]*)\)\)", text)
    assert len(found) == text.count("KERNEL(")
    return [(name, result, [" ".join(a.split()) for a in args.split(",")]) for name, result, args in found]


def call(number: int, name: str, result: str, types: list[str], kind: str) -> str:
    """C that runs one kernel on all sizes, and prints the hash."""
    names = [f"a{i}" for i in range(len(types))]
    arguments = list(zip(names, types, strict=True))
    indexed = any(re.fullmatch(r"(const )?u?int\d+_t \*|EventList \*|const Asking \*", t) for t in types)
    # From the first list of units on, what a kernel that returns a count leaves are lists of that length.
    lists = types.index("int32_t *") if result == "int32_t" and "int32_t *" in types else len(types)
    mixed = [
        f"{RESULTS[t][0]}({a}, {RESULTS[t][1] if i < lists else 'found'});"
        for i, (a, t) in enumerate(arguments)
        if t in RESULTS
    ]
    return CALL.format(
        number=1000 * number,
        name=name,
        type=kind,
        room="n * n + 16 * n" if indexed else "6 * n",  # rows, or a tape
        n_sizes=7 if "EventList *" in types else 5,
        kinds=3 if CHOICES.intersection(types) else 1,
        locals=" ".join(LOCALS[t].format(a=a, place=types[: int(a[1:])].count(t)) for a, t in arguments),
        result="" if result == "void" else f"const {result} found = ",
        arguments=", ".join(names),
        mixed=" ".join([*mixed, *(["mix(&found, sizeof found);"] if result != "void" else [])]),
        freed=" ".join(f"free((void *){a});" for a, t in arguments if t.endswith("*") and t not in KEPT),
    )


def source() -> str:
    """The program."""
    parts = [START]
    for real, kind, struct in (("float", "f32", "KernelsFloat"), ("double", "f64", "KernelsDouble")):
        parts += [f"#define REAL {real}\n#define NAME(name) name##_{kind}\n", FOR_ONE_TYPE]
        parts += [f"static void run_{kind}(const char *name, const {struct} *kernels)\n{{\n"]
        parts += [
            call(i, *kernel, kind) for i, kernel in enumerate(kernels()) if LOCALS.keys() >= set(kernel[2])
        ]
        parts += ["}\n#undef REAL\n#undef NAME\n"]
    return "\n".join([*parts, NO_FLOWS, MAIN])


def flags() -> list[str]:
    """Compiler flags of the build."""
    return runpy.run_path(str(ROOT / "setup.py"))["FLAGS"]


def compile_c(folder: Path, *command: str) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def build(folder: Path, *command: str) -> Path:
    """The program, the kernels of which are made by a compiler with these flags after those of the build."""
    (folder / "driver.c").write_text(source())
    paths = sorted(CORE.glob("kernel_*.c"))
    compile_c(folder, *command[:1], *flags(), *command[1:], "-c", *map(str, paths))
    objects = [path.with_suffix(".o").name for path in paths]
    rest = [*command[:1], "-O1", "-ffp-contract=off", *command[1:], f"-I{CORE}", "driver.c", *objects]
    compile_c(folder, *rest, "-o", "driver", "-lm")
    return folder / "driver"


def beside(folder: Path, module: str, compiler: str) -> list[str]:
    """A command that does the same with the kernels of a module that is compiled already."""
    (folder / "driver.c").write_text(source())
    options = ["-O1", "-ffp-contract=off", "-fPIC", "-shared", f"-I{CORE}"]
    compile_c(folder, compiler, *options, "driver.c", "-o", "driver")
    program = (
        "import ctypes; ctypes.CDLL({!r}, ctypes.RTLD_GLOBAL); lib = ctypes.CDLL({!r}); lib.main(); "
        "ctypes.CDLL(None).fflush(None)"
    )
    return [sys.executable, "-c", program.format(module, str(folder / "driver"))]


def hashes(*command: str | Path) -> dict[str, dict[str, str]]:
    """What the program prints: by path, hash by kernel and float type."""
    found: dict[str, dict[str, str]] = {}
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    for path, kernel, kind, value in map(str.split, done.stdout.splitlines()):
        found.setdefault(path, {})[f"{kernel} {kind}"] = value
    return found


if __name__ == "__main__":
    print(source())
